//! `POST /me/phone` and its `/verify`: a signed-in user takes a new number.

use futures_util::future::{join, join_all};
use harness::{
    Behaviour, Challenge, Provider, Response, Service, Tokens, fresh_phone, messages_to,
    outcome::{
        INVALID_PAYLOAD, INVALID_PHONE, INVALID_TOKEN, NOT_REGISTERED, NOT_STORED, OTP_EXPIRED,
        OTP_MISMATCH, PHONE_CHANGED, PHONE_MISSING, RATE_LIMITED, REGISTERED, SMS_FAILED,
        UNAUTHENTICATED, UNSUPPORTED_PHONE, USER_EXISTS, USER_NOT_FOUND,
    },
};
use serde_json::{Value, json};
use tokio_postgres::types::{ToSql, Type};

const REFUSE: Behaviour = Behaviour::Refuse(400, "InvalidParameter");
const PRIVATE: (&str, &str) = ("REVEAL_REGISTERED", "false");

/// A registered number and its tokens.
async fn signed_in(service: &Service) -> (String, Tokens) {
    let phone = fresh_phone();
    let tokens = Tokens::of(&service.register(&phone).await);
    (phone, tokens)
}

async fn phone_of(service: &Service, tokens: &Tokens) -> String {
    let me = service.me(&tokens.access).await;
    me.assert_ok();
    me.body["data"]["phone_number"].as_str().unwrap().to_owned()
}

/// A response without the id, of which only the shape may be compared.
fn without_id(response: &Response) -> Value {
    let mut body = response.body.clone();
    assert_eq!(body["challenge_id"].as_str().unwrap().len(), 32);
    body["challenge_id"] = Value::Null;
    json!([response.status, response.headers, body])
}

#[tokio::test]
async fn a_right_code_gives_the_user_the_new_number() {
    let service = Service::start().await;
    let (old, tokens) = signed_in(&service).await;
    let new = fresh_phone();
    let before = service.me(&tokens.access).await.body["data"].clone();

    let challenge = service.change_challenge(&tokens.access, &new).await;
    assert_eq!(phone_of(&service, &tokens).await, old);
    let changed = service.submit_as(&tokens.access, &challenge).await;

    let mut user = before;
    user["phone_number"] = new.clone().into();
    user["version"] = 2.into();
    let expected = json!({
        "success": true,
        "message": "Phone number changed successfully",
        "data": user,
        "device_token": changed.body["device_token"],
    });
    assert_eq!((changed.status, &changed.body), (200, &expected));
    assert_eq!(service.me(&tokens.access).await.body["data"], user);
    service.log_in_again(&new).await;
    service.log_in(&old).await.assert_is(USER_NOT_FOUND);
    assert_eq!(service.database.count_users().await, 1);
}

#[tokio::test]
async fn the_old_number_is_warned_in_the_language_of_the_request() {
    let service = Service::start_with(&[("OTP_APP_NAME", "Acme")]).await;
    let (old, tokens) = signed_in(&service).await;
    for (locale, warning) in [
        (
            "en",
            "Your Acme account is about to get another phone number. ",
        ),
        (
            "de",
            "Ihr Konto bei Acme erhält gleich eine andere Telefonnummer. ",
        ),
    ] {
        let body = json!({"phone_number": fresh_phone(), "locale": locale}).to_string();
        let sent = service
            .send_as(&tokens.access, "POST", "/me/phone", &body)
            .await;
        sent.assert_ok();
        let message = messages_to(&old).await.pop().unwrap();
        assert!(message.starts_with(warning), "{message}");
    }
    assert_eq!(messages_to(&old).await.len(), 3);
}

/// The numbers in the requests to a provider.
fn asked_to_send_to(provider: &Provider) -> Vec<String> {
    let number = |body: String| {
        let (_, rest) = body.split_once("PhoneNumber=%2B").unwrap();
        format!("+{}", rest.split('&').next().unwrap())
    };
    provider.requests().into_iter().map(number).collect()
}

/// Its owner may have lost it, and wants a new one for that reason.
#[tokio::test]
async fn an_old_number_that_gets_no_messages_does_not_stop_the_change() {
    let service = Service::start().await;
    let provider = Provider::start(REFUSE).await;
    let (old, tokens) = signed_in(&service).await;
    let new = fresh_phone();
    let own = [
        ("AWS_ENDPOINT_URL_SNS", &*provider.url()),
        ("TEST_NUMBERS", &format!("{new}=271828@2099-12-31")),
    ];
    let sent = service
        .others(&own)
        .change_phone(&tokens.access, &new)
        .await;
    sent.assert_ok();
    assert_eq!(asked_to_send_to(&provider), [old]);
    let body = json!({"otp": "271828", "phone_number": new}).to_string();
    let changed = service
        .send_as(&tokens.access, "POST", "/verify", &body)
        .await;
    changed.assert_is(PHONE_CHANGED);
}

