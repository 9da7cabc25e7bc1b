//! A group's state machine: applies committed entries to the component, the sessions and the timers.
//!
//! Relies on `runtime` to run components and to hold state. Promises that applying is a function of the
//! snapshot it started from and the entries since, and nothing else: the same on every replica. Knows no
//! consensus protocol, no disk and no client connection.
//!
//! ```text
//! entry --> sweep sessions --> fire due timers --> items in order --> outcomes, events
//!                                                  |
//!                                                  +-- commands run together in one instance,
//!                                                      cut only where the component is replaced
//! ```

use std::collections::BTreeMap;

use bytes::Bytes;
use quorate_crypto::{SetDigest, ValidatorSet, frame_content};
use quorate_runtime::{
    Applied, Component, EntryContext, Event, Frozen, Halt, Invocation, Origin, Space, State, StateView,
};
use quorate_types::codec::{DecodeError, Reader, Writer};
use quorate_types::{
    Batch, BatchItem, ClientKey, ClusterId, ComponentLimits, Digest, Entry, EntryKind, FrameContentError,
    GroupId, HlcTimestamp, LogIndex, Outcome, Rejection, Sequence, SessionId, read_frames,
};

use quorate_consensus::{SnapshotContent, SnapshotMark};

use crate::accused::Accused;
use crate::catalog;
use crate::sessions::{Admission, Sessions};
use crate::timers::Timers;

const META_KEY: &[u8] = b"m";
const CONTENT_DOMAIN: &str = "quorate 2026 snapshot content";

/// How often every replica takes the digest of its state, and a checkpoint with it; the same on all
/// replicas of a group, counted in the log itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DigestInterval {
    /// After this many entries, or
    pub entries: u32,
    /// after this many bytes of entry bodies, whichever comes first.
    pub bytes: u64,
}

impl Default for DigestInterval {
    /// Bounds the log that a restart replays to 64 MiB.
    fn default() -> Self {
        Self { entries: 16_384, bytes: 64 << 20 }
    }
}

/// What tells one group's machine from another's.
#[derive(Clone, Debug)]
pub struct MachineIdentity {
    /// The cluster.
    pub cluster: ClusterId,
    /// The group.
    pub group: GroupId,
    /// Its name in the catalog.
    pub name: String,
    /// When digests are taken.
    pub digest_interval: DigestInterval,
}

/// What runs the commands.
#[derive(Debug)]
enum Behaviour {
    /// Nothing yet: commands are refused.
    Empty,
    /// A component; loaded lazily after a restart.
    Component(Digest, Option<Component>),
    /// The catalog, native code of the node.
    Catalog,
}

/// Replicated facts about the group that are neither component state, session nor timer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Meta {
    component: Option<Digest>,
    /// Deployments carried out, failed ones included.
    deployments: u64,
    schema_version: u32,
    /// Since the last digest.
    entries: u32,
    /// Since the last digest.
    bytes: u64,
}

/// Why an entry cannot be applied here and now; nothing of it was applied.
#[derive(Debug, thiserror::Error)]
pub enum ApplyStop {
    /// This component's code is needed first.
    #[error("component {} is not here yet", .0.short())]
    NeedsComponent(Digest),
    /// Applying cannot go on at this replica.
    #[error("apply halted: {0}")]
    Halted(String),
}

/// What applying one entry gave.
#[derive(Debug, Default)]
pub struct AppliedEntry {
    /// One for each item of the batch, or of the frames in their order.
    pub outcomes: Vec<Outcome>,
    /// The clients' frames of the entry: what names each, and how many items it has.
    pub frames: Vec<(Digest, usize)>,
    /// The entry's stamp.
    pub stamp: HlcTimestamp,
    /// In order of emission.
    pub events: Vec<Event>,
    /// Every replica takes the state's digest after this entry.
    pub digest_due: bool,
    /// The component that is in force from here on, if this entry replaced it.
    pub activated: Option<Digest>,
}

/// What an entry orders, item by item.
#[derive(Default)]
struct Ordered {
    batch: Batch,
    /// As [`AppliedEntry::frames`]; empty for a batch.
    frames: Vec<(Digest, usize)>,
    /// Who signed each item; empty for a batch.
    owners: Vec<ClientKey>,
}

