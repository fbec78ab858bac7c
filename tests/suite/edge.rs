//! Whatever arrives, the response is one of the contract's, and the next event is served.

use std::collections::BTreeSet;

use harness::{
    Deployment, Gateway, Invocation, Response, Route, Service, TO_THE_LOG, event, in_base64,
    outcome::OTP_EXPIRED, property, runtime,
};
use proptest::{collection::vec, prelude::*, sample::select, strategy::ValueTree};
use serde_json::{Value, json};
use shared::api::BODY_LIMIT;

/// The members that some route knows, and what comes near.
const NAMES: [&str; 13] = [
    "name",
    "phone_number",
    "otp",
    "challenge_id",
    "refresh_token",
    "version",
    "everywhere",
    "Name",
    "phone_number ",
    "verified",
    "",
    "\u{0}",
    "__proto__",
];

/// A request with this body, sent as this type, in every kind of event, as text, if it is text, and
/// as base64.
fn deliveries(route: Route, content_type: Option<&str>, body: &[u8]) -> Vec<Value> {
    let events = Gateway::ALL.map(|gateway| gateway.request(route, content_type, body));
    let forms = events.map(|event| [in_base64(event.clone()), event]);
    forms.concat()
}

/// Any JSON value, down to some depth.
fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        any::<String>().prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 24, 4, |inner| {
        let name = prop_oneof![select(&NAMES[..]).prop_map(str::to_owned), any::<String>()];
        prop_oneof![
            vec(inner.clone(), 0..4).prop_map(Value::from),
            vec((name, inner), 0..4)
                .prop_map(|members| Value::Object(members.into_iter().collect())),
        ]
    })
}

/// A text that some member takes.
fn fitting_text() -> impl Strategy<Value = String> {
    prop_oneof![
        Just(String::new()),
        Just("Ada".to_owned()),
        Just("123456".to_owned()),
        Just("+4915112345678".to_owned()),
        Just("0".repeat(32)),
        "[+]?[0-9 ()-]{5,18}",
        any::<String>(),
    ]
}

/// An object of the members that routes know or nearly know, in any order and number.
fn near_object() -> impl Strategy<Value = String> {
    let value = prop_oneof![
        8 => fitting_text().prop_map(Value::from),
        1 => any::<i32>().prop_map(Value::from),
        1 => any::<bool>().prop_map(Value::from),
        1 => any_json(),
    ];
    // Mostly the two that make a whole request, so that something gets further than the reading.
    let whole = prop_oneof![
        Just(["name", "phone_number"]),
        Just(["otp", "phone_number"])
    ];
    let texts = vec(fitting_text(), 2..=3);
    // The third, if there is one, is the first over again.
    let pair = (whole, texts).prop_map(|(names, texts)| {
        let members = texts.into_iter().map(Value::from);
        names.into_iter().cycle().zip(members).collect()
    });
    let rename = (fitting_text(), any::<i32>())
        .prop_map(|(name, version)| vec![("name", json!(name)), ("version", json!(version))]);
    let members = vec((select(&NAMES[..]), value), 0..5);
    prop_oneof![2 => pair, 1 => rename, 2 => members].prop_map(|members: Vec<_>| {
        let members: Vec<String> = members
            .iter()
            .map(|(name, value)| format!("{}:{value}", json!(name)))
            .collect();
        format!("{{{}}}", members.join(","))
    })
}

/// Bytes to put somewhere into a body that was in order.
fn disturbance() -> impl Strategy<Value = Vec<u8>> {
    let telling: [&[u8]; 16] = [
        b"",
        b"\xef\xbb\xbf",
        b"\xff",
        b"\xc0\x80",
        b"\xed\xa0\x80",
        b"\0",
        b"\\ud800",
        b"\\u0000",
        b"{}",
        b"[",
        b"]",
        b"}",
        b",",
        b"\"",
        b"null",
        b"1e999",
    ];
    prop_oneof![
        select(telling.to_vec()).prop_map(<[u8]>::to_vec),
        vec(any::<u8>(), 1..4)
    ]
}

/// Any type of a body, mostly the right one.
fn any_content_type() -> impl Strategy<Value = Option<String>> {
    let right = [
        "application/json",
        "application/json; charset=utf-8",
        "APPLICATION/JSON",
    ];
    let wrong = [
        "text/plain",
        "text/plain;application/json",
        "application/x-www-form-urlencoded",
        "multipart/form-data; boundary=x",
        "application/json, text/plain",
        "application/jsonp",
        "",
    ];
    prop_oneof![
        8 => select(right.to_vec()).prop_map(|text| Some(text.to_owned())),
        1 => select(wrong.to_vec()).prop_map(|text| Some(text.to_owned())),
        1 => Just(None),
        1 => "[ -~]{0,20}".prop_map(Some),
    ]
}

