//! Requests whose response depends on nothing else, through the real binaries: the files of
//! `events/`, and a table.

use std::{collections::BTreeSet, fs, path::PathBuf};

use harness::{
    Deployment, Function, Gateway, LIMITS, Outcome, Response, Route, TO_THE_LOG, event, in_base64,
    outcome::{
        INVALID_NAME, INVALID_PAYLOAD, INVALID_PHONE, INVALID_TOKEN, LOGGED_OUT,
        METHOD_NOT_ALLOWED, NAME_OR_PHONE_MISSING, NOT_FOUND, OTP_EXPIRED, OTP_OR_PHONE_MISSING,
        PAYLOAD_TOO_LARGE, PHONE_MISSING, REFRESH_TOKEN_MISSING, SENT, UNAUTHENTICATED,
        UNSUPPORTED_MEDIA_TYPE, UNSUPPORTED_PHONE, USER_NOT_FOUND,
    },
    set_header,
};
use serde_json::Value;
use shared::api::BODY_LIMIT;

const JSON: Option<&str> = Some("application/json");

/// The three functions as processes.
struct Processes {
    signup: Function,
    verify: Function,
    session: Function,
    _stores: Deployment,
}

impl Processes {
    async fn start(own: &[(&str, &str)]) -> Self {
        let stores = Deployment::new().await;
        let own = [&TO_THE_LOG, own].concat();
        Self {
            signup: stores.start("signup", &own).await,
            verify: stores.start("verify", &own).await,
            session: stores.start("session", &own).await,
            _stores: stores,
        }
    }

    async fn send(&mut self, function: &str, event: &Value) -> Response {
        let function = match function {
            "signup" => &mut self.signup,
            "verify" => &mut self.verify,
            _ => &mut self.session,
        };
        function.send(event).await
    }
}

#[tokio::test]
async fn every_file_of_events_gets_the_response_that_stands_beside_it() {
    const PUBLISHED: Outcome = (200, "", "");
    let files = [
        // Nobody has asked for a code yet.
        ("verify", "verify.json", OTP_EXPIRED),
        ("signup", "signup.json", SENT),
        ("signup", "signup-rest.json", SENT),
        ("signup", "signup-function-url.json", SENT),
        ("signup", "signup-invalid-phone.json", INVALID_PHONE),
        ("signup", "login.json", USER_NOT_FOUND),
        ("session", "session-me.json", UNAUTHENTICATED),
        ("session", "session-refresh.json", INVALID_TOKEN),
        ("session", "session-logout.json", LOGGED_OUT),
        ("session", "session-jwks.json", PUBLISHED),
    ];
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../events");
    // With the limits of `make dev`.
    let mut processes = Processes::start(&[("LIMIT_RANGE", "off")]).await;
    for (function, file, outcome) in files {
        let event = fs::read_to_string(folder.join(file)).unwrap();
        let event = serde_json::from_str(&event).unwrap();
        let response = processes.send(function, &event).await;
        assert_eq!(response.outcome(), outcome, "{file}: {response:?}");
        let caching = match outcome {
            PUBLISHED => "public, max-age=900",
            _ => "no-store",
        };
        assert_eq!(response.headers["cache-control"], caching, "{file}");
    }
    let listed: BTreeSet<_> = files.map(|(_, file, _)| file.to_owned()).into();
    let there: BTreeSet<_> = fs::read_dir(folder)
        .unwrap()
        .map(|file| file.unwrap().file_name().into_string().unwrap())
        .collect();
    assert_eq!(there, listed);
}

/// A request, and what has to come of it.
struct Row {
    name: String,
    function: &'static str,
    event: Value,
    outcome: Outcome,
    /// The beginning of the detail.
    detail: &'static str,
    /// The methods that a 405 allows.
    allow: Option<&'static str>,
}

impl Row {
    fn new(name: &str, function: &'static str, event: Value, outcome: Outcome) -> Self {
        Self {
            name: name.to_owned(),
            function,
            event,
            outcome,
            detail: "",
            allow: None,
        }
    }

