//! Whoever logs in is let in, and nobody learns from it who is registered.

use std::time::Duration;

use futures_util::future::join_all;
use serde_json::{Value, json};
use tests::{
    Answer, Behaviour, Database, Function, PEPPER, Provider, RedisServer, Service, Tokens, event,
    fresh_phone, messages_to, until, wrong,
};
use tokio::time::Instant;

use crate::limits::{assert_limited, neighbour};

const EXPIRED: (u64, &str, &str) = (401, "Invalid or expired OTP", "otp_expired");
const LOGIN_MODE: (&str, &str) = ("REGISTERED_PHONE", "login");
/// No code is sent to it, at least not by mobile phone.
const PREMIUM: &str = "+19002345678";

/// What an answer shows: all but the id, of which only the shape may be compared.
fn seen(answer: &Answer) -> Value {
    let mut body = answer.body.clone();
    if let Some(id) = body.get_mut("challenge_id") {
        assert_eq!(id.as_str().unwrap().len(), 32);
        *id = Value::Null;
    }
    json!([answer.status, answer.headers, body, answer.length])
}

async fn delete_user(service: &Service, phone: &str) {
    let delete = "DELETE FROM users WHERE phone_number = $1";
    let client = service.database.connect().await;
    assert_eq!(client.execute(delete, &[&phone]).await.unwrap(), 1);
}

#[tokio::test]
async fn login_of_a_registered_number_sends_a_code_that_lets_its_user_in() {
    let service = Service::start_with(&[("LIMIT_PHONE", "off")]).await;
    let phone = fresh_phone();
    let code = service.code_for(&phone).await;
    let registered = service.verify(&phone, &code).await;

    let asked = service.log_in(&phone).await;
    let id = asked.text("challenge_id").to_owned();
    assert_eq!(
        (asked.status, &asked.body),
        (
            200,
            &json!({
                "success": true,
                "message": "OTP sent successfully",
                "challenge_id": id,
                "expires_in": 300,
                "resend_in": 0
            })
        )
    );
    let messages = messages_to(&phone).await;
    assert_eq!(messages.len(), 2);
    let answer = service
        .verify_challenge(&phone, &messages[1][..6], &id)
        .await;
    let tokens = Tokens::of(&answer);
    assert_eq!(
        (answer.status, answer.body),
        (
            200,
            json!({
                "success": true,
                "message": "User logged in successfully",
                "data": registered.body["data"],
                "tokens": {
                    "access_token": tokens.access,
                    "token_type": "Bearer",
                    "expires_in": 900,
                    "refresh_token": tokens.refresh
                }
            })
        )
    );
    let me = service.me(Some(&format!("Bearer {}", tokens.access))).await;
    assert_eq!(me.body["data"], registered.body["data"]);
    // Another session than the one of the registration, which goes on.
    service.refreshed(&tokens.refresh).await;
    service.refreshed(&Tokens::of(&registered).refresh).await;
    assert_eq!(service.database.count_users().await, 1);
}

#[tokio::test]
async fn a_login_code_works_once() {
    let service = Service::start().await;
    let phone = fresh_phone();
    service.register(&phone).await;
    let code = service.login_code_for(&phone).await;
    let answers = join_all((0..100).map(|_| service.verify(&phone, &code))).await;
    let let_in = answers.iter().filter(|answer| answer.status == 200);
    assert_eq!(let_in.count(), 1);
    let refused = answers.iter().filter(|answer| answer.failure() == EXPIRED);
    assert_eq!(refused.count(), 99);
    assert_eq!(service.verify(&phone, &code).await.failure(), EXPIRED);
}

#[tokio::test]
async fn a_new_login_code_voids_the_older_one() {
    let service = Service::start().await;
    let phone = fresh_phone();
    service.register(&phone).await;
    let older = service.login_code_for(&phone).await;
    let mut newer = service.login_code_for(&phone).await;
    // One time in a million both are the same.
    while newer == older {
        newer = service.login_code_for(&phone).await;
    }
    let answer = service.verify(&phone, &older).await;
    assert_eq!(answer.text("code"), "otp_mismatch");
    assert_eq!(service.verify(&phone, &newer).await.status, 200);
}

