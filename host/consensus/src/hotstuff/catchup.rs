//! Replicas that lack blocks, and the log behind everyone.
//!
//! Relies on the driver to make snapshots, to carry them, and to refuse those that do not hold what was named.
//! Promises that nothing is believed of a peer but what a certificate covers, and of f + 1 peers what all of them
//! say: blocks and snapshots come with headers that lead to a certificate, what a chain of headers commits is
//! decided by the same rule as everywhere, and what a snapshot holds is what f + 1 members offered alike. Knows
//! nothing of what that is.

use std::collections::BTreeSet;

use quorate_crypto::Certificate;
use quorate_types::{Entry, EntryKind, LogIndex, NodeId, Position, View};

use super::block::{Block, Header};
use super::message::{Blocks, Body, HEADERS_MAX, Justify, Offer};
use super::state::Turn;
use super::{BLOCKS_BYTES_MAX, HotStuff, Search, rules};
use crate::{SnapshotContent, SnapshotFetch, SnapshotMark};

/// Blocks as they were proved, before they are taken.
struct Proven {
    blocks: Vec<Block>,
    /// The last place that the certificate commits, if it commits any.
    commit: Option<LogIndex>,
}

/// What a member offered: a committed block, and what a snapshot there holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Offered {
    root: Header,
    content: SnapshotContent,
}

/// A snapshot that f + 1 members offered alike and that is being fetched from one of them.
#[derive(Debug)]
pub(super) struct Fetching {
    offered: Offered,
    /// Who offered it and was not asked yet.
    sources: BTreeSet<NodeId>,
    /// Who was asked, the last one with them: nobody is asked twice, however often it offers.
    asked: BTreeSet<NodeId>,
}

impl HotStuff {
    /// The first thing after a start: what was known to be committed is delivered again.
    pub(super) fn resume(&mut self, turn: &mut Turn) {
        if self.announced > self.commit {
            self.deliver_to(turn, self.announced);
        }
    }

    /// Whether a certified block is not here, or the log's root is not known.
    pub(super) fn is_missing_blocks(&self) -> bool {
        !self.is_rooted || self.chain.header(&self.high_digest()).is_none() || !self.orphans.is_empty()
    }

    /// Asks this peer, unless another one was asked just now.
    pub(super) fn look_for_blocks(&mut self, turn: &mut Turn, from: NodeId) {
        if self.search.is_some() || self.fetching.is_some() || from == self.node {
            return;
        }
        self.search = Some(Search { deadline: self.search_deadline(turn), attempts: 1 });
        self.request(turn, from);
    }

    /// Asks again, another peer each time; all of them once after a start, and while one offers a snapshot.
    pub(super) fn search_again(&mut self, turn: &mut Turn) {
        let peers: Vec<NodeId> = self.other_voters().collect();
        let attempts = self.search.map_or(0, |search| search.attempts);
        self.search = None;
        if attempts > 0 && (!self.is_missing_blocks() || self.fetching.is_some()) {
            return;
        } else if attempts == 0 || !self.offers.is_empty() {
            peers.iter().for_each(|peer| self.request(turn, *peer));
        } else if let Some(peer) = peers.get(attempts % peers.len().max(1)) {
            self.request(turn, *peer);
        }
        self.search = Some(Search { deadline: self.search_deadline(turn), attempts: attempts + 1 });
    }

    fn search_deadline(&self, turn: &Turn) -> quorate_types::Time {
        turn.now.time.after(self.timings.election_timeout)
    }

    fn request(&self, turn: &mut Turn, to: NodeId) {
        self.say(turn, to, Body::Request { after: self.commit, high: self.high.clone() });
    }

    pub(super) fn on_request(&mut self, turn: &mut Turn, from: NodeId, after: LogIndex, high: &Justify) {
        if high.view() > self.high.view() && !self.learn(turn, high) {
            self.counters.certificates_refused += 1;
            return;
        }
        if !self.is_rooted {
            return;
        }
        if after < self.chain.root().position.index {
            return self.offer_snapshot(turn, from);
        }
        match self.blocks_after(after, after.next(), BLOCKS_BYTES_MAX) {
            Some(blocks) => self.say(turn, from, Body::Blocks(Box::new(blocks))),
            None => self.show_view(turn, from),
        }
    }

