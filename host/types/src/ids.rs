//! Identities and counters, each a type of its own so that none can stand in for another.
//!
//! Relies on nothing. Promises ordered, hashable, printable values. Knows nothing of what they name.

use std::fmt;

macro_rules! counter {
    ($(#[$doc:meta])* $name:ident, $prefix:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[derive(serde::Serialize, serde::Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub u64);

        impl $name {
            /// The value before the first real one.
            pub const ZERO: Self = Self(0);

            /// The next value; saturates at the greatest, which no honest history reaches.
            #[must_use]
            pub const fn next(self) -> Self {
                Self(self.0.saturating_add(1))
            }

            /// The previous value; saturates at zero.
            #[must_use]
            pub const fn previous(self) -> Self {
                Self(self.0.saturating_sub(1))
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!($prefix, "{}"), self.0)
            }
        }
    };
}

counter! {
    /// A node: one process with one data directory. Chosen by the operator, from 1, unique in the
    /// cluster.
    NodeId, "n"
}
counter! {
    /// A consensus group. Group 0 is the catalog. Never reused, even after deletion.
    GroupId, "g"
}
counter! {
    /// The life of one replica's durable state: a replica that lost its disk returns under a greater
    /// incarnation.
    Incarnation, "i"
}
counter! {
    /// How often a replica was started on its durable state; raised durably before anything else at
    /// each start.
    BootNumber, "b"
}
counter! {
    /// One member set with one protocol (DESIGN: epochs). The first is 1.
    Epoch, "e"
}
counter! {
    /// A Raft term within an epoch (Ongaro thesis §3.3). The first is 1.
    Term, "t"
}
counter! {
    /// A PBFT or HotStuff view within an epoch. The first is 1.
    View, "v"
}
counter! {
    /// The place of an entry in a group's log. The first entry is at 1; 0 is before the log.
    LogIndex, "#"
}
counter! {
    /// A client session of a group, named by the group when it opens one.
    SessionId, "s"
}
counter! {
    /// A command's number within its session, from 1, never used for two different commands.
    Sequence, "q"
}

impl GroupId {
    /// The group that replicates the catalog of nodes, groups and components.
    pub const CATALOG: Self = Self(0);
}

/// A cluster, named by the digest of its genesis: the sorted initial nodes with their keys.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClusterId(pub [u8; 16]);

impl fmt::Debug for ClusterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for ClusterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}
