//! Starts: from the spawn of a process to its first poll, and its first request.

use std::time::Duration;

use serde_json::Value;

use crate::{
    process::{Process, Settings},
    stage::{Sent, Stage, refresh, sign_up},
    table::{self, Table, Times},
};

const ROUNDS: usize = 40;
/// Requests after the first one.
const WARM: u32 = 10;

/// The times and the memory of one function's starts.
#[derive(Default)]
pub struct Starts {
    pub start: Times,
    pub first: Times,
    pub warm: Times,
    /// Megabytes.
    memory: Vec<f64>,
    pub first_parts: Parts,
    pub warm_parts: Parts,
}

/// Where requests spent their time, as their log lines tell.
#[derive(Default)]
pub struct Parts {
    pub latency: Times,
    pub redis: Times,
    pub postgres: Times,
    pub provider: Times,
}

/// The starts of each function.
pub struct Measured {
    pub empty: Starts,
    pub signup: Starts,
    pub secure: Starts,
    pub verify: Starts,
    pub session: Starts,
}

pub async fn measure(stage: &Stage, table: &mut Table) -> Measured {
    let [
        mut empty,
        mut bare,
        mut signup,
        mut secure,
        mut verify,
        mut session,
    ] = [(); 6].map(|()| Starts::default());
    let (plain, with_tls) = (stage.plain(), stage.secure());
    let mut sender = Process::start("signup", &plain).await;
    for _ in 0..ROUNDS {
        let sign_ups = || (0..=WARM).map(|_| sign_up(&stage.phone())).collect();
        let nothing = sign_ups();
        empty.one("empty", &Settings::new(), nothing).await;
        bare.one("bare", &plain, Vec::new()).await;
        signup.one("signup", &plain, sign_ups()).await;
        secure.one("signup", &with_tls, sign_ups()).await;
        let codes = send_codes(stage, &mut sender, WARM + 1).await;
        let codes = codes.iter().map(Sent::verify).collect();
        let signed_in = verify.one("verify", &plain, codes).await;
        session
            .one("session", &plain, signed_in.iter().map(refresh).collect())
            .await;
    }
    sender.end().await;

    let median = |times: &Times| times.median() / 1e3;
    let floor = median(&empty.start);
    table.figure("start of bare", median(&bare.start), "ms", None);
    for (name, starts, bar) in [
        ("`signup`, `log`", &signup, 3.0),
        ("`signup`, `sns`, TLS to all", &secure, 6.0),
        ("`verify`", &verify, 3.0),
        ("`session`", &session, 3.0),
    ] {
        let figure = format!("start of {name} ÷ empty");
        table.ratio(&figure, [median(&starts.start), floor], "ms", bar);
    }
    for (name, starts) in [
        ("sign-up", &signup),
        ("verify", &verify),
        ("refresh", &session),
    ] {
        let figure = format!("first {name} ÷ a warm one");
        table.ratio(
            &figure,
            [median(&starts.first), median(&starts.warm)],
            "ms",
            3.0,
        );
    }
    let messages = [
        median(&secure.first_parts.provider),
        median(&secure.warm_parts.provider),
    ];
    table.ratio("first SMS over TLS ÷ a warm one", messages, "ms", 4.0);
    let floor = empty.memory();
    for (name, starts) in [
        ("`signup`, `sns`, TLS to all", &secure),
        ("`verify`", &verify),
        ("`session`", &session),
    ] {
        let figure = format!("memory of {name} at first poll ÷ empty");
        table.ratio(&figure, [starts.memory(), floor], "MB", 3.3);
    }
    Measured {
        empty,
        signup,
        secure,
        verify,
        session,
    }
}

/// Codes for so many new numbers.
pub async fn send_codes(stage: &Stage, signup: &mut Process, count: u32) -> Vec<Sent> {
    let mut challenges = Vec::new();
    for _ in 0..count {
        let phone = stage.phone();
        let (_, challenge) = signup.request(&sign_up(&phone)).await;
        challenges.push((phone, challenge));
    }
    Sent::all(signup, challenges)
}

impl Parts {
    fn push(&mut self, line: &Value) {
        for (member, times) in [
            ("latency_ms", &mut self.latency),
            ("redis_ms", &mut self.redis),
            ("postgres_ms", &mut self.postgres),
            ("provider_ms", &mut self.provider),
        ] {
            if let Some(milliseconds) = line[member].as_f64() {
                times.push(Duration::from_secs_f64(milliseconds / 1e3));
            }
        }
    }
}

impl Starts {
    /// One start, and these requests. The bodies of their responses.
    async fn one(&mut self, name: &str, settings: &Settings, events: Vec<Value>) -> Vec<Value> {
        let mut process = Process::start(name, settings).await;
        self.start.push(process.start);
        self.memory.push(process.memory() / 1024.0);
        let mut bodies = Vec::new();
        for (number, event) in events.iter().enumerate() {
            let (time, body) = process.invoke(event).await;
            let times = if number == 0 {
                &mut self.first
            } else {
                &mut self.warm
            };
            times.push(time);
            bodies.push(serde_json::from_str(&body).unwrap_or_default());
        }
        let lines = process.log().into_iter();
        let lines = lines.filter(|line| line["message"] == "answered");
        for (number, line) in lines.enumerate() {
            let parts = if number == 0 {
                &mut self.first_parts
            } else {
                &mut self.warm_parts
            };
            parts.push(&line);
        }
        process.end().await;
        bodies
    }

    /// The median, in megabytes.
    fn memory(&self) -> f64 {
        table::median(&self.memory)
    }
}
