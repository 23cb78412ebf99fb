//! The program that becomes a monitor: the application's own, executed again, or a helper that it names.
#![forbid(unsafe_code)]

use std::ffi::{CString, OsStr};
use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::Path;

use crate::error::{Error, Result};
use crate::sys::spawn::Executable;
use crate::sys::{kept, process, trusted};

/// What is executed, and with which arguments.
#[derive(Debug)]
pub(super) struct Program {
    file: Kind,
    pub(super) argv: Vec<CString>,
}

#[derive(Debug)]
enum Kind {
    /// By path.
    Own(CString),
    /// By the descriptor that was checked, so that nobody can exchange the file meanwhile.
    Helper(File),
}

impl Program {
    /// The helper if there is one, else the application's own program if that may run twice. `entered`: `main` begins
    /// with [`monitor_entry`](super::monitor_entry).
    ///
    /// # Errors
    /// [`Error::MonitorUnavailable`] with the cause and the way out.
    pub(super) fn choose(helper: Option<&Path>, entered: bool) -> Result<Self> {
        // A helper would inherit the privileges, and trust an environment that anybody may have set.
        if process::is_privileged() {
            return refuse("the program runs with privileges of its file (setuid); it may start no monitor");
        }
        if let Some(helper) = helper {
            return Self::helper(helper);
        }
        let own = std::env::current_exe();
        match own.as_ref().ok().and_then(|path| unsuitable(path, entered)) {
            Some(reason) => refuse(reason),
            None => Self::own(),
        }
    }

    /// This very program, with all of its arguments: one that looks at them before it installs us must come as far as the
    /// first time.
    ///
    /// # Errors
    /// [`Error::MonitorUnavailable`] if its file cannot be named.
    pub(super) fn own() -> Result<Self> {
        let argv = std::env::args_os().filter_map(|argument| c_string(&argument)).collect();
        // By its name only where that must be, because /proc is hidden: another file may have it by now.
        let link = Path::new("/proc/self/exe");
        let path = if link.exists() { Ok(link.to_path_buf()) } else { std::env::current_exe() };
        match path.ok().and_then(|path| c_string(path.as_os_str())) {
            Some(path) => Ok(Self { file: Kind::Own(path), argv }),
            None => refuse("the program's own path cannot be found; is /proc mounted?"),
        }
    }

    fn helper(path: &Path) -> Result<Self> {
        let named = |why: &str| refuse(&format!("the helper {}: {why}", path.display()));
        let file = match trusted::open(path) {
            Ok(file) => file,
            Err(why) => return refuse(&format!("the helper cannot be trusted: {why}")),
        };
        let mode = match file.metadata() {
            Ok(metadata) => metadata.permissions().mode(),
            Err(error) => return named(&error.to_string()),
        };
        if mode & 0o111 == 0 {
            return named("not executable; run chmod a+x on it");
        }
        if mode & 0o6000 != 0 {
            return named(
                "runs with privileges of its file (setuid), and would take no settings; remove that bit",
            );
        }
        let mut magic = [0; 4];
        if file.read_exact_at(&mut magic, 0).is_err() || &magic != b"\x7fELF" {
            return named("no ELF program; name cenotaph-monitor itself and no script around it");
        }
        // Nothing of the application's command line: it may hold what no other program should see.
        Ok(Self { file: Kind::Helper(file), argv: c_string(path.as_os_str()).into_iter().collect() })
    }

    /// A helper's file at a number where the application does not find it.
    pub(super) fn file_out_of_the_way(&self) -> Option<OwnedFd> {
        match &self.file {
            Kind::Own(_) => None,
            Kind::Helper(file) => file.try_clone().ok().map(|file| kept::out_of_the_way(file.into())),
        }
    }

    pub(super) fn executable(&self) -> Executable<'_> {
        match &self.file {
            Kind::Own(path) => Executable::Path(path),
            Kind::Helper(file) => Executable::File(file.as_fd()),
        }
    }
}

fn refuse(reason: &str) -> Result<Program> {
    Err(Error::MonitorUnavailable(reason.to_owned()))
}

pub(super) fn c_string(text: &OsStr) -> Option<CString> {
    CString::new(text.as_bytes()).ok()
}

/// Why a program file may not be executed again, if so.
fn unsuitable(executable: &Path, entered: bool) -> Option<&'static str> {
    let name = executable.file_name()?.to_str()?;
    if name.starts_with("ld-linux") || name.starts_with("ld-musl") || name.starts_with("ld.so") {
        return Some(
            "the executable is the dynamic loader, so the program cannot be found; run it directly or name a .helper()",
        );
    }
    if name.starts_with("qemu-") {
        return Some(
            "the executable is an emulator, so the program cannot be found; register it as binfmt_misc or name a .helper()",
        );
    }
    // Cargo puts test programs into `deps` under a name with a 16-digit hash. Executed again, one would run all its
    // tests; a program that calls monitor_entry() at the top of main has shown that it is none.
    let hashed = name
        .rsplit_once('-')
        .is_some_and(|(_, hash)| hash.len() == 16 && hash.bytes().all(|b| b.is_ascii_hexdigit()));
    let in_deps = executable.parent().and_then(Path::file_name).is_some_and(|folder| folder == "deps");
    (hashed && in_deps && !entered).then_some(
        "this is a test program, whose tests would run again; call cenotaph::monitor_entry() at the top of main or \
         name a .helper()",
    )
}

#[cfg(test)]
mod tests {
    use std::fs::{self, Permissions};

    use super::*;

    #[test]
    fn knows_programs_that_must_not_run_twice() {
        let cases = [
            ("/usr/bin/game", false, true),
            ("/x/target/debug/deps/game-0123456789abcdef", false, false),
            ("/x/target/debug/deps/game-0123456789abcdef", true, true),
            ("/x/target/debug/game-0123456789abcdef", false, true),
            ("/lib64/ld-linux-x86-64.so.2", true, false),
            ("/usr/bin/qemu-aarch64-static", true, false),
        ];
        for (path, entered, suitable) in cases {
            assert_eq!(unsuitable(Path::new(path), entered).is_none(), suitable, "{path} {entered}");
        }
    }

    #[test]
    fn refuses_under_the_test_harness() {
        assert!(matches!(Program::choose(None, false), Err(Error::MonitorUnavailable(_))));
    }

    #[test]
    fn which_helpers_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("helper");
        fs::copy("/bin/true", &file).unwrap();
        let with = |mode: u32| {
            fs::set_permissions(&file, Permissions::from_mode(mode)).unwrap();
            Program::choose(Some(&file), false).map_err(|error| error.to_string())
        };
        let program = with(0o755).unwrap();
        assert!(matches!(program.executable(), Executable::File(_)));
        assert_eq!(program.argv, [c_string(file.as_os_str()).unwrap()]);
        for (mode, why) in [
            (0o644, "not executable; run chmod a+x"),
            (0o757, "writable by others"),
            (0o775, "writable by others"),
            (0o4755, "setuid"),
            (0o2755, "setuid"),
        ] {
            let error = with(mode).unwrap_err();
            assert!(error.contains(why) && error.contains(file.to_str().unwrap()), "{error}");
        }
        fs::write(&file, "#!/bin/sh\n").unwrap();
        assert!(with(0o755).unwrap_err().contains("no ELF program"));
        let choose = |path: &str| Program::choose(Some(Path::new(path)), true).unwrap_err().to_string();
        assert!(choose("bin/true").contains("relative path"));
        assert!(choose("/bin").contains("is a directory"));
        assert!(choose("/nonexistent/helper").contains("No such file"));
    }
}
