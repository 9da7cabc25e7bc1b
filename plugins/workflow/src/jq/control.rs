//! Terms and functions that decide what is evaluated, how often and on what path.
//!
//! Relies on the evaluation of terms. Promises that each round of a loop is counted, and that loops do not
//! go deeper as they go on. Knows no workflow.

use super::machine::{Bind, Env, Flow, Machine, Node, Out, Stop, Trace, Traced};
use super::native::Control;
use super::run::{collect, each, eval, values};
use super::term::{Def, Expr, Step};
use super::{functions, paths};
use crate::value::{TooDeep, Value};

#[inline(never)]
pub(super) fn label<'p>(
    machine: &mut Machine<'p>,
    body: &'p Expr,
    env: Env<'p, '_>,
    input: Traced,
    out: Out<'_, 'p>,
) -> Flow {
    machine.labels += 1;
    let number = machine.labels;
    let node = Node { bind: Bind::Label(number), outer: env };
    match eval(machine, body, Some(&node), input, out) {
        Err(Stop::Break(broken)) if broken == number => Ok(()),
        flow => flow,
    }
}

/// Follows the steps of a path from `at`; what is within brackets sees `input`.
#[inline(never)]
pub(super) fn path<'p>(
    machine: &mut Machine<'p>,
    steps: &'p [(Step, bool)],
    env: Env<'p, '_>,
    input: &Traced,
    at: Traced,
    out: Out<'_, 'p>,
) -> Flow {
    let Some(((step, may_fail), rest)) = steps.split_first() else { return out(machine, at) };
    let follow = |machine: &mut Machine<'p>, reached: Result<Traced, Stop>, out: Out<'_, 'p>| match reached {
        Ok(reached) if rest.is_empty() => out(machine, reached),
        Ok(reached) => path(machine, rest, env, input, reached, out),
        Err(Stop::Error(_)) if *may_fail => Ok(()),
        Err(stop) => Err(stop),
    };
    match step {
        Step::Index(Expr::Const(key)) => {
            machine.charge(1)?;
            let reached = step_into(machine, &at, key);
            follow(machine, reached, out)
        }
        Step::Index(index) => values(machine, index, env, &input.value, &mut |machine, key| {
            let reached = step_into(machine, &at, &key);
            follow(machine, reached, out)
        }),
        Step::Each if at.value.depth() == 0 => {
            let error = Stop::error(&format!("Cannot iterate over {}", at.value.type_name()));
            follow(machine, Err(error), out)
        }
        Step::Each => each(machine, &at, &mut |machine, child| follow(machine, Ok(child), out)),
        Step::Slice(from, to) => bound(machine, from.as_ref(), env, input, &mut |machine, from| {
            bound(machine, to.as_ref(), env, input, &mut |machine, to| {
                let part = paths::slice(machine, &at.value, Some(&from), Some(&to));
                let reached = part.and_then(|value| {
                    let step = || Value::record([("start", from.clone()), ("end", to)]);
                    Ok(Traced { value, trace: at.trace.then(step)? })
                });
                follow(machine, reached, out)
            })
        }),
    }
}

fn bound<'p>(
    machine: &mut Machine<'p>,
    expr: Option<&'p Expr>,
    env: Env<'p, '_>,
    input: &Traced,
    out: &mut dyn FnMut(&mut Machine<'p>, Value) -> Flow,
) -> Flow {
    match expr {
        Some(expr) => values(machine, expr, env, &input.value, out),
        None => out(machine, Value::Null),
    }
}

fn step_into(machine: &mut Machine<'_>, at: &Traced, key: &Value) -> Result<Traced, Stop> {
    let value = paths::index(machine, &at.value, key)?;
    Ok(Traced { value, trace: at.trace.then(|| key.clone())? })
}

/// The paths that a term leads to.
fn paths_of<'p>(
    machine: &mut Machine<'p>,
    expr: &'p Expr,
    env: Env<'p, '_>,
    input: &Value,
) -> Result<Vec<Vec<Value>>, Stop> {
    let mut all = Vec::new();
    let start = Traced { value: input.clone(), trace: Trace::On(None) };
    eval(machine, expr, env, start, &mut |machine, output| {
        let steps = output.trace.steps()?;
        machine.charge(steps.len())?;
        all.push(steps);
        Ok(())
    })?;
    Ok(all)
}

