//! Prints a new `TOKEN_PRIVATE_KEY`.

use std::{
    error::Error,
    io::{self, Write},
};

fn main() -> Result<(), Box<dyn Error>> {
    let key = shared::token::new_private_key()?;
    io::stdout().lock().write_all(key.as_bytes())?;
    Ok(())
}
