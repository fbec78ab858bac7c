//! Logging in, and who learns who is registered: everybody in the open mode, in the private mode only
//! whoever holds the phone.

use futures_util::future::join_all;
use harness::{Response, Service, Tokens, fresh_phone, last_code_to, messages_to, until, wrong};
use serde_json::{Value, json};

const EXPIRED: (u64, &str, &str) = (401, "Invalid or expired OTP", "otp_expired");
const NOT_FOUND: (u64, &str, &str) = (404, "User not found", "user_not_found");
const PRIVATE: (&str, &str) = ("REVEAL_REGISTERED", "false");
/// No code is sent to it.
const PREMIUM: &str = "+19002345678";

/// A response without the id, of which only the shape may be compared.
fn seen(response: &Response) -> Value {
    let mut body = response.body.clone();
    if let Some(id) = body.get_mut("challenge_id") {
        assert_eq!(id.as_str().unwrap().len(), 32);
        *id = Value::Null;
    }
    json!([response.status, response.headers, body])
}

async fn delete_user(service: &Service, phone: &str) {
    let delete = "DELETE FROM users WHERE phone_number = $1";
    let client = service.database.connect().await;
    assert_eq!(client.execute(delete, &[&phone]).await.unwrap(), 1);
}

#[tokio::test]
async fn login_of_a_registered_number_sends_a_code_that_lets_its_user_in() {
    let service = Service::start_with(&[("LIMIT_PHONE", "off")]).await;
    let phone = fresh_phone();
    let code = service.code_for(&phone).await;
    let registered = service.verify(&phone, &code).await;

    let asked = service.log_in(&phone).await;
    let id = asked.text("challenge_id").to_owned();
    assert_eq!(
        (asked.status, &asked.body),
        (
            200,
            &json!({
                "success": true,
                "message": "OTP sent successfully",
                "challenge_id": id,
                "code_length": 6,
                "expires_in": 300,
                "resend_in": 0
            })
        )
    );
    let messages = messages_to(&phone).await;
    assert_eq!(messages.len(), 2);
    let response = service
        .verify_challenge(&phone, &messages[1][..6], &id)
        .await;
    let tokens = Tokens::of(&response);
    assert_eq!(
        (response.status, &response.body),
        (
            200,
            &json!({
                "success": true,
                "message": "User logged in successfully",
                "data": registered.body["data"],
                "device_token": response.body["device_token"],
                "tokens": {
                    "access_token": tokens.access,
                    "token_type": "Bearer",
                    "expires_in": 900,
                    "refresh_token": tokens.refresh
                }
            })
        )
    );
    let me = service.me(Some(&format!("Bearer {}", tokens.access))).await;
    assert_eq!(me.body["data"], registered.body["data"]);
    // Another session than the one of the registration, which goes on.
    service.refreshed(&tokens.refresh).await;
    service.refreshed(&Tokens::of(&registered).refresh).await;
    assert_eq!(service.database.count_users().await, 1);
}

#[tokio::test]
async fn a_login_code_works_once() {
    let service = Service::start().await;
    let phone = fresh_phone();
    service.register(&phone).await;
    let code = service.login_code_for(&phone).await;
    let responses = join_all((0..100).map(|_| service.verify(&phone, &code))).await;
    let let_in = responses.iter().filter(|response| response.status == 200);
    assert_eq!(let_in.count(), 1);
    let refused = responses
        .iter()
        .filter(|response| response.outcome() == EXPIRED);
    assert_eq!(refused.count(), 99);
    assert_eq!(service.verify(&phone, &code).await.outcome(), EXPIRED);
}

#[tokio::test]
async fn login_of_a_user_who_was_deleted_meanwhile_is_404_and_registers_nobody() {
    let service = Service::start().await;
    let phone = fresh_phone();
    service.register(&phone).await;
    let code = service.login_code_for(&phone).await;
    delete_user(&service, &phone).await;
    assert_eq!(service.verify(&phone, &code).await.outcome(), NOT_FOUND);
    assert_eq!(service.database.count_users().await, 0);
}

#[tokio::test]
async fn login_of_a_user_who_is_just_being_deleted_waits_and_is_404() {
    let service = Service::start().await;
    let phone = fresh_phone();
    service.register(&phone).await;
    let code = service.login_code_for(&phone).await;
    let deleting = service.database.connect().await;
    let delete = format!("BEGIN; DELETE FROM users WHERE phone_number = '{phone}'");
    deleting.batch_execute(&delete).await.unwrap();
    let observer = service.database.connect().await;
    let commit_when_waited_for = async {
        until("the login waits", async || {
            let waiting = "SELECT FROM pg_stat_activity
                WHERE datname = current_database() AND wait_event_type = 'Lock'";
            !observer.query(waiting, &[]).await.unwrap().is_empty()
        })
        .await;
        deleting.batch_execute("COMMIT").await.unwrap();
    };
    let (response, ()) = tokio::join!(service.verify(&phone, &code), commit_when_waited_for);
    assert_eq!(response.outcome(), NOT_FOUND);
    assert_eq!(service.database.count_users().await, 0);
}

