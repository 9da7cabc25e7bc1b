//! A replica's log as the checks see it: for each entry its position and a digest of the whole log up
//! to it.
//!
//! Relies on BLAKE3. Promises that two links are equal exactly if the logs up to them are. Knows no
//! replica and no disk.

use quorate_types::codec::Writer;
use quorate_types::{Digest, Entry, LogIndex, Position};

/// An entry's place and the digest of the log that ends with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Link {
    /// Where the entry stands.
    pub position: Position,
    /// Of all entries up to here.
    pub history: Digest,
}

impl Link {
    /// Before the first entry.
    #[must_use]
    pub fn start() -> Self {
        Self { position: Position::ZERO, history: Digest([0; 32]) }
    }

    /// The link of an entry that follows this one.
    #[must_use]
    pub fn then(&self, entry: &Entry) -> Self {
        let mut header = Writer::with_capacity(Entry::HEADER_BYTES);
        Entry { body: bytes::Bytes::new(), ..entry.clone() }.encode(&mut header);
        let mut hasher = blake3::Hasher::new();
        hasher.update(&self.history.0);
        hasher.update(header.as_slice());
        hasher.update(&entry.body);
        Self { position: entry.position, history: Digest(*hasher.finalize().as_bytes()) }
    }
}

/// Consecutive links after a base.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chain {
    base: Link,
    links: Vec<Link>,
}

impl Default for Chain {
    fn default() -> Self {
        Self::after(Link::start())
    }
}

impl Chain {
    /// A log that begins after `base`.
    #[must_use]
    pub fn after(base: Link) -> Self {
        Self { base, links: Vec::new() }
    }

    /// The last link, the base if there is none after it.
    #[must_use]
    pub fn last(&self) -> Link {
        *self.links.last().unwrap_or(&self.base)
    }

    /// What the log begins after.
    #[must_use]
    pub fn base(&self) -> Link {
        self.base
    }

    /// The link at an index, the base included.
    #[must_use]
    pub fn at(&self, index: LogIndex) -> Option<Link> {
        if index == self.base.position.index {
            return Some(self.base);
        }
        let offset = index.0.checked_sub(self.base.position.index.0 + 1)?;
        self.links.get(usize::try_from(offset).ok()?).copied()
    }

    /// All links after the base.
    #[must_use]
    pub fn links(&self) -> &[Link] {
        &self.links
    }

    /// Puts a link at its index and drops what was there and after; says how many links were dropped.
    ///
    /// `None`, and no change, for an index that would leave a hole or lies at the base or before.
    pub fn put(&mut self, link: Link) -> Option<usize> {
        let offset = link.position.index.0.checked_sub(self.base.position.index.0 + 1)?;
        let offset = usize::try_from(offset).ok()?;
        if offset > self.links.len() {
            return None;
        }
        let dropped = self.links.len() - offset;
        self.links.truncate(offset);
        self.links.push(link);
        Some(dropped)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    #![allow(clippy::unwrap_used)]
    use quorate_types::{EntryKind, Epoch, HlcTimestamp, Term};

    use super::*;

    /// Of the first epoch; empty if it has no body.
    pub(crate) fn entry(term: u64, index: u64, body: &'static str) -> Entry {
        let position = Position { epoch: Epoch(1), term: Term(term), index: LogIndex(index) };
        let kind = if body.is_empty() { EntryKind::Empty } else { EntryKind::Batch };
        Entry { position, hlc: HlcTimestamp(index), kind, body: bytes::Bytes::from_static(body.as_bytes()) }
    }

    #[test]
    fn a_link_stands_for_all_entries_before_it() {
        let last = |first: &'static str| Link::start().then(&entry(1, 1, first)).then(&entry(1, 2, "same"));
        assert_eq!(last("a"), last("a"));
        assert_ne!(last("a"), last("b"));
    }

    #[test]
    fn a_put_replaces_the_rest_and_leaves_no_hole() {
        let mut chain = Chain::default();
        let one = Link::start().then(&entry(1, 1, "a"));
        let two = one.then(&entry(1, 2, "b"));
        assert_eq!(chain.put(one), Some(0));
        assert_eq!(chain.put(two), Some(0));
        let other = one.then(&entry(2, 2, "c"));
        assert_eq!(chain.put(other), Some(1));
        assert_eq!(chain.at(LogIndex(2)), Some(other));
        let far = Link { position: entry(2, 9, "").position, ..other };
        assert_eq!(chain.put(far), None);
        assert_eq!(chain.last(), other);
        let mut based = Chain::after(two);
        assert_eq!(based.put(two), None);
        assert_eq!(based.at(LogIndex(2)), Some(two));
        assert_eq!(based.at(LogIndex(1)), None);
    }
}
