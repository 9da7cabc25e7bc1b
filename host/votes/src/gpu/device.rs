//! One card: its kernels, the tables that live on it, and the batches it verifies.
//!
//! Relies on cudarc, which opens the driver's library when it is first needed and panics where it is
//! missing: its presence is asked for first. Promises the verdicts of a whole batch or an error, that no
//! batch waits longer than the launch timeout, and that the buffers of a batch that was given up are not used
//! again before the card is done with them. Knows no processor path.

#![allow(unsafe_code)]

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use cudarc::driver::sys::CUevent_flags;
use cudarc::driver::{
    CudaContext, CudaEvent, CudaFunction, CudaModule, CudaSlice, CudaStream, DriverError, LaunchConfig,
    PinnedHostSlice, PushKernelArg,
};
use cudarc::nvrtc::Ptx;
use quorate_crypto::{Check, SigningBytes};

use super::slots::{Claim, Key, Slots};
use super::source::{self, Binary};
use crate::Verdicts;

/// Votes of one block, see `votes.cu`.
const BLOCK: u32 = 128;
/// Digits of a table of window 4; one thread builds the row of each.
const DIGITS: u32 = 64;
/// Bytes of a table of window 4: 64 rows of 8 entries of 96 bytes.
const TABLE_BYTES: usize = 64 * 8 * 96;
/// Batches under way at a time: one is copied while the other is computed.
pub(crate) const LANES: usize = 2;
/// The kernels that are launched by name.
pub(crate) const KERNELS: [&str; 4] =
    ["votes_any_key", "votes_known_key_4", "build_tables_4", "multiply_rate"];
/// The encoding of the base point (RFC 8032 §5.1).
const BASE_POINT: Key = {
    let mut bytes = [0x66; 32];
    bytes[0] = 0x58;
    bytes
};

/// How a card is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeviceConfig {
    /// Which card, from 0.
    pub ordinal: usize,
    /// Bytes of the card's memory for tables; 48 KiB a key.
    pub table_bytes_max: usize,
    /// The most votes of one batch; buffers hold as many.
    pub batch_max: usize,
    /// How long a batch may take before the card is given up.
    pub launch_timeout: Duration,
}

impl Default for DeviceConfig {
    fn default() -> Self {
        Self {
            ordinal: 0,
            table_bytes_max: 256 << 20,
            batch_max: 131_072,
            launch_timeout: Duration::from_millis(250),
        }
    }
}

/// A card that cannot verify.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DeviceError {
    /// There is no driver, or no card behind it.
    #[error("no device is present")]
    Missing,
    /// The driver refused.
    #[error("the driver says: {0}")]
    Driver(String),
    /// No kernels for this card, and no compiler to make them.
    #[error("no kernels for compute capability {0}.{1}: {2}")]
    NoKernels(i32, i32, String),
    /// The batch took too long.
    #[error("the device did not answer in time")]
    TimedOut,
    /// The processor came to other verdicts on the votes that were verified twice.
    #[error("the device accepts what the processor rejects, or the other way round")]
    Disagrees,
    /// More votes than the buffers hold.
    #[error("{votes} votes; a batch has at most {max}")]
    TooLarge {
        /// How many were given.
        votes: usize,
        /// How many fit.
        max: usize,
    },
    /// The messages of one batch differ in length.
    #[error("the messages of a batch have one length")]
    MixedLengths,
    /// The configuration leaves no room for a table or a vote.
    #[error("the device needs room for at least one table of {TABLE_BYTES} bytes and one vote")]
    NoRoom,
}

impl From<DriverError> for DeviceError {
    fn from(error: DriverError) -> Self {
        Self::Driver(format!("{error:?}"))
    }
}

/// What a card verifies: any key, any message, any signature.
pub trait Vote {
    /// The signer's key, encoded; it need not be registered.
    fn key(&self) -> Key;
    /// What is said to be signed.
    fn message(&self) -> &[u8];
    /// The signature.
    fn signature(&self) -> &[u8; 64];
}

impl Vote for Check {
    fn key(&self) -> Key {
        self.key.to_bytes()
    }

    fn message(&self) -> &[u8] {
        self.bytes.as_slice()
    }

