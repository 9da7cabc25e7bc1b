//! Moving a snapshot from one replica to another, piece by piece, pulled by the one that needs it.
//!
//! Relies on a request-and-response call between nodes. Promises that every piece is checked, that
//! pulling resumes where it stopped, that all pieces come from one state, and that where a group does not
//! believe one replica's word, nothing is kept of a state other than the one vouched for. Knows no socket:
//! whoever drives carries requests and responses.
//!
//! In a group that does not sign, a snapshot is the state as it is when its first piece is asked for. In a group
//! that signs it is the last checkpoint, which is taken where the log says so, and so equal on all replicas.

use bytes::Bytes;
use quorate_consensus::{Input, Now, SnapshotFetch, SnapshotMark};
use quorate_runtime::Space;
use quorate_types::codec::{DecodeError, Reader, Writer};
use quorate_types::{GroupId, LogIndex, NodeId, Position};

use super::Driver;
use super::backlog::Backlog;
use super::group::Served;
use super::io::{Failure, InstallDone, InstallJob, Output, Reply};
use crate::machine::{Machine, MachineIdentity, decode_mark, encode_mark};

/// How much of the state one piece holds, in bytes of keys and values; at least one pair.
pub const SNAPSHOT_CHUNK_BYTES: usize = 512 << 10;
/// The greatest key or value that a piece may hold, in bytes; session records are the largest.
const VALUE_BYTES_MAX: usize = 64 << 20;
const CHUNK_DOMAIN: &str = "quorate 2026 snapshot chunk";

/// Where in the state a piece starts: after this key.
type Cursor = Option<(Space, Bytes)>;

struct Request {
    group: GroupId,
    /// The snapshot must include at least this.
    at_least: Position,
    /// The snapshot that earlier pieces came from, or the only one wanted; zero for whichever there is.
    of: LogIndex,
    after: Cursor,
}

impl Request {
    fn encode(&self) -> Bytes {
        let mut out = Writer::with_capacity(64);
        out.u64(self.group.0);
        self.at_least.encode(&mut out);
        out.u64(self.of.0);
        encode_cursor(&self.after, &mut out);
        out.finish()
    }

    fn decode(bytes: Bytes) -> Result<Self, DecodeError> {
        let mut from = Reader::new(bytes);
        let group = GroupId(from.u64("snapshot group")?);
        let at_least = Position::decode(&mut from)?;
        let of = LogIndex(from.u64("snapshot index")?);
        let after = decode_cursor(&mut from)?;
        from.end()?;
        Ok(Self { group, at_least, of, after })
    }
}

fn encode_cursor(cursor: &Cursor, out: &mut Writer) {
    match cursor {
        None => out.u8(0),
        Some((space, key)) => {
            out.u8(1 + space_tag(*space));
            out.bytes(key);
        }
    }
}

fn decode_cursor(from: &mut Reader) -> Result<Cursor, DecodeError> {
    Ok(match from.u8("snapshot cursor")? {
        0 => None,
        tag => Some((space(tag - 1)?, from.bytes(VALUE_BYTES_MAX, "snapshot cursor")?)),
    })
}

fn space_tag(space: Space) -> u8 {
    match space {
        Space::User => 0,
        Space::Host => 1,
    }
}

fn space(tag: u8) -> Result<Space, DecodeError> {
    match tag {
        0 => Ok(Space::User),
        1 => Ok(Space::Host),
        other => Err(DecodeError::Unknown { what: "state space", value: other.into() }),
    }
}

struct Chunk {
    mark: SnapshotMark,
    pairs: Vec<(Space, Bytes, Bytes)>,
    last: bool,
}

impl Chunk {
    /// The encoded form: a digest of the rest, then the rest.
    fn encode(&self) -> Bytes {
        let mut out = Writer::with_capacity(SNAPSHOT_CHUNK_BYTES + 1_024);
        encode_mark(&self.mark, &mut out);
        out.u8(u8::from(self.last));
        out.u32(self.pairs.len() as u32);
        for (space, key, value) in &self.pairs {
            out.u8(space_tag(*space));
            out.bytes(key);
            out.bytes(value);
        }
        let content = out.finish();
        let mut whole = Writer::with_capacity(32 + content.len());
        whole.raw(&quorate_crypto::digest(CHUNK_DOMAIN, &content).0);
        whole.raw(&content);
        whole.finish()
    }

