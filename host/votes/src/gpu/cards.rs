//! All cards that a node uses, as one.
//!
//! Relies on [`Device`] for each. Promises one line for the log whatever is found, the processor path where
//! nothing is, and batches that go to the cards in turn. Knows no configuration file.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};

use quorate_crypto::Check;

use super::device::{Device, DeviceConfig, DeviceError, LANES};
use crate::{Backend, Verdicts};

/// Which cards a node uses.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Choice {
    /// None, even if there are some.
    Off,
    /// All there are.
    #[default]
    All,
    /// These, by their numbers from 0.
    These(Vec<usize>),
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
    #[must_use]
    pub fn open(choice: &Choice, config: DeviceConfig) -> (Option<Self>, String) {
        let ordinals: Vec<usize> = match choice {
            Choice::Off => return (None, "votes are verified on the processor, as configured".to_owned()),
            Choice::All => (0..Device::count()).collect(),
            Choice::These(ordinals) => ordinals.clone(),
        };
        let mut devices = Vec::new();
        let mut faults = Vec::new();
        for ordinal in ordinals {
            match open_one(DeviceConfig { ordinal, ..config }) {
                Ok(device) => devices.push(device),
                Err(error) => faults.push(format!("device {ordinal}: {error}")),
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
        ((!devices.is_empty()).then_some(Self { devices, next: AtomicUsize::new(0) }), line)
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
    opened.unwrap_or_else(|_| Err(DeviceError::Driver("the driver is too old or incomplete".to_owned())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cards_that_are_off_or_not_there_leave_the_processor_and_one_line() {
        let (cards, line) = Cards::open(&Choice::Off, DeviceConfig::default());
        assert!(cards.is_none() && line.contains("as configured"));
        let missing = Choice::These(vec![Device::count() + 7]);
        let (cards, line) = Cards::open(&missing, DeviceConfig::default());
        assert!(cards.is_none() && line.contains("no device is present") && line.contains("device"));
        assert_eq!(line.lines().count(), 1);
        let (cards, _) = Cards::open(&Choice::All, DeviceConfig::default());
        assert_eq!(cards.is_some(), Device::count() > 0);
    }
}