/// Any body.
fn any_body() -> impl Strategy<Value = Vec<u8>> {
    let disturbed = (
        near_object(),
        disturbance(),
        any::<prop::sample::Index>(),
        0..4usize,
    )
        .prop_map(|(body, put, place, lost)| {
            let mut body = body.into_bytes();
            let from = place.index(body.len() + 1);
            let to = (from + lost).min(body.len());
            body.splice(from..to, put);
            body
        });
    let disturbed_text = (select(&NAMES[..4]), disturbance()).prop_map(|(name, put)| {
        let (before, after) = (format!("{{\"{name}\":\"A"), "a\"}");
        [before.as_bytes(), &put, after.as_bytes()].concat()
    });
    let nested = (
        select(vec!["[", "{\"name\":", "{\"name\":[", "[{\"otp\":"]),
        select(vec!["", "{\"name\":", "{\"x\":", "{\"otp\":\"1\",\"otp\":"]),
        1..60_000usize,
    )
        .prop_map(|(layer, before, depth)| format!("{before}{}", layer.repeat(depth)).into_bytes());
    let padded = (near_object(), -2..3isize).prop_map(|(body, beyond)| {
        let length = BODY_LIMIT.saturating_add_signed(beyond);
        let spaces = " ".repeat(length.saturating_sub(body.len()));
        format!("{spaces}{body}").into_bytes()
    });
    prop_oneof![
        8 => vec(any::<u8>(), 0..200),
        8 => any_json().prop_map(|value| value.to_string().into_bytes()),
        16 => near_object().prop_map(String::into_bytes),
        16 => disturbed,
        8 => disturbed_text,
        1 => nested,
        1 => padded,
    ]
}

/// The response as far as it does not change from one time to the next.
fn gist(response: &Response) -> (u64, String, String) {
    let (status, said, code) = response.outcome();
    let said = format!("{code}: {said}");
    (status, said, response.text("detail").to_owned())
}

#[test]
fn any_body_gets_the_same_response_of_the_contract_in_every_kind_of_event() {
    let runtime = runtime();
    let own = [
        ("SMS_PROVIDER", "log"),
        ("OTP_LOCAL", "1"),
        ("OTP_MAX_ATTEMPTS", "100"),
    ];
    let service = runtime.block_on(Service::start_with(&own));
    property(300)
        .run(&(any_content_type(), any_body()), |(content_type, body)| {
            let content_type = content_type.as_deref();
            runtime.block_on(async {
                for route in Route::ALL {
                    let mut gists = BTreeSet::new();
                    for event in deliveries(route, content_type, &body) {
                        let response = service.send(route.function(), &event).await;
                        let fault = route.fault_of_body(content_type, &body, &response);
                        assert_eq!(fault, None, "{event}");
                        gists.insert(gist(&response));
                    }
                    assert_eq!(gists.len(), 1, "{gists:?}");
                }
                let next = service.verify("+14155550190", "123456").await;
                next.assert_is(OTP_EXPIRED);
            });
            Ok(())
        })
        .unwrap();
}

/// An event with any of its values, at any depth, replaced by something else.
fn disturbed_event(route: Route) -> impl Strategy<Value = Value> {
    let events = deliveries(route, Some("application/json"), b"{\"name\":\"Ada\"}");
    let other = prop_oneof![
        1 => any_json(),
        1 => any::<String>().prop_map(Value::from),
        2 => select(vec![
            json!("\r\n{\"message\":\"answered\"}\u{1b}[31m"),
            json!("not base64!"),
            json!("//["),
            json!("a b\"<>^`{|}%"),
            json!("%00%ff"),
            json!(""),
            json!(true),
        ]),
    ];
    (select(events), any::<prop::sample::Index>(), other).prop_map(|(mut event, place, other)| {
        let pointers = pointers(&event);
        let pointer = &pointers[place.index(pointers.len())];
        *event.pointer_mut(pointer).unwrap() = other;
        event
    })
}

/// The JSON pointers (RFC 6901) to a value and all values in it.
fn pointers(value: &Value) -> Vec<String> {
    let inner: Vec<(String, &Value)> = match value {
        Value::Object(members) => members.iter().map(|(k, v)| (k.clone(), v)).collect(),
        Value::Array(values) => values
            .iter()
            .enumerate()
            .map(|(i, v)| (i.to_string(), v))
            .collect(),
        _ => Vec::new(),
    };
    let inner = inner.into_iter().flat_map(|(name, value)| {
        pointers(value)
            .into_iter()
            .map(move |p| format!("/{name}{p}"))
    });
    std::iter::once(String::new()).chain(inner).collect()
}

/// The real binaries: the log of each is checked when it is dropped, so whatever stands in an
/// event, a line of the log stays one JSON object.
#[tokio::test]
async fn an_event_of_any_kind_costs_at_most_its_own_response() {
    let deployment = Deployment::new().await;
    let limits = ["LIMIT_ADDRESS", "LIMIT_GUESSES"].map(|name| (name, "off"));
    let own = [&TO_THE_LOG[..], &limits, &[("RUST_LOG", "trace")]].concat();
    for route in [Route::Signup, Route::Verify, Route::Refresh] {
        let mut function = deployment.start(route.function(), &own).await;
        let events = disturbed_event(route);
        let mut runner = property(1);
        let mut responses = 0;
        for _ in 0..250 {
            let disturbed = events.new_tree(&mut runner).unwrap().current();
            match function.invoke(&disturbed).await {
                Invocation::Responded(payload) => {
                    responses += 1;
                    let response = Response::of_function(&payload);
                    assert_eq!(route.fault_of(&response), None, "{disturbed}");
                }
                // It never became a request.
                Invocation::Failed => {}
                Invocation::Exited(status) => panic!("{status}: {disturbed}"),
            }
            let next = function.send(&event("POST", route.path(), "{}")).await;
            assert_eq!(next.text("code"), "missing_field");
        }
        assert!(responses > 50, "hardly any event was one: {responses}");
    }
}