    /// The blocks after a place of the log, and the headers that lead to the next certificate kept which commits
    /// that much: whoever is behind asks from its last commit on, and would be given the same again.
    fn blocks_after(&self, after: LogIndex, least: LogIndex, bytes_max: usize) -> Option<Blocks> {
        let commits = |certificate: &&Certificate| {
            let ancestry = self.chain.ancestry(certificate.statement().digest);
            rules::commits(self.rule, ancestry).is_some_and(|header| header.position.index >= least)
        };
        let kept = self.milestones.range(after.next()..).map(|(_, certificate)| certificate);
        let (last, high) = (self.committed_by.certificate(), self.high.certificate());
        let certificate = kept.chain(high).chain(last).find(commits).or(high)?;
        let mut path: Vec<Header> = Vec::new();
        let mut root = None;
        for header in self.chain.ancestry(certificate.statement().digest).take(HEADERS_MAX) {
            if header.position.index <= after {
                root = Some(*header).filter(|header| header.position.index == after);
                break;
            }
            path.push(*header);
        }
        let (root, mut bytes, mut entries) = (root?, 0, Vec::new());
        while let Some(header) = path.last() {
            let Some(block) = self.chain.block(&header.digest()) else { break };
            if bytes > 0 && bytes + block.body().len() + Entry::HEADER_BYTES > bytes_max {
                break;
            }
            bytes += block.body().len() + Entry::HEADER_BYTES;
            entries.push(block.entry());
            path.pop();
        }
        path.reverse();
        Some(Blocks { root, entries, headers: path, certificate: certificate.clone() })
    }

    fn offer_snapshot(&self, turn: &mut Turn, to: NodeId) {
        let Some(content) = self.content else { return };
        let Some(mut proof) = self.blocks_after(self.mark.position.index, self.mark.position.index, 0) else {
            return;
        };
        let bodies = proof.entries.drain(..).collect::<Vec<_>>();
        let mut headers = Vec::with_capacity(bodies.len() + proof.headers.len());
        let (mut parent, mut digest) = (proof.root, proof.root.digest());
        for entry in bodies {
            let block = Block::of_entry(&parent, digest, &entry, &self.schedule);
            (parent, digest) = (*block.header(), block.digest());
            headers.push(parent);
        }
        headers.append(&mut proof.headers);
        proof.headers = headers;
        self.say(turn, to, Body::Offer(Box::new(Offer { content, proof })));
    }

    /// Recomputes the chain from its root to its certificate; `None` for one that is not whole, or whose
    /// certificate does not hold.
    fn prove(&self, blocks: &Blocks) -> Option<Proven> {
        let mut headers = vec![blocks.root];
        let (mut parent, mut digest) = (blocks.root, blocks.root.digest());
        let mut bodies = Vec::with_capacity(blocks.entries.len());
        for entry in &blocks.entries {
            let stands = rules::stands_after(parent.position, parent.hlc, entry.position, entry.hlc);
            if !stands || !rules::is_kind_allowed(entry.kind) {
                return None;
            }
            let block = Block::of_entry(&parent, digest, entry, &self.schedule);
            (parent, digest) = (*block.header(), block.digest());
            headers.push(parent);
            bodies.push(block);
        }
        for header in &blocks.headers {
            let tenure = self.schedule.tenure(&parent, header.view());
            if !rules::follows(&parent, digest, header) || header.tenure != tenure {
                return None;
            }
            (parent, digest) = (*header, header.digest());
            headers.push(parent);
        }
        let statement = blocks.certificate.statement();
        let certified = statement.digest == digest
            && statement.view == parent.view()
            && statement.index == parent.position.index
            && self.holds(&blocks.certificate);
        #[cfg(any(test, feature = "planted"))]
        let certified =
            certified || super::planted::is_broken(super::planted::RuleBroken::BlocksAreCertified);
        let commit = rules::commits(self.rule, headers.iter().rev()).map(|header| header.position.index);
        certified.then_some(Proven { blocks: bodies, commit })
    }

