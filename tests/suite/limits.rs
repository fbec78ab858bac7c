//! Nobody floods or pumps, and people get in all the same. The time is Redis's, moved by the scripts'
//! offset.

use futures_util::future::join_all;
use harness::{
    Behaviour, Database, Provider, RedisServer, Response, Service, code_in, event_from,
    fresh_phone, last_code_to, messages_to, random_number, wrong,
};
use serde_json::json;

const HERE: &str = "203.0.113.10";
const HOUR: i64 = 3_600_000;
const DAY: i64 = 24 * HOUR;

/// Checks that a limit refused, and returns the seconds to wait.
pub fn assert_limited(response: &Response) -> u64 {
    let limited = (429, "Too many requests", "rate_limited");
    assert_eq!(response.outcome(), limited, "{response:?}");
    response.retry_after()
}

/// Another number of the same range, of which there are a thousand.
pub fn neighbour(phone: &str, last: usize) -> String {
    format!("{}{last:03}", &phone[..phone.len() - 3])
}

/// Signs up and in.
async fn get_in(service: &Service, phone: &str) {
    assert_eq!(service.sign_up("Ada", phone).await.status, 200, "{phone}");
    let code = last_code_to(phone).await;
    assert_eq!(service.verify(phone, &code).await.status, 200, "{phone}");
}

#[tokio::test]
async fn a_phone_gets_another_code_when_the_cool_down_is_over_to_the_second() {
    let mut service = Service::start_with(&[("LIMIT_PHONE", "1/30s")]).await;
    let phone = fresh_phone();
    assert_eq!(service.sign_up("Ada", &phone).await.status, 200);
    let wait = assert_limited(&service.sign_up("Ada", &phone).await);
    assert!((25..=30).contains(&wait), "{wait}");
    service.set_clock_offset(20_000);
    let wait = assert_limited(&service.sign_up("Ada", &phone).await);
    assert!((5..=10).contains(&wait), "{wait}");
    service.set_clock_offset(20_000 + i64::try_from(wait).unwrap() * 1000);
    assert_eq!(service.sign_up("Ada", &phone).await.status, 200);
    assert_eq!(messages_to(&phone).await.len(), 2);
}

#[tokio::test]
async fn the_longest_of_a_phones_limits_decides_and_lets_at_most_2n_minus_1_through_in_a_period() {
    let mut service = Service::start_with(&[("LIMIT_PHONE", "1/30s,5/1h")]).await;
    let phone = fresh_phone();
    let mut sent = 0;
    // Somebody who tries every ten seconds for an hour.
    for second in (0..3600).step_by(10) {
        service.set_clock_offset(second * 1000);
        let response = service.sign_up("Ada", &phone).await;
        if response.status == 200 {
            sent += 1;
        } else {
            assert_limited(&response);
        }
    }
    assert_eq!(sent, 9);
}

#[tokio::test]
async fn of_many_signups_at_once_for_one_phone_one_is_sent() {
    let service = Service::start_with(&[("LIMIT_PHONE", "1/30s")]).await;
    let phone = fresh_phone();
    let responses = join_all((0..50).map(|_| service.sign_up("Ada", &phone))).await;
    assert_eq!(responses.iter().filter(|a| a.status == 200).count(), 1);
    assert_eq!(messages_to(&phone).await.len(), 1);
}

#[tokio::test]
async fn an_address_is_limited_whatever_its_headers_claim() {
    let service = Service::start_with(&[("LIMIT_ADDRESS", "3/10m")]).await;
    for _ in 0..3 {
        let response = service.sign_up_from(HERE, &fresh_phone()).await;
        assert_eq!(response.status, 200);
    }
    assert_limited(&service.sign_up_from(HERE, &fresh_phone()).await);
    let other = service.sign_up_from("203.0.113.11", &fresh_phone()).await;
    assert_eq!(other.status, 200);
}

#[tokio::test]
async fn an_ipv6_client_cannot_rotate_within_its_64() {
    let service = Service::start_with(&[("LIMIT_ADDRESS", "3/10m")]).await;
    for host in 1..=3 {
        let address = format!("2001:db8:0:1::{host:x}");
        assert_eq!(
            service.sign_up_from(&address, &fresh_phone()).await.status,
            200
        );
    }
    assert_limited(
        &service
            .sign_up_from("2001:db8:0:1:ffff::", &fresh_phone())
            .await,
    );
    let other = service
        .sign_up_from("2001:db8:0:2::1", &fresh_phone())
        .await;
    assert_eq!(other.status, 200);
}

