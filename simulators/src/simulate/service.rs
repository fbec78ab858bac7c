//! The service as its clients meet it, at a chosen time: the handlers of `signup` and `verify` in
//! this process, over a Redis server and a database of their own.

use std::{
    collections::HashMap,
    io::{BufRead, StdinLock, stdin},
    sync::{Arc, Mutex},
    time::Duration,
};

use harness::{
    Behaviour, Database, Provider, RedisServer, event_from, local_settings, since_1970,
    token_settings,
};
use lambda_http::{Body, Request, Response, request::from_str};
use serde_json::{Value, json};
use shared::{config::Env, lambda::Function as _};
use signup::Signup;
use tracing::{Event, Subscriber, field, level_filters::LevelFilter};
use tracing_subscriber::{
    Layer,
    layer::{Context, SubscriberExt},
    util::SubscriberInitExt,
};
use verify::Verify;

/// Midnight of the first simulated day: 2027-01-01 in UTC.
const MIDNIGHT: Duration = Duration::from_hours(499_656);

/// So long that no time-out blurs the figures on a busy machine. No limit depends on it.
const PATIENCE: [(&str, &str); 2] = [
    ("STORE_TIMEOUT_MS", "15000"),
    ("REQUEST_TIMEOUT_MS", "60000"),
];

pub struct Service {
    signup: Signup,
    verify: Verify,
    /// `signup` over the same stores, whose provider rejects every number.
    rejecting: Signup,
    provider: Provider,
    codes: Codes,
    log: StdinLock<'static>,
    _redis: RedisServer,
    _database: Database,
}

/// A request for a code.
#[derive(Clone, Copy)]
pub struct Ask<'a> {
    pub route: Route,
    pub phone: &'a str,
    pub address: &'a str,
    pub device_token: Option<&'a str>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Route {
    SignUp,
    LogIn,
}

/// The response to a request for a code.
pub enum Asked {
    Sent(Challenge),
    Refused(Refusal),
    /// The number is registered and should not be, or the other way round.
    Registration,
    /// The provider rejected the number.
    Rejected,
}

/// A challenge whose code was sent, for it or for another one of the phone.
#[derive(Clone)]
pub struct Challenge {
    pub id: String,
    pub code: String,
    /// No message went out: the phone's newest code is good for this challenge too.
    pub is_shared: bool,
}

/// A submitted code.
#[derive(Clone, Copy)]
pub struct Submission<'a> {
    pub phone: &'a str,
    pub address: &'a str,
    pub code: &'a str,
    pub challenge_id: Option<&'a str>,
}

/// The response to a submitted code.
pub enum Checked {
    SignedIn {
        device_token: String,
    },
    /// `is_evaluated`: it was compared, and an attempt spent.
    Wrong {
        is_evaluated: bool,
    },
    Expired,
    Refused(Refusal),
}

/// A 429.
pub struct Refusal {
    /// The limit's word in the log.
    pub by: String,
    pub retry_after: Duration,
}

impl Service {
    /// Expects that this process's stdout is piped into its stdin. The handlers write one line per
    /// request, and only there it says which limit refused.
    pub async fn start(own: &[(&str, &str)]) -> Self {
        let codes = Codes::default();
        let collect = codes.clone().with_filter(LevelFilter::INFO);
        tracing_subscriber::registry().with(collect).init();
        let (database, redis) = tokio::join!(Database::migrated(), RedisServer::start());
        let (database_url, redis_url) = (database.url(), redis.url());
        let mut settings = local_settings(&database_url, &redis_url);
        settings.extend(PATIENCE);
        settings.extend(token_settings());
        settings.extend(own);
        let env: Env = settings.iter().copied().collect();
        let provider = Provider::start(Behaviour::Refuse(400, "InvalidParameter")).await;
        let provider_url = provider.url();
        settings.extend([
            ("SMS_PROVIDER", "sns"),
            ("AWS_REGION", "us-east-1"),
            ("AWS_ENDPOINT_URL_SNS", &provider_url),
        ]);
        let rejecting: Env = settings.into_iter().collect();
        let this = Self {
            signup: Signup::from_env(&env).unwrap(),
            verify: Verify::from_env(&env).unwrap(),
            rejecting: Signup::from_env(&rejecting).unwrap(),
            provider,
            codes,
            log: stdin().lock(),
            _redis: redis,
            _database: database,
        };
        tokio::join!(
            this.signup.connect(),
            this.verify.connect(),
            this.rejecting.connect()
        );
        this
    }

    /// `POST /signup` or `POST /login`.
    pub async fn ask(&mut self, at: Duration, ask: Ask<'_>) -> Asked {
        self.signup.delivery.issuer.set_clock_offset(offset(at));
        let response = self.signup.handle(ask.request()).await;
        self.read_asked(&response, ask.phone)
    }

