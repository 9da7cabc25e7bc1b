//! The block tree: the branch that the log holds, and blocks beside it.
//!
//! Relies on its callers to add only blocks that follow their parent ([`super::rules::follows`]). Promises
//! that the log is one branch from the root on, that turning it to another branch says exactly what has to
//! be persisted, and that no block which this replica ever put into its log and that is not below the commit
//! is forgotten. Does not know what is certified.
//!
//! ```text
//!              +--[ 6' ]                    beside the log; durable with the hard state if it was in the log
//!              |
//!  root ... [ 5 ]--[ 6 ]--[ 7 ]  tip        the log: entries on disk
//!        commit ^
//! ```

use std::collections::{BTreeMap, VecDeque};

use quorate_types::{Digest, Entry, LogIndex, Position};

use super::block::{Block, Header};
use super::rules;

/// Blocks beside the log; beyond, the one of the lowest view goes. Each view that is given up leaves one at
/// most and each commit clears them, so this is hours without a commit at the longest waiting time.
pub(super) const SIDE_BLOCKS_MAX: usize = 4 << 10;

/// The block tree.
#[derive(Debug)]
pub(super) struct Chain {
    root: Header,
    root_digest: Digest,
    log: VecDeque<Block>,
    places: BTreeMap<Digest, LogIndex>,
    side: BTreeMap<Digest, Side>,
}

#[derive(Debug)]
struct Side {
    block: Block,
    /// It stood in the log, so it may have been voted for.
    was_logged: bool,
}

impl Chain {
    pub(super) fn new(root: Header) -> Self {
        Self {
            root,
            root_digest: root.digest(),
            log: VecDeque::new(),
            places: BTreeMap::new(),
            side: BTreeMap::new(),
        }
    }

    pub(super) fn root(&self) -> &Header {
        &self.root
    }

    /// The last header of the log.
    pub(super) fn tip(&self) -> &Header {
        self.log.back().map_or(&self.root, Block::header)
    }

    pub(super) fn tip_digest(&self) -> Digest {
        self.log.back().map_or(self.root_digest, Block::digest)
    }

    pub(super) fn block(&self, digest: &Digest) -> Option<&Block> {
        match self.places.get(digest) {
            Some(index) => self.at(*index),
            None => self.side.get(digest).map(|side| &side.block),
        }
    }

    /// The header of a block or of the root.
    pub(super) fn header(&self, digest: &Digest) -> Option<&Header> {
        if *digest == self.root_digest {
            return Some(&self.root);
        }
        self.block(digest).map(Block::header)
    }

    /// The block of the log at this index, after the root.
    pub(super) fn at(&self, index: LogIndex) -> Option<&Block> {
        let offset = index.0.checked_sub(self.root.position.index.0 + 1)?;
        self.log.get(usize::try_from(offset).ok()?)
    }

    /// The header of the log at this index, the root's included.
    pub(super) fn header_at(&self, index: LogIndex) -> Option<&Header> {
        if index == self.root.position.index { Some(&self.root) } else { self.at(index).map(Block::header) }
    }

    pub(super) fn holds(&self, position: Position) -> bool {
        self.header_at(position.index).is_some_and(|header| header.position == position)
    }

    /// Headers from this block backwards, parent after child, the root last.
    pub(super) fn ancestry(&self, digest: Digest) -> impl Iterator<Item = &Header> {
        let mut next = self.header(&digest);
        std::iter::from_fn(move || {
            let header = next?;
            next = self.header(&header.parent);
            Some(header)
        })
    }

    /// Adds a block beside the log, if its parent is here; whether it is here now.
    pub(super) fn add(&mut self, block: Block) -> bool {
        if self.header(&block.digest()).is_some() {
            return true;
        }
        let fits = self
            .header(&block.header().parent)
            .is_some_and(|parent| rules::follows(parent, block.header().parent, block.header()));
        if !fits {
            return false;
        }
        self.make_room();
        self.side.insert(block.digest(), Side { block, was_logged: false });
        true
    }

    fn make_room(&mut self) {
        let view = |side: &Side| side.block.header().view();
        while self.side.len() >= SIDE_BLOCKS_MAX {
            let lowest = self.side.iter().min_by_key(|(digest, side)| (view(side), **digest));
            let Some(digest) = lowest.map(|(digest, _)| *digest) else { return };
            self.side.remove(&digest);
        }
    }

