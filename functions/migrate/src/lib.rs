//! Sets up a deployment: the schema from the files of `migrations/`, which are compiled in, the
//! secrets of the functions, and their roles in the database. Also rotates keys, deletes old rows,
//! and checks the account's SMS set-up, which needs no database.

mod custom_resource;
mod files;
mod purge;
mod roles;
pub mod rotation;
mod schema;
mod secrets;
mod setup;
pub mod sms;

use std::{
    str::FromStr,
    time::{Duration, SystemTime},
};

use aws_sdk_sns::{error::SdkError, operation::set_sms_attributes::SetSMSAttributesError};
use serde::{Deserialize, Serialize};
use shared::{
    config::{self, Env},
    iam::IamError,
};
use sqlx::{Connection, migrate::MigrateError};
use tokio::time::Instant;

use custom_resource::RespondError;
pub use purge::Purged;
use roles::RolesError;
use rotation::{Order, Rotations, What};
pub use schema::{Database, Migration, Schema};
use secrets::{Secrets, SecretsError};
pub use setup::Setup;
use setup::SmsAttributes;

/// The longest that a setup by command takes.
const SETUP_TIME: Duration = Duration::from_hours(1);

/// The longest that a rotation waits for a setup.
const ROTATION_WAIT: Duration = Duration::from_mins(1);

/// A command about the database.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Command {
    /// Apply all pending migrations.
    Up,
    /// Revert the newest applied migration.
    Down,
    /// Change nothing.
    Status,
    /// Delete used challenges and ended sessions that are more than a day past their time.
    Purge,
    /// Complete the secrets, apply all pending migrations and set the roles.
    Setup,
}

/// The event of the Lambda function. If it cannot be read, the error quotes nothing of it, because
/// it may hold a phone number.
#[derive(Deserialize)]
#[serde(
    untagged,
    deny_unknown_fields,
    expecting = "the command must be up, down, status, purge, setup, sms, which alone takes a phone_number, or rotate, which alone takes what and leaked"
)]
pub enum Event {
    /// `{"command": "up"}`
    Database { command: Command },
    /// `{"command": "sms", "phone_number": "+14155552671"}`, with or without the number.
    Sms {
        command: sms::Word,
        phone_number: Option<String>,
    },
    /// `{"command": "rotate", "what": "pepper"}`: begins a rotation.
    Rotate {
        command: rotation::Word,
        what: What,
        #[serde(default)]
        leaked: bool,
    },
    /// `{"command": "rotate"}`: goes on with what is under way.
    GoOn { command: rotation::Word },
    /// A custom resource's, from CloudFormation.
    CustomResource(custom_resource::Request),
}

/// The result of a command.
#[derive(Debug, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum Report {
    Schema(Schema),
    Purged(Purged),
    Setup(Setup),
    Rotations(Rotations),
    Sms(Box<sms::Report>),
}

/// A command that failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("the database does not respond")]
    TimedOut,
    #[error("cannot connect to the database")]
    Connect(#[source] sqlx::Error),
    #[error("cannot log in to the database")]
    LogIn(#[from] IamError),
    #[error("cannot log in to the database")]
    AdminSecret(#[source] SecretsError),
    #[error("migration failed")]
    Migrate(#[from] MigrateError),
    #[error("purge failed")]
    Purge(#[source] sqlx::Error),
    #[error("cannot wait for another setup")]
    Lock(#[source] sqlx::Error),
    #[error("the secrets cannot be completed")]
    Secrets(#[from] SecretsError),
    #[error("the rotation failed")]
    Rotate(#[source] SecretsError),
    #[error("SIGN_IN_SECRET_ARN and SIGNUP_SECRET_ARN are not set")]
    NoSecrets,
    #[error("the roles cannot be set")]
    Roles(#[from] RolesError),
    #[error("SNS's attributes cannot be set")]
    SmsAttributes(#[from] Box<SdkError<SetSMSAttributesError>>),
    #[error("the properties of the custom resource are invalid")]
    Properties(#[source] serde_json::Error),
    #[error("{0} did not end in time")]
    Late(&'static str),
    #[error("the SMS set-up cannot be checked")]
    Sms(#[from] sms::Error),
    #[error("CloudFormation did not take the response")]
    Respond(#[from] RespondError),
}

/// Not a command.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("the command must be up, down, status, purge, setup, sms or rotate")]
pub struct UnknownCommand;

impl FromStr for Command {
    type Err = UnknownCommand;

    fn from_str(word: &str) -> Result<Self, UnknownCommand> {
        match word {
            "up" => Ok(Self::Up),
            "down" => Ok(Self::Down),
            "status" => Ok(Self::Status),
            "purge" => Ok(Self::Purge),
            "setup" => Ok(Self::Setup),
            _ => Err(UnknownCommand),
        }
    }
}

/// The function.
pub struct Migrate {
    database: Database,
    secrets: Option<Secrets>,
}

impl Migrate {
    /// Reads its settings, see [`Database`] and [`Secrets`]. Connects to nothing.
    pub fn from_env(env: &Env) -> Result<Self, config::Error> {
        Ok(Self {
            database: Database::from_env(env)?,
            secrets: Secrets::from_env(env)?,
        })
    }

    /// Runs one command.
    pub async fn run(&self, command: Command) -> Result<Report, Error> {
        let mut connection = self.database.connect().await?;
        let report = match command {
            Command::Up => {
                schema::apply(&mut connection).await?;
                Report::Schema(schema::status(&mut connection).await?)
            }
            Command::Down => {
                schema::revert_newest(&mut connection).await?;
                Report::Schema(schema::status(&mut connection).await?)
            }
            Command::Status => Report::Schema(schema::status(&mut connection).await?),
            Command::Purge => {
                let purged = purge::purge(&mut connection).await;
                Report::Purged(purged.map_err(Error::Purge)?)
            }
            Command::Setup => {
                let (secrets, attributes) = (self.secrets.as_ref(), SmsAttributes::default());
                let deadline = Instant::now() + SETUP_TIME;
                let setup = setup::run(&mut connection, secrets, attributes, deadline).await?;
                Report::Setup(setup)
            }
        };
        // The work is done and committed; a connection that breaks now harms nothing.
        let _ended = connection.close().await;
        Ok(report)
    }

    /// Takes the steps of rotations that are due at `now`, and those of an order.
    ///
    /// Without an order, and with no rotation under way, it does not connect to the database.
    pub async fn rotate(&self, order: Option<Order>, now: SystemTime) -> Result<Rotations, Error> {
        let secrets = self.secrets.as_ref().ok_or(Error::NoSecrets)?;
        if order.is_none() && !secrets.is_rotating().await.map_err(Error::Rotate)? {
            return Ok(Rotations::default());
        }
        let mut connection = self.database.connect().await?;
        let deadline = Instant::now() + ROTATION_WAIT;
        let locking = setup::lock(&mut connection);
        setup::by(deadline, "waiting for another setup", locking).await?;
        let rotations = secrets.rotate(order, now).await.map_err(Error::Rotate)?;
        let _ended = connection.close().await;
        Ok(rotations)
    }
}
