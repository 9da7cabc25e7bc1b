//! What a log can take, checked before anything is written.
//!
//! Relies on the index. Promises that an accepted batch leaves every group with consecutive entries of
//! one incarnation, each within its bound. Writes nothing.

use quorate_types::{ENTRY_BYTES_MAX, Incarnation, LogIndex};

use super::GroupAppend;
use super::batch::HARD_STATE_BYTES_MAX;
use super::index::GroupIndex;
use crate::WalError;

/// Where a group's log stands within the batch that is checked.
#[derive(Clone, Copy, Debug)]
pub(super) struct Tail {
    incarnation: Incarnation,
    /// Entries up to here were released.
    pub(super) base: LogIndex,
    last: LogIndex,
    /// Whether the group may begin anywhere.
    is_new: bool,
}

impl Tail {
    pub(super) fn of(index: Option<&GroupIndex>) -> Self {
        match index {
            None => Self::new_life(Incarnation::ZERO),
            Some(index) => Self {
                incarnation: index.incarnation,
                base: index.base,
                last: index.last(),
                is_new: index.is_blank(),
            },
        }
    }

    fn new_life(incarnation: Incarnation) -> Self {
        Self { incarnation, base: LogIndex::ZERO, last: LogIndex::ZERO, is_new: true }
    }

    /// Checks that the log can take this after what came before.
    pub(super) fn accept(&mut self, item: &GroupAppend) -> Result<(), WalError> {
        let group = item.group;
        if item.incarnation < self.incarnation {
            return Err(WalError::StaleIncarnation {
                group,
                known: self.incarnation,
                given: item.incarnation,
            });
        }
        if item.incarnation > self.incarnation && self.incarnation > Incarnation::ZERO {
            *self = Self::new_life(item.incarnation);
        }
        self.incarnation = item.incarnation;
        let too_large = |what, bytes, bound| Err(WalError::TooLarge { what, group, bytes, bound });
        if let Some(hard_state) = &item.hard_state
            && hard_state.len() > HARD_STATE_BYTES_MAX
        {
            return too_large("hard state", hard_state.len(), HARD_STATE_BYTES_MAX);
        }
        let Some(first) = item.entries.first() else {
            return Ok(());
        };
        let gap = |from, to, given| Err(WalError::Gap { group, from, to, given });
        let (from, to) = (self.base.next(), self.last.next());
        if !self.is_new && !(from..=to).contains(&first.index()) {
            return gap(from, to, first.index());
        }
        let mut expected = first.index();
        for entry in &item.entries {
            if entry.index() != expected {
                return gap(expected, expected, entry.index());
            }
            if entry.body.len() > ENTRY_BYTES_MAX {
                return too_large("entry", entry.body.len(), ENTRY_BYTES_MAX);
            }
            expected = expected.next();
        }
        if self.is_new {
            self.base = first.index().previous();
        }
        self.is_new = false;
        self.last = expected.previous();
        Ok(())
    }
}
