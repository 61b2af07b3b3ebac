use std::net::SocketAddr;

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
};
use tokio_rustls::{
    TlsAcceptor,
    rustls::{
        RootCertStore, ServerConfig,
        crypto::ring,
        pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer},
    },
};

use super::*;

/// A server that answers each connection with these bytes, and then keeps it open or not.
async fn server(answer: Vec<u8>, keeps: bool) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("bound");
    let address = listener.local_addr().expect("an address");
    tokio::spawn(async move {
        let mut open = Vec::new();
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut some = [0; 4096];
            if stream.read(&mut some).await.is_ok()
                && stream.write_all(&answer).await.is_ok()
                && keeps
            {
                open.push(stream);
            }
        }
    });
    address
}

async fn ask(http: &Http, url: &str) -> Result<Answer, NoAnswer> {
    let url: HttpUrl = url.parse().expect("a URL");
    http.ask(Method::GET, &url, &[("accept", "application/json")], Vec::new()).await
}

#[tokio::test]
async fn an_answer_is_read_to_its_end_and_a_longer_one_is_lost() {
    let body = "a".repeat(1000);
    let good = format!("HTTP/1.1 402 Pay\r\nX-Cashu: creq\r\nContent-Length: 1000\r\n\r\n{body}");
    let address = server(good.into_bytes(), true).await;
    let answer = ask(&Http::default(), &format!("http://{address}/v1/keys?a=b")).await;
    let answer = answer.expect("an answer");
    assert_eq!((answer.status.as_u16(), answer.body.len()), (402, 1000));
    assert_eq!(answer.headers.get("x-cashu").map(|it| it.as_bytes()), Some(&b"creq"[..]));
    assert!(answer.excerpt().starts_with("402 Payment Required: aaa"), "{}", answer.excerpt());
    let long = format!("HTTP/1.1 200 OK\r\nContent-Length: {0}\r\n\r\n", MAX_ANSWER + 1);
    let long = [long.into_bytes(), vec![b'a'; MAX_ANSWER + 1]].concat();
    let address = server(long, true).await;
    let lost = ask(&Http::default(), &format!("http://{address}/")).await.expect_err("too long");
    assert!(matches!(lost, NoAnswer::Lost(_)), "{lost}");
}

#[tokio::test]
async fn what_did_not_arrive_is_told_from_what_was_not_answered() {
    let closed = TcpListener::bind("127.0.0.1:0").await.expect("bound");
    let address = closed.local_addr().expect("an address");
    drop(closed);
    let error = ask(&Http::default(), &format!("http://{address}/")).await.expect_err("closed");
    assert!(matches!(error, NoAnswer::NotSent(_)), "{error}");
    assert!(error.to_string().starts_with(&format!("cannot reach {address}")), "{error}");
    let address = server(Vec::new(), false).await;
    let error = ask(&Http::default(), &format!("http://{address}/")).await.expect_err("cut");
    assert!(matches!(error, NoAnswer::Lost(_)), "{error}");
    let address = server(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nab".to_vec(), true).await;
    let http = Http::default().with_timeout(Duration::from_millis(200));
    let error = ask(&http, &format!("http://{address}/")).await.expect_err("never complete");
    assert!(matches!(error, NoAnswer::Lost(_)), "{error}");
}

#[tokio::test]
async fn over_tls_only_the_named_host_with_a_known_root_is_asked() {
    let made = rcgen::generate_simple_self_signed(vec!["mint.example".to_owned()]);
    let made = made.expect("a certificate");
    let (certificate, key) = (made.cert.der().clone(), made.signing_key.serialize_der());
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key));
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_no_client_auth()
        .with_single_cert(vec![certificate.clone()], key)
        .expect("a certificate");
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("bound");
    let address = listener.local_addr().expect("an address");
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let Ok(mut stream) = acceptor.accept(stream).await else { continue };
            let mut some = [0; 4096];
            if stream.read(&mut some).await.is_ok() {
                let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
                drop(stream.write_all(answer).await);
                drop(stream.flush().await);
            }
        }
    });
    let mut roots = RootCertStore::empty();
    roots.add(certificate).expect("a root");
    // Its name leads here, as a consumer's own resolver would say.
    let http = Http::through(Arc::new(To(address)));
    let known = http.clone().with_tls(Tls::trusting(roots).expect("TLS"));
    let answer = ask(&known, "https://mint.example/").await.expect("an answer");
    assert_eq!(&answer.body[..], b"ok");
    let other = ask(&known, "https://other.example/").await.expect_err("another name");
    assert!(matches!(other, NoAnswer::NotSent(_)), "{other}");
    let unknown = http.with_tls(Tls::trusting(RootCertStore::empty()).expect("TLS"));
    let error = ask(&unknown, "https://mint.example/").await.expect_err("an unknown root");
    assert!(matches!(error, NoAnswer::NotSent(_)), "{error}");
}

/// Connects to one address whatever the name.
#[derive(Debug)]
struct To(SocketAddr);

impl Dial for To {
    fn dial<'a>(&'a self, _: &'a str, _: u16) -> Dialed<'a> {
        Box::pin(TcpStream::connect(self.0))
    }
}
