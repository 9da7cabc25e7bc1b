//! A link: one `Submit` stream, shared by many sessions, on a connection of its own; through HTTP/2 where
//! nothing else is spoken.
//!
//! Relies on the table of what is pending. Promises that everything queued while the last frame was
//! written goes out as one frame per group, without delay; that each item is answered at most once; and
//! that when the stream ends every item learns so, and whether it can have been sent. Knows no session,
//! and no leader.
//!
//! The next frame is made when the last one was written, so frames grow with the load and with nothing else.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use quorate_proto::frames::{FrameError, FrameReader, FrameWriter};
use quorate_proto::v1::client_client::ClientClient;
use quorate_proto::v1::{self, Reply, ReplyFrame, SignedItems, SubmitFrame, SubmitItem, reply, submit_item};
use quorate_proto::{FRAME_BYTES_MAX, FRAME_ITEMS_MAX};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{Notify, oneshot};
use tokio::time::timeout;
use tokio_stream::StreamExt as _;
use tonic::transport::Channel;

use crate::lane::Share;
use crate::pending::Pending;
use crate::tls::{Dialer, Peer, TlsFault};
use crate::verdict::{brief, innermost};

/// The greatest message from a node: an answer has at most 16 MiB, and a frame holds several.
pub(crate) const RECEIVE_BYTES_MAX: usize = 64 << 20;
/// What an item takes in a frame beside its name and body.
const ITEM_BYTES: usize = 64;

/// Marks the tags of signed frames: the rest is the frame's number on its link, and 12 bits for the item.
const SIGNED_TAG: u64 = 1 << 63;
/// Bits of a tag that number an item within a signed frame.
const POSITION_BITS: u32 = 12;

const _: () = assert!(1 << POSITION_BITS >= FRAME_ITEMS_MAX);

/// What became of an item.
pub(crate) type Answer = Result<reply::Kind, LinkFault>;

/// The link ended before an item was answered.
#[derive(Clone, Debug)]
pub(crate) struct LinkFault {
    /// Whether the item can have reached the node.
    pub(crate) maybe_sent: bool,
    /// Why the link ended.
    pub(crate) reason: Arc<str>,
}

/// An item was not queued.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NotQueued {
    /// Too much is queued or unanswered.
    Full,
    /// The link has ended.
    Closed,
}

/// Bounds of one link.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LinkBounds {
    /// Unanswered items.
    pub(crate) in_flight_max: usize,
    /// Bytes that wait to be written.
    pub(crate) queued_bytes_max: usize,
}

/// How a link reaches its node.
pub(crate) struct Road {
    pub(crate) dialer: Arc<Dialer>,
    pub(crate) peer: Peer,
    /// How long opening the connection may take.
    pub(crate) connect_timeout: Duration,
    /// For a node, or a relay before it, that speaks HTTP/2 alone.
    pub(crate) channel: Channel,
    /// Where a refusal by TLS is noted.
    pub(crate) fault: Arc<TlsFault>,
}

/// One link.
#[derive(Debug)]
pub(crate) struct Link {
    bounds: LinkBounds,
    state: Mutex<State>,
    /// Told when the link is closed from this side.
    closing: Notify,
}

#[derive(Debug, Default)]
struct State {
    closed: bool,
    pending: Pending<oneshot::Sender<Answer>>,
    /// Items that wait to be written, by group. Groups without any have no place here.
    queued: HashMap<u64, VecDeque<SubmitItem>>,
    /// Groups with items that wait, each once, in the order of their turns.
    turns: VecDeque<u64>,
    /// Signed frames that wait to be written, before all else.
    signed_queued: VecDeque<SubmitFrame>,
    /// Signed frames without all their answers, by number, with how many are missing.
    signed: HashMap<u64, (Share, usize)>,
    /// Items among them.
    signed_items: usize,
    /// The number of the next signed frame.
    next_signed: u64,
    queued_bytes: usize,
    /// Whoever writes frames, while there is nothing to write.
    writer: Option<Waker>,
}

