//! What a running component holds at the host, and the functions it may call.
//!
//! Relies on the overlay for reads and writes and on the meter for limits. Promises that every call pays
//! before it works, that a query cannot write and `describe` cannot even read, and that nothing here
//! depends on the machine. Knows no entry: whoever runs the component keeps or drops what is gathered.

use std::ops::Bound;
use std::sync::Arc;

use bytes::Bytes;
use quorate_types::HlcTimestamp;
use wasmtime::StoreContextMut;
use wasmtime::component::{Linker, LinkerInstance, Resource, ResourceType, WasmList, WasmStr};

use crate::abi::{LevelAbi, OpAbi, RangeAbi};
use crate::diagnostics::{Diagnostics, Source};
use crate::error::{Fault, Limit};
use crate::key::Key;
use crate::limits::{Meter, pay_call, pay_work};
use crate::overlay::{Cursor, Direction, Overlay, Range};
use crate::{Event, TimerChange};

/// The package that components are built against.
pub(crate) const PACKAGE: &str = "quorate:machine/";
/// Its version.
pub(crate) const VERSION: &str = "@0.1.0";
/// The interfaces that a component may import.
pub(crate) const IMPORTS: [&str; 5] = ["types", "kv", "kv-write", "effects", "diagnostics"];

const KEY_BYTES_MAX: usize = 1 << 10;
const VALUE_BYTES_MAX: usize = 1 << 20;
const CURSORS_MAX: usize = 64;
/// Longer log lines are cut.
const LOG_BYTES_MAX: usize = 4 << 10;

/// What the running function may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Access {
    /// `describe`: only diagnostics.
    Nothing,
    /// `query`.
    Read,
    /// `init`, `apply` and `migrate`.
    Change,
}

/// Everything one run gathers beside its answer.
#[derive(Debug)]
pub(crate) struct HostState {
    pub(crate) access: Access,
    pub(crate) overlay: Overlay,
    pub(crate) events: Vec<Event>,
    pub(crate) timers: Vec<TimerChange>,
    pub(crate) meter: Meter,
    pub(crate) source: Arc<Source>,
    pub(crate) diagnostics: Arc<dyn Diagnostics>,
    /// Open cursors by their number in the component's eyes.
    cursors: Vec<Option<Cursor>>,
}

type Context<'a> = StoreContextMut<'a, HostState>;

impl HostState {
    pub(crate) fn new(
        access: Access,
        overlay: Overlay,
        meter: Meter,
        source: Arc<Source>,
        diagnostics: Arc<dyn Diagnostics>,
    ) -> Self {
        let (events, timers, cursors) = (Vec::new(), Vec::new(), Vec::new());
        Self { access, overlay, events, timers, meter, source, diagnostics, cursors }
    }

    /// Refuses what the running function may not do: that is a fault of the component.
    fn require(&self, access: Access) -> Result<(), Fault> {
        if self.access >= access { Ok(()) } else { Err(Fault::Trapped) }
    }

    fn open(&mut self, cursor: Cursor) -> Result<u32, Fault> {
        let free = self.cursors.iter().position(Option::is_none).unwrap_or(self.cursors.len());
        if free >= CURSORS_MAX {
            return Err(Fault::OverLimit(Limit::Cursors));
        }
        if free == self.cursors.len() {
            self.cursors.push(None);
        }
        self.cursors[free] = Some(cursor);
        Ok(free as u32)
    }

    fn close(&mut self, number: u32) {
        if let Some(slot) = self.cursors.get_mut(number as usize) {
            *slot = None;
        }
    }
}

