//! HotStuff (Yin et al. 2019) with two-chain commits and timeout certificates (Gelashvili et al. 2021,
//! "Jolteon"; Malkhi and Nayak 2023, "HotStuff-2"), one replica as a pure machine.
//!
//! Relies on the words of the interface (`Input`, `Effects`), on messages whose signatures were verified, and
//! on a [`Certifier`] for the certificates inside them. Promises agreement with up to f of n >= 3f + 1
//! replicas lying, for any order, loss or repetition of messages and for a crash at any point, as long as what
//! was persisted stays. Knows no clock, no disk and no network, and nothing of what commands mean.
//!
//! # The protocol
//!
//! Time is cut into *views*. In each a leader may propose one *block*, which extends a certified one. Replicas
//! vote once a view; a quorum's votes are the block's *certificate*, collected by the leader of the next view,
//! whose block carries it. So each block carries the certificate of the one before, and one round of messages
//! serves every block under way:
//!
//! ```text
//!   view        1           2           3
//!            +-----+ votes +-----+ votes +-----+
//!  genesis <-| b1  |<------| b2  |<------| b3  |      b3 shows b2 certified, b2 shows b1 certified, and their
//!            +-----+  QC1  +-----+  QC2  +-----+      views are consecutive: b1 is committed
//! ```
//!
//! A replica *votes* if the view is above every one it voted in or gave up, and the block extends the
//! certificate of the view before, or comes with a timeout certificate of the view before and extends a
//! certificate at least as high as every one that a signer of it knew. Two certified blocks of consecutive
//! views *commit* the first: whoever certified the second knew the first's certificate, and one of them is
//! in every quorum that gives up a later view.
//!
//! A replica that waits for something and sees no progress *gives up* its view: it signs the view together
//! with the view of its highest certificate, and sends both to all. f + 1 such messages make others join; a
//! quorum of them is a *timeout certificate*, which opens the next view to another leader. Waiting times
//! double with each view given up, to a bound, and only a commit resets them. Messages for a view carry the
//! certificates that open it, so whoever receives one catches up with it; whoever is heard giving up a view
//! that is past is sent the certificates that show it.
//!
//! *Leaders* are stable: the leader of a view is that of the block it extends, unless a timeout lies between
//! them or the tenure has lasted K views. A tenure's leader follows from its first view alone, and its first
//! view from the chain, so all agree.
//!
//! When nothing waits, nothing is sent: a leader proposes if it has an entry, or an empty block if an entry
//! is not yet known by all to be committed; the empty one only with the next tick, which is due at once, so that
//! entries that gathered meanwhile go first. Then all are sent the last certificate, so that they rest at the same
//! commit. An entry or a request that waits ends the silence; a request at a replica that does not lead, or the
//! loss of the leader's node, starts its timer, and its timeout starts the others'. A leader that goes on and leaves
//! out what waits at others for long is refused by them: they give up each view of its tenure, which ends so if f + 1
//! of them do.
//!
//! # What is durable before what
//!
//! The log on disk is one branch of the block tree: the committed blocks and, after them, the blocks voted
//! for last. Each block is one entry, the empty ones too, at position (epoch, view, index); its index is its
//! height, and its digest is recomputed from the entries. A vote for a block of another branch turns the log
//! there; the blocks that it leaves are kept in the hard state until a commit settles them, so no block
//! this replica ever voted for is lost before one at its height is committed. The hard state holds, besides,
//! what was signed last, the highest certificate, the latest timeout certificate and how far the log is
//! committed. All of it goes out in one persist request, under whose token the vote, timeout or proposal
//! leaves. A vote of a leader for itself, too, counts only when its token is durable.
//!
//! After kill -9 at any point a replica therefore knows at least everything that it ever said. What it
//! knew and did not say (a certificate, a commit) it learns again.
//!
//! # Snapshots
//!
//! A replica that lacks blocks which nobody keeps is offered snapshots: at the blocks after which the log has every
//! replica take one, with the proof that the block is committed and with a digest of what the snapshot holds. It
//! believes f + 1 members that offer the same, one of whom is honest, and fetches the snapshot from one of them
//! after the other until what it received has that digest. It holds one offer of each member.
//!
//! # Restored backups
//!
//! A start is announced with its boot number, and nothing that binds is signed before a quorum recorded it
//! durably. A replica that recorded an equal or later start of the same member says so; f + 1 such answers
//! fence the replica, for it speaks from an older state than it spoke from before.
//!
//! # Deviations from the papers
//!
//! - The last certificate that committed something is kept beside the highest one, durably: the highest may commit
//!   nothing, and whoever needs a snapshot to vote again is shown that what it holds is committed.
//! - No dummy blocks and no genesis certificate: the first block extends a genesis that everyone computes.
//! - Tenures and silence are ours, as above. A view entered by a timeout has a leader by its number, even if
//!   some replica knows the certificate of the view before; such a replica expects the tenure's leader
//!   to go on and takes the block of either, which the rule of voting allows.
//! - Timeouts go to all, so a failed view costs n² messages; views with a working leader cost about 2n.
//! - Transfer of leadership is left to tenures. A replica that may not lead is passed over by a timeout.
//! - Membership does not change within an epoch.

