//! `POST /signup`.

use lambda_http::{Request, http::StatusCode};
use serde::Deserialize;
use shared::{
    api::{self, BadRequest, Failure, Success},
    challenge::{ChallengeId, CodeRequest, Purpose},
    name::{InvalidName, Name},
    store::StoreError,
    telemetry::RequestLog,
};

use crate::{PhoneError, Signup, delivery};

#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Body {
    name: String,
    phone_number: String,
    device_token: String,
    locale: String,
}

/// A sign-up that gets no code.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("unreadable request")]
    BadRequest(#[from] BadRequest),
    #[error("a field is missing")]
    MissingField,
    #[error("not a name")]
    InvalidName,
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
    pub(crate) async fn sign_up(
        &self,
        request: &Request,
        log: &mut RequestLog,
    ) -> Result<Success, Error> {
        let deadline = api::deadline(request, self.deadlines.request);
        let body: Body = api::read_json(request)?;
        if body.name.is_empty() || body.phone_number.is_empty() {
            return Err(Error::MissingField);
        }
        let name = Name::parse(&body.name)?;
        let phone = self.read_phone(&body.phone_number, log)?;
        let code_request = CodeRequest {
            id: ChallengeId::generate(),
            phone: &phone,
            address: &self.edge.client_address(request),
            device: self.devices.recognize(&phone, &body.device_token),
            is_open_login: false,
            test_code: self.delivery.test_code(&phone),
            purpose: if self.reveals_registered {
                Purpose::SignUp(name)
            } else {
                Purpose::SignUpOrLogIn(name)
            },
        };
        if self.reveals_registered && self.is_registered(&phone, deadline, log).await? {
            self.delivery
                .charge_probe(&code_request, deadline, log)
                .await?;
            return Err(Error::UserExists);
        }
        let language = api::language(request, &body.locale);
        Ok(self
            .delivery
            .deliver(&code_request, language, deadline, log)
            .await?)
    }
}

impl From<InvalidName> for Error {
    fn from(invalid: InvalidName) -> Self {
        match invalid {
            InvalidName::Empty => Self::MissingField,
            InvalidName::Malformed => Self::InvalidName,
        }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        match error {
            Error::BadRequest(bad) => bad.into(),
            Error::MissingField => Self::new(
                StatusCode::BAD_REQUEST,
                "Name and phone number are required",
                "missing_field",
            ),
            Error::InvalidName => {
                Self::new(StatusCode::BAD_REQUEST, "Invalid name", "invalid_name")
            }
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
