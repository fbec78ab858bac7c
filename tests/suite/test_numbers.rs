//! `TEST_NUMBERS`: fixed codes without messages.

use harness::{
    Deployment, LIMITS, Response, Service, Tokens, fresh_phone, messages_to,
    outcome::{
        LOGGED_IN, OTP_MISMATCH, PHONE_CHANGED, RATE_LIMITED, REGISTERED, TOO_MANY_ATTEMPTS,
        UNSUPPORTED_PHONE,
    },
};
use serde_json::{Value, json};

const CODE: &str = "271828";

/// A setting that makes this number a test number.
fn is_test(phone: &str) -> String {
    format!("{phone}={CODE}@2099-12-31")
}

/// A service with a test number, and some other settings.
async fn with_test_number(own: &[(&str, &str)]) -> (Service, String) {
    let phone = fresh_phone();
    let setting = is_test(&phone);
    let own = [own, &[("TEST_NUMBERS", &*setting)]].concat();
    (Service::start_with(&own).await, phone)
}

/// Submits the code of a test number, with the id of the challenge that `sent` names.
async fn submit(service: &Service, phone: &str, sent: &Response) -> Response {
    sent.assert_ok();
    let id = sent.text("challenge_id");
    service.verify_challenge(phone, CODE, id).await
}

#[tokio::test]
async fn a_test_number_signs_up_and_in_with_its_code_and_gets_no_message() {
    for reveals in ["true", "false"] {
        let (service, phone) = with_test_number(&[("REVEAL_REGISTERED", reveals)]).await;
        let sent = service.sign_up(&phone).await;
        assert_eq!(sent.body["code_length"], CODE.len());
        submit(&service, &phone, &sent).await.assert_is(REGISTERED);
        let sent = service.log_in(&phone).await;
        submit(&service, &phone, &sent).await.assert_is(LOGGED_IN);
        assert_eq!(messages_to(&phone).await, [""; 0]);
        // Every other number gets a message, and no code of a test number.
        let (other, code) = service.fresh_code().await;
        assert_ne!(code, CODE);
        service.verify(&other, &code).await.assert_is(REGISTERED);
    }
}

#[tokio::test]
async fn a_user_can_change_to_a_test_number() {
    let (service, phone) = with_test_number(&[]).await;
    let tokens = service.sign_in().await;
    let sent = service.change_phone(&tokens.access, &phone).await;
    sent.assert_ok();
    let body = json!({"otp": CODE, "phone_number": phone}).to_string();
    let changed = service
        .send_as(&tokens.access, "POST", "/verify", &body)
        .await;
    changed.assert_is(PHONE_CHANGED);
    assert_eq!(messages_to(&phone).await, [""; 0]);
}

/// Each request warns the old number.
#[tokio::test]
async fn a_user_cannot_ask_for_a_test_number_without_end() {
    let (service, phone) = with_test_number(&[("LIMIT_PHONE", "2/1h")]).await;
    let tokens = service.sign_in().await;
    for _ in 0..2 {
        let sent = service.change_phone(&tokens.access, &phone).await;
        sent.assert_ok();
    }
    let refused = service.change_phone(&tokens.access, &phone).await;
    refused.assert_is(RATE_LIMITED);
}

#[tokio::test]
async fn a_code_may_be_longer_than_usual() {
    let phone = fresh_phone();
    let setting = format!("{phone}=0011223344@2099-12-31");
    let service = Service::start_with(&[("TEST_NUMBERS", &setting)]).await;
    let sent = service.sign_up(&phone).await;
    assert_eq!(sent.body["code_length"], 10);
    service
        .verify(&phone, "0011223344")
        .await
        .assert_is(REGISTERED);
}

#[tokio::test]
async fn after_its_last_day_it_is_a_number_like_any_other() {
    let phone = fresh_phone();
    let setting = format!("{phone}={CODE}@2026-01-31");
    let service = Service::start_with(&[("TEST_NUMBERS", &setting)]).await;
    let challenge = service.challenge(&phone).await;
    assert_ne!(challenge.code, CODE);
    service.verify(&phone, CODE).await.assert_is(OTP_MISMATCH);
    service.submit(&challenge).await.assert_is(REGISTERED);
}

