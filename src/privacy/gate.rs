//! The one decision: may this stage go on? Asked before dump, before spool and before upload.

use serde::{Deserialize, Serialize};

use super::{Consent, ConsentPolicy};

/// Where a report stands when the gate is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// Before the process is looked at.
    Dump,
    /// Before anything is written.
    Spool,
    /// Before a connection is opened.
    Upload,
}

/// What may happen next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Go on.
    Proceed,
    /// Keep what there is, sealed, and do not go on.
    Hold,
    /// Discard.
    Drop,
}

/// The application's own copy of its consent state, in memory it shares with the monitor.
///
/// It tells of a withdrawal before the record on disk does. Because a stray write in a dying
/// process could change it, it can only narrow what the record says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum Mirror {
    /// No opinion: the record decides.
    #[default]
    Silent,
    /// Reports are not allowed, whatever the record says.
    Refuses,
}

/// May `stage` go on?
pub fn gate(stage: Stage, policy: ConsentPolicy, recorded: Consent, mirror: Mirror) -> Verdict {
    if mirror == Mirror::Refuses {
        return Verdict::Drop;
    }
    match (recorded, policy) {
        (Consent::Denied | Consent::Withdrawn, _) => Verdict::Drop,
        (Consent::Granted, _) | (Consent::Unknown, ConsentPolicy::NotRequired) => Verdict::Proceed,
        (Consent::Unknown, ConsentPolicy::DropUntilGranted) => Verdict::Drop,
        (Consent::Unknown, ConsentPolicy::AskFirst) => match stage {
            Stage::Dump | Stage::Spool => Verdict::Proceed,
            Stage::Upload => Verdict::Hold,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_case() {
        use Verdict::{Drop, Hold, Proceed};
        // Dump, spool, upload with a silent mirror.
        let table = [
            (Consent::Unknown, ConsentPolicy::DropUntilGranted, [Drop, Drop, Drop]),
            (Consent::Unknown, ConsentPolicy::AskFirst, [Proceed, Proceed, Hold]),
            (Consent::Unknown, ConsentPolicy::NotRequired, [Proceed, Proceed, Proceed]),
            (Consent::Granted, ConsentPolicy::DropUntilGranted, [Proceed, Proceed, Proceed]),
            (Consent::Granted, ConsentPolicy::AskFirst, [Proceed, Proceed, Proceed]),
            (Consent::Granted, ConsentPolicy::NotRequired, [Proceed, Proceed, Proceed]),
            (Consent::Denied, ConsentPolicy::DropUntilGranted, [Drop, Drop, Drop]),
            (Consent::Denied, ConsentPolicy::AskFirst, [Drop, Drop, Drop]),
            (Consent::Denied, ConsentPolicy::NotRequired, [Drop, Drop, Drop]),
            (Consent::Withdrawn, ConsentPolicy::DropUntilGranted, [Drop, Drop, Drop]),
            (Consent::Withdrawn, ConsentPolicy::AskFirst, [Drop, Drop, Drop]),
            (Consent::Withdrawn, ConsentPolicy::NotRequired, [Drop, Drop, Drop]),
        ];
        for (consent, policy, verdicts) in table {
            for (stage, expected) in [Stage::Dump, Stage::Spool, Stage::Upload].into_iter().zip(verdicts) {
                assert_eq!(
                    gate(stage, policy, consent, Mirror::Silent),
                    expected,
                    "{stage:?} {policy:?} {consent:?}"
                );
                assert_eq!(gate(stage, policy, consent, Mirror::Refuses), Drop, "the mirror only narrows");
            }
        }
    }
}
