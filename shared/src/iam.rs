//! IAM logins to Postgres and Redis: short-lived passwords instead of stored ones.
//!
//! Nothing here runs unless `DATABASE_IAM` or `REDIS_IAM` is set.

use std::{
    error::Error,
    time::{Duration, SystemTime},
};

use aws_config::environment::EnvironmentVariableCredentialsProvider;
use aws_credential_types::{
    Credentials,
    provider::{ProvideCredentials, error::CredentialsError},
};
use aws_sigv4::{
    http_request::{SignableBody, SignableRequest, SignatureLocation, SigningSettings, sign},
    sign::v4,
};
use url::Url;

use crate::config::{self, Env};

/// An IAM login to a store. Its password is a signed request, which the store passes on to AWS.
pub struct IamLogin {
    /// The request that is signed.
    request: Url,
    service: &'static str,
    region: String,
}

/// No password could be made.
#[derive(Debug, thiserror::Error)]
pub enum IamError {
    #[error("no AWS credentials")]
    NoCredentials(#[from] CredentialsError),
    #[error("cannot sign in by IAM")]
    Signing(#[source] Box<dyn Error + Send + Sync>),
}

impl IamLogin {
    /// The longest that AWS allows. A connection may outlive the password that opened it.
    const VALIDITY: Duration = Duration::from_mins(15);

    /// A login for a user of RDS or Aurora that has the role `rds_iam`. Reads `AWS_REGION`, which
    /// Lambda sets.
    pub fn to_postgres(
        env: &Env,
        host: &str,
        port: u16,
        user: &str,
    ) -> Result<Self, config::Error> {
        let parameters = [("Action", "connect"), ("DBUser", user)];
        let request = Url::parse_with_params(&format!("https://{host}:{port}/"), parameters);
        Ok(Self {
            request: request
                .map_err(|_| config::Error::invalid("DATABASE_URL", "has a host without a name"))?,
            service: "rds-db",
            region: env.required("AWS_REGION")?.to_owned(),
        })
    }

    /// A login for a user of ElastiCache that authenticates by IAM. The host must be the endpoint
    /// as AWS names it, because the cache's name is read from it. Reads `AWS_REGION`.
    pub fn to_redis(env: &Env, host: &str, user: &str) -> Result<Self, config::Error> {
        let (cache, is_serverless) = cache_of(host);
        let mut parameters = vec![("Action", "connect"), ("User", user)];
        if is_serverless {
            parameters.push(("ResourceType", "ServerlessCache"));
        }
        let request = Url::parse_with_params(&format!("https://{cache}/"), parameters);
        Ok(Self {
            request: request
                .map_err(|_| config::Error::invalid("REDIS_URL", "has a host without a name"))?,
            service: "elasticache",
            region: env.required("AWS_REGION")?.to_owned(),
        })
    }

    /// A password that opens connections for 15 minutes.
    #[expect(clippy::disallowed_methods, reason = "a signature has its time")]
    pub async fn password(&self) -> Result<String, IamError> {
        let provider = EnvironmentVariableCredentialsProvider::new();
        let credentials = provider.provide_credentials().await?;
        self.sign(credentials, SystemTime::now())
            .map_err(IamError::Signing)
    }

    /// Signs the request in its query (AWS Signature Version 4).
    fn sign(
        &self,
        credentials: Credentials,
        time: SystemTime,
    ) -> Result<String, Box<dyn Error + Send + Sync>> {
        let mut settings = SigningSettings::default();
        settings.signature_location = SignatureLocation::QueryParams;
        settings.expires_in = Some(Self::VALIDITY);
        let identity = credentials.into();
        let parameters = v4::SigningParams::builder()
            .identity(&identity)
            .region(&self.region)
            .name(self.service)
            .time(time)
            .settings(settings)
            .build()?
            .into();
        let no_body = SignableBody::Bytes(&[]);
        let request =
            SignableRequest::new("GET", self.request.as_str(), std::iter::empty(), no_body)?;
        let (signature, _) = sign(request, &parameters)?.into_parts();
        let mut signed = self.request.clone();
        signed.query_pairs_mut().extend_pairs(signature.params());
        Ok(signed.as_str()["https://".len()..].to_owned())
    }
}

/// The name in a cache's endpoint, and `true` for a serverless cache. Endpoints are
/// `NAME-SUFFIX.serverless.…`, `master.NAME.…`, `replica.NAME.…` and `clustercfg.NAME.…`.
fn cache_of(host: &str) -> (&str, bool) {
    let mut labels = host.split('.');
    let (first, second) = (labels.next().unwrap_or_default(), labels.next());
    match (first, second) {
        (_, Some("serverless")) => {
            let name = first.rsplit_once('-').map_or(first, |(name, _suffix)| name);
            (name, true)
        }
        ("master" | "replica" | "clustercfg", Some(name)) => (name, false),
        _ => (first, false),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn signed(login: Result<IamLogin, config::Error>, session: Option<&str>) -> String {
        let credentials = Credentials::new(
            "AKIDEXAMPLE",
            "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY",
            session.map(str::to_owned),
            None,
            "test",
        );
        // 2026-11-22T00:00:00Z
        let time = SystemTime::UNIX_EPOCH + Duration::from_hours(498_696);
        login.unwrap().sign(credentials, time).unwrap()
    }

    fn env() -> Env {
        Env::from([("AWS_REGION", "eu-west-1")])
    }

    /// Compares two queries whose parameters may have any order.
    fn assert_same(password: &str, expected: &str) {
        let sorted = |text: &str| {
            let mut parts: Vec<String> = text.split(['?', '&']).map(str::to_owned).collect();
            parts[1..].sort();
            parts
        };
        assert_eq!(sorted(password), sorted(expected));
    }

    #[test]
    fn a_database_password_is_the_one_that_botocore_makes() {
        let host = "db.abcdef.eu-west-1.rds.amazonaws.com";
        let login = IamLogin::to_postgres(&env(), host, 5432, "otp_app");
        assert_same(
            &signed(login, None),
            "db.abcdef.eu-west-1.rds.amazonaws.com:5432/?Action=connect&DBUser=otp_app&\
             X-Amz-Algorithm=AWS4-HMAC-SHA256&\
             X-Amz-Credential=AKIDEXAMPLE%2F20261122%2Feu-west-1%2Frds-db%2Faws4_request&\
             X-Amz-Date=20261122T000000Z&X-Amz-Expires=900&X-Amz-SignedHeaders=host&\
             X-Amz-Signature=a1e383569883f94740f3ae299e0add24f6deca86f1c2e475ced78877b1547e5f",
        );
    }

    #[test]
    fn a_cache_password_is_the_one_that_botocore_makes() {
        let host = "master.codes.abcdef.euw1.cache.amazonaws.com";
        let login = IamLogin::to_redis(&env(), host, "otp");
        assert_same(
            &signed(login, Some("FwoG+/session==")),
            "codes/?Action=connect&User=otp&X-Amz-Algorithm=AWS4-HMAC-SHA256&\
             X-Amz-Credential=AKIDEXAMPLE%2F20261122%2Feu-west-1%2Felasticache%2Faws4_request&\
             X-Amz-Date=20261122T000000Z&X-Amz-Expires=900&X-Amz-SignedHeaders=host&\
             X-Amz-Security-Token=FwoG%2B%2Fsession%3D%3D&\
             X-Amz-Signature=8e293fd6b502af6070d8e9edb40d1a11117cb432eb73082d13dbd804383391f4",
        );
    }

    #[test]
    fn a_serverless_cache_says_that_it_is_one() {
        let host = "my-codes-a1b2c3.serverless.euw1.cache.amazonaws.com";
        let password = signed(IamLogin::to_redis(&env(), host, "otp"), None);
        assert!(
            password.starts_with(
                "my-codes/?Action=connect&User=otp&ResourceType=ServerlessCache&X-Amz-"
            ),
            "{password}"
        );
    }

    #[test]
    fn every_kind_of_endpoint_tells_the_name_of_its_cache() {
        for (host, expected) in [
            (
                "codes-a1b2c3.serverless.use1.cache.amazonaws.com",
                ("codes", true),
            ),
            (
                "master.codes.a1b2c3.use1.cache.amazonaws.com",
                ("codes", false),
            ),
            (
                "clustercfg.my-codes.a1b2c3.use1.cache.amazonaws.com",
                ("my-codes", false),
            ),
            (
                "replica.codes.a1b2c3.use1.cache.amazonaws.com",
                ("codes", false),
            ),
            (
                "codes.a1b2c3.ng.0001.use1.cache.amazonaws.com",
                ("codes", false),
            ),
        ] {
            assert_eq!(cache_of(host), expected, "{host}");
        }
    }
}
