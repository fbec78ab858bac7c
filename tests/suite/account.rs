//! The routes below `/me`: a signed-in user sees and changes their account.

use futures_util::future::join_all;
use harness::{
    Gateway, Response, Service, Tokens, decoded, fresh_phone,
    outcome::{
        DELETED, EDIT_CONFLICT, INVALID_NAME, INVALID_TOKEN, NOT_FOUND, REGISTERED, SESSION_ENDED,
        UNAUTHENTICATED, UNAVAILABLE, USER_NOT_FOUND,
    },
    set_header,
};
use serde_json::{Value, json};

/// The user as `/me` returns them.
async fn user(service: &Service, tokens: &Tokens) -> Value {
    let me = service.me(&tokens.access).await;
    me.assert_ok();
    me.body["data"].clone()
}

/// The id of the tokens' session.
fn session_id(tokens: &Tokens) -> Value {
    decoded(&tokens.access)[1]["sid"].clone()
}

/// The sessions that a token's user is shown.
async fn sessions(service: &Service, tokens: &Tokens) -> Vec<Value> {
    let listed = service.sessions(&tokens.access).await;
    listed.assert_ok();
    listed.body["data"].as_array().unwrap().clone()
}

/// The ids of these sessions.
async fn ids(service: &Service, tokens: &Tokens) -> Vec<Value> {
    let listed = sessions(service, tokens).await;
    listed.iter().map(|session| session["id"].clone()).collect()
}

/// A phone that has just signed up, with so many sessions more, each a minute newer than the one
/// before.
async fn with_sessions(service: &Service, more: usize) -> Vec<Tokens> {
    let phone = fresh_phone();
    let mut all = vec![Tokens::of(&service.register(&phone).await)];
    for _ in 0..more {
        let age = "UPDATE sessions SET created_at = created_at - interval '1 minute',
                       refreshed_at = refreshed_at - interval '1 minute'";
        service.database.run(age).await;
        all.push(service.log_in_again(&phone).await);
    }
    all
}

#[tokio::test]
async fn a_change_of_name_returns_the_user_with_the_next_version() {
    let service = Service::start().await;
    let tokens = service.sign_in().await;
    let mut expected = user(&service, &tokens).await;
    for (version, sent, stored) in [
        (1, "Ada Lovelace", "Ada Lovelace"),
        (2, " Łukasz ", "Łukasz"),
    ] {
        let renamed = service.rename(&tokens.access, sent, version).await;
        expected["name"] = stored.into();
        expected["version"] = (version + 1).into();
        assert_eq!(renamed.status, 200);
        assert_eq!(renamed.body, json!({"success": true, "data": expected}));
        assert_eq!(renamed.headers["cache-control"], "no-store");
        assert_eq!(user(&service, &tokens).await, expected);
    }
}

#[tokio::test]
async fn a_change_of_name_changes_no_other_user() {
    let service = Service::start().await;
    let (mine, yours) = (service.sign_in().await, service.sign_in().await);
    let before = user(&service, &yours).await;
    service.rename(&mine.access, "Eve", 1).await.assert_ok();
    assert_eq!(user(&service, &yours).await, before);
}

#[tokio::test]
async fn a_stale_version_is_409_and_changes_nothing() {
    let service = Service::start().await;
    let tokens = service.sign_in().await;
    service.rename(&tokens.access, "Eve", 1).await.assert_ok();
    let before = user(&service, &tokens).await;
    for version in [1, 3, 0, -1, i64::from(i32::MAX)] {
        let refused = service.rename(&tokens.access, "Mallory", version).await;
        refused.assert_is(EDIT_CONFLICT);
    }
    assert_eq!(user(&service, &tokens).await, before);
}

#[tokio::test]
async fn of_twenty_racing_changes_with_one_version_one_wins() {
    let service = Service::start().await;
    let tokens = service.sign_in().await;
    let mut functions = Vec::new();
    for _ in 0..10 {
        functions.push(service.others(&[]));
    }
    let names: Vec<String> = (0..20).map(|i| format!("Ada {i}")).collect();
    let renames = names.iter().enumerate();
    let renames = renames.map(|(i, name)| functions[i % 10].rename(&tokens.access, name, 1));
    let responses = join_all(renames).await;
    let (won, lost): (Vec<_>, Vec<_>) = responses
        .iter()
        .partition(|response| response.status == 200);
    assert_eq!(won.len(), 1);
    for response in lost {
        response.assert_is(EDIT_CONFLICT);
    }
    assert_eq!(user(&service, &tokens).await, won[0].body["data"]);
    assert_eq!(won[0].body["data"]["version"], 2);
}