    fn signature(&self) -> &[u8; 64] {
        &self.signature.0
    }
}

/// How many votes a batch has, and the bytes of each message, as the kernels take them.
#[derive(Clone, Copy)]
struct Shape {
    count: u32,
    length: i32,
}

/// A card that is ready.
pub struct Device {
    name: String,
    config: DeviceConfig,
    any_key: CudaFunction,
    known_key: CudaFunction,
    build: CudaFunction,
    multiply: CudaFunction,
    /// The table of the base point.
    base: CudaSlice<u8>,
    tables: Mutex<Tables>,
    lanes: [Mutex<Lane>; LANES],
}

/// The keys' tables. Batches of several lanes read them; cudarc makes a stream that writes wait for those
/// that read, and the other way round.
struct Tables {
    slots: Slots,
    entries: CudaSlice<u8>,
    keys: CudaSlice<u8>,
    usable: CudaSlice<u8>,
}

/// What one batch under way needs: a stream, pinned memory here and buffers there.
struct Lane {
    stream: Arc<CudaStream>,
    host_signatures: PinnedHostSlice<u8>,
    host_keys: PinnedHostSlice<u8>,
    host_messages: PinnedHostSlice<u8>,
    host_places: PinnedHostSlice<u32>,
    signatures: CudaSlice<u8>,
    keys: CudaSlice<u8>,
    messages: CudaSlice<u8>,
    places: CudaSlice<u32>,
    verdicts: CudaSlice<u32>,
    /// The end of a batch that was given up; until it comes, the card may use buffers and tables.
    given_up: Option<CudaEvent>,
    /// The tables of that batch.
    abandoned: Option<Claim>,
}

impl Device {
    /// How many cards the driver shows; 0 without a driver.
    #[must_use]
    pub fn count() -> usize {
        // SAFETY: tries to open a library and closes it again.
        if !unsafe { cudarc::driver::sys::is_culib_present() } {
            return 0;
        }
        CudaContext::device_count().ok().and_then(|count| usize::try_from(count).ok()).unwrap_or(0)
    }

    /// Opens a card, loads the kernels and builds the base point's table.
    ///
    /// # Errors
    ///
    /// [`DeviceError`]; [`DeviceError::Missing`] where there is no such card.
    pub fn open(config: DeviceConfig) -> Result<Self, DeviceError> {
        if config.table_bytes_max < TABLE_BYTES || config.batch_max == 0 {
            return Err(DeviceError::NoRoom);
        }
        if config.ordinal >= Self::count() {
            return Err(DeviceError::Missing);
        }
        let context = CudaContext::new(config.ordinal)?;
        let module = load(&context)?;
        let [any_key, known_key, build, multiply] = KERNELS.map(|name| module.load_function(name));
        let (any_key, known_key, build, multiply) = (any_key?, known_key?, build?, multiply?);
        let first = Lane::new(&context, config.batch_max)?;
        let base = base_table(&first.stream, &build)?;
        let tables = Mutex::new(Tables::new(&first.stream, config.table_bytes_max / TABLE_BYTES)?);
        first.stream.synchronize()?;
        let lanes = [Mutex::new(first), Mutex::new(Lane::new(&context, config.batch_max)?)];
        let name = context.name()?;
        Ok(Self { name, config, any_key, known_key, build, multiply, base, tables, lanes })
    }

    /// The card's name, for people.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Which card it is, from 0.
    #[must_use]
    pub fn ordinal(&self) -> usize {
        self.config.ordinal
    }

    /// The most votes of one batch.
    #[must_use]
    pub fn batch_max(&self) -> usize {
        self.config.batch_max
    }

    /// Verifies a batch, with tables if all its keys have or get one. Up to two batches run side by side.
    ///
    /// # Errors
    ///
    /// [`DeviceError`]; there are no verdicts then, for no vote.
    pub fn verify<V: Vote>(&self, votes: &[V]) -> Result<Verdicts, DeviceError> {
        let Some(shape) = self.shape(votes)? else { return Ok(Vec::new()) };
        let mut lane = self.lane()?;
        let claim = self.lock_tables().slots.claim(votes.iter().map(Vote::key));
        let Some(claim) = claim else { return self.run_any_key(&mut lane, votes, shape) };
        let verdicts = self.run_known_key(&mut lane, votes, shape, &claim);
        let mut tables = self.lock_tables();
        if verdicts.is_err() {
            tables.slots.forget(&claim);
        }
        if lane.given_up.is_none() {
            tables.slots.release(&claim);
        } else {
            lane.abandoned = Some(claim);
        }
        verdicts
    }

