//! The listener with a certificate.

use tokio_rustls::{
    TlsConnector,
    rustls::{ClientConfig, RootCertStore, crypto::ring, pki_types::ServerName},
};

use super::*;
use crate::purchase::tls::{Certificate, CertificateError};

/// Writes a certificate of its own and its key, and returns the paths.
fn write(folder: &Path, name: &str) -> [String; 2] {
    let made = rcgen::generate_simple_self_signed(vec![NAME.to_owned()]).expect("made");
    let paths = ["pem", "key"].map(|ending| folder.join(format!("{name}.{ending}")));
    std::fs::write(&paths[0], made.cert.pem()).expect("written");
    std::fs::write(&paths[1], made.signing_key.serialize_pem()).expect("written");
    paths.map(|path| path.to_str().expect("a path").to_owned())
}

/// Asks for the description over TLS, and believes only this certificate.
async fn describe(address: SocketAddr, pem: &str) -> io::Result<u16> {
    use tokio_rustls::rustls::pki_types::{CertificateDer, pem::PemObject as _};
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(pem).expect("PEM")).expect("a certificate");
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_root_certificates(roots)
        .with_no_client_auth();
    let stream = TcpStream::connect(address).await?;
    let name = ServerName::try_from(NAME).expect("a name");
    let stream = TlsConnector::from(Arc::new(config)).connect(name, stream).await?;
    Ok(exchange(stream, "GET /info HTTP/1.1\r\nHost: x\r\n", "").await.0)
}

#[tokio::test]
async fn a_new_certificate_is_taken_without_a_restart_and_a_bad_one_is_not() {
    let folder = tempfile::tempdir().expect("a folder");
    let exit = Exit::open(&folder.path().join("state"), 1000).await;
    let [first, first_key] = write(folder.path(), "first");
    let [second, second_key] = write(folder.path(), "second");
    let [live, live_key] = ["live.pem", "live.key"].map(|name| folder.path().join(name));
    let replace = |from: &str, to: &Path| {
        let new = to.with_extension("new");
        std::fs::copy(from, &new).expect("copied");
        std::fs::rename(new, to).expect("replaced");
    };
    replace(&first, &live);
    replace(&first_key, &live_key);
    let paths = [&live, &live_key].map(|path| path.to_str().expect("a path"));
    let certificate = Certificate::load(paths[0], paths[1]).expect("read");
    let (address, _stop) = serve(&exit.shop, Some(certificate), Vec::new()).await;
    assert_eq!(describe(address, &first).await.expect("answered"), 200);
    assert!(describe(address, &second).await.is_err(), "it is another one");

    // Half of the change: what is in force stays.
    replace(&second, &live);
    let mut looks = tokio::time::interval(std::time::Duration::from_millis(100));
    for _ in 0..30 {
        looks.tick().await;
        assert_eq!(describe(address, &first).await.expect("answered"), 200);
    }
    replace(&second_key, &live_key);
    while describe(address, &second).await.is_err() {
        looks.tick().await;
    }
    assert!(describe(address, &first).await.is_err());
}

#[test]
fn what_is_no_certificate_is_named() {
    let folder = tempfile::tempdir().expect("a folder");
    let [first, first_key] = write(folder.path(), "first");
    let [_, second_key] = write(folder.path(), "second");
    let load =
        |certificates: &str, key: &str| Certificate::load(certificates, key).expect_err("refused");
    assert!(matches!(load(&first, &second_key), CertificateError::Mismatch { .. }));
    assert!(matches!(load(&first_key, &first_key), CertificateError::Certificates { .. }));
    assert!(matches!(load(&first, &first), CertificateError::Key { .. }));
    assert!(matches!(load("/nowhere", &first_key), CertificateError::Certificates { .. }));
    Certificate::load(&first, &first_key).expect("they belong together");
}
