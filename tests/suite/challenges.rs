//! Several challenges of one phone: a client that keeps its challenge id depends on nobody else.

use harness::{Response, Service, fresh_phone, last_code_to, wrong};
use serde_json::json;

use crate::limits::assert_limited;

const STRANGER: &str = "198.51.100.1";

/// Signs up, and returns the challenge's id and code.
async fn challenge(service: &Service, phone: &str) -> (String, String) {
    let sent = service.sign_up("Ada", phone).await;
    assert_eq!(sent.status, 200, "{sent:?}");
    (
        sent.text("challenge_id").to_owned(),
        last_code_to(phone).await,
    )
}

fn is_in(response: &Response) -> bool {
    response.text("message") == "User registered successfully"
}

#[tokio::test]
async fn an_older_challenge_works_by_its_id_after_a_resend_and_a_strangers_requests() {
    let service = Service::start_with(&[("REVEAL_REGISTERED", "false")]).await;
    let phone = fresh_phone();
    let (id, code) = challenge(&service, &phone).await;
    challenge(&service, &phone).await;
    for response in [
        service.sign_up_from(STRANGER, &phone).await,
        service.log_in_from(STRANGER, &phone).await,
    ] {
        assert_eq!(response.status, 200);
    }
    let response = service.verify_challenge(&phone, &code, &id).await;
    assert!(is_in(&response), "{response:?}");
}

#[tokio::test]
async fn without_an_id_only_the_newest_challenge_is_meant() {
    let service = Service::start().await;
    let phone = fresh_phone();
    let (_, older) = challenge(&service, &phone).await;
    let mut newer = challenge(&service, &phone).await.1;
    // One time in a million both are the same.
    while newer == older {
        newer = challenge(&service, &phone).await.1;
    }
    let response = service.verify(&phone, &older).await;
    assert_eq!(response.text("code"), "otp_mismatch");
    assert!(is_in(&service.verify(&phone, &newer).await));
}

#[tokio::test]
async fn a_stranger_without_the_id_spends_none_of_the_owners_attempts() {
    let service = Service::start().await;
    let phone = fresh_phone();
    // Before the owner asks, and after.
    for _ in 0..10 {
        service.verify_from(STRANGER, &phone, "123456").await;
    }
    let (id, code) = challenge(&service, &phone).await;
    for remaining in [4, 3, 2, 1, 0] {
        let response = service.verify_from(STRANGER, &phone, &wrong(&code)).await;
        assert_eq!(response.body["attempts_remaining"], remaining);
    }
    let spent = service.verify_from(STRANGER, &phone, &code).await;
    assert_eq!(spent.text("code"), "too_many_attempts");

    for remaining in [4, 3, 2, 1] {
        let response = service.verify_challenge(&phone, &wrong(&code), &id).await;
        assert_eq!(response.body["attempts_remaining"], remaining);
    }
    assert!(is_in(&service.verify_challenge(&phone, &code, &id).await));
}

#[tokio::test]
async fn a_challenge_takes_so_many_wrong_codes_by_id_and_its_phone_is_not_locked() {
    let service = Service::start().await;
    let phone = fresh_phone();
    let (id, code) = challenge(&service, &phone).await;
    for _ in 0..5 {
        let response = service.verify_challenge(&phone, &wrong(&code), &id).await;
        assert_eq!(response.text("code"), "otp_mismatch");
    }
    let response = service.verify_challenge(&phone, &code, &id).await;
    let exhausted = (429, "Too many attempts", "too_many_attempts");
    assert_eq!(response.outcome(), exhausted);
    assert!((290..=300).contains(&response.retry_after()));
    let (id, code) = challenge(&service, &phone).await;
    assert!(is_in(&service.verify_challenge(&phone, &code, &id).await));
}

#[tokio::test]
async fn a_challenge_id_of_another_phone_finds_nothing() {
    let service = Service::start().await;
    let (ada, eve) = (fresh_phone(), fresh_phone());
    let (id, code) = challenge(&service, &ada).await;
    challenge(&service, &eve).await;
    let response = service.verify_challenge(&eve, &code, &id).await;
    assert_eq!(response.text("code"), "otp_expired");
    assert!(is_in(&service.verify_challenge(&ada, &code, &id).await));
}

