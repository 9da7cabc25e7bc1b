//! Moving a snapshot from one replica to another, piece by piece, pulled by the one that needs it.
//!
//! Relies on a request-and-response call between nodes. Promises that every piece is checked, that
//! pulling resumes where it stopped, and that all pieces come from one state. Knows no socket: whoever
//! drives carries requests and responses.

use bytes::Bytes;
use quorate_consensus::{Input, Now, SnapshotFetch, SnapshotMark};
use quorate_runtime::Space;
use quorate_types::codec::{DecodeError, Reader, Writer};
use quorate_types::{GroupId, LogIndex, Position};

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
    /// The snapshot that earlier pieces came from; zero with the first request.
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
}

/// What follows from a response.
#[derive(Debug)]
pub enum PullerStep {
    /// Ask for the next piece.
    More(Box<Puller>),
    /// All is here.
    Complete(Box<InstallJob>),
    /// The response cannot be used.
    Fault(String),
}

impl Puller {
    /// Starts pulling what the driver asked for.
    #[must_use]
    pub fn new(identity: MachineIdentity, fetch: SnapshotFetch) -> Box<Self> {
        Box::new(Self { identity, fetch, mark: None, pairs: Vec::new() })
    }

    /// The next request, the same again until it is answered.
    #[must_use]
    pub fn request(&self) -> Bytes {
        Request {
            group: self.identity.group,
            at_least: self.fetch.position,
            of: self.mark.as_ref().map_or(LogIndex::ZERO, |mark| mark.position.index),
            after: self.pairs.last().map(|(space, key, _)| (*space, key.clone())),
        }
        .encode()
    }

    /// Takes the response to the last request.
    #[must_use]
    pub fn take(mut self: Box<Self>, response: Bytes) -> PullerStep {
        let chunk = match Chunk::decode(response) {
            Ok(chunk) => chunk,
            Err(error) => {
                return PullerStep::Fault(format!("a piece of the snapshot cannot be read: {error}"));
            }
        };
        if self.mark.as_ref().is_some_and(|mark| *mark != chunk.mark) {
            return PullerStep::Fault("pieces of two snapshots were mixed".to_owned());
        }
        if chunk.mark.position.index < self.fetch.position.index {
            return PullerStep::Fault("the snapshot is older than the one offered".to_owned());
        }
        self.pairs.extend(chunk.pairs);
        if chunk.last {
            let job = InstallJob { identity: self.identity, mark: chunk.mark, pairs: self.pairs };
            return PullerStep::Complete(Box::new(job));
        }
        self.mark = Some(chunk.mark);
        PullerStep::More(self)
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
        let usable = |served: &Served| match request.of {
            LogIndex::ZERO => served.mark.position.index >= request.at_least.index,
            of => served.mark.position.index == of,
        };
        if !group.served.as_ref().is_some_and(usable) {
            if request.of != LogIndex::ZERO {
                return Err(Failure::NoSnapshot("it is no longer kept; start again".to_owned()));
            }
            let machine = group.machine.as_mut().ok_or(Failure::Overloaded)?;
            let (mark, view) = machine.snapshot();
            group.served = Some(Served { mark, view, used: now.time });
        }
        let served = group.served.as_mut().expect("it was just made or found");
        if served.mark.position.index < request.at_least.index {
            return Err(Failure::NoSnapshot("this replica has not applied that much yet".to_owned()));
        }
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
        group.answer_confirmed(output);
        output.compact.push((id, mark.position.index));
        self.ready.insert(id);
        self.step(now, id, Input::SnapshotInstalled(mark), output);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mark() -> SnapshotMark {
        SnapshotMark {
            position: Position {
                epoch: quorate_types::Epoch(1),
                term: quorate_types::Term(2),
                index: LogIndex(9),
            },
            hlc: quorate_types::HlcTimestamp(5),
            config: crate::catalog::crash_group(&[quorate_types::NodeId(1)], Default::default()),
        }
    }

    fn puller() -> Box<Puller> {
        let identity = MachineIdentity {
            cluster: quorate_types::ClusterId([0; 16]),
            group: GroupId(3),
            name: "kv".to_owned(),
            digest_interval: Default::default(),
        };
        let fetch = SnapshotFetch { from: quorate_types::NodeId(1), position: mark().position };
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

    #[test]
    fn damaged_mixed_and_old_pieces_are_refused() {
        let mut bytes = chunk(b"a", true).encode().to_vec();
        let end = bytes.len() - 1;
        bytes[end] ^= 1;
        assert!(matches!(puller().take(Bytes::from(bytes)), PullerStep::Fault(_)));
        let PullerStep::More(begun) = puller().take(chunk(b"a", false).encode()) else {
            panic!("not the end")
        };
        let mut other = chunk(b"b", true);
        other.mark.position.index = LogIndex(10);
        assert!(matches!(begun.take(other.encode()), PullerStep::Fault(_)));
        let mut old = chunk(b"a", true);
        old.mark.position.index = LogIndex(8);
        assert!(matches!(puller().take(old.encode()), PullerStep::Fault(_)));
        assert!(matches!(puller().take(Bytes::from_static(b"garbage")), PullerStep::Fault(_)));
    }
}
