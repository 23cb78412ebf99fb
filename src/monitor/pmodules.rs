//! The pmodules that a monitor has: gathered when it starts, kept until a crash.
#![forbid(unsafe_code)]

use std::path::Path;

use crate::config::ValidConfig;
use crate::pmodule::runner::{self, Ran, Why};
use crate::pmodule::{Limits, Registered};

/// What workers get from the supervisor, of which they are copies.
#[derive(Debug)]
pub(super) struct Pmodules {
    /// In the order in which they run.
    pub(super) registered: Vec<Registered>,
    /// Those that should be there and are not. Each is a failure of every report.
    pub(super) absent: Vec<Ran>,
    pub(super) limits: Limits,
}

impl Pmodules {
    /// `registered` are those in Rust. Loads the plug-ins of the settings.
    pub(super) fn gather(mut registered: Vec<Registered>, config: &ValidConfig) -> Self {
        let (mut absent, mut files) = (Vec::new(), Vec::new());
        for path in &config.plugins {
            match load(path) {
                Ok(plugin) => {
                    files.push((plugin.description.name.clone(), path));
                    registered.push(plugin);
                }
                Err(why) => absent.push(not_loaded(path, why)),
            }
        }
        // Two of one name could not be told apart in a receipt.
        let mut names = std::collections::BTreeSet::new();
        registered.retain(|registered| {
            let name = &registered.description.name;
            let new = names.insert(name.clone());
            if !new {
                let of = files.iter().rev().find(|(of, _)| of == name).map(|(_, path)| file_name(path));
                let of = of.map(|file| format!(" (file {file})")).unwrap_or_default();
                let why = Why { text: format!("another pmodule has its name{of}"), own_words: true };
                absent.push(Ran::missing(name, true, why));
            }
            new
        });
        let (registered, missing) = runner::in_order(registered, &config.pmodules);
        absent.extend(missing);
        Self { registered, absent, limits: config.pmodule_limits }
    }
}

/// One that could not be loaded may be one that redacts.
fn not_loaded(path: &Path, why: String) -> Ran {
    // A path may name the person.
    Ran::missing(&file_name(path), true, Why { text: why, own_words: true })
}

fn file_name(path: &Path) -> String {
    path.file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned())
}

#[cfg(feature = "pmodule-plugins")]
fn load(path: &Path) -> Result<Registered, String> {
    crate::pmodule::plugin::register(path).map_err(|error| error.to_string())
}

#[cfg(not(feature = "pmodule-plugins"))]
fn load(_: &Path) -> Result<Registered, String> {
    Err("this monitor loads no plug-ins: name a helper that does, such as cenotaph-monitor".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;
    use crate::pmodule::{Description, Event, Failure};

    fn registered(name: &str, priority: i32) -> Registered {
        let description = Description::new(name).priority(priority).on(Event::Attach);
        Registered::new(description, || Err(Failure("never made".into())))
    }

    #[test]
    fn order_and_what_is_missing() {
        let mut config = Config::new("a", "1").spool("/tmp/x").validate().unwrap();
        config.pmodules = vec![
            Description::new("b").on(Event::Attach),
            Description::new("gone").on(Event::Attach),
            Description::new("redactor").on(Event::Scrub),
        ];
        config.plugins = vec!["/nonexistent/plug.so".into()];
        let all = vec![registered("c", 5), registered("b", -1), registered("d", 5), registered("c", 0)];
        let pmodules = Pmodules::gather(all, &config);
        let names: Vec<_> = pmodules.registered.iter().map(|r| r.description.name.as_str()).collect();
        assert_eq!(names, ["b", "c", "d"]);
        let absent: Vec<_> =
            pmodules.absent.iter().map(|ran| (ran.pmodule.as_str(), ran.fails_closed)).collect();
        assert_eq!(absent, [("plug.so", true), ("c", true), ("gone", false), ("redactor", true)]);
    }
}
