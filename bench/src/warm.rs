//! Warm requests, one by one, each beside its floor.

use std::time::UNIX_EPOCH;

use harness::since_1970;
use redis::aio::MultiplexedConnection;
use shared::{
    config::Env,
    token::{Signer, Subject},
};
use tokio::time::Instant;

use crate::{
    process::{Process, Settings},
    stage::{Sent, Stage, at, me, refresh, sign_up},
    table::{Table, Times, median},
    tutorial::Tutorial,
};

const ROUNDS: usize = 10_000;
/// Rounds before these, which count for nothing.
const WARM_UP: usize = 100;

/// The times of the requests of each kind.
#[derive(Default)]
struct Measured {
    empty: Times,
    both: Times,
    statement: Times,
    bare_sign_in: Times,
    bare_refresh: Times,
    bare_me: Times,
    sign_up: Times,
    verify: Times,
    refresh: Times,
    me: Times,
    tutorial: Times,
    signature: Times,
}

/// Redis's own time of the scripts, in microseconds.
#[derive(Default)]
struct Scripts {
    bare: Vec<f64>,
    issue: Vec<f64>,
    check: Vec<f64>,
}

pub async fn measure(stage: &Stage, tutorial: Option<&Tutorial>, table: &mut Table) {
    let plain = stage.plain();
    let mut empty = Process::start("empty", &Settings::new()).await;
    let mut both = Process::start("bare", &plain).await;
    let mut statement = Process::start("bare", &plain).await;
    let mut bare_sign_in = Process::start("bare", &plain).await;
    let mut bare_refresh = Process::start("bare", &plain).await;
    let mut bare_me = Process::start("bare", &plain).await;
    let mut signup = Process::start("signup", &plain).await;
    let mut verify = Process::start("verify", &plain).await;
    let mut session = Process::start("session", &plain).await;
    let memory = [&signup, &verify, &session].map(Process::memory);
    let mut client = match tutorial {
        Some(tutorial) => Some(tutorial.connect().await),
        None => None,
    };
    let mut redis = stage.redis.connect().await;
    let signer = plain
        .iter()
        .map(|(name, value)| (name.as_str(), value.as_str()));
    let signer = Signer::from_env(&signer.collect::<Env>()).unwrap();
    let (mut times, mut scripts) = (Measured::default(), Scripts::default());

    // One by one, each in a process of its own beside its floor: so all find the processor and its
    // caches alike.
    for round in 0..WARM_UP + ROUNDS {
        if round == WARM_UP {
            (times, scripts) = Default::default();
        }
        let phone = stage.phone();
        let event = sign_up(&phone);
        times.empty.push(empty.invoke(&event).await.0);

        let before = ScriptTime::so_far(&mut redis).await;
        times.both.push(both.invoke(&at("/both", &event)).await.0);
        scripts
            .bare
            .push(ScriptTime::so_far(&mut redis).await.since(&before));
        if let Some(client) = &mut client {
            times.tutorial.push(client.sign_up(&phone).await);
        }
        let before = ScriptTime::so_far(&mut redis).await;
        let (time, challenge) = signup.request(&event).await;
        times.sign_up.push(time);
        scripts
            .issue
            .push(ScriptTime::so_far(&mut redis).await.since(&before));

        let bare = bare_sign_in.invoke(&at("/sign-in", &event)).await;
        times.bare_sign_in.push(bare.0);
        let codes = Sent::all(&mut signup, vec![(phone, challenge)]);
        let before = ScriptTime::so_far(&mut redis).await;
        let (time, signed_in) = verify.request(&codes[0].verify()).await;
        times.verify.push(time);
        scripts
            .check
            .push(ScriptTime::so_far(&mut redis).await.since(&before));
        times.signature.push(sign(&signer));

        let bare = statement.invoke(&at("/statement", &event)).await;
        times.statement.push(bare.0);
        let bare = bare_me.invoke(&at("/me", &event)).await;
        times.bare_me.push(bare.0);
        times.me.push(session.request(&me(&signed_in)).await.0);
        let bare = bare_refresh.invoke(&at("/refresh", &event)).await;
        times.bare_refresh.push(bare.0);
        let refreshed = session.request(&refresh(&signed_in)).await;
        times.refresh.push(refreshed.0);
    }

    let now = [&signup, &verify, &session].map(Process::memory);
    for process in [signup, verify, session] {
        process.end().await;
    }
    times.report(table);
    scripts.report(table);
    for (name, (now, before)) in ["signup", "verify", "session"]
        .iter()
        .zip(now.into_iter().zip(memory))
    {
        let requests = (WARM_UP + ROUNDS) * if *name == "session" { 2 } else { 1 };
        let figure = format!("memory of `{name}` after {requests} requests ÷ at first poll");
        table.ratio(&figure, [now / 1024.0, before / 1024.0], "MB", 1.2);
    }
}

