//! Frames that clients of hybrid and Byzantine groups sign, as they stand in an entry of kind frames.
//!
//! Relies on the codec and on batches. Promises that a frame keeps its bytes from the client to the log, and bounds
//! on all of it. Knows no signature: `crypto` does.
//!
//! ```text
//! entry of kind frames                   frame
//! 0       4       8                      0     32          96      100
//! +-------+-------+-------+-------+---   +-----+-----------+-------+-------------+-------+------...
//! | count | bytes | frame | bytes | ..   | key | signature | bytes | certificate | bytes | items
//! +-------+-------+-------+-------+---   +-----+-----------+-------+-------------+-------+------...
//! ```
//!
//! The items are an encoded [`Batch`] of what clients may ask for: commands, and opening, keeping and closing
//! sessions; and of what operators may: to put a component in force.

use bytes::Bytes;

use crate::codec::{DecodeError, Reader, Writer};
use crate::command::{Batch, BatchItem, COMMANDS_PER_ENTRY_MAX};
use crate::entry::ENTRY_BYTES_MAX;

/// The most frames in one entry; bounds the signatures that a vote on it needs.
pub const FRAMES_PER_ENTRY_MAX: usize = 256;
/// The greatest encoded frame, in bytes; leaves room for its length in an entry of its own.
pub const FRAME_BYTES_MAX: usize = 3 << 20;
/// The greatest certificate of a client, in bytes; the authority's have about 500.
pub const CLIENT_CERTIFICATE_BYTES_MAX: usize = 4 << 10;

const _: () = assert!(FRAME_BYTES_MAX + 8 < ENTRY_BYTES_MAX);

/// The public key under which a client signs: 32 bytes, of which only `crypto` can say whether they are a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClientKey(pub [u8; 32]);

/// What one client asks for under one signature.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientFrame {
    /// Who signed.
    pub key: ClientKey,
    /// 64 bytes that claim to be the signature.
    pub signature: [u8; 64],
    /// The certificate, in DER, in which the cluster's authority names the key; needed where a session is opened or
    /// a component put in force, otherwise empty. At most [`CLIENT_CERTIFICATE_BYTES_MAX`].
    pub certificate: Bytes,
    /// An encoded [`Batch`].
    pub items: Bytes,
}

/// A frame holds what no client may ask for.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameContentError {
    /// The items cannot be read.
    #[error(transparent)]
    Malformed(#[from] DecodeError),
    /// A frame without items has no outcome to wait for.
    #[error("the frame holds nothing")]
    Empty,
    /// Something that only nodes order.
    #[error("item {item} of the frame is none that a client may sign")]
    NotForClients {
        /// Its place in the frame.
        item: usize,
    },
    /// An item needs a certificate and the frame shows none.
    #[error("item {item} of the frame needs a certificate and the frame shows none")]
    NoCertificate {
        /// Its place in the frame.
        item: usize,
    },
}

impl ClientFrame {
    /// Bytes of the encoded form before the certificate.
    const HEADER_BYTES: usize = 32 + 64 + 4;

    /// Bytes of the encoded form.
    #[must_use]
    pub fn encoded_len(&self) -> usize {
        Self::HEADER_BYTES + self.certificate.len() + 4 + self.items.len()
    }