#[inline(never)]
pub(super) fn assign<'p>(
    machine: &mut Machine<'p>,
    expr: &'p Expr,
    env: Env<'p, '_>,
    input: &Traced,
    out: Out<'_, 'p>,
) -> Flow {
    let trace = input.trace.lost();
    let (target, source) = match expr {
        Expr::Update(both) => {
            let value = modify(machine, &both.0, &both.1, env, &input.value)?;
            return out(machine, Traced { value, trace });
        }
        Expr::Assign(both) | Expr::UpdateMath(_, both) | Expr::UpdateAlt(both) => (&both.0, &both.1),
        _ => return Ok(()),
    };
    let targets = paths_of(machine, target, env, &input.value)?;
    values(machine, source, env, &input.value, &mut |machine, right| {
        let mut value = input.value.clone();
        for target in &targets {
            value = paths::update(machine, value, target, &mut |machine, old| match expr {
                Expr::UpdateMath(op, _) => functions::math(machine, *op, old, right.clone()),
                Expr::UpdateAlt(_) if old.is_true() => Ok(old),
                _ => Ok(right.clone()),
            })?;
        }
        out(machine, Traced { value, trace: trace.clone() })
    })
}

/// `target |= change`: the first output replaces, no output deletes.
fn modify<'p>(
    machine: &mut Machine<'p>,
    target: &'p Expr,
    change: &'p Expr,
    env: Env<'p, '_>,
    input: &Value,
) -> Result<Value, Stop> {
    let targets = paths_of(machine, target, env, input)?;
    let mut value = input.clone();
    let mut deleted = Vec::new();
    for steps in targets {
        let mut gone = false;
        value = paths::update(machine, value, &steps, &mut |machine, old| {
            let mut new = None;
            let flow = values(machine, change, env, &old, &mut |_, output| {
                new = Some(output);
                Err(Stop::Downstream)
            });
            match (new, flow) {
                (Some(new), _) => Ok(new),
                (None, Err(stop)) => Err(stop),
                (None, Ok(())) => {
                    gone = true;
                    Ok(old)
                }
            }
        })?;
        if gone {
            deleted.push(Value::array(steps)?);
        }
    }
    paths::delete_all(machine, value, deleted)
}

/// Binds a definition's parameters one by one, then evaluates its body. `around` is where the arguments
/// are evaluated, then where the body is.
pub(super) fn call<'p>(
    machine: &mut Machine<'p>,
    def: &'p Def,
    parameters: &'p [bool],
    arguments: &'p [Expr],
    [env, inner]: [Env<'p, '_>; 2],
    input: Traced,
    out: Out<'_, 'p>,
) -> Flow {
    let (Some((is_value, parameters)), Some((argument, arguments))) =
        (parameters.split_first(), arguments.split_first())
    else {
        return eval(machine, &def.body, inner, input, out);
    };
    if *is_value {
        return values(machine, argument, env, &input.value, &mut |machine, value| {
            let node = Node { bind: Bind::Value(value), outer: inner };
            call(machine, def, parameters, arguments, [env, Some(&node)], input.clone(), out)
        });
    }
    let node = Node { bind: Bind::Argument(argument, env), outer: inner };
    call(machine, def, parameters, arguments, [env, Some(&node)], input, out)
}

#[inline(never)]
pub(super) fn controlled<'p>(
    machine: &mut Machine<'p>,
    control: Control,
    arguments: &'p [Expr],
    env: Env<'p, '_>,
    input: Traced,
    out: Out<'_, 'p>,
) -> Flow {
    match (control, arguments) {
        (Control::Empty, _) => Ok(()),
        (Control::Error, _) => Err(Stop::Error(input.value)),
        (Control::ErrorWith, [message]) => {
            values(machine, message, env, &input.value, &mut |_, message| Err(Stop::Error(message)))
        }
        (Control::First, [body]) => limited(machine, 1, body, env, input, out),
        (Control::Limit, [count, body]) => {
            values(machine, count, env, &input.value, &mut |machine, count| match count.as_float() {
                Some(count) if count >= 1.0 => limited(machine, count as u64, body, env, input.clone(), out),
                Some(_) => Ok(()),
                None => Err(Stop::error("limit needs a number")),
            })
        }
        (Control::Last, [body]) => {
            let mut last = None;
            eval(machine, body, env, input, &mut |_, output| {
                last = Some(output);
                Ok(())
            })?;
            last.map_or(Ok(()), |last| out(machine, last))
        }
        (Control::IsEmpty, [body]) => {
            let trace = input.trace.lost();
            let mut empty = true;
            let flow = eval(machine, body, env, Traced::plain(input.value), &mut |_, _| {
                empty = false;
                Err(Stop::Downstream)
            });
            if empty {
                flow?;
            }
            out(machine, Traced { value: Value::Bool(empty), trace })
        }
        (Control::Select, [condition]) => {
            values(machine, condition, env, &input.value, &mut |machine, holds| {
                if holds.is_true() { out(machine, input.clone()) } else { Ok(()) }
            })
        }
        (Control::Until | Control::While | Control::Repeat | Control::Recurse, _) => {
            looped(machine, control, arguments, env, input, out)
        }
        (Control::Range | Control::RangeFrom | Control::RangeBy, _) => {
            range(machine, arguments, env, &input, out)
        }
        (Control::Path, [body]) => {
            let trace = input.trace.lost();
            let start = Traced { value: input.value, trace: Trace::On(None) };
            eval(machine, body, env, start, &mut |machine, output| {
                let steps = output.trace.steps()?;
                machine.charge(steps.len())?;
                out(machine, Traced { value: Value::array(steps)?, trace: trace.clone() })
            })
        }
        (Control::GetPath, [path]) => values(machine, path, env, &input.value, &mut |machine, path| {
            let Some(steps) = path.items() else {
                return Err(Stop::error("Path must be specified as an array"));
            };
            let value = paths::get(machine, &input.value, steps)?;
            let mut trace = input.trace.clone();
            for step in steps {
                trace = trace.then(|| step.clone())?;
            }
            out(machine, Traced { value, trace })
        }),
        (Control::Del, [body]) => {
            let targets = paths_of(machine, body, env, &input.value)?;
            let targets: Result<Vec<Value>, TooDeep> = targets.into_iter().map(Value::array).collect();
            let trace = input.trace.lost();
            let value = paths::delete_all(machine, input.value, targets?)?;
            out(machine, Traced { value, trace })
        }
        _ => Err(Stop::error("a function has the wrong number of arguments")),
    }
}

