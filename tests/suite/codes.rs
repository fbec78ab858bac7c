//! Codes under attack.

use futures_util::future::join_all;
use harness::{
    Outcome, PEPPER, Response, Service, challenge_key, fresh_phone, last_code_to,
    outcome::{INVALID_PAYLOAD, OTP_EXPIRED, OTP_MISMATCH, REGISTERED, TOO_MANY_ATTEMPTS},
    property, runtime, wrong,
};
use serde_json::json;
use shared::challenge::ChallengeId;
use shared::lambda::Function as _;

fn count(responses: &[Response], outcome: Outcome) -> usize {
    let same = responses.iter().filter(|r| r.outcome() == outcome);
    same.count()
}

#[tokio::test]
async fn a_hundred_racing_right_codes_register_one_user() {
    let service = Service::start().await;
    let (phone, code) = service.fresh_code().await;
    let responses = join_all((0..100).map(|_| service.verify(&phone, &code))).await;
    assert_eq!(count(&responses, REGISTERED), 1);
    assert_eq!(count(&responses, OTP_EXPIRED), 99);
    assert_eq!(service.database.count_users().await, 1);
}

/// One function sends its statements one after the other; a hundred functions don't.
#[tokio::test]
async fn a_hundred_racing_right_codes_over_ten_connections_register_one_user() {
    let service = Service::start().await;
    let (phone, code) = service.fresh_code().await;
    let mut others = Vec::new();
    for _ in 0..10 {
        others.push(service.others(&[]));
    }
    join_all(others.iter().map(|other| other.verify.connect())).await;
    let responses = join_all((0..100).map(|i| others[i % 10].verify(&phone, &code))).await;
    assert_eq!(count(&responses, REGISTERED), 1);
    assert_eq!(count(&responses, OTP_EXPIRED), 99);
    assert_eq!(service.database.count_users().await, 1);
}

#[tokio::test]
async fn of_fifty_racing_wrong_codes_five_are_evaluated_and_the_right_one_is_refused_after() {
    let service = Service::start().await;
    let (phone, code) = service.fresh_code().await;
    let other = wrong(&code);
    let responses = join_all((0..50).map(|_| service.verify(&phone, &other))).await;
    assert_eq!(count(&responses, OTP_MISMATCH), 5);
    assert_eq!(count(&responses, TOO_MANY_ATTEMPTS), 45);
    let response = service.verify(&phone, &code).await;
    response.assert_is(TOO_MANY_ATTEMPTS);
    assert_eq!(service.database.count_users().await, 0);
}

#[tokio::test]
async fn a_right_code_costs_no_attempt() {
    let service = Service::start_with(&[("OTP_MAX_ATTEMPTS", "1")]).await;
    let (phone, code) = service.fresh_code().await;
    // Without Postgres the right code is evaluated again and again.
    service.postgres.cut().await;
    for _ in 0..10 {
        assert_eq!(service.verify(&phone, &code).await.status, 503);
    }
    service.postgres.restore();
    service.verify(&phone, &code).await.assert_ok();
}

#[tokio::test]
async fn a_code_is_gone_with_redis_memory_and_a_used_one_stays_used() {
    let service = Service::start().await;
    let (phone, code) = service.fresh_code().await;
    service.redis_server.run::<()>(&["FLUSHALL"]).await;
    service.verify(&phone, &code).await.assert_is(OTP_EXPIRED);

    let code = service.code_for(&phone).await;
    // A replica that takes over without the newest writes would bring an old challenge back.
    let id = service.redis_server.latest_challenge(&phone).await.unwrap();
    let keys = [format!("{{otp}}:latest:{phone}"), challenge_key(&id)];
    let mut dumps: Vec<Vec<u8>> = Vec::new();
    for key in &keys {
        dumps.push(service.redis_server.run(&["DUMP", key]).await);
    }
    service.verify(&phone, &code).await.assert_ok();
    service.redis_server.run::<()>(&["FLUSHALL"]).await;
    let mut connection = service.redis_server.connect().await;
    for (key, dump) in keys.iter().zip(dumps) {
        let mut restore = redis::cmd("RESTORE");
        restore.arg(key).arg(0).arg(dump);
        restore.query_async::<()>(&mut connection).await.unwrap();
    }
    service.verify(&phone, &code).await.assert_is(OTP_EXPIRED);
    assert_eq!(service.database.count_users().await, 1);
}

#[tokio::test]
async fn the_code_of_one_phone_is_worth_nothing_at_another() {
    let service = Service::start().await;
    let (a, code) = service.fresh_code().await;
    let b = fresh_phone();
    service.verify(&b, &code).await.assert_is(OTP_EXPIRED);

    while service.code_for(&b).await == code {}
    service.verify(&b, &code).await.assert_is(OTP_MISMATCH);

    // Not even whoever can write to Redis gains by copying a's digest to b's challenge.
    let redis = &service.redis_server;
    let key_of = async |phone| challenge_key(&redis.latest_challenge(phone).await.unwrap());
    let (of_a, of_b) = (key_of(&*a).await, key_of(&*b).await);
    let digest: String = redis.run(&["HGET", &of_a, "digest"]).await;
    let set = ["HSET", &of_b, "digest", &digest];
    assert_eq!(redis.run::<i64>(&set).await, 0);
    service.verify(&b, &code).await.assert_is(OTP_MISMATCH);
    service.verify(&a, &code).await.assert_ok();
}

