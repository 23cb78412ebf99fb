//! Where the application runs, as far as that decides about its monitor's life: whether the monitor outlives it.
#![forbid(unsafe_code)]

use crate::config::ReleaseAt;
use crate::sys::{cgroup, process};

/// What ends the monitor together with the application.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Surroundings {
    /// It is the first process of its pid namespace, with which the kernel ends all others.
    is_init: bool,
    /// It is in a pid namespace that somebody made: a container or a sandbox, whose first process ends soon after it.
    is_contained: bool,
    /// Its control group is a service's: the service manager kills all that is left in it when the main process ends.
    is_service: bool,
}

/// When a dying application may go on that `asked` for this, or for nothing.
pub(super) fn release_at(asked: Option<ReleaseAt>) -> ReleaseAt {
    let surroundings = Surroundings {
        is_init: process::is_init(),
        is_contained: process::is_in_pid_namespace(),
        is_service: cgroup::is_service(),
    };
    decide(asked, surroundings)
}

/// What outlives nothing has to have its report on disk before it ends: as the first process of a namespace for certain,
/// elsewhere unless the application knows better.
fn decide(asked: Option<ReleaseAt>, surroundings: Surroundings) -> ReleaseAt {
    let Surroundings { is_init, is_contained, is_service } = surroundings;
    match asked {
        _ if is_init => ReleaseAt::Spooled,
        Some(asked) => asked,
        None if is_contained || is_service => ReleaseAt::Spooled,
        None => ReleaseAt::Read,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_takes_the_monitor_along_waits_for_it() {
        use ReleaseAt::{Read, Spooled};
        let none = Surroundings::default();
        let init = Surroundings { is_init: true, is_contained: true, ..none };
        let contained = Surroundings { is_contained: true, ..none };
        let service = Surroundings { is_service: true, ..none };
        for (asked, surroundings, expected) in [
            (None, none, Read),
            (None, init, Spooled),
            (None, contained, Spooled),
            (None, service, Spooled),
            (Some(Read), none, Read),
            (Some(Read), init, Spooled),
            (Some(Read), contained, Read),
            (Some(Read), service, Read),
            (Some(Spooled), none, Spooled),
            (Some(Spooled), service, Spooled),
        ] {
            assert_eq!(decide(asked, surroundings), expected, "{asked:?} {surroundings:?}");
        }
    }
}
