//! What the person said, written down where every process of Cenotaph reads it.

use std::sync::Arc;

use super::{Client, last_words};
use crate::consent_record;
use crate::error::Result;
use crate::privacy::consent::{Basis, Consent};
use crate::privacy::{Mirror, identity};
use crate::protocol;
use crate::spool::file::Spool;
use crate::spool::signatures;
use crate::start_ups;
use crate::sys::process;

/// Reads and changes the consent of the person at the device.
pub struct ConsentHandle(Arc<Client>);

impl ConsentHandle {
    pub(super) fn new(client: Arc<Client>) -> Self {
        Self(client)
    }

    /// What the record says.
    pub fn state(&self) -> Consent {
        consent_record::read(&self.0.config.spool)
    }

    /// Reports may be kept and sent from now on, those held so far included.
    ///
    /// # Errors
    /// If the record cannot be written; then nothing has changed.
    pub fn grant(&self, basis: Basis) -> Result<()> {
        process::without_file_size_signal(|| {
            consent_record::write(&self.0.config.spool, Consent::Granted, Some(basis))
        })?;
        self.0.blackbox.set_mirror(Mirror::Silent);
        // Made now rather than while a dying process waits; if that fails, the first crash tries again.
        let _ = process::without_file_size_signal(|| {
            Spool::new(&self.0.config.spool).prepare()?;
            identity::prepare(
                self.0.config.identity,
                &self.0.config.spool.join(consent_record::IDENTITY_FILE),
            )
        });
        last_words::follow_consent(&self.0.config, Mirror::Silent);
        self.tell_monitor();
        Ok(())
    }

    /// No reports. What was held is removed; returns how many files that were.
    ///
    /// # Errors
    /// If the record cannot be written or a file not removed. No report is made from now on, in any case.
    pub fn deny(&self) -> Result<usize> {
        self.stop(Consent::Denied)
    }

    /// No reports any longer. What is in the spool is removed and the secret of the device identifier destroyed; returns
    /// how many report files were removed. (Before any grant this is the same as [`deny`](Self::deny).)
    ///
    /// # Errors
    /// As for [`deny`](Self::deny).
    pub fn withdraw(&self) -> Result<usize> {
        self.stop(Consent::Withdrawn)
    }

    fn stop(&self, said: Consent) -> Result<usize> {
        let spool = &self.0.config.spool;
        // The mirror first: it is in force at the next gate, whatever the disk does.
        self.0.blackbox.set_mirror(Mirror::Refuses);
        last_words::follow_consent(&self.0.config, Mirror::Refuses);
        let written = process::without_file_size_signal(|| consent_record::write(spool, said, None));
        self.tell_monitor();
        let purged = Spool::new(spool).purge();
        let forgotten = signatures::forget(spool).and(start_ups::forget(spool));
        process::without_file_size_signal(|| identity::forget(&spool.join(consent_record::IDENTITY_FILE)))?;
        written?;
        forgotten?;
        purged
    }

    /// The monitor reads the record at every gate anyway; this only makes it look at once.
    fn tell_monitor(&self) {
        let _ = self.0.tell(&protocol::consent_changed());
    }
}
