//! Known devices: no stranger can use up what somebody needs who signed in before.

use harness::{Response, Service, fresh_phone, last_code_to, wrong};
use serde_json::json;

use crate::limits::{assert_limited, neighbour};

/// Registers the number and returns its device token.
async fn known_device(service: &Service, phone: &str) -> String {
    let code = service.code_for(phone).await;
    let response = service.verify(phone, &code).await;
    assert_eq!(response.status, 200, "{response:?}");
    response.text("device_token").to_owned()
}

async fn submit_newest(service: &Service, phone: &str, sent: &Response) -> Response {
    assert_eq!(sent.status, 200, "{sent:?}");
    let code = last_code_to(phone).await;
    let id = sent.text("challenge_id");
    service.verify_challenge(phone, &code, id).await
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
        let phone = fresh_phone();
        let device = known_device(&service, &phone).await;
        // All that strangers may ask for, from the owner's address.
        for last in 0..20 {
            service.sign_up("Eve", &neighbour(&phone, last)).await;
            service.log_in(&phone).await;
        }
        for place in 0..20 {
            let address = format!("198.51.100.{place}");
            service.sign_up_from(&address, &fresh_phone()).await;
        }
        assert_limited(&service.log_in(&phone).await);

        let sent = service.log_in_on(&device, &phone).await;
        let response = submit_newest(&service, &phone, &sent).await;
        assert_eq!(response.text("message"), "User logged in successfully");
        // It is the same device, and stays so.
        let again = response.text("device_token");
        assert_eq!(again, device, "a new device would have a limit of its own");
    }
}

#[tokio::test]
async fn a_device_token_that_is_not_this_phones_is_ignored() {
    let service = Service::start_with(&[("LIMIT_PHONE", "1/1h")]).await;
    let (ada, eve) = (fresh_phone(), fresh_phone());
    let device = known_device(&service, &ada).await;
    let eves = known_device(&service, &eve).await;
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
        assert_limited(&service.log_in_on(token, &ada).await);
    }
    assert_eq!(service.log_in_on(&device, &ada).await.status, 200);
}

#[tokio::test]
async fn a_device_token_of_an_older_pepper_is_known_and_of_another_deployment_is_not() {
    let service = Service::start_with(&[("LIMIT_PHONE", "1/1h")]).await;
    let phone = fresh_phone();
    let device = known_device(&service, &phone).await;
    let new = "n".repeat(32);
    let rotated = format!("{new},{}", harness::PEPPER);
    for (peppers, status) in [(new, 429), (rotated, 200)] {
        let mut settings = harness::settings(&service.database.url(), &service.redis_server.url());
        settings.push(("OTP_PEPPER".into(), peppers));
        settings.push(("LIMIT_PHONE".into(), "1/1h".into()));
        let env = settings.into_iter().collect();
        let signup = signup::Signup::from_env(&env).await.unwrap();
        let body = json!({"phone_number": phone, "device_token": device}).to_string();
        let event = harness::event("POST", "/login", &body).to_string();
        let request = lambda_http::request::from_str(&event).unwrap();
        let response = signup.handle(request).await;
        assert_eq!(response.status(), status);
    }
}

#[tokio::test]
async fn a_known_device_has_a_limit_of_its_own_and_keeps_to_the_ceilings() {
    let settings = [("LIMIT_DEVICE", "2/1h"), ("LIMIT_PHONE", "2/1h")];
    let service = Service::start_with(&settings).await;
    let phone = fresh_phone();
    let device = known_device(&service, &phone).await;
    for _ in 0..2 {
        assert_eq!(service.log_in_on(&device, &phone).await.status, 200);
    }
    let wait = assert_limited(&service.log_in_on(&device, &phone).await);
    assert!((1790..=1800).contains(&wait), "{wait}");
    // It took nothing from the phone, which has one of its two left.
    assert_eq!(service.log_in(&phone).await.status, 200);

    // Of the range's ceiling, known devices have a quarter of their own.
    for ceiling in ["LIMIT_RANGE_MAX", "LIMIT_TOTAL_MAX"] {
        let service = Service::start_with(&[(ceiling, "2/1d")]).await;
        let phone = fresh_phone();
        let device = known_device(&service, &phone).await;
        assert_eq!(service.log_in_on(&device, &phone).await.status, 200);
        assert_limited(&service.log_in_on(&device, &phone).await);
    }
}

