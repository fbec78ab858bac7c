//! The contract's outcomes, and a check that a response to any request is one of them. `fuzz/`
//! compiles this file, too.

use std::fmt;

use serde::{
    Deserialize, Deserializer,
    de::{MapAccess, Visitor},
};
use serde_json::Value;
use shared::api::BODY_LIMIT;

use crate::Response;
use outcome::{
    CHALLENGE_ID_MISSING, EDIT_CONFLICT, INVALID_NAME, INVALID_PAYLOAD, INVALID_PHONE,
    INVALID_TOKEN, LOGGED_IN, LOGGED_OUT, METHOD_NOT_ALLOWED, NAME_OR_PHONE_MISSING, NOT_FOUND,
    NOT_REGISTERED, NOT_STORED, OTP_EXPIRED, OTP_MISMATCH, OTP_OR_PHONE_MISSING, PAYLOAD_TOO_LARGE,
    PHONE_CHANGED, PHONE_MISSING, RATE_LIMITED, REFRESH_TOKEN_MISSING, REGISTERED, SENT,
    SMS_FAILED, TOO_MANY_ATTEMPTS, UNAUTHENTICATED, UNAVAILABLE, UNSUPPORTED_MEDIA_TYPE,
    UNSUPPORTED_PHONE, USER_EXISTS, USER_NOT_FOUND,
};

/// A route that takes a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Route {
    Signup,
    Login,
    Verify,
    Refresh,
    Logout,
    /// `PATCH /me`.
    Rename,
    /// `POST /me/phone`.
    ChangePhone,
}

/// A member of a body.
struct Member {
    name: &'static str,
    fits: fn(&Value) -> bool,
    /// A body without it is unreadable. A text that is missing is an empty one, a flag is false.
    required: bool,
}

impl Member {
    const fn text(name: &'static str) -> Self {
        Self {
            name,
            fits: Value::is_string,
            required: false,
        }
    }

    const fn flag(name: &'static str) -> Self {
        Self {
            name,
            fits: Value::is_boolean,
            required: false,
        }
    }

    /// A whole number of 32 bits.
    const fn required_number(name: &'static str) -> Self {
        Self {
            name,
            fits: |value| value.as_i64().is_some_and(|n| i32::try_from(n).is_ok()),
            required: true,
        }
    }
}

/// Status, `error` and `code` of a failure; of a success status and `message`.
pub type Outcome = (u64, &'static str, &'static str);

/// The outcomes of the contract, by name.
pub mod outcome {
    use super::Outcome;

    pub const SENT: Outcome = (200, "OTP sent successfully", "");
    pub const REGISTERED: Outcome = (200, "User registered successfully", "");
    pub const LOGGED_IN: Outcome = (200, "User logged in successfully", "");
    pub const PHONE_CHANGED: Outcome = (200, "Phone number changed successfully", "");
    pub const LOGGED_OUT: Outcome = (200, "Logged out successfully", "");
    pub const SESSION_ENDED: Outcome = (200, "Session ended", "");
    pub const DELETED: Outcome = (200, "User deleted successfully", "");

    pub const INVALID_PAYLOAD: Outcome = (400, "Invalid request payload", "invalid_payload");
    pub const UNSUPPORTED_MEDIA_TYPE: Outcome = (
        415,
        "Content-Type must be application/json",
        "unsupported_media_type",
    );
    pub const PAYLOAD_TOO_LARGE: Outcome = (413, "Invalid request payload", "payload_too_large");
    pub const NOT_FOUND: Outcome = (404, "Not found", "not_found");
    pub const METHOD_NOT_ALLOWED: Outcome = (405, "Method not allowed", "method_not_allowed");

    pub const NAME_OR_PHONE_MISSING: Outcome =
        (400, "Name and phone number are required", "missing_field");
    pub const PHONE_MISSING: Outcome = (400, "Phone number is required", "missing_field");
    pub const OTP_OR_PHONE_MISSING: Outcome =
        (400, "OTP and phone number are required", "missing_field");
    pub const CHALLENGE_ID_MISSING: Outcome = (400, "Challenge id is required", "missing_field");
    pub const REFRESH_TOKEN_MISSING: Outcome = (400, "Refresh token is required", "missing_field");
    pub const INVALID_NAME: Outcome = (400, "Invalid name", "invalid_name");
    pub const INVALID_PHONE: Outcome = (400, "Invalid phone number", "invalid_phone_number");
    pub const UNSUPPORTED_PHONE: Outcome = (
        403,
        "Phone numbers of this kind are not supported",
        "unsupported_phone_number",
    );
    pub const RATE_LIMITED: Outcome = (429, "Too many requests", "rate_limited");

