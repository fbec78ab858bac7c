//! Clients behind CloudFront, whose address API Gateway does not see.

use harness::{
    EDGE_SECRET, Function, Gateway, Response, Service, TO_THE_LOG, event, fresh_phone,
    from_address, set_header,
};
use serde_json::{Value, json};

/// CloudFront's address.
const CLOUDFRONT: &str = "203.0.113.10";

const SECRET: Option<&str> = Some(EDGE_SECRET);

async fn behind_the_edge() -> Service {
    let own = [("EDGE_SECRET", EDGE_SECRET), ("LIMIT_ADDRESS", "1/10m")];
    Service::start_with(&own).await
}

/// A sign-up that reaches API Gateway from CloudFront's address with these headers.
fn sign_up(gateway: Gateway, secret: Option<&str>, viewer: Option<&str>) -> Value {
    let body = json!({"name": "Ada", "phone_number": fresh_phone()}).to_string();
    let event = gateway.post("/signup", Some("application/json"), body.as_bytes());
    with_headers(event, secret, viewer)
}

fn with_headers(event: Value, secret: Option<&str>, viewer: Option<&str>) -> Value {
    let mut event = from_address(CLOUDFRONT, event);
    set_header(&mut event, "x-edge-secret", secret);
    set_header(&mut event, "cloudfront-viewer-address", viewer);
    event
}

async fn signs_up(service: &Service, secret: Option<&str>, viewer: &str) -> Response {
    let event = sign_up(Gateway::Http, secret, Some(viewer));
    service.send("signup", &event).await
}

#[tokio::test]
async fn a_client_behind_the_edge_is_limited_by_its_own_address() {
    let service = behind_the_edge().await;
    for (first, again) in [
        ("198.51.100.1:46532", "198.51.100.1:46533"),
        ("198.51.100.2:46532", "198.51.100.2:1"),
        // An IPv6 client is its /64.
        ("2001:db8:0:1::1:443", "2001:db8:0:1:ffff::2:443"),
        ("[2001:db8:0:2::1]:443", "2001:db8:0:2::7:65535"),
    ] {
        signs_up(&service, SECRET, first).await.assert_ok();
        signs_up(&service, SECRET, again).await.assert_limited();
    }
    // Nobody took from the edge's own address.
    let event = sign_up(Gateway::Http, SECRET, None);
    service.send("signup", &event).await.assert_ok();
}

#[tokio::test]
async fn every_kind_of_event_has_the_address_behind_the_edge() {
    let service = behind_the_edge().await;
    for (at, gateway) in Gateway::ALL.into_iter().enumerate() {
        let viewer = format!("198.51.100.{at}:443");
        let event = || sign_up(gateway, SECRET, Some(&viewer));
        service.send("signup", &event()).await.assert_ok();
        service.send("signup", &event()).await.assert_limited();
    }
}

#[tokio::test]
async fn without_the_right_secret_a_client_claims_no_address() {
    let service = behind_the_edge().await;
    let event = sign_up(Gateway::Http, None, None);
    service.send("signup", &event).await.assert_ok();
    let longer = format!("{EDGE_SECRET}x");
    let twice = format!("{EDGE_SECRET},{EDGE_SECRET}");
    for secret in [
        None,
        Some(""),
        Some("tests-only-edge-secret-32-bytes1"),
        Some(&EDGE_SECRET[..31]),
        Some(&longer),
        Some(&twice),
    ] {
        let response = signs_up(&service, secret, "198.51.100.1:443").await;
        response.assert_limited();
    }
}

#[tokio::test]
async fn without_the_setting_the_headers_mean_nothing() {
    let service = Service::start_with(&[("LIMIT_ADDRESS", "1/10m")]).await;
    signs_up(&service, SECRET, "198.51.100.1:443")
        .await
        .assert_ok();
    let response = signs_up(&service, SECRET, "198.51.100.2:443").await;
    response.assert_limited();
}

#[tokio::test]
async fn an_unreadable_viewer_counts_as_the_edge_itself() {
    let service = behind_the_edge().await;
    signs_up(&service, SECRET, "unknown").await.assert_ok();
    for viewer in [
        "",
        "198.51.100.1",
        "198.51.100.1:443, 198.51.100.2:443",
        "[::1:443",
    ] {
        signs_up(&service, SECRET, viewer).await.assert_limited();
    }
}

#[tokio::test]
async fn guesses_count_against_the_address_behind_the_edge() {
    let own = [("EDGE_SECRET", EDGE_SECRET), ("LIMIT_GUESSES", "1/10m")];
    let service = Service::start_with(&own).await;
    let guess = async |viewer| {
        let body = json!({"otp": "123456", "phone_number": fresh_phone()}).to_string();
        let event = with_headers(event("POST", "/verify", &body), SECRET, Some(viewer));
        service.send("verify", &event).await
    };
    assert_eq!(guess("198.51.100.1:443").await.status, 401);
    guess("198.51.100.1:444").await.assert_limited();
    assert_eq!(guess("198.51.100.2:443").await.status, 401);
}

/// When a function is dropped, its log is checked for the secret and the address.
#[tokio::test]
async fn neither_the_secret_nor_the_address_behind_the_edge_reaches_the_log() {
    let deployment = harness::Deployment::new().await;
    let edge = [("EDGE_SECRET", EDGE_SECRET), ("RUST_LOG", "trace")];
    let own = [&TO_THE_LOG[..], &edge].concat();
    for (name, status) in [("signup", 200), ("verify", 401)] {
        let mut function: Function = deployment.start(name, &own).await;
        for secret in [EDGE_SECRET, "tests-only-edge-secret-32-bytes1"] {
            let body = match name {
                "signup" => json!({"name": "Ada", "phone_number": fresh_phone()}),
                _ => json!({"otp": "123456", "phone_number": fresh_phone()}),
            };
            let request = event("POST", &format!("/{name}"), &body.to_string());
            let viewer = Some("198.51.100.123:46532");
            let response = function
                .send(&with_headers(request, Some(secret), viewer))
                .await;
            assert_eq!(response.status, status);
        }
        let log = function.log().join("\n");
        assert!(!log.contains("edge-secret"), "{log}");
    }
}
