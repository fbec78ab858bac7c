//! What a provider says decides whether the code counts as sent. The real SDK speaks to a provider
//! that misbehaves; the function is the real binary, because the SDK takes its endpoint from the
//! process's environment.

use harness::{Behaviour, Database, Function, PEPPER, Provider, RedisServer, event, fresh_phone};
use serde_json::json;

struct Deployed {
    database: Database,
    redis: RedisServer,
}

impl Deployed {
    async fn new() -> Self {
        Self {
            database: Database::migrated().await,
            redis: RedisServer::start().await,
        }
    }

    async fn signup(&self, endpoint: &str, own: &[(&str, &str)]) -> Function {
        let (database, redis) = (self.database.url(), self.redis.url());
        let mut settings = vec![
            ("DATABASE_URL", database.as_str()),
            ("REDIS_URL", &redis),
            ("OTP_PEPPER", PEPPER),
            ("ALLOWED_COUNTRIES", "*"),
            ("SMS_PROVIDER", "sns"),
            ("LIMIT_PHONE", "off"),
            ("AWS_ENDPOINT_URL_SNS", endpoint),
        ];
        settings.extend(own);
        Function::start("signup", settings).await
    }

    /// The id of the phone's newest challenge.
    async fn challenge(&self, phone: &str) -> Option<String> {
        self.redis.latest_challenge(phone).await
    }
}

fn assert_log_hides(function: &Function, phone: &str) {
    for line in function.log() {
        assert!(!line.contains(&phone[1..]), "{line}");
        assert!(
            !line.contains("4915100000000"),
            "the provider's text: {line}"
        );
        let _is_json: serde_json::Value = serde_json::from_str(&line).expect(&line);
    }
}

#[tokio::test]
async fn a_provider_that_refuses_is_502_and_the_challenge_is_revoked() {
    for behaviour in [
        Behaviour::Refuse(400, "InvalidParameter"),
        Behaviour::Refuse(400, "Throttling"),
        Behaviour::Refuse(429, "TooManyRequests"),
        Behaviour::Refuse(500, "InternalFailure"),
        Behaviour::Refuse(503, "ServiceUnavailable"),
    ] {
        let deployed = Deployed::new().await;
        let provider = Provider::start(behaviour).await;
        let mut signup = deployed.signup(&provider.url(), &[]).await;
        let phone = fresh_phone();
        let response = signup.sign_up(&phone).await;
        let failed = (502, "Failed to send OTP", "sms_failed");
        assert_eq!(response.outcome(), failed, "{behaviour:?}");
        assert_eq!(provider.requests().len(), 1, "{behaviour:?}");
        assert_eq!(deployed.challenge(&phone).await, None, "{behaviour:?}");
        let Behaviour::Refuse(_, code) = behaviour else {
            unreachable!()
        };
        assert!(signup.log().iter().any(|line| line.contains(code)));
        assert_log_hides(&signup, &phone);
    }
}

#[tokio::test]
async fn a_provider_that_cannot_be_reached_is_502_and_the_challenge_is_revoked() {
    let deployed = Deployed::new().await;
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let closed = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    let mut signup = deployed.signup(&closed, &[]).await;
    let phone = fresh_phone();
    let response = signup.sign_up(&phone).await;
    assert_eq!(
        response.outcome(),
        (502, "Failed to send OTP", "sms_failed")
    );
    assert_eq!(deployed.challenge(&phone).await, None);
}

#[tokio::test]
async fn without_credentials_nothing_leaves_and_the_answer_is_502() {
    let deployed = Deployed::new().await;
    let provider = Provider::start(Behaviour::Accept).await;
    let own = [
        ("AWS_ACCESS_KEY_ID", ""),
        ("AWS_SECRET_ACCESS_KEY", ""),
        ("AWS_EC2_METADATA_DISABLED", "true"),
    ];
    let mut signup = deployed.signup(&provider.url(), &own).await;
    let phone = fresh_phone();
    let response = signup.sign_up(&phone).await;
    assert_eq!(
        response.outcome(),
        (502, "Failed to send OTP", "sms_failed")
    );
    assert!(provider.requests().is_empty());
    assert_eq!(deployed.challenge(&phone).await, None);
}

/// While a function is frozen the provider, or something on the way, may drop the connection without
/// its noticing; the next message must not be written into it.
#[tokio::test]
async fn no_connection_to_the_provider_is_kept_between_messages() {
    let deployed = Deployed::new().await;
    let provider = Provider::start(Behaviour::Accept).await;
    let mut signup = deployed.signup(&provider.url(), &[]).await;
    for sent in 1..=3 {
        assert_eq!(signup.sign_up(&fresh_phone()).await.status, 200);
        assert_eq!(provider.connections(), sent);
    }
}

#[tokio::test]
async fn an_unknown_outcome_is_200_sent_once_and_logged_as_an_error() {
    for behaviour in [Behaviour::Hang, Behaviour::BreakOff] {
        let deployed = Deployed::new().await;
        let provider = Provider::start(behaviour).await;
        // Long enough to connect on a busy machine.
        let own = [("SMS_TIMEOUT_MS", "2000")];
        let mut signup = deployed.signup(&provider.url(), &own).await;
        let phone = fresh_phone();
        let response = signup.sign_up(&phone).await;
        assert_eq!(response.status, 200, "{behaviour:?}");
        assert_eq!(provider.requests().len(), 1, "{behaviour:?}");
        assert_eq!(
            deployed.challenge(&phone).await,
            Some(response.text("challenge_id").to_owned())
        );
        let is_error = |line: &String| line.contains("counted as sent") && line.contains("ERROR");
        assert!(signup.log().iter().any(is_error), "{:#?}", signup.log());
        assert_log_hides(&signup, &phone);
    }
}

