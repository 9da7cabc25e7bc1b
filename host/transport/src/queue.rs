//! What waits to be written to one peer.
//!
//! Relies on nothing but a lock held for a few instructions. Promises a bound in frames and in bytes,
//! the order of sending, and that everything queued while one message was written leaves in the next.
//! Knows no socket: HTTP/2 polls the stream only while its window has room, and so a slow peer fills
//! this queue and nothing else.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use tokio_stream::Stream;

use crate::config::{FRAMES_PER_MESSAGE_MAX, TransportLimits};
use crate::proto::{self, link_message::Content};

/// Why a frame was not queued.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refused {
    /// A bound is reached.
    Full,
    /// The stream has ended.
    Closed,
}

/// The bounded queue of one stream to one peer. Opens with this node's hello.
#[derive(Debug)]
pub(crate) struct Queue {
    state: Mutex<State>,
    frames_max: usize,
    bytes_max: usize,
    message_bytes_target: usize,
}

#[derive(Debug)]
struct State {
    /// Taken by the first message.
    hello: Option<proto::Hello>,
    frames: VecDeque<Bytes>,
    /// Sum of the lengths of `frames`.
    bytes: usize,
    closed: bool,
    /// Whoever found the queue empty.
    waker: Option<Waker>,
}

impl Queue {
    pub(crate) fn new(hello: proto::Hello, limits: &TransportLimits) -> Arc<Self> {
        let state =
            State { hello: Some(hello), frames: VecDeque::new(), bytes: 0, closed: false, waker: None };
        Arc::new(Self {
            state: Mutex::new(state),
            frames_max: limits.frames_queued_max,
            bytes_max: limits.bytes_queued_max,
            message_bytes_target: limits.message_bytes_target,
        })
    }

    /// Appends a frame.
    pub(crate) fn push(&self, frame: Bytes) -> Result<(), Refused> {
        let mut state = self.lock();
        if state.closed {
            return Err(Refused::Closed);
        }
        if state.frames.len() >= self.frames_max || state.bytes + frame.len() > self.bytes_max {
            return Err(Refused::Full);
        }
        state.bytes += frame.len();
        state.frames.push_back(frame);
        let waker = state.waker.take();
        drop(state);
        if let Some(waker) = waker {
            waker.wake();
        }
        Ok(())
    }

    /// Ends the stream and forgets what was queued: a later stream starts afresh.
    pub(crate) fn close(&self) {
        let mut state = self.lock();
        state.closed = true;
        state.frames = VecDeque::new();
        state.bytes = 0;
        let waker = state.waker.take();
        drop(state);
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// Frames and bytes that wait.
    pub(crate) fn len(&self) -> (usize, usize) {
        let state = self.lock();
        (state.frames.len(), state.bytes)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // No code that can panic runs under the lock, so a poisoned state is as good as any.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn poll(&self, cx: &Context<'_>) -> Poll<Option<proto::LinkMessage>> {
        let mut state = self.lock();
        // The hello leaves even if the link ended meanwhile: without it the peer would take the end for
        // that of an unknown protocol.
        if let Some(hello) = state.hello.take() {
            return Poll::Ready(Some(proto::LinkMessage { content: Some(Content::Hello(hello)) }));
        }
        if state.closed {
            return Poll::Ready(None);
        }
        if state.frames.is_empty() {
            state.waker = Some(cx.waker().clone());
            return Poll::Pending;
        }
        let frames = state.gather(self.message_bytes_target);
        Poll::Ready(Some(proto::LinkMessage { content: Some(Content::Frames(proto::Frames { frames })) }))
    }
}

impl State {
    /// Takes frames until they hold `target` bytes; at least one.
    fn gather(&mut self, target: usize) -> Vec<Bytes> {
        let (mut count, mut total) = (0, 0);
        for frame in self.frames.iter().take(FRAMES_PER_MESSAGE_MAX) {
            if count > 0 && total + frame.len() > target {
                break;
            }
            count += 1;
            total += frame.len();
        }
        self.bytes -= total;
        self.frames.drain(..count).collect()
    }
}

/// The writing end of a queue as a stream of messages; closes the queue when it is dropped.
#[derive(Debug)]
pub(crate) struct Outbound(Arc<Queue>);

impl Outbound {
    pub(crate) fn new(queue: Arc<Queue>) -> Self {
        Self(queue)
    }
}

impl Stream for Outbound {
    type Item = proto::LinkMessage;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.0.poll(cx)
    }
}

