//! The stream of commands without HTTP/2.
//!
//! Relies on the frames of the interface's crate and on the stream that takes their items. Promises that
//! both directions go on independently, that replies which queued up leave in one write, and that a
//! connection that may not submit, or sends what is no frame, is told so and closed. Knows no state
//! machine.

use std::time::Duration;

use quorate_proto::frames::{FrameError, FrameReader, FrameWriter};
use quorate_proto::v1::{Error, ErrorCode, ReplyFrame, SubmitFrame};
use quorate_transport::{Role, TlsConn};
use tokio::io::{AsyncRead, AsyncWrite, ReadHalf, WriteHalf};
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;
use tonic::Status;

use super::submit::SubmitStream;
use super::{Api, require_role};

/// How long a client may take to close a connection that the node ends.
const LINGER: Duration = Duration::from_millis(500);

/// Serves a connection until either end closes it.
pub(super) async fn serve(api: Api, connection: TlsConn) {
    let refused = require_role(Some(connection.info()), Role::Writer).err();
    let bytes_max = api.inner.config.limits.request_bytes;
    let remote = connection.info().remote;
    let (stream, replies) = SubmitStream::new(api.inner);
    if let Err(error) = relay(connection, bytes_max, stream, replies, refused).await {
        tracing::debug!(%remote, %error, "a client's connection ended");
    }
}

/// Takes the frames of a client.
pub(super) trait Taker {
    /// Hands a frame's items on.
    ///
    /// # Errors
    ///
    /// Why the stream ends.
    fn take(&mut self, frame: SubmitFrame) -> Result<(), Status>;
}

impl Taker for SubmitStream {
    fn take(&mut self, frame: SubmitFrame) -> Result<(), Status> {
        self.take(frame)?;
        self.settle();
        Ok(())
    }
}

async fn relay(
    connection: impl AsyncRead + AsyncWrite,
    bytes_max: usize,
    taker: impl Taker,
    replies: mpsc::Receiver<Result<ReplyFrame, Status>>,
    refused: Option<Error>,
) -> Result<(), FrameError> {
    let (mut reader, writer) = tokio::io::split(connection);
    let (end, ending) = oneshot::channel();
    let reading = async move {
        let reason = match refused {
            Some(refused) => refused,
            None => match read(FrameReader::new(&mut reader, bytes_max), taker).await? {
                Some(reason) => reason,
                None => return Ok(()),
            },
        };
        // Whoever writes has failed if it does not take this.
        end.send(reason).ok();
        // Closing with unread bytes would reset the connection, and a reset can overtake the reason.
        tokio::io::copy(&mut reader, &mut tokio::io::sink()).await?;
        Ok(())
    };
    let mut reading = std::pin::pin!(reading);
    tokio::select! {
        biased;
        read = &mut reading => return read,
        written = write(writer, replies, ending) => written?,
    }
    timeout(LINGER, reading).await.unwrap_or(Ok(()))
}

/// Takes frames until the client closes the connection, or returns why the node does.
async fn read(
    mut frames: FrameReader<&mut ReadHalf<impl AsyncRead>>,
    mut taker: impl Taker,
) -> Result<Option<Error>, FrameError> {
    loop {
        match frames.next().await {
            Ok(Some(frame)) => {
                if let Err(status) = taker.take(frame) {
                    return Ok(Some(Error::from_status(&status).unwrap_or_default()));
                }
            }
            Ok(None) => return Ok(None),
            Err(error @ FrameError::TooLarge { .. }) => {
                return Ok(Some(Error::new(ErrorCode::TooLarge, error.to_string())));
            }
            Err(error @ FrameError::Malformed(_)) => {
                return Ok(Some(Error::new(ErrorCode::Invalid, error.to_string())));
            }
            Err(error @ FrameError::Io(_)) => return Err(error),
        }
    }
}

