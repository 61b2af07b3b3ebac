//! A node's own services inside the tunnel: what is left, and payments (`docs/payments.md`).

use std::{
    io,
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use anyhow::{Context as _, bail};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::{Method, Request, StatusCode, body::Bytes, client::conn::http1, header};
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use serde_json::json;
use socket2::SockRef;
use tokio::{
    net::{TcpSocket, TcpStream},
    time::timeout,
};
use weir_promise::{
    ExchangeMessage,
    account::{AccountView, AgreementRequest},
    wire::ExchangeText,
};

use crate::{pay::Left, receipt::Answer};

/// The port of payments, as `payment.port` has it by default.
pub const PORT: u16 = 8077;
/// The time for one request.
const TIMEOUT: Duration = Duration::from_secs(8);
/// The largest answer that is read, in bytes.
const MAX_ANSWER: usize = 64 * 1024;

/// What is wrong with an answer that is not understood.
const UNREADABLE: &str = "the gateway's answer cannot be read";

/// Where a node's services are.
#[derive(Clone, Debug)]
pub struct Gateway {
    address: SocketAddr,
    interface: String,
    mark: Option<u32>,
}

/// What a node answers about the session's last usage receipt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Given {
    /// It gives no receipts.
    Nothing,
    /// The answer is not one about receipts.
    Unreadable,
    /// Its key, and the receipt if there is one yet.
    Answer(Box<Answer>),
}

/// Why a payment was refused.
#[derive(Debug, Deserialize)]
struct Refusal {
    error: Reason,
}

#[derive(Debug, Deserialize)]
struct Reason {
    code: String,
    message: String,
}

impl Gateway {
    /// The services at this address, reached over this interface and no other.
    #[must_use]
    pub fn new(address: IpAddr, interface: &str) -> Self {
        let address = SocketAddr::new(address, PORT);
        Self { address, interface: interface.to_owned(), mark: None }
    }

    /// The same, reached by packets with this mark.
    #[must_use]
    pub fn marked(self, mark: u32) -> Self {
        Self { mark: Some(mark), ..self }
    }

    /// The tunnel's interface.
    #[must_use]
    pub fn interface(&self) -> &str {
        &self.interface
    }

    /// Its address and port.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Asks what the session has left.
    ///
    /// # Errors
    ///
    /// When there is no answer, or none of a node with this service.
    pub async fn left(&self) -> anyhow::Result<Left> {
        let answer = self.request(Method::GET, "/v1/session", None).await?;
        serde_json::from_slice(&answer).context(UNREADABLE)
    }

    /// Asks for the session's last usage receipt.
    ///
    /// # Errors
    ///
    /// When there is no answer.
    pub async fn receipt(&self) -> anyhow::Result<Given> {
        let exchange = timeout(TIMEOUT, self.exchange(Method::GET, "/v1/session/receipt", None));
        let (status, answer) = exchange.await.context("the gateway does not answer")??;
        match status {
            StatusCode::NOT_FOUND => return Ok(Given::Nothing),
            status if !status.is_success() => bail!("the gateway answers {status}"),
            _ => {}
        }
        Ok(serde_json::from_slice(&answer)
            .map_or(Given::Unreadable, |it| Given::Answer(Box::new(it))))
    }

    /// Uses a voucher.
    ///
    /// # Errors
    ///
    /// When it was refused; then it was not used.
    pub async fn give_voucher(&self, code: &str) -> anyhow::Result<()> {
        let body = json!({ "code": code }).to_string();
        self.request(Method::POST, "/v1/pay/voucher", Some(body)).await?;
        Ok(())
    }

    /// Pays with a Cashu token.
    ///
    /// # Errors
    ///
    /// When it was refused; then it is still its owner's.
    pub async fn give_token(&self, token: &str) -> anyhow::Result<()> {
        let body = json!({ "token": token }).to_string();
        self.request(Method::POST, "/v1/pay/ecash", Some(body)).await?;
        Ok(())
    }

    /// Asks how the session stands that pays as it goes, and what is due.
    ///
    /// # Errors
    ///
    /// When the node takes no promises, or there is no answer.
    pub async fn account(&self) -> anyhow::Result<AccountView> {
        let answer = self.request(Method::GET, "/v1/pay", None).await?;
        serde_json::from_slice(&answer).context(UNREADABLE)
    }

    /// Agrees to pay as the session goes.
    ///
    /// # Errors
    ///
    /// When the node refuses, or there is no answer.
    pub async fn agree(&self, request: &AgreementRequest) -> anyhow::Result<AccountView> {
        let body = serde_json::to_string(request)?;
        let answer = self.request(Method::POST, "/v1/pay/agreement", Some(body)).await?;
        serde_json::from_slice(&answer).context(UNREADABLE)
    }

    /// Pays an invoice with a promise.
    ///
    /// # Errors
    ///
    /// When it was refused; the node has the promise all the same.
    pub async fn pay_promise(&self, message: &ExchangeMessage) -> anyhow::Result<()> {
        let body = serde_json::to_string(&ExchangeText::from(message))?;
        self.request(Method::POST, "/v1/pay", Some(body)).await?;
        Ok(())
    }

    /// A connection to the services, for those who speak with them themselves.
    ///
    /// # Errors
    ///
    /// When they cannot be reached.
    pub async fn connect(&self) -> io::Result<TcpStream> {
        let socket = match self.address {
            SocketAddr::V4(_) => TcpSocket::new_v4(),
            SocketAddr::V6(_) => TcpSocket::new_v6(),
        }?;
        socket.bind_device(Some(self.interface.as_bytes()))?;
        if let Some(mark) = self.mark {
            SockRef::from(&socket).set_mark(mark)?;
        }
        socket.connect(self.address).await
    }

    async fn request(
        &self,
        method: Method,
        path: &str,
        body: Option<String>,
    ) -> anyhow::Result<Bytes> {
        let exchange = timeout(TIMEOUT, self.exchange(method, path, body));
        let (status, answer) = exchange.await.context("the gateway does not answer")??;
        if status.is_success() {
            return Ok(answer);
        }
        match serde_json::from_slice::<Refusal>(&answer) {
            Ok(Refusal { error }) => bail!("the node refuses: {} ({})", error.message, error.code),
            Err(_) => bail!("the gateway answers {status}"),
        }
    }

    async fn exchange(
        &self,
        method: Method,
        path: &str,
        body: Option<String>,
    ) -> anyhow::Result<(StatusCode, Bytes)> {
        let stream = self.connect().await.context("cannot reach the gateway")?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        // It ends with the sender, or with its error, which the answer has too.
        let connection = tokio::spawn(connection);
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::HOST, self.address.to_string())
            .header(header::CONTENT_TYPE, "application/json")
            .body(Full::new(Bytes::from(body.unwrap_or_default())))?;
        let response = sender.send_request(request).await?;
        let status = response.status();
        let read = Limited::new(response.into_body(), MAX_ANSWER).collect().await;
        connection.abort();
        let answer = read.map_err(|error| anyhow::anyhow!("cannot read the answer: {error}"))?;
        Ok((status, answer.to_bytes()))
    }
}