#[tokio::test]
async fn no_limit_on_sending_applies_to_it_and_it_takes_from_none() {
    let sending = LIMITS.into_iter().filter(|name| name.starts_with("LIMIT_"));
    let sending = sending.filter(|&name| name != "LIMIT_GUESSES");
    let own: Vec<_> = sending.map(|name| (name, "1/6h")).collect();
    let (service, phone) = with_test_number(&own).await;
    for _ in 0..3 {
        service.sign_up(&phone).await.assert_ok();
    }
    let other = fresh_phone();
    service.sign_up(&other).await.assert_ok();
    service
        .sign_up(&fresh_phone())
        .await
        .assert_is(RATE_LIMITED);
    service.sign_up(&phone).await.assert_ok();
}

#[tokio::test]
async fn it_may_be_in_a_country_that_is_not_served() {
    let (service, phone) = with_test_number(&[("ALLOWED_COUNTRIES", "US")]).await;
    let sent = service.sign_up(&phone).await;
    submit(&service, &phone, &sent).await.assert_is(REGISTERED);
    let other = service.sign_up(&fresh_phone()).await;
    other.assert_is(UNSUPPORTED_PHONE);
}

#[tokio::test]
async fn guessing_at_it_is_limited_however_many_challenges_there_are() {
    let own = [("MISSES_PHONE", "10/30d"), ("OTP_MAX_ATTEMPTS", "5")];
    let (service, phone) = with_test_number(&own).await;
    let mut challenge = service.sign_up(&phone).await;
    for i in 0..10 {
        if i % 5 == 0 {
            challenge = service.sign_up(&phone).await;
        }
        let id = challenge.text("challenge_id");
        let refused = service.verify_challenge(&phone, "314159", id).await;
        refused.assert_is(OTP_MISMATCH);
        assert_eq!(refused.body["attempts_remaining"], 4 - i % 5);
    }
    let challenge = service.sign_up(&phone).await;
    let refused = submit(&service, &phone, &challenge).await;
    refused.assert_is(TOO_MANY_ATTEMPTS);
}

/// Otherwise whoever knows one such code could guess at all other numbers for ever.
#[tokio::test]
async fn its_answers_pay_for_no_misses() {
    let (service, phone) = with_test_number(&[("MISSES_TOTAL", "3/1d")]).await;
    for _ in 0..3 {
        let challenge = service.challenge(&fresh_phone()).await;
        service.guess(&challenge).await.assert_is(OTP_MISMATCH);
    }
    let length = async || service.sign_up(&fresh_phone()).await.body["code_length"].clone();
    assert_eq!(length().await, 10);
    for _ in 0..60 {
        let sent = service.sign_up(&phone).await;
        let answer = submit(&service, &phone, &sent).await;
        answer.assert_is(REGISTERED);
        service
            .delete_user(&Tokens::of(&answer).access)
            .await
            .assert_ok();
    }
    assert_eq!(length().await, 10);
}

#[tokio::test]
async fn its_codes_are_logged_and_counted_apart() {
    let deployment = Deployment::new().await;
    let phone = fresh_phone();
    let setting = is_test(&phone);
    let mut signup = deployment
        .start("signup", &[("TEST_NUMBERS", &setting)])
        .await;
    let mut verify = deployment.start("verify", &[]).await;
    signup.sign_up(&phone).await.assert_ok();
    let body = json!({"otp": CODE, "phone_number": phone});
    verify.post("/verify", &body).await.assert_is(REGISTERED);
    assert_eq!(deployment.provider.requests(), [""; 0]);
    let last = |line: &Value, members: [&str; 3]| members.map(|member| line[member].clone());
    let line = signup.response_lines().pop().unwrap();
    let members = ["outcome", "test_codes", "codes_sent"];
    assert_eq!(
        last(&line, members),
        [json!("test_code"), json!(1), Value::Null]
    );
    let line = verify.response_lines().pop().unwrap();
    let members = ["outcome", "test_codes", "codes_verified"];
    assert_eq!(
        last(&line, members),
        [json!("registered"), Value::Null, Value::Null]
    );
}