#[tokio::test]
async fn login_of_a_user_who_was_deleted_meanwhile_is_401_and_registers_nobody() {
    let service = Service::start().await;
    let phone = fresh_phone();
    service.register(&phone).await;
    let code = service.login_code_for(&phone).await;
    delete_user(&service, &phone).await;
    assert_eq!(service.verify(&phone, &code).await.failure(), EXPIRED);
    assert_eq!(service.database.count_users().await, 0);
}

#[tokio::test]
async fn login_of_a_user_who_is_just_being_deleted_waits_and_is_401() {
    let service = Service::start().await;
    let phone = fresh_phone();
    service.register(&phone).await;
    let code = service.login_code_for(&phone).await;
    let deleting = service.database.connect().await;
    let delete = format!("BEGIN; DELETE FROM users WHERE phone_number = '{phone}'");
    deleting.batch_execute(&delete).await.unwrap();
    let observer = service.database.connect().await;
    let commit_when_waited_for = async {
        until("the login waits", async || {
            let waiting = "SELECT FROM pg_stat_activity
                WHERE datname = current_database() AND wait_event_type = 'Lock'";
            !observer.query(waiting, &[]).await.unwrap().is_empty()
        })
        .await;
        deleting.batch_execute("COMMIT").await.unwrap();
    };
    let (answer, ()) = tokio::join!(service.verify(&phone, &code), commit_when_waited_for);
    assert_eq!(answer.failure(), EXPIRED);
    assert_eq!(service.database.count_users().await, 0);
}

#[tokio::test]
async fn login_needs_a_phone_number_and_takes_nothing_else() {
    let service = Service::start().await;
    let missing = (400, "Phone number is required", "missing_field");
    for body in ["{}", r#"{"phone_number":""}"#] {
        assert_eq!(service.post_login(body).await.failure(), missing, "{body}");
    }
    let named = json!({"name": "Ada", "phone_number": fresh_phone()}).to_string();
    let invalid = (400, "Invalid request payload", "invalid_payload");
    assert_eq!(service.post_login(&named).await.failure(), invalid);
    let no_number = (400, "Invalid phone number", "invalid_phone_number");
    assert_eq!(service.log_in("12345").await.failure(), no_number);
}

#[tokio::test]
async fn login_answers_known_unknown_and_unsendable_numbers_alike() {
    let service = Service::start_with(&[("ALLOWED_COUNTRIES", "DE,US")]).await;
    let (known, unknown) = (fresh_phone(), fresh_phone());
    service.register(&known).await;
    // A registered number to which no code is sent any more.
    service.database.insert_user("+441212345678").await;
    service.database.insert_user(PREMIUM).await;
    let nobodys = "+14151552671";

    let expected = seen(&service.log_in(&known).await);
    assert_eq!(messages_to(&known).await.len(), 2);
    for phone in [&unknown, PREMIUM, "+441212345678", "+33612345678", nobodys] {
        let answer = service.log_in(phone).await;
        assert_eq!(seen(&answer), expected, "{phone}");
        assert!(messages_to(phone).await.is_empty(), "{phone}");
    }
}

