//! Setting up a deployment: secrets, schema, roles, and SNS's settings. Each step can be repeated.

use std::{collections::HashMap, time::Duration};

use aws_config::BehaviorVersion;
use aws_sdk_sns::{
    Client, config::timeout::TimeoutConfig, error::SdkError,
    operation::set_sms_attributes::SetSMSAttributesError,
};
use serde::{Deserialize, Serialize};
use sqlx::PgConnection;
use tokio::time::{Instant, timeout_at};

use crate::{Error, Schema, roles, schema, secrets::Secrets};

/// Held by a run, so that the next one waits for it.
const LOCK: i64 = 0x6f74_705f_7365_7475;

/// The longest that one call to SNS takes, retries included.
const SNS_TIMEOUT: Duration = Duration::from_secs(10);

/// Settings of SNS for the whole account and region. One that is missing or empty stays as it is.
#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct SmsAttributes {
    monthly_spend_limit: String,
    #[serde(rename = "DefaultSMSType")]
    default_sms_type: String,
    #[serde(rename = "DeliveryStatusIAMRole")]
    delivery_status_iam_role: String,
    delivery_status_success_sampling_rate: String,
}

/// The result of a run.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub struct Setup {
    #[serde(flatten)]
    pub schema: Schema,
    /// The roles of `signup`, `verify` and `session`.
    pub roles: [String; 3],
}

/// Runs all steps before the deadline. Concurrent runs wait for each other; the lock ends with the
/// connection.
pub async fn run(
    connection: &mut PgConnection,
    secrets: Option<&Secrets>,
    attributes: SmsAttributes,
    deadline: Instant,
) -> Result<Setup, Error> {
    by(deadline, "waiting for another setup", lock(connection)).await?;
    if let Some(secrets) = secrets {
        let completing = Box::pin(async { Ok(secrets.complete().await?) });
        by(deadline, "completing the secrets", completing).await?;
    }
    let migrating = async {
        schema::apply_known(connection).await?;
        Ok(schema::status(connection).await?)
    };
    let schema = by(deadline, "the migration", migrating).await?;
    let setting = async { Ok(roles::set(connection).await?) };
    let roles = by(deadline, "setting the roles", setting).await?;
    let setting = Box::pin(async { Ok(attributes.set().await?) });
    by(deadline, "setting SNS's attributes", setting).await?;
    Ok(Setup { schema, roles })
}

/// A step, unless the deadline comes first.
pub async fn by<T>(
    deadline: Instant,
    step: &'static str,
    work: impl Future<Output = Result<T, Error>>,
) -> Result<T, Error> {
    let done = timeout_at(deadline, work).await;
    done.unwrap_or(Err(Error::Late(step)))
}

/// Waits for other runs that change secrets or the schema. The lock ends with the connection.
pub async fn lock(connection: &mut PgConnection) -> Result<(), Error> {
    sqlx::query("SELECT pg_advisory_lock($1)")
        .bind(LOCK)
        .execute(connection)
        .await
        .map_err(Error::Lock)?;
    Ok(())
}

impl SmsAttributes {
    async fn set(self) -> Result<(), Box<SdkError<SetSMSAttributesError>>> {
        let attributes: HashMap<String, String> = [
            ("MonthlySpendLimit", self.monthly_spend_limit),
            ("DefaultSMSType", self.default_sms_type),
            ("DeliveryStatusIAMRole", self.delivery_status_iam_role),
            (
                "DeliveryStatusSuccessSamplingRate",
                self.delivery_status_success_sampling_rate,
            ),
        ]
        .into_iter()
        .filter(|(_, value)| !value.is_empty())
        .map(|(name, value)| (name.to_owned(), value))
        .collect();
        if attributes.is_empty() {
            return Ok(());
        }
        let aws = aws_config::load_defaults(BehaviorVersion::latest()).await;
        let timeouts = TimeoutConfig::builder()
            .operation_timeout(SNS_TIMEOUT)
            .build();
        let config = aws_sdk_sns::config::Builder::from(&aws).timeout_config(timeouts);
        let request = Client::from_conf(config.build()).set_sms_attributes();
        Box::pin(request.set_attributes(Some(attributes)).send()).await?;
        Ok(())
    }
}
