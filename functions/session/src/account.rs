//! `/me` and below: what the bearer of an access token may see and change. Each statement checks
//! that the token's session is alive.

use lambda_http::{Request, http::StatusCode};
use serde::{Deserialize, Serialize};
use shared::{
    api::{self, BadRequest, Failure, Success, Unauthenticated},
    name::{InvalidName, Name},
    sessions::End,
    store::StoreError,
    telemetry::RequestLog,
    users::Rename,
};

use crate::Session;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RenameRequest {
    #[serde(default)]
    name: String,
    version: i32,
}

#[derive(Serialize)]
struct Data<T> {
    success: bool,
    data: T,
}

#[derive(Serialize)]
struct Done {
    success: bool,
    message: &'static str,
}

/// A failed request to `/me` or below.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error(transparent)]
    Unauthenticated(#[from] Unauthenticated),
    #[error("unreadable request")]
    BadRequest(#[from] BadRequest),
    #[error(transparent)]
    InvalidName(#[from] InvalidName),
    /// The user has another version than the client has seen.
    #[error("the user was changed meanwhile")]
    EditConflict,
    /// No such session of this user, or it was over.
    #[error("no such session")]
    NotFound,
    #[error("a store failed")]
    Store(#[from] StoreError),
}

impl Session {
    pub(crate) async fn me(
        &self,
        request: &Request,
        log: &mut RequestLog,
    ) -> Result<Success, Error> {
        let deadline = api::deadline(request, self.deadlines.request);
        let claims = api::authenticate(request, &self.verifier)?;
        let find = self
            .users
            .of_session(claims.user_id(), claims.session_id(), deadline);
        let user = log
            .postgres(find)
            .await?
            .ok_or(Unauthenticated::SessionOver)?;
        Ok(data("read", user))
    }

    pub(crate) async fn rename(
        &self,
        request: &Request,
        log: &mut RequestLog,
    ) -> Result<Success, Error> {
        let deadline = api::deadline(request, self.deadlines.request);
        let claims = api::authenticate(request, &self.verifier)?;
        let RenameRequest { name, version } = api::read_json(request)?;
        let name = Name::parse(&name)?;
        let (user_id, session_id) = (claims.user_id(), claims.session_id());
        let rename = self
            .users
            .rename(user_id, session_id, &name, version, deadline);
        match log.postgres(rename).await? {
            Rename::Renamed(user) => Ok(data("renamed", user)),
            Rename::Conflict => Err(Error::EditConflict),
            Rename::SessionOver => Err(Unauthenticated::SessionOver.into()),
        }
    }

    pub(crate) async fn delete(
        &self,
        request: &Request,
        log: &mut RequestLog,
    ) -> Result<Success, Error> {
        let deadline = api::deadline(request, self.deadlines.request);
        let claims = api::authenticate(request, &self.verifier)?;
        let delete = self
            .users
            .delete(claims.user_id(), claims.session_id(), deadline);
        if !log.postgres(delete).await? {
            return Err(Unauthenticated::SessionOver.into());
        }
        Ok(done("deleted", "User deleted successfully"))
    }

    pub(crate) async fn sessions(
        &self,
        request: &Request,
        log: &mut RequestLog,
    ) -> Result<Success, Error> {
        let deadline = api::deadline(request, self.deadlines.request);
        let claims = api::authenticate(request, &self.verifier)?;
        let list = self
            .sessions
            .list(claims.user_id(), claims.session_id(), deadline);
        let sessions = log
            .postgres(list)
            .await?
            .ok_or(Unauthenticated::SessionOver)?;
        Ok(data("listed", sessions))
    }

    /// `id` is the path's, as the client wrote it.
    pub(crate) async fn end_session(
        &self,
        request: &Request,
        id: &str,
        log: &mut RequestLog,
    ) -> Result<Success, Error> {
        let deadline = api::deadline(request, self.deadlines.request);
        let claims = api::authenticate(request, &self.verifier)?;
        let (user_id, session_id) = (claims.user_id(), claims.session_id());
        let end = self.sessions.end_own(user_id, session_id, id, deadline);
        match log.postgres(end).await? {
            End::Ended => Ok(done("session_ended", "Session ended")),
            End::Absent => Err(Error::NotFound),
            End::SessionOver => Err(Unauthenticated::SessionOver.into()),
        }
    }
}

fn data(outcome: &'static str, data: impl Serialize) -> Success {
    let success = true;
    Success::new(outcome, &Data { success, data })
}

fn done(outcome: &'static str, message: &'static str) -> Success {
    let success = true;
    Success::new(outcome, &Done { success, message })
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        match error {
            Error::Unauthenticated(refusal) => refusal.into(),
            Error::BadRequest(bad) => bad.into(),
            Error::InvalidName(InvalidName::Empty | InvalidName::Malformed) => {
                Self::new(StatusCode::BAD_REQUEST, "Invalid name", "invalid_name")
            }
            Error::EditConflict => {
                Self::new(StatusCode::CONFLICT, "Edit conflict", "edit_conflict")
            }
            Error::NotFound => Self::not_found(),
            Error::Store(error) => Self::store(&error, "Service unavailable"),
        }
    }
}
