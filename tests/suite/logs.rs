//! What the functions write: one line per response, which is also its metrics, and no secret. That no
//! line of the whole suite holds one is checked by every [`Function`] when it is dropped.

use harness::{
    Behaviour, Database, Function, PEPPER, Provider, RedisServer, Secrets, Tokens, event,
    fresh_phone, signing_key, wrong,
};
use serde_json::{Value, json};

struct Deployed {
    database: Database,
    redis: RedisServer,
    provider: Provider,
}

impl Deployed {
    async fn new() -> Self {
        Self::behind(Behaviour::Accept).await
    }

    async fn behind(behaviour: Behaviour) -> Self {
        Self {
            database: Database::migrated().await,
            redis: RedisServer::start().await,
            provider: Provider::start(behaviour).await,
        }
    }

    async fn start(&self, function: &str, own: &[(&str, &str)]) -> Function {
        let (database, redis) = (self.database.url(), self.redis.url());
        let endpoint = self.provider.url();
        let mut settings = vec![
            ("DATABASE_URL", database.as_str()),
            ("REDIS_URL", &redis),
            ("OTP_PEPPER", PEPPER),
            ("ALLOWED_COUNTRIES", "DE"),
            ("SMS_PROVIDER", "sns"),
            ("SMS_TIMEOUT_MS", "500"),
            ("LIMIT_PHONE", "off"),
            ("AWS_ENDPOINT_URL_SNS", &endpoint),
        ];
        settings.extend(own);
        Function::start(function, settings).await
    }

    /// The code in the newest message.
    fn code(&self) -> String {
        let form = self.provider.requests().pop().unwrap();
        let message = form.split_once("&Message=").unwrap().1;
        message[..6].to_owned()
    }
}

/// The line about the last response.
fn last(function: &Function) -> Value {
    let line = function.response_lines().pop().unwrap();
    assert_is_metrics(&line);
    line
}

/// The members of the line that CloudWatch keeps as metrics, with the dimensions of each.
fn metrics(line: &Value) -> Vec<(&str, Vec<Vec<&str>>)> {
    let directives = line["_aws"]["CloudWatchMetrics"].as_array().unwrap();
    let mut metrics = Vec::new();
    for directive in directives {
        assert_eq!(directive["Namespace"], "OtpAuth");
        let dimensions = directive["Dimensions"].as_array().unwrap();
        let dimensions: Vec<Vec<&str>> = dimensions
            .iter()
            .map(|set| set.as_array().unwrap())
            .map(|set| set.iter().map(|name| name.as_str().unwrap()).collect())
            .collect();
        for metric in directive["Metrics"].as_array().unwrap() {
            metrics.push((metric["Name"].as_str().unwrap(), dimensions.clone()));
        }
    }
    metrics
}

/// CloudWatch drops, without a word, a metric whose member is no number or whose dimension is no
/// text.
fn assert_is_metrics(line: &Value) {
    assert!(line["_aws"]["Timestamp"].is_u64(), "{line}");
    let metrics = metrics(line);
    assert!(metrics.iter().any(|(name, _)| *name == "requests"));
    for (name, dimensions) in metrics {
        assert!(line[name].is_number(), "{name}: {line}");
        for dimension in dimensions.into_iter().flatten() {
            assert!(
                ["function", "outcome", "country", "kind"].contains(&dimension),
                "{dimension}"
            );
            assert!(line[dimension].is_string(), "{dimension}: {line}");
        }
    }
}

fn masked(phone: &str) -> String {
    let (head, tail) = (&phone[..5], &phone[phone.len() - 2..]);
    format!("{head}{}{tail}", "*".repeat(phone.len() - 7))
}

