//! Codes under attack.

use futures_util::future::join_all;
use harness::{Response, Service, fresh_phone, last_code_to, messages_to, wrong};
use proptest::test_runner::{Config, TestRunner};
use serde_json::json;
use shared::challenge::ChallengeId;

fn count(responses: &[Response], status: u64, code: &str) -> usize {
    responses
        .iter()
        .filter(|response| response.status == status && response.text("code") == code)
        .count()
}

#[tokio::test]
async fn a_hundred_right_answers_at_once_register_one_user() {
    let service = Service::start().await;
    let phone = fresh_phone();
    let code = service.code_for(&phone).await;
    let responses = join_all((0..100).map(|_| service.verify(&phone, &code))).await;
    assert_eq!(count(&responses, 200, ""), 1);
    assert_eq!(count(&responses, 401, "otp_expired"), 99);
    assert_eq!(service.database.count_users().await, 1);
}

/// One function sends its statements one after the other; a hundred functions don't.
#[tokio::test]
async fn a_hundred_right_answers_over_ten_connections_register_one_user() {
    let service = Service::start().await;
    let phone = fresh_phone();
    let code = service.code_for(&phone).await;
    let mut functions = Vec::new();
    for _ in 0..10 {
        let env = harness::settings(&service.database.url(), &service.redis_server.url());
        let verify = verify::Verify::from_env(&env.into_iter().collect()).unwrap();
        verify.connect().await;
        functions.push(verify);
    }
    let body = json!({"otp": code, "phone_number": phone}).to_string();
    let event = harness::event("POST", "/verify", &body).to_string();
    let responses = join_all((0..100).map(|i| {
        let request = lambda_http::request::from_str(&event).unwrap();
        let verify = &functions[i % functions.len()];
        async { Response::of_handler(verify.handle(request).await) }
    }))
    .await;
    assert_eq!(count(&responses, 200, ""), 1);
    assert_eq!(count(&responses, 401, "otp_expired"), 99);
    assert_eq!(service.database.count_users().await, 1);
}

#[tokio::test]
async fn of_fifty_wrong_answers_at_once_five_are_evaluated_and_the_right_one_is_refused_after() {
    let service = Service::start().await;
    let phone = fresh_phone();
    let code = service.code_for(&phone).await;
    let other = wrong(&code);
    let responses = join_all((0..50).map(|_| service.verify(&phone, &other))).await;
    assert_eq!(count(&responses, 401, "otp_mismatch"), 5);
    assert_eq!(count(&responses, 429, "too_many_attempts"), 45);
    let response = service.verify(&phone, &code).await;
    assert_eq!(response.text("code"), "too_many_attempts");
    assert_eq!(service.database.count_users().await, 0);
}

#[tokio::test]
async fn a_right_answer_costs_no_attempt() {
    let service = Service::start_with(&[("OTP_MAX_ATTEMPTS", "1")]).await;
    let phone = fresh_phone();
    let code = service.code_for(&phone).await;
    // Without Postgres the right code is evaluated again and again.
    service.postgres.cut().await;
    for _ in 0..10 {
        assert_eq!(service.verify(&phone, &code).await.status, 503);
    }
    service.postgres.restore();
    assert_eq!(service.verify(&phone, &code).await.status, 200);
}

#[tokio::test]
async fn a_code_is_gone_with_redis_memory_and_a_used_one_stays_used() {
    let service = Service::start().await;
    let phone = fresh_phone();
    let code = service.code_for(&phone).await;
    service.redis_server.run::<()>(&["FLUSHALL"]).await;
    assert_eq!(
        service.verify(&phone, &code).await.text("code"),
        "otp_expired"
    );

    let code = service.code_for(&phone).await;
    // A replica that takes over without the newest writes would bring an old challenge back.
    let latest = format!("{{otp}}:latest:{phone}");
    let id: String = service.redis_server.run(&["GET", &latest]).await;
    let keys = [latest, format!("{{otp}}:challenge:{id}")];
    let mut dumps: Vec<Vec<u8>> = Vec::new();
    for key in &keys {
        dumps.push(service.redis_server.run(&["DUMP", key]).await);
    }
    assert_eq!(service.verify(&phone, &code).await.status, 200);
    service.redis_server.run::<()>(&["FLUSHALL"]).await;
    let client = redis::Client::open(service.redis_server.url()).unwrap();
    let mut connection = client.get_multiplexed_async_connection().await.unwrap();
    for (key, dump) in keys.iter().zip(dumps) {
        let mut restore = redis::cmd("RESTORE");
        restore.arg(key).arg(0).arg(dump);
        restore.query_async::<()>(&mut connection).await.unwrap();
    }
    assert_eq!(
        service.verify(&phone, &code).await.text("code"),
        "otp_expired"
    );
    assert_eq!(service.database.count_users().await, 1);
}