#[tokio::test]
async fn an_old_number_that_is_not_served_any_more_is_not_warned() {
    let service = Service::start().await;
    let (old, tokens) = signed_in(&service).await;
    let sent = messages_to(&old).await.len();
    let others = service.others(&[("ALLOWED_COUNTRIES", "US")]);
    let changed = others.change_phone(&tokens.access, "+14155552671").await;
    changed.assert_ok();
    assert_eq!(messages_to(&old).await.len(), sent);
}

#[tokio::test]
async fn a_test_number_is_not_warned() {
    let service = Service::start().await;
    let (old, tokens) = signed_in(&service).await;
    let sent = messages_to(&old).await.len();
    let own = [("TEST_NUMBERS", &*format!("{old}=271828@2099-12-31"))];
    let others = service.others(&own);
    let changed = others.change_phone(&tokens.access, &fresh_phone()).await;
    changed.assert_ok();
    assert_eq!(messages_to(&old).await.len(), sent);
}

#[tokio::test]
async fn a_code_that_was_refused_warns_nobody() {
    let service = Service::start().await;
    let provider = Provider::start(REFUSE).await;
    let (_, tokens) = signed_in(&service).await;
    let own = [("AWS_ENDPOINT_URL_SNS", &*provider.url())];
    let new = fresh_phone();
    let refused = service
        .others(&own)
        .change_phone(&tokens.access, &new)
        .await;
    refused.assert_is(SMS_FAILED);
    assert_eq!(asked_to_send_to(&provider), [new]);
}

#[tokio::test]
async fn the_newest_challenge_needs_no_id() {
    let service = Service::start().await;
    let (_, tokens) = signed_in(&service).await;
    let challenge = service
        .change_challenge(&tokens.access, &fresh_phone())
        .await;
    let body = json!({"otp": challenge.code, "phone_number": challenge.phone}).to_string();
    let changed = service
        .send_as(&tokens.access, "POST", "/verify", &body)
        .await;
    changed.assert_is(PHONE_CHANGED);
}

#[tokio::test]
async fn all_other_sessions_end_and_the_own_one_stays() {
    let service = Service::start().await;
    let (old, mine) = signed_in(&service).await;
    let others = [
        service.log_in_again(&old).await,
        service.log_in_again(&old).await,
    ];
    let (_, stranger) = signed_in(&service).await;
    let challenge = service.change_challenge(&mine.access, &fresh_phone()).await;
    service
        .submit_as(&mine.access, &challenge)
        .await
        .assert_is(PHONE_CHANGED);
    for other in &others {
        service
            .refresh(&other.refresh)
            .await
            .assert_is(INVALID_TOKEN);
        service.me(&other.access).await.assert_is(UNAUTHENTICATED);
    }
    service.refreshed(&mine.refresh).await;
    service.refreshed(&stranger.refresh).await;
}

#[tokio::test]
async fn the_statement_that_changes_the_number_ends_the_sessions_itself() {
    let service = Service::start().await;
    let (old, _) = signed_in(&service).await;
    for _ in 0..2 {
        service.log_in_again(&old).await;
    }
    let client = service.database.connect().await;
    let statement = include_str!("../../shared/src/users/change_phone.sql");
    let select = "SELECT id, user_id FROM sessions LIMIT 1";
    let session = client.query_one(select, &[]).await.unwrap();
    let (id, user_id): (&str, i64) = (session.get(0), session.get(1));
    let parameters: [(&(dyn ToSql + Sync), Type); 4] = [
        (&user_id, Type::INT8),
        (&id, Type::TEXT),
        (&"0123", Type::TEXT),
        (&"+4915112345678", Type::TEXT),
    ];
    client.query_typed(statement, &parameters).await.unwrap();
    let alive = "SELECT id FROM sessions WHERE revoked_at IS NULL";
    let alive = client.query(alive, &[]).await.unwrap();
    let alive: Vec<&str> = alive.iter().map(|row| row.get(0)).collect();
    assert_eq!(alive, [id]);
}

