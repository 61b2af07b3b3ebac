//! A consumer who pays its way, through the tunnel.

use std::{
    io::{Read as _, Write as _},
    net::{IpAddr, SocketAddr, TcpStream},
    time::Duration,
};

use alloy_primitives::{Address, U256, hex};
use anyhow::{Context as _, Result, bail, ensure};
use k256::ecdsa::SigningKey;
use serde_json::Value;
use weir_promise::{
    ExchangeMessage, Promise,
    account::{AccountView, AgreementRequest},
    signature::address_of,
    wire::{ExchangeText, InvoiceText, address},
};

use crate::{Namespace, Settings};

/// The node's address inside the tunnel.
pub const GATEWAY_V4: &str = "10.66.0.1";
/// The node's IPv6 address inside the tunnel.
pub const GATEWAY_V6: &str = "fd66:7765:6972::1";
/// The port of the configuration's default.
const PORT: u16 = 8077;
/// The node's identity in [`paid`].
const PROVIDER: Address = Address::repeat_byte(0x11);

/// Settings of a node that is paid: a wei for each byte, and nothing for time.
#[must_use]
pub fn paid() -> Settings {
    Settings::default()
        .with("payment", "enabled", "true")
        .with("payment", "provider", &format!("\"{PROVIDER}\""))
        .with("payment", "per_gib", &format!("\"{}\"", 1u64 << 30))
        .with("payment", "per_hour", "\"0\"")
}

/// Why the node did not take a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// The HTTP status.
    pub status: u16,
    /// The word.
    pub code: String,
    /// The sentence.
    pub message: String,
}

/// A consumer with a key on the chain, and what it has promised.
#[derive(Debug)]
pub struct Payer<'a> {
    namespace: &'a Namespace,
    server: SocketAddr,
    key: SigningKey,
    /// The sum of its channel's promises, to whomever.
    pub promised: U256,
    /// What it has paid this node.
    pub paid: U256,
}

impl<'a> Payer<'a> {
    /// A consumer in a namespace with a tunnel, whose channel others have had 500 wei from.
    ///
    /// # Errors
    /// If `gateway` is no address.
    pub fn new(namespace: &'a Namespace, gateway: &str) -> Result<Self> {
        let server = SocketAddr::new(gateway.parse::<IpAddr>()?, PORT);
        let key = SigningKey::from_slice(&[9; 32])?;
        Ok(Self { namespace, server, key, promised: U256::from(500), paid: U256::ZERO })
    }

    /// The same, who signs with another key.
    ///
    /// # Errors
    /// If it is no key.
    pub fn with_key(mut self, key: [u8; 32]) -> Result<Self> {
        self.key = SigningKey::from_slice(&key)?;
        Ok(self)
    }

