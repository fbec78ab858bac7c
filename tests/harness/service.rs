//! The functions in this process, over stores of their own.

use lambda_http::request::from_str;
use serde_json::{Value, json};
use session::Session;
use shared::config::Env;
use signup::Signup;
use verify::Verify;

use crate::{
    Database, PEPPER, Proxy, RedisServer, Response, fresh_phone, messages_to, token_settings,
};

/// The service as its clients see it, with proxies between it and its stores.
pub struct Service {
    pub database: Database,
    pub postgres: Proxy,
    pub redis_server: RedisServer,
    pub redis: Proxy,
    pub signup: Signup,
    pub verify: Verify,
    pub session: Session,
}

/// The variables of the limits that are on by default.
pub const LIMITS: [&str; 10] = [
    "LIMIT_PHONE",
    "LIMIT_DEVICE",
    "LIMIT_ADDRESS",
    "LIMIT_RANGE",
    "LIMIT_TOTAL",
    "LIMIT_RANGE_MAX",
    "LIMIT_TOTAL_MAX",
    "LIMIT_GUESSES",
    "MISSES_PHONE",
    "MISSES_TOTAL",
];

/// What a client is given to stay signed in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tokens {
    pub access: String,
    pub refresh: String,
}

impl Tokens {
    /// The tokens of a response, which must be a success.
    pub fn of(response: &Response) -> Self {
        assert_eq!(response.status, 200, "{response:?}");
        let tokens = &response.body["tokens"];
        assert_eq!(tokens["token_type"], "Bearer");
        assert_eq!(tokens["expires_in"], 900);
        let text = |member: &str| tokens[member].as_str().unwrap().to_owned();
        Self {
            access: text("access_token"),
            refresh: text("refresh_token"),
        }
    }
}

/// The environment of a function over these stores, which sends everywhere and without limits: a test
/// of a limit sets its own.
pub fn settings(database_url: &str, redis_url: &str) -> Vec<(String, String)> {
    [
        ("DATABASE_URL", database_url),
        ("REDIS_URL", redis_url),
        ("OTP_PEPPER", PEPPER),
        ("SMS_PROVIDER", "sns"),
        ("ALLOWED_COUNTRIES", "*"),
    ]
    .into_iter()
    .chain(LIMITS.map(|name| (name, "off")))
    .chain(token_settings())
    .map(|(name, value)| (name.to_owned(), value.to_owned()))
    .collect()
}

/// The environment of a function over these stores that writes its codes to the log, with the
/// defaults of all else.
pub fn local_settings<'a>(database_url: &'a str, redis_url: &'a str) -> Vec<(&'a str, &'a str)> {
    vec![
        ("DATABASE_URL", database_url),
        ("REDIS_URL", redis_url),
        ("OTP_PEPPER", PEPPER),
        ("ALLOWED_COUNTRIES", "*"),
        ("SMS_PROVIDER", "log"),
        ("OTP_LOCAL", "1"),
    ]
}

/// An API Gateway event (HTTP API, payload format 2.0).
pub fn event(method: &str, path: &str, body: &str) -> Value {
    json!({
        "version": "2.0",
        "routeKey": "$default",
        "rawPath": path,
        "rawQueryString": "",
        "headers": {"content-type": "application/json", "host": "api.example.com"},
        "requestContext": {
            "accountId": "123456789012",
            "apiId": "api",
            "domainName": "api.example.com",
            "http": {
                "method": method,
                "path": path,
                "protocol": "HTTP/1.1",
                "sourceIp": "203.0.113.10",
                "userAgent": "tests"
            },
            "requestId": "request",
            "routeKey": "$default",
            "stage": "$default",
            "time": "22/Nov/2026:00:00:00 +0000",
            "timeEpoch": 1_795_305_600_000_u64
        },
        "body": body,
        "isBase64Encoded": false
    })
}

