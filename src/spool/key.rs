//! The local key: 32 random bytes in a file that only this user can read. Every key of the spool derives from it.
#![forbid(unsafe_code)]

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use hkdf::Hkdf;
use sha2::Sha256;
use zeroize::Zeroizing;

use crate::error::{Error, Result};
use crate::private_file;

/// The key's length in bytes.
pub const KEY_LEN: usize = 32;

/// The key that reports are sealed under on this device. Wiped from memory when dropped.
///
/// Whoever can read its file can read the spool: it guards against a copied or backed-up spool without its key,
/// and lets everything be erased by erasing 32 bytes. It does not guard against this user's other programs.
#[derive(Clone)]
pub struct LocalKey(Zeroizing<[u8; KEY_LEN]>);

impl LocalKey {
    /// The key in `dir/key`, or `None` if there is none. Makes nothing.
    ///
    /// # Errors
    /// If the file is not 32 bytes, not this user's own regular file, or open to others.
    pub fn load(dir: &Path) -> Result<Option<Self>> {
        let path = path_in(dir);
        private_file::read(&path, KEY_LEN)?.map(|bytes| Self::from_slice(&path, &bytes)).transpose()
    }

    /// The key in `dir/key`, made now if there is none. Processes that race for it all get the same.
    ///
    /// # Errors
    /// As [`load`](Self::load), or if the directory or file cannot be written.
    pub fn load_or_create(dir: &Path) -> Result<Self> {
        if let Some(key) = Self::load(dir)? {
            return Ok(key);
        }
        let path = path_in(dir);
        let mut key = None;
        private_file::update(&path, KEY_LEN, |present| {
            if let Some(bytes) = present {
                key = Some(Self::from_slice(&path, bytes)?);
                return Ok(None);
            }
            let made = Self::random()?;
            let bytes = Zeroizing::new(made.0.to_vec());
            key = Some(made);
            Ok(Some(bytes))
        })?;
        key.ok_or_else(|| Error::file(&path, "read", io::ErrorKind::NotFound.into()))
    }

    /// The key in any file, as a command line names it.
    ///
    /// # Errors
    /// As [`load`](Self::load), or if there is no such file.
    pub fn from_file(path: &Path) -> Result<Self> {
        match private_file::read(path, KEY_LEN)? {
            Some(bytes) => Self::from_slice(path, &bytes),
            None => Err(Error::file(path, "open", io::ErrorKind::NotFound.into())),
        }
    }

    /// A key for one purpose: HKDF-SHA256 (RFC 5869) with this key as input, no salt, and `info`.
    pub fn derive(&self, info: &str) -> Zeroizing<[u8; 32]> {
        hkdf_sha256(self.0.as_slice(), &[], &[info.as_bytes()])
    }

    /// Overwrites and removes `dir/key`. Everything sealed under it is lost for good, and the consent record
    /// reads as unknown until it is written again. Returns whether there was a key.
    ///
    /// # Errors
    /// If the file cannot be removed.
    pub fn destroy(dir: &Path) -> Result<bool> {
        private_file::destroy(&path_in(dir))
    }

    /// A key that is in no file.
    pub(crate) fn random() -> Result<Self> {
        let mut key = Zeroizing::new([0; KEY_LEN]);
        fill_random(key.as_mut_slice())?;
        Ok(Self(key))
    }

    fn from_slice(path: &Path, bytes: &[u8]) -> Result<Self> {
        let key = bytes.try_into().map_err(|_| {
            let reason =
                format!("a key has {KEY_LEN} bytes, this file {}; restore or delete it", bytes.len());
            private_file::refuse(path, reason)
        })?;
        Ok(Self(Zeroizing::new(key)))
    }
}

impl fmt::Debug for LocalKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("LocalKey(..)")
    }
}

/// The key's file in a spool directory.
fn path_in(dir: &Path) -> PathBuf {
    dir.join("key")
}

/// HKDF-SHA256 (RFC 5869), one block of output; `info` is the concatenation of the pieces.
pub(crate) fn hkdf_sha256(input: &[u8], salt: &[u8], info: &[&[u8]]) -> Zeroizing<[u8; 32]> {
    let mut output = Zeroizing::new([0; 32]);
    let expanded = Hkdf::<Sha256>::new(Some(salt), input).expand_multi_info(info, output.as_mut());
    // RFC 5869 section 2.3: only more than 255 blocks of 32 bytes can fail.
    debug_assert!(expanded.is_ok());
    output
}

