//! The kernels' source, compiled for this machine, against `verify_strict` and big integers.
//!
//! Relies on a C++ compiler, found as the `cc` crate finds it: a test that cannot compile the source fails.
//! Promises that every path of the kernels gives the verdict of the one rule on each generated case and each
//! published vector, and that field and scalar arithmetic is right at its edges. What stands for the carry
//! flag is the only difference to the device (see `kernels/platform.h`).

#![allow(clippy::unwrap_used)]

mod cases;
mod library;

use std::sync::atomic::{AtomicUsize, Ordering};

use num_bigint::BigUint;

use crate::cases::{Case, Numbers};
use crate::library::{Library, Path, Table};

/// Generated cases that each of the two main paths must see.
const CASES: usize = 200_000;
/// Generated for that: about a sixth of them bring a key of their own, which has no table.
const GENERATED: usize = 245_000;
/// Every so many groups also go through the path with wide tables.
const WIDE_EVERY: usize = 10;

/// What a run over many cases saw.
#[derive(Default)]
struct Seen {
    accepted: AtomicUsize,
    rejected: AtomicUsize,
    mismatches: AtomicUsize,
    known_key: AtomicUsize,
    wide: AtomicUsize,
}

impl Seen {
    /// Compares one path's verdicts on a group of at most four cases with the rule's.
    fn compare(&self, library: &Library, path: &Path<'_>, group: &[&Case], expected: &[bool]) {
        let actual = library.verify(path, group);
        for ((case, expected), actual) in group.iter().zip(expected).zip(actual) {
            if *expected != actual {
                self.mismatches.fetch_add(1, Ordering::Relaxed);
                eprintln!("{} gives {actual}, the rule {expected}: {case:?}", path.name());
            }
        }
    }
}

/// Groups hold cases of one key in the order of generation, good and bad ones mixed, so that verdicts that
/// leak through the shared inversion are found, too.
#[test]
fn generated_cases_get_the_verdict_of_the_rule_on_every_path() {
    let library = Library::compile();
    let base = [4, 8].map(|window| library.base_table(window));
    let signers = cases::signers();
    let share = GENERATED.div_ceil(signers.len());
    let (seen, next) = (Seen::default(), AtomicUsize::new(0));
    let work = || {
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            let Some(signer) = signers.get(number) else { return };
            let cases = cases::of(signer, number as u64, share, &signers);
            let narrow = library.table(4, &signer.public);
            let wide = library.table(8, &signer.public);
            for (at, group) in cases.chunks(4).enumerate() {
                run_group(library, &base, (narrow.as_ref(), wide.as_ref()), at, group, &seen);
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, |cores| cores.get().min(4)) {
            scope.spawn(work);
        }
    });
    let [accepted, rejected, mismatches, known_key, wide] =
        [&seen.accepted, &seen.rejected, &seen.mismatches, &seen.known_key, &seen.wide]
            .map(|count| count.load(Ordering::Relaxed));
    let any_key = accepted + rejected;
    println!(
        "{any_key} cases through the path for any key, {known_key} through the one with tables, {wide} through \
         the one with wide tables: {accepted} accepted, {rejected} rejected, {mismatches} mismatches"
    );
    assert_eq!(mismatches, 0);
    assert!(any_key >= CASES && known_key >= CASES && wide >= CASES / WIDE_EVERY / 2);
    assert!(accepted >= CASES / 10 && rejected >= CASES / 10, "cases of both kinds");
}

fn run_group(
    library: &Library,
    base: &[Table; 2],
    (narrow, wide): (Option<&Table>, Option<&Table>),
    at: usize,
    group: &[Case],
    seen: &Seen,
) {
    let expected: Vec<_> = group.iter().map(Case::expected).collect();
    let accepted = expected.iter().filter(|verdict| **verdict).count();
    seen.accepted.fetch_add(accepted, Ordering::Relaxed);
    seen.rejected.fetch_add(group.len() - accepted, Ordering::Relaxed);
    let all: Vec<_> = group.iter().collect();
    seen.compare(library, &Path::AnyKey { base: &base[0] }, &all, &expected);
    // Cases that change the key itself have no table of their own; the key's owner is refused one, or the
    // case says so by naming another key.
    let with_table: Vec<usize> = (0..group.len()).filter(|place| group[*place].uses_signers_key).collect();
    let cases: Vec<_> = with_table.iter().map(|place| &group[*place]).collect();
    let expected: Vec<_> = with_table.iter().map(|place| expected[*place]).collect();
    let Some(narrow) = narrow else {
        // No table can be built for a key of small order, whose signatures the rule refuses.
        let wrong = expected.iter().filter(|verdict| **verdict).count();
        seen.mismatches.fetch_add(wrong, Ordering::Relaxed);
        return;
    };
    seen.known_key.fetch_add(cases.len(), Ordering::Relaxed);
    seen.compare(library, &Path::KnownKey { key: narrow, base: &base[0] }, &cases, &expected);
    if at.is_multiple_of(WIDE_EVERY) {
        let wide = wide.expect("both widths refuse the same keys");
        seen.wide.fetch_add(cases.len(), Ordering::Relaxed);
        seen.compare(library, &Path::KnownKey { key: wide, base: &base[1] }, &cases, &expected);
    }
}

