//! The flights of clients and servers through a proxy, read as messages of their protocols.

use std::ffi::CStr;

use redis::{Parser, from_redis_value};

/// The bytes that passed a proxy while it recorded, of all connections in the order of their
/// flights.
#[derive(Debug, Default)]
pub struct Transcript {
    pub(crate) clients: Vec<u8>,
    pub(crate) servers: Vec<u8>,
}

impl Transcript {
    /// The messages of Postgres's clients after their log-in, by name. A `Parse` of a named
    /// statement has that name too.
    pub fn messages_to_postgres(&self) -> Vec<String> {
        let mut messages = Vec::new();
        let mut said = self.clients.as_slice();
        while let [kind, rest @ ..] = said {
            let length = u32::from_be_bytes(rest[..4].try_into().unwrap());
            let (message, rest) = rest.split_at(length.try_into().unwrap());
            said = rest;
            let name = match kind {
                b'B' => "Bind",
                b'C' => "Close",
                b'D' => "Describe",
                b'E' => "Execute",
                b'P' => "Parse",
                b'Q' => "Query",
                b'S' => "Sync",
                _ => panic!("{:?}", char::from(*kind)),
            };
            let mut name = name.to_owned();
            let statement = CStr::from_bytes_until_nul(&message[4..]);
            if let (b'P', Ok(statement)) = (kind, statement)
                && !statement.is_empty()
            {
                name = format!("{name} {}", statement.to_str().unwrap());
            }
            messages.push(name);
        }
        messages
    }

    /// The commands of Redis's clients, by name.
    pub fn commands_to_redis(&self) -> Vec<String> {
        let mut commands = Vec::new();
        let (mut parser, mut said) = (Parser::new(), self.clients.as_slice());
        while let Ok(command) = parser.parse_value(&mut said) {
            let words: Vec<Vec<u8>> = from_redis_value(command).unwrap();
            commands.push(String::from_utf8(words[0].clone()).unwrap());
        }
        commands
    }

    /// A server said this.
    pub fn holds_reply(&self, text: &str) -> bool {
        String::from_utf8_lossy(&self.servers).contains(text)
    }
}