/// Somebody signs up.
pub fn sign_up_event(phone: &str) -> Value {
    let body = json!({"name": "Ada", "phone_number": phone});
    event("POST", "/signup", &body.to_string())
}

/// Somebody submits a code.
pub fn verify_event(phone: &str, code: &str) -> Value {
    let body = json!({"otp": code, "phone_number": phone});
    event("POST", "/verify", &body.to_string())
}

/// A POST from a client at this address, who claims another one in a header.
pub fn event_from(address: &str, path: &str, body: &str) -> Value {
    let mut event = event("POST", path, body);
    event["requestContext"]["http"]["sourceIp"] = address.into();
    event["headers"]["x-forwarded-for"] =
        format!("192.0.2.{}", crate::random_number() % 256).into();
    event
}

impl Service {
    /// With the defaults of every setting.
    pub async fn start() -> Self {
        Self::start_with(&[]).await
    }

    /// With some settings of its own.
    pub async fn start_with(own: &[(&str, &str)]) -> Self {
        let (database, redis_server) = tokio::join!(Database::migrated(), RedisServer::start());
        let postgres = Proxy::to(&Database::address()).await;
        let redis = Proxy::to(&redis_server.address()).await;
        let mut settings = settings(
            &database.url_through(postgres.address()),
            &format!("redis://{}", redis.address()),
        );
        settings.extend(own.iter().map(|&(name, value)| (name.into(), value.into())));
        let env: Env = settings.into_iter().collect();
        let signup = Signup::from_env(&env).await.unwrap();
        let verify = Verify::from_env(&env).unwrap();
        let session = Session::from_env(&env).unwrap();
        tokio::join!(signup.connect(), verify.connect(), session.connect());
        Self {
            database,
            postgres,
            redis_server,
            redis,
            signup,
            verify,
            session,
        }
    }

    /// Another instance of `session`, with a connection and some settings of its own.
    pub async fn another_session(&self, own: &[(&str, &str)]) -> Session {
        let mut settings = settings(&self.database.url(), &self.redis_server.url());
        settings.extend(own.iter().map(|&(name, value)| (name.into(), value.into())));
        let session = Session::from_env(&settings.into_iter().collect()).unwrap();
        session.connect().await;
        session
    }

    /// Moves the service's clock from here on.
    pub fn set_clock_offset(&mut self, milliseconds: i64) {
        self.signup.challenges.set_clock_offset(milliseconds);
        self.verify.challenges.set_clock_offset(milliseconds);
    }

    pub async fn sign_up(&self, name: &str, phone: &str) -> Response {
        let body = json!({"name": name, "phone_number": phone});
        self.post_signup(&body.to_string()).await
    }

    /// A POST to `/signup`, `/login` or `/verify` from a client at this address.
    pub async fn post_from(&self, address: &str, path: &str, body: &Value) -> Response {
        let event = event_from(address, path, &body.to_string()).to_string();
        let request = from_str(&event).unwrap();
        Response::of_handler(match path {
            "/verify" => self.verify.handle(request).await,
            _ => self.signup.handle(request).await,
        })
    }

    pub async fn sign_up_from(&self, address: &str, phone: &str) -> Response {
        let body = json!({"name": "Ada", "phone_number": phone});
        self.post_from(address, "/signup", &body).await
    }

    pub async fn verify_from(&self, address: &str, phone: &str, code: &str) -> Response {
        let body = json!({"otp": code, "phone_number": phone});
        self.post_from(address, "/verify", &body).await
    }

    pub async fn log_in(&self, phone: &str) -> Response {
        let body = json!({"phone_number": phone});
        self.post_login(&body.to_string()).await
    }

    pub async fn log_in_from(&self, address: &str, phone: &str) -> Response {
        let body = json!({"phone_number": phone});
        self.post_from(address, "/login", &body).await
    }

    /// From a device that may be known.
    pub async fn log_in_on(&self, device_token: &str, phone: &str) -> Response {
        let body = json!({"phone_number": phone, "device_token": device_token});
        self.post_login(&body.to_string()).await
    }

