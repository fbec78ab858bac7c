//! A function as Lambda runs it: its binary as a process under the Runtime API.
//!
//! Whichever test starts it, when it is dropped its log is checked: no code, number or pepper, JSON
//! objects only, and one line for every response.

use std::{
    env, io,
    path::{Path, PathBuf},
    process::{ExitStatus, Stdio},
    thread,
    time::Duration,
};

use lambda_simulator::{FreezeMode, InvocationStatus, Simulator};
use serde_json::{Value, json};
use tokio::{
    process::{Child, Command},
    sync::OnceCell,
};

use crate::{PATIENCE, Response, Secrets, event, log::Log, token_settings, until, variable};

pub struct Function {
    simulator: Simulator,
    process: Child,
    log: Log,
    secrets: Secrets,
    /// The number of its responses that were HTTP responses.
    responses: usize,
    /// It was killed when it may have been about to respond.
    killed: bool,
}

/// The sandbox of a function.
pub struct Sandbox {
    /// The time after which Lambda stops an invocation.
    pub timeout: Duration,
    /// It is frozen between events.
    pub freezes: bool,
}

impl Default for Sandbox {
    fn default() -> Self {
        Self {
            timeout: Duration::from_secs(10),
            freezes: false,
        }
    }
}

/// The end of one event.
pub enum Invocation {
    Responded(Value),
    Failed,
    /// The process ended instead.
    Exited(ExitStatus),
}

impl Function {
    /// Starts the function with nothing in its environment but what Lambda sets, a key for tokens,
    /// and `settings`.
    pub async fn start<'a>(
        name: &str,
        settings: impl IntoIterator<Item = (&'a str, &'a str)>,
    ) -> Self {
        Self::start_in(Sandbox::default(), name, settings).await
    }

    /// Starts it in this sandbox.
    pub async fn start_in<'a>(
        sandbox: Sandbox,
        name: &str,
        settings: impl IntoIterator<Item = (&'a str, &'a str)>,
    ) -> Self {
        Self::start_program(&binary(name).await, sandbox, name, settings).await
    }

    /// Starts another program as the function of this name.
    pub async fn start_program<'a>(
        program: &Path,
        sandbox: Sandbox,
        name: &str,
        settings: impl IntoIterator<Item = (&'a str, &'a str)>,
    ) -> Self {
        let simulator = Simulator::builder()
            .function_name(name)
            .invocation_timeout(sandbox.timeout)
            .freeze_mode(if sandbox.freezes {
                FreezeMode::Process
            } else {
                FreezeMode::None
            })
            .build()
            .await
            .unwrap();
        let (output, input) = io::pipe().unwrap();
        let process = Command::new(program)
            .env_clear()
            .envs(simulator.lambda_env_vars())
            .envs([
                ("AWS_ACCESS_KEY_ID", "testing"),
                ("AWS_SECRET_ACCESS_KEY", "testing"),
            ])
            .envs(token_settings())
            .envs(settings)
            .stdin(Stdio::null())
            .stdout(input.try_clone().unwrap())
            .stderr(input)
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        if sandbox.freezes {
            simulator.register_freeze_pid(process.id().unwrap());
        }
        Self {
            simulator,
            process,
            log: Log::of(output),
            secrets: Secrets::default(),
            responses: 0,
            killed: false,
        }
    }

    /// Waits until it is frozen, as it is between events.
    pub async fn frozen(&self) {
        self.simulator.wait_for_frozen(PATIENCE).await.unwrap();
    }

    /// The number of registered extensions. Without one, Lambda does not signal the end.
    pub async fn extensions(&self) -> usize {
        self.simulator.extension_count().await
    }

    /// Sends it a signal: `STOP`, `CONT`, `TERM`.
    pub fn signal(&self, name: &str) {
        let id = self.process.id().unwrap().to_string();
        let mut kill = std::process::Command::new("kill");
        let sent = kill.args(["-s", name, &id]).status().unwrap();
        assert!(sent.success(), "{name}");
    }

    /// Ends it without a word, in the middle of whatever it does.
    pub async fn kill(&mut self) {
        self.killed = true;
        self.process.kill().await.unwrap();
    }

    /// Hands it one event and waits for what becomes of it.
    pub async fn invoke(&mut self, event: &Value) -> Invocation {
        let id = self.begin(event).await;
        self.finish(&id).await
    }

    /// Hands it one event, and tells the event's id.
    pub async fn begin(&mut self, event: &Value) -> String {
        self.secrets.learn(event);
        self.simulator.enqueue_payload(event.clone()).await
    }

    /// Waits for what becomes of an event.
    pub async fn finish(&mut self, id: &str) -> Invocation {
        let invocation = tokio::select! {
            state = self.simulator.wait_for_invocation_complete(id, PATIENCE) => {
                let state = state.unwrap();
                match state.status {
                    InvocationStatus::Success => {
                        Invocation::Responded(state.response.unwrap().payload)
                    }
                    _ => Invocation::Failed,
                }
            }
            status = self.process.wait() => Invocation::Exited(status.unwrap()),
        };
        if let Invocation::Responded(payload) = &invocation {
            self.secrets.learn(payload);
            if payload["statusCode"].is_u64() {
                self.responses += 1;
                until("every response has a line", async || {
                    self.response_lines().len() >= self.responses
                })
                .await;
            }
        }
        invocation
    }

    /// Hands it one API Gateway event and returns the response.
    pub async fn send(&mut self, event: &Value) -> Response {
        let id = self.begin(event).await;
        self.receive(&id).await
    }

    /// Waits for the response to an event that it was handed before.
    pub async fn receive(&mut self, id: &str) -> Response {
        match self.finish(id).await {
            Invocation::Responded(payload) => Response::of_function(&payload),
            Invocation::Failed => panic!("no response; the log: {:#?}", self.log()),
            Invocation::Exited(status) => panic!("{status}; the log: {:#?}", self.log()),
        }
    }

    /// POSTs this body.
    pub async fn post(&mut self, path: &str, body: &Value) -> Response {
        self.send(&event("POST", path, &body.to_string())).await
    }

    /// Of `signup`, to somebody who signs up.
    pub async fn sign_up(&mut self, phone: &str) -> Response {
        self.send(&sign_up_event(phone)).await
    }

    /// Of `verify`, to a submitted code.
    pub async fn verify(&mut self, phone: &str, code: &str) -> Response {
        self.send(&verify_event(phone, code)).await
    }

    /// Waits for the process to end by itself.
    pub async fn exit(&mut self) -> ExitStatus {
        let status = tokio::time::timeout(PATIENCE, self.process.wait()).await;
        let status = status.expect("still running").unwrap();
        self.log.read_to_end();
        status
    }

    /// The lines that it wrote so far: at least all that came before the last response.
    pub fn log(&self) -> Vec<String> {
        self.log.lines()
    }

    /// The lines about its responses, oldest first.
    pub fn response_lines(&self) -> Vec<Value> {
        let lines = self.log().into_iter();
        lines
            .filter_map(|line| serde_json::from_str(&line).ok())
            .filter(|line: &Value| line["message"] == "answered")
            .collect()
    }
}