#[tokio::test]
async fn the_address_of_a_rest_api_event_is_limited_too() {
    let service = Service::start_with(&[("LIMIT_ADDRESS", "1/10m")]).await;
    let rest = |address: &str| {
        let body = json!({"name": "Ada", "phone_number": fresh_phone()}).to_string();
        let event = json!({
            "resource": "/signup", "path": "/signup", "httpMethod": "POST",
            "headers": {
                "Content-Type": "application/json",
                "X-Forwarded-For": format!("192.0.2.{}", random_number() % 256)
            },
            "multiValueHeaders": {}, "queryStringParameters": null,
            "multiValueQueryStringParameters": null, "pathParameters": null,
            "stageVariables": null,
            "requestContext": {
                "accountId": "123456789012", "apiId": "api", "resourceId": "r",
                "resourcePath": "/signup", "path": "/signup", "httpMethod": "POST",
                "stage": "Prod", "requestId": "request", "protocol": "HTTP/1.1",
                "identity": {"sourceIp": address}
            },
            "body": body, "isBase64Encoded": false
        });
        lambda_http::request::from_str(&event.to_string()).unwrap()
    };
    assert_eq!(service.signup.handle(rest(HERE)).await.status(), 200);
    assert_eq!(service.signup.handle(rest(HERE)).await.status(), 429);
    assert_eq!(
        service.signup.handle(rest("203.0.113.11")).await.status(),
        200
    );
    // The two kinds of event count as one.
    assert_limited(&service.sign_up_from(HERE, &fresh_phone()).await);
}

#[tokio::test]
async fn a_country_is_limited_by_region_and_not_by_calling_code() {
    let service = Service::start_with(&[("LIMIT_COUNTRY", "1/1h")]).await;
    let number = |area: u32| format!("+1{area}555{:04}", random_number() % 10_000);
    assert_eq!(service.sign_up("Ada", &number(415)).await.status, 200);
    assert_limited(&service.sign_up("Ada", &number(212)).await);
    // Canada has the same calling code.
    assert_eq!(service.sign_up("Ada", &number(416)).await.status, 200);
}

#[tokio::test]
async fn beyond_the_total_nothing_is_sent_and_the_wait_is_right() {
    let mut service = Service::start_with(&[("LIMIT_TOTAL", "2/1h,3/1d")]).await;
    for _ in 0..2 {
        assert_eq!(service.sign_up("Ada", &fresh_phone()).await.status, 200);
    }
    let phone = fresh_phone();
    let wait = assert_limited(&service.sign_up("Ada", &phone).await);
    assert!((1790..=1800).contains(&wait), "{wait}");
    service.set_clock_offset(i64::try_from(wait).unwrap() * 1000);
    assert_eq!(service.sign_up("Ada", &phone).await.status, 200);
    assert_eq!(messages_to(&phone).await.len(), 1);
    // Now the day's limit is the one that lasts.
    service.set_clock_offset(2 * 3_600_000);
    let wait = assert_limited(&service.sign_up("Ada", &fresh_phone()).await);
    assert!(wait > 3600, "{wait}");
}

#[tokio::test]
async fn a_refusal_takes_nothing_from_the_other_limits() {
    let service = Service::start_with(&[("LIMIT_PHONE", "1/1h"), ("LIMIT_ADDRESS", "2/1h")]).await;
    let phone = fresh_phone();
    assert_eq!(service.sign_up("Ada", &phone).await.status, 200);
    for _ in 0..10 {
        assert_limited(&service.sign_up("Ada", &phone).await);
    }
    assert_eq!(service.sign_up("Ada", &fresh_phone()).await.status, 200);
    assert_limited(&service.sign_up("Ada", &fresh_phone()).await);
}