    /// Makes the log run through this block; the entries that then follow the place where it turned off, to
    /// be persisted. Nothing if it runs through it already; `None` if the block has no path to the log.
    pub(super) fn adopt(&mut self, digest: Digest) -> Option<Vec<Entry>> {
        let mut path = Vec::new();
        let mut at = digest;
        while at != self.root_digest && !self.places.contains_key(&at) {
            let block = self.side.get(&at)?;
            path.push(at);
            at = block.block.header().parent;
        }
        if path.is_empty() {
            return Some(Vec::new());
        }
        let fork = self.header(&at)?.position.index;
        // Taken out before others come in, which may push out what is beside the log.
        let taken: Vec<Side> = path.iter().rev().filter_map(|digest| self.side.remove(digest)).collect();
        self.cut_after(fork);
        let mut entries = Vec::with_capacity(taken.len());
        for side in taken {
            entries.push(side.block.entry());
            self.push(side.block);
        }
        Some(entries)
    }

    /// Where the log would turn off to run through this block.
    pub(super) fn fork(&self, digest: Digest) -> Option<LogIndex> {
        let mut at = digest;
        while at != self.root_digest && !self.places.contains_key(&at) {
            at = self.side.get(&at)?.block.header().parent;
        }
        self.header(&at).map(|header| header.position.index)
    }

    /// Appends to the log.
    pub(super) fn push(&mut self, block: Block) {
        self.places.insert(block.digest(), block.header().position.index);
        self.log.push_back(block);
    }

    fn cut_after(&mut self, index: LogIndex) {
        while self.log.back().is_some_and(|block| block.header().position.index > index) {
            if let Some(block) = self.log.pop_back() {
                self.places.remove(&block.digest());
                self.make_room();
                self.side.insert(block.digest(), Side { block, was_logged: true });
            }
        }
    }

    /// Forgets the blocks beside the log that can never be committed.
    pub(super) fn prune(&mut self, commit: LogIndex) {
        self.side.retain(|_, side| side.block.header().position.index > commit);
    }

    /// Blocks that stood in the log and are beside it now, in the order of their digests.
    pub(super) fn cut(&self) -> impl Iterator<Item = &Block> {
        self.side.values().filter(|side| side.was_logged).map(|side| &side.block)
    }

    /// The blocks beside the log.
    pub(super) fn beside(&self) -> impl Iterator<Item = &Block> {
        self.side.values().map(|side| &side.block)
    }

    /// The blocks of the log, after the root.
    pub(super) fn logged(&self) -> impl Iterator<Item = &Block> {
        self.log.iter()
    }

    /// Takes back what [`Chain::cut`] gave, after a restart.
    pub(super) fn restore(&mut self, block: Block) {
        if !self.places.contains_key(&block.digest()) {
            self.side.insert(block.digest(), Side { block, was_logged: true });
        }
    }

    /// Drops everything before `keep_from`, whose predecessor becomes the root.
    pub(super) fn compact(&mut self, keep_from: LogIndex) {
        while self.log.front().is_some_and(|block| block.header().position.index < keep_from) {
            if let Some(block) = self.log.pop_front() {
                self.places.remove(&block.digest());
                (self.root, self.root_digest) = (*block.header(), block.digest());
            }
        }
    }

    /// Starts after another root. Blocks of the log that stand after it may have been voted for: they stay, beside
    /// the log, until a commit settles them.
    pub(super) fn restart(&mut self, root: Header) {
        let (log, side) = (std::mem::take(&mut self.log), std::mem::take(&mut self.side));
        *self = Self::new(root);
        self.side = side;
        self.prune(root.position.index);
        for block in log.into_iter().filter(|block| block.header().position.index > root.position.index) {
            self.make_room();
            self.side.insert(block.digest(), Side { block, was_logged: true });
        }
    }

    /// Learns which block the root is; what follows it stays only if it follows this one.
    pub(super) fn set_root(&mut self, root: Header) {
        let digest = root.digest();
        if self.log.front().is_some_and(|first| first.header().parent != digest) {
            return self.restart(root);
        }
        (self.root, self.root_digest) = (root, digest);
    }
}
