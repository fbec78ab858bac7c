//! Everything after verification: tokens are refreshed and given back, `/me` answers who one is, and
//! `/.well-known/*` publishes the keys.

use std::{convert::Infallible, sync::Arc, time::SystemTime};

use lambda_http::{
    Body, Request, Response,
    http::{Method, StatusCode},
    service_fn,
    tower::{Layer, ServiceExt},
};
use serde::{Deserialize, Serialize};
use shared::{
    api::{self, Authenticated, BadRequest, BearerLayer, Failure, Success, Unauthenticated},
    config::{self, Deadlines, Env},
    connect::{Postgres, StoreError},
    sessions::{Refresh, RefreshToken, Sessions, Tokens},
    telemetry::{Count, Report},
    token::{Signer, Verifier},
    users::{User, Users},
};

/// What sessions need, opened once at start.
pub struct Session {
    users: Users,
    sessions: Sessions,
    signer: Signer,
    verifier: Arc<Verifier>,
    deadlines: Deadlines,
}

#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct TokenRequest {
    refresh_token: String,
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

#[derive(Serialize)]
struct Me {
    success: bool,
    data: User,
}

/// The ways in which nothing is given.
#[derive(Debug, thiserror::Error)]
enum Error {
    #[error("unreadable request")]
    BadRequest(#[from] BadRequest),
    #[error("no refresh token")]
    MissingField,
    /// No refresh token of ours, or of a session that is over.
    #[error("no such session")]
    InvalidToken,
    #[error("an older refresh token came back, the session is over")]
    ReusedToken,
    #[error(transparent)]
    Unauthenticated(#[from] Unauthenticated),
    #[error("a store failed")]
    Store(#[from] StoreError),
}

impl Session {
    pub fn from_env(env: &Env) -> Result<Self, config::Error> {
        let deadlines = Deadlines::from_env(env)?;
        let postgres = Arc::new(Postgres::from_env(env, deadlines.store)?);
        let signer = Signer::from_env(env)?;
        Ok(Self {
            users: Users::new(Arc::clone(&postgres)),
            sessions: Sessions::from_env(env, postgres)?,
            verifier: Arc::new(Verifier::from_env(env, &signer)?),
            signer,
            deadlines,
        })
    }

    /// Opens the connection ahead of the first request.
    pub async fn connect(&self) {
        self.users.connect().await;
    }

    /// Closes what a server would miss.
    pub async fn close(&self) {
        self.users.close().await;
    }

    /// Answers one request. It never fails: what goes wrong is an answer too.
    pub async fn handle(&self, request: Request) -> Response<Body> {
        if (request.method(), api::path(&request)) == (&Method::GET, "/me") {
            return self.handle_me(request).await;
        }
        api::answer(&request, async |report| {
            match (request.method(), api::path(&request)) {
                (&Method::POST, "/token/refresh") => {
                    Ok(self.refresh(&request, report.on("/token/refresh")).await?)
                }
                (&Method::POST, "/logout") => {
                    Ok(self.log_out(&request, report.on("/logout")).await?)
                }
                (&Method::GET, "/.well-known/jwks.json") => {
                    report.on("/.well-known/jwks.json");
                    Ok(Success::new("published", &self.verifier.key_set()).cacheable())
                }
                (&Method::GET, "/.well-known/openid-configuration") => {
                    report.on("/.well-known/openid-configuration");
                    Ok(Success::new("published", &self.verifier.metadata()).cacheable())
                }
                (_, "/token/refresh" | "/logout") => Err(Failure::method_not_allowed("POST")),
                (_, "/me" | "/.well-known/jwks.json" | "/.well-known/openid-configuration") => {
                    Err(Failure::method_not_allowed("GET"))
                }
                _ => Err(Failure::not_found()),
            }
        })
        .await
    }

    /// `GET /me`, behind a bearer token.
    async fn handle_me(&self, request: Request) -> Response<Body> {
        let bearer = BearerLayer::new(Arc::clone(&self.verifier), "/me");
        let me = service_fn(async |request: Authenticated| {
            let answer = api::answer(&request, async |report| {
                Ok(self.me(&request, report.on("/me")).await?)
            });
            Ok::<_, Infallible>(answer.await)
        });
        let Ok(response) = bearer.layer(me).oneshot(request).await;
        response
    }

    async fn refresh(&self, request: &Request, report: &mut Report) -> Result<Success, Error> {
        let deadline = api::deadline(request, self.deadlines.request);
        let token = RefreshToken::parse(&read_token(request)?).ok_or(Error::InvalidToken)?;
        let refresh = self.sessions.refresh(&token, deadline);
        match report.postgres(refresh).await? {
            Refresh::Refreshed {
                user_id,
                auth_time,
                successor,
            } => {
                let now = SystemTime::now();
                let tokens = Tokens::new(&self.signer, user_id, auth_time, &successor, now);
                let success = true;
                Ok(Success::new("refreshed", &Refreshed { success, tokens }))
            }
            Refresh::Reused => {
                report.count(Count::ReusedToken);
                Err(Error::ReusedToken)
            }
            Refresh::Absent => Err(Error::InvalidToken),
        }
    }

    async fn log_out(&self, request: &Request, report: &mut Report) -> Result<Success, Error> {
        let deadline = api::deadline(request, self.deadlines.request);
        // What cannot be one of our tokens has no session to end.
        if let Some(token) = RefreshToken::parse(&read_token(request)?) {
            report.postgres(self.sessions.end(&token, deadline)).await?;
        }
        Ok(Success::new(
            "logged_out",
            &LoggedOut {
                success: true,
                message: "Logged out successfully",
            },
        ))
    }

    async fn me(&self, request: &Authenticated, report: &mut Report) -> Result<Success, Error> {
        let deadline = api::deadline(request, self.deadlines.request);
        let claims = request.claims();
        let find = self
            .users
            .of_session(claims.user_id(), claims.session_id(), deadline);
        let data = report
            .postgres(find)
            .await?
            .ok_or(Unauthenticated::SessionOver)?;
        let success = true;
        Ok(Success::new("read", &Me { success, data }))
    }
}

fn read_token(request: &Request) -> Result<String, Error> {
    let TokenRequest { refresh_token } = api::read_json(request)?;
    if refresh_token.is_empty() {
        return Err(Error::MissingField);
    }
    Ok(refresh_token)
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
            Error::Unauthenticated(refusal) => refusal.into(),
            Error::Store(error) => Self::store(&error, "Service unavailable"),
        }
    }
}