#[tokio::test]
async fn a_bad_name_is_400_and_does_not_reach_postgres() {
    let service = Service::start().await;
    let tokens = service.sign_in().await;
    for name in [
        "",
        "  ",
        "Ada\0",
        "Ada\n",
        "Ada \u{202e}x",
        &"a".repeat(101),
    ] {
        let (refused, trips) = service
            .counting(service.rename(&tokens.access, name, 1))
            .await;
        assert_eq!(refused.outcome(), INVALID_NAME, "{name:?}");
        assert_eq!(trips, (0, 0));
    }
    let longest = "é".repeat(100);
    service
        .rename(&tokens.access, &longest, 1)
        .await
        .assert_ok();
}

/// Nobody without a valid token learns how a body is read.
#[tokio::test]
async fn without_a_token_a_change_of_name_is_401_whatever_its_body() {
    let service = Service::start().await;
    for body in ["{}", "", "{", r#"{"name":"Eve","version":1}"#] {
        let refused = service.send_as("", "PATCH", "/me", body).await;
        refused.assert_is(UNAUTHENTICATED);
    }
}

#[tokio::test]
async fn after_the_end_of_its_session_a_token_changes_no_name() {
    let service = Service::start().await;
    let phone = fresh_phone();
    let tokens = Tokens::of(&service.register(&phone).await);
    let other = service.log_in_again(&phone).await;
    service.log_out(&tokens.refresh).await.assert_ok();
    let before = user(&service, &other).await;
    let refused = service.rename(&tokens.access, "Eve", 1).await;
    refused.assert_is(UNAUTHENTICATED);
    assert_eq!(user(&service, &other).await, before);
}

#[tokio::test]
async fn after_its_deletion_everything_of_a_user_is_401_and_nothing_of_another() {
    let service = Service::start().await;
    let phone = fresh_phone();
    let first = Tokens::of(&service.register(&phone).await);
    let second = service.log_in_again(&phone).await;
    let other = service.sign_in().await;
    let deleted = service.delete_user(&second.access).await;
    deleted.assert_is(DELETED);
    let body = json!({"success": true, "message": "User deleted successfully"});
    assert_eq!(deleted.body, body);
    for Tokens { access, refresh } in [&first, &second] {
        service.me(access).await.assert_is(UNAUTHENTICATED);
        let renamed = service.rename(access, "Eve", 1).await;
        renamed.assert_is(UNAUTHENTICATED);
        service.sessions(access).await.assert_is(UNAUTHENTICATED);
        service.delete_user(access).await.assert_is(UNAUTHENTICATED);
        service.refresh(refresh).await.assert_is(INVALID_TOKEN);
    }
    service.me(&other.access).await.assert_ok();
    service.refreshed(&other.refresh).await;
    assert_eq!(service.database.count_users().await, 1);
}

#[tokio::test]
async fn the_number_of_a_deleted_user_can_sign_up_again_as_somebody_else() {
    let service = Service::start().await;
    let phone = fresh_phone();
    let registered = service.register(&phone).await;
    let tokens = Tokens::of(&registered);
    service.delete_user(&tokens.access).await.assert_is(DELETED);
    service.log_in(&phone).await.assert_is(USER_NOT_FOUND);
    let again = service.register(&phone).await;
    again.assert_is(REGISTERED);
    assert_ne!(again.body["data"]["id"], registered.body["data"]["id"]);
    service.me(&tokens.access).await.assert_is(UNAUTHENTICATED);
}

/// The codes stay in Redis, which `session` does not know.
#[tokio::test]
async fn no_pending_code_of_a_deleted_user_brings_the_account_back() {
    let service = Service::start().await;
    let phone = fresh_phone();
    let sign_up = service.challenge(&phone).await;
    let registered = service.register(&phone).await;
    let login = service.login_challenge(&phone).await;
    let token = Tokens::of(&registered).access;
    service.delete_user(&token).await.assert_is(DELETED);
    service.submit(&login).await.assert_is(USER_NOT_FOUND);
    assert_eq!(service.database.count_users().await, 0);
    let again = service.submit(&sign_up).await;
    again.assert_is(REGISTERED);
    assert_ne!(again.body["data"]["id"], registered.body["data"]["id"]);
    service.me(&token).await.assert_is(UNAUTHENTICATED);
}

#[tokio::test]
async fn after_the_end_of_its_session_a_token_deletes_nobody() {
    let service = Service::start().await;
    let tokens = service.sign_in().await;
    service.log_out(&tokens.refresh).await.assert_ok();
    let refused = service.delete_user(&tokens.access).await;
    refused.assert_is(UNAUTHENTICATED);
    assert_eq!(service.database.count_users().await, 1);
}

