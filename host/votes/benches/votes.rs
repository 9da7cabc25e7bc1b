//! How many signatures a core verifies a second: bare, and through the vote service's own work.
//!
//! Relies on criterion. Promises that both sides verify the same votes of a hundred members, every sixteenth
//! of them forged. `RUSTFLAGS='--cfg curve25519_dalek_backend="serial"'` measures the portable backend.

use std::hint::black_box;
use std::time::Duration;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use quorate_types::{NodeId, Time};
use quorate_votes::{Request, Verifier, VerifierLimits, measure};

/// Votes of one round.
const VOTES: usize = 1_024;
/// Signatures of one batch, as a thread of the service takes them.
const BATCH: usize = 64;

fn votes(criterion: &mut Criterion) {
    let (checks, expected) = measure::votes(VOTES);
    let mut group = criterion.benchmark_group("votes");
    group.throughput(Throughput::Elements(VOTES as u64)).sample_size(20);
    group.bench_function("bare", |bencher| {
        bencher.iter(|| assert_eq!(measure::on_processor(black_box(&checks), 1), expected));
    });
    group.bench_function("service", |bencher| {
        bencher.iter(|| {
            let mut verifier = Verifier::new(VerifierLimits::default());
            for check in &checks {
                let taken = verifier.submit(Time(0), Request::signature(check.signer, *check));
                assert!(taken.is_ok());
            }
            while let Some(batch) = verifier.next_batch(BATCH) {
                let verdicts = batch.verify();
                verifier.complete(Time(1), batch, &verdicts, Duration::ZERO);
            }
            let answers = std::iter::from_fn(|| verifier.next_answer());
            let rejected = answers.filter(|answer| answer.culprit().is_some_and(|peer| peer > NodeId::ZERO));
            assert_eq!(rejected.count(), VOTES / 16);
        });
    });
    group.finish();
}

criterion_group!(benches, votes);
criterion_main!(benches);
