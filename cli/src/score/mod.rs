//! `cenotaph score`: how much personal data a report still holds after scrubbing, measured.
//!
//! Values that generators drew (`benches/pii/`) are planted in synthetic dumps and in real processes, scrubbed, and searched for
//! by code that shares nothing with the scrubber.

mod corpus;
mod dump;
mod encode;
mod measures;
mod negatives;
mod pointers;
mod random;
mod real;
mod recall;
mod speed;

pub(crate) use real::victim;

use std::path::PathBuf;

use cenotaph::scrub::ENGINE;
use lexopt::prelude::*;

use crate::commands::{check_writable, write_json};
use crate::failure::{Failure, Result};
use crate::output;
use corpus::Corpus;
use measures::{Data, Score};

const HELP: &str = "\
Usage: cenotaph score [--small] [--seed S] [--json FILE] [OPTIONS]

Measures the scrubber: plants made-up values in every kind, encoding and place, in synthetic dumps and in real processes,
scrubs, and looks at what is left of them and what else is lost. Run it in the repository's folder, with a release build
and on a quiet machine: it takes some 2 to 5 minutes on two quiet cores, and --small less. benches/pii/README.md says how it is judged.

  --small           a committed draw of 12 values of each kind: no Python, no network
  --seed S          draws other values, and plants them elsewhere (default: random, and printed). With --small and --data
                    the values are given, and it says only where they are planted and what random texts stand beside them
  --plants N        values of each kind, and plants of them in each encoding and place (default: 1000; 12 with --small)
  --negatives MIB   memory of programs that hold nobody's data (default: 1024; 32 with --small)
  --heaps FOLDER    files of such memory, which are taken first
  --data FILE       values from a file, as generate.py writes it
  --python PYTHON   the Python that has the packages (default: target/pii/bin/python)
  --generator FILE  what draws values (default: benches/pii/generate.py)
  --only-speed      measures nothing but speed, and judges nothing by its exit code
  --examples        prints some of what survived and of what was touched wrongly
  --json FILE       the score and what it depends on ('-': standard output)

Exit codes: 0 all that must be is, 1 a row is MISSED or it failed, 2 the command line cannot be understood.
";

/// What the command line asked for.
struct Options {
    seed: u64,
    plants: usize,
    small: bool,
    json: Option<PathBuf>,
    data: Option<PathBuf>,
    python: PathBuf,
    generator: PathBuf,
    examples: bool,
    only_speed: bool,
    /// Mebibytes of the heaps of programs.
    negatives: usize,
    /// Files of memory without personal data.
    heaps: Option<PathBuf>,
}

pub(crate) fn score(arguments: lexopt::Parser) -> Result<()> {
    let Some(options) = Options::parse(arguments)? else { return output::line(HELP.trim_end()) };
    let done = run(&options);
    output::progress("");
    done
}

fn run(options: &Options) -> Result<()> {
    options.json.as_deref().map_or(Ok(()), check_writable)?;
    output::line(format_args!("seed {}", options.seed))?;
    if options.only_speed {
        let negatives = negatives::measure(48, 32 << 20, None)?;
        return measures::print(&speed::measure(&negatives.heap, options.seed, true)?);
    }
    let mut corpus = match &options.data {
        Some(path) => Corpus::file(path)?,
        None if options.small => Corpus::sample()?,
        None => {
            output::progress("drawing values");
            Corpus::generate(&options.python, &options.generator, options.seed, options.plants)?
        }
    };
    let data = Data {
        values: corpus.samples.len(),
        near_misses: corpus.decoys.len(),
        sha256: corpus.sha256.clone(),
        packages: corpus.packages.clone(),
    };
    let known = corpus.with_known(options.plants);
    let mut matrix = recall::measure(&corpus, &known, options.plants, options.seed)?;
    let pointers = pointers::measure(&corpus, options.plants, options.seed, &mut matrix)?;
    let mut measures = measures::of_matrix(&matrix);
    measures.extend(pointers);
    output::progress("crashes of real processes");
    let real = real::measure(&corpus, &known, if options.small { 2 } else { 20 }, options.seed)?;
    measures.extend(measures::of_real(&real));
    let negatives = negatives::measure(options.negatives, 32 << 20, options.heaps.as_deref())?;
    measures.push(measures::of_negatives(&negatives));
    output::progress("speed");
    measures.extend(speed::measure(&negatives.heap, options.seed, options.small)?);
    output::progress("");
    measures::print_matrix(&matrix)?;
    measures::print_negatives(&negatives)?;
    if options.examples {
        print_examples(&matrix)?;
        let mut more = real.examples.iter().chain(&negatives.examples);
        more.try_for_each(|example| output::line(output::printable(example)))?;
    }
    measures::print(&measures)?;
    let missed = measures.iter().filter(|measure| measure.judged && !measure.must_held).count();
    if let Some(path) = &options.json {
        let score = Score {
            seed: options.seed,
            small: options.small,
            plants: options.plants,
            data,
            negatives_mib: options.negatives,
            negatives_mib_found: negatives.mebibytes,
            engine: ENGINE,
            measures,
            matrix: measures::cells(&matrix),
            programs: negatives.versions,
        };
        write_json(path, &score)?;
    }
    match missed {
        0 => Ok(()),
        missed => Err(Failure::Failed(format!(
            "score: {missed} measures missed what must be; seed {}",
            options.seed
        ))),
    }
}

fn print_examples(matrix: &recall::Matrix) -> Result<()> {
    output::line(output::bold("examples of what survived (made-up values)"))?;
    for (cell, examples) in &matrix.missed_examples {
        for example in examples {
            output::line(output::printable(&format!("{cell}: {example}")))?;
        }
    }
    output::line(output::bold("examples of what was touched wrongly"))?;
    matrix.false_examples.iter().try_for_each(|example| output::line(output::printable(example)))
}

impl Options {
    /// None if help is asked for.
    fn parse(mut arguments: lexopt::Parser) -> Result<Option<Self>> {
        let mut options = Self {
            seed: clock(),
            plants: 0,
            small: false,
            json: None,
            data: None,
            python: "target/pii/bin/python".into(),
            generator: "benches/pii/generate.py".into(),
            examples: false,
            only_speed: false,
            negatives: 0,
            heaps: None,
        };
        while let Some(argument) = arguments.next()? {
            match argument {
                Long("seed") => options.seed = arguments.value()?.parse()?,
                Long("plants") => options.plants = arguments.value()?.parse()?,
                Long("small") => options.small = true,
                Long("json") => options.json = Some(arguments.value()?.into()),
                Long("data") => options.data = Some(arguments.value()?.into()),
                Long("python") => options.python = arguments.value()?.into(),
                Long("generator") => options.generator = arguments.value()?.into(),
                Long("heaps") => options.heaps = Some(arguments.value()?.into()),
                Long("negatives") => options.negatives = arguments.value()?.parse()?,
                Long("only-speed") => options.only_speed = true,
                Long("examples") => options.examples = true,
                Long("help") | Short('h') => return Ok(None),
                other => return Err(other.unexpected().into()),
            }
        }
        if options.negatives == 0 {
            options.negatives = if options.small { 32 } else { 1024 };
        }
        if options.plants == 0 {
            options.plants = if options.small { 12 } else { 1000 };
        }
        Ok(Some(options))
    }
}

fn clock() -> u64 {
    std::time::UNIX_EPOCH.elapsed().map_or(1, |time| time.as_nanos() as u64)
}
