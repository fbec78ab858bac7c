//! Replacing the pepper and the signing key while functions run.
#![expect(
    clippy::disallowed_methods,
    reason = "the clock of the test begins at the system's"
)]

use std::{
    collections::VecDeque,
    path::Path,
    time::{Duration, SystemTime},
};

use harness::{
    Challenge, Database, Function, Invocation, Key, Proxy, RedisServer, Response, Sandbox, Tokens,
    create_secret, decoded, event, fresh_phone, moto, put_secret, secret_text, set_header,
    settings, until,
};
use lambda_http::request::from_str;
use migrate::{
    Migrate,
    rotation::{Order, Rotations, What},
};
use serde_json::{Value, json};
use session::Session;
use shared::{
    config::Env,
    current::{Current, NOTICED, REREAD},
    lambda::Function as _,
};
use signup::Signup;
use tokio::net::TcpListener;
use verify::Verify;

const MINUTE: Duration = Duration::from_mins(1);

/// A deployment with two sandboxes of each function, by a clock of the test's.
struct Service {
    now: SystemTime,
    database: Database,
    redis_server: RedisServer,
    secrets: Secrets,
    migrate: Migrate,
    signup: Vec<Current<Signup>>,
    verify: Vec<Current<Verify>>,
    session: Vec<Current<Session>>,
}

/// The ARNs of both secrets.
struct Secrets {
    sign_in: String,
    signup: String,
}

impl Secrets {
    /// After a setup.
    async fn new(database: &Database) -> Self {
        let (sign_in, signup) = (create_secret(None).await, create_secret(None).await);
        let secrets = Self { sign_in, signup };
        let migrate = secrets.migrate(database);
        migrate.run(migrate::Command::Setup).await.unwrap();
        secrets
    }

    fn migrate(&self, database: &Database) -> Migrate {
        let env = Env::from([
            ("DATABASE_URL", &*database.url()),
            ("SIGN_IN_SECRET_ARN", &self.sign_in),
            ("SIGNUP_SECRET_ARN", &self.signup),
        ]);
        Migrate::from_env(&env).unwrap()
    }

    async fn sign_in(&self) -> Value {
        serde_json::from_str(&secret_text(&self.sign_in).await.unwrap()).unwrap()
    }

    async fn peppers(&self) -> Vec<String> {
        let members = self.sign_in().await;
        let peppers = members["OTP_PEPPER"].as_str().unwrap().split(',');
        peppers.map(str::to_owned).collect()
    }
}

impl Service {
    /// The sandboxes start four minutes apart, so that they do not read the secret together.
    async fn start() -> Self {
        let (database, redis_server) = tokio::join!(Database::migrated(), RedisServer::start());
        let secrets = Secrets::new(&database).await;
        let mut service = Self {
            now: SystemTime::now(),
            migrate: secrets.migrate(&database),
            secrets,
            signup: Vec::new(),
            verify: Vec::new(),
            session: Vec::new(),
            database,
            redis_server,
        };
        for _ in 0..2 {
            service.start_sandboxes().await;
            service.now += 4 * MINUTE;
        }
        service
    }

    async fn start_sandboxes(&mut self) {
        let env = |secret: &str| -> Env {
            let settings = settings(&self.database.url(), &self.redis_server.url());
            let secret = [("SECRET_ARN".to_owned(), secret.to_owned())];
            settings.into_iter().chain(secret).collect()
        };
        let (sign_in, signup) = (env(&self.secrets.sign_in), env(&self.secrets.signup));
        let start = Current::start(signup, REREAD, self.now).await;
        self.signup.push(start.unwrap());
        let start = Current::start(sign_in.clone(), REREAD, self.now).await;
        self.verify.push(start.unwrap());
        let start = Current::start(sign_in, REREAD, self.now).await;
        self.session.push(start.unwrap());
    }

    async fn rotate(&self, order: Option<Order>) -> Rotations {
        self.migrate.rotate(order, self.now).await.unwrap()
    }

    /// Sends an event to a sandbox of the path's function.
    async fn send(&self, sandbox: usize, event: &Value) -> Response {
        let request = from_str(&event.to_string()).unwrap();
        let response = match event["rawPath"].as_str().unwrap() {
            "/signup" | "/login" | "/me/phone" => {
                let function = self.signup[sandbox].function_at(self.now).await;
                function.handle(request).await
            }
            "/verify" => {
                let function = self.verify[sandbox].function_at(self.now).await;
                function.handle(request).await
            }
            _ => {
                let function = self.session[sandbox].function_at(self.now).await;
                function.handle(request).await
            }
        };
        Response::of_handler(response)
    }

