//! The device identifier: none, per session, or rotating; never from hardware.
//!
//! The rotating one comes from 32 random bytes S in the application's own file, and from nothing else of the device:
//! `id = UUIDv8(HKDF-SHA256(S, salt = application, tenant, environment, info = "device-id/v1", epoch))` with
//! `epoch = floor((time + jitter) / length)`. Without S, identifiers of two epochs, applications, tenants or
//! environments have nothing in common. The jitter differs between installations, so that they do not all rotate
//! in the same instant.
#![forbid(unsafe_code)]

use std::path::Path;

use hkdf::Hkdf;
use serde::{Deserialize, Serialize};
use sha2::Sha256;
use zeroize::Zeroizing;

use crate::error::{Error, Result};
use crate::private_file;

/// How long one identifier lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Identity {
    /// The field is absent. Always so for child-directed applications.
    Off,
    /// One per start of the application; nothing is stored.
    Session,
    /// Rotates after this many days, from 32 random bytes in the application's own 0600 file.
    Epoch {
        /// Days; 30 is usual.
        days: u32,
    },
}

impl Default for Identity {
    fn default() -> Self {
        Self::Epoch { days: 30 }
    }
}

/// Whose identifier it is. Any difference makes an unrelated one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Scope<'a> {
    /// The application's name.
    pub application: &'a str,
    /// The customer, where several share one application.
    pub tenant: &'a str,
    /// The deployment.
    pub environment: &'a str,
}

/// The identifier for a report made at `time_ms` (milliseconds since the Unix epoch), or `None` if it is off.
///
/// Only `Epoch` touches `secret`, a file that is made the first time: ask the gate first whether anything may be stored.
/// `session` is 16 random bytes that the application's process keeps.
///
/// # Errors
/// If the file cannot be used or made.
pub fn identifier(
    identity: Identity,
    scope: &Scope<'_>,
    secret: &Path,
    session: [u8; 16],
    time_ms: u64,
) -> Result<Option<String>> {
    match identity {
        Identity::Off => Ok(None),
        Identity::Session => Ok(Some(uuid(session, 4))),
        Identity::Epoch { days } => {
            let secret = load_or_create(secret)?;
            let epoch = epoch(&secret, scope, days, time_ms);
            Ok(Some(derive(&secret, scope, epoch)))
        }
    }
}

/// Makes what [`identifier`] would make on first use. As with that, ask the gate first.
///
/// # Errors
/// If the file cannot be used or made.
pub fn prepare(identity: Identity, secret: &Path) -> Result<()> {
    match identity {
        Identity::Off | Identity::Session => Ok(()),
        Identity::Epoch { .. } => load_or_create(secret).map(|_| ()),
    }
}

/// Overwrites and removes the secret: all its identifiers, past and future, cannot be made again. Returns whether
/// there was one. For withdrawal and erasure.
///
/// # Errors
/// If the file cannot be removed.
pub fn forget(secret: &Path) -> Result<bool> {
    private_file::destroy(secret)
}

/// The identifier of one epoch, as a version 8 UUID (RFC 9562, section 5.8).
pub fn derive(secret: &[u8; 32], scope: &Scope<'_>, epoch: u64) -> String {
    let output = expand(secret, scope, &[b"device-id/v1", &epoch.to_le_bytes()]);
    let mut bytes = [0; 16];
    bytes.iter_mut().zip(output.iter()).for_each(|(to, from)| *to = *from);
    uuid(bytes, 8)
}

/// The number of the epoch of `days` days (at least 1) that `time_ms` lies in.
pub fn epoch(secret: &[u8; 32], scope: &Scope<'_>, days: u32, time_ms: u64) -> u64 {
    let length = u64::from(days.max(1)) * 24 * 60 * 60 * 1000;
    let output = expand(secret, scope, &[b"device-id-jitter/v1"]);
    let jitter = output.first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes)) % length;
    time_ms.saturating_add(jitter) / length
}

const SECRET: usize = 32;