#[tokio::test]
async fn verify_after_a_login_answers_known_unknown_and_unsendable_numbers_alike() {
    for settings in [
        [("REQUIRE_CHALLENGE_ID", "false"), ("OTP_MAX_ATTEMPTS", "3")],
        [("REQUIRE_CHALLENGE_ID", "true"), ("OTP_MAX_ATTEMPTS", "3")],
    ] {
        let mut service = Service::start_with(&settings).await;
        let (known, unknown) = (fresh_phone(), fresh_phone());
        service.database.insert_user(&known).await;
        let mut shown = Vec::new();
        for phone in [&known, &unknown, PREMIUM] {
            service.set_clock_offset(0);
            let mut answers = Vec::new();
            let older = service.log_in(phone).await;
            let sent = service.log_in(phone).await;
            let messages = messages_to(phone).await;
            let code = messages.last().map_or("314159", |message| &message[..6]);
            let (wrong, id) = (wrong(code), sent.text("challenge_id"));
            answers.push(service.verify(phone, &wrong).await);
            let replaced = older.text("challenge_id");
            answers.push(service.verify_challenge(phone, &wrong, replaced).await);
            for _ in 0..4 {
                answers.push(service.verify_challenge(phone, &wrong, id).await);
            }
            // Another code, another countdown, and its end.
            let sent = service.log_in(phone).await;
            let id = sent.text("challenge_id");
            answers.push(service.verify_challenge(phone, &wrong, id).await);
            service.set_clock_offset(300_000);
            answers.push(service.verify_challenge(phone, &wrong, id).await);
            let mut codes: Vec<_> = answers.iter().map(|a| a.text("code")).collect();
            codes.dedup();
            assert_eq!(
                codes.first() == Some(&"missing_field"),
                settings[0].1 == "true"
            );
            assert!(codes.ends_with(&["too_many_attempts", "otp_mismatch", "otp_expired"]));
            let near = |answer: &Answer| {
                let mut answer = answer.clone();
                if answer.text("code") == "too_many_attempts" {
                    // Until the code expires, to which this very test has got closer.
                    assert!((250..=300).contains(&answer.retry_after()));
                    answer.headers.remove("retry-after");
                    answer.body["retry_after"] = Value::Null;
                }
                seen(&answer)
            };
            shown.push(answers.iter().map(near).collect::<Vec<_>>());
        }
        assert_eq!(shown[0], shown[1]);
        assert_eq!(shown[0], shown[2]);
    }
}

#[tokio::test]
async fn a_login_takes_from_every_limit_whoever_is_asked_about() {
    let settings = [
        ("LIMIT_PHONE", "1/1h"),
        ("LIMIT_ADDRESS", "2/1h"),
        ("LIMIT_RANGE", "3/1h"),
        ("LIMIT_COUNTRY", "4/1h"),
        ("LIMIT_TOTAL", "5/1h"),
    ];
    let mut taken = Vec::new();
    for (phone, is_known) in [(fresh_phone(), true), (fresh_phone(), false)] {
        let service = Service::start_with(&settings).await;
        if is_known {
            service.database.insert_user(&phone).await;
        }
        assert_eq!(service.log_in(&phone).await.status, 200);
        let keys: Vec<String> = service.redis_server.run(&["KEYS", "*limit*"]).await;
        let mut kinds: Vec<String> = keys
            .iter()
            .map(|key| key.split(':').nth(2).unwrap().to_owned())
            .collect();
        kinds.sort();
        taken.push(kinds);
        let wait = assert_limited(&service.log_in(&phone).await);
        assert!((3590..=3600).contains(&wait), "{wait}");
        // Nor is a sign-up a way around them.
        if !is_known {
            assert_limited(&service.sign_up("Ada", &phone).await);
        }
        assert_eq!(messages_to(&phone).await.len(), usize::from(is_known));
    }
    assert_eq!(taken[0], ["address", "country", "phone", "range", "total"]);
    assert_eq!(taken[0], taken[1]);
}

#[tokio::test]
async fn a_decoy_is_no_message_to_the_watch() {
    let service = Service::start().await;
    let phone = fresh_phone();
    assert_eq!(service.log_in(&phone).await.status, 200);
    let keys: Vec<String> = service.redis_server.run(&["KEYS", "*conversion*"]).await;
    assert!(keys.is_empty(), "{keys:?}");
    service.database.insert_user(&phone).await;
    assert_eq!(service.log_in(&phone).await.status, 200);
    let keys: Vec<String> = service.redis_server.run(&["KEYS", "*conversion*"]).await;
    assert_eq!(keys.len(), 2, "{keys:?}");
}

#[tokio::test]
async fn a_login_is_refused_in_a_range_that_is_stopped_whoever_is_asked_about() {
    let settings = [("PUMPING", "enforce"), ("PUMPING_MIN_SENDS", "3")];
    let mut service = Service::start_with(&settings).await;
    let known = fresh_phone();
    for last in 0..3 {
        let answer = service.sign_up("Ada", &neighbour(&known, last)).await;
        assert_eq!(answer.status, 200);
    }
    service.database.insert_user(&known).await;
    service.set_clock_offset(700_000);
    assert_limited(&service.log_in(&known).await);
    assert_limited(&service.log_in(&neighbour(&known, 500)).await);
}

