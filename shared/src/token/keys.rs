//! The keys behind access tokens: their forms, and what they sign and verify.

use aws_lc_rs::{
    encoding::{AsDer, Pkcs8V1Der, PublicKeyX509Der},
    error::Unspecified,
    rand::SystemRandom,
    rsa::{self, KeySize},
    signature::{
        ECDSA_P256_SHA256_FIXED, ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair,
        ParsedPublicKey, RSA_PKCS1_2048_8192_SHA256, RSA_PKCS1_SHA256,
    },
};
use base64::{
    Engine,
    prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD},
};
use rustls::pki_types::{PrivatePkcs8KeyDer, SubjectPublicKeyInfoDer, pem::PemObject};
use serde::Serialize;
use sha2::{Digest, Sha256};
use spki::{
    ObjectIdentifier, SubjectPublicKeyInfoRef,
    der::{self, Decode, Reader, SliceReader, asn1::UintRef},
};

use super::json;
use crate::config::{self, Env};

pub(super) const PRIVATE_KEY: &str = "TOKEN_PRIVATE_KEY";
pub(super) const PUBLIC_KEYS: &str = "TOKEN_PUBLIC_KEYS";

/// A key that signs. No `Debug`.
pub(super) enum SigningKey {
    Rs256(Box<rsa::KeyPair>),
    Es256(EcdsaKeyPair),
}

#[derive(Clone)]
pub(super) struct PublicKey {
    pub key: ParsedPublicKey,
    pub jwk: Jwk,
}

/// A public key as JSON (RFC 7517).
#[derive(Clone, Serialize)]
pub(super) struct Jwk {
    #[serde(flatten)]
    required: RequiredMembers,
    pub kid: String,
    pub alg: &'static str,
    #[serde(rename = "use")]
    used_for: &'static str,
}

/// The input of the thumbprint, in this order (RFC 7638 §3.2).
#[derive(Clone, Serialize)]
#[serde(untagged)]
enum RequiredMembers {
    Rsa {
        e: String,
        kty: &'static str,
        n: String,
    },
    P256 {
        crv: &'static str,
        kty: &'static str,
        x: String,
        y: String,
    },
}

impl SigningKey {
    #[expect(
        clippy::expect_used,
        reason = "with a key that was accepted at start it fails only if memory runs out"
    )]
    pub fn sign(&self, message: &[u8]) -> Vec<u8> {
        let random = SystemRandom::new();
        match self {
            Self::Rs256(key) => {
                let mut signature = vec![0; key.public_modulus_len()];
                key.sign(&RSA_PKCS1_SHA256, &random, message, &mut signature)
                    .expect("an accepted key signs");
                signature
            }
            Self::Es256(key) => {
                let signature = key.sign(&random, message).expect("an accepted key signs");
                signature.as_ref().to_vec()
            }
        }
    }
}

impl PublicKey {
    /// From `RSAPublicKey`, RFC 8017 §A.1.1; `None` unless it has at least 2048 bits.
    fn rsa(der: &[u8]) -> Option<Self> {
        let (n, e) = rsa_components(der).ok()?;
        (n.len() >= 256).then_some(())?;
        let key = ParsedPublicKey::new(&RSA_PKCS1_2048_8192_SHA256, der).ok()?;
        Some(Self {
            key,
            jwk: Jwk::new(
                "RS256",
                RequiredMembers::Rsa {
                    e: BASE64_URL_SAFE_NO_PAD.encode(e),
                    kty: "RSA",
                    n: BASE64_URL_SAFE_NO_PAD.encode(n),
                },
            ),
        })
    }

    /// From a point on P-256: the byte 4, x and y.
    fn p256(point: &[u8]) -> Option<Self> {
        let coordinates = point.strip_prefix(&[4])?;
        let (x, y) = coordinates.split_at_checked(32)?;
        let key = ParsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, point).ok()?;
        Some(Self {
            key,
            jwk: Jwk::new(
                "ES256",
                RequiredMembers::P256 {
                    crv: "P-256",
                    kty: "EC",
                    x: BASE64_URL_SAFE_NO_PAD.encode(x),
                    y: BASE64_URL_SAFE_NO_PAD.encode(y),
                },
            ),
        })
    }
}

impl Jwk {
    fn new(alg: &'static str, required: RequiredMembers) -> Self {
        let thumbprint = Sha256::digest(json(&required));
        Self {
            required,
            kid: BASE64_URL_SAFE_NO_PAD.encode(thumbprint),
            alg,
            used_for: "sig",
        }
    }
}

/// A new `TOKEN_PRIVATE_KEY`: RSA of 2048 bits, which API Gateway's authorizer takes, in PEM
/// (PKCS#8).
pub fn new_private_key() -> Result<String, Unspecified> {
    let pkcs8: Pkcs8V1Der = rsa::KeyPair::generate(KeySize::Rsa2048)?.as_der()?;
    Ok(pem("PRIVATE KEY", pkcs8.as_ref()))
}

/// The public key of a `TOKEN_PRIVATE_KEY`, in PEM as in `TOKEN_PUBLIC_KEYS`. `None` if that is no
/// key that signs tokens.
pub fn public_key_of(private_key: &str) -> Option<String> {
    let (key, _) = read_private_key(private_key)?;
    let public: PublicKeyX509Der<'_> = match &key {
        SigningKey::Rs256(key) => key.public_key().as_der(),
        SigningKey::Es256(key) => key.public_key().as_der(),
    }
    .ok()?;
    Some(pem("PUBLIC KEY", public.as_ref()))
}