impl Link {
    /// Opens a link; it ends when its stream does.
    pub(crate) fn open(road: Road, bounds: LinkBounds) -> Arc<Self> {
        let link = Arc::new(Self { bounds, state: Mutex::default(), closing: Notify::new() });
        tokio::spawn(serve(Arc::clone(&link), road));
        link
    }

    /// Queues an item.
    pub(crate) fn send(self: &Arc<Self>, group: u64, kind: submit_item::Kind) -> Result<Ticket, NotQueued> {
        let (answer, receiver) = oneshot::channel();
        let bytes = bytes_of(&kind);
        let mut state = self.state();
        if state.closed {
            return Err(NotQueued::Closed);
        }
        if state.pending.len() >= self.bounds.in_flight_max
            || state.queued_bytes + bytes > self.bounds.queued_bytes_max
        {
            return Err(NotQueued::Full);
        }
        let tag = state.pending.insert(answer);
        state.queue(group, SubmitItem { tag, kind: Some(kind) }, bytes);
        let writer = state.writer.take();
        drop(state);
        if let Some(writer) = writer {
            writer.wake();
        }
        Ok(Ticket { link: Arc::clone(self), tag, receiver, answered: false })
    }

    /// Queues a signed frame with so many items, and says what becomes of each to `share`; gives that back if there
    /// is no room, and if the link has ended.
    pub(crate) fn send_signed(
        &self,
        group: u64,
        signed: SignedItems,
        count: usize,
        share: Share,
    ) -> Result<(), Share> {
        let bytes = ITEM_BYTES + signed.items.len() + signed.certificate.len();
        let mut state = self.state();
        let full = state.signed_items + count > self.bounds.in_flight_max
            || state.queued_bytes + bytes > self.bounds.queued_bytes_max;
        if state.closed || full {
            return Err(share);
        }
        let number = state.next_signed;
        state.next_signed = (number + 1) % (1 << (63 - POSITION_BITS));
        state.signed.insert(number, (share, count));
        state.signed_items += count;
        state.queued_bytes += bytes;
        let tag = SIGNED_TAG | (number << POSITION_BITS);
        let signed = Some(SignedItems { tag, ..signed });
        state.signed_queued.push_back(SubmitFrame { group, items: Vec::new(), signed });
        let writer = state.writer.take();
        drop(state);
        if let Some(writer) = writer {
            writer.wake();
        }
        Ok(())
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.state().closed
    }

    /// Ends the link from this side.
    pub(crate) fn close(&self) {
        self.end(End::Lost("the client was closed".to_owned()));
        self.closing.notify_one();
    }

    /// Hands replies to whoever waits for them; those that nobody waits for are dropped.
    fn dispatch(&self, replies: Vec<Reply>) {
        let mut found = Vec::with_capacity(replies.len());
        let mut signed = Vec::new();
        let mut state = self.state();
        for Reply { tag, kind } in replies {
            if tag & SIGNED_TAG != 0 {
                signed.extend(state.take_signed(tag).zip(kind));
            } else if let Some(waiting) = state.pending.take(tag) {
                found.push((waiting, kind));
            }
        }
        // Whoever is woken soon takes the lock to send the next item.
        drop(state);
        for (waiting, kind) in found {
            let empty = || LinkFault { maybe_sent: true, reason: "the node sent an empty reply".into() };
            answer(waiting, kind.ok_or_else(empty));
        }
        for ((share, position), kind) in signed {
            share.note(position, kind);
        }
    }