/// Whoever comes second waits for the other, and no session is left without its user.
#[tokio::test]
async fn logins_that_race_a_deletion_leave_no_session_behind() {
    let service = Service::start().await;
    let phone = fresh_phone();
    let tokens = Tokens::of(&service.register(&phone).await);
    let mut logins = Vec::new();
    for _ in 0..10 {
        let challenge = service.login_challenge(&phone).await;
        logins.push((service.others(&[]), challenge));
    }
    let submissions = join_all(logins.iter().map(|(f, challenge)| f.submit(challenge)));
    let (deleted, responses) = tokio::join!(service.delete_user(&tokens.access), submissions);
    deleted.assert_is(DELETED);
    for response in responses {
        if response.status == 200 {
            let token = Tokens::of(&response).access;
            service.me(&token).await.assert_is(UNAUTHENTICATED);
        } else {
            response.assert_is(USER_NOT_FOUND);
        }
    }
}

#[tokio::test]
async fn the_list_of_sessions_has_the_live_ones_of_the_user_newest_first() {
    let service = Service::start().await;
    let other = service.sign_in().await;
    let all = with_sessions(&service, 4).await;
    service.log_out(&all[1].refresh).await.assert_ok();
    let expire = format!(
        "UPDATE sessions SET expires_at = now() WHERE id = '{}'",
        session_id(&all[2]).as_str().unwrap()
    );
    service.database.run(&expire).await;
    let expected = [&all[4], &all[3], &all[0]].map(session_id);
    for asking in [&all[0], &all[3], &all[4]] {
        assert_eq!(ids(&service, asking).await, expected);
        for session in sessions(&service, asking).await {
            assert_eq!(session["current"], session["id"] == session_id(asking));
        }
    }
    assert_eq!(ids(&service, &other).await, [session_id(&other)]);
}

#[tokio::test]
async fn a_listed_session_has_its_times_to_the_second_and_nothing_of_its_tokens() {
    let service = Service::start().await;
    let first = service.sign_in().await;
    let set = "UPDATE sessions SET created_at = '2026-11-22T10:15:30.987+02:00',
                   refreshed_at = '2026-11-22T10:15:30.987+02:00'";
    service.database.run(set).await;
    let mut expected = json!({
        "id": session_id(&first),
        "created_at": "2026-11-22T08:15:30Z",
        "refreshed_at": "2026-11-22T08:15:30Z",
        "current": true
    });
    let listed = service.sessions(&first.access).await;
    assert_eq!(listed.body, json!({"success": true, "data": [expected]}));
    assert_eq!(listed.headers["cache-control"], "no-store");
    let second = service.refreshed(&first.refresh).await;
    let listed = sessions(&service, &second).await;
    let refreshed_at = listed[0]["refreshed_at"].as_str().unwrap();
    assert!(refreshed_at.len() == 20 && refreshed_at > "2026-11-22T08:15:30Z");
    expected["refreshed_at"] = refreshed_at.into();
    assert_eq!(listed, [expected]);
    // Whoever has the handle can end the session.
    for tokens in [first, second] {
        let (handle, secret) = tokens.refresh.split_once('.').unwrap();
        let text = listed[0].to_string();
        assert!(!text.contains(handle) && !text.contains(secret), "{text}");
    }
}

#[tokio::test]
async fn after_the_end_of_its_session_a_token_lists_no_sessions() {
    let service = Service::start().await;
    let all = with_sessions(&service, 1).await;
    service.log_out(&all[0].refresh).await.assert_ok();
    let refused = service.sessions(&all[0].access).await;
    refused.assert_is(UNAUTHENTICATED);
    assert_eq!(ids(&service, &all[1]).await, [session_id(&all[1])]);
}

/// Ends the session of `other` with the access token of `tokens`.
async fn end(service: &Service, tokens: &Tokens, other: &Tokens) -> Response {
    let id = session_id(other);
    let id = id.as_str().unwrap();
    service.end_session(&tokens.access, id).await
}

#[tokio::test]
async fn a_session_is_ended_by_another_one_of_its_user() {
    let service = Service::start().await;
    let all = with_sessions(&service, 2).await;
    let ended = end(&service, &all[2], &all[0]).await;
    ended.assert_is(SESSION_ENDED);
    let body = json!({"success": true, "message": "Session ended"});
    assert_eq!(ended.body, body);
    service.me(&all[0].access).await.assert_is(UNAUTHENTICATED);
    let refused = service.refresh(&all[0].refresh).await;
    refused.assert_is(INVALID_TOKEN);
    let left = [&all[2], &all[1]].map(session_id);
    assert_eq!(ids(&service, &all[1]).await, left);
    service.refreshed(&all[1].refresh).await;
}

#[tokio::test]
async fn a_session_may_end_itself_and_its_tokens_are_401_at_once() {
    let service = Service::start().await;
    let all = with_sessions(&service, 1).await;
    let ended = end(&service, &all[1], &all[1]).await;
    ended.assert_is(SESSION_ENDED);
    let again = end(&service, &all[1], &all[1]).await;
    again.assert_is(UNAUTHENTICATED);
    let refused = service.refresh(&all[1].refresh).await;
    refused.assert_is(INVALID_TOKEN);
    service.refreshed(&all[0].refresh).await;
}