mod admission;
mod block;
mod catchup;
mod chain;
#[cfg(any(test, feature = "planted"))]
pub mod cluster;
mod evidence;
mod footprint;
mod leadership;
mod message;
mod normal;
#[cfg(any(test, feature = "planted"))]
pub mod planted;
mod rules;
mod state;
mod step;
#[cfg(test)]
mod tests;
#[cfg(any(test, feature = "planted"))]
pub mod twins;
mod voter;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use quorate_crypto::{Certificate, Signature, Statement, TimeoutCertificate, ValidatorSet};
use quorate_types::{
    BootNumber, Digest, ENTRY_BYTES_MAX, Entry, EpochConfig, LogIndex, NodeId, Position, Term, Time, View,
};

pub use block::{Block, Header, Schedule};
pub use evidence::{Evidence, EvidenceError};
pub use footprint::Footprint;
pub use message::{Blocks, Body, HEADERS_MAX, Justify, Life, Message, Offer, Proposal, Timeout};
pub use rules::CommitRule;
pub use voter::{Certifier, Inline, Signer};

use crate::effects::{Promise, earlier};
use crate::{Now, ReadId, SnapshotContent, SnapshotMark, Start, StartError, Status, Timings, Token};
use catchup::{Fetching, Offered};
use chain::Chain;
use state::{HardState, Votes};
use voter::Voter;

/// Bytes of the bodies that wait for a block of their own; one may go beyond.
pub const QUEUED_BYTES_MAX: usize = 32 << 20;
/// How many bodies wait.
pub const QUEUED_MAX: usize = 1 << 10;
/// Reads that wait for confirmation.
pub const PENDING_READS_MAX: usize = 16 << 10;
/// Views beyond the current one whose votes are kept.
pub const FUTURE_VIEWS_MAX: u64 = 16;
/// Proposals whose parent is not here yet.
pub const ORPHANS_MAX: usize = 8;
/// The encoded entries of one answer; one entry may go beyond.
pub const BLOCKS_BYTES_MAX: usize = 1 << 20;
/// How many doublings the waiting time has at most.
pub const BACK_OFF_MAX: u32 = 6;
/// The certificate of one block of so many is kept for those who are behind.
const MILESTONE: u64 = 256;
/// K: for how many views a leader leads at least, if none is given up.
pub const TENURE_VIEWS: u64 = 1_000;

const _: () = assert!(ENTRY_BYTES_MAX <= QUEUED_BYTES_MAX);
const _: () = assert!(MILESTONE < HEADERS_MAX as u64, "a certificate is always near enough to be proved by");

