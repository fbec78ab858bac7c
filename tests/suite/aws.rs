//! The AWS account's part: the secret, and sign-in to the stores by IAM.

use shared::lambda::Function as _;

use base64::{Engine, prelude::BASE64_STANDARD};
use harness::{
    Behaviour, EDGE_SECRET, Function, PATIENCE, PEPPER, Provider, Service, create_secret,
    fresh_phone, last_code_to, moto, set_header, sign_up_event, signing_key, twilio_settings,
};
use serde_json::json;
use shared::config::Env;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
    time::timeout,
};
use verify::Verify;

async fn secret(text: &str) -> String {
    create_secret(Some(text)).await
}

async fn start_signup(service: &Service, own: &[(&str, &str)]) -> Function {
    let moto = moto();
    let mut settings = harness::settings(&service.database.url(), &service.redis_server.url());
    settings.extend(own.iter().map(|&(name, value)| (name.into(), value.into())));
    let aws = [
        ("AWS_ENDPOINT_URL_SNS", moto.as_str()),
        ("AWS_ENDPOINT_URL_SECRETS_MANAGER", moto.as_str()),
        ("AWS_REGION", "us-east-1"),
    ];
    let settings = settings.iter().map(|(name, value)| (&**name, &**value));
    Function::start("signup", settings.chain(aws)).await
}

#[tokio::test]
async fn the_pepper_comes_from_the_secret_and_not_from_the_environment() {
    let service = Service::start().await;
    let keys = signing_key().public_pem();
    let members = json!({"OTP_PEPPER": PEPPER, "TOKEN_PUBLIC_KEYS": keys, "OTHER": "ignored"});
    let arn = secret(&members.to_string()).await;
    let another = "another pepper of at least 32 bytes";
    let mut signup = start_signup(&service, &[("SECRET_ARN", &arn), ("OTP_PEPPER", another)]).await;
    let phone = fresh_phone();
    signup.sign_up(&phone).await.assert_ok();
    let code = last_code_to(&phone).await;
    service.verify(&phone, &code).await.assert_ok();
}

#[tokio::test]
async fn the_stores_come_from_the_secret_and_all_else_stays_as_it_is() {
    let service = Service::start().await;
    let (database, redis) = (service.database.url(), service.redis_server.url());
    let members = json!({"DATABASE_URL": database, "REDIS_URL": redis});
    let arn = secret(&members.to_string()).await;
    let own = [
        ("SECRET_ARN", &*arn),
        ("DATABASE_URL", "postgres://otp@127.0.0.1:1/otp"),
        ("REDIS_URL", "redis://127.0.0.1:1"),
    ];
    let mut signup = start_signup(&service, &own).await;
    signup.sign_up(&fresh_phone()).await.assert_ok();
}

#[tokio::test]
async fn twilios_token_comes_from_the_secret_and_not_from_the_environment() {
    let service = Service::start().await;
    let members = json!({
        "OTP_PEPPER": PEPPER,
        "TOKEN_PUBLIC_KEYS": signing_key().public_pem(),
        "TWILIO_AUTH_TOKEN": "of the secret",
    });
    let arn = secret(&members.to_string()).await;
    let twilio = Provider::start(Behaviour::Accept).await;
    let endpoint = twilio.url();
    let own = [&twilio_settings(&endpoint)[..], &[("SECRET_ARN", &arn)]].concat();
    let mut signup = start_signup(&service, &own).await;
    signup.sign_up(&fresh_phone()).await.assert_ok();
    let head = &twilio.heads()[0];
    let (_, login) = head.split_once("Basic ").unwrap();
    let login = BASE64_STANDARD.decode(login.lines().next().unwrap());
    assert!(login.unwrap().ends_with(b":of the secret"), "{head}");
}

#[tokio::test]
async fn the_edges_secret_comes_from_the_secret_too() {
    let service = Service::start().await;
    let members = json!({
        "OTP_PEPPER": PEPPER,
        "TOKEN_PUBLIC_KEYS": signing_key().public_pem(),
        "EDGE_SECRET": EDGE_SECRET,
    });
    let arn = secret(&members.to_string()).await;
    let own = [("SECRET_ARN", arn.as_str()), ("LIMIT_ADDRESS", "1/10m")];
    let mut signup = start_signup(&service, &own).await;
    for viewer in ["198.51.100.1:443", "198.51.100.2:443"] {
        let mut event = sign_up_event(&fresh_phone());
        set_header(&mut event, "x-edge-secret", Some(EDGE_SECRET));
        set_header(&mut event, "cloudfront-viewer-address", Some(viewer));
        signup.send(&event).await.assert_ok();
    }
}