#[tokio::test]
async fn an_answer_is_one_line_that_says_what_happened_and_how_long_it_took() {
    let deployed = Deployed::new().await;
    let mut signup = deployed.start("signup", &[]).await;
    let phone = fresh_phone();
    assert_eq!(signup.sign_up(&phone).await.status, 200);
    assert_eq!(signup.response_lines().len(), 1);
    let line = last(&signup);
    for (member, value) in [
        ("level", json!("INFO")),
        ("function", json!("signup")),
        ("route", json!("/signup")),
        ("outcome", json!("sent")),
        ("status", json!(200)),
        ("country", json!("DE")),
        ("phone", json!(masked(&phone))),
        ("requests", json!(1)),
        ("codes_sent", json!(1)),
        ("kind", Value::Null),
        ("cause", Value::Null),
        ("limit_hits", Value::Null),
        ("codes_verified", Value::Null),
        ("unknown_sends", Value::Null),
    ] {
        assert_eq!(line[member], value, "{member}: {line}");
    }
    let time = |member: &str| line[member].as_f64().expect(member);
    let parts = time("postgres_ms") + time("redis_ms") + time("provider_ms");
    assert!(parts > 0.0 && parts <= time("latency_ms"), "{line}");
    assert_eq!(line["span"]["requestId"].as_str().unwrap().len(), 36);

    let dimensions = metrics(&line);
    let of = |name| &dimensions.iter().find(|metric| metric.0 == name).unwrap().1;
    let by = |member| vec![vec!["function"], vec!["function", member]];
    assert_eq!(of("requests"), &by("outcome"));
    assert_eq!(of("codes_sent"), &by("country"));
    for time in ["latency_ms", "postgres_ms", "redis_ms", "provider_ms"] {
        assert_eq!(of(time), &[["function"]]);
    }
}

#[tokio::test]
async fn every_kind_of_answer_has_its_line() {
    let deployed = Deployed::new().await;
    let mut signup = deployed.start("signup", &[("LIMIT_PHONE", "1/30s")]).await;
    let mut verify_ = deployed.start("verify", &[("OTP_MAX_ATTEMPTS", "1")]).await;
    let phone = fresh_phone();

    let refused = signup.send(&event("GET", "/+4915112345678", "")).await;
    assert_eq!(refused.status, 404);
    let line = last(&signup);
    assert_eq!(line["outcome"], "not_found");
    assert_eq!(line["route"], Value::Null, "the path is the client's");
    let body = json!({"name": "Ada", "phone_number": "+12423570123"}).to_string();
    let refused = signup.send(&event("POST", "/signup", &body)).await;
    assert_eq!(refused.status, 403);
    let line = last(&signup);
    assert_eq!(line["outcome"], "unsupported_phone_number");
    assert_eq!(line["country"], "BS");
    assert_eq!(line["phone"], "+1242*****23");
    let refused = signup.send(&event("POST", "/signup", "{")).await;
    assert_eq!(refused.status, 400);
    let line = last(&signup);
    assert_eq!(line["outcome"], "invalid_payload");
    assert_eq!(line["phone"], Value::Null);

    signup.sign_up(&phone).await;
    let code = deployed.code();
    assert_eq!(signup.sign_up(&phone).await.status, 429);
    let line = last(&signup);
    assert_eq!(line["outcome"], "rate_limited");
    assert_eq!(
        (&line["kind"], &line["limit_hits"]),
        (&json!("phone"), &json!(1))
    );
    assert_eq!(line["codes_sent"], Value::Null);
    assert!(metrics(&line).contains(&(
        "limit_hits",
        vec![vec!["function"], vec!["function", "kind"]]
    )));

    assert_eq!(verify_.verify(&phone, &wrong(&code)).await.status, 401);
    assert_eq!(last(&verify_)["outcome"], "otp_mismatch");
    assert_eq!(verify_.verify(&phone, &code).await.status, 429);
    let line = last(&verify_);
    assert_eq!(line["outcome"], "too_many_attempts");
    assert_eq!(line["kind"], "attempts");
    assert_eq!(line["level"], "INFO");
}

#[tokio::test]
async fn a_challenge_counts_as_verified_once_however_often_its_code_comes() {
    let deployed = Deployed::new().await;
    let mut signup = deployed.start("signup", &[]).await;
    let mut verify_ = deployed.start("verify", &[]).await;
    let phone = fresh_phone();
    signup.sign_up(&phone).await;
    let code = deployed.code();
    let mut counted = Vec::new();
    for outcome in ["registered", "otp_expired", "otp_expired"] {
        verify_.verify(&phone, &code).await;
        let line = last(&verify_);
        assert_eq!(line["outcome"], outcome);
        counted.push(line["codes_verified"].clone());
    }
    assert_eq!(counted, [json!(1), Value::Null, Value::Null]);
    let line = &verify_.response_lines()[0];
    assert!(metrics(line).iter().any(|(name, dimensions)| {
        *name == "codes_verified" && dimensions[1] == ["function", "country"]
    }));
}