    /// The encoded form.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        let mut out = Writer::with_capacity(self.encoded_len());
        out.raw(&self.key.0);
        out.raw(&self.signature);
        out.bytes(&self.certificate);
        out.bytes(&self.items);
        out.finish()
    }

    /// Reads what [`ClientFrame::encode`] wrote; certificate and items share its buffer.
    ///
    /// # Errors
    ///
    /// As the codec: anything but one whole frame within its bounds. The items are not looked at.
    pub fn decode(frame: Bytes) -> Result<Self, DecodeError> {
        if frame.len() > FRAME_BYTES_MAX {
            let (value, bound) = (frame.len() as u64, FRAME_BYTES_MAX as u64);
            return Err(DecodeError::TooLarge { what: "client frame", value, bound });
        }
        let mut from = Reader::new(frame);
        let decoded = Self {
            key: ClientKey(from.array("frame key")?),
            signature: from.array("frame signature")?,
            certificate: from.bytes(CLIENT_CERTIFICATE_BYTES_MAX, "frame certificate")?,
            items: from.bytes(FRAME_BYTES_MAX, "frame items")?,
        };
        from.end()?;
        Ok(decoded)
    }

    /// The items, if a client may ask for each of them.
    ///
    /// # Errors
    ///
    /// [`FrameContentError`] for the first fault found.
    pub fn batch(&self) -> Result<Batch, FrameContentError> {
        let batch = Batch::decode(self.items.clone())?;
        if batch.items.is_empty() {
            return Err(FrameContentError::Empty);
        }
        for (item, what) in batch.items.iter().enumerate() {
            match what {
                BatchItem::Command(_)
                | BatchItem::OpenSession { .. }
                | BatchItem::KeepSession(_)
                | BatchItem::CloseSession(_)
                | BatchItem::Activate { after: Some(_), .. } => {}
                // Without a number, one signature would be good for any time.
                BatchItem::Activate { after: None, .. }
                | BatchItem::Tick
                | BatchItem::Evidence(_)
                | BatchItem::Checkpoint => {
                    return Err(FrameContentError::NotForClients { item });
                }
            }
            if what.needs_certificate() && self.certificate.is_empty() {
                return Err(FrameContentError::NoCertificate { item });
            }
        }
        Ok(batch)
    }
}

/// The body of an entry of kind frames.
///
/// # Panics
///
/// With more than [`FRAMES_PER_ENTRY_MAX`] frames, which whoever gathers them refuses.
#[must_use]
pub fn encode_frames(frames: &[Bytes]) -> Bytes {
    assert!(frames.len() <= FRAMES_PER_ENTRY_MAX, "{} frames in an entry", frames.len());
    let mut out = Writer::with_capacity(4 + frames.iter().map(|frame| 4 + frame.len()).sum::<usize>());
    out.u32(frames.len() as u32);
    frames.iter().for_each(|frame| out.bytes(frame));
    out.finish()
}

/// The frames of an entry, as bytes that share its buffer.
///
/// # Errors
///
/// As the codec: anything but whole byte strings, of which there are at most [`FRAMES_PER_ENTRY_MAX`].
pub fn decode_frames(body: Bytes) -> Result<Vec<Bytes>, DecodeError> {
    let mut from = Reader::new(body);
    let count = from.count(FRAMES_PER_ENTRY_MAX, "frames")?;
    let mut frames = Vec::with_capacity(count);
    for _ in 0..count {
        frames.push(from.bytes(FRAME_BYTES_MAX, "frame")?);
    }
    from.end()?;
    Ok(frames)
}

