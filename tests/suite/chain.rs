//! A chain of providers, and the routes that choose it. SNS is the deployment's provider, Twilio a
//! second server.

use std::time::Duration;

use harness::{
    Behaviour, Deployment, Function, Provider, SNS_MESSAGE_ID, TWILIO_MESSAGE_ID, fresh_phone,
    outcome::SMS_FAILED, twilio_settings,
};
use serde_json::{Value, json};

struct Chain {
    deployment: Deployment,
    twilio: Provider,
    signup: Function,
}

impl Chain {
    /// `sns,twilio`, with some settings of its own.
    async fn start(sns: Behaviour, twilio: Behaviour, own: &[(&str, &str)]) -> Self {
        let deployment = Deployment::behind(sns).await;
        let twilio = Provider::start(twilio).await;
        let endpoint = twilio.url();
        let chain = [("SMS_PROVIDER", "sns,twilio"), ("LIMIT_PHONE", "off")];
        let own = [&twilio_settings(&endpoint)[..], &chain, own].concat();
        let signup = deployment.start("signup", &own).await;
        Self {
            deployment,
            twilio,
            signup,
        }
    }

    /// The requests so far, to SNS and to Twilio.
    fn asked(&self) -> (usize, usize) {
        let sns = self.deployment.provider.requests().len();
        (sns, self.twilio.requests().len())
    }

    /// The line about the only response has these members. One that is null here is not in it.
    fn assert_line(&self, members: &Value) {
        let lines = self.signup.response_lines();
        assert_eq!(lines.len(), 1);
        for (name, value) in members.as_object().unwrap() {
            assert_eq!(&lines[0][name], value, "{name}: {}", lines[0]);
        }
    }
}

#[tokio::test]
async fn the_first_provider_that_sends_is_the_only_one_asked() {
    let mut chain = Chain::start(Behaviour::Accept, Behaviour::Accept, &[]).await;
    chain.signup.sign_up(&fresh_phone()).await.assert_ok();
    assert_eq!(chain.asked(), (1, 0));
    chain.assert_line(&json!({
        "provider": "sns",
        "message_id": SNS_MESSAGE_ID,
        "sns_sent": 1,
        "twilio_sent": null
    }));
}

#[tokio::test]
async fn a_refusal_goes_to_the_next_provider_and_both_are_in_the_line() {
    // That SNS throttles is no reason to wait while Twilio is left.
    let refusing = Behaviour::Refuse(400, "Throttling");
    let mut chain = Chain::start(refusing, Behaviour::Accept, &[]).await;
    let phone = fresh_phone();
    let response = chain.signup.sign_up(&phone).await;
    response.assert_ok();
    assert_eq!(chain.asked(), (1, 1));
    // Both are given the same code.
    let form = &chain.deployment.provider.requests()[0];
    let code = chain.twilio.last_code_to(&phone);
    assert!(form.contains(&format!("Message={code}")), "{form}");
    chain.assert_line(&json!({
        "outcome": "sent",
        "provider": "twilio",
        "message_id": TWILIO_MESSAGE_ID,
        "sns_refused": 1,
        "twilio_sent": 1,
        "codes_sent": 1,
        "cause": null
    }));
    let line = &chain.signup.response_lines()[0];
    let by_country = json!([["function"], ["function", "country"]]);
    let metrics = line["_aws"]["CloudWatchMetrics"].as_array().unwrap();
    let counted = metrics.iter().find(|set| set["Dimensions"] == by_country);
    let counted = counted.unwrap()["Metrics"].to_string();
    assert!(counted.contains("sns_refused") && counted.contains("twilio_sent"));

    let log = chain.signup.log();
    let warning = log.iter().find(|line| line.contains("WARN")).unwrap();
    let warning: Value = serde_json::from_str(warning).unwrap();
    assert_eq!(warning["message"], "the next provider is asked");
    assert_eq!(warning["provider"], "sns");
    assert_eq!(warning["cause"], "Throttling (HTTP 400)");
    assert_eq!(warning["span"]["requestId"], line["span"]["requestId"]);
}

#[tokio::test]
async fn a_provider_that_cannot_be_reached_goes_to_the_next() {
    let closed = "http://127.0.0.1:1";
    let own = [("AWS_ENDPOINT_URL_SNS", closed)];
    let mut chain = Chain::start(Behaviour::Accept, Behaviour::Accept, &own).await;
    chain.signup.sign_up(&fresh_phone()).await.assert_ok();
    assert_eq!(chain.asked(), (0, 1));
    chain.assert_line(&json!({"sns_refused": 1, "twilio_sent": 1}));
}

