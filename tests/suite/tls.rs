//! Stores and providers prove who they are: the chain of their certificate, the name in it, and its
//! dates.

use std::sync::{Arc, Mutex};

use harness::{
    Authority, Certificate, Database, Deployment, Function, Invocation, PostgresServer,
    RedisServer, TlsProxy, event, fresh_phone, local_settings, set_header, twilio_settings,
};
use migrate::Command;
use serde_json::{Value, json};
use shared::{config::Env, telemetry};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};
use tokio_postgres::NoTls;

const PASSWORD: &str = "hunter2-is-our-password";

/// The outcomes of a sign-up, and of the migration's `status`, over TLS to a Postgres.
struct Outcome {
    status: u64,
    cause: String,
    /// `None` where it succeeded.
    migrate: Option<String>,
}

/// Tries a Postgres at `localhost` that clients reach through `address`, where they trust
/// `trusted`.
async fn outcome(database: &Database, address: &str, trusted: &Authority) -> Outcome {
    let redis = RedisServer::start().await;
    let url = database.url_of(&format!("postgres:{PASSWORD}"));
    let url = url.replace(&Database::address(), address);
    let (url, redis_url) = (format!("{url}&sslmode=require"), redis.url());
    let trusts = ("SSL_CERT_FILE", trusted.file().to_str().unwrap());
    let mut settings = local_settings(&url, &redis_url);
    settings.push(trusts);
    let mut signup = Function::start("signup", settings).await;
    let status = signup.sign_up(&fresh_phone()).await.status;
    let log = signup.log().join("\n");
    assert!(!log.contains(PASSWORD), "{log}");
    let cause = &signup.response_lines()[0]["cause"];

    let env = Env::from([("DATABASE_URL", &*url), trusts]);
    let migrator = migrate::Migrate::from_env(&env).unwrap();
    let migrated = migrator.run(Command::Status).await;
    Outcome {
        status,
        cause: cause.as_str().unwrap_or_default().to_owned(),
        migrate: migrated.err().map(|error| telemetry::chain(&error)),
    }
}

#[tokio::test]
async fn postgres_is_trusted_for_its_chain_its_name_and_its_dates() {
    let (ours, theirs) = (Authority::new(), Authority::new());
    let database = Database::migrated().await;
    let proxy_with = async |certificate: &Certificate| {
        TlsProxy::before_postgres(&Database::address(), certificate).await
    };

    let proxy = proxy_with(&ours.certify("localhost")).await;
    let trusted = outcome(&database, &proxy.address(), &ours).await;
    assert_eq!((trusted.status, trusted.migrate), (200, None));
    assert!(proxy.sessions() >= 2);

    for (certificate, cause) in [
        (ours.certify("example.com"), "not valid for name"),
        (theirs.certify("localhost"), "UnknownIssuer"),
        (ours.certify_for("localhost", 2000..2020), "expired"),
        (ours.certify_for("localhost", 2900..3000), "not valid yet"),
    ] {
        let proxy = proxy_with(&certificate).await;
        let refused = outcome(&database, &proxy.address(), &ours).await;
        assert_eq!(refused.status, 503, "{cause}");
        assert!(refused.cause.contains(cause), "{cause}: {}", refused.cause);
        let migrate = refused.migrate.unwrap();
        assert!(migrate.contains(cause), "{cause}: {migrate}");
        // So no password was sent.
        assert_eq!(proxy.sessions(), 0, "{cause}");
    }
}

/// A server that answers a request for TLS with `reply`. Returns its address, and what its clients
/// say after that.
async fn plain_server(reply: &'static [u8]) -> (String, Arc<Mutex<Vec<u8>>>) {
    const TLS_REQUEST: [u8; 8] = [0, 0, 0, 8, 4, 210, 22, 47];
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("localhost:{}", listener.local_addr().unwrap().port());
    let heard = Arc::<Mutex<Vec<u8>>>::default();
    let ears = Arc::clone(&heard);
    let serve = async move |mut client: TcpStream| {
        let mut request = [0; TLS_REQUEST.len()];
        client.read_exact(&mut request).await.unwrap();
        assert_eq!(request, TLS_REQUEST);
        client.write_all(reply).await.unwrap();
        let mut rest = Vec::new();
        let _closed_or_reset = client.read_to_end(&mut rest).await;
        ears.lock().unwrap().extend(rest);
    };
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            serve(client).await;
        }
    });
    (address, heard)
}

#[tokio::test]
async fn a_postgres_that_speaks_no_tls_hears_no_password() {
    let database = Database::migrated().await;
    let trusted = Authority::new();
    // It has no TLS, or it asks for the password as if it had not been asked for TLS.
    let ask_for_password = b"R\x00\x00\x00\x08\x00\x00\x00\x03";
    for reply in [b"N".as_slice(), ask_for_password] {
        let (address, heard) = plain_server(reply).await;
        let refused = outcome(&database, &address, &trusted).await;
        assert_eq!(refused.status, 503, "{reply:?}");
        assert!(refused.cause.contains("TLS"), "{}", refused.cause);
        assert!(refused.migrate.is_some(), "{reply:?}");
        let heard = String::from_utf8_lossy(&heard.lock().unwrap()).into_owned();
        assert_eq!(heard, "", "{reply:?}");
    }
}

