//! Turns Amazon's authorities for RDS from PEM into the trust anchors that rustls takes, and the
//! world's numbering plans into tables, so that no start parses them.

#[path = "build/plans.rs"]
mod plans;

use std::{env, error::Error, fs, path::Path};

use rustls_pki_types::{CertificateDer, pem::PemObject};
use webpki::anchor_from_trusted_cert;

const BUNDLE: &str = "src/store/rds-global-bundle.pem";

#[expect(clippy::disallowed_methods, reason = "cargo names the folder there")]
fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed={BUNDLE}");
    let folder = env::var_os("OUT_DIR").ok_or("cargo sets no OUT_DIR")?;
    let pem = fs::read(BUNDLE)?;
    let anchors = CertificateDer::pem_slice_iter(&pem)
        .map(|certificate| anchor(&certificate?))
        .collect::<Result<Vec<_>, _>>()?;
    let (count, anchors) = (anchors.len(), anchors.join(",\n"));
    let code = format!("static RDS: [TrustAnchor<'static>; {count}] = [\n{anchors}\n];\n");
    fs::write(Path::new(&folder).join("rds.rs"), code)?;

    Ok(fs::write(
        Path::new(&folder).join("plans.rs"),
        plans::compile()?,
    )?)
}

/// The code for the trust anchor of a certificate.
fn anchor(certificate: &CertificateDer) -> Result<String, Box<dyn Error>> {
    let anchor = anchor_from_trusted_cert(certificate)?;
    if anchor.name_constraints.is_some() {
        return Err("an authority is constrained to some names".into());
    }
    let subject = anchor.subject.escape_ascii();
    let key = anchor.subject_public_key_info.escape_ascii();
    Ok(format!(
        "TrustAnchor {{ subject: Der::from_slice(b\"{subject}\"), \
         subject_public_key_info: Der::from_slice(b\"{key}\"), name_constraints: None }}"
    ))
}
