//! Compares the responses, what was sent and what is stored, and prints what came of it.

use std::{
    collections::{BTreeMap, HashMap},
    path::Path,
    time::Duration,
};

use harness::PATIENCE;
use tokio_postgres::NoTls;

use crate::{GUESSES, Store, Stores, TOTAL, fleet, ledger::Ledger, world::World};

/// The address from which codes are guessed at many numbers.
pub const SPRAYER: &str = "198.51.100.1";
/// The address from which codes are asked for.
pub const FLOODER: &str = "198.51.100.2";

/// Prints the table of a run, and whether all was as it must be.
pub async fn print(
    world: &World,
    store: Store,
    stores: &Stores,
    took: Duration,
    logs: &Path,
) -> bool {
    let rows = users(&stores.postgres.url()).await;
    let most_attempts = most_attempts(stores).await;
    let messages = world.messages();
    let epochs = world.epoch() as u64 + 1;
    let ended = world.signup.ended() + world.verify.ended() + world.session.ended();
    let mut ledger = world.ledger();
    let ledger = &mut *ledger;

    let mut bounds = vec![
        (
            "messages",
            messages.len() as u64,
            bound(TOTAL, 1, took, epochs),
        ),
        (
            "messages asked for by one address",
            ledger.granted.get(FLOODER).copied().unwrap_or_default(),
            bound(20, 600, took, epochs),
        ),
        (
            "messages to one number",
            ledger.sent.values().copied().max().unwrap_or_default(),
            // One more by a login, on a device that is known by then.
            bound(1, 30, took, epochs) + 1,
        ),
        (
            "guesses evaluated of one address",
            ledger.evaluated.get(SPRAYER).copied().unwrap_or_default(),
            bound(GUESSES, 600, took, epochs),
        ),
        ("guesses evaluated at one code", most_attempts, 5),
        ("processes that ended", ended as u64, 0),
        ("panics", panics(logs), 0),
    ];
    compare(ledger, &rows, &messages);
    for (what, is, limit) in &bounds {
        if is > limit {
            // The first, since the others can be many.
            ledger
                .faults
                .insert(0, format!("{what}: {is}, more than {limit}"));
        }
    }
    bounds.truncate(5);

    let (down, back) = ledger.outage.unwrap();
    let away = back.map_or(PATIENCE, |back| back - down).as_secs_f64();
    let requests: u64 = ledger.counts.values().sum();
    println!("### {store:?} restarted, away for {away:.1} s\n");
    println!("| Function | Status | `code` | Responses |\n|---|---|---|---|");
    for ((path, status, code), count) in &ledger.counts {
        println!("| `{path}` | {status} | {} | {count} |", quoted(code));
    }
    println!("\n| Checked | Is | At most |\n|---|---|---|");
    for (what, is, limit) in bounds {
        println!("| {what} | {is} | {limit} |");
    }
    ledger.times.sort();
    let at = |share: usize| ledger.times[(ledger.times.len() - 1) * share / 1000].as_millis();
    println!(
        "\n{requests} requests in {:.0} s; half had their response within {} ms, 99 % within {} ms, all within {} ms. \
         {} users, {} of them told so.\n",
        took.as_secs_f64(),
        at(500),
        at(990),
        at(1000),
        rows.len(),
        ledger.registered.len(),
    );
    for fault in ledger.faults.iter().take(50) {
        eprintln!("FAULT {fault}");
    }
    eprintln!("{} faults", ledger.faults.len());
    ledger.faults.is_empty()
}

/// The number that a limit of `count` in `seconds` admits in a time: all of it at once, and what
/// comes back meanwhile; all at once again whenever Redis forgets.
fn bound(count: u64, seconds: u64, time: Duration, epochs: u64) -> u64 {
    let time = time.as_secs() + 1;
    count * epochs + count * time / seconds
}

/// Every response against every row and message.
fn compare(ledger: &mut Ledger, rows: &HashMap<String, (u64, String, u64)>, messages: &[String]) {
    let mut faults = Vec::new();
    for (phone, (id, name)) in &ledger.registered {
        let row = rows.get(phone).map(|(id, name, _)| (id, name));
        if row != Some((id, name)) {
            faults.push(format!("{phone} was told {id} {name:?}, and is {row:?}"));
        }
    }
    for (phone, (.., count)) in rows {
        if *count != 1 || !ledger.proven.contains(phone) {
            faults.push(format!(
                "{count} rows of {phone}, whose code came back: {}",
                ledger.proven.contains(phone)
            ));
        }
    }
    for phone in ledger
        .used
        .iter()
        .filter(|phone| !rows.contains_key(*phone))
    {
        faults.push(format!("the code of {phone} is used, and there is no row"));
    }
    let mut sent = BTreeMap::<&str, u64>::new();
    for phone in messages {
        *sent.entry(phone).or_default() += 1;
    }
    let told: BTreeMap<&str, u64> = ledger
        .sent
        .iter()
        .map(|(phone, n)| (phone.as_str(), *n))
        .collect();
    if sent != told {
        let odd = sent
            .iter()
            .filter(|(phone, n)| told.get(*phone) != Some(n))
            .count();
        faults.push(format!(
            "{} messages, {odd} of them to numbers that were told otherwise",
            messages.len()
        ));
    }
    ledger.faults.append(&mut faults);
}

/// Every user by number: id, name, how many rows. And no fewer used challenges than users.
async fn users(database_url: &str) -> HashMap<String, (u64, String, u64)> {
    let (client, connection) = tokio_postgres::connect(database_url, NoTls).await.unwrap();
    tokio::spawn(connection);
    let mut users = HashMap::new();
    for row in client
        .query("SELECT phone_number, id, name FROM users", &[])
        .await
        .unwrap()
    {
        let id = u64::try_from(row.get::<_, i64>(1)).unwrap();
        let entry = users.entry(row.get(0)).or_insert((id, row.get(2), 0));
        entry.2 += 1;
    }
    let used = client.query_one("SELECT count(*) FROM used_challenges", &[]);
    let used: i64 = used.await.unwrap().get(0);
    assert!(usize::try_from(used).unwrap() >= users.len());
    users
}

/// The most wrong codes that a challenge still in Redis has counted, by its id or as the newest.
async fn most_attempts(stores: &Stores) -> u64 {
    const SCRIPT: &str = "local most = 0
        for _, key in ipairs(redis.call('KEYS', '{otp}:challenge:*')) do
            local wrong = redis.call('HMGET', key, 'wrong_by_id', 'wrong_as_latest')
            most = math.max(most, tonumber(wrong[1] or 0), tonumber(wrong[2] or 0))
        end
        return most";
    stores.redis.run(&["EVAL", SCRIPT, "0"]).await
}

fn panics(logs: &Path) -> u64 {
    let lines = fleet::log_lines(logs);
    let panics = lines
        .iter()
        .filter(|line| line.contains("\"message\":\"panic\""));
    panics.count() as u64
}

fn quoted(code: &str) -> String {
    if code.is_empty() {
        "–".to_owned()
    } else {
        format!("`{code}`")
    }
}
