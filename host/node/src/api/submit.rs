//! The stream that carries commands: frames in, replies out, both as large as the load makes them.
//!
//! Relies on the shards. Promises one reply for each item, and a bound on unanswered items of one stream.
//! Knows no state machine.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use prost::Message as _;
use quorate_proto::v1::submit_item::Kind as ItemKind;
use quorate_proto::v1::{
    Error, ErrorCode, Reply as WireReply, ReplyFrame, SignedItems, SubmitFrame, SubmitItem,
};
use quorate_proto::{BODY_BYTES_MAX, FRAME_ITEMS_MAX, NAME_BYTES_MAX, REPLY_FRAME_BYTES};
use quorate_types::{
    BatchItem, CLIENT_CERTIFICATE_BYTES_MAX, ClientFrame, ClientKey, Command, FRAME_BYTES_MAX, GroupId,
    Sequence, SessionId,
};
use tokio::sync::mpsc;
use tonic::Status;

use super::convert::reply_kind;
use crate::driver::Reply;
use crate::node::Inner;
use crate::shard::{ReplySink, Waiter};

/// The most unanswered items of one stream; more are refused as overloaded.
const UNANSWERED_MAX: usize = 65_536;
/// The most reply frames that wait to be written to one stream.
const FRAMES_QUEUED_MAX: usize = 1_024;

const SEQUENCES: &str = "sequence numbers start at 1, and acknowledged_below is at most the sequence";
const OVERLOADED: &str = "too many items of this stream are unanswered; wait for some replies";

pub(super) fn not_signed() -> Error {
    let message = "clients and operators of this group sign what they submit; use a client library or a \
                   `quorate` of the nodes' version";
    Error::new(ErrorCode::NotSigned, message)
}

/// Where the replies of one stream gather.
struct Sink {
    inner: Arc<Inner>,
    group: GroupId,
    /// Whether the items answered here open sessions.
    opens: bool,
    stream: Arc<StreamState>,
}

/// What all sinks of one stream share.
struct StreamState {
    gathered: Mutex<Vec<WireReply>>,
    frames: mpsc::Sender<Result<ReplyFrame, Status>>,
    unanswered: AtomicUsize,
}

impl StreamState {
    fn push(&self, tag: u64, kind: quorate_proto::v1::reply::Kind) {
        let reply = WireReply { tag, kind: Some(kind) };
        self.gathered.lock().unwrap_or_else(PoisonError::into_inner).push(reply);
    }

    /// Sends what gathered. When the client does not read, it stays gathered, bounded by the number of
    /// unanswered items, and leaves with the next frame that fits.
    fn send(&self) {
        loop {
            let Ok(permit) = self.frames.try_reserve() else { return };
            let replies = next_frame(
                &mut self.gathered.lock().unwrap_or_else(PoisonError::into_inner),
                REPLY_FRAME_BYTES,
            );
            if replies.is_empty() {
                return;
            }
            permit.send(Ok(ReplyFrame { replies, ended: None }));
        }
    }
}

/// Takes as many replies as a frame of about so many bytes holds: the one that fills it is its last.
fn next_frame(gathered: &mut Vec<WireReply>, bytes_max: usize) -> Vec<WireReply> {
    let mut bytes = 0;
    let count = gathered.iter().take_while(|reply| {
        let fits = bytes < bytes_max;
        bytes += reply.encoded_len();
        fits
    });
    match count.count() {
        all if all == gathered.len() => std::mem::take(gathered),
        some => gathered.drain(..some).collect(),
    }
}

impl ReplySink for Sink {
    fn reply(&self, tag: u64, reply: Reply) {
        self.stream.unanswered.fetch_sub(1, Ordering::Relaxed);
        self.stream.push(tag, reply_kind(&self.inner, self.group, self.opens, reply));
    }

    fn flush(&self) {
        self.stream.send();
    }
}

/// Where the replies of one group go: for items that open sessions and for all others.
#[derive(Clone)]
struct Sinks {
    opening: Arc<dyn ReplySink>,
    ordinary: Arc<dyn ReplySink>,
}

/// One client's stream.
pub(super) struct SubmitStream {
    inner: Arc<Inner>,
    stream: Arc<StreamState>,
    /// The sinks of the group that the last frame was for: most streams speak to one group.
    sinks: Option<(GroupId, Sinks)>,
}

