//! A disk in memory that does at a crash what real ones do.
//!
//! Until it is flushed, a write is in the page cache only. At a crash each sector of each file keeps
//! the outcome of some first part of the writes that touched it since the last flush: none, some or
//! all of them. So writes are lost, kept, torn between sectors and reordered, as the seed says. Of the
//! changes to names since the last directory synchronisation a first part survives, in order.
//!
//! Relies on a seed and nothing else. Promises the same outcome for the same operations and seed, that
//! flushed bytes survive, and that a handle from before a crash is dead. Knows no format.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::{Arc, Mutex, MutexGuard};

use crate::{Disk, DiskFile};

const SECTOR_BYTES: usize = 512;

/// An operation that can be made to fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum SimOperation {
    /// [`DiskFile::write_at`].
    Write,
    /// [`DiskFile::flush`] and [`Disk::sync_directory`].
    Flush,
    /// [`DiskFile::read_at`].
    Read,
}

/// A simulated disk; clones are the same disk.
#[derive(Clone, Debug, Default)]
pub struct SimDisk {
    state: Arc<Mutex<State>>,
}

/// An open file of a [`SimDisk`]; dead after the next crash.
#[derive(Debug)]
pub struct SimFile {
    state: Arc<Mutex<State>>,
    file: FileId,
    life: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct FileId(u64);

#[derive(Debug, Default)]
struct State {
    files: BTreeMap<FileId, Content>,
    /// What a process sees.
    names: BTreeMap<String, FileId>,
    /// What is durable.
    durable_names: BTreeMap<String, FileId>,
    /// Changes to names since they were last durable.
    name_changes: Vec<NameChange>,
    next_file: u64,
    /// How many crashes there were; handles of an earlier life are dead.
    life: u64,
    /// Bytes that may still be written to sectors never written before; `None` for no bound.
    room: Option<u64>,
    /// Operations left until the process is as good as dead.
    halt_in: Option<u64>,
    faults: BTreeMap<SimOperation, u64>,
    counters: Counters,
}

#[derive(Clone, Copy, Debug, Default)]
struct Counters {
    writes: u64,
    flushes: u64,
    bytes_written: u64,
    operations: u64,
}

#[derive(Clone, Debug)]
enum NameChange {
    Set(String, FileId),
    Move { from: String, to: String },
    Unset(String),
}

#[derive(Debug, Default)]
struct Content {
    /// What a process reads.
    live: Vec<u8>,
    /// What is durable.
    durable: Vec<u8>,
    /// Per sector, its contents after each write since the last flush, in order.
    pending: BTreeMap<usize, Vec<Box<[u8]>>>,
    /// Sectors that were ever written, which is where space is used.
    allocated: BTreeSet<usize>,
}

impl Content {
    fn sector(bytes: &[u8], number: usize) -> &[u8] {
        let start = (number * SECTOR_BYTES).min(bytes.len());
        &bytes[start..(start + SECTOR_BYTES).min(bytes.len())]
    }

    fn write(&mut self, offset: usize, bytes: &[u8]) {
        let end = offset + bytes.len();
        if self.live.len() < end {
            self.live.resize(end, 0);
        }
        self.live[offset..end].copy_from_slice(bytes);
        if bytes.is_empty() {
            return;
        }
        for number in offset / SECTOR_BYTES..=(end - 1) / SECTOR_BYTES {
            self.allocated.insert(number);
            let version = Self::sector(&self.live, number).into();
            self.pending.entry(number).or_default().push(version);
        }
    }

    fn flush(&mut self) {
        self.durable.resize(self.live.len(), 0);
        for number in std::mem::take(&mut self.pending).into_keys() {
            let start = number * SECTOR_BYTES;
            let sector = Self::sector(&self.live, number);
            if let Some(place) = self.durable.get_mut(start..start + sector.len()) {
                place.copy_from_slice(sector);
            }
        }
    }