#[tokio::test]
async fn the_code_of_one_phone_is_worth_nothing_at_another() {
    let service = Service::start().await;
    let (a, b) = (fresh_phone(), fresh_phone());
    let code = service.code_for(&a).await;
    assert_eq!(service.verify(&b, &code).await.text("code"), "otp_expired");

    while service.code_for(&b).await == code {}
    assert_eq!(service.verify(&b, &code).await.text("code"), "otp_mismatch");

    // Not even whoever can write to Redis gains by copying a's digest to b's challenge.
    let run = async |command: &[&str]| service.redis_server.run::<String>(command).await;
    let of_a = challenge_key(&run(&["GET", &format!("{{otp}}:latest:{a}")]).await);
    let of_b = challenge_key(&run(&["GET", &format!("{{otp}}:latest:{b}")]).await);
    let digest = run(&["HGET", &of_a, "digest"]).await;
    let set = ["HSET", &of_b, "digest", &digest];
    assert_eq!(service.redis_server.run::<i64>(&set).await, 0);
    assert_eq!(service.verify(&b, &code).await.text("code"), "otp_mismatch");
    assert_eq!(service.verify(&a, &code).await.status, 200);
}

fn challenge_key(id: &str) -> String {
    format!("{{otp}}:challenge:{id}")
}

#[tokio::test]
async fn redis_holds_no_code() {
    let service = Service::start().await;
    let phone = fresh_phone();
    let sent = service.sign_up("Ada", &phone).await;
    let code = last_code_to(&phone).await;
    let key = challenge_key(sent.text("challenge_id"));
    let fields: Vec<String> = service.redis_server.run(&["HVALS", &key]).await;
    assert!(fields.len() > 7);
    let is_elsewhere = |field: &String| field.contains(&code) && !phone.contains(&code);
    assert!(!fields.iter().any(is_elsewhere), "{fields:?}");
}

#[tokio::test]
async fn otp_of_another_type_is_400_and_spends_no_attempt() {
    let service = Service::start_with(&[("OTP_MAX_ATTEMPTS", "1")]).await;
    let phone = fresh_phone();
    let code = service.code_for(&phone).await;
    for otp in [
        json!(123_456),
        json!(["123456"]),
        json!({"otp": "1"}),
        json!(true),
        json!(null),
    ] {
        let body = json!({"otp": otp, "phone_number": phone}).to_string();
        let response = service.post_verify(&body).await;
        assert_eq!(
            response.outcome(),
            (400, "Invalid request payload", "invalid_payload")
        );
    }
    for smuggled in ["verified", "bypass", "attempts", "name"] {
        let body = json!({"otp": code, "phone_number": phone, smuggled: "1"}).to_string();
        assert_eq!(service.post_verify(&body).await.status, 400);
    }
    assert_eq!(service.verify(&phone, &code).await.status, 200);
}

#[tokio::test]
async fn a_leading_zero_survives_the_whole_trip() {
    let service = Service::start().await;
    // One in ten does; that none of three hundred does happens once in 10¹³ runs.
    for _ in 0..300 {
        let phone = fresh_phone();
        let code = service.code_for(&phone).await;
        if code.starts_with('0') {
            let without = service.verify(&phone, code.trim_start_matches('0')).await;
            assert_eq!(without.text("code"), "otp_mismatch");
            assert_eq!(service.verify(&phone, &code).await.status, 200);
            return;
        }
    }
    panic!("no code begins with a zero");
}

