//! The function of a sandbox, which is built anew when its secret has a new value.
//!
//! The secret is read again when an event arrives, never between events: Lambda freezes the process
//! then. No part is replaced by itself, so all parts have the values of one version.

use std::{
    cell::RefCell,
    rc::Rc,
    time::{Duration, SystemTime},
};

use tokio::time::timeout;

use crate::{
    config::{self, Env},
    lambda::{CONNECT_WAIT, Function},
    secret::Secret,
    telemetry,
};

/// The time after which an event makes a function read its secret again.
pub const REREAD: Duration = Duration::from_mins(5);

/// By then each running function has a new value of its secret, even if two of its reads failed.
pub const NOTICED: Duration = Duration::from_mins(15);

/// The longest that reading the secret at start takes. Lambda allows a start ten seconds.
const START_TIMEOUT: Duration = Duration::from_secs(6);

/// The longest that reading it again takes. With [`CONNECT_WAIT`] that is less than the 1.5 s after
/// which API Gateway's authorizer gives up on `/.well-known/*`.
const REREAD_TIMEOUT: Duration = Duration::from_secs(1);

/// The function that serves the sandbox's events.
pub struct Current<F> {
    /// Without the secret's members.
    env: Env,
    interval: Duration,
    state: RefCell<State<F>>,
}

struct State<F> {
    function: Rc<F>,
    /// The secret's, of which the function was built.
    version: Option<String>,
    /// By the wall clock: the monotonic one may stand still while the sandbox is frozen.
    read_at: SystemTime,
}

impl<F: Function> Current<F> {
    /// Reads the secret and builds the function. Connects to nothing.
    ///
    /// The secret is read again after `interval`, which is [`REREAD`] but in a test.
    pub async fn start(
        env: Env,
        interval: Duration,
        now: SystemTime,
    ) -> Result<Self, config::Error> {
        let secret = Secret::read(&env, START_TIMEOUT).await?;
        let state = State {
            function: Rc::new(build(env.clone(), secret.as_ref())?),
            version: version(secret.as_ref()),
            read_at: now,
        };
        Ok(Self {
            env,
            interval,
            state: RefCell::new(state),
        })
    }

    /// The function.
    pub fn function(&self) -> Rc<F> {
        Rc::clone(&self.state.borrow().function)
    }

    /// The function for an event at `now`, after reading the secret again if that is due.
    ///
    /// If the secret cannot be read or used, the function stays, until the next read.
    pub async fn function_at(&self, now: SystemTime) -> Rc<F> {
        if self.is_due(now) {
            self.state.borrow_mut().read_at = now;
            Box::pin(self.reread()).await;
        }
        self.function()
    }

    fn is_due(&self, now: SystemTime) -> bool {
        let passed = now.duration_since(self.state.borrow().read_at);
        // A clock that was set back says nothing.
        passed.map_or(true, |passed| passed >= self.interval)
    }

    async fn reread(&self) {
        let secret = match Secret::read(&self.env, REREAD_TIMEOUT).await {
            Ok(secret) => secret,
            Err(error) => {
                let cause = telemetry::chain(&error);
                tracing::warn!(cause, "the secret was not read again");
                return;
            }
        };
        let version = version(secret.as_ref());
        if version == self.state.borrow().version {
            return;
        }
        match build::<F>(self.env.clone(), secret.as_ref()) {
            Ok(function) => self.replace(Rc::new(function), version).await,
            Err(error) => {
                let cause = telemetry::chain(&error);
                tracing::error!(cause, "the changed secret cannot be used");
            }
        }
    }

    /// No other event is served meanwhile, so nothing uses the old function's connections.
    async fn replace(&self, function: Rc<F>, version: Option<String>) {
        let old = {
            let mut state = self.state.borrow_mut();
            state.version = version;
            std::mem::replace(&mut state.function, Rc::clone(&function))
        };
        let connecting = timeout(CONNECT_WAIT, function.connect());
        // What is not connected by then, the event connects.
        let (_connected, ()) = tokio::join!(connecting, old.close());
        tracing::info!("the secret has changed");
    }
}

fn version(secret: Option<&Secret>) -> Option<String> {
    secret.and_then(Secret::version).map(str::to_owned)
}

fn build<F: Function>(env: Env, secret: Option<&Secret>) -> Result<F, config::Error> {
    let env = match secret {
        Some(secret) => secret.over(env, F::SECRETS)?,
        None => env,
    };
    F::from_env(&env)
}