    fn decode(bytes: Bytes) -> Result<Self, DecodeError> {
        let mut from = Reader::new(bytes);
        let digest: [u8; 32] = from.array("snapshot checksum")?;
        let content = from.rest();
        if quorate_crypto::digest(CHUNK_DOMAIN, &content).0 != digest {
            return Err(DecodeError::Unknown { what: "snapshot checksum", value: u64::from(digest[0]) });
        }
        let mut from = Reader::new(content);
        let mark = decode_mark(&mut from)?;
        let last = from.flag("snapshot end")?;
        let count = from.count(u32::MAX as usize, "snapshot pairs")?;
        let mut pairs = Vec::with_capacity(count.min(from.left()));
        for _ in 0..count {
            let space = space(from.u8("snapshot space")?)?;
            let key = from.bytes(VALUE_BYTES_MAX, "snapshot key")?;
            let value = from.bytes(VALUE_BYTES_MAX, "snapshot value")?;
            pairs.push((space, key, value));
        }
        from.end()?;
        Ok(Self { mark, pairs, last })
    }
}

/// Pulls one snapshot.
#[derive(Debug)]
pub struct Puller {
    identity: MachineIdentity,
    fetch: SnapshotFetch,
    mark: Option<SnapshotMark>,
    pairs: Vec<(Space, Bytes, Bytes)>,
    /// Of the keys and values so far.
    bytes: u64,
}

/// What follows from a response.
#[derive(Debug)]
pub enum PullerStep {
    /// Ask for the next piece.
    More(Box<Puller>),
    /// All is here.
    Complete(Box<InstallJob>),
    /// The response cannot be used.
    Fault(SnapshotFault),
}

/// Why a snapshot that a member sent is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SnapshotFault {
    /// A piece is not what a replica sends, or its checksum is wrong.
    #[error("a piece of it cannot be read: {0}")]
    Malformed(#[from] DecodeError),
    /// Pieces came from more than one state.
    #[error("pieces of two snapshots were mixed")]
    Mixed,
    /// It includes less than was offered, or, where that is fixed, something else.
    #[error("it is at {found} and not at {wanted}")]
    Elsewhere {
        /// What was offered.
        wanted: Position,
        /// What came.
        found: Position,
    },
    /// Keys do not come in order, each once: a digest of pairs says nothing of one that comes twice.
    #[error("its pairs are not in order, each once")]
    Disorder,
    /// A piece before the last brings nothing.
    #[error("a piece of it is empty and not the last")]
    Empty,
    /// There is more of it than enough members vouch for.
    #[error("it holds more than the {bytes} bytes that members vouch for")]
    TooLarge {
        /// Of all keys and values, as vouched for.
        bytes: u64,
    },
    /// Its digest is not the one that enough members vouch for.
    #[error("it does not hold what members vouch for")]
    OtherContent,
}

impl Puller {
    /// Starts pulling what the driver asked for.
    #[must_use]
    pub fn new(identity: MachineIdentity, fetch: SnapshotFetch) -> Box<Self> {
        Box::new(Self { identity, fetch, mark: None, pairs: Vec::new(), bytes: 0 })
    }

    /// Whose snapshot it is.
    #[must_use]
    pub fn group(&self) -> GroupId {
        self.identity.group
    }

    /// The next request, the same again until it is answered.
    #[must_use]
    pub fn request(&self) -> Bytes {
        let wanted = self.fetch.content.map_or(LogIndex::ZERO, |_| self.fetch.position.index);
        Request {
            group: self.identity.group,
            at_least: self.fetch.position,
            of: self.mark.as_ref().map_or(wanted, |mark| mark.position.index),
            after: self.pairs.last().map(|(space, key, _)| (*space, key.clone())),
        }
        .encode()
    }

    /// Takes the response to the last request.
    #[must_use]
    pub fn take(mut self: Box<Self>, response: Bytes) -> PullerStep {
        match Chunk::decode(response).map_err(SnapshotFault::from).and_then(|chunk| self.note(chunk)) {
            Err(fault) => PullerStep::Fault(fault),
            Ok(None) => PullerStep::More(self),
            Ok(Some(mark)) => {
                let Self { identity, fetch, pairs, .. } = *self;
                PullerStep::Complete(Box::new(InstallJob { identity, fetch, mark, pairs }))
            }
        }
    }

