//! The things that let a person in: a challenge and its code, tokens.

use crate::{Response, messages_to};

/// A challenge as its phone's owner knows it.
#[derive(Clone, Debug)]
pub struct Challenge {
    pub phone: String,
    pub id: String,
    pub code: String,
}

/// The tokens of a session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tokens {
    pub access: String,
    pub refresh: String,
}

impl Challenge {
    /// Of a response that must be a success, and the newest message to the phone.
    pub async fn of(sent: &Response, phone: &str) -> Self {
        sent.assert_ok();
        Self::new(sent, phone, &last_code_to(phone).await)
    }

    /// The same where the code is known.
    pub fn new(sent: &Response, phone: &str, code: &str) -> Self {
        sent.assert_ok();
        assert_eq!(sent.body["code_length"], code.len(), "{sent:?}");
        Self {
            phone: phone.to_owned(),
            id: sent.text("challenge_id").to_owned(),
            code: code.to_owned(),
        }
    }

    pub fn wrong_code(&self) -> String {
        wrong(&self.code)
    }
}

impl Tokens {
    /// The tokens of a response, which must be a success.
    pub fn of(response: &Response) -> Self {
        response.assert_ok();
        let tokens = &response.body["tokens"];
        assert_eq!(tokens["token_type"], "Bearer");
        assert_eq!(tokens["expires_in"], 900);
        let text = |member: &str| tokens[member].as_str().unwrap().to_owned();
        Self {
            access: text("access_token"),
            refresh: text("refresh_token"),
        }
    }
}

/// The code of the newest message to this number.
pub async fn last_code_to(phone: &str) -> String {
    code_in(messages_to(phone).await.last().unwrap())
}

/// The code that a message begins with.
pub fn code_in(message: &str) -> String {
    message.split(' ').next().unwrap().to_owned()
}

/// A code of the same length that is certainly not `code`.
pub fn wrong(code: &str) -> String {
    let length = code.len();
    let number: u64 = code.parse().unwrap();
    let next = (number + 1) % 10_u64.pow(u32::try_from(length).unwrap());
    format!("{next:0length$}")
}
