//! Nobody floods or pumps, and people get in all the same. The time is Redis's, moved by the
//! scripts' offset.

use std::ops::Range;

use futures_util::future::join_all;
use harness::{
    Behaviour, Database, Functions, Gateway, LIMITS, PATIENCE, Provider, RedisServer, Service,
    fresh_phone, from_address, last_code_to, messages_to, neighbour,
    outcome::{
        INVALID_PHONE, LOGGED_IN, NOT_STORED, OTP_EXPIRED, OTP_MISMATCH, REGISTERED,
        UNSUPPORTED_PHONE, USER_EXISTS, USER_NOT_FOUND,
    },
    random_number, wrong,
};
use serde_json::json;
use shared::{
    challenge::{ChallengeId, ClientAddress, CodeRequest, IssueOutcome, Purpose},
    name::Name,
    phone::PhoneNumber,
};

const HERE: &str = "203.0.113.10";
const HOUR: u64 = 3600;
const DAY: u64 = 24 * HOUR;

/// Each of these neighbours of the phone gets a code.
async fn send_to(service: &Service, phone: &str, neighbours: Range<usize>) {
    for last in neighbours {
        service.sign_up(&neighbour(phone, last)).await.assert_ok();
    }
}

/// The phone's neighbour is refused. Returns the seconds to wait.
async fn refused(service: &Service, phone: &str, last: usize) -> u64 {
    let response = service.sign_up(&neighbour(phone, last)).await;
    response.assert_limited()
}

/// So many new phones get a code from this address, and not one more. Returns its seconds to wait.
async fn takes_exactly_from(service: &Service, address: &str, sends: usize) -> u64 {
    for _ in 0..sends {
        let sent = service.sign_up_from(address, &fresh_phone()).await;
        sent.assert_ok();
    }
    let refused = service.sign_up_from(address, &fresh_phone()).await;
    refused.assert_limited()
}

/// The same from the tests' usual address.
async fn takes_exactly(service: &Service, sends: usize) -> u64 {
    takes_exactly_from(service, HERE, sends).await
}

#[tokio::test]
async fn a_phone_gets_another_code_when_the_cool_down_is_over_to_the_second() {
    let mut service = Service::start_with(&[("LIMIT_PHONE", "1/30s")]).await;
    let phone = fresh_phone();
    service.sign_up(&phone).await.assert_ok();
    let wait = service.sign_up(&phone).await.assert_limited();
    assert!((25..=30).contains(&wait), "{wait}");
    service.set_clock(20);
    let wait = service.sign_up(&phone).await.assert_limited();
    assert!((5..=10).contains(&wait), "{wait}");
    service.set_clock(20 + wait);
    service.sign_up(&phone).await.assert_ok();
    assert_eq!(messages_to(&phone).await.len(), 2);
}

#[tokio::test]
async fn the_longest_of_a_phones_limits_decides_and_lets_at_most_2n_minus_1_through_in_a_period() {
    let mut service = Service::start_with(&[("LIMIT_PHONE", "1/30s,5/1h")]).await;
    let phone = fresh_phone();
    let mut sent = 0;
    // Somebody who tries every ten seconds for an hour.
    for second in (0..3600).step_by(10) {
        service.set_clock(second);
        let response = service.sign_up(&phone).await;
        if response.status == 200 {
            sent += 1;
        } else {
            response.assert_limited();
        }
    }
    assert_eq!(sent, 9);
}

#[tokio::test]
async fn of_many_racing_signups_for_one_phone_one_is_sent() {
    let service = Service::start_with(&[("LIMIT_PHONE", "1/30s")]).await;
    let phone = fresh_phone();
    let responses = join_all((0..50).map(|_| service.sign_up(&phone))).await;
    assert_eq!(responses.iter().filter(|r| r.status == 200).count(), 1);
    assert_eq!(messages_to(&phone).await.len(), 1);
}

#[tokio::test]
async fn an_address_is_limited_whatever_its_headers_claim() {
    let service = Service::start_with(&[("LIMIT_ADDRESS", "3/10m")]).await;
    takes_exactly_from(&service, HERE, 3).await;
    let other = service.sign_up_from("203.0.113.11", &fresh_phone()).await;
    other.assert_ok();
}

