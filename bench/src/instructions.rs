//! Instructions of our own process for one request, which callgrind counts the same each time.

use std::fs;

use serde_json::Value;

use crate::{
    process::{Process, Program, Settings},
    stage::{Sent, Stage, me, refresh, sign_up},
    starts::send_codes,
    table::Table,
};

/// What is counted twice goes away in the difference: the start, and what the first requests warm.
const FEW: usize = 20;
const MANY: usize = 120;

pub async fn measure(stage: &Stage, table: &mut Table) {
    let Some(valgrind) = harness::variable("VALGRIND") else {
        return;
    };
    let plain = stage.plain();
    let mut sender = Process::start("signup", &plain).await;
    let mut verifier = Process::start("verify", &plain).await;
    let sign_ups = |count| {
        (0..count)
            .map(|_| sign_up(&stage.phone()))
            .collect::<Vec<_>>()
    };
    let mut verifies = Vec::new();
    let mut sessions = Vec::new();
    for count in [FEW, MANY] {
        let codes = send_codes(stage, &mut sender, count).await;
        verifies.push(codes.iter().map(Sent::verify).collect::<Vec<_>>());
        let mut signed_in = Vec::new();
        for code in send_codes(stage, &mut sender, count).await {
            signed_in.push(verifier.request(&code.verify()).await.1);
        }
        sessions.push(signed_in);
    }
    let of = |event: fn(&Value) -> Value| {
        sessions
            .iter()
            .map(|bodies| bodies.iter().map(event).collect())
            .collect()
    };
    let bare = |path: &str| {
        let events = [FEW, MANY].map(|count| {
            sign_ups(count)
                .into_iter()
                .map(|event| at(path, event))
                .collect()
        });
        events.to_vec()
    };
    let each: [(&str, &str, Vec<Vec<Value>>); 6] = [
        (
            "an empty event",
            "empty",
            [FEW, MANY].map(sign_ups).to_vec(),
        ),
        ("a bare one", "bare", bare("/both")),
        ("a sign-up", "signup", [FEW, MANY].map(sign_ups).to_vec()),
        ("a verification", "verify", verifies),
        ("`GET /me`", "session", of(me)),
        ("a refresh", "session", of(refresh)),
    ];
    for (figure, name, events) in each {
        let few = count(&valgrind, name, &plain, &events[0]).await;
        let many = count(&valgrind, name, &plain, &events[1]).await;
        let thousands = (many - few) / (MANY - FEW) as f64 / 1e3;
        table.figure(
            &format!("instructions of {figure}"),
            thousands,
            "thousand",
            None,
        );
    }
    sender.end().await;
    verifier.end().await;
}

/// Instructions of a start and these requests.
async fn count(valgrind: &str, name: &str, settings: &Settings, events: &[Value]) -> f64 {
    let folder = tempfile::tempdir().unwrap();
    let counts = folder.path().join("counts");
    let program = Program::counted(valgrind, name, &counts);
    let mut process = Process::start_program(&program, settings).await;
    for event in events {
        process.invoke(event).await;
    }
    process.end().await;
    let counts = fs::read_to_string(counts).unwrap();
    let total = counts
        .lines()
        .find_map(|line| line.strip_prefix("totals: "));
    total.unwrap().trim().parse().unwrap()
}

fn at(path: &str, mut event: Value) -> Value {
    event["rawPath"] = path.into();
    event
}