/// Random bytes from the operating system.
pub(crate) fn fill_random(bytes: &mut [u8]) -> Result<()> {
    getrandom::fill(bytes)
        .map_err(|e| Error::System { call: "getrandom", source: io::Error::other(e.to_string()) })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};

    use super::*;

    #[test]
    fn hkdf_gives_the_published_answers() {
        // RFC 5869, A.1 and A.3 (SHA-256; the first 32 bytes of each output).
        let salt: Vec<u8> = (0x00..=0x0c).collect();
        let info: Vec<u8> = (0xf0..=0xf9).collect();
        let a1 = hkdf_sha256(&[0x0b; 22], &salt, &[&info[..4], &info[4..]]);
        assert_eq!(hex(a1.as_ref()), "3cb25f25faacd57a90434f64d0362f2a2d2d0a90cf1a5a4c5db02d56ecc4c5bf");
        let a3 = hkdf_sha256(&[0x0b; 22], &[], &[]);
        assert_eq!(hex(a3.as_ref()), "8da4e775a563c18f715f802a063c5a31b8a11f5c5ee1879ec3454e5f3c738d2d");
    }

    #[test]
    fn a_key_is_made_once_and_read_again() {
        let dir = tempfile::tempdir().unwrap();
        let spool = dir.path().join("new/spool");
        assert!(LocalKey::load(&spool).unwrap().is_none());
        assert!(!spool.exists(), "load makes nothing");
        let keys: Vec<_> = std::thread::scope(|scope| {
            let racers: Vec<_> =
                (0..8).map(|_| scope.spawn(|| LocalKey::load_or_create(&spool).unwrap())).collect();
            racers.into_iter().map(|racer| racer.join().unwrap()).collect()
        });
        let loaded = LocalKey::load(&spool).unwrap().unwrap();
        assert!(keys.iter().all(|key| key.0 == loaded.0), "all racers have the stored key");
        assert_eq!(LocalKey::from_file(&spool.join("key")).unwrap().0, loaded.0);
        assert_eq!(spool.join("key").metadata().unwrap().mode() & 0o777, 0o600);
        assert_ne!(loaded.derive("a"), loaded.derive("b"));
        assert_ne!(loaded.derive("a"), loaded.0);
        assert_eq!(format!("{loaded:?}"), "LocalKey(..)");

        assert!(LocalKey::destroy(&spool).unwrap());
        assert!(!LocalKey::destroy(&spool).unwrap());
        assert_ne!(LocalKey::load_or_create(&spool).unwrap().0, loaded.0);
    }

    #[test]
    fn unfit_key_files_are_refused_with_a_reason() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key");
        let refusal = || {
            let loaded = LocalKey::load(dir.path()).unwrap_err().to_string();
            assert_eq!(
                LocalKey::load_or_create(dir.path()).unwrap_err().to_string(),
                loaded,
                "never replaced"
            );
            loaded
        };
        for (bytes, why) in
            [(&[7; 31][..], "has 32 bytes, this file 31"), (&[7; 33], "longer"), (&[], "file 0")]
        {
            std::fs::write(&path, bytes).unwrap();
            std::fs::set_permissions(&path, PermissionsExt::from_mode(0o600)).unwrap();
            assert!(refusal().contains(why), "{}", refusal());
        }
        std::fs::write(&path, [7; 32]).unwrap();
        LocalKey::load(dir.path()).unwrap().unwrap();
        for mode in [0o640, 0o604, 0o620] {
            std::fs::set_permissions(&path, PermissionsExt::from_mode(mode)).unwrap();
            assert!(refusal().contains("chmod 600"), "{}", refusal());
        }
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o600)).unwrap();
        if chown(&path, Some(12345), None).is_ok() {
            // Only root can try this.
            assert!(refusal().contains("belongs to user 12345"), "{}", refusal());
        }
        std::fs::remove_file(&path).unwrap();
        std::fs::create_dir(&path).unwrap();
        assert!(refusal().contains("not a regular file"), "{}", refusal());
        let missing = LocalKey::from_file(&dir.path().join("none")).unwrap_err().to_string();
        assert!(missing.contains("none"), "{missing}");
    }

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }
}