    /// Ends the link and tells every unanswered item.
    fn end(&self, end: End) {
        let mut state = self.state();
        state.closed = true;
        state.turns.clear();
        state.queued_bytes = 0;
        let queued = std::mem::take(&mut state.queued);
        let unsent: Vec<_> =
            queued.into_values().flatten().filter_map(|item| state.pending.take(item.tag)).collect();
        let sent = state.pending.drain();
        state.signed_queued.clear();
        state.signed_items = 0;
        let signed = std::mem::take(&mut state.signed);
        let writer = state.writer.take();
        drop(state);
        let unanswered = unsent.into_iter().map(|w| (w, false)).chain(sent.into_iter().map(|w| (w, true)));
        match end {
            End::Lost(reason) => {
                let reason: Arc<str> = reason.into();
                signed.into_values().for_each(|(share, _)| share.lost(&reason));
                for (waiting, maybe_sent) in unanswered {
                    answer(waiting, Err(LinkFault { maybe_sent, reason: Arc::clone(&reason) }));
                }
            }
            End::Refused(error) => {
                signed.into_values().for_each(|(share, _)| share.refused(&error));
                for (waiting, _) in unanswered {
                    answer(waiting, Ok(reply::Kind::Error(error.clone())));
                }
            }
        }
        if let Some(writer) = writer {
            writer.wake();
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn queue(&mut self, group: u64, item: SubmitItem, bytes: usize) {
        let items = self.queued.entry(group).or_default();
        if items.is_empty() {
            self.turns.push_back(group);
        }
        items.push_back(item);
        self.queued_bytes += bytes;
    }

    /// Whose answer a tag of a signed frame is, and of which item. A frame is forgotten with its last answer; a
    /// member that answers an item twice cheats itself of another's.
    fn take_signed(&mut self, tag: u64) -> Option<(Share, usize)> {
        let number = (tag & !SIGNED_TAG) >> POSITION_BITS;
        let (share, missing) = self.signed.get_mut(&number)?;
        *missing -= 1;
        let (is_last, share) = (*missing == 0, share.clone());
        self.signed_items -= 1;
        if is_last {
            self.signed.remove(&number);
        }
        Some((share, (tag & ((1 << POSITION_BITS) - 1)) as usize))
    }

    /// The next frame: a signed one, or as much of the next group's items as fits.
    fn frame(&mut self) -> Option<SubmitFrame> {
        if let Some(frame) = self.signed_queued.pop_front() {
            let bytes = |signed: &SignedItems| ITEM_BYTES + signed.items.len() + signed.certificate.len();
            self.queued_bytes -= frame.signed.as_ref().map_or(0, bytes);
            return Some(frame);
        }
        let group = self.turns.pop_front()?;
        let waiting = self.queued.get_mut(&group).expect("a group that has a turn has items");
        let (mut count, mut bytes) = (0, 0);
        for item in waiting.iter().take(FRAME_ITEMS_MAX) {
            let more = item.kind.as_ref().map_or(ITEM_BYTES, bytes_of);
            // The first item always fits: names and bodies are bounded below a frame.
            if count > 0 && bytes + more > FRAME_BYTES_MAX {
                break;
            }
            count += 1;
            bytes += more;
        }
        self.queued_bytes -= bytes;
        let items = if count == waiting.len() {
            self.queued.remove(&group).map(Vec::from).unwrap_or_default()
        } else {
            self.turns.push_back(group);
            waiting.drain(..count).collect()
        };
        Some(SubmitFrame { group, items, signed: None })
    }
}

/// The frames of a link, as they can be written.
struct Outbound(Arc<Link>);

impl tokio_stream::Stream for Outbound {
    type Item = SubmitFrame;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<SubmitFrame>> {
        let mut state = self.0.state();
        if let Some(frame) = state.frame() {
            return Poll::Ready(Some(frame));
        }
        if state.closed {
            return Poll::Ready(None);
        }
        state.writer = Some(cx.waker().clone());
        Poll::Pending
    }
}

/// An item that waits for its answer; dropping it gives the answer up.
#[derive(Debug)]
pub(crate) struct Ticket {
    link: Arc<Link>,
    tag: u64,
    receiver: oneshot::Receiver<Answer>,
    answered: bool,
}

impl Ticket {
    /// Waits for the answer.
    pub(crate) async fn answer(&mut self) -> Answer {
        let answer = (&mut self.receiver).await;
        self.answered = true;
        answer.unwrap_or_else(|_| Err(LinkFault { maybe_sent: true, reason: "the link was dropped".into() }))
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        if !self.answered {
            let forgotten = self.link.state().pending.take(self.tag);
            drop(forgotten);
        }
    }
}

/// How a link ended.
enum End {
    /// The stream broke: what was sent may have been carried out.
    Lost(String),
    /// The node would not have the stream at all: nothing was carried out, and the error is the answer to
    /// every item.
    Refused(v1::Error),
}

/// Carries a link's frames until its stream ends.
async fn serve(link: Arc<Link>, road: Road) {
    let end = tokio::select! {
        end = carry(&link, road) => end,
        () = link.closing.notified() => End::Lost("the client was closed".to_owned()),
    };
    link.end(end);
}

async fn carry(link: &Arc<Link>, road: Road) -> End {
    let dialled = timeout(road.connect_timeout, road.dialer.dial_frames(&road.peer, &road.fault)).await;
    match dialled.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())) {
        Ok(Some(connection)) => carry_frames(link, connection, &road.fault).await,
        Ok(None) => carry_http2(link, road.channel, &road.fault).await,
        Err(error) => End::Lost(brief(&error.to_string())),
    }
}