#[tokio::test]
async fn numbers_that_are_not_served_are_403_and_those_nobody_can_have_400() {
    let service = Service::start_with(&[("ALLOWED_COUNTRIES", "US,GB")]).await;
    let unsupported = (
        403,
        "Phone numbers of this kind are not supported",
        "unsupported_phone_number",
    );
    for number in [
        "+16135550123",
        "+18765550123",
        "+4915112345678",
        "+19002345678",
        "+448431234567",
        "+870301234567",
    ] {
        let response = service.sign_up("Ada", number).await;
        assert_eq!(response.outcome(), unsupported, "{number}");
        assert!(messages_to(number).await.is_empty());
    }
    let response = service.sign_up("Ada", "+14151552671").await;
    let invalid = (400, "Invalid phone number", "invalid_phone_number");
    assert_eq!(response.outcome(), invalid);
    let keys: Vec<String> = service.redis_server.run(&["KEYS", "*"]).await;
    assert!(keys.is_empty(), "{keys:?}");
}

#[tokio::test]
async fn asking_whether_a_number_is_registered_costs_the_address() {
    let service = Service::start_with(&[("LIMIT_ADDRESS", "4/10m")]).await;
    let (known, unknown) = (fresh_phone(), fresh_phone());
    service.database.insert_user(&known).await;
    for _ in 0..2 {
        assert_eq!(service.sign_up_from(HERE, &known).await.status, 409);
        let login = service.log_in_from(HERE, &unknown).await;
        assert_eq!(login.outcome(), (404, "User not found", "user_not_found"));
    }
    assert_limited(&service.sign_up_from(HERE, &known).await);
    assert_limited(&service.log_in_from(HERE, &unknown).await);
    service.redis.cut().await;
    let down = service.sign_up_from(HERE, &known).await;
    assert_eq!(down.text("code"), "unavailable");
}

#[tokio::test]
async fn a_thousand_sign_ups_from_one_address_are_served_while_their_codes_come_back() {
    // A provider of its own: the one that all tests share looks through everybody's messages.
    let provider = Provider::start(Behaviour::Accept).await;
    let settings = [
        ("AWS_ENDPOINT_URL_SNS", provider.url()),
        ("LIMIT_ADDRESS", "20/10m".to_owned()),
    ];
    let settings = settings
        .each_ref()
        .map(|(name, value)| (*name, value.as_str()));
    let mut service = Service::start_with(&settings).await;
    let mut messages = 0;
    for minute in 0..200 {
        // Five a minute: far more than the limit refills.
        service.set_clock_offset(minute * 60_000);
        for _ in 0..5 {
            let phone = fresh_phone();
            let sent = service.sign_up("Ada", &phone).await;
            assert_eq!(sent.status, 200, "{sent:?}");
            let form = provider.requests_after(messages);
            messages += 1;
            let code = form[0].split_once("&Message=").unwrap().1[..6].to_owned();
            assert_eq!(service.verify(&phone, &code).await.status, 200);
        }
    }
    service.set_clock_offset(DAY);
    for _ in 0..20 {
        let response = service.sign_up("Ada", &fresh_phone()).await;
        assert_eq!(response.status, 200);
    }
    let wait = assert_limited(&service.sign_up("Ada", &fresh_phone()).await);
    assert!((25..=30).contains(&wait), "{wait}");
}

#[tokio::test]
async fn an_answer_returns_what_its_phone_took_where_it_took_it_and_half_a_code_more() {
    let settings = [("LIMIT_ADDRESS", "3/1h"), ("LIMIT_TOTAL", "6/1h")];
    let service = Service::start_with(&settings).await;
    let phone = fresh_phone();
    // Two from one address, one from another; the code comes back from a third.
    for address in ["198.51.100.1", "198.51.100.1", "198.51.100.2"] {
        assert_eq!(service.sign_up_from(address, &phone).await.status, 200);
    }
    for address in ["198.51.100.1", "198.51.100.2"] {
        let response = service.sign_up_from(address, &fresh_phone()).await;
        assert_eq!(response.status, 200);
    }
    let code = last_code_to(&phone).await;
    let verified = service.verify_from("198.51.100.3", &phone, &code).await;
    assert_eq!(verified.status, 200);
    // 198.51.100.1 has two of its three again, the total four and a half of six.
    for _ in 0..2 {
        let response = service.sign_up_from("198.51.100.1", &fresh_phone()).await;
        assert_eq!(response.status, 200);
    }
    assert_limited(&service.sign_up_from("198.51.100.1", &fresh_phone()).await);
    // The code's own address got half a code more: two and a half of its three.
    for _ in 0..2 {
        let response = service.sign_up_from("198.51.100.2", &fresh_phone()).await;
        assert_eq!(response.status, 200);
    }
    let wait = assert_limited(&service.sign_up_from("198.51.100.2", &fresh_phone()).await);
    assert!((590..=600).contains(&wait), "{wait}");
    let wait = assert_limited(&service.sign_up_from("198.51.100.9", &fresh_phone()).await);
    assert!((290..=300).contains(&wait), "{wait}");
}

