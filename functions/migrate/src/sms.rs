//! The SMS set-up of the AWS account, as SNS tells it, and what of it stands in the way of messages.
//!
//! This only reads, and needs no database. Numbers of people are masked; those that the account
//! sends from are not, because every recipient sees them.

use std::{
    error::Error as StdError,
    fmt::{self, Display, Formatter},
    time::Duration,
};

use aws_config::BehaviorVersion;
use aws_sdk_sns::{
    Client,
    config::timeout::TimeoutConfig,
    error::{ProvideErrorMetadata, SdkError},
    operation::get_sms_attributes::GetSmsAttributesOutput,
    types::{
        PhoneNumberInformation, SmsSandboxPhoneNumber, SmsSandboxPhoneNumberVerificationStatus,
    },
};
use serde::{Deserialize, Serialize};
use shared::{
    config::{self, Env},
    phone::{self, Parser, PhoneNumber},
    telemetry,
};

/// The longest that one call takes, retries included.
const TIMEOUT: Duration = Duration::from_secs(15);

/// The command's name in an event.
#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Word {
    Sms,
}

/// The facts, and what follows from them. A fact is `None` if its check failed; then
/// [`not_checked`](Self::not_checked) has the reason.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub struct Report {
    pub region: String,
    pub in_sandbox: Option<bool>,
    pub sandbox_numbers: Option<Vec<SandboxNumber>>,
    pub settings: Option<Settings>,
    pub origination_numbers: Option<Vec<OriginationNumber>>,
    /// The number that was asked about, if there was one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub phone: Option<Phone>,
    /// Sentences: what keeps messages from arriving, and what to do.
    pub in_the_way: Vec<String>,
    /// The SNS actions that failed, and why. HTTP 403: the role may not call it.
    pub not_checked: Vec<String>,
}

/// A number that was added to the sandbox. It gets messages once it is `Verified`.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub struct SandboxNumber {
    /// Masked.
    pub number: String,
    pub status: String,
}

/// Settings of the account. `None` is not set.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub struct Settings {
    pub monthly_spend_limit_usd: Option<String>,
    /// Changes nothing for codes: each is sent as `Transactional`.
    pub default_sms_type: Option<String>,
    /// The role that writes the delivery log. `None`: there is no log.
    pub delivery_log_role: Option<String>,
    /// The share of the delivered messages that are logged. Failed ones all are.
    pub delivery_log_success_percent: Option<String>,
}

/// A number that the account sends from.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub struct OriginationNumber {
    pub number: String,
    /// ISO 3166-1 alpha-2.
    pub country: String,
    /// `SMS`, `MMS`, `VOICE`.
    pub capabilities: Vec<String>,
    /// It sends if this is `ACTIVE`.
    pub status: String,
}

/// A number that may get messages.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub struct Phone {
    /// Masked.
    pub number: String,
    pub opted_out: Option<bool>,
}

/// Nothing could be checked.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Settings(#[from] config::Error),
    #[error(transparent)]
    Phone(#[from] phone::Invalid),
}

/// [`check`] as a command.
pub async fn report(env: &Env, phone_number: Option<&str>) -> Result<crate::Report, crate::Error> {
    // Five calls of the SDK at the same time make a large future.
    let report = Box::pin(check(env, phone_number)).await?;
    Ok(crate::Report::Sms(Box::new(report)))
}

/// Asks SNS about the account, and about `phone_number` if there is one. AWS's own variables choose
/// account, region and endpoint; `DEFAULT_COUNTRY` allows national spellings.
async fn check(env: &Env, phone_number: Option<&str>) -> Result<Report, Error> {
    let parser = Parser::from_env(env)?;
    let phone = phone_number.map(|text| parser.parse(text)).transpose()?;
    let (client, region) = connect().await?;
    let opted_out = async {
        let number = phone.as_ref()?.as_e164();
        let request = client.check_if_phone_number_is_opted_out();
        Some(request.phone_number(number).send().await)
    };
    let numbers_in_sandbox = client.list_sms_sandbox_phone_numbers().into_paginator();
    let origination_numbers = client.list_origination_numbers().into_paginator();
    let (in_sandbox, sandbox_numbers, settings, origination_numbers, opted_out) = tokio::join!(
        client.get_sms_sandbox_account_status().send(),
        numbers_in_sandbox
            .items()
            .send()
            .collect::<Result<Vec<_>, _>>(),
        client.get_sms_attributes().send(),
        origination_numbers
            .items()
            .send()
            .collect::<Result<Vec<_>, _>>(),
        opted_out,
    );

    let mut failed = Failed::default();
    let sandbox_numbers = failed.unless("ListSMSSandboxPhoneNumbers", sandbox_numbers);
    let is_verified = match (&phone, &sandbox_numbers) {
        (Some(phone), Some(numbers)) => Some(is_verified(phone, numbers)),
        _ => None,
    };
    let mut report = Report {
        region,
        in_sandbox: failed
            .unless("GetSMSSandboxAccountStatus", in_sandbox)
            .map(|reply| reply.is_in_sandbox()),
        sandbox_numbers: sandbox_numbers.map(|numbers| {
            let masked = numbers.iter().map(|number| sandbox_number(parser, number));
            masked.collect()
        }),
        settings: failed
            .unless("GetSMSAttributes", settings)
            .map(|reply| Settings::from(&reply)),
        origination_numbers: failed
            .unless("ListOriginationNumbers", origination_numbers)
            .map(|numbers| numbers.iter().map(OriginationNumber::from).collect()),
        phone: phone.as_ref().map(|phone| Phone {
            number: phone.masked(),
            opted_out: opted_out
                .and_then(|reply| failed.unless("CheckIfPhoneNumberIsOptedOut", reply))
                .map(|reply| reply.is_opted_out()),
        }),
        in_the_way: Vec::new(),
        not_checked: failed.0,
    };
    report.in_the_way = in_the_way(
        &report,
        phone.as_ref().map(PhoneNumber::country),
        is_verified,
    );
    Ok(report)
}

