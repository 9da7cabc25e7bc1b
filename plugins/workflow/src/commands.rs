//! What each command does.
//!
//! Relies on the engine. Promises that a refusal leaves nothing behind, and that whatever goes wrong within
//! a case is no refusal but an error of that case. Knows no wire.

use quorate_sdk::Origin;
use quorate_sdk::prelude::*;

use crate::definition::{self, Outline};
use crate::engine::case::Action;
use crate::engine::{self, Cursor, Run, schedule};
use crate::limits::Limits;
use crate::message::{Claimed, Command, ItemId, Reference, Refused, Started};
use crate::problem::{Problem, Standard};
use crate::queries::status;
use crate::store::{
    CASES, Claim, DEFINITIONS, DOCUMENTS, HISTORY, ITEMS, Item, KEYS, LATEST, LIMITS, LISTED,
    NEXT_DEFINITION, OFFERED, OUTLINES, Stored, TASKS,
};
use crate::value::Value as Json;

/// The longest business key, worker's or function's name, in bytes.
const NAME_BYTES_MAX: usize = 256;
/// The range of leases, in milliseconds.
const LEASE_MILLIS: [u64; 2] = [1_000, 86_400_000];
/// A lease that nobody chose, in milliseconds.
const LEASE_MILLIS_USUAL: u64 = 30_000;
/// The most work items of one claim.
const CLAIMED_MAX: u32 = 100;
/// About how many bytes of arguments one claim answers with, beyond one work item: the host bounds what a
/// command writes and answers.
const CLAIMED_BYTES_MAX: usize = 1 << 20;
/// The most functions of one claim.
const FUNCTIONS_MAX: usize = 64;

pub(crate) fn apply(ctx: &mut Context, command: Command) -> Result<Answer, Rejection> {
    match command {
        Command::Define { text } => define(ctx, &text),
        Command::Start { namespace, name, version, key, input } => {
            let number = find(ctx, &namespace, &name, version.as_deref())?;
            start(ctx, number, (namespace, name, key), input.unwrap_or_else(Json::empty_object))
        }
        Command::Cancel { case } => {
            on_case(ctx, case, |run| if run.cancel(case) { Ok(()) } else { Err(over(run.ctx, case)) })
        }
        Command::Suspend { case } => {
            on_case(ctx, case, |run| if run.suspend(case) { Ok(()) } else { Err(wrong_state(run.ctx, case)) })
        }
        Command::Resume { case } => {
            on_case(ctx, case, |run| if run.resume(case) { Ok(()) } else { Err(wrong_state(run.ctx, case)) })
        }
        Command::Forget { case } => forget(ctx, case),
        Command::Signal { case, event } => {
            let event = checked_event(ctx, event)?;
            on_case(ctx, case, |run| {
                if run.case(case).is_some_and(|case| case.phase.is_over()) {
                    return Err(over(run.ctx, case));
                }
                run.push(case, Action::Signal(event, true));
                Ok(())
            })
        }
        Command::Publish { event } => {
            let event = checked_event(ctx, event)?;
            // An entry may hold many commands, each with a rest of its own.
            let id = match ctx.origin() {
                Origin::Session { session, sequence } => format!("publish/by/{session}/{sequence}"),
                Origin::Timer(_) | Origin::System => format!("publish/at/{}", ctx.index()),
            };
            let mut run = Run::new(ctx);
            let count = run.publish(&id, &event, Cursor::START);
            run.finish();
            answer(count)
        }
        Command::Claim { functions, worker, limit, lease } => claim(ctx, &functions, &worker, limit, lease),
        Command::Heartbeat { item, token, lease } => {
            let mut held = holds(ctx, item, token)?;
            let until = set_claim(ctx, item, &mut held, None, checked_lease(lease)?);
            answer(until)
        }
        Command::Complete { item, token, output } => {
            let output = output.unwrap_or_default();
            check_size(ctx, "the output", &output)?;
            resolve(ctx, item, token, |run| {
                let output = run.output_of(item.0, item.1, output);
                Action::Done(item.1, output)
            })
        }
        Command::Fail { item, token, error } => {
            let error = error.unwrap_or_else(Json::empty_object);
            check_size(ctx, "the error", &error)?;
            let problem = Problem::from_value(&error, Standard::Communication);
            resolve(ctx, item, token, |_| Action::Raise(item.1, problem))
        }
    }
}

