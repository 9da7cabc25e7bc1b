//! A state at one moment together with what changed since the moment before.
//!
//! Relies on the persistent tree to find differences without visiting what two versions share. Promises
//! that it may be read on any thread while the state goes on changing. Does not know where it is written.

use bytes::Bytes;
use imbl::ordmap::DiffItem;
use quorate_crypto::SetDigest;

use crate::key::Key;
use crate::state::{Maps, Space, StateView};

/// One frozen moment. Reading it costs in proportion to what changed, not to the state.
#[derive(Clone, Debug)]
pub struct Frozen {
    before: Maps,
    now: StateView,
}

/// One changed key: what it was and what it is.
struct Change<'a> {
    space: Space,
    key: &'a Key,
    old: Option<&'a Bytes>,
    new: Option<&'a Bytes>,
}

impl Frozen {
    pub(crate) fn new(before: Maps, now: StateView) -> Self {
        Self { before, now }
    }

    /// The keys that changed since the freeze before, in order of space and key, with their values now;
    /// `None` for a key that is gone. A key that changed and changed back is not listed.
    pub fn changes(&self) -> impl Iterator<Item = (Space, Bytes, Option<&Bytes>)> {
        self.differences().map(|change| (change.space, change.key.to_bytes(), change.new))
    }

    /// Brings the digest of the content before up to that of the content now. Takes microseconds per
    /// changed key: call it where nobody waits.
    pub fn update_digest(&self, digest: &mut SetDigest) {
        for Change { space, key, old, new } in self.differences() {
            let tagged = space.tagged(key.as_slice());
            if let Some(old) = old {
                digest.remove(&tagged, old);
            }
            if let Some(new) = new {
                digest.add(&tagged, new);
            }
        }
    }

    /// All pairs after this key, as [`StateView::pairs_after`].
    pub fn pairs_after(&self, after: Option<(Space, &[u8])>) -> impl Iterator<Item = (Space, Bytes, &Bytes)> {
        self.now.pairs_after(after)
    }

    /// The whole state at this moment.
    #[must_use]
    pub fn view(&self) -> &StateView {
        &self.now
    }

    fn differences(&self) -> impl Iterator<Item = Change<'_>> {
        Space::ALL.into_iter().flat_map(|space| {
            self.before.of(space).diff(self.now.maps.of(space)).map(move |item| match item {
                DiffItem::Add(key, new) => Change { space, key, old: None, new: Some(new) },
                DiffItem::Remove(key, old) => Change { space, key, old: Some(old), new: None },
                DiffItem::Update { old: (key, old), new: (_, new) } => {
                    Change { space, key, old: Some(old), new: Some(new) }
                }
            })
        })
    }
}