#[tokio::test]
async fn polling_without_an_id_counts_from_the_first_poll_whatever_it_finds() {
    let service = Service::start_with(&[("LIMIT_GUESSES", "3/10m")]).await;
    let phone = fresh_phone();
    for submitted in ["123456", "12345678"] {
        let response = service.verify_from(STRANGER, &phone, submitted).await;
        assert_eq!(response.text("code"), "otp_expired");
    }
    let (id, code) = challenge(&service, &phone).await;
    // Another length than the challenge's costs no attempt, but a poll.
    let response = service.verify_from(STRANGER, &phone, "12345678").await;
    assert_eq!(response.text("code"), "otp_mismatch");
    assert_eq!(response.body.get("attempts_remaining"), None);
    assert_limited(&service.verify_from(STRANGER, &phone, &code).await);
    // With the id the limit does not apply, whatever the address.
    let body = json!({"otp": code, "phone_number": phone, "challenge_id": id});
    let response = service.post_from(STRANGER, "/verify", &body).await;
    assert!(is_in(&response), "{response:?}");
}

#[tokio::test]
async fn a_code_of_another_valid_length_is_not_counted() {
    let service = Service::start_with(&[("OTP_MAX_ATTEMPTS", "1")]).await;
    let phone = fresh_phone();
    let (id, code) = challenge(&service, &phone).await;
    for _ in 0..3 {
        for submitted in ["12345678", "1234567890"] {
            let by_id = service.verify_challenge(&phone, submitted, &id).await;
            let without = service.verify(&phone, submitted).await;
            for response in [by_id, without] {
                assert_eq!(response.outcome(), (401, "Invalid OTP", "otp_mismatch"));
                assert_eq!(response.body.get("attempts_remaining"), None);
            }
        }
    }
    assert!(is_in(&service.verify(&phone, &code).await));
}

/// A stranger has used up all that may be sent to the phone. Its owner got those codes, and has another
/// address.
#[tokio::test]
async fn a_phones_owner_shares_the_newest_code_when_a_stranger_has_used_up_its_limit() {
    for reveals in ["true", "false"] {
        let settings = [
            ("LIMIT_PHONE", "1/1s,2/1h"),
            ("LIMIT_ADDRESS", "9/1h"),
            ("REVEAL_REGISTERED", reveals),
        ];
        let mut service = Service::start_with(&settings).await;
        let phone = fresh_phone();
        service.database.insert_user(&phone).await;
        let mut strangers = String::new();
        for second in 0..2 {
            service.set_clock_offset(second * 1001);
            let sent = service.log_in_from(STRANGER, &phone).await;
            assert_eq!(sent.status, 200);
            strangers = sent.text("challenge_id").to_owned();
        }
        let code = last_code_to(&phone).await;
        for _ in 0..5 {
            let body =
                json!({"otp": wrong(&code), "phone_number": phone, "challenge_id": strangers});
            service.post_from(STRANGER, "/verify", &body).await;
            service.verify_from(STRANGER, &phone, &wrong(&code)).await;
        }
        // The stranger is refused.
        assert_limited(&service.log_in_from(STRANGER, &phone).await);

        let shared = service.log_in(&phone).await;
        assert_eq!(shared.status, 200, "{shared:?}");
        assert_eq!(shared.body["code_length"], 6);
        let resend_in = shared.body["resend_in"].as_u64().unwrap();
        assert!((1700..=1800).contains(&resend_in), "{resend_in}");
        let expires_in = shared.body["expires_in"].as_u64().unwrap();
        assert!((290..=300).contains(&expires_in), "{expires_in}");
        assert_eq!(harness::messages_to(&phone).await.len(), 2);
        let id = shared.text("challenge_id");
        let response = service.verify_challenge(&phone, &wrong(&code), id).await;
        assert_eq!(response.body["attempts_remaining"], 4);
        let response = service.verify_challenge(&phone, &code, id).await;
        assert_eq!(response.text("message"), "User logged in successfully");
        // It was one code, and it is used: nobody shares it any more.
        assert_limited(&service.log_in_from("198.51.100.2", &phone).await);
    }
}

#[tokio::test]
async fn sharing_a_code_costs_the_address_and_lets_nobody_use_it_twice() {
    let settings = [
        ("LIMIT_PHONE", "1/1s,1/1h"),
        ("LIMIT_ADDRESS", "2/1h"),
        ("MISSES_TOTAL", "10/1d"),
        ("OTP_MAX_ATTEMPTS", "10"),
    ];
    let service = Service::start_with(&settings).await;
    let phone = fresh_phone();
    assert_eq!(service.sign_up_from(STRANGER, &phone).await.status, 200);
    let code = last_code_to(&phone).await;
    let mut ids = Vec::new();
    for _ in 0..2 {
        let shared = service.sign_up("Ada", &phone).await;
        assert_eq!(shared.status, 200, "{shared:?}");
        ids.push(shared.text("challenge_id").to_owned());
    }
    assert_limited(&service.sign_up("Ada", &phone).await);
    assert!(is_in(
        &service.verify_challenge(&phone, &code, &ids[0]).await
    ));
    for id in [ids[0].as_str(), &ids[1], ""] {
        let response = service.verify_challenge(&phone, &code, id).await;
        assert_eq!(response.text("code"), "otp_expired");
    }
}