impl SubmitStream {
    pub(super) fn new(inner: Arc<Inner>) -> (Self, mpsc::Receiver<Result<ReplyFrame, Status>>) {
        let (frames, receiver) = mpsc::channel(FRAMES_QUEUED_MAX);
        let stream =
            Arc::new(StreamState { gathered: Mutex::default(), frames, unanswered: AtomicUsize::new(0) });
        (Self { inner, stream, sinks: None }, receiver)
    }

    /// Hands a frame's items to their group's shard.
    ///
    /// # Errors
    ///
    /// A status that ends the stream, for a frame above its bounds.
    pub(super) fn take(&mut self, frame: SubmitFrame) -> Result<(), Status> {
        if frame.items.len() > FRAME_ITEMS_MAX {
            let message = format!("a frame has at most {FRAME_ITEMS_MAX} items; send several");
            return Err(Error::new(ErrorCode::TooLarge, message).into());
        }
        let group = GroupId(frame.group);
        if let Some(signed) = frame.signed {
            return self.take_signed(group, signed);
        }
        let is_signed = self.inner.signatures.is_signed(group);
        let sinks = self.sinks_of(group);
        let mut items = Vec::with_capacity(frame.items.len());
        let mut refused = false;
        for item in frame.items {
            let tag = item.tag;
            let checked = if is_signed { Err(not_signed()) } else { self.check(group, item) };
            match checked {
                Ok(item) => {
                    let opens = matches!(item, BatchItem::OpenSession { .. });
                    let sink = Arc::clone(if opens { &sinks.opening } else { &sinks.ordinary });
                    items.push((item, Waiter::Stream(sink, tag)));
                }
                Err(error) => {
                    self.stream.push(tag, quorate_proto::v1::reply::Kind::Error(error));
                    refused = true;
                }
            }
        }
        if refused {
            self.stream.send();
        }
        if !items.is_empty() {
            self.inner.shard(group).submit(group, items);
        }
        Ok(())
    }

    /// Hands a frame that its client signed to be verified.
    fn take_signed(&mut self, group: GroupId, signed: SignedItems) -> Result<(), Status> {
        let SignedItems { public_key, signature, certificate, items, tag } = signed;
        let invalid = |message: String| Status::from(Error::new(ErrorCode::Invalid, message));
        let lengths = || invalid("a frame is signed with a key of 32 bytes and a signature of 64".to_owned());
        let frame = ClientFrame {
            key: ClientKey(public_key[..].try_into().map_err(|_| lengths())?),
            signature: signature[..].try_into().map_err(|_| lengths())?,
            certificate,
            items,
        };
        let too_large = |what| Status::from(Error::new(ErrorCode::TooLarge, what));
        if frame.encoded_len() > FRAME_BYTES_MAX {
            return Err(too_large(format!("a frame has at most {FRAME_BYTES_MAX} bytes; send several")));
        }
        if frame.certificate.len() > CLIENT_CERTIFICATE_BYTES_MAX {
            let most = CLIENT_CERTIFICATE_BYTES_MAX;
            return Err(too_large(format!("a client's certificate has at most {most} bytes")));
        }
        let batch = frame.batch().map_err(|fault| invalid(fault.to_string()))?;
        let numbered = |item: &BatchItem| match item {
            BatchItem::Command(command) => {
                command.sequence.0 > 0 && command.acknowledged_below <= command.sequence
            }
            _ => true,
        };
        if !batch.items.iter().all(numbered) {
            return Err(invalid(SEQUENCES.to_owned()));
        }
        let count = batch.items.len();
        if self.stream.unanswered.fetch_add(count, Ordering::Relaxed) >= UNANSWERED_MAX {
            self.stream.unanswered.fetch_sub(count, Ordering::Relaxed);
            for item in 0..count as u64 {
                let error = Error::new(ErrorCode::Overloaded, OVERLOADED);
                self.stream.push(tag.wrapping_add(item), quorate_proto::v1::reply::Kind::Error(error));
            }
            self.stream.send();
            return Ok(());
        }
        let sinks = self.sinks_of(group);
        let waiters = (0..).zip(&batch.items).map(|(at, item)| {
            let opens = matches!(item, BatchItem::OpenSession { .. });
            let sink = Arc::clone(if opens { &sinks.opening } else { &sinks.ordinary });
            Waiter::Stream(sink, tag.wrapping_add(at))
        });
        let waiters = waiters.collect();
        self.inner.signatures.take_client(group, &frame, &batch, waiters);
        Ok(())
    }

