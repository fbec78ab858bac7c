//! The wire: round trips, and a pooler in between.

use harness::{
    Challenge, Database, Functions, LIMITS, PgBouncer, Proxy, Response, Service, Tokens,
    fresh_phone, wrong,
};

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

#[tokio::test]
async fn a_warm_request_sends_known_scripts_and_unnamed_statements_and_nothing_else() {
    for (reveals, reads) in [("true", 1), ("false", 0)] {
        let service = &Service::start_with(&[("REVEAL_REGISTERED", reveals)]).await;
        // Warm: connected, and Redis knows the scripts. In the private mode only a change of number
        // connects the sending function to Postgres.
        let Tokens { access, .. } = service.sign_in().await;
        service.change_phone(&access, &fresh_phone()).await;

        let (phone, next_phone) = (fresh_phone(), fresh_phone());
        let sent = sending(1, reads, service, service.sign_up(&phone)).await;
        let challenge = Challenge::of(&sent, &phone).await;
        sending(1, 1, service, service.submit(&challenge)).await;
        let sent = sending(1, reads, service, service.log_in(&phone)).await;
        let challenge = Challenge::of(&sent, &phone).await;
        let tokens = Tokens::of(&sending(1, 1, service, service.submit(&challenge)).await);

        let refreshed = sending(0, 1, service, service.refresh(&tokens.refresh)).await;
        let Tokens { access, refresh } = &Tokens::of(&refreshed);
        sending(0, 1, service, service.me(access)).await;
        sending(0, 1, service, service.rename(access, "Eve", 1)).await;
        let listed = sending(0, 1, service, service.sessions(access)).await;
        let sessions = listed.body["data"].as_array().unwrap();
        let other = sessions.iter().find(|session| session["current"] == false);
        let other = other.unwrap()["id"].as_str().unwrap();
        sending(0, 1, service, service.end_session(access, other)).await;

        let sent = sending(1, 1, service, service.change_phone(access, &next_phone)).await;
        let challenge = Challenge::of(&sent, &next_phone).await;
        // The second one ends what began while the first waited for its lock.
        sending(1, 2, service, service.submit_as(access, &challenge)).await;

        sending(0, 1, service, service.log_out(refresh)).await;
        sending(0, 1, service, service.log_out_everywhere(refresh)).await;
        let Tokens { access, .. } = service.sign_in().await;
        sending(0, 1, service, service.delete_user(&access)).await;
    }
}

/// The response to a request, which must be a success and send so many scripts to Redis and so many
/// statements to Postgres, each in one round trip.
async fn sending(
    scripts: usize,
    statements: usize,
    service: &Service,
    request: impl Future<Output = Response>,
) -> Response {
    let recording = service.redis.recording(Box::pin(request));
    let recording = service.postgres.recording(recording);
    let (((response, redis), postgres), trips) = service.counting(recording).await;
    response.assert_ok();
    assert_eq!(redis.commands_to_redis(), vec!["EVALSHA"; scripts]);
    assert!(!redis.holds_reply("NOSCRIPT"));
    // All that `query_typed` sends: no statement with a name, so none to close, and no transaction.
    let statement = ["Parse", "Bind", "Describe", "Execute", "Sync"];
    assert_eq!(
        postgres.messages_to_postgres(),
        statement.repeat(statements)
    );
    assert_eq!(trips, (scripts, statements));
    response
}

/// Three functions share one server connection, statement by statement.
#[tokio::test]
async fn it_works_through_pgbouncer_in_transaction_mode() {
    let (pgbouncer, service) = (PgBouncer::start().await, Service::start().await);
    let database_url = service.database.url_through(&pgbouncer.address());
    let functions = Functions::over(&database_url, &service.redis_server.url(), &[]);
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
