//! The log: one line per response, which is also its metrics, and no secret. Every [`Function`]
//! checks that none of its lines holds one, when it is dropped.

use harness::{
    Behaviour, Deployment, Function, PEPPER, Secrets, Tokens, event, fresh_phone,
    outcome::NOT_FOUND, signing_key, wrong,
};
use serde_json::{Map, Value, json};

const TRACE: [(&str, &str); 1] = [("RUST_LOG", "trace")];

async fn start(deployment: &Deployment, name: &str, own: &[(&str, &str)]) -> Function {
    let common = [
        ("ALLOWED_COUNTRIES", "DE"),
        ("SMS_TIMEOUT_MS", "500"),
        ("LIMIT_PHONE", "off"),
    ];
    deployment.start(name, &[&common, own].concat()).await
}

/// `signup` and `verify`.
async fn start_both(deployment: &Deployment, own: &[(&str, &str)]) -> (Function, Function) {
    let signup = start(deployment, "signup", own).await;
    (signup, start(deployment, "verify", own).await)
}

/// The line about the last response.
fn last(function: &Function) -> Value {
    let line = function.response_lines().pop().unwrap();
    assert_is_metrics(&line);
    line
}

/// The line has these members. One that is null here is not in the line.
fn assert_has(line: &Value, members: &Value) {
    for (name, value) in members.as_object().unwrap() {
        assert_eq!(&line[name], value, "{name}: {line}");
    }
}

