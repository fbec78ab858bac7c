//! A Postgres database for one test, cloned from a migrated template and dropped after it.

use std::{
    collections::hash_map::DefaultHasher,
    fs,
    hash::{Hash, Hasher},
    path::Path,
};

use migrate::Command;
use shared::config::Env;
use tokio::sync::OnceCell;
use tokio_postgres::{Client, NoTls};

use crate::{runtime, since_1970, until, variable};

/// Held by whoever makes or clones the template, across test processes.
const LOCK: i64 = 0x6f74_705f_7465_7374;

pub struct Database {
    name: String,
}

/// Tables that nobody else can use.
pub struct Lock(Client);

/// Sees who is connected to a database.
pub struct Observer(Client);

impl Database {
    /// A migrated, empty database.
    pub async fn migrated() -> Self {
        static TEMPLATE: OnceCell<String> = OnceCell::const_new();
        let template = TEMPLATE.get_or_init(template).await;
        Self::create(&format!("TEMPLATE {template}")).await
    }

    /// A database without any table.
    pub async fn empty() -> Self {
        Self::create("TEMPLATE template0").await
    }

    async fn create(how: &str) -> Self {
        let name = format!("otp_test_{}_{:016x}", seconds(), crate::random_number());
        let admin = connect(&admin_url()).await;
        admin
            .batch_execute(&format!("CREATE DATABASE {name} {how}"))
            .await
            .unwrap();
        Self { name }
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    pub fn url(&self) -> String {
        database_url(&self.name)
    }

    /// Where the server listens.
    pub fn address() -> String {
        let config: tokio_postgres::Config = admin_url().parse().unwrap();
        let tokio_postgres::config::Host::Tcp(host) = &config.get_hosts()[0] else {
            panic!("the tests need Postgres over TCP")
        };
        format!("{host}:{}", config.get_ports()[0])
    }

    /// The URL for another role than the tests' own.
    pub fn url_of(&self, role: &str) -> String {
        self.url().replace("://postgres@", &format!("://{role}@"))
    }

    /// The URL with another server's address in it: that of a proxy.
    pub fn url_through(&self, address: &str) -> String {
        self.url().replace(&Self::address(), address)
    }

    /// A connection for what a test wants to see or break.
    pub async fn connect(&self) -> Client {
        connect(&self.url()).await
    }

    /// Registers Eve with this number, as if by another way.
    pub async fn insert_user(&self, phone: &str) {
        let insert = "INSERT INTO users (name, phone_number) VALUES ('Eve', $1)";
        let client = self.connect().await;
        client.execute(insert, &[&phone]).await.unwrap();
    }

    /// Runs statements for what a test wants to see or break.
    pub async fn run(&self, statements: &str) {
        self.connect()
            .await
            .batch_execute(statements)
            .await
            .unwrap();
    }

    /// Keeps everybody else out of these tables.
    pub async fn lock(&self, tables: &str) -> Lock {
        let client = self.connect().await;
        let lock = format!("BEGIN; LOCK TABLE {tables} IN ACCESS EXCLUSIVE MODE");
        client.batch_execute(&lock).await.unwrap();
        Lock(client)
    }

    pub async fn observer(&self) -> Observer {
        Observer(self.connect().await)
    }

    /// Waits until somebody waits for a lock.
    pub async fn until_waited_for(&self) {
        let observer = self.observer().await;
        until("somebody waits for a lock", async || {
            observer.waiting().await > 0
        })
        .await;
    }

    /// The number of users with this phone number.
    pub async fn users_with(&self, phone: &str) -> i64 {
        let client = self.connect().await;
        let count = "SELECT count(*) FROM users WHERE phone_number = $1";
        client.query_one(count, &[&phone]).await.unwrap().get(0)
    }

    /// The number of users.
    pub async fn count_users(&self) -> i64 {
        self.count("users").await
    }

    /// The number of rows in a table.
    pub async fn count(&self, table: &str) -> i64 {
        let client = self.connect().await;
        let count = format!("SELECT count(*) FROM {table}");
        client.query_one(&count, &[]).await.unwrap().get(0)
    }
}

impl Lock {
    pub async fn release(self) {
        self.0.batch_execute("ROLLBACK").await.unwrap();
    }
}

impl Observer {
    /// The number of other connections to this database.
    pub async fn sessions(&self) -> i64 {
        self.count("pid <> pg_backend_pid()").await
    }