    fn corrupt(&mut self, offset: usize, mask: u8) -> io::Result<()> {
        *self.live.get_mut(offset).ok_or(io::ErrorKind::UnexpectedEof)? ^= mask;
        if let Some(byte) = self.durable.get_mut(offset) {
            *byte ^= mask;
        }
        for version in self.pending.get_mut(&(offset / SECTOR_BYTES)).into_iter().flatten() {
            if let Some(byte) = version.get_mut(offset % SECTOR_BYTES) {
                *byte ^= mask;
            }
        }
        Ok(())
    }

    /// Every sector keeps the outcome of some first part of its writes; the length is the old or new.
    fn crash(&mut self, chance: &mut Chance, mode: CrashMode) {
        if self.live.len() != self.durable.len() && mode.keeps(chance) {
            self.durable.resize(self.live.len(), 0);
        }
        for (number, versions) in std::mem::take(&mut self.pending) {
            let kept = match mode {
                CrashMode::LoseAll => 0,
                CrashMode::KeepAll => versions.len(),
                CrashMode::Mixed => chance.below(versions.len() as u64 + 1) as usize,
            };
            let start = number * SECTOR_BYTES;
            if kept > 0 && start < self.durable.len() {
                let version = &versions[kept - 1];
                let len = version.len().min(self.durable.len() - start);
                self.durable[start..start + len].copy_from_slice(&version[..len]);
            }
        }
        self.live.clone_from(&self.durable);
    }
}

#[derive(Clone, Copy, Debug)]
enum CrashMode {
    LoseAll,
    KeepAll,
    Mixed,
}

impl CrashMode {
    fn keeps(self, chance: &mut Chance) -> bool {
        match self {
            Self::LoseAll => false,
            Self::KeepAll => true,
            Self::Mixed => chance.below(2) == 1,
        }
    }
}

/// SplitMix64 (Steele, Lea and Flood 2014): enough for choosing what survives.
#[derive(Debug)]
struct Chance(u64);

impl Chance {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }
}

impl SimDisk {
    /// An empty disk.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The process ends and the power fails: what was not flushed is lost, kept or torn as `seed` says,
    /// every open handle is dead, and planned faults are forgotten.
    pub fn crash(&self, seed: u64) {
        let mut state = self.lock();
        let mut chance = Chance(seed);
        let mode = match chance.below(6) {
            0 => CrashMode::LoseAll,
            1 => CrashMode::KeepAll,
            _ => CrashMode::Mixed,
        };
        let changes = std::mem::take(&mut state.name_changes);
        let kept = match mode {
            CrashMode::LoseAll => 0,
            CrashMode::KeepAll => changes.len(),
            CrashMode::Mixed => chance.below(changes.len() as u64 + 1) as usize,
        };
        for change in changes.into_iter().take(kept) {
            change.apply(&mut state.durable_names);
        }
        state.names = state.durable_names.clone();
        let named: BTreeSet<FileId> = state.names.values().copied().collect();
        state.files.retain(|file, _| named.contains(file));
        for content in state.files.values_mut() {
            content.crash(&mut chance, mode);
        }
        state.life += 1;
        state.halt_in = None;
        state.faults.clear();
    }

    /// The process ends and the operating system lives on: nothing is lost, every open handle is dead.
    pub fn kill(&self) {
        let mut state = self.lock();
        state.life += 1;
        state.halt_in = None;
        state.faults.clear();
    }

    /// Lets `operations` more writes, flushes and name changes happen; then all fail until the crash.
    pub fn halt_after(&self, operations: u64) {
        self.lock().halt_in = Some(operations);
    }

    /// Lets `count` more operations of a kind succeed and fails the one after them with an I/O error.
    pub fn fail_after(&self, operation: SimOperation, count: u64) {
        self.lock().faults.insert(operation, count);
    }

    /// Leaves room for `bytes` more bytes in places never written before; `None` for no bound.
    pub fn set_room(&self, bytes: Option<u64>) {
        self.lock().room = bytes;
    }

