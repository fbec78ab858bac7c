//! Known devices (OWASP, "Device Cookies"): a token proves that its bearer verified this phone
//! before.
//!
//! A token is a random id and its HMAC with the phone number. It signs nobody in. Requests for
//! codes that carry one are exempt from the limits that strangers can exhaust.

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use hmac::{Hmac, Mac};
use sha2::Sha256;

use crate::{
    config::{self, Env},
    otp,
    phone::PhoneNumber,
    random,
};

const ID_LENGTH: usize = 32;

/// The id of a known device: 32 lower-case hexadecimal digits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceId(String);

/// Signs and verifies device tokens. No `Debug`.
pub struct Devices {
    /// One key for every live pepper, newest first.
    keys: Vec<Hmac<Sha256>>,
}

impl DeviceId {
    /// A new id from the operating system's generator.
    pub fn generate() -> Self {
        Self(random::id())
    }

    /// Parses an id, `None` if it is not of our form.
    pub fn parse(text: &str) -> Option<Self> {
        random::is_id(text).then(|| Self(text.to_owned()))
    }

    /// The id's text, for keys and scripts.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Devices {
    /// Reads `OTP_PEPPER`.
    pub fn from_env(env: &Env) -> Result<Self, config::Error> {
        Ok(Self {
            keys: otp::derived_keys(env, b"otp-auth device token")?,
        })
    }

    /// The token of a device for this phone: the id and 32 bytes in base64url.
    pub fn token(&self, phone: &PhoneNumber, device: &DeviceId) -> String {
        // There is always a newest pepper.
        let mac = self
            .keys
            .first()
            .map(|key| mac(key, phone, device.as_str()));
        let tag = mac
            .map(|mac| mac.finalize().into_bytes())
            .unwrap_or_default();
        format!("{}{}", device.0, BASE64_URL_SAFE_NO_PAD.encode(tag))
    }

    /// The device of a valid token for this phone, `None` for any other text.
    pub fn recognize(&self, phone: &PhoneNumber, token: &str) -> Option<DeviceId> {
        let (id, tag) = token.split_at_checked(ID_LENGTH)?;
        let device = DeviceId::parse(id)?;
        let tag = BASE64_URL_SAFE_NO_PAD.decode(tag).ok()?;
        // In constant time.
        let is_ours = |key| mac(key, phone, id).verify_slice(&tag).is_ok();
        self.keys.iter().any(is_ours).then_some(device)
    }
}

fn mac(key: &Hmac<Sha256>, phone: &PhoneNumber, id: &str) -> Hmac<Sha256> {
    let mut mac = key.clone();
    // The id has a fixed length, so no two pairs are the same bytes.
    mac.update(id.as_bytes());
    mac.update(phone.as_e164().as_bytes());
    mac
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::phone::Parser;

    fn phone(text: &str) -> PhoneNumber {
        let parser = Parser::from_env(&Env::from([])).unwrap();
        parser.parse(text).unwrap()
    }

    fn devices(peppers: &str) -> Devices {
        Devices::from_env(&Env::from([("OTP_PEPPER", peppers)])).unwrap()
    }

    #[test]
    fn a_token_is_good_for_its_phone_and_deployment_only() {
        let (own, other) = (devices(&"a".repeat(32)), devices(&"b".repeat(32)));
        let ada = phone("+14155552671");
        let device = DeviceId::generate();
        let token = own.token(&ada, &device);
        assert_eq!(own.recognize(&ada, &token), Some(device));
        assert_eq!(own.recognize(&phone("+14155552672"), &token), None);
        assert_eq!(other.recognize(&ada, &token), None);
    }

    #[test]
    fn a_token_that_was_changed_or_cut_is_no_device() {
        let devices = devices(&"a".repeat(32));
        let ada = phone("+14155552671");
        let token = devices.token(&ada, &DeviceId::generate());
        let (id, tag) = token.split_at(ID_LENGTH);
        let other = DeviceId::generate();
        for text in [
            "",
            id,
            tag,
            &token[..token.len() - 1],
            &token[1..],
            &format!("{token}A"),
            &format!("{token}="),
            &format!(" {token}"),
            &format!("{}{tag}", other.as_str()),
            &format!("{id}{}", "A".repeat(tag.len())),
            &format!("{}{tag}", "ü".repeat(ID_LENGTH)),
        ] {
            assert_eq!(devices.recognize(&ada, text), None, "{text:?}");
        }
    }

    #[test]
    fn a_token_survives_a_change_of_peppers_while_the_old_one_is_live() {
        let (old, new) = ("a".repeat(32), "b".repeat(32));
        let ada = phone("+14155552671");
        let device = DeviceId::generate();
        let token = devices(&old).token(&ada, &device);
        let both = devices(&format!("{new},{old}"));
        assert_eq!(both.recognize(&ada, &token), Some(device));
        assert_eq!(devices(&new).recognize(&ada, &token), None);
    }
}
