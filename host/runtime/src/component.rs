//! From bytes to a component that can be run.
//!
//! Relies on the shape check and the engine. Promises that a [`Component`] has passed every check: world,
//! types, `describe`. Knows no group; running entries is told in `apply.rs`.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Arc, PoisonError};

use quorate_types::{ComponentLimits, Digest};
use wasmtime::Store;
use wasmtime::component::{ComponentExportIndex, Instance, InstancePre};

use crate::abi::function;
use crate::check::{World, check_shape};
use crate::descriptor::Descriptor;
use crate::diagnostics::Source;
use crate::engine::{Engine, Shared};
use crate::error::{CheckError, Failure, Fault, Halt};
use crate::host::{Access, HostState, PACKAGE, VERSION};
use crate::limits::{Allowance, Meter};
use crate::overlay::Overlay;

/// A checked and compiled component. Cheap to clone.
#[derive(Clone)]
pub struct Component {
    pub(crate) inner: Arc<Inner>,
}

pub(crate) struct Inner {
    pub(crate) shared: Arc<Shared>,
    digest: Digest,
    descriptor: Descriptor,
    code: Code,
}

impl std::fmt::Debug for Component {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Descriptor { name, version, .. } = self.descriptor();
        write!(f, "Component({name}@{version} {})", self.digest().short())
    }
}

/// Compiled code with its imports bound, and where its exports are.
pub(crate) struct Code {
    pre: InstancePre<HostState>,
    pub(crate) exports: Exports,
    source: Arc<Source>,
}

/// Where a component's functions are, so that no run looks them up by name.
pub(crate) struct Exports {
    describe: ComponentExportIndex,
    pub(crate) init: ComponentExportIndex,
    pub(crate) apply: ComponentExportIndex,
    pub(crate) query: ComponentExportIndex,
    pub(crate) migrate: ComponentExportIndex,
    merge: Option<ComponentExportIndex>,
}

/// How a run of one instance ended, unless it halted.
pub(crate) struct Ended<R> {
    /// What the component answered, or its fault.
    pub(crate) result: Result<R, Fault>,
    /// What it left at the host; to be dropped after a fault.
    pub(crate) host: HostState,
    /// Fuel used.
    pub(crate) fuel: u64,
}

impl Engine {
    /// Checks and compiles a component. Takes from milliseconds to seconds and blocks: call it off the
    /// consensus path.
    ///
    /// # Errors
    ///
    /// [`CheckError`], each saying what to do about it.
    pub fn compile(&self, bytes: &[u8]) -> Result<Component, CheckError> {
        let world = check_shape(bytes)?;
        let digest = quorate_crypto::component_digest(bytes);
        let compiled = self.compile_in_time(bytes)?;
        let pre = self.shared.linker.instantiate_pre(&compiled).map_err(|error| CheckError::WrongType {
            item: "an import".to_owned(),
            reason: format!("{error:#}"),
        })?;
        let source = Source { component: digest, label: String::new() };
        let exports = Exports::find(&compiled, world)?;
        let mut code = Code { pre, exports, source: Arc::new(source) };
        let descriptor = code.describe(&self.shared, world)?;
        let label = format!("{}@{}", descriptor.name, descriptor.version);
        code.source = Arc::new(Source { component: digest, label });
        Ok(Component {
            inner: Arc::new(Inner { shared: Arc::clone(&self.shared), digest, descriptor, code }),
        })
    }

    /// A compilation cannot be interrupted. One that outlives its limit is left to end on its thread, and
    /// until then no other starts, so that at most one such thread exists.
    fn compile_in_time(&self, bytes: &[u8]) -> Result<wasmtime::component::Component, CheckError> {
        let Shared { engine, settings, compiling, .. } = &*self.shared;
        let _turn = compiling.turn.lock().unwrap_or_else(PoisonError::into_inner);
        if compiling.running.swap(true, Ordering::AcqRel) {
            return Err(CheckError::Busy);
        }
        let running = Running(Arc::clone(&compiling.running));
        let (engine, bytes, limit) = (engine.clone(), bytes.to_vec(), settings.compile_limit);
        let (done, result) = mpsc::sync_channel(1);
        let work = move || {
            let compiled = wasmtime::component::Component::from_binary(&engine, &bytes);
            drop(running);
            // Whoever waited may have given up.
            done.send(compiled).ok();
        };
        let spawned = std::thread::Builder::new().name("quorate-compile".to_owned()).spawn(work);
        spawned.map_err(|error| CheckError::Node { reason: format!("no thread to compile on: {error}") })?;
        match result.recv_timeout(limit) {
            Ok(compiled) => compiled.map_err(|error| CheckError::Malformed { reason: format!("{error:#}") }),
            Err(RecvTimeoutError::Timeout) => Err(CheckError::TooSlow { limit }),
            Err(RecvTimeoutError::Disconnected) => {
                Err(CheckError::Malformed { reason: "the compiler gave up on it".to_owned() })
            }
        }
    }
}