/// What is fixed for an epoch beside its configuration; equal on all replicas.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// When blocks commit.
    pub commit_rule: CommitRule,
    /// K: for how many views a leader leads at least. 1 to 2^32.
    pub tenure_views: u64,
}

impl Default for Settings {
    fn default() -> Self {
        Self { commit_rule: CommitRule::TwoChain, tenure_views: TENURE_VIEWS }
    }
}

/// Who this replica is among the signers of its epoch.
#[derive(Clone, Debug)]
pub struct Identity {
    /// The voters of the epoch with their keys.
    pub set: Arc<ValidatorSet>,
    /// Signs as this replica.
    pub signer: Arc<dyn Signer>,
    /// Verifies certificates.
    pub certifier: Arc<dyn Certifier>,
    /// How often this replica was started; raised durably before each start.
    pub boot: BootNumber,
    /// Fixed for the epoch.
    pub settings: Settings,
}

/// What was dropped or refused since the start; for watchers only.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Messages of strangers, or that no honest replica would send.
    pub messages_ignored: u64,
    /// Certificates that do not hold.
    pub certificates_refused: u64,
    /// Messages of views too far ahead.
    pub views_ahead: u64,
    /// Blocks not voted for because their stamp lay too far ahead.
    pub stamps_refused: u64,
    /// Snapshots that did not come, or did not hold what f + 1 members vouch for.
    pub fetches_failed: u64,
    /// Views given up.
    pub timeouts: u64,
}

/// Where a missing block is looked for.
#[derive(Clone, Copy, Debug)]
struct Search {
    /// Asked again then.
    deadline: Time,
    /// How many were asked.
    attempts: usize,
}

/// A read that waits for a block proposed after it to be committed.
#[derive(Clone, Copy, Debug)]
struct PendingRead {
    id: ReadId,
    /// Where that block stands, once it is proposed.
    target: Option<Position>,
}

/// One replica of a HotStuff epoch.
///
/// Invariants, of which those about one step are checked after each, and break into a fence:
///
/// - What limits signatures only grows, and so do the view and the highest certificate's view.
/// - `root <= commit <= tip`.
/// - Each committed entry is delivered once and in order since the start.
/// - A fenced replica does nothing.
#[derive(Debug)]
pub struct HotStuff {
    node: NodeId,
    config: EpochConfig,
    set: Arc<ValidatorSet>,
    certifier: Arc<dyn Certifier>,
    schedule: Schedule,
    rule: CommitRule,
    timings: Timings,
    voter: Voter,
    chain: Chain,
    /// Whether the chain's root is known by its digest, or by its position alone.
    is_rooted: bool,
    /// The digest of the epoch's genesis; zeros where it is long past.
    genesis: Digest,
    /// The highest certificate known.
    high: Justify,
    /// The last certificate that committed something: later ones may commit nothing, and prove nothing to who is
    /// behind.
    committed_by: Justify,
    /// The latest timeout certificate known.
    timed_out: Option<TimeoutCertificate>,
    /// One above the higher of the two.
    view: View,
    /// Everything up to here is committed, and delivered.
    commit: LogIndex,
    /// What of it every replica can know that received the last proposal.
    announced: LogIndex,
    votes: Votes,
    /// Timeouts of the current view.
    timeouts: BTreeMap<NodeId, (Statement, quorate_crypto::TimeoutVote)>,
    /// The first proposal of each view from the current one on, by who made it.
    proposals: BTreeMap<(View, NodeId), (Statement, Signature)>,
    /// Proposals of the current view whose parent is not here yet.
    orphans: VecDeque<(NodeId, Message)>,
    /// Certificates kept for those who are behind.
    milestones: BTreeMap<LogIndex, Certificate>,
    /// Entries that wait for a block, and their bytes.
    queue: VecDeque<crate::Proposal>,
    queued_bytes: usize,
    reads: VecDeque<PendingRead>,
    /// Somebody waits for a sign of life in this view or a later one.
    is_woken: bool,
    /// When this view is given up, or that is said again.
    view_deadline: Option<Time>,
    /// When an empty block is proposed, or the last certificate told, unless an entry comes first.
    empty_deadline: Option<Time>,
    /// The view of the certificate that this replica told all, leading, when nothing was left to propose.
    rested: View,
    /// Views given up since the last commit.
    failures: u32,
    /// The tenure whose leader ignores what waits here: each of its views is given up.
    refused: Option<View>,
    search: Option<Search>,
    /// The last start of each member that was recorded.
    lives: BTreeMap<NodeId, Life>,
    life: Life,
    recorded_by: BTreeSet<NodeId>,
    stale_by: BTreeSet<NodeId>,
    /// When this start is announced again.
    boot_deadline: Option<Time>,
    /// What this replica promised itself.
    loopback: VecDeque<(Token, Promise)>,
    issued: Token,
    /// What was asked to be persisted last.
    persisted: Option<voter::Safety>,
    /// The latest snapshot that is durable here, its block, and what it holds.
    mark: SnapshotMark,
    mark_header: Option<Header>,
    content: Option<SnapshotContent>,
    /// Snapshots of what is not committed here, the last one that each member offered.
    offers: BTreeMap<NodeId, Offered>,
    fetching: Option<Fetching>,
    may_lead: bool,
    counters: Counters,
    status: Option<Status>,
    fenced: bool,
}