impl Drop for Outbound {
    fn drop(&mut self) {
        self.0.close();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn queue(frames: usize, bytes: usize, target: usize) -> Arc<Queue> {
        let limits = TransportLimits {
            frames_queued_max: frames,
            bytes_queued_max: bytes,
            message_bytes_target: target,
            ..TransportLimits::default()
        };
        Queue::new(proto::Hello::default(), &limits)
    }

    fn next(queue: &Queue) -> Poll<Option<Option<Content>>> {
        queue.poll(&Context::from_waker(Waker::noop())).map(|message| message.map(|message| message.content))
    }

    fn frames(expected: &[&'static [u8]]) -> Poll<Option<Option<Content>>> {
        let frames = expected.iter().map(|frame| Bytes::from_static(frame)).collect();
        Poll::Ready(Some(Some(Content::Frames(proto::Frames { frames }))))
    }

    fn push(queue: &Queue, frame: &'static [u8]) -> Result<(), Refused> {
        queue.push(Bytes::from_static(frame))
    }

    #[test]
    fn the_hello_leaves_first_and_waiting_frames_leave_together() {
        let queue = queue(8, 64, 4);
        for frame in [b"ab", b"cd", b"ef"] {
            assert_eq!(push(&queue, frame), Ok(()));
        }
        assert!(matches!(next(&queue), Poll::Ready(Some(Some(Content::Hello(_))))));
        assert_eq!(next(&queue), frames(&[b"ab", b"cd"]));
        assert_eq!(next(&queue), frames(&[b"ef"]));
        assert_eq!(next(&queue), Poll::Pending);
    }

    #[test]
    fn a_frame_above_the_target_leaves_alone() {
        let queue = queue(8, 64, 4);
        assert!(matches!(next(&queue), Poll::Ready(Some(_))));
        assert_eq!(push(&queue, b"a frame above the target"), Ok(()));
        assert_eq!(push(&queue, b"b"), Ok(()));
        assert_eq!(next(&queue), frames(&[b"a frame above the target"]));
        assert_eq!(next(&queue), frames(&[b"b"]));
    }

    #[test]
    fn bounds_in_frames_and_in_bytes_are_kept_and_taking_makes_room() {
        let narrow = queue(2, 64, 64);
        assert!(matches!(next(&narrow), Poll::Ready(Some(_))));
        assert_eq!(push(&narrow, b"a"), Ok(()));
        assert_eq!(push(&narrow, b"b"), Ok(()));
        assert_eq!(push(&narrow, b"c"), Err(Refused::Full));
        assert_eq!(narrow.len(), (2, 2));
        assert_eq!(next(&narrow), frames(&[b"a", b"b"]));
        assert_eq!(push(&narrow, b"c"), Ok(()));

        let small = queue(8, 4, 64);
        assert_eq!(push(&small, b"abcd"), Ok(()));
        assert_eq!(push(&small, b"e"), Err(Refused::Full));
    }

    #[test]
    fn a_closed_queue_ends_its_stream_after_the_hello_and_takes_nothing() {
        let queue = queue(8, 64, 64);
        assert_eq!(push(&queue, b"a"), Ok(()));
        drop(Outbound::new(Arc::clone(&queue)));
        assert!(matches!(next(&queue), Poll::Ready(Some(Some(Content::Hello(_))))));
        assert_eq!(next(&queue), Poll::Ready(None));
        assert_eq!(push(&queue, b"b"), Err(Refused::Closed));
        assert_eq!(queue.len(), (0, 0));
    }
}
