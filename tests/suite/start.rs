//! Starting a function: what it refuses, and what it writes.

use harness::{
    Deployment, Function, Key, PEPPER, TO_THE_LOG, event, fresh_phone, local_settings,
    twilio_settings, until,
};
use serde_json::{Value, json};

#[tokio::test]
async fn a_bad_or_missing_variable_ends_the_process_and_is_named() {
    let complete = local_settings(
        "postgres://otp:hunter2@127.0.0.1:1/otp",
        "redis://:hunter2@127.0.0.1:1",
    );
    let too_long = "a".repeat(80);
    let bad = [
        ("DATABASE_URL", ""),
        ("DATABASE_URL", "mysql://otp:hunter2@h/otp"),
        ("REDIS_URL", ""),
        ("REDIS_URL", "http://hunter2"),
        ("OTP_PEPPER", ""),
        ("OTP_PEPPER", "hunter2"),
        ("EDGE_SECRET", "hunter2"),
        ("TOKEN_ISSUER", ""),
        ("TOKEN_PUBLIC_KEYS", ""),
        ("SMS_PROVIDER", ""),
        ("SMS_PROVIDER", "pigeon"),
        ("SMS_PROVIDER", "log,sns"),
        ("SMS_ROUTES", "IN:sns"),
        ("OTP_LENGTH", "3"),
        ("OTP_LENGTH", "six"),
        ("OTP_TTL_SECONDS", "601"),
        ("OTP_APP_NAME", "日本"),
        ("OTP_APP_NAME", &too_long),
        ("OTP_DOMAIN", "https://example.com"),
        ("TEST_NUMBERS", "+14155550100=hunter2@2027-01-31"),
        ("DEFAULT_COUNTRY", "Utopia"),
        ("ALLOWED_COUNTRIES", ""),
        ("ALLOWED_COUNTRIES", "Utopia"),
        ("LIMIT_PHONE", "many"),
        ("LIMIT_RANGE", "3/6h,9/1d"),
        ("MISSES_TOTAL", "3/6h,9/1d"),
        ("OTP_MAX_LENGTH", "5"),
        ("REVEAL_REGISTERED", "yes"),
        ("STORE_TIMEOUT_MS", "9000"),
        ("SMS_TIMEOUT_MS", "8000"),
        ("REQUEST_TIMEOUT_MS", "soon"),
        ("RUST_LOG", "wran"),
    ];
    let bad_for_verify = [
        ("OTP_MAX_ATTEMPTS", "0"),
        ("REQUIRE_CHALLENGE_ID", "yes"),
        ("LIMIT_GUESSES", "50"),
        ("MISSES_PHONE", "50/1y"),
        ("OTP_LENGTH", "11"),
        ("REDIS_CLUSTER", "yes"),
        ("TOKEN_PRIVATE_KEY", ""),
        ("TOKEN_PUBLIC_KEYS", "hunter2"),
        ("TOKEN_ISSUER", "hunter2"),
        ("SESSION_IDLE_DAYS", "0"),
        ("SESSION_MAX_DAYS", "29"),
    ];
    let twilio = twilio_settings("http://127.0.0.1:1");
    let bad_for_twilio = [
        ("TWILIO_ACCOUNT_SID", ""),
        ("TWILIO_ACCOUNT_SID", "hunter2"),
        ("TWILIO_AUTH_TOKEN", ""),
        ("TWILIO_FROM", ""),
        ("TWILIO_MESSAGING_SERVICE_SID", "hunter2"),
        ("TWILIO_ENDPOINT", "http://hunter2"),
        ("SMS_ROUTES", "Utopia:twilio"),
        ("SMS_ROUTES", "IN:pigeon"),
        ("SMS_TIMEOUT_MS", "4001"),
    ];
    let sns = [("SMS_PROVIDER", "sns"), ("AWS_REGION", "us-east-1")];
    let bad_for_sns = [
        ("AWS_REGION", ""),
        ("SNS_TEMPLATE_ID", "ja:1107"),
        ("SNS_TEMPLATE_ID", "en:hunter2,en:hunter2"),
    ];
    let private = Key::p256().private_pem();
    let bad_for_session = [
        ("DATABASE_URL", ""),
        ("OTP_PEPPER", "hunter2"),
        ("TOKEN_ISSUER", ""),
        ("TOKEN_ISSUER", "hunter2"),
        ("TOKEN_AUDIENCE", ""),
        ("TOKEN_PRIVATE_KEY", ""),
        ("TOKEN_PRIVATE_KEY", "hunter2"),
        ("TOKEN_PUBLIC_KEYS", "hunter2"),
        ("TOKEN_PUBLIC_KEYS", &private),
        ("SESSION_IDLE_DAYS", "month"),
        ("SESSION_IDLE_DAYS", "181"),
        ("SESSION_MAX_DAYS", "29"),
    ];
    let none: &[(&str, &str)] = &[];
    let cases = bad.map(|bad| ("signup", none, bad)).into_iter();
    let cases = cases.chain(bad_for_twilio.map(|bad| ("signup", &twilio[..], bad)));
    let cases = cases.chain(bad_for_sns.map(|bad| ("signup", &sns[..], bad)));
    let cases = cases.chain(bad_for_verify.map(|bad| ("verify", none, bad)));
    let cases = cases.chain(bad_for_session.map(|bad| ("session", none, bad)));
    for (function, own, (name, value)) in cases {
        let settings = [&complete, own, &[(name, value)]].concat();
        let mut function = Function::start(function, settings).await;
        assert!(!function.exit().await.success(), "{name}={value}");
        let log = function.log().join("\n");
        assert!(log.contains(name), "{name}={value}: {log}");
        assert!(!log.contains("hunter2"), "{log}");
    }
}

