//! Which faults may happen.
//!
//! Relies on nothing. Promises that a list of names and a set are the same thing. Knows no schedule.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

/// A kind of fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum FaultKind {
    /// Messages vanish.
    Loss,
    /// Messages take much longer than usual.
    Delay,
    /// Messages arrive twice.
    Duplication,
    /// Messages overtake one another.
    Reordering,
    /// Nodes cannot reach one another, in both directions or in one.
    Partition,
    /// Nodes end at any point and lose or tear what they did not flush.
    Crash,
    /// A disk becomes slow.
    SlowDisk,
    /// Clocks run unevenly and jump.
    Clock,
    /// Liars propose, vote and give up views differently towards different members.
    Equivocation,
    /// Liars do not vote, or leave members out.
    WithheldVotes,
    /// Liars sign wrongly.
    InvalidSignatures,
    /// Liars send again what they once said.
    Replay,
    /// Liars speak of views that are past or far ahead.
    StaleViews,
    /// Liars make up certificates: with signatures of nobody, too few, one several times, of another group.
    FabricatedCertificates,
    /// Liars answer with blocks and snapshots that are not those of the history.
    LyingSync,
    /// Liars propose blocks that extend what they must not.
    InvalidParents,
    /// Liars send much that is of no use.
    Flooding,
    /// Liars speak late to some members.
    TargetedDelay,
    /// Liars change bytes of what they say.
    Mutation,
}

impl FaultKind {
    /// All kinds with their names.
    pub const ALL: [(Self, &'static str); 19] = [
        (Self::Loss, "loss"),
        (Self::Delay, "delay"),
        (Self::Duplication, "duplication"),
        (Self::Reordering, "reordering"),
        (Self::Partition, "partition"),
        (Self::Crash, "crash"),
        (Self::SlowDisk, "slow-disk"),
        (Self::Clock, "clock"),
        (Self::Equivocation, "equivocation"),
        (Self::WithheldVotes, "withheld-votes"),
        (Self::InvalidSignatures, "invalid-signatures"),
        (Self::Replay, "replay"),
        (Self::StaleViews, "stale-views"),
        (Self::FabricatedCertificates, "fabricated-certificates"),
        (Self::LyingSync, "lying-sync"),
        (Self::InvalidParents, "invalid-parents"),
        (Self::Flooding, "flooding"),
        (Self::TargetedDelay, "targeted-delay"),
        (Self::Mutation, "mutation"),
    ];

    /// What only liars do; without meaning where nobody lies.
    pub const LIES: [Self; 11] = [
        Self::Equivocation,
        Self::WithheldVotes,
        Self::InvalidSignatures,
        Self::Replay,
        Self::StaleViews,
        Self::FabricatedCertificates,
        Self::LyingSync,
        Self::InvalidParents,
        Self::Flooding,
        Self::TargetedDelay,
        Self::Mutation,
    ];
}

/// A set of fault kinds; read from `all`, `none` or names with commas between.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FaultSet(BTreeSet<FaultKind>);

impl FaultSet {
    /// Every kind.
    #[must_use]
    pub fn all() -> Self {
        Self(FaultKind::ALL.iter().map(|(kind, _)| *kind).collect())
    }

    /// No fault at all.
    #[must_use]
    pub fn none() -> Self {
        Self(BTreeSet::new())
    }

    /// Whether members may lie.
    #[must_use]
    pub fn has_lies(&self) -> bool {
        FaultKind::LIES.iter().any(|kind| self.has(*kind))
    }

    /// Whether faults of this kind may happen.
    #[must_use]
    pub fn has(&self, kind: FaultKind) -> bool {
        self.0.contains(&kind)
    }
}

/// All names, with commas between.
fn names() -> String {
    FaultKind::ALL.map(|(_, name)| name).join(", ")
}

/// A name that is no fault.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("there is no fault named {0:?}; use all, none, or names of: {known}, with commas between", known = names())]
pub struct UnknownFault(String);

impl FromStr for FaultSet {
    type Err = UnknownFault;

    fn from_str(text: &str) -> Result<Self, UnknownFault> {
        match text {
            "all" => return Ok(Self::all()),
            "none" => return Ok(Self::none()),
            _ => {}
        }
        let kind = |name: &str| {
            let found = FaultKind::ALL.iter().find(|(_, known)| *known == name.trim());
            found.map(|(kind, _)| *kind).ok_or_else(|| UnknownFault(name.to_owned()))
        };
        text.split(',').map(kind).collect::<Result<_, _>>().map(Self)
    }
}

impl fmt::Display for FaultSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return f.write_str("none");
        }
        if *self == Self::all() {
            return f.write_str("all");
        }
        let names = FaultKind::ALL.iter().filter(|(kind, _)| self.has(*kind)).map(|(_, name)| *name);
        f.write_str(&names.collect::<Vec<_>>().join(","))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sets_are_read_as_they_are_written() {
        for text in ["all", "none", "loss,crash", "clock"] {
            assert_eq!(text.parse::<FaultSet>().map(|set| set.to_string()), Ok(text.to_owned()));
        }
        assert_eq!("loss,flood".parse::<FaultSet>(), Err(UnknownFault("flood".to_owned())));
        assert!(UnknownFault("flood".to_owned()).to_string().contains("loss, delay"));
        assert!("".parse::<FaultSet>().is_err());
    }
}
