//! Several challenges of one phone: a client that keeps its challenge id depends on nobody else.

use harness::{
    Challenge, Service, fresh_phone, last_code_to, messages_to,
    outcome::{LOGGED_IN, OTP_EXPIRED, OTP_MISMATCH, REGISTERED, TOO_MANY_ATTEMPTS},
    wrong,
};
use serde_json::json;

const STRANGER: &str = "198.51.100.1";

/// A phone that a stranger has asked a code for, and the code.
async fn asked_for_by_a_stranger(service: &Service) -> (String, String) {
    let phone = fresh_phone();
    service.sign_up_from(STRANGER, &phone).await.assert_ok();
    let code = last_code_to(&phone).await;
    (phone, code)
}

#[tokio::test]
async fn an_older_challenge_works_by_its_id_after_a_resend_and_a_strangers_requests() {
    let service = Service::start_with(&[("REVEAL_REGISTERED", "false")]).await;
    let phone = fresh_phone();
    let first = service.challenge(&phone).await;
    service.challenge(&phone).await;
    service.sign_up_from(STRANGER, &phone).await.assert_ok();
    service.log_in_from(STRANGER, &phone).await.assert_ok();
    service.submit(&first).await.assert_is(REGISTERED);
}

#[tokio::test]
async fn without_an_id_only_the_newest_challenge_is_meant() {
    let service = Service::start().await;
    let (phone, older) = service.fresh_code().await;
    let mut newer = service.code_for(&phone).await;
    // One time in a million both are the same.
    while newer == older {
        newer = service.code_for(&phone).await;
    }
    service.verify(&phone, &older).await.assert_is(OTP_MISMATCH);
    service.verify(&phone, &newer).await.assert_is(REGISTERED);
}

#[tokio::test]
async fn a_stranger_without_the_id_spends_none_of_the_owners_attempts() {
    let service = Service::start().await;
    let phone = fresh_phone();
    // Before the owner asks, and after.
    for _ in 0..10 {
        service.verify_from(STRANGER, &phone, "123456").await;
    }
    let owners = service.challenge(&phone).await;
    for remaining in [4, 3, 2, 1, 0] {
        let code = owners.wrong_code();
        let response = service.verify_from(STRANGER, &phone, &code).await;
        assert_eq!(response.body["attempts_remaining"], remaining);
    }
    let spent = service.verify_from(STRANGER, &phone, &owners.code).await;
    spent.assert_is(TOO_MANY_ATTEMPTS);

    for remaining in [4, 3, 2, 1] {
        let response = service.guess(&owners).await;
        assert_eq!(response.body["attempts_remaining"], remaining);
    }
    service.submit(&owners).await.assert_is(REGISTERED);
}

#[tokio::test]
async fn a_challenge_takes_so_many_wrong_codes_by_id_and_its_phone_is_not_locked() {
    let service = Service::start().await;
    let phone = fresh_phone();
    let challenge = service.challenge(&phone).await;
    for _ in 0..5 {
        service.guess(&challenge).await.assert_is(OTP_MISMATCH);
    }
    let response = service.submit(&challenge).await;
    response.assert_is(TOO_MANY_ATTEMPTS);
    assert!((290..=300).contains(&response.retry_after()));
    let next = service.challenge(&phone).await;
    service.submit(&next).await.assert_is(REGISTERED);
}

#[tokio::test]
async fn a_challenge_id_of_another_phone_finds_nothing() {
    let service = Service::start().await;
    let (ada, eve) = (fresh_phone(), fresh_phone());
    let of_ada = service.challenge(&ada).await;
    service.challenge(&eve).await;
    let at_eve = Challenge {
        phone: eve,
        ..of_ada.clone()
    };
    service.submit(&at_eve).await.assert_is(OTP_EXPIRED);
    service.submit(&of_ada).await.assert_is(REGISTERED);
}

#[tokio::test]
async fn polling_without_an_id_counts_from_the_first_poll_whatever_it_finds() {
    let service = Service::start_with(&[("LIMIT_GUESSES", "3/10m")]).await;
    let phone = fresh_phone();
    for submitted in ["123456", "12345678"] {
        let response = service.verify_from(STRANGER, &phone, submitted).await;
        response.assert_is(OTP_EXPIRED);
    }
    let Challenge { code, id, .. } = service.challenge(&phone).await;
    // Another length than the challenge's costs no attempt, but a poll.
    let response = service.verify_from(STRANGER, &phone, "12345678").await;
    response.assert_is(OTP_MISMATCH);
    assert_eq!(response.body.get("attempts_remaining"), None);
    let response = service.verify_from(STRANGER, &phone, &code).await;
    response.assert_limited();
    // With the id the limit does not apply, whatever the address.
    let body = json!({"otp": code, "phone_number": phone, "challenge_id": id});
    let response = service.post_from(STRANGER, "/verify", &body).await;
    response.assert_is(REGISTERED);
}

