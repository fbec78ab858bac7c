//! Routes behind a bearer token (RFC 6750).
//!
//! Our own routes call [`authenticate`]. Other services of a workspace use [`BearerLayer`]: a
//! service below it takes [`Authenticated`], which only the layer makes. Either way a handler gets
//! [`Claims`] from a valid token and from nowhere else.
//!
//! ```compile_fail,E0451
//! // A handler cannot invent claims.
//! let claims = shared::token::Claims { user_id: 1, session_id: String::new() };
//! ```

use std::{
    future::{Ready, ready},
    ops::Deref,
    sync::Arc,
    task::{Context, Poll},
    time::SystemTime,
};

use futures_util::future::Either;
use lambda_http::{
    Body, Request, Response,
    http::{StatusCode, header::AUTHORIZATION},
    tower::{Layer, Service},
};

use super::{Failure, refuse};
use crate::token::{self, Claims, Verifier};

/// A tower layer that passes requests with a valid access token, and refuses all others. It asks no
/// store, so the token's session may be over.
#[derive(Clone)]
pub struct BearerLayer {
    verifier: Arc<Verifier>,
    route: &'static str,
}

/// A service behind a [`BearerLayer`].
#[derive(Clone)]
pub struct Bearer<S> {
    layer: BearerLayer,
    inner: S,
}

/// A request with the claims of its token.
pub struct Authenticated {
    request: Request,
    claims: Claims,
}

/// A request without a valid access token.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unauthenticated {
    #[error("no bearer token")]
    Missing,
    #[error(transparent)]
    Invalid(#[from] token::Invalid),
    /// The token is valid, but its session was ended or has expired, or its user was deleted.
    #[error("the token's session is over")]
    SessionOver,
}

/// The challenge in `WWW-Authenticate`.
#[derive(Clone, Copy, Debug)]
pub(super) enum Challenge {
    TokenMissing,
    TokenInvalid,
}

impl BearerLayer {
    /// `route` is the protected route, for the log.
    pub fn new(verifier: Arc<Verifier>, route: &'static str) -> Self {
        Self { verifier, route }
    }
}

impl<S> Layer<S> for BearerLayer {
    type Service = Bearer<S>;

    fn layer(&self, inner: S) -> Bearer<S> {
        Bearer {
            layer: self.clone(),
            inner,
        }
    }
}

impl<S> Service<Request> for Bearer<S>
where
    S: Service<Authenticated, Response = Response<Body>>,
{
    type Response = Response<Body>;
    type Error = S::Error;
    type Future = Either<S::Future, Ready<Result<Response<Body>, S::Error>>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request) -> Self::Future {
        let BearerLayer { verifier, route } = &self.layer;
        match authenticate(&request, verifier) {
            Ok(claims) => Either::Left(self.inner.call(Authenticated { request, claims })),
            Err(refusal) => Either::Right(ready(Ok(refuse(&request, route, refusal.into())))),
        }
    }
}

impl Authenticated {
    /// The claims of the request's token.
    pub fn claims(&self) -> &Claims {
        &self.claims
    }
}

impl Deref for Authenticated {
    type Target = Request;

    fn deref(&self) -> &Request {
        &self.request
    }
}

/// The claims of the request's access token. It checks no store: a handler checks the
/// session in its own statement.
#[expect(clippy::disallowed_methods, reason = "the edge of a request")]
pub fn authenticate(request: &Request, verifier: &Verifier) -> Result<Claims, Unauthenticated> {
    let token = request
        .headers()
        .get(AUTHORIZATION)
        .and_then(|value| value.to_str().ok()?.split_once(' '))
        .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("Bearer"))
        .ok_or(Unauthenticated::Missing)?
        .1;
    Ok(verifier.verify(token.trim(), SystemTime::now())?)
}

impl From<Unauthenticated> for Failure {
    fn from(refusal: Unauthenticated) -> Self {
        let failure = Self {
            challenge: Some(match refusal {
                Unauthenticated::Missing => Challenge::TokenMissing,
                Unauthenticated::Invalid(_) | Unauthenticated::SessionOver => {
                    Challenge::TokenInvalid
                }
            }),
            ..Self::new(
                StatusCode::UNAUTHORIZED,
                "Invalid or missing authentication token",
                "unauthenticated",
            )
        };
        failure.caused_by(&refusal)
    }
}

impl Challenge {
    /// A request without a token gets no error code (RFC 6750 §3.1).
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::TokenMissing => r#"Bearer realm="otp-auth""#,
            Self::TokenInvalid => r#"Bearer realm="otp-auth", error="invalid_token""#,
        }
    }
}
