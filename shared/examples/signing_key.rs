//! Prints a new `TOKEN_PRIVATE_KEY`: RSA of 2048 bits, which API Gateway's authorizer takes.

use std::{
    error::Error,
    io::{self, Write},
};

use aws_lc_rs::{
    encoding::{AsDer, Pkcs8V1Der},
    rsa::{KeyPair, KeySize},
};
use base64::{Engine, prelude::BASE64_STANDARD};

fn main() -> Result<(), Box<dyn Error>> {
    let key = KeyPair::generate(KeySize::Rsa2048)?;
    let pkcs8: Pkcs8V1Der = key.as_der()?;
    let mut output = io::stdout().lock();
    writeln!(output, "-----BEGIN PRIVATE KEY-----")?;
    let text = BASE64_STANDARD.encode(pkcs8.as_ref());
    for line in text.as_bytes().chunks(64) {
        output.write_all(line)?;
        writeln!(output)?;
    }
    writeln!(output, "-----END PRIVATE KEY-----")?;
    Ok(())
}
