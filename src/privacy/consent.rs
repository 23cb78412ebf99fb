//! The consent record: what the person said, kept so that tampering or damage reads as "not asked".
//!
//! 64 bytes: `CNCONST1`, consent (1), basis (1), zero (2), policy version (4), counter (8), time (8; milliseconds
//! since the Unix epoch), all little-endian, then HMAC-SHA256 (RFC 2104) over those 32 bytes. The key is derived from
//! the local key with info `consent/v1`, so a record cannot be made up without it or carried over from
//! another device, and reads as unknown once that key is destroyed.
//!
//! An older authentic record put back in place of a newer one cannot be told from this file alone: a long-lived
//! process compares [`ConsentRecord::counter`] with the highest that it has seen.
#![forbid(unsafe_code)]

use std::path::Path;

use hmac::{Hmac, KeyInit, Mac};
use serde::{Deserialize, Serialize};
use sha2::Sha256;
use zeroize::Zeroizing;

use crate::error::{Error, Result};
use crate::private_file;

/// What the person said.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Consent {
    /// Not asked yet, or the record is missing, damaged or not authentic.
    #[default]
    Unknown,
    /// Yes.
    Granted,
    /// No.
    Denied,
    /// Yes once, no longer.
    Withdrawn,
}

/// On what ground a grant stands (COPPA 16 CFR 312.5; GDPR articles 6 to 8).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Basis {
    /// The person agreed.
    Person,
    /// A verified parent agreed.
    VerifiedParent,
    /// The operator's own devices or testers under contract.
    Operator,
}

/// What the person said, when, and to what.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ConsentRecord {
    /// What they said; never `Unknown`.
    pub consent: Consent,
    /// The ground of the grant, or of the one that was withdrawn.
    pub basis: Option<Basis>,
    /// When, in milliseconds since the Unix epoch.
    pub time_ms: u64,
    /// Higher in each later record.
    pub counter: u64,
    /// The version of the text that they were shown, by the application's own count.
    pub policy_version: u32,
}

/// What the record in `path` says; `Unknown` if there is none, or it is not this user's own file, damaged or not
/// authentic. A gate must not fail, so this does not.
pub fn read(path: &Path, key: &[u8; 32]) -> Consent {
    load(path, key).map_or(Consent::Unknown, |record| record.consent)
}

/// The whole record, if there is an authentic one.
pub fn load(path: &Path, key: &[u8; 32]) -> Option<ConsentRecord> {
    private_file::read(path, LEN).ok().flatten().and_then(|bytes| decode(&bytes, key))
}

/// Records what the person says now, durably: on return every later [`read`] sees it. Several processes take turns.
///
/// A refusal is never refused: from `Granted` it is recorded as `Withdrawn`, otherwise as `Denied`, whichever of the two
/// was asked for. See [`next`].
///
/// # Errors
/// If `to` is `Unknown`, or the file cannot be written. The earlier record stands then.
pub fn write(
    path: &Path,
    key: &[u8; 32],
    to: Consent,
    basis: Option<Basis>,
    policy_version: u32,
    time_ms: u64,
) -> Result<ConsentRecord> {
    let mut written = None;
    private_file::update(path, LEN, |present| {
        let present = present.and_then(|bytes| decode(bytes, key));
        let consent = next(present.map_or(Consent::Unknown, |p| p.consent), to)?;
        let record = ConsentRecord {
            consent,
            basis: basis.or(present.and_then(|p| p.basis)),
            time_ms,
            counter: present.map_or(0, |p| p.counter).saturating_add(1),
            policy_version,
        };
        written = Some(record);
        Ok(Some(Zeroizing::new(encode(&record, key).to_vec())))
    })?;
    written.ok_or_else(|| Error::malformed("consent record", "it was not written"))
}

