//! The watch over codes that were sent and don't come back.

use tests::{Service, fresh_phone, messages_to};

use crate::limits::{assert_limited, neighbour};

const GERMANY: &str = "{otp}:conversion:country:DE";

#[tokio::test]
async fn what_is_older_than_the_window_is_forgotten_in_every_mode() {
    for mode in ["off", "record", "enforce"] {
        let mut service = Service::start_with(&[("PUMPING", mode)]).await;
        for hours in [0, 2, 4] {
            service.set_clock_offset(hours * 3_600_000);
            let sent = service.sign_up("Ada", &fresh_phone()).await;
            assert_eq!(sent.status, 200);
        }
        let fields: u32 = service.redis_server.run(&["HLEN", GERMANY]).await;
        assert_eq!(fields, 1, "{mode}");
    }
}

#[tokio::test]
async fn however_much_there_is_to_forget_a_code_is_sent() {
    let service = Service::start().await;
    let mut command = vec!["HSET".to_owned(), GERMANY.to_owned()];
    for interval in 0..10_000 {
        command.extend([format!("s{interval}"), "1".to_owned()]);
    }
    let command: Vec<_> = command.iter().map(String::as_str).collect();
    service.redis_server.run::<()>(&command).await;

    let sent = service.sign_up("Ada", &fresh_phone()).await;
    assert_eq!(sent.status, 200);
    let fields: u32 = service.redis_server.run(&["HLEN", GERMANY]).await;
    assert_eq!(fields, 1);
}

/// Thirty codes are sent to a range, none comes back, and their time runs out.
async fn pump(service: &mut Service, phone: &str) {
    for last in 0..30 {
        let answer = service.sign_up("Ada", &neighbour(phone, last)).await;
        assert_eq!(answer.status, 200);
    }
    service.set_clock_offset(700_000);
}

const WATCH: [(&str, &str); 2] = [
    ("PUMPING_MIN_SENDS", "30"),
    ("PUMPING_MIN_CONVERSION", "10"),
];

#[tokio::test]
async fn enforced_a_range_from_which_nothing_comes_back_gets_nothing_until_it_recovers() {
    let settings = [WATCH[0], WATCH[1], ("PUMPING", "enforce")];
    let mut service = Service::start_with(&settings).await;
    let phone = fresh_phone();
    pump(&mut service, &phone).await;
    // The wait ends with a whole second of Redis's clock. At the beginning of one nearly all of the
    // last second that it is rounded up to is left, whatever time the test itself takes.
    let (_, microseconds): (u64, i64) = service.redis_server.run(&["TIME"]).await;
    let begun = 700_000 + 1000 - microseconds / 1000;
    service.set_clock_offset(begun);
    let pumped = neighbour(&phone, 500);
    let wait = assert_limited(&service.sign_up("Ada", &pumped).await);
    assert!(messages_to(&pumped).await.is_empty());
    // Another range of the same country is served.
    assert_eq!(service.sign_up("Ada", &fresh_phone()).await.status, 200);
    // An hour after their time ran out they count no more, which is what the answer said.
    assert!((3_000..=4_200).contains(&wait), "{wait}");
    service.set_clock_offset(begun + i64::try_from(wait - 1).unwrap() * 1000);
    assert_limited(&service.sign_up("Ada", &pumped).await);
    service.set_clock_offset(begun + i64::try_from(wait).unwrap() * 1000);
    assert_eq!(service.sign_up("Ada", &pumped).await.status, 200);
}

#[tokio::test]
async fn codes_whose_time_is_not_over_do_not_count_against_a_range() {
    let settings = [WATCH[0], WATCH[1], ("PUMPING", "enforce")];
    let mut service = Service::start_with(&settings).await;
    let phone = fresh_phone();
    pump(&mut service, &phone).await;
    service.set_clock_offset(290_000);
    let answer = service.sign_up("Ada", &neighbour(&phone, 500)).await;
    assert_eq!(answer.status, 200);
}

#[tokio::test]
async fn a_range_from_which_codes_come_back_is_served() {
    let settings = [WATCH[0], WATCH[1], ("PUMPING", "enforce")];
    let mut service = Service::start_with(&settings).await;
    let phone = fresh_phone();
    for last in 100..103 {
        let neighbour = neighbour(&phone, last);
        let code = service.code_for(&neighbour).await;
        assert_eq!(service.verify(&neighbour, &code).await.status, 200);
        // A second answer with the same code is no second conversion.
        service.verify(&neighbour, &code).await;
    }
    pump(&mut service, &phone).await;
    // Three of thirty-three are less than a tenth.
    assert_limited(&service.sign_up("Ada", &neighbour(&phone, 500)).await);

    let mut service = Service::start_with(&settings).await;
    let phone = fresh_phone();
    for last in 100..104 {
        let neighbour = neighbour(&phone, last);
        let code = service.code_for(&neighbour).await;
        assert_eq!(service.verify(&neighbour, &code).await.status, 200);
    }
    pump(&mut service, &phone).await;
    // Four of thirty-four are more.
    let answer = service.sign_up("Ada", &neighbour(&phone, 500)).await;
    assert_eq!(answer.status, 200);
}

#[tokio::test]
async fn recorded_or_off_a_range_from_which_nothing_comes_back_is_served() {
    for mode in ["record", "off"] {
        let settings = [WATCH[0], WATCH[1], ("PUMPING", mode)];
        let mut service = Service::start_with(&settings).await;
        let phone = fresh_phone();
        pump(&mut service, &phone).await;
        let answer = service.sign_up("Ada", &neighbour(&phone, 500)).await;
        assert_eq!(answer.status, 200, "{mode}");
    }
}