pub(super) fn pem(label: &str, der: &[u8]) -> String {
    let text = BASE64_STANDARD.encode(der);
    let mut pem = format!("-----BEGIN {label}-----\n");
    let mut rest = text.as_str();
    while !rest.is_empty() {
        let (line, after) = rest.split_at(rest.len().min(64));
        pem.extend([line, "\n"]);
        rest = after;
    }
    pem.extend(["-----END ", label, "-----\n"]);
    pem
}

/// These keys and those of `TOKEN_PUBLIC_KEYS`, each once.
pub(super) fn with_public_keys(
    mut keys: Vec<PublicKey>,
    env: &Env,
) -> Result<Vec<PublicKey>, config::Error> {
    let Some(text) = env.text(PUBLIC_KEYS) else {
        return Ok(keys);
    };
    let others = parse_public_keys(&with_line_breaks(text)).ok_or_else(|| {
        config::Error::invalid(
            PUBLIC_KEYS,
            "must be keys in PEM (\"BEGIN PUBLIC KEY\"): RSA of at least 2048 bits, or P-256",
        )
    })?;
    for other in others {
        if keys.iter().all(|key| key.jwk.kid != other.jwk.kid) {
            keys.push(other);
        }
    }
    Ok(keys)
}

/// Reads `TOKEN_PRIVATE_KEY`: an RSA key of at least 2048 bits or one on P-256, in PEM, PKCS#8.
pub(super) fn private_key(env: &Env) -> Result<(SigningKey, PublicKey), config::Error> {
    read_private_key(env.required(PRIVATE_KEY)?).ok_or_else(|| {
        config::Error::invalid(
            PRIVATE_KEY,
            "must be a key in PEM (PKCS#8, \"BEGIN PRIVATE KEY\"): RSA of at least 2048 bits, or \
             P-256",
        )
    })
}

fn read_private_key(pem: &str) -> Option<(SigningKey, PublicKey)> {
    let der = PrivatePkcs8KeyDer::from_pem_slice(with_line_breaks(pem).as_bytes()).ok()?;
    let pkcs8 = der.secret_pkcs8_der();
    if let Ok(key) = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, pkcs8) {
        let public = PublicKey::p256(key.public_key().as_ref())?;
        return Some((SigningKey::Es256(key), public));
    }
    let key = rsa::KeyPair::from_pkcs8(pkcs8).ok()?;
    let public = PublicKey::rsa(key.public_key().as_ref())?;
    Some((SigningKey::Rs256(Box::new(key)), public))
}

fn parse_public_keys(pem: &str) -> Option<Vec<PublicKey>> {
    let keys: Option<Vec<_>> = SubjectPublicKeyInfoDer::pem_slice_iter(pem.as_bytes())
        .map(|der| parse_public_key(&der.ok()?))
        .collect();
    keys.filter(|keys| !keys.is_empty())
}

/// From `SubjectPublicKeyInfo`, RFC 5280 §4.1; the identifiers are those of RFC 3279 and RFC 5480.
fn parse_public_key(der: &[u8]) -> Option<PublicKey> {
    const RSA: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.1");
    const EC: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.2.1");
    const P256: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.3.1.7");
    let info = SubjectPublicKeyInfoRef::from_der(der).ok()?;
    let key = info.subject_public_key.as_bytes()?;
    match info.algorithm.oid {
        RSA => PublicKey::rsa(key),
        EC if info.algorithm.parameters_oid() == Ok(P256) => PublicKey::p256(key),
        _ => None,
    }
}

/// Modulus and exponent, without leading zeros.
fn rsa_components(der: &[u8]) -> der::Result<(&[u8], &[u8])> {
    SliceReader::new(der)?.sequence(|reader| {
        let (n, e) = (UintRef::decode(reader)?, UintRef::decode(reader)?);
        Ok((n.as_bytes(), e.as_bytes()))
    })
}

/// A variable often cannot hold line breaks, hence `\n` means one, as in JSON.
fn with_line_breaks(pem: &str) -> String {
    pem.replace("\\n", "\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of RFC 7638 §3.1.
    #[test]
    fn a_key_id_is_the_thumbprint_of_the_key() {
        let n = "0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4cbbfAAtVT86zwu1RK7aPFFxuhDR1L6\
                 tSoc_BJECPebWKRXjBZCiFV4n3oknjhMstn64tZ_2W-5JsGY4Hc5n9yBXArwl93lqt7_RN5w6Cf0h4QyQ5v-65\
                 YGjQR0_FDW2QvzqY368QQMicAtaSqzs8KJZgnYb9c7d0zgdAZHzu6qMQvRL5hajrn1n91CbOpbISD08qNLyrdk\
                 t-bFTWhAI4vMQFh6WeZu0fM4lFd2NcRwr3XPksINHaQ-G_xBniIqbw0Ls1jF44-csFCur-kEgU8awapJzKnqDK\
                 gw";
        let jwk = Jwk::new(
            "RS256",
            RequiredMembers::Rsa {
                e: "AQAB".into(),
                kty: "RSA",
                n: n.into(),
            },
        );
        assert_eq!(jwk.kid, "NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs");
    }

    #[test]
    fn an_rsa_key_needs_2048_bits() {
        // 128 bytes of modulus, as openssl would write the public key.
        let short: Vec<u8> = [0x30, 0x81, 0x89, 0x02, 0x81, 0x81, 0x00]
            .into_iter()
            .chain([0xc1; 128])
            .chain([0x02, 0x03, 0x01, 0x00, 0x01])
            .collect();
        assert_eq!(rsa_components(&short).unwrap().0.len(), 128);
        assert!(PublicKey::rsa(&short).is_none());
    }
}