/// What is recorded when the state is `from` and the person says `to`.
///
/// A grant is possible from every state, by asking anew. A refusal after a grant is a withdrawal.
///
/// # Errors
/// Nobody can say `Unknown`.
pub fn next(from: Consent, to: Consent) -> Result<Consent> {
    match (from, to) {
        (_, Consent::Unknown) => Err(Error::malformed(
            "consent",
            "a person grants, denies or withdraws; unknown is the absence of that",
        )),
        (_, Consent::Granted) => Ok(Consent::Granted),
        (Consent::Granted | Consent::Withdrawn, Consent::Denied | Consent::Withdrawn) => {
            Ok(Consent::Withdrawn)
        }
        (Consent::Unknown | Consent::Denied, Consent::Denied | Consent::Withdrawn) => Ok(Consent::Denied),
    }
}

const MAGIC: &[u8; 8] = b"CNCONST1";
const SIGNED: usize = 32;
const LEN: usize = 64;

fn encode(record: &ConsentRecord, key: &[u8; 32]) -> [u8; LEN] {
    let consent = match record.consent {
        Consent::Unknown => 0,
        Consent::Granted => 1,
        Consent::Denied => 2,
        Consent::Withdrawn => 3,
    };
    let basis = match record.basis {
        None => 0,
        Some(Basis::Person) => 1,
        Some(Basis::VerifiedParent) => 2,
        Some(Basis::Operator) => 3,
    };
    let fields = MAGIC
        .iter()
        .copied()
        .chain([consent, basis, 0, 0])
        .chain(record.policy_version.to_le_bytes())
        .chain(record.counter.to_le_bytes())
        .chain(record.time_ms.to_le_bytes());
    let mut bytes = [0; LEN];
    let (signed, code) = bytes.split_at_mut(SIGNED);
    signed.iter_mut().zip(fields).for_each(|(to, from)| *to = from);
    code.copy_from_slice(&mac(key, signed).finalize().into_bytes());
    bytes
}

fn decode(bytes: &[u8], key: &[u8; 32]) -> Option<ConsentRecord> {
    let (signed, code) = bytes.split_first_chunk::<SIGNED>()?;
    // Compares in constant time, and lengths too.
    mac(key, signed).verify_slice(code).ok()?;
    let (magic, rest) = signed.split_first_chunk::<8>()?;
    let ([consent, basis, 0, 0], rest) = rest.split_first_chunk::<4>()? else { return None };
    let (policy_version, rest) = rest.split_first_chunk()?;
    let (counter, rest) = rest.split_first_chunk()?;
    let (time_ms, _) = rest.split_first_chunk()?;
    Some(ConsentRecord {
        consent: match consent {
            1 => Consent::Granted,
            2 => Consent::Denied,
            3 => Consent::Withdrawn,
            _ => return None,
        },
        basis: match basis {
            0 => None,
            1 => Some(Basis::Person),
            2 => Some(Basis::VerifiedParent),
            3 => Some(Basis::Operator),
            _ => return None,
        },
        time_ms: u64::from_le_bytes(*time_ms),
        counter: u64::from_le_bytes(*counter),
        policy_version: u32::from_le_bytes(*policy_version),
    })
    .filter(|_| magic == MAGIC)
}