/// The login is not in the snapshot of the statement that waits for it.
#[tokio::test]
async fn a_login_that_commits_while_the_number_changes_is_ended_too() {
    let service = Service::start().await;
    let (old, tokens) = signed_in(&service).await;
    let challenge = service
        .change_challenge(&tokens.access, &fresh_phone())
        .await;
    let login = service.database.connect().await;
    let open = format!(
        "BEGIN;
         SELECT FROM users WHERE phone_number = '{old}' FOR KEY SHARE;
         INSERT INTO sessions (id, user_id, token_digest, expires_at)
         SELECT repeat('a', 32), id, '', now() + interval '1 day' FROM users"
    );
    login.batch_execute(&open).await.unwrap();
    let commit = async {
        service.database.until_waited_for().await;
        login.batch_execute("COMMIT").await.unwrap();
    };
    let (changed, ()) = join(service.submit_as(&tokens.access, &challenge), commit).await;
    changed.assert_is(PHONE_CHANGED);
    let alive = "SELECT count(*) FROM sessions WHERE revoked_at IS NULL";
    let alive: i64 = login.query_one(alive, &[]).await.unwrap().get(0);
    assert_eq!(alive, 1);
}

#[tokio::test]
async fn the_device_token_is_for_the_new_number() {
    let service = Service::start_with(&[("LIMIT_PHONE", "1/1h")]).await;
    let (_, tokens) = signed_in(&service).await;
    let new = fresh_phone();
    let challenge = service.change_challenge(&tokens.access, &new).await;
    let changed = service.submit_as(&tokens.access, &challenge).await;
    service.log_in(&new).await.assert_is(RATE_LIMITED);
    let device = changed.text("device_token");
    service.log_in_on(device, &new).await.assert_ok();
}

#[tokio::test]
async fn the_old_number_can_sign_up_again() {
    let service = Service::start().await;
    let (old, tokens) = signed_in(&service).await;
    let new = fresh_phone();
    let challenge = service.change_challenge(&tokens.access, &new).await;
    service
        .submit_as(&tokens.access, &challenge)
        .await
        .assert_ok();
    let other = service.register(&old).await;
    other.assert_is(REGISTERED);
    assert_eq!(phone_of(&service, &tokens).await, new);
}

#[tokio::test]
async fn a_code_pending_for_the_old_number_lets_nobody_in() {
    let service = Service::start().await;
    let (old, tokens) = signed_in(&service).await;
    let pending = service.login_challenge(&old).await;
    let challenge = service
        .change_challenge(&tokens.access, &fresh_phone())
        .await;
    service
        .submit_as(&tokens.access, &challenge)
        .await
        .assert_ok();
    service.submit(&pending).await.assert_is(USER_NOT_FOUND);
}

#[tokio::test]
async fn the_code_is_worth_nothing_without_the_users_token() {
    let service = Service::start().await;
    let (old, tokens) = signed_in(&service).await;
    let (others_phone, other) = signed_in(&service).await;
    let challenge = service
        .change_challenge(&tokens.access, &fresh_phone())
        .await;
    let refused = service.submit(&challenge).await;
    refused.assert_is(UNAUTHENTICATED);
    assert_eq!(
        refused.headers["www-authenticate"],
        r#"Bearer realm="otp-auth""#
    );
    let submit = service.submit_as("bent", &challenge).await;
    submit.assert_is(UNAUTHENTICATED);
    let submit = service.submit_as(&other.access, &challenge).await;
    submit.assert_is(OTP_EXPIRED);
    assert_eq!(phone_of(&service, &tokens).await, old);
    assert_eq!(phone_of(&service, &other).await, others_phone);
    // The code was not used.
    let changed = service.submit_as(&tokens.access, &challenge).await;
    changed.assert_is(PHONE_CHANGED);
}

#[tokio::test]
async fn a_session_that_is_over_changes_nothing_and_sends_nothing() {
    let service = Service::start().await;
    let (old, tokens) = signed_in(&service).await;
    let challenge = service
        .change_challenge(&tokens.access, &fresh_phone())
        .await;
    service.log_out(&tokens.refresh).await.assert_ok();
    let refused = service.submit_as(&tokens.access, &challenge).await;
    refused.assert_is(UNAUTHENTICATED);
    let new = fresh_phone();
    let refused = service.change_phone(&tokens.access, &new).await;
    refused.assert_is(UNAUTHENTICATED);
    assert_eq!(messages_to(&new).await, [""; 0]);
    assert_eq!(service.database.users_with(&old).await, 1);
}

#[tokio::test]
async fn the_token_of_a_login_does_not_change_what_a_code_is_for() {
    let service = Service::start().await;
    let (old, tokens) = signed_in(&service).await;
    let challenge = service.challenge(&fresh_phone()).await;
    let registered = service.submit_as(&tokens.access, &challenge).await;
    registered.assert_is(REGISTERED);
    assert_eq!(phone_of(&service, &tokens).await, old);
}