#[tokio::test]
async fn a_store_that_is_down_is_503_whoever_is_asked_about() {
    let service = Service::start().await;
    let (known, unknown) = (fresh_phone(), fresh_phone());
    service.database.insert_user(&known).await;
    let unavailable = (503, "Failed to store user data", "unavailable");
    for store in [&service.postgres, &service.redis] {
        store.cut().await;
        for phone in [&known, &unknown, PREMIUM] {
            let answer = service.log_in(phone).await;
            assert_eq!(answer.failure(), unavailable);
            assert_eq!(answer.retry_after(), 5);
        }
        store.restore();
    }
    assert!(messages_to(&known).await.is_empty());
    assert_eq!(service.log_in(&known).await.status, 200);
}

#[tokio::test]
async fn a_warm_login_is_one_round_trip_to_each_store_whoever_is_asked_about() {
    let on = ["LIMIT_PHONE", "LIMIT_ADDRESS", "LIMIT_RANGE", "LIMIT_TOTAL"];
    let service = Service::start_with(&on.map(|name| (name, ""))).await;
    let (known, unknown) = (fresh_phone(), fresh_phone());
    service.database.insert_user(&known).await;
    // Redis gets to know the scripts.
    assert_eq!(service.log_in(&fresh_phone()).await.status, 200);
    assert_eq!(service.verify(&fresh_phone(), "123456").await.status, 401);

    let trips = || (service.redis.round_trips(), service.postgres.round_trips());
    for phone in [&known, &unknown, PREMIUM] {
        let before = trips();
        assert_eq!(service.log_in(phone).await.status, 200);
        let after = trips();
        assert_eq!((after.0 - before.0, after.1 - before.1), (1, 1), "{phone}");
    }
    let code = messages_to(&known).await[0][..6].to_owned();
    let before = trips();
    assert_eq!(service.verify(&known, &code).await.status, 200);
    let after = trips();
    assert_eq!((after.0 - before.0, after.1 - before.1), (1, 1));
}

#[tokio::test]
async fn no_login_is_answered_before_its_time() {
    let settings = [("LOGIN_MIN_MS", "700"), ("LIMIT_PHONE", "1/1h"), LOGIN_MODE];
    let service = Service::start_with(&settings).await;
    let (known, unknown, new) = (fresh_phone(), fresh_phone(), fresh_phone());
    service.database.insert_user(&known).await;
    let least = Duration::from_millis(700);
    for phone in [&known, &unknown, PREMIUM] {
        let begun = Instant::now();
        assert_eq!(service.log_in(phone).await.status, 200);
        assert!(begun.elapsed() >= least, "{phone}");
    }
    let begun = Instant::now();
    assert_eq!(service.sign_up("Ada", &new).await.status, 200);
    assert!(begun.elapsed() >= least);
}

#[tokio::test]
async fn a_stranger_who_logs_in_does_not_void_the_code_of_a_pending_signup() {
    let service = Service::start_with(&[("OTP_MAX_ATTEMPTS", "2")]).await;
    for with_id in [true, false] {
        let phone = fresh_phone();
        let sent = service.sign_up("Ada", &phone).await;
        let code = messages_to(&phone).await[0][..6].to_owned();

        let decoy = service.log_in_from("198.51.100.1", &phone).await;
        assert_eq!(
            seen(&decoy),
            seen(&service.log_in(&fresh_phone()).await),
            "a pending sign-up shows"
        );
        // With the id of what they asked for, the stranger spends nothing but that.
        for expected in ["otp_mismatch", "otp_mismatch", "too_many_attempts"] {
            let id = decoy.text("challenge_id");
            let answer = service.verify_challenge(&phone, &wrong(&code), id).await;
            assert_eq!(answer.text("code"), expected);
        }
        let answer = if with_id {
            let id = sent.text("challenge_id");
            service.verify_challenge(&phone, &code, id).await
        } else {
            service.verify(&phone, &code).await
        };
        assert_eq!(answer.text("message"), "User registered successfully");
    }
}

#[tokio::test]
async fn a_stranger_who_signs_up_does_not_void_the_code_with_which_the_owner_logs_in() {
    for mode in ["conflict", "login"] {
        let service = Service::start_with(&[("REGISTERED_PHONE", mode)]).await;
        let phone = fresh_phone();
        service.database.insert_user(&phone).await;
        let code = service.login_code_for(&phone).await;
        let status = service.sign_up_from("198.51.100.1", &phone).await.status;
        assert_eq!(status, if mode == "login" { 200 } else { 409 });
        let answer = service.verify(&phone, &code).await;
        assert_eq!(answer.text("message"), "User logged in successfully");
        assert_eq!(answer.body["data"]["name"], "Eve");
    }
}