impl HotStuff {
    /// Starts on durable state. The first step should be a tick, which is due at once.
    ///
    /// # Errors
    ///
    /// [`StartError`] for a state that cannot be continued safely.
    pub fn start(start: Start, identity: Identity, now: Now) -> Result<Self, StartError> {
        let Start { group: _, node, seed, timings, base, content, hard_state, entries } = start;
        let Identity { set, signer, certifier, boot, settings } = identity;
        let config = base.config.clone();
        let schedule = Schedule::new(&config, settings.tenure_views);
        let hard = hard_state.map(|bytes| HardState::decode(bytes, config.epoch)).transpose()?;
        let is_first = base.position.epoch < config.epoch;
        let first = is_first.then(|| Header::genesis(&set, base.position, base.hlc));
        let stored_root = hard.as_ref().and_then(|hard| hard.root).or(first);
        let (chain, is_rooted) = recover_chain(&base, stored_root, entries, &schedule)?;
        let hard = hard.unwrap_or_else(|| HardState {
            epoch: config.epoch,
            safety: voter::Safety::default(),
            high: Justify::Genesis,
            committed_by: Justify::Genesis,
            timed_out: None,
            commit: LogIndex::ZERO,
            root: None,
            cut: Vec::new(),
            lives: BTreeMap::new(),
        });
        let commit = chain.root().position.index;
        let mark_header = is_rooted.then(|| *chain.root());
        let mut hotstuff = Self {
            node,
            voter: Voter::new(*set.scope(), signer, hard.safety),
            set,
            certifier,
            schedule,
            rule: settings.commit_rule,
            timings,
            genesis: first.map_or_else(Digest::default, |header| header.digest()),
            chain,
            is_rooted,
            high: hard.high,
            committed_by: hard.committed_by,
            timed_out: hard.timed_out,
            view: View(1),
            commit,
            announced: commit,
            votes: Votes::new(),
            timeouts: BTreeMap::new(),
            proposals: BTreeMap::new(),
            orphans: VecDeque::new(),
            milestones: BTreeMap::new(),
            queue: VecDeque::new(),
            queued_bytes: 0,
            reads: VecDeque::new(),
            is_woken: false,
            view_deadline: None,
            empty_deadline: None,
            rested: View::ZERO,
            failures: 0,
            refused: None,
            search: None,
            lives: hard.lives,
            life: Life { boot, nonce: seed },
            recorded_by: BTreeSet::new(),
            stale_by: BTreeSet::new(),
            boot_deadline: None,
            loopback: VecDeque::new(),
            issued: Token::default(),
            persisted: Some(hard.safety),
            mark: base,
            mark_header,
            content,
            offers: BTreeMap::new(),
            fetching: None,
            may_lead: true,
            counters: Counters::default(),
            status: None,
            fenced: false,
            config,
        };
        hotstuff.view = hotstuff.open_view();
        for block in hard.cut {
            hotstuff.chain.restore(block);
        }
        let known = hard.commit.min(hotstuff.chain.tip().position.index);
        hotstuff.boot_deadline = hotstuff.is_voter().then_some(now.time);
        hotstuff.search = Some(Search { deadline: now.time, attempts: 0 });
        hotstuff.announced = known;
        Ok(hotstuff)
    }

