//! What is remembered of codes that were sent and came back.

use tests::{Service, fresh_phone};

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