    /// Waits until gathered replies can leave, so that the last ones of a burst are never stuck behind a
    /// slow reader.
    pub(super) fn settle(&self) {
        self.stream.send();
    }

    fn sinks_of(&mut self, group: GroupId) -> Sinks {
        if let Some((of, sinks)) = &self.sinks
            && *of == group
        {
            return sinks.clone();
        }
        let sink = |opens| -> Arc<dyn ReplySink> {
            let (inner, stream) = (Arc::clone(&self.inner), Arc::clone(&self.stream));
            Arc::new(Sink { inner, group, opens, stream })
        };
        let sinks = Sinks { opening: sink(true), ordinary: sink(false) };
        self.sinks = Some((group, sinks.clone()));
        sinks
    }

    fn check(&self, group: GroupId, item: SubmitItem) -> Result<BatchItem, Error> {
        if group == GroupId::CATALOG {
            let message = "the catalog takes no commands from clients; use the administrative calls";
            return Err(Error::new(ErrorCode::Invalid, message));
        }
        let checked = match item.kind {
            Some(ItemKind::Command(command)) => {
                if command.name.len() > NAME_BYTES_MAX || command.body.len() > BODY_BYTES_MAX {
                    let message = format!(
                        "a command has a name of at most {NAME_BYTES_MAX} bytes and a body of at most \
                         {BODY_BYTES_MAX} bytes; this one has {} and {}",
                        command.name.len(),
                        command.body.len()
                    );
                    return Err(Error::new(ErrorCode::TooLarge, message));
                }
                if command.sequence == 0 || command.acknowledged_below > command.sequence {
                    return Err(Error::new(ErrorCode::Invalid, SEQUENCES));
                }
                BatchItem::Command(Command {
                    session: SessionId(command.session),
                    sequence: Sequence(command.sequence),
                    acknowledged_below: Sequence(command.acknowledged_below),
                    name: command.name,
                    body: command.body,
                })
            }
            Some(ItemKind::OpenSession(open)) => {
                let client = <[u8; 16]>::try_from(&open.client[..]).map_err(|_| {
                    Error::new(ErrorCode::Invalid, "a session's client is sixteen bytes drawn at random")
                })?;
                BatchItem::OpenSession { client, ttl_ms: open.ttl_ms }
            }
            Some(ItemKind::KeepSession(keep)) => BatchItem::KeepSession(SessionId(keep.session)),
            Some(ItemKind::CloseSession(close)) => BatchItem::CloseSession(SessionId(close.session)),
            None => {
                return Err(Error::new(ErrorCode::Invalid, "the item has no kind that this version knows"));
            }
        };
        if self.stream.unanswered.fetch_add(1, Ordering::Relaxed) >= UNANSWERED_MAX {
            self.stream.unanswered.fetch_sub(1, Ordering::Relaxed);
            return Err(Error::new(ErrorCode::Overloaded, OVERLOADED));
        }
        Ok(checked)
    }
}

#[cfg(test)]
mod tests {
    use quorate_proto::v1::{Done, reply};

    use super::*;

    #[test]
    fn large_replies_are_spread_over_frames_in_their_order() {
        let done = |bytes: usize| reply::Kind::Done(Done { body: vec![0; bytes].into(), ..Done::default() });
        let sizes = [10, 600, 600, 600, 5_000, 10, 10];
        let mut gathered: Vec<_> =
            (0..).zip(sizes).map(|(tag, bytes)| WireReply { tag, kind: Some(done(bytes)) }).collect();
        let mut frames = Vec::new();
        while !gathered.is_empty() {
            let frame = next_frame(&mut gathered, 1_000);
            frames.push(frame.iter().map(|reply| reply.tag).collect::<Vec<_>>());
        }
        assert_eq!(frames, [vec![0, 1, 2], vec![3, 4], vec![5, 6]]);
        assert!(next_frame(&mut gathered, 1_000).is_empty());
    }
}
