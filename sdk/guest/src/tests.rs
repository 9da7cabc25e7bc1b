//! The whole road of a state machine through the native host: effects, timers, randomness, schema,
//! migration, and what happens to commands that are none.

#![allow(clippy::unwrap_used)]

use std::collections::HashMap;
use std::time::Duration;

use crate::prelude::*;
use crate::testing::{TestHost, body};

const NOTES: Map<u64, String> = Map::new("notes");
const GREETING: Value<String> = Value::new("greeting");

#[derive(Debug, Serialize, Deserialize)]
enum Command {
    Note { text: String },
    Remind { id: String, after_ms: u64, text: String, refuse: bool },
    Forget { id: String },
    Draw { count: usize },
    When,
    Who,
    Log { text: String },
    UnorderedDraw,
}

#[derive(Debug, Serialize, Deserialize)]
enum Query {
    Notes,
    Greeting,
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
enum Event {
    Noted { text: String },
    TimerFired { id: String },
}

#[derive(Debug, Reject)]
enum Refused {
    #[reject(code = 200, message = "refused `{id}` as asked")]
    AsAsked { id: String },
    #[reject(code = 201, name = "bad-parameters", message = "{0} is no greeting")]
    Parameters(String),
}

struct Machine;

impl StateMachine for Machine {
    const NAME: &'static str = "sdk-test";
    const VERSION: &'static str = "1.0.0";
    const CRITICAL: &'static [&'static str] = &["forget"];
    type Command = Command;
    type Query = Query;
    type Event = Event;

    fn init(ctx: &mut Context, parameters: Body<'_>) -> Result<(), Rejection> {
        let greeting: Option<String> = parameters.read()?;
        GREETING.set(ctx, &greeting.clone().unwrap_or_else(|| "hello".into()));
        match greeting {
            Some(greeting) if greeting.is_empty() => Err(Refused::Parameters("nothing".into()).into()),
            Some(_) | None => Ok(()),
        }
    }

    fn apply(ctx: &mut Context, command: Command) -> Result<Answer, Rejection> {
        match command {
            Command::Note { text } => {
                ctx.emit(&Event::Noted { text: text.clone() });
                NOTES.insert(ctx, &ctx.index(), &text);
                done()
            }
            Command::Remind { id, after_ms, text, refuse } => {
                ctx.set_timer_in(&id, Duration::from_millis(after_ms), &text);
                ctx.emit(&Event::Noted { text });
                if refuse { Err(Refused::AsAsked { id }.into()) } else { done() }
            }
            Command::Forget { id } => {
                ctx.cancel_timer(&id);
                done()
            }
            Command::Draw { count } => {
                let draws: Vec<u64> = (0..count).map(|_| ctx.random().next_u64()).collect();
                answer(draws)
            }
            Command::When => answer((ctx.time(), ctx.index(), ctx.group().to_owned(), ctx.epoch())),
            Command::Who => answer(format!("{:?}", ctx.origin())),
            Command::Log { text } => {
                ctx.log(LogLevel::Warn, &text);
                done()
            }
            Command::UnorderedDraw => {
                let unordered: HashMap<u32, ()> = (0..100).map(|number| (number, ())).collect();
                answer(unordered.into_keys().collect::<Vec<u32>>())
            }
        }
    }

    fn query(view: &View, query: Query) -> Result<Answer, Rejection> {
        match query {
            Query::Notes => answer(NOTES.iter(view).map(|(_, text)| text).collect::<Vec<String>>()),
            Query::Greeting => answer(GREETING.get(view)),
        }
    }

    fn timer(ctx: &mut Context, id: &str, body: Body<'_>) -> Result<(), Rejection> {
        ctx.emit(&Event::TimerFired { id: id.into() });
        let text: String = body.read()?;
        if text == "refuse" {
            return Err(Refused::AsAsked { id: id.into() }.into());
        }
        let place = NOTES.iter(ctx).descending().next().map_or(0, |(last, _)| last + 1);
        NOTES.insert(ctx, &place, &text);
        Ok(())
    }
}

fn remind(id: &str, after_ms: u64, text: &str) -> Command {
    Command::Remind { id: id.into(), after_ms, text: text.into(), refuse: false }
}

fn notes(host: &TestHost<Machine>) -> Vec<String> {
    host.query(Query::Notes).unwrap()
}

