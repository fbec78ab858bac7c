//! The functions in this process, over stores of their own.

use std::ops::{Deref, DerefMut};

use lambda_http::request::from_str;
use serde_json::{Value, json};
use session::Session;
use shared::{config::Env, lambda::Function as _};
use signup::Signup;
use tokio::time::timeout;
use verify::Verify;

use crate::{
    Challenge, Database, PATIENCE, PEPPER, Proxy, RedisServer, Response, Tokens, event, event_from,
    fresh_phone, set_header, token_settings, variable,
};

/// The three functions, as their clients see them.
pub struct Functions {
    pub signup: Signup,
    pub verify: Verify,
    pub session: Session,
}

/// The functions over stores of their own, with proxies in between.
pub struct Service {
    functions: Functions,
    pub database: Database,
    pub postgres: Proxy,
    pub redis_server: RedisServer,
    pub redis: Proxy,
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

/// The environment of a function over these stores, which sends everywhere, over moto where it runs,
/// and without limits: a test of a limit sets its own.
pub fn settings(database_url: &str, redis_url: &str) -> Vec<(String, String)> {
    let moto = variable("AWS_ENDPOINT_URL_SNS").unwrap_or_default();
    [
        ("DATABASE_URL", database_url),
        ("REDIS_URL", redis_url),
        ("OTP_PEPPER", PEPPER),
        ("SMS_PROVIDER", "sns"),
        ("AWS_REGION", "us-east-1"),
        ("AWS_ENDPOINT_URL_SNS", &moto),
        ("AWS_ENDPOINT_URL_SECRETS_MANAGER", &moto),
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

impl Service {
    /// With the defaults of every setting but the limits, which are off.
    pub async fn start() -> Self {
        Self::start_with(&[]).await
    }

    /// With some settings of its own.
    pub async fn start_with(own: &[(&str, &str)]) -> Self {
        let (database, redis_server) = tokio::join!(Database::migrated(), RedisServer::start());
        let postgres = Proxy::to(&Database::address()).await;
        let redis = Proxy::to(&redis_server.address()).await;
        let database_url = database.url_through(postgres.address());
        let redis_url = format!("redis://{}", redis.address());
        let functions = Functions::over(&database_url, &redis_url, own);
        functions.connect().await;
        Self {
            functions,
            database,
            postgres,
            redis_server,
            redis,
        }
    }

    /// Other instances over the same stores, with some settings of their own. They connect when
    /// they are first asked for something.
    pub fn others(&self, own: &[(&str, &str)]) -> Functions {
        Functions::over(&self.database.url(), &self.redis_server.url(), own)
    }

    /// The round trips so far, to Redis and to Postgres.
    pub fn round_trips(&self) -> (usize, usize) {
        (self.redis.round_trips(), self.postgres.round_trips())
    }

    /// Waits for something, and counts the round trips that it takes, to Redis and to Postgres.
    pub async fn counting<T>(&self, request: impl Future<Output = T>) -> (T, (usize, usize)) {
        let before = self.round_trips();
        let value = request.await;
        let after = self.round_trips();
        (value, (after.0 - before.0, after.1 - before.1))
    }

    /// Sets the service's clock to so many seconds from now.
    pub fn set_clock(&mut self, seconds: u64) {
        let milliseconds = i64::try_from(seconds * 1000).unwrap();
        self.signup.delivery.issuer.set_clock_offset(milliseconds);
        self.verify.checker.set_clock_offset(milliseconds);
    }
}

impl Deref for Service {
    type Target = Functions;

    fn deref(&self) -> &Functions {
        &self.functions
    }
}

impl DerefMut for Service {
    fn deref_mut(&mut self) -> &mut Functions {
        &mut self.functions
    }
}

impl Functions {
    /// Over these stores, not connected yet, with some settings of their own.
    pub fn over(database_url: &str, redis_url: &str, own: &[(&str, &str)]) -> Self {
        let mut settings = settings(database_url, redis_url);
        settings.extend(own.iter().map(|&(name, value)| (name.into(), value.into())));
        let env: Env = settings.into_iter().collect();
        Self {
            signup: Signup::from_env(&env).unwrap(),
            verify: Verify::from_env(&env).unwrap(),
            session: Session::from_env(&env).unwrap(),
        }
    }

    pub async fn connect(&self) {
        tokio::join!(
            self.signup.connect(),
            self.verify.connect(),
            self.session.connect()
        );
    }

    /// The response of the function of this name, which has to come before the patience ends.
    pub async fn send(&self, function: &str, event: &Value) -> Response {
        let request = from_str(&event.to_string()).unwrap();
        let response = async {
            match function {
                "signup" => self.signup.handle(request).await,
                "verify" => self.verify.handle(request).await,
                _ => self.session.handle(request).await,
            }
        };
        let response = timeout(PATIENCE, response).await;
        Response::of_handler(response.expect("no response in time"))
    }

    /// A POST from the address of `event`.
    pub async fn post(&self, path: &str, body: &Value) -> Response {
        let event = event("POST", path, &body.to_string());
        self.send(function_of(path), &event).await
    }

    /// A POST from a client at this address.
    pub async fn post_from(&self, address: &str, path: &str, body: &Value) -> Response {
        let event = event_from(address, path, &body.to_string());
        self.send(function_of(path), &event).await
    }

    pub async fn sign_up(&self, phone: &str) -> Response {
        self.sign_up_as("Ada", phone).await
    }

    pub async fn sign_up_as(&self, name: &str, phone: &str) -> Response {
        let body = json!({"name": name, "phone_number": phone});
        self.post("/signup", &body).await
    }

    pub async fn sign_up_from(&self, address: &str, phone: &str) -> Response {
        let body = json!({"name": "Ada", "phone_number": phone});
        self.post_from(address, "/signup", &body).await
    }

    pub async fn log_in(&self, phone: &str) -> Response {
        self.post("/login", &json!({"phone_number": phone})).await
    }

    pub async fn log_in_from(&self, address: &str, phone: &str) -> Response {
        let body = json!({"phone_number": phone});
        self.post_from(address, "/login", &body).await
    }

    /// From a device that may be known.
    pub async fn log_in_on(&self, device_token: &str, phone: &str) -> Response {
        let body = json!({"phone_number": phone, "device_token": device_token});
        self.post("/login", &body).await
    }

    /// Submits a code without an id, so for the phone's newest challenge.
    pub async fn verify(&self, phone: &str, code: &str) -> Response {
        let body = json!({"otp": code, "phone_number": phone});
        self.post("/verify", &body).await
    }

    pub async fn verify_from(&self, address: &str, phone: &str, code: &str) -> Response {
        let body = json!({"otp": code, "phone_number": phone});
        self.post_from(address, "/verify", &body).await
    }

    pub async fn verify_challenge(&self, phone: &str, code: &str, id: &str) -> Response {
        let body = json!({"otp": code, "phone_number": phone, "challenge_id": id});
        self.post("/verify", &body).await
    }

    /// Submits the code of a challenge, with its id.
    pub async fn submit(&self, challenge: &Challenge) -> Response {
        let Challenge { phone, id, code } = challenge;
        self.verify_challenge(phone, code, id).await
    }

    /// Submits a wrong code with the id of a challenge.
    pub async fn guess(&self, challenge: &Challenge) -> Response {
        let Challenge { phone, id, .. } = challenge;
        let code = challenge.wrong_code();
        self.verify_challenge(phone, &code, id).await
    }

    /// Signs up.
    pub async fn challenge(&self, phone: &str) -> Challenge {
        Challenge::of(&self.sign_up(phone).await, phone).await
    }

    /// Logs in.
    pub async fn login_challenge(&self, phone: &str) -> Challenge {
        Challenge::of(&self.log_in(phone).await, phone).await
    }

    /// Signs up and returns the code that was sent.
    pub async fn code_for(&self, phone: &str) -> String {
        self.challenge(phone).await.code
    }

    /// Logs in and returns the code that was sent.
    pub async fn login_code_for(&self, phone: &str) -> String {
        self.login_challenge(phone).await.code
    }

    /// A number that has just signed up, and its code.
    pub async fn fresh_code(&self) -> (String, String) {
        let phone = fresh_phone();
        let code = self.code_for(&phone).await;
        (phone, code)
    }

    /// Registers the number, and returns the response.
    pub async fn register(&self, phone: &str) -> Response {
        let code = self.code_for(phone).await;
        let response = self.verify(phone, &code).await;
        response.assert_ok();
        response
    }

    /// Registers the number, and returns its device's token.
    pub async fn known_device(&self, phone: &str) -> String {
        let response = self.register(phone).await;
        response.text("device_token").to_owned()
    }

    /// Registers a number, and returns it.
    pub async fn registered(&self) -> String {
        let phone = fresh_phone();
        self.register(&phone).await;
        phone
    }

    /// Registers a number, and returns the tokens.
    pub async fn sign_in(&self) -> Tokens {
        Tokens::of(&self.register(&fresh_phone()).await)
    }

    /// Logs in, and returns the tokens.
    pub async fn log_in_again(&self, phone: &str) -> Tokens {
        let challenge = self.login_challenge(phone).await;
        Tokens::of(&self.submit(&challenge).await)
    }

    pub async fn refresh(&self, token: &str) -> Response {
        let body = json!({"refresh_token": token});
        self.post("/token/refresh", &body).await
    }

    /// Refreshes and returns the new tokens.
    pub async fn refreshed(&self, token: &str) -> Tokens {
        Tokens::of(&self.refresh(token).await)
    }

    pub async fn log_out(&self, token: &str) -> Response {
        self.post("/logout", &json!({"refresh_token": token})).await
    }

    pub async fn log_out_everywhere(&self, token: &str) -> Response {
        let body = json!({"refresh_token": token, "everywhere": true});
        self.post("/logout", &body).await
    }

    /// `GET /me` with this access token.
    pub async fn me(&self, token: &str) -> Response {
        self.me_with(Some(&format!("Bearer {token}"))).await
    }

    /// `GET /me` with this header, if any.
    pub async fn me_with(&self, authorization: Option<&str>) -> Response {
        let mut event = event("GET", "/me", "");
        set_header(&mut event, "authorization", authorization);
        self.send("session", &event).await
    }

    /// `PATCH /me` with this access token.
    pub async fn rename(&self, token: &str, name: &str, version: i64) -> Response {
        let body = json!({"name": name, "version": version}).to_string();
        self.send_as(token, "PATCH", "/me", &body).await
    }

    /// `DELETE /me` with this access token.
    pub async fn delete_user(&self, token: &str) -> Response {
        self.send_as(token, "DELETE", "/me", "").await
    }

    /// `GET /me/sessions` with this access token.
    pub async fn sessions(&self, token: &str) -> Response {
        self.send_as(token, "GET", "/me/sessions", "").await
    }

    /// `DELETE /me/sessions/{id}` with this access token.
    pub async fn end_session(&self, token: &str, id: &str) -> Response {
        let path = format!("/me/sessions/{id}");
        self.send_as(token, "DELETE", &path, "").await
    }

    /// `POST /me/phone` with this access token.
    pub async fn change_phone(&self, token: &str, phone: &str) -> Response {
        let body = json!({"phone_number": phone}).to_string();
        self.send_as(token, "POST", "/me/phone", &body).await
    }

    /// Requests a new number, which must be a success.
    pub async fn change_challenge(&self, token: &str, phone: &str) -> Challenge {
        Challenge::of(&self.change_phone(token, phone).await, phone).await
    }

    /// Submits the code of a challenge, with its id and this access token.
    pub async fn submit_as(&self, token: &str, challenge: &Challenge) -> Response {
        let Challenge { phone, id, code } = challenge;
        let body = json!({"otp": code, "phone_number": phone, "challenge_id": id}).to_string();
        self.send_as(token, "POST", "/verify", &body).await
    }

    /// A request with this access token.
    pub async fn send_as(&self, token: &str, method: &str, path: &str, body: &str) -> Response {
        let mut event = event(method, path, body);
        let bearer = format!("Bearer {token}");
        set_header(&mut event, "authorization", Some(&bearer));
        self.send(function_of(path), &event).await
    }

    pub async fn get(&self, path: &str) -> Response {
        self.send("session", &event("GET", path, "")).await
    }
}

fn function_of(path: &str) -> &'static str {
    match path {
        "/signup" | "/login" | "/me/phone" => "signup",
        "/verify" => "verify",
        _ => "session",
    }
}