impl Drop for Function {
    fn drop(&mut self) {
        // Writing ends with the process, and reading with writing.
        let _ended_already = self.process.start_kill();
        if thread::panicking() {
            return;
        }
        self.log.read_to_end();
        let lines = self.log();
        for line in &lines {
            if let Ok(line) = serde_json::from_str::<Value>(line)
                && line["message"] == "Generated OTP"
            {
                self.secrets.learn(&line);
            }
        }
        let faults: Vec<String> = lines
            .iter()
            .filter_map(|line| self.secrets.fault_of(line))
            .collect();
        assert!(faults.is_empty(), "{faults:#?}");
        let told = self.response_lines().len();
        let unheard = usize::from(self.killed);
        assert!(
            (self.responses..=self.responses + unheard).contains(&told),
            "{lines:#?}"
        );
    }
}

/// Somebody signs up.
pub fn sign_up_event(phone: &str) -> Value {
    let body = json!({"name": "Ada", "phone_number": phone});
    event("POST", "/signup", &body.to_string())
}

/// Somebody submits a code.
pub fn verify_event(phone: &str, code: &str) -> Value {
    let body = json!({"otp": code, "phone_number": phone});
    event("POST", "/verify", &body.to_string())
}

/// The binary of a function: in the folder `FUNCTIONS`, or else the debug build, made first if it
/// is not up to date.
pub async fn binary(name: &str) -> PathBuf {
    static FOLDER: OnceCell<PathBuf> = OnceCell::const_new();
    let find = async || match variable("FUNCTIONS") {
        Some(folder) => folder.into(),
        None => build().await,
    };
    FOLDER.get_or_init(find).await.join(name)
}

/// Builds the functions with the features that `--workspace` chooses, which are those of the tests,
/// so that nothing but the binaries is left to build.
async fn build() -> PathBuf {
    let status = Command::new(variable("CARGO").unwrap_or_else(|| "cargo".into()))
        .args(["build", "--workspace", "--locked", "--quiet"])
        .args(["--bin", "signup", "--bin", "verify", "--bin", "session"])
        .args(["--bin", "migrate"])
        .status()
        .await;
    assert!(status.unwrap().success());
    // This test's own binary is target/debug/deps/suite-….
    let me = env::current_exe().unwrap();
    me.ancestors().nth(2).unwrap().to_owned()
}
