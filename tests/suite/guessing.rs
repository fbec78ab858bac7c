//! Guessing makes codes longer. It opens nothing and locks nobody out.

use harness::{Response, Service, fresh_phone, last_code_to, wrong};

use crate::limits::{assert_limited, neighbour};

const HERE: &str = "203.0.113.10";
const DAY: i64 = 86_400_000;

fn code_length(sent: &Response) -> u64 {
    assert_eq!(sent.status, 200, "{sent:?}");
    sent.body["code_length"].as_u64().unwrap()
}

/// Asks for a code and submits so many wrong ones with its id. Returns the id and the code.
async fn guess_at(service: &Service, phone: &str, wrong_codes: usize) -> (String, String) {
    let sent = service.sign_up("Ada", phone).await;
    assert_eq!(sent.status, 200, "{sent:?}");
    let id = sent.text("challenge_id").to_owned();
    let code = last_code_to(phone).await;
    assert_eq!(code.len() as u64, code_length(&sent));
    for _ in 0..wrong_codes {
        let response = service.verify_challenge(phone, &wrong(&code), &id).await;
        assert_eq!(response.text("code"), "otp_mismatch");
    }
    (id, code)
}

#[tokio::test]
async fn wrong_codes_for_a_phone_make_its_next_codes_longer_and_never_lock_it() {
    let mut service = Service::start_with(&[("MISSES_PHONE", "10/30d")]).await;
    let phone = fresh_phone();
    for length in [6, 6, 8] {
        let (_, code) = guess_at(&service, &phone, 5).await;
        assert_eq!(code.len(), length);
    }
    // Of 8 digits, a wrong one counts a hundredth.
    for _ in 0..10 {
        let (_, code) = guess_at(&service, &phone, 5).await;
        assert_eq!(code.len(), 8);
    }
    // Others are not concerned.
    assert_eq!(
        code_length(&service.sign_up("Ada", &fresh_phone()).await),
        6
    );
    let (id, code) = guess_at(&service, &phone, 4).await;
    assert_eq!(code.len(), 8);
    let response = service.verify_challenge(&phone, &code, &id).await;
    assert_eq!(response.status, 200);
    // A month later they are forgotten.
    service.set_clock_offset(31 * DAY);
    assert_eq!(code_length(&service.log_in(&phone).await), 6);
}

#[tokio::test]
async fn at_twice_the_bucket_codes_are_four_digits_longer_and_at_most_the_longest() {
    for (longest, expected) in [("", [6, 8, 10]), ("9", [6, 8, 9]), ("7", [6, 7, 7])] {
        let settings = [("MISSES_PHONE", "2/30d"), ("OTP_MAX_LENGTH", longest)];
        let service = Service::start_with(&settings).await;
        let phone = fresh_phone();
        // Three pending codes of six digits, guessed at one after the other.
        let (first, code) = guess_at(&service, &phone, 0).await;
        for (wrong_codes, length) in [(0, expected[0]), (2, expected[1]), (2, expected[2])] {
            for _ in 0..wrong_codes {
                let response = service
                    .verify_challenge(&phone, &wrong(&code), &first)
                    .await;
                assert_eq!(response.text("code"), "otp_mismatch");
            }
            let sent = service.sign_up("Ada", &phone).await;
            assert_eq!(code_length(&sent), length, "{longest}");
        }
        let code = last_code_to(&phone).await;
        assert_eq!(service.verify(&phone, &code).await.status, 200);
    }
}

#[tokio::test]
async fn a_match_takes_its_own_misses_back_and_those_of_others_stay() {
    let service = Service::start_with(&[("MISSES_PHONE", "10/30d")]).await;
    let phone = fresh_phone();
    service.database.insert_user(&phone).await;
    // A stranger's challenge.
    let sent = service.log_in(&phone).await;
    let stranger = sent.text("challenge_id");
    let code = last_code_to(&phone).await;
    for _ in 0..5 {
        service
            .verify_challenge(&phone, &wrong(&code), stranger)
            .await;
    }
    // The owner mistypes and signs in, many times.
    for _ in 0..4 {
        let sent = service.log_in(&phone).await;
        assert_eq!(code_length(&sent), 6);
        let (id, code) = (sent.text("challenge_id"), last_code_to(&phone).await);
        for _ in 0..4 {
            service.verify_challenge(&phone, &wrong(&code), id).await;
        }
        let response = service.verify_challenge(&phone, &code, id).await;
        assert_eq!(response.status, 200);
    }
    // Five more of the stranger's fill the bucket.
    let sent = service.log_in(&phone).await;
    let code = last_code_to(&phone).await;
    for _ in 0..5 {
        service
            .verify_challenge(&phone, &wrong(&code), sent.text("challenge_id"))
            .await;
    }
    assert_eq!(code_length(&service.log_in(&phone).await), 8);
}

