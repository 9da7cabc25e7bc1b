//! The client interface of Quorate, package `quorate.v1`: messages, clients and servers generated from
//! `proto/quorate/v1/*.proto`, where everything is documented.
//!
//! Relies on tonic and prost. Promises one encoding of [`v1::Error`] in the details of a gRPC status, and one
//! of the stream of `Submit` without HTTP/2. Knows neither node nor client library.

pub mod frames;
mod status;

/// The messages and services of package `quorate.v1`, as generated.
#[allow(missing_docs, rust_2018_idioms, unreachable_pub, clippy::all, clippy::unwrap_used)]
#[allow(clippy::let_underscore_must_use, rustdoc::all)]
pub mod v1 {
    tonic::include_proto!("quorate.v1");
}

/// The encoded `FileDescriptorSet` of package `quorate.v1` with its imports and comments, for gRPC
/// reflection.
pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/quorate.v1.bin"));

/// The most items in one `SubmitFrame`.
pub const FRAME_ITEMS_MAX: usize = 4_096;
/// The greatest `SubmitFrame`, in bytes; below the 4 MiB that tonic receives unless told otherwise.
pub const FRAME_BYTES_MAX: usize = 3 << 20;
/// The greatest command or query name, in bytes.
pub const NAME_BYTES_MAX: usize = 128;
/// The greatest body of a command or query, in bytes.
pub const BODY_BYTES_MAX: usize = 1 << 20;
/// The size at which a `ReplyFrame` is full, in bytes. A greater reply has a frame of its own.
pub const REPLY_FRAME_BYTES: usize = 4 << 20;
/// The furthest a session's greatest sequence number may lie from its smallest unacknowledged one.
pub const WINDOW_MAX: u64 = 1_024;
/// The greatest chunk of a component, in bytes.
pub const CHUNK_BYTES_MAX: usize = 1 << 20;
/// The greatest component, in bytes.
pub const COMPONENT_BYTES_MAX: usize = 64 << 20;
/// The most topics of one watch.
pub const TOPICS_MAX: usize = 64;

const _: () = assert!(BODY_BYTES_MAX + NAME_BYTES_MAX + 256 < FRAME_BYTES_MAX);
const _: () = assert!(FRAME_BYTES_MAX < 4 << 20);
