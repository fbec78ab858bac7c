//! The function `session` as a web server, for clients that speak HTTP.

use shared::lambda::Function as _;
use std::sync::Arc;

use lambda_http::{Body, request::from_str};
use session::Session;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

use crate::event;

/// Serves GET requests until the test ends.
pub fn serve(listener: TcpListener, session: Session) {
    let session = Arc::new(session);
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            tokio::spawn(respond(client, Arc::clone(&session)));
        }
    });
}

async fn respond(mut client: TcpStream, session: Arc<Session>) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        if client.read_buf(&mut head).await.unwrap_or(0) == 0 {
            return;
        }
    }
    let head = String::from_utf8(head).unwrap();
    let path = head.split(' ').nth(1).unwrap();
    let request = from_str(&event("GET", path, "").to_string()).unwrap();
    let (parts, body) = session.handle(request).await.into_parts();
    let Body::Text(body) = body else {
        panic!("not text")
    };
    let headers: String = parts
        .headers
        .iter()
        .flat_map(|(name, value)| [name.as_str(), ": ", value.to_str().unwrap(), "\r\n"])
        .collect();
    let (status, length) = (parts.status, body.len());
    let response = format!(
        "HTTP/1.1 {status}\r\n{headers}Connection: close\r\nContent-Length: {length}\r\n\r\n{body}"
    );
    // A client that has gone needs no response.
    drop(client.write_all(response.as_bytes()).await);
}