#[tokio::test]
async fn what_the_provider_did_not_say_is_counted_and_is_a_code_sent() {
    let deployed = Deployed::behind(Behaviour::BreakOff).await;
    let mut signup = deployed.start("signup", &[]).await;
    assert_eq!(signup.sign_up(&fresh_phone()).await.status, 200);
    let line = last(&signup);
    assert_eq!(
        (&line["unknown_sends"], &line["codes_sent"]),
        (&json!(1), &json!(1))
    );
}

#[tokio::test]
async fn a_fault_is_an_error_with_its_whole_cause_and_counts_nothing_as_sent() {
    let mut deployed = Deployed::behind(Behaviour::Refuse(400, "Throttling")).await;
    // However little else is wanted in the log, this line is, with its metrics.
    let mut signup = deployed.start("signup", &[("RUST_LOG", "off")]).await;
    assert_eq!(signup.sign_up(&fresh_phone()).await.status, 502);
    let line = last(&signup);
    assert_eq!(line["level"], "ERROR");
    assert_eq!(line["outcome"], "sms_failed");
    assert_eq!(line["codes_sent"], Value::Null);
    let cause = "the provider did not send the message: Throttling (HTTP 400)";
    assert_eq!(line["cause"], cause);

    deployed.redis.stop().await;
    assert_eq!(signup.sign_up(&fresh_phone()).await.status, 503);
    let line = last(&signup);
    assert_eq!(
        (&line["level"], &line["status"]),
        (&json!("ERROR"), &json!(503))
    );
    assert_eq!(line["outcome"], "unavailable");
    let cause = line["cause"].as_str().unwrap();
    assert!(cause.starts_with("Redis is unavailable: "), "{cause}");
    assert_eq!(signup.log().len(), 2, "{:#?}", signup.log());
}

#[tokio::test]
async fn codes_sent_while_somebody_guesses_are_counted_by_whose_misses_are_full() {
    let deployed = Deployed::new().await;
    let own = [("MISSES_PHONE", "1/30d"), ("MISSES_TOTAL", "1/1d")];
    let mut signup = deployed.start("signup", &own).await;
    let mut verify_ = deployed.start("verify", &own).await;
    let (guessed_at, other) = (fresh_phone(), fresh_phone());
    assert_eq!(signup.sign_up(&guessed_at).await.status, 200);
    assert_eq!(last(&signup)["phone_misses_full"], Value::Null);
    let wrong = wrong(&deployed.code());
    assert_eq!(verify_.verify(&guessed_at, &wrong).await.status, 401);
    for (phone, of_phone) in [(&guessed_at, json!(1)), (&other, Value::Null)] {
        assert_eq!(signup.sign_up(phone).await.status, 200);
        let line = last(&signup);
        assert_eq!(line["phone_misses_full"], of_phone);
        assert_eq!(line["total_misses_full"], 1, "{line}");
        assert!(metrics(&line).contains(&(
            "total_misses_full",
            vec![vec!["function"], vec!["function", "country"]]
        )));
    }
}

#[tokio::test]
async fn every_line_of_a_request_holds_its_id_at_every_level_of_the_log() {
    let deployed = Deployed::behind(Behaviour::BreakOff).await;
    let mut signup = deployed.start("signup", &[("RUST_LOG", "error")]).await;
    signup.sign_up(&fresh_phone()).await;
    let lines = signup.log();
    assert_eq!(lines.len(), 2, "{lines:#?}");
    let ids: Vec<Value> = lines
        .iter()
        .map(|line| serde_json::from_str::<Value>(line).unwrap())
        .map(|line| line["span"]["requestId"].clone())
        .collect();
    assert!(ids[0].is_string() && ids[0] == ids[1], "{lines:#?}");
}