#[tokio::test]
async fn a_replayed_code_returns_nothing() {
    let service = Service::start_with(&[("LIMIT_TOTAL", "3/1h")]).await;
    let phone = fresh_phone();
    get_in(&service, &phone).await;
    let code = last_code_to(&phone).await;
    for _ in 0..3 {
        let response = service.sign_up("Ada", &fresh_phone()).await;
        assert_eq!(response.status, 200);
    }
    for _ in 0..5 {
        let replayed = service.verify(&phone, &code).await;
        assert_eq!(replayed.text("code"), "otp_expired");
    }
    assert_limited(&service.sign_up("Ada", &fresh_phone()).await);
}

#[tokio::test]
async fn a_bonus_never_saves_up_more_than_the_limit() {
    let service = Service::start_with(&[("LIMIT_TOTAL", "2/1h")]).await;
    for _ in 0..10 {
        get_in(&service, &fresh_phone()).await;
    }
    for _ in 0..2 {
        let response = service.sign_up("Ada", &fresh_phone()).await;
        assert_eq!(response.status, 200);
    }
    assert_limited(&service.sign_up("Ada", &fresh_phone()).await);
}

#[tokio::test]
async fn a_range_that_never_answers_closes_for_longer_each_time() {
    let mut service = Service::start_with(&[("LIMIT_RANGE", "3/6h")]).await;
    let phone = fresh_phone();
    for last in 0..3 {
        let response = service.sign_up("Ada", &neighbour(&phone, last)).await;
        assert_eq!(response.status, 200);
    }
    let (mut now, mut last) = (0, 3);
    for expected_hours in [6, 12, 24, 48, 96, 192, 384, 720, 720] {
        let response = service.sign_up("Ada", &neighbour(&phone, last)).await;
        let wait = i64::try_from(assert_limited(&response)).unwrap() * 1000;
        let expected = expected_hours * HOUR;
        assert!((expected - 60_000..=expected).contains(&wait), "{wait}");
        // A second earlier it is refused again.
        service.set_clock_offset(now + wait - 2000);
        assert_limited(&service.sign_up("Ada", &neighbour(&phone, last)).await);
        now += wait;
        service.set_clock_offset(now);
        let response = service.sign_up("Ada", &neighbour(&phone, last)).await;
        assert_eq!(response.status, 200, "after {expected_hours} hours");
        last += 1;
    }
    // Other ranges are not concerned.
    assert_eq!(service.sign_up("Ada", &fresh_phone()).await.status, 200);
}

#[tokio::test]
async fn an_answer_opens_a_closed_range_and_a_trusted_one_has_twenty_codes() {
    let mut service = Service::start_with(&[("LIMIT_RANGE", "3/6h")]).await;
    let phone = fresh_phone();
    for last in 0..3 {
        let response = service.sign_up("Ada", &neighbour(&phone, last)).await;
        assert_eq!(response.status, 200);
    }
    service.set_clock_offset(6 * HOUR);
    let fourth = neighbour(&phone, 3);
    get_in(&service, &fourth).await;
    // Its own code, and one more.
    for last in 4..6 {
        let response = service.sign_up("Ada", &neighbour(&phone, last)).await;
        assert_eq!(response.status, 200);
    }
    let wait = assert_limited(&service.sign_up("Ada", &neighbour(&phone, 6)).await);
    assert!((6 * 3600 - 60..=6 * 3600).contains(&wait), "{wait}");

    service.set_clock_offset(12 * HOUR + 60_000);
    for last in 100..130 {
        get_in(&service, &neighbour(&phone, last)).await;
    }
    for last in 200..220 {
        let response = service.sign_up("Ada", &neighbour(&phone, last)).await;
        assert_eq!(response.status, 200, "{last}");
    }
    assert_limited(&service.sign_up("Ada", &neighbour(&phone, 220)).await);
}

