//! The component engine of one node: its settings, its pool of instances and its watchdog.
//!
//! Relies on wasmtime. Promises one fixed configuration under which the same component does the same on
//! every node, and that queries can never take the instances that applying needs. Knows no component.

use std::num::NonZeroU64;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use wasmtime::component::Linker;
use wasmtime::{Config, InstanceAllocationStrategy, PoolingAllocationConfig};

use crate::diagnostics::{Diagnostics, Silent};
use crate::error::RuntimeError;
use crate::host::{self, Access, HostState};
use crate::limits::{MEMORY_BYTES_MAX, TABLE_ELEMENTS_MAX};

/// Native stack for a component's calls. A thread that runs components needs about twice as much in all.
const STACK_BYTES: usize = 512 << 10;
/// How often the watchdog looks.
const WATCHDOG_TICK: Duration = Duration::from_millis(50);
/// Core instances of one component: its module and what wraps it.
const CORE_INSTANCES_PER_COMPONENT: u32 = 8;
/// One memory, so that the limit on memory is the instance's.
const MEMORIES_PER_COMPONENT: u32 = 1;
const TABLES_PER_COMPONENT: u32 = 4;
/// Memory that a pooled slot keeps between entries: resetting it by writing zeros costs less than handing
/// pages back and faulting them in again, up to about this size.
const KEPT_MEMORY_BYTES: usize = 512 << 10;
const KEPT_TABLE_BYTES: usize = 8 << 10;

/// How the engine of one node runs. None of it changes what a component computes.
#[derive(Clone, Debug)]
pub struct EngineSettings {
    /// Instances that may run at once. 2 to 1,000; half are kept for applying, half serve queries.
    pub instances: u32,
    /// How long a component may run however little fuel it has, before this replica halts.
    pub watchdog: Duration,
    /// The least fuel per second that this machine is expected to burn; allows a run its fuel's time
    /// beyond [`EngineSettings::watchdog`].
    pub fuel_per_second: NonZeroU64,
    /// How long compiling one component may take.
    pub compile_limit: Duration,
    /// Receives what components say for people.
    pub diagnostics: Arc<dyn Diagnostics>,
}

impl Default for EngineSettings {
    fn default() -> Self {
        Self {
            instances: 64,
            watchdog: Duration::from_secs(60),
            fuel_per_second: NonZeroU64::new(20_000_000).expect("twenty million is not zero"),
            compile_limit: Duration::from_secs(60),
            diagnostics: Arc::new(Silent),
        }
    }
}

/// Compiles and runs components. Cheap to clone; all clones share one pool.
#[derive(Clone, Debug)]
pub struct Engine {
    pub(crate) shared: Arc<Shared>,
}

/// What all clones of an engine and all its components share.
pub(crate) struct Shared {
    pub(crate) engine: wasmtime::Engine,
    pub(crate) linker: Linker<HostState>,
    pub(crate) settings: EngineSettings,
    pub(crate) compiling: Compiling,
    applying: Permits,
    querying: Permits,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").field("settings", &self.settings).finish_non_exhaustive()
    }
}

/// The one compilation that may go on at a time.
#[derive(Debug, Default)]
pub(crate) struct Compiling {
    /// Held by whoever waits for a compilation.
    pub(crate) turn: Mutex<()>,
    /// A compilation goes on, whether or not anybody still waits for it.
    pub(crate) running: Arc<AtomicBool>,
}

impl Engine {
    /// Sets up the engine and starts its watchdog, which ends with the last clone and component.
    ///
    /// # Errors
    ///
    /// [`RuntimeError`] for a setting out of range, or when the machine refuses address space or a thread.
    pub fn new(settings: EngineSettings) -> Result<Self, RuntimeError> {
        let instances = settings.instances;
        if !(2..=1_000).contains(&instances) {
            let value = instances.into();
            return Err(RuntimeError::Setting { name: "instances", value, least: 2, greatest: 1_000 });
        }
        let refused = |error: wasmtime::Error| RuntimeError::Engine { reason: format!("{error:#}") };
        let engine = wasmtime::Engine::new(&config(instances)).map_err(refused)?;
        let mut linker = Linker::new(&engine);
        host::add_to_linker(&mut linker).map_err(refused)?;
        start_watchdog(&engine)?;
        let shared = Shared {
            engine,
            linker,
            settings,
            compiling: Compiling::default(),
            applying: Permits::new(instances - instances / 2),
            querying: Permits::new(instances / 2),
        };
        Ok(Self { shared: Arc::new(shared) })
    }
}

