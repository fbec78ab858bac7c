//! Keys made for one test run, and tokens that only somebody with such a key could make.

use std::{sync::OnceLock, time::UNIX_EPOCH};

use aws_lc_rs::{
    rand::SystemRandom,
    rsa,
    signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, RSA_PKCS1_SHA256},
};
use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_RSA_SHA256, PublicKeyData};
use serde_json::Value;
use shared::{
    config::Env,
    token::{Signer, Subject},
};

use crate::since_1970;

pub const ISSUER: &str = "https://auth.example.com";
pub const AUDIENCE: &str = "tests";

pub struct Key(KeyPair);

/// The key of every function that a test starts without one of its own.
pub fn signing_key() -> &'static Key {
    static KEY: OnceLock<Key> = OnceLock::new();
    KEY.get_or_init(Key::p256)
}

/// The settings of functions that sign and verify tokens.
pub fn token_settings() -> [(&'static str, &'static str); 4] {
    static PEMS: OnceLock<[String; 2]> = OnceLock::new();
    let pems = || [signing_key().private_pem(), signing_key().public_pem()];
    let [private, public] = PEMS.get_or_init(pems);
    [
        ("TOKEN_ISSUER", ISSUER),
        ("TOKEN_AUDIENCE", AUDIENCE),
        ("TOKEN_PRIVATE_KEY", private),
        ("TOKEN_PUBLIC_KEYS", public),
    ]
}

/// A valid access token of a session that is over.
pub fn strangers_token() -> String {
    let subject = Subject {
        user_id: 1,
        session_id: &"0".repeat(32),
        auth_time: 0,
    };
    let signer = Signer::from_env(&Env::from(token_settings())).unwrap();
    signer.access_token(&subject, UNIX_EPOCH + since_1970())
}

impl Key {
    pub fn p256() -> Self {
        Self(KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap())
    }

    /// Of 2048 bits.
    pub fn rsa() -> Self {
        Self(KeyPair::generate_for(&PKCS_RSA_SHA256).unwrap())
    }

    pub fn private_pem(&self) -> String {
        self.0.serialize_pem()
    }

    pub fn public_pem(&self) -> String {
        self.0.public_key_pem()
    }

    /// `SubjectPublicKeyInfo`.
    pub fn public_der(&self) -> Vec<u8> {
        self.0.subject_public_key_info()
    }

    /// A token with this header and these claims and a signature that is right for them.
    pub fn sign(&self, header: &Value, claims: &Value) -> String {
        let signed = unsigned(header, claims);
        let random = SystemRandom::new();
        let pkcs8 = self.0.serialized_der();
        let signature =
            if let Ok(key) = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, pkcs8) {
                let signature = key.sign(&random, signed.as_bytes()).unwrap();
                signature.as_ref().to_vec()
            } else {
                let key = rsa::KeyPair::from_pkcs8(pkcs8).unwrap();
                let mut signature = vec![0; key.public_modulus_len()];
                key.sign(
                    &RSA_PKCS1_SHA256,
                    &random,
                    signed.as_bytes(),
                    &mut signature,
                )
                .unwrap();
                signature
            };
        format!("{signed}.{}", BASE64_URL_SAFE_NO_PAD.encode(signature))
    }
}

/// A header or claims with some members changed. Null leaves one out.
pub fn changed(original: &Value, changes: &Value) -> Value {
    let mut copy = original.clone();
    for (name, value) in changes.as_object().unwrap() {
        match value {
            Value::Null => drop(copy.as_object_mut().unwrap().remove(name)),
            _ => copy[name] = value.clone(),
        }
    }
    copy
}

/// Header and claims as a token has them before its signature.
pub fn unsigned(header: &Value, claims: &Value) -> String {
    let encode = |part: &Value| BASE64_URL_SAFE_NO_PAD.encode(part.to_string());
    format!("{}.{}", encode(header), encode(claims))
}

/// The header and the claims of a token.
pub fn decoded(token: &str) -> [Value; 2] {
    let mut parts = token.split('.').map(|part| {
        let json = BASE64_URL_SAFE_NO_PAD.decode(part).unwrap();
        serde_json::from_slice(&json).unwrap()
    });
    [parts.next().unwrap(), parts.next().unwrap()]
}