fn load_or_create(path: &Path) -> Result<Zeroizing<[u8; SECRET]>> {
    let mut secret = Zeroizing::new([0; SECRET]);
    let mut adopt = |bytes: &[u8]| {
        let bytes: &[u8; SECRET] = bytes.try_into().map_err(|_| {
            private_file::refuse(path, format!("the identifier's secret has {SECRET} bytes; delete the file"))
        })?;
        *secret = *bytes;
        Ok(())
    };
    if let Some(bytes) = private_file::read(path, SECRET)? {
        adopt(&bytes)?;
        return Ok(secret);
    }
    private_file::update(path, SECRET, |present| {
        if let Some(bytes) = present {
            return adopt(bytes).map(|()| None);
        }
        let mut made = Zeroizing::new(vec![0; SECRET]);
        getrandom::fill(&mut made)
            .map_err(|e| Error::System { call: "getrandom", source: std::io::Error::other(e.to_string()) })?;
        adopt(&made)?;
        Ok(Some(made))
    })?;
    Ok(secret)
}

fn expand(secret: &[u8; SECRET], scope: &Scope<'_>, info: &[&[u8]]) -> Zeroizing<[u8; 32]> {
    let mut salt = Vec::new();
    for field in [scope.application, scope.tenant, scope.environment] {
        // With its length, so that ("ab", "c") and ("a", "bc") differ.
        salt.extend_from_slice(&(field.len() as u64).to_le_bytes());
        salt.extend_from_slice(field.as_bytes());
    }
    let mut output = Zeroizing::new([0; 32]);
    let expanded = Hkdf::<Sha256>::new(Some(&salt), secret).expand_multi_info(info, output.as_mut_slice());
    // RFC 5869 section 2.3: only more than 255 blocks of 32 bytes can fail.
    debug_assert!(expanded.is_ok());
    output
}

