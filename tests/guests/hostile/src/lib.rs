//! A component with one command for each way to break the rules.
//!
//! Relies on the SDK, since most hostile components will be honest ones with a fault. Promises that
//! every other command behaves, so that a test can tell the guilty from its neighbours. Knows no limits:
//! everything goes on until the host ends it.

use std::collections::{HashMap, HashSet};
use std::hint::black_box;
use std::time::Duration;

use quorate_sdk::prelude::*;

const PAIRS: Map<String, Bytes> = Map::new("pairs");
/// How many commands behaved.
const COUNT: Value<u64> = Value::new("count");

/// What can be asked of it.
#[derive(Serialize, Deserialize)]
pub enum Command {
    /// Behaves: sets a key.
    Put {
        /// The key.
        key: String,
        /// Its value.
        value: Bytes,
    },
    /// Behaves: is refused after it wrote, emitted and set a timer.
    Refuse,
    /// Writes a key, then panics.
    Panic {
        /// The key.
        key: String,
    },
    /// Writes a key, then runs for ever.
    Spin {
        /// The key.
        key: String,
    },
    /// Takes memory without end.
    TakeMemory,
    /// Calls itself without end.
    Recurse,
    /// Writes values of this size without end.
    WriteMuch {
        /// Bytes of each value.
        bytes: usize,
    },
    /// Answers with this many bytes.
    AnswerMuch {
        /// Bytes of the answer.
        bytes: usize,
    },
    /// Emits this many events of this size.
    EmitMuch {
        /// How many.
        events: u32,
        /// Bytes of each.
        bytes: usize,
    },
    /// Sets this many timers.
    SetTimers {
        /// How many.
        timers: u32,
    },
    /// Reads a key without end.
    CallMuch,
    /// Opens more cursors than there may be, at once.
    OpenCursors,
    /// Answers with the order of a hash map: differs between a fresh and an aged instance.
    HashOrder,
    /// Answers with the address of something on the heap.
    Address,
    /// Answers with what a static counted; an instance that is not fresh shows.
    CountInStatic,
    /// Sets a timer whose command panics.
    PanicLater {
        /// How much later.
        after_ms: u64,
    },
}

/// What can be asked about it.
#[derive(Serialize, Deserialize)]
pub enum Query {
    /// Behaves: the value of a key.
    Get {
        /// The key.
        key: String,
    },
    /// Behaves: how many commands behaved.
    Count,
    /// Runs for ever.
    Spin,
    /// Panics.
    Panic,
    /// Answers with this many bytes.
    AnswerMuch {
        /// Bytes of the answer.
        bytes: usize,
    },
}

/// What it shows.
#[derive(Serialize, Deserialize)]
pub enum Event {
    /// Some bytes.
    Noise {
        /// The bytes.
        bytes: Bytes,
    },
}

/// The refusals.
#[derive(Debug, Reject)]
pub enum Refused {
    /// As asked.
    #[reject(code = 200, message = "refused as asked")]
    AsAsked,
}

/// The component.
pub struct Hostile;

static STATIC_COUNT: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(0);

fn write_some(ctx: &mut Context, key: &str) {
    PAIRS.insert(ctx, key, &"must not stay".into());
}

fn spin() -> ! {
    let mut turns = 0u64;
    loop {
        turns = black_box(turns.wrapping_add(1));
    }
}

#[allow(unconditional_recursion)]
fn recurse(depth: u64) -> u64 {
    // What comes after the call keeps it from being made a loop.
    black_box(recurse(black_box(depth + 1))) + depth
}

fn take_memory() -> ! {
    let mut taken: Vec<Vec<u8>> = Vec::new();
    loop {
        // Not filled, since that would use up the fuel first.
        taken.push(black_box(Vec::with_capacity(1 << 20)));
    }
}

impl StateMachine for Hostile {
    const NAME: &'static str = "hostile";
    const VERSION: &'static str = env!("CARGO_PKG_VERSION");
    type Command = Command;
    type Query = Query;
    type Event = Event;

    fn apply(ctx: &mut Context, command: Command) -> Result<Answer, Rejection> {
        match command {
            Command::Put { key, value } => {
                PAIRS.insert(ctx, &key, &value);
                let count = COUNT.get(ctx).unwrap_or(0) + 1;
                COUNT.set(ctx, &count);
                answer(count)
            }
            Command::Refuse => {
                write_some(ctx, "refused");
                ctx.emit(&Event::Noise { bytes: "refused".into() });
                ctx.set_timer_in("refused", Duration::ZERO, &());
                Err(Refused::AsAsked.into())
            }
            Command::Panic { key } => {
                write_some(ctx, &key);
                panic!("panicked as asked, with the key {key}")
            }
            Command::Spin { key } => {
                write_some(ctx, &key);
                spin()
            }
            Command::TakeMemory => take_memory(),
            Command::Recurse => answer(recurse(0)),
            Command::WriteMuch { bytes } => {
                let value: Bytes = vec![1; bytes].into();
                for number in 0u64.. {
                    PAIRS.insert(ctx, &format!("much-{number}"), &value);
                }
                done()
            }
            Command::AnswerMuch { bytes } => answer(Bytes(vec![1; bytes])),
            Command::EmitMuch { events, bytes } => {
                (0..events).for_each(|_| ctx.emit(&Event::Noise { bytes: Bytes(vec![1; bytes]) }));
                done()
            }
            Command::SetTimers { timers } => {
                (0..timers)
                    .for_each(|number| ctx.set_timer_in(&number.to_string(), Duration::from_secs(1), &()));
                done()
            }
            Command::CallMuch => loop {
                black_box(PAIRS.contains(ctx, "a"));
            },
            Command::OpenCursors => {
                let mut cursors: Vec<_> = (0..65).map(|_| PAIRS.iter(ctx)).collect();
                answer(cursors.iter_mut().filter_map(Iterator::next).count())
            }
            Command::HashOrder => {
                let mut order: HashMap<u32, ()> = (0..64).map(|number| (number, ())).collect();
                order.extend(HashSet::from([64, 65]).into_iter().map(|number| (number, ())));
                answer(order.into_keys().collect::<Vec<u32>>())
            }
            Command::Address => answer(black_box(Box::new(1u8)).as_ref() as *const u8 as usize as u64),
            Command::CountInStatic => {
                answer(STATIC_COUNT.fetch_add(1, std::sync::atomic::Ordering::Relaxed) + 1)
            }
            Command::PanicLater { after_ms } => {
                ctx.set_timer_in("panic", Duration::from_millis(after_ms), &());
                done()
            }
        }
    }

    fn query(view: &View, query: Query) -> Result<Answer, Rejection> {
        match query {
            Query::Get { key } => answer(PAIRS.get(view, &key)),
            Query::Count => answer(COUNT.get(view).unwrap_or(0)),
            Query::Spin => spin(),
            Query::Panic => panic!("panicked as asked, in a query"),
            Query::AnswerMuch { bytes } => answer(Bytes(vec![1; bytes])),
        }
    }

    fn timer(ctx: &mut Context, id: &str, _body: Body<'_>) -> Result<(), Rejection> {
        write_some(ctx, id);
        if id == "panic" {
            panic!("panicked as asked, in a timer");
        }
        Ok(())
    }
}

quorate_sdk::export!(Hostile);