/// Offers everything that components may import.
pub(crate) fn add_to_linker(linker: &mut Linker<HostState>) -> wasmtime::Result<()> {
    let name = |interface: &str| format!("{PACKAGE}{interface}{VERSION}");
    // The interface of shared types has no function, yet is imported by name.
    linker.instance(&name("types"))?;
    add_reads(&mut linker.instance(&name("kv"))?)?;
    linker
        .instance(&name("kv-write"))?
        .func_wrap("write", |store, (ops,): (Vec<OpAbi>,)| write(store, ops))?;
    add_effects(&mut linker.instance(&name("effects"))?)?;
    add_diagnostics(&mut linker.instance(&name("diagnostics"))?)
}

fn add_reads(kv: &mut LinkerInstance<'_, HostState>) -> wasmtime::Result<()> {
    kv.resource("cursor", ResourceType::host::<Cursor>(), |mut store, number| {
        store.data_mut().close(number);
        Ok(())
    })?;
    kv.func_wrap("get", |store, (key,): (WasmList<u8>,)| get(store, &key).map(|value| (value,)))?;
    kv.func_wrap("scan", |store, (range,): (RangeAbi,)| scan(store, range).map(|cursor| (cursor,)))?;
    kv.func_wrap("[method]cursor.next", |store, (cursor, pairs, bytes): (Resource<Cursor>, u32, u32)| {
        next(store, &cursor, pairs, bytes).map(|pairs| (pairs,))
    })
}

fn get(mut store: Context<'_>, key: &WasmList<u8>) -> wasmtime::Result<Option<Bytes>> {
    store.data().require(Access::Read)?;
    pay_call(&mut store)?;
    let value = {
        let key = checked_key(key.as_le_slice(&store))?;
        store.data().overlay.get(key).cloned()
    };
    let bytes = key.len() + value.as_ref().map_or(0, Bytes::len);
    pay_work(&mut store, 1, bytes)?;
    Ok(value)
}

fn scan(mut store: Context<'_>, range: RangeAbi) -> wasmtime::Result<Resource<Cursor>> {
    store.data().require(Access::Read)?;
    pay_call(&mut store)?;
    let end = range.end.as_deref().map(checked_key).transpose()?;
    let range = Range {
        start: Bound::Included(Key::new(checked_key(&range.start)?)),
        end: end.map_or(Bound::Unbounded, |end| Bound::Excluded(Key::new(end))),
        direction: if range.reverse { Direction::Reverse } else { Direction::Forward },
    };
    let host = store.data_mut();
    let cursor = host.overlay.scan(range);
    Ok(Resource::new_own(host.open(cursor)?))
}

fn next(
    mut store: Context<'_>,
    cursor: &Resource<Cursor>,
    pairs_max: u32,
    bytes_max: u32,
) -> wasmtime::Result<Vec<(Bytes, Bytes)>> {
    pay_call(&mut store)?;
    let open = store.data_mut().cursors.get_mut(cursor.rep() as usize);
    let cursor = open.and_then(Option::as_mut).ok_or(Fault::Trapped)?;
    let step = cursor.step(pairs_max, bytes_max);
    pay_work(&mut store, step.visited, step.bytes)?;
    Ok(step.pairs)
}

fn write(mut store: Context<'_>, ops: Vec<OpAbi>) -> wasmtime::Result<()> {
    store.data().require(Access::Change)?;
    pay_call(&mut store)?;
    for op in ops {
        match op {
            OpAbi::Put((key, value)) => {
                let key = read_key(&store, &key)?;
                if value.len() > VALUE_BYTES_MAX {
                    return Err(Fault::Trapped.into());
                }
                let bytes = key.len() + value.len();
                store.data_mut().meter.output_item(bytes)?;
                pay_work(&mut store, 1, bytes)?;
                store.data_mut().overlay.put(key, value);
            }
            OpAbi::Delete(key) => {
                let key = read_key(&store, &key)?;
                store.data_mut().meter.output_item(key.len())?;
                pay_work(&mut store, 1, key.len())?;
                store.data_mut().overlay.delete(key);
            }
            OpAbi::DeleteRange((start, end)) => {
                let start = read_key(&store, &start)?;
                let end = end.map(|end| read_key(&store, &end)).transpose()?;
                delete_range(&mut store, start.as_slice(), end.as_ref().map(Key::as_slice))?;
            }
        }
    }
    Ok(())
}