#[tokio::test]
async fn a_start_has_postgres_plan_a_statement_that_it_does_not_run() {
    for name in ["signup", "verify", "session"] {
        let deployment = Deployment::new().await;
        let mut function = deployment.start(name, &TO_THE_LOG).await;
        let observer = deployment.database.observer().await;
        until("planned", async || observer.planned().await == 1).await;
        let response = function.send(&event("GET", "/nowhere", "")).await;
        assert_eq!(response.status, 404);
        // Postgres refused nothing, or the function had said so and connected again.
        assert_eq!(function.log().len(), 1, "{:#?}", function.log());
        for table in ["users", "used_challenges", "sessions"] {
            let rows = deployment.database.count(table).await;
            assert_eq!(rows, 0, "{name} wrote to {table}");
        }
    }
}

#[tokio::test]
async fn the_log_sender_does_not_start_in_a_deployed_function() {
    let mut settings = local_settings("postgres://otp@127.0.0.1:1/otp", "redis://127.0.0.1:1");
    settings.retain(|(name, _)| *name != "OTP_LOCAL");
    let mut signup = Function::start("signup", settings).await;
    assert!(!signup.exit().await.success());
    assert!(signup.log().join("\n").contains("SMS_PROVIDER"));
}

#[tokio::test]
async fn the_log_sender_writes_the_code_in_one_line_and_nothing_else_does() {
    let deployment = Deployment::new().await;
    // The finest level there is: what other crates would print at it stays out.
    let own = [&TO_THE_LOG[..], &[("RUST_LOG", "trace")]].concat();
    let mut signup = deployment.start("signup", &own).await;
    let mut verify = deployment.start("verify", &own).await;
    let phone = fresh_phone();
    let body = json!({"name": "Ada\u{fffd}", "phone_number": phone});
    signup.post("/signup", &body).await.assert_ok();

    let lines: Vec<Value> = signup
        .log()
        .iter()
        .map(|line| serde_json::from_str(line).expect(line))
        .collect();
    let (generated, others): (Vec<Value>, Vec<Value>) = lines
        .into_iter()
        .partition(|line| line["message"] == "Generated OTP");
    assert_eq!(generated.len(), 1);
    assert_eq!(generated[0]["phone_number"], phone);
    let code = generated[0]["otp"].as_str().unwrap();

    verify.verify(&phone, code).await.assert_ok();
    for line in others.iter().map(ToString::to_string).chain(verify.log()) {
        for secret in [code, &phone[1..], PEPPER] {
            assert!(!line.contains(secret), "{line}");
        }
    }
}