#[tokio::test]
async fn a_cool_down_is_no_reason_to_share_a_code() {
    let service = Service::start_with(&[("LIMIT_PHONE", "1/1h")]).await;
    let phone = fresh_phone();
    assert_eq!(service.sign_up_from(STRANGER, &phone).await.status, 200);
    assert_limited(&service.sign_up("Ada", &phone).await);
}

/// Every share is answered once more, but only the code's first match forgives the service a miss.
#[tokio::test]
async fn sharing_a_code_forgives_no_misses_twice() {
    let settings = [
        ("LIMIT_PHONE", "1/1s,1/1h"),
        ("LIMIT_ADDRESS", "100/1h"),
        ("MISSES_TOTAL", "10/1d"),
        ("OTP_MAX_ATTEMPTS", "10"),
    ];
    let service = Service::start_with(&settings).await;
    let guessed_at = fresh_phone();
    let (id, code) = challenge(&service, &guessed_at).await;
    let phone = fresh_phone();
    assert_eq!(service.sign_up_from(STRANGER, &phone).await.status, 200);
    let own_code = last_code_to(&phone).await;
    let mut ids = Vec::new();
    for _ in 0..60 {
        let shared = service.sign_up("Ada", &phone).await;
        assert_eq!(shared.status, 200, "{shared:?}");
        ids.push(shared.text("challenge_id").to_owned());
    }
    for _ in 0..10 {
        service
            .verify_challenge(&guessed_at, &wrong(&code), &id)
            .await;
    }
    for id in &ids {
        service.verify_challenge(&phone, &own_code, id).await;
    }
    let sent = service.sign_up("Ada", &fresh_phone()).await;
    assert_eq!(sent.body["code_length"], 8);
}

#[tokio::test]
async fn a_short_code_is_not_shared_once_new_ones_are_longer() {
    let settings = [
        ("LIMIT_PHONE", "1/1s,1/1h"),
        ("LIMIT_ADDRESS", "100/1h"),
        ("MISSES_PHONE", "5/30d"),
    ];
    let service = Service::start_with(&settings).await;
    let phone = fresh_phone();
    assert_eq!(service.sign_up_from(STRANGER, &phone).await.status, 200);
    let code = last_code_to(&phone).await;
    let mut guesses = 0;
    for _ in 0..10 {
        let shared = service.sign_up("Ada", &phone).await;
        if shared.status != 200 {
            assert_limited(&shared);
            break;
        }
        let id = shared.text("challenge_id");
        for _ in 0..5 {
            let response = service.verify_challenge(&phone, &wrong(&code), id).await;
            guesses += u32::from(response.text("code") == "otp_mismatch");
        }
    }
    assert_eq!(guesses, 5);
}

/// However long the codes are: every share has attempts of its own.
#[tokio::test]
async fn no_code_is_shared_while_the_whole_service_is_guessed_at_in_earnest() {
    let settings = [
        ("LIMIT_PHONE", "1/1s,1/1h"),
        ("LIMIT_ADDRESS", "9/1h"),
        ("OTP_LENGTH", "10"),
        ("MISSES_TOTAL", "2/1d"),
    ];
    let service = Service::start_with(&settings).await;
    let phone = fresh_phone();
    assert_eq!(service.sign_up_from(STRANGER, &phone).await.status, 200);
    let guessed_at = fresh_phone();
    let (id, code) = challenge(&service, &guessed_at).await;
    for _ in 0..4 {
        assert_eq!(service.sign_up("Ada", &phone).await.status, 200);
        service
            .verify_challenge(&guessed_at, &wrong(&code), &id)
            .await;
    }
    assert_limited(&service.sign_up("Ada", &phone).await);
}

#[tokio::test]
async fn only_the_phones_limit_is_a_reason_to_share_and_no_known_device_does() {
    let settings = [
        ("LIMIT_PHONE", "9/1s"),
        ("LIMIT_ADDRESS", "9/1h"),
        ("LIMIT_DEVICE", "1/1h"),
        ("LIMIT_TOTAL_MAX", "3/1d"),
    ];
    let service = Service::start_with(&settings).await;
    let phone = fresh_phone();
    let code = service.code_for(&phone).await;
    let response = service.verify(&phone, &code).await;
    let device = response.text("device_token").to_owned();
    assert_eq!(service.log_in_on(&device, &phone).await.status, 200);
    assert_limited(&service.log_in_on(&device, &phone).await);
    assert_eq!(service.log_in_from(STRANGER, &phone).await.status, 200);
    // The service's ceiling is reached.
    assert_limited(&service.log_in(&phone).await);
}
