//! Who may keep and send what. Depends on no other stage.
#![forbid(unsafe_code)]

pub mod consent;
pub mod gate;
pub mod identity;

pub use consent::{Basis, Consent};
pub use gate::{Mirror, Stage, Verdict, gate};

use serde::{Deserialize, Serialize};

/// Whom the application is made for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Audience {
    /// Adults, or nobody in particular.
    #[default]
    General,
    /// Children (COPPA, 16 CFR 312). Only narrows: detail `Pointers`, no identifier, no breadcrumb text.
    ChildDirected,
}

/// What happens while the person has not been asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ConsentPolicy {
    /// Nothing is kept: no dump, no file. The default.
    #[default]
    DropUntilGranted,
    /// Reports are held sealed on the device and sent only after a grant.
    AskFirst,
    /// The operator has another legal ground; only a denial or withdrawal stops reports.
    NotRequired,
}