impl Ordered {
    fn read(entry: &Entry) -> Result<Self, FrameContentError> {
        let body = entry.body.clone();
        match entry.kind {
            EntryKind::Empty | EntryKind::Stop => Ok(Self::default()),
            EntryKind::Batch => Ok(Self { batch: Batch::decode(body)?, ..Self::default() }),
            EntryKind::Frames => {
                let mut ordered = Self::default();
                for (frame, mut batch) in read_frames(body)? {
                    let count = batch.items.len();
                    ordered.frames.push((frame_content(&frame), count));
                    ordered.owners.resize(ordered.owners.len() + count, frame.key);
                    ordered.batch.items.append(&mut batch.items);
                }
                Ok(ordered)
            }
        }
    }
}

/// The commands of one entry that run together.
#[derive(Default)]
struct Run {
    invocations: Vec<Invocation>,
    /// For each invocation the item it came from; `None` for timers.
    items: Vec<Option<(usize, SessionId, Sequence)>>,
}

/// One group's state machine.
#[derive(Debug)]
pub struct Machine {
    identity: MachineIdentity,
    state: State,
    sessions: Sessions,
    timers: Timers,
    accused: Accused,
    behaviour: Behaviour,
    meta: Meta,
    mark: SnapshotMark,
}

impl Machine {
    /// The machine of a new group, before its first entry.
    #[must_use]
    pub fn new(identity: MachineIdentity, mark: SnapshotMark) -> Self {
        let behaviour =
            if identity.group == GroupId::CATALOG { Behaviour::Catalog } else { Behaviour::Empty };
        Self {
            identity,
            state: State::new(),
            sessions: Sessions::default(),
            timers: Timers::default(),
            accused: Accused::default(),
            behaviour,
            meta: Meta::default(),
            mark,
        }
    }

    /// The machine whose state a snapshot at `mark` holds.
    ///
    /// # Errors
    ///
    /// [`DecodeError`] when the host's part of the state cannot be read.
    pub fn load(identity: MachineIdentity, mark: SnapshotMark, state: State) -> Result<Self, DecodeError> {
        let meta = match state.get(Space::Host, META_KEY) {
            Some(value) => Meta::decode(value.clone())?,
            None => Meta::default(),
        };
        let behaviour = match meta.component {
            _ if identity.group == GroupId::CATALOG => Behaviour::Catalog,
            Some(digest) => Behaviour::Component(digest, None),
            None => Behaviour::Empty,
        };
        let sessions = Sessions::load(&state)?;
        let timers = Timers::load(&state)?;
        let accused = Accused::load(&state)?;
        Ok(Self { identity, state, sessions, timers, accused, behaviour, meta, mark })
    }

    /// The group.
    #[must_use]
    pub fn group(&self) -> GroupId {
        self.identity.group
    }

    /// Which group's machine this is.
    #[must_use]
    pub fn identity(&self) -> &MachineIdentity {
        &self.identity
    }

    /// The last applied entry, its stamp, and the configuration in force after it.
    #[must_use]
    pub fn mark(&self) -> &SnapshotMark {
        &self.mark
    }

    /// The last applied index.
    #[must_use]
    pub fn applied(&self) -> LogIndex {
        self.mark.position.index
    }

    /// The component in force.
    #[must_use]
    pub fn component(&self) -> Option<Digest> {
        self.meta.component
    }

    /// How many deployments were carried out, failed ones included.
    #[must_use]
    pub fn deployments(&self) -> u64 {
        self.meta.deployments
    }

    /// How many sessions are open.
    #[must_use]
    pub fn sessions(&self) -> usize {
        self.sessions.len()
    }

    /// Members of whom the log proves that they lied.
    #[must_use]
    pub fn accused(&self) -> &Accused {
        &self.accused
    }

    /// When the next timer is due.
    #[must_use]
    pub fn next_timer(&self) -> Option<HlcTimestamp> {
        self.timers.next_due()
    }

