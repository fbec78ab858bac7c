//! Randomly drawn schedules of faults, and what is true whatever happens.
//!
//! Each schedule is drawn from one number. `FAULT_SEED` chooses that of the first schedule, the
//! next ones follow it; `FAULT_SCHEDULES` says how many. What a schedule draws is the same every
//! time; how its faults meet the requests is up to the machine as well.

use std::{collections::BTreeMap, time::Duration};

use futures_util::future::join_all;
use harness::{
    Behaviour, Challenge, Fault, Provider, Proxy, Response, Service, Tokens, challenge_key,
    fresh_phone,
    outcome::{OTP_MISMATCH, REGISTERED},
    until, variable, wrong,
};
use rand::{RngExt, SeedableRng, rngs::ChaCha8Rng};

/// The number that run side by side, each over its own stores. They mostly wait.
const SIDE_BY_SIDE: u64 = 4;

const MAX_ATTEMPTS: u32 = 3;
const MAX_MESSAGES: usize = 6;

/// Short, so that thousands of timeouts can be waited for.
const SETTINGS: [(&str, &str); 5] = [
    ("STORE_TIMEOUT_MS", "150"),
    ("SMS_TIMEOUT_MS", "300"),
    ("REQUEST_TIMEOUT_MS", "700"),
    ("OTP_MAX_ATTEMPTS", "3"),
    ("LIMIT_PHONE", "6/1d"),
];

/// One person's requests, and what breaks during each.
#[derive(Debug)]
struct Step {
    action: Action,
    postgres: Option<Trouble>,
    redis: Option<Trouble>,
    provider: Behaviour,
}

#[derive(Clone, Copy, Debug)]
enum Action {
    SignUp,
    /// So many race.
    SignUps(usize),
    /// The last code that was sent.
    Right,
    Rights(usize),
    Wrong,
    Wrongs(usize),
    /// A code that was sent before the last one.
    Old,
    LogIn,
    /// The newest refresh token, so many race.
    Refresh(usize),
    Me,
    LogOut,
}

/// The trouble of a store while one action goes on.
#[derive(Clone, Copy, Debug)]
enum Trouble {
    /// So many flights pass, and then one meets a fault.
    Meets(usize, Fault),
    /// New connections are refused, and the old ones closed.
    Refuses,
    /// The open connections were closed before.
    Closed,
    /// The open connections were lost before, and nobody was told.
    Lost,
    /// It has lost its memory; that is Redis's to do.
    Emptied,
}

/// The stores and the provider that a worker's schedules run against, one after the other.
struct World {
    service: Service,
    provider: Provider,
}

/// A schedule so far.
struct Run<'a> {
    world: &'a World,
    tally: &'a mut Tally,
    /// The schedule and how far it has come, for whoever reads of a failure.
    place: String,
    phone: String,
    /// The newest challenge whose code is known.
    challenge: Option<Challenge>,
    /// Guesses that were told to be wrong, by challenge.
    mismatches: BTreeMap<String, u32>,
    /// The sign-ins by each challenge.
    uses: BTreeMap<String, usize>,
    registrations: usize,
    session: Option<Session>,
    redis_kept_its_memory: bool,
}

/// The tokens of the last sign-in.
#[derive(Clone)]
struct Session {
    tokens: Tokens,
    is_over: bool,
}

/// The number of each response, over all schedules.
#[derive(Default)]
struct Tally(BTreeMap<String, usize>);

fn number(name: &'static str, default: u64) -> u64 {
    variable(name).map_or(default, |text| text.parse().unwrap())
}

#[tokio::test]
async fn whatever_breaks_no_invariant_does() {
    let (seed, schedules) = (number("FAULT_SEED", 1), number("FAULT_SCHEDULES", 300));
    eprintln!("FAULT_SEED={seed} FAULT_SCHEDULES={schedules}");
    let workers = (0..SIDE_BY_SIDE.min(schedules)).map(async |worker| {
        let world = World::new().await;
        let mut tally = Tally::default();
        for seed in (seed + worker..seed + schedules).step_by(SIDE_BY_SIDE.try_into().unwrap()) {
            world.run(seed, &mut tally).await;
        }
        tally
    });
    let mut all = BTreeMap::new();
    for tally in join_all(workers).await {
        for (response, count) in tally.0 {
            *all.entry(response).or_insert(0) += count;
        }
    }
    eprintln!("{all:#?}");
}

