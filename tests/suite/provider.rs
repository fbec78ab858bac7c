//! The provider's reply decides if a code counts as sent. The real SDK speaks to a provider
//! that misbehaves; the function is the real binary, because the SDK takes its endpoint from the
//! process's environment.

use std::net::TcpListener;

use harness::{
    Behaviour, Deployment, Function, Provider, fresh_phone, neighbour, outcome::SMS_FAILED,
};
use serde_json::{Value, json};

async fn start(deployment: &Deployment, own: &[(&str, &str)]) -> Function {
    let own = [&[("LIMIT_PHONE", "off")], own].concat();
    deployment.start("signup", &own).await
}

/// The id of the phone's newest challenge.
async fn challenge(deployment: &Deployment, phone: &str) -> Option<String> {
    deployment.redis_server.latest_challenge(phone).await
}

fn assert_log_hides(function: &Function, phone: &str) {
    for line in function.log() {
        assert!(!line.contains(&phone[1..]), "{line}");
        assert!(
            !line.contains("4915100000000"),
            "the provider's text: {line}"
        );
        let _is_json: Value = serde_json::from_str(&line).expect(&line);
    }
}

#[tokio::test]
async fn a_provider_that_refuses_is_502_and_the_challenge_is_revoked() {
    for (status, code, requests) in [
        (400, "InvalidParameter", 1),
        (400, "Throttling", 2),
        (400, "Throttled", 2),
        (429, "TooManyRequests", 2),
        (500, "InternalFailure", 1),
        (503, "ServiceUnavailable", 1),
    ] {
        let deployment = Deployment::behind(Behaviour::Refuse(status, code)).await;
        let mut signup = start(&deployment, &[]).await;
        let phone = fresh_phone();
        let response = signup.sign_up(&phone).await;
        assert_eq!(response.outcome(), SMS_FAILED, "{code}");
        assert_eq!(deployment.provider.requests().len(), requests, "{code}");
        assert_eq!(challenge(&deployment, &phone).await, None, "{code}");
        assert!(signup.log().iter().any(|line| line.contains(code)));
        assert_log_hides(&signup, &phone);
    }
}

#[tokio::test]
async fn a_provider_that_cannot_be_reached_is_502_and_the_challenge_is_revoked() {
    let deployment = Deployment::new().await;
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let closed = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    let mut signup = start(&deployment, &[("AWS_ENDPOINT_URL_SNS", &closed)]).await;
    let phone = fresh_phone();
    signup.sign_up(&phone).await.assert_is(SMS_FAILED);
    assert_eq!(challenge(&deployment, &phone).await, None);
}

#[tokio::test]
async fn without_credentials_nothing_leaves_and_the_response_is_502() {
    let deployment = Deployment::new().await;
    let own = [("AWS_ACCESS_KEY_ID", ""), ("AWS_SECRET_ACCESS_KEY", "")];
    let mut signup = start(&deployment, &own).await;
    let phone = fresh_phone();
    signup.sign_up(&phone).await.assert_is(SMS_FAILED);
    assert!(deployment.provider.requests().is_empty());
    assert_eq!(challenge(&deployment, &phone).await, None);
}

/// While a function is frozen the provider, or something on the way, may drop the connection
/// without its noticing; the next message must not be written into it.
#[tokio::test]
async fn no_connection_to_the_provider_is_kept_between_messages() {
    let deployment = Deployment::new().await;
    let mut signup = start(&deployment, &[]).await;
    for sent in 1..=3 {
        signup.sign_up(&fresh_phone()).await.assert_ok();
        assert_eq!(deployment.provider.connections(), sent);
    }
}

#[tokio::test]
async fn an_unknown_outcome_is_200_sent_once_and_logged_as_an_error() {
    for behaviour in [Behaviour::Hang, Behaviour::BreakOff] {
        let deployment = Deployment::behind(behaviour).await;
        // Long enough to connect on a busy machine.
        let mut signup = start(&deployment, &[("SMS_TIMEOUT_MS", "2000")]).await;
        let phone = fresh_phone();
        let response = signup.sign_up(&phone).await;
        assert_eq!(response.status, 200, "{behaviour:?}");
        assert_eq!(deployment.provider.requests().len(), 1, "{behaviour:?}");
        let id = challenge(&deployment, &phone).await.unwrap();
        assert_eq!(id, response.text("challenge_id"));
        let is_error = |line: &String| line.contains("counted as sent") && line.contains("ERROR");
        assert!(signup.log().iter().any(is_error), "{:#?}", signup.log());
        assert_log_hides(&signup, &phone);
    }
}