#[tokio::test]
async fn a_secret_that_cannot_be_used_ends_the_process_and_is_not_quoted() {
    let service = Service::start().await;
    let cases = [
        (secret("hunter2").await, "SECRET_ARN"),
        (secret("[\"hunter2\"]").await, "SECRET_ARN"),
        (secret("{\"OTP_PEPPER\": 42}").await, "SECRET_ARN"),
        (secret("{\"OTP_PEPPER\": \"hunter2\"}").await, "OTP_PEPPER"),
        ("nowhere".to_owned(), "SECRET_ARN"),
    ];
    for (arn, named) in cases {
        let mut signup = start_signup(&service, &[("SECRET_ARN", &arn)]).await;
        assert!(!signup.exit().await.success(), "{arn}");
        let log = signup.log().join("\n");
        assert!(log.contains(named) && !log.contains("hunter2"), "{log}");
    }
}

/// The first words of a client to a server that greets it with `greeting`.
async fn first_words(listener: TcpListener, greeting: &[u8]) -> String {
    let (mut client, _) = listener.accept().await.unwrap();
    let mut heard = Vec::new();
    while !String::from_utf8_lossy(&heard).contains("X-Amz-Signature=") {
        assert_ne!(client.read_buf(&mut heard).await.unwrap(), 0, "{heard:?}");
        client.write_all(greeting).await.unwrap();
    }
    String::from_utf8_lossy(&heard).into_owned()
}

/// The environment of a function that signs in to both stores by IAM.
fn by_iam(database_url: &str, redis_url: &str) -> Env {
    let by_iam = [
        ("DATABASE_IAM", "true"),
        ("REDIS_IAM", "true"),
        ("AWS_REGION", "eu-west-1"),
    ]
    .map(|(name, value)| (name.to_owned(), value.to_owned()));
    let settings = harness::settings(database_url, redis_url);
    settings.into_iter().chain(by_iam).collect()
}

#[tokio::test]
async fn both_stores_are_signed_in_to_with_passwords_signed_for_their_users() {
    const ASK_FOR_PASSWORD: &[u8] = b"R\0\0\0\x08\0\0\0\x03";
    let postgres = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let redis = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let postgres_address = postgres.local_addr().unwrap().to_string();
    let verify = Verify::from_env(&by_iam(
        &format!("postgres://otp@{postgres_address}/otp"),
        &format!("redis://otp@{}", redis.local_addr().unwrap()),
    ))
    .unwrap();
    let heard = async {
        tokio::join!(
            first_words(postgres, ASK_FOR_PASSWORD),
            first_words(redis, b"")
        )
    };
    let (to_postgres, to_redis) = tokio::select! {
        heard = timeout(PATIENCE, heard) => heard.expect("no password came"),
        () = async { loop { verify.connect().await } } => unreachable!(),
    };
    for expected in [
        &format!("{postgres_address}/?Action=connect&DBUser=otp&"),
        "X-Amz-Expires=900&",
        "%2Feu-west-1%2Frds-db%2Faws4_request&",
    ] {
        assert!(to_postgres.contains(expected), "{to_postgres}");
    }
    for expected in [
        "AUTH\r\n$3\r\notp\r\n",
        "/?Action=connect&User=otp&",
        "%2Feu-west-1%2Felasticache%2Faws4_request&",
    ] {
        assert!(to_redis.contains(expected), "{to_redis}");
    }
}

#[tokio::test]
async fn a_password_by_iam_is_not_sent_in_plain_text_to_another_host() {
    let database = "postgres://otp@db.example.com/otp";
    let redis = "rediss://otp@codes.example.com";
    assert!(Verify::from_env(&by_iam(database, redis)).is_ok());
    for (database, redis, named) in [
        (
            &*format!("{database}?sslmode=disable"),
            redis,
            "DATABASE_IAM",
        ),
        ("postgres://db.example.com/otp", redis, "DATABASE_IAM"),
        (database, "redis://otp@codes.example.com", "REDIS_IAM"),
        (database, "rediss://codes.example.com", "REDIS_IAM"),
    ] {
        let error = Verify::from_env(&by_iam(database, redis)).err().unwrap();
        assert!(error.to_string().starts_with(named), "{error}");
    }
}
