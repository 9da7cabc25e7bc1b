//! A node's two disk threads as steps of the simulation.
//!
//! Relies on the world. Promises what the product's threads promise: one flush for all that was appended
//! when it began, completions in order, table work one piece at a time. Decides nothing of its own.

use std::time::Duration;

use quorate_node::driver::DriverInput;
use quorate_types::NodeId;

use crate::director::Trap;
use crate::event::Event;
use crate::node::{LogWork, TableWork};
use crate::planted::{Planted, without_votes};
use crate::violation::{Checked, hold};
use crate::world::World;

impl World<'_> {
    pub(crate) fn log_work(&mut self, id: NodeId, work: LogWork) {
        if let Some(running) = self.running(id) {
            running.log_queue.push_back(work);
        }
    }

    /// The log thread, if it is idle, appends what waits and begins a flush.
    pub(crate) fn start_log(&mut self, id: NodeId) -> Checked {
        let (now, planted, life) = (self.now, self.planted, self.life(id));
        let Some(node) = self.nodes.get_mut(&id) else { return Ok(()) };
        let Some(running) = node.running.as_mut() else { return Ok(()) };
        if running.flushing.is_some() || running.log_queue.is_empty() {
            return Ok(());
        }
        if matches!(planted, Some(Planted::VotesTwice | Planted::ForgetsWhatItSigned)) {
            for work in &mut running.log_queue {
                if let LogWork::Append(batch, _) = work {
                    *batch = without_votes(std::mem::take(batch), &mut node.random);
                }
            }
        }
        let appended = running.append_waiting();
        hold!(appended.is_ok(), NoFence, "node {id} cannot write its log: {:?}", appended.as_ref().err());
        let Ok(appended) = appended else { return Ok(()) };
        let tickets = appended.flushing.tickets.clone();
        let something = !appended.written.is_empty();
        running.flushing = Some(appended.flushing);
        let delay = node.flush_delay();
        if something && node.armed == Some(Trap::CrashAfterAppend) {
            let wait = node.random.below(u64::try_from(delay.as_micros()).unwrap_or(u64::MAX));
            self.queue.push(now.after(Duration::from_micros(wait)), Event::Crash(life));
        }
        self.queue.push(now.after(delay), Event::Flush(life));
        self.observer.appended(id, &appended.written)?;
        if is_early(planted) && !tickets.is_empty() {
            let early = tickets.into_iter().map(DriverInput::Flushed).collect();
            return self.step(id, early);
        }
        Ok(())
    }

    /// The log thread's flush ends.
    pub(crate) fn flush(&mut self, id: NodeId) -> Checked {
        let planted = self.planted;
        let Some(running) = self.running(id) else { return Ok(()) };
        let Some(flushing) = running.flushing.take() else { return Ok(()) };
        let mut result = Ok(());
        if !flushing.tickets.is_empty() {
            result = running.wal.flush();
        }
        while result.is_ok() && flushing.maintain {
            match running.wal.maintain() {
                Ok(true) => {}
                Ok(false) => break,
                Err(error) => result = Err(error),
            }
        }
        hold!(result.is_ok(), NoFence, "node {id} cannot flush its log: {:?}", result.as_ref().err());
        let held = if flushing.maintain { running.wal.groups_holding_back() } else { Vec::new() };
        if !flushing.tickets.is_empty() {
            self.observer.flushed(id);
        }
        let tickets = flushing.tickets;
        self.start_log(id)?;
        if is_early(planted) {
            return Ok(());
        }
        let flushed = tickets.into_iter().map(DriverInput::Flushed);
        let inputs: Vec<_> = flushed.chain(held.into_iter().map(DriverInput::CheckpointDue)).collect();
        if inputs.is_empty() { Ok(()) } else { self.step(id, inputs) }
    }

    pub(crate) fn start_tables(&mut self, id: NodeId) {
        let (now, life) = (self.now, self.life(id));
        let Some(node) = self.nodes.get_mut(&id) else { return };
        let delay = node.table_delay();
        let Some(running) = node.running.as_mut() else { return };
        if !running.tables_busy && !running.table_queue.is_empty() {
            running.tables_busy = true;
            self.queue.push(now.after(delay), Event::Tables(life));
        }
    }

    /// The tables thread does its first piece of work.
    pub(crate) fn run_tables(&mut self, id: NodeId) -> Checked {
        let Some(node) = self.nodes.get_mut(&id) else { return Ok(()) };
        let Some(running) = node.running.as_mut() else { return Ok(()) };
        let Some(work) = running.table_queue.pop_front() else { return Ok(()) };
        running.tables_busy = false;
        let torn = node.armed == Some(Trap::CrashInTables);
        if torn {
            node.disk.halt_after(node.random.below(24));
        }
        let ends_here =
            torn || (matches!(work, TableWork::Install(_)) && node.armed == Some(Trap::CrashAfterInstall));
        let (input, installed) = match work {
            TableWork::Checkpoint(job) => (job.run(&running.store).map(DriverInput::CheckpointDone), None),
            TableWork::Install(job) => {
                let (group, position) = (job.group(), job.position());
                let result = job.run(&running.store).map(|done| match done {
                    Ok(done) => DriverInput::SnapshotInstalled(Box::new(done)),
                    Err(_) => DriverInput::SnapshotFailed { group, position },
                });
                (result, Some((group, position)))
            }
        };
        if ends_here {
            self.observer.statistics_mut().table_crashes += 1;
            self.crash(id, None);
            return Ok(());
        }
        hold!(input.is_ok(), NoFence, "node {id} cannot write its tables: {:?}", input.as_ref().err());
        let Ok(input) = input else { return Ok(()) };
        match (&input, installed) {
            (DriverInput::SnapshotInstalled(_), Some((group, position))) => {
                self.observer.installed(id, group, position)?;
            }
            (DriverInput::CheckpointDone(_), _) => self.observer.statistics_mut().checkpoints += 1,
            _ => {}
        }
        self.step(id, vec![input])?;
        self.start_tables(id);
        Ok(())
    }
}

/// Whether what is durable is reported before it is.
fn is_early(planted: Option<Planted>) -> bool {
    matches!(planted, Some(Planted::AcknowledgesBeforeFlush | Planted::SignsBeforeFlush))
}
