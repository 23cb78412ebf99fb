//! The SDK's client calls as long as the library does not have them: all say "not installed".

use std::time::Duration;

use cenotaph::privacy::Basis;
use cenotaph::report::{AttributeValue, Level, ReportId};
use cenotaph::{Config, Error, Result};

pub(crate) struct Guard(());
pub(crate) struct ConsentHandle(());

pub(crate) trait Install {
    fn install(self) -> Result<Guard>;
}

impl Install for Config {
    fn install(self) -> Result<Guard> {
        self.validate()?;
        Err(Error::NotInstalled)
    }
}

impl Guard {
    pub(crate) fn flush(&self, _limit: Duration) -> Result<()> {
        Err(Error::NotInstalled)
    }
}

impl ConsentHandle {
    pub(crate) fn grant(&self, _basis: Basis) -> Result<()> {
        Err(Error::NotInstalled)
    }
    pub(crate) fn deny(&self) -> Result<()> {
        Err(Error::NotInstalled)
    }
    pub(crate) fn withdraw(&self) -> Result<usize> {
        Err(Error::NotInstalled)
    }
}

pub(crate) fn monitor_entry() {}
pub(crate) fn consent() -> Result<ConsentHandle> {
    Err(Error::NotInstalled)
}
pub(crate) fn capture(_reason: &str) -> Result<ReportId> {
    Err(Error::NotInstalled)
}
pub(crate) fn set_attribute(_key: &str, _value: impl Into<AttributeValue>) -> Result<()> {
    Err(Error::NotInstalled)
}
pub(crate) fn add_breadcrumb(_level: Level, _category: &str, _message: &str) -> Result<()> {
    Err(Error::NotInstalled)
}