    /// Takes a piece into account; with the last one, what the whole includes.
    fn note(&mut self, chunk: Chunk) -> Result<Option<SnapshotMark>, SnapshotFault> {
        let Chunk { mark, pairs, last } = chunk;
        let (wanted, found) = (self.fetch.position, mark.position);
        if self.mark.as_ref().is_some_and(|begun| *begun != mark) {
            return Err(SnapshotFault::Mixed);
        }
        if found.index < wanted.index || (self.fetch.content.is_some() && found != wanted) {
            return Err(SnapshotFault::Elsewhere { wanted, found });
        }
        if pairs.is_empty() && !last {
            return Err(SnapshotFault::Empty);
        }
        for (space, key, value) in pairs {
            if self.pairs.last().is_some_and(|(last, before, _)| (last, before) >= (&space, &key)) {
                return Err(SnapshotFault::Disorder);
            }
            self.bytes += (key.len() + value.len()) as u64;
            self.pairs.push((space, key, value));
        }
        if let Some(content) = self.fetch.content.filter(|content| self.bytes > content.bytes) {
            return Err(SnapshotFault::TooLarge { bytes: content.bytes });
        }
        if last {
            return Ok(Some(mark));
        }
        self.mark = Some(mark);
        Ok(None)
    }
}

impl<W> Driver<W> {
    /// Whose machine a snapshot of this group would replace.
    #[must_use]
    pub fn identity(&self, id: GroupId) -> Option<MachineIdentity> {
        self.groups.get(&id).map(|group| group.identity.clone())
    }

    pub(super) fn take_serve(&mut self, now: Now, request: Bytes, waiter: W, output: &mut Output<W>) {
        let reply = match Request::decode(request) {
            Ok(request) => self.serve(now, &request),
            Err(error) => Err(Failure::NoSnapshot(format!("the request cannot be read: {error}"))),
        };
        output.replies.push((
            waiter,
            match reply {
                Ok(chunk) => Reply::SnapshotChunk(chunk),
                Err(failure) => Reply::Failed(failure),
            },
        ));
    }

    fn serve(&mut self, now: Now, request: &Request) -> Result<Bytes, Failure> {
        let group = self.groups.get_mut(&request.group).ok_or(Failure::UnknownGroup)?;
        if let Some(why) = group.halted.as_ref().or(group.fenced.as_ref()) {
            return Err(Failure::NoSnapshot(why.clone()));
        }
        let at_least = request.at_least.index;
        let is_enough = |served: &Served| served.mark.position.index >= at_least;
        if request.of == LogIndex::ZERO
            && !group.config.is_signed()
            && !group.served.as_ref().is_some_and(is_enough)
        {
            let machine = group.machine.as_mut().ok_or(Failure::Overloaded)?;
            let (mark, view) = machine.snapshot();
            group.served = Some(Served { mark, view, used: now.time });
        }
        let kept = [&mut group.served, &mut group.checkpoint].into_iter().flatten().find(|served| {
            match request.of {
                LogIndex::ZERO => is_enough(served),
                of => served.mark.position.index == of,
            }
        });
        let Some(served) = kept else {
            let why = match request.of {
                LogIndex::ZERO => "this replica has not applied that much yet",
                _ => "it is no longer kept; start again",
            };
            return Err(Failure::NoSnapshot(why.to_owned()));
        };
        served.used = now.time;
        let mut pairs = Vec::new();
        let mut bytes = 0;
        let mut last = true;
        let after = request.after.as_ref().map(|(space, key)| (*space, &key[..]));
        for (space, key, value) in served.view.pairs_after(after) {
            bytes += key.len() + value.len();
            if !pairs.is_empty() && bytes > SNAPSHOT_CHUNK_BYTES {
                last = false;
                break;
            }
            pairs.push((space, key, value.clone()));
        }
        Ok(Chunk { mark: served.mark.clone(), pairs, last }.encode())
    }

    /// A snapshot may replace the state only if it is ahead of it and nothing else is writing it.
    pub(super) fn take_fetched(&mut self, now: Now, job: InstallJob, output: &mut Output<W>) {
        let id = job.group();
        let Some(group) = self.groups.get_mut(&id) else { return };
        let free = group.machine.is_some() && group.set_digest.is_some() && !group.installing;
        if free && job.position().index > group.applied {
            group.installing = true;
            output.installs.push(job);
        } else {
            self.step(now, id, Input::SnapshotFailed(job.position()), output);
        }
    }

