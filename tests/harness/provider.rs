//! Stands in for SNS where moto cannot, and for Twilio: it refuses, hangs, breaks off, and shows what
//! it was sent.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use serde_json::json;
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
    /// An error reply with this status and this error code of AWS or Twilio.
    Refuse(u16, &'static str),
    /// The same, after some time.
    RefuseAfter(Duration, u16, &'static str),
    /// The same to one request. It accepts those after it.
    RefuseOnce(u16, &'static str),
    /// A reply with this status, whose body is no JSON and no XML.
    Garble(u16),
    /// The head of a reply with this status, and never its body.
    HangInBody(u16),
    /// No reply, ever.
    Hang,
    /// The connection is closed instead of a reply.
    BreakOff,
}

impl Behaviour {
    fn refuses(self) -> bool {
        matches!(
            self,
            Self::Refuse(..) | Self::RefuseAfter(..) | Self::RefuseOnce(..)
        )
    }
}

/// The id of every message that SNS accepts.
pub const SNS_MESSAGE_ID: &str = "feedbeef-feed-beef-feed-beeffeedbeef";

/// The id of every message that Twilio accepts.
pub const TWILIO_MESSAGE_ID: &str = "SMfeedbeeffeedbeeffeedbeeffeedbeef";

pub struct Provider {
    address: String,
    shared: Arc<Shared>,
}

struct Shared {
    behaviour: Mutex<Behaviour>,
    heads: Mutex<Vec<String>>,
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
            heads: Mutex::default(),
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

    /// The heads of the requests that arrived whole, oldest first.
    pub fn heads(&self) -> Vec<String> {
        self.shared.heads.lock().unwrap().clone()
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
    while let Some((head, body)) = read_request(&mut client).await {
        let behaviour = *shared.behaviour.lock().unwrap();
        let is_twilio = head.starts_with("POST /2010-04-01/");
        if !behaviour.refuses() {
            let message = message_of(&body);
            shared.messages.lock().unwrap().push(message);
        }
        shared.heads.lock().unwrap().push(head);
        shared.requests.lock().unwrap().push(body);
        let reply = match behaviour {
            Behaviour::Accept => accepted(is_twilio),
            Behaviour::AcceptAfter(time) => {
                let_time_pass(time).await;
                accepted(is_twilio)
            }
            Behaviour::Refuse(status, code) => refused(is_twilio, status, code),
            Behaviour::RefuseAfter(time, status, code) => {
                let_time_pass(time).await;
                refused(is_twilio, status, code)
            }
            Behaviour::RefuseOnce(status, code) => {
                *shared.behaviour.lock().unwrap() = Behaviour::Accept;
                refused(is_twilio, status, code)
            }
            Behaviour::Garble(status) => http(status, "{\"sid\": +4915100000000"),
            Behaviour::HangInBody(status) => {
                format!("HTTP/1.1 {status} .\r\ncontent-length: 100\r\n\r\n{{")
            }
            Behaviour::Hang => std::future::pending().await,
            Behaviour::BreakOff => return,
        };
        if client.write_all(reply.as_bytes()).await.is_err() {
            return;
        }
    }
}

fn accepted(is_twilio: bool) -> String {
    if is_twilio {
        let body = json!({"sid": TWILIO_MESSAGE_ID, "status": "queued", "to": "+4915100000000"});
        return http(201, &body.to_string());
    }
    http(
        200,
        &format!(
            "<PublishResponse xmlns=\"http://sns.amazonaws.com/doc/2010-03-31/\"><PublishResult>\
             <MessageId>{SNS_MESSAGE_ID}</MessageId></PublishResult></PublishResponse>"
        ),
    )
}

fn refused(is_twilio: bool, status: u16, code: &str) -> String {
    if is_twilio {
        let code: u32 = code.parse().unwrap();
        let message = "+4915100000000 is refused";
        let body = json!({"code": code, "message": message, "status": status});
        return http(status, &body.to_string());
    }
    http(
        status,
        &format!(
            "<ErrorResponse><Error><Type>Sender</Type><Code>{code}</Code>\
             <Message>+4915100000000 is refused</Message></Error></ErrorResponse>"
        ),
    )
}

pub(crate) fn http(status: u16, body: &str) -> String {
    let length = body.len();
    format!(
        "HTTP/1.1 {status} .\r\ncontent-type: text/xml\r\ncontent-length: {length}\r\n\r\n{body}"
    )
}

/// The head and the body.
pub(crate) async fn read_request(client: &mut TcpStream) -> Option<(String, String)> {
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
            return Some((head.to_owned(), body.to_owned()));
        }
    }
}

fn message_of(form: &str) -> (String, String) {
    let url = reqwest::Url::parse(&format!("http://form/?{form}")).unwrap();
    let field = |of_sns: &str, of_twilio: &str| {
        let mut fields = url.query_pairs();
        let found = fields.find(|(name, _)| name == of_sns || name == of_twilio);
        found.map_or_else(String::new, |(_, value)| value.into_owned())
    };
    (field("PhoneNumber", "To"), field("Message", "Body"))
}