    /// Applies the next entry.
    ///
    /// # Errors
    ///
    /// [`ApplyStop`]: with [`ApplyStop::NeedsComponent`], again once it is there; with
    /// [`ApplyStop::Halted`], never again on this machine.
    ///
    /// # Panics
    ///
    /// If the entry does not follow the last applied one, which the consensus interface promises.
    pub fn apply(
        &mut self,
        entry: &Entry,
        components: &BTreeMap<Digest, Component>,
    ) -> Result<AppliedEntry, ApplyStop> {
        assert_eq!(entry.index(), self.applied().next(), "entries are delivered once and in order");
        let ordered = match Ordered::read(entry) {
            Ok(ordered) => ordered,
            // A leader that lies may propose anything; what nobody can read has no meaning for anybody.
            Err(_) if self.mark.config.is_signed() => Ordered::default(),
            Err(error) => {
                let why = format!("entry {} cannot be read: {error}", entry.position);
                return Err(ApplyStop::Halted(why));
            }
        };
        self.require_components(&ordered.batch, components)?;
        let Ordered { batch, frames, owners } = ordered;
        let mut applied = AppliedEntry {
            outcomes: vec![Outcome::Done(Bytes::new()); batch.items.len()],
            frames,
            stamp: entry.hlc,
            ..AppliedEntry::default()
        };
        self.sessions.sweep(entry.index(), entry.hlc);
        let mut run = Run::default();
        for (id, body) in self.timers.take_due(entry.hlc) {
            run.invocations.push(Invocation { origin: Origin::Timer(id), name: "timer".to_owned(), body });
            run.items.push(None);
        }
        let mut repeats = Vec::new();
        for (item, what) in batch.items.into_iter().enumerate() {
            let owner = owners.get(item).copied();
            match what {
                BatchItem::Command(command) => {
                    let (session, sequence) = (command.session, command.sequence);
                    let below = command.acknowledged_below;
                    match self.sessions.admit(session, owner, entry.hlc, sequence, below, item) {
                        Admission::New => {
                            let origin = Origin::Session(session, sequence);
                            run.invocations.push(Invocation {
                                origin,
                                name: command.name,
                                body: command.body,
                            });
                            run.items.push(Some((item, session, sequence)));
                        }
                        Admission::Known(outcome) => applied.outcomes[item] = outcome,
                        Admission::SameAs(first) => repeats.push((item, first)),
                        Admission::Refused(rejection) => {
                            applied.outcomes[item] = Outcome::Rejected(rejection)
                        }
                    }
                }
                BatchItem::OpenSession { client, ttl_ms } => {
                    let opened = self.sessions.open(entry.index(), item, entry.hlc, owner, client, ttl_ms);
                    applied.outcomes[item] = match opened {
                        Ok(session) => Outcome::Done(Bytes::copy_from_slice(&session.0.to_le_bytes())),
                        Err(rejection) => Outcome::Rejected(rejection),
                    };
                }
                BatchItem::KeepSession(session) => {
                    if let Err(rejection) = self.sessions.touch(session, owner, entry.hlc) {
                        applied.outcomes[item] = Outcome::Rejected(rejection);
                    }
                }
                BatchItem::CloseSession(session) => {
                    if let Err(rejection) = self.sessions.close(session, owner) {
                        applied.outcomes[item] = Outcome::Rejected(rejection);
                    }
                }
                BatchItem::Activate { component, parameters, after } => {
                    self.run(entry, std::mem::take(&mut run), &mut applied)?;
                    let code = &components[&component];
                    applied.outcomes[item] = match self.settled_deployment(component, after) {
                        Some(outcome) => outcome,
                        None => self.activate(entry, code, &parameters, &mut applied)?,
                    };
                }
                BatchItem::Tick => {}
                BatchItem::Checkpoint => applied.digest_due = true,
                BatchItem::Evidence(bytes) => {
                    if let Err(rejection) = self.note_evidence(entry.index(), bytes) {
                        applied.outcomes[item] = Outcome::Rejected(rejection);
                    }
                }
            }
        }
        self.run(entry, run, &mut applied)?;
        for (item, first) in repeats {
            applied.outcomes[item] = applied.outcomes[first].clone();
        }
        self.advance(entry, &mut applied);
        Ok(applied)
    }

    /// A query against the state as it is now, to be run wherever there is time.
    #[must_use]
    pub fn query(&self, name: String, body: Bytes) -> QueryJob {
        let code = match &self.behaviour {
            Behaviour::Empty | Behaviour::Component(_, None) => QueryCode::None,
            Behaviour::Component(_, Some(component)) => QueryCode::Component(component.clone()),
            Behaviour::Catalog => QueryCode::Catalog,
        };
        QueryJob {
            code,
            view: self.state.view(),
            index: self.applied(),
            stamp: self.mark.hlc,
            limits: self.mark.config.limits,
            name,
            body,
        }
    }

    /// Loads the component in force, so that queries can be answered before the next entry.
    pub fn provide(&mut self, component: &Component) {
        if let Behaviour::Component(digest, code @ None) = &mut self.behaviour
            && *digest == component.digest()
        {
            *code = Some(component.clone());
        }
    }

