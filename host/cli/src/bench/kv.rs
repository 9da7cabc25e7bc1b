//! The generator's client of the key-value component.
//!
//! Relies on the client library. Promises the CBOR that `put` expects, made by filling in a template: an
//! encoder would cost the generator more than the sending. Knows no cluster.

use anyhow::{Result, bail};
use bytes::Bytes;
use quorate_client::{Outcome, Session};

use super::load::{KEY_BYTES, Putter};

/// CBOR: a map of two entries, the text `key`, and the head of a text of sixteen bytes.
const BEFORE_KEY: &[u8] = b"\xa2\x63key\x70";
/// CBOR: the text `value`, and the head of bytes whose length follows in four.
const BEFORE_VALUE: &[u8] = b"\x65value\x5a";

const _: () = assert!(KEY_BYTES == 0x10);

/// One session that puts.
#[derive(Debug)]
pub struct KvClient {
    session: Session,
    body: Vec<u8>,
}

impl KvClient {
    /// A client with a session of its own.
    #[must_use]
    pub fn new(session: Session) -> Self {
        Self { session, body: Vec::new() }
    }
}

impl Putter for KvClient {
    async fn put(&mut self, key: &str, value: &[u8]) -> Result<()> {
        encode(&mut self.body, key, value);
        match self.session.submit("put", Bytes::copy_from_slice(&self.body)).await? {
            Outcome::Done { .. } => Ok(()),
            Outcome::Rejected(rejection) => bail!("put was rejected: {rejection}"),
        }
    }
}

fn encode(body: &mut Vec<u8>, key: &str, value: &[u8]) {
    assert_eq!(key.len(), KEY_BYTES, "the generator makes keys of one length");
    let value_len = u32::try_from(value.len()).expect("the generator makes values below 4 GiB");
    body.clear();
    body.extend_from_slice(BEFORE_KEY);
    body.extend_from_slice(key.as_bytes());
    body.extend_from_slice(BEFORE_VALUE);
    body.extend_from_slice(&value_len.to_be_bytes());
    body.extend_from_slice(value);
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_template_is_the_cbor_of_a_put() {
        let mut body = Vec::new();
        encode(&mut body, "key-000000000042", &[7; 300]);
        let value: ciborium::Value = ciborium::from_reader(&body[..]).unwrap();
        let expected = ciborium::Value::Map(vec![
            ("key".into(), "key-000000000042".into()),
            ("value".into(), ciborium::Value::Bytes(vec![7; 300])),
        ]);
        assert_eq!(value, expected);
    }
}