#[tokio::test]
async fn login_needs_a_phone_number_and_takes_nothing_else() {
    let service = Service::start().await;
    let missing = (400, "Phone number is required", "missing_field");
    for body in ["{}", r#"{"phone_number":""}"#] {
        assert_eq!(service.post_login(body).await.outcome(), missing, "{body}");
    }
    let named = json!({"name": "Ada", "phone_number": fresh_phone()}).to_string();
    let invalid = (400, "Invalid request payload", "invalid_payload");
    assert_eq!(service.post_login(&named).await.outcome(), invalid);
    let no_number = (400, "Invalid phone number", "invalid_phone_number");
    assert_eq!(service.log_in("12345").await.outcome(), no_number);
}

#[tokio::test]
async fn login_of_a_number_that_nobody_has_is_404_and_sends_nothing() {
    let service = Service::start().await;
    let phone = fresh_phone();
    assert_eq!(service.log_in(&phone).await.outcome(), NOT_FOUND);
    assert!(messages_to(&phone).await.is_empty());
    let keys: Vec<String> = service.redis_server.run(&["KEYS", "*"]).await;
    assert!(keys.is_empty(), "{keys:?}");
}

#[tokio::test]
async fn login_of_a_number_that_is_not_served_is_403_in_both_modes() {
    for reveals in ["true", "false"] {
        let settings = [("ALLOWED_COUNTRIES", "DE"), ("REVEAL_REGISTERED", reveals)];
        let service = Service::start_with(&settings).await;
        for phone in [PREMIUM, "+33612345678"] {
            service.database.insert_user(phone).await;
            let response = service.log_in(phone).await;
            assert_eq!(response.text("code"), "unsupported_phone_number", "{phone}");
        }
    }
}

/// Everything that somebody without the phone can see: the responses, what the stores are asked, what
/// the limits hold afterwards.
#[tokio::test]
async fn in_the_private_mode_known_and_unknown_numbers_cannot_be_told_apart() {
    let mut shown = Vec::new();
    for is_known in [true, false] {
        let mut settings = harness::LIMITS.map(|name| (name, "")).to_vec();
        settings.extend([PRIVATE, ("LIMIT_PHONE", "9/1h"), ("LIMIT_COUNTRY", "50/1d")]);
        let service = Service::start_with(&settings).await;
        let phone = fresh_phone();
        if is_known {
            service.database.insert_user(&phone).await;
        }
        // Warm: Redis knows the scripts.
        let other = fresh_phone();
        let code = service.code_for(&other).await;
        service.verify(&other, &wrong(&code)).await;
        let before = (service.redis.round_trips(), service.postgres.round_trips());

        let mut responses = Vec::new();
        for sent in [
            service.sign_up("Ada", &phone).await,
            service.log_in(&phone).await,
        ] {
            let id = sent.text("challenge_id").to_owned();
            responses.push(seen(&sent));
            let wrong = wrong(&last_code_to(&phone).await);
            for _ in 0..3 {
                let by_id = service.verify_challenge(&phone, &wrong, &id).await;
                let without = service.verify(&phone, &wrong).await;
                responses.extend([seen(&by_id), seen(&without)]);
            }
        }
        for _ in 0..3 {
            let mut response = service.log_in(&phone).await;
            if response.status == 429 {
                // It depends on how long this test has taken.
                assert!((21_500..=21_600).contains(&response.retry_after()));
                response.headers.remove("retry-after");
                response.body["retry_after"] = Value::Null;
            }
            responses.push(seen(&response));
        }
        assert_eq!(messages_to(&phone).await.len(), 3);
        let trips = (
            service.redis.round_trips() - before.0,
            service.postgres.round_trips() - before.1,
        );
        let keys: Vec<String> = service.redis_server.run(&["KEYS", "*"]).await;
        let mut kinds: Vec<String> = keys
            .iter()
            .filter(|key| !key.contains(&other[..other.len() - 3]))
            .map(|key| key.split(':').take(4).collect::<Vec<_>>().join(":"))
            .map(|kind| kind.split("challenge").next().unwrap().to_owned())
            .map(|kind| {
                kind.replace(&phone, "")
                    .replace(&phone[..phone.len() - 3], "")
            })
            .collect();
        kinds.sort();
        shown.push((responses, trips, kinds));
    }
    assert_eq!(shown[0], shown[1]);
    // Postgres is not asked before the code comes back.
    assert_eq!(shown[0].1, (17, 0));
}