/// A digest of a document (FNV-1a). It tells definitions of one number apart where tests make many groups,
/// and guards nothing.
fn digest(document: &Json) -> u64 {
    document
        .to_json()
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

fn named(outline: &Outline) -> String {
    format!("{}/{} {}", outline.namespace, outline.name, outline.version)
}

fn define(ctx: &mut Context, text: &str) -> Result<Answer, Rejection> {
    let read = definition::read(text).map_err(|faults| {
        let lines: Vec<String> = faults.iter().map(ToString::to_string).collect();
        Refused::BadDefinition { faults: lines.join("\n") }
    })?;
    let outline = &read.outline;
    let reference = Reference {
        namespace: outline.namespace.clone(),
        name: outline.name.clone(),
        version: outline.version.clone(),
    };
    let key = (outline.namespace.as_str(), outline.name.as_str(), outline.version.as_str());
    if let Some(number) = DEFINITIONS.get(ctx, &key) {
        if DOCUMENTS.get(ctx, &number).as_ref() == Some(&read.document) {
            return answer(reference);
        }
        return Err(Refused::AlreadyDefined { definition: named(outline) }.into());
    }
    // 0 stands for all definitions in listings.
    let number = NEXT_DEFINITION.get(ctx).unwrap_or(1);
    NEXT_DEFINITION.set(ctx, &(number + 1));
    DEFINITIONS.insert(ctx, &key, &number);
    DOCUMENTS.insert(ctx, &number, &read.document);
    for (place, task) in (0..).zip(&read.tasks) {
        TASKS.insert(ctx, &(number, place), task);
    }
    let now = ctx.time().unix_millis();
    let stored = Stored { outline: read.outline.clone(), digest: digest(&read.document), defined: now };
    OUTLINES.insert(ctx, &number, &stored);
    let name = (outline.namespace.as_str(), outline.name.as_str());
    let before = LATEST.get(ctx, &name);
    let before = before.and_then(|number| Some((number, OUTLINES.get(ctx, &number)?.outline)));
    if before.as_ref().is_none_or(|(_, before)| is_later(&outline.version, &before.version)) {
        if let Some((number, before)) = &before {
            schedule::disable(ctx, *number, before);
        }
        LATEST.insert(ctx, &name, &number);
        schedule::enable(ctx, number, outline, now);
    }
    answer(reference)
}

/// Whether a version comes after another (Semantic Versioning 2.0 §11).
fn is_later(version: &str, other: &str) -> bool {
    type Parts<'v> = (Vec<u64>, bool, Vec<(bool, u64, &'v str)>);
    fn parts(version: &str) -> Parts<'_> {
        let version = version.split('+').next().unwrap_or("");
        let (core, labels) =
            version.split_once('-').map_or((version, None), |(core, labels)| (core, Some(labels)));
        let core = core.split('.').map(|number| number.parse().unwrap_or(u64::MAX)).collect();
        let labels_of = labels.unwrap_or("").split('.').map(|label| match label.parse::<u64>() {
            Ok(number) => (false, number, ""),
            Err(_) => (true, 0, label),
        });
        (core, labels.is_none(), labels_of.collect())
    }
    parts(version) > parts(other)
}

fn find(from: &impl Read, namespace: &str, name: &str, version: Option<&str>) -> Result<u32, Refused> {
    let found = match version {
        Some(version) => DEFINITIONS.get(from, &(namespace, name, version)),
        None => LATEST.get(from, &(namespace, name)),
    };
    found.ok_or_else(|| Refused::NotDefined {
        definition: format!("{namespace}/{name} {}", version.unwrap_or("latest")),
    })
}

fn limits(ctx: &Context) -> Limits {
    LIMITS.get(ctx).unwrap_or_default()
}

