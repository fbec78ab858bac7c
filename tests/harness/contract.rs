//! What a response may be, whoever asks for whatever: the contract's table of failures, read as a
//! check. `fuzz/` compiles this file, too.

use std::fmt;

use serde::{
    Deserialize, Deserializer,
    de::{MapAccess, Visitor},
};
use serde_json::Value;
use shared::api::BODY_LIMIT;

use crate::Response;

/// A route that takes a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Route {
    Signup,
    Login,
    Verify,
    Refresh,
    Logout,
}

/// Status, `error` and `code` of a failure.
type Row = (u64, &'static str, &'static str);

const ANYWHERE: [Row; 5] = [
    (400, "Invalid request payload", "invalid_payload"),
    UNSUPPORTED_MEDIA_TYPE,
    (413, "Invalid request payload", "payload_too_large"),
    (404, "Not found", "not_found"),
    (405, "Method not allowed", "method_not_allowed"),
];

const UNSUPPORTED_MEDIA_TYPE: Row = (
    415,
    "Content-Type must be application/json",
    "unsupported_media_type",
);

const WITH_A_PHONE: [Row; 2] = [
    (400, "Invalid phone number", "invalid_phone_number"),
    (429, "Too many requests", "rate_limited"),
];

const USER_EXISTS: Row = (
    409,
    "User already exists with the given phone number",
    "user_exists",
);

const USER_NOT_FOUND: Row = (404, "User not found", "user_not_found");

const UNSUPPORTED: Row = (
    403,
    "Phone numbers of this kind are not supported",
    "unsupported_phone_number",
);

const AT_SIGNUP: [Row; 6] = [
    (400, "Name and phone number are required", "missing_field"),
    (400, "Invalid name", "invalid_name"),
    UNSUPPORTED,
    USER_EXISTS,
    (502, "Failed to send OTP", "sms_failed"),
    (503, "Failed to store user data", "unavailable"),
];

const AT_LOGIN: [Row; 5] = [
    (400, "Phone number is required", "missing_field"),
    UNSUPPORTED,
    USER_NOT_FOUND,
    (502, "Failed to send OTP", "sms_failed"),
    (503, "Failed to store user data", "unavailable"),
];

const AT_VERIFY: [Row; 8] = [
    (400, "OTP and phone number are required", "missing_field"),
    (400, "Challenge id is required", "missing_field"),
    (401, "Invalid or expired OTP", "otp_expired"),
    (401, "Invalid OTP", "otp_mismatch"),
    (429, "Too many attempts", "too_many_attempts"),
    USER_EXISTS,
    USER_NOT_FOUND,
    (503, "Failed to register user", "unavailable"),
];

const AT_REFRESH: [Row; 3] = [
    (400, "Refresh token is required", "missing_field"),
    (401, "Invalid or expired token", "invalid_token"),
    (503, "Service unavailable", "unavailable"),
];

const AT_LOGOUT: [Row; 2] = [
    (400, "Refresh token is required", "missing_field"),
    (503, "Service unavailable", "unavailable"),
];

impl Route {
    pub const ALL: [Self; 5] = [
        Self::Signup,
        Self::Login,
        Self::Verify,
        Self::Refresh,
        Self::Logout,
    ];