#[test]
fn timers_fire_once_in_the_order_of_their_times() {
    let mut host = TestHost::<Machine>::new();
    host.apply_batch([
        remind("b", 20, "later"),
        remind("a", 10, "sooner"),
        remind("c", 20, "last"),
        remind("d", 5, "never"),
    ])
    .unwrap();
    host.apply(Command::Forget { id: "d".into() }).unwrap();
    assert!(host.advance(Duration::from_millis(9)).is_empty());
    assert_eq!(host.advance(Duration::from_millis(11)), [Ok(()), Ok(()), Ok(())]);
    assert_eq!(notes(&host), ["sooner", "later", "last"]);
    assert!(host.timers().is_empty());
    assert!(host.advance(Duration::from_secs(1)).is_empty());
    host.check_determinism();
}

#[test]
fn a_refused_command_leaves_no_event_and_no_timer() {
    let mut host = TestHost::<Machine>::new();
    let refused = Command::Remind { id: "x".into(), after_ms: 1, text: "t".into(), refuse: true };
    let rejection = host.apply(refused).unwrap_err();
    assert_eq!(rejection.to_string(), "as-asked (200): refused `x` as asked");
    assert!(host.timers().is_empty() && host.events().is_empty());
    host.apply(remind("x", 1, "refuse")).unwrap();
    assert_eq!(host.events().len(), 1);
    assert_eq!(host.advance(Duration::from_millis(2))[0].as_ref().unwrap_err().code, 200);
    assert_eq!(host.events().len(), 1, "what the refused timer emitted is gone");
    assert!(host.timers().is_empty(), "and so is the timer");
}

#[test]
fn a_timer_is_replaced_by_one_of_the_same_identity() {
    let mut host = TestHost::<Machine>::new();
    host.apply_batch([remind("x", 10, "first"), remind("x", 30, "second")]).unwrap();
    assert!(host.advance(Duration::from_millis(20)).is_empty());
    host.advance(Duration::from_millis(20));
    assert_eq!(notes(&host), ["second"]);
}

#[test]
fn draws_differ_between_commands_and_not_between_batches() {
    let draws = |outcomes: Vec<Result<Body<'static>, Rejection>>| -> Vec<Vec<u64>> {
        outcomes.into_iter().map(|outcome| outcome.unwrap().read().unwrap()).collect()
    };
    let mut host = TestHost::<Machine>::new();
    let together = draws(host.apply_batch([Command::Draw { count: 2 }, Command::Draw { count: 2 }]).unwrap());
    assert_ne!(together[0], together[1]);
    assert_ne!(together[0][0], together[0][1]);
    // The same command as the second one, but first in an entry of the same index.
    let mut other = TestHost::<Machine>::new();
    other.apply_batch([Command::Draw { count: 2 }, Command::Draw { count: 2 }]).unwrap();
    other.become_session(2);
    assert_ne!(draws(other.apply_batch([Command::Draw { count: 2 }]).unwrap())[0], together[0]);
    host.check_determinism();
}

#[test]
fn time_and_origin_are_the_entrys() {
    let mut host = TestHost::<Machine>::new();
    host.advance(Duration::from_millis(5));
    let (time, index, group, epoch): (Timestamp, u64, String, u64) =
        host.apply(Command::When).unwrap().read().unwrap();
    assert_eq!((time, index, group.as_str(), epoch), (host.time(), 3, "test", 1));
    host.become_session(7);
    let who: String = host.apply(Command::Who).unwrap().read().unwrap();
    assert_eq!(who, "Session { session: 7, sequence: 2 }");
}

#[test]
fn what_is_no_command_or_query_is_refused_by_name() {
    let mut host = TestHost::<Machine>::new();
    let refused = host.apply_raw("steal", &[]).unwrap_err();
    assert_eq!(refused.to_string(), "unknown-command (100): there is no command `steal`");
    let refused = host.apply_raw("note", &body(&BTreeMap::from([("text", 5)])).unwrap()).unwrap_err();
    assert_eq!((refused.code, refused.name.as_str()), (101, "malformed-body"));
    assert!(refused.message.contains("`note`") && refused.message.contains("expected a string"), "{refused}");
    assert_eq!(host.apply_raw("note", &[0xff]).unwrap_err().code, 101);
    assert!(host.apply_raw("note", &body(&BTreeMap::from([("text", "fine")])).unwrap()).is_ok());
    assert_eq!(host.query_raw("secrets", &[]).unwrap_err().code, 102);
    assert_eq!(host.query_raw("notes", &[1]).unwrap_err().code, 101);
}

#[test]
fn init_reads_its_parameters_or_refuses_the_deployment() {
    let greeting = |host: &TestHost<Machine>| host.query::<String>(Query::Greeting).unwrap();
    assert_eq!(greeting(&TestHost::new()), "hello");
    assert_eq!(greeting(&TestHost::with_parameters(&"hi").unwrap()), "hi");
    let refused = |parameters: &dyn Fn() -> Result<TestHost<Machine>, Rejection>| parameters().err().unwrap();
    let empty = refused(&|| TestHost::with_parameters(&""));
    assert_eq!(empty.to_string(), "bad-parameters (201): nothing is no greeting");
    assert_eq!(refused(&|| TestHost::with_parameters(&5)).name, "malformed-body");
}

