//! Confines the processes that meet what others sent: the uploader (a server's replies) and, once the application was
//! released, a worker (the application's memory). Where the kernel lacks something the log says so, and the work goes on.
#![forbid(unsafe_code)]

use std::os::fd::AsFd;
#[cfg(feature = "upload")]
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::log::Log;
use super::stages;
use crate::blackbox::Blackbox;
use crate::config::ValidConfig;
use crate::privacy::{Stage, Verdict};
use crate::private_file;
use crate::sys::landlock::{self, Allowed};
use crate::sys::process::{self, Forked};
use crate::sys::restrict::{self, Part};
use crate::sys::socket::{Received, Socket};

/// Where the C library's resolver, name services and certificate authorities have their files.
#[cfg(feature = "upload")]
const SYSTEM: [&str; 12] = [
    "/etc",
    "/usr",
    "/lib",
    "/lib32",
    "/lib64",
    "/run",
    "/proc",
    "/dev",
    "/var/lib/ca-certificates",
    "/var/lib/sss",
    "/nix/store",
    "/gnu/store",
];

/// For a worker that holds the application's memory and does not need the application any more: from here on it parses.
/// No network, no other process's memory, no other program; files are written in the spool directory only.
pub(super) fn of_parser(config: &ValidConfig, blackbox: &Blackbox, log: &Log) {
    // Asked for later; a name service may want a socket for it.
    process::personal_words();
    // Pmodules that were forked before are its children, to be ended when they are late.
    let mut allowed = Allowed { signals: true, ..Allowed::default() };
    // The rule is for a folder that is there. One that could not be made is told of by who stores the report.
    if stages::ask(Stage::Spool, config, blackbox) == Verdict::Proceed {
        let _ = private_file::create_dir(&config.spool);
    }
    allowed.written.push(&config.spool);
    confine("worker", Part::Parser, allowed, config, log);
}

/// For an uploader at its start: the network, and files of the spool directory and the system's.
#[cfg(feature = "upload")]
pub(super) fn of_uploader(config: &ValidConfig, log: &Log) {
    let named: Vec<PathBuf> = ["SSL_CERT_FILE", "SSL_CERT_DIR"]
        .iter()
        .filter_map(std::env::var_os)
        .flat_map(|paths| std::env::split_paths(&paths).collect::<Vec<_>>())
        .collect();
    let mut read: Vec<&Path> = SYSTEM.iter().map(Path::new).collect();
    read.extend(named.iter().map(PathBuf::as_path));
    read.extend(config.certificate_authorities.iter().map(PathBuf::as_path));
    let mut ports: Vec<u16> = config.destinations.iter().map(crate::config::Destination::port).collect();
    // Names are asked for over TCP, too (RFC 7766).
    ports.push(53);
    let written = vec![config.spool.as_path(), Path::new("/dev/null")];
    let allowed = Allowed { written, read: Some(read), ports, signals: false };
    confine("uploader", Part::Uploader, allowed, config, log);
}

fn confine<'a>(name: &str, part: Part, mut allowed: Allowed<'a>, config: &'a ValidConfig, log: &Log) {
    // The file alone, not its folder.
    log.touch();
    allowed.written.extend(config.log.as_deref());
    if let Err(error) = landlock::confine(&allowed) {
        log.event(name, "no-landlock", format!("files are not confined: {error}"));
    }
    if let Err(error) = restrict::restrict(part) {
        log.event(name, "no-seccomp", format!("system calls are not confined: {error}"));
    }
}

/// Starts the uploader for a confined worker whose supervisor has died: such a worker can start no program. A process that
/// was forked before, and waits for a word.
pub(super) struct Starter(Socket);

impl Starter {
    /// Only where the supervisor is gone already; one that dies later leaves the delivery to the next start.
    pub(super) fn if_alone(supervisor: &Socket, config: &ValidConfig) -> Option<Self> {
        if !supervisor.is_at_end() || config.destinations.is_empty() || !cfg!(feature = "upload") {
            return None;
        }
        let (ours, theirs) = Socket::pair().ok()?;
        match process::fork().ok()? {
            // Nobody waits for it: its parent ends first.
            Forked::Parent(..) => Some(Self(ours)),
            Forked::Child => {
                process::close_all_but(theirs.as_raw());
                let code = obey(&theirs, config);
                process::exit_now(code)
            }
        }
    }

    /// There is something to deliver.
    pub(super) fn start(&self, blackbox: &Blackbox) {
        let _ = self.0.send(b"start", &[blackbox.as_fd()]);
    }
}

fn obey(worker: &Socket, config: &ValidConfig) -> i32 {
    /// A worker's time for a report is 120 s.
    const LONGEST: Duration = Duration::from_secs(300);
    let Ok(Received::Message(message)) = worker.receive(16, LONGEST) else { return 0 };
    let Some(Ok(blackbox)) = message.fds.into_iter().next().map(Blackbox::from_fd) else { return 1 };
    #[cfg(feature = "upload")]
    let started = super::launch::launch_uploader(config, &blackbox, &serde_json::Value::Null).is_ok();
    #[cfg(not(feature = "upload"))]
    let started = (config, blackbox).0.destinations.is_empty();
    i32::from(!started)
}
