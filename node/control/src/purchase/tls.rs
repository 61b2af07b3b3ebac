//! The server's certificate, which is read again when its files change.

use std::{
    fs, io,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::{sync::watch, time::MissedTickBehavior};
use tokio_rustls::{
    TlsAcceptor,
    rustls::{
        self, ServerConfig,
        crypto::ring,
        pki_types::{CertificateDer, PrivateKeyDer, pem, pem::PemObject as _},
        server::{ClientHello, ResolvesServerCert},
        sign::CertifiedKey,
    },
};
use weir_config::Shared;

/// How often the files are looked at.
const LOOK_INTERVAL: Duration = Duration::from_secs(2);

/// Why a certificate cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    /// The file with the certificates.
    #[error("cannot read certificates from {path}: {reason}. See purchase.certificate_file")]
    Certificates {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The file with the key.
    #[error("cannot read a key from {path}: {reason}. See purchase.certificate_key_file")]
    Key {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The two do not belong together.
    #[error(
        "the key in {key} is not the one of the certificate in {certificates}. Fix: name the files \
         of one certificate in purchase.certificate_file and purchase.certificate_key_file"
    )]
    Mismatch {
        /// The file with the certificates.
        certificates: PathBuf,
        /// The file with the key.
        key: PathBuf,
    },
    /// TLS cannot be had.
    #[error("cannot speak TLS: {0}")]
    Tls(#[from] rustls::Error),
}

/// The certificate in force. New connections get the newest.
#[derive(Debug)]
pub(super) struct Certificate {
    files: [PathBuf; 2],
    current: Shared<Arc<CertifiedKey>>,
    /// What the files were like when they were last looked at.
    seen: Mutex<Option<[Stamp; 2]>>,
    config: Arc<ServerConfig>,
}

/// What changes when a file does.
type Stamp = (u64, u64, i64, i64, u64);

#[derive(Debug)]
struct Newest(Shared<Arc<CertifiedKey>>);

impl ResolvesServerCert for Newest {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.0.get()))
    }
}

impl Certificate {
    /// Reads the certificate and its key.
    pub(super) fn load(certificates: &str, key: &str) -> Result<Arc<Self>, CertificateError> {
        let files = [certificates, key].map(PathBuf::from);
        let seen = Mutex::new(stamps(&files).ok());
        let current = Shared::from(Arc::new(read(&files)?));
        let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_cert_resolver(Arc::new(Newest(current.clone())));
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Arc::new(Self { files, current, seen, config: Arc::new(config) }))
    }

    pub(super) fn acceptor(&self) -> TlsAcceptor {
        TlsAcceptor::from(Arc::clone(&self.config))
    }

    /// Reads the files again when they change, until `stopped` says so.
    pub(super) async fn follow(self: Arc<Self>, mut stopped: watch::Receiver<bool>) {
        let mut looks = tokio::time::interval(LOOK_INTERVAL);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = looks.tick() => {}
                _ = stopped.wait_for(|stopped| *stopped) => return,
            }
            let own = Arc::clone(&self);
            tokio::task::spawn_blocking(move || own.look()).await.ok();
        }
    }

    /// Reads the files again if they are not as they were. What cannot be read does not replace what
    /// is in force.
    fn look(&self) {
        let now = match stamps(&self.files) {
            Ok(now) => Some(now),
            // It is being replaced.
            Err(_) => return,
        };
        {
            let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
            if *seen == now {
                return;
            }
            *seen = now;
        }
        match read(&self.files) {
            Ok(certificate) => {
                self.current.set(Arc::new(certificate));
                tracing::info!("the certificate for purchases was read again");
            }
            Err(error) => {
                tracing::warn!("the certificate for purchases stays as it was: {error}");
            }
        }
    }
}

fn stamps(files: &[PathBuf; 2]) -> io::Result<[Stamp; 2]> {
    let stamp = |file: &Path| {
        let found = fs::metadata(file)?;
        Ok::<_, io::Error>((
            found.dev(),
            found.ino(),
            found.mtime(),
            found.mtime_nsec(),
            found.size(),
        ))
    };
    Ok([stamp(&files[0])?, stamp(&files[1])?])
}

fn read([certificates, key]: &[PathBuf; 2]) -> Result<CertifiedKey, CertificateError> {
    let bad =
        |reason: String| CertificateError::Certificates { path: certificates.clone(), reason };
    let chain = CertificateDer::pem_file_iter(certificates)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|error| bad(describe(&error)))?;
    if chain.is_empty() {
        return Err(bad("there are none in it".into()));
    }
    let bad_key = |reason: String| CertificateError::Key { path: key.clone(), reason };
    let secret = PrivateKeyDer::from_pem_file(key).map_err(|error| bad_key(describe(&error)))?;
    let signer =
        ring::sign::any_supported_type(&secret).map_err(|error| bad_key(error.to_string()))?;
    let certified = CertifiedKey::new(chain, signer);
    match certified.keys_match() {
        Ok(()) | Err(rustls::Error::InconsistentKeys(rustls::InconsistentKeys::Unknown)) => {
            Ok(certified)
        }
        Err(rustls::Error::InconsistentKeys(_)) => {
            Err(CertificateError::Mismatch { certificates: certificates.clone(), key: key.clone() })
        }
        Err(error) => Err(bad(error.to_string())),
    }
}

fn describe(error: &pem::Error) -> String {
    match error {
        pem::Error::Io(error) => error.to_string(),
        pem::Error::NoItemsFound => "there is none in it".into(),
        error => format!("it is not PEM ({error})"),
    }
}