/// A client, and its region.
async fn connect() -> Result<(Client, String), config::Error> {
    let aws = aws_config::load_defaults(BehaviorVersion::latest()).await;
    let region = aws.region().ok_or(config::Error::Missing("AWS_REGION"))?;
    let timeouts = TimeoutConfig::builder().operation_timeout(TIMEOUT).build();
    let config = aws_sdk_sns::config::Builder::from(&aws)
        .timeout_config(timeouts)
        .build();
    Ok((Client::from_conf(config), region.to_string()))
}

/// The actions that failed, and why.
#[derive(Default)]
struct Failed(Vec<String>);

impl Failed {
    /// The reply, unless the action failed.
    fn unless<T, E>(&mut self, action: &str, reply: Result<T, SdkError<E>>) -> Option<T>
    where
        E: ProvideErrorMetadata + StdError + 'static,
    {
        let error = match reply {
            Ok(reply) => return Some(reply),
            Err(error) => error,
        };
        let reason = match &error {
            // SNS quotes phone numbers in its messages, so only the code is kept.
            SdkError::ServiceError(reply) => {
                let code = reply.err().code().unwrap_or("error without a code");
                format!("{code} (HTTP {})", reply.raw().status().as_u16())
            }
            _ => telemetry::chain(&error),
        };
        self.0.push(format!("{action}: {reason}"));
        None
    }
}

const VERIFIED: &str = "Verified";

fn is_verified(phone: &PhoneNumber, numbers: &[SmsSandboxPhoneNumber]) -> bool {
    numbers.iter().any(|number| {
        number.phone_number() == Some(phone.as_e164())
            && number
                .status()
                .is_some_and(|status| status.as_str() == VERIFIED)
    })
}

fn sandbox_number(parser: Parser, number: &SmsSandboxPhoneNumber) -> SandboxNumber {
    let parsed = number.phone_number().map(|text| parser.parse(text));
    SandboxNumber {
        number: match parsed {
            Some(Ok(phone)) => phone.masked(),
            Some(Err(_)) | None => "an unreadable number".to_owned(),
        },
        status: text(
            number
                .status()
                .map(SmsSandboxPhoneNumberVerificationStatus::as_str),
        ),
    }
}

impl From<&GetSmsAttributesOutput> for Settings {
    fn from(reply: &GetSmsAttributesOutput) -> Self {
        let attribute = |name| {
            let value = reply.attributes().and_then(|all| all.get(name));
            value.filter(|value| !value.is_empty()).cloned()
        };
        Self {
            monthly_spend_limit_usd: attribute("MonthlySpendLimit"),
            default_sms_type: attribute("DefaultSMSType"),
            delivery_log_role: attribute("DeliveryStatusIAMRole"),
            delivery_log_success_percent: attribute("DeliveryStatusSuccessSamplingRate"),
        }
    }
}

impl From<&PhoneNumberInformation> for OriginationNumber {
    fn from(number: &PhoneNumberInformation) -> Self {
        let capabilities = number.number_capabilities().iter();
        Self {
            number: text(number.phone_number()),
            country: text(number.iso2_country_code()),
            capabilities: capabilities.map(|one| one.as_str().to_owned()).collect(),
            status: text(number.status()),
        }
    }
}

impl OriginationNumber {
    fn has_sms(&self) -> bool {
        self.capabilities.iter().any(|one| one == "SMS")
    }

    fn is_active(&self) -> bool {
        self.status == "ACTIVE"
    }
}