#[tokio::test]
async fn whoever_fills_the_ceiling_of_a_range_keeps_no_known_device_out() {
    let service = Service::start_with(&[("LIMIT_RANGE_MAX", "4/1d")]).await;
    let phone = fresh_phone();
    let device = known_device(&service, &phone).await;
    for last in 0..3 {
        known_device(&service, &neighbour(&phone, last)).await;
    }
    assert_limited(&service.sign_up("Eve", &neighbour(&phone, 3)).await);
    let sent = service.log_in_on(&device, &phone).await;
    let response = submit_newest(&service, &phone, &sent).await;
    assert_eq!(response.status, 200);
    assert_limited(&service.log_in_on(&device, &phone).await);
}

#[tokio::test]
async fn codes_of_a_known_device_stay_short_and_add_no_misses() {
    let settings = [("MISSES_PHONE", "3/30d"), ("MISSES_TOTAL", "6/1d")];
    let service = Service::start_with(&settings).await;
    let phone = fresh_phone();
    let device = known_device(&service, &phone).await;
    // Mistyped on the device, which makes nobody's codes longer.
    for _ in 0..3 {
        let sent = service.log_in_on(&device, &phone).await;
        let code = last_code_to(&phone).await;
        for _ in 0..4 {
            let id = sent.text("challenge_id");
            let response = service.verify_challenge(&phone, &wrong(&code), id).await;
            assert_eq!(response.text("code"), "otp_mismatch");
        }
    }
    assert_eq!(service.log_in(&phone).await.body["code_length"], 6);

    // A stranger makes everybody's longer, but not these.
    for _ in 0..2 {
        let sent = service.log_in(&phone).await;
        let code = last_code_to(&phone).await;
        for _ in 0..5 {
            let id = sent.text("challenge_id");
            service.verify_challenge(&phone, &wrong(&code), id).await;
        }
    }
    assert_ne!(service.log_in(&phone).await.body["code_length"], 6);
    let other = service.sign_up("Ada", &fresh_phone()).await;
    assert_ne!(other.body["code_length"], 6);
    let sent = service.log_in_on(&device, &phone).await;
    assert_eq!(sent.body["code_length"], 6);
    let response = submit_newest(&service, &phone, &sent).await;
    assert_eq!(response.status, 200);
}

#[tokio::test]
async fn guesses_without_the_id_at_a_known_devices_code_count_as_any() {
    let service = Service::start_with(&[("MISSES_TOTAL", "5/1d")]).await;
    let phone = fresh_phone();
    let device = known_device(&service, &phone).await;
    let sent = service.log_in_on(&device, &phone).await;
    let code = last_code_to(&phone).await;
    let mut evaluated = 0;
    for _ in 0..10 {
        let response = service
            .verify_from("198.51.100.1", &phone, &wrong(&code))
            .await;
        evaluated += u32::from(response.body.get("attempts_remaining").is_some());
    }
    assert_eq!(evaluated, 5);
    let other = service.sign_up("Ada", &fresh_phone()).await;
    assert_eq!(other.body["code_length"], 8);
    let response = submit_newest(&service, &phone, &sent).await;
    assert_eq!(response.status, 200);
}

#[tokio::test]
async fn a_device_token_tells_nobody_else_anything_and_signs_nobody_in() {
    let service = Service::start().await;
    let phone = fresh_phone();
    let device = known_device(&service, &phone).await;
    let response = service.refresh(&device).await;
    assert_eq!(response.text("code"), "invalid_token");
    let response = service.me(Some(&format!("Bearer {device}"))).await;
    assert_eq!(response.status, 401);
    let dump: Vec<String> = service.redis_server.run(&["KEYS", "*"]).await;
    assert!(dump.iter().all(|key| !key.contains(&device[32..])));
}
