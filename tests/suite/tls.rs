//! Stores prove who they are: the chain of their certificate and the name in it.

use harness::{Authority, Database, Function, RedisServer, TlsProxy, fresh_phone, local_settings};

/// The status of a sign-up over TLS to both stores, whose certificates have these names, where the
/// client trusts `trusted`.
async fn status(
    postgres: (&Authority, &str),
    redis: (&Authority, &str),
    trusted: &Authority,
) -> u64 {
    let (database, server) = (Database::migrated().await, RedisServer::start().await);
    let before_postgres =
        TlsProxy::before_postgres(&Database::address(), postgres.0, postgres.1).await;
    let before_redis = TlsProxy::before_redis(&server.address(), redis.0, redis.1).await;
    let database_url = database.url_through(&before_postgres.address());
    let database_url = format!("{database_url}&sslmode=require");
    let redis_url = format!("rediss://{}", before_redis.address());
    let mut settings = local_settings(&database_url, &redis_url);
    settings.push(("SSL_CERT_FILE", trusted.file().to_str().unwrap()));
    let mut signup = Function::start("signup", settings).await;
    signup.sign_up(&fresh_phone()).await.status
}

#[tokio::test]
async fn a_store_is_trusted_for_its_chain_and_its_name() {
    let (ours, theirs) = (Authority::new(), Authority::new());
    let good = (&ours, "localhost");
    assert_eq!(status(good, good, &ours).await, 200);
    let of_another_authority = (&theirs, "localhost");
    assert_eq!(status(of_another_authority, good, &ours).await, 503);
    assert_eq!(status(good, of_another_authority, &ours).await, 503);
    let of_another_name = (&ours, "example.com");
    assert_eq!(status(of_another_name, good, &ours).await, 503);
    assert_eq!(status(good, of_another_name, &ours).await, 503);
}
