//! Nobody guesses, floods or pumps. The time is Redis's, moved by the scripts' offset.

use futures_util::future::join_all;
use serde_json::json;
use shared::{challenge::Purpose, users::Name};
use tests::{
    Answer, Database, RedisServer, Service, event_from, fresh_phone, messages_to, random_number,
    wrong,
};

const HERE: &str = "203.0.113.10";

pub fn assert_limited(answer: &Answer) -> u64 {
    let limited = (429, "Too many requests", "rate_limited");
    assert_eq!(answer.failure(), limited, "{answer:?}");
    answer.retry_after()
}

/// Another number of the same range, of which there are a thousand.
pub fn neighbour(phone: &str, last: usize) -> String {
    format!("{}{last:03}", &phone[..phone.len() - 3])
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
        let answer = service.sign_up("Ada", &phone).await;
        if answer.status == 200 {
            sent += 1;
        } else {
            assert_limited(&answer);
        }
    }
    assert_eq!(sent, 9);
}

#[tokio::test]
async fn of_many_signups_at_once_for_one_phone_one_is_sent() {
    let service = Service::start_with(&[("LIMIT_PHONE", "1/30s")]).await;
    let phone = fresh_phone();
    let answers = join_all((0..50).map(|_| service.sign_up("Ada", &phone))).await;
    assert_eq!(answers.iter().filter(|a| a.status == 200).count(), 1);
    assert_eq!(messages_to(&phone).await.len(), 1);
}