#[tokio::test]
async fn a_match_does_not_take_back_what_another_guessed_without_the_id() {
    let service = Service::start_with(&[("MISSES_TOTAL", "10/1d")]).await;
    for _ in 0..2 {
        let phone = fresh_phone();
        let (id, code) = guess_at(&service, &phone, 0).await;
        for _ in 0..5 {
            let response = service.verify_from(HERE, &phone, &wrong(&code)).await;
            assert_eq!(response.text("code"), "otp_mismatch");
        }
        // The owner has the id, or is at another address.
        let response = service.verify_challenge(&phone, &code, &id).await;
        assert_eq!(response.status, 200);
    }
    assert_eq!(
        code_length(&service.sign_up("Ada", &fresh_phone()).await),
        8
    );
}

#[tokio::test]
async fn somebody_without_ids_who_mistypes_makes_no_codes_longer() {
    let service = Service::start_with(&[("MISSES_TOTAL", "3/1d")]).await;
    for _ in 0..5 {
        let phone = fresh_phone();
        let (_, code) = guess_at(&service, &phone, 0).await;
        for _ in 0..2 {
            service.verify(&phone, &wrong(&code)).await;
        }
        assert_eq!(service.verify(&phone, &code).await.status, 200);
    }
    assert_eq!(
        code_length(&service.sign_up("Ada", &fresh_phone()).await),
        6
    );
}

#[tokio::test]
async fn wrong_codes_spread_over_phones_and_addresses_make_all_new_codes_longer() {
    let mut service = Service::start_with(&[("MISSES_TOTAL", "300/1d")]).await;
    let phone = fresh_phone();
    for last in 0..60 {
        guess_at(&service, &neighbour(&phone, last), 5).await;
    }
    let sent = service.sign_up("Ada", &fresh_phone()).await;
    assert_eq!(code_length(&sent), 8);
    let phone = fresh_phone();
    let (id, code) = guess_at(&service, &phone, 1).await;
    let response = service.verify_challenge(&phone, &code, &id).await;
    assert_eq!(response.status, 200);
    service.set_clock_offset(DAY);
    assert_eq!(
        code_length(&service.sign_up("Ada", &fresh_phone()).await),
        6
    );
}

/// Whoever first collects short codes and then guesses at all of them would have as many guesses as
/// there are codes. From a quarter above the bucket's size on, a short code has to be asked for anew.
#[tokio::test]
async fn short_codes_that_were_collected_before_are_void_once_the_service_is_guessed_at() {
    let service = Service::start_with(&[("MISSES_TOTAL", "10/1d")]).await;
    let mut collected = Vec::new();
    for _ in 0..5 {
        let phone = fresh_phone();
        let (id, code) = guess_at(&service, &phone, 0).await;
        collected.push((phone, id, code));
    }
    let mut evaluated = 0;
    for (phone, id, code) in &collected {
        for _ in 0..5 {
            let response = service.verify_challenge(phone, &wrong(code), id).await;
            evaluated += u32::from(response.body.get("attempts_remaining").is_some());
        }
    }
    assert_eq!(evaluated, 12);
    let (phone, id, code) = &collected[4];
    let response = service.verify_challenge(phone, code, id).await;
    assert_eq!(response.text("code"), "otp_expired");
    // A new code, which is longer, lets its owner in.
    let (id, code) = guess_at(&service, phone, 4).await;
    assert_eq!(code.len(), 10);
    let response = service.verify_challenge(phone, &code, &id).await;
    assert_eq!(response.status, 200);
}

#[tokio::test]
async fn codes_of_the_middle_length_that_were_collected_are_void_later_and_the_longest_never() {
    let settings = [("MISSES_TOTAL", "10/1d"), ("OTP_MAX_ATTEMPTS", "100")];
    let service = Service::start_with(&settings).await;
    let spent = fresh_phone();
    let (short, short_code) = guess_at(&service, &spent, 10).await;
    assert_eq!(short_code.len(), 6);
    let mut collected = Vec::new();
    for _ in 0..3 {
        let phone = fresh_phone();
        let (id, code) = guess_at(&service, &phone, 0).await;
        assert_eq!(code.len(), 8);
        collected.push((phone, id, code));
    }
    // Two more by the short one, then it is void.
    for expected in ["otp_mismatch", "otp_mismatch", "otp_expired"] {
        let submitted = wrong(&short_code);
        let response = service.verify_challenge(&spent, &submitted, &short).await;
        assert_eq!(response.text("code"), expected);
    }
    let phone = fresh_phone();
    let (longest, longest_code) = guess_at(&service, &phone, 0).await;
    assert_eq!(longest_code.len(), 10);
    // The middle ones take about two hundred more, a hundredth each.
    let mut evaluated = 0;
    for (phone, id, code) in &collected {
        for _ in 0..100 {
            let response = service.verify_challenge(phone, &wrong(code), id).await;
            evaluated += u32::from(response.text("code") == "otp_mismatch");
        }
    }
    assert!((195..=205).contains(&evaluated), "{evaluated}");
    let response = service.verify_challenge(&phone, &longest_code, &longest);
    assert_eq!(response.await.status, 200);
}

