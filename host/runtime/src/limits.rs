//! What one run may use, and the prices of calls into the host.
//!
//! Relies on the engine's fuel for what runs inside the component. Promises that the same run uses the
//! same fuel on every machine, and that no call moves bytes for which it did not pay. Knows no command.

use quorate_types::ComponentLimits;
use wasmtime::{ResourceLimiter, StoreContextMut};

use crate::error::{Fault, Limit, NoHostMemory};
use crate::host::HostState;

/// Fuel for any call into the host: about its time in instructions.
const CALL_FUEL: u64 = 200;
/// Fuel for each pair that a call visits or changes: a step in the state's tree.
const PAIR_FUEL: u64 = 100;
/// As many bytes moved between component and host cost one unit of fuel.
const BYTES_PER_FUEL: u64 = 8;
/// Bytes that every change, event and timer counts beside its content, so that empty ones are not free.
const ITEM_OUTPUT_BYTES: u64 = 32;
/// A list crosses into the host as at most so many times the bytes that its items count as output: an
/// item is a record of some 110 bytes there and counts 32 beside its content.
const CROSSING_FACTOR: u64 = 4;
/// What one command's outcome takes beside its bytes while it crosses into the host.
const OUTCOME_CROSSING_BYTES: u64 = 256;
/// The most bytes that may cross into the host in one call, whatever the group's limits.
const CROSSING_BYTES_MAX: u64 = 256 << 20;
/// The most elements of a table: functions that one component may call by pointer.
pub(crate) const TABLE_ELEMENTS_MAX: usize = 100_000;
/// The greatest memory that any group's limits may grant.
pub(crate) const MEMORY_BYTES_MAX: usize = 1 << 30;

/// What one run may use: one command's limits, times the commands it runs.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Allowance {
    pub(crate) fuel: u64,
    memory_bytes: usize,
    output_bytes: u64,
    host_calls: u64,
    /// Bytes that may cross into the host in one call.
    pub(crate) crossing_bytes: usize,
}

impl Allowance {
    /// The limits for `commands` commands in one instance. Memory is the instance's and does not multiply.
    pub(crate) fn of(limits: &ComponentLimits, commands: usize) -> Self {
        let commands = commands as u64;
        let output_bytes = limits.output_bytes.saturating_mul(commands);
        let outcomes = OUTCOME_CROSSING_BYTES.saturating_mul(commands);
        let crossing = output_bytes.saturating_mul(CROSSING_FACTOR).saturating_add(outcomes);
        Self {
            fuel: limits.fuel_per_command.saturating_mul(commands),
            memory_bytes: usize::try_from(limits.memory_bytes)
                .unwrap_or(MEMORY_BYTES_MAX)
                .min(MEMORY_BYTES_MAX),
            output_bytes,
            host_calls: limits.host_calls.saturating_mul(commands),
            crossing_bytes: crossing.min(CROSSING_BYTES_MAX) as usize,
        }
    }
}

/// What is left of an allowance during a run.
#[derive(Debug)]
pub(crate) struct Meter {
    memory_bytes: usize,
    output_left: u64,
    calls_left: u64,
}

impl Meter {
    pub(crate) fn new(allowance: &Allowance) -> Self {
        Self {
            memory_bytes: allowance.memory_bytes,
            output_left: allowance.output_bytes,
            calls_left: allowance.host_calls,
        }
    }

    /// Counts bytes that stay behind after the run.
    pub(crate) fn output(&mut self, bytes: usize) -> Result<(), Fault> {
        match self.output_left.checked_sub(bytes as u64) {
            Some(left) => self.output_left = left,
            None => return Err(Fault::OverLimit(Limit::Output)),
        }
        Ok(())
    }

    /// Counts one change, event or timer with this much content.
    pub(crate) fn output_item(&mut self, bytes: usize) -> Result<(), Fault> {
        self.output(bytes.saturating_add(ITEM_OUTPUT_BYTES as usize))
    }
}

/// Counts a call into the host and takes its price.
pub(crate) fn pay_call(store: &mut StoreContextMut<'_, HostState>) -> wasmtime::Result<()> {
    let meter = &mut store.data_mut().meter;
    match meter.calls_left.checked_sub(1) {
        Some(left) => meter.calls_left = left,
        None => return Err(Fault::OverLimit(Limit::HostCalls).into()),
    }
    pay(store, CALL_FUEL)
}

/// Takes the price of `pairs` visited and `bytes` moved.
pub(crate) fn pay_work(
    store: &mut StoreContextMut<'_, HostState>,
    pairs: usize,
    bytes: usize,
) -> wasmtime::Result<()> {
    let pairs = (pairs as u64).saturating_mul(PAIR_FUEL);
    pay(store, pairs.saturating_add(bytes as u64 / BYTES_PER_FUEL))
}

fn pay(store: &mut StoreContextMut<'_, HostState>, fuel: u64) -> wasmtime::Result<()> {
    let left = store.get_fuel()?;
    store.set_fuel(left.saturating_sub(fuel))?;
    if left < fuel { Err(Fault::OutOfFuel.into()) } else { Ok(()) }
}

impl ResourceLimiter for Meter {
    /// Growth beyond the memory's own maximum fails softly, as the specification has it. Growth beyond the
    /// limit traps, so that it shows for what it is.
    fn memory_growing(&mut self, _: usize, desired: usize, maximum: Option<usize>) -> wasmtime::Result<bool> {
        if maximum.is_some_and(|maximum| desired > maximum) {
            return Ok(false);
        }
        if desired > self.memory_bytes {
            return Err(Fault::OverLimit(Limit::Memory).into());
        }
        Ok(true)
    }

    /// Growth that was granted failed, which is this machine's doing alone.
    fn memory_grow_failed(&mut self, error: wasmtime::Error) -> wasmtime::Result<()> {
        Err(NoHostMemory(error.to_string()).into())
    }

    fn table_growing(&mut self, _: usize, desired: usize, maximum: Option<usize>) -> wasmtime::Result<bool> {
        if maximum.is_some_and(|maximum| desired > maximum) {
            return Ok(false);
        }
        if desired > TABLE_ELEMENTS_MAX {
            return Err(Fault::OverLimit(Limit::Memory).into());
        }
        Ok(true)
    }
}
