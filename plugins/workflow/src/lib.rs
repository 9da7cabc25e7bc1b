//! Durable cases in the CNCF Serverless Workflow DSL 1.0, as a replicated state machine.
//!
//! Relies on the SDK only. Promises that a case survives whatever its group survives, that the same log
//! gives the same cases on every replica, and that no case can harm another: whatever goes wrong in one is
//! an error of the specification there. Knows no network: calls are offered to workers as work items, and
//! events come and go as commands and as what watchers are shown.
//!
//! ```text
//! define  text -> definition/  -> stored tasks, expressions parsed
//! start   -> engine/           -> a case: frames and a queue of actions, one value of the state
//! claim, complete, signal, timers -> actions of a case, as many transitions as are ready
//! ```

mod commands;
pub mod definition;
mod engine;
pub mod jq;
mod lifecycle;
mod limits;
mod message;
#[cfg(not(target_arch = "wasm32"))]
pub mod orders;
mod problem;
mod queries;
mod store;
pub mod value;

#[cfg(test)]
mod tests;

use quorate_sdk::prelude::*;

pub use engine::case::Phase;
pub use limits::Limits;
pub use message::{
    CaseLine, CaseView, Claimed, Command, Event, HistoryLine, ItemId, ItemView, PAGE_MAX, Query, Reference,
    Refused, Started,
};
pub use problem::{Problem, Standard};

use engine::{Due, Run};
use store::LIMITS;

/// The workflow component.
pub struct Workflow;

impl StateMachine for Workflow {
    const NAME: &'static str = "workflow";
    const VERSION: &'static str = env!("CARGO_PKG_VERSION");

    type Command = Command;
    type Query = Query;
    type Event = Event;

    fn init(ctx: &mut Context, parameters: Body<'_>) -> Result<(), Rejection> {
        let limits: Limits = if parameters.is_empty() { Limits::default() } else { parameters.read()? };
        if let Some((what, value, least, greatest)) = limits.check() {
            return Err(Refused::OutOfRange { what: what.into(), value, least, greatest }.into());
        }
        LIMITS.set(ctx, &limits);
        Ok(())
    }

    fn apply(ctx: &mut Context, command: Command) -> Result<Answer, Rejection> {
        commands::apply(ctx, command)
    }

    fn query(view: &View, query: Query) -> Result<Answer, Rejection> {
        queries::query(view, query)
    }

    fn timer(ctx: &mut Context, id: &str, body: Body<'_>) -> Result<(), Rejection> {
        let mut run = Run::new(ctx);
        match id.split('/').next() {
            Some("schedule") => run.scheduled(body.read()?),
            Some("publish") => {
                let (event, from) = body.read()?;
                run.publish(id, &event, from);
            }
            Some("stuck") => {
                let (case, since) = body.read()?;
                run.stuck(case, since);
            }
            _ => {
                let (due, case, frame): (Due, u64, u32) = body.read()?;
                run.due(due, case, frame);
                if due == Due::More {
                    run.finish();
                    return Ok(());
                }
            }
        }
        // A timer that is refused never comes again, so it does as little as it can.
        run.finish_later();
        Ok(())
    }
}

quorate_sdk::export!(Workflow);
