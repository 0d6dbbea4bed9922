//! The server's certificate: read at the start, and again whenever its files change.

use std::{
    fs,
    hash::{BuildHasher, RandomState},
    io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use metrics::gauge;
use rustls::{
    InconsistentKeys, ServerConfig,
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
};
use tokio::{sync::watch, task::spawn_blocking, time::sleep};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::config::TlsArgs;

/// HTTP/2 as TLS names it (ALPN).
pub(crate) const HTTP2: &[u8] = b"h2";

/// How often the files are looked at.
const LOOK: Duration = Duration::from_secs(2);

/// Why there is no certificate.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file can't be had.
    #[error("{option} {}: {error}", path.display())]
    Unread {
        /// Which of the two.
        option: &'static str,
        /// Where it should be.
        path: PathBuf,
        /// Why not.
        error: io::Error,
    },
    /// It holds something else.
    #[error("{option} {}: there is no {what} in it, as PEM has it", path.display())]
    Absent {
        /// Which of the two.
        option: &'static str,
        /// Where it is.
        path: PathBuf,
        /// What it should hold.
        what: &'static str,
    },
    /// They are each other's strangers.
    #[error("the key in {} is not that of the first certificate in {}", key.display(), cert.display())]
    Mismatch {
        /// The certificate's file.
        cert: PathBuf,
        /// The key's.
        key: PathBuf,
    },
    /// They can't be used.
    #[error("the certificate in {} or its key can't be used: {error}", cert.display())]
    Unusable {
        /// The certificate's file.
        cert: PathBuf,
        /// Why not.
        error: rustls::Error,
    },
}

/// What clients in this process encrypt with, who bring nothing of their own.
pub(crate) fn provide() {
    // An error means that the process has a provider already, which serves as well.
    let _ = ring::default_provider().install_default();
}

/// Where certificate and key are.
#[derive(Debug)]
struct Files {
    cert: PathBuf,
    key: PathBuf,
}

/// What is in them.
#[derive(Hash)]
struct Pem {
    cert: Vec<u8>,
    key: Vec<u8>,
}

/// The certificate's files, and what of them was looked at.
#[derive(Debug)]
pub(crate) struct Certificate {
    files: Files,
    hasher: RandomState,
    /// What was last used, or told to be of no use.
    judged: u64,
    /// What the last look found.
    seen: u64,
}

impl Certificate {
    /// That which the arguments name, if they name one, and how connections are encrypted with it.
    pub(crate) fn load(args: &TlsArgs) -> Result<Option<(Self, Arc<ServerConfig>)>, TlsError> {
        let (Some(cert), Some(key)) = (args.tls_cert.clone(), args.tls_key.clone()) else {
            return Ok(None);
        };
        let files = Files { cert, key };
        let pem = files.read()?;
        let config = files.config(&pem)?;
        let hasher = RandomState::new();
        let found = fingerprint(&hasher, &Ok(pem));
        Ok(Some((Self { files, hasher, judged: found, seen: found }, config)))
    }

    /// Looks at the files now and then, until `stop`. What they come to hold is used for whoever
    /// connects from then on; of what is of no use is told once, and what was used before stays.
    pub(crate) async fn renew(
        mut self,
        used: watch::Sender<Arc<ServerConfig>>,
        stop: CancellationToken,
    ) {
        while stop.run_until_cancelled(sleep(LOOK)).await.is_some() {
            let look = spawn_blocking(move || {
                let new = self.look();
                (self, new)
            });
            let Ok((certificate, new)) = look.await else { return };
            self = certificate;
            match new {
                None => {}
                Some(Ok(config)) => {
                    used.send_replace(config);
                    gauge!("fhirtail_tls_certificate_refused").set(0.0);
                    info!("the TLS certificate is renewed: who connects from now on gets it");
                }
                Some(Err(error)) => {
                    gauge!("fhirtail_tls_certificate_refused").set(1.0);
                    warn!(%error, "the TLS certificate can't be renewed: the old one stays");
                }
            }
        }
    }

