//! Signatures that are verified in one go, and their verdicts.
//!
//! Relies on the one rule of `crypto`. Promises a verdict for each signature, in order, reached for it
//! alone. Knows no request.

use quorate_crypto::Check;

/// Verdicts of a batch, in the order of its signatures.
pub type Verdicts = Vec<bool>;

/// Where in an open request a signature belongs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    /// The job, see the verifier.
    pub job: u64,
    /// The signature within the job.
    pub at: usize,
}

/// Signatures to be verified; given out by the verifier, and given back to it with their verdicts.
#[derive(Debug)]
pub struct Batch {
    pub(crate) checks: Vec<Check>,
    pub(crate) places: Vec<Place>,
}

impl Batch {
    /// An empty batch with room for `room` signatures.
    pub(crate) fn with_room(room: usize) -> Self {
        Self { checks: Vec::with_capacity(room), places: Vec::with_capacity(room) }
    }

    /// The signatures.
    #[must_use]
    pub fn checks(&self) -> &[Check] {
        &self.checks
    }

    /// Verifies one after another on the calling thread.
    #[must_use]
    pub fn verify(&self) -> Verdicts {
        self.checks.iter().map(|check| check.verify().is_accepted()).collect()
    }
}