#[tokio::test]
async fn a_lost_reply_asks_no_other_provider() {
    for behaviour in [Behaviour::Hang, Behaviour::BreakOff] {
        let mut chain = Chain::start(behaviour, Behaviour::Accept, &[]).await;
        chain.signup.sign_up(&fresh_phone()).await.assert_ok();
        assert_eq!(chain.asked(), (1, 0), "{behaviour:?}");
        chain.assert_line(&json!({
            "provider": "sns",
            "message_id": null,
            "sns_unknown": 1,
            "unknown_sends": 1,
            "codes_sent": 1
        }));
    }
}

#[tokio::test]
async fn refused_by_all_is_502_and_the_challenge_is_revoked() {
    let mut chain = Chain::start(
        Behaviour::Refuse(500, "InternalFailure"),
        Behaviour::Refuse(400, "21614"),
        &[],
    )
    .await;
    let phone = fresh_phone();
    chain.signup.sign_up(&phone).await.assert_is(SMS_FAILED);
    assert_eq!(chain.asked(), (1, 1));
    let server = &chain.deployment.redis_server;
    assert_eq!(server.latest_challenge(&phone).await, None);
    chain.assert_line(&json!({
        "provider": "twilio",
        "sns_refused": 1,
        "twilio_refused": 1,
        "codes_sent": null,
        "cause": "the provider did not send the message: error 21614 (HTTP 400)"
    }));
}

#[tokio::test]
async fn a_throttled_provider_is_asked_once_more_when_none_is_left() {
    let throttling = Behaviour::Refuse(429, "20429");
    let own = [("SMS_PROVIDER", "twilio")];
    let mut chain = Chain::start(Behaviour::Accept, throttling, &own).await;
    chain
        .signup
        .sign_up(&fresh_phone())
        .await
        .assert_is(SMS_FAILED);
    assert_eq!(chain.asked(), (0, 2));
    chain.assert_line(&json!({"twilio_refused": 1}));

    let mut chain = Chain::start(Behaviour::Refuse(400, "Throttled"), throttling, &[]).await;
    chain
        .signup
        .sign_up(&fresh_phone())
        .await
        .assert_is(SMS_FAILED);
    assert_eq!(chain.asked(), (1, 2));
}

#[tokio::test]
async fn a_message_that_is_sent_at_the_second_attempt_is_sent() {
    let own = [("SMS_PROVIDER", "sns")];
    let once = Behaviour::RefuseOnce(429, "Throttled");
    let mut chain = Chain::start(once, Behaviour::Accept, &own).await;
    chain.signup.sign_up(&fresh_phone()).await.assert_ok();
    assert_eq!(chain.asked(), (2, 0));
    chain.assert_line(&json!({"sns_sent": 1, "sns_refused": null, "codes_sent": 1}));
}

#[tokio::test]
async fn a_provider_without_time_for_a_second_attempt_is_not_asked_again() {
    let own = [
        ("SMS_PROVIDER", "twilio"),
        ("STORE_TIMEOUT_MS", "500"),
        ("SMS_TIMEOUT_MS", "4000"),
        ("REQUEST_TIMEOUT_MS", "4100"),
    ];
    let slow = Behaviour::RefuseAfter(Duration::from_secs(2), 429, "20429");
    let mut chain = Chain::start(Behaviour::Accept, slow, &own).await;
    // A second attempt needs two of the 1.6 seconds that are left.
    let response = chain.signup.sign_up(&fresh_phone()).await;
    response.assert_is(SMS_FAILED);
    assert_eq!(chain.asked(), (0, 1));
}

#[tokio::test]
async fn the_region_of_the_number_chooses_the_chain() {
    let own = [
        ("SMS_PROVIDER", "sns"),
        ("SMS_ROUTES", "IN:twilio;US,CA:sns,twilio"),
    ];
    let refusing = Behaviour::Refuse(400, "InvalidParameter");
    let mut chain = Chain::start(refusing, Behaviour::Accept, &own).await;
    let mut before = chain.asked();
    for (number, status, sns, twilio) in [
        ("+4915112345678", 502, 1, 0),
        ("+919876543210", 200, 0, 1),
        ("+16135550123", 200, 1, 1),
        // Jamaica has the calling code of the United States, and no route.
        ("+18765550123", 502, 1, 0),
    ] {
        let response = chain.signup.sign_up(number).await;
        assert_eq!(response.status, status, "{number}");
        let after = chain.asked();
        let asked = (after.0 - before.0, after.1 - before.1);
        assert_eq!(asked, (sns, twilio), "{number}");
        before = after;
    }
}
