//! Settings from AWS Secrets Manager, read once at start.

use std::{collections::HashMap, time::Duration};

use aws_config::BehaviorVersion;
use aws_sdk_secretsmanager::config::timeout::TimeoutConfig;

use crate::{
    config::{self, Env},
    telemetry,
};

/// The longest that reading the secret takes, retries included. Lambda allows a start ten seconds.
const TIMEOUT: Duration = Duration::from_secs(6);

/// Replaces the variables `names` by the members of the secret `SECRET_ARN`, a JSON object of
/// texts. A variable that the secret does not hold keeps its value.
///
/// A function names the secrets that it uses, and keeps no others.
pub async fn load(env: Env, names: &[&str]) -> Result<Env, config::Error> {
    const NAME: &str = "SECRET_ARN";
    let Some(arn) = env.text(NAME) else {
        return Ok(env);
    };
    let aws = aws_config::load_defaults(BehaviorVersion::latest()).await;
    let timeouts = TimeoutConfig::builder().operation_timeout(TIMEOUT).build();
    let config = aws_sdk_secretsmanager::config::Builder::from(&aws)
        .timeout_config(timeouts)
        .build();
    let request = aws_sdk_secretsmanager::Client::from_conf(config).get_secret_value();
    let reply = Box::pin(request.secret_id(arn).send())
        .await
        .map_err(|error| {
            let cause = telemetry::chain(&error);
            config::Error::invalid(NAME, format!("names a secret that cannot be read: {cause}"))
        })?;
    // serde's errors would quote the secret.
    let secret: Option<HashMap<String, String>> = reply
        .secret_string()
        .and_then(|text| serde_json::from_str(text).ok());
    let secret = secret.ok_or_else(|| {
        config::Error::invalid(NAME, "names a secret that is not a JSON object of texts")
    })?;
    let used = secret.into_iter();
    Ok(env.with(used.filter(|(name, _)| names.contains(&name.as_str()))))
}
