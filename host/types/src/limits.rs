//! What one component may use, fixed per group so that every replica draws the line at one place.
//!
//! Relies on the codec. Promises that limits which passed [`ComponentLimits::validate`] are within
//! ranges the host can honour. Knows no engine.

use crate::codec::{DecodeError, Reader, Writer};

/// The limits of a component, the same on every replica of its group.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ComponentLimits {
    /// Fuel for one command; one unit is about one WebAssembly instruction. 10,000 to 10^10.
    pub fuel_per_command: u64,
    /// Linear memory of one instance, in bytes. 1 MiB to 1 GiB.
    pub memory_bytes: u64,
    /// Bytes one command may write, emit and answer together. 1 KiB to 16 MiB.
    pub output_bytes: u64,
    /// Calls one command may make into the host. 16 to 10^7.
    pub host_calls: u64,
}

impl Default for ComponentLimits {
    fn default() -> Self {
        Self {
            fuel_per_command: 20_000_000,
            memory_bytes: 64 << 20,
            output_bytes: 4 << 20,
            host_calls: 100_000,
        }
    }
}

/// A limit is outside the range the host can honour.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{name} is {value}; choose {least} to {greatest}")]
pub struct LimitsError {
    /// The limit's name.
    pub name: &'static str,
    /// Its value.
    pub value: u64,
    /// The least value allowed.
    pub least: u64,
    /// The greatest value allowed.
    pub greatest: u64,
}

impl ComponentLimits {
    /// Checks every limit against its range.
    ///
    /// # Errors
    ///
    /// [`LimitsError`] for the first that is outside.
    pub fn validate(&self) -> Result<(), LimitsError> {
        let ranges = [
            ("fuel_per_command", self.fuel_per_command, 10_000, 10_000_000_000),
            ("memory_bytes", self.memory_bytes, 1 << 20, 1 << 30),
            ("output_bytes", self.output_bytes, 1 << 10, 16 << 20),
            ("host_calls", self.host_calls, 16, 10_000_000),
        ];
        for (name, value, least, greatest) in ranges {
            if !(least..=greatest).contains(&value) {
                return Err(LimitsError { name, value, least, greatest });
            }
        }
        Ok(())
    }

    /// Appends the four limits, eight bytes each.
    pub fn encode(&self, out: &mut Writer) {
        out.u64(self.fuel_per_command);
        out.u64(self.memory_bytes);
        out.u64(self.output_bytes);
        out.u64(self.host_calls);
    }

    /// Reads what [`ComponentLimits::encode`] wrote, without checking ranges.
    ///
    /// # Errors
    ///
    /// [`DecodeError::Truncated`].
    pub fn decode(from: &mut Reader) -> Result<Self, DecodeError> {
        Ok(Self {
            fuel_per_command: from.u64("fuel limit")?,
            memory_bytes: from.u64("memory limit")?,
            output_bytes: from.u64("output limit")?,
            host_calls: from.u64("host call limit")?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_is_valid_and_zero_is_not() {
        assert_eq!(ComponentLimits::default().validate(), Ok(()));
        let none = ComponentLimits { host_calls: 0, ..ComponentLimits::default() };
        assert!(matches!(none.validate(), Err(LimitsError { name: "host_calls", value: 0, .. })));
    }
}
