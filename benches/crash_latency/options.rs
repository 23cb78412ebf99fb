//! The command line.

use std::path::PathBuf;
use std::time::Duration;

/// The two that are compared, one of them in two forms.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sdk {
    Cenotaph,
    /// With the example pmodules.
    WithPmodules,
    Minidumper,
}

impl Sdk {
    pub(crate) const BOTH: [Self; 2] = [Self::Cenotaph, Self::Minidumper];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Cenotaph => "cenotaph",
            Self::WithPmodules => "cenotaph-with-pmodules",
            Self::Minidumper => "minidumper",
        }
    }

    pub(crate) fn parse(name: &str) -> Option<Self> {
        Self::BOTH.into_iter().chain([Self::WithPmodules]).find(|sdk| sdk.name() == name)
    }
}

/// What to measure.
#[derive(Debug, Clone)]
pub(crate) struct Options {
    pub(crate) runs: usize,
    /// The victim's threads, main included.
    pub(crate) threads: Vec<usize>,
    pub(crate) heap_mib: usize,
    /// The victim's modules; it has some by itself.
    pub(crate) modules: usize,
    pub(crate) seed: u64,
    /// How long a victim lives before it crashes, so that what the SDKs start has come to rest.
    pub(crate) settle: Duration,
    /// Where spool and dumps go. The file system matters: Cenotaph's times include its fsync.
    pub(crate) dir: PathBuf,
    pub(crate) json: Option<PathBuf>,
    /// Only shows that it works.
    pub(crate) smoke: bool,
}

impl Options {
    /// The number of threads at which pmodules are measured.
    pub(crate) fn threads_with_pmodules(&self) -> Option<usize> {
        self.threads.iter().copied().min_by_key(|threads| threads.abs_diff(16))
    }
}

/// What the arguments ask for.
#[derive(Debug)]
pub(crate) enum Wanted {
    Measure(Options),
    List,
    /// A filter that this benchmark does not match.
    Nothing,
}

/// Reads the arguments behind the program's name. Cargo and its runners add some of their own: `--bench` under
/// `cargo bench`, filters, `--list`.
pub(crate) fn parse(arguments: &[String]) -> Result<Wanted, String> {
    let given = |flag: &str| arguments.iter().any(|argument| argument == flag);
    if given("--list") {
        return Ok(Wanted::List);
    }
    let mut options = defaults();
    if !given("--bench") || given("--test") {
        // Other arguments are meant for the tests that run beside.
        let (runs, threads, heap_mib, modules, settle) = (1, vec![2], 1, 0, Duration::ZERO);
        return Ok(Wanted::Measure(Options {
            runs,
            threads,
            heap_mib,
            modules,
            settle,
            smoke: true,
            ..options
        }));
    }
    let mut arguments = arguments.iter();
    while let Some(argument) = arguments.next() {
        let mut value = || arguments.next().ok_or_else(|| format!("{argument} takes a value"));
        match argument.as_str() {
            "--bench" => {}
            "--runs" => options.runs = positive(argument, value()?)?,
            "--heap-mib" => options.heap_mib = number(argument, value()?)?,
            "--modules" => options.modules = number(argument, value()?)?,
            "--seed" => options.seed = number(argument, value()?)?,
            "--settle-ms" => options.settle = Duration::from_millis(number(argument, value()?)?),
            "--threads" => {
                let list = value()?.split(',').map(|text| positive(argument, text));
                options.threads = list.collect::<Result<_, _>>()?;
            }
            "--dir" => options.dir = PathBuf::from(value()?),
            "--json" => options.json = Some(PathBuf::from(value()?)),
            filter if !filter.starts_with('-') => {
                if !"crash_latency".contains(filter) {
                    return Ok(Wanted::Nothing);
                }
            }
            other => {
                return Err(format!(
                    "unknown argument {other}; the head of benches/crash_latency/main.rs lists them"
                ));
            }
        }
    }
    Ok(Wanted::Measure(options))
}

fn defaults() -> Options {
    let clock = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    Options {
        runs: 15,
        threads: vec![1, 16, 128, 512],
        heap_mib: 16,
        modules: 89,
        seed: u64::from(clock.subsec_nanos()),
        settle: Duration::from_millis(60),
        dir: PathBuf::from(env!("CARGO_TARGET_TMPDIR")),
        json: None,
        smoke: false,
    }
}

fn number<N: std::str::FromStr>(name: &str, text: &str) -> Result<N, String> {
    text.parse().map_err(|_| format!("{name} takes a number, not \"{text}\""))
}

fn positive(name: &str, text: &str) -> Result<usize, String> {
    match number(name, text)? {
        0 => Err(format!("{name} takes a number from 1 on")),
        value => Ok(value),
    }
}
