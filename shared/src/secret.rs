//! Settings from AWS Secrets Manager.

use std::{collections::HashMap, time::Duration};

use aws_sdk_secretsmanager::config::timeout::TimeoutConfig;

use crate::{
    aws,
    config::{self, Env},
    telemetry,
};

const NAME: &str = "SECRET_ARN";

/// The value of the secret `SECRET_ARN`, a JSON object of texts. No `Debug`.
pub struct Secret {
    /// A new one for each new value.
    version: Option<String>,
    text: Option<String>,
}

impl Secret {
    /// Reads it within this time, retries included. `None` if there is no `SECRET_ARN`.
    pub async fn read(env: &Env, time: Duration) -> Result<Option<Self>, config::Error> {
        let Some(arn) = env.text(NAME) else {
            return Ok(None);
        };
        let aws = aws::config(env, "AWS_ENDPOINT_URL_SECRETS_MANAGER")?;
        let timeouts = TimeoutConfig::builder().operation_timeout(time).build();
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
        Ok(Some(Self {
            version: reply.version_id,
            text: reply.secret_string,
        }))
    }

    /// The version of the value, as Secrets Manager names it.
    pub fn version(&self) -> Option<&str> {
        self.version.as_deref()
    }

    /// Replaces the variables `names` by the secret's members. A variable that the secret does not
    /// hold keeps its value.
    ///
    /// A function names the members that it uses, and keeps no others.
    pub fn over(&self, env: Env, names: &[&str]) -> Result<Env, config::Error> {
        // serde's errors would quote the secret.
        let members: Option<HashMap<String, String>> = self
            .text
            .as_deref()
            .and_then(|text| serde_json::from_str(text).ok());
        let members = members.ok_or_else(|| {
            config::Error::invalid(NAME, "names a secret that is not a JSON object of texts")
        })?;
        let used = members.into_iter();
        Ok(env.with(used.filter(|(name, _)| names.contains(&name.as_str()))))
    }
}