/// Or an attacker would be served again whenever somebody logs in who lives there.
#[tokio::test]
async fn only_codes_that_needed_a_ranges_trust_earn_it_more() {
    let service = Service::start_with(&[("LIMIT_RANGE", "3/6h")]).await;
    let phone = fresh_phone();
    service.database.insert_user(&phone).await;
    for last in 0..3 {
        let response = service.sign_up("Ada", &neighbour(&phone, last)).await;
        assert_eq!(response.status, 200);
    }
    // Without its device, and on it.
    let mut device = String::new();
    for _ in 0..2 {
        assert_eq!(service.log_in_on(&device, &phone).await.status, 200);
        let response = service.verify(&phone, &last_code_to(&phone).await).await;
        response.text("device_token").clone_into(&mut device);
        assert!(!device.is_empty(), "{response:?}");
    }
    assert_limited(&service.sign_up("Ada", &neighbour(&phone, 3)).await);
}

#[tokio::test]
async fn while_the_total_runs_low_a_range_that_never_answered_has_one_code() {
    let mut service =
        Service::start_with(&[("LIMIT_RANGE", "3/6h"), ("LIMIT_TOTAL", "10/1d")]).await;
    let (trusted, unknown) = (fresh_phone(), fresh_phone());
    get_in(&service, &trusted).await;
    assert_eq!(
        service.sign_up("Ada", &neighbour(&unknown, 1)).await.status,
        200
    );
    for _ in 0..5 {
        let response = service.sign_up("Ada", &fresh_phone()).await;
        assert_eq!(response.status, 200);
    }
    // Six of ten are taken: half of the total is there again after 2.4 hours.
    let wait = assert_limited(&service.sign_up("Ada", &neighbour(&unknown, 2)).await);
    assert!((8580..=8640).contains(&wait), "{wait}");
    let next = neighbour(&trusted, 1);
    assert_eq!(service.sign_up("Ada", &next).await.status, 200);
    service.set_clock_offset(6 * HOUR);
    let next = neighbour(&unknown, 2);
    assert_eq!(service.sign_up("Ada", &next).await.status, 200);
}

#[tokio::test]
async fn a_range_whose_owner_answers_every_code_meets_a_ceiling_and_nobody_else_does() {
    let settings = [("LIMIT_RANGE", "3/6h"), ("LIMIT_RANGE_MAX", "6/1d")];
    let service = Service::start_with(&settings).await;
    let phone = fresh_phone();
    for last in 0..3 {
        get_in(&service, &neighbour(&phone, last)).await;
        let response = service.log_in(&neighbour(&phone, last)).await;
        assert_eq!(response.status, 200);
        let code = last_code_to(&neighbour(&phone, last)).await;
        let response = service.verify(&neighbour(&phone, last), &code).await;
        assert_eq!(response.status, 200);
    }
    assert_limited(&service.sign_up("Ada", &neighbour(&phone, 3)).await);
    assert_limited(&service.log_in(&neighbour(&phone, 0)).await);
    get_in(&service, &fresh_phone()).await;
}

#[tokio::test]
async fn the_ceiling_of_the_service_counts_answered_codes_too() {
    let service = Service::start_with(&[("LIMIT_TOTAL_MAX", "2/1d")]).await;
    for _ in 0..2 {
        get_in(&service, &fresh_phone()).await;
    }
    assert_limited(&service.sign_up("Ada", &fresh_phone()).await);
}

#[tokio::test]
async fn a_login_of_a_registered_number_needs_no_trust_of_its_range() {
    let settings = [("LIMIT_RANGE", "3/6h"), ("LIMIT_COUNTRY", "3/1d")];
    let service = Service::start_with(&settings).await;
    let phone = fresh_phone();
    service.database.insert_user(&phone).await;
    for last in 0..3 {
        // A stranger closes the range and the country.
        let response = service.sign_up("Ada", &neighbour(&phone, last)).await;
        assert_eq!(response.status, 200);
    }
    assert_limited(&service.sign_up("Ada", &neighbour(&phone, 999)).await);
    assert_eq!(service.log_in(&phone).await.status, 200);
}

