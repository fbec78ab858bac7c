//! Logging in, and who learns who is registered: everybody in the open mode, in the private mode
//! only whoever holds the phone.

use futures_util::future::join_all;
use harness::{
    Deployment, LIMITS, Response, Service, Tokens, fresh_phone, last_code_to, messages_to,
    outcome::{
        LOGGED_IN, NOT_REGISTERED, OTP_EXPIRED, REGISTERED, UNSUPPORTED_PHONE, USER_EXISTS,
        USER_NOT_FOUND,
    },
    wrong,
};
use serde_json::{Value, json};

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

/// The user whom `insert_user` registers was let in.
fn assert_is_eve(response: &Response) {
    response.assert_is(LOGGED_IN);
    assert_eq!(response.body["data"]["name"], "Eve");
}

#[tokio::test]
async fn login_of_a_registered_number_sends_a_code_that_lets_its_user_in() {
    let service = Service::start_with(&[("LIMIT_PHONE", "off")]).await;
    let phone = fresh_phone();
    let registered = service.register(&phone).await;

    let sent = service.log_in(&phone).await;
    sent.assert_ok();
    let id = sent.text("challenge_id").to_owned();
    assert_eq!(
        sent.body,
        json!({
            "success": true,
            "message": "OTP sent successfully",
            "challenge_id": id,
            "code_length": 6,
            "expires_in": 300,
            "resend_in": 0
        })
    );
    let messages = messages_to(&phone).await;
    assert_eq!(messages.len(), 2);
    let response = service
        .verify_challenge(&phone, &messages[1][..6], &id)
        .await;
    let tokens = Tokens::of(&response);
    assert_eq!(
        response.body,
        json!({
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
    );
    let me = service.me(&tokens.access).await;
    assert_eq!(me.body["data"], registered.body["data"]);
    // Another session than the one of the registration, which goes on.
    service.refreshed(&tokens.refresh).await;
    service.refreshed(&Tokens::of(&registered).refresh).await;
    assert_eq!(service.database.count_users().await, 1);
}

#[tokio::test]
async fn a_login_code_works_once() {
    let service = Service::start().await;
    let phone = service.registered().await;
    let code = service.login_code_for(&phone).await;
    let responses = join_all((0..100).map(|_| service.verify(&phone, &code))).await;
    let count = |outcome| responses.iter().filter(|r| r.outcome() == outcome).count();
    assert_eq!((count(LOGGED_IN), count(OTP_EXPIRED)), (1, 99));
    service.verify(&phone, &code).await.assert_is(OTP_EXPIRED);
}

#[tokio::test]
async fn login_of_a_user_who_was_deleted_meanwhile_is_404_and_registers_nobody() {
    let service = Service::start().await;
    let phone = service.registered().await;
    let code = service.login_code_for(&phone).await;
    delete_user(&service, &phone).await;
    let response = service.verify(&phone, &code).await;
    response.assert_is(USER_NOT_FOUND);
    assert_eq!(service.database.count_users().await, 0);
}

#[tokio::test]
async fn login_of_a_user_who_is_just_being_deleted_waits_and_is_404() {
    let service = Service::start().await;
    let phone = service.registered().await;
    let code = service.login_code_for(&phone).await;
    let mut other = service.database.connect().await;
    let deletion = other.transaction().await.unwrap();
    let delete = "DELETE FROM users WHERE phone_number = $1";
    deletion.execute(delete, &[&phone]).await.unwrap();
    let commit_when_waited_for = async {
        service.database.until_waited_for().await;
        deletion.commit().await.unwrap();
    };
    let (response, ()) = tokio::join!(service.verify(&phone, &code), commit_when_waited_for);
    response.assert_is(USER_NOT_FOUND);
    assert_eq!(service.database.count_users().await, 0);
}

#[tokio::test]
async fn login_of_a_number_that_nobody_has_is_404_and_sends_nothing() {
    let service = Service::start().await;
    let phone = fresh_phone();
    service.log_in(&phone).await.assert_is(USER_NOT_FOUND);
    assert!(messages_to(&phone).await.is_empty());
    service.redis_server.assert_empty().await;
}

#[tokio::test]
async fn login_of_a_number_that_is_not_served_is_403_in_both_modes() {
    for reveals in ["true", "false"] {
        let settings = [("ALLOWED_COUNTRIES", "DE"), ("REVEAL_REGISTERED", reveals)];
        let service = Service::start_with(&settings).await;
        for phone in [PREMIUM, "+33612345678"] {
            service.database.insert_user(phone).await;
            service.log_in(phone).await.assert_is(UNSUPPORTED_PHONE);
        }
    }
}

/// Everything that somebody without the phone can see: the responses, what the stores are asked,
/// what the limits hold afterwards.
#[tokio::test]
async fn in_the_private_mode_known_and_unknown_numbers_cannot_be_told_apart() {
    let mut shown = Vec::new();
    for is_known in [true, false] {
        let mut settings = LIMITS.map(|name| (name, "")).to_vec();
        settings.extend([PRIVATE, ("LIMIT_PHONE", "9/1h"), ("LIMIT_COUNTRY", "50/1d")]);
        let service = Service::start_with(&settings).await;
        let phone = fresh_phone();
        if is_known {
            service.database.insert_user(&phone).await;
        }
        // Warm: Redis knows the scripts.
        let (other, code) = service.fresh_code().await;
        service.verify(&other, &wrong(&code)).await;
        let before = service.round_trips();

        let mut responses = Vec::new();
        for sent in [service.sign_up(&phone).await, service.log_in(&phone).await] {
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
        let after = service.round_trips();
        let trips = (after.0 - before.0, after.1 - before.1);
        let keys = service.redis_server.keys("*").await;
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
    let (known, unknown) = (fresh_phone(), fresh_phone());
    service.database.insert_user(&known).await;
    let code = service.code_for(&known).await;
    assert_is_eve(&service.verify(&known, &code).await);
    let (new, code) = service.fresh_code().await;
    service.verify(&new, &code).await.assert_is(REGISTERED);
    let code = service.login_code_for(&unknown).await;
    for outcome in [USER_NOT_FOUND, OTP_EXPIRED] {
        service.verify(&unknown, &code).await.assert_is(outcome);
    }
    assert_eq!(service.database.count_users().await, 2);
}

#[tokio::test]
async fn in_the_private_mode_sending_opens_no_connection_to_postgres() {
    for (reveals, connections) in [("true", 1), ("false", 0)] {
        let deployment = Deployment::new().await;
        let own = [("REVEAL_REGISTERED", reveals)];
        let mut signup = deployment.start("signup", &own).await;
        signup.sign_up(&fresh_phone()).await.assert_ok();
        assert_eq!(deployment.postgres.open_connections(), connections);
    }
}

#[tokio::test]
async fn in_the_private_mode_nothing_is_sent_slower_when_postgres_is_away() {
    let service = Service::start_with(&[PRIVATE]).await;
    service.postgres.cut().await;
    let phone = fresh_phone();
    let code = service.login_code_for(&phone).await;
    let response = service.verify(&phone, &code).await;
    response.assert_is(NOT_REGISTERED);
    service.postgres.restore();
    let response = service.verify(&phone, &code).await;
    response.assert_is(USER_NOT_FOUND);
}

#[tokio::test]
async fn a_stranger_who_asks_voids_no_code_that_the_owner_can_name() {
    for reveals in ["true", "false"] {
        let service = Service::start_with(&[("REVEAL_REGISTERED", reveals)]).await;
        let phone = fresh_phone();
        service.database.insert_user(&phone).await;
        let owners = service.login_challenge(&phone).await;
        service.sign_up_from("198.51.100.1", &phone).await;
        let strangers = service.log_in_from("198.51.100.1", &phone).await;
        strangers.assert_ok();
        assert_is_eve(&service.submit(&owners).await);
    }
}

#[tokio::test]
async fn a_number_registered_between_asking_and_verifying_is_refused_or_logged_in_by_mode() {
    for (reveals, expected) in [("true", USER_EXISTS), ("false", LOGGED_IN)] {
        let service = Service::start_with(&[("REVEAL_REGISTERED", reveals)]).await;
        let (phone, code) = service.fresh_code().await;
        service.database.insert_user(&phone).await;
        let response = service.verify(&phone, &code).await;
        response.assert_is(expected);
        if expected == LOGGED_IN {
            assert_is_eve(&response);
        }
        service.verify(&phone, &code).await.assert_is(OTP_EXPIRED);
        assert_eq!(service.database.count_users().await, 1);
    }
}

/// The other registration has not committed when this one begins, so no read would see it.
#[tokio::test]
async fn a_number_registered_while_it_is_verified_is_logged_in() {
    let service = Service::start_with(&[PRIVATE]).await;
    let (phone, code) = service.fresh_code().await;
    let mut other = service.database.connect().await;
    let registration = other.transaction().await.unwrap();
    let insert = "INSERT INTO users (name, phone_number) VALUES ('Eve', $1)";
    registration.execute(insert, &[&phone]).await.unwrap();
    let commit_when_waited_for = async {
        service.database.until_waited_for().await;
        registration.commit().await.unwrap();
    };
    let (response, ()) = tokio::join!(service.verify(&phone, &code), commit_when_waited_for);
    assert_is_eve(&response);
}

#[tokio::test]
async fn a_signup_of_a_registered_number_whose_user_was_deleted_registers() {
    let service = Service::start_with(&[PRIVATE]).await;
    let phone = fresh_phone();
    service.database.insert_user(&phone).await;
    let code = service.code_for(&phone).await;
    delete_user(&service, &phone).await;
    let response = service.verify(&phone, &code).await;
    response.assert_is(REGISTERED);
    assert_eq!(response.body["data"]["name"], "Ada");
}