async fn carry_frames(link: &Arc<Link>, connection: impl AsyncRead + AsyncWrite, fault: &TlsFault) -> End {
    let (reader, writer) = tokio::io::split(connection);
    tokio::select! {
        biased;
        end = read_frames(link, FrameReader::new(reader, RECEIVE_BYTES_MAX), fault) => end,
        Err(error) = write_frames(link, writer) => End::Lost(brief(&error.to_string())),
    }
}

async fn read_frames(link: &Link, mut frames: FrameReader<impl AsyncRead + Unpin>, fault: &TlsFault) -> End {
    loop {
        let frame = match frames.next::<ReplyFrame>().await {
            Ok(Some(frame)) => frame,
            Ok(None) => return End::Lost("the node ended the connection".to_owned()),
            Err(error) => return End::Lost(brief(&error.to_string())),
        };
        fault.clear();
        link.dispatch(frame.replies);
        match frame.ended {
            Some(error) if error.code() == v1::ErrorCode::Unauthorized => return End::Refused(error),
            Some(error) => return End::Lost(brief(&error.message)),
            None => {}
        }
    }
}

/// Writes what queues up until the connection fails; a link that was closed has nothing to write.
async fn write_frames(
    link: &Arc<Link>,
    to: impl AsyncWrite + Unpin,
) -> Result<std::convert::Infallible, FrameError> {
    let mut outbound = Outbound(Arc::clone(link));
    let mut writer = FrameWriter::new(to);
    loop {
        match outbound.next().await {
            Some(frame) => writer.append(&frame)?,
            None => std::future::pending().await,
        }
        while !writer.is_full()
            && let Some(frame) = link.state().frame()
        {
            writer.append(&frame)?;
        }
        writer.flush().await?;
    }
}

async fn carry_http2(link: &Arc<Link>, channel: Channel, fault: &TlsFault) -> End {
    let mut client = ClientClient::new(channel).max_decoding_message_size(RECEIVE_BYTES_MAX);
    let mut inbound = match client.submit(Outbound(Arc::clone(link))).await {
        Ok(response) => response.into_inner(),
        Err(status) => {
            return match v1::Error::from_status(&status) {
                Some(error) => End::Refused(error),
                None => End::Lost(innermost(&status)),
            };
        }
    };
    fault.clear();
    loop {
        match inbound.message().await {
            Ok(Some(frame)) => link.dispatch(frame.replies),
            Ok(None) => return End::Lost("the node ended the stream".to_owned()),
            Err(status) => return End::Lost(innermost(&status)),
        }
    }
}

