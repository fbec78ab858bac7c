//! Stores that are down: the answer is a 503 in time, nothing is lost, and it works again by itself.

use tests::{Answer, Service, fresh_phone, messages_to};

fn assert_unavailable(answer: &Answer, text: &str) {
    assert_eq!(answer.failure(), (503, text, "unavailable"), "{answer:?}");
    assert!(answer.retry_after() > 0);
}

#[tokio::test]
async fn without_postgres_signup_is_503_sends_nothing_and_recovers() {
    let service = Service::start().await;
    let phone = fresh_phone();
    service.postgres.cut();
    let answer = service.sign_up("Ada", &phone).await;
    assert_unavailable(&answer, "Failed to store user data");
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
    service.postgres.cut();
    let answer = service.verify(&phone, &code).await;
    assert_unavailable(&answer, "Failed to register user");

    service.postgres.restore();
    assert_eq!(service.verify(&phone, &code).await.status, 200);
}

#[tokio::test]
async fn a_connection_that_died_between_two_requests_is_replaced_unnoticed() {
    let service = Service::start().await;
    let phone = fresh_phone();
    for store in [&service.postgres, &service.redis] {
        store.cut();
        store.restore();
    }
    let code = service.code_for(&phone).await;
    for store in [&service.postgres, &service.redis] {
        store.cut();
        store.restore();
    }
    assert_eq!(service.verify(&phone, &code).await.status, 200);
}

#[tokio::test]
async fn without_redis_signup_is_503_sends_nothing_and_recovers() {
    let mut service = Service::start().await;
    let phone = fresh_phone();
    service.redis_server.stop().await;
    let answer = service.sign_up("Ada", &phone).await;
    assert_unavailable(&answer, "Failed to store user data");
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
    let answer = service.verify(&phone, &code).await;
    assert_unavailable(&answer, "Failed to register user");

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
        let service = Service::start().await;
        let phone = fresh_phone();
        let code = service.code_for(&phone).await;
        let words: Vec<&str> = refusal
            .into_iter()
            .filter(|word| !word.is_empty())
            .collect();
        service.redis_server.run::<()>(&words).await;
        let answer = service.sign_up("Ada", &phone).await;
        assert_unavailable(&answer, "Failed to store user data");
        let answer = service.verify(&phone, &code).await;
        assert_unavailable(&answer, "Failed to register user");
        assert_eq!(messages_to(&phone).await.len(), 1);
    }
}

#[tokio::test]
async fn a_store_that_does_not_answer_is_503_within_its_timeout() {
    let service = Service::start_with(&[("STORE_TIMEOUT_MS", "200")]).await;
    let phone = fresh_phone();
    let code = service.code_for(&phone).await;

    let locked = service.database.connect().await;
    locked
        .batch_execute("BEGIN; LOCK TABLE users, used_challenges IN ACCESS EXCLUSIVE MODE")
        .await
        .unwrap();
    let answer = service.sign_up("Ada", &phone).await;
    assert_unavailable(&answer, "Failed to store user data");
    let answer = service.verify(&phone, &code).await;
    assert_unavailable(&answer, "Failed to register user");
    locked.batch_execute("ROLLBACK").await.unwrap();

    service
        .redis_server
        .run::<()>(&["CLIENT", "PAUSE", "60000", "ALL"])
        .await;
    let answer = service.verify(&phone, &code).await;
    assert_unavailable(&answer, "Failed to register user");
    let answer = service.sign_up("Ada", &phone).await;
    assert_unavailable(&answer, "Failed to store user data");
}

#[tokio::test]
async fn stores_that_are_down_at_start_are_no_reason_not_to_start() {
    let service = Service::start().await;
    service.postgres.cut();
    service.redis.cut();
    let env: shared::config::Env = tests::settings(
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
        lambda_http::request::from_str(&tests::event("POST", "/signup", &body).to_string()).unwrap()
    };
    assert_eq!(late.handle(event(&phone)).await.status(), 503);
    service.postgres.restore();
    service.redis.restore();
    assert_eq!(late.handle(event(&phone)).await.status(), 200);
}