fn read_key(store: &Context<'_>, key: &WasmList<u8>) -> Result<Key, Fault> {
    checked_key(key.as_le_slice(store)).map(Key::new)
}

/// Each removed key counts as a change of its own, so a large range may take several commands.
fn delete_range(store: &mut Context<'_>, start: &[u8], end: Option<&[u8]>) -> wasmtime::Result<()> {
    let host = store.data_mut();
    let mut keys = Vec::new();
    let mut bytes = 0;
    for key in host.overlay.keys(start, end) {
        host.meter.output_item(key.len())?;
        bytes += key.len();
        keys.push(key.clone());
    }
    pay_work(store, keys.len() + 1, bytes)?;
    let overlay = &mut store.data_mut().overlay;
    keys.into_iter().for_each(|key| overlay.delete(key));
    Ok(())
}

fn checked_key(key: &[u8]) -> Result<&[u8], Fault> {
    if key.len() > KEY_BYTES_MAX { Err(Fault::Trapped) } else { Ok(key) }
}

fn add_effects(effects: &mut LinkerInstance<'_, HostState>) -> wasmtime::Result<()> {
    effects.func_wrap("emit", |mut store: Context<'_>, (topic, key, body): (String, Bytes, Bytes)| {
        pay_effect(&mut store, topic.len() + key.len() + body.len())?;
        store.data_mut().events.push(Event { topic, key, body });
        Ok(())
    })?;
    effects.func_wrap("set-timer", |mut store: Context<'_>, (id, due, body): (String, u64, Bytes)| {
        pay_effect(&mut store, id.len() + body.len())?;
        store.data_mut().timers.push(TimerChange::Set { id, due: HlcTimestamp(due), body });
        Ok(())
    })?;
    effects.func_wrap("cancel-timer", |mut store: Context<'_>, (id,): (String,)| {
        pay_effect(&mut store, id.len())?;
        store.data_mut().timers.push(TimerChange::Cancel { id });
        Ok(())
    })
}

fn pay_effect(store: &mut Context<'_>, bytes: usize) -> wasmtime::Result<()> {
    store.data().require(Access::Change)?;
    pay_call(store)?;
    store.data_mut().meter.output_item(bytes)?;
    pay_work(store, 1, bytes)
}

fn add_diagnostics(diagnostics: &mut LinkerInstance<'_, HostState>) -> wasmtime::Result<()> {
    diagnostics.func_wrap(
        "log",
        |mut store: Context<'_>, (level, target, message): (LevelAbi, WasmStr, WasmStr)| {
            let (target, message) = pay_line(&mut store, &target, &message)?;
            let host = store.data();
            host.diagnostics.log(&host.source, level.into(), &target, &message);
            Ok(())
        },
    )?;
    diagnostics.func_wrap("panicked", |mut store: Context<'_>, (message, location): (WasmStr, WasmStr)| {
        let (message, location) = pay_line(&mut store, &message, &location)?;
        let host = store.data();
        host.diagnostics.panicked(&host.source, &message, &location);
        Ok(())
    })
}

fn pay_line(
    store: &mut Context<'_>,
    first: &WasmStr,
    second: &WasmStr,
) -> wasmtime::Result<(String, String)> {
    pay_call(store)?;
    let read = |text: &WasmStr| -> wasmtime::Result<(String, usize)> {
        let text = text.to_str(&*store)?;
        Ok((text[..text.floor_char_boundary(LOG_BYTES_MAX)].to_owned(), text.len()))
    };
    let ((first, first_bytes), (second, second_bytes)) = (read(first)?, read(second)?);
    pay_work(store, 0, first_bytes + second_bytes)?;
    Ok((first, second))
}