/// Sets version and variant (RFC 9562, section 4).
fn uuid(mut bytes: [u8; 16], version: u8) -> String {
    bytes[6] = bytes[6] & 0x0f | version << 4;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    [0..8, 8..12, 12..16, 16..20, 20..32].map(|field| hex.get(field).unwrap_or_default()).join("-")
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::os::unix::fs::MetadataExt;

    use super::*;
    use crate::config::Config;
    use crate::privacy::Audience;

    const DAY: u64 = 24 * 60 * 60 * 1000;
    const SCOPE: Scope<'_> = Scope { application: "skyforge", tenant: "acme", environment: "production" };

    #[test]
    fn derivation_gives_what_another_implementation_gives() {
        // Python: cryptography's HKDF(SHA256, 32, salt, info).derive(bytes(range(32))), version and variant set.
        let secret: [u8; 32] = std::array::from_fn(|i| i as u8);
        assert_eq!(derive(&secret, &SCOPE, 650), "7636d1c8-7722-8c30-a252-aafaf2a2278e");
        let jitter = 2_041_112_295;
        for (time, expected) in
            [(0, 0), (30 * DAY - jitter - 1, 0), (30 * DAY - jitter, 1), (60 * DAY - jitter, 2)]
        {
            assert_eq!(epoch(&secret, &SCOPE, 30, time), expected, "{time}");
        }
    }

    #[test]
    fn any_other_scope_epoch_or_secret_gives_an_unrelated_identifier() {
        let secret = [9; 32];
        let scope = |application, tenant, environment| Scope { application, tenant, environment };
        let others = [
            derive(&secret, &SCOPE, 1),
            derive(&secret, &SCOPE, 2),
            derive(&[8; 32], &SCOPE, 1),
            derive(&secret, &scope("skyforg", "eacme", "production"), 1),
            derive(&secret, &scope("skyforge", "", "production"), 1),
            derive(&secret, &scope("skyforge", "acme", "beta"), 1),
            derive(&secret, &scope("other", "acme", "production"), 1),
        ];
        let bits = |id: &str| -> Vec<bool> {
            let number = u128::from_str_radix(&id.replace('-', ""), 16).unwrap();
            (0..128).map(|bit| number >> bit & 1 == 1).collect()
        };
        for (i, a) in others.iter().enumerate() {
            assert_eq!((a.len(), &a[14..15]), (36, "8"), "{a}");
            for b in &others[..i] {
                // Of 122 free bits some 61 differ; fewer than 30 has a chance of 1 in 10^8.
                let different = bits(a).iter().zip(bits(b)).filter(|(a, b)| **a != *b).count();
                assert!(different >= 30, "{a} {b}");
            }
        }
        assert_eq!(derive(&secret, &SCOPE, 1), others[0], "the same again");
    }

    #[test]
    fn identifiers_do_not_link_epochs() {
        // A linker that compares identifiers bit by bit does no better than chance: over 2000 installations the bits of
        // an identifier agree with those of its next epoch as often as with those of a stranger's.
        let number = |id: String| u128::from_str_radix(&id.replace('-', ""), 16).unwrap();
        let (mut own, mut strange) = (0, 0);
        for i in 0..2_000u32 {
            let secret: [u8; 32] = std::array::from_fn(|at| i.to_le_bytes()[at % 4]);
            let stranger: [u8; 32] = std::array::from_fn(|at| (i + 1_000_000).to_le_bytes()[at % 4]);
            let first = number(derive(&secret, &SCOPE, 10));
            own += (first ^ number(derive(&secret, &SCOPE, 11))).count_ones();
            strange += (first ^ number(derive(&stranger, &SCOPE, 10))).count_ones();
        }
        // 244 000 fair bits: five standard deviations are 1 235.
        for differing in [own, strange] {
            assert!(differing.abs_diff(122_000) < 1_235, "{own} {strange}");
        }
    }

    #[test]
    fn a_hundred_thousand_installations_do_not_collide() {
        let mut seen = HashSet::new();
        for i in 0..100_000u32 {
            let mut secret = [0; 32];
            secret[..4].copy_from_slice(&i.to_le_bytes());
            assert!(seen.insert(derive(&secret, &SCOPE, 650)), "{i}");
        }
    }

    #[test]
    fn it_is_stable_within_an_epoch_and_rotates_once_in_each() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state/device-id");
        let at =
            |time| identifier(Identity::Epoch { days: 30 }, &SCOPE, &path, [0; 16], time).unwrap().unwrap();
        let hourly: Vec<String> = (0..90 * 24).map(|hour| at(hour * DAY / 24)).collect();
        let changes: Vec<usize> = (1..hourly.len()).filter(|&i| hourly[i] != hourly[i - 1]).collect();
        assert_eq!(changes.len(), 3, "{changes:?}");
        assert!(changes.windows(2).all(|pair| pair[1] - pair[0] == 30 * 24), "{changes:?}");
        assert_eq!(path.metadata().unwrap().mode() & 0o777, 0o600);

        let before = at(0);
        assert!(forget(&path).unwrap());
        assert!(!forget(&path).unwrap());
        assert_ne!(at(0), before, "a new secret is a new installation");
    }

    #[test]
    fn off_and_session_store_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("device-id");
        let with = |identity, session| identifier(identity, &SCOPE, &path, session, 0).unwrap();
        assert_eq!(with(Identity::Off, [1; 16]), None);
        assert_eq!(with(Identity::Session, [0xff; 16]).unwrap(), "ffffffff-ffff-4fff-bfff-ffffffffffff");
        assert_ne!(with(Identity::Session, [1; 16]), with(Identity::Session, [2; 16]));
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    #[test]
    fn processes_that_race_share_one_secret() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("device-id");
        let ids: HashSet<_> = std::thread::scope(|scope| {
            let racer = || identifier(Identity::Epoch { days: 1 }, &SCOPE, &path, [0; 16], 0).unwrap();
            let racers: Vec<_> = (0..8).map(|_| scope.spawn(racer)).collect();
            racers.into_iter().map(|racer| racer.join().unwrap()).collect()
        });
        assert_eq!(ids.len(), 1);
        std::fs::write(&path, b"short").unwrap();
        let error =
            identifier(Identity::Epoch { days: 1 }, &SCOPE, &path, [0; 16], 0).unwrap_err().to_string();
        assert!(error.contains("device-id") && error.contains("delete the file"), "{error}");
    }

    #[test]
    fn a_child_directed_application_has_none() {
        for asked in [Identity::Session, Identity::Epoch { days: 1 }, Identity::default()] {
            let config = Config::new("skyforge", "1")
                .audience(Audience::ChildDirected)
                .identity(asked)
                .spool("/nonexistent");
            assert_eq!(config.validate().unwrap().identity, Identity::Off, "{asked:?}");
        }
    }

    #[test]
    fn there_is_no_hardware_source() {
        let source = include_str!("identity.rs").split("mod tests").next().unwrap();
        for word in [
            "machine-id",
            "/sys",
            "/proc",
            "/etc",
            "std::env",
            "hostname",
            "std::net",
            "Command",
            "libc",
            "address",
        ] {
            assert!(!source.contains(word), "{word}");
        }
    }
}
