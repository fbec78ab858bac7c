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

use crate::{code_in, let_time_pass};

/// The provider's way with a request that it has read to its end.
#[derive(Clone, Copy, Debug)]
pub enum Behaviour {
    Accept,
    /// It takes its time and accepts.
    AcceptAfter(Duration),
    /// An error reply with this status and AWS error code.
    Refuse(u16, &'static str),
    /// No reply, ever.
    Hang,
    /// The connection is closed instead of a reply.
    BreakOff,
}

pub struct Provider {
    address: String,
    shared: Arc<Shared>,
}

struct Shared {
    behaviour: Mutex<Behaviour>,
    requests: Mutex<Vec<String>>,
    /// Those of the requests that were not refused: to whom, and what.
    messages: Mutex<Vec<(String, String)>>,
    connections: AtomicUsize,
}

impl Provider {
    pub async fn start(behaviour: Behaviour) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let shared = Arc::new(Shared {
            behaviour: Mutex::new(behaviour),
            requests: Mutex::default(),
            messages: Mutex::default(),
            connections: AtomicUsize::new(0),
        });
        let this = Self {
            address,
            shared: Arc::clone(&shared),
        };
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                shared.connections.fetch_add(1, Ordering::SeqCst);
                tokio::spawn(serve(client, Arc::clone(&shared)));
            }
        });
        this
    }

    /// From now on.
    pub fn behave(&self, behaviour: Behaviour) {
        *self.shared.behaviour.lock().unwrap() = behaviour;
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The number of connections so far.
    pub fn connections(&self) -> usize {
        self.shared.connections.load(Ordering::SeqCst)
    }

    /// The form-encoded bodies that arrived whole, oldest first.
    pub fn requests(&self) -> Vec<String> {
        self.requests_after(0)
    }

    /// The same without the first so many.
    pub fn requests_after(&self, seen: usize) -> Vec<String> {
        self.shared.requests.lock().unwrap()[seen..].to_vec()
    }

    /// The messages to this number that may have been sent: those not refused, oldest first.
    pub fn messages_to(&self, phone: &str) -> Vec<String> {
        let messages = self.shared.messages.lock().unwrap();
        let to_phone = messages.iter().filter(|(to, _)| to == phone);
        to_phone.map(|(_, message)| message.clone()).collect()
    }

    /// The codes in these messages.
    pub fn codes_to(&self, phone: &str) -> Vec<String> {
        let messages = self.messages_to(phone);
        messages.iter().map(|message| code_in(message)).collect()
    }

    /// The code of the newest message to this number.
    pub fn last_code_to(&self, phone: &str) -> String {
        self.codes_to(phone).pop().unwrap()
    }
}

async fn serve(mut client: TcpStream, shared: Arc<Shared>) {
    while let Some(body) = read_request(&mut client).await {
        let behaviour = *shared.behaviour.lock().unwrap();
        if !matches!(behaviour, Behaviour::Refuse(..)) {
            let message = message_of(&body);
            shared.messages.lock().unwrap().push(message);
        }
        shared.requests.lock().unwrap().push(body);
        let reply = match behaviour {
            Behaviour::Accept => accepted(),
            Behaviour::AcceptAfter(time) => {
                let_time_pass(time).await;
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
        if client.write_all(reply.as_bytes()).await.is_err() {
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

fn message_of(form: &str) -> (String, String) {
    let url = reqwest::Url::parse(&format!("http://form/?{form}")).unwrap();
    let field = |name: &str| {
        let found = url.query_pairs().find(|(field, _)| field == name);
        found.map_or_else(String::new, |(_, value)| value.into_owned())
    };
    (field("PhoneNumber"), field("Message"))
}
