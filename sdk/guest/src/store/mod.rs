//! Typed state over the host's ordered bytes.
//!
//! Relies on the host's key-value interface and the CBOR codec. Promises that a command sees its own
//! writes and those before it in the entry, that a refused command leaves nothing behind, and that an
//! entry's writes cross to the host in few calls. Knows no command.
//!
//! ```text
//! key   = name, 0x00, encoded key parts        the order of keys is the order of the bytes
//! value = CBOR
//!
//!            reads                  writes
//!   command layer  <------------------+          dropped if the command is refused
//!        |  accepted                             merged if it is not
//!   entry layer                                  one kv-write.write at the end of the entry
//!        |
//!      host
//! ```

mod buffer;
mod key;
mod layer;
mod map;
mod scan;
mod value;

#[cfg(test)]
mod tests;

pub(crate) use buffer::Store;
pub use key::{AsKey, Key};
pub use map::{Iter, Map};
pub use value::Value;

/// The longest key the host takes, in bytes, with the map's name.
pub const KEY_BYTES_MAX: usize = 1 << 10;
/// The longest encoded value the host takes, in bytes.
pub const VALUE_BYTES_MAX: usize = 1 << 20;

/// Whatever state can be read from: a [`Context`](crate::Context) or a [`View`](crate::View).
pub trait Read: sealed::HasStore {}

/// Whatever state can be written to: a [`Context`](crate::Context).
pub trait Write: Read + sealed::HasStoreMut {}

pub(crate) mod sealed {
    /// Only this crate has stores.
    pub trait HasStore {
        #[doc(hidden)]
        fn store(&self) -> &super::Store;
    }

    /// Only this crate has stores that can be written.
    pub trait HasStoreMut {
        #[doc(hidden)]
        fn store_mut(&mut self) -> &mut super::Store;
    }
}

/// The bytes before every key of a map or value: its name and a zero, which no name holds.
fn prefix_of(name: &str, key_bytes: usize) -> Vec<u8> {
    let mut prefix = Vec::with_capacity(name.len() + 1 + key_bytes);
    prefix.extend_from_slice(name.as_bytes());
    prefix.push(0);
    prefix
}

/// Refuses names that would reach into another's keys, when the constant is made.
const fn check_name(name: &str) {
    let bytes = name.as_bytes();
    assert!(!bytes.is_empty() && bytes.len() <= 64, "a map's or value's name has 1 to 64 bytes");
    let mut place = 0;
    while place < bytes.len() {
        assert!(bytes[place] != 0, "a map's or value's name has no zero byte");
        place += 1;
    }
}

/// Reads a stored value.
///
/// # Panics
///
/// When the bytes are of another layout: the author changed a stored type without raising
/// `SCHEMA_VERSION`. Every replica panics alike, and the command is refused.
fn decode_stored<T: serde::de::DeserializeOwned>(name: &str, bytes: &[u8]) -> T {
    match crate::cbor::from_slice(bytes) {
        Ok(value) => value,
        Err(error) => panic!(
            "a stored value of `{name}` does not read ({error}); raise SCHEMA_VERSION and write `migrate` \
             when a stored type changes"
        ),
    }
}
