//! Connections that break at each step, and servers that refuse.

use std::time::Duration;

use harness::{Behaviour, Fault, Provider, RedisServer, Service, fresh_phone, until, wrong};
use redis::Cmd;
use shared::config::Env;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};

use super::{in_time, rows};
use crate::outages::assert_unavailable;

/// The faults after which the server has done what it was asked for.
const REPLY_LOST: [Fault; 4] = [
    Fault::CutReply,
    Fault::ResetReply,
    Fault::HalfClose,
    Fault::LoseReply,
];

type Commands = &'static [&'static [&'static str]];

/// Short, because some faults are waited for to the end.
async fn start(own: &[(&str, &str)]) -> Service {
    let mut settings = vec![("STORE_TIMEOUT_MS", "1000")];
    settings.extend(own);
    Service::start_with(&settings).await
}

/// Something on the way forgets connections while nobody uses them, and tells neither end.
#[tokio::test]
async fn connections_that_were_lost_while_idle_are_replaced_unnoticed() {
    let service = start(&[]).await;
    let phone = fresh_phone();
    let code = service.code_for(&phone).await;
    service.postgres.lose_connections();
    service.redis.lose_connections();
    // So long that they count as idle: this is about time that has passed.
    tokio::time::sleep(Duration::from_millis(5100)).await;
    assert_eq!(in_time(service.verify(&phone, &code)).await.status, 200);
    let other = fresh_phone();
    assert_eq!(in_time(service.sign_up("Ada", &other)).await.status, 200);
    assert_eq!(rows(&service.database, &phone).await, 1);
}

#[tokio::test]
async fn a_commit_whose_answer_is_lost_is_503_and_asking_again_makes_no_second_row() {
    for fault in REPLY_LOST {
        let service = start(&[]).await;
        let phone = fresh_phone();
        let code = service.code_for(&phone).await;
        service.postgres.after(0, fault);
        let response = in_time(service.verify(&phone, &code)).await;
        assert_unavailable(&response, "Failed to register user");
        until("it is committed", async || {
            rows(&service.database, &phone).await == 1
        })
        .await;
        let again = service.verify(&phone, &code).await;
        let used = (401, "Invalid or expired OTP", "otp_expired");
        assert_eq!(again.outcome(), used, "{fault:?}");
        let taken = service.sign_up("Ada", &phone).await;
        assert_eq!(taken.text("code"), "user_exists", "{fault:?}");
        assert_eq!(rows(&service.database, &phone).await, 1, "{fault:?}");
    }
}

#[tokio::test]
async fn a_commit_that_never_reached_postgres_is_503_and_the_same_code_works_after() {
    for fault in [Fault::CutRequest, Fault::LoseRequest] {
        let service = start(&[]).await;
        let phone = fresh_phone();
        let code = service.code_for(&phone).await;
        service.postgres.after(0, fault);
        let response = in_time(service.verify(&phone, &code)).await;
        assert_unavailable(&response, "Failed to register user");
        assert_eq!(rows(&service.database, &phone).await, 0, "{fault:?}");
        assert_eq!(service.verify(&phone, &code).await.status, 200, "{fault:?}");
    }
}

#[tokio::test]
async fn a_read_whose_connection_breaks_is_asked_again_unnoticed() {
    for fault in [Fault::CutRequest, Fault::CutReply, Fault::ResetReply] {
        let service = start(&[]).await;
        service.postgres.after(0, fault);
        let response = in_time(service.sign_up("Ada", &fresh_phone())).await;
        assert_eq!(response.status, 200, "{fault:?}");
        assert_eq!(service.postgres.faults_met(), 1);
    }
}

#[tokio::test]
async fn a_code_whose_issue_was_not_confirmed_is_issued_once_and_costs_one_send() {
    for fault in [
        Fault::CutRequest,
        Fault::CutReply,
        Fault::ResetReply,
        Fault::HalfClose,
    ] {
        let provider = Provider::start(Behaviour::Accept).await;
        let endpoint = provider.url();
        let service = start(&[("LIMIT_PHONE", "2/1d"), ("AWS_ENDPOINT_URL_SNS", &endpoint)]).await;
        // Redis knows the script.
        assert_eq!(service.sign_up("Ada", &fresh_phone()).await.status, 200);
        let phone = fresh_phone();
        service.redis.after(0, fault);
        let response = in_time(service.sign_up("Ada", &phone)).await;
        assert_eq!(response.status, 200, "{fault:?}");
        assert_eq!(service.redis.faults_met(), 1);
        let id = service.redis_server.latest_challenge(&phone).await;
        assert_eq!(
            id.as_deref(),
            Some(response.text("challenge_id")),
            "{fault:?}"
        );
        assert_eq!(provider.messages_to(&phone).len(), 1, "{fault:?}");
        // Of two sends one was taken.
        assert_eq!(service.sign_up("Ada", &phone).await.status, 200);
        assert_eq!(service.sign_up("Ada", &phone).await.status, 429);
    }
}

#[tokio::test]
async fn a_guess_whose_answer_is_lost_may_count_twice_and_is_never_free() {
    for fault in REPLY_LOST {
        let service = start(&[]).await;
        let phone = fresh_phone();
        let code = service.code_for(&phone).await;
        // Connected, and Redis knows the script.
        assert_eq!(service.verify(&phone, &wrong(&code)).await.status, 401);
        service.redis.after(0, fault);
        let response = in_time(service.verify(&phone, &wrong(&code))).await;
        assert!(
            [401, 503].contains(&response.status),
            "{fault:?}: {response:?}"
        );
        let id = service.redis_server.latest_challenge(&phone).await.unwrap();
        let key = format!("{{otp}}:challenge:{id}");
        let command = ["HGET", &key, "wrong_as_latest"];
        let counted: u32 = service.redis_server.run(&command).await;
        assert!((2..=3).contains(&counted), "{fault:?}: {counted}");
        if response.status == 401 {
            assert_eq!(
                response.body["attempts_remaining"],
                5 - counted,
                "{fault:?}"
            );
        }
        assert_eq!(service.verify(&phone, &code).await.status, 200, "{fault:?}");
    }
}

#[tokio::test]
async fn a_redis_that_stops_answering_is_503_once_and_sends_nothing() {
    for fault in [Fault::LoseRequest, Fault::LoseReply] {
        let provider = Provider::start(Behaviour::Accept).await;
        let service = start(&[("AWS_ENDPOINT_URL_SNS", &provider.url())]).await;
        // Redis knows the script.
        assert_eq!(service.sign_up("Ada", &fresh_phone()).await.status, 200);
        let phone = fresh_phone();
        service.redis.after(0, fault);
        let response = in_time(service.sign_up("Ada", &phone)).await;
        assert_unavailable(&response, "Failed to store user data");
        assert!(provider.messages_to(&phone).is_empty());
        // The challenge was revoked.
        let left = service.redis_server.latest_challenge(&phone).await;
        assert_eq!(left, None, "{fault:?}");
        assert_eq!(service.sign_up("Ada", &phone).await.status, 200);
    }
}

/// It was written to a connection that was left since, and revoked before it arrived.
#[tokio::test]
async fn a_request_that_redis_hears_too_late_takes_nothing_and_is_not_the_newest() {
    let service = start(&[("LIMIT_PHONE", "2/1d")]).await;
    let phone = fresh_phone();
    let code = service.code_for(&phone).await;
    let late = Duration::from_millis(1500);
    service.redis.after(0, Fault::DelayRequest(late));
    let response = in_time(service.sign_up("Ada", &phone)).await;
    assert_unavailable(&response, "Failed to store user data");
    until("it has arrived", async || !service.redis.delays()).await;
    // Redis takes one after the other.
    service.redis_server.run::<()>(&["PING"]).await;
    assert_eq!(service.verify(&phone, &code).await.status, 200);
    let limits: Vec<String> = service.redis_server.run(&["KEYS", "*limit:phone*"]).await;
    assert_eq!(limits.len(), 1, "{limits:?}");
    let left: u64 = service.redis_server.run(&["PTTL", &limits[0]]).await;
    assert!(left <= 43_200_000, "two sends were taken: {left}");
}

/// What a restart of Postgres says to its clients: `terminating connection due to administrator
/// command`.
#[tokio::test]
async fn sessions_that_postgres_ends_are_replaced_unnoticed() {
    let service = start(&[]).await;
    let phone = fresh_phone();
    let code = service.code_for(&phone).await;
    let admin = service.database.connect().await;
    let end_all = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
        WHERE datname = current_database() AND pid <> pg_backend_pid()";
    let ended = admin.query(end_all, &[]).await.unwrap();
    assert_eq!(ended.len(), 3);
    until("all sessions are gone", async || {
        service.postgres.open_connections() == 0
    })
    .await;
    assert_eq!(service.verify(&phone, &code).await.status, 200);
    assert_eq!(service.sign_up("Ada", &fresh_phone()).await.status, 200);
}

/// While a request waits for its reply.
#[tokio::test]
async fn a_session_that_postgres_ends_under_a_statement_is_503_and_the_same_code_works_after() {
    let service = Service::start().await;
    let phone = fresh_phone();
    let code = service.code_for(&phone).await;
    let locked = service.database.connect().await;
    let lock = "BEGIN; LOCK TABLE used_challenges IN ACCESS EXCLUSIVE MODE";
    locked.batch_execute(lock).await.unwrap();
    let admin = service.database.connect().await;
    let (response, ()) = tokio::join!(
        service.verify(&phone, &code),
        until("the statement that waits is ended", async || {
            let end = "SELECT pg_terminate_backend(pid) FROM pg_locks
                WHERE NOT granted AND database =
                    (SELECT oid FROM pg_database WHERE datname = current_database())";
            !admin.query(end, &[]).await.unwrap().is_empty()
        })
    );
    assert_unavailable(&response, "Failed to register user");
    locked.batch_execute("ROLLBACK").await.unwrap();
    assert_eq!(rows(&service.database, &phone).await, 0);
    assert_eq!(service.verify(&phone, &code).await.status, 200);
}

#[tokio::test]
async fn a_postgres_without_a_free_connection_is_503_and_works_again_by_itself() {
    let service = start(&[]).await;
    let role = service.database.name();
    let admin = service.database.connect().await;
    admin
        .batch_execute(&format!(
            "CREATE ROLE {role} LOGIN CONNECTION LIMIT 0;
             GRANT SELECT, INSERT ON users, used_challenges TO {role};
             GRANT USAGE ON SEQUENCE users_id_seq TO {role}"
        ))
        .await
        .unwrap();
    let url = service.database.url_through(service.postgres.address());
    let url = url.replace("://postgres@", &format!("://{role}@"));
    let settings = harness::settings(&url, &service.redis_server.url());
    let env: Env = settings.into_iter().collect();
    let signup = signup::Signup::from_env(&env).await.unwrap();
    signup.connect().await;
    let event = |phone: &str| {
        let body = format!(r#"{{"name":"Ada","phone_number":"{phone}"}}"#);
        lambda_http::request::from_str(&harness::event("POST", "/signup", &body).to_string())
            .unwrap()
    };
    assert_eq!(signup.handle(event(&fresh_phone())).await.status(), 503);
    let allow = format!("ALTER ROLE {role} CONNECTION LIMIT 1");
    admin.batch_execute(&allow).await.unwrap();
    assert_eq!(signup.handle(event(&fresh_phone())).await.status(), 200);
    signup.close().await;
    let clean = format!("DROP OWNED BY {role}; DROP ROLE {role}");
    admin.batch_execute(&clean).await.unwrap();
}

/// `the database system is starting up`, as every client hears it for a while after a restart.
#[tokio::test]
async fn a_postgres_that_is_starting_up_is_503() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    tokio::spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            let mut startup = [0; 1024];
            let _length = client.read(&mut startup).await;
            let fields = b"SFATAL\0VFATAL\0C57P03\0Mthe database system is starting up\0\0";
            let length = u32::try_from(fields.len() + 4).unwrap().to_be_bytes();
            let reply = [b"E", &length[..], fields].concat();
            let _written = client.write_all(&reply).await;
        }
    });
    let service = start(&[]).await;
    let url = service.database.url_through(&address);
    let settings = harness::settings(&url, &service.redis_server.url());
    let env: Env = settings.into_iter().collect();
    let signup = signup::Signup::from_env(&env).await.unwrap();
    signup.connect().await;
    let body = format!(r#"{{"name":"Ada","phone_number":"{}"}}"#, fresh_phone());
    let event = harness::event("POST", "/signup", &body).to_string();
    let request = lambda_http::request::from_str(&event).unwrap();
    let response = harness::Response::of_handler(signup.handle(request).await);
    assert_unavailable(&response, "Failed to store user data");
}