    pub async fn verify(&self, phone: &str, code: &str) -> Response {
        let body = json!({"otp": code, "phone_number": phone});
        self.post_verify(&body.to_string()).await
    }

    pub async fn verify_challenge(&self, phone: &str, code: &str, id: &str) -> Response {
        let body = json!({"otp": code, "phone_number": phone, "challenge_id": id});
        self.post_verify(&body.to_string()).await
    }

    pub async fn post_signup(&self, body: &str) -> Response {
        let request = from_str(&event("POST", "/signup", body).to_string()).unwrap();
        Response::of_handler(self.signup.handle(request).await)
    }

    pub async fn post_login(&self, body: &str) -> Response {
        let request = from_str(&event("POST", "/login", body).to_string()).unwrap();
        Response::of_handler(self.signup.handle(request).await)
    }

    pub async fn post_verify(&self, body: &str) -> Response {
        let request = from_str(&event("POST", "/verify", body).to_string()).unwrap();
        Response::of_handler(self.verify.handle(request).await)
    }

    /// Signs up, verifies and returns the tokens.
    pub async fn sign_in(&self) -> Tokens {
        let phone = fresh_phone();
        let code = self.code_for(&phone).await;
        Tokens::of(&self.verify(&phone, &code).await)
    }

    pub async fn refresh(&self, token: &str) -> Response {
        self.post_session("/token/refresh", &json!({"refresh_token": token}))
            .await
    }

    /// Refreshes and returns the new tokens.
    pub async fn refreshed(&self, token: &str) -> Tokens {
        Tokens::of(&self.refresh(token).await)
    }

    pub async fn log_out(&self, token: &str) -> Response {
        self.post_session("/logout", &json!({"refresh_token": token}))
            .await
    }

    async fn post_session(&self, path: &str, body: &Value) -> Response {
        let request = from_str(&event("POST", path, &body.to_string()).to_string()).unwrap();
        Response::of_handler(self.session.handle(request).await)
    }

    /// `GET /me` with this header, if any.
    pub async fn me(&self, authorization: Option<&str>) -> Response {
        let mut event = event("GET", "/me", "");
        if let Some(text) = authorization {
            event["headers"]["authorization"] = text.into();
        }
        let request = from_str(&event.to_string()).unwrap();
        Response::of_handler(self.session.handle(request).await)
    }

    pub async fn get(&self, path: &str) -> Response {
        let request = from_str(&event("GET", path, "").to_string()).unwrap();
        Response::of_handler(self.session.handle(request).await)
    }

    /// Signs up and returns the code that was sent.
    pub async fn code_for(&self, phone: &str) -> String {
        let response = self.sign_up("Ada", phone).await;
        assert_eq!(response.status, 200, "{response:?}");
        last_code_to(phone).await
    }

    /// Registers the number and returns its user's id.
    pub async fn register(&self, phone: &str) -> i64 {
        let code = self.code_for(phone).await;
        let response = self.verify(phone, &code).await;
        assert_eq!(response.status, 200, "{response:?}");
        response.body["data"]["id"].as_i64().unwrap()
    }

    /// Logs in and returns the code that was sent.
    pub async fn login_code_for(&self, phone: &str) -> String {
        let response = self.log_in(phone).await;
        assert_eq!(response.status, 200, "{response:?}");
        last_code_to(phone).await
    }
}

/// The code of the newest message to this number.
pub async fn last_code_to(phone: &str) -> String {
    code_in(messages_to(phone).await.last().unwrap())
}

/// The code that a message begins with.
pub fn code_in(message: &str) -> String {
    message.split(' ').next().unwrap().to_owned()
}

/// A code of the same length that is certainly not `code`.
pub fn wrong(code: &str) -> String {
    let length = code.len();
    let number: u64 = code.parse().unwrap();
    let next = (number + 1) % 10_u64.pow(u32::try_from(length).unwrap());
    format!("{next:0length$}")
}