    /// Verifies a batch on the path for any key, for measurements and comparison.
    ///
    /// # Errors
    ///
    /// As [`Device::verify`].
    pub fn verify_without_tables<V: Vote>(&self, votes: &[V]) -> Result<Verdicts, DeviceError> {
        let Some(shape) = self.shape(votes)? else { return Ok(Vec::new()) };
        let mut lane = self.lane()?;
        self.run_any_key(&mut lane, votes, shape)
    }

    /// Products of two numbers modulo 2^255 - 19 per second, for measurements alone.
    ///
    /// # Errors
    ///
    /// [`DeviceError::Driver`].
    pub fn multiply_rate(&self) -> Result<f64, DeviceError> {
        const BLOCKS: u32 = 1_056;
        const ROUNDS: i32 = 10_000;
        let lane = self.lane()?;
        let threads = BLOCKS * BLOCK;
        let mut numbers = lane.stream.clone_htod(&vec![0x55_u8; threads as usize * 32])?;
        let (mut took, config) = (Duration::ZERO, grid(threads));
        // The first run warms the card up.
        for _ in 0..2 {
            let mut launch = lane.stream.launch_builder(&self.multiply);
            launch.arg(&mut numbers).arg(&ROUNDS);
            let start = Instant::now();
            // SAFETY: the arguments are those of `multiply_rate`, with a number for each thread.
            unsafe { launch.launch(config) }?;
            lane.stream.synchronize()?;
            took = start.elapsed();
        }
        Ok(f64::from(threads) * f64::from(ROUNDS) * 2.0 / took.as_secs_f64())
    }

    /// The shape of a batch that fits the buffers; `None` for an empty one.
    fn shape<V: Vote>(&self, votes: &[V]) -> Result<Option<Shape>, DeviceError> {
        let Some(first) = votes.first() else { return Ok(None) };
        let length = first.message().len();
        if votes.iter().any(|vote| vote.message().len() != length) {
            return Err(DeviceError::MixedLengths);
        }
        let max = self.config.batch_max;
        if votes.len() > max || votes.len() * length > max * SigningBytes::BYTES {
            return Err(DeviceError::TooLarge { votes: votes.len(), max });
        }
        Ok(Some(Shape { count: votes.len() as u32, length: length as i32 }))
    }

    /// A free lane, or the first when it becomes free.
    fn lane(&self) -> Result<MutexGuard<'_, Lane>, DeviceError> {
        let free = self.lanes.iter().find_map(|lane| lane.try_lock().ok());
        let mut lane = free.unwrap_or_else(|| self.lanes[0].lock().unwrap_or_else(PoisonError::into_inner));
        if let Some(end) = &lane.given_up {
            if !end.try_is_complete()? {
                return Err(DeviceError::TimedOut);
            }
            lane.given_up = None;
            if let Some(claim) = lane.abandoned.take() {
                self.lock_tables().slots.release(&claim);
            }
        }
        Ok(lane)
    }

    fn lock_tables(&self) -> MutexGuard<'_, Tables> {
        self.tables.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn run_any_key<V: Vote>(
        &self,
        lane: &mut Lane,
        votes: &[V],
        shape: Shape,
    ) -> Result<Verdicts, DeviceError> {
        lane.upload(votes)?;
        let keys = &mut lane.host_keys.as_mut_slice()?[..votes.len() * 32];
        for (place, vote) in keys.chunks_exact_mut(32).zip(votes) {
            place.copy_from_slice(&vote.key());
        }
        lane.stream.memcpy_htod(&*keys, &mut lane.keys)?;
        let mut launch = lane.stream.launch_builder(&self.any_key);
        launch.arg(&lane.signatures).arg(&lane.keys).arg(&lane.messages).arg(&shape.length);
        launch.arg(&self.base).arg(&mut lane.verdicts).arg(&shape.count);
        // SAFETY: the arguments are those of `votes_any_key`; every buffer holds `count` votes or more.
        unsafe { launch.launch(grid(shape.count)) }?;
        lane.download(votes.len(), self.config.launch_timeout)
    }

    fn run_known_key<V: Vote>(
        &self,
        lane: &mut Lane,
        votes: &[V],
        shape: Shape,
        claim: &Claim,
    ) -> Result<Verdicts, DeviceError> {
        lane.upload(votes)?;
        let places = &mut lane.host_places.as_mut_slice()?[..votes.len()];
        places.copy_from_slice(&claim.places);
        lane.stream.memcpy_htod(&*places, &mut lane.places)?;
        let mut tables = self.lock_tables();
        for (key, place) in &claim.new {
            tables.build(&lane.stream, &self.build, key, *place)?;
        }
        let mut launch = lane.stream.launch_builder(&self.known_key);
        launch.arg(&lane.signatures).arg(&lane.places).arg(&tables.keys).arg(&tables.usable);
        launch.arg(&lane.messages).arg(&shape.length).arg(&tables.entries).arg(&self.base);
        launch.arg(&mut lane.verdicts).arg(&shape.count);
        // SAFETY: the arguments are those of `votes_known_key_4`; every place names a table that was built.
        unsafe { launch.launch(grid(shape.count)) }?;
        drop(tables);
        lane.download(votes.len(), self.config.launch_timeout)
    }
}

