//! pmodules in shared objects, over the C interface of `include/cenotaph_pmodule.h`.
//!
//! [`register`] makes of a file what [`Registered::of`] makes of a value in Rust; nobody who runs it sees a difference.
//! Code of the object runs in two places only, both processes that may be lost: a probe that finds out what it says about
//! itself, and the child that meets a crash.

mod host;
mod instance;
mod probe;
mod table;

use std::fs::File;
use std::os::fd::{AsFd, AsRawFd};
use std::path::Path;

use super::{Description, Failure, Registered};
use crate::error::{Error, Result};
use crate::sys::library::Library;
use crate::sys::{process, trusted};
use instance::Plugin;
use table::Table;

/// Opens a shared object, checks whose it is and what it says about itself, and keeps it open: what was checked is what is
/// loaded for each crash, whatever lies at `path` by then. A new version of it takes a new start of the monitor, and must come by
/// renaming: a file that is written over in place is another object, whose reports then have no memory.
///
/// The file and everything on the way to it must belong to root or to this user and not be writable by others, as
/// sshd has it for keys. The object's constructors run in a child process, for two seconds at most.
///
/// Call it while the process has a single thread, since it forks.
///
/// # Errors
/// [`Error::InvalidConfig`] names the file, the cause and the way out; [`Error::System`] and
/// [`Error::MonitorUnavailable`] if no process can be made to look at it.
pub fn register(path: &Path) -> Result<Registered> {
    register_by(path, load, |file| probe::within_time(|| load(file).map(|table| table.description)))
}

/// As [`register`], but loads the object into this very process, by its path, and without a limit of time: for a debugger, which follows
/// one process and opens what that has loaded. For objects of one's own alone.
///
/// # Errors
/// As [`register`].
pub fn register_here(path: &Path) -> Result<Registered> {
    let text = path.to_string_lossy().into_owned();
    let load = move |_: &File| Table::of(&Library::open_at(&text)?);
    register_by(path, load.clone(), move |file| Ok(load(file).map(|table| table.description)))
}

fn register_by(
    path: &Path,
    load: impl Fn(&File) -> std::result::Result<Table, String> + Send + Sync + 'static,
    look: impl FnOnce(&File) -> Result<std::result::Result<Description, String>>,
) -> Result<Registered> {
    let invalid = |reason: String| Error::InvalidConfig { field: "plugin", reason };
    let file = trusted::open(path).map_err(invalid)?;
    let path = path.to_path_buf();
    let named = |why: String| format!("{}: {}", path.display(), why);
    let description = look(&file)?.map_err(|why| invalid(named(why)))?;
    let label = path.file_name().map(|name| name.to_string_lossy().into_owned());
    process::keep_in_children(file.as_raw_fd());
    let expected = description.clone();
    let path = path.clone();
    let make = move || {
        let table = load(&file).map_err(|why| Failure(format!("{}: {why}", path.display())))?;
        agrees(&table.description, &expected)?;
        Ok(Box::new(Plugin::new(table)) as Box<dyn super::Pmodule>)
    };
    Ok(Registered::new(description, make).labelled(label))
}

/// What it said when it was probed is what it is run by: the order and whether it fails closed.
fn agrees(now: &Description, before: &Description) -> std::result::Result<(), Failure> {
    if now == before {
        Ok(())
    } else {
        Err(Failure("it describes itself otherwise than when it was probed".to_owned()))
    }
}

/// Loads the object into this process and reads its table.
fn load(file: &File) -> std::result::Result<Table, String> {
    let library = Library::open(file.as_fd()).map_err(|why| format!("cannot be loaded: {why}"))?;
    Table::of(&library)
}

#[cfg(test)]
pub(super) use host::numbers;
#[cfg(test)]
mod tests;
