//! Verification on a graphics card.
//!
//! Relies on the kernels in `kernels/`, whose source is proved on the host by `tests/kernel`, and on a
//! driver that may be missing. Promises verdicts of the one rule or an error, never a panic and never a
//! guess: whoever gets an error verifies on the processor. Knows no request.

mod cards;
mod device;
mod slots;
mod source;

pub use cards::{CardError, Cards, Choice};
pub(crate) use device::LANES;
pub use device::{Device, DeviceConfig, DeviceError, Vote};
pub use source::{Binary, built, compile_ptx, flattened_source};