#[tokio::test]
async fn a_redis_that_refuses_for_a_while_is_503_and_works_again_by_itself() {
    let refusals: [(&str, Commands, Commands); 4] = [
        (
            "READONLY",
            &[&["REPLICAOF", "127.0.0.1", "1"]],
            &[&["REPLICAOF", "NO", "ONE"]],
        ),
        (
            "MASTERDOWN",
            &[
                &["CONFIG", "SET", "replica-serve-stale-data", "no"],
                &["REPLICAOF", "127.0.0.1", "1"],
            ],
            &[&["REPLICAOF", "NO", "ONE"]],
        ),
        (
            "OOM",
            &[&["CONFIG", "SET", "maxmemory", "1"]],
            &[&["CONFIG", "SET", "maxmemory", "0"]],
        ),
        // Not a refusal: its scripts are gone, and it is told them again.
        ("NOSCRIPT", &[&["SCRIPT", "FLUSH"]], &[]),
    ];
    for (name, break_it, mend_it) in refusals {
        let service = start(&[]).await;
        let phone = fresh_phone();
        let code = service.code_for(&phone).await;
        // Both connections are open before it refuses.
        assert_eq!(service.verify(&phone, &wrong(&code)).await.status, 401);
        for command in break_it {
            service.redis_server.run::<()>(command).await;
        }
        if name != "NOSCRIPT" {
            let response = in_time(service.sign_up("Ada", &fresh_phone())).await;
            assert_unavailable(&response, "Failed to store user data");
            let response = in_time(service.verify(&phone, &code)).await;
            assert_unavailable(&response, "Failed to register user");
        }
        for command in mend_it {
            service.redis_server.run::<()>(command).await;
        }
        let other = fresh_phone();
        assert_eq!(service.sign_up("Ada", &other).await.status, 200, "{name}");
        assert_eq!(service.verify(&phone, &code).await.status, 200, "{name}");
    }
}