impl Tables {
    fn new(stream: &Arc<CudaStream>, count: usize) -> Result<Self, DeviceError> {
        Ok(Self {
            slots: Slots::new(count),
            entries: stream.alloc_zeros(count * TABLE_BYTES)?,
            keys: stream.alloc_zeros(count * 32)?,
            usable: stream.alloc_zeros(count)?,
        })
    }

    fn build(
        &mut self,
        stream: &Arc<CudaStream>,
        kernel: &CudaFunction,
        key: &Key,
        place: u32,
    ) -> Result<(), DeviceError> {
        let at = place as usize;
        // Until the table is whole, nothing verifies with what another key left in its place.
        stream.memcpy_htod(&[0_u8], &mut self.usable.slice_mut(at..=at))?;
        stream.memcpy_htod(key, &mut self.keys.slice_mut(at * 32..at * 32 + 32))?;
        let (negate, count) = (1_i32, 1_u32);
        let mut launch = stream.launch_builder(kernel);
        launch.arg(&self.keys).arg(&negate).arg(&mut self.entries).arg(&mut self.usable);
        launch.arg(&place).arg(&count);
        // SAFETY: the arguments are those of `build_tables_4`; `place` is within keys, entries and flags.
        unsafe { launch.launch(one_block(DIGITS)) }?;
        Ok(())
    }
}

impl Lane {
    fn new(context: &Arc<CudaContext>, votes: usize) -> Result<Self, DeviceError> {
        let stream = context.new_stream()?;
        // SAFETY: the memory is written before it is read. It is not write-combined: flags are zero.
        let (host_signatures, host_keys, host_messages, host_places) = unsafe {
            (
                context.alloc_pinned_with_flags(votes * 64, 0)?,
                context.alloc_pinned_with_flags(votes * 32, 0)?,
                context.alloc_pinned_with_flags(votes * SigningBytes::BYTES, 0)?,
                context.alloc_pinned_with_flags(votes, 0)?,
            )
        };
        Ok(Self {
            host_signatures,
            host_keys,
            host_messages,
            host_places,
            signatures: stream.alloc_zeros(votes * 64)?,
            keys: stream.alloc_zeros(votes * 32)?,
            messages: stream.alloc_zeros(votes * SigningBytes::BYTES)?,
            places: stream.alloc_zeros(votes)?,
            verdicts: stream.alloc_zeros(votes.div_ceil(32))?,
            given_up: None,
            abandoned: None,
            stream,
        })
    }

