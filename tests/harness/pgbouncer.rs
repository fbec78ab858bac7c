//! PgBouncer in transaction mode, in front of the tests' Postgres.

use std::{fs, os::unix::fs::PermissionsExt, process::Stdio};

use tempfile::TempDir;
use tokio::{
    net::TcpStream,
    process::{Child, Command},
};

use crate::{Database, free_port, until, variable};

pub struct PgBouncer {
    port: u16,
    _process: Child,
    _folder: TempDir,
}

impl PgBouncer {
    /// Starts it with one connection to the server, which all its clients then share.
    pub async fn start() -> Self {
        Self::start_with(1).await
    }

    /// Starts it with so many connections to the server.
    pub async fn start_with(connections: usize) -> Self {
        let address = Database::address();
        let (host, server_port) = address.split_once(':').unwrap();
        let port = free_port();
        let folder = tempfile::tempdir().unwrap();
        let config = folder.path().join("pgbouncer.ini");
        fs::write(
            &config,
            format!(
                "[databases]\n* = host={host} port={server_port} user=postgres\n\
                 [pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\nunix_socket_dir =\n\
                 auth_type = any\npool_mode = transaction\n\
                 default_pool_size = {connections}\nmax_client_conn = 1000\n"
            ),
        )
        .unwrap();
        // It gives up being root, and still reads its configuration after that.
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let program = variable("PGBOUNCER").unwrap_or_else(|| "pgbouncer".into());
        let mut command = Command::new(program);
        if is_root() {
            command.args(["-u", "nobody"]);
        }
        let process = command
            .arg(&config)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .expect("pgbouncer: run through scripts/with-services.sh --sns --pgbouncer");
        until("PgBouncer listens", async || {
            TcpStream::connect(("127.0.0.1", port)).await.is_ok()
        })
        .await;
        Self {
            port,
            _process: process,
            _folder: folder,
        }
    }

    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }
}

fn is_root() -> bool {
    // Root is whoever owns what it has just made.
    let file = tempfile::NamedTempFile::new().unwrap();
    std::os::unix::fs::MetadataExt::uid(&file.as_file().metadata().unwrap()) == 0
}