#[test]
fn log_lines_reach_the_log_and_nothing_else() {
    let mut host = TestHost::<Machine>::new();
    host.apply(Command::Log { text: "look".into() }).unwrap();
    assert_eq!(host.log_lines(), ["warn component: look"]);
}

#[test]
#[should_panic(expected = "not deterministic: `unordered-draw` at entry 2")]
fn the_check_finds_an_unordered_map() {
    let mut host = TestHost::<Machine>::new();
    host.apply(Command::UnorderedDraw).unwrap();
    host.check_determinism();
}

#[test]
fn the_schema_lists_names_fields_and_types() {
    assert_eq!(
        TestHost::<Machine>::schema(),
        concat!(
            r#"{"commands":[{"name":"note","fields":[{"name":"text","type":"string"}]},"#,
            r#"{"name":"remind","fields":[{"name":"id","type":"string"},{"name":"after_ms","type":"u64"},"#,
            r#"{"name":"text","type":"string"},{"name":"refuse","type":"bool"}]},"#,
            r#"{"name":"forget","fields":[{"name":"id","type":"string"}]},"#,
            r#"{"name":"draw","fields":[{"name":"count","type":"u64"}]},"#,
            r#"{"name":"when","fields":[]},{"name":"who","fields":[]},"#,
            r#"{"name":"log","fields":[{"name":"text","type":"string"}]},"#,
            r#"{"name":"unordered-draw","fields":[]}],"#,
            r#""queries":[{"name":"notes","fields":[]},{"name":"greeting","fields":[]}],"#,
            r#""events":[{"name":"noted","fields":[{"name":"text","type":"string"}]},"#,
            r#"{"name":"timer-fired","fields":[{"name":"id","type":"string"}]}]}"#
        )
    );
}

/// The machine with a layout in which notes have an author.
struct Successor;

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct SignedNote {
    author: String,
    text: String,
}

const SIGNED_NOTES: Map<u64, SignedNote> = Map::new("signed-notes");
/// Few, so that the test takes several steps.
const NOTES_PER_STEP: usize = 2;

impl StateMachine for Successor {
    const NAME: &'static str = "sdk-test";
    const VERSION: &'static str = "2.0.0";
    const SCHEMA_VERSION: u32 = 2;
    const MIGRATES_FROM: &'static [u32] = &[1];
    type Command = Nothing;
    type Query = Query;
    type Event = Nothing;

    fn apply(_ctx: &mut Context, command: Nothing) -> Result<Answer, Rejection> {
        match command {}
    }

    fn query(view: &View, _query: Query) -> Result<Answer, Rejection> {
        let signed = SIGNED_NOTES.iter(view).map(|(_, note)| note.author + ":" + &note.text);
        answer((signed.collect::<Vec<String>>(), NOTES.is_empty(view)))
    }

    fn migrate(ctx: &mut Context, _from: u32, resume: Option<Body<'_>>) -> Result<Migration, Rejection> {
        let steps: u32 = resume.map_or(Ok(0), |resume| resume.read())?;
        let some: Vec<(u64, String)> = NOTES.iter(ctx).take(NOTES_PER_STEP).collect();
        for (place, text) in &some {
            SIGNED_NOTES.insert(
                ctx,
                place,
                &SignedNote { author: format!("step-{steps}"), text: text.clone() },
            );
            NOTES.remove(ctx, place);
        }
        if some.is_empty() { Ok(Migration::Finished) } else { Migration::more(&(steps + 1)) }
    }
}

#[test]
fn a_migration_goes_on_until_it_is_finished() {
    let mut host = TestHost::<Machine>::new();
    for text in ["a", "b", "c"] {
        host.apply(Command::Note { text: text.into() }).unwrap();
    }
    let host = host.upgrade::<Successor>().unwrap();
    let (signed, old_is_empty): (Vec<String>, bool) = host.query(Query::Notes).unwrap();
    assert_eq!((signed, old_is_empty), (vec!["step-0:a".into(), "step-0:b".into(), "step-1:c".into()], true));
}

#[test]
fn a_machine_without_a_migration_refuses_one() {
    let host = TestHost::<Successor>::new();
    let refused = host.upgrade::<Machine>().err().unwrap();
    assert_eq!((refused.code, refused.name.as_str()), (106, "unknown-layout"));
}