#[tokio::test]
async fn a_stranger_who_asks_in_vain_does_not_void_a_login_code() {
    let service = Service::start_with(&[("LIMIT_PHONE", "1/30s")]).await;
    let phone = fresh_phone();
    service.database.insert_user(&phone).await;
    let code = service.login_code_for(&phone).await;
    assert_limited(&service.log_in_from("198.51.100.1", &phone).await);
    assert_eq!(service.verify(&phone, &code).await.status, 200);
}

#[tokio::test]
async fn a_wrong_code_counts_for_all_that_it_could_have_been_for() {
    let service = Service::start_with(&[LOGIN_MODE, ("OTP_MAX_ATTEMPTS", "2")]).await;
    let phone = fresh_phone();
    service.database.insert_user(&phone).await;
    let signup_code = service.code_for(&phone).await;
    let login_code = service.login_code_for(&phone).await;
    let mut other = wrong(&login_code);
    while other == signup_code {
        other = wrong(&other);
    }
    for remaining in [1, 0] {
        let answer = service.verify(&phone, &other).await;
        assert_eq!(answer.body["attempts_remaining"], remaining);
    }
    for code in [&signup_code, &login_code, &other] {
        let answer = service.verify(&phone, code).await;
        assert_eq!(answer.text("code"), "too_many_attempts");
    }
    // A new code of one kind has attempts of its own.
    let login_code = service.login_code_for(&phone).await;
    assert_eq!(service.verify(&phone, &login_code).await.status, 200);
}

#[tokio::test]
async fn where_registered_numbers_log_in_a_signup_tells_nobody_that_they_are_registered() {
    let service = Service::start_with(&[LOGIN_MODE]).await;
    let (known, new) = (fresh_phone(), fresh_phone());
    service.database.insert_user(&known).await;
    let mut shown = Vec::new();
    for phone in [&known, &new] {
        let first = service.sign_up("Ada", phone).await;
        let second = service.log_in(phone).await;
        let messages = messages_to(phone).await;
        let code = messages[0][..6].to_owned();
        let mut other = wrong(&code);
        if messages.last().unwrap().starts_with(&other) {
            other = wrong(&other);
        }
        let mut answers = vec![first.clone(), second.clone()];
        for asked in [&first, &second] {
            let id = asked.text("challenge_id");
            answers.push(service.verify_challenge(phone, &other, id).await);
        }
        answers.push(service.verify(phone, &other).await);
        shown.push(answers.iter().map(seen).collect::<Vec<_>>());

        let answer = service.verify(phone, &code).await;
        let (message, name) = if phone == &known {
            ("User logged in successfully", "Eve")
        } else {
            ("User registered successfully", "Ada")
        };
        assert_eq!(answer.text("message"), message);
        assert_eq!(answer.body["data"]["name"], name);
        assert_eq!(answer.body["data"]["version"], 1);
    }
    assert_eq!(shown[0], shown[1]);
    assert_eq!(service.database.count_users().await, 2);
}

#[tokio::test]
async fn a_number_registered_between_asking_and_verifying_is_refused_or_logged_in_by_mode() {
    for (mode, expected) in [("conflict", "user_exists"), ("login", "")] {
        let service = Service::start_with(&[("REGISTERED_PHONE", mode)]).await;
        let phone = fresh_phone();
        let code = service.code_for(&phone).await;
        service.database.insert_user(&phone).await;
        let answer = service.verify(&phone, &code).await;
        assert_eq!(answer.text("code"), expected);
        if mode == "login" {
            assert_eq!(answer.text("message"), "User logged in successfully");
            assert_eq!(answer.body["data"]["name"], "Eve");
        }
        assert_eq!(service.verify(&phone, &code).await.failure(), EXPIRED);
        assert_eq!(service.database.count_users().await, 1);
    }
}

