//! One crash of one victim, measured.

use std::collections::BTreeMap;
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::time::Duration;

use crate::calls::Tracer;
use crate::clock::{Clock, Stamp};
use crate::modules::Modules;
use crate::options::{Options, Sdk};
use crate::processes::{self, Role};
use crate::victim::Orders;
use crate::watch::{Completion, Watch};
use crate::{Failure, peer, subject};

/// The argument that makes this program a victim.
pub(crate) const VICTIM: &str = "--victim";
/// The argument that makes this program minidumper's monitor.
pub(crate) const SERVER: &str = "--minidumper-server";

/// The name under which [`Sample::stages_ms`] keeps when the harness saw the report's rename.
pub(crate) const RENAMED: &str = "renamed";

const START_LIMIT: Duration = Duration::from_secs(30);
const CRASH_LIMIT: Duration = Duration::from_secs(60);
const END_LIMIT: Duration = Duration::from_secs(10);

/// Milliseconds from the crash on, and bytes.
#[derive(Debug, Clone)]
pub(crate) struct Sample {
    pub(crate) released_ms: f64,
    pub(crate) complete_ms: f64,
    pub(crate) gone_ms: f64,
    /// The raw dump's.
    pub(crate) dump_bytes: f64,
    /// Cenotaph's stages, by its own log.
    pub(crate) stages_ms: BTreeMap<String, f64>,
}

/// What all victims of a series share.
pub(crate) struct Scene<'a> {
    pub(crate) options: &'a Options,
    pub(crate) clock: Clock,
    pub(crate) modules: Modules,
}

impl<'a> Scene<'a> {
    pub(crate) fn new(options: &'a Options) -> Result<Self, Failure> {
        let modules = Modules::build(options.modules, &options.dir)?;
        Ok(Self { options, clock: Clock::create()?, modules })
    }
}

/// Crashes one victim. Leaves no process and no file. With `trace` strace looks at Cenotaph's processes and writes there.
pub(crate) fn measure(
    sdk: Sdk,
    threads: usize,
    scene: &Scene<'_>,
    trace: Option<&Path>,
) -> Result<Sample, Failure> {
    let dir = tempfile::Builder::new().prefix("crash-latency-").tempdir_in(&scene.options.dir)?;
    let sample = crash(sdk, threads, scene, trace, dir.path());
    // All roles have been dropped, so that only what Cenotaph started is left.
    processes::collect_orphans(END_LIMIT)?;
    let sample = sample?.finish(dir.path());
    dir.close()?;
    sample
}

/// A sample without what is known only after the monitor's end.
struct Unfinished {
    sdk: Sdk,
    sample: Sample,
}

fn crash(
    sdk: Sdk,
    threads: usize,
    scene: &Scene<'_>,
    trace: Option<&Path>,
    dir: &Path,
) -> Result<Unfinished, Failure> {
    let Scene { options, clock, modules } = scene;
    clock.reset();
    let (watch, server) = match sdk {
        Sdk::Cenotaph | Sdk::WithPmodules => {
            // As after an earlier crash; the watch needs it.
            let pending = subject::pending(dir);
            std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&pending)?;
            (Watch::new(&pending, Completion::Moved)?, None)
        }
        Sdk::Minidumper => {
            let watch = Watch::new(dir, Completion::Closed)?;
            let name = dir.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let server = Role::start(SERVER, &[name.clone(), dir.display().to_string()], None, START_LIMIT)?;
            (watch, Some((server, name)))
        }
    };
    let address =
        server.as_ref().map(|(server, name)| peer::Address { socket: name.clone(), pid: server.id() });
    let orders = Orders {
        sdk,
        threads,
        heap_mib: options.heap_mib,
        modules: options.modules,
        modules_dir: modules.dir().to_owned(),
        clock: clock.path(),
        dir: dir.to_owned(),
        server: address.unwrap_or_default(),
    };
    let pmodules = (sdk == Sdk::WithPmodules).then_some(subject::PMODULES);
    let mut victim = Role::start(VICTIM, &orders.to_arguments(), pmodules, START_LIMIT)?;
    std::thread::sleep(options.settle);
    let tracer = trace.map(|output| Tracer::attach(victim.id(), output)).transpose()?;
    victim.go()?;
    let seen = watch.wait(victim.pidfd(), CRASH_LIMIT)?;
    let status = victim.join(END_LIMIT)?;
    if status.signal() != Some(libc::SIGSEGV) {
        return Err(format!("the victim ended otherwise than by its fault: {status}").into());
    }
    if let Some(tracer) = tracer {
        tracer.finish()?;
    }
    if let Some((server, _)) = server {
        server.join(END_LIMIT)?;
    }
    let missing = || format!("the victim of {} did not stamp its way", sdk.name());
    let crash_ns = clock.read(Stamp::Crash).ok_or_else(missing)?;
    let released_ns = clock.read(Stamp::Released).ok_or_else(missing)?;
    let since_crash = |ns: u64| ns.saturating_sub(crash_ns) as f64 / 1e6;
    let sample = Sample {
        released_ms: since_crash(released_ns),
        complete_ms: since_crash(seen.complete_ns),
        gone_ms: since_crash(seen.gone_ns),
        dump_bytes: 0.0,
        stages_ms: BTreeMap::new(),
    };
    Ok(Unfinished { sdk, sample })
}

impl Unfinished {
    fn finish(self, dir: &Path) -> Result<Sample, Failure> {
        let mut sample = self.sample;
        match self.sdk {
            Sdk::Minidumper => sample.dump_bytes = std::fs::metadata(dir.join(peer::DUMP))?.len() as f64,
            Sdk::Cenotaph | Sdk::WithPmodules => {
                let spooled = subject::spooled(dir)?;
                sample.dump_bytes = spooled.stages_bytes.get("dump").copied().unwrap_or_default() as f64;
                // Where the directory is synced after the rename, inotify does not tell.
                let durable_ms =
                    spooled.stages_ms.get("spool").copied().ok_or("the log has no stage spool")?;
                sample.stages_ms = spooled.stages_ms;
                sample.stages_ms.insert(RENAMED.to_owned(), sample.complete_ms);
                sample.complete_ms = sample.complete_ms.max(durable_ms);
            }
        }
        Ok(sample)
    }
}
