//! Guessing makes codes longer. It opens nothing and locks nobody out.

use harness::{
    Challenge, Service, fresh_phone, last_code_to, neighbour,
    outcome::{NOT_REGISTERED, OTP_EXPIRED, OTP_MISMATCH, TOO_MANY_ATTEMPTS},
    wrong,
};

const HERE: &str = "203.0.113.10";
const DAY: u64 = 86_400;

/// The length of the code that the phone's sign-up brings.
async fn next_length(service: &Service, phone: &str) -> u64 {
    let sent = service.sign_up(phone).await;
    sent.assert_ok();
    sent.body["code_length"].as_u64().unwrap()
}

/// The length of the code that a new phone gets.
async fn new_length(service: &Service) -> u64 {
    next_length(service, &fresh_phone()).await
}

/// Submits so many wrong codes with the challenge's id. All must be evaluated.
async fn guess(service: &Service, challenge: &Challenge, times: usize) {
    for _ in 0..times {
        service.guess(challenge).await.assert_is(OTP_MISMATCH);
    }
}

/// The phone's new challenge, after so many wrong codes.
async fn guess_at(service: &Service, phone: &str, times: usize) -> Challenge {
    let challenge = service.challenge(phone).await;
    guess(service, &challenge, times).await;
    challenge
}

/// New challenges of new phones.
async fn collect(service: &Service, count: usize) -> Vec<Challenge> {
    let mut challenges = Vec::new();
    for _ in 0..count {
        challenges.push(service.challenge(&fresh_phone()).await);
    }
    challenges
}

/// The number of wrong codes that are evaluated, of so many for each challenge.
async fn evaluated(service: &Service, challenges: &[Challenge], times: usize) -> usize {
    let mut evaluated = 0;
    for challenge in challenges {
        for _ in 0..times {
            let response = service.guess(challenge).await;
            evaluated += usize::from(response.outcome() == OTP_MISMATCH);
        }
    }
    evaluated
}

#[tokio::test]
async fn wrong_codes_for_a_phone_make_its_next_codes_longer_and_never_lock_it() {
    let mut service = Service::start_with(&[("MISSES_PHONE", "10/30d")]).await;
    let phone = fresh_phone();
    for length in [6, 6, 8] {
        assert_eq!(guess_at(&service, &phone, 5).await.code.len(), length);
    }
    // Of 8 digits, a wrong one counts a hundredth.
    for _ in 0..10 {
        assert_eq!(guess_at(&service, &phone, 5).await.code.len(), 8);
    }
    // Others are not concerned.
    assert_eq!(new_length(&service).await, 6);
    let challenge = guess_at(&service, &phone, 4).await;
    assert_eq!(challenge.code.len(), 8);
    service.submit(&challenge).await.assert_ok();
    // A month later they are forgotten.
    service.set_clock(31 * DAY);
    let sent = service.log_in(&phone).await;
    assert_eq!(sent.body["code_length"], 6, "{sent:?}");
}

#[tokio::test]
async fn at_twice_the_bucket_codes_are_four_digits_longer_and_at_most_the_longest() {
    for (longest, expected) in [("", [6, 8, 10]), ("9", [6, 8, 9]), ("7", [6, 7, 7])] {
        let settings = [("MISSES_PHONE", "2/30d"), ("OTP_MAX_LENGTH", longest)];
        let service = Service::start_with(&settings).await;
        let phone = fresh_phone();
        // Pending codes of six digits, guessed at one after the other.
        let first = service.challenge(&phone).await;
        for (wrong_codes, length) in [0, 2, 2].into_iter().zip(expected) {
            guess(&service, &first, wrong_codes).await;
            assert_eq!(next_length(&service, &phone).await, length, "{longest}");
        }
        let code = last_code_to(&phone).await;
        service.verify(&phone, &code).await.assert_ok();
    }
}

#[tokio::test]
async fn a_match_refunds_its_own_misses_and_those_of_others_stay() {
    let service = Service::start_with(&[("MISSES_PHONE", "10/30d")]).await;
    let phone = fresh_phone();
    service.database.insert_user(&phone).await;
    let strangers = service.login_challenge(&phone).await;
    guess(&service, &strangers, 5).await;
    // The owner mistypes and signs in, many times.
    for _ in 0..4 {
        let owners = service.login_challenge(&phone).await;
        assert_eq!(owners.code.len(), 6);
        guess(&service, &owners, 4).await;
        service.submit(&owners).await.assert_ok();
    }
    // Five more of the stranger's fill the bucket.
    let strangers = service.login_challenge(&phone).await;
    guess(&service, &strangers, 5).await;
    let sent = service.log_in(&phone).await;
    assert_eq!(sent.body["code_length"], 8, "{sent:?}");
}

#[tokio::test]
async fn a_match_does_not_refund_what_another_guessed_without_the_id() {
    let service = Service::start_with(&[("MISSES_TOTAL", "10/1d")]).await;
    for challenge in collect(&service, 2).await {
        for _ in 0..5 {
            let (phone, code) = (&challenge.phone, challenge.wrong_code());
            let response = service.verify_from(HERE, phone, &code).await;
            response.assert_is(OTP_MISMATCH);
        }
        // The owner has the id, or is at another address.
        service.submit(&challenge).await.assert_ok();
    }
    assert_eq!(new_length(&service).await, 8);
}

#[tokio::test]
async fn somebody_without_ids_who_mistypes_makes_no_codes_longer() {
    let service = Service::start_with(&[("MISSES_TOTAL", "3/1d")]).await;
    for _ in 0..5 {
        let (phone, code) = service.fresh_code().await;
        for _ in 0..2 {
            service.verify(&phone, &wrong(&code)).await;
        }
        service.verify(&phone, &code).await.assert_ok();
    }
    assert_eq!(new_length(&service).await, 6);
}