fn check_size(ctx: &Context, what: &str, value: &Json) -> Result<(), Refused> {
    let (bytes, most) = (value.size(), limits(ctx).document_bytes);
    if bytes <= most { Ok(()) } else { Err(Refused::TooLarge { what: what.into(), bytes, most }) }
}

fn check_range(what: &str, value: u64, [least, greatest]: [u64; 2]) -> Result<u64, Refused> {
    if (least..=greatest).contains(&value) {
        Ok(value)
    } else {
        Err(Refused::OutOfRange { what: what.into(), value, least, greatest })
    }
}

fn check_name(what: &str, name: &str) -> Result<(), Refused> {
    check_range(what, name.len() as u64, [1, NAME_BYTES_MAX as u64]).map(|_| ())
}

fn start(
    ctx: &mut Context,
    number: u32,
    (namespace, name, key): (String, String, Option<String>),
    input: Json,
) -> Result<Answer, Rejection> {
    check_size(ctx, "the input", &input)?;
    if let Some(key) = &key {
        check_name("the key's length", key)?;
        let place = (namespace.as_str(), name.as_str(), key.as_str());
        if let Some(case) = KEYS.get(ctx, &place) {
            let same = CASES.get(ctx, &case).is_some_and(|found| found.input == input);
            if !same {
                return Err(Refused::KeyTaken { key: key.clone(), case }.into());
            }
            return answer(Started { case, new: false });
        }
    }
    let mut run = Run::new(ctx);
    let started = run.start_case(number, key.clone(), input, None, 0);
    run.finish();
    let Some(case) = started else { return Err(Refused::NotDefined { definition: name }.into()) };
    if let Some(key) = &key {
        KEYS.insert(ctx, &(namespace.as_str(), name.as_str(), key.as_str()), &case);
    }
    answer(Started { case, new: true })
}

fn no_case(case: u64) -> Refused {
    Refused::NoCase { case: case.to_string() }
}

fn over(from: &impl Read, case: u64) -> Refused {
    match CASES.get(from, &case) {
        Some(found) => Refused::Over { case, status: status(&found).to_owned() },
        None => no_case(case),
    }
}

fn wrong_state(from: &impl Read, case: u64) -> Refused {
    match CASES.get(from, &case) {
        Some(found) => Refused::WrongState { case, status: status(&found).to_owned() },
        None => no_case(case),
    }
}