fn draw(seed: u64) -> Vec<Step> {
    let mut chance = ChaCha8Rng::seed_from_u64(seed);
    let steps = chance.random_range(3..=10);
    let mut schedule: Vec<Step> = (0..steps).map(|_| draw_step(&mut chance)).collect();
    // Nothing else is of interest before it.
    schedule[0].action = Action::SignUp;
    schedule
}

fn draw_step(chance: &mut ChaCha8Rng) -> Step {
    let action = match chance.random_range(0..19) {
        0..3 => Action::SignUp,
        3 => Action::SignUps(chance.random_range(2..=4)),
        4..7 => Action::Right,
        7 => Action::Rights(chance.random_range(2..=5)),
        8..10 => Action::Wrong,
        10 => Action::Wrongs(chance.random_range(2..=5)),
        11 => Action::Old,
        12..14 => Action::LogIn,
        14..16 => Action::Refresh(1),
        16 => Action::Refresh(chance.random_range(2..=4)),
        17 => Action::Me,
        _ => Action::LogOut,
    };
    let provider = match chance.random_range(0..10) {
        0 => Behaviour::Refuse(400, "Throttling"),
        1 => Behaviour::Refuse(500, "InternalFailure"),
        2 => Behaviour::Hang,
        3 => Behaviour::BreakOff,
        _ => Behaviour::Accept,
    };
    Step {
        action,
        postgres: draw_trouble(chance, false),
        redis: draw_trouble(chance, true),
        provider,
    }
}

fn draw_trouble(chance: &mut ChaCha8Rng, is_redis: bool) -> Option<Trouble> {
    let within = Duration::from_millis(60);
    let beyond = Duration::from_millis(250);
    let faults = [
        Fault::CutRequest,
        Fault::CutReply,
        Fault::ResetReply,
        Fault::HalfClose,
        Fault::LoseRequest,
        Fault::LoseReply,
        Fault::DelayRequest(within),
        Fault::DelayRequest(beyond),
        Fault::DelayReply(within),
        Fault::DelayReply(beyond),
    ];
    Some(match chance.random_range(0..20) {
        0..9 => return None,
        9 => Trouble::Refuses,
        10 => Trouble::Closed,
        11 => Trouble::Lost,
        12 if is_redis => Trouble::Emptied,
        _ => {
            let fault = faults[chance.random_range(0..faults.len())];
            Trouble::Meets(chance.random_range(0..3), fault)
        }
    })
}

impl World {
    async fn new() -> Self {
        let provider = Provider::start(Behaviour::Accept).await;
        let endpoint = provider.url();
        let mut settings = SETTINGS.to_vec();
        settings.push(("AWS_ENDPOINT_URL_SNS", &endpoint));
        Self {
            service: Service::start_with(&settings).await,
            provider,
        }
    }

    async fn run(&self, seed: u64, tally: &mut Tally) {
        let schedule = draw(seed);
        let mut run = Run {
            world: self,
            tally,
            place: String::new(),
            phone: fresh_phone(),
            challenge: None,
            mismatches: BTreeMap::new(),
            uses: BTreeMap::new(),
            registrations: 0,
            session: None,
            redis_kept_its_memory: true,
        };
        for (number, step) in schedule.iter().enumerate() {
            run.place = format!("FAULT_SEED={seed}, step {number} of {schedule:#?}");
            self.begin(step).await;
            run.redis_kept_its_memory &= !matches!(step.redis, Some(Trouble::Emptied));
            run.act(step.action).await;
            self.end().await;
            run.check().await;
        }
        run.check_that_nothing_is_lost().await;
        self.check_that_it_works_again().await;
    }

    async fn begin(&self, step: &Step) {
        if matches!(step.redis, Some(Trouble::Emptied)) {
            self.service.redis_server.run::<()>(&["FLUSHALL"]).await;
        }
        suffer(&self.service.postgres, step.postgres).await;
        suffer(&self.service.redis, step.redis).await;
        self.provider.behave(step.provider);
    }

    async fn end(&self) {
        for store in [&self.service.postgres, &self.service.redis] {
            store.no_fault();
            store.restore();
            until("nothing is under way", async || !store.delays()).await;
        }
        self.provider.behave(Behaviour::Accept);
    }

    async fn check_that_it_works_again(&self) {
        until("it works again", async || {
            let phone = fresh_phone();
            if self.service.sign_up(&phone).await.status != 200 {
                return false;
            }
            let Some(code) = self.provider.codes_to(&phone).pop() else {
                return false;
            };
            self.service.verify(&phone, &code).await.status == 200
        })
        .await;
    }
}

