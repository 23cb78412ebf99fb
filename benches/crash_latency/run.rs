//! The roles of this program, and the series of crashes.

use std::io::{self, IsTerminal, Write};
use std::process::ExitCode;

use crate::crash::{self, SERVER, Sample, Scene, VICTIM};
use crate::options::{self, Sdk, Wanted};
use crate::processes::{self, Interrupted};
use crate::requirements::Traced;
use crate::statistics::Random;
use crate::table::Rows;
use crate::victim::{self, Orders};
use crate::{Failure, calls, peer};

pub(crate) fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let role = arguments.first().map(String::as_str);
    let result = match (role, &arguments.get(1..).unwrap_or_default()) {
        (Some(VICTIM), orders) => Orders::from_arguments(orders)
            .ok_or_else(|| "orders that are no orders".into())
            .and_then(|o| victim::run(&o)),
        (Some(SERVER), [socket, dir]) => peer::serve(socket, dir.as_ref()),
        _ => match options::parse(&arguments) {
            Ok(wanted) => perform(wanted),
            Err(usage) => {
                let _ = writeln!(io::stderr(), "crash_latency: {usage}");
                return ExitCode::from(2);
            }
        },
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(io::stderr(), "crash_latency: {error}");
            ExitCode::from(if error.is::<Interrupted>() { 130 } else { 1 })
        }
    }
}

fn perform(wanted: Wanted) -> Result<(), Failure> {
    match wanted {
        Wanted::Nothing => Ok(()),
        Wanted::List => Ok(writeln!(io::stdout(), "crash_latency: benchmark")?),
        Wanted::Measure(options) => {
            processes::prepare()?;
            let scene = Scene::new(&options)?;
            let samples = series(&scene)?;
            let traced = if options.smoke { None } else { traced(&scene)? };
            let rows = Rows { samples, traced, options: &options };
            if options.smoke {
                return Ok(writeln!(
                    io::stdout(),
                    "crash_latency: all kinds of victim crashed as they should"
                )?);
            }
            rows.print(&mut io::stdout().lock())?;
            match &options.json {
                Some(path) => rows.write_json(path),
                None => Ok(()),
            }
        }
    }
}

/// Every number of threads with both SDKs, and one with pmodules too, in random order within each repetition.
fn series(scene: &Scene<'_>) -> Result<Vec<(usize, Sdk, Sample)>, Failure> {
    let options = scene.options;
    let mut random = Random(options.seed);
    let pairs = options.threads.iter().flat_map(|&threads| Sdk::BOTH.map(|sdk| (threads, sdk)));
    let with_pmodules = options.threads_with_pmodules().map(|threads| (threads, Sdk::WithPmodules));
    let mut order: Vec<(usize, Sdk)> = pairs.chain(with_pmodules).collect();
    let mut samples = Vec::new();
    for run in 1..=options.runs {
        random.shuffle(&mut order);
        for &(threads, sdk) in &order {
            progress(&format!("run {run} of {}: {} with {threads} threads", options.runs, sdk.name()));
            let sample = crash::measure(sdk, threads, scene, None).map_err(|error| {
                if error.is::<Interrupted>() {
                    return error;
                }
                format!("{} with {threads} threads, run {run}, seed {}: {error}", sdk.name(), options.seed)
                    .into()
            });
            samples.push((threads, sdk, sample.inspect_err(|_| progress(""))?));
        }
    }
    progress("");
    Ok(samples)
}

/// Two crashes under strace, the fewest threads (but 1, which differs in more) and the most.
fn traced(scene: &Scene<'_>) -> Result<Option<Traced>, Failure> {
    if !calls::is_available() {
        writeln!(
            io::stderr(),
            "crash_latency: strace is not installed; the rows about system calls are left out"
        )?;
        return Ok(None);
    }
    let several = scene.options.threads.iter().copied().filter(|threads| *threads > 1);
    let (Some(few), Some(many)) = (several.clone().min(), several.max()) else { return Ok(None) };
    if few == many {
        return Ok(None);
    }
    progress("system calls");
    let calls = [calls::count(few, scene), calls::count(many, scene)];
    progress("");
    let [first, second] = calls;
    Ok(Some(Traced { threads: [few, many], calls: [first?, second?], modules: scene.options.modules.max(1) }))
}

fn progress(text: &str) {
    if io::stderr().is_terminal() {
        // Returns to the line's start and clears it (ECMA-48 EL).
        let _ = write!(io::stderr(), "\r\x1b[K{text}");
    }
}
