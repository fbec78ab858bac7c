//! The watch over conversion: what is done when hardly any code that is sent comes back.

use crate::config::{self, Env};

/// Low conversion means that somebody may be paid for messages that nobody reads.
pub struct Watch {
    mode: Mode,
    /// Codes in the hour without which conversion is not judged.
    pub(super) min_sends: u32,
    /// The conversion, in per cent, that is not low.
    pub(super) min_conversion: u32,
}

#[derive(Clone, Copy)]
enum Mode {
    Off,
    Record,
    Enforce,
}

impl Watch {
    /// Reads `PUMPING` (`off`, `record` or `enforce`; default `record`), `PUMPING_MIN_SENDS`
    /// (default 50) and `PUMPING_MIN_CONVERSION` (per cent, default 10).
    pub fn from_env(env: &Env) -> Result<Self, config::Error> {
        const NAME: &str = "PUMPING";
        Ok(Self {
            mode: match env.text(NAME) {
                Some("off") => Mode::Off,
                None | Some("record") => Mode::Record,
                Some("enforce") => Mode::Enforce,
                Some(_) => {
                    return Err(config::Error::invalid(
                        NAME,
                        "must be off, record or enforce",
                    ));
                }
            },
            min_sends: env.number("PUMPING_MIN_SENDS", 50, 1..=1_000_000)?,
            min_conversion: env.number("PUMPING_MIN_CONVERSION", 10, 0..=100)?,
        })
    }

    /// The word that `issue.lua` takes.
    pub(super) fn mode(&self) -> &'static str {
        match self.mode {
            Mode::Off => "off",
            Mode::Record => "record",
            Mode::Enforce => "enforce",
        }
    }
}
