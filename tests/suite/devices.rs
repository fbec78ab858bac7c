//! Known devices: no stranger can use up what somebody needs who signed in before.

use harness::{
    Challenge, PEPPER, Response, Service, fresh_phone, neighbour,
    outcome::{INVALID_TOKEN, LOGGED_IN, OTP_MISMATCH, UNAUTHENTICATED},
};

/// A new phone, and the token of its device.
async fn known_device(service: &Service) -> (String, String) {
    let phone = fresh_phone();
    let device = service.known_device(&phone).await;
    (phone, device)
}

async fn log_in_on(service: &Service, device: &str, phone: &str) -> Challenge {
    Challenge::of(&service.log_in_on(device, phone).await, phone).await
}

/// A log-in on a known device succeeds.
async fn get_in_on(service: &Service, device: &str, phone: &str) -> Response {
    let challenge = log_in_on(service, device, phone).await;
    let response = service.submit(&challenge).await;
    response.assert_is(LOGGED_IN);
    response
}

#[tokio::test]
async fn a_known_device_gets_in_when_strangers_have_used_up_phone_range_and_address() {
    for reveals in ["true", "false"] {
        let settings = [
            ("REVEAL_REGISTERED", reveals),
            ("LIMIT_PHONE", "2/1h"),
            ("LIMIT_RANGE", "3/6h"),
            ("LIMIT_ADDRESS", "4/1h"),
            ("LIMIT_COUNTRY", "9/1d"),
            ("LIMIT_TOTAL", "9/1d"),
        ];
        let service = Service::start_with(&settings).await;
        let (phone, device) = known_device(&service).await;
        // All that strangers may ask for, from the owner's address.
        for last in 0..20 {
            service.sign_up(&neighbour(&phone, last)).await;
            service.log_in(&phone).await;
        }
        for place in 0..20 {
            let address = format!("198.51.100.{place}");
            service.sign_up_from(&address, &fresh_phone()).await;
        }
        service.log_in(&phone).await.assert_limited();

        let response = get_in_on(&service, &device, &phone).await;
        // It is the same device, and stays so.
        let again = response.text("device_token");
        assert_eq!(again, device, "a new device would have a limit of its own");
    }
}

#[tokio::test]
async fn a_device_token_that_is_not_this_phones_is_ignored() {
    let service = Service::start_with(&[("LIMIT_PHONE", "1/1h")]).await;
    let (ada, device) = known_device(&service).await;
    let (_, eves) = known_device(&service).await;
    assert_eq!(device.len(), eves.len());
    let other_id = format!("{}{}", &eves[..32], &device[32..]);
    for token in [
        "",
        "nonsense",
        &eves,
        &other_id,
        &device[..device.len() - 1],
        &"a".repeat(10_000),
    ] {
        service.log_in_on(token, &ada).await.assert_limited();
    }
    service.log_in_on(&device, &ada).await.assert_ok();
}

#[tokio::test]
async fn a_device_token_of_an_older_pepper_is_known_and_of_another_deployment_is_not() {
    let service = Service::start_with(&[("LIMIT_PHONE", "1/1h")]).await;
    let (phone, device) = known_device(&service).await;
    let new = "n".repeat(32);
    let rotated = format!("{new},{PEPPER}");
    for (peppers, status) in [(new, 429), (rotated, 200)] {
        let own = [("OTP_PEPPER", &*peppers), ("LIMIT_PHONE", "1/1h")];
        let others = service.others(&own);
        let response = others.log_in_on(&device, &phone).await;
        assert_eq!(response.status, status, "{response:?}");
    }
}

#[tokio::test]
async fn a_known_device_has_a_limit_of_its_own_and_keeps_to_the_ceilings() {
    let settings = [("LIMIT_DEVICE", "2/1h"), ("LIMIT_PHONE", "2/1h")];
    let service = Service::start_with(&settings).await;
    let (phone, device) = known_device(&service).await;
    for _ in 0..2 {
        service.log_in_on(&device, &phone).await.assert_ok();
    }
    let wait = service.log_in_on(&device, &phone).await.assert_limited();
    assert!((1790..=1800).contains(&wait), "{wait}");
    // It took nothing from the phone, which has one of its two left.
    service.log_in(&phone).await.assert_ok();

    // Of the range's ceiling, known devices have a quarter of their own.
    for ceiling in ["LIMIT_RANGE_MAX", "LIMIT_TOTAL_MAX"] {
        let service = Service::start_with(&[(ceiling, "2/1d")]).await;
        let (phone, device) = known_device(&service).await;
        service.log_in_on(&device, &phone).await.assert_ok();
        service.log_in_on(&device, &phone).await.assert_limited();
    }
}

#[tokio::test]
async fn whoever_fills_the_ceiling_of_a_range_keeps_no_known_device_out() {
    let service = Service::start_with(&[("LIMIT_RANGE_MAX", "4/1d")]).await;
    let (phone, device) = known_device(&service).await;
    for last in 0..3 {
        service.register(&neighbour(&phone, last)).await;
    }
    let refused = service.sign_up(&neighbour(&phone, 3)).await;
    refused.assert_limited();
    get_in_on(&service, &device, &phone).await;
    service.log_in_on(&device, &phone).await.assert_limited();
}

#[tokio::test]
async fn codes_of_a_known_device_stay_short_and_add_no_misses() {
    let settings = [("MISSES_PHONE", "3/30d"), ("MISSES_TOTAL", "6/1d")];
    let service = Service::start_with(&settings).await;
    let (phone, device) = known_device(&service).await;
    // Mistyped on the device, which makes nobody's codes longer.
    for _ in 0..3 {
        let challenge = log_in_on(&service, &device, &phone).await;
        for _ in 0..4 {
            service.guess(&challenge).await.assert_is(OTP_MISMATCH);
        }
    }
    assert_eq!(service.log_in(&phone).await.body["code_length"], 6);

    // A stranger makes everybody's longer, but not these.
    for _ in 0..2 {
        let challenge = service.login_challenge(&phone).await;
        for _ in 0..5 {
            service.guess(&challenge).await;
        }
    }
    assert_ne!(service.log_in(&phone).await.body["code_length"], 6);
    let other = service.sign_up(&fresh_phone()).await;
    assert_ne!(other.body["code_length"], 6);
    let challenge = log_in_on(&service, &device, &phone).await;
    assert_eq!(challenge.code.len(), 6);
    service.submit(&challenge).await.assert_ok();
}

#[tokio::test]
async fn guesses_without_the_id_at_a_known_devices_code_count_as_any() {
    let service = Service::start_with(&[("MISSES_TOTAL", "5/1d")]).await;
    let (phone, device) = known_device(&service).await;
    let challenge = log_in_on(&service, &device, &phone).await;
    let mut evaluated = 0;
    for _ in 0..10 {
        let code = challenge.wrong_code();
        let response = service.verify_from("198.51.100.1", &phone, &code).await;
        evaluated += u32::from(response.body.get("attempts_remaining").is_some());
    }
    assert_eq!(evaluated, 5);
    let other = service.sign_up(&fresh_phone()).await;
    assert_eq!(other.body["code_length"], 8);
    service.submit(&challenge).await.assert_ok();
}

#[tokio::test]
async fn a_device_token_tells_nobody_else_anything_and_signs_nobody_in() {
    let service = Service::start().await;
    let (_, device) = known_device(&service).await;
    service.refresh(&device).await.assert_is(INVALID_TOKEN);
    service.me(&device).await.assert_is(UNAUTHENTICATED);
    let keys = service.redis_server.keys("*").await;
    assert!(keys.iter().all(|key| !key.contains(&device[32..])));
}
