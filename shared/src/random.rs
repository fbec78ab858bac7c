//! What nobody can guess, from the operating system's generator.

use rand::{RngExt, rand_core::UnwrapErr, rngs::SysRng};

/// The generator of a running Linux or macOS does not fail; if it ever did, nothing could be made
/// safely, and the panic costs the one request.
pub(crate) fn generator() -> UnwrapErr<SysRng> {
    UnwrapErr(SysRng)
}

/// A name for something: 128 bits, as 32 lower-case hexadecimal digits.
pub(crate) fn id() -> String {
    let bits: u128 = generator().random();
    format!("{bits:032x}")
}

/// Whether a text has the shape of an [`id`].
pub(crate) fn is_id(text: &str) -> bool {
    text.len() == 32 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}
