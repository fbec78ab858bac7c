//! Requests as the events that reach a function. Each is one of `events/` with another request in
//! it.

use base64::{Engine, prelude::BASE64_STANDARD};
use serde_json::{Value, json};

use crate::{Route, strangers_token};

/// The gateway by which a request reaches a function.
#[derive(Clone, Copy, Debug)]
pub enum Gateway {
    /// An HTTP API, whose events have payload format 2.0.
    Http,
    /// The same with its stage in the path.
    HttpStage,
    /// A function URL, whose events have format 2.0, too.
    FunctionUrl,
    /// A REST API, whose events have format 1.0.
    Rest,
    /// The same with its stage in the path.
    RestStage,
}

impl Gateway {
    pub const ALL: [Self; 5] = [
        Self::Http,
        Self::HttpStage,
        Self::FunctionUrl,
        Self::Rest,
        Self::RestStage,
    ];

    /// A request without a body, and without a type of one.
    pub fn event(self, method: &str, path: &str) -> Value {
        let (stage, template) = match self {
            Self::Http => ("", include_str!("../../events/signup.json")),
            Self::HttpStage => ("/prod", include_str!("../../events/signup.json")),
            Self::FunctionUrl => ("", include_str!("../../events/signup-function-url.json")),
            Self::Rest => ("", include_str!("../../events/signup-rest.json")),
            Self::RestStage => ("/Prod", include_str!("../../events/signup-rest.json")),
        };
        let mut event: Value = serde_json::from_str(template).unwrap();
        let staged = format!("{stage}{path}");
        if event["version"] == "2.0" {
            event["rawPath"] = json!(staged);
            let context = &mut event["requestContext"];
            context["http"]["path"] = json!(staged);
            context["http"]["method"] = json!(method);
            if !stage.is_empty() {
                context["stage"] = json!(stage[1..]);
            }
            event.as_object_mut().unwrap().remove("body");
        } else {
            event["resource"] = json!(path);
            event["path"] = json!(staged);
            event["httpMethod"] = json!(method);
            let context = &mut event["requestContext"];
            context["resourcePath"] = json!(path);
            context["path"] = json!(format!("/Prod{path}"));
            context["httpMethod"] = json!(method);
            event["body"] = Value::Null;
        }
        for name in ["content-type", "content-length"] {
            set_header(&mut event, name, None);
        }
        event
    }

    /// A POST of this body, sent as this type. A body that is no text comes as base64.
    pub fn post(self, path: &str, content_type: Option<&str>, body: &[u8]) -> Value {
        let mut event = self.event("POST", path);
        set_body(&mut event, content_type, body);
        event
    }

    /// A request to the route without a body, and without a type of one. Where it needs a token, it
    /// has a valid one of a session that is over.
    pub fn bare(self, route: Route) -> Value {
        let mut event = self.event(route.method(), route.path());
        if route.needs_token() {
            let bearer = format!("Bearer {}", strangers_token());
            set_header(&mut event, "authorization", Some(&bearer));
        }
        event
    }

    /// The same with this body, sent as this type.
    pub fn request(self, route: Route, content_type: Option<&str>, body: &[u8]) -> Value {
        let mut event = self.bare(route);
        set_body(&mut event, content_type, body);
        event
    }
}

/// A request to an HTTP API with a body of JSON.
pub fn event(method: &str, path: &str, body: &str) -> Value {
    let mut event = Gateway::Http.post(path, Some("application/json"), body.as_bytes());
    event["requestContext"]["http"]["method"] = json!(method);
    event
}

/// The same event with its body as base64.
pub fn in_base64(mut event: Value) -> Value {
    if event["isBase64Encoded"] == false {
        let body = event["body"].as_str().unwrap().to_owned();
        set_base64(&mut event, body.as_bytes());
    }
    event
}

fn set_body(event: &mut Value, content_type: Option<&str>, body: &[u8]) {
    set_header(event, "content-type", content_type);
    match std::str::from_utf8(body) {
        Ok(text) => event["body"] = json!(text),
        Err(_) => set_base64(event, body),
    }
}

fn set_base64(event: &mut Value, body: &[u8]) {
    event["body"] = json!(BASE64_STANDARD.encode(body));
    event["isBase64Encoded"] = json!(true);
}

/// Sets a header, or removes it, in whatever case the event has it.
pub fn set_header(event: &mut Value, name: &str, value: Option<&str>) {
    for (member, is_list) in [("headers", false), ("multiValueHeaders", true)] {
        let Some(headers) = event[member].as_object_mut() else {
            continue;
        };
        headers.retain(|known, _| !known.eq_ignore_ascii_case(name));
        if let Some(text) = value {
            let value = if is_list { json!([text]) } else { json!(text) };
            headers.insert(name.to_owned(), value);
        }
    }
}

/// A POST to an HTTP API from a client at this address, who claims another one in a header.
pub fn event_from(address: &str, path: &str, body: &str) -> Value {
    from_address(address, event("POST", path, body))
}

/// The same event from a client at this address, who claims another one in a header.
pub fn from_address(address: &str, mut event: Value) -> Value {
    let context = &mut event["requestContext"];
    let source = if context["http"].is_object() {
        &mut context["http"]
    } else {
        &mut context["identity"]
    };
    source["sourceIp"] = json!(address);
    let claimed = format!("192.0.2.{}", crate::random_number() % 256);
    set_header(&mut event, "x-forwarded-for", Some(&claimed));
    event
}
