//! Sessions: chains of refresh tokens under attack, under load and out of time.

use shared::lambda::Function as _;
use std::collections::BTreeSet;

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use futures_util::{FutureExt, future::join_all};
use harness::{
    Functions, PEPPER, Response, Service, Tokens, decoded, fresh_phone,
    outcome::{INVALID_TOKEN, LOGGED_OUT, NOT_REGISTERED, UNAUTHENTICATED, UNAVAILABLE},
    until,
};
use serde_json::{Value, json};

/// Lets time pass since the last refresh of every session.
async fn wait(service: &Service, seconds: u32) {
    let age = format!("refreshed_at = refreshed_at - interval '{seconds} seconds'");
    update(service, &age).await;
}

/// Changes every session.
async fn update(service: &Service, assignments: &str) {
    let update = format!("UPDATE sessions SET {assignments}");
    service.database.run(&update).await;
}

/// The number of sessions for which this holds.
async fn count(service: &Service, condition: &str) -> i64 {
    let database = service.database.connect().await;
    let statement = format!("SELECT count(*) FROM sessions WHERE {condition}");
    database.query_one(&statement, &[]).await.unwrap().get(0)
}

async fn is_signed_in(service: &Service, tokens: &Tokens) -> bool {
    service.me(&tokens.access).await.status == 200
}

/// The refresh token is good for nothing any more.
async fn assert_unusable(service: &Service, tokens: &Tokens) {
    let response = service.refresh(&tokens.refresh).await;
    response.assert_is(INVALID_TOKEN);
}

/// Ten instances of the functions, whose `session` is connected.
async fn ten(service: &Service) -> Vec<Functions> {
    let mut functions = Vec::new();
    for _ in 0..10 {
        let others = service.others(&[]);
        others.session.connect().await;
        functions.push(others);
    }
    functions
}

/// A claim of the access token.
fn claim(tokens: &Tokens, name: &str) -> Value {
    decoded(&tokens.access)[1][name].clone()
}

/// The id of the tokens' session.
fn session_id(tokens: &Tokens) -> String {
    claim(tokens, "sid").as_str().unwrap().to_owned()
}

#[tokio::test]
async fn verification_gives_tokens_and_a_refresh_gives_new_ones() {
    let service = Service::start().await;
    let first = service.sign_in().await;
    assert!(is_signed_in(&service, &first).await);
    let response = service.refresh(&first.refresh).await;
    let second = Tokens::of(&response);
    assert_eq!(
        response.body,
        json!({
            "success": true,
            "tokens": {
                "access_token": second.access,
                "token_type": "Bearer",
                "expires_in": 900,
                "refresh_token": second.refresh
            }
        })
    );
    assert_eq!(response.headers["cache-control"], "no-store");
    assert_ne!(second.refresh, first.refresh);
    assert_ne!(second.access, first.access);
    // The session's handle.
    assert_eq!(second.refresh[..33], first.refresh[..33]);
    assert!(is_signed_in(&service, &second).await);
    let third = service.refreshed(&second.refresh).await;
    assert!(is_signed_in(&service, &third).await);
    assert_eq!(count(&service, "true").await, 1);
}

#[tokio::test]
async fn of_a_hundred_racing_right_codes_one_gets_tokens_and_one_session_is_open() {
    let service = Service::start().await;
    let (phone, code) = service.fresh_code().await;
    let responses = join_all((0..100).map(|_| service.verify(&phone, &code))).await;
    let with_tokens = |response: &&Response| !response.body["tokens"].is_null();
    assert_eq!(responses.iter().filter(with_tokens).count(), 1);
    assert_eq!(count(&service, "true").await, 1);
}

#[tokio::test]
async fn without_postgres_there_is_no_token_and_afterwards_the_same_one_works() {
    let service = Service::start().await;
    let tokens = service.sign_in().await;
    let (phone, code) = service.fresh_code().await;
    service.postgres.cut().await;
    let verified = service.verify(&phone, &code).await;
    verified.assert_is(NOT_REGISTERED);
    assert!(verified.body["tokens"].is_null());
    for response in [
        service.refresh(&tokens.refresh).await,
        service.log_out(&tokens.refresh).await,
        service.log_out_everywhere(&tokens.refresh).await,
        service.me(&tokens.access).await,
    ] {
        response.assert_is(UNAVAILABLE);
    }
    service.postgres.restore();
    assert_eq!(count(&service, "true").await, 1);
    service.refreshed(&tokens.refresh).await;
    assert!(is_signed_in(&service, &tokens).await);
}

