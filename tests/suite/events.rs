//! Every fixture of `events/` through the real binaries.

use std::{collections::BTreeSet, fs, path::PathBuf};

use serde_json::Value;
use tests::{Database, Function, Invocation, PEPPER, RedisServer, event, token_settings};

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../events")
}

fn read(file: &str) -> Value {
    let text = fs::read_to_string(folder().join(file)).unwrap();
    serde_json::from_str(&text).expect(file)
}

#[tokio::test]
async fn every_fixture_gets_the_answer_that_is_written_down_for_it() {
    let expected = read("expected.json");
    let (database, redis) = (Database::migrated().await, RedisServer::start().await);
    let (database_url, redis_url) = (database.url(), redis.url());
    let settings = [
        ("DATABASE_URL", database_url.as_str()),
        ("REDIS_URL", &redis_url),
        ("OTP_PEPPER", PEPPER),
        ("ALLOWED_COUNTRIES", "*"),
        ("SMS_PROVIDER", "log"),
        ("OTP_LOCAL", "1"),
        ("LOGIN_MIN_MS", "0"),
    ];
    let with_tokens = || settings.into_iter().chain(token_settings());
    let mut signup = Function::start("signup", settings).await;
    let mut verify = Function::start("verify", with_tokens()).await;
    let mut session = Function::start("session", with_tokens()).await;
    for (file, expected) in expected.as_object().unwrap() {
        let function = match expected["function"].as_str() {
            Some("signup") => &mut signup,
            Some("verify") => &mut verify,
            Some("session") => &mut session,
            other => panic!("{file} is for {other:?}"),
        };
        let answer = function.answer(&read(file)).await;
        assert_eq!(answer.status, expected["status"], "{file}: {answer:?}");
        assert_eq!(answer.headers["content-type"], "application/json", "{file}");
        let caching = expected["headers"]["cache-control"].as_str();
        let caching = caching.unwrap_or("no-store");
        assert_eq!(answer.headers["cache-control"], caching, "{file}");
        for (member, value) in expected["body"].as_object().unwrap() {
            assert_eq!(&answer.body[member], value, "{file}");
        }
        for (name, value) in expected["headers"].as_object().into_iter().flatten() {
            assert_eq!(&answer.headers[name], value, "{file}");
        }
    }
}

#[test]
fn every_fixture_has_an_answer_written_down_and_the_other_way_round() {
    let files: BTreeSet<String> = fs::read_dir(folder())
        .unwrap()
        .map(|file| file.unwrap().file_name().into_string().unwrap())
        .filter(|file| file != "expected.json")
        .collect();
    let expected = read("expected.json");
    let expected: BTreeSet<String> = expected.as_object().unwrap().keys().cloned().collect();
    assert_eq!(files, expected);
}

#[tokio::test]
async fn an_event_with_a_broken_encoding_costs_its_own_answer_and_not_the_process() {
    let (database, redis) = (Database::migrated().await, RedisServer::start().await);
    let (database_url, redis_url) = (database.url(), redis.url());
    let settings = [
        ("DATABASE_URL", database_url.as_str()),
        ("REDIS_URL", &redis_url),
        ("OTP_PEPPER", PEPPER),
        ("ALLOWED_COUNTRIES", "*"),
    ];
    let settings = settings.into_iter().chain(token_settings());
    let mut verify = Function::start("verify", settings).await;
    let mut broken = event("POST", "/verify", "not base64!");
    broken["isBase64Encoded"] = true.into();
    assert!(matches!(verify.invoke(&broken).await, Invocation::Failed));
    let next = event("POST", "/verify", "{}");
    assert_eq!(verify.answer(&next).await.status, 400);
}