/// The frames of an entry with their items.
///
/// # Errors
///
/// [`FrameContentError`] for the first fault found, one of them more than [`COMMANDS_PER_ENTRY_MAX`] items in all.
pub fn read_frames(body: Bytes) -> Result<Vec<(ClientFrame, Batch)>, FrameContentError> {
    let mut items = 0;
    let mut read = Vec::new();
    for frame in decode_frames(body)? {
        let frame = ClientFrame::decode(frame)?;
        let batch = frame.batch()?;
        items += batch.items.len();
        if items > COMMANDS_PER_ENTRY_MAX {
            let (value, bound) = (items as u64, COMMANDS_PER_ENTRY_MAX as u64);
            return Err(DecodeError::TooLarge { what: "items of an entry", value, bound }.into());
        }
        read.push((frame, batch));
    }
    Ok(read)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;

    use super::*;
    use crate::{Digest, SessionId};

    fn frame(items: Vec<BatchItem>) -> ClientFrame {
        let certificate = Bytes::from_static(b"certificate");
        let items = Batch { items }.encode();
        ClientFrame { key: ClientKey([1; 32]), signature: [2; 64], certificate, items }
    }

    fn close(session: u64) -> BatchItem {
        BatchItem::CloseSession(SessionId(session))
    }

    #[test]
    fn frames_come_out_of_an_entry_as_they_went_in() {
        let open = BatchItem::OpenSession { client: [3; 16], ttl_ms: 5 };
        let frames = [frame(vec![close(1), open]), frame(vec![BatchItem::KeepSession(SessionId(2))])];
        let encoded: Vec<Bytes> = frames.iter().map(ClientFrame::encode).collect();
        assert!(encoded.iter().zip(&frames).all(|(bytes, frame)| bytes.len() == frame.encoded_len()));
        let body = encode_frames(&encoded);
        assert_eq!(decode_frames(body.clone()), Ok(encoded));
        let read = read_frames(body).unwrap();
        assert_eq!(read.iter().map(|(frame, _)| frame.clone()).collect::<Vec<_>>(), frames);
        assert_eq!(read[0].1.items.len(), 2);
    }

    /// What could go wrong: a leader orders what only nodes may order in the name of a client, or a session of
    /// somebody whom the authority does not know.
    #[test]
    fn what_clients_may_not_ask_for_is_refused() {
        let activate =
            |after| BatchItem::Activate { component: Digest([1; 32]), parameters: Bytes::new(), after };
        for item in
            [activate(None), BatchItem::Tick, BatchItem::Evidence(Bytes::new()), BatchItem::Checkpoint]
        {
            let refused = frame(vec![close(1), item]).batch();
            assert_eq!(refused, Err(FrameContentError::NotForClients { item: 1 }));
        }
        assert_eq!(frame(Vec::new()).batch(), Err(FrameContentError::Empty));
        let open = BatchItem::OpenSession { client: [3; 16], ttl_ms: 5 };
        for item in [open, activate(Some(0))] {
            assert!(frame(vec![close(1), item.clone()]).batch().is_ok());
            let unknown = ClientFrame { certificate: Bytes::new(), ..frame(vec![close(1), item]) };
            assert_eq!(unknown.batch(), Err(FrameContentError::NoCertificate { item: 1 }));
        }
        let garbage = ClientFrame { items: Bytes::from_static(b"x"), ..frame(Vec::new()) };
        assert!(matches!(garbage.batch(), Err(FrameContentError::Malformed(_))));
    }

    #[test]
    fn an_entry_is_bounded_in_frames_and_items() {
        let many = vec![frame(vec![close(1)]).encode(); FRAMES_PER_ENTRY_MAX];
        let mut body = encode_frames(&many).to_vec();
        assert_eq!(read_frames(body.clone().into()).unwrap().len(), FRAMES_PER_ENTRY_MAX);
        body[..4].copy_from_slice(&(FRAMES_PER_ENTRY_MAX as u32 + 1).to_le_bytes());
        assert!(matches!(decode_frames(body.into()), Err(DecodeError::TooLarge { what: "frames", .. })));
        let full = frame((0..COMMANDS_PER_ENTRY_MAX as u64).map(close).collect()).encode();
        assert!(read_frames(encode_frames(std::slice::from_ref(&full))).is_ok());
        let over = read_frames(encode_frames(&[full, frame(vec![close(1)]).encode()]));
        assert!(matches!(over, Err(FrameContentError::Malformed(DecodeError::TooLarge { .. }))));
        let large = ClientFrame { items: vec![0; FRAME_BYTES_MAX].into(), ..frame(Vec::new()) };
        assert!(matches!(ClientFrame::decode(large.encode()), Err(DecodeError::TooLarge { .. })));
    }

    proptest! {
        #[test]
        fn bytes_from_outside_are_one_frame_or_a_typed_error(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let bytes = Bytes::from(bytes);
            if let Ok(frame) = ClientFrame::decode(bytes.clone()) {
                prop_assert_eq!(frame.encode(), bytes.clone());
            }
            if let Ok(frames) = decode_frames(bytes.clone()) {
                prop_assert_eq!(encode_frames(&frames), bytes.clone());
            }
            prop_assert!(read_frames(bytes.clone()).is_err() || bytes[..4] == [0; 4]);
        }

        #[test]
        fn a_changed_entry_is_another_or_none(at in 0_usize..400, bit in 0_u8..8) {
            let frames = [frame(vec![close(7)]).encode(), frame(vec![close(8), close(9)]).encode()];
            let body = encode_frames(&frames);
            let mut changed = body.to_vec();
            let at = at % changed.len();
            changed[at] ^= 1 << bit;
            if let Ok(read) = read_frames(changed.into()) {
                prop_assert_ne!(read, read_frames(body).unwrap());
            }
        }
    }
}
