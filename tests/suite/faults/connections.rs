//! Connections that break at each step, and servers that refuse.

use shared::lambda::Function as _;
use std::time::Duration;

use harness::{
    Behaviour, Fault, Functions, Provider, RedisServer, Service, challenge_key, fresh_phone,
    let_time_pass,
    outcome::{NOT_REGISTERED, NOT_STORED, OTP_EXPIRED, OTP_MISMATCH, USER_EXISTS},
    until, wrong,
};
use redis::Cmd;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};

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
    let (phone, code) = service.fresh_code().await;
    service.postgres.lose_connections();
    service.redis.lose_connections();
    // So long that they count as idle: this is about time that has passed.
    let_time_pass(Duration::from_millis(5100)).await;
    service.verify(&phone, &code).await.assert_ok();
    service.sign_up(&fresh_phone()).await.assert_ok();
    assert_eq!(service.database.users_with(&phone).await, 1);
}

#[tokio::test]
async fn a_commit_whose_reply_is_lost_is_503_and_a_retry_makes_no_second_row() {
    for fault in REPLY_LOST {
        let service = start(&[]).await;
        let (phone, code) = service.fresh_code().await;
        service.postgres.after(0, fault);
        let response = service.verify(&phone, &code).await;
        response.assert_is(NOT_REGISTERED);
        until("it is committed", async || {
            service.database.users_with(&phone).await == 1
        })
        .await;
        let again = service.verify(&phone, &code).await;
        assert_eq!(again.outcome(), OTP_EXPIRED, "{fault:?}");
        let taken = service.sign_up(&phone).await;
        assert_eq!(taken.outcome(), USER_EXISTS, "{fault:?}");
        assert_eq!(service.database.users_with(&phone).await, 1, "{fault:?}");
    }
}

#[tokio::test]
async fn a_commit_that_never_reached_postgres_is_503_and_the_same_code_works_after() {
    for fault in [Fault::CutRequest, Fault::LoseRequest] {
        let service = start(&[]).await;
        let (phone, code) = service.fresh_code().await;
        service.postgres.after(0, fault);
        let response = service.verify(&phone, &code).await;
        response.assert_is(NOT_REGISTERED);
        assert_eq!(service.database.users_with(&phone).await, 0, "{fault:?}");
        assert_eq!(service.verify(&phone, &code).await.status, 200, "{fault:?}");
    }
}

#[tokio::test]
async fn a_read_whose_connection_breaks_is_retried_unnoticed() {
    for fault in [Fault::CutRequest, Fault::CutReply, Fault::ResetReply] {
        let service = start(&[]).await;
        service.postgres.after(0, fault);
        let response = service.sign_up(&fresh_phone()).await;
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
        service.sign_up(&fresh_phone()).await.assert_ok();
        let phone = fresh_phone();
        service.redis.after(0, fault);
        let response = service.sign_up(&phone).await;
        assert_eq!(response.status, 200, "{fault:?}");
        assert_eq!(service.redis.faults_met(), 1);
        let id = service.redis_server.latest_challenge(&phone).await.unwrap();
        assert_eq!(id, response.text("challenge_id"), "{fault:?}");
        assert_eq!(provider.messages_to(&phone).len(), 1, "{fault:?}");
        // Of two sends one was taken.
        service.sign_up(&phone).await.assert_ok();
        service.sign_up(&phone).await.assert_limited();
    }
}

#[tokio::test]
async fn a_guess_whose_reply_is_lost_may_count_twice_and_is_never_free() {
    for fault in REPLY_LOST {
        let service = start(&[]).await;
        let (phone, code) = service.fresh_code().await;
        // Connected, and Redis knows the script.
        let response = service.verify(&phone, &wrong(&code)).await;
        response.assert_is(OTP_MISMATCH);
        service.redis.after(0, fault);
        let response = service.verify(&phone, &wrong(&code)).await;
        let status = response.status;
        assert!([401, 503].contains(&status), "{fault:?}: {response:?}");
        let id = service.redis_server.latest_challenge(&phone).await.unwrap();
        let command = ["HGET", &challenge_key(&id), "wrong_as_latest"];
        let counted: u32 = service.redis_server.run(&command).await;
        assert!((2..=3).contains(&counted), "{fault:?}: {counted}");
        if status == 401 {
            let remaining = &response.body["attempts_remaining"];
            assert_eq!(*remaining, 5 - counted, "{fault:?}");
        }
        assert_eq!(service.verify(&phone, &code).await.status, 200, "{fault:?}");
    }
}

#[tokio::test]
async fn a_redis_that_stops_replying_is_503_once_and_sends_nothing() {
    for fault in [Fault::LoseRequest, Fault::LoseReply] {
        let provider = Provider::start(Behaviour::Accept).await;
        let service = start(&[("AWS_ENDPOINT_URL_SNS", &provider.url())]).await;
        // Redis knows the script.
        service.sign_up(&fresh_phone()).await.assert_ok();
        let phone = fresh_phone();
        service.redis.after(0, fault);
        let response = service.sign_up(&phone).await;
        response.assert_is(NOT_STORED);
        assert!(provider.messages_to(&phone).is_empty());
        // The challenge was revoked.
        let left = service.redis_server.latest_challenge(&phone).await;
        assert_eq!(left, None, "{fault:?}");
        service.sign_up(&phone).await.assert_ok();
    }
}