    pub const USER_EXISTS: Outcome = (
        409,
        "User already exists with the given phone number",
        "user_exists",
    );
    pub const EDIT_CONFLICT: Outcome = (409, "Edit conflict", "edit_conflict");
    pub const USER_NOT_FOUND: Outcome = (404, "User not found", "user_not_found");
    pub const OTP_EXPIRED: Outcome = (401, "Invalid or expired OTP", "otp_expired");
    pub const OTP_MISMATCH: Outcome = (401, "Invalid OTP", "otp_mismatch");
    pub const TOO_MANY_ATTEMPTS: Outcome = (429, "Too many attempts", "too_many_attempts");
    pub const INVALID_TOKEN: Outcome = (401, "Invalid or expired token", "invalid_token");
    pub const UNAUTHENTICATED: Outcome = (
        401,
        "Invalid or missing authentication token",
        "unauthenticated",
    );

    pub const SMS_FAILED: Outcome = (502, "Failed to send OTP", "sms_failed");
    /// 503 at `/signup` and `/login`.
    pub const NOT_STORED: Outcome = (503, "Failed to store user data", "unavailable");
    /// 503 at `/verify`.
    pub const NOT_REGISTERED: Outcome = (503, "Failed to register user", "unavailable");
    /// 503 at the routes of sessions.
    pub const UNAVAILABLE: Outcome = (503, "Service unavailable", "unavailable");
}

const EVERYWHERE: [Outcome; 5] = [
    INVALID_PAYLOAD,
    UNSUPPORTED_MEDIA_TYPE,
    PAYLOAD_TOO_LARGE,
    NOT_FOUND,
    METHOD_NOT_ALLOWED,
];

impl Route {
    pub const ALL: [Self; 7] = [
        Self::Signup,
        Self::Login,
        Self::Verify,
        Self::Refresh,
        Self::Logout,
        Self::Rename,
        Self::ChangePhone,
    ];