    /// The component in force whose code is not loaded.
    #[must_use]
    pub fn missing_component(&self) -> Option<Digest> {
        match &self.behaviour {
            Behaviour::Component(digest, None) => Some(*digest),
            _ => None,
        }
    }

    /// Everything that changed since the last call, and all of the state, for a checkpoint. The pause
    /// does not depend on the size of the state.
    pub fn freeze(&mut self) -> Frozen {
        self.store_host_part();
        self.state.freeze()
    }

    /// The state as of now, for a peer that needs a snapshot.
    pub fn snapshot(&mut self) -> (SnapshotMark, StateView) {
        self.store_host_part();
        (self.mark.clone(), self.state.view())
    }

    /// The state as it is now, for readers inside the node.
    #[must_use]
    pub fn view(&self) -> StateView {
        self.state.view()
    }

    fn note_evidence(&mut self, index: LogIndex, bytes: Bytes) -> Result<(), Rejection> {
        let MachineIdentity { cluster, group, .. } = self.identity;
        let set = ValidatorSet::of_epoch(cluster, group, &self.mark.config).map_err(|fault| Rejection {
            code: Rejection::EVIDENCE_REFUSED,
            name: "evidence-refused".to_owned(),
            message: format!("this group signs nothing: {fault}"),
        })?;
        self.accused.note(&mut self.state, index, bytes, &set)
    }

    fn store_host_part(&mut self) {
        self.sessions.store(&mut self.state);
        self.timers.store(&mut self.state);
        self.state.put(Space::Host, Bytes::from_static(META_KEY), self.meta.encode());
    }

    /// Makes sure that all code this entry needs is here, before anything of it is applied.
    fn require_components(
        &mut self,
        batch: &Batch,
        components: &BTreeMap<Digest, Component>,
    ) -> Result<(), ApplyStop> {
        if let Behaviour::Component(digest, code @ None) = &mut self.behaviour {
            let loaded = components.get(digest).ok_or(ApplyStop::NeedsComponent(*digest))?;
            *code = Some(loaded.clone());
        }
        for item in &batch.items {
            if let BatchItem::Activate { component, .. } = item
                && !components.contains_key(component)
            {
                return Err(ApplyStop::NeedsComponent(*component));
            }
        }
        Ok(())
    }

    /// Runs the gathered commands in one instance and keeps their outcomes.
    fn run(&mut self, entry: &Entry, run: Run, applied: &mut AppliedEntry) -> Result<(), ApplyStop> {
        if run.invocations.is_empty() {
            return Ok(());
        }
        let context = self.context(entry);
        let limits = self.mark.config.limits;
        let result = match &self.behaviour {
            Behaviour::Empty | Behaviour::Component(_, None) => refuse_all(&run.invocations),
            Behaviour::Component(_, Some(component)) => component
                .apply(&mut self.state, &context, &run.invocations, &limits)
                .map_err(|halt| halted(entry, &halt))?,
            Behaviour::Catalog => {
                catalog::apply(&mut self.state, self.identity.cluster, &context, &run.invocations)
            }
        };
        let Applied { outcomes, events, timers, .. } = result;
        assert_eq!(outcomes.len(), run.items.len(), "one outcome for each invocation");
        for (outcome, item) in outcomes.into_iter().zip(run.items) {
            if let Some((item, session, sequence)) = item {
                self.sessions.record(session, sequence, outcome.clone());
                applied.outcomes[item] = outcome;
            }
        }
        applied.events.extend(events);
        timers.into_iter().for_each(|change| self.timers.change(change));
        Ok(())
    }

    /// What becomes of a deployment that is not the next one: one that took effect is repeated without effect, and
    /// what another one overtook is refused. Otherwise a signed deployment could be ordered again at any time.
    fn settled_deployment(&self, component: Digest, after: Option<u64>) -> Option<Outcome> {
        let (after, done) = (after?, self.meta.deployments);
        if after == done {
            return None;
        }
        if after.checked_add(1) == Some(done) && self.meta.component == Some(component) {
            return Some(Outcome::Done(Bytes::new()));
        }
        let in_force = match &self.meta.component {
            Some(digest) => format!("component {} is in force", digest.short()),
            None => "no component is in force".to_owned(),
        };
        Some(Outcome::Rejected(Rejection {
            code: Rejection::DEPLOYMENT_SUPERSEDED,
            name: "deployment-superseded".to_owned(),
            message: format!(
                "the deployment was signed to follow {after} others and the group carried out {done}; {in_force}: \
                 look whether that is what you want, and deploy anew if not"
            ),
        }))
    }