fn text(member: Option<&str>) -> String {
    member.unwrap_or("unknown").to_owned()
}

/// The sentences. `country` is that of the phone that was asked about.
fn in_the_way(report: &Report, country: Option<&str>, is_verified: Option<bool>) -> Vec<String> {
    let mut sentences = Vec::new();
    if report.in_sandbox == Some(true) {
        sentences.push(
            "The account is in the SMS sandbox, where only verified numbers get messages. Ask AWS \
             to move it out: SNS console, Text messaging (SMS), Exit SMS sandbox."
                .to_owned(),
        );
        if let (Some(phone), Some(false)) = (&report.phone, is_verified) {
            sentences.push(format!(
                "{} is not verified in the SMS sandbox. Verify it: SNS console, Text messaging \
                 (SMS), Sandbox destination phone numbers.",
                phone.number
            ));
        }
    }
    if let Some(settings) = &report.settings {
        let todo = "When it is reached, SNS accepts messages and sends none. Ask AWS Support for a \
                    higher quota, then set MonthlySpendLimit with `aws sns set-sms-attributes`.";
        match settings.monthly_spend_limit_usd.as_deref() {
            None => sentences.push(format!(
                "No monthly spend limit is set, so the account's quota applies: 1 USD, unless AWS \
                 has raised it. {todo}"
            )),
            Some(limit) if limit.parse::<f64>().is_ok_and(|limit| limit <= 1.0) => {
                sentences.push(format!("The monthly spend limit is {limit} USD. {todo}"));
            }
            Some(_) => {}
        }
    }
    if let Some(phone) = &report.phone
        && phone.opted_out == Some(true)
    {
        sentences.push(format!(
            "{} has opted out of this account's messages. If its owner agrees, opt it in with `aws \
             sns opt-in-phone-number`, which AWS allows once in 30 days.",
            phone.number
        ));
    }
    if let Some(numbers) = &report.origination_numbers {
        let sending = || numbers.iter().filter(|number| number.has_sms());
        let is_active =
            |country: &str| sending().any(|number| number.country == country && number.is_active());
        for number in sending().filter(|number| !is_active(&number.country)) {
            sentences.push(format!(
                "The origination number {} is {}, and no other of {} is ACTIVE. Finish its \
                 registration in AWS End User Messaging.",
                number.number, number.status, number.country
            ));
        }
        if country == Some("US") && !sending().any(|number| number.country == "US") {
            sentences.push(
                "Carriers in the US refuse messages without an origination number of the US, and \
                 the account has none. Request a toll-free number, 10DLC number or short code in \
                 AWS End User Messaging."
                    .to_owned(),
            );
        }
    }
    sentences
}

/// For a person, a fact a line.
impl Display for Report {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        writeln!(f, "region: {}", self.region)?;
        if let Some(in_sandbox) = self.in_sandbox {
            writeln!(f, "SMS sandbox: {}", if in_sandbox { "yes" } else { "no" })?;
        }
        for SandboxNumber { number, status } in self.sandbox_numbers.iter().flatten() {
            writeln!(f, "number in the sandbox: {number} {status}")?;
        }
        if let Some(settings) = &self.settings {
            let or_not_set =
                |value: &Option<String>| value.clone().unwrap_or_else(|| "not set".to_owned());
            let limit = or_not_set(&settings.monthly_spend_limit_usd);
            writeln!(f, "monthly spend limit in USD: {limit}")?;
            let kind = or_not_set(&settings.default_sms_type);
            writeln!(f, "default SMS type: {kind}")?;
            let role = or_not_set(&settings.delivery_log_role);
            writeln!(f, "role of the delivery log: {role}")?;
            let percent = or_not_set(&settings.delivery_log_success_percent);
            writeln!(f, "percent of deliveries in the log: {percent}")?;
        }
        for one in self.origination_numbers.iter().flatten() {
            let capabilities = one.capabilities.join(",");
            writeln!(
                f,
                "origination number: {} {} {capabilities} {}",
                one.number, one.country, one.status
            )?;
        }
        if self.origination_numbers.as_ref().is_some_and(Vec::is_empty) {
            writeln!(f, "origination numbers: none")?;
        }
        if let Some(phone) = &self.phone
            && let Some(opted_out) = phone.opted_out
        {
            let not = if opted_out { "" } else { "not " };
            writeln!(f, "{}: {not}opted out", phone.number)?;
        }
        for reason in &self.not_checked {
            writeln!(f, "not checked: {reason}")?;
        }
        for sentence in &self.in_the_way {
            writeln!(f, "in the way: {sentence}")?;
        }
        if self.in_the_way.is_empty() {
            let checked = if self.not_checked.is_empty() {
                ""
            } else {
                " of what was checked"
            };
            writeln!(f, "in the way: nothing{checked}")?;
        }
        Ok(())
    }
}