#[tokio::test]
async fn a_wrong_code_is_counted_and_changes_nothing() {
    let service = Service::start().await;
    let (old, tokens) = signed_in(&service).await;
    let mut challenge = service
        .change_challenge(&tokens.access, &fresh_phone())
        .await;
    challenge.code = challenge.wrong_code();
    let refused = service.submit_as(&tokens.access, &challenge).await;
    refused.assert_is(OTP_MISMATCH);
    assert_eq!(refused.body["attempts_remaining"], 4);
    assert_eq!(phone_of(&service, &tokens).await, old);
}

#[tokio::test]
async fn of_twenty_racing_right_codes_one_changes_the_number() {
    let service = Service::start().await;
    let (_, tokens) = signed_in(&service).await;
    let challenge = service
        .change_challenge(&tokens.access, &fresh_phone())
        .await;
    let mut functions = Vec::new();
    for _ in 0..4 {
        functions.push(service.others(&[]));
    }
    let submissions = (0..20).map(|i| functions[i % 4].submit_as(&tokens.access, &challenge));
    let responses = join_all(submissions).await;
    let count = |outcome| responses.iter().filter(|r| r.outcome() == outcome).count();
    assert_eq!((count(PHONE_CHANGED), count(OTP_EXPIRED)), (1, 19));
    assert_eq!(service.me(&tokens.access).await.body["data"]["version"], 2);
}

#[tokio::test]
async fn of_two_users_who_race_for_a_number_one_gets_it() {
    let service = Service::start_with(&[PRIVATE]).await;
    let new = fresh_phone();
    let mut racers = Vec::new();
    for _ in 0..2 {
        let (old, tokens) = signed_in(&service).await;
        let challenge = service.change_challenge(&tokens.access, &new).await;
        racers.push((old, tokens, challenge, service.others(&[PRIVATE])));
    }
    let submissions = racers
        .iter()
        .map(|(_, tokens, challenge, functions)| functions.submit_as(&tokens.access, challenge));
    let responses = join_all(submissions).await;
    let mut outcomes: Vec<_> = responses.iter().map(Response::outcome).collect();
    outcomes.sort_unstable();
    assert_eq!(outcomes, [PHONE_CHANGED, USER_EXISTS]);
    assert_eq!(service.database.users_with(&new).await, 1);
    for ((old, tokens, ..), response) in racers.iter().zip(&responses) {
        let expected = if response.status == 200 { &new } else { old };
        assert_eq!(&phone_of(&service, tokens).await, expected);
    }
}

/// The row that is in the way commits after the statement's snapshot.
#[tokio::test]
async fn a_number_that_is_registered_while_the_statement_waits_is_409() {
    let service = Service::start().await;
    let (old, tokens) = signed_in(&service).await;
    let challenge = service
        .change_challenge(&tokens.access, &fresh_phone())
        .await;
    let sign_up = service.database.connect().await;
    let insert = format!(
        "BEGIN; INSERT INTO users (name, phone_number) VALUES ('Eve', '{}')",
        challenge.phone
    );
    sign_up.batch_execute(&insert).await.unwrap();
    let commit = async {
        service.database.until_waited_for().await;
        sign_up.batch_execute("COMMIT").await.unwrap();
    };
    let (refused, ()) = join(service.submit_as(&tokens.access, &challenge), commit).await;
    refused.assert_is(USER_EXISTS);
    assert_eq!(phone_of(&service, &tokens).await, old);
}

#[tokio::test]
async fn in_the_open_mode_a_taken_number_is_409_before_anything_is_sent() {
    let service = Service::start_with(&[("LIMIT_ADDRESS", "3/1h")]).await;
    let (own, tokens) = signed_in(&service).await;
    let taken = fresh_phone();
    service.database.insert_user(&taken).await;
    for phone in [&taken, &own] {
        let sent = messages_to(phone).await.len();
        let refused = service.change_phone(&tokens.access, phone).await;
        refused.assert_is(USER_EXISTS);
        assert_eq!(messages_to(phone).await.len(), sent);
    }
    // The sign-up was answered, so the address's limit had three left, and each 409 took one.
    let fresh = || fresh_phone();
    service
        .change_phone(&tokens.access, &fresh())
        .await
        .assert_ok();
    let limited = service.change_phone(&tokens.access, &fresh()).await;
    limited.assert_is(RATE_LIMITED);
}

