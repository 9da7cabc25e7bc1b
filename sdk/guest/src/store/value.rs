//! A single value that lives in the group's state.
//!
//! Relies on the store. Knows no command.

use std::marker::PhantomData;

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::layer::StateKey;
use super::{Read, Write, check_name, decode_stored, prefix_of};

/// One value in the group's state, under a name. It holds nothing itself: make it a constant.
///
/// ```
/// use quorate_sdk::prelude::*;
///
/// const TOTAL: Value<u64> = Value::new("total");
///
/// fn add(ctx: &mut Context, amount: u64) {
///     let total = TOTAL.get(ctx).unwrap_or(0);
///     TOTAL.set(ctx, &(total + amount));
/// }
/// ```
///
/// Panics and refuses as [`Map`](crate::Map) does.
pub struct Value<T> {
    name: &'static str,
    kind: PhantomData<fn() -> T>,
}

impl<T: Serialize + DeserializeOwned> Value<T> {
    /// A value of this name. Maps and values of a component share one set of names; 1 to 64 bytes
    /// without a zero.
    #[must_use]
    pub const fn new(name: &'static str) -> Self {
        check_name(name);
        Self { name, kind: PhantomData }
    }

    fn key(&self) -> StateKey {
        StateKey(prefix_of(self.name, 0))
    }

    /// The value, if it was ever set.
    pub fn get(&self, from: &impl Read) -> Option<T> {
        from.store().get(&self.key()).map(|bytes| decode_stored(self.name, &bytes))
    }

    /// Sets the value.
    pub fn set(&self, to: &mut impl Write, value: &T) {
        to.store_mut().put(self.key(), value);
    }

    /// Forgets the value.
    pub fn clear(&self, to: &mut impl Write) {
        to.store_mut().delete(self.key());
    }
}