    pub fn path(self) -> &'static str {
        match self {
            Self::Signup => "/signup",
            Self::Login => "/login",
            Self::Verify => "/verify",
            Self::Refresh => "/token/refresh",
            Self::Logout => "/logout",
        }
    }

    /// The function that serves it.
    pub fn function(self) -> &'static str {
        match self {
            Self::Signup | Self::Login => "signup",
            Self::Verify => "verify",
            Self::Refresh | Self::Logout => "session",
        }
    }

    /// Its failures beside those of every route.
    fn rows(self) -> [&'static [Row]; 2] {
        match self {
            Self::Signup => [&WITH_A_PHONE, &AT_SIGNUP],
            Self::Login => [&WITH_A_PHONE, &AT_LOGIN],
            Self::Verify => [&WITH_A_PHONE, &AT_VERIFY],
            Self::Refresh => [&[], &AT_REFRESH],
            Self::Logout => [&[], &AT_LOGOUT],
        }
    }

    fn messages(self) -> &'static [&'static str] {
        match self {
            Self::Signup | Self::Login => &["OTP sent successfully"],
            Self::Verify => &[
                "User registered successfully",
                "User logged in successfully",
            ],
            Self::Refresh => &[""],
            Self::Logout => &["Logged out successfully"],
        }
    }

    fn members(self) -> &'static [&'static str] {
        match self {
            Self::Signup => &["name", "phone_number", "device_token"],
            Self::Login => &["phone_number", "device_token"],
            Self::Verify => &["otp", "phone_number", "challenge_id"],
            Self::Refresh | Self::Logout => &["refresh_token"],
        }
    }

    /// How the response breaks the contract, if it does. A fault of ours, 500, breaks it: the contract
    /// has it, but nothing that a client or a store does may bring it about.
    pub fn fault_of(self, response: &Response) -> Option<String> {
        let fault = |what: &str| Some(format!("{what}: {response:?}"));
        let is = |name: &str, value| response.headers.get(name).map(String::as_str) == Some(value);
        if !is("content-type", "application/json") || !is("cache-control", "no-store") {
            return fault("headers");
        }
        if response.status == 200 {
            let is_own = self.messages().contains(&response.text("message"));
            let gives_tokens = matches!(self, Self::Verify | Self::Refresh);
            let has_tokens = response.body["tokens"]["token_type"] == "Bearer";
            return if response.body["success"] == true && is_own && has_tokens == gives_tokens {
                None
            } else {
                fault("a success of another route")
            };
        }
        if !ANYWHERE
            .iter()
            .chain(self.rows().into_iter().flatten())
            .any(|row| *row == response.failure())
        {
            return fault("not a row of the contract");
        }
        let is_extra = |member: &str| match member {
            "error" | "code" => true,
            "detail" => matches!(response.status, 400 | 413),
            "retry_after" => matches!(response.status, 429 | 503),
            "attempts_remaining" => response.status == 401,
            _ => false,
        };
        let mut members = response.body.as_object().into_iter().flatten();
        if !members.all(|(member, _)| is_extra(member)) {
            return fault("a member that has no place there");
        }
        if !is_harmless(response.text("detail")) {
            return fault("a detail that is not one of ours");
        }
        let seconds = response.headers.get("retry-after");
        let is_told =
            seconds.is_some_and(|text| text.parse().ok() == response.body["retry_after"].as_u64());
        if matches!(response.status, 429 | 503) != is_told {
            return fault("Retry-After");
        }
        if (response.status == 405) != is("allow", "POST") {
            return fault("Allow");
        }
        None
    }

    /// The same for the response to a POST of this body, sent as this type. It must be refused as
    /// unreadable when it is, and only then.
    pub fn fault_of_post(
        self,
        content_type: Option<&str>,
        body: &[u8],
        response: &Response,
    ) -> Option<String> {
        let expected = if !content_type.is_some_and(is_json) {
            Some("unsupported_media_type")
        } else if body.len() > BODY_LIMIT {
            Some("payload_too_large")
        } else if self.reads(body) {
            None
        } else {
            Some("invalid_payload")
        };
        let refusals = [
            "unsupported_media_type",
            "payload_too_large",
            "invalid_payload",
        ];
        let told = Some(response.text("code")).filter(|code| refusals.contains(code));
        if told != expected {
            return Some(format!("{expected:?} was due: {response:?}"));
        }
        self.fault_of(response)
    }

    /// Whether a body is one JSON object of texts, each of a name that the route knows, none twice.
    /// It is found out in another way than by the functions, which fill a struct.
    fn reads(self, body: &[u8]) -> bool {
        let Ok(Members(members)) = serde_json::from_slice(body) else {
            return false;
        };
        let mut known = self.members().to_vec();
        members.iter().all(|(name, value)| {
            let place = known.iter().position(|known| known == name);
            place.map(|place| known.swap_remove(place)).is_some() && value.is_string()
        })
    }
}

/// Whether a Content-Type is JSON's, found out in another way than by the functions.
fn is_json(content_type: &str) -> bool {
    let text = content_type.to_ascii_lowercase();
    let rest = text.trim_start().strip_prefix("application/json");
    rest.is_some_and(|rest| matches!(rest.trim_start().bytes().next(), None | Some(b';')))
}

/// A detail says what and where, and nothing that came from the client.
fn is_harmless(detail: &str) -> bool {
    let kinds = [
        "unknown field",
        "duplicate field",
        "value of the wrong type",
        "unexpected end",
        "malformed JSON",
    ];
    let place = |text: &str| {
        let (line, column) = text.strip_prefix(" at line ")?.split_once(" column ")?;
        line.parse::<usize>().ok().zip(column.parse::<usize>().ok())
    };
    let fixed = format!("the body is larger than {BODY_LIMIT} bytes");
    let unreadable = "the request cannot be read";
    ["", "the body is not a JSON object", unreadable, &fixed].contains(&detail)
        || kinds
            .iter()
            .any(|kind| detail.strip_prefix(kind).and_then(place).is_some())
}

/// The members of an object as they came, also those that came twice.
struct Members(Vec<(String, Value)>);

impl<'de> Deserialize<'de> for Members {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct OfObjects;

        impl<'de> Visitor<'de> for OfObjects {
            type Value = Members;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut object: A) -> Result<Members, A::Error> {
                let mut members = Vec::new();
                while let Some(member) = object.next_entry()? {
                    members.push(member);
                }
                Ok(Members(members))
            }
        }

        deserializer.deserialize_map(OfObjects)
    }
}
