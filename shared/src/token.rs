//! Access tokens: JSON Web Tokens after RFC 9068.
//!
//! A key is parsed once, at start. A token chooses among our keys by its `kid` and nothing else:
//! the algorithm is the key's own, and no key is ever fetched because a token names it.

mod keys;

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use serde::{Deserialize, Serialize, de::IgnoredAny};

use self::keys::{Jwk, PUBLIC_KEYS, PublicKey, SigningKey, with_public_keys};
pub use self::keys::{new_private_key, public_key_of};
use crate::{
    config::{self, Env},
    random,
};

/// The lifetime of an access token.
pub const LIFETIME: Duration = Duration::from_mins(15);

/// The tolerated difference between the signer's and the verifier's clocks: a token is valid from
/// this long before its `nbf` until this long after its `exp`.
pub const LEEWAY: Duration = Duration::from_secs(30);

/// The `typ` of an access token, RFC 9068 §2.1.
const TYPE: &str = "at+jwt";

/// A one-time passcode, confirmed by SMS: RFC 8176 §2.
const AUTHENTICATION_METHODS: [&str; 2] = ["otp", "sms"];

const ISSUER: &str = "TOKEN_ISSUER";

/// The issuer of the tokens, and their audience.
#[derive(Clone)]
struct Parties {
    issuer: String,
    audience: String,
}

/// Signs access tokens. No `Debug`.
pub struct Signer {
    parties: Parties,
    key: SigningKey,
    public: PublicKey,
}

/// Verifies access tokens.
pub struct Verifier {
    parties: Parties,
    keys: Vec<PublicKey>,
}

/// The user and the session that an access token is for.
pub struct Subject<'a> {
    pub user_id: i64,
    pub session_id: &'a str,
    /// The beginning of the session, when a code was checked, in seconds since 1970.
    pub auth_time: i64,
}

/// The claims of a valid access token that our own routes use. Only a [`Verifier`] makes one.
#[derive(Debug, PartialEq, Eq)]
pub struct Claims {
    user_id: i64,
    session_id: String,
}

/// An invalid token. The reason goes to the log, never to the client.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum Invalid {
    #[error("the token is not a signed JSON Web Token")]
    Malformed,
    #[error("the token's key is none of ours")]
    UnknownKey,
    #[error("the token's algorithm is not its key's")]
    WrongAlgorithm,
    #[error("the token's signature is wrong")]
    WrongSignature,
    #[error("the token is not an access token")]
    NotAnAccessToken,
    #[error("the token has another issuer")]
    OtherIssuer,
    #[error("the token is for another audience")]
    OtherAudience,
    #[error("the token has expired")]
    Expired,
    #[error("the token is not valid yet")]
    NotYetValid,
}

/// The JOSE header of our tokens. Other members such as `jku` and `x5u` are ignored. `crit` forbids
/// that, so a token with it is refused (RFC 7515 §4.1.11).
#[derive(Serialize, Deserialize)]
struct Header {
    alg: String,
    typ: String,
    kid: String,
    #[serde(skip_serializing)]
    crit: Option<IgnoredAny>,
}

/// The claims of our tokens: those of RFC 9068 §2.2, and `sid` of `OpenID` Connect Front-Channel
/// Logout 1.0 §3. Times are seconds since 1970.
#[derive(Serialize, Deserialize)]
struct Payload {
    iss: String,
    sub: String,
    aud: String,
    client_id: String,
    iat: u64,
    nbf: u64,
    exp: u64,
    jti: String,
    sid: String,
    auth_time: i64,
    #[serde(skip_deserializing)]
    amr: [&'static str; 2],
}

/// The body of `/.well-known/jwks.json` (RFC 7517 §5).
#[derive(Serialize)]
pub struct KeySet<'a> {
    keys: Vec<&'a Jwk>,
}

