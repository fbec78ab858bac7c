//! Secrets of AWS Secrets Manager: the keys that the functions need, and the database's login.
//!
//! A key is made once. Only a [`rotation`] changes what a secret holds already. No error shows it.

use std::time::{Duration, SystemTime};

use aws_config::BehaviorVersion;
use aws_sdk_secretsmanager::{
    Client,
    config::timeout::TimeoutConfig,
    error::{ProvideErrorMetadata, SdkError},
    operation::get_secret_value::GetSecretValueError,
};
use serde::Deserialize;
use serde_json::{Map, Value};
use shared::{
    config::{self, Env},
    random, token,
};

use crate::rotation::{self, Order, Rotations, What};

const SIGN_IN: &str = "SIGN_IN_SECRET_ARN";
const SIGNUP: &str = "SIGNUP_SECRET_ARN";

/// Members of both secrets, with the same value.
const COMMON: [&str; 2] = [PEPPER, "EDGE_SECRET"];

pub const PEPPER: &str = "OTP_PEPPER";
pub const PRIVATE_KEY: &str = "TOKEN_PRIVATE_KEY";
pub const PUBLIC_KEYS: &str = "TOKEN_PUBLIC_KEYS";

/// The longest that one call takes, retries included.
const TIMEOUT: Duration = Duration::from_secs(10);

/// The secrets of the functions.
pub struct Secrets {
    /// The ARN of the one that `verify` and `session` read.
    sign_in: String,
    /// The ARN of the one that `signup` reads.
    signup: String,
}

/// The database's login. No `Debug`.
#[derive(Deserialize)]
pub struct Login {
    pub username: String,
    pub password: String,
}