    async fn post(&self, sandbox: usize, path: &str, body: &Value) -> Response {
        self.send(sandbox, &event("POST", path, &body.to_string()))
            .await
    }

    async fn sign_up(&self, sandbox: usize) -> Challenge {
        let phone = fresh_phone();
        let body = json!({"name": "Ada", "phone_number": phone});
        Challenge::of(&self.post(sandbox, "/signup", &body).await, &phone).await
    }

    async fn submit(&self, sandbox: usize, challenge: &Challenge) -> Response {
        let Challenge { phone, id, code } = challenge;
        let body = json!({"otp": code, "phone_number": phone, "challenge_id": id});
        self.post(sandbox, "/verify", &body).await
    }

    async fn refresh(&self, sandbox: usize, token: &str) -> Response {
        let body = json!({"refresh_token": token});
        self.post(sandbox, "/token/refresh", &body).await
    }

    async fn me(&self, sandbox: usize, token: &str) -> Response {
        let mut event = event("GET", "/me", "");
        set_header(
            &mut event,
            "authorization",
            Some(&format!("Bearer {token}")),
        );
        self.send(sandbox, &event).await
    }

    /// The ids of the public keys that a sandbox publishes.
    async fn published(&self, sandbox: usize) -> Vec<String> {
        let event = event("GET", "/.well-known/jwks.json", "");
        let keys = self.send(sandbox, &event).await.body;
        let keys = keys["keys"].as_array().unwrap().iter();
        keys.map(|key| key["kid"].as_str().unwrap().to_owned())
            .collect()
    }

    /// An event for each sandbox, so that each serves with values of up to [`REREAD`] ago.
    async fn touch_all(&self) {
        for sandbox in 0..2 {
            self.touch(sandbox).await;
        }
    }

    async fn touch(&self, sandbox: usize) {
        for path in ["/signup", "/verify", "/me"] {
            self.send(sandbox, &event("PUT", path, "")).await;
        }
    }
}

fn kid(token: &str) -> String {
    decoded(token)[0]["kid"].as_str().unwrap().to_owned()
}

/// Public keys that somebody keeps for a time.
struct Cache {
    lifetime: Duration,
    fetched: SystemTime,
    keys: Vec<String>,
}

impl Cache {
    fn is_old(&self, now: SystemTime) -> bool {
        now.duration_since(self.fetched).unwrap() >= self.lifetime
    }
}

