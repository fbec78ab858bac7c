//! The exchange with CloudFormation, as a custom resource: it sends a request, and waits for a
//! response at the address that the request names. Without one it waits for the template's
//! `ServiceTimeout`, five minutes.

use std::{error::Error as StdError, time::Duration};

use aws_smithy_http_client::{
    Connector,
    tls::{self, rustls_provider::CryptoMode},
};
use aws_smithy_runtime_api::client::{http::HttpConnector, orchestrator::HttpRequest};
use aws_smithy_types::body::SdkBody;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use shared::{store, telemetry};
use tokio::time::{Instant, timeout_at};
use url::Url;

use crate::{
    Error, Migrate,
    setup::{self, SmsAttributes},
};

/// The time kept for the response, or a quarter of what is left if that is less.
const RESPONSE_TIME: Duration = Duration::from_secs(20);

/// The longest that one try to respond takes.
const TRY_TIME: Duration = Duration::from_secs(3);

const TRIES: u32 = 5;

/// The pause after the first try. Each later one is twice as long.
const PAUSE: Duration = Duration::from_millis(200);

/// The longest response that CloudFormation takes, in bytes.
const LONGEST_BODY: usize = 4096;

/// One for all stacks: CloudFormation deletes a resource whose id changes.
const PHYSICAL_ID: &str = "otp-auth-setup";

/// A request (AWS CloudFormation, "Custom resource request objects").
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Request {
    #[serde(rename = "RequestType")]
    change: Change,
    #[serde(rename = "ResponseURL")]
    response_url: String,
    stack_id: String,
    #[serde(rename = "RequestId")]
    id: String,
    logical_resource_id: String,
    /// Read when a mistake in it can be reported.
    #[serde(default)]
    resource_properties: Value,
}

#[derive(Deserialize)]
enum Change {
    Create,
    Update,
    Delete,
}

/// The properties that are used. CloudFormation passes on `ServiceToken` and `Release` too.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Properties {
    #[serde(default)]
    sms_attributes: SmsAttributes,
}

/// A response (AWS CloudFormation, "Custom resource response objects").
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Response<'a> {
    status: &'static str,
    reason: String,
    physical_resource_id: &'static str,
    stack_id: &'a str,
    request_id: &'a str,
    logical_resource_id: &'a str,
    /// The attributes for `Fn::GetAtt`.
    data: Value,
}

/// No response reached CloudFormation.
#[derive(Debug, thiserror::Error)]
pub enum RespondError {
    #[error("the ResponseURL must be an https:// address")]
    BadUrl,
    #[error("the last of {TRIES} tries failed")]
    Undelivered(#[source] Cause),
}

type Cause = Box<dyn StdError + Send + Sync>;

impl Request {
    /// Sets up the deployment and responds, both before the deadline. A deletion does nothing: the
    /// data stays.
    pub async fn respond(self, migrate: &Migrate, deadline: Instant) -> Result<(), RespondError> {
        let url = response_url(&self.response_url)?;
        let outcome = match self.change {
            Change::Create | Change::Update => self.set_up(migrate, deadline).await,
            Change::Delete => Ok(json!({})),
        };
        let body = self.body(outcome);
        deliver(&url, body, deadline)
            .await
            .map_err(RespondError::Undelivered)
    }

    async fn set_up(&self, migrate: &Migrate, deadline: Instant) -> Result<Value, Error> {
        let left = deadline.saturating_duration_since(Instant::now());
        let deadline = deadline - RESPONSE_TIME.min(left / 4);
        let properties =
            Properties::deserialize(&self.resource_properties).map_err(Error::Properties)?;
        let connecting = migrate.database.connect();
        let mut connection = setup::by(deadline, "connecting to the database", connecting).await?;
        let (secrets, attributes) = (migrate.secrets.as_ref(), properties.sms_attributes);
        let setup = setup::run(&mut connection, secrets, attributes, deadline).await?;
        let [signup, verify, session] = setup.roles;
        Ok(json!({"SignupRole": signup, "VerifyRole": verify, "SessionRole": session}))
    }