    pub(super) fn on_blocks(&mut self, turn: &mut Turn, from: NodeId, blocks: Blocks) {
        let root = blocks.root;
        let is_root = root.position == self.chain.root().position && root.hlc == self.chain.root().hlc;
        let digest = root.digest();
        let is_known = self.is_rooted && self.chain.header(&digest).is_some();
        if !is_known && !is_root {
            return;
        }
        let Some(proven) = self.prove(&blocks) else {
            self.counters.certificates_refused += 1;
            return;
        };
        if !is_known {
            // Of a root only its place was known, at which a lying leader may have proposed a second block: the
            // one that a commit after it proves is the right one.
            if self.is_rooted {
                if proven.commit.is_none_or(|commit| commit < root.position.index) {
                    return;
                }
                turn.reset = Some(root.position);
            }
            self.chain.set_root(root);
            self.is_rooted = true;
            self.mark_header = Some(root);
            turn.must_persist = true;
        }
        let commit = proven.commit.unwrap_or(LogIndex::ZERO);
        let mut is_further = false;
        for block in proven.blocks {
            let (digest, index) = (block.digest(), block.header().position.index);
            is_further |= self.chain.header(&digest).is_none();
            if !self.chain.add(block) {
                break;
            }
            if index <= commit && index > self.commit {
                self.committed_by = Justify::Certified(Box::new(blocks.certificate.clone()));
                self.commit_to(turn, digest, index);
            }
        }
        self.take_certificate(turn, blocks.certificate);
        // An answer that brought nothing calls for no other at once: the search goes on in its own time, with
        // another peer.
        if is_further {
            self.search = None;
        }
        if self.is_missing_blocks() || self.commit < commit {
            self.look_for_blocks(turn, from);
        }
    }

    pub(super) fn on_offer(&mut self, turn: &mut Turn, from: NodeId, offer: Offer) {
        let Offer { content, proof } = offer;
        let (position, offered) = (proof.root.position, Offered { root: proof.root, content });
        if !proof.entries.is_empty() {
            self.counters.messages_ignored += 1;
            return;
        }
        if position.index <= self.commit {
            return;
        }
        if let Some(fetching) = &mut self.fetching {
            if fetching.offered == offered && !fetching.asked.contains(&from) {
                fetching.sources.insert(from);
            }
            return;
        }
        match self.prove(&proof) {
            Some(proven) if proven.commit.is_some_and(|commit| commit >= position.index) => {}
            _ => {
                self.counters.certificates_refused += 1;
                return;
            }
        }
        self.take_certificate(turn, proof.certificate);
        self.note_offer(turn, from, offered);
    }

    /// Takes an offer into account; what enough members offer alike is fetched.
    fn note_offer(&mut self, turn: &mut Turn, from: NodeId, offered: Offered) {
        self.offers.retain(|_, other| other.root.position.index > self.commit);
        let is_first = self.offers.is_empty();
        self.offers.insert(from, offered);
        let alike = self.offers.iter().filter(|(_, other)| **other == offered);
        let sources: BTreeSet<NodeId> = alike.map(|(node, _)| *node).collect();
        if self.is_vouched_for(sources.len()) {
            self.offers.clear();
            self.fetching = Some(Fetching { offered, sources, asked: BTreeSet::new() });
            self.fetch(turn);
        } else if is_first {
            let others = self.other_voters().filter(|node| *node != from);
            others.for_each(|peer| self.request(turn, peer));
        }
    }

    /// Whether what so many members say is believed.
    fn is_vouched_for(&self, count: usize) -> bool {
        #[cfg(any(test, feature = "planted"))]
        if super::planted::is_broken(super::planted::RuleBroken::OffersAreAlike) {
            return true;
        }
        rules::is_one_honest(count, self.set.faults())
    }