/// The other registration has not committed when this one begins, so no read would see it.
#[tokio::test]
async fn a_number_registered_while_it_is_verified_is_logged_in() {
    let service = Service::start_with(&[LOGIN_MODE]).await;
    let phone = fresh_phone();
    let code = service.code_for(&phone).await;
    let mut other = service.database.connect().await;
    let registration = other.transaction().await.unwrap();
    registration
        .execute(
            "INSERT INTO users (name, phone_number) VALUES ('Eve', $1)",
            &[&phone],
        )
        .await
        .unwrap();
    let watcher = service.database.connect().await;
    let commit_when_waited_for = async {
        until("the verification waits", async || {
            let waiting = "SELECT count(*) FROM pg_locks WHERE NOT granted";
            watcher
                .query_one(waiting, &[])
                .await
                .unwrap()
                .get::<_, i64>(0)
                > 0
        })
        .await;
        registration.commit().await.unwrap();
    };
    let (answer, ()) = tokio::join!(service.verify(&phone, &code), commit_when_waited_for);
    assert_eq!(answer.text("message"), "User logged in successfully");
    assert_eq!(answer.body["data"]["name"], "Eve");
}

#[tokio::test]
async fn a_signup_of_a_registered_number_whose_user_was_deleted_registers() {
    let service = Service::start_with(&[LOGIN_MODE]).await;
    let phone = fresh_phone();
    service.database.insert_user(&phone).await;
    let code = service.code_for(&phone).await;
    delete_user(&service, &phone).await;
    let answer = service.verify(&phone, &code).await;
    assert_eq!(answer.text("message"), "User registered successfully");
    assert_eq!(answer.body["data"]["name"], "Ada");
}

/// The real binaries, because the SDK takes the provider's address from the environment.
struct Deployed {
    database: Database,
    redis: RedisServer,
    signup: Function,
}

impl Deployed {
    async fn new(provider: &Provider, own: &[(&str, &str)]) -> Self {
        let (database, redis) = (Database::migrated().await, RedisServer::start().await);
        let endpoint = provider.url();
        let mut settings = settings(&database, &redis);
        settings.extend(
            [
                ("SMS_PROVIDER", "sns"),
                ("ALLOWED_COUNTRIES", "DE"),
                ("AWS_REGION", "us-east-1"),
                ("AWS_ENDPOINT_URL_SNS", endpoint.as_str()),
            ]
            .map(|(name, value)| (name.to_owned(), value.to_owned())),
        );
        settings.extend(own.iter().map(|&(name, value)| (name.into(), value.into())));
        let signup = start("signup", &settings).await;
        Self {
            database,
            redis,
            signup,
        }
    }

    async fn post(&mut self, path: &str, phone: &str) -> Answer {
        let body = match path {
            "/login" => json!({"phone_number": phone}),
            _ => json!({"name": "Ada", "phone_number": phone}),
        };
        let event = event("POST", path, &body.to_string());
        self.signup.answer(&event).await
    }
}

fn settings(database: &Database, redis: &RedisServer) -> Vec<(String, String)> {
    [
        ("DATABASE_URL", database.url()),
        ("REDIS_URL", redis.url()),
        ("OTP_PEPPER", PEPPER.to_owned()),
        ("LIMIT_PHONE", "1/1h".to_owned()),
        ("LIMIT_ADDRESS", "off".to_owned()),
        ("LIMIT_GUESSES", "off".to_owned()),
    ]
    .map(|(name, value)| (name.to_owned(), value))
    .into()
}

async fn start(name: &str, settings: &[(String, String)]) -> Function {
    let settings = settings.iter();
    let settings = settings.map(|(name, value)| (name.as_str(), value.as_str()));
    Function::start(name, settings).await
}

