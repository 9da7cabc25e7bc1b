//! All cards that a node uses, as one.
//!
//! Relies on [`Device`] for each. Promises one line for the log whatever is found, that a card is used only if it
//! verifies every published vector as the processor does, the processor path where nothing is found, an error where
//! a card that was named is not, and batches that go to the cards in turn. Knows no configuration file.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};

use quorate_crypto::Check;

use super::device::{Device, DeviceConfig, DeviceError, LANES};
use crate::measure::check_vectors;
use crate::{Backend, Verdicts};

/// Which cards a node uses.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Choice {
    /// None, even if there are some.
    Off,
    /// All there are and that can be used; none is as good.
    #[default]
    All,
    /// These and no fewer, by their numbers from 0.
    These(Vec<usize>),
}

/// A card that was named and cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("card {ordinal} cannot verify votes: {fault}")]
pub struct CardError {
    /// Its number, from 0.
    pub ordinal: usize,
    /// Why not.
    pub fault: DeviceError,
}

/// The cards that were opened; at least one.
#[derive(Debug)]
pub struct Cards {
    devices: Vec<Device>,
    next: AtomicUsize,
}

impl Cards {
    /// Opens the chosen cards, each as `config` says but for its number. `None` means the processor path.
    /// The text is one line for the log.
    ///
    /// # Errors
    ///
    /// [`CardError`] for the first card that was named and cannot be used.
    pub fn open(choice: &Choice, config: DeviceConfig) -> Result<(Option<Self>, String), CardError> {
        let ordinals: Vec<usize> = match choice {
            Choice::Off => {
                return Ok((None, "votes are verified on the processor, as configured".to_owned()));
            }
            Choice::All => (0..Device::count()).collect(),
            Choice::These(ordinals) => ordinals.clone(),
        };
        let mut devices = Vec::new();
        let mut faults = Vec::new();
        for ordinal in ordinals {
            match open_one(DeviceConfig { ordinal, ..config }) {
                Ok(device) => devices.push(device),
                Err(fault) if matches!(choice, Choice::These(_)) => return Err(CardError { ordinal, fault }),
                Err(fault) => faults.push(CardError { ordinal, fault }.to_string()),
            }
        }
        let names: Vec<_> = devices.iter().map(Device::name).collect();
        let mut line = match names.is_empty() {
            true => "votes are verified on the processor: no device is present".to_owned(),
            false => format!("votes are verified on the processor and on {}", names.join(", ")),
        };
        if !faults.is_empty() {
            line = format!("{line} ({})", faults.join("; "));
        }
        Ok(((!devices.is_empty()).then_some(Self { devices, next: AtomicUsize::new(0) }), line))
    }

    /// All of them, in the order of their turns.
    #[must_use]
    pub fn devices(&self) -> &[Device] {
        &self.devices
    }

    /// The first card, to be measured; the others are taken to cost the same.
    #[must_use]
    pub fn first(&self) -> &Device {
        &self.devices[0]
    }
}

impl Backend for Cards {
    fn verify(&self, checks: &[Check]) -> Result<Verdicts, DeviceError> {
        let turn = self.next.fetch_add(1, Ordering::Relaxed);
        self.devices[turn % self.devices.len()].verify(checks)
    }

    fn batch_max(&self) -> usize {
        self.devices.iter().map(Device::batch_max).min().unwrap_or(1)
    }

    fn lanes(&self) -> usize {
        self.devices.len() * LANES
    }
}

/// Opens a card; a driver that lacks a function makes cudarc panic, which is an error here.
fn open_one(config: DeviceConfig) -> Result<Device, DeviceError> {
    let opened = catch_unwind(AssertUnwindSafe(|| Device::open(config)));
    let incomplete = || Err(DeviceError::Driver("the driver is too old or incomplete".to_owned()));
    let device = opened.unwrap_or_else(|_| incomplete())?;
    match check_vectors(&device)?.mismatches {
        0 => Ok(device),
        _ => Err(DeviceError::Disagrees),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cards_that_are_off_or_not_there_leave_the_processor_and_one_line() {
        let open = |choice| Cards::open(&choice, DeviceConfig::default());
        let (cards, line) = open(Choice::Off).expect("none is needed");
        assert!(cards.is_none() && line.contains("as configured"));
        let (cards, line) = open(Choice::All).expect("none is needed");
        assert_eq!(cards.is_some(), Device::count() > 0);
        assert_eq!(line.lines().count(), 1);
    }

    /// What could go wrong: an operator who counts on a card has a node that never says that it has none.
    #[test]
    fn a_card_that_was_named_and_is_not_there_is_an_error() {
        let ordinal = Device::count() + 7;
        let refused = Cards::open(&Choice::These(vec![ordinal]), DeviceConfig::default()).map(|_| ());
        assert_eq!(refused, Err(CardError { ordinal, fault: DeviceError::Missing }));
    }
}