fn answer(waiting: oneshot::Sender<Answer>, answer: Answer) {
    if waiting.send(answer).is_err() {
        tracing::trace!("an answer came after it was given up");
    }
}

fn bytes_of(kind: &submit_item::Kind) -> usize {
    match kind {
        submit_item::Kind::Command(command) => ITEM_BYTES + command.name.len() + command.body.len(),
        _ => ITEM_BYTES,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use quorate_proto::v1::{Command, KeepSession, ReplyFrame};
    use tokio::io::{AsyncWriteExt as _, DuplexStream, ReadHalf, WriteHalf};

    use super::*;

    fn item(tag: u64, bytes: usize) -> (SubmitItem, usize) {
        let command = Command { body: vec![0; bytes].into(), ..Command::default() };
        let kind = submit_item::Kind::Command(command);
        let bytes = bytes_of(&kind);
        (SubmitItem { tag, kind: Some(kind) }, bytes)
    }

    fn keep(tag: u64) -> SubmitItem {
        SubmitItem { tag, kind: Some(submit_item::Kind::KeepSession(KeepSession { session: 1 })) }
    }

    fn tags(frame: &SubmitFrame) -> (u64, Vec<u64>) {
        (frame.group, frame.items.iter().map(|item| item.tag).collect())
    }

    #[test]
    fn what_queued_up_goes_out_as_one_frame_for_each_group() {
        let mut state = State::default();
        for (group, tag) in [(7, 1), (8, 2), (7, 3), (7, 4)] {
            state.queue(group, keep(tag), ITEM_BYTES);
        }
        let frames: Vec<_> = std::iter::from_fn(|| state.frame()).map(|frame| tags(&frame)).collect();
        assert_eq!(frames, [(7, vec![1, 3, 4]), (8, vec![2])]);
        assert_eq!(state.queued_bytes, 0);
        assert!(state.queued.is_empty());
    }

    #[test]
    fn frames_are_bounded_and_groups_take_turns() {
        let mut state = State::default();
        for tag in 0..FRAME_ITEMS_MAX as u64 + 1 {
            state.queue(1, keep(tag), ITEM_BYTES);
        }
        state.queue(2, keep(9), ITEM_BYTES);
        let sizes: Vec<_> = std::iter::from_fn(|| state.frame()).map(|f| (f.group, f.items.len())).collect();
        assert_eq!(sizes, [(1, FRAME_ITEMS_MAX), (2, 1), (1, 1)]);
    }

    #[test]
    fn large_bodies_are_spread_over_frames_below_the_limit() {
        let mut state = State::default();
        for tag in 0..5 {
            let (item, bytes) = item(tag, 1 << 20);
            state.queue(1, item, bytes);
        }
        let mut counts = Vec::new();
        while let Some(frame) = state.frame() {
            let bytes: usize = frame.items.iter().filter_map(|item| item.kind.as_ref()).map(bytes_of).sum();
            assert!(bytes <= FRAME_BYTES_MAX, "{bytes}");
            counts.push(frame.items.len());
        }
        assert_eq!(counts, [2, 2, 1]);
        assert_eq!(state.queued_bytes, 0);
    }

    /// A link whose node is the test.
    struct Met {
        link: Arc<Link>,
        reader: FrameReader<ReadHalf<DuplexStream>>,
        writer: WriteHalf<DuplexStream>,
        carried: tokio::task::JoinHandle<()>,
    }

    fn meet() -> Met {
        let bounds = LinkBounds { in_flight_max: 10_000, queued_bytes_max: 64 << 20 };
        let link = Arc::new(Link { bounds, state: std::sync::Mutex::default(), closing: Notify::default() });
        let (client, node) = tokio::io::duplex(256);
        let carrying = Arc::clone(&link);
        let carried = tokio::spawn(async move {
            let end = carry_frames(&carrying, client, &TlsFault::default()).await;
            carrying.end(end);
        });
        let (reader, writer) = tokio::io::split(node);
        Met { link, reader: FrameReader::new(reader, RECEIVE_BYTES_MAX), writer, carried }
    }

    async fn reply(writer: &mut WriteHalf<DuplexStream>, frame: ReplyFrame) {
        let mut writer = FrameWriter::new(writer);
        writer.append(&frame).unwrap();
        writer.flush().await.unwrap();
    }

    fn ok(tag: u64) -> Reply {
        Reply { tag, kind: Some(reply::Kind::Ok(v1::Acknowledgement {})) }
    }

    #[tokio::test]
    async fn items_and_answers_cross_a_connection_without_http2() {
        let Met { link, mut reader, mut writer, carried } = meet();
        // More than the connection holds, in both directions at once.
        let mut tickets: Vec<_> =
            (0..3_000).map(|i| link.send(i % 3, keep(0).kind.unwrap()).unwrap()).collect();
        let node = tokio::spawn(async move {
            let mut answered = 0;
            while answered < 3_000 {
                let frame = reader.next::<SubmitFrame>().await.unwrap().unwrap();
                answered += frame.items.len();
                let replies = frame.items.iter().map(|item| ok(item.tag)).collect();
                reply(&mut writer, ReplyFrame { replies, ended: None }).await;
            }
            (reader, writer)
        });
        for ticket in &mut tickets {
            assert!(matches!(ticket.answer().await, Ok(reply::Kind::Ok(_))));
        }
        drop(node.await.unwrap());
        carried.await.unwrap();
        assert!(link.is_closed());
    }

    #[tokio::test]
    async fn a_node_that_takes_nothing_says_why_to_every_item() {
        let Met { link, mut writer, carried, reader: _reader } = meet();
        let mut ticket = link.send(1, keep(0).kind.unwrap()).unwrap();
        let refused = v1::Error::new(v1::ErrorCode::Unauthorized, "a reader");
        reply(&mut writer, ReplyFrame { replies: Vec::new(), ended: Some(refused) }).await;
        carried.await.unwrap();
        let answer = ticket.answer().await;
        assert!(
            matches!(&answer, Ok(reply::Kind::Error(error)) if error.message == "a reader"),
            "{answer:?}"
        );
    }

    #[tokio::test]
    async fn whatever_else_ends_a_connection_leaves_open_what_was_carried_out() {
        let garbage: [&[u8]; 4] = [b"", &[0xff; 8], &[0, 0, 0, 9, 1], &[0, 0, 0, 2, 0xff, 0xff]];
        for bytes in garbage {
            let Met { link, mut reader, mut writer, carried } = meet();
            let mut ticket = link.send(1, keep(0).kind.unwrap()).unwrap();
            assert!(reader.next::<SubmitFrame>().await.unwrap().is_some());
            writer.write_all(bytes).await.unwrap();
            drop((reader, writer));
            carried.await.unwrap();
            let answer = ticket.answer().await;
            assert!(matches!(&answer, Err(fault) if fault.maybe_sent), "{bytes:?}: {answer:?}");
        }
        let Met { link, mut reader, mut writer, carried } = meet();
        let mut ticket = link.send(1, keep(0).kind.unwrap()).unwrap();
        assert!(reader.next::<SubmitFrame>().await.unwrap().is_some());
        let ended = Some(v1::Error::new(v1::ErrorCode::TooLarge, "too much"));
        reply(&mut writer, ReplyFrame { replies: Vec::new(), ended }).await;
        carried.await.unwrap();
        let answer = ticket.answer().await;
        assert!(
            matches!(&answer, Err(fault) if fault.maybe_sent && &*fault.reason == "too much"),
            "{answer:?}"
        );
    }
}