#[tokio::test]
async fn in_the_private_mode_only_whoever_holds_a_taken_number_learns_it() {
    let service = Service::start_with(&[PRIVATE]).await;
    let (own, tokens) = signed_in(&service).await;
    let taken = fresh_phone();
    service.database.insert_user(&taken).await;
    let free = service.change_phone(&tokens.access, &fresh_phone()).await;
    for phone in [&taken, &own] {
        let sent = service.change_phone(&tokens.access, phone).await;
        assert_eq!(without_id(&sent), without_id(&free));
        let challenge = Challenge::of(&sent, phone).await;
        let refused = service.submit_as(&tokens.access, &challenge).await;
        refused.assert_is(USER_EXISTS);
    }
    assert_eq!(phone_of(&service, &tokens).await, own);
    assert_eq!(service.database.users_with(&taken).await, 1);
}

#[tokio::test]
async fn a_number_that_was_registered_meanwhile_is_409() {
    let service = Service::start().await;
    let (old, tokens) = signed_in(&service).await;
    let challenge = service
        .change_challenge(&tokens.access, &fresh_phone())
        .await;
    service.database.insert_user(&challenge.phone).await;
    let refused = service.submit_as(&tokens.access, &challenge).await;
    refused.assert_is(USER_EXISTS);
    assert_eq!(phone_of(&service, &tokens).await, old);
}

#[tokio::test]
async fn the_limit_per_phone_also_bounds_the_new_numbers_of_one_user() {
    let service = Service::start_with(&[("LIMIT_PHONE", "2/1h")]).await;
    let (_, tokens) = signed_in(&service).await;
    let (_, other) = signed_in(&service).await;
    for _ in 0..2 {
        let sent = service.change_phone(&tokens.access, &fresh_phone()).await;
        sent.assert_ok();
    }
    let refused = service.change_phone(&tokens.access, &fresh_phone()).await;
    refused.assert_is(RATE_LIMITED);
    service
        .change_phone(&other.access, &fresh_phone())
        .await
        .assert_ok();
}

/// Otherwise a code could be had without a message to the old number.
#[tokio::test]
async fn a_change_of_number_shares_no_code() {
    let service =
        Service::start_with(&[("LIMIT_PHONE", "1/1s,1/1h"), ("LIMIT_ADDRESS", "20/10m")]).await;
    let (_, tokens) = signed_in(&service).await;
    let new = fresh_phone();
    service.sign_up_from("203.0.113.77", &new).await.assert_ok();
    // A sign-up would share the code.
    service.sign_up(&new).await.assert_ok();
    let refused = service.change_phone(&tokens.access, &new).await;
    refused.assert_is(RATE_LIMITED);
}

#[tokio::test]
async fn a_request_is_checked_as_a_login_is_and_its_token_first() {
    let service = Service::start_with(&[("ALLOWED_COUNTRIES", "DE")]).await;
    let (_, tokens) = signed_in(&service).await;
    for (body, outcome) in [
        (r"{}", PHONE_MISSING),
        (r#"{"phone_number":""}"#, PHONE_MISSING),
        (r#"{"phone_number":"+1"}"#, INVALID_PHONE),
        (r#"{"phone_number":"+14155552671"}"#, UNSUPPORTED_PHONE),
        (
            r#"{"phone_number":"+14155552671","name":"Ada"}"#,
            INVALID_PAYLOAD,
        ),
        ("", INVALID_PAYLOAD),
    ] {
        let refused = service
            .send_as(&tokens.access, "POST", "/me/phone", body)
            .await;
        assert_eq!(refused.outcome(), outcome, "{body}");
        let refused = service.send_as("bent", "POST", "/me/phone", body).await;
        assert_eq!(refused.outcome(), UNAUTHENTICATED, "{body}");
    }
}

#[tokio::test]
async fn it_asks_each_store_once_and_is_503_without_it() {
    let service = Service::start().await;
    let (_, tokens) = signed_in(&service).await;
    let new = fresh_phone();
    let request = service.change_challenge(&tokens.access, &new);
    let (challenge, trips) = service.counting(request).await;
    assert_eq!(trips, (1, 1));
    service.postgres.cut().await;
    let refused = service.submit_as(&tokens.access, &challenge).await;
    refused.assert_is(NOT_REGISTERED);
    let refused = service.change_phone(&tokens.access, &fresh_phone()).await;
    refused.assert_is(NOT_STORED);
    service.postgres.restore();
    service.redis.cut().await;
    let refused = service.change_phone(&tokens.access, &fresh_phone()).await;
    refused.assert_is(NOT_STORED);
    service.redis.restore();
    let changed = service.submit_as(&tokens.access, &challenge).await;
    changed.assert_is(PHONE_CHANGED);
}
