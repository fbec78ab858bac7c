//! TLS in front of the tests' stores, with certificates of the test's own making.

use std::{path::Path, sync::Arc};

use rcgen::{CertificateParams, Issuer, KeyPair};
use tempfile::NamedTempFile;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional},
    net::{TcpListener, TcpStream},
};
use tokio_rustls::{
    TlsAcceptor,
    rustls::{ServerConfig, crypto::aws_lc_rs, pki_types::PrivateKeyDer},
};

/// Signs certificates.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    file: NamedTempFile,
}

/// Speaks TLS on one side and plain text with a store on the other.
pub struct TlsProxy {
    port: u16,
}

impl Authority {
    pub fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let certificate = params.self_signed(&key).unwrap();
        let file = NamedTempFile::new().unwrap();
        std::fs::write(file.path(), certificate.pem()).unwrap();
        Self {
            issuer: Issuer::new(params, key),
            file,
        }
    }

    /// Its own certificate, for `SSL_CERT_FILE`.
    pub fn file(&self) -> &Path {
        self.file.path()
    }

    fn server_config(&self, name: &str) -> ServerConfig {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
        ServerConfig::builder_with_provider(aws_lc_rs::default_provider().into())
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate.der().clone()], key)
            .unwrap()
    }
}

impl Default for Authority {
    fn default() -> Self {
        Self::new()
    }
}

impl TlsProxy {
    /// In front of the provider at `target`, as a server of this name.
    pub async fn before_provider(target: &str, authority: &Authority, name: &str) -> Self {
        Self::start(target, authority, name, false).await
    }

    /// In front of Redis at `target`, as a server of this name.
    pub async fn before_redis(target: &str, authority: &Authority, name: &str) -> Self {
        Self::start(target, authority, name, false).await
    }

    /// In front of Postgres, whose clients ask for TLS in plain text first.
    pub async fn before_postgres(target: &str, authority: &Authority, name: &str) -> Self {
        Self::start(target, authority, name, true).await
    }

    /// `localhost`, and its port.
    pub fn address(&self) -> String {
        format!("localhost:{}", self.port)
    }

    async fn start(target: &str, authority: &Authority, name: &str, asks_first: bool) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let acceptor = TlsAcceptor::from(Arc::new(authority.server_config(name)));
        let target = target.to_owned();
        tokio::spawn(async move {
            while let Ok((mut client, _)) = listener.accept().await {
                let (acceptor, target) = (acceptor.clone(), target.clone());
                tokio::spawn(async move {
                    if asks_first {
                        let mut request = [0; 8];
                        client.read_exact(&mut request).await?;
                        client.write_all(b"S").await?;
                    }
                    let mut client = acceptor.accept(client).await?;
                    let mut server = TcpStream::connect(&target).await?;
                    copy_bidirectional(&mut client, &mut server).await
                });
            }
        });
        Self { port }
    }
}