/// Writes replies until there is a reason to end the stream, which is the last frame.
async fn write(
    to: WriteHalf<impl AsyncWrite>,
    mut replies: mpsc::Receiver<Result<ReplyFrame, Status>>,
    mut ending: oneshot::Receiver<Error>,
) -> Result<(), FrameError> {
    let mut writer = FrameWriter::new(to);
    loop {
        let frame = tokio::select! {
            biased;
            Some(Ok(frame)) = replies.recv() => frame,
            Ok(reason) = &mut ending => {
                writer.append(&ReplyFrame { replies: Vec::new(), ended: Some(reason) })?;
                return Ok(writer.close().await?);
            }
            else => return Ok(()),
        };
        writer.append(&frame)?;
        while !writer.is_full()
            && let Ok(Ok(frame)) = replies.try_recv()
        {
            writer.append(&frame)?;
        }
        writer.flush().await?;
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::sync::{Arc, Mutex};

    use quorate_proto::v1::Reply;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream};

    use super::*;

    const BYTES_MAX: usize = 1 << 10;

    /// Notes the groups of frames; group 13 ends the stream.
    #[derive(Clone, Default)]
    struct Fake(Arc<Mutex<Vec<u64>>>);

    impl Taker for Fake {
        fn take(&mut self, frame: SubmitFrame) -> Result<(), Status> {
            if frame.group == 13 {
                return Err(Error::new(ErrorCode::TooLarge, "thirteen").into());
            }
            self.0.lock().unwrap().push(frame.group);
            Ok(())
        }
    }

    struct Served {
        client: DuplexStream,
        taken: Fake,
        replies: mpsc::Sender<Result<ReplyFrame, Status>>,
        ended: tokio::task::JoinHandle<Result<(), FrameError>>,
    }

    fn serve(refused: Option<Error>) -> Served {
        let (client, node) = tokio::io::duplex(64);
        let (replies, receiver) = mpsc::channel(16);
        let taken = Fake::default();
        let ended = tokio::spawn(relay(node, BYTES_MAX, taken.clone(), receiver, refused));
        Served { client, taken, replies, ended }
    }

    async fn frame(group: u64) -> Vec<u8> {
        let mut bytes = Vec::new();
        let mut writer = FrameWriter::new(&mut bytes);
        writer.append(&SubmitFrame { group, ..SubmitFrame::default() }).unwrap();
        writer.flush().await.unwrap();
        bytes
    }

    /// Why the node ends the stream, which it then closes.
    async fn reason(mut served: Served) -> (Error, Vec<u64>) {
        let mut bytes = Vec::new();
        served.client.read_to_end(&mut bytes).await.unwrap();
        drop(served.client);
        served.ended.await.unwrap().unwrap();
        let frame = FrameReader::new(&bytes[..], 1 << 20).next::<ReplyFrame>().await.unwrap().unwrap();
        let taken = served.taken.0.lock().unwrap().clone();
        (frame.ended.unwrap(), taken)
    }

    #[tokio::test]
    async fn frames_are_taken_and_replies_leave_while_neither_waits_for_the_other() {
        let Served { client, taken, replies, ended } = serve(None);
        let (read, mut write) = tokio::io::split(client);
        // More replies than the connection holds while nobody reads them.
        for tag in 0..16 {
            let frame = ReplyFrame { replies: vec![Reply { tag, kind: None }; 30], ended: None };
            replies.send(Ok(frame)).await.unwrap();
        }
        for group in 100..200 {
            write.write_all(&frame(group).await).await.unwrap();
        }
        let mut reader = FrameReader::new(read, 1 << 20);
        for tag in 0..16 {
            let frame = reader.next::<ReplyFrame>().await.unwrap().unwrap();
            assert!(frame.replies.len() == 30 && frame.replies[0].tag == tag);
        }
        write.shutdown().await.unwrap();
        ended.await.unwrap().unwrap();
        assert_eq!(*taken.0.lock().unwrap(), (100..200).collect::<Vec<_>>());
    }

    #[tokio::test]
    async fn whoever_may_not_submit_is_told_and_nothing_is_taken() {
        let served = serve(Some(Error::new(ErrorCode::Unauthorized, "a reader")));
        let (error, taken) = reason(served).await;
        assert_eq!((error.code(), taken), (ErrorCode::Unauthorized, Vec::new()));
    }

    #[tokio::test]
    async fn what_is_no_frame_or_too_large_or_refused_ends_the_stream_with_a_reason() {
        for (bytes, code) in [
            (vec![0xff; 8], ErrorCode::TooLarge),
            ([&(BYTES_MAX as u32 + 1).to_be_bytes()[..], b"x"].concat(), ErrorCode::TooLarge),
            (vec![0, 0, 0, 2, 0xff, 0xff], ErrorCode::Invalid),
            (frame(13).await, ErrorCode::TooLarge),
        ] {
            let mut served = serve(None);
            served.client.write_all(&frame(1).await).await.unwrap();
            served.client.write_all(&bytes).await.unwrap();
            let (error, taken) = reason(served).await;
            assert_eq!((error.code(), taken), (code, vec![1]), "{bytes:?}: {}", error.message);
        }
    }

    #[tokio::test]
    async fn the_reason_follows_whole_frames() {
        let Served { client, replies, ended, .. } = serve(None);
        let (read, mut write) = tokio::io::split(client);
        let large = ReplyFrame { replies: vec![Reply { tag: 7, kind: None }; 300], ended: None };
        replies.send(Ok(large.clone())).await.unwrap();
        // The node is within that frame, which nobody reads, when it refuses this one and what follows.
        write.write_all(&frame(13).await).await.unwrap();
        write.write_all(&frame(14).await).await.unwrap();
        let mut reader = FrameReader::new(read, 1 << 20);
        assert_eq!(reader.next::<ReplyFrame>().await.unwrap(), Some(large));
        let last = reader.next::<ReplyFrame>().await.unwrap().unwrap();
        assert_eq!(last.ended.unwrap().message, "thirteen");
        assert!(reader.next::<ReplyFrame>().await.unwrap().is_none());
        drop((reader, write));
        ended.await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn a_frame_that_is_cut_off_is_not_taken() {
        let mut served = serve(None);
        served.client.write_all(&frame(1).await).await.unwrap();
        served.client.write_all(&frame(2).await[..5]).await.unwrap();
        drop(served.client);
        assert!(matches!(served.ended.await.unwrap(), Err(FrameError::Io(_))));
        assert_eq!(*served.taken.0.lock().unwrap(), [1]);
    }
}
