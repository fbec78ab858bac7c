//! The stores, and the settings of each function over them.

use std::{cell::Cell, collections::HashMap, net::Ipv4Addr};

use harness::{
    AUDIENCE, Authority, Behaviour, Database, ISSUER, Key, PEPPER, Provider, RedisServer, TlsProxy,
    event, event_from,
};
use serde_json::{Value, json};

use crate::process::{Process, Settings};

pub struct Stage {
    pub database: Database,
    pub redis: RedisServer,
    key: Key,
    secure: Secure,
    /// The numbers that were given out.
    phones: Cell<u64>,
}

/// The stores and SNS behind TLS, and who certifies them.
struct Secure {
    authority: Authority,
    database_url: String,
    redis_url: String,
    sns_url: String,
    _proxies: [TlsProxy; 3],
    _provider: Provider,
}

/// Where the stores are.
#[derive(Clone, Copy)]
pub struct Stores<'a> {
    pub database_url: &'a str,
    pub redis_url: &'a str,
}

impl Stage {
    pub async fn start() -> Self {
        let (database, redis) = tokio::join!(Database::migrated(), RedisServer::start());
        let secure = Secure::start(&database, &redis).await;
        Self {
            database,
            redis,
            key: Key::rsa(),
            secure,
            phones: Cell::new(0),
        }
    }

    /// The settings of any function over these stores. Every limit has its default.
    pub fn settings(&self, stores: Stores<'_>) -> Settings {
        let public_keys = self.key.public_pem();
        let settings = [
            ("DATABASE_URL", stores.database_url),
            ("REDIS_URL", stores.redis_url),
            ("OTP_PEPPER", PEPPER),
            ("ALLOWED_COUNTRIES", "*"),
            ("SMS_PROVIDER", "log"),
            ("OTP_LOCAL", "1"),
            ("TOKEN_ISSUER", ISSUER),
            ("TOKEN_AUDIENCE", AUDIENCE),
            ("TOKEN_PRIVATE_KEY", &self.key.private_pem()),
            ("TOKEN_PUBLIC_KEYS", &public_keys),
        ];
        owned(&settings)
    }

    /// Over the stores without anything in between.
    pub fn plain(&self) -> Settings {
        let (database_url, redis_url) = (self.database.url(), self.redis.url());
        self.settings(Stores {
            database_url: &database_url,
            redis_url: &redis_url,
        })
    }

    /// With TLS to both stores and to SNS.
    pub fn secure(&self) -> Settings {
        let secure = &self.secure;
        let mut settings = self.settings(Stores {
            database_url: &secure.database_url,
            redis_url: &secure.redis_url,
        });
        settings.extend(owned(&[
            ("SMS_PROVIDER", "sns"),
            ("AWS_ENDPOINT_URL_SNS", &secure.sns_url),
            ("SSL_CERT_FILE", secure.authority.file().to_str().unwrap()),
        ]));
        settings
    }

    /// A German mobile number that was not given out before. Neighbours are far apart.
    pub fn phone(&self) -> String {
        let number = self.phones.get();
        self.phones.set(number + 1);
        format!("+49151{:08}", number * 61_803_399 % 100_000_000)
    }
}

impl Secure {
    async fn start(database: &Database, redis: &RedisServer) -> Self {
        let provider = Provider::start(Behaviour::Accept).await;
        let authority = Authority::new();
        let certificate = authority.certify("localhost");
        let sns_address = provider.url().replace("http://", "");
        let postgres = TlsProxy::before_postgres(&Database::address(), &certificate).await;
        let redis = TlsProxy::before_redis(&redis.address(), &certificate).await;
        let sns = TlsProxy::before_provider(&sns_address, &certificate).await;
        Self {
            database_url: format!(
                "{}&sslmode=require",
                database.url_through(&postgres.address())
            ),
            redis_url: format!("rediss://{}", redis.address()),
            sns_url: format!("https://{}", sns.address()),
            authority,
            _proxies: [postgres, redis, sns],
            _provider: provider,
        }
    }
}

/// A code that was sent.
pub struct Sent {
    phone: String,
    code: String,
    challenge_id: String,
}

impl Sent {
    /// The codes in the log of a function that signed up these numbers, whose challenges are these.
    pub fn all(signup: &mut Process, challenges: Vec<(String, Value)>) -> Vec<Self> {
        let lines = signup.log().into_iter();
        let mut codes: HashMap<String, String> = lines
            .filter(|line| line["message"] == "Generated OTP")
            .map(|line| (text(&line["phone_number"]), text(&line["otp"])))
            .collect();
        let sent = challenges.into_iter().map(|(phone, body)| Self {
            code: codes.remove(&phone).unwrap(),
            challenge_id: text(&body["challenge_id"]),
            phone,
        });
        sent.collect()
    }

    /// Its receiver submits it.
    pub fn verify(&self) -> Value {
        let Self {
            phone,
            code,
            challenge_id,
        } = self;
        let body = json!({"otp": code, "phone_number": phone, "challenge_id": challenge_id});
        event("POST", "/verify", &body.to_string())
    }
}

/// An address for the phone's owner alone.
pub fn address_of(phone: &str) -> String {
    let number: u32 = phone["+49151".len()..].parse().unwrap();
    Ipv4Addr::from_bits(number).to_string()
}

/// The phone's owner signs up.
pub fn sign_up(phone: &str) -> Value {
    let body = json!({"name": "Ada Lovelace", "phone_number": phone}).to_string();
    event_from(&address_of(phone), "/signup", &body)
}

/// Somebody logs in, whose number may be unknown.
pub fn login(phone: &str) -> Value {
    let body = json!({"phone_number": phone}).to_string();
    event("POST", "/login", &body)
}

pub fn refresh(signed_in: &Value) -> Value {
    let body = json!({"refresh_token": signed_in["tokens"]["refresh_token"]});
    event("POST", "/token/refresh", &body.to_string())
}

pub fn me(signed_in: &Value) -> Value {
    let mut event = event("GET", "/me", "");
    let token = text(&signed_in["tokens"]["access_token"]);
    event["headers"]["authorization"] = format!("Bearer {token}").into();
    event
}

/// The event at another path, for the bare function.
pub fn at(path: &str, event: &Value) -> Value {
    let mut event = event.clone();
    event["rawPath"] = path.into();
    event
}

pub fn owned(settings: &[(&str, &str)]) -> Settings {
    let settings = settings.iter();
    settings
        .map(|&(name, value)| (name.to_owned(), value.to_owned()))
        .collect()
}

fn text(value: &Value) -> String {
    value.as_str().unwrap().to_owned()
}