#[tokio::test]
async fn whatever_the_provider_says_a_login_is_answered_alike_and_keeps_what_it_took() {
    let accepting = Provider::start(Behaviour::Accept).await;
    let mut deployed = Deployed::new(&accepting, &[("LOGIN_MIN_MS", "0")]).await;
    let expected = seen(&deployed.post("/login", &fresh_phone()).await);
    for (behaviour, mode, outcome) in [
        (Behaviour::Accept, "conflict", "sent"),
        (Behaviour::Refuse(400, "OptedOut"), "conflict", "sms_failed"),
        (Behaviour::Refuse(503, "Throttling"), "login", "sms_failed"),
        (Behaviour::BreakOff, "conflict", "sent"),
        (Behaviour::Hang, "login", "sent"),
    ] {
        let provider = Provider::start(behaviour).await;
        let own = [
            ("LOGIN_MIN_MS", "0"),
            ("SMS_TIMEOUT_MS", "500"),
            ("REGISTERED_PHONE", mode),
        ];
        let mut deployed = Deployed::new(&provider, &own).await;
        let (known, new) = (fresh_phone(), fresh_phone());
        deployed.database.insert_user(&known).await;
        let mut requests = vec![("/login", &known)];
        if mode == "login" {
            // There a registered number and a new one are not told apart by a failure either.
            let other = fresh_phone();
            deployed.database.insert_user(&other).await;
            for phone in [&other, &new] {
                let answer = deployed.post("/signup", phone).await;
                assert_eq!(seen(&answer), expected, "{behaviour:?}");
            }
            requests.push(("/signup", &new));
        }
        let answer = deployed.post("/login", &known).await;
        assert_eq!(seen(&answer), expected, "{behaviour:?}");
        let line = deployed.signup.answer_lines().pop().unwrap();
        assert_eq!(line["outcome"], outcome, "{behaviour:?}");
        // What was taken stays taken, and the challenge stays.
        for (path, phone) in requests {
            assert_limited(&deployed.post(path, phone).await);
        }
        let key = format!("{{otp}}:login:{known}");
        let id: Option<String> = deployed.redis.run(&["HGET", &key, "id"]).await;
        assert_eq!(id.as_deref(), Some(answer.text("challenge_id")));
        assert_eq!(
            provider.requests().len(),
            if mode == "login" { 3 } else { 1 }
        );
    }
}

fn median(mut times: Vec<f64>) -> f64 {
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}

/// The provider takes 300 ms, a login at least 600. A half of the provider's time is far more than
/// what two medians differ by on a busy machine, and far less than what would show without the wait.
#[tokio::test]
async fn known_and_unknown_numbers_take_the_same_time() {
    const ROUNDS: usize = 9;
    const KNOWN: usize = 0;
    let provider = Provider::start(Behaviour::AcceptAfter(Duration::from_millis(300))).await;
    let mut deployed = Deployed::new(&provider, &[("LOGIN_MIN_MS", "600")]).await;
    let settings = settings(&deployed.database, &deployed.redis);
    let mut verify = start("verify", &settings).await;
    let mut login_ms = [Vec::new(), Vec::new()];
    let mut verify_ms = [Vec::new(), Vec::new()];
    for round in 0..ROUNDS {
        // Neither is always the first.
        for i in [round % 2, (round + 1) % 2] {
            let phone = fresh_phone();
            let registered = if i == KNOWN { &phone } else { &fresh_phone() };
            deployed.database.insert_user(registered).await;
            let begun = Instant::now();
            assert_eq!(deployed.post("/login", &phone).await.status, 200);
            assert!(begun.elapsed() >= Duration::from_millis(600));
            login_ms[i].push(latency(&deployed.signup));
            let line = deployed.signup.answer_lines().pop().unwrap();
            let outcome = if i == KNOWN { "sent" } else { "decoy" };
            assert_eq!(line["outcome"], outcome);
            let guess = json!({"otp": "123456", "phone_number": phone}).to_string();
            for _ in 0..5 {
                let answer = verify.answer(&event("POST", "/verify", &guess)).await;
                // One time in a million it is right.
                assert!(["otp_mismatch", ""].contains(&answer.text("code")));
                verify_ms[i].push(latency(&verify));
            }
        }
    }
    assert_eq!(provider.requests().len(), ROUNDS);
    for (route, [known, unknown]) in [("/login", login_ms), ("/verify", verify_ms)] {
        let (known, unknown) = (median(known), median(unknown));
        eprintln!("{route}: known {known} ms, unknown {unknown} ms");
        assert!(
            (known - unknown).abs() < 150.0,
            "{route}: {known} {unknown}"
        );
    }
}

/// Of the last answer, in milliseconds.
fn latency(function: &Function) -> f64 {
    let lines = function.answer_lines();
    lines.last().unwrap()["latency_ms"].as_f64().unwrap()
}