    /// What a member sent is not what it has to be: nothing of it stays, and the member is told of.
    pub(super) fn take_refused(
        &mut self,
        now: Now,
        (id, position): (GroupId, Position),
        (from, fault): (NodeId, SnapshotFault),
        output: &mut Output<W>,
    ) {
        self.counters.snapshots_refused += 1;
        output.refused.push((id, from, fault));
        self.take_failed(now, id, position, output);
    }

    pub(super) fn take_failed(&mut self, now: Now, id: GroupId, position: Position, output: &mut Output<W>) {
        if let Some(group) = self.groups.get_mut(&id) {
            group.installing = false;
            self.step(now, id, Input::SnapshotFailed(position), output);
        }
    }

    pub(super) fn take_installed(&mut self, now: Now, done: InstallDone, output: &mut Output<W>) {
        let id = done.machine.group();
        let Some(group) = self.groups.get_mut(&id) else { return };
        let mark = done.machine.mark().clone();
        group.installing = false;
        group.apply_queue.retain(|entry| entry.index() > mark.position.index);
        group.checkpointed = mark.position.index;
        group.last_digest = Some((mark.position.index, done.set_digest.digest()));
        group.set_digest = Some(done.set_digest);
        group.machine = Some(done.machine);
        group.note_machine();
        group.backlog = Backlog::after(group.applied);
        output.skipped.push((id, group.applied));
        group.frames.refuse_all(&Failure::Skipped, output);
        if id == GroupId::CATALOG {
            output.catalog = group.machine.as_ref().map(Machine::view);
        }
        group.keep_checkpoint(now, mark.clone(), group.machine.as_ref().map(Machine::view));
        group.answer_confirmed(output);
        output.compact.push((id, mark.position.index));
        self.ready.insert(id);
        self.step(now, id, Input::SnapshotInstalled(mark), output);
    }
}

#[cfg(test)]
mod tests {
    use quorate_consensus::SnapshotContent;

    use super::*;

    fn mark() -> SnapshotMark {
        SnapshotMark {
            position: Position {
                epoch: quorate_types::Epoch(1),
                term: quorate_types::Term(2),
                index: LogIndex(9),
            },
            hlc: quorate_types::HlcTimestamp(5),
            config: crate::catalog::crash_group(&[NodeId(1)], Default::default()),
        }
    }

    fn puller() -> Box<Puller> {
        pulling(None)
    }

    fn pulling(content: Option<SnapshotContent>) -> Box<Puller> {
        let identity = MachineIdentity {
            cluster: quorate_types::ClusterId([0; 16]),
            group: GroupId(3),
            name: "kv".to_owned(),
            digest_interval: Default::default(),
        };
        let fetch = SnapshotFetch { from: NodeId(1), position: mark().position, content };
        Puller::new(identity, fetch)
    }

    fn chunk(key: &'static [u8], last: bool) -> Chunk {
        let pair = (Space::User, Bytes::from_static(key), Bytes::from_static(b"v"));
        Chunk { mark: mark(), pairs: vec![pair], last }
    }

    #[test]
    fn pieces_add_up_and_each_request_goes_on_where_the_last_piece_ended() {
        let PullerStep::More(puller) = puller().take(chunk(b"a", false).encode()) else {
            panic!("not the end")
        };
        let request = Request::decode(puller.request());
        assert!(matches!(request, Ok(Request { after: Some((Space::User, key)), .. }) if key == "a"));
        let PullerStep::Complete(job) = puller.take(chunk(b"b", true).encode()) else { panic!("the end") };
        assert_eq!(job.pairs.len(), 2);
        assert_eq!(job.position(), mark().position);
    }

    fn fault(puller: Box<Puller>, chunk: &Chunk) -> SnapshotFault {
        match puller.take(chunk.encode()) {
            PullerStep::Fault(fault) => fault,
            other => panic!("taken: {other:?}"),
        }
    }

    #[test]
    fn damaged_mixed_and_old_pieces_are_refused() {
        let mut bytes = chunk(b"a", true).encode().to_vec();
        let end = bytes.len() - 1;
        bytes[end] ^= 1;
        let malformed =
            |bytes| matches!(puller().take(bytes), PullerStep::Fault(SnapshotFault::Malformed(_)));
        assert!(malformed(Bytes::from(bytes)));
        assert!(malformed(Bytes::from_static(b"garbage")));
        let PullerStep::More(begun) = puller().take(chunk(b"a", false).encode()) else {
            panic!("not the end")
        };
        let mut other = chunk(b"b", true);
        other.mark.position.index = LogIndex(10);
        assert_eq!(fault(begun, &other), SnapshotFault::Mixed);
        let mut old = chunk(b"a", true);
        old.mark.position.index = LogIndex(8);
        assert!(matches!(fault(puller(), &old), SnapshotFault::Elsewhere { .. }));
    }

