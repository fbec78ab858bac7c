//! Twilio as the provider, alone: its reply decides as that of SNS does, see `provider`.

use std::net::TcpListener;

use base64::{Engine, prelude::BASE64_STANDARD};
use harness::{
    Behaviour, Deployment, Function, TWILIO_TOKEN, fresh_phone, outcome::SMS_FAILED,
    twilio_settings,
};
use serde_json::Value;

/// `signup`, which sends through the deployment's provider as Twilio.
async fn start(deployment: &Deployment, own: &[(&str, &str)]) -> Function {
    let endpoint = deployment.provider.url();
    let own = [&twilio_settings(&endpoint)[..], own].concat();
    deployment.start("signup", &own).await
}

/// The fields of the only request so far, sorted.
fn form(deployment: &Deployment) -> Vec<(String, String)> {
    let requests = deployment.provider.requests();
    assert_eq!(requests.len(), 1);
    let url = reqwest::Url::parse(&format!("http://form/?{}", requests[0])).unwrap();
    let mut fields: Vec<_> = url.query_pairs().into_owned().collect();
    fields.sort_unstable();
    fields
}

fn assert_log_hides(function: &Function, phone: &str) {
    for line in function.log() {
        assert!(!line.contains(&phone[1..]), "{line}");
        assert!(!line.contains("4915100000000"), "Twilio's text: {line}");
        let _is_json: Value = serde_json::from_str(&line).expect(&line);
    }
}

/// The id of the phone's newest challenge.
async fn challenge(deployment: &Deployment, phone: &str) -> Option<String> {
    deployment.redis_server.latest_challenge(phone).await
}

#[tokio::test]
async fn a_message_is_one_form_in_utf_8_with_basic_authentication() {
    let deployment = Deployment::new().await;
    // The pound sign is in the GSM alphabet and takes two bytes in UTF-8.
    let own = [("OTP_APP_NAME", "A&B = £+%"), ("OTP_DOMAIN", "example.com")];
    let mut signup = start(&deployment, &own).await;
    let phone = fresh_phone();
    signup.sign_up(&phone).await.assert_ok();
    let code = deployment.provider.last_code_to(&phone);
    let line = format!("{code} is your A&B = £+% code, valid for 5 min. Don't share it.");
    let fields = [
        ("Body", format!("{line}\n\n@example.com #{code}")),
        ("From", "+14155550100".to_owned()),
        ("To", phone.clone()),
        ("ValidityPeriod", "300".to_owned()),
    ];
    let fields = fields.map(|(name, value)| (name.to_owned(), value));
    assert_eq!(form(&deployment), fields);
    // A plus sign that is sent as it is would arrive as a space.
    let sent = &deployment.provider.requests()[0];
    assert!(sent.contains(&format!("To=%2B{}", &phone[1..])), "{sent}");
    assert!(sent.contains("%C2%A3"), "{sent}");

    let account = "ACfeedbeeffeedbeeffeedbeeffeedbeef";
    let head = &deployment.provider.heads()[0];
    let path = format!("POST /2010-04-01/Accounts/{account}/Messages.json HTTP/1.1\r\n");
    assert!(head.starts_with(&path), "{head}");
    let login = BASE64_STANDARD.encode(format!("{account}:{TWILIO_TOKEN}"));
    for header in [
        format!("authorization: Basic {login}"),
        "content-type: application/x-www-form-urlencoded".to_owned(),
    ] {
        assert!(head.lines().any(|line| line == header), "{head}");
    }
}

#[tokio::test]
async fn a_messaging_service_takes_the_place_of_the_number() {
    let deployment = Deployment::new().await;
    let service = "MGfeedbeeffeedbeeffeedbeeffeedbeef";
    let own = [
        ("TWILIO_FROM", ""),
        ("TWILIO_MESSAGING_SERVICE_SID", service),
    ];
    let mut signup = start(&deployment, &own).await;
    signup.sign_up(&fresh_phone()).await.assert_ok();
    let fields = form(&deployment);
    let names: Vec<&str> = fields.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(
        names,
        ["Body", "MessagingServiceSid", "To", "ValidityPeriod"]
    );
    assert_eq!(fields[1].1, service);
}

