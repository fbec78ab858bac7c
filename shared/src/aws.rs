//! HTTPS to AWS's endpoints: the region, the credentials that Lambda sets, and Amazon's authorities.
//! Twilio's client takes its TLS stack and its pool from here.

use aws_config::{
    BehaviorVersion, Region, SdkConfig, environment::EnvironmentVariableCredentialsProvider,
};
use aws_credential_types::provider::SharedCredentialsProvider;
use aws_smithy_http_client::{
    Builder,
    tls::{Provider, TlsContext, TrustStore, rustls_provider::CryptoMode},
};
use aws_smithy_runtime_api::client::http::SharedHttpClient;

use crate::{
    config::{self, Env},
    store::CertFile,
};

/// The TLS stack that the stores use too.
pub(crate) const TLS: Provider = Provider::Rustls(CryptoMode::AwsLc);

/// A connection may die while the function is frozen. That shows only after a message was written
/// to it, and its outcome is unknown. So no connection to a provider is kept.
pub(crate) const KEPT_CONNECTIONS: usize = 0;

/// The authorities that sign for AWS's endpoints, Amazon Trust Services:
/// <https://www.amazontrust.com/repository/>. None expires before 2037.
const AUTHORITIES: &str = include_str!("aws/amazon-trust-services.pem");

/// The SDK's configuration for a service. Reads `AWS_REGION` and the variable that names the
/// service's endpoint. The credentials are those of the process's environment at each call, where
/// Lambda puts them.
///
/// The SDK's own loader brings a client for every other source of credentials and, for HTTPS, reads
/// all authorities of the system; docs/performance.md has what that costs.
pub(crate) fn config(env: &Env, endpoint: &'static str) -> Result<SdkConfig, config::Error> {
    let credentials = EnvironmentVariableCredentialsProvider::new();
    let mut config = SdkConfig::builder()
        .behavior_version(BehaviorVersion::latest())
        .region(Region::new(env.required("AWS_REGION")?.to_owned()))
        .credentials_provider(SharedCredentialsProvider::new(credentials))
        .http_client(https(env)?);
    config.set_endpoint_url(env.text(endpoint).map(str::to_owned));
    Ok(config.build())
}

/// A client that trusts Amazon's authorities, and those of the file that `SSL_CERT_FILE` names.
fn https(env: &Env) -> Result<SharedHttpClient, config::Error> {
    let mut authorities = TrustStore::empty().with_pem_certificate(AUTHORITIES);
    if let Some(file) = CertFile::from_env(env)? {
        authorities.add_pem_certificate(file.pem);
    }
    let context = TlsContext::builder()
        .with_trust_store(authorities)
        .build()
        .map_err(|error| config::Error::invalid(CertFile::NAME, error.to_string()))?;
    Ok(Builder::new()
        .pool_max_idle_per_host(KEPT_CONNECTIONS)
        .tls_provider(TLS)
        .tls_context(context)
        .build_https())
}

#[cfg(test)]
mod tests {
    use rustls::{
        RootCertStore,
        pki_types::{CertificateDer, pem::PemObject},
    };
    use webpki_roots::TLS_SERVER_ROOTS;

    use super::*;

    #[test]
    fn every_authority_is_amazons_and_on_mozillas_list() {
        let mut authorities = RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(AUTHORITIES.as_bytes()) {
            authorities.add(certificate.unwrap()).unwrap();
        }
        assert_eq!(authorities.len(), 5);
        for authority in &authorities.roots {
            let name = String::from_utf8_lossy(&authority.subject);
            let is_amazons =
                name.contains("Amazon Root CA ") || name.contains("Starfield Services Root");
            assert!(is_amazons && TLS_SERVER_ROOTS.contains(authority), "{name}");
        }
    }
}