#[tokio::test]
async fn an_ipv6_client_cannot_rotate_within_its_64() {
    let service = Service::start_with(&[("LIMIT_ADDRESS", "3/10m")]).await;
    let sign_up_from = async |address| service.sign_up_from(address, &fresh_phone()).await;
    for address in ["2001:db8:0:1::1", "2001:db8:0:1::2", "2001:db8:0:1::3"] {
        sign_up_from(address).await.assert_ok();
    }
    sign_up_from("2001:db8:0:1:ffff::").await.assert_limited();
    sign_up_from("2001:db8:0:2::1").await.assert_ok();
}

#[tokio::test]
async fn the_address_of_a_rest_api_event_is_limited_too() {
    let service = Service::start_with(&[("LIMIT_ADDRESS", "1/10m")]).await;
    let through_rest = async |address| {
        let body = json!({"name": "Ada", "phone_number": fresh_phone()}).to_string();
        let event = Gateway::Rest.post("/signup", Some("application/json"), body.as_bytes());
        service.send("signup", &from_address(address, event)).await
    };
    through_rest(HERE).await.assert_ok();
    through_rest(HERE).await.assert_limited();
    through_rest("203.0.113.11").await.assert_ok();
    // The two kinds of event count as one.
    takes_exactly_from(&service, HERE, 0).await;
}

#[tokio::test]
async fn a_country_is_limited_by_region_and_not_by_calling_code() {
    let service = Service::start_with(&[("LIMIT_COUNTRY", "1/1h")]).await;
    let number = |area: u32| format!("+1{area}555{:04}", random_number() % 10_000);
    service.sign_up(&number(415)).await.assert_ok();
    service.sign_up(&number(212)).await.assert_limited();
    // Canada has the same calling code.
    service.sign_up(&number(416)).await.assert_ok();
}

#[tokio::test]
async fn beyond_the_total_nothing_is_sent_and_the_wait_is_right() {
    let mut service = Service::start_with(&[("LIMIT_TOTAL", "2/1h,3/1d")]).await;
    for _ in 0..2 {
        service.sign_up(&fresh_phone()).await.assert_ok();
    }
    let phone = fresh_phone();
    let wait = service.sign_up(&phone).await.assert_limited();
    assert!((1790..=1800).contains(&wait), "{wait}");
    service.set_clock(wait);
    service.sign_up(&phone).await.assert_ok();
    assert_eq!(messages_to(&phone).await.len(), 1);
    // Now the day's limit is the one that lasts.
    service.set_clock(2 * HOUR);
    let wait = takes_exactly(&service, 0).await;
    assert!(wait > HOUR, "{wait}");
}

/// Its bucket is refilled in 300,000,000 ms, a number that Redis 7.2.4 and Valkey 7.2.5 pass from a
/// script to a command as `3e+8`.
#[tokio::test]
async fn a_limit_whose_period_is_a_round_number_is_a_limit_like_any_other() {
    let service = Service::start_with(&[("LIMIT_ADDRESS", "1/5000m")]).await;
    let wait = takes_exactly(&service, 1).await;
    assert!((299_990..=300_000).contains(&wait), "{wait}");
}

#[tokio::test]
async fn a_refusal_takes_nothing_from_the_other_limits() {
    let service = Service::start_with(&[("LIMIT_PHONE", "1/1h"), ("LIMIT_ADDRESS", "2/1h")]).await;
    let phone = fresh_phone();
    service.sign_up(&phone).await.assert_ok();
    for _ in 0..10 {
        service.sign_up(&phone).await.assert_limited();
    }
    takes_exactly(&service, 1).await;
}

#[tokio::test]
async fn numbers_that_are_not_served_are_403_and_those_nobody_can_have_400() {
    let service = Service::start_with(&[("ALLOWED_COUNTRIES", "US,GB")]).await;
    for number in [
        "+16135550123",
        "+18765550123",
        "+4915112345678",
        "+19002345678",
        "+448431234567",
        "+870301234567",
    ] {
        let response = service.sign_up(number).await;
        assert_eq!(response.outcome(), UNSUPPORTED_PHONE, "{number}");
        assert!(messages_to(number).await.is_empty());
    }
    let response = service.sign_up("+14151552671").await;
    response.assert_is(INVALID_PHONE);
    service.redis_server.assert_empty().await;
}

