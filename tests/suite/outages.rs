//! Stores that are down: the response is a 503 in time, nothing is lost, and it works again by itself.

use harness::{PATIENCE, Response, Service, fresh_phone, messages_to, until};

pub fn assert_unavailable(response: &Response, text: &str) {
    assert_eq!(
        response.outcome(),
        (503, text, "unavailable"),
        "{response:?}"
    );
    assert!(response.retry_after() > 0);
}

#[tokio::test]
async fn without_postgres_signup_is_503_sends_nothing_and_recovers() {
    let service = Service::start().await;
    let phone = fresh_phone();
    service.postgres.cut().await;
    let response = service.sign_up("Ada", &phone).await;
    assert_unavailable(&response, "Failed to store user data");
    let keys: Vec<String> = service.redis_server.run(&["KEYS", "*"]).await;
    assert!(keys.is_empty(), "{keys:?}");
    assert!(messages_to(&phone).await.is_empty());

    service.postgres.restore();
    assert_eq!(service.sign_up("Ada", &phone).await.status, 200);
}

#[tokio::test]
async fn postgres_stopped_between_signup_and_verify_is_503_and_the_same_code_works_after() {
    let service = Service::start().await;
    let phone = fresh_phone();
    let code = service.code_for(&phone).await;
    service.postgres.cut().await;
    let response = service.verify(&phone, &code).await;
    assert_unavailable(&response, "Failed to register user");

    service.postgres.restore();
    assert_eq!(service.verify(&phone, &code).await.status, 200);
}

#[tokio::test]
async fn a_connection_that_died_between_two_requests_is_replaced_unnoticed() {
    let service = Service::start().await;
    let phone = fresh_phone();
    service.postgres.drop_connections().await;
    service.redis.drop_connections().await;
    let code = service.code_for(&phone).await;
    assert_eq!(service.verify(&phone, "000000").await.status, 401);
    service.postgres.drop_connections().await;
    service.redis.drop_connections().await;
    assert_eq!(service.verify(&phone, &code).await.status, 200);
}

#[tokio::test]
async fn without_redis_signup_is_503_sends_nothing_and_recovers() {
    let mut service = Service::start().await;
    let phone = fresh_phone();
    service.redis_server.stop().await;
    let response = service.sign_up("Ada", &phone).await;
    assert_unavailable(&response, "Failed to store user data");
    assert!(messages_to(&phone).await.is_empty());

    service.redis_server.restart().await;
    assert_eq!(service.sign_up("Ada", &phone).await.status, 200);
}

#[tokio::test]
async fn without_redis_verify_is_503_and_after_a_restart_with_empty_memory_401() {
    let mut service = Service::start().await;
    let phone = fresh_phone();
    let code = service.code_for(&phone).await;
    service.redis_server.stop().await;
    let response = service.verify(&phone, &code).await;
    assert_unavailable(&response, "Failed to register user");

    service.redis_server.restart().await;
    assert_eq!(
        service.verify(&phone, &code).await.text("code"),
        "otp_expired"
    );
    assert_eq!(service.database.count_users().await, 0);
}

#[tokio::test]
async fn a_redis_that_is_full_or_a_replica_is_503_and_sends_nothing() {
    for refusal in [
        ["CONFIG", "SET", "maxmemory", "1"],
        ["REPLICAOF", "127.0.0.1", "1", ""],
    ] {
        let mut service = Service::start().await;
        let phone = fresh_phone();
        let code = service.code_for(&phone).await;
        // Now there is old conversion to forget, and Redis allows that when it is full: a script that
        // was not refused as a whole would go on from there.
        service.set_clock_offset(3 * 3_600_000);
        let words: Vec<&str> = refusal
            .into_iter()
            .filter(|word| !word.is_empty())
            .collect();
        service.redis_server.run::<()>(&words).await;
        let response = service.sign_up("Ada", &phone).await;
        assert_unavailable(&response, "Failed to store user data");
        let response = service.verify(&phone, &code).await;
        assert_unavailable(&response, "Failed to register user");
        assert_eq!(messages_to(&phone).await.len(), 1);
    }
}

async fn assert_unavailable_in_time(response: impl Future<Output = Response>, text: &str) {
    let response = tokio::time::timeout(PATIENCE, response).await;
    assert_unavailable(&response.expect("no response in time"), text);
}

