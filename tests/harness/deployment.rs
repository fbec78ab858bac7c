//! Stores and a provider for functions that run as processes.

use crate::{Behaviour, Database, Function, PEPPER, Provider, Proxy, RedisServer, Sandbox};

pub struct Deployment {
    pub database: Database,
    pub postgres: Proxy,
    pub redis_server: RedisServer,
    pub redis: Proxy,
    pub provider: Provider,
}

/// The settings of a function that writes its codes to the log.
pub const TO_THE_LOG: [(&str, &str); 2] = [("SMS_PROVIDER", "log"), ("OTP_LOCAL", "1")];

/// The token of the account in [`twilio_settings`]. No log may hold it.
pub const TWILIO_TOKEN: &str = "tests-only-token-of-twilio";

/// The secret by which CloudFront proves itself. No log may hold it.
pub const EDGE_SECRET: &str = "tests-only-edge-secret-32-bytes0";

/// The settings of a function that sends through Twilio at `endpoint`.
pub fn twilio_settings(endpoint: &str) -> [(&str, &str); 5] {
    [
        ("SMS_PROVIDER", "twilio"),
        ("TWILIO_ACCOUNT_SID", "ACfeedbeeffeedbeeffeedbeeffeedbeef"),
        ("TWILIO_AUTH_TOKEN", TWILIO_TOKEN),
        ("TWILIO_FROM", "+14155550100"),
        ("TWILIO_ENDPOINT", endpoint),
    ]
}

impl Deployment {
    /// Its provider accepts every message.
    pub async fn new() -> Self {
        Self::behind(Behaviour::Accept).await
    }

    /// Its provider behaves so.
    pub async fn behind(behaviour: Behaviour) -> Self {
        let (database, redis_server) = tokio::join!(Database::migrated(), RedisServer::start());
        Self {
            postgres: Proxy::to(&Database::address()).await,
            redis: Proxy::to(&redis_server.address()).await,
            provider: Provider::start(behaviour).await,
            database,
            redis_server,
        }
    }

    /// Starts a function with some settings of its own, and the defaults of all else.
    pub async fn start(&self, name: &str, own: &[(&str, &str)]) -> Function {
        self.start_in(Sandbox::default(), name, own).await
    }

    /// Starts it in this sandbox.
    pub async fn start_in(&self, sandbox: Sandbox, name: &str, own: &[(&str, &str)]) -> Function {
        let database_url = self.database.url_through(self.postgres.address());
        let redis_url = format!("redis://{}", self.redis.address());
        let endpoint = self.provider.url();
        let settings = [
            ("DATABASE_URL", &*database_url),
            ("REDIS_URL", &redis_url),
            ("OTP_PEPPER", PEPPER),
            ("ALLOWED_COUNTRIES", "*"),
            ("SMS_PROVIDER", "sns"),
            ("AWS_REGION", "us-east-1"),
            ("AWS_ENDPOINT_URL_SNS", &endpoint),
        ];
        let settings = settings.into_iter().chain(own.iter().copied());
        Function::start_in(sandbox, name, settings).await
    }
}
