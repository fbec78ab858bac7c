//! Prints a new key for access tokens, `TOKEN_PRIVATE_KEY` and then `TOKEN_PUBLIC_KEYS`: RSA of 2048
//! bits, which API Gateway's authorizer takes.

use std::{
    error::Error,
    io::{self, Write},
};

use aws_lc_rs::{
    encoding::{AsDer, Pkcs8V1Der, PublicKeyX509Der},
    rsa::{KeyPair, KeySize},
    signature::KeyPair as _,
};
use base64::{Engine, prelude::BASE64_STANDARD};

fn main() -> Result<(), Box<dyn Error>> {
    let key = KeyPair::generate(KeySize::Rsa2048)?;
    let pkcs8: Pkcs8V1Der = key.as_der()?;
    print("PRIVATE KEY", pkcs8.as_ref())?;
    let public: PublicKeyX509Der<'_> = key.public_key().as_der()?;
    print("PUBLIC KEY", public.as_ref())?;
    Ok(())
}

/// In PEM.
fn print(label: &str, der: &[u8]) -> io::Result<()> {
    let mut output = io::stdout().lock();
    writeln!(output, "-----BEGIN {label}-----")?;
    for line in BASE64_STANDARD.encode(der).as_bytes().chunks(64) {
        output.write_all(line)?;
        writeln!(output)?;
    }
    writeln!(output, "-----END {label}-----")
}
