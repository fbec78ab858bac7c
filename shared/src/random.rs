//! Unguessable values from the operating system's generator.

use rand::{RngExt, rand_core::UnwrapErr, rngs::SysRng};

/// The operating system's generator. It does not fail on a running Linux or macOS; if it did, a
/// panic fails the request, because nothing could be made safely.
pub(crate) fn generator() -> UnwrapErr<SysRng> {
    UnwrapErr(SysRng)
}

/// A new id: 128 random bits as 32 lower-case hexadecimal digits.
pub fn id() -> String {
    let bits: u128 = generator().random();
    format!("{bits:032x}")
}

/// Tells if a text has the form of an [`id`].
pub(crate) fn is_id(text: &str) -> bool {
    text.len() == 32 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}
