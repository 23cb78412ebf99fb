//! The consent record of a spool directory: `privacy::consent` keeps it, `spool::key` authenticates it.
#![forbid(unsafe_code)]

use std::path::Path;

use crate::error::Result;
use crate::privacy::consent::{self, Basis, Consent};
use crate::spool::key::LocalKey;

const FILE: &str = "consent";
/// The secret of the device identifier.
pub(crate) const IDENTITY_FILE: &str = "identity";
/// Names the key that authenticates the record.
const KEY: &str = "consent/v1";
/// Applications have no way yet to version the text that they show.
const POLICY_VERSION: u32 = 0;

/// What the record says; a missing, damaged or foreign one is [`Consent::Unknown`].
pub(crate) fn read(spool: &Path) -> Consent {
    match LocalKey::load(spool) {
        Ok(Some(key)) => consent::read(&spool.join(FILE), &key.derive(KEY)),
        Ok(None) | Err(_) => Consent::Unknown,
    }
}

/// Writes a new record under the present key, making one if there is none.
pub(crate) fn write(spool: &Path, said: Consent, basis: Option<Basis>) -> Result<()> {
    let key = LocalKey::load_or_create(spool)?;
    let now = crate::sys::process::unix_ms();
    consent::write(&spool.join(FILE), &key.derive(KEY), said, basis, POLICY_VERSION, now).map(|_| ())
}