#[tokio::test]
async fn whatever_is_asked_of_the_log_it_shows_no_code_no_number_and_no_pepper() {
    let deployed = Deployed::new().await;
    let trace = [("RUST_LOG", "trace")];
    let mut signup = deployed.start("signup", &trace).await;
    let mut verify_ = deployed.start("verify", &trace).await;
    let phone = fresh_phone();
    let sent = signup.sign_up(&phone).await;
    let code = deployed.code();
    let refused = verify_.verify(&phone, &wrong(&code)).await;
    let registered = verify_.verify(&phone, &code).await;
    let known = signup.sign_up(&phone).await;
    for (response, status) in [
        (&sent, 200),
        (&refused, 401),
        (&registered, 200),
        (&known, 409),
    ] {
        assert_eq!(response.status, status);
        let text = format!("{response:?}");
        assert!(!text.contains(&code) && !text.contains(PEPPER), "{text}");
    }
    let mut lines = signup.log();
    lines.extend(verify_.log());
    assert!(lines.len() >= 4);
    for line in lines {
        for secret in [code.as_str(), &phone[1..], &phone[3..], PEPPER] {
            assert!(!line.contains(secret), "{line}");
        }
    }
}

#[tokio::test]
async fn a_session_has_its_lines_too_and_none_shows_a_token_or_the_key() {
    let deployed = Deployed::new().await;
    let trace = [("RUST_LOG", "trace")];
    let mut signup = deployed.start("signup", &trace).await;
    let mut verify_ = deployed.start("verify", &trace).await;
    let mut session = deployed.start("session", &trace).await;
    let phone = fresh_phone();
    signup.sign_up(&phone).await;
    let verified = verify_.verify(&phone, &deployed.code()).await;
    let tokens = Tokens::of(&verified);

    let mut me = event("GET", "/me", "");
    for (authorization, status, outcome) in [
        (Some(&tokens.access), 200, "read"),
        (Some(&tokens.refresh), 401, "unauthenticated"),
        (None, 401, "unauthenticated"),
    ] {
        me["headers"]["authorization"] =
            authorization.map_or(Value::Null, |token| format!("Bearer {token}").into());
        if authorization.is_none() {
            me["headers"]
                .as_object_mut()
                .unwrap()
                .remove("authorization");
        }
        assert_eq!(session.send(&me).await.status, status);
        let line = last(&session);
        assert_eq!(
            (&line["route"], &line["outcome"]),
            (&json!("/me"), &json!(outcome))
        );
    }
    assert_eq!(last(&session)["cause"], "no bearer token");

    let mut used = Vec::new();
    let mut newest = tokens.refresh.clone();
    for _ in 0..2 {
        let body = json!({"refresh_token": newest}).to_string();
        let response = session.send(&event("POST", "/token/refresh", &body)).await;
        used.push(newest);
        newest = Tokens::of(&response).refresh;
        let line = last(&session);
        assert_eq!(
            (&line["route"], &line["outcome"]),
            (&json!("/token/refresh"), &json!("refreshed"))
        );
        assert!(line["postgres_ms"].is_number());
    }
    for (token, reused) in [(&used[0], json!(1)), (&newest, Value::Null)] {
        let body = json!({"refresh_token": token}).to_string();
        let response = session.send(&event("POST", "/token/refresh", &body)).await;
        assert_eq!(response.status, 401);
        let line = last(&session);
        assert_eq!(
            (&line["outcome"], &line["reused_tokens"]),
            (&json!("invalid_token"), &reused)
        );
        assert_eq!(line["level"], "INFO");
    }
    let body = json!({"refresh_token": newest}).to_string();
    session.send(&event("POST", "/logout", &body)).await;
    assert_eq!(last(&session)["outcome"], "logged_out");
    for path in [
        "/.well-known/jwks.json",
        "/.well-known/openid-configuration",
    ] {
        session.send(&event("GET", path, "")).await;
        let line = last(&session);
        assert_eq!(
            (&line["route"], &line["outcome"]),
            (&json!(path), &json!("published"))
        );
    }

    let mut lines = verify_.log();
    lines.extend(session.log());
    for token in used.iter().chain([&newest, &tokens.access]) {
        let secret = token.rsplit('.').next().unwrap();
        for line in &lines {
            assert!(!line.contains(secret), "{line}");
        }
    }
}

