//! Definitions whose cases start by themselves.
//!
//! Relies on timers and on the index of triggers. Promises that only the newest version of a definition
//! starts by itself. Knows no task.

use quorate_sdk::{Context, Timestamp};

use super::listening::types_of;
use super::run::Run;
use crate::definition::cron::Cron;
use crate::definition::program::{Outline, Schedule};
use crate::store::{LATEST, OUTLINES, PARTIAL, TRIGGERS};
use crate::value::Value;

fn timer_id(number: u32) -> String {
    format!("schedule/{number}")
}

/// Has a definition's next case start at a time, in milliseconds since 1970.
pub(crate) fn arm(ctx: &mut Context, number: u32, at: u64) {
    ctx.set_timer(&timer_id(number), Timestamp::from_unix_millis(at), &number);
}

/// A definition became the newest of its name.
pub(crate) fn enable(ctx: &mut Context, number: u32, outline: &Outline, now: u64) {
    match &outline.schedule {
        None | Some(Schedule::After(_)) => {}
        Some(Schedule::Every(millis)) => arm(ctx, number, now + millis),
        Some(Schedule::Cron(text)) => arm_cron(ctx, number, text, now),
        Some(Schedule::On(events)) => {
            for kind in types_of(events) {
                TRIGGERS.insert(ctx, &(kind, number), &());
            }
        }
    }
}

fn arm_cron(ctx: &mut Context, number: u32, text: &str, now: u64) {
    let seconds = i64::try_from(now / 1_000).unwrap_or(i64::MAX);
    let next = Cron::read(text).ok().and_then(|cron| cron.next_after(seconds));
    if let Some(at) = next.and_then(|next| u64::try_from(next).ok()) {
        arm(ctx, number, at * 1_000);
    }
}

/// A definition is no longer the newest of its name.
pub(crate) fn disable(ctx: &mut Context, number: u32, outline: &Outline) {
    match &outline.schedule {
        None => {}
        Some(Schedule::On(events)) => {
            for kind in types_of(events) {
                TRIGGERS.remove(ctx, &(kind, number));
            }
            PARTIAL.remove(ctx, &number);
        }
        Some(_) => ctx.cancel_timer(&timer_id(number)),
    }
}

impl Run<'_> {
    /// It is time for a definition's next case.
    pub(crate) fn scheduled(&mut self, number: u32) {
        let Some(stored) = OUTLINES.get(self.ctx, &number) else { return };
        let outline = &stored.outline;
        if LATEST.get(self.ctx, &(outline.namespace.as_str(), outline.name.as_str())) != Some(number) {
            return;
        }
        match &outline.schedule {
            Some(Schedule::Every(millis)) => arm(self.ctx, number, self.now + millis),
            Some(Schedule::Cron(text)) => arm_cron(self.ctx, number, text, self.now),
            _ => {}
        }
        self.start_case(number, None, Value::empty_object(), None, 0);
    }
}