/// At most `count` outputs, at least one.
fn limited<'p>(
    machine: &mut Machine<'p>,
    count: u64,
    body: &'p Expr,
    env: Env<'p, '_>,
    input: Traced,
    out: Out<'_, 'p>,
) -> Flow {
    let mut left = count;
    let mut downstream = Ok(());
    let flow = eval(machine, body, env, input, &mut |machine, output| {
        left -= 1;
        downstream = out(machine, output);
        if left == 0 || downstream.is_err() { Err(Stop::Downstream) } else { Ok(()) }
    });
    downstream?;
    match flow {
        Err(Stop::Downstream) if left == 0 => Ok(()),
        flow => flow,
    }
}

/// The loops of the language. A body with one output goes round without going deeper.
fn looped<'p>(
    machine: &mut Machine<'p>,
    control: Control,
    arguments: &'p [Expr],
    env: Env<'p, '_>,
    input: Traced,
    out: Out<'_, 'p>,
) -> Flow {
    let (condition, body) = match arguments {
        [body] => (None, body),
        [condition, body] => (Some(condition), body),
        _ => return Err(Stop::error("a loop has the wrong number of arguments")),
    };
    let mut at = input;
    loop {
        machine.charge(1)?;
        let holds = match condition {
            Some(condition) => collect(machine, condition, env, &at.value)?.iter().any(Value::is_true),
            None => true,
        };
        match control {
            Control::Until if holds => return out(machine, at),
            Control::While if !holds => return Ok(()),
            Control::Until => {}
            _ => out(machine, at.clone())?,
        }
        let mut next: Vec<Traced> = Vec::new();
        eval(machine, body, env, at, &mut |machine, output| {
            machine.charge(1)?;
            next.push(output);
            Ok(())
        })?;
        let Some(last) = next.pop() else { return Ok(()) };
        for output in next {
            machine.deeper()?;
            looped(machine, control, arguments, env, output, out)?;
            machine.shallower();
        }
        at = last;
    }
}

fn range<'p>(
    machine: &mut Machine<'p>,
    arguments: &'p [Expr],
    env: Env<'p, '_>,
    input: &Traced,
    out: Out<'_, 'p>,
) -> Flow {
    let trace = input.trace.lost();
    let zero = [Value::Int(0)];
    let mut bounds = Vec::with_capacity(3);
    for argument in arguments {
        bounds.push(collect(machine, argument, env, &input.value)?);
    }
    let one = [Value::Int(1)];
    let (froms, tos, steps): (&[Value], &[Value], &[Value]) = match &bounds[..] {
        [to] => (&zero, to, &one),
        [from, to] => (from, to, &one),
        [from, to, by] => (from, to, by),
        _ => return Err(Stop::error("range has the wrong number of arguments")),
    };
    for from in froms {
        for to in tos {
            for step in steps {
                let (Some(mut at), Some(end), Some(step)) = (from.as_float(), to.as_float(), step.as_float())
                else {
                    return Err(Stop::error("Range bounds must be numeric"));
                };
                while (step > 0.0 && at < end) || (step < 0.0 && at > end) || (step == 0.0 && at < end) {
                    machine.charge(1)?;
                    out(machine, Traced { value: Value::number(at), trace: trace.clone() })?;
                    at += step;
                }
            }
        }
    }
    Ok(())
}
