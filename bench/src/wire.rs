//! Round trips, counted at proxies in front of the stores, and a way that takes its time.

use std::{
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    thread,
    time::Duration,
};

use harness::{Database, Proxy, RedisServer};
use serde_json::Value;

use crate::{
    process::Process,
    stage::{Stage, Stores, login, me, owned, refresh, sign_up},
    starts::send_codes,
    table::{Table, Times},
    tutorial::Tutorial,
};

/// The time of a round trip between a function and a store in another zone.
const ROUND_TRIP: Duration = Duration::from_millis(2);
const REQUESTS: usize = 2000;

/// Counts the round trips of warm requests.
pub async fn count(stage: &Stage, table: &mut Table) {
    let postgres = Proxy::to(&Database::address()).await;
    let redis = Proxy::to(&stage.redis.address()).await;
    let settings = stage.settings(Stores {
        database_url: &stage.database.url_through(postgres.address()),
        redis_url: &format!("redis://{}", redis.address()),
    });
    let private = [settings.clone(), owned(&[("REVEAL_REGISTERED", "false")])].concat();
    let mut signup = Process::start("signup", &settings).await;
    let mut private = Process::start("signup", &private).await;
    let mut verify = Process::start("verify", &settings).await;
    let mut session = Process::start("session", &settings).await;
    let mut trips = Vec::new();
    let mut count = async |process: &mut Process, event: &Value| {
        let before = postgres.round_trips() + redis.round_trips();
        let (_, body) = process.request(event).await;
        trips.push(postgres.round_trips() + redis.round_trips() - before);
        body
    };
    // The first request of each warms it.
    for _ in 0..2 {
        count(&mut signup, &sign_up(&stage.phone())).await;
        count(&mut private, &login(&stage.phone())).await;
        let code = send_codes(stage, &mut signup, 1).await;
        let signed_in = count(&mut verify, &code[0].verify()).await;
        count(&mut session, &me(&signed_in)).await;
        count(&mut session, &refresh(&signed_in)).await;
    }
    let warm: Vec<String> = trips[5..].iter().map(usize::to_string).collect();
    table.claim(
        "round trips: sign-up; login (private); verify; `GET /me`; refresh",
        &warm.join("; "),
        "2; 1; 2; 1; 1",
    );
    for process in [signup, private, verify, session] {
        process.end().await;
    }
}

/// Measures sign-ups whose stores are far, beside the tutorial's.
pub async fn measure_far(stage: &Stage, table: &mut Table) {
    let database_url = stage.database.url_through(&far(&Database::address()));
    // Each has a Redis of its own: the total limits what one may send.
    let redis = [RedisServer::start().await, RedisServer::start().await];
    let [open, private] = redis.each_ref().map(|redis| {
        stage.settings(Stores {
            database_url: &database_url,
            redis_url: &format!("redis://{}", far(&redis.address())),
        })
    });
    let private = [private, owned(&[("REVEAL_REGISTERED", "false")])].concat();
    let redis_url = format!("redis://{}", far(&stage.redis.address()));
    let tutorial = Tutorial::start(Stores {
        database_url: &database_url,
        redis_url: &redis_url,
    });
    let Some(tutorial) = tutorial.await else {
        return;
    };
    let mut client = tutorial.connect().await;
    let mut signup = Process::start("signup", &open).await;
    let mut private = Process::start("signup", &private).await;
    let [mut ours, mut ours_private, mut theirs] = [(); 3].map(|()| Times::default());
    for _ in 0..REQUESTS {
        ours.push(signup.request(&sign_up(&stage.phone())).await.0);
        ours_private.push(private.request(&sign_up(&stage.phone())).await.0);
        theirs.push(client.sign_up(&stage.phone()).await);
    }
    for (name, times) in [("sign-up", &ours), ("sign-up (private)", &ours_private)] {
        let figure = format!("{name} ÷ the tutorial's Go server, 2 ms a round trip, p50");
        table.ratio(&figure, [times.median(), theirs.median()], "µs", 0.4);
    }
    signup.end().await;
    private.end().await;
}

/// The address of a proxy that passes on everything half a round trip later.
fn far(target: &str) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let target = target.to_owned();
    thread::spawn(move || {
        for client in listener.incoming() {
            let (client, server) = (client.unwrap(), TcpStream::connect(&target).unwrap());
            carry(client.try_clone().unwrap(), server.try_clone().unwrap());
            carry(server, client);
        }
    });
    address
}

fn carry(mut from: TcpStream, mut to: TcpStream) {
    from.set_nodelay(true).unwrap();
    thread::spawn(move || {
        let mut buffer = [0; 16 * 1024];
        while let Ok(length @ 1..) = from.read(&mut buffer) {
            pass_time(ROUND_TRIP / 2);
            if to.write_all(&buffer[..length]).is_err() {
                return;
            }
        }
        let _closed_already = to.shutdown(std::net::Shutdown::Write);
    });
}

#[expect(
    clippy::disallowed_methods,
    reason = "a thread of its own is the way's delay"
)]
fn pass_time(time: Duration) {
    thread::sleep(time);
}
