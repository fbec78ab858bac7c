//! The wire: round trips, and a pooler in between.

use harness::{Database, Functions, LIMITS, PgBouncer, Proxy, Service, Tokens, fresh_phone, wrong};

#[tokio::test]
async fn a_warm_request_is_one_round_trip_to_each_store() {
    // Every limit is on, so that all keys and arguments travel.
    let service = Service::start_with(&LIMITS.map(|name| (name, ""))).await;
    // Warm: connected, and Redis knows the scripts.
    let phone = service.registered().await;
    assert_eq!(service.sign_up(&phone).await.status, 409);

    let phone = fresh_phone();
    let (code, trips) = service.counting(service.code_for(&phone)).await;
    assert_eq!(trips, (1, 1));
    let other = wrong(&code);
    let (response, trips) = service.counting(service.verify(&phone, &other)).await;
    assert_eq!((response.status, trips), (401, (1, 0)));
    let (response, trips) = service.counting(service.verify(&phone, &code)).await;
    assert_eq!((response.status, trips), (200, (1, 1)));
    let (response, trips) = service.counting(service.sign_up(&phone)).await;
    assert_eq!((response.status, trips), (409, (1, 1)));
}

/// Three functions share one server connection, statement by statement.
#[tokio::test]
async fn it_works_through_pgbouncer_in_transaction_mode() {
    let (pgbouncer, service) = (PgBouncer::start().await, Service::start().await);
    let database_url = service.database.url_through(&pgbouncer.address());
    let functions = Functions::over(&database_url, &service.redis_server.url(), &[]).await;
    functions.connect().await;
    for _ in 0..5 {
        let (phone, code) = functions.fresh_code().await;
        let tokens = Tokens::of(&functions.verify(&phone, &code).await);
        functions.sessions(&tokens.access).await.assert_ok();
        functions.rename(&tokens.access, "Eve", 1).await.assert_ok();
        functions.refresh(&tokens.refresh).await.assert_ok();
        let everywhere = functions.log_out_everywhere(&tokens.refresh).await;
        everywhere.assert_ok();
        functions.log_out(&tokens.refresh).await.assert_ok();
    }
    assert_eq!(service.database.count_users().await, 5);
    let tokens = functions.sign_in().await;
    functions.delete_user(&tokens.access).await.assert_ok();
    assert_eq!(service.database.count_users().await, 5);
}

#[tokio::test]
async fn the_round_trip_counter_counts() {
    let database = Database::empty().await;
    let proxy = Proxy::to(&Database::address()).await;
    let (client, connection) = tokio_postgres::connect(
        &database.url_through(proxy.address()),
        tokio_postgres::NoTls,
    )
    .await
    .unwrap();
    tokio::spawn(connection);
    let before = proxy.round_trips();
    client.batch_execute("SELECT 1").await.unwrap();
    client.batch_execute("SELECT 1").await.unwrap();
    assert_eq!(proxy.round_trips() - before, 2);
}