#[tokio::test]
async fn logins_cannot_use_up_the_total_that_new_people_need_nor_the_other_way_round() {
    let service = Service::start_with(&[("LIMIT_TOTAL", "2/1d")]).await;
    let known = fresh_phone();
    service.database.insert_user(&known).await;
    for _ in 0..2 {
        assert_eq!(service.log_in(&known).await.status, 200);
    }
    assert_limited(&service.log_in(&known).await);
    for _ in 0..2 {
        let response = service.sign_up("Ada", &fresh_phone()).await;
        assert_eq!(response.status, 200);
    }
    assert_limited(&service.sign_up("Ada", &fresh_phone()).await);
}

/// Only moto's list of opted-out numbers could make it refuse, so the challenge is revoked by hand here;
/// provider.rs does it through the wire.
#[tokio::test]
async fn a_refused_message_gives_back_range_country_and_total_but_not_phone_and_address() {
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
        let sent = service.sign_up("Ada", &phone).await;
        assert_eq!(sent.status, 200, "{sent:?}");
        for _ in 0..3 {
            // Repeating it gives nothing more back.
            revoke(&service, &phone, sent.text("challenge_id")).await;
        }
        let check = service.verify(&phone, "123456").await;
        assert_eq!(check.text("code"), "otp_expired");
    }
    // The address has none left.
    assert_limited(&service.sign_up("Ada", &fresh_phone()).await);
    let elsewhere = service.sign_up_from("198.51.100.1", &phone).await;
    assert_eq!(elsewhere.status, 200);
    // An answered code refunds the address's share of the refused codes too.
    let code = last_code_to(&phone).await;
    assert_eq!(service.verify(&phone, &code).await.status, 200);
    let keys: Vec<String> = service.redis_server.run(&["KEYS", "*limit:address*"]).await;
    assert!(keys.is_empty(), "{keys:?}");
}

#[tokio::test]
async fn a_refused_message_takes_its_strike_back() {
    let mut service = Service::start_with(&[("LIMIT_RANGE", "1/6h")]).await;
    let phone = fresh_phone();
    assert_eq!(service.sign_up("Ada", &phone).await.status, 200);
    service.set_clock_offset(6 * HOUR);
    let sent = service.sign_up("Ada", &phone).await;
    revoke(&service, &phone, sent.text("challenge_id")).await;
    assert_eq!(service.sign_up("Ada", &phone).await.status, 200);
    let wait = assert_limited(&service.sign_up("Ada", &phone).await);
    assert!((6 * 3600 - 60..=6 * 3600).contains(&wait), "{wait}");
}

#[tokio::test]
async fn what_an_answer_has_returned_a_refusal_does_not_give_back_again() {
    let service = Service::start_with(&[("LIMIT_TOTAL", "3/1h")]).await;
    let phone = fresh_phone();
    let refused = service.sign_up("Ada", &phone).await;
    get_in(&service, &phone).await;
    for _ in 0..2 {
        let response = service.sign_up("Ada", &fresh_phone()).await;
        assert_eq!(response.status, 200);
    }
    revoke(&service, &phone, refused.text("challenge_id")).await;
    assert_eq!(service.sign_up("Ada", &fresh_phone()).await.status, 200);
    assert_limited(&service.sign_up("Ada", &fresh_phone()).await);
}

#[tokio::test]
async fn after_refused_messages_the_newest_challenge_is_the_one_before_unless_another_came() {
    let service = Service::start().await;
    let phone = fresh_phone();
    let first = service.sign_up("Ada", &phone).await;
    let code = last_code_to(&phone).await;
    // Two that overlap, of which the older is refused first.
    let second = service.sign_up("Ada", &phone).await;
    let third = service.sign_up("Ada", &phone).await;
    for refused in [&second, &third] {
        revoke(&service, &phone, refused.text("challenge_id")).await;
    }
    let newest = service.redis_server.latest_challenge(&phone).await;
    assert_eq!(newest.as_deref(), Some(first.text("challenge_id")));

    let fourth = service.sign_up("Ada", &phone).await;
    revoke(&service, &phone, first.text("challenge_id")).await;
    let newest = service.redis_server.latest_challenge(&phone).await;
    assert_eq!(newest.as_deref(), Some(fourth.text("challenge_id")));
    let voided = service.verify_challenge(&phone, &code, first.text("challenge_id"));
    assert_eq!(voided.await.text("code"), "otp_expired");
}

