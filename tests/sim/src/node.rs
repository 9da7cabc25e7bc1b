//! One simulated node: the real driver, log and tables on a simulated disk, and the two disk threads as
//! steps of the simulation.
//!
//! ```text
//!            Output.log                    one flush for all that was appended
//! driver --------------> log queue ==append==> SimDisk ---- delay ---- flush --> Flushed(ticket)
//!        --------------> tables queue --- delay ---> checkpoint or install, whole or torn by a crash
//! ```
//!
//! Relies on the product's rooms for everything a node does. Promises to do with their outputs what the
//! product's shard and disk threads do, in the same order, and no more. Knows no invariant.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use quorate_consensus::Timings;
use quorate_node::MachineIdentity;
use quorate_node::driver::{CheckpointJob, Driver, GroupStart, InstallJob, Local, Puller, Ticket};
use quorate_storage::{GroupAppend, Identity, Recovery, SimDisk, Store, Wal, WalOptions};
use quorate_types::{EpochConfig, GroupId, LogIndex, NodeId, Position, Time};

use crate::clock::NodeClock;
use crate::director::Trap;
use crate::random::Random;
use crate::signing::SigningPlan;

/// Small segments, so that runs go through many of them.
const SEGMENT_BYTES: u64 = 64 << 10;

/// Who waits for a reply of a driver.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Waiter {
    /// A client, with the number of its item.
    Item(u32, quorate_types::Sequence),
    /// A client, with the number of its query.
    Query(u32, u64),
    /// A node that fetches a snapshot, with the pull and its step.
    Pull(NodeId, u64, u32),
    /// The simulation itself.
    Nobody,
}

/// Work for the log thread.
#[derive(Debug)]
pub enum LogWork {
    /// Append and flush.
    Append(Vec<GroupAppend>, Ticket),
    /// A checkpoint holds a group's entries through this index.
    Compact(GroupId, LogIndex),
    /// A snapshot replaced a group's log.
    Reset(GroupId, Position),
}

/// Work for the tables thread.
#[derive(Debug)]
pub enum TableWork {
    /// Write a checkpoint.
    Checkpoint(CheckpointJob),
    /// Write a fetched snapshot.
    Install(InstallJob),
}

/// A snapshot being fetched.
#[derive(Debug)]
pub struct Pull {
    /// Tells it from earlier ones.
    pub number: u64,
    /// Which request is under way.
    pub step: u32,
    /// How often the request was sent.
    pub attempts: u32,
    /// Who has it.
    pub from: NodeId,
    /// What was asked for.
    pub position: Position,
    /// What arrived.
    pub puller: Box<Puller>,
}

/// What runs while the node is up.
pub struct Running {
    /// The driver of its groups.
    pub driver: Driver<Waiter>,
    /// Its log.
    pub wal: Wal<SimDisk>,
    /// Its tables.
    pub store: Store,
    /// What waits for the log thread.
    pub log_queue: VecDeque<LogWork>,
    /// What the log thread has appended and is flushing.
    pub flushing: Option<Flushing>,
    /// Resets that reach the disk with the next append.
    pub marks: Vec<Record>,
    /// What waits for the tables thread, the one at work first.
    pub table_queue: VecDeque<TableWork>,
    /// Whether the tables thread is at work.
    pub tables_busy: bool,
    /// Snapshots being fetched.
    pub pulls: BTreeMap<GroupId, Pull>,
    /// When the driver is to be woken.
    pub wake: Option<Time>,
}

impl std::fmt::Debug for Running {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Running").field("wake", &self.wake).finish_non_exhaustive()
    }
}

/// What one flush will make durable.
#[derive(Debug, Default)]
pub struct Flushing {
    /// Reported when it is.
    pub tickets: Vec<Ticket>,
    /// A compaction came with it, after which the log may be tidied.
    pub maintain: bool,
}

/// What a start found.
#[derive(Debug)]
pub struct Found {
    /// In the log.
    pub recovery: Recovery,
    /// In the tables: what each group's checkpoint includes.
    pub checkpoints: BTreeMap<GroupId, Position>,
}

/// What every node of a cluster agrees on.
#[derive(Clone, Debug)]
pub struct ClusterPlan {
    /// The cluster.
    pub identity: Identity,
    /// Its groups.
    pub groups: Vec<(MachineIdentity, EpochConfig)>,
    /// The timeouts of their protocol.
    pub timings: Timings,
    /// With what they sign, if they do.
    pub signing: Option<SigningPlan>,
}

/// One node.
#[derive(Debug)]
pub struct SimNode {
    /// Its identity.
    pub id: NodeId,
    /// Its disk; survives crashes.
    pub disk: SimDisk,
    /// Its clocks.
    pub clock: NodeClock,
    /// How often it was started; events of earlier lives are void.
    pub life: u64,
    /// `None` while it is down.
    pub running: Option<Running>,
    /// How much longer than usual a flush takes.
    pub slow: Duration,
    /// Where it is to end.
    pub armed: Option<Trap>,
    /// Until when nothing that arrives is verified.
    pub blocked: Time,
    /// Chooses delays and what a crash leaves.
    pub random: Random,
}

/// Why a node could not start: what the product's own start would report.
#[derive(Debug, thiserror::Error)]
#[error("node {node} cannot start: {why}")]
pub struct StartFailure {
    node: NodeId,
    why: String,
}