#[tokio::test]
async fn the_session_of_another_user_is_404_and_goes_on() {
    let service = Service::start().await;
    let (mine, yours) = (service.sign_in().await, service.sign_in().await);
    let refused = end(&service, &mine, &yours).await;
    refused.assert_is(NOT_FOUND);
    service.me(&yours.access).await.assert_ok();
    service.refreshed(&yours.refresh).await;
}

#[tokio::test]
async fn a_session_that_is_unknown_or_over_is_404() {
    let service = Service::start().await;
    let all = with_sessions(&service, 2).await;
    end(&service, &all[2], &all[0])
        .await
        .assert_is(SESSION_ENDED);
    end(&service, &all[2], &all[0]).await.assert_is(NOT_FOUND);
    let expire = format!(
        "UPDATE sessions SET expires_at = now() WHERE id = '{}'",
        session_id(&all[1]).as_str().unwrap()
    );
    service.database.run(&expire).await;
    end(&service, &all[2], &all[1]).await.assert_is(NOT_FOUND);
    let handle = &all[2].refresh[..32];
    for id in [
        handle,
        "x",
        "{id}",
        "%00",
        "\0",
        "'",
        &"0".repeat(32),
        &"0".repeat(64),
    ] {
        let refused = service.end_session(&all[2].access, id).await;
        assert_eq!(refused.outcome(), NOT_FOUND, "{id:?}");
    }
    service.refreshed(&all[2].refresh).await;
}

#[tokio::test]
async fn after_the_end_of_its_session_a_token_ends_no_session() {
    let service = Service::start().await;
    let all = with_sessions(&service, 1).await;
    service.log_out(&all[0].refresh).await.assert_ok();
    let refused = end(&service, &all[0], &all[1]).await;
    refused.assert_is(UNAUTHENTICATED);
    let refused = service.end_session(&all[0].access, "x").await;
    refused.assert_is(UNAUTHENTICATED);
    service.me(&all[1].access).await.assert_ok();
}

#[tokio::test]
async fn of_ten_racing_ends_of_one_session_one_finds_it() {
    let service = Service::start().await;
    let all = with_sessions(&service, 1).await;
    let mut functions = Vec::new();
    for _ in 0..10 {
        functions.push(service.others(&[]));
    }
    let id = session_id(&all[0]);
    let id = id.as_str().unwrap();
    let ends = functions.iter().map(|f| f.end_session(&all[1].access, id));
    let responses = join_all(ends).await;
    let found = responses.iter().filter(|response| response.status == 200);
    assert_eq!(found.count(), 1);
    for response in responses.iter().filter(|response| response.status != 200) {
        response.assert_is(NOT_FOUND);
    }
}

/// The stage that API Gateway may put in front of a path is no part of the route.
#[tokio::test]
async fn a_session_is_ended_through_every_kind_of_gateway() {
    let service = Service::start().await;
    let all = with_sessions(&service, Gateway::ALL.len()).await;
    let (newest, older) = all.split_last().unwrap();
    for (gateway, other) in Gateway::ALL.into_iter().zip(older) {
        let path = format!("/me/sessions/{}", session_id(other).as_str().unwrap());
        let mut event = gateway.event("DELETE", &path);
        let bearer = format!("Bearer {}", newest.access);
        set_header(&mut event, "authorization", Some(&bearer));
        let ended = service.send("session", &event).await;
        assert_eq!(ended.outcome(), SESSION_ENDED, "{gateway:?}");
    }
}

#[tokio::test]
async fn every_request_below_me_is_one_round_trip_and_503_without_postgres() {
    let service = Service::start().await;
    let all = with_sessions(&service, 1).await;
    let (older, tokens) = (&all[0], &all[1]);
    let older = format!("/me/sessions/{}", session_id(older).as_str().unwrap());
    let requests = [
        ("GET", "/me", ""),
        ("GET", "/me/sessions", ""),
        ("PATCH", "/me", r#"{"name":"Eve","version":1}"#),
        ("DELETE", &older, ""),
        ("DELETE", "/me", ""),
    ];
    service.postgres.cut().await;
    for (method, path, body) in requests {
        let response = service.send_as(&tokens.access, method, path, body).await;
        response.assert_is(UNAVAILABLE);
    }
    service.postgres.restore();
    service.me(&tokens.access).await.assert_ok();
    for (method, path, body) in requests {
        let request = service.send_as(&tokens.access, method, path, body);
        let (response, trips) = service.counting(request).await;
        assert_eq!((response.status, trips), (200, (0, 1)), "{method} {path}");
    }
}
