//! What verifying costs here: on the processor, and on a card if there is one.
//!
//! Relies on a clock given from outside. Promises that every published vector was verified on the device
//! before anything is measured, that all verdicts which are timed are checked, and medians, not best times.
//! Knows no terminal: it returns numbers.

use std::time::Duration;

use quorate_crypto::{
    Check, PublicKey, Scope, SecretKey, Signature, Statement, StatementKind, verify_strict,
};
use quorate_types::{ClusterId, Digest, Epoch, GroupId, LogIndex, NodeId, Protocol, Time, View};

use crate::Verdicts;
use crate::dispatch::{Cost, Dispatch};
use crate::gpu::{Device, DeviceError, Vote};
use crate::service::Clock;

/// Members whose votes are measured.
const MEMBERS: u64 = 100;
/// Every so many votes one is forged, so that a path which accepts everything is found out.
const FORGED_EVERY: usize = 16;
/// The sizes of batches that are measured unless others are asked for.
pub const SIZES: [usize; 4] = [100, 1_000, 10_000, 100_000];
/// Rounds of which the median is taken.
const ROUNDS: usize = 15;

/// The published vectors: (verdict, key, message, signature, name) a line, see `crypto/tests/vectors`.
const VECTORS: [&str; 2] = [
    include_str!("../../crypto/tests/vectors/wycheproof.txt"),
    include_str!("../../crypto/tests/vectors/speccheck.txt"),
];

/// What one size costs on each side, medians in microseconds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Row {
    /// Votes of one batch.
    pub votes: usize,
    /// On so many threads of the processor.
    pub processor_us: f64,
    /// On the card, for any key; `None` without one.
    pub any_key_us: Option<f64>,
    /// On the card, with tables.
    pub tables_us: Option<f64>,
}

/// Vectors verified on the card.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct VectorCheck {
    /// How many, each on both paths.
    pub vectors: usize,
    /// Verdicts that differ from the rule's.
    pub mismatches: usize,
}

/// One published vector.
#[derive(Clone, Debug)]
struct Vector {
    key: [u8; 32],
    message: Vec<u8>,
    signature: [u8; 64],
}

impl Vote for Vector {
    fn key(&self) -> [u8; 32] {
        self.key
    }

    fn message(&self) -> &[u8] {
        &self.message
    }

    fn signature(&self) -> &[u8; 64] {
        &self.signature
    }
}

/// `count` votes of a hundred members, every sixteenth forged, and their verdicts.
#[must_use]
pub fn votes(count: usize) -> (Vec<Check>, Verdicts) {
    let (cluster, group, epoch) = (ClusterId([7; 16]), GroupId(1), Epoch(1));
    let scope = Scope { cluster, group, epoch, protocol: Protocol::HotStuff };
    let keys: Vec<(SecretKey, PublicKey)> = (0..MEMBERS.min(count as u64))
        .map(|node| {
            let mut seed = [1; 32];
            seed[..8].copy_from_slice(&node.to_le_bytes());
            let key = SecretKey::from_seed(&seed);
            let public = key.public();
            (key, public)
        })
        .collect();
    let check = |vote: usize| {
        let (node, view) = (vote % keys.len(), vote / keys.len());
        let (secret, key) = &keys[node];
        let (view, digest) = (View(view as u64 + 1), Digest([view as u8; 32]));
        let statement = Statement { scope, kind: StatementKind::Vote, view, index: LogIndex(view.0), digest };
        let mut signature = secret.sign(&statement);
        if vote % FORGED_EVERY == FORGED_EVERY - 1 {
            signature = Signature(signature.0.map(|byte| byte ^ 1));
        }
        let bytes = statement.signing_bytes();
        Check { signer: NodeId(node as u64 + 1), key: *key, bytes, signature }
    };
    let verdicts = (0..count).map(|vote| vote % FORGED_EVERY != FORGED_EVERY - 1).collect();
    ((0..count).map(check).collect(), verdicts)
}

/// Verifies every published vector on the card, on both paths, against the rule.
///
/// # Errors
///
/// [`DeviceError`].
pub fn check_vectors(device: &Device) -> Result<VectorCheck, DeviceError> {
    let mut check = VectorCheck::default();
    for vector in vectors() {
        let expected = verify_strict(&vector.key, &vector.message, &vector.signature);
        let one = std::slice::from_ref(&vector);
        let both = [device.verify_without_tables(one)?, device.verify(one)?];
        check.vectors += 1;
        check.mismatches += both.iter().filter(|verdicts| **verdicts != [expected]).count();
    }
    Ok(check)
}

