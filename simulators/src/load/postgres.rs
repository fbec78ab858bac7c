//! A Postgres server of the run's own, which can be restarted.

use std::{
    fs,
    os::unix::fs::{PermissionsExt, chown},
    path::PathBuf,
    process::Stdio,
};

use harness::{free_port, variable};
use tempfile::TempDir;
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::{Child, Command},
};

pub struct PostgresServer {
    /// Where `initdb`, `postgres` and `pg_ctl` are.
    programs: PathBuf,
    /// Postgres refuses to run as root: then it runs as this user and group.
    user: Option<(u32, u32)>,
    port: u16,
    server: Option<Child>,
    folder: TempDir,
}

impl PostgresServer {
    /// Starts the server of the folder `POSTGRES`. Unlike those of the tests it writes to the disk
    /// as it does in earnest, since it is going to be restarted.
    pub async fn start() -> Self {
        let programs = variable("POSTGRES").expect("POSTGRES: run through make load");
        let folder = tempfile::tempdir().unwrap();
        let user = another_user_than_root().await;
        if let Some((user, group)) = user {
            chown(folder.path(), Some(user), Some(group)).unwrap();
        }
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o700)).unwrap();
        let mut this = Self {
            programs: programs.into(),
            user,
            port: free_port(),
            server: None,
            folder,
        };
        let mut initdb = this.command("initdb");
        initdb.args(["--username=postgres", "--auth=trust", "--encoding=UTF8"]);
        let made = initdb.args(["--locale=C", "--no-sync"]).output().await;
        let made = made.unwrap();
        assert!(made.status.success(), "{made:?}");
        this.launch().await;
        this
    }

    pub fn url(&self) -> String {
        format!("postgres://postgres@127.0.0.1:{}/postgres", self.port)
    }

    /// Ends the server as an administrator does: connections are closed, what was not committed is
    /// rolled back.
    pub async fn stop(&mut self) {
        let mut stop = self.command("pg_ctl");
        let status = stop.args(["stop", "--mode=fast", "--silent"]).status();
        assert!(status.await.unwrap().success());
        if let Some(mut server) = self.server.take() {
            server.wait().await.unwrap();
        }
    }

    /// Starts it again, and waits until it takes connections.
    pub async fn launch(&mut self) {
        let mut postgres = self.command("postgres");
        postgres.args([
            "-p",
            &self.port.to_string(),
            "-c",
            "listen_addresses=127.0.0.1",
        ]);
        postgres.args([
            "-c",
            "unix_socket_directories=",
            "-c",
            "max_connections=400",
        ]);
        postgres.stderr(Stdio::piped()).kill_on_drop(true);
        let mut server = postgres.spawn().unwrap();
        let mut log = BufReader::new(server.stderr.take().unwrap()).lines();
        while let Some(line) = log.next_line().await.unwrap() {
            if line.contains("database system is ready to accept connections") {
                // The pipe has to be read for as long as the server writes.
                tokio::spawn(async move { while let Ok(Some(_)) = log.next_line().await {} });
                self.server = Some(server);
                return;
            }
        }
        panic!("Postgres does not start on port {}", self.port);
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(self.programs.join(program));
        command
            .env("PGDATA", self.folder.path().join("data"))
            .env("LC_ALL", "C")
            .current_dir("/")
            .stdin(Stdio::null());
        if let Some((user, group)) = self.user {
            command.uid(user).gid(group);
        }
        command
    }
}

/// The ids of `postgres`, or of `nobody`, for root.
async fn another_user_than_root() -> Option<(u32, u32)> {
    if id(&["-u"]).await? != 0 {
        return None;
    }
    for user in ["postgres", "nobody"] {
        if let Some(user_id) = id(&["-u", user]).await {
            return Some((user_id, id(&["-g", user]).await?));
        }
    }
    None
}

async fn id(arguments: &[&str]) -> Option<u32> {
    let output = Command::new("id").args(arguments).output().await.unwrap();
    String::from_utf8(output.stdout)
        .unwrap()
        .trim()
        .parse()
        .ok()
}
