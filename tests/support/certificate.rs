//! A certificate of a test's own, and clients that trust it.

use std::{io, net::SocketAddr, path::Path, sync::Arc};

use rustls::{
    ClientConfig, RootCertStore,
    crypto::ring,
    pki_types::{CertificateDer, ServerName},
};
use tokio::net::TcpStream;
use tokio_rustls::{TlsConnector, client::TlsStream};

/// A certificate and its key, in files that the server reads.
pub struct Issued {
    folder: tempfile::TempDir,
    pub der: CertificateDer<'static>,
}

impl Issued {
    pub fn fresh() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let der = write(folder.path());
        Self { folder, der }
    }

    /// Another one takes its place.
    pub fn renew(&mut self) {
        self.der = write(self.folder.path());
    }

    pub fn cert(&self) -> String {
        self.path("tls.crt")
    }

    pub fn key(&self) -> String {
        self.path("tls.key")
    }

    fn path(&self, name: &str) -> String {
        self.folder.path().join(name).display().to_string()
    }

    /// What makes a server use it.
    pub fn arguments(&self) -> [String; 4] {
        ["--tls-cert".into(), self.cert(), "--tls-key".into(), self.key()]
    }

    /// Shakes hands with a server that has it.
    pub async fn connect(
        &self,
        address: SocketAddr,
        protocols: &[&str],
    ) -> io::Result<TlsStream<TcpStream>> {
        let mut roots = RootCertStore::empty();
        roots.add(self.der.clone()).expect("a root");
        let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()));
        let config = config.with_safe_default_protocol_versions().expect("versions");
        let mut config = config.with_root_certificates(roots).with_no_client_auth();
        config.alpn_protocols = protocols.iter().map(|name| name.as_bytes().to_vec()).collect();
        let name = ServerName::try_from("localhost").expect("a name");
        let socket = TcpStream::connect(address).await?;
        TlsConnector::from(Arc::new(config)).connect(name, socket).await
    }
}

/// Writes a self-signed certificate of this machine, `tls.crt`, and its key, `tls.key`.
pub fn write(folder: &Path) -> CertificateDer<'static> {
    let names = ["localhost".to_owned(), "127.0.0.1".to_owned()];
    let issued = rcgen::generate_simple_self_signed(names).expect("a certificate");
    std::fs::write(folder.join("tls.crt"), issued.cert.pem()).expect("a file");
    std::fs::write(folder.join("tls.key"), issued.signing_key.serialize_pem()).expect("a file");
    issued.cert.der().clone()
}
