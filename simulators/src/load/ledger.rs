//! Requests and their responses, and whether all of them may be.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    time::Duration,
};

use harness::{Response, Route};
use tokio::time::Instant;

use crate::fleet::Exchange;

/// The longest time of a request: the functions' own deadline, and the machine's time to pass it
/// on.
const IN_TIME: Duration = Duration::from_secs(9);

#[derive(Default)]
pub struct Ledger {
    /// By function, status and `code`.
    pub counts: BTreeMap<(&'static str, u64, String), u64>,
    pub times: Vec<Duration>,
    /// Contradictions.
    pub faults: Vec<String>,
    /// The users of responses: id and name by number.
    pub registered: HashMap<String, (u64, String)>,
    /// Challenges by id: the number that each is for, and whether its code has let somebody in.
    pub challenges: HashMap<String, (String, bool)>,
    /// The number of codes that were reported as sent, by phone.
    pub sent: HashMap<String, u64>,
    /// The numbers whose right code was sent back, whatever came of it.
    pub proven: HashSet<String>,
    /// Numbers that have to be registered, because their code is used.
    pub used: HashSet<String>,
    /// Sign-ups that were granted to an address.
    pub granted: HashMap<String, u64>,
    /// Wrong codes of an address that were evaluated.
    pub evaluated: HashMap<String, u64>,
    /// The times at which the store was stopped and was back.
    pub outage: Option<(Instant, Option<Instant>)>,
}

impl Ledger {
    /// Enters an exchange, and returns its response if there is one.
    pub fn enter(
        &mut self,
        route: Route,
        body: &[u8],
        address: &str,
        exchange: Exchange,
    ) -> Option<Response> {
        let response = self.enter_any(route.path(), exchange)?;
        self.faults
            .extend(route.fault_of_body(Some("application/json"), body, &response));
        match (response.status, response.text("code")) {
            (200, _) if route == Route::Signup => {
                *self.granted.entry(address.to_owned()).or_default() += 1;
            }
            (401, "otp_mismatch") if response.body.get("attempts_remaining").is_some() => {
                *self.evaluated.entry(address.to_owned()).or_default() += 1;
            }
            _ => {}
        }
        Some(response)
    }

    /// The same for `GET /me`.
    pub fn enter_me(&mut self, exchange: Exchange) -> Option<Response> {
        let response = self.enter_any("/me", exchange)?;
        if ![200, 401, 503].contains(&response.status) {
            self.faults.push(format!("/me: {response:?}"));
        }
        Some(response)
    }

    fn enter_any(&mut self, path: &'static str, exchange: Exchange) -> Option<Response> {
        let took = exchange.ended - exchange.begun;
        self.times.push(took);
        let is_excused = self.is_excused(&exchange);
        let begun = exchange.begun;
        let Some(response) = exchange.response else {
            self.count(path, 0, "no response");
            self.faults
                .push(format!("{path}: no response after {took:?}"));
            return None;
        };
        self.count(path, response.status, response.text("code"));
        if took > IN_TIME {
            self.faults.push(format!("{took:?} for {response:?}"));
        }
        if response.status == 503 && !is_excused {
            let since = self.outage.and_then(|(_, back)| Some(begun - back?));
            self.faults
                .push(format!("{since:?} after the outage: {response:?}"));
        }
        Some(response)
    }

    fn count(&mut self, path: &'static str, status: u64, code: &str) {
        let key = (path, status, code.to_owned());
        *self.counts.entry(key).or_default() += 1;
    }

    /// Tells if the request and the outage overlapped.
    fn is_excused(&self, exchange: &Exchange) -> bool {
        self.outage.is_some_and(|(down, back)| {
            exchange.ended >= down && back.is_none_or(|back| exchange.begun <= back)
        })
    }

    /// A code was sent to this number.
    pub fn was_sent(&mut self, phone: &str, challenge: &str) {
        *self.sent.entry(phone.to_owned()).or_default() += 1;
        let known = self
            .challenges
            .insert(challenge.to_owned(), (phone.to_owned(), false));
        if known.is_some() {
            self.faults.push(format!("the challenge {challenge} twice"));
        }
    }

    /// This challenge's code registered somebody.
    pub fn was_registered(&mut self, challenge: &str, response: &Response) {
        let user = &response.body["data"];
        let phone = user["phone_number"].as_str().unwrap_or_default().to_owned();
        let name = user["name"].as_str().unwrap_or_default().to_owned();
        let id = user["id"].as_u64().unwrap_or_default();
        match self.challenges.get_mut(challenge) {
            Some((of, registered @ false)) if *of == phone => *registered = true,
            known => self
                .faults
                .push(format!("{known:?} registered {response:?}")),
        }
        if let Some(before) = self.registered.insert(phone, (id, name)) {
            self.faults.push(format!("{before:?} again: {response:?}"));
        }
    }

    /// This challenge's code logged in who had registered before.
    pub fn was_logged_in(&mut self, challenge: &str, response: &Response) {
        let user = &response.body["data"];
        let phone = user["phone_number"].as_str().unwrap_or_default();
        let known = self.registered.get(phone).map(|(id, _)| *id);
        if known != user["id"].as_u64() {
            self.faults.push(format!("{known:?} is {response:?}"));
        }
        match self.challenges.get_mut(challenge) {
            Some((of, is_used @ false)) if *of == phone => *is_used = true,
            known => self.faults.push(format!("{known:?} let in {response:?}")),
        }
    }
}
