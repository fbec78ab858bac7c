//! The sizes of the deployed functions, zipped.

use std::{fs, io::Write};

use flate2::{Compression, write::DeflateEncoder};

use crate::{process::Program, table::Table};

pub fn measure(table: &mut Table) {
    let floor = zipped("empty");
    for name in ["signup", "verify", "session"] {
        let figure = format!("zip of `{name}` ÷ empty");
        table.ratio(&figure, [zipped(name), floor], "MB", 6.0);
    }
}

/// Megabytes.
fn zipped(name: &str) -> f64 {
    let program = fs::read(Program::path(name)).unwrap();
    let mut zip = DeflateEncoder::new(Vec::new(), Compression::default());
    zip.write_all(&program).unwrap();
    let bytes = u32::try_from(zip.finish().unwrap().len()).unwrap();
    f64::from(bytes) / 1e6
}