#[tokio::test]
async fn wrong_codes_spread_over_phones_and_addresses_make_all_new_codes_longer() {
    let mut service = Service::start_with(&[("MISSES_TOTAL", "300/1d")]).await;
    let phone = fresh_phone();
    for last in 0..60 {
        guess_at(&service, &neighbour(&phone, last), 5).await;
    }
    assert_eq!(new_length(&service).await, 8);
    let challenge = guess_at(&service, &fresh_phone(), 1).await;
    service.submit(&challenge).await.assert_ok();
    service.set_clock(DAY);
    assert_eq!(new_length(&service).await, 6);
}

/// Somebody who first collects short codes and then guesses at all of them would have as many
/// guesses as there are codes. From a quarter above the bucket's size on, only a new code is good.
#[tokio::test]
async fn short_codes_that_were_collected_before_are_void_once_the_service_is_guessed_at() {
    let service = Service::start_with(&[("MISSES_TOTAL", "10/1d")]).await;
    let collected = collect(&service, 5).await;
    assert_eq!(evaluated(&service, &collected, 5).await, 12);
    service.submit(&collected[4]).await.assert_is(OTP_EXPIRED);
    // A new code, which is longer, lets its owner in.
    let next = guess_at(&service, &collected[4].phone, 4).await;
    assert_eq!(next.code.len(), 10);
    service.submit(&next).await.assert_ok();
}

#[tokio::test]
async fn codes_of_the_middle_length_that_were_collected_are_void_later_and_the_longest_never() {
    let settings = [("MISSES_TOTAL", "10/1d"), ("OTP_MAX_ATTEMPTS", "100")];
    let service = Service::start_with(&settings).await;
    let short = guess_at(&service, &fresh_phone(), 10).await;
    assert_eq!(short.code.len(), 6);
    let middle = collect(&service, 3).await;
    assert!(middle.iter().all(|challenge| challenge.code.len() == 8));
    // Two more by the short one, then it is void.
    guess(&service, &short, 2).await;
    service.guess(&short).await.assert_is(OTP_EXPIRED);
    let longest = service.challenge(&fresh_phone()).await;
    assert_eq!(longest.code.len(), 10);
    // The middle ones take about two hundred more, a hundredth each.
    let evaluated = evaluated(&service, &middle, 100).await;
    assert!((195..=205).contains(&evaluated), "{evaluated}");
    service.submit(&longest).await.assert_ok();
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
    let code = guess_at(&service, &phone, 3).await.code;
    let response = service.verify_from("198.51.100.1", &phone, &code).await;
    response.assert_is(TOO_MANY_ATTEMPTS);
    assert!(response.retry_after() > 3600, "{response:?}");
    // Nor does a new code help. Other phones are served, since the service's bucket only warns.
    let code = service.code_for(&phone).await;
    let response = service.verify(&phone, &code).await;
    response.assert_is(TOO_MANY_ATTEMPTS);
    service.register(&fresh_phone()).await;
}

#[tokio::test]
async fn only_the_first_match_of_a_challenge_forgives_wrong_codes() {
    let settings = [("MISSES_PHONE", "4/30d"), ("OTP_MAX_ATTEMPTS", "10")];
    let service = Service::start_with(&settings).await;
    let phone = fresh_phone();
    let challenge = guess_at(&service, &phone, 3).await;
    // Without Postgres a right code stays to be matched again.
    service.postgres.cut().await;
    for wrong_codes in [0, 2, 2] {
        guess(&service, &challenge, wrong_codes).await;
        service.submit(&challenge).await.assert_is(NOT_REGISTERED);
    }
    service.postgres.restore();
    assert_eq!(next_length(&service, &phone).await, 8);
}

#[tokio::test]
async fn every_fifty_answered_codes_forgive_the_service_one_miss() {
    let settings = [("MISSES_TOTAL", "10/1d"), ("OTP_MAX_ATTEMPTS", "10")];
    let service = Service::start_with(&settings).await;
    guess_at(&service, &fresh_phone(), 10).await;
    let challenge = service.challenge(&fresh_phone()).await;
    assert_eq!(challenge.code.len(), 8);
    service.submit(&challenge).await.assert_ok();
    assert_eq!(new_length(&service).await, 8);
    for _ in 0..50 {
        let challenge = service.challenge(&fresh_phone()).await;
        service.submit(&challenge).await.assert_ok();
    }
    assert_eq!(new_length(&service).await, 6);
}

#[tokio::test]
async fn one_address_cannot_spray_wrong_codes_over_phones_without_their_ids() {
    let service = Service::start_with(&[("LIMIT_GUESSES", "5/10m")]).await;
    for tried in 0..8 {
        let (phone, code) = service.fresh_code().await;
        let response = service.verify_from(HERE, &phone, &wrong(&code)).await;
        if tried < 5 {
            response.assert_is(OTP_MISMATCH);
            continue;
        }
        assert!(response.assert_limited() <= 120);
        // Not even the right one, or the limit would tell which it is; elsewhere it works.
        let here = service.verify_from(HERE, &phone, &code).await;
        here.assert_limited();
        let elsewhere = service.verify_from("203.0.113.99", &phone, &code).await;
        elsewhere.assert_ok();
    }
}

#[tokio::test]
async fn right_codes_from_one_address_are_never_too_many() {
    let service = Service::start_with(&[("LIMIT_GUESSES", "1/10m")]).await;
    for _ in 0..5 {
        let (phone, code) = service.fresh_code().await;
        service.verify_from(HERE, &phone, &code).await.assert_ok();
    }
}
