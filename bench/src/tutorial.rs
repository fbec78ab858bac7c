//! The sign-up of the tutorial's Go server, see `bench/tutorial/main.go`.

use std::{process::Stdio, time::Duration};

use http_body_util::{BodyExt, Full};
use hyper::{
    Request,
    body::Bytes,
    client::conn::http1::{self, SendRequest},
};
use hyper_util::rt::TokioIo;
use serde_json::json;
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    net::TcpStream,
    process::{Child, Command},
    time::Instant,
};

use crate::stage::Stores;

pub struct Tutorial {
    address: String,
    _process: Child,
}

/// A connection to it that is kept.
pub struct Client(SendRequest<Full<Bytes>>);

impl Tutorial {
    /// Starts it over these stores; `None` if it was not built.
    pub async fn start(stores: Stores<'_>) -> Option<Self> {
        let program = harness::variable("TUTORIAL")?;
        let mut process = Command::new(program)
            .envs([
                ("LISTEN", "127.0.0.1:0"),
                ("DATABASE_URL", stores.database_url),
                ("REDIS_URL", stores.redis_url),
            ])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(process.stdout.take().unwrap()).lines();
        let line = lines.next_line().await.unwrap().unwrap();
        let address = line.strip_prefix("listening on ").unwrap().to_owned();
        tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
        Some(Self {
            address,
            _process: process,
        })
    }

    pub async fn connect(&self) -> Client {
        let stream = TcpStream::connect(&self.address).await.unwrap();
        stream.set_nodelay(true).unwrap();
        let (client, connection) = http1::handshake(TokioIo::new(stream)).await.unwrap();
        tokio::spawn(async { drop(connection.await) });
        Client(client)
    }
}

impl Client {
    /// The time of a sign-up, which must succeed.
    pub async fn sign_up(&mut self, phone: &str) -> Duration {
        let body = json!({"name": "Ada Lovelace", "phone_number": phone}).to_string();
        let request = Request::post("/signup")
            .header("Host", "localhost")
            .header("Content-Type", "application/json")
            .body(Full::from(body))
            .unwrap();
        let begun = Instant::now();
        let response = self.0.send_request(request).await.unwrap();
        let status = response.status();
        let body = response.into_body().collect().await.unwrap().to_bytes();
        let time = begun.elapsed();
        assert!(status.is_success(), "{status}: {body:?}");
        time
    }
}
