//! A right code for a change of number: the user of the access token gets the number.

use lambda_http::Request;
use serde::Serialize;
use shared::{
    api::{self, Success},
    challenge::Matched,
    device::DeviceId,
    phone::PhoneNumber,
    telemetry::RequestLog,
    users::{ChangePhone, User},
};
use tokio::time::Instant;

use crate::{Error, Verify};

/// The session stays, so there are no new tokens.
#[derive(Serialize)]
struct Body {
    success: bool,
    message: &'static str,
    data: User,
    device_token: String,
}

impl Verify {
    /// `user_id` is the user who requested the code.
    pub(crate) async fn change_phone(
        &self,
        request: &Request,
        user_id: i64,
        matched: &Matched,
        phone: &PhoneNumber,
        deadline: Instant,
        log: &mut RequestLog,
    ) -> Result<Success, Error> {
        let claims = api::authenticate(request, &self.verifier)?;
        if claims.user_id() != user_id {
            return Err(Error::Expired);
        }
        let session_id = claims.session_id();
        let change =
            self.users
                .change_phone(user_id, session_id, &matched.code_id, phone, deadline);
        let user = match log.postgres(change).await? {
            ChangePhone::Changed(user) => user,
            ChangePhone::ChallengeUsed => return Err(Error::Expired),
            ChangePhone::PhoneTaken => return Err(Error::UserExists),
            ChangePhone::SessionOver => return Err(api::Unauthenticated::SessionOver.into()),
        };
        let body = Body {
            success: true,
            message: "Phone number changed successfully",
            data: user,
            device_token: self.devices.token(phone, &DeviceId::generate()),
        };
        Ok(Success::new("phone_changed", &body))
    }
}