#[tokio::test]
async fn fifty_racing_refreshes_leave_one_chain_and_sign_nobody_out() {
    let service = Service::start().await;
    let first = service.sign_in().await;
    let functions = ten(&service).await;
    let responses = join_all((0..50).map(|i| functions[i % 10].refresh(&first.refresh))).await;
    let successors: Vec<Tokens> = responses.iter().map(Tokens::of).collect();
    let distinct: BTreeSet<&str> = successors.iter().map(|t| &*t.refresh).collect();
    assert_eq!(distinct.len(), 1);
    for tokens in &successors {
        assert!(is_signed_in(&service, tokens).await);
    }
    service.refreshed(&successors[0].refresh).await;
    assert_eq!(count(&service, "revoked_at IS NULL").await, 1);
}

#[tokio::test]
async fn after_a_lost_response_the_same_successor_is_given_for_a_minute() {
    let service = Service::start().await;
    let first = service.sign_in().await;
    let second = service.refreshed(&first.refresh).await;
    // At once, and after longer than a failover.
    for seconds in [0, 45] {
        wait(&service, seconds).await;
        let again = service.refreshed(&first.refresh).await;
        assert_eq!(again.refresh, second.refresh);
        assert!(is_signed_in(&service, &again).await);
    }
    // A retry does not buy another minute.
    wait(&service, 15).await;
    assert_unusable(&service, &first).await;
    assert_unusable(&service, &second).await;
}

/// Owner and thief hold the same token. Whoever comes second, after the grace or after the other
/// went on, ends it for both.
#[tokio::test]
async fn a_stolen_token_ends_the_session_and_that_is_committed() {
    let service = Service::start().await;
    let other = service.sign_in().await;
    for goes_on in [true, false] {
        let stolen = service.sign_in().await;
        let mut newest = service.refreshed(&stolen.refresh).await;
        if goes_on {
            newest = service.refreshed(&newest.refresh).await;
        } else {
            wait(&service, 60).await;
        }
        assert_unusable(&service, &stolen).await;
        let id = session_id(&stolen);
        let revoked = format!("id = '{id}' AND revoked_at IS NOT NULL");
        assert_eq!(count(&service, &revoked).await, 1);
        service.me(&newest.access).await.assert_is(UNAUTHENTICATED);
        assert_unusable(&service, &newest).await;
        assert_unusable(&service, &stolen).await;
    }
    service.refreshed(&other.refresh).await;
}

/// At the very moment at which the owner goes on.
#[tokio::test]
async fn an_old_token_among_fifty_new_ones_ends_the_session_whatever_their_order() {
    let service = Service::start().await;
    let first = service.sign_in().await;
    let second = service.refreshed(&first.refresh).await;
    let third = service.refreshed(&second.refresh).await;
    let functions = ten(&service).await;
    let responses = join_all((0..50).map(|i| {
        let token = if i == 25 { &first } else { &third };
        functions[i % 10].refresh(&token.refresh)
    }))
    .await;
    responses[25].assert_is(INVALID_TOKEN);
    assert_eq!(count(&service, "revoked_at IS NOT NULL").await, 1);
    for response in responses.iter().filter(|response| response.status == 200) {
        assert_unusable(&service, &Tokens::of(response)).await;
    }
}

#[tokio::test]
async fn a_secret_that_was_made_up_ends_its_session_and_no_other() {
    let service = Service::start().await;
    let (mine, yours) = (service.sign_in().await, service.sign_in().await);
    let forged = format!("{}{}", &mine.refresh[..33], &yours.refresh[33..]);
    service.refresh(&forged).await.assert_is(INVALID_TOKEN);
    assert_unusable(&service, &mine).await;
    service.refreshed(&yours.refresh).await;
}

#[tokio::test]
async fn the_grace_survives_a_change_of_peppers() {
    let service = Service::start().await;
    let first = service.sign_in().await;
    let second = service.refreshed(&first.refresh).await;
    let new = "n".repeat(32);
    let both = format!("{new},{PEPPER}");
    let changed = service.others(&[("OTP_PEPPER", &both)]);
    let again = changed.refreshed(&first.refresh).await;
    assert_eq!(again.refresh, second.refresh);
    // From here on successors are made with the new one, and the old one can go.
    let third = changed.refreshed(&second.refresh).await;
    let alone = service.others(&[("OTP_PEPPER", &new)]);
    let again = alone.refreshed(&second.refresh).await;
    assert_eq!(again.refresh, third.refresh);
    alone.refreshed(&third.refresh).await;
}