    /// Puts a component in force: `init` for the group's first, `migrate` for another layout.
    fn activate(
        &mut self,
        entry: &Entry,
        component: &Component,
        parameters: &Bytes,
        applied: &mut AppliedEntry,
    ) -> Result<Outcome, ApplyStop> {
        if self.identity.group == GroupId::CATALOG {
            return Ok(activation_failed("the catalog is part of the node and takes no component"));
        }
        self.meta.deployments += 1;
        let context = self.context(entry);
        let limits: ComponentLimits = self.mark.config.limits;
        let schema_version = component.descriptor().schema_version;
        let prepared = match self.meta.component {
            None => component.init(&mut self.state, &context, parameters, &limits),
            Some(_) if self.meta.schema_version == schema_version => Ok(Ok(Applied::default())),
            Some(_) => component.migrate(&mut self.state, &context, self.meta.schema_version, &limits),
        };
        let prepared = match prepared.map_err(|halt| halted(entry, &halt))? {
            Ok(prepared) => prepared,
            Err(refused) => return Ok(activation_failed(&format!("{}: {}", refused.name, refused.message))),
        };
        self.meta.component = Some(component.digest());
        self.meta.schema_version = schema_version;
        self.behaviour = Behaviour::Component(component.digest(), Some(component.clone()));
        applied.activated = Some(component.digest());
        applied.events.extend(prepared.events);
        prepared.timers.into_iter().for_each(|change| self.timers.change(change));
        Ok(Outcome::Done(Bytes::new()))
    }

    fn advance(&mut self, entry: &Entry, applied: &mut AppliedEntry) {
        self.mark.position = entry.position;
        self.mark.hlc = entry.hlc;
        self.meta.entries += 1;
        self.meta.bytes += entry.body.len() as u64;
        let interval = self.identity.digest_interval;
        applied.digest_due |= self.meta.entries >= interval.entries || self.meta.bytes >= interval.bytes;
        if applied.digest_due {
            self.meta.entries = 0;
            self.meta.bytes = 0;
        }
    }

    fn context(&self, entry: &Entry) -> EntryContext {
        let mut seed = Writer::with_capacity(32);
        seed.raw(&self.identity.cluster.0);
        seed.u64(self.identity.group.0);
        seed.u64(entry.index().0);
        let seed = quorate_crypto::digest("quorate 2026 entry seed", &seed.finish());
        let half = |at: usize| u64::from_le_bytes(seed.0[at..at + 8].try_into().expect("eight of 32 bytes"));
        EntryContext {
            group: self.identity.name.clone(),
            epoch: entry.position.epoch,
            index: entry.index(),
            hlc: entry.hlc,
            seed: (half(0), half(8)),
            schema_version: self.meta.schema_version,
        }
    }
}

fn refuse_all(invocations: &[Invocation]) -> Applied {
    let refused = Outcome::Rejected(Rejection {
        code: Rejection::NO_COMPONENT,
        name: "no-component".to_owned(),
        message: "no component is active in this group; deploy one first".to_owned(),
    });
    Applied { outcomes: vec![refused; invocations.len()], ..Applied::default() }
}

fn activation_failed(why: &str) -> Outcome {
    Outcome::Rejected(Rejection {
        code: Rejection::ACTIVATION_FAILED,
        name: "activation-failed".to_owned(),
        message: format!("the component was not activated, the old one and its state stay: {why}"),
    })
}

fn halted(entry: &Entry, halt: &Halt) -> ApplyStop {
    ApplyStop::Halted(format!("entry {}: {halt}", entry.position))
}

impl Meta {
    fn encode(&self) -> Bytes {
        let mut out = Writer::with_capacity(64);
        match &self.component {
            Some(digest) => {
                out.u8(1);
                out.raw(&digest.0);
            }
            None => out.u8(0),
        }
        out.u32(self.schema_version);
        out.u32(self.entries);
        out.u64(self.bytes);
        out.u64(self.deployments);
        out.finish()
    }