#[tokio::test]
async fn redis_holds_no_code() {
    let service = Service::start().await;
    let challenge = service.challenge(&fresh_phone()).await;
    let key = challenge_key(&challenge.id);
    let fields: Vec<String> = service.redis_server.run(&["HVALS", &key]).await;
    assert!(fields.len() > 7);
    let (phone, code) = (&challenge.phone, &challenge.code);
    let is_elsewhere = |field: &String| field.contains(code) && !phone.contains(code);
    assert!(!fields.iter().any(is_elsewhere), "{fields:?}");
}

#[tokio::test]
async fn otp_of_another_type_is_400_and_spends_no_attempt() {
    let service = Service::start_with(&[("OTP_MAX_ATTEMPTS", "1")]).await;
    let (phone, code) = service.fresh_code().await;
    for otp in [
        json!(123_456),
        json!(["123456"]),
        json!({"otp": "1"}),
        json!(true),
        json!(null),
    ] {
        let body = json!({"otp": otp, "phone_number": phone});
        let response = service.post("/verify", &body).await;
        response.assert_is(INVALID_PAYLOAD);
    }
    for smuggled in ["verified", "bypass", "attempts", "name"] {
        let body = json!({"otp": code, "phone_number": phone, smuggled: "1"});
        let response = service.post("/verify", &body).await;
        response.assert_is(INVALID_PAYLOAD);
    }
    service.verify(&phone, &code).await.assert_ok();
}

#[tokio::test]
async fn a_leading_zero_survives_the_whole_trip() {
    let service = Service::start().await;
    // One in ten does; that none of three hundred does happens once in 10¹³ runs.
    for _ in 0..300 {
        let (phone, code) = service.fresh_code().await;
        if code.starts_with('0') {
            let without = code.trim_start_matches('0');
            let response = service.verify(&phone, without).await;
            response.assert_is(OTP_MISMATCH);
            service.verify(&phone, &code).await.assert_ok();
            return;
        }
    }
    panic!("no code begins with a zero");
}

#[tokio::test]
async fn a_code_works_until_just_before_it_expires_by_redis_clock() {
    let mut service = Service::start().await;
    let (early, early_code) = service.fresh_code().await;
    let (late, late_code) = service.fresh_code().await;
    // What the test itself takes is far less than these ten seconds.
    service.set_clock(290);
    service.verify(&early, &early_code).await.assert_ok();
    service.set_clock(300);
    let response = service.verify(&late, &late_code).await;
    response.assert_is(OTP_EXPIRED);
}

#[tokio::test]
async fn a_code_made_with_the_previous_pepper_still_works() {
    let service = Service::start().await;
    let (phone, code) = service.fresh_code().await;
    let new = "n".repeat(32);
    let rotated = format!("{new},{PEPPER}");
    for (peppers, status) in [(new, 401), (rotated, 200)] {
        let others = service.others(&[("OTP_PEPPER", &peppers)]);
        assert_eq!(others.verify(&phone, &code).await.status, status);
    }
}

#[tokio::test]
async fn spellings_of_one_number_are_one_person() {
    let service = Service::start().await;
    let phone = fresh_phone();
    let spelled = format!("({}) {}-{} ", &phone[..3], &phone[3..6], &phone[6..]);
    service.sign_up(&spelled).await.assert_ok();
    let code = last_code_to(&phone).await;
    let response = service.verify(&phone, &code).await;
    assert_eq!(response.body["data"]["phone_number"], phone);
    assert_eq!(service.sign_up(&spelled).await.status, 409);
}

/// Whatever stands in the fields, it is data: a name comes back as it went in, and nothing but the
/// keys of the phones that were asked for appears in Redis.
#[test]
fn no_field_reaches_redis_or_postgres_as_anything_but_data() {
    let runtime = runtime();
    let service = runtime.block_on(Service::start());
    // Near what is accepted, with what could end a key, a command or a string.
    let near_a_phone = "\\+?[0-9 ().{}:*\r\n\0'\"-]{1,24}|\\+49151[0-9]{8}[:\0\n'\"{} ]?";
    let near_a_name = "[A-Za-z \0\r\n\t\u{1b}:{}*$'\"\\\\#@\u{202e}é]{1,40}|.{1,110}";
    let near_a_code = "[0-9]{6}|[0-9 +\0\n:'\"]{1,10}";
    let texts = (near_a_name, near_a_phone, near_a_code);
    property(64)
        .run(&texts, |(name, phone, otp)| {
            runtime.block_on(async {
                for text in [&name, &phone, &otp] {
                    let status = service.sign_up(text).await.status;
                    assert!([200, 400, 403].contains(&status), "{text:?}: {status}");
                    let status = service.verify(text, &otp).await.status;
                    assert!([400, 401].contains(&status), "{text:?}: {status}");
                }
                let own = fresh_phone();
                let response = service.sign_up_as(&name, &own).await;
                if response.status == 200 {
                    let code = last_code_to(&own).await;
                    let user = service.verify(&own, &code).await;
                    assert_eq!(user.body["data"]["name"], name.trim());
                }
                for key in service.redis_server.keys("*").await {
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