/// The line about the last response has these members.
fn assert_last(function: &Function, members: &Value) {
    assert_has(&last(function), members);
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

/// The line has this metric, by function, and by function and `dimension`.
fn assert_metric(line: &Value, name: &str, dimension: &str) {
    let dimensions = vec![vec!["function"], vec!["function", dimension]];
    assert!(metrics(line).contains(&(name, dimensions)), "{line}");
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
async fn a_response_is_one_line_that_says_what_happened_and_how_long_it_took() {
    let deployment = Deployment::new().await;
    let mut signup = start(&deployment, "signup", &[]).await;
    let phone = fresh_phone();
    signup.sign_up(&phone).await.assert_ok();
    assert_eq!(signup.response_lines().len(), 1);
    let line = last(&signup);
    assert_has(
        &line,
        &json!({
            "level": "INFO",
            "function": "signup",
            "route": "/signup",
            "outcome": "sent",
            "status": 200,
            "country": "DE",
            "phone": masked(&phone),
            "requests": 1,
            "codes_sent": 1,
            "kind": null,
            "cause": null,
            "limit_hits": null,
            "codes_verified": null,
            "unknown_sends": null
        }),
    );
    let time = |member: &str| line[member].as_f64().expect(member);
    let parts = time("postgres_ms") + time("redis_ms") + time("provider_ms");
    assert!(parts > 0.0 && parts <= time("latency_ms"), "{line}");
    assert_eq!(line["span"]["requestId"].as_str().unwrap().len(), 36);

    assert_metric(&line, "requests", "outcome");
    assert_metric(&line, "codes_sent", "country");
    for time in ["latency_ms", "postgres_ms", "redis_ms", "provider_ms"] {
        assert!(metrics(&line).contains(&(time, vec![vec!["function"]])));
    }
}

#[tokio::test]
async fn every_kind_of_response_has_its_line() {
    let deployment = Deployment::new().await;
    let mut signup = start(&deployment, "signup", &[("LIMIT_PHONE", "1/30s")]).await;
    let mut verify = start(&deployment, "verify", &[("OTP_MAX_ATTEMPTS", "1")]).await;
    let phone = fresh_phone();

    let refused = signup.send(&event("GET", "/+4915112345678", "")).await;
    assert_eq!(refused.status, 404);
    // The path is the client's.
    assert_last(&signup, &json!({"outcome": "not_found", "route": null}));
    let refused = signup.sign_up("+12423570123").await;
    assert_eq!(refused.status, 403);
    let outcome = "unsupported_phone_number";
    let expected = json!({"outcome": outcome, "country": "BS", "phone": "+1242*****23"});
    assert_last(&signup, &expected);
    let refused = signup.send(&event("POST", "/signup", "{")).await;
    assert_eq!(refused.status, 400);
    assert_last(
        &signup,
        &json!({"outcome": "invalid_payload", "phone": null}),
    );

    signup.sign_up(&phone).await.assert_ok();
    let code = deployment.provider.last_code_to(&phone);
    signup.sign_up(&phone).await.assert_limited();
    let line = last(&signup);
    let outcome = "rate_limited";
    let expected =
        json!({"outcome": outcome, "kind": "phone", "limit_hits": 1, "codes_sent": null});
    assert_has(&line, &expected);
    assert_metric(&line, "limit_hits", "kind");

    assert_eq!(verify.verify(&phone, &wrong(&code)).await.status, 401);
    assert_last(&verify, &json!({"outcome": "otp_mismatch"}));
    assert_eq!(verify.verify(&phone, &code).await.status, 429);
    let outcome = "too_many_attempts";
    let expected = json!({"outcome": outcome, "kind": "attempts", "level": "INFO"});
    assert_last(&verify, &expected);
}

#[tokio::test]
async fn a_challenge_counts_as_verified_once_however_often_its_code_comes() {
    let deployment = Deployment::new().await;
    let (mut signup, mut verify) = start_both(&deployment, &[]).await;
    let phone = fresh_phone();
    signup.sign_up(&phone).await.assert_ok();
    let code = deployment.provider.last_code_to(&phone);
    for (outcome, counted) in [
        ("registered", json!(1)),
        ("otp_expired", Value::Null),
        ("otp_expired", Value::Null),
    ] {
        verify.verify(&phone, &code).await;
        assert_last(
            &verify,
            &json!({"outcome": outcome, "codes_verified": counted}),
        );
    }
    assert_metric(&verify.response_lines()[0], "codes_verified", "country");
}

#[tokio::test]
async fn what_the_provider_did_not_say_is_counted_and_is_a_code_sent() {
    let deployment = Deployment::behind(Behaviour::BreakOff).await;
    let mut signup = start(&deployment, "signup", &[]).await;
    signup.sign_up(&fresh_phone()).await.assert_ok();
    assert_last(&signup, &json!({"unknown_sends": 1, "codes_sent": 1}));
}

#[tokio::test]
async fn a_fault_is_an_error_with_its_whole_cause_and_counts_nothing_as_sent() {
    let mut deployment = Deployment::behind(Behaviour::Refuse(400, "Throttling")).await;
    // However little else is wanted in the log, this line is, with its metrics.
    let mut signup = start(&deployment, "signup", &[("RUST_LOG", "off")]).await;
    assert_eq!(signup.sign_up(&fresh_phone()).await.status, 502);
    let expected = json!({
        "level": "ERROR",
        "outcome": "sms_failed",
        "codes_sent": null,
        "cause": "the provider did not send the message: Throttling (HTTP 400)"
    });
    assert_last(&signup, &expected);

    deployment.redis_server.stop().await;
    assert_eq!(signup.sign_up(&fresh_phone()).await.status, 503);
    let line = last(&signup);
    assert_has(
        &line,
        &json!({"level": "ERROR", "status": 503, "outcome": "unavailable"}),
    );
    let cause = line["cause"].as_str().unwrap();
    assert!(cause.starts_with("Redis is unavailable: "), "{cause}");
    assert_eq!(signup.log().len(), 2, "{:#?}", signup.log());
}

#[tokio::test]
async fn codes_sent_while_somebody_guesses_are_counted_by_whose_misses_are_full() {
    let deployment = Deployment::new().await;
    let own = [("MISSES_PHONE", "1/30d"), ("MISSES_TOTAL", "1/1d")];
    let (mut signup, mut verify) = start_both(&deployment, &own).await;
    let (guessed_at, other) = (fresh_phone(), fresh_phone());
    signup.sign_up(&guessed_at).await.assert_ok();
    assert_last(&signup, &json!({"phone_misses_full": null}));
    let wrong = wrong(&deployment.provider.last_code_to(&guessed_at));
    assert_eq!(verify.verify(&guessed_at, &wrong).await.status, 401);
    for (phone, of_phone) in [(&guessed_at, json!(1)), (&other, Value::Null)] {
        signup.sign_up(phone).await.assert_ok();
        let line = last(&signup);
        assert_has(
            &line,
            &json!({"phone_misses_full": of_phone, "total_misses_full": 1}),
        );
        assert_metric(&line, "total_misses_full", "country");
    }
}

#[tokio::test]
async fn every_line_of_a_request_holds_its_id_at_every_level_of_the_log() {
    let deployment = Deployment::behind(Behaviour::BreakOff).await;
    let mut signup = start(&deployment, "signup", &[("RUST_LOG", "error")]).await;
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
    let deployment = Deployment::new().await;
    let (mut signup, mut verify) = start_both(&deployment, &TRACE).await;
    let phone = fresh_phone();
    let sent = signup.sign_up(&phone).await;
    let code = deployment.provider.last_code_to(&phone);
    let refused = verify.verify(&phone, &wrong(&code)).await;
    let registered = verify.verify(&phone, &code).await;
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
    let lines = [signup.log(), verify.log()].concat();
    assert!(lines.len() >= 4);
    for line in lines {
        for secret in [code.as_str(), &phone[1..], &phone[3..], PEPPER] {
            assert!(!line.contains(secret), "{line}");
        }
    }
}

#[tokio::test]
async fn a_session_has_its_lines_too_and_none_shows_a_token_or_the_key() {
    let deployment = Deployment::new().await;
    let (mut signup, mut verify) = start_both(&deployment, &TRACE).await;
    let mut session = start(&deployment, "session", &TRACE).await;
    let phone = fresh_phone();
    signup.sign_up(&phone).await.assert_ok();
    let code = deployment.provider.last_code_to(&phone);
    let tokens = Tokens::of(&verify.verify(&phone, &code).await);

    for (token, status, outcome) in [
        (Some(&tokens.access), 200, "read"),
        (Some(&tokens.refresh), 401, "unauthenticated"),
        (None, 401, "unauthenticated"),
    ] {
        let mut me = event("GET", "/me", "");
        if let Some(token) = token {
            me["headers"]["authorization"] = format!("Bearer {token}").into();
        }
        assert_eq!(session.send(&me).await.status, status);
        assert_last(&session, &json!({"route": "/me", "outcome": outcome}));
    }
    assert_last(&session, &json!({"cause": "no bearer token"}));
    let mut end = event("DELETE", "/me/sessions/0123456789abcdef", "");
    end["headers"]["authorization"] = format!("Bearer {}", tokens.access).into();
    session.send(&end).await.assert_is(NOT_FOUND);
    let line = json!({"route": "/me/sessions/{id}", "outcome": "not_found"});
    assert_last(&session, &line);

    let mut used = Vec::new();
    let mut newest = tokens.refresh;
    for _ in 0..2 {
        let body = json!({"refresh_token": newest});
        let response = session.post("/token/refresh", &body).await;
        used.push(newest);
        newest = Tokens::of(&response).refresh;
        let line = last(&session);
        assert_has(
            &line,
            &json!({"route": "/token/refresh", "outcome": "refreshed"}),
        );
        assert!(line["postgres_ms"].is_number());
    }
    for (token, reused) in [(&used[0], json!(1)), (&newest, Value::Null)] {
        let body = json!({"refresh_token": token});
        let response = session.post("/token/refresh", &body).await;
        assert_eq!(response.status, 401);
        let outcome = "invalid_token";
        let expected = json!({"outcome": outcome, "reused_tokens": reused, "level": "INFO"});
        assert_last(&session, &expected);
    }
    let body = json!({"refresh_token": newest});
    session.post("/logout", &body).await;
    assert_last(&session, &json!({"outcome": "logged_out"}));
    for page in ["jwks.json", "openid-configuration"] {
        let path = format!("/.well-known/{page}");
        session.send(&event("GET", &path, "")).await;
        assert_last(&session, &json!({"route": path, "outcome": "published"}));
    }

    let lines = [verify.log(), session.log()].concat();
    for token in used.iter().chain([&newest, &tokens.access]) {
        let secret = token.rsplit('.').next().unwrap();
        for line in &lines {
            assert!(!line.contains(secret), "{line}");
        }
    }
}

#[tokio::test]
async fn line_breaks_and_escapes_in_any_field_leave_one_object_per_line() {
    let deployment = Deployment::new().await;
    let (mut signup, mut verify) = start_both(&deployment, &TRACE).await;
    let injected = "\r\n{\"message\":\"answered\"}\u{1b}[31m\u{2028}";
    let phone = fresh_phone();
    for body in [
        json!({"name": injected, "phone_number": phone}),
        json!({"name": "Ada", "phone_number": injected}),
        json!({injected: injected}),
    ] {
        signup.post("/signup", &body).await;
    }
    let path = format!("/signup{injected}");
    signup.send(&event("POST", &path, injected)).await;
    let body = json!({"otp": injected, "phone_number": phone, "challenge_id": injected});
    verify.post("/verify", &body).await;
    assert_eq!(signup.response_lines().len(), 4);
    assert_eq!(verify.response_lines().len(), 1);
    for line in signup.log().iter().chain(&verify.log()) {
        let _object: Map<String, Value> = serde_json::from_str(line).expect(line);
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
    let token = "e30.eyJzdWIiOiIxMjM0NTY3ODkwIn0.dGhlIHNpZ25hdHVyZSBvZiBpdA";
    let header = json!({"authorization": format!("Bearer {token}")});
    secrets.learn(&json!({"headers": header}));
    let token = "0123456789abcdef0123456789abcdef.dGhlIHNlY3JldCBvZiB0aGUgdG9rZW4";
    let body = json!({
        "tokens": {"refresh_token": token},
        "device_token": "0123456789abcdefYSBkZXZpY2UgdGhhdCBpcyBrbm93bg"
    });
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