#[tokio::test]
async fn a_session_lasts_thirty_days_from_its_last_refresh() {
    let service = Service::start().await;
    let thirty_days = "expires_at - now() BETWEEN interval '30 days' - interval '1 minute'
                           AND interval '30 days'";
    let first = service.sign_in().await;
    assert_eq!(count(&service, thirty_days).await, 1);
    let last_day = "refreshed_at = now() - interval '29 days',
                    expires_at = now() + interval '1 day'";
    update(&service, last_day).await;
    let second = service.refreshed(&first.refresh).await;
    assert_eq!(count(&service, thirty_days).await, 1);
    update(&service, "expires_at = now()").await;
    assert_unusable(&service, &second).await;
    service.me(&second.access).await.assert_is(UNAUTHENTICATED);
}

#[tokio::test]
async fn a_session_lasts_at_most_180_days_from_its_beginning() {
    let service = Service::start().await;
    let first = service.sign_in().await;
    update(&service, "created_at = now() - interval '151 days'").await;
    service.refreshed(&first.refresh).await;
    let ends = "expires_at = created_at + interval '180 days'";
    assert_eq!(count(&service, ends).await, 1);
}

#[tokio::test]
async fn both_lifetimes_are_settings_and_hold_from_the_sign_in_on() {
    let own = [("SESSION_IDLE_DAYS", "2"), ("SESSION_MAX_DAYS", "3")];
    let service = Service::start_with(&own).await;
    let first = service.sign_in().await;
    let idle = "expires_at = created_at + interval '2 days'";
    assert_eq!(count(&service, idle).await, 1);
    update(&service, "created_at = created_at - interval '1 hour'").await;
    let second = service.refreshed(&first.refresh).await;
    let idle = "expires_at = refreshed_at + interval '2 days'";
    assert_eq!(count(&service, idle).await, 1);
    update(&service, "created_at = created_at - interval '1 day'").await;
    service.refreshed(&second.refresh).await;
    let max = "expires_at = created_at + interval '3 days'";
    assert_eq!(count(&service, max).await, 1);
}

#[tokio::test]
async fn an_access_token_names_its_session_and_when_it_was_opened() {
    let service = Service::start().await;
    let first = service.sign_in().await;
    // An hour ago by Postgres's clock, which is the one that counts.
    update(&service, "created_at = created_at - interval '1 hour'").await;
    let second = service.refreshed(&first.refresh).await;
    let third = service.refreshed(&second.refresh).await;
    let database = service.database.connect().await;
    let select = "SELECT id, floor(extract(epoch FROM created_at))::int8 FROM sessions";
    let row = database.query_one(select, &[]).await.unwrap();
    let (id, opened): (String, i64) = (row.get(0), row.get(1));
    assert_eq!(claim(&first, "auth_time"), opened + 3600);
    for tokens in [&second, &third] {
        assert_eq!(claim(tokens, "auth_time"), opened);
    }
    for tokens in [&first, &second, &third] {
        assert_eq!(session_id(tokens), id);
        assert_eq!(claim(tokens, "amr"), json!(["otp", "sms"]));
    }
    let other = service.sign_in().await;
    assert_ne!(session_id(&other), id);
}

/// It is in access tokens, which other services see.
#[tokio::test]
async fn the_id_of_a_session_ends_no_session() {
    let service = Service::start().await;
    let mine = service.sign_in().await;
    let id = session_id(&mine);
    assert!(!mine.refresh.contains(&id));
    let forged = format!("{id}{}", &service.sign_in().await.refresh[32..]);
    service.refresh(&forged).await.assert_is(INVALID_TOKEN);
    service.log_out(&forged).await.assert_ok();
    assert!(is_signed_in(&service, &mine).await);
    service.refreshed(&mine.refresh).await;
}

#[tokio::test]
async fn an_access_token_is_refused_as_soon_as_its_session_has_ended() {
    let service = Service::start().await;
    let (mine, yours) = (service.sign_in().await, service.sign_in().await);
    service.log_out(&mine.refresh).await.assert_ok();
    let refused = service.me(&mine.access).await;
    refused.assert_is(UNAUTHENTICATED);
    assert_eq!(
        refused.headers["www-authenticate"],
        r#"Bearer realm="otp-auth", error="invalid_token""#
    );
    assert!(is_signed_in(&service, &yours).await);
    // The statement by which docs/operations.md signs everybody out.
    update(&service, "revoked_at = now() WHERE revoked_at IS NULL").await;
    service.me(&yours.access).await.assert_is(UNAUTHENTICATED);
}

