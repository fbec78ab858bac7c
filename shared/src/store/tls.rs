//! The authorities that the stores' certificates are verified against.
//!
//! They are compiled in, in the form that rustls takes: a start neither reads nor parses any.

use std::fs;

use rustls::{
    ClientConfig, RootCertStore,
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, Der, TrustAnchor, pem::PemObject},
};
use tokio_postgres::config::Host;
use webpki_roots::TLS_SERVER_ROOTS;

use crate::config::{self, Env};

/// Amazon's authorities for RDS, which no public list has.
///
/// Source: <https://truststore.pki.rds.amazonaws.com/global/global-bundle.pem>, as of 2024; its
/// newest region is ap-southeast-4. Replacing the file is enough: `build.rs` makes [`RDS`] of it.
pub(super) const RDS_PEM: &str = include_str!("rds-global-bundle.pem");

include!(concat!(env!("OUT_DIR"), "/rds.rs"));

/// The authorities of the file that `SSL_CERT_FILE` names. For the stores they replace all others.
pub(crate) struct CertFile {
    pub pem: Vec<u8>,
    roots: RootCertStore,
}

impl CertFile {
    pub const NAME: &str = "SSL_CERT_FILE";

    /// Reads `SSL_CERT_FILE`, and the file.
    pub fn from_env(env: &Env) -> Result<Option<Self>, config::Error> {
        let Some(path) = env.text(Self::NAME) else {
            return Ok(None);
        };
        let invalid = |reason: &str| config::Error::invalid(Self::NAME, reason);
        let pem = fs::read(path).map_err(|_| invalid("names a file that cannot be read"))?;
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(&pem) {
            let added = certificate.is_ok_and(|certificate| roots.add(certificate).is_ok());
            if !added {
                return Err(invalid("names a file with a malformed certificate"));
            }
        }
        if roots.is_empty() {
            return Err(invalid("names a file without a certificate"));
        }
        Ok(Some(Self { pem, roots }))
    }
}

/// TLS to Postgres. It verifies the server's chain and name.
pub(super) fn to_postgres(env: &Env, hosts: &[Host]) -> Result<ClientConfig, config::Error> {
    let roots = match CertFile::from_env(env)? {
        Some(file) => file.roots,
        None => roots_for(hosts),
    };
    let builder = ClientConfig::builder_with_provider(aws_lc_rs::default_provider().into())
        .with_safe_default_protocol_versions()
        .map_err(|error| config::Error::invalid("DATABASE_URL", error.to_string()))?;
    Ok(builder.with_root_certificates(roots).with_no_client_auth())
}

/// The public authorities, and for hosts of RDS Amazon's own: an RDS Proxy has a public
/// certificate, an instance or a cluster a private one.
fn roots_for(hosts: &[Host]) -> RootCertStore {
    let rds: &[_] = if hosts.iter().any(is_rds) { &RDS } else { &[] };
    TLS_SERVER_ROOTS.iter().chain(rds).cloned().collect()
}

/// Tells if a host is one of RDS. The authorities for RDS are trusted for no other.
pub(super) fn is_rds(host: &Host) -> bool {
    const DOMAINS: [&str; 2] = [".rds.amazonaws.com", ".rds.amazonaws.com.cn"];
    let Host::Tcp(name) = host else { return false };
    let name = name.to_ascii_lowercase();
    DOMAINS.iter().any(|domain| name.ends_with(domain))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn roots_for(host: &str) -> RootCertStore {
        super::roots_for(&[Host::Tcp(host.into())])
    }

    #[test]
    fn every_certificate_of_the_bundle_is_an_authority() {
        let mut bundle = RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(RDS_PEM.as_bytes()) {
            bundle.add(certificate.unwrap()).unwrap();
        }
        assert_eq!(bundle.len(), RDS_PEM.matches("BEGIN CERTIFICATE").count());
        assert!(bundle.roots == RDS);
    }

    #[test]
    fn the_authorities_for_rds_are_trusted_for_rds_alone() {
        for host in [
            "otp.abcdefghijkl.us-east-1.rds.amazonaws.com",
            "otp.cluster-abcdefghijkl.eu-central-1.RDS.amazonaws.com",
            "otp.abcdefghijkl.rds.cn-north-1.rds.amazonaws.com.cn",
        ] {
            let roots = roots_for(host).roots;
            let (public, rds) = roots.split_at(TLS_SERVER_ROOTS.len());
            assert!(public == TLS_SERVER_ROOTS && rds == RDS, "{host}");
        }
        for host in [
            "db.example.com",
            "rds.amazonaws.com",
            "evilrds.amazonaws.com",
            "a.rds.amazonaws.com.example.com",
            "otp.abcdef.use1.cache.amazonaws.com",
        ] {
            assert!(roots_for(host).roots == TLS_SERVER_ROOTS, "{host}");
        }
    }

    /// RDS Proxy and ElastiCache have certificates of Amazon Trust Services.
    #[test]
    fn the_public_authorities_include_amazons() {
        for name in [
            "Amazon Root CA 1",
            "Amazon Root CA 4",
            "Starfield Services Root",
        ] {
            let is_of = |anchor: &TrustAnchor| {
                let subject = String::from_utf8_lossy(&anchor.subject);
                subject.contains(name)
            };
            assert!(TLS_SERVER_ROOTS.iter().any(is_of), "{name}");
        }
    }

    #[test]
    fn a_bad_file_is_refused_and_not_quoted() {
        let folder = std::env::temp_dir().join(crate::random::id());
        fs::create_dir(&folder).unwrap();
        let refused = |content: &str| {
            let path = folder.join("file");
            fs::write(&path, content).unwrap();
            let env = Env::from([(CertFile::NAME, path.to_str().unwrap())]);
            let refused = CertFile::from_env(&env)
                .err()
                .map(|error| error.to_string());
            refused.unwrap()
        };
        let malformed = "-----BEGIN CERTIFICATE-----\naHVudGVyMg==\n-----END CERTIFICATE-----\n";
        assert_eq!(
            refused(malformed),
            "SSL_CERT_FILE names a file with a malformed certificate"
        );
        assert_eq!(
            refused("hunter2"),
            "SSL_CERT_FILE names a file without a certificate"
        );
        fs::remove_dir_all(folder).unwrap();
        let env = Env::from([(CertFile::NAME, "/no/such/file")]);
        assert_eq!(
            CertFile::from_env(&env).err().unwrap().to_string(),
            "SSL_CERT_FILE names a file that cannot be read"
        );
    }
}
