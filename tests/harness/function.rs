//! A function as Lambda runs it: the release build as a process under the Runtime API.

use std::{
    env,
    path::PathBuf,
    process::{ExitStatus, Stdio},
    sync::{Arc, Mutex},
};

use lambda_simulator::{InvocationStatus, Simulator};
use serde_json::Value;
use tokio::{
    io::{AsyncBufReadExt, AsyncRead, BufReader},
    process::{Child, Command},
    sync::OnceCell,
    task::JoinHandle,
};

use crate::{Answer, PATIENCE};

pub struct Function {
    simulator: Simulator,
    process: Child,
    log: Log,
    reading: [JoinHandle<()>; 2],
}

type Log = Arc<Mutex<Vec<String>>>;

/// What became of one event.
pub enum Invocation {
    Answered(Value),
    Failed,
    /// The process ended instead.
    Exited(ExitStatus),
}

impl Function {
    /// Starts the function with nothing in its environment but what Lambda sets and `settings`.
    pub async fn start<'a>(
        name: &str,
        settings: impl IntoIterator<Item = (&'a str, &'a str)>,
    ) -> Self {
        let simulator = Simulator::builder()
            .function_name(name)
            .invocation_timeout(std::time::Duration::from_secs(10))
            .build()
            .await
            .unwrap();
        let mut process = Command::new(binary(name).await)
            .env_clear()
            .envs(simulator.lambda_env_vars())
            .envs([
                ("AWS_ACCESS_KEY_ID", "testing"),
                ("AWS_SECRET_ACCESS_KEY", "testing"),
            ])
            .envs(settings)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let log = Log::default();
        let reading = [
            keep(process.stdout.take().unwrap(), &log),
            keep(process.stderr.take().unwrap(), &log),
        ];
        Self {
            simulator,
            process,
            log,
            reading,
        }
    }

    /// Hands it one event and waits for what becomes of it.
    pub async fn invoke(&mut self, event: &Value) -> Invocation {
        let id = self.simulator.enqueue_payload(event.clone()).await;
        tokio::select! {
            state = self.simulator.wait_for_invocation_complete(&id, PATIENCE) => {
                let state = state.unwrap();
                match state.status {
                    InvocationStatus::Success => {
                        Invocation::Answered(state.response.unwrap().payload)
                    }
                    _ => Invocation::Failed,
                }
            }
            status = self.process.wait() => Invocation::Exited(status.unwrap()),
        }
    }

    /// The answer to an API Gateway event.
    pub async fn answer(&mut self, event: &Value) -> Answer {
        match self.invoke(event).await {
            Invocation::Answered(payload) => Answer::of_function(&payload),
            Invocation::Failed => panic!("no answer; the log: {:#?}", self.log()),
            Invocation::Exited(status) => panic!("{status}; the log: {:#?}", self.log()),
        }
    }

    /// Waits for the process to end by itself.
    pub async fn exit(&mut self) -> ExitStatus {
        let status = tokio::time::timeout(PATIENCE, self.process.wait()).await;
        let status = status.expect("still running").unwrap();
        for reading in &mut self.reading {
            reading.await.unwrap();
        }
        status
    }

    /// The lines that it wrote so far.
    pub fn log(&self) -> Vec<String> {
        self.log.lock().unwrap().clone()
    }
}

fn keep(output: impl AsyncRead + Unpin + Send + 'static, log: &Log) -> JoinHandle<()> {
    let log = Arc::clone(log);
    let mut lines = BufReader::new(output).lines();
    tokio::spawn(async move {
        while let Ok(Some(line)) = lines.next_line().await {
            log.lock().unwrap().push(line);
        }
    })
}

/// The release build of a function, made first if it is not up to date.
pub async fn binary(name: &str) -> PathBuf {
    static FOLDER: OnceCell<PathBuf> = OnceCell::const_new();
    let build = async || {
        let status = Command::new(env::var("CARGO").unwrap_or_else(|_| "cargo".into()))
            .args(["build", "--release", "--locked", "--quiet"])
            .args(["-p", "signup", "-p", "verify", "-p", "migrate"])
            .status()
            .await;
        assert!(status.unwrap().success());
        // This test's own binary is target/debug/deps/suite-….
        let me = env::current_exe().unwrap();
        me.ancestors().nth(3).unwrap().join("release")
    };
    FOLDER.get_or_init(build).await.join(name)
}
