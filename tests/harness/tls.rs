//! TLS in front of the tests' stores, with certificates of the test's own making.

use std::{
    ops::Range,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use rcgen::{CertificateParams, DnType, Issuer, KeyPair, date_time_ymd};
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

/// A server's certificate and its key.
pub struct Certificate {
    certificate: rcgen::Certificate,
    key: KeyPair,
}

/// Speaks TLS on one side and plain text with a store on the other.
pub struct TlsProxy {
    port: u16,
    sessions: Arc<AtomicUsize>,
}

impl Authority {
    pub fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        // Of a name that no other authority has.
        let name = format!("authority {}", crate::random_number());
        params.distinguished_name.push(DnType::CommonName, name);
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

    /// Signs a certificate for a server of this name, which is valid in every year.
    pub fn certify(&self, name: &str) -> Certificate {
        self.certify_for(name, 2000..3000)
    }

    /// The same for some years.
    pub fn certify_for(&self, name: &str, years: Range<i32>) -> Certificate {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        params.not_before = date_time_ymd(years.start, 1, 1);
        params.not_after = date_time_ymd(years.end, 1, 1);
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        Certificate { certificate, key }
    }
}

impl Default for Authority {
    fn default() -> Self {
        Self::new()
    }
}

impl Certificate {
    /// The certificate and its key in PEM.
    pub fn pem(&self) -> (String, String) {
        (self.certificate.pem(), self.key.serialize_pem())
    }

    fn server_config(&self) -> ServerConfig {
        let key = PrivateKeyDer::try_from(self.key.serialize_der()).unwrap();
        ServerConfig::builder_with_provider(aws_lc_rs::default_provider().into())
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![self.certificate.der().clone()], key)
            .unwrap()
    }
}

impl TlsProxy {
    /// In front of the provider at `target`.
    pub async fn before_provider(target: &str, certificate: &Certificate) -> Self {
        Self::start(target, certificate, false).await
    }

    /// In front of Redis at `target`.
    pub async fn before_redis(target: &str, certificate: &Certificate) -> Self {
        Self::start(target, certificate, false).await
    }

    /// In front of Postgres, whose clients ask for TLS in plain text first.
    pub async fn before_postgres(target: &str, certificate: &Certificate) -> Self {
        Self::start(target, certificate, true).await
    }

    /// `localhost`, and its port.
    pub fn address(&self) -> String {
        format!("localhost:{}", self.port)
    }

    /// The number of clients that trusted it. From no other it hears a word.
    pub fn sessions(&self) -> usize {
        self.sessions.load(Ordering::SeqCst)
    }

    async fn start(target: &str, certificate: &Certificate, asks_first: bool) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let acceptor = TlsAcceptor::from(Arc::new(certificate.server_config()));
        let sessions = Arc::<AtomicUsize>::default();
        let counter = Arc::clone(&sessions);
        let target = target.to_owned();
        tokio::spawn(async move {
            while let Ok((mut client, _)) = listener.accept().await {
                let (acceptor, target) = (acceptor.clone(), target.clone());
                let counter = Arc::clone(&counter);
                tokio::spawn(async move {
                    client.set_nodelay(true)?;
                    if asks_first {
                        let mut request = [0; 8];
                        client.read_exact(&mut request).await?;
                        client.write_all(b"S").await?;
                    }
                    let mut client = acceptor.accept(client).await?;
                    counter.fetch_add(1, Ordering::SeqCst);
                    let mut server = TcpStream::connect(&target).await?;
                    server.set_nodelay(true)?;
                    copy_bidirectional(&mut client, &mut server).await
                });
            }
        });
        Self { port, sessions }
    }
}
