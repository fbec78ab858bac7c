//! Stands in for SNS where moto cannot: it refuses, hangs, breaks off, and shows what it was sent.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

/// What the provider does with a request that it has read to its end.
#[derive(Clone, Copy, Debug)]
pub enum Behaviour {
    Accept,
    /// It takes its time and accepts.
    AcceptAfter(Duration),
    /// An error answer with this status and AWS error code.
    Refuse(u16, &'static str),
    /// No answer, ever.
    Hang,
    /// The connection is closed instead of an answer.
    BreakOff,
}

pub struct Provider {
    address: String,
    requests: Arc<Mutex<Vec<String>>>,
    connections: Arc<AtomicUsize>,
}

impl Provider {
    pub async fn start(behaviour: Behaviour) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let (requests, connections) = (Arc::default(), Arc::new(AtomicUsize::new(0)));
        let (log, count) = (Arc::clone(&requests), Arc::clone(&connections));
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                count.fetch_add(1, Ordering::SeqCst);
                tokio::spawn(serve(client, behaviour, Arc::clone(&log)));
            }
        });
        Self {
            address,
            requests,
            connections,
        }
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// How many connections it has seen.
    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }

    /// The form-encoded bodies that arrived whole, oldest first.
    pub fn requests(&self) -> Vec<String> {
        self.requests.lock().unwrap().clone()
    }
}

async fn serve(mut client: TcpStream, behaviour: Behaviour, log: Arc<Mutex<Vec<String>>>) {
    while let Some(body) = read_request(&mut client).await {
        log.lock().unwrap().push(body);
        let answer = match behaviour {
            Behaviour::Accept => accepted(),
            Behaviour::AcceptAfter(time) => {
                tokio::time::sleep(time).await;
                accepted()
            }
            Behaviour::Refuse(status, code) => http(
                status,
                &format!(
                    "<ErrorResponse><Error><Type>Sender</Type><Code>{code}</Code>\
                     <Message>+4915100000000 is refused</Message></Error></ErrorResponse>"
                ),
            ),
            Behaviour::Hang => std::future::pending().await,
            Behaviour::BreakOff => return,
        };
        if client.write_all(answer.as_bytes()).await.is_err() {
            return;
        }
    }
}

fn accepted() -> String {
    http(
        200,
        "<PublishResponse xmlns=\"http://sns.amazonaws.com/doc/2010-03-31/\"><PublishResult>\
         <MessageId>1</MessageId></PublishResult></PublishResponse>",
    )
}

fn http(status: u16, body: &str) -> String {
    let length = body.len();
    format!(
        "HTTP/1.1 {status} .\r\ncontent-type: text/xml\r\ncontent-length: {length}\r\n\r\n{body}"
    )
}

async fn read_request(client: &mut TcpStream) -> Option<String> {
    let mut bytes = Vec::new();
    loop {
        if client.read_buf(&mut bytes).await.ok()? == 0 {
            return None;
        }
        let text = String::from_utf8_lossy(&bytes);
        let Some((head, body)) = text.split_once("\r\n\r\n") else {
            continue;
        };
        let length = head
            .lines()
            .filter_map(|line| line.split_once(':'))
            .find(|(name, _)| name.eq_ignore_ascii_case("content-length"))
            .map_or(0, |(_, length)| length.trim().parse().unwrap());
        if body.len() >= length {
            return Some(body.to_owned());
        }
    }
}
