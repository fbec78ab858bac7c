//! A function as Lambda runs it: a process that asks for events.

use std::{
    fs,
    io::{Read, Seek, SeekFrom},
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use harness::PATIENCE;
use serde_json::Value;
use tempfile::TempDir;
use tokio::{
    process::{Child, Command},
    time::{Instant, timeout},
};

use crate::runtime_api::RuntimeApi;

pub struct Process {
    api: RuntimeApi,
    child: Child,
    folder: TempDir,
    /// The part of its log that was read.
    read: u64,
    /// From its spawn to its first poll.
    pub start: Duration,
    is_polling: bool,
}

/// Variables of the environment, and their values.
pub type Settings = Vec<(String, String)>;

/// A program with its first arguments.
pub struct Program {
    path: PathBuf,
    arguments: Vec<String>,
}

impl Program {
    /// The release build of a function, or of a floor.
    pub fn of(name: &str) -> Self {
        Self {
            path: Self::path(name),
            arguments: Vec::new(),
        }
    }

    /// The same under callgrind, which writes what it counts to `counts`.
    pub fn counted(valgrind: &str, name: &str, counts: &Path) -> Self {
        Self {
            path: valgrind.into(),
            arguments: vec![
                "--tool=callgrind".into(),
                format!("--callgrind-out-file={}", counts.display()),
                Self::path(name).display().to_string(),
            ],
        }
    }

    pub fn path(name: &str) -> PathBuf {
        let folder = harness::variable("FUNCTIONS").expect("FUNCTIONS: run through make bench");
        Path::new(&folder).join(name)
    }
}

impl Process {
    /// Starts the function `name`, and waits until it asks for its first event.
    pub async fn start(name: &str, settings: &Settings) -> Self {
        Self::start_program(&Program::of(name), settings).await
    }

    pub async fn start_program(program: &Program, settings: &Settings) -> Self {
        let mut api = RuntimeApi::start().await;
        let folder = tempfile::tempdir().unwrap();
        let log = fs::File::create(folder.path().join("log")).unwrap();
        let mut command = Command::new(&program.path);
        command
            .args(&program.arguments)
            .env_clear()
            .envs([
                ("AWS_LAMBDA_RUNTIME_API", api.address.as_str()),
                ("AWS_LAMBDA_FUNCTION_NAME", "bench"),
                ("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", "256"),
                ("AWS_LAMBDA_FUNCTION_VERSION", "$LATEST"),
                ("AWS_LAMBDA_LOG_GROUP_NAME", "bench"),
                ("AWS_LAMBDA_LOG_STREAM_NAME", "bench"),
                ("AWS_LAMBDA_INITIALIZATION_TYPE", "on-demand"),
                ("AWS_ACCESS_KEY_ID", "testing"),
                ("AWS_SECRET_ACCESS_KEY", "testing"),
                ("AWS_REGION", "us-east-1"),
            ])
            .envs(settings.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .kill_on_drop(true);
        let spawned = Instant::now();
        let mut child = command.spawn().unwrap();
        let polled = tokio::select! {
            polled = api.polls.recv() => polled.unwrap(),
            ended = child.wait() => {
                let log = fs::read_to_string(folder.path().join("log")).unwrap();
                panic!("{} ended: {}; {log}", program.path.display(), ended.unwrap())
            }
        };
        Self {
            api,
            child,
            folder,
            read: 0,
            start: polled - spawned,
            is_polling: true,
        }
    }

    /// Hands it an event; the time until its response had arrived, and the response's body. It must
    /// be a success.
    pub async fn invoke(&mut self, event: &Value) -> (Duration, String) {
        let event = event.to_string();
        if !self.is_polling {
            self.api.polls.recv().await.unwrap();
        }
        self.is_polling = false;
        let begun = Instant::now();
        self.api.events.send(event).unwrap();
        let response = timeout(PATIENCE, self.api.responses.recv()).await;
        let (ended, response) = response.expect("no response").unwrap();
        let response: Value = serde_json::from_slice(&response).unwrap();
        assert_eq!(response["statusCode"], 200, "{response}");
        let body = response["body"].as_str().unwrap();
        (ended - begun, body.to_owned())
    }

    /// The same for a function that responds in JSON.
    pub async fn request(&mut self, event: &Value) -> (Duration, Value) {
        let (time, body) = self.invoke(event).await;
        (time, serde_json::from_str(&body).unwrap())
    }

    /// The lines of its log that were not read before.
    pub fn log(&mut self) -> Vec<Value> {
        let mut log = fs::File::open(self.folder.path().join("log")).unwrap();
        log.seek(SeekFrom::Start(self.read)).unwrap();
        let mut new = String::new();
        self.read += u64::try_from(log.read_to_string(&mut new).unwrap()).unwrap();
        let lines = new.lines().map(|line| serde_json::from_str(line).unwrap());
        lines.collect()
    }

    /// The memory that it has in use, in kilobytes.
    pub fn memory(&self) -> f64 {
        let id = self.child.id().unwrap().to_string();
        let ps = std::process::Command::new("ps")
            .args(["-o", "rss=", "-p", &id])
            .output();
        String::from_utf8(ps.unwrap().stdout)
            .unwrap()
            .trim()
            .parse()
            .unwrap()
    }

    /// Ends it as Lambda does, and waits.
    pub async fn end(mut self) {
        let id = self.child.id().unwrap().to_string();
        let sent = std::process::Command::new("kill")
            .args(["-s", "TERM", &id])
            .status();
        assert!(sent.unwrap().success());
        timeout(PATIENCE, self.child.wait()).await.unwrap().unwrap();
    }
}
