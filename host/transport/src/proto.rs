//! The messages and the service of `proto/peer.proto`, as generated; documented there.

#![allow(missing_docs, clippy::all, unreachable_pub)]

tonic::include_proto!("quorate.peer.v1");
