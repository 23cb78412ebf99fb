//! A victim: dies in the way that the command line names, with values planted where a crash report might pick them up.

mod chain;
mod chained;
mod control;
mod lockdown;
mod masked;
mod matrix;
mod monitor_state;
mod options;
mod payload;
mod plant;
mod pmodules;
mod processes;
mod reexec;
mod sdk;
mod sentinel;
mod state;
mod ways;
mod wipe;
mod workload;

use std::io::{self, Write as _};
use std::process::ExitCode;
use std::{env, fs};

use cenotaph::WatchedAllocator;
use options::{Options, Usage};
use payload::Payload;
use plant::Entry;
use sdk::Session;
use ways::Way;

#[global_allocator]
static ALLOCATOR: WatchedAllocator<wipe::WipingAllocator> =
    WatchedAllocator::new(wipe::WipingAllocator::new());

/// Why the victim did not die as asked.
enum Failure {
    Usage(Usage),
    Machine(String),
}

fn main() -> ExitCode {
    sdk::monitor_entry();
    let arguments: Vec<_> = env::args_os().skip(1).collect();
    if let Some((command, rest)) = arguments.split_first() {
        if command == matrix::COMMAND {
            return matrix::run(rest);
        }
        if command == sentinel::COMMAND {
            return sentinel::run(rest);
        }
        if let Some(code) = lockdown::helper(&arguments) {
            return code;
        }
    }
    // A victim has its arguments only where the kernel put them.
    drop(arguments);
    match run() {
        Ok(code) => code,
        Err(Failure::Usage(Usage(reason))) => {
            let _ = writeln!(io::stderr(), "crasher: {reason}\n{}", options::USAGE);
            ExitCode::from(2)
        }
        Err(Failure::Machine(reason)) => {
            let _ = writeln!(io::stderr(), "crasher: {reason}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<ExitCode, Failure> {
    let Ready { way, wait_delivery, monitor_state, announce, session, payload } = match set_up()? {
        SetUp::Victim(setup) => setup,
        SetUp::Other(code) => return Ok(code),
    };
    // What `set_up` left in its dead frames. From here on the values lie only where they were planted.
    wipe::leftovers();
    ALLOCATOR.inner().stop();
    if let Some(state) = monitor_state {
        // On a thread with a heap of its own: some ways to die depend on how main's looks.
        let reached =
            std::thread::scope(|scope| scope.spawn(|| monitor_state::reach(state, &session)).join());
        reached.unwrap_or_else(|_| Err("--monitor-state: a panic".to_owned()))?;
    }
    if announce {
        control::say(format_args!("dying {}", processes::now_ns()));
    }
    let ending = ways::go(way, payload, &mut || match way {
        Way::Capture => {
            if let Some(id) = sdk::report("capture", session.capture()) {
                control::say(format_args!("captured {id}"));
            }
            ExitCode::SUCCESS
        }
        _ => control::serve(&session, payload),
    })?;
    if let Some(limit) = wait_delivery {
        sdk::report("flush", session.flush(limit));
    }
    Ok(ending)
}

struct Ready {
    way: Way,
    wait_delivery: Option<std::time::Duration>,
    monitor_state: Option<monitor_state::State>,
    announce: bool,
    session: Session,
    payload: &'static Payload,
}

/// What the process turned out to be.
enum SetUp {
    Victim(Ready),
    /// One that only has to end: help was asked for, or it is the outside of a lock-down.
    Other(ExitCode),
}

/// Everything before the death. A function of its own, so that its frames are dead when it returns.
#[inline(never)]
fn set_up() -> Result<SetUp, Failure> {
    let options = options::parse(env::args_os().skip(1))?;
    if options.help {
        control::say(format_args!("{}", options::USAGE));
        return Ok(SetUp::Other(ExitCode::SUCCESS));
    }
    let entries = read_plant(&options)?;
    if reexec::is_needed(&entries) && !options.re_executed {
        reexec::execute(&entries).map(|never| match never {})?;
    }
    if let Some(lockdown) = options.lockdown {
        if let Some(code) = lockdown::enclose(lockdown)? {
            return Ok(SetUp::Other(code));
        }
        lockdown::before_start(lockdown)?;
    }
    ways::before_install(options.way)?;
    if options.chained_handler {
        chained::install()?;
    }
    state::fill();
    let session = Session::start(&options);
    workload::fill_heap(options.heap_mib);
    let mut payload = Payload::plant(&entries, &session)?;
    // Dead frames of planting hold pieces of values, and what moves from the stack into the heap takes such bytes along
    // as its padding.
    wipe::leftovers();
    let names = std::mem::take(&mut payload.thread_names);
    if names.len() >= options.threads && !names.is_empty() {
        let threads = names.len() + 1;
        return Err(Usage(format!(
            "plant: thread names are for parked threads: give --threads {threads} or more"
        ))
        .into());
    }
    workload::park(options.threads - 1, names)?;
    if let Some(lockdown) = options.lockdown {
        lockdown::after_start(lockdown)?;
    }
    Ok(SetUp::Victim(Ready {
        way: options.way,
        wait_delivery: options.wait_delivery,
        monitor_state: options.monitor_state,
        announce: options.announce,
        session,
        payload: Box::leak(Box::new(payload)),
    }))
}

fn read_plant(options: &Options) -> Result<Vec<Entry>, Failure> {
    let Some(path) = &options.plant else { return Ok(Vec::new()) };
    let json = fs::read(path).map_err(|e| Usage(format!("--plant {}: {e}", path.display())))?;
    let entries = plant::parse(&json, options.way.name());
    Ok(entries.map_err(|reason| Usage(format!("--plant {}: {reason}", path.display())))?)
}

impl From<Usage> for Failure {
    fn from(usage: Usage) -> Self {
        Self::Usage(usage)
    }
}

impl From<String> for Failure {
    fn from(reason: String) -> Self {
        Self::Machine(reason)
    }
}