#[tokio::test]
async fn asking_whether_a_number_is_registered_costs_the_address() {
    let service = Service::start_with(&[("LIMIT_ADDRESS", "4/10m")]).await;
    let (known, unknown) = (fresh_phone(), fresh_phone());
    service.database.insert_user(&known).await;
    let sign_up = async || service.sign_up_from(HERE, &known).await;
    let log_in = async || service.log_in_from(HERE, &unknown).await;
    for _ in 0..2 {
        sign_up().await.assert_is(USER_EXISTS);
        log_in().await.assert_is(USER_NOT_FOUND);
    }
    sign_up().await.assert_limited();
    log_in().await.assert_limited();
    service.redis.cut().await;
    sign_up().await.assert_is(NOT_STORED);
}

#[tokio::test]
async fn a_thousand_sign_ups_from_one_address_are_served_while_their_codes_come_back() {
    // A provider of its own: the one that all tests share looks through everybody's messages.
    let provider = Provider::start(Behaviour::Accept).await;
    let endpoint = provider.url();
    let settings = [
        ("AWS_ENDPOINT_URL_SNS", &*endpoint),
        ("LIMIT_ADDRESS", "20/10m"),
    ];
    let mut service = Service::start_with(&settings).await;
    for minute in 0..200 {
        // Five a minute: far more than the limit refills.
        service.set_clock(minute * 60);
        for _ in 0..5 {
            let phone = fresh_phone();
            service.sign_up(&phone).await.assert_ok();
            let code = provider.last_code_to(&phone);
            service.verify(&phone, &code).await.assert_ok();
        }
    }
    service.set_clock(DAY);
    let wait = takes_exactly(&service, 20).await;
    assert!((25..=30).contains(&wait), "{wait}");
}

#[tokio::test]
async fn an_answered_code_refunds_what_its_phone_took_where_it_took_it_and_half_a_code_more() {
    let settings = [("LIMIT_ADDRESS", "3/1h"), ("LIMIT_TOTAL", "6/1h")];
    let service = Service::start_with(&settings).await;
    let phone = fresh_phone();
    // Two from one address, one from another; the code comes back from a third.
    for address in ["198.51.100.1", "198.51.100.1", "198.51.100.2"] {
        service.sign_up_from(address, &phone).await.assert_ok();
    }
    for address in ["198.51.100.1", "198.51.100.2"] {
        let sent = service.sign_up_from(address, &fresh_phone()).await;
        sent.assert_ok();
    }
    let code = last_code_to(&phone).await;
    let verified = service.verify_from("198.51.100.3", &phone, &code).await;
    verified.assert_ok();
    // 198.51.100.1 has two of its three again, the total four and a half of six.
    takes_exactly_from(&service, "198.51.100.1", 2).await;
    // The code's own address got half a code more: two and a half of its three.
    let wait = takes_exactly_from(&service, "198.51.100.2", 2).await;
    assert!((590..=600).contains(&wait), "{wait}");
    let wait = takes_exactly_from(&service, "198.51.100.9", 0).await;
    assert!((290..=300).contains(&wait), "{wait}");
}

#[tokio::test]
async fn a_replayed_code_refunds_nothing() {
    let service = Service::start_with(&[("LIMIT_TOTAL", "3/1h")]).await;
    let (phone, code) = service.fresh_code().await;
    service.verify(&phone, &code).await.assert_ok();
    for _ in 0..3 {
        service.sign_up(&fresh_phone()).await.assert_ok();
    }
    for _ in 0..5 {
        service.verify(&phone, &code).await.assert_is(OTP_EXPIRED);
    }
    takes_exactly(&service, 0).await;
}

#[tokio::test]
async fn a_bonus_never_saves_up_more_than_the_limit() {
    let service = Service::start_with(&[("LIMIT_TOTAL", "2/1h")]).await;
    for _ in 0..10 {
        service.register(&fresh_phone()).await;
    }
    takes_exactly(&service, 2).await;
}