#[tokio::test]
async fn logout_ends_the_session_and_is_200_however_often_and_whatever_the_token() {
    let service = Service::start().await;
    let (older, yours) = (service.sign_in().await, service.sign_in().await);
    let mine = service.refreshed(&older.refresh).await;
    let unknown = format!("{}{}", "0".repeat(32), &mine.refresh[32..]);
    for token in [&mine.refresh, &mine.refresh, &older.refresh, &unknown, "x"] {
        let response = service.log_out(token).await;
        response.assert_is(LOGGED_OUT);
        let body = json!({"success": true, "message": "Logged out successfully"});
        assert_eq!(response.body, body);
    }
    assert_unusable(&service, &mine).await;
    assert_unusable(&service, &older).await;
    service.refreshed(&yours.refresh).await;
}

/// Three sessions of one user, and one of somebody else.
async fn three_and_one(service: &Service) -> ([Tokens; 3], Tokens) {
    let phone = fresh_phone();
    let first = Tokens::of(&service.register(&phone).await);
    let second = service.log_in_again(&phone).await;
    let third = service.log_in_again(&phone).await;
    ([first, second, third], service.sign_in().await)
}

#[tokio::test]
async fn a_logout_everywhere_ends_all_sessions_of_the_user_and_of_nobody_else() {
    let service = Service::start().await;
    let (mine, yours) = three_and_one(&service).await;
    let response = service.log_out_everywhere(&mine[1].refresh).await;
    response.assert_is(LOGGED_OUT);
    let body = json!({"success": true, "message": "Logged out successfully"});
    assert_eq!(response.body, body);
    for tokens in &mine {
        service.me(&tokens.access).await.assert_is(UNAUTHENTICATED);
        assert_unusable(&service, tokens).await;
    }
    assert!(is_signed_in(&service, &yours).await);
    service.refreshed(&yours.refresh).await;
}

#[tokio::test]
async fn a_logout_that_is_not_everywhere_ends_one_session() {
    let service = Service::start().await;
    let ([first, second, third], _) = three_and_one(&service).await;
    let body = json!({"refresh_token": second.refresh, "everywhere": false});
    service.post("/logout", &body).await.assert_is(LOGGED_OUT);
    assert_unusable(&service, &second).await;
    service.refreshed(&first.refresh).await;
    service.log_out(&first.refresh).await.assert_is(LOGGED_OUT);
    service.refreshed(&third.refresh).await;
}

/// The response to a refresh was lost.
#[tokio::test]
async fn the_previous_token_logs_out_everywhere_for_a_minute() {
    for peppers in [PEPPER.to_owned(), format!("{},{PEPPER}", "n".repeat(32))] {
        let service = Service::start().await;
        let ([first, second, third], _) = three_and_one(&service).await;
        let newest = service.refreshed(&first.refresh).await;
        wait(&service, 45).await;
        let others = service.others(&[("OTP_PEPPER", &peppers)]);
        let response = others.log_out_everywhere(&first.refresh).await;
        response.assert_is(LOGGED_OUT);
        for tokens in [&newest, &second, &third] {
            assert_unusable(&service, tokens).await;
        }
    }
}

/// A stolen token, or a handle alone, ends its own session, as it would at a refresh.
#[tokio::test]
async fn an_old_or_made_up_token_logs_out_nowhere_else() {
    let service = Service::start().await;
    for case in ["older", "too late", "made up", "logged out", "expired"] {
        let ([first, second, third], yours) = three_and_one(&service).await;
        let mut token = first.refresh.clone();
        match case {
            "older" => {
                let newer = service.refreshed(&token).await;
                service.refreshed(&newer.refresh).await;
            }
            "too late" => {
                service.refreshed(&token).await;
                wait(&service, 60).await;
            }
            "made up" => token.replace_range(33.., &yours.refresh[33..]),
            "logged out" => service.log_out(&token).await.assert_ok(),
            _ => {
                let expire = format!("expires_at = now() WHERE id = '{}'", session_id(&first));
                update(&service, &expire).await;
            }
        }
        let response = service.log_out_everywhere(&token).await;
        assert_eq!(response.outcome(), LOGGED_OUT, "{case}");
        assert!(!is_signed_in(&service, &first).await, "{case}");
        for tokens in [&second, &third, &yours] {
            assert!(is_signed_in(&service, tokens).await, "{case}");
            service.refreshed(&tokens.refresh).await;
        }
    }
}

#[tokio::test]
async fn the_id_of_a_session_logs_nobody_out_everywhere() {
    let service = Service::start().await;
    let ([first, second, _], _) = three_and_one(&service).await;
    let forged = format!("{}{}", session_id(&first), &first.refresh[32..]);
    let response = service.log_out_everywhere(&forged).await;
    response.assert_is(LOGGED_OUT);
    for tokens in [first, second] {
        service.refreshed(&tokens.refresh).await;
    }
}