impl Shared {
    /// Waits for an instance of the pool. Every holder is bounded by its fuel, so the wait ends.
    pub(crate) fn permit(&self, access: Access) -> Permit<'_> {
        match access {
            Access::Change => self.applying.take(),
            Access::Read | Access::Nothing => self.querying.take(),
        }
    }

    /// How many ticks of the watchdog a run with this much fuel may last.
    pub(crate) fn deadline_ticks(&self, fuel: u64) -> u64 {
        let seconds = fuel / self.settings.fuel_per_second;
        let allowed = self.settings.watchdog.saturating_add(Duration::from_secs(seconds));
        let ticks = allowed.as_millis() / WATCHDOG_TICK.as_millis() + 2;
        // The engine adds this to its own count, which must not wrap.
        u64::try_from(ticks).unwrap_or(u64::MAX).min(u64::MAX / 2)
    }
}

/// Everything here is part of what makes replicas agree, except the pool's sizes and the watchdog.
fn config(instances: u32) -> Config {
    let mut config = Config::new();
    config.consume_fuel(true).epoch_interruption(true).max_wasm_stack(STACK_BYTES);
    config.cranelift_nan_canonicalization(true);
    config.wasm_relaxed_simd(false).wasm_memory64(false).wasm_custom_page_sizes(false);
    config.wasm_tail_call(false).wasm_wide_arithmetic(false).wasm_multi_memory(false);
    config.wasm_component_model(true).concurrency_support(false);
    let mut pool = PoolingAllocationConfig::new();
    pool.total_component_instances(instances)
        .total_core_instances(instances * CORE_INSTANCES_PER_COMPONENT)
        .total_memories(instances * MEMORIES_PER_COMPONENT)
        .total_tables(instances * TABLES_PER_COMPONENT)
        .max_core_instances_per_component(CORE_INSTANCES_PER_COMPONENT)
        .max_memories_per_component(MEMORIES_PER_COMPONENT)
        .max_tables_per_component(TABLES_PER_COMPONENT)
        .max_memory_size(MEMORY_BYTES_MAX)
        .table_elements(TABLE_ELEMENTS_MAX)
        .linear_memory_keep_resident(KEPT_MEMORY_BYTES)
        .table_keep_resident(KEPT_TABLE_BYTES);
    config.allocation_strategy(InstanceAllocationStrategy::Pooling(pool));
    config
}

/// Moves the engine's epoch so that runaway components meet their deadline.
fn start_watchdog(engine: &wasmtime::Engine) -> Result<(), RuntimeError> {
    let weak = engine.weak();
    let tick = move || {
        while let Some(engine) = weak.upgrade() {
            engine.increment_epoch();
            drop(engine);
            std::thread::sleep(WATCHDOG_TICK);
        }
    };
    let spawned = std::thread::Builder::new().name("quorate-watchdog".to_owned()).spawn(tick);
    spawned.map(drop).map_err(RuntimeError::Watchdog)
}

/// A number of places that are taken and given back.
#[derive(Debug)]
struct Permits {
    free: Mutex<u32>,
    given_back: Condvar,
}

/// One place, given back when dropped.
pub(crate) struct Permit<'a> {
    of: &'a Permits,
}

impl Permits {
    fn new(count: u32) -> Self {
        Self { free: Mutex::new(count), given_back: Condvar::new() }
    }

    fn take(&self) -> Permit<'_> {
        // A count is whole whatever happened to its holder, so poison does not matter.
        let free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        let mut free =
            self.given_back.wait_while(free, |free| *free == 0).unwrap_or_else(PoisonError::into_inner);
        *free -= 1;
        Permit { of: self }
    }
}

impl Drop for Permit<'_> {
    fn drop(&mut self) {
        *self.of.free.lock().unwrap_or_else(PoisonError::into_inner) += 1;
        self.of.given_back.notify_one();
    }
}
