//! The consent record: what the person said, kept so that tampering or damage reads as "not asked".


use serde::{Deserialize, Serialize};


/// What the person said.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Consent {
    /// Not asked yet, or the record is missing, damaged or not authentic.
    #[default]
    Unknown,
    /// Yes.
    Granted,
    /// No.
    Denied,
    /// Yes once, no longer.
    Withdrawn,
}

/// On what ground a grant stands (COPPA 16 CFR 312.5; GDPR articles 6 to 8).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Basis {
    /// The person agreed.
    Person,
    /// A verified parent agreed.
    VerifiedParent,
    /// The operator's own devices or testers under contract.
    Operator,
}