fn mac(key: &[u8; 32], bytes: &[u8]) -> Hmac<Sha256> {
    // Padding a key to the block length is the first step of HMAC itself (RFC 2104, section 2).
    let mut block = Zeroizing::new([0; 64]);
    block.iter_mut().zip(key).for_each(|(to, from)| *to = *from);
    <Hmac<Sha256> as KeyInit>::new((&*block).into()).chain_update(bytes)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

    use super::*;

    const KEY: [u8; 32] = [5; 32];
    const ALL: [Consent; 4] = [Consent::Unknown, Consent::Granted, Consent::Denied, Consent::Withdrawn];

    fn say(path: &Path, to: Consent) -> ConsentRecord {
        write(path, &KEY, to, Some(Basis::Person), 7, 1_000).unwrap()
    }

    #[test]
    fn every_transition() {
        use Consent::{Denied, Granted, Unknown, Withdrawn};
        let table = [
            (Unknown, [None, Some(Granted), Some(Denied), Some(Denied)]),
            (Granted, [None, Some(Granted), Some(Withdrawn), Some(Withdrawn)]),
            (Denied, [None, Some(Granted), Some(Denied), Some(Denied)]),
            (Withdrawn, [None, Some(Granted), Some(Withdrawn), Some(Withdrawn)]),
        ];
        for (from, row) in table {
            for (to, expected) in ALL.into_iter().zip(row) {
                assert_eq!(next(from, to).ok(), expected, "{from:?} -> {to:?}");
            }
        }
    }

    #[test]
    fn the_code_is_hmac_sha256() {
        // RFC 4231, test case 1 (its key of 20 bytes padded with zeros is the same key, RFC 2104 section 2).
        let mut key = [0; 32];
        key[..20].fill(0x0b);
        let code: String =
            mac(&key, b"Hi There").finalize().into_bytes().iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(code, "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7");
    }

    #[test]
    fn a_record_is_read_as_it_was_written() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("new/consent");
        assert_eq!(read(&path, &KEY), Consent::Unknown);
        assert!(!dir.path().join("new").exists());
        let granted = say(&path, Consent::Granted);
        assert_eq!(load(&path, &KEY), Some(granted));
        let basis = Some(Basis::Person);
        let expected =
            ConsentRecord { consent: Consent::Granted, basis, time_ms: 1_000, counter: 1, policy_version: 7 };
        assert_eq!(granted, expected);
        let withdrawn = write(&path, &KEY, Consent::Withdrawn, None, 7, 2_000).unwrap();
        assert_eq!((withdrawn.consent, withdrawn.counter, withdrawn.basis), (Consent::Withdrawn, 2, basis));
        assert_eq!(read(&path, &KEY), Consent::Withdrawn);
        assert_eq!(say(&path, Consent::Granted).counter, 3);
        write(&path, &KEY, Consent::Unknown, None, 7, 0).unwrap_err();
        assert_eq!(read(&path, &KEY), Consent::Granted);
        assert_eq!(path.metadata().unwrap().mode() & 0o777, 0o600);
        assert_eq!(
            std::fs::read_dir(dir.path().join("new")).unwrap().count(),
            1,
            "no temporary file is left"
        );
    }

    #[test]
    fn what_is_damaged_or_not_ours_reads_as_unknown() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("consent");
        say(&path, Consent::Granted);
        let good = std::fs::read(&path).unwrap();
        for at in 0..LEN {
            for bit in 0..8 {
                let mut bytes = good.clone();
                bytes[at] ^= 1 << bit;
                assert_eq!(decode(&bytes, &KEY), None, "byte {at} bit {bit}");
            }
            assert_eq!(decode(&good[..at], &KEY), None);
        }
        std::fs::write(&path, [&good[..], &[0]].concat()).unwrap();
        assert_eq!(read(&path, &KEY), Consent::Unknown, "longer");
        std::fs::write(&path, &good).unwrap();
        assert_eq!(read(&path, &[6; 32]), Consent::Unknown, "another key");
        assert_eq!(read(&path, &KEY), Consent::Granted);
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o666)).unwrap();
        assert_eq!(read(&path, &KEY), Consent::Unknown, "open to others");
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o600)).unwrap();
        symlink(&path, dir.path().join("link")).unwrap();
        assert_eq!(read(&dir.path().join("link"), &KEY), Consent::Unknown, "a link");
        // A damaged record does not stop a person from answering anew.
        std::fs::write(&path, b"damaged").unwrap();
        assert_eq!(say(&path, Consent::Withdrawn).consent, Consent::Denied);
        assert_eq!(read(&path, &KEY), Consent::Denied);
    }

    #[test]
    fn every_answer_and_basis_survives_the_encoding() {
        for consent in ALL {
            for basis in [None, Some(Basis::Person), Some(Basis::VerifiedParent), Some(Basis::Operator)] {
                let record =
                    ConsentRecord { consent, basis, time_ms: u64::MAX, counter: 1 << 40, policy_version: 9 };
                let expected = (consent != Consent::Unknown).then_some(record);
                assert_eq!(decode(&encode(&record, &KEY), &KEY), expected);
            }
        }
    }
}