/// Sign-ins whose codes are submitted at once or late, refreshes that are repeated on
/// another sandbox, devices, and verifiers that keep the public keys for two hours.
#[tokio::test]
async fn nobody_notices_a_day_of_rotations() {
    const DAY: u32 = 24 * 60;
    let mut service = Service::start().await;
    let peppers = service.secrets.peppers().await;
    let begun = service.now;

    let mut pending = VecDeque::new();
    let mut signed_in: VecDeque<(SystemTime, Tokens)> = VecDeque::new();
    let mut devices: Vec<(String, String)> = Vec::new();
    // What CloudFront keeps, from which API Gateway's authorizers fetch.
    let cache = |keys: &Vec<String>, minutes| Cache {
        lifetime: minutes * MINUTE,
        fetched: begun,
        keys: keys.clone(),
    };
    let keys = service.published(0).await;
    let mut edge = cache(&keys, 15);
    let mut verifiers = [120, 90, 60, 30].map(|minutes| cache(&keys, minutes));

    let mut minute = 0;
    // One rotation in the first half of the day, and both together in the second.
    let mut orders = VecDeque::from([
        (60, What::Pepper),
        (120, What::SigningKey),
        (720, What::Pepper),
        (720, What::SigningKey),
    ]);
    for step in 0_usize.. {
        if minute >= DAY {
            break;
        }
        while orders.front().is_some_and(|(at, _)| *at <= minute) {
            let what = orders.pop_front().unwrap().1;
            // It has just read the old value, and the other sandbox will read the new one first.
            service.touch(0).await;
            let leaked = false;
            service.rotate(Some(Order { what, leaked })).await;
        }
        let rotations = service.rotate(None).await;
        service.touch_all().await;

        if edge.is_old(service.now) {
            edge = cache(&service.published(step / 8 % 2).await, 15);
            edge.fetched = service.now;
        }
        for verifier in &mut verifiers {
            if verifier.is_old(service.now) {
                // The one of half an hour keeps keys for two hours from then on.
                verifier.lifetime = 120 * MINUTE;
                verifier.fetched = service.now;
                verifier.keys.clone_from(&edge.keys);
            }
        }

        for (sandbox, other) in [(0, 1), (1, 0)] {
            let challenge = service.sign_up(sandbox).await;
            service.submit(other, &challenge).await.assert_ok();
        }
        let challenge = service.sign_up(step % 2).await;
        pending.push_back((service.now + 8 * MINUTE, challenge));
        while pending.front().is_some_and(|(due, _)| *due <= service.now) {
            let (_, challenge) = pending.pop_front().unwrap();
            let response = service.submit(step / 2 % 2, &challenge).await;
            signed_in.push_back((service.now, Tokens::of(&response)));
            if devices.len() < 6 {
                devices.push((challenge.phone, response.text("device_token").to_owned()));
            }
        }
        for (_, tokens) in &signed_in {
            let kid = kid(&tokens.access);
            for verifier in &verifiers {
                assert!(verifier.keys.contains(&kid), "at minute {minute}");
            }
        }
        let over = |(since, _): &(SystemTime, _)| *since + 15 * MINUTE <= service.now;
        while signed_in.front().is_some_and(over) {
            let (_, tokens) = signed_in.pop_front().unwrap();
            service.me(step % 2, &tokens.access).await.assert_ok();
            let refreshed = Tokens::of(&service.refresh(step / 2 % 2, &tokens.refresh).await);
            // The response was lost.
            let again = Tokens::of(&service.refresh(step / 4 % 2, &tokens.refresh).await);
            assert_eq!(again.refresh, refreshed.refresh, "at minute {minute}");
            for sandbox in 0..2 {
                service.me(sandbox, &again.access).await.assert_ok();
            }
        }
        // Each device signs in every two hours or so.
        if let Some((phone, device)) = devices.get_mut(step % 30) {
            let body = json!({"phone_number": phone, "device_token": device});
            let response = service.post(step % 2, "/login", &body).await;
            let challenge = Challenge::of(&response, phone).await;
            let response = service.submit(step / 2 % 2, &challenge).await;
            let token = response.text("device_token").to_owned();
            assert_eq!(token[..32], device[..32], "unknown at minute {minute}");
            *device = token;
        }
        let pace = if rotations == Rotations::default() {
            12
        } else {
            4
        };
        minute += pace;
        service.now += pace * MINUTE;
    }

    let after = service.secrets.peppers().await;
    assert_eq!(after.len(), 2);
    assert!(!after.contains(&peppers[0]));
    let new_keys = service.published(0).await;
    assert_eq!((new_keys.len(), &edge.keys), (1, &new_keys));
    assert!(!keys.contains(&new_keys[0]));
    assert_eq!(service.secrets.sign_in().await.get("ROTATION"), None);
}