    /// Copies signatures and messages, all of one length, to the card.
    fn upload<V: Vote>(&mut self, votes: &[V]) -> Result<(), DeviceError> {
        // A batch that failed half-way may have copies under way from this very memory.
        self.stream.synchronize()?;
        let signatures = &mut self.host_signatures.as_mut_slice()?[..votes.len() * 64];
        for (place, vote) in signatures.chunks_exact_mut(64).zip(votes) {
            place.copy_from_slice(vote.signature());
        }
        self.stream.memcpy_htod(&*signatures, &mut self.signatures)?;
        let length = votes.first().map_or(0, |vote| vote.message().len());
        if length > 0 {
            let messages = &mut self.host_messages.as_mut_slice()?[..votes.len() * length];
            for (place, vote) in messages.chunks_exact_mut(length).zip(votes) {
                place.copy_from_slice(vote.message());
            }
            self.stream.memcpy_htod(&*messages, &mut self.messages)?;
        }
        Ok(())
    }

    /// Waits for the batch and reads its bits.
    fn download(&mut self, count: usize, timeout: Duration) -> Result<Verdicts, DeviceError> {
        let end = self.stream.record_event(Some(CUevent_flags::CU_EVENT_DISABLE_TIMING))?;
        let start = Instant::now();
        while !end.try_is_complete()? {
            if start.elapsed() > timeout {
                self.given_up = Some(end);
                return Err(DeviceError::TimedOut);
            }
            std::hint::spin_loop();
        }
        let bits = self.stream.clone_dtoh(&self.verdicts.slice(..count.div_ceil(32)))?;
        self.stream.synchronize()?;
        Ok((0..count).map(|vote| bits[vote / 32] >> (vote % 32) & 1 == 1).collect())
    }
}

impl std::fmt::Debug for Device {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Device({})", self.name)
    }
}

fn base_table(stream: &Arc<CudaStream>, kernel: &CudaFunction) -> Result<CudaSlice<u8>, DeviceError> {
    let key = stream.clone_htod(&BASE_POINT)?;
    let (mut base, mut usable) = (stream.alloc_zeros(TABLE_BYTES)?, stream.alloc_zeros::<u8>(1)?);
    let (negate, first, count) = (0_i32, 0_u32, 1_u32);
    let mut launch = stream.launch_builder(kernel);
    launch.arg(&key).arg(&negate).arg(&mut base).arg(&mut usable).arg(&first).arg(&count);
    // SAFETY: the arguments are those of `build_tables_4`, for one table.
    unsafe { launch.launch(one_block(DIGITS)) }?;
    Ok(base)
}

/// Loads the binary that is shipped for the card, or compiles one.
fn load(context: &Arc<CudaContext>) -> Result<Arc<CudaModule>, DeviceError> {
    let capability = context.compute_capability()?;
    let image = match source::built(capability) {
        Some(Binary::Cubin(bytes)) => Ptx::from_binary(bytes.to_vec()),
        Some(Binary::Ptx(text)) => Ptx::from_src(text),
        None => {
            let (major, minor) = capability;
            let compiled = source::compile_ptx(&format!("compute_{major}{minor}"));
            Ptx::from_src(compiled.map_err(|log| DeviceError::NoKernels(major, minor, log))?)
        }
    };
    Ok(context.load_module(image)?)
}

fn grid(votes: u32) -> LaunchConfig {
    LaunchConfig { grid_dim: (votes.div_ceil(BLOCK), 1, 1), block_dim: (BLOCK, 1, 1), shared_mem_bytes: 0 }
}

fn one_block(threads: u32) -> LaunchConfig {
    LaunchConfig { grid_dim: (1, 1, 1), block_dim: (threads, 1, 1), shared_mem_bytes: 0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// cudarc panics where there is no driver; on such a machine this test is the proof that we do not.
    #[test]
    fn a_card_that_is_not_there_is_an_error() {
        let config = DeviceConfig { ordinal: Device::count(), ..DeviceConfig::default() };
        assert!(matches!(Device::open(config), Err(DeviceError::Missing)));
    }

    #[test]
    fn a_configuration_without_room_is_refused() {
        for config in [
            DeviceConfig { table_bytes_max: TABLE_BYTES - 1, ..DeviceConfig::default() },
            DeviceConfig { batch_max: 0, ..DeviceConfig::default() },
        ] {
            assert!(matches!(Device::open(config), Err(DeviceError::NoRoom)));
        }
    }
}