/// It was written to a connection that was left since, and revoked before it arrived.
#[tokio::test]
async fn a_request_that_redis_hears_too_late_takes_nothing_and_is_not_the_newest() {
    let service = start(&[("LIMIT_PHONE", "2/1d")]).await;
    let (phone, code) = service.fresh_code().await;
    let late = Duration::from_millis(1500);
    service.redis.after(0, Fault::DelayRequest(late));
    let response = service.sign_up(&phone).await;
    response.assert_is(NOT_STORED);
    until("it has arrived", async || !service.redis.delays()).await;
    // Redis takes one after the other.
    service.redis_server.run::<()>(&["PING"]).await;
    service.verify(&phone, &code).await.assert_ok();
    let limits = service.redis_server.keys("*limit:phone*").await;
    assert_eq!(limits.len(), 1, "{limits:?}");
    let left: u64 = service.redis_server.run(&["PTTL", &limits[0]]).await;
    assert!(left <= 43_200_000, "two sends were taken: {left}");
}

/// The message of a restarting Postgres to its clients: `terminating connection due to
/// administrator command`.
#[tokio::test]
async fn sessions_that_postgres_ends_are_replaced_unnoticed() {
    let service = start(&[]).await;
    let (phone, code) = service.fresh_code().await;
    let admin = service.database.connect().await;
    let end_all = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
        WHERE datname = current_database() AND pid <> pg_backend_pid()";
    let ended = admin.query(end_all, &[]).await.unwrap();
    assert_eq!(ended.len(), 3);
    until("all sessions are gone", async || {
        service.postgres.open_connections() == 0
    })
    .await;
    service.verify(&phone, &code).await.assert_ok();
    service.sign_up(&fresh_phone()).await.assert_ok();
}

/// While a request waits for its reply.
#[tokio::test]
async fn a_session_that_postgres_ends_under_a_statement_is_503_and_the_same_code_works_after() {
    let service = Service::start().await;
    let (phone, code) = service.fresh_code().await;
    let lock = service.database.lock("used_challenges").await;
    let end_what_waits = async {
        service.database.until_waited_for().await;
        let end = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
            WHERE datname = current_database() AND wait_event_type = 'Lock'";
        service.database.run(end).await;
    };
    let (response, ()) = tokio::join!(service.verify(&phone, &code), end_what_waits);
    response.assert_is(NOT_REGISTERED);
    lock.release().await;
    assert_eq!(service.database.users_with(&phone).await, 0);
    service.verify(&phone, &code).await.assert_ok();
}

#[tokio::test]
async fn a_postgres_without_a_free_connection_is_503_and_works_again_by_itself() {
    let service = start(&[]).await;
    let database = &service.database;
    let role = database.name();
    let create = format!(
        "CREATE ROLE {role} LOGIN CONNECTION LIMIT 0;
         GRANT SELECT, INSERT ON users, used_challenges TO {role};
         GRANT USAGE ON SEQUENCE users_id_seq TO {role}"
    );
    database.run(&create).await;
    let redis_url = service.redis_server.url();
    let functions = Functions::over(&database.url_of(role), &redis_url, &[]);
    functions.signup.connect().await;
    let refused = functions.sign_up(&fresh_phone()).await;
    refused.assert_is(NOT_STORED);
    let allow = format!("ALTER ROLE {role} CONNECTION LIMIT 1");
    database.run(&allow).await;
    functions.sign_up(&fresh_phone()).await.assert_ok();
    functions.signup.close().await;
    let clean = format!("DROP OWNED BY {role}; DROP ROLE {role}");
    database.run(&clean).await;
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
    let functions = Functions::over(&url, &service.redis_server.url(), &[]);
    functions.signup.connect().await;
    let response = functions.sign_up(&fresh_phone()).await;
    response.assert_is(NOT_STORED);
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
        let (phone, code) = service.fresh_code().await;
        // Both connections are open before it refuses.
        let response = service.verify(&phone, &wrong(&code)).await;
        response.assert_is(OTP_MISMATCH);
        for command in break_it {
            service.redis_server.run::<()>(command).await;
        }
        if name != "NOSCRIPT" {
            assert_unavailable(&service, &phone, &code).await;
        }
        for command in mend_it {
            service.redis_server.run::<()>(command).await;
        }
        let sent = service.sign_up(&fresh_phone()).await;
        assert_eq!(sent.status, 200, "{name}");
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
    let (phone, code) = service.fresh_code().await;
    service.verify(&phone, &code).await.assert_ok();
}

/// Somebody else's script runs for so long that Redis replies `BUSY`.
#[tokio::test]
async fn a_redis_that_is_busy_is_503_and_works_again_by_itself() {
    let service = start(&[]).await;
    let (phone, code) = service.fresh_code().await;
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
    assert_unavailable(&service, &phone, &code).await;
    let mut kill = Cmd::new();
    kill.arg(&["SCRIPT", "KILL"]);
    kill.query_async::<()>(&mut admin).await.unwrap();
    endless.await.unwrap();
    service.verify(&phone, &code).await.assert_ok();
}

#[tokio::test]
async fn a_redis_without_a_free_connection_is_503_and_works_again_by_itself() {
    let service = start(&[]).await;
    let (phone, code) = service.fresh_code().await;
    let mut admin = service.redis_server.connect().await;
    let mut set = async |clients: &str| {
        let mut set = Cmd::new();
        set.arg(&["CONFIG", "SET", "maxclients", clients]);
        set.query_async::<()>(&mut admin).await.unwrap();
    };
    service.redis.drop_connections().await;
    set("1").await;
    assert_unavailable(&service, &phone, &code).await;
    set("100").await;
    service.verify(&phone, &code).await.assert_ok();
}

#[tokio::test]
async fn a_session_is_closed_with_a_goodbye() {
    let service = start(&[]).await;
    let observer = service.database.observer().await;
    assert_eq!(observer.sessions().await, 3);
    service.signup.close().await;
    service.verify.close().await;
    service.session.close().await;
    until("all sessions are gone", async || {
        observer.sessions().await == 0
    })
    .await;
    // Whoever comes after all is served.
    service.sign_up(&fresh_phone()).await.assert_ok();
}