#[tokio::test]
async fn an_error_reply_is_502_and_of_its_text_only_the_numbers_are_kept() {
    for (behaviour, cause) in [
        (Behaviour::Refuse(400, "21211"), "error 21211 (HTTP 400)"),
        (Behaviour::Refuse(401, "20003"), "error 20003 (HTTP 401)"),
        (Behaviour::Refuse(503, "20503"), "error 20503 (HTTP 503)"),
        (Behaviour::Garble(500), "error without a code (HTTP 500)"),
        (
            Behaviour::HangInBody(400),
            "error without a code (HTTP 400)",
        ),
    ] {
        let deployment = Deployment::behind(behaviour).await;
        let mut signup = start(&deployment, &[("SMS_TIMEOUT_MS", "2000")]).await;
        let phone = fresh_phone();
        let response = signup.sign_up(&phone).await;
        assert_eq!(response.outcome(), SMS_FAILED, "{behaviour:?}");
        assert_eq!(deployment.provider.requests().len(), 1, "{behaviour:?}");
        assert_eq!(challenge(&deployment, &phone).await, None, "{behaviour:?}");
        let lines = signup.response_lines();
        let expected = format!("the provider did not send the message: {cause}");
        assert_eq!(lines[0]["cause"], expected);
        assert_log_hides(&signup, &phone);
    }
}

#[tokio::test]
async fn a_server_that_cannot_be_reached_is_502_and_the_challenge_is_revoked() {
    let deployment = Deployment::new().await;
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let closed = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    let mut signup = start(&deployment, &[("TWILIO_ENDPOINT", &closed)]).await;
    let phone = fresh_phone();
    signup.sign_up(&phone).await.assert_is(SMS_FAILED);
    assert_eq!(challenge(&deployment, &phone).await, None);
}

#[tokio::test]
async fn a_lost_reply_is_200_sent_once_and_logged_as_an_error() {
    for behaviour in [Behaviour::Hang, Behaviour::BreakOff] {
        let deployment = Deployment::behind(behaviour).await;
        let mut signup = start(&deployment, &[("SMS_TIMEOUT_MS", "2000")]).await;
        let phone = fresh_phone();
        signup.sign_up(&phone).await.assert_ok();
        assert_eq!(deployment.provider.requests().len(), 1, "{behaviour:?}");
        assert!(challenge(&deployment, &phone).await.is_some());
        let line = &signup.response_lines()[0];
        assert_eq!(line["unknown_sends"], 1, "{line}");
        let is_error = |line: &String| line.contains("counted as sent") && line.contains("ERROR");
        assert!(signup.log().iter().any(is_error), "{:#?}", signup.log());
        assert_log_hides(&signup, &phone);
    }
}

#[tokio::test]
async fn a_status_of_success_is_a_sent_message_however_its_body_reads() {
    for behaviour in [
        Behaviour::AcceptAfter(std::time::Duration::from_millis(50)),
        Behaviour::Garble(201),
        Behaviour::HangInBody(201),
    ] {
        let deployment = Deployment::behind(behaviour).await;
        let mut signup = start(&deployment, &[("SMS_TIMEOUT_MS", "2000")]).await;
        signup.sign_up(&fresh_phone()).await.assert_ok();
        let line = &signup.response_lines()[0];
        assert_eq!(line["codes_sent"], 1, "{behaviour:?}: {line}");
        assert!(line["unknown_sends"].is_null(), "{behaviour:?}: {line}");
        assert_eq!(deployment.provider.requests().len(), 1, "{behaviour:?}");
    }
}

#[tokio::test]
async fn no_connection_to_twilio_is_kept_between_messages() {
    let deployment = Deployment::new().await;
    let mut signup = start(&deployment, &[("LIMIT_ADDRESS", "off")]).await;
    for sent in 1..=3 {
        signup.sign_up(&fresh_phone()).await.assert_ok();
        assert_eq!(deployment.provider.connections(), sent);
    }
}