    fn decode(value: Bytes) -> Result<Self, DecodeError> {
        let mut from = Reader::new(value);
        let component = match from.flag("meta component")? {
            true => Some(Digest(from.array("meta component")?)),
            false => None,
        };
        let meta = Self {
            component,
            schema_version: from.u32("meta schema version")?,
            entries: from.u32("meta entries")?,
            bytes: from.u64("meta bytes")?,
            deployments: from.u64("meta deployments")?,
        };
        from.end()?;
        Ok(meta)
    }
}

enum QueryCode {
    None,
    Component(Component),
    Catalog,
}

/// A query that holds all it needs, to be run beside consensus.
pub struct QueryJob {
    code: QueryCode,
    view: StateView,
    index: LogIndex,
    stamp: HlcTimestamp,
    limits: ComponentLimits,
    name: String,
    body: Bytes,
}

impl std::fmt::Debug for QueryJob {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "QueryJob({:?} at {})", self.name, self.index)
    }
}

/// The answer to a query.
#[derive(Clone, Debug)]
pub struct QueryAnswer {
    /// What the component said.
    pub outcome: Outcome,
    /// The state that was read.
    pub index: LogIndex,
    /// That state's stamp.
    pub stamp: HlcTimestamp,
}

impl QueryJob {
    /// Runs the query.
    ///
    /// # Errors
    ///
    /// The reason, when this replica cannot run it though others may.
    pub fn run(self) -> Result<QueryAnswer, String> {
        let answer = match &self.code {
            QueryCode::None => {
                let refused = refuse_all(&[Invocation {
                    origin: Origin::System,
                    name: String::new(),
                    body: Bytes::new(),
                }]);
                let outcome = refused.outcomes.into_iter().next().expect("one outcome for one invocation");
                return Ok(QueryAnswer { outcome, index: self.index, stamp: self.stamp });
            }
            QueryCode::Component(component) => component
                .query(&self.view, self.index, &self.name, &self.body, &self.limits)
                .map_err(|halt| halt.to_string())?,
            QueryCode::Catalog => catalog::query(&self.view, &self.name, &self.body),
        };
        let outcome = match answer {
            Ok(body) => Outcome::Done(body),
            Err(rejection) => Outcome::Rejected(rejection),
        };
        Ok(QueryAnswer { outcome, index: self.index, stamp: self.stamp })
    }
}

/// The stored header of a checkpoint: what it stands for and the running set digest of its pairs.
#[derive(Clone, Debug)]
pub struct CheckpointHeader {
    /// What the checkpoint includes.
    pub mark: SnapshotMark,
    /// Of all pairs.
    pub set_digest: SetDigest,
}

impl CheckpointHeader {
    /// What a snapshot with this header holds, given the bytes of all its keys and values.
    #[must_use]
    pub fn content(&self, bytes: u64) -> SnapshotContent {
        let mut out = Writer::with_capacity(256);
        encode_mark(&self.mark, &mut out);
        out.raw(&self.set_digest.digest().0);
        SnapshotContent { digest: quorate_crypto::digest(CONTENT_DOMAIN, out.as_slice()), bytes }
    }

    /// The stored form.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        let mut out = Writer::with_capacity(SetDigest::BYTES + 256);
        encode_mark(&self.mark, &mut out);
        out.bytes(&self.set_digest.to_bytes());
        out.finish()
    }

    /// Reads the stored form.
    ///
    /// # Errors
    ///
    /// [`DecodeError`] for anything else.
    pub fn decode(bytes: Bytes) -> Result<Self, DecodeError> {
        let mut from = Reader::new(bytes);
        let mark = decode_mark(&mut from)?;
        let sum = from.bytes(SetDigest::BYTES, "set digest")?;
        let set_digest = SetDigest::from_bytes(&sum).ok_or(DecodeError::Truncated {
            what: "set digest",
            needed: SetDigest::BYTES,
            left: sum.len(),
        })?;
        from.end()?;
        Ok(Self { mark, set_digest })
    }
}

/// Appends a mark.
pub fn encode_mark(mark: &SnapshotMark, out: &mut Writer) {
    mark.position.encode(out);
    out.u64(mark.hlc.0);
    mark.config.encode(out);
}

/// Reads what [`encode_mark`] wrote.
///
/// # Errors
///
/// [`DecodeError`] for anything else.
pub fn decode_mark(from: &mut Reader) -> Result<SnapshotMark, DecodeError> {
    Ok(SnapshotMark {
        position: quorate_types::Position::decode(from)?,
        hlc: HlcTimestamp(from.u64("mark stamp")?),
        config: quorate_types::EpochConfig::decode(from)?,
    })
}
