//! The rows of the contract that depend on what happened before. Those that one event alone can
//! produce are the fixtures of `events/`, see [`crate::events`].

use harness::{Service, Tokens, fresh_phone, messages_to, wrong};
use serde_json::{Value, json};

const USER_EXISTS: (u64, &str, &str) = (
    409,
    "User already exists with the given phone number",
    "user_exists",
);
const EXPIRED: (u64, &str, &str) = (401, "Invalid or expired OTP", "otp_expired");

#[tokio::test]
async fn signup_sends_a_code_and_answers_how_to_go_on() {
    let service = Service::start_with(&[("LIMIT_PHONE", "")]).await;
    let phone = fresh_phone();
    let response = service.sign_up("Ada", &phone).await;
    let id = response.text("challenge_id").to_owned();
    assert_eq!(
        (response.status, &response.body),
        (
            200,
            &json!({
                "success": true,
                "message": "OTP sent successfully",
                "challenge_id": id,
                "code_length": 6,
                "expires_in": 300,
                "resend_in": 30
            })
        )
    );
    assert_eq!(id.len(), 32);
    assert_eq!(response.headers["content-type"], "application/json");
    assert_eq!(response.headers["cache-control"], "no-store");
    assert_eq!(messages_to(&phone).await.len(), 1);
}

#[tokio::test]
async fn verify_with_the_right_code_registers_and_answers_the_user() {
    let service = Service::start().await;
    let phone = fresh_phone();
    let code = service.code_for(&phone).await;
    let response = service.verify(&phone, &code).await;
    let tokens = Tokens::of(&response);
    let device_token = response.text("device_token").to_owned();

    let row = service
        .database
        .connect()
        .await
        .query_one(
            "SELECT id, to_char(created_at AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"'),
                    name, phone_number, version FROM users",
            &[],
        )
        .await
        .unwrap();
    assert_eq!(
        (response.status, &response.body),
        (
            200,
            &json!({
                "success": true,
                "message": "User registered successfully",
                "device_token": response.body["device_token"],
                "data": {
                    "id": row.get::<_, i64>(0),
                    "created_at": row.get::<_, String>(1),
                    "name": "Ada",
                    "phone_number": phone,
                    "version": 1
                },
                "tokens": {
                    "access_token": tokens.access,
                    "token_type": "Bearer",
                    "expires_in": 900,
                    "refresh_token": tokens.refresh
                },
                "device_token": device_token
            })
        )
    );
    assert_eq!(row.get::<_, String>(2), "Ada");
    assert_eq!(row.get::<_, String>(3), phone);
    assert!(device_token.len() > 32);
}

#[tokio::test]
async fn verify_with_a_used_code_is_401_and_signup_of_the_phone_409() {
    let service = Service::start().await;
    let phone = fresh_phone();
    let code = service.code_for(&phone).await;
    assert_eq!(service.verify(&phone, &code).await.status, 200);
    assert_eq!(service.verify(&phone, &code).await.outcome(), EXPIRED);
    assert_eq!(service.sign_up("Eve", &phone).await.outcome(), USER_EXISTS);
    assert_eq!(messages_to(&phone).await.len(), 1);
}

#[tokio::test]
async fn verify_with_a_wrong_code_is_401_and_counts_down_to_429() {
    let service = Service::start().await;
    let phone = fresh_phone();
    let code = service.code_for(&phone).await;
    for remaining in (0..5).rev() {
        let response = service.verify(&phone, &wrong(&code)).await;
        assert_eq!(response.outcome(), (401, "Invalid OTP", "otp_mismatch"));
        assert_eq!(response.body["attempts_remaining"], remaining);
    }
    let response = service.verify(&phone, &code).await;
    assert_eq!(
        response.outcome(),
        (429, "Too many attempts", "too_many_attempts")
    );
    assert!((1..=300).contains(&response.retry_after()));
}

#[tokio::test]
async fn verify_with_a_code_of_the_wrong_shape_is_401_without_asking_redis_or_an_attempt() {
    let service = Service::start().await;
    let phone = fresh_phone();
    let code = service.code_for(&phone).await;
    let before = service.redis.round_trips();
    for text in [
        "12345",
        "1234567",
        "+12345",
        " 12345",
        "123456\n",
        "١٢٣٤٥٦",
        "１２３４５６",
    ] {
        for _ in 0..6 {
            let response = service.verify(&phone, text).await;
            assert_eq!(response.outcome(), (401, "Invalid OTP", "otp_mismatch"));
            assert_eq!(response.body["attempts_remaining"], Value::Null);
        }
    }
    assert_eq!(service.redis.round_trips(), before);
    assert_eq!(service.verify(&phone, &code).await.status, 200);
}

#[tokio::test]
async fn verify_of_a_phone_that_never_asked_is_401() {
    let service = Service::start().await;
    let response = service.verify(&fresh_phone(), "123456").await;
    assert_eq!(response.outcome(), EXPIRED);
}

#[tokio::test]
async fn verify_means_the_challenge_that_it_names() {
    let service = Service::start().await;
    let phone = fresh_phone();
    let sent = service.sign_up("Ada", &phone).await;
    let code = messages_to(&phone).await[0][..6].to_owned();
    for other in [
        "0".repeat(32),
        "x".to_owned(),
        sent.text("challenge_id").to_uppercase() + " ",
    ] {
        let response = service.verify_challenge(&phone, &code, &other).await;
        assert_eq!(response.outcome(), EXPIRED, "{other}");
    }
    let response = service.verify_challenge(&phone, &code, sent.text("challenge_id"));
    assert_eq!(response.await.status, 200);
}

#[tokio::test]
async fn verify_without_a_challenge_id_is_400_where_one_is_required() {
    let service = Service::start_with(&[("REQUIRE_CHALLENGE_ID", "true")]).await;
    let phone = fresh_phone();
    let sent = service.sign_up("Ada", &phone).await;
    let code = messages_to(&phone).await[0][..6].to_owned();
    for _ in 0..6 {
        let response = service.verify(&phone, &wrong(&code)).await;
        assert_eq!(
            response.outcome(),
            (400, "Challenge id is required", "missing_field")
        );
    }
    let response = service.verify_challenge(&phone, &code, sent.text("challenge_id"));
    assert_eq!(response.await.status, 200);
}

#[tokio::test]
async fn verify_of_a_phone_that_was_registered_meanwhile_is_409() {
    let service = Service::start().await;
    let phone = fresh_phone();
    let code = service.code_for(&phone).await;
    service.database.insert_user(&phone).await;
    assert_eq!(service.verify(&phone, &code).await.outcome(), USER_EXISTS);
    assert_eq!(service.database.count_users().await, 1);
}

#[tokio::test]
async fn a_fault_of_ours_is_500_and_tells_nothing() {
    let service = Service::start().await;
    let phone = fresh_phone();
    let code = service.code_for(&phone).await;
    let database = service.database.connect().await;
    database
        .batch_execute("DROP TABLE users CASCADE")
        .await
        .unwrap();
    let internal = json!({"error": "Internal error", "code": "internal"});
    for response in [
        service.sign_up("Ada", &phone).await,
        service.verify(&phone, &code).await,
    ] {
        assert_eq!((response.status, response.body), (500, internal.clone()));
    }
}
