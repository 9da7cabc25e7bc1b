//! A device as the service sees it, and the processor's check on it.
//!
//! Relies on the device for verdicts and on the processor for a sample of them. Promises verdicts of a whole
//! batch or an error. Knows no thread.

use quorate_crypto::Check;

use crate::Verdicts;
use crate::gpu::{Device, DeviceError, LANES};

/// Rejections of one batch that the processor confirms; each counts against a peer. A flood of bad
/// signatures must not move the whole load back to the processor.
const REJECTED_CONFIRMED_MAX: usize = 8;

/// What verifies batches beside the processor.
pub trait Backend: Send + Sync {
    /// Verifies a batch of at most [`Backend::batch_max`] signatures.
    ///
    /// # Errors
    ///
    /// [`DeviceError`]; there are no verdicts then.
    fn verify(&self, checks: &[Check]) -> Result<Verdicts, DeviceError>;

    /// The most signatures of one batch.
    fn batch_max(&self) -> usize;

    /// How many batches may be under way at a time.
    fn lanes(&self) -> usize;
}

impl Backend for Device {
    fn verify(&self, checks: &[Check]) -> Result<Verdicts, DeviceError> {
        Device::verify(self, checks)
    }

    fn batch_max(&self) -> usize {
        Device::batch_max(self)
    }

    fn lanes(&self) -> usize {
        LANES
    }
}

/// Verifies on the device and confirms one vote and the first rejections on the processor.
pub(crate) fn verify_confirmed(backend: &dyn Backend, checks: &[Check]) -> Result<Verdicts, DeviceError> {
    let verdicts = backend.verify(checks)?;
    if verdicts.len() != checks.len() {
        return Err(DeviceError::Disagrees);
    }
    // Which vote is the sample depends on the signatures, so that it is another one in each batch.
    let sample = checks.iter().fold(0_usize, |sum, check| sum.wrapping_add(check.signature.0[0].into()));
    let sample = std::iter::once(sample % checks.len().max(1));
    let rejected = (0..checks.len()).filter(|vote| !verdicts[*vote]).take(REJECTED_CONFIRMED_MAX);
    for vote in sample.chain(rejected) {
        let Some(check) = checks.get(vote) else { break };
        if check.verify().is_accepted() != verdicts[vote] {
            return Err(DeviceError::Disagrees);
        }
    }
    Ok(verdicts)
}