    pub fn method(self) -> &'static str {
        match self {
            Self::Rename => "PATCH",
            _ => "POST",
        }
    }

    /// The methods of its path.
    pub fn allow(self) -> &'static str {
        match self {
            Self::Rename => "GET, PATCH, DELETE",
            _ => "POST",
        }
    }

    /// Requests need an access token, which is checked before the body is read.
    pub fn needs_token(self) -> bool {
        matches!(self, Self::Rename | Self::ChangePhone)
    }

    pub fn path(self) -> &'static str {
        match self {
            Self::Signup => "/signup",
            Self::Login => "/login",
            Self::Verify => "/verify",
            Self::Refresh => "/token/refresh",
            Self::Logout => "/logout",
            Self::Rename => "/me",
            Self::ChangePhone => "/me/phone",
        }
    }

    /// The function that serves it.
    pub fn function(self) -> &'static str {
        match self {
            Self::Signup | Self::Login | Self::ChangePhone => "signup",
            Self::Verify => "verify",
            Self::Refresh | Self::Logout | Self::Rename => "session",
        }
    }

    /// Its outcomes, beside those that every route has. A refresh and a change of name have no
    /// message.
    fn outcomes(self) -> &'static [Outcome] {
        match self {
            Self::Signup => &[
                SENT,
                NAME_OR_PHONE_MISSING,
                INVALID_NAME,
                INVALID_PHONE,
                UNSUPPORTED_PHONE,
                RATE_LIMITED,
                USER_EXISTS,
                SMS_FAILED,
                NOT_STORED,
            ],
            Self::Login => &[
                SENT,
                PHONE_MISSING,
                INVALID_PHONE,
                UNSUPPORTED_PHONE,
                RATE_LIMITED,
                USER_NOT_FOUND,
                SMS_FAILED,
                NOT_STORED,
            ],
            Self::Verify => &[
                REGISTERED,
                LOGGED_IN,
                PHONE_CHANGED,
                UNAUTHENTICATED,
                OTP_OR_PHONE_MISSING,
                CHALLENGE_ID_MISSING,
                INVALID_PHONE,
                RATE_LIMITED,
                OTP_EXPIRED,
                OTP_MISMATCH,
                TOO_MANY_ATTEMPTS,
                USER_EXISTS,
                USER_NOT_FOUND,
                NOT_REGISTERED,
            ],
            Self::Refresh => &[
                (200, "", ""),
                REFRESH_TOKEN_MISSING,
                INVALID_TOKEN,
                UNAVAILABLE,
            ],
            Self::Logout => &[LOGGED_OUT, REFRESH_TOKEN_MISSING, UNAVAILABLE],
            Self::Rename => &[
                (200, "", ""),
                UNAUTHENTICATED,
                INVALID_NAME,
                EDIT_CONFLICT,
                UNAVAILABLE,
            ],
            Self::ChangePhone => &[
                SENT,
                UNAUTHENTICATED,
                PHONE_MISSING,
                INVALID_PHONE,
                UNSUPPORTED_PHONE,
                RATE_LIMITED,
                USER_EXISTS,
                SMS_FAILED,
                NOT_STORED,
            ],
        }
    }

    fn members(self) -> &'static [Member] {
        const NAME: Member = Member::text("name");
        const PHONE_NUMBER: Member = Member::text("phone_number");
        const DEVICE_TOKEN: Member = Member::text("device_token");
        const LOCALE: Member = Member::text("locale");
        const OTP: Member = Member::text("otp");
        const CHALLENGE_ID: Member = Member::text("challenge_id");
        const REFRESH_TOKEN: Member = Member::text("refresh_token");
        const EVERYWHERE: Member = Member::flag("everywhere");
        const VERSION: Member = Member::required_number("version");
        match self {
            Self::Signup => &[NAME, PHONE_NUMBER, DEVICE_TOKEN, LOCALE],
            Self::Login => &[PHONE_NUMBER, DEVICE_TOKEN, LOCALE],
            Self::Verify => &[OTP, PHONE_NUMBER, CHALLENGE_ID],
            Self::Refresh => &[REFRESH_TOKEN],
            Self::Logout => &[REFRESH_TOKEN, EVERYWHERE],
            Self::Rename => &[NAME, VERSION],
            Self::ChangePhone => &[PHONE_NUMBER, LOCALE],
        }
    }

    /// The way in which the response breaks the contract, if it does. A fault of ours, 500, breaks
    /// it: the contract has it, but nothing that a client or a store does may bring it about.
    pub fn fault_of(self, response: &Response) -> Option<String> {
        let fault = |what: &str| Some(format!("{what}: {response:?}"));
        let is = |name: &str, value| response.headers.get(name).map(String::as_str) == Some(value);
        if !is("content-type", "application/json") || !is("cache-control", "no-store") {
            return fault("headers");
        }
        let outcome = response.outcome();
        if !EVERYWHERE.contains(&outcome) && !self.outcomes().contains(&outcome) {
            return fault("no outcome of the route");
        }
        if response.status == 200 {
            let gives_tokens =
                matches!(self, Self::Verify | Self::Refresh) && outcome != PHONE_CHANGED;
            let has_tokens = response.body["tokens"]["token_type"] == "Bearer";
            return if response.body["success"] == true && has_tokens == gives_tokens {
                None
            } else {
                fault("a success of another route")
            };
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
        if (outcome == UNAUTHENTICATED) != response.headers.contains_key("www-authenticate") {
            return fault("WWW-Authenticate");
        }
        if (response.status == 405) != is("allow", self.allow()) {
            return fault("Allow");
        }
        None
    }

    /// The same for the response to a request with this body, sent as this type, and with a valid
    /// token if the route needs one. It must be refused as unreadable when it is, and only then.
    pub fn fault_of_body(
        self,
        content_type: Option<&str>,
        body: &[u8],
        response: &Response,
    ) -> Option<String> {
        let expected = if !content_type.is_some_and(is_json) {
            Some(UNSUPPORTED_MEDIA_TYPE)
        } else if body.len() > BODY_LIMIT {
            Some(PAYLOAD_TOO_LARGE)
        } else if self.reads(body) {
            None
        } else {
            Some(INVALID_PAYLOAD)
        };
        let refusals = [UNSUPPORTED_MEDIA_TYPE, PAYLOAD_TOO_LARGE, INVALID_PAYLOAD];
        let refusal = refusals
            .into_iter()
            .find(|refusal| *refusal == response.outcome());
        if refusal != expected {
            return Some(format!("{expected:?} was due: {response:?}"));
        }
        self.fault_of(response)
    }

    /// A body is one JSON object of members that the route knows, of the right types, none twice
    /// and each that is required. It is found out in another way than by the functions, which fill
    /// a struct.
    fn reads(self, body: &[u8]) -> bool {
        let Ok(Members(members)) = serde_json::from_slice(body) else {
            return false;
        };
        let mut known: Vec<&Member> = self.members().iter().collect();
        let all_fit = members.iter().all(|(name, value)| {
            let place = known.iter().position(|known| known.name == name);
            place.is_some_and(|place| (known.swap_remove(place).fits)(value))
        });
        all_fit && !known.iter().any(|missing| missing.required)
    }
}

/// A Content-Type is JSON's; found out in another way than by the functions.
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
        "missing field",
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
