//! Honest people and attackers. Each checks the responses that they get.

use std::{collections::BTreeSet, time::Duration};

use futures_util::future::join_all;
use harness::{Response, Route, let_time_pass, wrong};
use serde_json::{Value, json};

use crate::world::World;

/// A code that was sent to a number.
pub struct Sent {
    phone: String,
    challenge: String,
    code: String,
    /// The number of times that Redis had been emptied by then.
    epoch: usize,
}

/// Signs up, now and then mistypes the code once, gets in, tries what no longer works, and then
/// logs in, refreshes and logs out.
pub async fn honest(world: &World) {
    while world.goes_on() {
        let (phone, address) = (world.phone(), world.address());
        let Some(sent) = signed_up(world, &phone, &address).await else {
            continue;
        };
        if world.chance(5) {
            let mistyped = wrong(&sent.code);
            let response = world.verify(&phone, &mistyped, &address, &sent.challenge);
            world.expect(&response.await, &["otp_mismatch"], sent.epoch);
        }
        if let Some(let_in) = get_in(world, &sent, &address).await {
            let again = world.verify(&phone, &sent.code, &address, &sent.challenge);
            world.expect(&again.await, &["otp_expired"], sent.epoch);
            let again = world.sign_up(&phone, &address).await;
            world.expect(&again, &["user_exists"], sent.epoch);
            if let Some(let_in) = let_in {
                come_back(world, &phone, &let_in, &address).await;
            }
        }
    }
}

/// Logs in on the device that is known now, and uses the session to its end.
async fn come_back(world: &World, phone: &str, let_in: &Response, address: &str) {
    let device_token = let_in.text("device_token");
    let mut epoch = world.epoch();
    let mut asked = world.log_in(phone, device_token, address).await;
    while is_not(&asked, 200) {
        world.expect(&asked, &["rate_limited"], epoch);
        if !world.goes_on() {
            return;
        }
        rest(&asked).await;
        epoch = world.epoch();
        asked = world.log_in(phone, device_token, address).await;
    }
    let (Some(asked), Some(code)) = (asked, world.code_for(phone)) else {
        return world.fault(format!("no message for a login of {phone}"));
    };
    let id = asked.text("challenge_id");
    let response = world.verify(phone, &code, address, id).await;
    if is_not(&response, 200) {
        return world.expect(&response, &[], epoch);
    }
    let Some(response) = response else { return };
    world.ledger().was_logged_in(id, &response);

    let mut tokens = response.body["tokens"].clone();
    let text = |tokens: &Value, member: &str| tokens[member].as_str().unwrap().to_owned();
    let token = text(&tokens, "refresh_token");
    let refreshed = world.send_token(Route::Refresh, &token, address).await;
    if is_not(&refreshed, 200) {
        return world.expect(&refreshed, &[], epoch);
    }
    if let Some(refreshed) = refreshed {
        tokens = refreshed.body["tokens"].clone();
    }
    let access = text(&tokens, "access_token");
    let me = world.me(&access, address).await;
    if is_not(&me, 200) {
        return world.expect(&me, &[], epoch);
    }
    let token = text(&tokens, "refresh_token");
    let ended = world.send_token(Route::Logout, &token, address).await;
    if is_not(&ended, 200) {
        return world.expect(&ended, &[], epoch);
    }
    let me = world.me(&access, address).await;
    world.expect(&me, &["unauthenticated"], epoch);
}

/// Sends the right code eight times at once.
pub async fn impatient(world: &World) {
    while world.goes_on() {
        let (phone, address) = (world.phone(), world.address());
        let Some(sent) = signed_up(world, &phone, &address).await else {
            continue;
        };
        world.ledger().proven.insert(phone.clone());
        let tries = (0..8).map(|_| world.verify(&phone, &sent.code, &address, &sent.challenge));
        let responses = join_all(tries).await;
        for response in responses.iter().flatten() {
            if response.status == 200 {
                world.ledger().was_registered(&sent.challenge, response);
            }
        }
        let others = responses.iter().filter(|a| is_not(a, 200));
        others.for_each(|response| world.expect(response, &["otp_expired"], sent.epoch));
        // Where no response said that they are in, one who retries is, or has been all along.
        get_in(world, &sent, &address).await;
    }
}

/// Guesses at one number without the id from many addresses, twelve times at once. Then its owner
/// gets in.
pub async fn guesser(world: &World) {
    while world.goes_on() {
        let phone = world.phone();
        let Some(sent) = signed_up(world, &phone, &world.address()).await else {
            continue;
        };
        let addresses: Vec<String> = (0..12).map(|_| world.address()).collect();
        let other = wrong(&sent.code);
        let guesses = addresses
            .iter()
            .map(|address| world.verify(&phone, &other, address, ""));
        let responses = join_all(guesses).await;
        let told: Vec<u64> = responses
            .iter()
            .flatten()
            .filter_map(|response| response.body["attempts_remaining"].as_u64())
            .collect();
        let different: BTreeSet<u64> = told.iter().copied().collect();
        if different.len() != told.len() || told.len() > 5 {
            world.fault(format!("attempts remaining: {told:?}"));
        }
        for response in responses.iter().filter(|response| is_not(response, 401)) {
            world.expect(response, &["too_many_attempts"], sent.epoch);
        }
        // Whoever has the id has all attempts still.
        get_in(world, &sent, &world.address()).await;
    }
}