/// The drill: the thief has the signing key, so an access token of theirs need not expire. The one
/// here does not expire in this test.
#[tokio::test]
async fn a_leaked_key_is_refused_by_us_after_five_minutes_and_elsewhere_with_the_cached_keys() {
    let mut service = Service::start().await;
    let response = service.submit(0, &service.sign_up(0).await).await;
    let tokens = Tokens::of(&response);
    let stolen = kid(&tokens.access);
    // The first sandboxes have just read the secret.
    service.touch_all().await;
    let ordered = service.now;
    let what = What::SigningKey;
    service.rotate(Some(Order { what, leaked: true })).await;

    // CloudFront fetches from a sandbox that is late, and a verifier from CloudFront.
    service.now = ordered + REREAD - Duration::from_secs(1);
    let keys = service.published(0).await;
    assert!(keys.contains(&stolen), "nobody is late");
    let forgotten = service.now + 15 * MINUTE + 120 * MINUTE;
    assert!(forgotten < ordered + 140 * MINUTE);

    for minutes in [5, 140] {
        service.now = ordered + minutes * MINUTE;
        for sandbox in 0..2 {
            assert_eq!(service.me(sandbox, &tokens.access).await.status, 401);
            let mut change = event("POST", "/me/phone", r#"{"phone_number": "+14155552671"}"#);
            let bearer = format!("Bearer {}", tokens.access);
            set_header(&mut change, "authorization", Some(&bearer));
            assert_eq!(service.send(sandbox, &change).await.status, 401);
            // Whoever fetches the keys from now on refuses it too.
            assert!(!service.published(sandbox).await.contains(&stolen));
        }
    }

    // Nobody was signed out.
    let mut refresh = tokens.refresh;
    for sandbox in 0..2 {
        let refreshed = Tokens::of(&service.refresh(sandbox, &refresh).await);
        service.me(sandbox, &refreshed.access).await.assert_ok();
        refresh = refreshed.refresh;
    }
}

#[tokio::test]
async fn a_leaked_pepper_makes_no_code_and_no_device_known_five_minutes_later() {
    let mut service = Service::start().await;
    let response = service.submit(0, &service.sign_up(0).await).await;
    let device = response.text("device_token").to_owned();
    let pending = service.sign_up(1).await;
    let what = What::Pepper;
    service.rotate(Some(Order { what, leaked: true })).await;
    service.now += REREAD;
    for sandbox in 0..2 {
        assert_eq!(service.submit(sandbox, &pending).await.status, 401);
    }
    let phone = response.body["data"]["phone_number"].as_str().unwrap();
    let body = json!({"phone_number": phone, "device_token": device});
    let response = service.post(0, "/login", &body).await;
    let challenge = Challenge::of(&response, phone).await;
    let response = service.submit(1, &challenge).await;
    response.assert_ok();
    assert_ne!(response.text("device_token")[..32], device[..32]);
    // Sessions go on.
    service
        .refresh(0, &Tokens::of(&response).refresh)
        .await
        .assert_ok();
    assert!(NOTICED > REREAD);
}

#[tokio::test]
async fn the_command_begins_a_rotation_once_and_the_schedule_goes_on_with_it() {
    let database = Database::migrated().await;
    let secrets = Secrets::new(&database).await;
    let moto = moto();
    let settings = |database_url| {
        [
            ("DATABASE_URL", database_url),
            ("SIGN_IN_SECRET_ARN", &*secrets.sign_in),
            ("SIGNUP_SECRET_ARN", &secrets.signup),
            ("AWS_REGION", "us-east-1"),
            ("AWS_ENDPOINT_URL_SECRETS_MANAGER", &moto),
        ]
    };
    // Nothing is under way, so no database is needed.
    let gone = "postgres://otp@127.0.0.1:1/otp";
    let mut idle = Function::start("migrate", settings(gone)).await;
    let none = json!({"pepper": null, "signing_key": null});
    let go_on = json!({"command": "rotate"});
    assert_report(&mut idle, &go_on, &none).await;

    let url = database.url();
    let mut migrate = Function::start("migrate", settings(&url)).await;
    for event in [
        json!({"command": "rotate", "what": "pepper"}),
        json!({"command": "rotate", "what": "pepper", "leaked": false}),
        go_on.clone(),
    ] {
        let Invocation::Responded(report) = migrate.invoke(&event).await else {
            panic!("{:#?}", migrate.log())
        };
        assert_eq!(report["pepper"]["step"], "added");
        assert_eq!(report["pepper"]["next"]["step"], "used");
        assert_eq!(secrets.peppers().await.len(), 2);
    }
    let leaked = json!({"command": "rotate", "what": "pepper", "leaked": true});
    let dropped = json!({"pepper": {"step": "dropped"}, "signing_key": null});
    assert_report(&mut migrate, &leaked, &dropped).await;
    assert_eq!(secrets.peppers().await.len(), 1);
    assert_report(&mut migrate, &go_on, &none).await;
    for event in [
        json!({"command": "rotate", "what": "password"}),
        json!({"command": "rotate", "leaked": true}),
        json!({"command": "purge", "what": "pepper"}),
    ] {
        let failed = migrate.invoke(&event).await;
        assert!(matches!(failed, Invocation::Failed), "{event}");
    }
    for pepper in secrets.peppers().await {
        assert!(!migrate.log().join("\n").contains(&pepper));
    }
}

async fn assert_report(migrate: &mut Function, event: &Value, expected: &Value) {
    let Invocation::Responded(report) = migrate.invoke(event).await else {
        panic!("{:#?}", migrate.log())
    };
    assert_eq!(report, *expected);
}

/// The lines of a function with this message.
fn lines(function: &Function, message: &str) -> Vec<Value> {
    let lines = function.log().into_iter();
    let lines = lines.map(|line| serde_json::from_str(&line).unwrap());
    lines
        .filter(|line: &Value| line["message"] == message)
        .collect()
}

#[tokio::test]
async fn a_running_function_notices_a_new_value_and_keeps_the_old_one_if_it_is_bad() {
    let database = Database::migrated().await;
    let secrets = Secrets::new(&database).await;
    let (moto, url) = (moto(), database.url());
    let settings = [
        ("DATABASE_URL", &*url),
        ("SECRET_ARN", &secrets.sign_in),
        ("AWS_REGION", "us-east-1"),
        ("AWS_ENDPOINT_URL_SECRETS_MANAGER", &moto),
    ];
    let program = Path::new(env!("CARGO_BIN_EXE_rereading"));
    let sandbox = Sandbox::default();
    let mut session = Function::start_program(program, sandbox, "session", settings).await;
    let keys = async |session: &mut Function| -> usize {
        let get = event("GET", "/.well-known/jwks.json", "");
        let response = session.send(&get).await;
        response.body["keys"].as_array().unwrap().len()
    };
    // Its own, and that of its environment.
    assert_eq!(keys(&mut session).await, 2);
    let message = "the secret has changed";
    assert!(lines(&session, message).is_empty());

    let two = [Key::p256().public_pem(), Key::p256().public_pem()].concat();
    let mut members = secrets.sign_in().await;
    members["TOKEN_PUBLIC_KEYS"] = two.into();
    let good = members.to_string();
    put_secret(&secrets.sign_in, &good).await;
    for _ in 0..2 {
        assert_eq!(keys(&mut session).await, 3);
        assert_eq!(lines(&session, message).len(), 1);
    }
    // The connection of the function before it is closed.
    let observer = database.observer().await;
    until("one connection is left", async || {
        observer.sessions().await == 1
    })
    .await;

    members["OTP_PEPPER"] = "hunter2".into();
    for (bad, errors) in [(members.to_string(), 1), ("hunter2".to_owned(), 2)] {
        put_secret(&secrets.sign_in, &bad).await;
        assert_eq!(keys(&mut session).await, 3);
        let lines = lines(&session, "the changed secret cannot be used");
        assert_eq!(lines.len(), errors);
        assert_eq!(lines[0]["level"], "ERROR");
    }
    put_secret(&secrets.sign_in, &good).await;
    assert_eq!(keys(&mut session).await, 3);
    assert_eq!(lines(&session, message).len(), 2);
    assert!(!session.log().join("\n").contains("hunter2"));
}

#[tokio::test]
async fn a_function_whose_secret_cannot_be_read_again_goes_on_with_the_old_values() {
    let database = Database::migrated().await;
    let secrets = Secrets::new(&database).await;
    let (proxy, url) = (
        Proxy::to(moto().trim_start_matches("http://")).await,
        database.url(),
    );
    let endpoint = format!("http://{}", proxy.address());
    let settings = [
        ("DATABASE_URL", &*url),
        ("SECRET_ARN", &secrets.sign_in),
        ("AWS_REGION", "us-east-1"),
        ("AWS_ENDPOINT_URL_SECRETS_MANAGER", &endpoint),
    ];
    let program = Path::new(env!("CARGO_BIN_EXE_rereading"));
    let sandbox = Sandbox::default();
    let mut session = Function::start_program(program, sandbox, "session", settings).await;
    let get = event("GET", "/.well-known/jwks.json", "");
    let before = session.send(&get).await;
    proxy.refuse();
    assert_eq!(session.send(&get).await.body, before.body);
    // It is there again, and says nothing.
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    proxy.lead_to(&silent.local_addr().unwrap().to_string());
    proxy.restore();
    assert_eq!(session.send(&get).await.body, before.body);
    let warnings = lines(&session, "the secret was not read again");
    assert_eq!(warnings.len(), 2);
    assert_eq!(warnings[0]["level"], "WARN");
}
