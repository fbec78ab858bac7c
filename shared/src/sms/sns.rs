//! Amazon SNS.

use std::time::Duration;

use aws_sdk_sns::{
    Client,
    config::{retry::RetryConfig, timeout::TimeoutConfig},
    error::{ProvideErrorMetadata, SdkError},
    operation::publish::PublishError,
    types::MessageAttributeValue,
};

use super::{Failure, Reply, reached_the_provider, templates::Templates};
use crate::{
    aws,
    config::{self, Env},
    phone::PhoneNumber,
};

/// Amazon SNS. It passes on `SNS_SENDER_ID`, `SNS_ORIGINATION_NUMBER` and, for India's DLT rules,
/// `SNS_ENTITY_ID` and the id of [`Templates`] if they are set.
pub(super) struct Sns {
    client: Client,
    attributes: Vec<(&'static str, String)>,
    pub templates: Templates,
}

impl Sns {
    pub fn from_env(env: &Env, timeout: Duration) -> Result<Self, config::Error> {
        let optional = [
            ("AWS.SNS.SMS.SenderID", "SNS_SENDER_ID"),
            ("AWS.MM.SMS.OriginationNumber", "SNS_ORIGINATION_NUMBER"),
            ("AWS.MM.SMS.EntityId", "SNS_ENTITY_ID"),
        ];
        let mut attributes = vec![("AWS.SNS.SMS.SMSType", "Transactional".to_owned())];
        for (attribute, variable) in optional {
            if let Some(value) = env.text(variable) {
                attributes.push((attribute, value.to_owned()));
            }
        }
        // The SDK would try three times, although a slow first try may have been sent. Connecting
        // gets half of the time, so that an unreachable provider counts as refused.
        let timeouts = TimeoutConfig::builder()
            .connect_timeout(timeout / 2)
            .build();
        let aws = aws::config(env, "AWS_ENDPOINT_URL_SNS")?;
        let config = aws_sdk_sns::config::Builder::from(&aws)
            .retry_config(RetryConfig::disabled())
            .timeout_config(timeouts);
        Ok(Self {
            client: Client::from_conf(config.build()),
            attributes,
            templates: Templates::from_env(env)?,
        })
    }

    /// `template` is the id of the message's text, see [`Templates`].
    pub async fn send(
        &self,
        phone: &PhoneNumber,
        message: String,
        template: Option<&str>,
    ) -> Reply {
        let mut publish = self
            .client
            .publish()
            .phone_number(phone.as_e164())
            .message(message);
        let set = self.attributes.iter();
        let set = set.map(|(name, value)| (*name, value.as_str()));
        for (name, value) in set.chain(template.map(|id| ("AWS.MM.SMS.TemplateId", id))) {
            let text = MessageAttributeValue::builder()
                .data_type("String")
                .string_value(value)
                .build()
                .map_err(|error| Failure::Refused(error.into()))?;
            publish = publish.message_attributes(name, text);
        }
        let published = publish.send().await?;
        Ok(published.message_id)
    }
}

impl From<SdkError<PublishError>> for Failure {
    fn from(error: SdkError<PublishError>) -> Self {
        match error {
            // SNS quotes the phone number in its messages, so only the code is kept.
            SdkError::ServiceError(reply) => {
                let code = reply.err().code().unwrap_or("error without a code");
                let status = reply.raw().status().as_u16();
                let cause = format!("{code} (HTTP {status})").into();
                // `Throttled`, `ThrottledException`, `Throttling`: in its documents and replies.
                if status == 429 || code.starts_with("Throttl") {
                    Self::Throttled(cause)
                } else {
                    Self::Refused(cause)
                }
            }
            SdkError::ConstructionFailure(_) => Self::Refused(error.into()),
            SdkError::DispatchFailure(_) if !reached_the_provider(&error) => {
                Self::Refused(error.into())
            }
            _ => Self::Unknown(error.into()),
        }
    }
}
