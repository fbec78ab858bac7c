//! Every fixture of `events/` through the real binaries.

use std::{collections::BTreeSet, fs, path::PathBuf};

use harness::{Database, Function, RedisServer, event, local_settings};
use serde_json::Value;

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
    let mut settings = local_settings(&database_url, &redis_url);
    // As in `make dev`: most of them are of one range.
    settings.push(("LIMIT_RANGE", "off"));
    let mut signup = Function::start("signup", settings.clone()).await;
    let mut verify = Function::start("verify", settings.clone()).await;
    let mut session = Function::start("session", settings).await;
    for (file, expected) in expected.as_object().unwrap() {
        let function = match expected["function"].as_str() {
            Some("signup") => &mut signup,
            Some("verify") => &mut verify,
            Some("session") => &mut session,
            other => panic!("{file} is for {other:?}"),
        };
        let response = function.send(&read(file)).await;
        assert_eq!(response.status, expected["status"], "{file}: {response:?}");
        assert_eq!(
            response.headers["content-type"], "application/json",
            "{file}"
        );
        let caching = expected["headers"]["cache-control"].as_str();
        let caching = caching.unwrap_or("no-store");
        assert_eq!(response.headers["cache-control"], caching, "{file}");
        for (member, value) in expected["body"].as_object().unwrap() {
            assert_eq!(&response.body[member], value, "{file}");
        }
        for (name, value) in expected["headers"].as_object().into_iter().flatten() {
            assert_eq!(&response.headers[name], value, "{file}");
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

/// Such an event makes `lambda_http` panic before any handler is called.
#[tokio::test]
async fn an_event_that_is_no_request_gets_a_response_and_a_line_and_the_next_event_is_served() {
    let (database, redis) = (Database::migrated().await, RedisServer::start().await);
    let (database_url, redis_url) = (database.url(), redis.url());
    let settings = local_settings(&database_url, &redis_url);
    let mut signup = Function::start("signup", settings).await;
    for file in [
        "signup-unreadable-query.json",
        "signup-unreadable-host.json",
        "signup-unreadable-host-rest-stage.json",
        "signup-unreadable-base64.json",
    ] {
        let refused = signup.send(&read(file)).await;
        let expected = (400, "Invalid request payload", "invalid_payload");
        assert_eq!(refused.outcome(), expected, "{file}");
        let line = signup.response_lines().pop().unwrap();
        assert_eq!(line["status"], 400, "{file}");
        assert_eq!(line["function"], "signup", "{file}");
        let request_id = line["span"]["requestId"].as_str().unwrap();
        assert_eq!(request_id.len(), 36, "{file}");
        let next = signup.send(&event("POST", "/signup", "{}")).await;
        assert_eq!(next.text("code"), "missing_field", "{file}");
    }
}