#[tokio::test]
async fn an_address_is_limited_whatever_its_headers_claim() {
    let service = Service::start_with(&[("LIMIT_ADDRESS", "3/10m")]).await;
    for _ in 0..3 {
        let answer = service.sign_up_from(HERE, &fresh_phone()).await;
        assert_eq!(answer.status, 200);
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
            "headers": {"X-Forwarded-For": format!("192.0.2.{}", random_number() % 256)},
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
async fn a_range_that_is_walked_is_limited() {
    let service = Service::start_with(&[("LIMIT_RANGE", "5/1h")]).await;
    let phone = fresh_phone();
    for last in 0..5 {
        let answer = service.sign_up("Ada", &neighbour(&phone, last)).await;
        assert_eq!(answer.status, 200);
    }
    assert_limited(&service.sign_up("Ada", &neighbour(&phone, 999)).await);
    assert_eq!(service.sign_up("Ada", &fresh_phone()).await.status, 200);
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
async fn a_refused_message_gives_its_limits_back() {
    let service = Service::start_with(&[
        ("LIMIT_PHONE", "1/1h"),
        ("LIMIT_ADDRESS", "2/1h"),
        ("LIMIT_RANGE", "2/1h"),
        ("LIMIT_TOTAL", "2/1h"),
    ])
    .await;
    let phone = fresh_phone();
    let limits_before: Vec<String> = service.redis_server.run(&["KEYS", "*limit*"]).await;
    assert!(limits_before.is_empty());
    // moto refuses what is no valid E.164 number, which is possible to dial all the same.
    let sent = service.sign_up("Ada", &phone).await;
    assert_eq!(sent.status, 200);
    let id = shared::challenge::ChallengeId::parse(sent.text("challenge_id")).unwrap();
    let number = parse(&phone);
    let address = shared::challenge::ClientAddress::parse(Some(HERE));
    let asker = shared::challenge::Asker {
        phone: &number,
        address: &address,
    };
    let purpose = Purpose::SignUp(Name::parse("Ada").unwrap());
    let soon = tokio::time::Instant::now() + tests::PATIENCE;
    for _ in 0..3 {
        // Repeating it gives nothing more back.
        service
            .signup
            .challenges
            .revoke(&id, &asker, &purpose, soon)
            .await
            .unwrap();
    }
    let limits_after: Vec<String> = service.redis_server.run(&["KEYS", "*limit*"]).await;
    assert!(limits_after.is_empty(), "{limits_after:?}");
    assert_eq!(
        service.verify(&phone, "123456").await.text("code"),
        "otp_expired"
    );
}

fn parse(phone: &str) -> shared::phone::PhoneNumber {
    let parser = shared::phone::Parser::from_env(&shared::config::Env::from([]));
    parser.unwrap().parse(phone).unwrap()
}

#[tokio::test]
async fn asking_whether_a_number_is_registered_costs_the_address() {
    let service = Service::start_with(&[("LIMIT_ADDRESS", "4/10m")]).await;
    let phone = fresh_phone();
    let code = service.code_for(&phone).await;
    assert_eq!(service.verify(&phone, &code).await.status, 200);
    for _ in 0..3 {
        assert_eq!(service.sign_up_from(HERE, &phone).await.status, 409);
    }
    assert_limited(&service.sign_up_from(HERE, &phone).await);
    service.redis.cut().await;
    let down = service.sign_up_from(HERE, &phone).await;
    assert_eq!(down.text("code"), "unavailable");
}

#[tokio::test]
async fn wrong_codes_are_counted_per_phone_across_codes_and_addresses_until_a_right_one() {
    let service = Service::start_with(&[("LIMIT_FAILURES", "7/30d")]).await;
    let phone = fresh_phone();
    let mut address = 0;
    let mut from_anywhere = async |code: &str| {
        address += 1;
        service
            .verify_from(&format!("198.51.100.{address}"), &phone, code)
            .await
    };
    let code = service.code_for(&phone).await;
    for _ in 0..4 {
        assert_eq!(
            from_anywhere(&wrong(&code)).await.text("code"),
            "otp_mismatch"
        );
    }
    let code = service.code_for(&phone).await;
    for _ in 0..3 {
        assert_eq!(
            from_anywhere(&wrong(&code)).await.text("code"),
            "otp_mismatch"
        );
    }
    let answer = from_anywhere(&code).await;
    assert_eq!(
        answer.failure(),
        (429, "Too many attempts", "too_many_attempts")
    );
    assert!(answer.retry_after() > 300);
    // Nor does a new code help.
    let code = service.code_for(&phone).await;
    assert_eq!(from_anywhere(&code).await.text("code"), "too_many_attempts");
}

#[tokio::test]
async fn only_the_first_match_of_a_challenge_forgives_wrong_codes() {
    let settings = [("LIMIT_FAILURES", "4/30d"), ("OTP_MAX_ATTEMPTS", "10")];
    let service = Service::start_with(&settings).await;
    let phone = fresh_phone();
    let code = service.code_for(&phone).await;
    // Without Postgres a right code stays to be matched again.
    service.postgres.cut().await;
    for (wrong_ones, right_one) in [
        (3, "unavailable"),
        (2, "unavailable"),
        (2, "too_many_attempts"),
    ] {
        for _ in 0..wrong_ones {
            let answer = service.verify(&phone, &wrong(&code)).await;
            assert_eq!(answer.text("code"), "otp_mismatch");
        }
        assert_eq!(service.verify(&phone, &code).await.text("code"), right_one);
    }
}

#[tokio::test]
async fn a_replayed_used_code_forgives_nothing() {
    let service = Service::start_with(&[("LIMIT_FAILURES", "3/30d")]).await;
    let phone = fresh_phone();
    let code = service.code_for(&phone).await;
    assert_eq!(service.verify(&phone, &code).await.status, 200);
    for _ in 0..2 {
        service.verify(&phone, &wrong(&code)).await;
    }
    assert_eq!(
        service.verify(&phone, &code).await.text("code"),
        "otp_expired"
    );
    assert_eq!(
        service.verify(&phone, &wrong(&code)).await.text("code"),
        "otp_mismatch"
    );
    assert_eq!(
        service.verify(&phone, &code).await.text("code"),
        "too_many_attempts"
    );
}

#[tokio::test]
async fn one_address_cannot_spray_one_wrong_code_over_many_phones() {
    let service = Service::start_with(&[("LIMIT_GUESSES", "5/10m")]).await;
    for tried in 0..8 {
        let phone = fresh_phone();
        let code = service.code_for(&phone).await;
        let answer = service.verify_from(HERE, &phone, &wrong(&code)).await;
        if tried < 5 {
            assert_eq!(answer.text("code"), "otp_mismatch");
            continue;
        }
        assert!(assert_limited(&answer) <= 120);
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
        let answer = service.sign_up("Ada", number).await;
        assert_eq!(answer.failure(), unsupported, "{number}");
        assert!(messages_to(number).await.is_empty());
    }
    let answer = service.sign_up("Ada", "+14151552671").await;
    let invalid = (400, "Invalid phone number", "invalid_phone_number");
    assert_eq!(answer.failure(), invalid);
    let keys: Vec<String> = service.redis_server.run(&["KEYS", "*"]).await;
    assert!(keys.is_empty(), "{keys:?}");
}

#[tokio::test]
async fn a_stranger_who_asks_in_vain_does_not_void_the_owners_code() {
    let service = Service::start_with(&[("LIMIT_PHONE", "1/30s")]).await;
    let phone = fresh_phone();
    let code = service.code_for(&phone).await;
    assert_limited(&service.sign_up_from("198.51.100.1", &phone).await);
    assert_eq!(service.verify(&phone, &code).await.status, 200);
}

#[tokio::test]
async fn a_challenge_that_is_issued_again_with_its_id_takes_nothing_twice() {
    use shared::challenge::{Asker, ChallengeId, ClientAddress, Issue};
    let service = Service::start_with(&[("LIMIT_PHONE", "1/30s")]).await;
    let number = parse(&fresh_phone());
    let address = ClientAddress::parse(Some(HERE));
    let asker = Asker {
        phone: &number,
        address: &address,
    };
    let purpose = Purpose::SignUp(Name::parse("Ada").unwrap());
    let length = shared::otp::Length::from_env(&shared::config::Env::from([])).unwrap();
    let code = shared::otp::OtpCode::generate(length);
    let soon = tokio::time::Instant::now() + tests::PATIENCE;
    let id = ChallengeId::generate();
    for _ in 0..3 {
        let issue = service
            .signup
            .challenges
            .issue(&id, &asker, &purpose, Some(&code), soon);
        let issued = Issue::Issued {
            low_range: false,
            low_country: false,
        };
        assert_eq!(issue.await.unwrap(), issued);
    }
    let event = event_from(
        HERE,
        "/signup",
        &json!({
            "name": "Ada", "phone_number": number.as_e164()
        })
        .to_string(),
    );
    let request = lambda_http::request::from_str(&event.to_string()).unwrap();
    assert_eq!(service.signup.handle(request).await.status(), 429);

    // Once taken back it stays so, whatever of the above is still on its way.
    let challenges = &service.signup.challenges;
    let revoke = challenges.revoke(&id, &asker, &purpose, soon);
    revoke.await.unwrap();
    let late = challenges.issue(&id, &asker, &purpose, Some(&code), soon);
    assert!(late.await.is_err());
    assert_eq!(service.sign_up("Ada", number.as_e164()).await.status, 200);
}

#[tokio::test]
async fn it_all_works_unchanged_on_a_cluster_of_three() {
    let nodes = RedisServer::start_cluster().await;
    let database = Database::migrated().await;
    for node in &nodes {
        let mut settings = tests::settings(&database.url(), &node.url());
        for limit in ["LIMIT_PHONE", "LIMIT_ADDRESS", "LIMIT_RANGE", "LIMIT_TOTAL"] {
            // As by default.
            settings.push((limit.into(), String::new()));
        }
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
        let code = messages_to(&phone).await[0][..6].to_owned();
        for (otp, status) in [(wrong(&code), 401), (code, 200)] {
            let answer = json!({"otp": otp, "phone_number": phone});
            let response = verify.handle(post("/verify", &answer)).await;
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