/// The request's own deadline is out of reach here, so it is the store's that ends the waiting.
#[tokio::test]
async fn a_store_that_does_not_answer_is_503_within_its_own_timeout() {
    let service = Service::start_with(&[
        ("STORE_TIMEOUT_MS", "1000"),
        ("REQUEST_TIMEOUT_MS", "60000"),
    ])
    .await;
    let phone = fresh_phone();
    let code = service.code_for(&phone).await;
    let locked = service.database.connect().await;
    locked
        .batch_execute("BEGIN; LOCK TABLE users, used_challenges IN ACCESS EXCLUSIVE MODE")
        .await
        .unwrap();
    assert_unavailable_in_time(service.sign_up("Ada", &phone), "Failed to store user data").await;
    assert_unavailable_in_time(service.verify(&phone, &code), "Failed to register user").await;
    locked.batch_execute("ROLLBACK").await.unwrap();

    let pause = ["CLIENT", "PAUSE", "60000", "ALL"];
    service.redis_server.run::<()>(&pause).await;
    assert_unavailable_in_time(service.verify(&phone, &code), "Failed to register user").await;
    assert_unavailable_in_time(service.sign_up("Ada", &phone), "Failed to store user data").await;
}

#[tokio::test]
async fn a_statement_that_was_too_slow_is_not_carried_out_after_its_503() {
    let service = Service::start_with(&[("STORE_TIMEOUT_MS", "1000")]).await;
    let phone = fresh_phone();
    let code = service.code_for(&phone).await;
    let locked = service.database.connect().await;
    locked
        .batch_execute("BEGIN; LOCK TABLE used_challenges IN ACCESS EXCLUSIVE MODE")
        .await
        .unwrap();
    let response = service.verify(&phone, &code).await;
    assert_unavailable(&response, "Failed to register user");
    let observer = service.database.connect().await;
    until("nobody waits for the lock", async || {
        let waiting = "SELECT FROM pg_locks WHERE NOT granted AND database =
            (SELECT oid FROM pg_database WHERE datname = current_database())";
        observer.query(waiting, &[]).await.unwrap().is_empty()
    })
    .await;
    locked.batch_execute("ROLLBACK").await.unwrap();
    assert_eq!(service.database.count_users().await, 0);
    assert_eq!(service.verify(&phone, &code).await.status, 200);
}

#[tokio::test]
async fn a_postgres_that_has_become_a_standby_is_left_for_the_new_primary() {
    let service = Service::start().await;
    let phone = fresh_phone();
    let code = service.code_for(&phone).await;
    let name = service.database.name();
    let admin = service.database.connect().await;
    // The open connection is read-only, as one to a demoted primary is; a new one is not.
    admin
        .batch_execute(&format!(
            "ALTER DATABASE {name} SET default_transaction_read_only = on"
        ))
        .await
        .unwrap();
    service.postgres.drop_connections().await;
    assert_eq!(service.sign_up("Ada", &fresh_phone()).await.status, 200);
    let response = service.verify(&phone, &code).await;
    assert_unavailable(&response, "Failed to register user");
    admin
        .batch_execute(&format!(
            "SET default_transaction_read_only = off;
             ALTER DATABASE {name} RESET default_transaction_read_only"
        ))
        .await
        .unwrap();
    assert_eq!(service.verify(&phone, &code).await.status, 200);
}

#[tokio::test]
async fn stores_that_are_down_at_start_are_no_reason_not_to_start() {
    let service = Service::start().await;
    service.postgres.cut().await;
    service.redis.cut().await;
    let env: shared::config::Env = harness::settings(
        &service.database.url_through(service.postgres.address()),
        &format!("redis://{}", service.redis.address()),
    )
    .into_iter()
    .collect();
    let late = signup::Signup::from_env(&env).await.unwrap();
    late.connect().await;
    let phone = fresh_phone();
    let event = |phone: &str| {
        let body = format!(r#"{{"name":"Ada","phone_number":"{phone}"}}"#);
        lambda_http::request::from_str(&harness::event("POST", "/signup", &body).to_string())
            .unwrap()
    };
    assert_eq!(late.handle(event(&phone)).await.status(), 503);
    service.postgres.restore();
    service.redis.restore();
    assert_eq!(late.handle(event(&phone)).await.status(), 200);
}
