//! The service under load as those who come see it, and the ledger of what they saw.

use std::{
    cell::{Cell, RefCell, RefMut},
    collections::HashMap,
};

use harness::{Provider, Response, Route, event, event_from};
use rand::{RngExt, SeedableRng, rngs::ChaCha8Rng};
use serde_json::json;
use tokio::time::Instant;

use crate::{fleet::Fleet, ledger::Ledger};

pub struct World {
    pub signup: Fleet,
    pub verify: Fleet,
    pub session: Fleet,
    pub ends: Instant,
    provider: Provider,
    /// The newest code of each number, as far as the provider's messages were read.
    codes: RefCell<(usize, HashMap<String, String>)>,
    ledger: RefCell<Ledger>,
    epoch: Cell<usize>,
    random: RefCell<ChaCha8Rng>,
}

impl World {
    pub fn new(
        [signup, verify, session]: [Fleet; 3],
        provider: Provider,
        seed: u64,
        ends: Instant,
    ) -> Self {
        Self {
            signup,
            verify,
            session,
            ends,
            provider,
            codes: RefCell::default(),
            ledger: RefCell::default(),
            epoch: Cell::new(0),
            random: RefCell::new(ChaCha8Rng::seed_from_u64(seed)),
        }
    }

    pub fn goes_on(&self) -> bool {
        Instant::now() < self.ends
    }

    /// The number of times that Redis has lost its memory.
    pub fn epoch(&self) -> usize {
        self.epoch.get()
    }

    pub fn redis_forgets(&self) {
        self.epoch.set(self.epoch() + 1);
    }

    /// Not to be held while waiting.
    pub fn ledger(&self) -> RefMut<'_, Ledger> {
        self.ledger.borrow_mut()
    }

    /// Something that must not have happened.
    pub fn fault(&self, what: String) {
        self.ledger().faults.push(what);
    }

    /// A German mobile number that most likely nobody has yet.
    pub fn phone(&self) -> String {
        let number = self.random.borrow_mut().random_range(0..100_000_000);
        format!("+49151{number:08}")
    }

    pub fn address(&self) -> String {
        let [a, b, c] = self.random.borrow_mut().random::<[u8; 3]>();
        format!("10.{a}.{b}.{c}")
    }

    /// True in one of so many cases.
    pub fn chance(&self, of: u32) -> bool {
        self.random.borrow_mut().random_range(0..of) == 0
    }

    pub async fn sign_up(&self, phone: &str, address: &str) -> Option<Response> {
        let body = json!({"name": "Ada Lovelace", "phone_number": phone}).to_string();
        let response = self.post(Route::Signup, address, &body).await?;
        if response.status == 200 {
            self.ledger().was_sent(phone, response.text("challenge_id"));
        }
        Some(response)
    }

    /// From a device that is known.
    pub async fn log_in(&self, phone: &str, device_token: &str, address: &str) -> Option<Response> {
        let body = json!({"phone_number": phone, "device_token": device_token}).to_string();
        let response = self.post(Route::Login, address, &body).await?;
        if response.status == 200 {
            self.ledger().was_sent(phone, response.text("challenge_id"));
        }
        Some(response)
    }

    /// `POST /token/refresh` or `/logout`.
    pub async fn send_token(&self, route: Route, token: &str, address: &str) -> Option<Response> {
        let body = json!({"refresh_token": token}).to_string();
        self.post(route, address, &body).await
    }

    /// `GET /me`.
    pub async fn me(&self, access_token: &str, address: &str) -> Option<Response> {
        let mut event = event("GET", "/me", "");
        event["requestContext"]["http"]["sourceIp"] = address.into();
        event["headers"]["authorization"] = format!("Bearer {access_token}").into();
        let exchange = self.session.invoke(event).await;
        self.ledger().enter_me(exchange)
    }

    pub async fn verify(
        &self,
        phone: &str,
        code: &str,
        address: &str,
        id: &str,
    ) -> Option<Response> {
        let body = json!({"otp": code, "phone_number": phone, "challenge_id": id}).to_string();
        self.post(Route::Verify, address, &body).await
    }

    pub async fn post(&self, route: Route, address: &str, body: &str) -> Option<Response> {
        let fleet = match route {
            Route::Signup | Route::Login | Route::ChangePhone => &self.signup,
            Route::Verify => &self.verify,
            Route::Refresh | Route::Logout | Route::Rename => &self.session,
        };
        let exchange = fleet.invoke(event_from(address, route.path(), body)).await;
        self.ledger()
            .enter(route, body.as_bytes(), address, exchange)
    }

    /// A response must have one of these codes; 503 is the ledger's to judge, and a code is gone
    /// when Redis has lost its memory since.
    pub fn expect(&self, response: &Option<Response>, codes: &[&str], epoch: usize) {
        let Some(response) = response else { return };
        let code = response.text("code");
        let is_forgotten = code == "otp_expired" && self.epoch() > epoch;
        if !codes.contains(&code) && code != "unavailable" && !is_forgotten {
            self.fault(format!("{codes:?} was due: {response:?}"));
        }
    }

    /// The newest code that was sent to this number.
    pub fn code_for(&self, phone: &str) -> Option<String> {
        let (seen, codes) = &mut *self.codes.borrow_mut();
        for form in self.provider.requests_after(*seen) {
            *seen += 1;
            if let Some((phone, code)) = read_message(&form) {
                codes.insert(phone, code);
            }
        }
        codes.get(phone).cloned()
    }

    /// The numbers that messages went to, one for each message.
    pub fn messages(&self) -> Vec<String> {
        let forms = self.provider.requests();
        let messages = forms.iter().filter_map(|form| read_message(form));
        messages.map(|(phone, _)| phone).collect()
    }
}

/// Number and code of a message, whose text begins with the code.
fn read_message(form: &str) -> Option<(String, String)> {
    let (_, message) = form.split_once("&Message=")?;
    let (_, phone) = form.split_once("&PhoneNumber=%2B")?;
    let phone: String = phone.chars().take_while(char::is_ascii_digit).collect();
    let code = message.chars().take_while(char::is_ascii_digit).collect();
    Some((format!("+{phone}"), code))
}