/// The open connections lead to what has become a replica, new ones to the new primary.
#[tokio::test]
async fn after_a_failover_of_redis_the_new_primary_is_found_unnoticed() {
    let service = start(&[]).await;
    let primary = RedisServer::start().await;
    let replicate = ["REPLICAOF", "127.0.0.1", "1"];
    service.redis_server.run::<()>(&replicate).await;
    service.redis.lead_to(&primary.address());
    let phone = fresh_phone();
    let code = service.code_for(&phone).await;
    assert_eq!(service.verify(&phone, &code).await.status, 200);
}

/// Somebody else's script runs for so long that Redis replies `BUSY`.
#[tokio::test]
async fn a_redis_that_is_busy_is_503_and_works_again_by_itself() {
    let service = start(&[]).await;
    let phone = fresh_phone();
    let code = service.code_for(&phone).await;
    let threshold = ["CONFIG", "SET", "busy-reply-threshold", "1"];
    service.redis_server.run::<()>(&threshold).await;
    let mut admin = service.redis_server.connect().await;
    let mut busy = service.redis_server.connect().await;
    let endless = tokio::spawn(async move {
        let mut script = Cmd::new();
        script.arg(&["EVAL", "while true do end", "0"]);
        let _killed: Result<(), _> = script.query_async(&mut busy).await;
    });
    until("it is busy", async || {
        let reply: Result<String, _> = Cmd::new().arg("PING").query_async(&mut admin).await;
        reply.is_err_and(|error| error.to_string().contains("BUSY"))
    })
    .await;
    let response = in_time(service.sign_up("Ada", &fresh_phone())).await;
    assert_unavailable(&response, "Failed to store user data");
    let response = in_time(service.verify(&phone, &code)).await;
    assert_unavailable(&response, "Failed to register user");
    let mut kill = Cmd::new();
    kill.arg(&["SCRIPT", "KILL"]);
    kill.query_async::<()>(&mut admin).await.unwrap();
    endless.await.unwrap();
    assert_eq!(service.verify(&phone, &code).await.status, 200);
}