#[test]
fn published_vectors_get_their_verdicts_on_every_path() {
    let library = Library::compile();
    let base = [4, 8].map(|window| library.base_table(window));
    let vectors = cases::vectors();
    // All 170 but the twelve of Wycheproof whose signature has not 64 bytes.
    assert_eq!(vectors.len(), 158);
    let mut mismatches = 0;
    for (expected, case) in &vectors {
        assert_eq!(case.expected(), *expected, "the rule itself on {case:?}");
        let mut verdicts = library.verify(&Path::AnyKey { base: &base[0] }, &[case]);
        for (window, base) in [4, 8].into_iter().zip(&base) {
            verdicts.push(match library.table(window, &case.public) {
                Some(key) => library.verify(&Path::KnownKey { key: &key, base }, &[case])[0],
                None => false,
            });
        }
        mismatches += verdicts.iter().filter(|verdict| *verdict != expected).count();
    }
    println!("{} vectors through three paths, {mismatches} mismatches", vectors.len());
    assert_eq!(mismatches, 0);
}

/// Values around every bound that a carry can miss.
fn edges(numbers: &mut Numbers) -> Vec<BigUint> {
    let two = |exponent: u32| BigUint::from(2u8).pow(exponent);
    let prime = two(255) - 19u8;
    let mut edges: Vec<BigUint> = (0u8..40).map(BigUint::from).collect();
    for center in [prime.clone(), &prime * 2u8, two(255), two(256) - 40u8, two(128), two(252), two(224)] {
        edges.extend((0u8..40).map(|offset| &center + offset));
        edges.extend((1u8..40).map(|offset| &center - offset));
    }
    for word in 0..8 {
        edges.push(two(32 * word) * u32::MAX);
        edges.push(two(256) - 1u8 - two(32 * word) * u32::MAX);
    }
    edges.extend((0..200).map(|_| BigUint::from_bytes_le(&numbers.bytes::<32>())));
    edges.retain(|edge| *edge < two(256));
    edges.sort();
    edges.dedup();
    edges
}

#[test]
fn field_operations_agree_with_big_integers_at_the_edges() {
    let library = Library::compile();
    let prime = BigUint::from(2u8).pow(255) - 19u8;
    let inverse = |a: &BigUint| a.modpow(&(&prime - 2u8), &prime);
    let root = |a: &BigUint| a.modpow(&((&prime - 5u8) / 8u8), &prime);
    let edges = edges(&mut Numbers::new(1));
    let mut checked = 0_usize;
    let mut check = |operation: i32, a: &BigUint, b: &BigUint, expected: BigUint| {
        let actual = library.field(operation, a, b);
        assert_eq!(actual, expected % &prime, "operation {operation} on {a:x} and {b:x}");
        checked += 1;
    };
    for a in &edges {
        check(1, a, a, a * a);
        check(6, a, a, a.clone());
        check(4, a, a, inverse(a));
        check(5, a, a, root(a));
        for b in &edges {
            check(0, a, b, a * b);
            check(2, a, b, a + b);
            check(3, a, b, a + &prime * 4u8 - b);
        }
    }
    println!("{checked} field operations on {} values, 0 mismatches", edges.len());
    assert!(checked > 500_000, "{checked}");
}

#[test]
fn scalars_are_reduced_as_big_integers_are() {
    let library = Library::compile();
    let order = cases::order();
    let two = |exponent: u32| BigUint::from(2u8).pow(exponent);
    let mut numbers = Numbers::new(2);
    let mut values: Vec<BigUint> =
        (0..20_000).map(|_| BigUint::from_bytes_le(&numbers.bytes::<64>())).collect();
    for multiple in
        [BigUint::from(0u8), 1u8.into(), 2u8.into(), two(128), two(259), (two(512) - 1u8) / &order]
    {
        for offset in 0u8..3 {
            values.push(&order * &multiple + offset);
            values.push(&order * &multiple + &order - 1u8 - offset);
        }
    }
    values.push(two(512) - 1u8);
    values.retain(|value| *value < two(512));
    for value in &values {
        assert_eq!(library.scalar_reduce(value), value % &order, "{value:x}");
    }
    println!("{} scalars, 0 mismatches", values.len());
}
