//! `POST /me/phone`: a code to the number that a signed-in user wants to have.

use lambda_http::{Request, http::StatusCode};
use serde::Deserialize;
use shared::{
    api::{self, BadRequest, Failure, Success, Unauthenticated},
    challenge::{ChallengeId, CodeRequest, Purpose},
    store::StoreError,
    telemetry::RequestLog,
};

use crate::{PhoneError, Signup, delivery};

#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Body {
    phone_number: String,
    locale: String,
}

/// A change of number that gets no code.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error(transparent)]
    Unauthenticated(#[from] Unauthenticated),
    #[error("unreadable request")]
    BadRequest(#[from] BadRequest),
    #[error("no phone number")]
    MissingField,
    #[error(transparent)]
    Phone(#[from] PhoneError),
    #[error("the number is registered")]
    UserExists,
    #[error("a store failed")]
    Store(#[from] StoreError),
    #[error(transparent)]
    Delivery(#[from] delivery::Error),
}

impl Signup {
    pub(crate) async fn change_phone(
        &self,
        request: &Request,
        log: &mut RequestLog,
    ) -> Result<Success, Error> {
        let deadline = api::deadline(request, self.deadlines.request);
        let claims = api::authenticate(request, &self.verifier)?;
        let body: Body = api::read_json(request)?;
        if body.phone_number.is_empty() {
            return Err(Error::MissingField);
        }
        let phone = self.read_phone(&body.phone_number, log)?;
        let (user_id, session_id) = (claims.user_id(), claims.session_id());
        let mover = self.users.mover(user_id, session_id, &phone, deadline);
        let mover = (log.postgres(mover).await?).ok_or(Unauthenticated::SessionOver)?;
        let code_request = CodeRequest {
            id: ChallengeId::generate(),
            phone: &phone,
            address: &self.edge.client_address(request),
            device: None,
            is_open_login: false,
            test_code: self.delivery.test_code(&phone),
            purpose: Purpose::ChangePhone { user_id },
        };
        if self.reveals_registered && mover.is_taken {
            self.delivery
                .charge_probe(&code_request, deadline, log)
                .await?;
            return Err(Error::UserExists);
        }
        let language = api::language(request, &body.locale);
        let deliver = (self.delivery).deliver(&code_request, language, deadline, log);
        let sent = deliver.await?;
        // What the table holds was parsed before.
        if let Ok(old) = self.phones.parse(&mover.phone_number)
            && old != phone
            && self.send_policy.check(&old).is_ok()
        {
            self.delivery.warn(&old, language, deadline, log).await;
        }
        Ok(sent)
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        match error {
            Error::Unauthenticated(refusal) => refusal.into(),
            Error::BadRequest(bad) => bad.into(),
            Error::MissingField => Self::new(
                StatusCode::BAD_REQUEST,
                "Phone number is required",
                "missing_field",
            ),
            Error::Phone(error) => error.into(),
            Error::UserExists => Self::new(
                StatusCode::CONFLICT,
                "User already exists with the given phone number",
                "user_exists",
            ),
            Error::Store(error) => delivery::Error::Store(error).into(),
            Error::Delivery(error) => error.into(),
        }
    }
}