#[tokio::test]
async fn a_range_that_never_answers_closes_for_longer_each_time() {
    let mut service = Service::start_with(&[("LIMIT_RANGE", "3/6h")]).await;
    let phone = fresh_phone();
    send_to(&service, &phone, 0..3).await;
    let (mut now, mut last) = (0, 3);
    for expected_hours in [6, 12, 24, 48, 96, 192, 384, 720, 720] {
        let wait = refused(&service, &phone, last).await;
        let expected = expected_hours * HOUR;
        assert!((expected - 60..=expected).contains(&wait), "{wait}");
        // A second earlier it is refused again.
        service.set_clock(now + wait - 2);
        refused(&service, &phone, last).await;
        now += wait;
        service.set_clock(now);
        send_to(&service, &phone, last..last + 1).await;
        last += 1;
    }
    // Other ranges are not concerned.
    service.sign_up(&fresh_phone()).await.assert_ok();
}

#[tokio::test]
async fn an_answered_code_opens_a_closed_range_and_a_trusted_one_has_twenty_codes() {
    let mut service = Service::start_with(&[("LIMIT_RANGE", "3/6h")]).await;
    let phone = fresh_phone();
    send_to(&service, &phone, 0..3).await;
    service.set_clock(6 * HOUR);
    service.register(&neighbour(&phone, 3)).await;
    // Its own code is refunded.
    send_to(&service, &phone, 4..5).await;
    let wait = refused(&service, &phone, 5).await;
    assert!((6 * HOUR - 60..=6 * HOUR).contains(&wait), "{wait}");

    service.set_clock(12 * HOUR + 60);
    for last in 100..130 {
        service.register(&neighbour(&phone, last)).await;
    }
    send_to(&service, &phone, 200..220).await;
    refused(&service, &phone, 220).await;
}

/// Or an attacker who walks many ranges would get a fourth code wherever one person lives.
#[tokio::test]
async fn a_single_answer_earns_a_range_no_fourth_code_and_two_do() {
    let service = Service::start_with(&[("LIMIT_RANGE", "3/6h")]).await;
    for (answers, codes) in [(1, 3), (2, 4)] {
        let phone = fresh_phone();
        for last in 0..answers {
            service.register(&neighbour(&phone, last)).await;
        }
        send_to(&service, &phone, 100..100 + codes).await;
        refused(&service, &phone, 200).await;
    }
}

/// Or an attacker would be served again whenever somebody logs in who lives there.
#[tokio::test]
async fn only_codes_that_needed_a_ranges_trust_earn_it_more() {
    let service = Service::start_with(&[("LIMIT_RANGE", "3/6h")]).await;
    let phone = fresh_phone();
    service.database.insert_user(&phone).await;
    send_to(&service, &phone, 0..3).await;
    // Without its device, and on it.
    let mut device = String::new();
    for _ in 0..2 {
        service.log_in_on(&device, &phone).await.assert_ok();
        let response = service.verify(&phone, &last_code_to(&phone).await).await;
        response.text("device_token").clone_into(&mut device);
        assert!(!device.is_empty(), "{response:?}");
    }
    refused(&service, &phone, 3).await;
}

#[tokio::test]
async fn while_the_total_runs_low_a_range_that_never_answered_has_one_code() {
    let mut service =
        Service::start_with(&[("LIMIT_RANGE", "3/6h"), ("LIMIT_TOTAL", "10/1d")]).await;
    let (trusted, unknown) = (fresh_phone(), fresh_phone());
    service.register(&trusted).await;
    send_to(&service, &unknown, 1..2).await;
    for _ in 0..5 {
        service.sign_up(&fresh_phone()).await.assert_ok();
    }
    // Six of ten are taken: half of the total is there again after 2.4 hours.
    let wait = refused(&service, &unknown, 2).await;
    assert!((8580..=8640).contains(&wait), "{wait}");
    send_to(&service, &trusted, 1..2).await;
    service.set_clock(6 * HOUR);
    send_to(&service, &unknown, 2..3).await;
}