#[tokio::test]
async fn a_code_works_until_just_before_it_expires_by_redis_clock() {
    let mut service = Service::start().await;
    let (early, late) = (fresh_phone(), fresh_phone());
    let early_code = service.code_for(&early).await;
    let late_code = service.code_for(&late).await;
    // What the test itself takes is far less than these ten seconds.
    service.set_clock_offset(290_000);
    assert_eq!(service.verify(&early, &early_code).await.status, 200);
    service.set_clock_offset(300_000);
    let response = service.verify(&late, &late_code).await;
    assert_eq!(response.text("code"), "otp_expired");
}

#[tokio::test]
async fn a_code_made_with_the_previous_pepper_still_works() {
    let service = Service::start().await;
    let phone = fresh_phone();
    let code = service.code_for(&phone).await;
    let rotated = format!("{},{}", "n".repeat(32), harness::PEPPER);
    for (peppers, status) in [("n".repeat(32), 401), (rotated, 200)] {
        let mut env = harness::settings(&service.database.url(), &service.redis_server.url());
        env.push(("OTP_PEPPER".into(), peppers));
        let verify = verify::Verify::from_env(&env.into_iter().collect()).unwrap();
        let body = json!({"otp": code, "phone_number": phone}).to_string();
        let event = harness::event("POST", "/verify", &body).to_string();
        let request = lambda_http::request::from_str(&event).unwrap();
        assert_eq!(verify.handle(request).await.status().as_u16(), status);
    }
}

#[tokio::test]
async fn spellings_of_one_number_are_one_person() {
    let service = Service::start().await;
    let phone = fresh_phone();
    let spelled = format!("({}) {}-{} ", &phone[..3], &phone[3..6], &phone[6..]);
    let response = service.sign_up("Ada", &spelled).await;
    assert_eq!(response.status, 200);
    let code = messages_to(&phone).await[0][..6].to_owned();
    let response = service.verify(&phone, &code).await;
    assert_eq!(response.body["data"]["phone_number"], phone);
    assert_eq!(service.sign_up("Ada", &spelled).await.status, 409);
}

/// Whatever stands in the fields, it is data: a name comes back as it went in, and nothing but the
/// keys of the phones that were asked for appears in Redis.
#[test]
fn no_field_reaches_redis_or_postgres_as_anything_but_data() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let service = runtime.block_on(Service::start());
    let mut runner = TestRunner::new(Config {
        cases: 64,
        failure_persistence: None,
        ..Config::default()
    });
    // Near what is accepted, with what could end a key, a command or a string.
    let near_a_phone = "\\+?[0-9 ().{}:*\r\n\0'\"-]{1,24}|\\+49151[0-9]{8}[:\0\n'\"{} ]?";
    let near_a_name = "[A-Za-z \0\r\n\t\u{1b}:{}*$'\"\\\\#@\u{202e}é]{1,40}|.{1,110}";
    let near_a_code = "[0-9]{6}|[0-9 +\0\n:'\"]{1,10}";
    let texts = (near_a_name, near_a_phone, near_a_code);
    runner
        .run(&texts, |(name, phone, otp)| {
            runtime.block_on(async {
                for text in [&name, &phone, &otp] {
                    let status = service.sign_up("Ada", text).await.status;
                    assert!([200, 400, 403].contains(&status), "{text:?}: {status}");
                    let status = service.verify(text, &otp).await.status;
                    assert!([400, 401].contains(&status), "{text:?}: {status}");
                }
                let own = fresh_phone();
                let response = service.sign_up(&name, &own).await;
                if response.status == 200 {
                    let code = messages_to(&own).await[0][..6].to_owned();
                    let user = service.verify(&own, &code).await;
                    assert_eq!(user.body["data"]["name"], name.trim());
                }
                let keys: Vec<String> = service.redis_server.run(&["KEYS", "*"]).await;
                for key in keys {
                    let subject = key
                        .strip_prefix("{otp}:")
                        .and_then(|key| key.rsplit_once(':'));
                    let (kind, subject) = subject.expect(&key);
                    let is_plain = match kind {
                        "challenge" => ChallengeId::parse(subject).is_some(),
                        "latest" | "unanswered" | "range" => subject
                            .strip_prefix('+')
                            .is_some_and(|digits| digits.bytes().all(|b| b.is_ascii_digit())),
                        _ => false,
                    };
                    assert!(is_plain, "{key:?}");
                }
            });
            Ok(())
        })
        .unwrap();
}