async fn revoke(service: &Service, phone: &str, id: &str) {
    use shared::{
        challenge::{ChallengeId, ClientAddress, CodeRequest, Purpose},
        users::Name,
    };
    let request = CodeRequest {
        id: ChallengeId::parse(id).unwrap(),
        phone: &parse(phone),
        address: &ClientAddress::parse(Some(HERE)),
        device: None,
        is_registered: false,
        purpose: Purpose::SignUp(Name::parse("Ada").unwrap()),
    };
    let soon = tokio::time::Instant::now() + harness::PATIENCE;
    let challenges = &service.signup.challenges;
    challenges.revoke(&request, soon).await.unwrap();
}

fn parse(phone: &str) -> shared::phone::PhoneNumber {
    let parser = shared::phone::Parser::from_env(&shared::config::Env::from([]));
    parser.unwrap().parse(phone).unwrap()
}

#[tokio::test]
async fn a_challenge_that_is_issued_again_with_its_id_takes_nothing_twice() {
    use shared::{
        challenge::{ChallengeId, ClientAddress, CodeRequest, IssueOutcome, Purpose},
        users::Name,
    };
    let service = Service::start_with(&[("LIMIT_PHONE", "1/30s")]).await;
    let number = parse(&fresh_phone());
    let request = CodeRequest {
        id: ChallengeId::generate(),
        phone: &number,
        address: &ClientAddress::parse(Some(HERE)),
        device: None,
        is_registered: false,
        purpose: Purpose::SignUp(Name::parse("Ada").unwrap()),
    };
    let challenges = &service.signup.challenges;
    let soon = tokio::time::Instant::now() + harness::PATIENCE;
    for _ in 0..3 {
        let outcome = challenges.issue(&request, soon).await.unwrap();
        assert!(matches!(outcome, IssueOutcome::Issued { .. }));
    }
    assert_limited(&service.sign_up("Ada", number.as_e164()).await);

    // Once it is revoked it stays so, although an issue of it is still on its way.
    challenges.revoke(&request, soon).await.unwrap();
    assert!(challenges.issue(&request, soon).await.is_err());
    let check = service.verify(number.as_e164(), "123456").await;
    assert_eq!(check.text("code"), "otp_expired");
}

#[tokio::test]
async fn it_all_works_unchanged_on_a_cluster_of_three() {
    let nodes = RedisServer::start_cluster().await;
    let database = Database::migrated().await;
    for node in &nodes {
        let mut settings = harness::settings(&database.url(), &node.url());
        // As by default.
        settings.extend(harness::LIMITS.map(|name| (name.to_owned(), String::new())));
        settings.push(("REDIS_CLUSTER".into(), "true".into()));
        let env: shared::config::Env = settings.into_iter().collect();
        let signup = signup::Signup::from_env(&env).await.unwrap();
        let verify = verify::Verify::from_env(&env).unwrap();
        tokio::join!(signup.connect(), verify.connect());
        let post = |path: &str, body: &serde_json::Value| {
            let event = event_from(HERE, path, &body.to_string());
            lambda_http::request::from_str(&event.to_string()).unwrap()
        };
        let phone = fresh_phone();
        let ask = json!({"name": "Ada", "phone_number": phone});
        assert_eq!(signup.handle(post("/signup", &ask)).await.status(), 200);
        assert_eq!(signup.handle(post("/signup", &ask)).await.status(), 429);
        let code = code_in(&messages_to(&phone).await[0]);
        for (otp, status) in [(wrong(&code), 401), (code, 200)] {
            let body = json!({"otp": otp, "phone_number": phone});
            let response = verify.handle(post("/verify", &body)).await;
            assert_eq!(response.status(), status);
        }
        assert_eq!(signup.handle(post("/signup", &ask)).await.status(), 409);
    }
    // All of it is in one slot, so on one node.
    let mut used = 0;
    for node in &nodes {
        let keys: usize = node.run(&["DBSIZE"]).await;
        used += usize::from(keys > 0);
    }
    assert_eq!(used, 1);
}