impl SimNode {
    /// A node that never ran.
    #[must_use]
    pub fn new(id: NodeId, clock: NodeClock, random: Random) -> Self {
        Self {
            id,
            disk: SimDisk::new(),
            clock,
            life: 0,
            running: None,
            slow: Duration::ZERO,
            armed: None,
            blocked: Time(0),
            random,
        }
    }

    /// Starts it on what its disk holds, as the product does.
    ///
    /// # Errors
    ///
    /// [`StartFailure`]: never, unless durable state was lost.
    pub fn start(&mut self, time: Time, plan: &ClusterPlan) -> Result<Found, StartFailure> {
        let node = self.id;
        let fault = |why: &dyn std::fmt::Display| StartFailure { node, why: why.to_string() };
        self.life += 1;
        let identity = Identity { node, ..plan.identity };
        let store = Store::open_on(&self.disk, "state.redb", &identity).map_err(|error| fault(&error))?;
        let boot = store.raise_boot().map_err(|error| fault(&error))?;
        let options = WalOptions {
            segment_bytes: SEGMENT_BYTES,
            salt: self.random.next(),
            expected_groups: store.groups().map_err(|error| fault(&error))?,
            ..WalOptions::default()
        };
        let (wal, recovery) =
            Wal::open(self.disk.clone(), identity, options).map_err(|error| fault(&error))?;
        let local = Local { node, incarnation: identity.incarnation, boot, seed: self.random.next() };
        let mut driver = Driver::new(local);
        let mut checkpoints = BTreeMap::new();
        for (machine, config) in &plan.groups {
            let group = machine.group;
            if store.group(group).map_err(|error| fault(&error))?.is_none() {
                store.put_group(group, machine.name.as_bytes()).map_err(|error| fault(&error))?;
            }
            let found = recovery.groups.get(&group).cloned();
            let mut start = GroupStart::recover(&store, machine.clone(), config.clone(), found, plan.timings)
                .map_err(|error| fault(&error))?;
            let identity = plan.signing.as_ref().and_then(|signing| signing.identity(node, group, boot));
            if let Some(identity) = identity {
                start = start.signing(identity);
            }
            driver.add_group(start, self.clock.now(time)).map_err(|error| fault(&error))?;
            let checkpoint = driver.machine(group).map_or(Position::ZERO, |machine| machine.mark().position);
            checkpoints.insert(group, checkpoint);
        }
        self.running = Some(Running {
            driver,
            wal,
            store,
            log_queue: VecDeque::new(),
            flushing: None,
            marks: Vec::new(),
            table_queue: VecDeque::new(),
            tables_busy: false,
            pulls: BTreeMap::new(),
            wake: None,
        });
        Ok(Found { recovery, checkpoints })
    }

    /// Ends it as a power failure does.
    pub fn crash(&mut self) {
        // First the disk, so that nothing that ends in an orderly way reaches it.
        self.disk.crash(self.random.next());
        self.running = None;
        self.armed = None;
    }

    /// How long a flush takes.
    pub fn flush_delay(&mut self) -> Duration {
        Duration::from_micros(self.random.between(80, 500)) + self.slow
    }

    /// How long a table transaction takes.
    pub fn table_delay(&mut self) -> Duration {
        let usual = if self.random.chance(100) {
            self.random.between(5_000, 60_000)
        } else {
            self.random.between(300, 4_000)
        };
        Duration::from_micros(usual) + self.slow
    }
}

impl Running {
    /// Takes what waits for the log thread and appends it.
    ///
    /// # Errors
    ///
    /// Those of the log.
    pub fn append_waiting(&mut self) -> Result<Appended, quorate_storage::WalError> {
        let mut appended = Appended::default();
        for work in self.log_queue.drain(..).collect::<Vec<_>>() {
            match work {
                LogWork::Append(mut batch, ticket) => {
                    appended.written.append(&mut self.marks);
                    appended.written.extend(batch.iter().cloned().map(Record::Append));
                    appended.gathered.append(&mut batch);
                    appended.flushing.tickets.push(ticket);
                }
                LogWork::Compact(group, through) => {
                    // What was gathered may hold entries that this releases.
                    self.wal.append(&appended.gathered)?;
                    appended.gathered.clear();
                    self.wal.compact(group, through);
                    appended.flushing.maintain = true;
                }
                LogWork::Reset(group, position) => {
                    // What was appended before must not end up after the reset.
                    self.wal.append(&appended.gathered)?;
                    appended.gathered.clear();
                    self.wal.reset(group, position);
                    self.marks.push(Record::Reset(group, position));
                }
            }
        }
        if !appended.gathered.is_empty() {
            self.wal.append(&appended.gathered)?;
        }
        Ok(appended)
    }
}

/// What was given to the log in one go.
#[derive(Debug, Default)]
pub struct Appended {
    gathered: Vec<GroupAppend>,
    /// In order.
    pub written: Vec<Record>,
    /// What the flush will report.
    pub flushing: Flushing,
}

/// A record on its way to the disk.
#[derive(Debug)]
pub enum Record {
    /// Of a group's hard state and entries.
    Append(GroupAppend),
    /// That a group's log is void up to here.
    Reset(GroupId, Position),
}
