//! What goes over the wire.

use harness::{Database, PgBouncer, Proxy, Response, Service, Tokens, fresh_phone, wrong};

#[tokio::test]
async fn a_warm_request_is_one_round_trip_to_each_store() {
    // Every limit is on, so that all keys and arguments travel.
    let service = Service::start_with(&harness::LIMITS.map(|name| (name, ""))).await;
    // Warm: connected, and Redis knows the scripts.
    let phone = fresh_phone();
    let code = service.code_for(&phone).await;
    assert_eq!(service.verify(&phone, &code).await.status, 200);
    assert_eq!(service.sign_up("Ada", &phone).await.status, 409);

    let phone = fresh_phone();
    let trips = || (service.redis.round_trips(), service.postgres.round_trips());
    let before = trips();
    let code = service.code_for(&phone).await;
    let signed_up = trips();
    assert_eq!((signed_up.0 - before.0, signed_up.1 - before.1), (1, 1));

    assert_eq!(service.verify(&phone, &wrong(&code)).await.status, 401);
    let mismatched = trips();
    assert_eq!(
        (mismatched.0 - signed_up.0, mismatched.1 - signed_up.1),
        (1, 0)
    );

    assert_eq!(service.verify(&phone, &code).await.status, 200);
    let verified = trips();
    assert_eq!(
        (verified.0 - mismatched.0, verified.1 - mismatched.1),
        (1, 1)
    );

    assert_eq!(service.sign_up("Ada", &phone).await.status, 409);
    let refused = trips();
    assert_eq!((refused.0 - verified.0, refused.1 - verified.1), (1, 1));
}

/// Three functions share one server connection, statement by statement.
#[tokio::test]
async fn it_works_through_pgbouncer_in_transaction_mode() {
    let pgbouncer = PgBouncer::start().await;
    let service = Service::start().await;
    let env: shared::config::Env = harness::settings(
        &service.database.url_through(&pgbouncer.address()),
        &service.redis_server.url(),
    )
    .into_iter()
    .collect();
    let signup = signup::Signup::from_env(&env).await.unwrap();
    let verify = verify::Verify::from_env(&env).unwrap();
    let session = session::Session::from_env(&env).unwrap();
    tokio::join!(signup.connect(), verify.connect(), session.connect());
    for _ in 0..5 {
        let phone = fresh_phone();
        let post = |path: &str, body: String| {
            lambda_http::request::from_str(&harness::event("POST", path, &body).to_string())
                .unwrap()
        };
        let body = format!(r#"{{"name":"Ada","phone_number":"{phone}"}}"#);
        assert_eq!(signup.handle(post("/signup", body)).await.status(), 200);
        let code = harness::messages_to(&phone).await[0][..6].to_owned();
        let body = format!(r#"{{"otp":"{code}","phone_number":"{phone}"}}"#);
        let verified = verify.handle(post("/verify", body)).await;
        let token = Tokens::of(&Response::of_handler(verified)).refresh;
        let body = format!(r#"{{"refresh_token":"{token}"}}"#);
        for path in ["/token/refresh", "/logout"] {
            let response = session.handle(post(path, body.clone())).await;
            assert_eq!(response.status(), 200);
        }
    }
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
