//! Prints a new key for access tokens, `TOKEN_PRIVATE_KEY` and then `TOKEN_PUBLIC_KEYS`.

use std::{
    error::Error,
    io::{self, Write},
};

use shared::token;

fn main() -> Result<(), Box<dyn Error>> {
    let private = token::new_private_key()?;
    let public = token::public_key_of(&private).ok_or("not a key")?;
    let mut output = io::stdout().lock();
    output.write_all(private.as_bytes())?;
    output.write_all(public.as_bytes())?;
    Ok(())
}