#[tokio::test]
async fn where_codes_have_one_length_a_full_bucket_refuses_the_phones_checks() {
    let settings = [
        ("MISSES_PHONE", "7/30d"),
        ("MISSES_TOTAL", "7/1d"),
        ("OTP_MAX_LENGTH", "6"),
    ];
    let service = Service::start_with(&settings).await;
    let phone = fresh_phone();
    guess_at(&service, &phone, 4).await;
    let (_, code) = guess_at(&service, &phone, 3).await;
    let response = service.verify_from("198.51.100.1", &phone, &code).await;
    let exhausted = (429, "Too many attempts", "too_many_attempts");
    assert_eq!(response.outcome(), exhausted);
    assert!(response.retry_after() > 3600, "{response:?}");
    // Nor does a new code help. Other phones are served, since the service's bucket only warns.
    let (_, code) = guess_at(&service, &phone, 0).await;
    assert_eq!(service.verify(&phone, &code).await.outcome(), exhausted);
    let other = fresh_phone();
    let (_, code) = guess_at(&service, &other, 0).await;
    assert_eq!(service.verify(&other, &code).await.status, 200);
}

#[tokio::test]
async fn only_the_first_match_of_a_challenge_forgives_wrong_codes() {
    let settings = [("MISSES_PHONE", "4/30d"), ("OTP_MAX_ATTEMPTS", "10")];
    let service = Service::start_with(&settings).await;
    let phone = fresh_phone();
    let (id, code) = guess_at(&service, &phone, 3).await;
    // Without Postgres a right code stays to be matched again.
    service.postgres.cut().await;
    for wrong_ones in [0, 2, 2] {
        for _ in 0..wrong_ones {
            let response = service.verify_challenge(&phone, &wrong(&code), &id).await;
            assert_eq!(response.text("code"), "otp_mismatch");
        }
        let response = service.verify_challenge(&phone, &code, &id).await;
        assert_eq!(response.text("code"), "unavailable");
    }
    service.postgres.restore();
    assert_eq!(code_length(&service.sign_up("Ada", &phone).await), 8);
}

#[tokio::test]
async fn every_fifty_answered_codes_forgive_the_service_one_miss() {
    let settings = [("MISSES_TOTAL", "10/1d"), ("OTP_MAX_ATTEMPTS", "10")];
    let service = Service::start_with(&settings).await;
    guess_at(&service, &fresh_phone(), 10).await;
    let phone = fresh_phone();
    let (id, code) = guess_at(&service, &phone, 0).await;
    assert_eq!(code.len(), 8);
    assert_eq!(
        service.verify_challenge(&phone, &code, &id).await.status,
        200
    );
    assert_eq!(
        code_length(&service.sign_up("Ada", &fresh_phone()).await),
        8
    );
    for _ in 0..50 {
        let phone = fresh_phone();
        let (id, code) = guess_at(&service, &phone, 0).await;
        assert_eq!(
            service.verify_challenge(&phone, &code, &id).await.status,
            200
        );
    }
    assert_eq!(
        code_length(&service.sign_up("Ada", &fresh_phone()).await),
        6
    );
}

#[tokio::test]
async fn one_address_cannot_spray_wrong_codes_over_phones_without_their_ids() {
    let service = Service::start_with(&[("LIMIT_GUESSES", "5/10m")]).await;
    for tried in 0..8 {
        let phone = fresh_phone();
        let code = service.code_for(&phone).await;
        let response = service.verify_from(HERE, &phone, &wrong(&code)).await;
        if tried < 5 {
            assert_eq!(response.text("code"), "otp_mismatch");
            continue;
        }
        assert!(assert_limited(&response) <= 120);
        // Not even the right one, or the limit would tell which it is; elsewhere it works.
        assert_limited(&service.verify_from(HERE, &phone, &code).await);
        let elsewhere = service.verify_from("203.0.113.99", &phone, &code).await;
        assert_eq!(elsewhere.status, 200);
    }
}

#[tokio::test]
async fn right_codes_from_one_address_are_never_too_many() {
    let service = Service::start_with(&[("LIMIT_GUESSES", "1/10m")]).await;
    for _ in 0..5 {
        let phone = fresh_phone();
        let code = service.code_for(&phone).await;
        assert_eq!(service.verify_from(HERE, &phone, &code).await.status, 200);
    }
}
