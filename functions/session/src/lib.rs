//! The routes of a session: refresh, logout, and the public keys under `/.well-known/*`. Those
//! behind an access token, `/me` and below, are in [`account`].

mod account;

use std::{sync::Arc, time::SystemTime};

use lambda_http::{
    Body, Request, Response,
    http::{Method, StatusCode},
};
use serde::{Deserialize, Serialize};
use shared::{
    api::{self, BadRequest, Failure, Success},
    config::{self, Deadlines, Env},
    lambda::Function,
    sessions::{Refresh, RefreshToken, Sessions, Tokens},
    store::{Postgres, StoreError},
    telemetry::{Count, RequestLog},
    token::{Signer, Verifier},
    users::Users,
};

/// The function `session`.
pub struct Session {
    postgres: Arc<Postgres>,
    users: Users,
    sessions: Sessions,
    signer: Signer,
    verifier: Verifier,
    deadlines: Deadlines,
}

#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct RefreshRequest {
    refresh_token: String,
}

#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct LogoutRequest {
    refresh_token: String,
    /// Ends all sessions of the token's user.
    everywhere: bool,
}

#[derive(Serialize)]
struct Refreshed {
    success: bool,
    tokens: Tokens,
}

#[derive(Serialize)]
struct LoggedOut {
    success: bool,
    message: &'static str,
}

/// A failed refresh or logout.
#[derive(Debug, thiserror::Error)]
enum Error {
    #[error("unreadable request")]
    BadRequest(#[from] BadRequest),
    #[error("no refresh token")]
    MissingField,
    /// Not a refresh token of ours, or its session is over.
    #[error("no such session")]
    InvalidToken,
    #[error("an older refresh token was used, the session is over")]
    ReusedToken,
    #[error("a store failed")]
    Store(#[from] StoreError),
}

impl Function for Session {
    const SECRETS: &[&str] = &[
        "DATABASE_URL",
        "OTP_PEPPER",
        "TOKEN_PRIVATE_KEY",
        "TOKEN_PUBLIC_KEYS",
    ];

    /// Reads what its parts read.
    fn from_env(env: &Env) -> Result<Self, config::Error> {
        let deadlines = Deadlines::from_env(env)?;
        let postgres = Arc::new(Postgres::from_env(env, deadlines.store)?);
        let signer = Signer::from_env(env)?;
        Ok(Self {
            users: Users::new(Arc::clone(&postgres)),
            sessions: Sessions::from_env(env, Arc::clone(&postgres))?,
            postgres,
            verifier: Verifier::beside(&signer, env)?,
            signer,
            deadlines,
        })
    }

    async fn connect(&self) {
        self.sessions.connect().await;
    }

    async fn handle(&self, request: Request) -> Response<Body> {
        api::respond(&request, async |log| {
            let (path, id) = split_id(api::path(&request));
            match (request.method(), path) {
                (&Method::POST, "/token/refresh") => {
                    Ok(self.refresh(&request, log.route("/token/refresh")).await?)
                }
                (&Method::POST, "/logout") => {
                    Ok(self.log_out(&request, log.route("/logout")).await?)
                }
                (&Method::GET, "/me") => Ok(self.me(&request, log.route("/me")).await?),
                (&Method::PATCH, "/me") => Ok(self.rename(&request, log.route("/me")).await?),
                (&Method::DELETE, "/me") => Ok(self.delete(&request, log.route("/me")).await?),
                (&Method::GET, "/me/sessions") => {
                    Ok(self.sessions(&request, log.route("/me/sessions")).await?)
                }
                (&Method::DELETE, SESSION) => {
                    Ok(self.end_session(&request, id, log.route(SESSION)).await?)
                }
                (&Method::GET, "/.well-known/jwks.json") => {
                    log.route("/.well-known/jwks.json");
                    Ok(Success::new("published", &self.verifier.key_set()).cacheable())
                }
                (&Method::GET, "/.well-known/openid-configuration") => {
                    log.route("/.well-known/openid-configuration");
                    Ok(Success::new("published", &self.verifier.metadata()).cacheable())
                }
                (_, "/token/refresh" | "/logout") => Err(Failure::method_not_allowed("POST")),
                (_, "/me") => Err(Failure::method_not_allowed("GET, PATCH, DELETE")),
                (_, SESSION) => Err(Failure::method_not_allowed("DELETE")),
                (
                    _,
                    "/me/sessions" | "/.well-known/jwks.json" | "/.well-known/openid-configuration",
                ) => Err(Failure::method_not_allowed("GET")),
                _ => Err(Failure::not_found()),
            }
        })
        .await
    }

    async fn close(&self) {
        self.postgres.close().await;
    }
}

impl Session {
    async fn refresh(&self, request: &Request, log: &mut RequestLog) -> Result<Success, Error> {
        let deadline = api::deadline(request, self.deadlines.request);
        let RefreshRequest { refresh_token } = api::read_json(request)?;
        let token = parse(&refresh_token)?.ok_or(Error::InvalidToken)?;
        let refresh = self.sessions.refresh(&token, deadline);
        match log.postgres(refresh).await? {
            Refresh::Refreshed {
                user_id,
                auth_time,
                successor,
            } => {
                #[expect(clippy::disallowed_methods, reason = "the edge of a request")]
                let now = SystemTime::now();
                let tokens = Tokens::new(&self.signer, user_id, auth_time, &successor, now);
                let success = true;
                Ok(Success::new("refreshed", &Refreshed { success, tokens }))
            }
            Refresh::Reused => {
                log.count(Count::ReusedToken);
                Err(Error::ReusedToken)
            }
            Refresh::Absent => Err(Error::InvalidToken),
        }
    }

    async fn log_out(&self, request: &Request, log: &mut RequestLog) -> Result<Success, Error> {
        let deadline = api::deadline(request, self.deadlines.request);
        let body: LogoutRequest = api::read_json(request)?;
        match parse(&body.refresh_token)? {
            Some(token) if body.everywhere => {
                log.postgres(self.sessions.end_all(&token, deadline))
                    .await?;
            }
            Some(token) => log.postgres(self.sessions.end(&token, deadline)).await?,
            // A text that is no token of ours has no session to end.
            None => {}
        }
        Ok(Success::new(
            "logged_out",
            &LoggedOut {
                success: true,
                message: "Logged out successfully",
            },
        ))
    }
}

/// The route of one session, as the log names it.
const SESSION: &str = "/me/sessions/{id}";

/// The path with `{id}` in the place of a session's id, and the id; any other path as it is.
fn split_id(path: &str) -> (&str, &str) {
    match path.strip_prefix("/me/sessions/") {
        Some(id) if !id.is_empty() && !id.contains('/') => (SESSION, id),
        _ => (path, ""),
    }
}

/// `None` if the text cannot be a token of ours.
fn parse(refresh_token: &str) -> Result<Option<RefreshToken>, Error> {
    if refresh_token.is_empty() {
        return Err(Error::MissingField);
    }
    Ok(RefreshToken::parse(refresh_token))
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let invalid_token = || {
            Self::new(
                StatusCode::UNAUTHORIZED,
                "Invalid or expired token",
                "invalid_token",
            )
        };
        match error {
            Error::BadRequest(bad) => bad.into(),
            Error::MissingField => Self::new(
                StatusCode::BAD_REQUEST,
                "Refresh token is required",
                "missing_field",
            ),
            Error::InvalidToken => invalid_token(),
            Error::ReusedToken => invalid_token().caused_by(&error),
            Error::Store(error) => Self::store(&error, "Service unavailable"),
        }
    }
}
