//! Instructions of our own process for one request, which callgrind counts the same each time.

use std::fs;

use serde_json::Value;

use crate::{
    process::{Process, Program, Settings},
    stage::{Sent, Stage, at, me, refresh, sign_up},
    starts::send_codes,
    table::Table,
};

/// The difference leaves out the start, and what the first requests warm.
const FEW: u32 = 20;
const MANY: u32 = 120;

/// Events of each kind, so many of each.
struct Events {
    sign_ups: Vec<Value>,
    bare: Vec<Value>,
    verifications: Vec<Value>,
    profiles: Vec<Value>,
    refreshes: Vec<Value>,
}

pub async fn measure(stage: &Stage, table: &mut Table) {
    let Some(valgrind) = harness::variable("VALGRIND") else {
        return;
    };
    let settings = stage.plain();
    let mut signup = Process::start("signup", &settings).await;
    let mut verify = Process::start("verify", &settings).await;
    let few = Events::prepare(stage, &mut signup, &mut verify, FEW).await;
    let many = Events::prepare(stage, &mut signup, &mut verify, MANY).await;
    signup.end().await;
    verify.end().await;
    for (figure, name, few, many) in [
        ("an empty event", "empty", &few.sign_ups, &many.sign_ups),
        ("a bare one", "bare", &few.bare, &many.bare),
        ("a sign-up", "signup", &few.sign_ups, &many.sign_ups),
        (
            "a verification",
            "verify",
            &few.verifications,
            &many.verifications,
        ),
        ("`GET /me`", "session", &few.profiles, &many.profiles),
        ("a refresh", "session", &few.refreshes, &many.refreshes),
    ] {
        let [few, many] = [
            count(&valgrind, name, &settings, few).await,
            count(&valgrind, name, &settings, many).await,
        ];
        let thousands = (many - few) / f64::from(MANY - FEW) / 1e3;
        table.figure(
            &format!("instructions of {figure}"),
            thousands,
            "thousand",
            None,
        );
    }
}

impl Events {
    async fn prepare(
        stage: &Stage,
        signup: &mut Process,
        verify: &mut Process,
        count: u32,
    ) -> Self {
        let sign_ups: Vec<Value> = (0..count).map(|_| sign_up(&stage.phone())).collect();
        let pending = send_codes(stage, signup, count).await;
        let mut signed_in = Vec::new();
        for code in send_codes(stage, signup, count).await {
            signed_in.push(verify.request(&code.verify()).await.1);
        }
        Self {
            bare: sign_ups.iter().map(|event| at("/both", event)).collect(),
            sign_ups,
            verifications: pending.iter().map(Sent::verify).collect(),
            profiles: signed_in.iter().map(me).collect(),
            refreshes: signed_in.iter().map(refresh).collect(),
        }
    }
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