    /// A request with this body, sent as JSON to an HTTP API.
    fn of_body(name: &str, route: Route, body: impl AsRef<[u8]>, outcome: Outcome) -> Self {
        let event = Gateway::Http.request(route, JSON, body.as_ref());
        let name = format!("{name} to {}", route.path());
        Self::new(&name, route.function(), event, outcome)
    }

    fn detail(self, detail: &'static str) -> Self {
        Self { detail, ..self }
    }

    /// A 405 that allows these methods.
    fn allow(self, methods: &'static str) -> Self {
        Self {
            allow: Some(methods),
            ..self
        }
    }
}

/// A body that the route reads, and what it gets: nobody has signed up here.
fn readable(route: Route) -> (&'static str, Outcome) {
    match route {
        Route::Signup => (r#"{"name":"Ada","phone_number":"+14155552671"}"#, SENT),
        Route::Login => (r#"{"phone_number":"+14155550110"}"#, USER_NOT_FOUND),
        Route::Verify => {
            let body = r#"{"otp":"123456","phone_number":"+14155550190"}"#;
            (body, OTP_EXPIRED)
        }
        Route::Refresh => {
            let body = concat!(
                r#"{"refresh_token":"0123456789abcdef0123456789abcdef."#,
                r#"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"}"#
            );
            (body, INVALID_TOKEN)
        }
        Route::Logout => (r#"{"refresh_token":"unknown"}"#, LOGGED_OUT),
        Route::Rename => (r#"{"name":"Ada","version":1}"#, UNAUTHENTICATED),
        Route::ChangePhone => (r#"{"phone_number":"+14155552671"}"#, UNAUTHENTICATED),
    }
}

#[tokio::test]
async fn every_request_gets_the_response_of_its_row() {
    let mut processes = Processes::start(&LIMITS.map(|name| (name, "off"))).await;
    let tables = [
        bodies_that_are_not_what_the_route_reads(),
        members(),
        phone_numbers(),
        names(),
        content_types(),
        sizes(),
        gateways(),
        other_methods_and_paths(),
    ];
    for row in tables.into_iter().flatten() {
        let response = processes.send(row.function, &row.event).await;
        let seen = format!("{}: {response:?}", row.name);
        assert_eq!(response.outcome(), row.outcome, "{seen}");
        assert!(response.text("detail").starts_with(row.detail), "{seen}");
        let header = |name: &str| response.headers.get(name).map(String::as_str);
        assert_eq!(header("content-type"), JSON, "{seen}");
        assert_eq!(header("cache-control"), Some("no-store"), "{seen}");
        assert_eq!(header("allow"), row.allow, "{seen}");
    }
}

/// Each is a body that the route reads, with one thing wrong. As in all of these tables a row is a
/// line.
#[rustfmt::skip]
fn bodies_that_are_not_what_the_route_reads() -> Vec<Row> {
    const NO_OBJECT: &str = "the body is not a JSON object";
    let mut rows = Vec::new();
    for route in Route::ALL {
        let body = readable(route).0;
        // `{`, the first member's name, `:`, its text, and the rest.
        let (name, rest) = body[1..].split_once(':').unwrap();
        let (text, rest) = rest.split_at(rest[1..].find('"').unwrap() + 2);
        let with = |text: &str| format!("{{{name}:{text}{rest}");
        let and = |member: &str| format!("{{{member},{}", &body[1..]);
        for (what, body, detail) in [
            ("nothing", String::new(), NO_OBJECT),
            ("a form", "name=Ada&phone_number=%2B14155552671".into(), NO_OBJECT),
            ("null", "null".into(), NO_OBJECT),
            ("an array of the texts", format!("[{text},{text}]"), NO_OBJECT),
            ("a byte order mark", format!("\u{feff}{body}"), NO_OBJECT),
            ("half an object", body[..body.len() - 1].into(), "unexpected end at line 1"),
            ("two objects", format!("{body}{body}"), "malformed JSON at line 1"),
            ("a member twice", and(&format!("{name}:{text}")), "duplicate field at line 1"),
            ("an unknown member", and(r#""verified":true"#), "unknown field at line 1"),
            ("a name in capitals", body.replacen(name, &name.to_uppercase(), 1), "unknown field"),
            ("a number for a text", with("1"), "value of the wrong type at line 1"),
            ("true for a text", with("true"), "value of the wrong type at line 1"),
            ("null for a text", with("null"), "value of the wrong type at line 1"),
            ("an array for a text", with(&format!("[{text}]")), "value of the wrong type"),
            ("an object for a text", with(r#"{"$gt":""}"#), "value of the wrong type"),
            ("10,000 arrays for a text", with(&"[".repeat(10_000)), "value of the wrong type"),
            ("half a surrogate pair", with(r#""\ud800""#), "malformed JSON at line 1"),
        ] {
            rows.push(Row::of_body(what, route, body, INVALID_PAYLOAD).detail(detail));
        }
        let no_text = [b"{", name.as_bytes(), b":\"\xff\xfe\"", rest.as_bytes()].concat();
        let row = Row::of_body("invalid UTF-8", route, no_text, INVALID_PAYLOAD);
        rows.push(row.detail("malformed JSON at line 1"));
    }
    for (route, body, detail) in [
        (Route::Login, r#"{"name":"Ada","phone_number":"+14155552671"}"#, "unknown field"),
        (Route::Verify, r#"{"otp":"1","phone_number":"1","attempts":0}"#, "unknown field"),
        (Route::Verify, r#"{"otp":"1","challenge_id":null}"#, "value of the wrong type"),
        (Route::Refresh, r#"{"refresh_token":1}"#, "value of the wrong type at line 1 column 18"),
        (Route::Refresh, r#"{"refresh_token":"1","everywhere":true}"#, "unknown field"),
        (Route::Logout, r#"{"refresh_token":"1","everywhere":"true"}"#, "value of the wrong type"),
        (Route::Logout, r#"{"refresh_token":"1","everywhere":1}"#, "value of the wrong type"),
        (Route::Logout, r#"{"refresh_token":"1","everywhere":null}"#, "value of the wrong type"),
        (Route::Rename, "{}", "missing field at line 1 column 2"),
        (Route::Rename, r#"{"name":"Ada"}"#, "missing field at line 1 column 14"),
        (Route::Rename, r#"{"name":"Ada","version":"1"}"#, "value of the wrong type"),
        (Route::Rename, r#"{"name":"Ada","version":1.0}"#, "value of the wrong type"),
        (Route::Rename, r#"{"name":"Ada","version":true}"#, "value of the wrong type"),
        (Route::Rename, r#"{"name":"Ada","version":null}"#, "value of the wrong type"),
        (Route::Rename, r#"{"name":"Ada","version":2147483648}"#, "value of the wrong type"),
        (Route::Rename, r#"{"name":"Ada","version":1,"id":2}"#, "unknown field"),
        (Route::Rename, r#"{"name":"Ada","version":1,"phone_number":"1"}"#, "unknown field"),
    ] {
        rows.push(Row::of_body(body, route, body, INVALID_PAYLOAD).detail(detail));
    }
    rows
}

#[rustfmt::skip]
fn members() -> Vec<Row> {
    const UNKNOWN_CHALLENGE: &str = concat!(
        r#"{"otp":"123456","phone_number":"+14155550190","#,
        r#""challenge_id":"0123456789abcdef0123456789abcdef"}"#
    );
    let rows = [
        (Route::Signup, "{}", NAME_OR_PHONE_MISSING),
        (Route::Signup, r#"{"name":"Ada"}"#, NAME_OR_PHONE_MISSING),
        (Route::Signup, r#"{"phone_number":"+14155552671"}"#, NAME_OR_PHONE_MISSING),
        (Route::Signup, r#"{"name":"","phone_number":"+14155552671"}"#, NAME_OR_PHONE_MISSING),
        (Route::Signup, r#"{"name":"Ada","phone_number":""}"#, NAME_OR_PHONE_MISSING),
        (Route::Signup, r#"{"name":"Ada","phone_number":"+1 (415) 555-0105"}"#, SENT),
        (Route::Login, "{}", PHONE_MISSING),
        (Route::Login, r#"{"phone_number":""}"#, PHONE_MISSING),
        (Route::Verify, "{}", OTP_OR_PHONE_MISSING),
        (Route::Verify, r#"{"otp":"123456"}"#, OTP_OR_PHONE_MISSING),
        (Route::Verify, r#"{"phone_number":"+14155550190"}"#, OTP_OR_PHONE_MISSING),
        (Route::Verify, r#"{"otp":"","phone_number":"+14155550190"}"#, OTP_OR_PHONE_MISSING),
        (Route::Verify, r#"{"otp":"123456","phone_number":""}"#, OTP_OR_PHONE_MISSING),
        // Its zeros count.
        (Route::Verify, r#"{"otp":"000042","phone_number":"+14155550190"}"#, OTP_EXPIRED),
        (Route::Verify, UNKNOWN_CHALLENGE, OTP_EXPIRED),
        (Route::Refresh, "{}", REFRESH_TOKEN_MISSING),
        (Route::Refresh, r#"{"refresh_token":""}"#, REFRESH_TOKEN_MISSING),
        (Route::Logout, "{}", REFRESH_TOKEN_MISSING),
        (Route::Logout, r#"{"refresh_token":""}"#, REFRESH_TOKEN_MISSING),
        (Route::Logout, r#"{"everywhere":true}"#, REFRESH_TOKEN_MISSING),
        (Route::Logout, r#"{"refresh_token":"unknown","everywhere":true}"#, LOGGED_OUT),
        (Route::Logout, r#"{"refresh_token":"unknown","everywhere":false}"#, LOGGED_OUT),
        (Route::Rename, r#"{"version":1}"#, INVALID_NAME),
        (Route::Rename, r#"{"name":"","version":1}"#, INVALID_NAME),
        (Route::Rename, r#"{"name":" ","version":1}"#, INVALID_NAME),
        (Route::ChangePhone, "{}", PHONE_MISSING),
        (Route::ChangePhone, r#"{"phone_number":""}"#, PHONE_MISSING),
    ];
    rows.map(|(route, body, outcome)| Row::of_body(body, route, body, outcome))
        .into()
}

#[rustfmt::skip]
fn phone_numbers() -> Vec<Row> {
    // With the outcome where a code is asked for, and where one is submitted.
    let numbers = [
        ("too short", "+1415555", INVALID_PHONE, INVALID_PHONE),
        ("too long", "+141555526711234567", INVALID_PHONE, INVALID_PHONE),
        ("of no country", "+9994155552671", INVALID_PHONE, INVALID_PHONE),
        ("in letters", "+1 800 FLOWERS", INVALID_PHONE, INVALID_PHONE),
        ("with an extension", "+14155552671 ext. 5", INVALID_PHONE, INVALID_PHONE),
        ("beside another", "+14155552671/+14155552672", INVALID_PHONE, INVALID_PHONE),
        ("in full-width digits", "＋１４１５５５５２６７１", INVALID_PHONE, INVALID_PHONE),
        ("with no-break spaces", "+1\u{a0}415\u{a0}555\u{a0}2671", INVALID_PHONE, INVALID_PHONE),
        ("of 65 bytes", &format!("+1{:53}4155552671", ""), INVALID_PHONE, INVALID_PHONE),
        ("that nobody can have", "+14151552671", INVALID_PHONE, OTP_EXPIRED),
        ("of premium rate", "+19002345678", UNSUPPORTED_PHONE, OTP_EXPIRED),
        ("of shared cost", "+448431234567", UNSUPPORTED_PHONE, OTP_EXPIRED),
        ("by satellite", "+870301234567", UNSUPPORTED_PHONE, OTP_EXPIRED),
    ];
    let rows = numbers.map(|(name, number, asked, submitted)| {
        let name = format!("a number {name}");
        let phone = format!(r#""phone_number":"{number}"}}"#);
        [
            Row::of_body(&name, Route::Signup, format!(r#"{{"name":"Ada",{phone}"#), asked),
            Row::of_body(&name, Route::Login, format!("{{{phone}"), asked),
            Row::of_body(&name, Route::ChangePhone, format!("{{{phone}"), asked),
            Row::of_body(&name, Route::Verify, format!(r#"{{"otp":"123456",{phone}"#), submitted),
        ]
    });
    rows.into_iter().flatten().collect()
}

#[rustfmt::skip]
fn names() -> Vec<Row> {
    let names = [
        ("of 100 characters", &*"é".repeat(100), SENT),
        ("of 101 characters", &"é".repeat(101), INVALID_NAME),
        ("with a NUL", r"Ada\u0000Lovelace", INVALID_NAME),
        ("with a new line", r"Ada\n@example.com #123456", INVALID_NAME),
        ("with an escape sequence", r"\u001b[31mAda\u001b[0m", INVALID_NAME),
        ("with a right-to-left override", "Ada \u{202e}ecalevoL", INVALID_NAME),
    ];
    names
        .map(|(what, name, outcome)| {
            let signup = format!(r#"{{"name":"{name}","phone_number":"+14155552671"}}"#);
            let rename = format!(r#"{{"name":"{name}","version":1}}"#);
            // A name that is one gets as far as the token's session, which is over.
            let renamed = if outcome == SENT { UNAUTHENTICATED } else { outcome };
            let name = format!("a name {what}");
            [
                Row::of_body(&name, Route::Signup, signup, outcome),
                Row::of_body(&name, Route::Rename, rename, renamed),
            ]
        })
        .into_iter().flatten().collect()
}

fn content_types() -> Vec<Row> {
    let mut rows = Vec::new();
    for route in Route::ALL {
        let (body, outcome) = readable(route);
        for (content_type, outcome) in [
            (None, UNSUPPORTED_MEDIA_TYPE),
            (Some("text/plain"), UNSUPPORTED_MEDIA_TYPE),
            (
                Some("application/x-www-form-urlencoded"),
                UNSUPPORTED_MEDIA_TYPE,
            ),
            (Some("application/json; charset=utf-8"), outcome),
        ] {
            let event = Gateway::Http.request(route, content_type, body.as_bytes());
            let name = format!("{content_type:?} to {}", route.path());
            rows.push(Row::new(&name, route.function(), event, outcome));
        }
    }
    rows
}

fn sizes() -> Vec<Row> {
    let mut rows = Vec::new();
    for route in Route::ALL {
        let (body, outcome) = readable(route);
        for (length, outcome) in [(BODY_LIMIT, outcome), (BODY_LIMIT + 1, PAYLOAD_TOO_LARGE)] {
            let padded = body.to_owned() + &" ".repeat(length - body.len());
            let row = Row::of_body(&format!("{length} bytes"), route, padded, outcome);
            let event = in_base64(row.event.clone());
            rows.extend([Row::new(&row.name, row.function, event, outcome), row]);
        }
    }
    rows
}

/// In every kind of event a request gets the same response.
fn gateways() -> Vec<Row> {
    let mut rows = Vec::new();
    for (gateway, route) in Gateway::ALL
        .into_iter()
        .flat_map(|gateway| Route::ALL.map(|route| (gateway, route)))
    {
        let path = route.path();
        let (body, outcome) = readable(route);
        let text = gateway.request(route, JSON, body.as_bytes());
        let base64 = in_base64(text.clone());
        let plain = gateway.request(route, Some("text/plain"), body.as_bytes());
        let other_method = gateway.event("PUT", path);
        let bare = gateway.bare(route);
        let mut empty = bare.clone();
        set_header(&mut empty, "content-type", JSON);
        let nowhere = gateway.post("/nowhere", JSON, body.as_bytes());
        for (what, event, outcome) in [
            ("text", text, outcome),
            ("base64", base64, outcome),
            ("text/plain", plain, UNSUPPORTED_MEDIA_TYPE),
            ("neither a body nor a type", bare, UNSUPPORTED_MEDIA_TYPE),
            ("a type without a body", empty, INVALID_PAYLOAD),
            ("PUT", other_method, METHOD_NOT_ALLOWED),
            ("another path", nowhere, NOT_FOUND),
        ] {
            let name = format!("{what} through {gateway:?} to {path}");
            let row = Row::new(&name, route.function(), event, outcome);
            rows.push(if outcome == METHOD_NOT_ALLOWED {
                row.allow(route.allow())
            } else {
                row
            });
        }
    }
    rows
}

fn other_methods_and_paths() -> Vec<Row> {
    const SESSION: &str = "/me/sessions/0123456789abcdef0123456789abcdef";
    let row = |method, path, outcome| {
        let event = Gateway::Http.event(method, path);
        Row::new(&format!("{method} {path}"), "session", event, outcome)
    };
    vec![
        row("GET", "/logout", METHOD_NOT_ALLOWED).allow("POST"),
        row("POST", "/me", METHOD_NOT_ALLOWED).allow("GET, PATCH, DELETE"),
        row("GET", "/me", UNAUTHENTICATED),
        row("PATCH", "/me", UNAUTHENTICATED),
        row("DELETE", "/me", UNAUTHENTICATED),
        row("GET", "/me/sessions", UNAUTHENTICATED),
        row("DELETE", "/me/sessions", METHOD_NOT_ALLOWED).allow("GET"),
        row("DELETE", SESSION, UNAUTHENTICATED),
        row("DELETE", "/me/sessions/x", UNAUTHENTICATED),
        row("GET", SESSION, METHOD_NOT_ALLOWED).allow("DELETE"),
        row("DELETE", "/me/sessions/", NOT_FOUND),
        row("DELETE", "/me/sessions/x/y", NOT_FOUND),
        row("GET", "/.well-known/security.txt", NOT_FOUND),
    ]
}

/// `lambda_http` panics at such an event before any handler is called.
#[tokio::test]
async fn an_event_that_is_no_request_gets_a_response_and_a_line_and_the_next_event_is_served() {
    let stores = Deployment::new().await;
    let mut signup = stores.start("signup", &TO_THE_LOG).await;
    let readable = event("POST", "/signup", readable(Route::Signup).0);
    let mut query = readable.clone();
    query["rawQueryString"] = "a=<b>".into();
    let mut host = readable.clone();
    set_header(&mut host, "host", Some("a b"));
    let mut rest_host = Gateway::Rest.post("/signup", JSON, b"{}");
    set_header(&mut rest_host, "host", Some("a b"));
    let mut base64 = readable;
    base64["body"] = "not base64!".into();
    base64["isBase64Encoded"] = true.into();
    for event in [query, host, rest_host, base64] {
        let refused = signup.send(&event).await;
        assert_eq!(refused.outcome(), INVALID_PAYLOAD, "{event}");
        assert_eq!(refused.text("detail"), "the request cannot be read");
        assert_eq!(Route::Signup.fault_of(&refused), None, "{event}");
        let line = signup.response_lines().pop().unwrap();
        assert_eq!(line["status"], 400, "{event}");
        assert_eq!(line["function"], "signup", "{event}");
        let request_id = line["span"]["requestId"].as_str().unwrap();
        assert_eq!(request_id.len(), 36, "{event}");
        let next = signup.send(&harness::event("POST", "/signup", "{}")).await;
        next.assert_is(NAME_OR_PHONE_MISSING);
    }
}
