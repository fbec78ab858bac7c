//! The scripts that one Redis carries, and 200 processes over few connections to Postgres.

use std::{cell::RefCell, time::Duration};

use futures_util::future::join_all;
use harness::{Functions, LIMITS, PgBouncer, RedisServer, TO_THE_LOG};
use shared::{
    challenge::{ChallengeId, CheckOutcome, ClientAddress, CodeRequest, IssueOutcome, Purpose},
    config::Env,
    name::Name,
    phone,
};
use tokio::time::Instant;

use crate::{
    process::Process,
    stage::{Stage, Stores, address_of, me, refresh},
    starts::send_codes,
    table::{Bar, Table},
};

/// Connections to Redis of each function, and calls under way on each.
const CONNECTIONS: u32 = 4;
const CALLS: u32 = 16;
/// Codes that are issued and then checked on each of them.
const CODES: u32 = 200;

/// Issues and checks codes as fast as one Redis replies, with every limit on.
pub async fn of_redis(stage: &Stage, table: &mut Table) {
    let redis = RedisServer::start().await;
    let mut settings = LIMITS.map(|name| (name, "")).to_vec();
    // What a day may send is not the question.
    settings.extend(TO_THE_LOG);
    settings.extend([
        ("LIMIT_TOTAL", "1000000/1d"),
        ("LIMIT_TOTAL_MAX", "1000000/1d"),
    ]);
    let mut functions = Vec::new();
    for _ in 0..CONNECTIONS {
        functions.push(Functions::over(
            &stage.database.url(),
            &redis.url(),
            &settings,
        ));
    }
    join_all(functions.iter().map(Functions::connect)).await;
    let phones = phone::Parser::from_env(&Env::from([("DEFAULT_COUNTRY", "")])).unwrap();

    let deadline = || Instant::now() + Duration::from_mins(1);
    let caller = async |functions: &Functions| {
        for _ in 0..CODES {
            let phone = phones.parse(&stage.phone()).unwrap();
            let address = ClientAddress::parse(Some(&address_of(phone.as_e164())));
            let request = CodeRequest {
                id: ChallengeId::generate(),
                phone: &phone,
                address: &address,
                device: None,
                is_open_login: false,
                test_code: None,
                purpose: Purpose::SignUp(Name::parse("Ada Lovelace").unwrap()),
            };
            let issued = functions.signup.delivery.issuer.issue(&request, deadline());
            let Ok(IssueOutcome::Issued { code, .. }) = issued.await else {
                panic!("not issued");
            };
            let checker = &functions.verify.checker;
            let check = checker.check(&phone, &address, &code, Some(&request.id), deadline());
            let outcome = check.await;
            assert!(matches!(outcome, Ok(CheckOutcome::Matched(_))));
        }
    };
    let (cpu, begun) = (cpu_seconds(&redis).await, Instant::now());
    join_all(
        functions
            .iter()
            .flat_map(|functions| (0..CALLS).map(|_| caller(functions))),
    )
    .await;
    let (cpu, time) = (
        cpu_seconds(&redis).await - cpu,
        begun.elapsed().as_secs_f64(),
    );
    let scripts = f64::from(2 * CONNECTIONS * CALLS * CODES);
    table.figure(
        "scripts a second that one Redis carried",
        scripts / time,
        "",
        None,
    );
    table.figure("its CPU meanwhile", 100.0 * cpu / time, "% of a core", None);
    table.figure(
        "scripts a second of one core",
        scripts / cpu,
        "",
        Some(Bar::AtLeast(15_000.0)),
    );
}

/// Of the server's process so far.
async fn cpu_seconds(redis: &RedisServer) -> f64 {
    let info: String = redis.run(&["INFO", "cpu"]).await;
    let used = info.lines().filter_map(|line| line.split_once(':'));
    let used = used.filter(|(name, _)| matches!(*name, "used_cpu_user" | "used_cpu_sys"));
    used.map(|(_, seconds)| seconds.parse::<f64>().unwrap())
        .sum()
}

/// Connections of PgBouncer to Postgres.
const SERVER_CONNECTIONS: usize = 25;
const SIGN_INS: usize = 80;
const SESSIONS: usize = 40;
const REQUESTS: usize = 5;

/// 200 processes at once through PgBouncer in transaction mode. Each request must succeed.
pub async fn of_few_connections(stage: &Stage, table: &mut Table) {
    let pgbouncer = PgBouncer::start_with(SERVER_CONNECTIONS).await;
    let settings = stage.settings(Stores {
        database_url: &stage.database.url_through(&pgbouncer.address()),
        redis_url: &stage.redis.url(),
    });
    let start = async |name: &'static str, count: usize| {
        let starting = (0..count).map(|_| Process::start(name, &settings));
        join_all(starting).await
    };
    let signups = start("signup", SIGN_INS).await;
    let verifies = start("verify", SIGN_INS).await;
    let sessions = start("session", SESSIONS).await;
    let sessions = RefCell::new(sessions);
    let sign_in = async |(mut signup, mut verify): (Process, Process)| {
        let mut requests = 0;
        for _ in 0..REQUESTS {
            let code = send_codes(stage, &mut signup, 1).await;
            let (_, signed_in) = verify.request(&code[0].verify()).await;
            requests += 2;
            // There are fewer of these: whoever finds none idle goes on.
            let idle = sessions.borrow_mut().pop();
            if let Some(mut session) = idle {
                session.request(&me(&signed_in)).await;
                session.request(&refresh(&signed_in)).await;
                sessions.borrow_mut().push(session);
                requests += 2;
            }
        }
        requests
    };
    let requests: u32 = join_all(signups.into_iter().zip(verifies).map(sign_in))
        .await
        .into_iter()
        .sum();
    let figure = format!(
        "requests of {} processes over {SERVER_CONNECTIONS} connections to Postgres, all successful",
        2 * SIGN_INS + SESSIONS
    );
    table.figure(&figure, f64::from(requests), "", None);
}
