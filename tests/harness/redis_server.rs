//! A Redis server for one test, or one simulated day, on a port of its own.

use std::process::Stdio;

use redis::{Cmd, FromRedisValue, aio::MultiplexedConnection};
use tempfile::TempDir;
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::{Child, Command},
};

use crate::{free_port, until, variable};

pub struct RedisServer {
    port: u16,
    server: Option<Child>,
    settings: Vec<String>,
    folder: TempDir,
}

/// The key of a challenge.
pub fn challenge_key(id: &str) -> String {
    format!("{{otp}}:challenge:{id}")
}

impl RedisServer {
    /// Starts the server of `REDIS_SERVER`, or the one on the `PATH`.
    pub async fn start() -> Self {
        Self::start_with(&[]).await
    }

    /// Three servers that share the hash slots.
    pub async fn start_cluster() -> [Self; 3] {
        let settings = || {
            let bus = free_port().to_string();
            let on = ["--cluster-enabled", "yes", "--cluster-port"].map(str::to_owned);
            on.into_iter().chain([bus]).collect::<Vec<_>>()
        };
        let nodes = [
            Self::start_with(&settings()).await,
            Self::start_with(&settings()).await,
            Self::start_with(&settings()).await,
        ];
        for (node, slots) in
            nodes
                .iter()
                .zip([("0", "5460"), ("5461", "10922"), ("10923", "16383")])
        {
            let assign = ["CLUSTER", "ADDSLOTSRANGE", slots.0, slots.1];
            node.run::<()>(&assign).await;
        }
        for node in &nodes[1..] {
            let (port, bus) = (node.port.to_string(), node.settings[3].clone());
            let meet = ["CLUSTER", "MEET", "127.0.0.1", &port, &bus];
            nodes[0].run::<()>(&meet).await;
        }
        for node in &nodes {
            until("the cluster is up", async || {
                let info: String = node.run(&["CLUSTER", "INFO"]).await;
                info.contains("cluster_state:ok") && info.contains("cluster_known_nodes:3")
            })
            .await;
        }
        nodes
    }

    async fn start_with(settings: &[String]) -> Self {
        for _ in 0..20 {
            let mut this = Self {
                port: free_port(),
                server: None,
                settings: settings.to_vec(),
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

    /// The keys that match this pattern.
    pub async fn keys(&self, pattern: &str) -> Vec<String> {
        self.run(&["KEYS", pattern]).await
    }

    /// There must be no key.
    pub async fn assert_empty(&self) {
        assert_eq!(self.keys("*").await, Vec::<String>::new());
    }

    /// The id of the phone's newest challenge.
    pub async fn latest_challenge(&self, phone: &str) -> Option<String> {
        self.run(&["GET", &format!("{{otp}}:latest:{phone}")]).await
    }

    /// A connection of a test's own.
    pub async fn connect(&self) -> MultiplexedConnection {
        let client = redis::Client::open(self.url()).unwrap();
        client.get_multiplexed_async_connection().await.unwrap()
    }

    async fn launch(&mut self) -> bool {
        let program = variable("REDIS_SERVER").unwrap_or_else(|| "redis-server".into());
        let mut server = Command::new(program)
            .args(["--port", &self.port.to_string(), "--bind", "127.0.0.1"])
            .args(["--save", "", "--appendonly", "no"])
            .args(&self.settings)
            .arg("--dir")
            .arg(self.folder.path())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .expect("redis-server: run through scripts/with-services.sh --sns --pgbouncer");
        let mut log = BufReader::new(server.stdout.take().unwrap()).lines();
        while let Some(line) = log.next_line().await.unwrap() {
            // Redis writes "Ready", Valkey too, and both go on writing to a pipe that must stay
            // open.
            if line.contains("eady to accept connections") {
                tokio::spawn(async move { while let Ok(Some(_)) = log.next_line().await {} });
                self.server = Some(server);
                return true;
            }
        }
        false
    }
}
