//! Ctrl-C and SIGTERM as something to wait for, and files that do not outlive them.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::ptr;
use std::sync::{Arc, Mutex, PoisonError};

use crate::failure::{Failure, Result};

/// SIGINT and SIGTERM, kept from ending the process.
pub(crate) struct Interrupts(libc::sigset_t);

impl Interrupts {
    /// Blocks both signals for this thread and those it will start: call it before any thread is started.
    pub(crate) fn block() -> Result<Self> {
        // SAFETY: a sigset_t of zeroes is a valid place for sigemptyset to write its value into.
        let mut set: libc::sigset_t = unsafe { std::mem::zeroed() };
        // SAFETY: `set` is a live local for each call; the signal numbers are valid; a null pointer for the old mask
        // is allowed (pthread_sigmask(3)).
        let failed = unsafe {
            libc::sigemptyset(&mut set) != 0
                || libc::sigaddset(&mut set, libc::SIGINT) != 0
                || libc::sigaddset(&mut set, libc::SIGTERM) != 0
                || libc::pthread_sigmask(libc::SIG_BLOCK, &set, ptr::null_mut()) != 0
        };
        if failed {
            return Err(Failure::Failed(format!(
                "signals cannot be blocked: {}",
                io::Error::last_os_error()
            )));
        }
        Ok(Self(set))
    }

    /// Waits for one of them.
    pub(crate) fn wait(&self) -> i32 {
        let mut signal = 0;
        // SAFETY: both pointers are to live values of the right types; the set's signals are blocked, as sigwait(3)
        // asks. Its only errors are about the set, so that a loop until success cannot spin.
        while unsafe { libc::sigwait(&self.0, &mut signal) } == libc::EINTR {}
        signal
    }

    /// Ends the process by `signal`, one of them, so that whoever waits for it sees by what.
    fn die(&self, signal: i32) -> ! {
        // SAFETY: the set is a live one; a null pointer for the old mask is allowed; what raise(3) does is to end the process, as
        // neither signal has a handler in it.
        unsafe {
            libc::pthread_sigmask(libc::SIG_UNBLOCK, &self.0, ptr::null_mut());
            libc::raise(signal);
        }
        // Not reached, unless whoever started this process has it ignore the signal.
        std::process::exit(128 + signal)
    }
}

/// A file that has a name before it is whole: SIGINT and SIGTERM remove it, and so does its drop.
pub(crate) struct Temporary(Arc<Mutex<Option<PathBuf>>>);

impl Temporary {
    /// Has `open` make the file of that name. Call it before any thread is started: others would not leave the signals to this.
    pub(crate) fn create(
        path: PathBuf,
        open: impl FnOnce(&Path) -> io::Result<File>,
    ) -> Result<(Self, File)> {
        let failed = |error: io::Error| Failure::file(&path, "write", error);
        // One that comes meanwhile waits for the thread.
        let interrupts = Interrupts::block()?;
        let file = open(&path).map_err(failed)?;
        let name = Arc::new(Mutex::new(Some(path.clone())));
        let (temporary, watched) = (Self(Arc::clone(&name)), name);
        let watch = move || {
            let signal = interrupts.wait();
            // Held until the end: the file must not get its name meanwhile.
            let name = watched.lock().unwrap_or_else(PoisonError::into_inner);
            name.as_ref().map(fs::remove_file);
            interrupts.die(signal)
        };
        std::thread::Builder::new().name("interrupts".to_owned()).spawn(watch).map_err(failed)?;
        Ok((temporary, file))
    }

    /// Gives it its name, and leaves it there.
    pub(crate) fn rename(&self, to: &Path) -> io::Result<()> {
        let mut name = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        name.as_ref().map_or(Ok(()), |from| fs::rename(from, to))?;
        *name = None;
        Ok(())
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take().map(fs::remove_file);
    }
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader};
    use std::os::unix::process::ExitStatusExt;
    use std::process::{Command, Stdio};

    use super::*;
    use crate::output;

    const FOLDER: &str = "CENOTAPH_TEST_TEMPORARY";

    /// The process that is interrupted is this test once more.
    #[test]
    fn a_file_with_a_name_does_not_outlive_an_interrupt() {
        if let Some(folder) = std::env::var_os(FOLDER) {
            // Who runs the tests may ignore them, as a shell does for what it starts in the background.
            for signal in [libc::SIGINT, libc::SIGTERM] {
                // SAFETY: no handler is installed, the usual effect is set; this process is the test's own.
                unsafe { libc::signal(signal, libc::SIG_DFL) };
            }
            let path = PathBuf::from(folder).join("out.part");
            let _temporary = Temporary::create(path, |path| File::create_new(path)).unwrap();
            output::note("\nready");
            io::stdin().read_line(&mut String::new()).unwrap();
            return;
        }
        // A test has a thread of its own; the process's first one, which has nothing to do, has its signals blocked from here.
        Interrupts::block().unwrap();
        for (signal, number) in [("-INT", libc::SIGINT), ("-TERM", libc::SIGTERM)] {
            let folder = tempfile::tempdir().unwrap();
            let mut child = Command::new(std::env::current_exe().unwrap())
                .args(["--exact", "--nocapture"])
                .arg("interrupt::tests::a_file_with_a_name_does_not_outlive_an_interrupt")
                .env(FOLDER, folder.path())
                .stdin(Stdio::piped())
                .stdout(Stdio::null())
                .stderr(Stdio::piped())
                .spawn()
                .unwrap();
            // Waiting would close it, and the process end by itself.
            let _stdin = child.stdin.take();
            let lines = BufReader::new(child.stderr.take().unwrap()).lines();
            assert!(lines.map_while(std::io::Result::ok).any(|line| line == "ready"));
            assert!(folder.path().join("out.part").exists());
            assert!(Command::new("kill").args([signal, &child.id().to_string()]).status().unwrap().success());
            assert_eq!(child.wait().unwrap().signal(), Some(number));
            assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0, "{signal}");
        }
    }

    #[test]
    fn a_file_that_gets_no_name_is_removed() {
        let folder = tempfile::tempdir().unwrap();
        let place = |name: &str| folder.path().join(name);
        let create = || Temporary::create(place("a"), |path| File::create_new(path)).unwrap().0;
        drop(create());
        assert!(!place("a").exists());
        create().rename(&place("b")).unwrap();
        assert!(!place("a").exists() && place("b").exists());
    }
}