#[tokio::test]
async fn logouts_everywhere_that_race_end_everything_and_none_fails() {
    let service = Service::start().await;
    let phone = fresh_phone();
    let mut all = vec![Tokens::of(&service.register(&phone).await)];
    for _ in 0..9 {
        all.push(service.log_in_again(&phone).await);
    }
    let functions = ten(&service).await;
    let requests = (0..50).map(|i| functions[i % 10].log_out_everywhere(&all[i / 5].refresh));
    for response in join_all(requests).await {
        response.assert_is(LOGGED_OUT);
    }
    assert_eq!(count(&service, "revoked_at IS NULL").await, 0);
}

/// So that the two cannot lock the sessions in different orders, which would be a deadlock.
#[tokio::test]
async fn a_logout_everywhere_waits_for_the_user_before_it_locks_a_session() {
    let service = Service::start().await;
    let tokens = service.sign_in().await;
    let client = service.database.connect().await;
    let lock = "BEGIN; SELECT FROM users FOR NO KEY UPDATE";
    client.batch_execute(lock).await.unwrap();
    let observer = service.database.observer().await;
    let delete = async {
        let waits = async || observer.waiting().await == 1;
        until("the logout waits for the lock", waits).await;
        client
            .batch_execute("SELECT FROM sessions FOR UPDATE NOWAIT; DELETE FROM users; COMMIT")
            .await
    };
    let (response, deleted) = tokio::join!(service.log_out_everywhere(&tokens.refresh), delete);
    deleted.unwrap();
    response.assert_is(LOGGED_OUT);
}

#[tokio::test]
async fn a_user_who_is_gone_has_no_session() {
    let service = Service::start().await;
    let tokens = service.sign_in().await;
    service.database.run("DELETE FROM users").await;
    assert_eq!(count(&service, "true").await, 0);
    assert_unusable(&service, &tokens).await;
}

#[tokio::test]
async fn what_cannot_be_a_refresh_token_is_401_without_asking_postgres() {
    let service = Service::start().await;
    let token = service.sign_in().await.refresh;
    let before = service.postgres.round_trips();
    for text in [
        &token[..token.len() - 1],
        &token[1..],
        &format!("{token}A"),
        &format!(" {token}"),
        &token.replace('.', ""),
        &token.to_uppercase(),
        "eyJhbGciOiJub25lIn0.e30.",
        "null",
        "' OR true --",
        "\0",
    ] {
        let response = service.refresh(text).await;
        assert_eq!(response.outcome(), INVALID_TOKEN, "{text:?}");
    }
    assert_eq!(service.postgres.round_trips(), before);
    service.refreshed(&token).await;
}

#[tokio::test]
async fn postgres_holds_no_token() {
    let service = Service::start().await;
    let first = service.sign_in().await;
    let second = service.refreshed(&first.refresh).await;
    let database = service.database.connect().await;
    let select = "SELECT sessions::text, token_digest FROM sessions";
    let row = database.query_one(select, &[]).await.unwrap();
    let (text, digest): (String, Vec<u8>) = (row.get(0), row.get(1));
    assert_eq!(digest.len(), 32);
    for tokens in [first, second] {
        let encoded = &tokens.refresh[33..];
        let secret = BASE64_URL_SAFE_NO_PAD.decode(encoded).unwrap();
        assert_ne!(digest, secret);
        let half = u128::from_be_bytes(secret[..16].try_into().unwrap());
        let hexadecimal = format!("{half:032x}");
        for secret in [encoded, &tokens.access, &hexadecimal] {
            assert!(!text.contains(secret), "{text}");
        }
    }
}

#[tokio::test]
async fn each_request_of_a_session_is_one_round_trip() {
    let service = Service::start().await;
    let tokens = service.sign_in().await;
    // To Redis none, to Postgres one.
    let (signed_in, trips) = service.counting(is_signed_in(&service, &tokens)).await;
    assert_eq!((signed_in, trips), (true, (0, 1)));
    let (tokens, trips) = service.counting(service.refreshed(&tokens.refresh)).await;
    assert_eq!(trips, (0, 1));
    for request in [
        service.log_out_everywhere(&tokens.refresh).boxed_local(),
        service.log_out(&tokens.refresh).boxed_local(),
    ] {
        let (response, trips) = service.counting(request).await;
        assert_eq!((response.status, trips), (200, (0, 1)));
    }
    let (_, trips) = service
        .counting(service.get("/.well-known/jwks.json"))
        .await;
    assert_eq!(trips, (0, 0));
}