#[tokio::test]
async fn in_the_private_mode_only_a_right_code_tells() {
    let service = Service::start_with(&[PRIVATE]).await;
    let (known, new, unknown) = (fresh_phone(), fresh_phone(), fresh_phone());
    service.database.insert_user(&known).await;
    let code = service.code_for(&known).await;
    let response = service.verify(&known, &code).await;
    assert_eq!(response.text("message"), "User logged in successfully");
    assert_eq!(response.body["data"]["name"], "Eve");
    let code = service.code_for(&new).await;
    let response = service.verify(&new, &code).await;
    assert_eq!(response.text("message"), "User registered successfully");
    let code = service.login_code_for(&unknown).await;
    assert_eq!(service.verify(&unknown, &code).await.outcome(), NOT_FOUND);
    assert_eq!(service.verify(&unknown, &code).await.outcome(), EXPIRED);
    assert_eq!(service.database.count_users().await, 2);
}

#[tokio::test]
async fn in_the_private_mode_nothing_is_sent_slower_when_postgres_is_away() {
    let service = Service::start_with(&[PRIVATE]).await;
    service.postgres.cut().await;
    let phone = fresh_phone();
    let code = service.login_code_for(&phone).await;
    assert_eq!(
        service.verify(&phone, &code).await.text("code"),
        "unavailable"
    );
    service.postgres.restore();
    assert_eq!(service.verify(&phone, &code).await.outcome(), NOT_FOUND);
}

#[tokio::test]
async fn a_stranger_who_asks_voids_no_code_that_the_owner_can_name() {
    for reveals in ["true", "false"] {
        let service = Service::start_with(&[("REVEAL_REGISTERED", reveals)]).await;
        let phone = fresh_phone();
        service.database.insert_user(&phone).await;
        let sent = service.log_in(&phone).await;
        let code = last_code_to(&phone).await;
        service.sign_up_from("198.51.100.1", &phone).await;
        assert_eq!(
            service.log_in_from("198.51.100.1", &phone).await.status,
            200
        );
        let id = sent.text("challenge_id");
        let response = service.verify_challenge(&phone, &code, id).await;
        assert_eq!(response.text("message"), "User logged in successfully");
        assert_eq!(response.body["data"]["name"], "Eve");
    }
}

#[tokio::test]
async fn a_number_registered_between_asking_and_verifying_is_refused_or_logged_in_by_mode() {
    for (reveals, expected) in [("true", "user_exists"), ("false", "")] {
        let service = Service::start_with(&[("REVEAL_REGISTERED", reveals)]).await;
        let phone = fresh_phone();
        let code = service.code_for(&phone).await;
        service.database.insert_user(&phone).await;
        let response = service.verify(&phone, &code).await;
        assert_eq!(response.text("code"), expected);
        if reveals == "false" {
            assert_eq!(response.text("message"), "User logged in successfully");
            assert_eq!(response.body["data"]["name"], "Eve");
        }
        assert_eq!(service.verify(&phone, &code).await.outcome(), EXPIRED);
        assert_eq!(service.database.count_users().await, 1);
    }
}

/// The other registration has not committed when this one begins, so no read would see it.
#[tokio::test]
async fn a_number_registered_while_it_is_verified_is_logged_in() {
    let service = Service::start_with(&[PRIVATE]).await;
    let phone = fresh_phone();
    let code = service.code_for(&phone).await;
    let mut other = service.database.connect().await;
    let registration = other.transaction().await.unwrap();
    registration
        .execute(
            "INSERT INTO users (name, phone_number) VALUES ('Eve', $1)",
            &[&phone],
        )
        .await
        .unwrap();
    let watcher = service.database.connect().await;
    let commit_when_waited_for = async {
        until("the verification waits", async || {
            let waiting = "SELECT count(*) FROM pg_locks WHERE NOT granted";
            watcher
                .query_one(waiting, &[])
                .await
                .unwrap()
                .get::<_, i64>(0)
                > 0
        })
        .await;
        registration.commit().await.unwrap();
    };
    let (response, ()) = tokio::join!(service.verify(&phone, &code), commit_when_waited_for);
    assert_eq!(response.text("message"), "User logged in successfully");
    assert_eq!(response.body["data"]["name"], "Eve");
}

#[tokio::test]
async fn a_signup_of_a_registered_number_whose_user_was_deleted_registers() {
    let service = Service::start_with(&[PRIVATE]).await;
    let phone = fresh_phone();
    service.database.insert_user(&phone).await;
    let code = service.code_for(&phone).await;
    delete_user(&service, &phone).await;
    let response = service.verify(&phone, &code).await;
    assert_eq!(response.text("message"), "User registered successfully");
    assert_eq!(response.body["data"]["name"], "Ada");
}
