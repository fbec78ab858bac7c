//! The log of a function, and the secrets that must not be in it.

use std::{
    collections::BTreeSet,
    io::{BufRead, BufReader, PipeReader},
    sync::{Arc, Mutex},
    thread::{self, JoinHandle},
};

use serde_json::Value;

use crate::{EDGE_SECRET, PEPPER, TWILIO_TOKEN, signing_key};

/// The lines of one process, read by a thread of its own so that they can be read to their end
/// wherever a test drops its function.
pub(crate) struct Log {
    lines: Arc<Mutex<Vec<String>>>,
    reading: Option<JoinHandle<()>>,
}

/// The texts that a log must not show: the pepper, the signing key, the edge's secret and Twilio's
/// token, and the codes, numbers, tokens and addresses behind CloudFront that passed through.
#[derive(Debug)]
pub struct Secrets(BTreeSet<String>);

impl Log {
    pub fn of(output: PipeReader) -> Self {
        let lines = Arc::<Mutex<Vec<String>>>::default();
        let kept = Arc::clone(&lines);
        let reading = thread::spawn(move || {
            for line in BufReader::new(output).split(b'\n').map_while(Result::ok) {
                let line = String::from_utf8_lossy(&line).into_owned();
                kept.lock().unwrap().push(line);
            }
        });
        Self {
            lines,
            reading: Some(reading),
        }
    }

    /// The lines so far.
    pub fn lines(&self) -> Vec<String> {
        self.lines.lock().unwrap().clone()
    }

    /// Waits for the process, which has ended, to have been read to its end.
    pub fn read_to_end(&mut self) {
        if let Some(reading) = self.reading.take() {
            reading.join().unwrap();
        }
    }
}

impl Default for Secrets {
    fn default() -> Self {
        let key = signing_key().private_pem();
        let key = key.lines().filter(|line| !line.starts_with("-----"));
        Self(
            key.map(str::to_owned)
                .chain([EDGE_SECRET, PEPPER, TWILIO_TOKEN].map(str::to_owned))
                .collect(),
        )
    }
}

impl Secrets {
    /// Fewer digits than these stand in a log by chance.
    const DIGITS: usize = 6;

    /// Learns the code, the number and the tokens of an event, of a response, or of the `log`
    /// sender's line.
    pub fn learn(&mut self, value: &Value) {
        match value {
            Value::Object(members) => {
                for (name, value) in members {
                    match (name.as_str(), value) {
                        ("otp" | "phone_number", Value::String(text)) => self.learn_text(text),
                        (
                            "access_token" | "refresh_token" | "authorization" | "device_token",
                            Value::String(text),
                        ) => self.learn_token(text),
                        ("cloudfront-viewer-address", Value::String(text)) => {
                            let (address, _) = text.rsplit_once(':').unwrap_or((text, ""));
                            self.0.insert(address.to_owned());
                        }
                        ("body", Value::String(text)) => {
                            if let Ok(body) = serde_json::from_str(text) {
                                self.learn(&body);
                            }
                        }
                        _ => self.learn(value),
                    }
                }
            }
            Value::Array(values) => values.iter().for_each(|value| self.learn(value)),
            _ => {}
        }
    }

    fn learn_text(&mut self, text: &str) {
        let digits: String = text.chars().filter(char::is_ascii_digit).collect();
        for text in [text.trim(), &digits] {
            if text.chars().filter(char::is_ascii_digit).count() >= Self::DIGITS {
                self.0.insert(text.to_owned());
            }
        }
    }

    /// Each part by itself, since a signature alone is what makes a token, and a secret alone what
    /// makes a refresh token.
    fn learn_token(&mut self, text: &str) {
        let parts = text.split([' ', '.']).filter(|part| part.len() > 20);
        self.0.extend(parts.map(str::to_owned));
    }

    /// The reason why the log must not hold this line, if there is one. Every line is one JSON
    /// object; the `log` sender's own line is there to show a code and a number.
    pub fn fault_of(&self, line: &str) -> Option<String> {
        let Ok(Value::Object(_)) = serde_json::from_str(line) else {
            return Some(format!("not one JSON object: {line:?}"));
        };
        let mut told: Value = serde_json::from_str(line).ok()?;
        if told["message"] == "Generated OTP" {
            return None;
        }
        forget_times_and_ids(&mut told);
        let told = told.to_string();
        let secret = self.0.iter().find(|secret| told.contains(*secret))?;
        Some(format!("{secret:?} is in {line}"))
    }
}

/// Whatever number is looked for stands in these by chance now and then. Each must be what it says,
/// so that nothing hides in it.
fn forget_times_and_ids(line: &mut Value) {
    if let Some(time) = line["timestamp"].as_str() {
        assert!(time.len() <= "2026-11-22T00:00:00.000000Z".len(), "{time}");
        line["timestamp"] = Value::Null;
    }
    for id in ["requestId", "xrayTraceId"] {
        if let Some(id) = line.pointer_mut(&format!("/span/{id}")) {
            *id = Value::Null;
        }
    }
    if let Some(id) = line["message_id"].as_str() {
        let is_digit = |byte: u8| byte.is_ascii_hexdigit() || byte == b'-';
        let id = id.strip_prefix("SM").unwrap_or(id);
        assert!(id.len() >= 32 && id.bytes().all(is_digit), "{id}");
        line["message_id"] = Value::Null;
    }
    if let Some(time) = line.pointer_mut("/_aws/Timestamp") {
        assert!(time.is_u64(), "{time}");
        *time = Value::Null;
    }
    for time in ["latency_ms", "postgres_ms", "redis_ms", "provider_ms"] {
        if let Some(time) = line.get_mut(time) {
            assert!(time.as_f64().is_some_and(|time| time < 60_000.0), "{time}");
            *time = Value::Null;
        }
    }
}