/// Runs a command on a case that must be there.
fn on_case(
    ctx: &mut Context,
    case: u64,
    work: impl FnOnce(&mut Run<'_>) -> Result<(), Refused>,
) -> Result<Answer, Rejection> {
    let mut run = Run::new(ctx);
    if run.case(case).is_none() {
        return Err(no_case(case).into());
    }
    work(&mut run)?;
    run.finish();
    done()
}

fn forget(ctx: &mut Context, case: u64) -> Result<Answer, Rejection> {
    let found = CASES.get(ctx, &case).ok_or_else(|| no_case(case))?;
    if !found.phase.is_over() {
        return Err(wrong_state(ctx, case).into());
    }
    CASES.remove(ctx, &case);
    for definition in [0, found.definition] {
        LISTED.remove(ctx, &(definition, found.phase.number(), case));
    }
    let chapters: Vec<(u64, u64)> = HISTORY.under(ctx, &case).map(|(key, _)| key).collect();
    for key in chapters {
        HISTORY.remove(ctx, &key);
    }
    if let (Some(key), Some(stored)) = (&found.key, OUTLINES.get(ctx, &found.definition)) {
        let outline = stored.outline;
        KEYS.remove(ctx, &(outline.namespace.as_str(), outline.name.as_str(), key.as_str()));
    }
    done()
}

fn checked_event(ctx: &Context, event: Json) -> Result<Json, Refused> {
    check_size(ctx, "the event", &event)?;
    let id = format!("{}-{}", ctx.group(), ctx.index());
    engine::cloud_event(event, &id, ctx.time().unix_millis()).map_err(|problem| Refused::BadEvent { problem })
}

fn checked_lease(lease: Option<u64>) -> Result<u64, Refused> {
    check_range("the lease", lease.unwrap_or(LEASE_MILLIS_USUAL), LEASE_MILLIS)
}

fn claim(
    ctx: &mut Context,
    functions: &[String],
    worker: &str,
    limit: Option<u32>,
    lease: Option<u64>,
) -> Result<Answer, Rejection> {
    check_name("the worker's name", worker)?;
    check_range("the number of functions", functions.len() as u64, [1, FUNCTIONS_MAX as u64])?;
    let lease = checked_lease(lease)?;
    let limit = check_range("the limit", limit.unwrap_or(1).into(), [1, CLAIMED_MAX.into()])? as usize;
    let mut found: Vec<ItemId> = Vec::new();
    for function in functions {
        check_name("a function's name", function)?;
        let range = (function.as_str(), 0_u64, 0_u32)..=(function.as_str(), u64::MAX, u32::MAX);
        let offered = OFFERED.range(ctx, range).take(limit - found.len());
        found.extend(offered.map(|((_, case, frame), ())| ItemId(case, frame)));
    }
    let mut claimed = Vec::with_capacity(found.len());
    let mut bytes = 0;
    for id in found {
        let Some(mut item) = ITEMS.get(ctx, &(id.0, id.1)) else { continue };
        bytes += item.arguments.size();
        if bytes > CLAIMED_BYTES_MAX && !claimed.is_empty() {
            break;
        }
        OFFERED.remove(ctx, &(item.function.as_str(), id.0, id.1));
        item.token += 1;
        let until = set_claim(ctx, id, &mut item, Some(worker), lease);
        claimed.push(Claimed {
            item: id,
            token: item.token,
            until,
            function: item.function,
            arguments: item.arguments,
            task: item.task,
        });
    }
    answer(claimed)
}

/// Sets until when a work item is held, and by whom if that changes.
fn set_claim(ctx: &mut Context, id: ItemId, item: &mut Item, worker: Option<&str>, lease: u64) -> u64 {
    let until = ctx.time().unix_millis() + lease;
    let holder = worker.map(str::to_owned).or_else(|| item.claim.take().map(|claim| claim.worker));
    item.claim = Some(Claim { worker: holder.unwrap_or_default(), until });
    ITEMS.insert(ctx, &(id.0, id.1), item);
    Run::new(ctx).timer(engine::Due::Claim, id.0, id.1, until);
    until
}

/// The work item that a token holds.
fn holds(ctx: &Context, id: ItemId, token: u64) -> Result<Item, Refused> {
    let item = ITEMS.get(ctx, &(id.0, id.1)).ok_or_else(|| Refused::NoItem { item: id.to_string() })?;
    if item.claim.is_some() && item.token == token {
        Ok(item)
    } else {
        Err(Refused::StaleToken { item: id.to_string(), token })
    }
}

/// Ends a work item, and gives what came of it to whoever waits.
fn resolve(
    ctx: &mut Context,
    id: ItemId,
    token: u64,
    action: impl FnOnce(&mut Run<'_>) -> Action,
) -> Result<Answer, Rejection> {
    let mut item = holds(ctx, id, token)?;
    let mut run = Run::new(ctx);
    if item.detached {
        run.forget_item(id.0, id.1, &item);
        return done();
    }
    if run.case(id.0).is_some_and(|case| !case.queue.is_empty()) {
        // What came before, such as the end of the task's time, may leave no use for the answer.
        run.wake(id.0);
        run.go();
        item = holds(run.ctx, id, token)?;
    }
    run.forget_item(id.0, id.1, &item);
    let action = action(&mut run);
    run.push(id.0, action);
    run.finish();
    done()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_ordered_as_semantic_versioning_says() {
        let ordered = [
            "0.9.0",
            "1.0.0-alpha",
            "1.0.0-alpha.1",
            "1.0.0-beta.2",
            "1.0.0-beta.11",
            "1.0.0",
            "1.0.10",
            "1.2.0",
        ];
        for pair in ordered.windows(2) {
            assert!(is_later(pair[1], pair[0]) && !is_later(pair[0], pair[1]), "{pair:?}");
        }
        assert!(!is_later("1.0.0+b", "1.0.0+a"), "build metadata has no order");
    }
}