#[tokio::test]
async fn a_code_of_another_valid_length_is_not_counted() {
    let service = Service::start_with(&[("OTP_MAX_ATTEMPTS", "1")]).await;
    let phone = fresh_phone();
    let Challenge { code, id, .. } = service.challenge(&phone).await;
    for _ in 0..3 {
        for submitted in ["12345678", "1234567890"] {
            let by_id = service.verify_challenge(&phone, submitted, &id).await;
            let without = service.verify(&phone, submitted).await;
            for response in [by_id, without] {
                response.assert_is(OTP_MISMATCH);
                assert_eq!(response.body.get("attempts_remaining"), None);
            }
        }
    }
    service.verify(&phone, &code).await.assert_is(REGISTERED);
}

/// A stranger has used up all that may be sent to the phone. Its owner got those codes, and has
/// another address.
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
        service.log_in_from(STRANGER, &phone).await.assert_ok();
        service.set_clock(2);
        let sent = service.log_in_from(STRANGER, &phone).await;
        let strangers = Challenge::of(&sent, &phone).await;
        let code = &strangers.code;
        for _ in 0..5 {
            let body = json!({
                "otp": wrong(code), "phone_number": phone, "challenge_id": strangers.id
            });
            service.post_from(STRANGER, "/verify", &body).await;
            service.verify_from(STRANGER, &phone, &wrong(code)).await;
        }
        // The stranger is refused.
        service.log_in_from(STRANGER, &phone).await.assert_limited();

        let shared = service.log_in(&phone).await;
        shared.assert_ok();
        assert_eq!(shared.body["code_length"], 6);
        let resend_in = shared.body["resend_in"].as_u64().unwrap();
        assert!((1700..=1800).contains(&resend_in), "{resend_in}");
        let expires_in = shared.body["expires_in"].as_u64().unwrap();
        assert!((290..=300).contains(&expires_in), "{expires_in}");
        assert_eq!(messages_to(&phone).await.len(), 2);
        let owners = Challenge::of(&shared, &phone).await;
        let response = service.guess(&owners).await;
        assert_eq!(response.body["attempts_remaining"], 4);
        service.submit(&owners).await.assert_is(LOGGED_IN);
        // It was one code, and it is used: nobody shares it any more.
        let response = service.log_in_from("198.51.100.2", &phone).await;
        response.assert_limited();
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
    let (phone, code) = asked_for_by_a_stranger(&service).await;
    let first = service.challenge(&phone).await;
    let second = service.challenge(&phone).await;
    service.sign_up(&phone).await.assert_limited();
    service.submit(&first).await.assert_is(REGISTERED);
    for id in [&*first.id, &second.id, ""] {
        let response = service.verify_challenge(&phone, &code, id).await;
        response.assert_is(OTP_EXPIRED);
    }
}

#[tokio::test]
async fn a_cool_down_is_no_reason_to_share_a_code() {
    let service = Service::start_with(&[("LIMIT_PHONE", "1/1h")]).await;
    let (phone, _) = asked_for_by_a_stranger(&service).await;
    service.sign_up(&phone).await.assert_limited();
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
    let guessed_at = service.challenge(&fresh_phone()).await;
    let (phone, code) = asked_for_by_a_stranger(&service).await;
    let mut shares = Vec::new();
    for _ in 0..60 {
        shares.push(Challenge::new(
            &service.sign_up(&phone).await,
            &phone,
            &code,
        ));
    }
    for _ in 0..10 {
        service.guess(&guessed_at).await;
    }
    for share in &shares {
        service.submit(share).await;
    }
    let sent = service.sign_up(&fresh_phone()).await;
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
    let (phone, code) = asked_for_by_a_stranger(&service).await;
    let mut guesses = 0;
    for _ in 0..10 {
        let shared = service.sign_up(&phone).await;
        if shared.status != 200 {
            shared.assert_limited();
            break;
        }
        let shared = Challenge::new(&shared, &phone, &code);
        for _ in 0..5 {
            let response = service.guess(&shared).await;
            guesses += u32::from(response.outcome() == OTP_MISMATCH);
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
    let (phone, _) = asked_for_by_a_stranger(&service).await;
    let guessed_at = service.challenge(&fresh_phone()).await;
    for _ in 0..4 {
        service.sign_up(&phone).await.assert_ok();
        service.guess(&guessed_at).await;
    }
    service.sign_up(&phone).await.assert_limited();
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
    let device = service.known_device(&phone).await;
    service.log_in_on(&device, &phone).await.assert_ok();
    service.log_in_on(&device, &phone).await.assert_limited();
    service.log_in_from(STRANGER, &phone).await.assert_ok();
    // The service's ceiling is reached.
    service.log_in(&phone).await.assert_limited();
}
