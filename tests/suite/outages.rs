//! Stores that are down: the response is a 503 in time, nothing is lost, and it works again by
//! itself.

use harness::{
    Functions, Service, fresh_phone, messages_to,
    outcome::{NOT_REGISTERED, NOT_STORED, OTP_EXPIRED},
    until,
};

/// Neither a code can be had nor this one be used.
pub async fn assert_unavailable(service: &Service, phone: &str, code: &str) {
    let response = service.sign_up(&fresh_phone()).await;
    response.assert_is(NOT_STORED);
    let response = service.verify(phone, code).await;
    response.assert_is(NOT_REGISTERED);
}

#[tokio::test]
async fn without_postgres_signup_is_503_sends_nothing_and_recovers() {
    let service = Service::start().await;
    let phone = fresh_phone();
    service.postgres.cut().await;
    service.sign_up(&phone).await.assert_is(NOT_STORED);
    service.redis_server.assert_empty().await;
    assert!(messages_to(&phone).await.is_empty());

    service.postgres.restore();
    service.sign_up(&phone).await.assert_ok();
}

#[tokio::test]
async fn postgres_stopped_between_signup_and_verify_is_503_and_the_same_code_works_after() {
    let service = Service::start().await;
    let (phone, code) = service.fresh_code().await;
    service.postgres.cut().await;
    let response = service.verify(&phone, &code).await;
    response.assert_is(NOT_REGISTERED);

    service.postgres.restore();
    service.verify(&phone, &code).await.assert_ok();
}

#[tokio::test]
async fn a_connection_that_died_between_two_requests_is_replaced_unnoticed() {
    let service = Service::start().await;
    service.postgres.drop_connections().await;
    service.redis.drop_connections().await;
    let (phone, code) = service.fresh_code().await;
    assert_eq!(service.verify(&phone, "000000").await.status, 401);
    service.postgres.drop_connections().await;
    service.redis.drop_connections().await;
    service.verify(&phone, &code).await.assert_ok();
}

#[tokio::test]
async fn without_redis_signup_is_503_sends_nothing_and_recovers() {
    let mut service = Service::start().await;
    let phone = fresh_phone();
    service.redis_server.stop().await;
    service.sign_up(&phone).await.assert_is(NOT_STORED);
    assert!(messages_to(&phone).await.is_empty());

    service.redis_server.restart().await;
    service.sign_up(&phone).await.assert_ok();
}

#[tokio::test]
async fn without_redis_verify_is_503_and_after_a_restart_with_empty_memory_401() {
    let mut service = Service::start().await;
    let (phone, code) = service.fresh_code().await;
    service.redis_server.stop().await;
    let response = service.verify(&phone, &code).await;
    response.assert_is(NOT_REGISTERED);

    service.redis_server.restart().await;
    service.verify(&phone, &code).await.assert_is(OTP_EXPIRED);
    assert_eq!(service.database.count_users().await, 0);
}

#[tokio::test]
async fn a_redis_that_is_full_or_a_replica_is_503_and_sends_nothing() {
    for refusal in [
        &["CONFIG", "SET", "maxmemory", "1"][..],
        &["REPLICAOF", "127.0.0.1", "1"],
    ] {
        let mut service = Service::start().await;
        let (phone, code) = service.fresh_code().await;
        // Now there is old conversion to forget, and Redis allows that when it is full: a script
        // that was not refused as a whole would go on from there.
        service.set_clock(3 * 3600);
        service.redis_server.run::<()>(refusal).await;
        service.sign_up(&phone).await.assert_is(NOT_STORED);
        let response = service.verify(&phone, &code).await;
        response.assert_is(NOT_REGISTERED);
        assert_eq!(messages_to(&phone).await.len(), 1);
    }
}

/// The request's own deadline is out of reach here, so it is the store's that ends the waiting.
#[tokio::test]
async fn a_store_that_does_not_reply_is_503_within_its_own_timeout() {
    let service = Service::start_with(&[
        ("STORE_TIMEOUT_MS", "1000"),
        ("REQUEST_TIMEOUT_MS", "60000"),
    ])
    .await;
    let (phone, code) = service.fresh_code().await;
    let lock = service.database.lock("users, used_challenges").await;
    assert_unavailable(&service, &phone, &code).await;
    lock.release().await;

    let pause = ["CLIENT", "PAUSE", "60000", "ALL"];
    service.redis_server.run::<()>(&pause).await;
    assert_unavailable(&service, &phone, &code).await;
}

#[tokio::test]
async fn a_statement_that_was_too_slow_is_not_carried_out_after_its_503() {
    let service = Service::start_with(&[("STORE_TIMEOUT_MS", "1000")]).await;
    let (phone, code) = service.fresh_code().await;
    let lock = service.database.lock("used_challenges").await;
    let response = service.verify(&phone, &code).await;
    response.assert_is(NOT_REGISTERED);
    let observer = service.database.observer().await;
    until("nobody waits for the lock", async || {
        observer.waiting().await == 0
    })
    .await;
    lock.release().await;
    assert_eq!(service.database.count_users().await, 0);
    service.verify(&phone, &code).await.assert_ok();
}

#[tokio::test]
async fn a_postgres_that_has_become_a_standby_is_left_for_the_new_primary() {
    let service = Service::start().await;
    let (phone, code) = service.fresh_code().await;
    let name = service.database.name();
    let admin = service.database.connect().await;
    // The open connection is read-only, as one to a demoted primary is; a new one is not.
    let demote = format!("ALTER DATABASE {name} SET default_transaction_read_only = on");
    admin.batch_execute(&demote).await.unwrap();
    service.postgres.drop_connections().await;
    service.sign_up(&fresh_phone()).await.assert_ok();
    let response = service.verify(&phone, &code).await;
    response.assert_is(NOT_REGISTERED);
    let promote = format!(
        "SET default_transaction_read_only = off;
         ALTER DATABASE {name} RESET default_transaction_read_only"
    );
    admin.batch_execute(&promote).await.unwrap();
    service.verify(&phone, &code).await.assert_ok();
}

#[tokio::test]
async fn stores_that_are_down_at_start_are_no_reason_not_to_start() {
    let service = Service::start().await;
    service.postgres.cut().await;
    service.redis.cut().await;
    let database_url = service.database.url_through(service.postgres.address());
    let redis_url = format!("redis://{}", service.redis.address());
    let late = Functions::over(&database_url, &redis_url, &[]);
    late.connect().await;
    let phone = fresh_phone();
    late.sign_up(&phone).await.assert_is(NOT_STORED);
    service.postgres.restore();
    service.redis.restore();
    late.sign_up(&phone).await.assert_ok();
}
