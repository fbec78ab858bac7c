//! A Redis server for one simulated day, behind a Unix socket: two can run without agreeing on ports.

use std::{
    env,
    io::{BufRead, BufReader},
    process::{Child, Command, Stdio},
    thread,
};

use tempfile::TempDir;

pub struct RedisServer {
    server: Child,
    folder: TempDir,
}

impl RedisServer {
    /// Starts the server of `REDIS_SERVER`, or the one on the `PATH`.
    pub fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let program = env::var("REDIS_SERVER").unwrap_or_else(|_| "redis-server".into());
        let mut server = Command::new(program)
            .args(["--port", "0", "--unixsocket"])
            .arg(folder.path().join("socket"))
            .args(["--save", "", "--appendonly", "no", "--dir"])
            .arg(folder.path())
            .stdout(Stdio::piped())
            .spawn()
            .expect("redis-server: run through make simulate");
        let mut log = BufReader::new(server.stdout.take().unwrap()).lines();
        // Redis writes "Ready", Valkey too.
        let is_ready = log.any(|line| line.unwrap().contains("eady to accept connections"));
        assert!(is_ready, "redis-server ended before it was ready");
        // The pipe has to be read for as long as the server writes.
        thread::spawn(move || log.for_each(drop));
        Self { server, folder }
    }

    pub fn url(&self) -> String {
        format!(
            "redis+unix://{}",
            self.folder.path().join("socket").display()
        )
    }
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        self.server.kill().unwrap();
        self.server.wait().unwrap();
    }
}
