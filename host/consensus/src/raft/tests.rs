//! Tests of whole replicas: by script, by seed, and of the byte form of messages.
//!
//! Relies on a simulated set of replicas with disks that lose what was not flushed. Promises that every
//! protocol situation worth a name has a script that tells its story (`scripts/`). Set
//! `QUORATE_REWRITE_SCRIPTS=1` to write the scripts' expected output anew, and read the difference.

mod bounds;
mod cluster;
mod codec;
mod random;
mod script;

macro_rules! scripts {
    ($($name:ident),+ $(,)?) => {$(
        #[test]
        fn $name() {
            let script = include_str!(concat!("scripts/", stringify!($name), ".txt"));
            script::check(concat!(stringify!($name), ".txt"), script);
        }
    )+};
}

scripts! {
    check_quorum,
    clock_skew,
    compaction_and_snapshot,
    drained_leader,
    earlier_term,
    first_election,
    fail_over,
    late_flush,
    learner,
    lost_append,
    one_voter,
    partitioned_pre_vote,
    priorities,
    reads,
    restart,
    split_vote,
    stale_leader,
    transfer,
}