    /// What could go wrong: a pair sent 65,536 times adds nothing to the digest of all pairs, and a value sent
    /// twice is loaded as the later one.
    #[test]
    fn pairs_that_come_twice_or_out_of_order_are_refused_and_so_are_pieces_of_nothing() {
        for (first, second) in [(&b"a"[..], &b"a"[..]), (b"b", b"a")] {
            let pair = |key| (Space::User, Bytes::from_static(key), Bytes::from_static(b"v"));
            let within = Chunk { mark: mark(), pairs: vec![pair(first), pair(second)], last: true };
            assert_eq!(fault(puller(), &within), SnapshotFault::Disorder);
            let PullerStep::More(begun) = puller().take(chunk(first, false).encode()) else {
                panic!("not the end")
            };
            assert_eq!(fault(begun, &chunk(second, true)), SnapshotFault::Disorder, "in another piece");
        }
        let nothing = Chunk { mark: mark(), pairs: Vec::new(), last: false };
        assert_eq!(fault(puller(), &nothing), SnapshotFault::Empty);
    }

    #[test]
    fn what_members_vouch_for_is_taken_at_its_place_and_in_its_size_alone() {
        let content = |bytes| Some(SnapshotContent { digest: quorate_types::Digest([1; 32]), bytes });
        let request = Request::decode(pulling(content(2)).request());
        assert!(matches!(request, Ok(Request { of: LogIndex(9), .. })), "no other one is asked for");
        assert!(matches!(pulling(content(2)).take(chunk(b"a", true).encode()), PullerStep::Complete(_)));
        let one_byte_more = fault(pulling(content(1)), &chunk(b"a", false));
        assert_eq!(one_byte_more, SnapshotFault::TooLarge { bytes: 1 });
        let mut later = chunk(b"a", true);
        later.mark.position.index = LogIndex(10);
        assert!(matches!(fault(pulling(content(2)), &later), SnapshotFault::Elsewhere { .. }));
        assert!(
            matches!(puller().take(later.encode()), PullerStep::Complete(_)),
            "where one member is believed"
        );
    }

    #[test]
    fn a_snapshot_is_installed_only_if_all_of_it_is_what_members_vouch_for() {
        let identity = quorate_storage::Identity {
            cluster: quorate_types::ClusterId([0; 16]),
            node: NodeId(1),
            incarnation: quorate_types::Incarnation(1),
        };
        let store = quorate_storage::Store::open_on(&quorate_storage::SimDisk::new(), "state", &identity);
        let store = store.expect("a new disk");
        let install = |content, mark, value: &'static [u8]| {
            let pair = (Space::User, Bytes::from_static(b"a"), Bytes::from_static(value));
            let PullerStep::Complete(job) =
                pulling(content).take(Chunk { mark, pairs: vec![pair], last: true }.encode())
            else {
                panic!("the end")
            };
            job.run(&store).expect("the disk works").map(|done| done.set_digest)
        };
        let set_digest = install(None, mark(), b"v").expect("one member is believed");
        let header = crate::machine::CheckpointHeader { mark: mark(), set_digest };
        let content = Some(header.content(2));
        assert_eq!(install(content, mark(), b"w"), Err(SnapshotFault::OtherContent), "a value");
        let mut another_stamp = mark();
        another_stamp.hlc.0 += 1;
        assert_eq!(install(content, another_stamp, b"v"), Err(SnapshotFault::OtherContent), "a stamp");
        let mut another_member = mark();
        another_member.config.members[0].priority += 1;
        assert_eq!(
            install(content, another_member, b"v"),
            Err(SnapshotFault::OtherContent),
            "a configuration"
        );
        assert_eq!(install(content, mark(), b""), Err(SnapshotFault::OtherContent), "less of it");
        let kept = store.load(GroupId(3)).expect("the disk works").expect("the first one");
        assert_eq!(kept.pairs[0].2, "v", "nothing of the refused ones stays");
        assert_eq!(install(content, mark(), b"v"), Ok(header.set_digest.clone()));
    }
}