    /// Asks the next one who offered the snapshot; when nobody is left, all that is known may be out of date.
    fn fetch(&mut self, turn: &mut Turn) {
        let commit = self.commit;
        let wanted = self.fetching.as_mut().filter(|found| found.offered.root.position.index > commit);
        let next = wanted.and_then(|fetching| {
            let from = fetching.sources.pop_first()?;
            fetching.asked.insert(from);
            let Offered { root, content } = fetching.offered;
            let content = Some(content);
            #[cfg(any(test, feature = "planted"))]
            let content =
                content.filter(|_| !super::planted::is_broken(super::planted::RuleBroken::OffersAreAlike));
            Some(SnapshotFetch { from, position: root.position, content })
        });
        turn.effects.fetch = next;
        if next.is_none() {
            self.fetching = None;
            self.search = Some(Search { deadline: self.search_deadline(turn), attempts: 1 });
        }
    }

    /// The snapshot being fetched did not come, or was not what it has to be.
    pub(super) fn snapshot_failed(&mut self, turn: &mut Turn, position: Position) {
        if self.fetching.as_ref().is_some_and(|fetching| fetching.offered.root.position == position) {
            self.counters.fetches_failed += 1;
            self.fetch(turn);
        }
    }

    /// A fetched snapshot is durable and in force.
    pub(super) fn snapshot_installed(&mut self, turn: &mut Turn, mark: SnapshotMark) {
        let position = mark.position;
        let fetched = self.fetching.take().map(|fetching| fetching.offered);
        let fetched =
            fetched.filter(|Offered { root, .. }| root.position == position && root.hlc == mark.hlc);
        let root = fetched.map(|fetched| fetched.root);
        if mark.config.epoch != self.config.epoch {
            return turn.fence(format!("a snapshot of epoch {} was installed", mark.config.epoch));
        }
        if position.index <= self.commit && !self.chain.holds(position) {
            return turn.fence(format!("a snapshot at {position} was installed over another history"));
        }
        // A block at the same place is another one if a lying leader proposed two, unless it is committed.
        let is_same = position.index <= self.commit
            || root.is_some_and(|root| self.chain.header_at(position.index) == Some(&root));
        if is_same {
            self.chain.compact(position.index.next());
        } else {
            self.is_rooted = root.is_some();
            self.chain.restart(root.unwrap_or_else(|| unknown(&mark)));
            turn.reset = Some(position);
        }
        self.commit = self.commit.max(position.index);
        self.announced = self.commit;
        self.mark_header = self.is_rooted.then(|| *self.chain.root());
        self.milestones = self.milestones.split_off(&position.index);
        self.mark = mark;
        self.content = fetched.map(|fetched| fetched.content);
        turn.must_persist = true;
        self.search = Some(Search { deadline: turn.now.time, attempts: 1 });
    }

    /// A snapshot is durable here: the log before it may go.
    pub(super) fn compact(
        &mut self,
        turn: &mut Turn,
        mark: SnapshotMark,
        content: Option<SnapshotContent>,
        keep_from: LogIndex,
    ) {
        let position = mark.position;
        if position.index <= self.mark.position.index {
            return;
        }
        if position.index > self.commit {
            return turn
                .fence(format!("a snapshot at {position} includes more than committed {}", self.commit));
        }
        let Some(header) = self.chain.header_at(position.index).copied() else { return };
        if header.position != position {
            return turn.fence(format!("a snapshot at {position} is not of this log"));
        }
        self.mark_header = Some(header);
        (self.mark, self.content) = (mark, content);
        self.chain.compact(keep_from.min(position.index.next()));
        self.milestones = self.milestones.split_off(&self.chain.root().position.index);
        turn.must_persist = true;
    }
}

/// The root of a log whose base is known by its place alone: no certificate names its digest.
fn unknown(mark: &SnapshotMark) -> Header {
    Header {
        parent: quorate_types::Digest::default(),
        tenure: View::ZERO,
        position: mark.position,
        hlc: mark.hlc,
        kind: EntryKind::Empty,
        body: quorate_types::Digest::default(),
    }
}