/// Says that a compilation has ended, however it did.
struct Running(Arc<AtomicBool>);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Release);
    }
}

impl Component {
    /// The digest of the component's bytes.
    #[must_use]
    pub fn digest(&self) -> Digest {
        self.inner.digest
    }

    /// What the component says of itself.
    #[must_use]
    pub fn descriptor(&self) -> &Descriptor {
        &self.inner.descriptor
    }

    pub(crate) fn code(&self) -> &Code {
        &self.inner.code
    }
}

impl Exports {
    fn find(compiled: &wasmtime::component::Component, world: World) -> Result<Self, CheckError> {
        let find = |interface: &str, function: &str| {
            let interface = format!("{PACKAGE}{interface}{VERSION}");
            let instance = compiled.get_export_index(None, &interface);
            let found = instance.and_then(|instance| compiled.get_export_index(Some(&instance), function));
            found.ok_or_else(|| CheckError::MissingExport { export: format!("{interface}#{function}") })
        };
        Ok(Self {
            describe: find("machine", "describe")?,
            init: find("machine", "init")?,
            apply: find("machine", "apply")?,
            query: find("machine", "query")?,
            migrate: find("machine", "migrate")?,
            merge: match world {
                World::StateMachine => None,
                World::MergeableStateMachine => Some(find("mergeable", "merge")?),
            },
        })
    }

    /// Compares the exports' types with what they will be called as.
    fn check_types(&self, store: &mut Store<HostState>, instance: &Instance) -> Result<(), CheckError> {
        let wrong = |item: &str, found: wasmtime::Result<()>| {
            let item = format!("export {PACKAGE}{item}");
            found.map_err(|error| CheckError::WrongType { item, reason: format!("{error:#}") })
        };
        macro_rules! check {
            ($item:literal, $index:expr, $function:ty) => {
                wrong($item, instance.get_typed_func(&mut *store, $index).map(|_: $function| ()))?
            };
        }
        check!("machine#describe", &self.describe, function::Describe);
        check!("machine#init", &self.init, function::Init<'_>);
        check!("machine#apply", &self.apply, function::Apply<'_>);
        check!("machine#query", &self.query, function::Query<'_>);
        check!("machine#migrate", &self.migrate, function::Migrate<'_>);
        if let Some(merge) = &self.merge {
            check!("mergeable#merge", merge, function::Merge<'_>);
        }
        Ok(())
    }
}

impl Code {
    /// Starts a fresh instance and calls into it.
    ///
    /// # Errors
    ///
    /// [`Halt`] when this replica cannot tell what the others will see.
    pub(crate) fn run<R>(
        &self,
        shared: &Shared,
        access: Access,
        overlay: Overlay,
        allowance: &Allowance,
        call: impl FnOnce(&mut Store<HostState>, &Instance) -> wasmtime::Result<R>,
    ) -> Result<Ended<R>, Halt> {
        let _permit = shared.permit(access);
        let (source, diagnostics) = (Arc::clone(&self.source), Arc::clone(&shared.settings.diagnostics));
        let host = HostState::new(access, overlay, Meter::new(allowance), source, diagnostics);
        let mut store = Store::new(&shared.engine, host);
        store.limiter(|host| &mut host.meter);
        store.set_fuel(allowance.fuel).expect("the engine counts fuel");
        store.set_epoch_deadline(shared.deadline_ticks(allowance.fuel));
        store.set_hostcall_fuel(allowance.crossing_bytes);
        let result = match self.pre.instantiate(&mut store) {
            Ok(instance) => call(&mut store, &instance).map_err(|error| Failure::of_call(&error)),
            Err(error) => Err(Failure::of_start(&error)),
        };
        let fuel = allowance.fuel - store.get_fuel().expect("the engine counts fuel");
        let result = match result {
            Ok(answer) => Ok(answer),
            Err(Failure::Fault(fault)) => Err(fault),
            Err(Failure::Halt(halt)) => return Err(halt),
        };
        Ok(Ended { result, host: store.into_data(), fuel })
    }

    /// Checks the exports' types and asks the component what it is.
    fn describe(&self, shared: &Shared, world: World) -> Result<Descriptor, CheckError> {
        let allowance = Allowance::of(&ComponentLimits::default(), 1);
        let ended = self.run(shared, Access::Nothing, Overlay::default(), &allowance, |store, instance| {
            if let Err(wrong) = self.exports.check_types(store, instance) {
                return Ok(Err(wrong));
            }
            let describe: function::Describe = instance.get_typed_func(&mut *store, self.exports.describe)?;
            Ok(Ok(describe.call(store, ())?.0))
        });
        match ended.map_err(|halt| CheckError::Node { reason: halt.to_string() })?.result {
            Ok(Ok(said)) => Descriptor::checked(said, world),
            Ok(Err(wrong)) => Err(wrong),
            Err(fault) => Err(CheckError::Describe { name: fault.name(), message: fault.message() }),
        }
    }
}
