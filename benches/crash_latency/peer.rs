//! minidumper: the victim's side, and its monitor.

use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

use crash_handler::{CrashContext, CrashEventResult, CrashHandler};
use minidumper::{Client, LoopAction, MinidumpBinary, Server, ServerHandler, SocketName};

use crate::Failure;

/// The file that a crash leaves in the monitor's directory.
pub(crate) const DUMP: &str = "crash.dmp";

/// How a victim reaches its monitor.
#[derive(Debug, Clone, Default)]
pub(crate) struct Address {
    /// Name of an abstract socket.
    pub(crate) socket: String,
    pub(crate) pid: u32,
}

/// Connects to the monitor and installs the handler, which waits until the monitor has written the dump.
pub(crate) fn install(server: &Address) -> Result<(), Failure> {
    let client = Client::with_name(SocketName::Abstract(&server.socket))?;
    let on_crash = move |context: &CrashContext| {
        let _ = client.request_dump(context);
        // "Not handled": then the earlier handlers run, and the victim's stamps the time.
        CrashEventResult::Handled(false)
    };
    // SAFETY: the callback neither allocates nor locks, as far as minidumper does not.
    let handler = CrashHandler::attach(unsafe { crash_handler::make_crash_event(on_crash) })?;
    handler.set_ptracer(Some(server.pid));
    // Its destructor would take the handlers away.
    std::mem::forget(handler);
    Ok(())
}

/// The monitor: announces that it listens, writes one dump and ends.
pub(crate) fn serve(socket: &str, dir: &Path) -> Result<(), Failure> {
    let mut server = Server::with_name(SocketName::Abstract(socket))?;
    io::stdout().write_all(b"ready\n")?;
    io::stdout().flush()?;
    server.run(Box::new(Handler(dir.join(DUMP))), &AtomicBool::new(false), None)?;
    Ok(())
}

struct Handler(PathBuf);

impl ServerHandler for Handler {
    fn create_minidump_file(&self) -> Result<(File, PathBuf), io::Error> {
        Ok((File::create(&self.0)?, self.0.clone()))
    }

    fn on_minidump_created(&self, result: Result<MinidumpBinary, minidumper::Error>) -> LoopAction {
        // Closes the file; the client is told after that.
        drop(result);
        LoopAction::Exit
    }

    fn on_message(&self, _kind: u32, _buffer: Vec<u8>) {}
}