    /// Flips the bits of `mask` in one byte, as a medium that decays: flushed or not, it is changed.
    ///
    /// # Errors
    ///
    /// `NotFound` for an unknown name, `UnexpectedEof` beyond the file's length.
    pub fn corrupt(&self, name: &str, offset: u64, mask: u8) -> io::Result<()> {
        let mut state = self.lock();
        let file = *state.names.get(name).ok_or(io::ErrorKind::NotFound)?;
        let content = state.files.get_mut(&file).ok_or(io::ErrorKind::NotFound)?;
        content.corrupt(place(offset, 1)?, mask)
    }

    /// How many flushes and directory synchronisations succeeded.
    #[must_use]
    pub fn flushes(&self) -> u64 {
        self.lock().counters.flushes
    }

    /// How many writes succeeded.
    #[must_use]
    pub fn writes(&self) -> u64 {
        self.lock().counters.writes
    }

    /// How many bytes were written.
    #[must_use]
    pub fn bytes_written(&self) -> u64 {
        self.lock().counters.bytes_written
    }

    /// How many operations [`SimDisk::halt_after`] would have counted so far.
    #[must_use]
    pub fn operations(&self) -> u64 {
        self.lock().counters.operations
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    fn handle(&self, state: &State, file: FileId) -> SimFile {
        SimFile { state: Arc::clone(&self.state), file, life: state.life }
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    // A panic elsewhere leaves the state as the last whole operation did.
    state.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

impl NameChange {
    fn apply(self, names: &mut BTreeMap<String, FileId>) {
        match self {
            Self::Set(name, file) => {
                names.insert(name, file);
            }
            Self::Move { from, to } => {
                if let Some(file) = names.remove(&from) {
                    names.insert(to, file);
                }
            }
            Self::Unset(name) => {
                names.remove(&name);
            }
        }
    }
}

impl State {
    /// Counts an operation that changes the disk; refuses it once the process is as good as dead.
    fn operate(&mut self) -> io::Result<()> {
        self.counters.operations += 1;
        match &mut self.halt_in {
            Some(0) => Err(io::Error::other("the simulated process was halted")),
            Some(left) => {
                *left -= 1;
                Ok(())
            }
            None => Ok(()),
        }
    }

    fn may_fail(&mut self, operation: SimOperation) -> io::Result<()> {
        match self.faults.get_mut(&operation) {
            Some(0) => {
                self.faults.remove(&operation);
                Err(io::Error::other("a simulated I/O error"))
            }
            Some(left) => {
                *left -= 1;
                Ok(())
            }
            None => Ok(()),
        }
    }

    fn change_names(&mut self, change: NameChange) {
        change.clone().apply(&mut self.names);
        self.name_changes.push(change);
    }

    fn take_room(&mut self, file: FileId, offset: usize, len: usize) -> io::Result<()> {
        let (Some(room), Some(content)) = (self.room, self.files.get(&file)) else {
            return Ok(());
        };
        if len == 0 {
            return Ok(());
        }
        let sectors = offset / SECTOR_BYTES..=(offset + len - 1) / SECTOR_BYTES;
        let needed = sectors.filter(|number| !content.allocated.contains(number)).count() * SECTOR_BYTES;
        let left = room.checked_sub(needed as u64).ok_or(io::ErrorKind::StorageFull)?;
        self.room = Some(left);
        Ok(())
    }
}

impl Disk for SimDisk {
    type File = SimFile;

    fn list(&self) -> io::Result<Vec<String>> {
        Ok(self.lock().names.keys().cloned().collect())
    }

    fn create(&self, name: &str, bytes: u64) -> io::Result<SimFile> {
        let mut state = self.lock();
        state.operate()?;
        if state.names.contains_key(name) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let file = FileId(state.next_file);
        state.next_file += 1;
        let len = usize::try_from(bytes).map_err(|_| io::ErrorKind::FileTooLarge)?;
        state.files.insert(file, Content { live: vec![0; len], ..Content::default() });
        state.change_names(NameChange::Set(name.to_owned(), file));
        Ok(self.handle(&state, file))
    }

    fn open(&self, name: &str) -> io::Result<SimFile> {
        let state = self.lock();
        let file = *state.names.get(name).ok_or(io::ErrorKind::NotFound)?;
        Ok(self.handle(&state, file))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut state = self.lock();
        state.operate()?;
        if !state.names.contains_key(from) {
            return Err(io::ErrorKind::NotFound.into());
        }
        state.change_names(NameChange::Move { from: from.to_owned(), to: to.to_owned() });
        Ok(())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let mut state = self.lock();
        state.operate()?;
        if !state.names.contains_key(name) {
            return Err(io::ErrorKind::NotFound.into());
        }
        state.change_names(NameChange::Unset(name.to_owned()));
        Ok(())
    }

    fn sync_directory(&self) -> io::Result<()> {
        let mut state = self.lock();
        state.operate()?;
        state.may_fail(SimOperation::Flush)?;
        state.name_changes.clear();
        state.durable_names = state.names.clone();
        state.counters.flushes += 1;
        Ok(())
    }
}

impl SimFile {
    fn state(&self) -> io::Result<MutexGuard<'_, State>> {
        let state = lock(&self.state);
        if state.life != self.life {
            return Err(io::Error::other("the process that held this handle has crashed"));
        }
        Ok(state)
    }

    fn with<T>(&self, state: &mut State, body: impl FnOnce(&mut Content) -> io::Result<T>) -> io::Result<T> {
        let content = state.files.get_mut(&self.file).ok_or(io::ErrorKind::NotFound)?;
        body(content)
    }
}

fn place(offset: u64, len: usize) -> io::Result<usize> {
    let start = usize::try_from(offset).map_err(|_| io::ErrorKind::InvalidInput)?;
    start.checked_add(len).ok_or(io::ErrorKind::InvalidInput)?;
    Ok(start)
}

impl DiskFile for SimFile {
    fn len(&self) -> io::Result<u64> {
        let mut state = self.state()?;
        self.with(&mut state, |content| Ok(content.live.len() as u64))
    }

    fn set_len(&self, bytes: u64) -> io::Result<()> {
        let mut state = self.state()?;
        state.operate()?;
        let len = usize::try_from(bytes).map_err(|_| io::ErrorKind::FileTooLarge)?;
        self.with(&mut state, |content| {
            let before = content.live.len();
            content.live.resize(len, 0);
            // What was cut off reads as zero if the file grows again, whatever had been written there.
            if len < before {
                let first = len / SECTOR_BYTES;
                for number in first..before.div_ceil(SECTOR_BYTES) {
                    let version = Content::sector(&content.live, number).into();
                    content.pending.entry(number).or_default().push(version);
                }
            }
            Ok(())
        })
    }

    fn read_at(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let mut state = self.state()?;
        state.may_fail(SimOperation::Read)?;
        let start = place(offset, out.len())?;
        self.with(&mut state, |content| {
            let bytes = content.live.get(start..start + out.len()).ok_or(io::ErrorKind::UnexpectedEof)?;
            out.copy_from_slice(bytes);
            Ok(())
        })
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let mut state = self.state()?;
        state.operate()?;
        state.may_fail(SimOperation::Write)?;
        let start = place(offset, bytes.len())?;
        state.take_room(self.file, start, bytes.len())?;
        state.counters.writes += 1;
        state.counters.bytes_written += bytes.len() as u64;
        self.with(&mut state, |content| {
            content.write(start, bytes);
            Ok(())
        })
    }

    fn flush(&self) -> io::Result<()> {
        let mut state = self.state()?;
        state.operate()?;
        state.may_fail(SimOperation::Flush)?;
        state.counters.flushes += 1;
        self.with(&mut state, |content| {
            content.flush();
            Ok(())
        })
    }
}

#[cfg(test)]
mod tests;