    /// What the files hold, if that is new. They may be half written: only what two looks find
    /// alike counts.
    fn look(&mut self) -> Option<Result<Arc<ServerConfig>, TlsError>> {
        let pem = self.files.read();
        let found = fingerprint(&self.hasher, &pem);
        let settled = std::mem::replace(&mut self.seen, found) == found;
        if found == self.judged || !settled {
            return None;
        }
        self.judged = found;
        Some(pem.and_then(|pem| self.files.config(&pem)))
    }
}

fn fingerprint(hasher: &RandomState, pem: &Result<Pem, TlsError>) -> u64 {
    hasher.hash_one(pem.as_ref().map_err(ToString::to_string))
}

impl Files {
    fn read(&self) -> Result<Pem, TlsError> {
        let read = |option, path: &Path| {
            fs::read(path).map_err(|error| TlsError::Unread { option, path: path.into(), error })
        };
        Ok(Pem { cert: read("--tls-cert", &self.cert)?, key: read("--tls-key", &self.key)? })
    }

    fn config(&self, pem: &Pem) -> Result<Arc<ServerConfig>, TlsError> {
        let absent =
            |option, path: &Path, what| TlsError::Absent { option, path: path.into(), what };
        let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem.cert).collect();
        let chain = chain
            .ok()
            .filter(|chain| !chain.is_empty())
            .ok_or_else(|| absent("--tls-cert", &self.cert, "certificate"))?;
        let key = PrivateKeyDer::from_pem_slice(&pem.key)
            .map_err(|_| absent("--tls-key", &self.key, "unencrypted private key"))?;
        let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .and_then(|builder| builder.with_no_client_auth().with_single_cert(chain, key));
        let mut config = config.map_err(|error| self.unusable(error))?;
        config.alpn_protocols = vec![HTTP2.into(), b"http/1.1".into()];
        Ok(Arc::new(config))
    }

    fn unusable(&self, error: rustls::Error) -> TlsError {
        let (cert, key) = (self.cert.clone(), self.key.clone());
        match error {
            rustls::Error::InconsistentKeys(InconsistentKeys::KeyMismatch) => {
                TlsError::Mismatch { cert, key }
            }
            error => TlsError::Unusable { cert, error },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(args: &TlsArgs, cert: &str, key: &str) {
        for (path, text) in [(&args.tls_cert, cert), (&args.tls_key, key)] {
            fs::write(path.as_ref().unwrap(), text).unwrap();
        }
    }

    fn issue() -> (String, String) {
        let issued = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        (issued.cert.pem(), issued.signing_key.serialize_pem())
    }

    #[test]
    fn what_is_new_counts_once_it_has_settled_and_what_is_of_no_use_is_told_once() {
        let folder = tempfile::tempdir().unwrap();
        let [tls_cert, tls_key] = ["crt", "key"].map(|name| Some(folder.path().join(name)));
        let args = TlsArgs { tls_cert, tls_key };
        let ((cert, key), (new_cert, new_key)) = (issue(), issue());
        write(&args, &cert, &key);
        let (mut certificate, _) = Certificate::load(&args).unwrap().unwrap();
        let mut look =
            || certificate.look().map(|found| found.map(drop).map_err(|e| e.to_string()));
        assert_eq!(look(), None, "nothing is new");

        // One file, then the other: nobody hears of what was between.
        write(&args, &new_cert, &key);
        assert_eq!(look(), None, "it may change again");
        write(&args, &new_cert, &new_key);
        assert_eq!(look(), None);
        assert_eq!(look(), Some(Ok(())));
        assert_eq!((look(), look()), (None, None));

        write(&args, &cert, &new_key);
        assert_eq!(look(), None);
        assert!(look().unwrap().unwrap_err().contains("is not that of the first certificate"));
        assert_eq!((look(), look()), (None, None), "told once");
        fs::remove_file(args.tls_key.as_ref().unwrap()).unwrap();
        assert_eq!(look(), None);
        assert!(look().unwrap().unwrap_err().contains("No such file"));
        assert_eq!(look(), None);

        write(&args, &new_cert, &new_key);
        assert_eq!((look(), look()), (None, Some(Ok(()))), "it is in order again");
    }

    #[test]
    fn without_arguments_there_is_no_tls() {
        let args = TlsArgs { tls_cert: None, tls_key: None };
        assert!(Certificate::load(&args).unwrap().is_none());
    }
}