    /// The same, where the provider rejects the number.
    pub async fn ask_rejected(&mut self, at: Duration, ask: Ask<'_>) -> Asked {
        self.rejecting.delivery.issuer.set_clock_offset(offset(at));
        let response = self.rejecting.handle(ask.request()).await;
        self.read_asked(&response, ask.phone)
    }

    /// The number of requests that reached the rejecting provider.
    pub fn rejected_messages(&self) -> usize {
        self.provider.requests().len()
    }

    /// `POST /verify`.
    pub async fn check(&mut self, at: Duration, submission: Submission<'_>) -> Checked {
        self.verify.checker.set_clock_offset(offset(at));
        let response = self.verify.handle(submission.request()).await;
        let line = self.read_line();
        let body = body(&response);
        match (response.status().as_u16(), text(&body, "code")) {
            (200, _) => Checked::SignedIn {
                device_token: text(&body, "device_token").to_owned(),
            },
            (401, "otp_mismatch") => Checked::Wrong {
                is_evaluated: body.get("attempts_remaining").is_some(),
            },
            (401, "otp_expired") => Checked::Expired,
            (429, _) => Checked::Refused(refusal(&body, &line)),
            _ => panic!("{} {body}", response.status()),
        }
    }

    fn read_asked(&mut self, response: &Response<Body>, phone: &str) -> Asked {
        let line = self.read_line();
        let body = body(response);
        match response.status().as_u16() {
            200 => {
                let code = self.codes.newest(phone);
                assert_eq!(body["code_length"], code.len(), "{body}");
                Asked::Sent(Challenge {
                    id: text(&body, "challenge_id").to_owned(),
                    code,
                    is_shared: line["outcome"] == "shared",
                })
            }
            404 | 409 => Asked::Registration,
            429 => Asked::Refused(refusal(&body, &line)),
            502 => Asked::Rejected,
            _ => panic!("{} {body}", response.status()),
        }
    }

    /// Reads the line of the request that was handled last.
    fn read_line(&mut self) -> Value {
        let mut line = String::new();
        self.log.read_line(&mut line).unwrap();
        serde_json::from_str(&line).unwrap()
    }
}

impl Ask<'_> {
    fn request(self) -> Request {
        let mut body = json!({"phone_number": self.phone});
        if let Some(token) = self.device_token {
            body["device_token"] = token.into();
        }
        if self.route == Route::SignUp {
            body["name"] = "Ada Lovelace".into();
        }
        let path = match self.route {
            Route::SignUp => "/signup",
            Route::LogIn => "/login",
        };
        request(self.address, path, &body)
    }
}

impl Submission<'_> {
    fn request(self) -> Request {
        let mut body = json!({"phone_number": self.phone, "otp": self.code});
        if let Some(id) = self.challenge_id {
            body["challenge_id"] = id.into();
        }
        request(self.address, "/verify", &body)
    }
}

fn request(address: &str, path: &str, body: &Value) -> Request {
    let event = event_from(address, path, &body.to_string());
    from_str(&event.to_string()).unwrap()
}

fn body(response: &Response<Body>) -> Value {
    serde_json::from_slice(response.body()).unwrap()
}

fn text<'a>(body: &'a Value, member: &str) -> &'a str {
    body[member].as_str().unwrap_or_default()
}

fn refusal(body: &Value, line: &Value) -> Refusal {
    Refusal {
        by: text(line, "kind").to_owned(),
        retry_after: Duration::from_secs(body["retry_after"].as_u64().unwrap()),
    }
}

/// The offset that moves Redis's clock to `at`. Its clock is ours, and runs on meanwhile.
fn offset(at: Duration) -> i64 {
    let simulated = i64::try_from((MIDNIGHT + at).as_millis()).unwrap();
    simulated - i64::try_from(since_1970().as_millis()).unwrap()
}

/// The newest code that the `log` sender wrote for each phone number.
#[derive(Clone, Default)]
struct Codes(Arc<Mutex<HashMap<String, String>>>);

impl Codes {
    fn newest(&self, phone: &str) -> String {
        self.0.lock().unwrap()[phone].clone()
    }
}

impl<S: Subscriber> Layer<S> for Codes {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let mut message = Message::default();
        event.record(&mut message);
        if let (Some(phone), Some(code)) = (message.phone_number, message.otp) {
            self.0.lock().unwrap().insert(phone, code);
        }
    }
}

#[derive(Default)]
struct Message {
    phone_number: Option<String>,
    otp: Option<String>,
}

impl field::Visit for Message {
    fn record_str(&mut self, field: &field::Field, value: &str) {
        match field.name() {
            "phone_number" => self.phone_number = Some(value.to_owned()),
            "otp" => self.otp = Some(value.to_owned()),
            _ => {}
        }
    }

    fn record_debug(&mut self, _: &field::Field, _: &dyn std::fmt::Debug) {}
}