    /// Where it is.
    #[must_use]
    pub fn namespace(&self) -> &'a Namespace {
        self.namespace
    }

    /// Its address on the chain.
    #[must_use]
    pub fn address(&self) -> Address {
        address_of(self.key.verifying_key())
    }

    /// How it stands.
    ///
    /// # Errors
    /// If the node cannot be reached or refuses.
    pub fn account(&self) -> Result<AccountView> {
        accepted(self.ask("GET", "/v1/pay", b"")?)
    }

    /// Agrees to pay at the node's price.
    ///
    /// # Errors
    /// If the node cannot be reached or refuses.
    pub fn agree(&self) -> Result<AccountView> {
        let consumer = self.address().to_string();
        let request = AgreementRequest { consumer, per_gib: None, per_hour: None };
        accepted(self.ask("POST", "/v1/pay/agreement", &serde_json::to_vec(&request)?)?)
    }

    /// Pays what is due. Gives the total that is paid then.
    ///
    /// # Errors
    /// If nothing is due, or the node cannot be reached or refuses.
    pub fn pay(&mut self) -> Result<U256> {
        let message = self.answer(&self.account()?)?;
        let after = accepted(self.send(&message)?)?;
        self.promised = message.promise.amount;
        self.paid = message.agreement_total;
        let paid = after.agreement.context("no agreement")?.paid;
        ensure!(paid == self.paid.to_string(), "paid {}, acknowledged {paid}", self.paid);
        Ok(self.paid)
    }

    /// The message that pays an account's invoice.
    ///
    /// # Errors
    /// If there is no invoice, or it is none.
    pub fn answer(&self, account: &AccountView) -> Result<ExchangeMessage> {
        let invoice: &InvoiceText = account.invoice.as_ref().context("nothing is due")?;
        let total: U256 = invoice.agreement_total.parse()?;
        let terms = account.terms.terms()?;
        let promise = Promise {
            chain_id: invoice.chain_id,
            channel_id: terms.channel_of(self.address()).into_word(),
            amount: self.promised + total.saturating_sub(self.paid),
            fee: invoice.transactor_fee.parse()?,
            hashlock: hex::decode_to_array(&invoice.hashlock)?.into(),
            signature: [0; 65],
        };
        let message = ExchangeMessage {
            promise,
            agreement_id: invoice.agreement_id.parse()?,
            agreement_total: total,
            provider: address("provider", &invoice.provider)?,
            hermes: Some(terms.hermes),
            chain_id: invoice.chain_id,
            signature: [0; 65],
        };
        self.sign(message)
    }

    /// The message with this consumer's signatures.
    ///
    /// # Errors
    /// If it cannot be signed.
    pub fn sign(&self, message: ExchangeMessage) -> Result<ExchangeMessage> {
        let promise = message.promise.signed(&self.key)?;
        Ok(ExchangeMessage { promise, ..message }.signed(&self.key)?)
    }

    /// Sends a payment, and gives the node's answer.
    ///
    /// # Errors
    /// If the node cannot be reached.
    pub fn send(&self, message: &ExchangeMessage) -> Result<Result<AccountView, Refused>> {
        self.ask("POST", "/v1/pay", &serde_json::to_vec(&ExchangeText::from(message))?)
    }

    /// Makes any request through the tunnel.
    ///
    /// # Errors
    /// If the node cannot be reached, or answers with something else than JSON.
    pub fn ask(
        &self,
        method: &str,
        path: &str,
        body: &[u8],
    ) -> Result<Result<AccountView, Refused>> {
        let timeout = Duration::from_secs(15);
        let connect = || Ok(TcpStream::connect_timeout(&self.server, timeout)?);
        let mut stream = self.namespace.enter(connect).context("cannot reach the gateway")?;
        stream.set_read_timeout(Some(timeout))?;
        let head = format!(
            "{method} {path} HTTP/1.1\r\nHost: gateway\r\nConnection: close\r\n\
             Content-Length: {}\r\n\r\n",
            body.len()
        );
        stream.write_all(&[head.as_bytes(), body].concat())?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).context("no answer")?;
        parse(&answer)
    }
}

fn parse(answer: &[u8]) -> Result<Result<AccountView, Refused>> {
    let text = std::str::from_utf8(answer)?;
    let (head, body) = text.split_once("\r\n\r\n").with_context(|| format!("cut: {text}"))?;
    let status: u16 = head.split(' ').nth(1).context("no status")?.parse()?;
    let body: Value = serde_json::from_str(body).with_context(|| format!("no JSON: {text}"))?;
    if status == 200 {
        return Ok(Ok(serde_json::from_value(body)?));
    }
    let field = |name: &str| body["error"][name].as_str().map(str::to_owned);
    let (Some(code), Some(message)) = (field("code"), field("message")) else {
        bail!("an error without its reason: {text}");
    };
    Ok(Err(Refused { status, code, message }))
}

fn accepted(answer: Result<AccountView, Refused>) -> Result<AccountView> {
    answer.map_err(|refused| anyhow::anyhow!("refused: {refused:?}"))
}