    /// The response, within CloudFormation's limit.
    fn body(&self, outcome: Result<Value, Error>) -> String {
        let (status, reason, data) = match outcome {
            Ok(data) => ("SUCCESS", "done".to_owned(), data),
            Err(error) => {
                let cause = telemetry::chain(&error);
                tracing::error!(cause, "setup failed");
                ("FAILED", cause, json!({}))
            }
        };
        let mut response = Response {
            status,
            reason,
            physical_resource_id: PHYSICAL_ID,
            stack_id: &self.stack_id,
            request_id: &self.id,
            logical_resource_id: &self.logical_resource_id,
            data,
        };
        if json_text(&response).len() > LONGEST_BODY {
            let longest = response.reason.floor_char_boundary(LONGEST_BODY);
            response.reason.truncate(longest);
            // A character may be longer in JSON than it is here.
            while json_text(&response).len() > LONGEST_BODY - '…'.len_utf8() {
                response.reason.pop();
            }
            response.reason.push('…');
        }
        json_text(&response)
    }
}

/// Without a test's loopback address it must be encrypted: whoever knows it may respond in our name.
fn response_url(text: &str) -> Result<Url, RespondError> {
    Url::parse(text)
        .ok()
        .filter(|url| match url.scheme() {
            "https" => true,
            "http" => url.host_str().is_some_and(store::is_loopback),
            _ => false,
        })
        .ok_or(RespondError::BadUrl)
}

/// Sends the response until it is taken, or the tries or the time end. The same response twice does
/// no harm.
async fn deliver(url: &Url, body: String, deadline: Instant) -> Result<(), Cause> {
    let client = Connector::builder()
        .tls_provider(tls::Provider::Rustls(CryptoMode::AwsLc))
        .build();
    let mut tried = put(&client, url, &body, deadline).await;
    for retry in 0..TRIES - 1 {
        if tried.is_ok() {
            break;
        }
        if timeout_at(deadline, pause(PAUSE * 2_u32.pow(retry)))
            .await
            .is_err()
        {
            break;
        }
        tried = put(&client, url, &body, deadline).await;
    }
    tried
}

/// One try. The address is signed for a request without a content type.
async fn put(client: &Connector, url: &Url, body: &str, deadline: Instant) -> Result<(), Cause> {
    let mut request = HttpRequest::new(SdkBody::from(body));
    request.set_method("PUT")?;
    request.set_uri(url.as_str())?;
    let until = deadline.min(Instant::now() + TRY_TIME);
    let reply = timeout_at(until, client.call(request)).await??;
    let status = reply.status();
    if status.is_success() {
        return Ok(());
    }
    Err(format!("HTTP {}", status.as_u16()).into())
}

#[expect(
    clippy::disallowed_methods,
    reason = "a receiver that refuses has nothing else to wait for"
)]
async fn pause(time: Duration) {
    tokio::time::sleep(time).await;
}

fn json_text(response: &Response<'_>) -> String {
    // A plain struct of texts always has a JSON form.
    serde_json::to_string(response).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request() -> Request {
        let stack = "arn:aws:cloudformation:us-east-1:123456789012:stack/otp/feedbeef";
        serde_json::from_value(json!({
            "RequestType": "Create",
            "ResponseURL": "https://example.com",
            "StackId": stack,
            "RequestId": "feedbeef",
            "LogicalResourceId": "Setup",
            "ResourceType": "Custom::Setup",
            "ResourceProperties": {"ServiceToken": "arn", "Release": "1"},
        }))
        .unwrap()
    }

    #[test]
    fn a_reason_is_cut_to_the_limit_and_otherwise_whole() {
        for (unit, count) in [
            ("x", 5000),
            ("\"", 3000),
            ("é", 2500),
            ("\u{1}", 900),
            ("x", 90),
        ] {
            let message = unit.repeat(count);
            let cause = sqlx::Error::Protocol(message.clone());
            let body = request().body(Err(Error::Connect(cause)));
            assert!(body.len() <= LONGEST_BODY, "{}", body.len());
            let body: Value = serde_json::from_str(&body).unwrap();
            let reason = body["Reason"].as_str().unwrap();
            assert!(reason.starts_with("cannot connect to the database: "));
            assert_eq!(reason.ends_with(&message), count == 90, "{unit:?}");
            assert_eq!(reason.ends_with('…'), count != 90, "{unit:?}");
            assert_eq!(body["RequestId"], "feedbeef");
        }
    }

    #[test]
    fn a_response_goes_to_https_or_to_this_machine() {
        for (url, is_fine) in [
            (
                "https://cloudformation-custom-resource-response-useast1.s3.amazonaws.com/a?X=%2F",
                true,
            ),
            ("http://127.0.0.1:80/", true),
            ("http://[::1]/", false),
            ("http://example.com/", false),
            ("ftp://127.0.0.1/", false),
            ("", false),
        ] {
            assert_eq!(response_url(url).is_ok(), is_fine, "{url}");
        }
    }
}