/// Sends one wrong code to each of many numbers, from one address.
pub async fn sprayer(world: &World, address: &str) {
    while world.goes_on() {
        let phone = world.phone();
        let Some(sent) = signed_up(world, &phone, &world.address()).await else {
            continue;
        };
        let response = world.verify(&phone, &wrong(&sent.code), address, "").await;
        world.expect(&response, &["otp_mismatch", "rate_limited"], sent.epoch);
    }
}

/// Asks for codes for ever new numbers, from one address.
pub async fn flooder(world: &World, address: &str) {
    while world.goes_on() {
        let phone = world.phone();
        let response = world.sign_up(&phone, address).await;
        if is_not(&response, 200) {
            world.expect(&response, &["rate_limited"], world.epoch());
        }
        rest(&response).await;
    }
}

/// Asks ten times at once for a code for one number, from many addresses.
pub async fn doubler(world: &World) {
    while world.goes_on() {
        let (phone, epoch) = (world.phone(), world.epoch());
        let addresses: Vec<String> = (0..10).map(|_| world.address()).collect();
        let asked = addresses
            .iter()
            .map(|address| world.sign_up(&phone, address));
        let responses = join_all(asked).await;
        let sent = responses
            .iter()
            .filter(|response| !is_not(response, 200))
            .count();
        if sent > 1 + world.epoch() - epoch {
            world.fault(format!("{sent} codes at once for one number"));
        }
        for response in responses.iter().filter(|response| is_not(response, 200)) {
            world.expect(response, &["rate_limited"], epoch);
        }
        rest(&responses[0]).await;
    }
}

/// Sends what is no request.
pub async fn vandal(world: &World) {
    let bodies = [
        String::new(),
        "null".to_owned(),
        "[\"Ada\", \"+4915112345678\"]".to_owned(),
        "{\"name\":\"Ada\",\"name\":\"Eve\",\"phone_number\":\"+4915112345678\"}".to_owned(),
        "{\"otp\":123456,\"phone_number\":\"+4915112345678\"}".to_owned(),
        "{\"otp\":\"123456\",\"phone_number\":\"+4915112345678\",\"verified\":true}".to_owned(),
        "{\"name\":\"Ada\",\"phone_number\":\"+4915112345678\"} {}".to_owned(),
        format!("{{\"name\":{}", "[".repeat(50_000)),
        "\u{feff}{}".to_owned(),
        "{\"name\":\"Ada\\u0000\",\"phone_number\":\"+4915112345678\"}".to_owned(),
        "{\"otp\":\"１２３４５６\",\"phone_number\":\"+4915112345678\"}".to_owned(),
        json!({"name": "a".repeat(104_856), "phone_number": "+4915112345678"}).to_string(),
    ];
    while world.goes_on() {
        for (body, route) in bodies
            .iter()
            .flat_map(|body| [(body, Route::Signup), (body, Route::Verify)])
        {
            let response = world.post(route, &world.address(), body).await;
            if response.is_some_and(|response| response.status < 400 || response.status >= 500) {
                world.fault(format!("{route:?} took {}", &body[..body.len().min(80)]));
            }
        }
    }
}

/// Asks until a code is sent, or the time is over.
async fn signed_up(world: &World, phone: &str, address: &str) -> Option<Sent> {
    while world.goes_on() {
        let epoch = world.epoch();
        let response = world.sign_up(phone, address).await;
        if !is_not(&response, 200) {
            let challenge = response?.text("challenge_id").to_owned();
            let Some(code) = world.code_for(phone) else {
                world.fault(format!("no message for {challenge}"));
                return None;
            };
            return Some(Sent {
                phone: phone.to_owned(),
                challenge,
                code,
                epoch,
            });
        }
        world.expect(&response, &["rate_limited"], epoch);
        rest(&response).await;
    }
    None
}

/// Sends the right code until it is decided, also when the time is over: a code that was sent is
/// not lost with an outage of Postgres. `None` if the number is not registered with it, else the
/// response if it was not lost.
async fn get_in(world: &World, sent: &Sent, address: &str) -> Option<Option<Response>> {
    world.ledger().proven.insert(sent.phone.clone());
    loop {
        let response = world.verify(&sent.phone, &sent.code, address, &sent.challenge);
        let response = response.await;
        match response
            .as_ref()
            .map(|response| (response.status, response.text("code")))
        {
            Some((200, _)) => {
                let response = response.unwrap();
                world.ledger().was_registered(&sent.challenge, &response);
                return Some(Some(response));
            }
            Some((503, _)) => rest(&response).await,
            // Redis has forgotten the code.
            _ if world.epoch() > sent.epoch => return None,
            // A response was lost, but not what it told of.
            Some((401, "otp_expired")) => {
                world.ledger().used.insert(sent.phone.clone());
                return Some(None);
            }
            other => {
                world.fault(format!("the right code got {other:?}"));
                return None;
            }
        }
    }
}

fn is_not(response: &Option<Response>, status: u64) -> bool {
    response
        .as_ref()
        .is_none_or(|response| response.status != status)
}

/// Nobody here has the patience that `Retry-After` asks for.
async fn rest(response: &Option<Response>) {
    let pause = match response.as_ref().map(|response| response.status) {
        Some(429) => Duration::from_millis(50),
        Some(503) => Duration::from_millis(250),
        _ => return,
    };
    let_time_pass(pause).await;
}