    /// The number of those that wait for a lock.
    pub async fn waiting(&self) -> i64 {
        self.count("wait_event_type = 'Lock'").await
    }

    /// The number of those for which Postgres has planned a statement, and nothing since.
    pub async fn planned(&self) -> i64 {
        self.count("state = 'idle' AND query LIKE 'EXPLAIN%'").await
    }

    async fn count(&self, condition: &str) -> i64 {
        let count = format!(
            "SELECT count(*) FROM pg_stat_activity
             WHERE datname = current_database() AND {condition}"
        );
        self.0.query_one(&count, &[]).await.unwrap().get(0)
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        let name = self.name.clone();
        // The test's own runtime is about to end, so the clean-up has one of its own.
        let dropping = std::thread::spawn(move || {
            runtime().block_on(async {
                drop_with_roles(&connect(&admin_url()).await, &name).await;
            });
        });
        drop(dropping.join());
    }
}

/// The template's name, after it was made by the first test that needs it. The name changes with
/// the migrations. Databases that a killed run left behind are dropped on the way.
async fn template() -> String {
    let mut hash = DefaultHasher::new();
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../migrations");
    let mut files: Vec<_> = fs::read_dir(folder)
        .unwrap()
        .map(|file| file.unwrap().path())
        .collect();
    files.sort();
    for file in files {
        fs::read(file).unwrap().hash(&mut hash);
    }
    let name = format!("otp_template_{:016x}", hash.finish());

    let admin = connect(&admin_url()).await;
    admin
        .execute("SELECT pg_advisory_lock($1)", &[&LOCK])
        .await
        .unwrap();
    drop_leftovers(&admin).await;
    let exists = admin
        .query_opt("SELECT FROM pg_database WHERE datname = $1", &[&name])
        .await
        .unwrap();
    if exists.is_none() {
        let unfinished = format!("{name}_unfinished");
        for statement in [
            format!("DROP DATABASE IF EXISTS {unfinished}"),
            format!("CREATE DATABASE {unfinished}"),
        ] {
            admin.batch_execute(&statement).await.unwrap();
        }
        let env = Env::from([("DATABASE_URL", database_url(&unfinished).as_str())]);
        let database = migrate::Migrate::from_env(&env).unwrap();
        database.run(Command::Up).await.unwrap();
        admin
            .batch_execute(&format!("ALTER DATABASE {unfinished} RENAME TO {name}"))
            .await
            .unwrap();
    }
    // The lock ends with this connection.
    name
}

async fn drop_leftovers(admin: &Client) {
    let rows = admin
        .query(
            "SELECT datname FROM pg_database
             WHERE datname LIKE 'otp\\_test\\_%' AND split_part(datname, '_', 3)::bigint < $1",
            &[&(seconds() - 3600)],
        )
        .await
        .unwrap();
    for row in rows {
        drop_with_roles(admin, row.get(0)).await;
    }
}

/// A database, and the roles that a setup or a test made for it.
async fn drop_with_roles(admin: &Client, name: &str) {
    let roles = ["signup", "verify", "session", "admin"].map(|role| format!("{name}_{role}"));
    let roles = format!("DROP ROLE IF EXISTS {}", roles.join(", "));
    // Rights of a role that are left keep it from being dropped, so the database goes first.
    for statement in [
        format!("DROP DATABASE IF EXISTS {name} WITH (FORCE)"),
        roles,
    ] {
        admin.batch_execute(&statement).await.unwrap();
    }
}

async fn connect(url: &str) -> Client {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await.unwrap();
    tokio::spawn(connection);
    client
}

fn admin_url() -> String {
    variable("DATABASE_URL")
        .expect("DATABASE_URL: run through scripts/with-services.sh --sns --pgbouncer")
}

fn database_url(name: &str) -> String {
    let url = admin_url();
    let (base, query) = url.split_once('?').unwrap_or((&url, ""));
    let (server, _) = base.rsplit_once('/').unwrap();
    format!("{server}/{name}?{query}")
}

fn seconds() -> i64 {
    since_1970().as_secs().try_into().unwrap()
}