async fn suffer(store: &Proxy, trouble: Option<Trouble>) {
    match trouble {
        Some(Trouble::Meets(flights, fault)) => store.after(flights, fault),
        Some(Trouble::Refuses) => store.refuse(),
        Some(Trouble::Closed) if store.open_connections() > 0 => store.drop_connections().await,
        Some(Trouble::Lost) => store.lose_connections(),
        Some(Trouble::Closed | Trouble::Emptied) | None => {}
    }
}

impl Run<'_> {
    async fn act(&mut self, action: Action) {
        match action {
            Action::SignUp => self.ask("/signup", 1).await,
            Action::SignUps(times) => self.ask("/signup", times).await,
            Action::LogIn => self.ask("/login", 1).await,
            Action::Right => self.verify(1, str::to_owned).await,
            Action::Rights(times) => self.verify(times, str::to_owned).await,
            Action::Wrong => self.verify(1, wrong).await,
            Action::Wrongs(times) => self.verify(times, wrong).await,
            Action::Old => self.verify_old().await,
            Action::Refresh(times) => self.refresh(times).await,
            Action::Me => self.me().await,
            Action::LogOut => self.log_out().await,
        }
    }

    /// Counts a response, which must have one of these statuses.
    fn hear(&mut self, route: &str, response: &Response, expected: &[u64]) {
        let place = &self.place;
        let status = response.status;
        assert!(expected.contains(&status), "{response:?} in {place}");
        assert!(status != 503 || response.retry_after() > 0, "{place}");
        let key = format!("{route} {status} {}", response.text("code"));
        *self.tally.0.entry(key).or_default() += 1;
    }

    /// Asks for a code by a sign-up or a login, so many racing.
    async fn ask(&mut self, path: &str, times: usize) {
        let before = self.world.provider.codes_to(&self.phone).len();
        let service = &self.world.service;
        let requests = (0..times).map(async |_| match path {
            "/login" => service.log_in(&self.phone).await,
            _ => service.sign_up(&self.phone).await,
        });
        let responses = join_all(requests).await;
        let codes = self.world.provider.codes_to(&self.phone);
        let is_registered = self.registered().await;
        let mut sent = 0;
        for response in &responses {
            let open = if path == "/login" { 404 } else { 409 };
            self.hear(path, response, &[200, open, 429, 502, 503]);
            // Nothing registers meanwhile, so whoever is told something is told the truth.
            let says_registered = match (path, response.status) {
                (_, 409) | ("/login", 200) => true,
                (_, 404) | ("/signup", 200) => false,
                _ => is_registered,
            };
            let place = &self.place;
            assert_eq!(says_registered, is_registered, "{response:?} in {place}");
            sent += usize::from(response.status == 200);
        }
        // A code that may have been sent counts as sent, and no other is.
        let new = codes.len() - before;
        let place = &self.place;
        assert!(new <= sent, "{new} messages, {responses:?} in {place}");
        // Without its message the code is unknown to this test, too. Whatever failed, the older
        // challenge is as good as before.
        if let [response] = &responses[..]
            && response.status == 200
            && new == 1
        {
            self.challenge = Some(Challenge::new(response, &self.phone, &codes[before]));
        }
    }

    async fn verify(&mut self, times: usize, code_of: impl Fn(&str) -> String) {
        let Some(Challenge { phone, id, code }) = self.challenge.clone() else {
            return;
        };
        let code = code_of(&code);
        let service = &self.world.service;
        let requests = (0..times).map(|_| service.verify_challenge(&phone, &code, &id));
        for response in join_all(requests).await {
            if response.outcome() == OTP_MISMATCH {
                *self.mismatches.entry(id.clone()).or_default() += 1;
            }
            if response.status == 200 {
                *self.uses.entry(id.clone()).or_default() += 1;
            }
            self.hear_verified(&response).await;
        }
    }

    async fn verify_old(&mut self) {
        let last = self.challenge.as_ref().map(|challenge| &challenge.code);
        let codes = self.world.provider.codes_to(&self.phone);
        let Some(old) = codes.iter().find(|code| Some(*code) != last) else {
            return;
        };
        let response = self.world.service.verify(&self.phone, old).await;
        self.hear_verified(&response).await;
    }

    async fn hear_verified(&mut self, response: &Response) {
        // A 404 is for a login, and nobody is deleted here.
        self.hear("/verify", response, &[200, 401, 409, 429, 503]);
        if [200, 409].contains(&response.status) {
            let place = &self.place;
            assert!(self.registered().await, "{response:?} in {place}");
        }
        if response.status == 200 {
            self.registrations += usize::from(response.outcome() == REGISTERED);
            self.session = Some(Session {
                tokens: Tokens::of(response),
                is_over: false,
            });
        }
    }

    /// A session goes on until it is logged out: whatever was lost, the same token brings the same
    /// successor.
    async fn refresh(&mut self, times: usize) {
        let Some(Session { tokens, is_over }) = self.session.clone() else {
            return;
        };
        let service = &self.world.service;
        let requests = (0..times).map(|_| service.refresh(&tokens.refresh));
        let mut successor = None;
        for response in join_all(requests).await {
            let expected = if is_over { 401 } else { 200 };
            self.hear("/token/refresh", &response, &[expected, 503]);
            if response.status == 200 {
                let tokens = Tokens::of(&response);
                let first = successor.get_or_insert_with(|| tokens.clone());
                assert_eq!(first.refresh, tokens.refresh, "{}", self.place);
            }
        }
        if let Some(tokens) = successor {
            self.session = Some(Session { tokens, is_over });
        }
    }

    async fn me(&mut self) {
        let Some(Session { tokens, is_over }) = self.session.clone() else {
            return;
        };
        let response = self.world.service.me(&tokens.access).await;
        self.hear("/me", &response, &[if is_over { 401 } else { 200 }, 503]);
    }

    async fn log_out(&mut self) {
        let Some(Session { tokens, .. }) = self.session.take() else {
            return;
        };
        let response = self.world.service.log_out(&tokens.refresh).await;
        self.hear("/logout", &response, &[200, 503]);
        // After a 503 nobody knows whether it was carried out.
        self.session = (response.status == 200).then_some(Session {
            tokens,
            is_over: true,
        });
    }

    async fn registered(&self) -> bool {
        self.world.service.database.users_with(&self.phone).await == 1
    }

    /// Checks the invariants that hold at any time.
    async fn check(&self) {
        let place = &self.place;
        let service = &self.world.service;
        let rows = service.database.users_with(&self.phone).await;
        assert!(rows <= 1, "{rows} rows after {place}");
        assert!(self.registrations <= 1, "{place}");
        assert!(self.uses.values().all(|&uses| uses <= 1), "{place}");
        if let Some(Challenge { id, .. }) = &self.challenge {
            let database = service.database.connect().await;
            let used = "SELECT count(*) FROM used_challenges WHERE challenge_id = $1";
            let used: i64 = database.query_one(used, &[id]).await.unwrap().get(0);
            assert!(used <= 1, "{place}");
        }
        if !self.redis_kept_its_memory {
            return;
        }
        let messages = self.world.provider.codes_to(&self.phone).len();
        assert!(
            messages <= MAX_MESSAGES,
            "{messages} messages after {place}"
        );
        for (id, &evaluated) in &self.mismatches {
            assert!(evaluated <= MAX_ATTEMPTS, "{place}");
            if let Some(counted) = self.attempts_of(id).await {
                assert!(counted <= MAX_ATTEMPTS, "{place}");
                assert!(evaluated <= counted, "a free guess after {place}");
            }
        }
    }

    /// The wrong codes that are counted for this pending challenge by its id.
    async fn attempts_of(&self, id: &str) -> Option<u32> {
        let key = challenge_key(id);
        let command = ["HMGET", &key, "phone", "wrong_by_id"];
        let (phone, wrong): (Option<String>, Option<u32>) =
            self.world.service.redis_server.run(&command).await;
        phone.map(|_| wrong.unwrap_or_default())
    }

    /// A code that was sent, and neither used nor spent, still works.
    async fn check_that_nothing_is_lost(&self) {
        let Some(challenge) = &self.challenge else {
            return;
        };
        if !self.redis_kept_its_memory || self.registered().await {
            return;
        }
        let attempts = self.attempts_of(&challenge.id).await;
        assert!(attempts.is_some(), "the code is void after {}", self.place);
        if attempts >= Some(MAX_ATTEMPTS) {
            return;
        }
        until(&self.place, async || {
            self.world.service.submit(challenge).await;
            self.registered().await
        })
        .await;
    }
}

#[test]
fn a_schedule_is_drawn_from_its_number_alone() {
    let text = |seed| format!("{:?}", draw(seed));
    assert_eq!(text(1), text(1));
    assert_ne!(text(1), text(2));
}
