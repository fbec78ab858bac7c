//! A Redis server for one test, on a port of its own.

use std::{env, process::Stdio};

use redis::{Cmd, FromRedisValue, aio::MultiplexedConnection};
use tempfile::TempDir;
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::{Child, Command},
};

use crate::free_port;

pub struct RedisServer {
    port: u16,
    server: Option<Child>,
    folder: TempDir,
}

impl RedisServer {
    /// Starts the server of `REDIS_SERVER`, or the one on the `PATH`.
    pub async fn start() -> Self {
        for _ in 0..20 {
            let mut this = Self {
                port: free_port(),
                server: None,
                folder: tempfile::tempdir().unwrap(),
            };
            if this.launch().await {
                return this;
            }
        }
        panic!("redis-server does not start")
    }

    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    pub fn url(&self) -> String {
        format!("redis://{}", self.address())
    }

    /// Ends the server as a crash would: what it had in memory is lost.
    pub async fn stop(&mut self) {
        if let Some(mut server) = self.server.take() {
            server.kill().await.unwrap();
        }
    }

    /// Starts it again, empty.
    pub async fn restart(&mut self) {
        self.stop().await;
        assert!(self.launch().await, "its port was taken meanwhile");
    }

    /// Runs a command for what a test wants to see or break.
    pub async fn run<T: FromRedisValue>(&self, command: &[&str]) -> T {
        let mut cmd = Cmd::new();
        cmd.arg(command);
        cmd.query_async(&mut self.connect().await).await.unwrap()
    }

    async fn connect(&self) -> MultiplexedConnection {
        let client = redis::Client::open(self.url()).unwrap();
        client.get_multiplexed_async_connection().await.unwrap()
    }

    async fn launch(&mut self) -> bool {
        let program = env::var("REDIS_SERVER").unwrap_or_else(|_| "redis-server".into());
        let mut server = Command::new(program)
            .args(["--port", &self.port.to_string(), "--bind", "127.0.0.1"])
            .args(["--save", "", "--appendonly", "no"])
            .arg("--dir")
            .arg(self.folder.path())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .expect("redis-server: run through scripts/with-services.sh --sns --pgbouncer");
        let mut log = BufReader::new(server.stdout.take().unwrap()).lines();
        while let Some(line) = log.next_line().await.unwrap() {
            // Redis writes "Ready", Valkey too, and both go on writing to a pipe that must stay open.
            if line.contains("eady to accept connections") {
                tokio::spawn(async move { while let Ok(Some(_)) = log.next_line().await {} });
                self.server = Some(server);
                return true;
            }
        }
        false
    }
}
