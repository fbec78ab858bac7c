//! A Postgres server of one run's or one test's own.

use std::{
    fs,
    os::unix::fs::{PermissionsExt, chown},
    path::{Path, PathBuf},
    process::Stdio,
};

use tempfile::TempDir;
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::{Child, Command},
};

use crate::{Certificate, free_port, variable};

/// The password of the superuser, where one is asked for.
const PASSWORD: &str = "tests-only-password-of-postgres";

pub struct PostgresServer {
    /// The folder of `initdb`, `postgres` and `pg_ctl`.
    programs: PathBuf,
    /// Postgres refuses to run as root: then it runs as this user and group.
    user: Option<(u32, u32)>,
    port: u16,
    settings: &'static [&'static str],
    server: Option<Child>,
    folder: TempDir,
}

impl PostgresServer {
    /// Starts the server of the folder `POSTGRES`. Unlike that of the tests it writes to the disk as
    /// it does in earnest, since it is going to be restarted.
    pub async fn start() -> Self {
        Self::initialized("trust").await.launched().await
    }

    /// Starts one that speaks TLS only, with this certificate, and wants a password.
    pub async fn start_tls_only(certificate: &Certificate) -> Self {
        let mut this = Self::initialized("scram-sha-256").await;
        let (certificate, key) = certificate.pem();
        this.write("data/server.crt", &certificate);
        this.write("data/server.key", &key);
        let rule = "hostssl all all 127.0.0.1/32 scram-sha-256\n";
        this.write("data/pg_hba.conf", rule);
        this.settings = &["-c", "ssl=on", "-c", "fsync=off"];
        this.launched().await
    }

    async fn initialized(login: &str) -> Self {
        let programs =
            variable("POSTGRES").expect("POSTGRES: run through scripts/with-services.sh");
        let folder = tempfile::tempdir().unwrap();
        let user = another_user_than_root().await;
        let this = Self {
            programs: programs.into(),
            user,
            port: free_port(),
            settings: &[],
            server: None,
            folder,
        };
        this.hand_over(this.folder.path(), 0o700);
        this.write("password", PASSWORD);
        let mut initdb = this.command("initdb");
        initdb
            .arg("--pwfile")
            .arg(this.folder.path().join("password"));
        initdb.args(["--username=postgres", "--auth", login, "--encoding=UTF8"]);
        let made = initdb.args(["--locale=C", "--no-sync"]).output().await;
        let made = made.unwrap();
        assert!(made.status.success(), "{made:?}");
        this
    }

    pub fn url(&self) -> String {
        format!(
            "postgres://postgres:{PASSWORD}@127.0.0.1:{}/postgres",
            self.port
        )
    }

    /// The URL by the name in its certificate, `localhost`, which asks for TLS.
    pub fn tls_url(&self) -> String {
        let url = self.url().replace("@127.0.0.1:", "@localhost:");
        format!("{url}?sslmode=verify-full")
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
        let port = self.port;
        assert!(self.try_launch().await, "Postgres does not start on {port}");
    }

    /// Starts it on a port that nobody has taken meanwhile.
    async fn launched(mut self) -> Self {
        for _ in 0..20 {
            if self.try_launch().await {
                return self;
            }
            self.port = free_port();
        }
        panic!("Postgres does not start")
    }

    async fn try_launch(&mut self) -> bool {
        let mut postgres = self.command("postgres");
        postgres
            .args(["-p", &self.port.to_string()])
            .args(["-c", "listen_addresses=127.0.0.1"])
            .args(["-c", "unix_socket_directories="])
            .args(["-c", "max_connections=400"])
            .args(self.settings)
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        let mut server = postgres.spawn().unwrap();
        let mut log = BufReader::new(server.stderr.take().unwrap()).lines();
        while let Some(line) = log.next_line().await.unwrap() {
            if line.contains("database system is ready to accept connections") {
                // The pipe has to be read for as long as the server writes.
                tokio::spawn(async move { while let Ok(Some(_)) = log.next_line().await {} });
                self.server = Some(server);
                return true;
            }
        }
        false
    }

    /// Writes a file that the server reads.
    fn write(&self, name: &str, text: &str) {
        let path = self.folder.path().join(name);
        fs::write(&path, text).unwrap();
        self.hand_over(&path, 0o600);
    }

    fn hand_over(&self, path: &Path, mode: u32) {
        if let Some((user, group)) = self.user {
            chown(path, Some(user), Some(group)).unwrap();
        }
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
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
