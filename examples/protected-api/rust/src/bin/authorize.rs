//! The Lambda authorizer of a REST API: lets requests with a valid access token through.
//!
//! `TOKEN_ISSUER` and `TOKEN_AUDIENCE` say who signs the tokens, and for whom.

use std::{
    env,
    time::{Duration, Instant},
};

use jsonwebtoken::{
    Algorithm, DecodingKey, Validation, decode, decode_header,
    jwk::{JwkSet, KeyAlgorithm},
};
use lambda_http::{
    aws_lambda_events::apigw::ApiGatewayCustomAuthorizerRequest,
    lambda_runtime::{Error, LambdaEvent, run, service_fn},
};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::Mutex;

/// The time for which the keys are cached.
const KEYS_LIFETIME: Duration = Duration::from_mins(5);

struct Authorizer {
    keys_url: String,
    http: reqwest::Client,
    validation: Validation,
    keys: Mutex<Option<Keys>>,
}

struct Keys {
    set: JwkSet,
    fetched_at: Instant,
}

#[derive(Deserialize)]
struct Claims {
    sub: String,
    sid: String,
}

#[tokio::main]
async fn main() -> Result<(), Error> {
    let authorizer = Authorizer::from_env()?;
    run(service_fn(
        |event: LambdaEvent<ApiGatewayCustomAuthorizerRequest>| authorizer.authorize(event.payload),
    ))
    .await
}

impl Authorizer {
    fn from_env() -> Result<Self, Error> {
        let issuer = env::var("TOKEN_ISSUER")?;
        let mut validation = Validation::default();
        validation.set_required_spec_claims(&["iss", "sub", "aud", "exp"]);
        validation.set_issuer(&[&issuer]);
        validation.set_audience(&[env::var("TOKEN_AUDIENCE")?]);
        validation.validate_nbf = true;
        validation.leeway = 30;
        Ok(Self {
            keys_url: format!("{issuer}/.well-known/jwks.json"),
            http: reqwest::Client::builder()
                .timeout(Duration::from_secs(3))
                .build()?,
            validation,
            keys: Mutex::new(None),
        })
    }

    async fn authorize(&self, event: ApiGatewayCustomAuthorizerRequest) -> Result<Value, Error> {
        let mut keys = self.keys.lock().await;
        if keys.as_ref().is_none_or(Keys::are_old) {
            // Without keys the token may be good: API Gateway responds with a 500.
            *keys = Some(self.fetch_keys().await?);
        }
        let keys = keys.as_ref().ok_or("no keys")?;
        let authorization = event.authorization_token.unwrap_or_default();
        let claims = self.verify(&authorization, &keys.set).map_err(|error| {
            eprintln!("{error}");
            // By this text API Gateway knows to respond with a 401.
            "Unauthorized"
        })?;
        Ok(json!({
            "principalId": claims.sub,
            "policyDocument": {
                "Version": "2012-10-17",
                "Statement": [{
                    "Action": "execute-api:Invoke",
                    "Effect": "Allow",
                    "Resource": event.method_arn,
                }],
            },
            // The function finds it in the request's context.
            "context": {"sub": claims.sub, "sid": claims.sid},
        }))
    }

    async fn fetch_keys(&self) -> Result<Keys, reqwest::Error> {
        let response = self.http.get(&self.keys_url).send().await?;
        Ok(Keys {
            set: response.error_for_status()?.json().await?,
            fetched_at: Instant::now(),
        })
    }

    /// The claims of the token in the header `Authorization`.
    fn verify(&self, authorization: &str, keys: &JwkSet) -> Result<Claims, Error> {
        let (scheme, token) = authorization.split_once(' ').unwrap_or_default();
        if !scheme.eq_ignore_ascii_case("bearer") {
            return Err("not a bearer token".into());
        }
        let header = decode_header(token)?;
        if header.typ.as_deref() != Some("at+jwt") {
            return Err("not an access token".into());
        }
        let kid = header.kid.unwrap_or_default();
        let key = keys.find(&kid).ok_or("an unknown key")?;
        let mut validation = self.validation.clone();
        // The key decides, and not the token.
        validation.algorithms = vec![match key.common.key_algorithm {
            Some(KeyAlgorithm::RS256) => Algorithm::RS256,
            Some(KeyAlgorithm::ES256) => Algorithm::ES256,
            _ => return Err("a key of another kind".into()),
        }];
        Ok(decode(token, &DecodingKey::from_jwk(key)?, &validation)?.claims)
    }
}

impl Keys {
    fn are_old(&self) -> bool {
        self.fetched_at.elapsed() > KEYS_LIFETIME
    }
}