#[tokio::test]
async fn redis_is_trusted_for_its_chain_its_name_and_its_dates() {
    let (ours, theirs) = (Authority::new(), Authority::new());
    let (database, redis) = (Database::migrated().await, RedisServer::start().await);
    let database_url = database.url();
    for (certificate, status) in [
        (ours.certify("localhost"), 200),
        (ours.certify("example.com"), 503),
        (theirs.certify("localhost"), 503),
        (ours.certify_for("localhost", 2000..2020), 503),
        (ours.certify_for("localhost", 2900..3000), 503),
    ] {
        let proxy = TlsProxy::before_redis(&redis.address(), &certificate).await;
        let redis_url = format!("rediss://{}", proxy.address());
        let mut settings = local_settings(&database_url, &redis_url);
        settings.push(("SSL_CERT_FILE", ours.file().to_str().unwrap()));
        let mut signup = Function::start("signup", settings).await;
        assert_eq!(signup.sign_up(&fresh_phone()).await.status, status);
        assert_eq!(proxy.sessions() > 0, status == 200);
    }
}

#[tokio::test]
async fn a_provider_is_trusted_for_its_chain_and_its_name() {
    let (ours, theirs) = (Authority::new(), Authority::new());
    let deployment = Deployment::new().await;
    let target = deployment.provider.url().replace("http://", "");
    for (certificate, is_trusted) in [
        (ours.certify("localhost"), true),
        (theirs.certify("localhost"), false),
        (ours.certify("example.com"), false),
    ] {
        let proxy = TlsProxy::before_provider(&target, &certificate).await;
        let endpoint = format!("https://{}", proxy.address());
        for provider in [
            &[("AWS_ENDPOINT_URL_SNS", &*endpoint)][..],
            &twilio_settings(&endpoint),
        ] {
            let trusts = [("SSL_CERT_FILE", ours.file().to_str().unwrap())];
            let own = [provider, &trusts].concat();
            let mut signup = deployment.start("signup", &own).await;
            let seen = deployment.provider.requests().len();
            let response = signup.sign_up(&fresh_phone()).await;
            assert_eq!(response.status, if is_trusted { 200 } else { 502 });
            let sent = deployment.provider.requests_after(seen).len();
            assert_eq!(sent, usize::from(is_trusted));
        }
    }
}

/// The public authorities do not know the tests' own, and neither do those for RDS.
#[tokio::test]
async fn without_a_file_an_authority_of_our_own_is_trusted_nowhere() {
    let ours = Authority::new();
    let (database, redis) = (Database::migrated().await, RedisServer::start().await);
    let certificate = ours.certify("localhost");
    let before_postgres = TlsProxy::before_postgres(&Database::address(), &certificate).await;
    let before_redis = TlsProxy::before_redis(&redis.address(), &certificate).await;
    let tls_url = database.url_through(&before_postgres.address());
    let tls_url = format!("{tls_url}&sslmode=require");
    let tls_redis_url = format!("rediss://{}", before_redis.address());
    for (database_url, redis_url) in [(&tls_url, &redis.url()), (&database.url(), &tls_redis_url)] {
        let mut signup = Function::start("signup", local_settings(database_url, redis_url)).await;
        assert_eq!(signup.sign_up(&fresh_phone()).await.status, 503);
        let cause = signup.response_lines()[0]["cause"].to_string();
        assert!(cause.contains("UnknownIssuer"), "{cause}");
    }

    let deployment = Deployment::new().await;
    let target = deployment.provider.url().replace("http://", "");
    let proxy = TlsProxy::before_provider(&target, &certificate).await;
    let endpoint = format!("https://{}", proxy.address());
    for provider in [
        &[("AWS_ENDPOINT_URL_SNS", &*endpoint)][..],
        &twilio_settings(&endpoint),
    ] {
        let mut signup = deployment.start("signup", provider).await;
        assert_eq!(signup.sign_up(&fresh_phone()).await.status, 502);
        assert_eq!(deployment.provider.requests().len(), 0);
    }
}

#[tokio::test]
async fn every_function_works_over_a_postgres_that_speaks_tls_only() {
    let authority = Authority::new();
    let certificate = authority.certify("localhost");
    let mut postgres = PostgresServer::start_tls_only(&certificate).await;
    let refused = tokio_postgres::connect(&postgres.url(), NoTls).await.err();
    let refused = telemetry::chain(&refused.unwrap());
    assert!(refused.contains("no encryption"), "{refused}");

    let redis = RedisServer::start().await;
    let (url, redis_url) = (postgres.tls_url(), redis.url());
    let mut settings = local_settings(&url, &redis_url);
    settings.push(("SSL_CERT_FILE", authority.file().to_str().unwrap()));
    let start = async |name| Function::start(name, settings.clone()).await;
    let mut migrate = start("migrate").await;
    let migrated = migrate.invoke(&json!({"command": "up"})).await;
    assert!(
        matches!(migrated, Invocation::Responded(_)),
        "{:#?}",
        migrate.log()
    );

    let (mut signup, mut verify) = (start("signup").await, start("verify").await);
    let phone = fresh_phone();
    signup.sign_up(&phone).await.assert_ok();
    let lines = signup.log().into_iter();
    let mut lines = lines.filter_map(|line| serde_json::from_str::<Value>(&line).ok());
    let generated = lines
        .find(|line| line["message"] == "Generated OTP")
        .unwrap();
    let signed_in = verify
        .verify(&phone, generated["otp"].as_str().unwrap())
        .await;
    signed_in.assert_ok();

    let mut session = start("session").await;
    let token = signed_in.body["tokens"]["access_token"].as_str().unwrap();
    let mut me = event("GET", "/me", "");
    set_header(&mut me, "authorization", Some(&format!("Bearer {token}")));
    session.send(&me).await.assert_ok();
    postgres.stop().await;
}