/// Measures one size on both sides.
///
/// # Errors
///
/// [`DeviceError`]; [`DeviceError::Disagrees`] when a timed batch has a wrong verdict.
pub fn row(
    clock: &Clock,
    threads: usize,
    device: Option<&Device>,
    votes_count: usize,
) -> Result<Row, DeviceError> {
    let (checks, expected) = votes(votes_count);
    // A batch that takes the processor seconds is measured less often there.
    let rounds = if votes_count > 10_000 { 3 } else { ROUNDS };
    let processor = median(clock, rounds, &expected, || Ok(on_processor(&checks, threads)))?;
    let on_card = |with_tables: bool| {
        let run = |device: &Device| match with_tables {
            true => device.verify(&checks),
            false => device.verify_without_tables(&checks),
        };
        device.map(|device| median(clock, ROUNDS, &expected, || run(device))).transpose()
    };
    let (any_key, tables) = (on_card(false)?, on_card(true)?);
    let us = |time: Duration| time.as_secs_f64() * 1e6;
    Ok(Row {
        votes: votes_count,
        processor_us: us(processor),
        any_key_us: any_key.map(us),
        tables_us: tables.map(us),
    })
}

/// The costs of both sides, for [`Dispatch`].
///
/// # Errors
///
/// As [`row`].
pub fn dispatch(clock: &Clock, threads: usize, device: Option<&Device>) -> Result<Dispatch, DeviceError> {
    let measure = |count: usize, on_device: Option<&Device>| {
        let (checks, expected) = votes(count);
        let time = median(clock, 5, &expected, || match on_device {
            Some(device) => device.verify(&checks),
            None => Ok(on_processor(&checks, 1)),
        });
        time.map(|time| (count, time))
    };
    let processor = Cost::fit(&[measure(1, None)?, measure(64, None)?]);
    let device = match device {
        Some(device) => Cost::fit(&[measure(64, Some(device))?, measure(8_192, Some(device))?]),
        None => None,
    };
    Ok(Dispatch { processor, device, threads })
}

/// Verifies on so many threads of the processor.
#[must_use]
pub fn on_processor(checks: &[Check], threads: usize) -> Verdicts {
    let verify =
        |part: &[Check]| -> Verdicts { part.iter().map(|check| check.verify().is_accepted()).collect() };
    if threads <= 1 || checks.len() < 2 {
        return verify(checks);
    }
    std::thread::scope(|scope| {
        let parts = checks.chunks(checks.len().div_ceil(threads));
        let parts: Vec<_> = parts.map(|part| scope.spawn(move || verify(part))).collect();
        parts.into_iter().flat_map(|part| part.join().expect("verifying never panics")).collect()
    })
}

/// The median time of a batch whose verdicts are as expected; one round before is not counted.
fn median(
    clock: &Clock,
    rounds: usize,
    expected: &Verdicts,
    run: impl Fn() -> Result<Verdicts, DeviceError>,
) -> Result<Duration, DeviceError> {
    let mut times = Vec::with_capacity(rounds);
    for round in 0..=rounds {
        let start: Time = clock();
        let verdicts = run()?;
        let took = clock().since(start);
        if verdicts != *expected {
            return Err(DeviceError::Disagrees);
        }
        if round > 0 {
            times.push(took);
        }
    }
    times.sort();
    Ok(times[times.len() / 2])
}

/// All published vectors whose signature has 64 bytes.
fn vectors() -> Vec<Vector> {
    let bytes = |hex: &str| -> Option<Vec<u8>> {
        let hex = if hex == "-" { "" } else { hex };
        (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(hex.get(at..at + 2)?, 16).ok()).collect()
    };
    let lines = VECTORS.iter().flat_map(|text| text.lines()).filter(|line| !line.starts_with('#'));
    let parse = |line: &str| {
        let mut fields = line.split(' ').skip(1);
        let key = bytes(fields.next()?)?.try_into().ok()?;
        let message = bytes(fields.next()?)?;
        Some(Vector { key, message, signature: bytes(fields.next()?)?.try_into().ok()? })
    };
    lines.filter_map(parse).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::service::tests::clock;

    #[test]
    fn all_vectors_of_64_bytes_are_there_and_of_both_kinds() {
        let vectors = vectors();
        assert_eq!(vectors.len(), 153);
        let accepted = |vector: &Vector| verify_strict(&vector.key, &vector.message, &vector.signature);
        let count = vectors.iter().filter(|vector| accepted(vector)).count();
        assert!(count > 50 && count < 120, "{count}");
    }

    #[test]
    fn what_is_measured_has_the_verdicts_it_claims() {
        let (checks, expected) = votes(300);
        assert_eq!(on_processor(&checks, 1), expected);
        assert_eq!(on_processor(&checks, 3), expected);
        assert_eq!(on_processor(&[], 3), [] as [bool; 0]);
    }

    /// A path that answers wrongly must not get a time.
    #[test]
    fn wrong_verdicts_are_not_timed() {
        let run = || Ok(vec![true]);
        assert!(median(&clock(), 3, &vec![true], run).is_ok());
        assert_eq!(median(&clock(), 3, &vec![false], run), Err(DeviceError::Disagrees));
    }

    #[test]
    fn without_a_card_only_the_processor_is_measured() {
        let row = row(&clock(), 1, None, 4).unwrap();
        assert!(row.processor_us > 0.0 && row.any_key_us.is_none() && row.tables_us.is_none());
        let dispatch = dispatch(&clock(), 1, None).unwrap();
        assert!(dispatch.processor.is_some() && dispatch.device.is_none());
    }
}
