//! `POST /login`.

use lambda_http::{Request, http::StatusCode};
use serde::Deserialize;
use shared::{
    api::{self, BadRequest, Failure, Success},
    challenge::{ChallengeId, CodeRequest, Purpose},
    store::StoreError,
    telemetry::RequestLog,
};

use crate::{PhoneError, Signup, delivery};

#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Body {
    phone_number: String,
    device_token: String,
    locale: String,
}

/// A login that gets no code.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("unreadable request")]
    BadRequest(#[from] BadRequest),
    #[error("no phone number")]
    MissingField,
    #[error(transparent)]
    Phone(#[from] PhoneError),
    #[error("the number is not registered")]
    UserNotFound,
    #[error("a store failed")]
    Store(#[from] StoreError),
    #[error(transparent)]
    Delivery(#[from] delivery::Error),
}

impl Signup {
    pub(crate) async fn log_in(
        &self,
        request: &Request,
        log: &mut RequestLog,
    ) -> Result<Success, Error> {
        let deadline = api::deadline(request, self.deadlines.request);
        let body: Body = api::read_json(request)?;
        if body.phone_number.is_empty() {
            return Err(Error::MissingField);
        }
        let phone = self.read_phone(&body.phone_number, log)?;
        let code_request = CodeRequest {
            id: ChallengeId::generate(),
            phone: &phone,
            address: &self.edge.client_address(request),
            device: self.devices.recognize(&phone, &body.device_token),
            // Only registered numbers get past the check below.
            is_open_login: self.reveals_registered,
            test_code: self.delivery.test_code(&phone),
            purpose: Purpose::LogIn,
        };
        if self.reveals_registered && !self.is_registered(&phone, deadline, log).await? {
            self.delivery
                .charge_probe(&code_request, deadline, log)
                .await?;
            return Err(Error::UserNotFound);
        }
        let language = api::language(request, &body.locale);
        Ok(self
            .delivery
            .deliver(&code_request, language, deadline, log)
            .await?)
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        match error {
            Error::BadRequest(bad) => bad.into(),
            Error::MissingField => Self::new(
                StatusCode::BAD_REQUEST,
                "Phone number is required",
                "missing_field",
            ),
            Error::Phone(error) => error.into(),
            Error::UserNotFound => {
                Self::new(StatusCode::NOT_FOUND, "User not found", "user_not_found")
            }
            Error::Store(error) => delivery::Error::Store(error).into(),
            Error::Delivery(error) => error.into(),
        }
    }
}