#[tokio::test]
async fn a_range_whose_owner_answers_every_code_meets_a_ceiling_and_nobody_else_does() {
    let settings = [("LIMIT_RANGE", "3/6h"), ("LIMIT_RANGE_MAX", "6/1d")];
    let service = Service::start_with(&settings).await;
    let phone = fresh_phone();
    for last in 0..3 {
        let neighbour = neighbour(&phone, last);
        service.register(&neighbour).await;
        let login = service.login_challenge(&neighbour).await;
        service.submit(&login).await.assert_is(LOGGED_IN);
    }
    refused(&service, &phone, 3).await;
    let login = service.log_in(&neighbour(&phone, 0)).await;
    login.assert_limited();
    service.register(&fresh_phone()).await;
}

#[tokio::test]
async fn the_ceiling_of_the_service_counts_answered_codes_too() {
    let service = Service::start_with(&[("LIMIT_TOTAL_MAX", "2/1d")]).await;
    for _ in 0..2 {
        service.register(&fresh_phone()).await;
    }
    takes_exactly(&service, 0).await;
}

#[tokio::test]
async fn a_login_of_a_registered_number_needs_no_trust_of_its_range() {
    let settings = [("LIMIT_RANGE", "3/6h"), ("LIMIT_COUNTRY", "3/1d")];
    let service = Service::start_with(&settings).await;
    let phone = fresh_phone();
    service.database.insert_user(&phone).await;
    // A stranger closes the range and the country.
    send_to(&service, &phone, 0..3).await;
    refused(&service, &phone, 999).await;
    service.log_in(&phone).await.assert_ok();
}

#[tokio::test]
async fn logins_cannot_use_up_the_total_that_new_people_need_nor_the_other_way_round() {
    let service = Service::start_with(&[("LIMIT_TOTAL", "2/1d")]).await;
    let known = fresh_phone();
    service.database.insert_user(&known).await;
    for _ in 0..2 {
        service.log_in(&known).await.assert_ok();
    }
    service.log_in(&known).await.assert_limited();
    takes_exactly(&service, 2).await;
}

/// Only moto's list of opted-out numbers could make it refuse, so the challenge is revoked by hand
/// here; provider.rs does it through the wire.
#[tokio::test]
async fn a_refused_message_refunds_range_country_and_total_but_not_phone_and_address() {
    let settings = [
        ("LIMIT_PHONE", "3/1h"),
        ("LIMIT_ADDRESS", "2/1h"),
        ("LIMIT_RANGE", "1/6h"),
        ("LIMIT_COUNTRY", "1/1h"),
        ("LIMIT_TOTAL", "1/1h"),
        ("LIMIT_RANGE_MAX", "1/1h"),
        ("LIMIT_TOTAL_MAX", "1/1h"),
    ];
    let service = Service::start_with(&settings).await;
    let phone = fresh_phone();
    for _ in 0..2 {
        let refused = service.challenge(&phone).await;
        for _ in 0..3 {
            // Repeating it refunds nothing more.
            revoke(&service, &phone, &refused.id).await;
        }
        let response = service.verify(&phone, "123456").await;
        response.assert_is(OTP_EXPIRED);
    }
    // The address has none left.
    takes_exactly(&service, 0).await;
    let elsewhere = service.sign_up_from("198.51.100.1", &phone).await;
    elsewhere.assert_ok();
    // An answered code refunds the address's share of the refused codes too.
    let code = last_code_to(&phone).await;
    service.verify(&phone, &code).await.assert_ok();
    let addresses = service.redis_server.keys("*limit:address*").await;
    assert_eq!(addresses, Vec::<String>::new());
}

#[tokio::test]
async fn a_refused_message_revokes_its_strike() {
    let mut service = Service::start_with(&[("LIMIT_RANGE", "1/6h")]).await;
    let phone = fresh_phone();
    service.sign_up(&phone).await.assert_ok();
    service.set_clock(6 * HOUR);
    let refused = service.challenge(&phone).await;
    revoke(&service, &phone, &refused.id).await;
    // The range waits on as if nothing had been sent: open now, and closed for twice as long after.
    service.sign_up(&phone).await.assert_ok();
    let wait = service.sign_up(&phone).await.assert_limited();
    assert!((12 * HOUR - 60..=12 * HOUR).contains(&wait), "{wait}");
}