    /// When a tick is due next; `None` for a fenced replica and for one that waits for nothing.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Time> {
        if self.fenced {
            return None;
        }
        let search = self.search.map(|search| search.deadline);
        let own = earlier(self.view_deadline, self.empty_deadline);
        earlier(earlier(own, self.boot_deadline), search)
    }

    /// What was dropped or refused since the start.
    #[must_use]
    pub fn counters(&self) -> Counters {
        self.counters
    }

    /// The view this replica is in.
    #[must_use]
    pub fn view(&self) -> View {
        self.view
    }

    fn is_voter(&self) -> bool {
        self.set.member(self.node).is_some()
    }

    /// The view that the certificates known open.
    fn open_view(&self) -> View {
        let timed_out = self.timed_out.as_ref().map_or(View::ZERO, TimeoutCertificate::view);
        self.high.view().max(timed_out).next()
    }

    fn high_digest(&self) -> Digest {
        self.high.digest(self.genesis)
    }
}

/// The log as blocks, from the base on; whether the base's digest is known.
fn recover_chain(
    base: &SnapshotMark,
    stored_root: Option<Header>,
    mut entries: Vec<Entry>,
    schedule: &Schedule,
) -> Result<(Chain, bool), StartError> {
    let at_base = |entry: &Entry| entry.index() == base.position.index;
    if entries.iter().any(|entry| at_base(entry) && entry.position != base.position) {
        entries.clear();
    }
    let unknown = Header {
        parent: Digest::default(),
        tenure: View::ZERO,
        position: base.position,
        hlc: base.hlc,
        kind: quorate_types::EntryKind::Empty,
        body: Digest::default(),
    };
    let genesis_at = |root: &Header| root.position.term == Term::ZERO;
    let is_base = |root: &Header| {
        root.position.index == base.position.index && (root.position == base.position || genesis_at(root))
    };
    let Some(root) = stored_root.filter(|root| root.position.index <= base.position.index) else {
        return Ok((Chain::new(unknown), false));
    };
    // An older root leads to the base through entries that are still in the log.
    let mut chain = Chain::new(root);
    for entry in entries.into_iter().filter(|entry| entry.index() > root.position.index) {
        let expected = chain.tip().position.index.next();
        if entry.index() != expected {
            if entry.index() <= base.position.index.next() && expected <= base.position.index {
                return Ok((Chain::new(unknown), false));
            }
            return Err(StartError::Gap { expected, found: entry.index() });
        }
        if !rules::stands_after(chain.tip().position, chain.tip().hlc, entry.position, entry.hlc) {
            return Err(StartError::Disorder { index: entry.index() });
        }
        let block = Block::of_entry(chain.tip(), chain.tip_digest(), &entry, schedule);
        chain.push(block);
    }
    chain.compact(base.position.index.next());
    if is_base(chain.root()) { Ok((chain, true)) } else { Ok((Chain::new(unknown), false)) }
}

/// Where a genesis stands in positions of the rest of the system.
fn term_of(view: View) -> Term {
    Term(view.0)
}

fn position_of(config: &EpochConfig, view: View, index: LogIndex) -> Position {
    Position { epoch: config.epoch, term: term_of(view), index }
}