impl Measured {
    fn report(&self, table: &mut Table) {
        let signature = self.signature.median();
        table.figure("an empty event, p50", self.empty.median(), "µs", None);
        table.figure("a signature (RSA, 2048 bits), p50", signature, "µs", None);
        let (small, own) = ("bare", "bare with its statement");
        for (name, times, floor_name, floor, signature, bar) in [
            ("sign-up", &self.sign_up, small, &self.both, 0.0, 1.25),
            ("verify", &self.verify, small, &self.both, signature, 1.35),
            (
                "verify",
                &self.verify,
                own,
                &self.bare_sign_in,
                signature,
                1.35,
            ),
            (
                "refresh",
                &self.refresh,
                small,
                &self.statement,
                signature,
                1.3,
            ),
            (
                "refresh",
                &self.refresh,
                own,
                &self.bare_refresh,
                signature,
                1.3,
            ),
            ("`GET /me`", &self.me, small, &self.statement, 0.0, 1.3),
            ("`GET /me`", &self.me, own, &self.bare_me, 0.0, 1.3),
        ] {
            let less = if signature > 0.0 {
                " − signature"
            } else {
                ""
            };
            for (percentile, bar) in [(50, bar), (99, 2.0)] {
                let over_empty = |times: &Times| {
                    times.percentile(percentile) - self.empty.percentile(percentile)
                };
                let figure =
                    format!("({name} − empty{less}) ÷ ({floor_name} − empty), p{percentile}");
                let times = [over_empty(times) - signature, over_empty(floor)];
                table.ratio(&figure, times, "µs", bar);
            }
        }
        if !self.tutorial.is_empty() {
            let medians = [self.sign_up.median(), self.tutorial.median()];
            table.ratio(
                "sign-up ÷ the tutorial's Go server, on loopback, p50",
                medians,
                "µs",
                0.6,
            );
        }
    }
}

impl Scripts {
    fn report(&self, table: &mut Table) {
        let floor = median(&self.bare);
        table.ratio(
            "Redis's time for an issue ÷ for the bare script",
            [median(&self.issue), floor],
            "µs",
            2.0,
        );
        table.ratio(
            "Redis's time for a match ÷ for the bare script",
            [median(&self.check), floor],
            "µs",
            2.0,
        );
    }
}

/// Redis's count of scripts, and its time for them.
struct ScriptTime {
    calls: f64,
    microseconds: f64,
}

impl ScriptTime {
    async fn so_far(redis: &mut MultiplexedConnection) -> Self {
        let mut info = redis::cmd("INFO");
        let info: String = info.arg("commandstats").query_async(redis).await.unwrap();
        let line = info
            .lines()
            .find_map(|line| line.strip_prefix("cmdstat_evalsha:"));
        let value = |name: &str| {
            let fields = line.unwrap_or_default().split(',');
            let found = fields
                .filter_map(|field| field.split_once('='))
                .find(|(key, _)| *key == name);
            found.map_or(0.0, |(_, value)| value.parse().unwrap())
        };
        Self {
            calls: value("calls"),
            microseconds: value("usec"),
        }
    }

    /// Microseconds of one call, of those since `before`.
    fn since(&self, before: &Self) -> f64 {
        (self.microseconds - before.microseconds) / (self.calls - before.calls)
    }
}

fn sign(signer: &Signer) -> std::time::Duration {
    let subject = Subject {
        user_id: 1,
        session_id: "0123456789abcdef0123456789abcdef",
        auth_time: 0,
    };
    let now = UNIX_EPOCH + since_1970();
    let begun = Instant::now();
    let token = signer.access_token(&subject, now);
    let time = begun.elapsed();
    assert!(!token.is_empty());
    time
}