/// A secret that cannot be used, or was not written.
#[derive(Debug, thiserror::Error)]
pub enum SecretsError {
    #[error("{0} cannot be read")]
    Read(String, #[source] Box<SdkError<GetSecretValueError>>),
    #[error("{0} has no value")]
    Empty(String),
    #[error("{0} is not a JSON object with username and password")]
    NoLogin(String),
    #[error("{0} is not a JSON object")]
    NotAnObject(String),
    #[error("{0} is not a text in a secret that holds it")]
    NotAText(&'static str),
    /// Nothing says which one is in use.
    #[error("{SIGN_IN} and {SIGNUP} hold a different {0}")]
    Different(&'static str),
    #[error("{SIGN_IN} holds a {PRIVATE_KEY} that signs no tokens")]
    BadKey,
    #[error("no key could be made")]
    NoKey,
    #[error("{SIGN_IN} holds no {0}; a setup adds what is missing")]
    NotSetUp(&'static str),
    #[error("{SIGN_IN} holds a ROTATION that cannot be read")]
    BadRotation,
    /// The service's code alone: its message could quote the value.
    #[error("{0} cannot be written: {1}")]
    Write(String, String),
}

/// The members of a secret.
pub type Members = Map<String, Value>;

impl Secrets {
    /// Reads `SIGN_IN_SECRET_ARN` and `SIGNUP_SECRET_ARN`: both or neither.
    pub fn from_env(env: &Env) -> Result<Option<Self>, config::Error> {
        match (env.text(SIGN_IN), env.text(SIGNUP)) {
            (None, None) => Ok(None),
            (Some(sign_in), Some(signup)) => Ok(Some(Self {
                sign_in: sign_in.to_owned(),
                signup: signup.to_owned(),
            })),
            (None, Some(_)) => Err(config::Error::Missing(SIGN_IN)),
            (Some(_), None) => Err(config::Error::Missing(SIGNUP)),
        }
    }

    /// Adds the keys that the secrets lack. A run that was stopped in between is completed by the
    /// next one. Two must not run at the same time.
    pub async fn complete(&self) -> Result<(), SecretsError> {
        let client = client().await;
        let old = self.read_both(&client).await?;
        let (mut sign_in, mut signup) = old.clone();
        complete(&mut sign_in, &mut signup)?;
        self.write_changed(&client, &old, (sign_in, signup)).await
    }

    /// Tells if a rotation is under way.
    pub async fn is_rotating(&self) -> Result<bool, SecretsError> {
        let sign_in = read_members(&client().await, &self.sign_in).await?;
        let is_under_way = What::ALL.map(|what| rotation::is_under_way(&sign_in, what));
        is_under_way
            .into_iter()
            .try_fold(false, |any, one| Ok(any || one?))
    }

    /// Takes the steps of rotations that are due at `now`, and those of an order. As
    /// [`complete`](Self::complete), the next run completes it, and two must not run at the same
    /// time.
    pub async fn rotate(
        &self,
        order: Option<Order>,
        now: SystemTime,
    ) -> Result<Rotations, SecretsError> {
        let client = client().await;
        let old = self.read_both(&client).await?;
        let (mut sign_in, mut signup) = old.clone();
        let rotations = rotation::advance(&mut sign_in, &mut signup, order, now)?;
        let advanced = (sign_in, signup);
        self.write_changed(&client, &old, advanced.clone()).await?;
        let mut ended = advanced.clone();
        rotation::forget_ended(&mut ended.0)?;
        self.write_changed(&client, &advanced, ended).await?;
        Ok(rotations)
    }

    async fn read_both(&self, client: &Client) -> Result<(Members, Members), SecretsError> {
        let sign_in = read_members(client, &self.sign_in).await?;
        let signup = read_members(client, &self.signup).await?;
        Ok((sign_in, signup))
    }

    /// In this order, `verify` knows the pepper before `signup` uses it.
    async fn write_changed(
        &self,
        client: &Client,
        old: &(Members, Members),
        new: (Members, Members),
    ) -> Result<(), SecretsError> {
        for (arn, old, new) in [
            (&self.sign_in, &old.0, new.0),
            (&self.signup, &old.1, new.1),
        ] {
            if *old != new {
                write(client, arn, new).await?;
                tracing::info!(secret = arn, "secret written");
            }
        }
        Ok(())
    }
}

/// Reads the database's login from a secret in the form that RDS makes.
pub async fn login(arn: &str) -> Result<Login, SecretsError> {
    let text = read(&client().await, arn).await?;
    let text = text.ok_or_else(|| SecretsError::Empty(arn.to_owned()))?;
    // serde's errors would quote the secret.
    serde_json::from_str(&text).map_err(|_| SecretsError::NoLogin(arn.to_owned()))
}

/// Makes what is missing; what one of the two holds goes to the other.
fn complete(sign_in: &mut Members, signup: &mut Members) -> Result<(), SecretsError> {
    let is_rotating = rotation::is_under_way(sign_in, What::Pepper)?;
    for name in COMMON {
        let value = match (text(sign_in, name)?, text(signup, name)?) {
            // A rotation stopped between the two secrets, and its next run completes it.
            (Some(one), Some(other)) if one != other && name == PEPPER && is_rotating => continue,
            (Some(one), Some(other)) if one != other => return Err(SecretsError::Different(name)),
            (Some(value), _) | (None, Some(value)) => value.to_owned(),
            (None, None) => new_pepper(),
        };
        for members in [&mut *sign_in, &mut *signup] {
            members.insert(name.to_owned(), value.clone().into());
        }
    }
    let private_key = match text(sign_in, PRIVATE_KEY)? {
        Some(key) => key.to_owned(),
        None => token::new_private_key().map_err(|_| SecretsError::NoKey)?,
    };
    if text(signup, PUBLIC_KEYS)?.is_none() {
        let own = token::public_key_of(&private_key).ok_or(SecretsError::BadKey)?;
        let others = text(sign_in, PUBLIC_KEYS)?.unwrap_or_default();
        signup.insert(PUBLIC_KEYS.to_owned(), [&own, others].concat().into());
    }
    sign_in.insert(PRIVATE_KEY.to_owned(), private_key.into());
    Ok(())
}

/// A member; `None` if it is missing or empty, which counts as unset everywhere.
pub fn text<'a>(members: &'a Members, name: &'static str) -> Result<Option<&'a str>, SecretsError> {
    match members.get(name) {
        None => Ok(None),
        Some(Value::String(text)) => Ok(Some(text.as_str()).filter(|text| !text.is_empty())),
        Some(_) => Err(SecretsError::NotAText(name)),
    }
}

/// A member that a setup has added.
pub fn required<'a>(sign_in: &'a Members, name: &'static str) -> Result<&'a str, SecretsError> {
    text(sign_in, name)?.ok_or(SecretsError::NotSetUp(name))
}

/// 64 random hexadecimal digits.
pub fn new_pepper() -> String {
    [random::id(), random::id()].concat()
}

async fn client() -> Client {
    let aws = aws_config::load_defaults(BehaviorVersion::latest()).await;
    let timeouts = TimeoutConfig::builder().operation_timeout(TIMEOUT).build();
    let config = aws_sdk_secretsmanager::config::Builder::from(&aws).timeout_config(timeouts);
    Client::from_conf(config.build())
}

/// No members, if the secret has no value yet.
async fn read_members(client: &Client, arn: &str) -> Result<Members, SecretsError> {
    let Some(text) = read(client, arn).await? else {
        return Ok(Members::new());
    };
    serde_json::from_str(&text).map_err(|_| SecretsError::NotAnObject(arn.to_owned()))
}

/// `None` if the secret has no value yet. A secret of bytes counts as an empty text, which nobody
/// takes for an object.
async fn read(client: &Client, arn: &str) -> Result<Option<String>, SecretsError> {
    match Box::pin(client.get_secret_value().secret_id(arn).send()).await {
        Ok(reply) => Ok(Some(reply.secret_string.unwrap_or_default())),
        // Or if there is no such secret: then writing fails.
        Err(error)
            if error
                .as_service_error()
                .is_some_and(GetSecretValueError::is_resource_not_found_exception) =>
        {
            Ok(None)
        }
        Err(error) => Err(SecretsError::Read(arn.to_owned(), error.into())),
    }
}

async fn write(client: &Client, arn: &str, members: Members) -> Result<(), SecretsError> {
    let text = Value::Object(members).to_string();
    let put = client.put_secret_value().secret_id(arn).secret_string(text);
    Box::pin(put.send()).await.map_err(|error| {
        let cause = error.as_service_error().and_then(|error| error.code());
        SecretsError::Write(arn.to_owned(), cause.unwrap_or("no response").to_owned())
    })?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn members(value: &Value) -> Members {
        value.as_object().unwrap().clone()
    }

    #[test]
    fn what_is_missing_is_made_and_what_exists_is_kept() {
        let key = token::new_private_key().unwrap();
        let public_key = token::public_key_of(&key).unwrap();
        for (sign_in, signup) in [
            (json!({}), json!({})),
            (json!({"OTP_PEPPER": "p"}), json!({})),
            (json!({}), json!({"OTP_PEPPER": "p", "EDGE_SECRET": ""})),
            (
                json!({"EDGE_SECRET": "e", "DATABASE_URL": "d"}),
                json!({"OTP_PEPPER": "p", "TWILIO_AUTH_TOKEN": "t"}),
            ),
            (
                json!({"OTP_PEPPER": "p", "EDGE_SECRET": "e", "TOKEN_PRIVATE_KEY": key}),
                json!({"OTHER": 1}),
            ),
            (
                json!({"TOKEN_PRIVATE_KEY": key, "TOKEN_PUBLIC_KEYS": public_key}),
                json!({}),
            ),
            (
                json!({"TOKEN_PRIVATE_KEY": "unreadable"}),
                json!({"TOKEN_PUBLIC_KEYS": public_key}),
            ),
        ] {
            let (mut new_sign_in, mut new_signup) = (members(&sign_in), members(&signup));
            complete(&mut new_sign_in, &mut new_signup).unwrap();
            for (old, new) in [(&sign_in, &new_sign_in), (&signup, &new_signup)] {
                for (name, value) in old.as_object().unwrap() {
                    assert!(new[name] == *value || value == "", "{name}");
                }
            }
            for name in COMMON {
                assert_eq!(new_sign_in[name], new_signup[name], "{name}");
                assert_ne!(new_sign_in[name], "");
            }
            assert!(new_sign_in.contains_key(PRIVATE_KEY));
            assert!(
                new_signup[PUBLIC_KEYS]
                    .as_str()
                    .unwrap()
                    .starts_with("-----BEGIN PUBLIC")
            );
            assert!(!new_signup.contains_key(PRIVATE_KEY));
            let (sign_in, signup) = (new_sign_in.clone(), new_signup.clone());
            complete(&mut new_sign_in, &mut new_signup).unwrap();
            assert_eq!((new_sign_in, new_signup), (sign_in, signup));
        }
    }

    #[test]
    fn keys_are_random_and_long_enough() {
        let made = || {
            let (mut sign_in, mut signup) = (Members::new(), Members::new());
            complete(&mut sign_in, &mut signup).unwrap();
            sign_in
        };
        let (one, other) = (made(), made());
        for name in COMMON {
            let value = one[name].as_str().unwrap();
            assert!(value.len() == 64 && value.bytes().all(|byte| byte.is_ascii_hexdigit()));
        }
        assert_eq!(one.len(), 3);
        assert!(one.iter().all(|(name, value)| other[name] != *value));
        assert_ne!(one["OTP_PEPPER"], one["EDGE_SECRET"]);
    }

    #[test]
    fn what_cannot_be_completed_is_named_and_not_echoed() {
        let mut sign_in = members(&json!({"OTP_PEPPER": "hunter2"}));
        let mut signup = members(&json!({"OTP_PEPPER": "hunter3"}));
        let error = complete(&mut sign_in, &mut signup).unwrap_err().to_string();
        assert_eq!(
            error,
            "SIGN_IN_SECRET_ARN and SIGNUP_SECRET_ARN hold a different OTP_PEPPER"
        );
        let mut bad_key = members(&json!({"TOKEN_PRIVATE_KEY": "hunter2"}));
        let error = complete(&mut bad_key, &mut Members::new()).unwrap_err();
        assert_eq!(
            error.to_string(),
            "SIGN_IN_SECRET_ARN holds a TOKEN_PRIVATE_KEY that signs no tokens"
        );
        let mut number = members(&json!({"OTP_PEPPER": 42}));
        let error = complete(&mut number, &mut Members::new()).unwrap_err();
        assert!(matches!(error, SecretsError::NotAText("OTP_PEPPER")));
    }
}