#[tokio::test]
async fn a_refused_resend_leaves_the_code_that_arrived_valid() {
    let deployed = Deployed::new().await;
    let accepting = Provider::start(Behaviour::Accept).await;
    let refusing = Provider::start(Behaviour::Refuse(400, "Throttling")).await;
    let phone = fresh_phone();
    let mut first = deployed.signup(&accepting.url(), &[]).await;
    let sent = first.sign_up(&phone).await;
    let mut second = deployed.signup(&refusing.url(), &[]).await;
    assert_eq!(second.sign_up(&phone).await.status, 502);
    assert_eq!(
        deployed.challenge(&phone).await,
        Some(sent.text("challenge_id").to_owned())
    );
}

#[tokio::test]
async fn a_number_that_the_provider_rejects_cannot_be_asked_for_without_end() {
    let deployed = Deployed::new().await;
    let provider = Provider::start(Behaviour::Refuse(400, "InvalidParameter")).await;
    let own = [
        ("LIMIT_PHONE", "2/1h"),
        ("LIMIT_ADDRESS", "5/1h"),
        ("LIMIT_RANGE", "1/6h"),
        ("LIMIT_COUNTRY", "1/1h"),
        ("LIMIT_TOTAL", "1/1h"),
        ("LIMIT_TOTAL_MAX", "1/1h"),
    ];
    let mut signup = deployed.signup(&provider.url(), &own).await;
    let rejected = fresh_phone();
    for attempt in 0..10 {
        let status = signup.sign_up(&rejected).await.status;
        assert_eq!(status, if attempt < 2 { 502 } else { 429 });
    }
    assert_eq!(provider.requests().len(), 2);
    // Range, country and total have their share again, the address has not.
    for (attempt, last) in (100..110).enumerate() {
        let neighbour = format!("{}{last}", &rejected[..rejected.len() - 3]);
        let status = signup.sign_up(&neighbour).await.status;
        assert_eq!(status, if attempt < 3 { 502 } else { 429 });
    }
    assert_eq!(provider.requests().len(), 5);
}

#[tokio::test]
async fn whatever_an_unknown_outcome_took_stays_taken() {
    let deployed = Deployed::new().await;
    let provider = Provider::start(Behaviour::BreakOff).await;
    let own = [("LIMIT_TOTAL", "1/1h")];
    let mut signup = deployed.signup(&provider.url(), &own).await;
    assert_eq!(signup.sign_up(&fresh_phone()).await.status, 200);
    assert_eq!(signup.sign_up(&fresh_phone()).await.status, 429);
    assert_eq!(provider.requests().len(), 1);
}

#[tokio::test]
async fn a_message_is_transactional_and_carries_what_is_set_and_nothing_from_the_client() {
    let deployed = Deployed::new().await;
    let provider = Provider::start(Behaviour::Accept).await;
    let own = [
        ("OTP_APP_NAME", "Acme"),
        ("OTP_DOMAIN", "example.com"),
        ("SNS_SENDER_ID", "ACME"),
        ("SNS_ORIGINATION_NUMBER", "+14155550100"),
        ("SNS_ENTITY_ID", "1201"),
        ("SNS_TEMPLATE_ID", "1307"),
    ];
    let mut signup = deployed.signup(&provider.url(), &own).await;
    let phone = fresh_phone();
    let name = "http://evil.example @evil.example #123456";
    let body = json!({"name": name, "phone_number": phone}).to_string();
    assert_eq!(
        signup.send(&event("POST", "/signup", &body)).await.status,
        200
    );

    let requests = provider.requests();
    let fields: Vec<(String, String)> = decode(&requests[0]);
    let value = |name: &str| {
        let found = fields.iter().find(|(field, _)| field == name);
        found.map_or("", |(_, value)| value.as_str())
    };
    assert_eq!(value("PhoneNumber"), phone);
    let message = value("Message");
    let code = &message[..6];
    assert_eq!(
        message,
        format!(
            "{code} is your Acme code, valid for 5 min. Don't share it.\n\n@example.com #{code}"
        )
    );
    let mut attributes: Vec<(&str, &str)> = (1..=5)
        .map(|entry| {
            (
                value(&format!("MessageAttributes.entry.{entry}.Name")),
                value(&format!(
                    "MessageAttributes.entry.{entry}.Value.StringValue"
                )),
            )
        })
        .collect();
    attributes.sort_unstable();
    assert_eq!(
        attributes,
        [
            ("AWS.MM.SMS.EntityId", "1201"),
            ("AWS.MM.SMS.OriginationNumber", "+14155550100"),
            ("AWS.MM.SMS.TemplateId", "1307"),
            ("AWS.SNS.SMS.SMSType", "Transactional"),
            ("AWS.SNS.SMS.SenderID", "ACME"),
        ]
    );
}

fn decode(form: &str) -> Vec<(String, String)> {
    let url = reqwest::Url::parse(&format!("http://form/?{form}")).unwrap();
    url.query_pairs().into_owned().collect()
}