#[tokio::test]
async fn line_breaks_and_escapes_in_any_field_leave_one_object_per_line() {
    let deployed = Deployed::new().await;
    let mut signup = deployed.start("signup", &[("RUST_LOG", "trace")]).await;
    let mut verify_ = deployed.start("verify", &[("RUST_LOG", "trace")]).await;
    let injected = "\r\n{\"message\":\"answered\"}\u{1b}[31m\u{2028}";
    let phone = fresh_phone();
    for (name, number) in [(injected, phone.as_str()), ("Ada", injected)] {
        let body = json!({"name": name, "phone_number": number}).to_string();
        signup.send(&event("POST", "/signup", &body)).await;
    }
    let body = json!({"otp": injected, "phone_number": phone, "challenge_id": injected});
    verify_
        .send(&event("POST", "/verify", &body.to_string()))
        .await;
    let path = format!("/signup{injected}");
    signup.send(&event("POST", &path, injected)).await;
    let body = json!({injected: injected}).to_string();
    signup.send(&event("POST", "/signup", &body)).await;
    assert_eq!(signup.response_lines().len(), 4);
    assert_eq!(verify_.response_lines().len(), 1);
    for line in signup.log().iter().chain(&verify_.log()) {
        let _object: serde_json::Map<String, Value> = serde_json::from_str(line).expect(line);
        assert!(!line.contains('\u{1b}') && !line.contains('\r'), "{line:?}");
    }
}

#[test]
fn the_check_of_every_log_finds_codes_numbers_tokens_keys_and_broken_lines() {
    let mut secrets = Secrets::default();
    secrets.learn(&event(
        "POST",
        "/verify",
        &json!({"otp": "482915", "phone_number": "+49 (151) 2345-6789"}).to_string(),
    ));
    secrets.learn(&json!({"message": "Generated OTP", "otp": "737373"}));
    secrets.learn(&json!({"headers": {"authorization": "Bearer e30.eyJzdWIiOiIxMjM0NTY3ODkwIn0.dGhlIHNpZ25hdHVyZSBvZiBpdA"}}));
    let body = json!({"tokens": {"refresh_token": "0123456789abcdef0123456789abcdef.dGhlIHNlY3JldCBvZiB0aGUgdG9rZW4"},
        "device_token": "0123456789abcdefYSBkZXZpY2UgdGhhdCBpcyBrbm93bg"});
    secrets.learn(&json!({"statusCode": 200, "body": body.to_string()}));
    let pepper = format!(r#"{{"cause": "key {PEPPER}"}}"#);
    let key = signing_key().private_pem();
    let key = json!({"cause": format!("key {}", key.lines().nth(1).unwrap())}).to_string();
    for line in [
        r#"{"message": "sent 482915 to somebody"}"#,
        r#"{"otp": 482915}"#,
        r#"{"a": {"b": ["x737373y"]}}"#,
        r#"{"482915": 1}"#,
        r#"{"phone": "+4915123456789"}"#,
        r#"{"phone": "+49 (151) 2345-6789"}"#,
        r#"{"cause": "eyJzdWIiOiIxMjM0NTY3ODkwIn0"}"#,
        r#"{"cause": "dGhlIHNpZ25hdHVyZSBvZiBpdA"}"#,
        r#"{"cause": "of 0123456789abcdefYSBkZXZpY2UgdGhhdCBpcyBrbm93bg"}"#,
        r#"{"cause": "no dGhlIHNlY3JldCBvZiB0aGUgdG9rZW4 here"}"#,
        &pepper,
        &key,
        "",
        "thread main panicked",
        "{} {}",
        "[]",
    ] {
        assert!(secrets.fault_of(line).is_some(), "{line}");
    }
    for line in [
        r#"{"message": "Generated OTP", "phone_number": "+4915123456789", "otp": "482915"}"#,
        r#"{"phone": "+49151******89", "timestamp": "2026-11-22T00:00:00.482915Z"}"#,
        r#"{"latency_ms": 482.915, "_aws": {"Timestamp": 1794829150000}}"#,
    ] {
        assert_eq!(secrets.fault_of(line), None);
    }
}
