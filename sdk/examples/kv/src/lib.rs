//! A replicated key-value store: the smallest useful state machine, and the one the benchmarks drive.
//!
//! Relies on the SDK only. Promises ordinary put, get, delete, compare-and-set and ordered listing over
//! text keys and byte values. Knows nothing of who asks.

use quorate_sdk::prelude::*;

/// The longest key, in bytes.
pub const KEY_BYTES_MAX: usize = 512;
/// The longest value, in bytes.
pub const VALUE_BYTES_MAX: usize = 256 << 10;
/// The most pairs in one answer of `list`.
pub const LIST_MAX: u32 = 1_000;

const PAIRS: Map<String, Bytes> = Map::new("pairs");

/// What changes the store.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Command {
    /// Sets a key.
    Put {
        /// 1 to [`KEY_BYTES_MAX`] bytes.
        key: String,
        /// At most [`VALUE_BYTES_MAX`] bytes.
        value: Bytes,
    },
    /// Removes a key; answers whether it was there.
    Delete {
        /// The key.
        key: String,
    },
    /// Sets a key if it has the expected value; answers whether it did.
    CompareAndSet {
        /// 1 to [`KEY_BYTES_MAX`] bytes.
        key: String,
        /// What it must have now; `None` if it must not be there.
        expected: Option<Bytes>,
        /// What it has then; `None` to remove it.
        value: Option<Bytes>,
    },
}

/// What can be asked.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Query {
    /// The value of a key, or null.
    Get {
        /// The key.
        key: String,
    },
    /// Pairs in the order of their keys.
    List {
        /// What the keys start with; everything if empty.
        #[serde(default)]
        prefix: String,
        /// Only keys after this one: the last of the page before.
        #[serde(default)]
        after: Option<String>,
        /// How many at most; [`LIST_MAX`] if it is left out or greater.
        #[serde(default)]
        limit: Option<u32>,
    },
}

/// Why a command is refused.
#[derive(Clone, Debug, PartialEq, Reject)]
pub enum Refused {
    /// The key is empty or too long.
    #[reject(code = 200, message = "a key has 1 to 512 bytes, this one {bytes}")]
    BadKey {
        /// Its length.
        bytes: usize,
    },
    /// The value is too long.
    #[reject(code = 201, message = "a value has at most 262144 bytes, this one {bytes}")]
    BadValue {
        /// Its length.
        bytes: usize,
    },
}

fn check_key(key: &str) -> Result<(), Refused> {
    match key.len() {
        1..=KEY_BYTES_MAX => Ok(()),
        bytes => Err(Refused::BadKey { bytes }),
    }
}

fn check_value(value: &Bytes) -> Result<(), Refused> {
    match value.len() {
        0..=VALUE_BYTES_MAX => Ok(()),
        bytes => Err(Refused::BadValue { bytes }),
    }
}

/// The store.
pub struct KeyValue;

impl StateMachine for KeyValue {
    const NAME: &'static str = "kv";
    const VERSION: &'static str = env!("CARGO_PKG_VERSION");

    type Command = Command;
    type Query = Query;
    type Event = Nothing;

    fn apply(ctx: &mut Context, command: Command) -> Result<Answer, Rejection> {
        match command {
            Command::Put { key, value } => {
                check_key(&key)?;
                check_value(&value)?;
                PAIRS.insert(ctx, &key, &value);
                done()
            }
            Command::Delete { key } => {
                check_key(&key)?;
                answer(PAIRS.take(ctx, &key).is_some())
            }
            Command::CompareAndSet { key, expected, value } => {
                check_key(&key)?;
                if PAIRS.get(ctx, &key) != expected {
                    return answer(false);
                }
                match value {
                    Some(value) => {
                        check_value(&value)?;
                        PAIRS.insert(ctx, &key, &value);
                    }
                    None => PAIRS.remove(ctx, &key),
                }
                answer(true)
            }
        }
    }

    fn query(view: &View, query: Query) -> Result<Answer, Rejection> {
        match query {
            Query::Get { key } => {
                check_key(&key)?;
                answer(PAIRS.get(view, &key))
            }
            Query::List { prefix, after, limit } => answer(list(view, &prefix, after.as_deref(), limit)),
        }
    }
}

fn list(view: &View, prefix: &str, after: Option<&str>, limit: Option<u32>) -> Vec<(String, Bytes)> {
    let limit = limit.unwrap_or(LIST_MAX).min(LIST_MAX) as usize;
    match after {
        // The first key after `after` may lie before the prefix, when a caller mixes the two.
        Some(after) if after >= prefix => {
            PAIRS.after(view, after).take_while(|(key, _)| key.starts_with(prefix)).take(limit).collect()
        }
        Some(_) | None => PAIRS.starting_with(view, prefix).take(limit).collect(),
    }
}

quorate_sdk::export!(KeyValue);

#[cfg(test)]
mod tests;
