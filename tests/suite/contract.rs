//! The rows of the contract that depend on what happened before. Those that one event alone can
//! produce are in [`crate::events`].

use harness::{
    Challenge, Service, Tokens, fresh_phone, messages_to,
    outcome::{
        CHALLENGE_ID_MISSING, OTP_EXPIRED, OTP_MISMATCH, REGISTERED, TOO_MANY_ATTEMPTS, USER_EXISTS,
    },
    wrong,
};
use serde_json::{Value, json};

#[tokio::test]
async fn signup_sends_a_code_and_tells_how_to_go_on() {
    let service = Service::start_with(&[("LIMIT_PHONE", "")]).await;
    let phone = fresh_phone();
    let response = service.sign_up(&phone).await;
    response.assert_ok();
    let id = response.text("challenge_id");
    assert_eq!(
        response.body,
        json!({
            "success": true,
            "message": "OTP sent successfully",
            "challenge_id": id,
            "code_length": 6,
            "expires_in": 300,
            "resend_in": 30
        })
    );
    assert_eq!(id.len(), 32);
    assert_eq!(response.headers["content-type"], "application/json");
    assert_eq!(response.headers["cache-control"], "no-store");
    assert_eq!(messages_to(&phone).await.len(), 1);
}

#[tokio::test]
async fn verify_with_the_right_code_registers_and_returns_the_user() {
    let service = Service::start().await;
    let (phone, code) = service.fresh_code().await;
    let response = service.verify(&phone, &code).await;
    let tokens = Tokens::of(&response);
    let device_token = response.text("device_token");

    let select =
        "SELECT id, to_char(created_at AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"'),
                name, phone_number, version FROM users";
    let client = service.database.connect().await;
    let row = client.query_one(select, &[]).await.unwrap();
    assert_eq!(
        response.body,
        json!({
            "success": true,
            "message": "User registered successfully",
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
    );
    assert_eq!(row.get::<_, String>(2), "Ada");
    assert_eq!(row.get::<_, String>(3), phone);
    assert!(device_token.len() > 32);
}

#[tokio::test]
async fn verify_with_a_used_code_is_401_and_signup_of_the_phone_409() {
    let service = Service::start().await;
    let (phone, code) = service.fresh_code().await;
    service.verify(&phone, &code).await.assert_is(REGISTERED);
    service.verify(&phone, &code).await.assert_is(OTP_EXPIRED);
    let other = service.sign_up_as("Eve", &phone).await;
    other.assert_is(USER_EXISTS);
    assert_eq!(messages_to(&phone).await.len(), 1);
}

#[tokio::test]
async fn verify_with_a_wrong_code_is_401_and_counts_down_to_429() {
    let service = Service::start().await;
    let (phone, code) = service.fresh_code().await;
    for remaining in (0..5).rev() {
        let response = service.verify(&phone, &wrong(&code)).await;
        response.assert_is(OTP_MISMATCH);
        assert_eq!(response.body["attempts_remaining"], remaining);
    }
    let response = service.verify(&phone, &code).await;
    response.assert_is(TOO_MANY_ATTEMPTS);
    assert!((1..=300).contains(&response.retry_after()));
}

#[tokio::test]
async fn verify_with_a_code_of_the_wrong_shape_is_401_without_asking_redis_or_an_attempt() {
    let service = Service::start().await;
    let (phone, code) = service.fresh_code().await;
    let before = service.redis.round_trips();
    for text in [
        "12345",
        "1234567",
        "+12345",
        " 12345",
        "123456\n",
        "abcdef",
        "١٢٣٤٥٦",
        "１２３４５６",
    ] {
        for _ in 0..6 {
            let response = service.verify(&phone, text).await;
            assert_eq!(response.outcome(), OTP_MISMATCH, "{text:?}");
            assert_eq!(response.body["attempts_remaining"], Value::Null);
        }
    }
    assert_eq!(service.redis.round_trips(), before);
    service.verify(&phone, &code).await.assert_ok();
}

#[tokio::test]
async fn verify_means_the_challenge_that_it_names() {
    let service = Service::start().await;
    let challenge = service.challenge(&fresh_phone()).await;
    for other in [
        "0".repeat(32),
        "x".to_owned(),
        challenge.id.to_uppercase() + " ",
    ] {
        let other = Challenge {
            id: other,
            ..challenge.clone()
        };
        service.submit(&other).await.assert_is(OTP_EXPIRED);
    }
    service.submit(&challenge).await.assert_ok();
}

#[tokio::test]
async fn verify_without_a_challenge_id_is_400_where_one_is_required() {
    let service = Service::start_with(&[("REQUIRE_CHALLENGE_ID", "true")]).await;
    let challenge = service.challenge(&fresh_phone()).await;
    for _ in 0..6 {
        let code = challenge.wrong_code();
        let response = service.verify(&challenge.phone, &code).await;
        response.assert_is(CHALLENGE_ID_MISSING);
    }
    service.submit(&challenge).await.assert_ok();
}

#[tokio::test]
async fn verify_of_a_phone_that_was_registered_meanwhile_is_409() {
    let service = Service::start().await;
    let (phone, code) = service.fresh_code().await;
    service.database.insert_user(&phone).await;
    service.verify(&phone, &code).await.assert_is(USER_EXISTS);
    assert_eq!(service.database.count_users().await, 1);
}

#[tokio::test]
async fn a_fault_of_ours_is_500_and_tells_nothing() {
    let service = Service::start().await;
    let (phone, code) = service.fresh_code().await;
    service.database.run("DROP TABLE users CASCADE").await;
    let internal = json!({"error": "Internal error", "code": "internal"});
    for response in [
        service.sign_up(&phone).await,
        service.verify(&phone, &code).await,
    ] {
        assert_eq!((response.status, response.body), (500, internal.clone()));
    }
}