/// The body of `/.well-known/openid-configuration`: the required members of `OpenID` Connect
/// Discovery 1.0 §3 and RFC 8414 §2, for a service without an OAuth flow. Verifiers find the keys
/// by `issuer` and `jwks_uri`.
#[derive(Serialize)]
pub struct Metadata<'a> {
    issuer: &'a str,
    jwks_uri: String,
    response_types_supported: [&'static str; 0],
    grant_types_supported: [&'static str; 0],
    subject_types_supported: [&'static str; 1],
    /// The access tokens' algorithms. Libraries accept those that stand here.
    id_token_signing_alg_values_supported: Vec<&'static str>,
}

impl Parties {
    /// Reads `TOKEN_ISSUER`, the URL above `/.well-known/*`, and `TOKEN_AUDIENCE`.
    fn from_env(env: &Env) -> Result<Self, config::Error> {
        let issuer = env.required(ISSUER)?;
        let is_url = issuer.starts_with("https://") || issuer.starts_with("http://");
        if !is_url || issuer.ends_with('/') || issuer.contains(['?', '#', ' ']) {
            return Err(config::Error::invalid(
                ISSUER,
                "must be an http(s) URL without query and without a slash at its end",
            ));
        }
        Ok(Self {
            issuer: issuer.to_owned(),
            audience: env.required("TOKEN_AUDIENCE")?.to_owned(),
        })
    }
}

impl Signer {
    /// Reads `TOKEN_ISSUER`, `TOKEN_AUDIENCE` and `TOKEN_PRIVATE_KEY`, whose kind decides between
    /// RS256 and ES256.
    pub fn from_env(env: &Env) -> Result<Self, config::Error> {
        let parties = Parties::from_env(env)?;
        let (key, public) = keys::private_key(env)?;
        Ok(Self {
            parties,
            key,
            public,
        })
    }

    /// A new access token, valid for [`LIFETIME`] from `now`.
    pub fn access_token(&self, subject: &Subject<'_>, now: SystemTime) -> String {
        let Jwk { kid, alg, .. } = &self.public.jwk;
        let header = Header {
            alg: (*alg).to_owned(),
            typ: TYPE.to_owned(),
            kid: kid.clone(),
            crit: None,
        };
        let now = seconds(now);
        let Parties { issuer, audience } = &self.parties;
        let payload = Payload {
            iss: issuer.clone(),
            sub: subject.user_id.to_string(),
            aud: audience.clone(),
            client_id: audience.clone(),
            iat: now,
            nbf: now,
            exp: now + LIFETIME.as_secs(),
            jti: random::id(),
            sid: subject.session_id.to_owned(),
            auth_time: subject.auth_time,
            amr: AUTHENTICATION_METHODS,
        };
        let mut token = encode_json(&header);
        token.push('.');
        token.push_str(&encode_json(&payload));
        let signature = self.key.sign(token.as_bytes());
        token.push('.');
        BASE64_URL_SAFE_NO_PAD.encode_string(signature, &mut token);
        token
    }
}

impl Verifier {
    /// Trusts `TOKEN_PUBLIC_KEYS`, keys in PEM, one after the other; for a function that signs
    /// nothing.
    pub fn from_env(env: &Env) -> Result<Self, config::Error> {
        env.required(PUBLIC_KEYS)?;
        Ok(Self {
            parties: Parties::from_env(env)?,
            keys: with_public_keys(Vec::new(), env)?,
        })
    }

    /// Trusts the signer's own key, and `TOKEN_PUBLIC_KEYS` if there are any.
    pub fn beside(signer: &Signer, env: &Env) -> Result<Self, config::Error> {
        Ok(Self {
            parties: signer.parties.clone(),
            keys: with_public_keys(vec![signer.public.clone()], env)?,
        })
    }

    /// The claims of a token that is ours and valid at `now`.
    pub fn verify(&self, token: &str, now: SystemTime) -> Result<Claims, Invalid> {
        let mut parts = token.split('.');
        let (Some(header), Some(payload), Some(signature), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(Invalid::Malformed);
        };
        let signed = &token[..header.len() + 1 + payload.len()];
        let header: Header = decode_json(header)?;
        if header.crit.is_some() {
            return Err(Invalid::Malformed);
        }
        let PublicKey { key, jwk } = self
            .keys
            .iter()
            .find(|key| key.jwk.kid == header.kid)
            .ok_or(Invalid::UnknownKey)?;
        if header.alg != jwk.alg {
            return Err(Invalid::WrongAlgorithm);
        }
        key.verify_sig(signed.as_bytes(), &decode(signature)?)
            .map_err(|_| Invalid::WrongSignature)?;
        if header.typ != TYPE {
            return Err(Invalid::NotAnAccessToken);
        }
        self.judge(decode_json(payload)?, now)
    }

    fn judge(&self, payload: Payload, now: SystemTime) -> Result<Claims, Invalid> {
        let now = seconds(now);
        let leeway = LEEWAY.as_secs();
        if payload.iss != self.parties.issuer {
            return Err(Invalid::OtherIssuer);
        }
        if payload.aud != self.parties.audience {
            return Err(Invalid::OtherAudience);
        }
        if now >= payload.exp.saturating_add(leeway) {
            return Err(Invalid::Expired);
        }
        if now.saturating_add(leeway) < payload.nbf {
            return Err(Invalid::NotYetValid);
        }
        if !random::is_id(&payload.sid) {
            return Err(Invalid::Malformed);
        }
        Ok(Claims {
            user_id: payload.sub.parse().map_err(|_| Invalid::Malformed)?,
            session_id: payload.sid,
        })
    }

    /// The public keys, the signing one first.
    pub fn key_set(&self) -> KeySet<'_> {
        KeySet {
            keys: self.keys.iter().map(|key| &key.jwk).collect(),
        }
    }

    /// The metadata for `/.well-known/openid-configuration`.
    pub fn metadata(&self) -> Metadata<'_> {
        let mut algorithms: Vec<_> = self.keys.iter().map(|key| key.jwk.alg).collect();
        algorithms.sort_unstable();
        algorithms.dedup();
        Metadata {
            issuer: &self.parties.issuer,
            jwks_uri: format!("{}/.well-known/jwks.json", self.parties.issuer),
            response_types_supported: [],
            grant_types_supported: [],
            subject_types_supported: ["public"],
            id_token_signing_alg_values_supported: algorithms,
        }
    }
}