#[tokio::test]
async fn what_an_answered_code_has_refunded_a_refusal_does_not_refund_again() {
    let service = Service::start_with(&[("LIMIT_TOTAL", "3/1h")]).await;
    let phone = fresh_phone();
    let refused = service.challenge(&phone).await;
    service.register(&phone).await;
    for _ in 0..2 {
        service.sign_up(&fresh_phone()).await.assert_ok();
    }
    revoke(&service, &phone, &refused.id).await;
    takes_exactly(&service, 1).await;
}

#[tokio::test]
async fn after_refused_messages_the_newest_challenge_is_the_one_before_unless_another_came() {
    let service = Service::start().await;
    let phone = fresh_phone();
    let newest = async || service.redis_server.latest_challenge(&phone).await.unwrap();
    let first = service.challenge(&phone).await;
    // Two that overlap, of which the older is refused first.
    let second = service.challenge(&phone).await;
    let third = service.challenge(&phone).await;
    for refused in [&second, &third] {
        revoke(&service, &phone, &refused.id).await;
    }
    assert_eq!(newest().await, first.id);

    let fourth = service.challenge(&phone).await;
    revoke(&service, &phone, &first.id).await;
    assert_eq!(newest().await, fourth.id);
    service.submit(&first).await.assert_is(OTP_EXPIRED);
}

/// The request of `signup` to Redis for a sign-up with this id.
fn request<'a>(
    id: ChallengeId,
    phone: &'a PhoneNumber,
    address: &'a ClientAddress,
) -> CodeRequest<'a> {
    CodeRequest {
        id,
        phone,
        address,
        device: None,
        is_open_login: false,
        test_code: None,
        purpose: Purpose::SignUp(Name::parse("Ada").unwrap()),
    }
}

async fn revoke(service: &Service, phone: &str, id: &str) {
    let (phone, address) = (parse(phone), ClientAddress::parse(Some(HERE)));
    let request = request(ChallengeId::parse(id).unwrap(), &phone, &address);
    let soon = tokio::time::Instant::now() + PATIENCE;
    let challenges = &service.signup.delivery.issuer;
    challenges.revoke(&request, soon).await.unwrap();
}

fn parse(phone: &str) -> PhoneNumber {
    let parser = shared::phone::Parser::from_env(&shared::config::Env::from([]));
    parser.unwrap().parse(phone).unwrap()
}

#[tokio::test]
async fn a_challenge_that_is_issued_again_with_its_id_takes_nothing_twice() {
    let service = Service::start_with(&[("LIMIT_PHONE", "1/30s")]).await;
    let (number, address) = (parse(&fresh_phone()), ClientAddress::parse(Some(HERE)));
    let request = request(ChallengeId::generate(), &number, &address);
    let challenges = &service.signup.delivery.issuer;
    let soon = tokio::time::Instant::now() + PATIENCE;
    for _ in 0..3 {
        let outcome = challenges.issue(&request, soon).await.unwrap();
        assert!(matches!(outcome, IssueOutcome::Issued { .. }));
    }
    let phone = number.as_e164();
    service.sign_up(phone).await.assert_limited();

    // Once it is revoked it stays so, although an issue of it is still on its way.
    challenges.revoke(&request, soon).await.unwrap();
    assert!(challenges.issue(&request, soon).await.is_err());
    service.verify(phone, "123456").await.assert_is(OTP_EXPIRED);
}

#[tokio::test]
async fn it_all_works_unchanged_on_a_cluster_of_three() {
    let nodes = RedisServer::start_cluster().await;
    let database = Database::migrated().await;
    // As by default.
    let mut own = LIMITS.map(|name| (name, "")).to_vec();
    own.push(("REDIS_CLUSTER", "true"));
    for node in &nodes {
        let functions = Functions::over(&database.url(), &node.url(), &own);
        let (phone, code) = functions.fresh_code().await;
        functions.sign_up(&phone).await.assert_limited();
        for (submitted, outcome) in [(wrong(&code), OTP_MISMATCH), (code, REGISTERED)] {
            let response = functions.verify(&phone, &submitted).await;
            response.assert_is(outcome);
        }
        functions.sign_up(&phone).await.assert_is(USER_EXISTS);
    }
    // All of it is in one slot, so on one node.
    let mut used = 0;
    for node in &nodes {
        used += usize::from(!node.keys("*").await.is_empty());
    }
    assert_eq!(used, 1);
}
