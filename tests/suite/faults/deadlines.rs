//! Responses come in time, and nothing works on after them.

use shared::lambda::Function as _;
use std::time::Duration;

use harness::{
    Behaviour, Fault, PATIENCE, Provider, Response, Service, event, fresh_phone,
    outcome::{NOT_REGISTERED, NOT_STORED, OTP_EXPIRED, OTP_MISMATCH, SMS_FAILED},
    since_1970, until, wrong,
};
use lambda_http::{Context, RequestExt, request::from_str};
use serde_json::{Value, json};
use tokio::time::timeout;

/// The response to a request that Lambda cuts off after this time.
async fn post(service: &Service, cut_off: Duration, path: &str, body: &Value) -> Response {
    let at = since_1970() + cut_off;
    let mut context = Context::default();
    context.deadline = at.as_millis().try_into().unwrap();
    let event = event("POST", path, &body.to_string()).to_string();
    let request = from_str(&event).unwrap().with_lambda_context(context);
    let response = async {
        match path {
            "/verify" => service.verify.handle(request).await,
            _ => service.signup.handle(request).await,
        }
    };
    let response = timeout(PATIENCE / 2, response).await;
    Response::of_handler(response.expect("no response before Lambda cuts off"))
}

/// Each timeout of ours alone is longer than the patience of this test.
#[tokio::test]
async fn a_response_comes_before_lambda_cuts_off_however_long_our_own_timeouts_are() {
    let service = Service::start_with(&[
        ("STORE_TIMEOUT_MS", "19900"),
        ("SMS_TIMEOUT_MS", "500"),
        ("REQUEST_TIMEOUT_MS", "60000"),
    ])
    .await;
    let (phone, code) = service.fresh_code().await;
    let _lock = service.database.lock("users, used_challenges").await;

    let time = Duration::from_secs(7);
    let body = json!({"name": "Ada", "phone_number": phone});
    let response = post(&service, time, "/signup", &body).await;
    response.assert_is(NOT_STORED);

    service.redis.lose_connections();
    let body = json!({"otp": code, "phone_number": phone});
    let response = post(&service, time, "/verify", &body).await;
    response.assert_is(NOT_REGISTERED);
}

/// The time left for the provider is too short to learn whether it sends, because revoking the
/// challenge needs some, too.
#[tokio::test]
async fn a_code_that_there_is_no_time_left_to_send_is_revoked_unsent() {
    let provider = Provider::start(Behaviour::Accept).await;
    let service = Service::start_with(&[
        ("AWS_ENDPOINT_URL_SNS", &provider.url()),
        ("STORE_TIMEOUT_MS", "4000"),
        ("SMS_TIMEOUT_MS", "4000"),
        ("REQUEST_TIMEOUT_MS", "20000"),
    ])
    .await;
    let phone = fresh_phone();
    let body = json!({"name": "Ada", "phone_number": phone});
    let response = post(&service, Duration::from_secs(6), "/signup", &body).await;
    response.assert_is(SMS_FAILED);
    assert_eq!(provider.connections(), 0);
    let newest = service.redis_server.latest_challenge(&phone).await;
    assert_eq!(newest, None);
    let keys = service.redis_server.keys("*challenge*").await;
    let command = ["HGET", &keys[0], "revoked"];
    assert!(service.redis_server.run::<bool>(&command).await);
}

#[tokio::test]
async fn without_any_time_left_no_store_is_asked_for_anything() {
    let service = Service::start().await;
    let (phone, code) = service.fresh_code().await;
    let body = json!({"otp": code, "phone_number": phone});
    let request = post(&service, Duration::from_millis(400), "/verify", &body);
    let (response, trips) = service.counting(request).await;
    response.assert_is(NOT_REGISTERED);
    assert_eq!(trips, (0, 0));
    service.verify(&phone, &code).await.assert_ok();
}

#[tokio::test]
async fn a_reply_of_redis_that_comes_too_late_is_nobodys() {
    let service = Service::start_with(&[("STORE_TIMEOUT_MS", "1000")]).await;
    let (phone, code) = service.fresh_code().await;
    let response = service.verify(&phone, &wrong(&code)).await;
    response.assert_is(OTP_MISMATCH);
    let late = Duration::from_millis(1200);
    service.redis.after(0, Fault::DelayReply(late));
    let response = service.verify(&phone, &wrong(&code)).await;
    response.assert_is(NOT_REGISTERED);
    service.verify(&phone, &code).await.assert_ok();
}

/// Postgres is told to stop; the response tells what it had done by then.
#[tokio::test]
async fn a_statement_that_took_too_long_leaves_no_session_behind() {
    let service = Service::start_with(&[("STORE_TIMEOUT_MS", "1000")]).await;
    let (phone, code) = service.fresh_code().await;
    service.postgres.after(0, Fault::LoseReply);
    let response = service.verify(&phone, &code).await;
    response.assert_is(NOT_REGISTERED);
    // The others are those of `signup` and `session`.
    until("the dead connection is closed", async || {
        service.postgres.open_connections() == 2
    })
    .await;
    assert_eq!(service.database.users_with(&phone).await, 1);
    service.verify(&phone, &code).await.assert_is(OTP_EXPIRED);
}