#[tokio::test]
async fn a_redis_without_a_free_connection_is_503_and_works_again_by_itself() {
    let service = start(&[]).await;
    let phone = fresh_phone();
    let code = service.code_for(&phone).await;
    let mut admin = service.redis_server.connect().await;
    let mut set = async |clients: &str| {
        let mut set = Cmd::new();
        set.arg(&["CONFIG", "SET", "maxclients", clients]);
        set.query_async::<()>(&mut admin).await.unwrap();
    };
    service.redis.drop_connections().await;
    set("1").await;
    let response = in_time(service.sign_up("Ada", &fresh_phone())).await;
    assert_unavailable(&response, "Failed to store user data");
    let response = in_time(service.verify(&phone, &code)).await;
    assert_unavailable(&response, "Failed to register user");
    set("100").await;
    assert_eq!(service.verify(&phone, &code).await.status, 200);
}

#[tokio::test]
async fn a_session_is_closed_with_a_goodbye() {
    let service = start(&[]).await;
    let observer = service.database.connect().await;
    let sessions = async || {
        let others = "SELECT count(*) FROM pg_stat_activity
            WHERE datname = current_database() AND pid <> pg_backend_pid()";
        observer
            .query_one(others, &[])
            .await
            .unwrap()
            .get::<_, i64>(0)
    };
    assert_eq!(sessions().await, 3);
    service.signup.close().await;
    service.verify.close().await;
    service.session.close().await;
    until("all sessions are gone", async || sessions().await == 0).await;
    // Whoever comes after all is served.
    assert_eq!(service.sign_up("Ada", &fresh_phone()).await.status, 200);
}
