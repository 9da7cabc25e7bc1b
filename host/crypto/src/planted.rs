//! A rule broken on purpose, so that the simulator can show that it would notice. Compiled only with the feature
//! `planted`.
//!
//! Relies on each run of the simulator having a thread of its own. Promises that nothing is broken unless it was
//! asked for on this thread. Knows no simulator.

use std::cell::Cell;

thread_local! {
    static TWO_F_PLUS_ONE: Cell<bool> = const { Cell::new(false) };
}

/// Makes `2f + 1` members a quorum of all sets on this thread, whatever their number, or no more.
pub fn count_two_f_plus_one(is_broken: bool) {
    TWO_F_PLUS_ONE.set(is_broken);
}

pub(crate) fn counts_two_f_plus_one() -> bool {
    TWO_F_PLUS_ONE.get()
}