impl Claims {
    /// The `id` of the user.
    pub fn user_id(&self) -> i64 {
        self.user_id
    }

    /// The `id` of the session. It may be over, see [`crate::users::Users::of_session`].
    pub fn session_id(&self) -> &str {
        &self.session_id
    }
}

fn seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH)
        .unwrap_or_default()
        .as_secs()
}

fn json(value: &impl Serialize) -> Vec<u8> {
    // Plain structs of texts and numbers always have a JSON form.
    serde_json::to_vec(value).unwrap_or_default()
}

fn encode_json(value: &impl Serialize) -> String {
    BASE64_URL_SAFE_NO_PAD.encode(json(value))
}

fn decode(part: &str) -> Result<Vec<u8>, Invalid> {
    let decoded = BASE64_URL_SAFE_NO_PAD.decode(part);
    decoded.map_err(|_| Invalid::Malformed)
}

fn decode_json<T: for<'a> Deserialize<'a>>(part: &str) -> Result<T, Invalid> {
    serde_json::from_slice(&decode(part)?).map_err(|_| Invalid::Malformed)
}

#[cfg(test)]
mod tests {
    use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair};

    use super::{
        keys::{PRIVATE_KEY, pem},
        *,
    };

    const AT: Duration = Duration::from_hours(500_000);

    fn p256() -> String {
        let key = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap();
        pem("PRIVATE KEY", key.to_pkcs8v1().unwrap().as_ref())
    }

    fn env(private_key: &str) -> Env {
        Env::from([
            (ISSUER, "https://auth.example.com"),
            ("TOKEN_AUDIENCE", "tests"),
            (PRIVATE_KEY, private_key),
        ])
    }

    fn both(private_key: &str) -> (Signer, Verifier) {
        let env = env(private_key);
        let signer = Signer::from_env(&env).unwrap();
        let verifier = Verifier::beside(&signer, &env).unwrap();
        (signer, verifier)
    }

    const SESSION_ID: &str = "00112233445566778899aabbccddeeff";

    fn subject() -> Subject<'static> {
        Subject {
            user_id: 7,
            session_id: SESSION_ID,
            auth_time: 1_000,
        }
    }

    fn claims() -> Claims {
        Claims {
            user_id: 7,
            session_id: SESSION_ID.to_owned(),
        }
    }

    fn at(seconds: i64) -> SystemTime {
        let time = UNIX_EPOCH + AT;
        let distance = Duration::from_secs(seconds.unsigned_abs());
        if seconds < 0 {
            time - distance
        } else {
            time + distance
        }
    }

    #[test]
    fn a_token_is_good_for_fifteen_minutes_and_the_leeway_and_not_a_second_longer() {
        let (signer, verifier) = both(&p256());
        let token = signer.access_token(&subject(), at(0));
        for (time, verdict) in [
            (-31, Err(Invalid::NotYetValid)),
            (-30, Ok(claims())),
            (0, Ok(claims())),
            (900 + 29, Ok(claims())),
            (900 + 30, Err(Invalid::Expired)),
        ] {
            assert_eq!(verifier.verify(&token, at(time)), verdict, "{time}");
        }
    }

    #[test]
    fn the_kind_of_key_decides_the_algorithm() {
        for (key, algorithm) in [(new_private_key().unwrap(), "RS256"), (p256(), "ES256")] {
            let (signer, verifier) = both(&key);
            let token = signer.access_token(&subject(), at(0));
            let header: serde_json::Value = decode_json(token.split('.').next().unwrap()).unwrap();
            assert_eq!(header["alg"], algorithm);
            let public_keys = public_key_of(&key).unwrap();
            let env = env(&key).with([(PUBLIC_KEYS.to_owned(), public_keys)]);
            let with_public = Verifier::from_env(&env).unwrap();
            assert_eq!(
                with_public.verify(&token, at(0)),
                Ok(claims()),
                "{algorithm}"
            );
            assert_eq!(verifier.verify(&token, at(0)), Ok(claims()), "{algorithm}");
        }
    }

    #[test]
    fn a_key_may_be_written_in_one_line() {
        let key = p256();
        let (signer, _) = both(&key);
        let (same, _) = both(&key.replace('\n', "\\n"));
        assert_eq!(signer.public.jwk.kid, same.public.jwk.kid);
    }

    #[test]
    fn weak_and_foreign_keys_are_refused_by_name_and_not_echoed() {
        let p384 =
            EcdsaKeyPair::generate(&aws_lc_rs::signature::ECDSA_P384_SHA384_FIXED_SIGNING).unwrap();
        let p384 = pem("PRIVATE KEY", p384.to_pkcs8v1().unwrap().as_ref());
        let public = p256().replace("PRIVATE", "PUBLIC");
        for key in ["hunter2", &pem("PRIVATE KEY", b"hunter2"), &p384, &public] {
            let error = Signer::from_env(&env(key)).err().unwrap().to_string();
            assert!(
                error.starts_with("TOKEN_PRIVATE_KEY must") && !error.contains("hunter2"),
                "{error}"
            );
        }
        for keys in ["hunter2", &p256(), &public] {
            let own = p256();
            let env = Env::from([
                (ISSUER, "https://auth.example.com"),
                ("TOKEN_AUDIENCE", "tests"),
                (PRIVATE_KEY, &own),
                (PUBLIC_KEYS, keys),
            ]);
            let signer = Signer::from_env(&env).unwrap();
            let error = Verifier::beside(&signer, &env).err().unwrap().to_string();
            assert!(error.starts_with("TOKEN_PUBLIC_KEYS must"), "{error}");
        }
    }

    #[test]
    fn an_issuer_is_a_url_to_which_a_path_can_be_added() {
        let key = p256();
        for issuer in [
            "auth.example.com",
            "https://auth.example.com/",
            "https://auth.example.com?a",
            "https://auth.example.com#a",
        ] {
            let env = Env::from([
                (ISSUER, issuer),
                ("TOKEN_AUDIENCE", "tests"),
                (PRIVATE_KEY, &key),
            ]);
            assert!(Signer::from_env(&env).is_err(), "{issuer}");
        }
    }
}