#[tokio::test]
async fn a_refused_resend_leaves_the_code_that_arrived_valid() {
    let deployment = Deployment::new().await;
    let refusing = Provider::start(Behaviour::Refuse(400, "Throttling")).await;
    let phone = fresh_phone();
    let mut first = start(&deployment, &[]).await;
    let sent = first.sign_up(&phone).await;
    let mut second = start(&deployment, &[("AWS_ENDPOINT_URL_SNS", &refusing.url())]).await;
    second.sign_up(&phone).await.assert_is(SMS_FAILED);
    let id = challenge(&deployment, &phone).await.unwrap();
    assert_eq!(id, sent.text("challenge_id"));
}

#[tokio::test]
async fn a_number_that_the_provider_rejects_cannot_be_asked_for_without_end() {
    let deployment = Deployment::behind(Behaviour::Refuse(400, "InvalidParameter")).await;
    let own = [
        ("LIMIT_PHONE", "2/1h"),
        ("LIMIT_ADDRESS", "5/1h"),
        ("LIMIT_RANGE", "1/6h"),
        ("LIMIT_COUNTRY", "1/1h"),
        ("LIMIT_TOTAL", "1/1h"),
        ("LIMIT_TOTAL_MAX", "1/1h"),
    ];
    let mut signup = start(&deployment, &own).await;
    let rejected = fresh_phone();
    for attempt in 0..10 {
        let status = signup.sign_up(&rejected).await.status;
        assert_eq!(status, if attempt < 2 { 502 } else { 429 });
    }
    assert_eq!(deployment.provider.requests().len(), 2);
    // Range, country and total have their share again, the address has not.
    for attempt in 0..10 {
        let neighbour = neighbour(&rejected, 100 + attempt);
        let status = signup.sign_up(&neighbour).await.status;
        assert_eq!(status, if attempt < 3 { 502 } else { 429 });
    }
    assert_eq!(deployment.provider.requests().len(), 5);
}

#[tokio::test]
async fn whatever_an_unknown_outcome_took_stays_taken() {
    let deployment = Deployment::behind(Behaviour::BreakOff).await;
    let mut signup = start(&deployment, &[("LIMIT_TOTAL", "1/1h")]).await;
    signup.sign_up(&fresh_phone()).await.assert_ok();
    signup.sign_up(&fresh_phone()).await.assert_limited();
    assert_eq!(deployment.provider.requests().len(), 1);
}

#[tokio::test]
async fn a_message_is_transactional_and_carries_what_is_set_and_nothing_from_the_client() {
    let deployment = Deployment::new().await;
    let own = [
        ("OTP_APP_NAME", "Acme"),
        ("OTP_DOMAIN", "example.com"),
        ("SNS_SENDER_ID", "ACME"),
        ("SNS_ORIGINATION_NUMBER", "+14155550100"),
        ("SNS_ENTITY_ID", "1201"),
        ("SNS_TEMPLATE_ID", "1307"),
    ];
    let mut signup = start(&deployment, &own).await;
    let phone = fresh_phone();
    let name = "http://evil.example @evil.example #123456";
    let body = json!({"name": name, "phone_number": phone});
    signup.post("/signup", &body).await.assert_ok();

    let form = &deployment.provider.requests()[0];
    let url = reqwest::Url::parse(&format!("http://form/?{form}")).unwrap();
    let fields: Vec<(String, String)> = url.query_pairs().into_owned().collect();
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
    let mut attributes = [1, 2, 3, 4, 5].map(|entry| {
        let entry = format!("MessageAttributes.entry.{entry}");
        let name = value(&format!("{entry}.Name"));
        (name, value(&format!("{entry}.Value.StringValue")))
    });
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
