//! Responses come in time, and nothing works on after them.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use harness::{
    Behaviour, Fault, PATIENCE, Provider, Response, Service, event, fresh_phone, until, wrong,
};
use lambda_http::{Context, Request, RequestExt, request::from_str};
use serde_json::json;

use super::{in_time, rows};
use crate::outages::assert_unavailable;

/// A request that Lambda cuts off after this time.
fn cut_off_after(time: Duration, path: &str, body: &serde_json::Value) -> Request {
    let cut_off = SystemTime::now() + time;
    let mut context = Context::default();
    let since_1970 = cut_off.duration_since(UNIX_EPOCH).unwrap();
    context.deadline = since_1970.as_millis().try_into().unwrap();
    let event = event("POST", path, &body.to_string()).to_string();
    from_str(&event).unwrap().with_lambda_context(context)
}

/// Each timeout of ours alone is longer than the patience of this test.
#[tokio::test]
async fn an_answer_comes_before_lambda_cuts_off_however_long_our_own_timeouts_are() {
    let service = Service::start_with(&[
        ("STORE_TIMEOUT_MS", "19900"),
        ("SMS_TIMEOUT_MS", "500"),
        ("REQUEST_TIMEOUT_MS", "60000"),
    ])
    .await;
    let phone = fresh_phone();
    let code = service.code_for(&phone).await;
    let locked = service.database.connect().await;
    let lock = "BEGIN; LOCK TABLE users, used_challenges IN ACCESS EXCLUSIVE MODE";
    locked.batch_execute(lock).await.unwrap();

    let time = Duration::from_secs(7);
    let body = json!({"name": "Ada", "phone_number": phone});
    let request = cut_off_after(time, "/signup", &body);
    let response = tokio::time::timeout(PATIENCE / 2, service.signup.handle(request)).await;
    let response = Response::of_handler(response.expect("no response before Lambda cuts off"));
    assert_unavailable(&response, "Failed to store user data");

    service.redis.lose_connections();
    let body = json!({"otp": code, "phone_number": phone});
    let request = cut_off_after(time, "/verify", &body);
    let response = tokio::time::timeout(PATIENCE / 2, service.verify.handle(request)).await;
    let response = Response::of_handler(response.expect("no response before Lambda cuts off"));
    assert_unavailable(&response, "Failed to register user");
}

/// What is left for the provider is too little to learn what became of the message, because revoking the
/// challenge needs its time, too.
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
    let request = cut_off_after(Duration::from_secs(6), "/signup", &body);
    let response = Response::of_handler(service.signup.handle(request).await);
    assert_eq!(
        response.outcome(),
        (502, "Failed to send OTP", "sms_failed")
    );
    assert_eq!(provider.connections(), 0);
    let newest = service.redis_server.latest_challenge(&phone).await;
    assert_eq!(newest, None);
    let keys: Vec<String> = service.redis_server.run(&["KEYS", "*challenge*"]).await;
    let command = ["HGET", &keys[0], "revoked"];
    assert!(service.redis_server.run::<bool>(&command).await);
}

#[tokio::test]
async fn without_any_time_left_no_store_is_asked_for_anything() {
    let service = Service::start().await;
    let phone = fresh_phone();
    let code = service.code_for(&phone).await;
    let trips = || (service.redis.round_trips(), service.postgres.round_trips());
    let before = trips();
    let body = json!({"otp": code, "phone_number": phone});
    let request = cut_off_after(Duration::from_millis(400), "/verify", &body);
    let response = Response::of_handler(service.verify.handle(request).await);
    assert_unavailable(&response, "Failed to register user");
    assert_eq!(trips(), before);
    assert_eq!(service.verify(&phone, &code).await.status, 200);
}

#[tokio::test]
async fn an_answer_of_redis_that_comes_too_late_is_nobodys() {
    let service = Service::start_with(&[("STORE_TIMEOUT_MS", "1000")]).await;
    let phone = fresh_phone();
    let code = service.code_for(&phone).await;
    assert_eq!(service.verify(&phone, &wrong(&code)).await.status, 401);
    let late = Duration::from_millis(1200);
    service.redis.after(0, Fault::DelayReply(late));
    let response = in_time(service.verify(&phone, &wrong(&code))).await;
    assert_unavailable(&response, "Failed to register user");
    assert_eq!(in_time(service.verify(&phone, &code)).await.status, 200);
}

/// Postgres is told to stop; the response tells what it had done by then.
#[tokio::test]
async fn a_statement_that_took_too_long_leaves_no_session_behind() {
    let service = Service::start_with(&[("STORE_TIMEOUT_MS", "1000")]).await;
    let phone = fresh_phone();
    let code = service.code_for(&phone).await;
    service.postgres.after(0, Fault::LoseReply);
    let response = in_time(service.verify(&phone, &code)).await;
    assert_unavailable(&response, "Failed to register user");
    // The others are those of `signup` and `session`.
    until("the dead connection is closed", async || {
        service.postgres.open_connections() == 2
    })
    .await;
    assert_eq!(rows(&service.database, &phone).await, 1);
    let again = service.verify(&phone, &code).await;
    assert_eq!(again.text("code"), "otp_expired");
}
