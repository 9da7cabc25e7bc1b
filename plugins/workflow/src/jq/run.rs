//! Evaluates terms, counting every step.
//!
//! Relies on the machine and on the functions of values. Promises the bounds that the module's head
//! explains. Knows no text of an expression and no workflow.
//!
//! Each output of a term is passed on by calling what comes next, so that `first(f)` can stop `f`. What
//! comes next may ask to stop, by an error or a break, and every term passes that on at once.

use super::control::{assign, call, controlled, label, path};
use super::machine::{Bind, Env, Flow, Machine, Node, Out, Stop, Traced};
use super::term::{Expr, Format, Part, Pattern};
use super::{functions, paths, texts};
use crate::value::{Pairs, Value};

/// Evaluates a term on an input and passes on its outputs.
pub(super) fn eval<'p>(
    machine: &mut Machine<'p>,
    expr: &'p Expr,
    env: Env<'p, '_>,
    input: Traced,
    out: Out<'_, 'p>,
) -> Flow {
    machine.charge(1)?;
    // What needs no call of its own comes first.
    match expr {
        Expr::Id => return out(machine, input),
        Expr::Const(value) => {
            return out(machine, Traced { value: value.clone(), trace: input.trace.lost() });
        }
        _ => {}
    }
    let depth = machine.depth;
    machine.deeper()?;
    let flow = dispatch(machine, expr, env, input, out);
    machine.depth = depth;
    flow
}

fn dispatch<'p>(
    machine: &mut Machine<'p>,
    expr: &'p Expr,
    env: Env<'p, '_>,
    input: Traced,
    out: Out<'_, 'p>,
) -> Flow {
    match expr {
        Expr::Id => out(machine, input),
        Expr::Const(value) => out(machine, Traced { value: value.clone(), trace: input.trace.lost() }),
        Expr::Dots => dots(machine, input, out),
        Expr::Text(..) | Expr::Array(_) | Expr::Object(_) | Expr::Neg(_) => {
            made(machine, expr, env, input, out)
        }
        Expr::And(both) => logic(machine, both, false, env, &input, out),
        Expr::Or(both) => logic(machine, both, true, env, &input, out),
        Expr::Math(op, both) => paired(machine, both, env, &input, out, &mut |machine, left, right| {
            functions::math(machine, *op, left, right.clone())
        }),
        Expr::Compare(op, both) => paired(machine, both, env, &input, out, &mut |machine, left, right| {
            functions::compare(machine, *op, &left, right)
        }),
        Expr::Pipe(both) => pipe(machine, both, env, input, out),
        Expr::Comma(both) => {
            eval(machine, &both.0, env, input.clone(), out)?;
            eval(machine, &both.1, env, input, out)
        }
        Expr::Alt(both) => alternative(machine, both, env, input, out),
        Expr::Bind(pattern, both) => bind(machine, pattern, both, env, &input, out),
        Expr::Reduce(pattern, parts) => reduce(machine, pattern, parts, env, input, out),
        Expr::Foreach(pattern, parts) => foreach(machine, pattern, parts, env, &input, out),
        Expr::Try(body, catch) => attempt(machine, body, catch.as_deref(), env, &input, out),
        Expr::If(parts) => condition(machine, parts, env, &input, out),
        Expr::Label(body) => label(machine, body, env, input, out),
        Expr::Break(distance) => match find(env, *distance).map(|node| &node.bind) {
            Some(Bind::Label(number)) => Err(Stop::Break(*number)),
            _ => Err(Stop::error("break")),
        },
        Expr::Path(head, steps) => match &**head {
            Expr::Id => path(machine, steps, env, &input, input.clone(), out),
            head => eval(machine, head, env, input.clone(), &mut |machine, start| {
                path(machine, steps, env, &input, start, out)
            }),
        },
        Expr::Assign(..) | Expr::Update(_) | Expr::UpdateMath(..) | Expr::UpdateAlt(_) => {
            assign(machine, expr, env, &input, out)
        }
        Expr::Local(_) | Expr::Global(_) => variable(machine, expr, env, &input, out),
        Expr::Argument(distance) => match find(env, *distance).map(|node| &node.bind) {
            Some(Bind::Argument(body, outer)) => eval(machine, body, *outer, input, out),
            _ => Err(Stop::error("an argument is not bound")),
        },
        Expr::Call(distance, arguments) => {
            let Some(node) = find(env, *distance) else { return Err(Stop::error("a call is not bound")) };
            let Bind::Def(def) = node.bind else { return Err(Stop::error("a call is not bound")) };
            call(machine, def, &def.values, arguments, [env, Some(node)], input, out)
        }
        Expr::Prelude(place, arguments) => {
            let Some(def) = machine.defs.get(usize::from(*place)) else {
                return Err(Stop::error("a call is not bound"));
            };
            call(machine, def, &def.values, arguments, [env, None], input, out)
        }
        Expr::Define(parts) => {
            let node = Node { bind: Bind::Def(&parts.0), outer: env };
            eval(machine, &parts.1, Some(&node), input, out)
        }
        Expr::Fun(fun, arguments) => {
            let trace = input.trace.lost();
            arguments_of(machine, arguments, env, &input.value, &mut |machine, values| {
                let value = functions::run(machine, *fun, &input.value, values)?;
                out(machine, Traced { value, trace: trace.clone() })
            })
        }
        Expr::Control(control, arguments) => controlled(machine, *control, arguments, env, input, out),
    }
}

fn find<'p, 'e>(mut env: Env<'p, 'e>, distance: u16) -> Env<'p, 'e> {
    for _ in 0..distance {
        env = env?.outer;
    }
    env
}

/// The outputs of a term as values, without their paths.
pub(super) fn values<'p>(
    machine: &mut Machine<'p>,
    expr: &'p Expr,
    env: Env<'p, '_>,
    input: &Value,
    out: &mut dyn FnMut(&mut Machine<'p>, Value) -> Flow,
) -> Flow {
    eval(machine, expr, env, Traced::plain(input.clone()), &mut |machine, output| out(machine, output.value))
}

/// All outputs of a term.
pub(super) fn collect<'p>(
    machine: &mut Machine<'p>,
    expr: &'p Expr,
    env: Env<'p, '_>,
    input: &Value,
) -> Result<Vec<Value>, Stop> {
    let mut all = Vec::new();
    values(machine, expr, env, input, &mut |_, value| {
        all.push(value);
        Ok(())
    })?;
    Ok(all)
}

/// Every combination of the arguments' outputs.
fn arguments_of<'p>(
    machine: &mut Machine<'p>,
    arguments: &'p [Expr],
    env: Env<'p, '_>,
    input: &Value,
    out: &mut dyn FnMut(&mut Machine<'p>, &[Value]) -> Flow,
) -> Flow {
    match arguments {
        [] => out(machine, &[]),
        [one] => values(machine, one, env, input, &mut |machine, value| out(machine, &[value])),
        [one, two, ..] => values(machine, one, env, input, &mut |machine, first| {
            values(machine, two, env, input, &mut |machine, second| out(machine, &[first.clone(), second]))
        }),
    }
}

#[inline(never)]
fn variable<'p>(
    machine: &mut Machine<'p>,
    expr: &'p Expr,
    env: Env<'p, '_>,
    input: &Traced,
    out: Out<'_, 'p>,
) -> Flow {
    let value = match expr {
        Expr::Local(distance) => match find(env, *distance).map(|node| &node.bind) {
            Some(Bind::Value(value)) => value.clone(),
            _ => return Err(Stop::error("a variable is not bound")),
        },
        Expr::Global(name) => {
            machine.globals.global(name).map_err(|failure| Stop::Failure(Box::new(failure)))?
        }
        _ => Value::Null,
    };
    out(machine, Traced { value, trace: input.trace.lost() })
}

#[inline(never)]
fn dots<'p>(machine: &mut Machine<'p>, input: Traced, out: Out<'_, 'p>) -> Flow {
    out(machine, input.clone())?;
    each(machine, &input, &mut |machine, child| {
        machine.charge(1)?;
        machine.deeper()?;
        dots(machine, child, out)?;
        machine.shallower();
        Ok(())
    })
}

/// The values of an array or an object.
pub(super) fn each<'p>(machine: &mut Machine<'p>, input: &Traced, out: Out<'_, 'p>) -> Flow {
    match &input.value {
        Value::Array(_) => {
            for (index, item) in input.value.items().unwrap_or_default().iter().enumerate() {
                machine.charge(1)?;
                let trace = input.trace.then(|| Value::count(index))?;
                out(machine, Traced { value: item.clone(), trace })?;
            }
        }
        Value::Object(_) => {
            for (key, item) in input.value.pairs().into_iter().flatten() {
                machine.charge(1)?;
                let trace = input.trace.then(|| Value::Str(key.clone()))?;
                out(machine, Traced { value: item.clone(), trace })?;
            }
        }
        _ => {}
    }
    Ok(())
}

/// Values that are made of parts.
#[inline(never)]
fn made<'p>(
    machine: &mut Machine<'p>,
    expr: &'p Expr,
    env: Env<'p, '_>,
    input: Traced,
    out: Out<'_, 'p>,
) -> Flow {
    let trace = input.trace.lost();
    let mut pass = |machine: &mut Machine<'p>, value| out(machine, Traced { value, trace: trace.clone() });
    match expr {
        Expr::Array(inner) => {
            let items = collect(machine, inner, env, &input.value)?;
            pass(machine, Value::array(items)?)
        }
        Expr::Object(entries) => object(machine, entries, Pairs::new(), env, &input.value, &mut pass),
        Expr::Neg(inner) => values(machine, inner, env, &input.value, &mut |machine, value| match value {
            Value::Int(number) => {
                pass(machine, number.checked_neg().map_or(Value::Float(-(number as f64)), Value::Int))
            }
            Value::Float(number) => pass(machine, Value::Float(-number)),
            other => Err(Stop::error(&format!("{} cannot be negated", other.type_name()))),
        }),
        Expr::Text(format, parts) => {
            text(machine, (*format, parts), String::new(), env, &input.value, &mut pass)
        }
        _ => Ok(()),
    }
}

fn object<'p>(
    machine: &mut Machine<'p>,
    entries: &'p [(Expr, Expr)],
    pairs: Pairs,
    env: Env<'p, '_>,
    input: &Value,
    out: &mut dyn FnMut(&mut Machine<'p>, Value) -> Flow,
) -> Flow {
    let Some(((key, value), rest)) = entries.split_first() else {
        return out(machine, Value::object(pairs)?);
    };
    values(machine, key, env, input, &mut |machine, key| {
        let Value::Str(key) = key else {
            return Err(Stop::error(&format!("Object keys must be strings, not {}", key.type_name())));
        };
        values(machine, value, env, input, &mut |machine, value| {
            machine.charge(pairs.len())?;
            let mut pairs = pairs.clone();
            pairs.insert(key.clone(), value);
            object(machine, rest, pairs, env, input, out)
        })
    })
}

fn text<'p>(
    machine: &mut Machine<'p>,
    (format, parts): (Format, &'p [Part]),
    letters: String,
    env: Env<'p, '_>,
    input: &Value,
    out: &mut dyn FnMut(&mut Machine<'p>, Value) -> Flow,
) -> Flow {
    let Some((part, rest)) = parts.split_first() else { return out(machine, Value::text(&letters)) };
    match part {
        Part::Text(more) => text(machine, (format, rest), letters + more, env, input, out),
        Part::Term(term) => values(machine, term, env, input, &mut |machine, value| {
            let mut letters = letters.clone();
            texts::append(machine, format, &value, &mut letters)?;
            text(machine, (format, rest), letters, env, input, out)
        }),
    }
}

#[inline(never)]
fn logic<'p>(
    machine: &mut Machine<'p>,
    both: &'p (Expr, Expr),
    decisive: bool,
    env: Env<'p, '_>,
    input: &Traced,
    out: Out<'_, 'p>,
) -> Flow {
    let trace = input.trace.lost();
    values(machine, &both.0, env, &input.value, &mut |machine, left| {
        if left.is_true() == decisive {
            return out(machine, Traced { value: Value::Bool(decisive), trace: trace.clone() });
        }
        values(machine, &both.1, env, &input.value, &mut |machine, right| {
            out(machine, Traced { value: Value::Bool(right.is_true()), trace: trace.clone() })
        })
    })
}

/// One value of each pair of outputs of two terms.
#[inline(never)]
fn paired<'p>(
    machine: &mut Machine<'p>,
    both: &'p (Expr, Expr),
    env: Env<'p, '_>,
    input: &Traced,
    out: Out<'_, 'p>,
    value_of: &mut dyn FnMut(&mut Machine<'p>, Value, &Value) -> Result<Value, Stop>,
) -> Flow {
    let trace = input.trace.lost();
    // As in jq, the right side is the outer loop.
    values(machine, &both.1, env, &input.value, &mut |machine, right| {
        values(machine, &both.0, env, &input.value, &mut |machine, left| {
            let value = value_of(machine, left, &right)?;
            out(machine, Traced { value, trace: trace.clone() })
        })
    })
}

#[inline(never)]
fn pipe<'p>(
    machine: &mut Machine<'p>,
    both: &'p (Expr, Expr),
    env: Env<'p, '_>,
    input: Traced,
    out: Out<'_, 'p>,
) -> Flow {
    eval(machine, &both.0, env, input, &mut |machine, middle| eval(machine, &both.1, env, middle, out))
}

/// `f // g`: the outputs of `f` that are true, or else those of `g`. Errors of `f` count as no output.
#[inline(never)]
fn alternative<'p>(
    machine: &mut Machine<'p>,
    both: &'p (Expr, Expr),
    env: Env<'p, '_>,
    input: Traced,
    out: Out<'_, 'p>,
) -> Flow {
    let mut any = false;
    let mut downstream = Ok(());
    let depth = machine.depth;
    let flow = eval(machine, &both.0, env, input.clone(), &mut |machine, output| {
        if !output.value.is_true() {
            return Ok(());
        }
        any = true;
        downstream = out(machine, output);
        if downstream.is_ok() { Ok(()) } else { Err(Stop::Downstream) }
    });
    downstream?;
    match flow {
        Ok(()) | Err(Stop::Error(_)) => {}
        Err(stop) => return Err(stop),
    }
    machine.depth = depth;
    if any { Ok(()) } else { eval(machine, &both.1, env, input, out) }
}

#[inline(never)]
fn bind<'p>(
    machine: &mut Machine<'p>,
    pattern: &'p Pattern,
    both: &'p (Expr, Expr),
    env: Env<'p, '_>,
    input: &Traced,
    out: Out<'_, 'p>,
) -> Flow {
    values(machine, &both.0, env, &input.value, &mut |machine, value| {
        destructure(machine, pattern, value, env, &mut |machine, env| {
            eval(machine, &both.1, env, input.clone(), out)
        })
    })
}

/// Takes a value apart and goes on within the names that are bound.
fn destructure<'p>(
    machine: &mut Machine<'p>,
    pattern: &'p Pattern,
    value: Value,
    env: Env<'p, '_>,
    body: &mut dyn FnMut(&mut Machine<'p>, Env<'p, '_>) -> Flow,
) -> Flow {
    match pattern {
        Pattern::Var => body(machine, Some(&Node { bind: Bind::Value(value), outer: env })),
        Pattern::Index(entries) => destructure_entries(machine, entries, &value, env, body),
    }
}

fn destructure_entries<'p>(
    machine: &mut Machine<'p>,
    entries: &'p [(Expr, Pattern)],
    value: &Value,
    env: Env<'p, '_>,
    body: &mut dyn FnMut(&mut Machine<'p>, Env<'p, '_>) -> Flow,
) -> Flow {
    let Some(((key, pattern), rest)) = entries.split_first() else { return body(machine, env) };
    values(machine, key, env, value, &mut |machine, key| {
        let part = paths::index(machine, value, &key)?;
        destructure(machine, pattern, part, env, &mut |machine, env| {
            destructure_entries(machine, rest, value, env, body)
        })
    })
}

#[inline(never)]
fn reduce<'p>(
    machine: &mut Machine<'p>,
    pattern: &'p Pattern,
    (source, init, update): &'p (Expr, Expr, Expr),
    env: Env<'p, '_>,
    input: Traced,
    out: Out<'_, 'p>,
) -> Flow {
    eval(machine, init, env, input.clone(), &mut |machine, start| {
        let mut state = start;
        values(machine, source, env, &input.value, &mut |machine, value| {
            destructure(machine, pattern, value, env, &mut |machine, env| {
                let trace = state.trace.lost();
                let before = std::mem::replace(&mut state, Traced { value: Value::Null, trace });
                eval(machine, update, env, before, &mut |_, after| {
                    state = after;
                    Ok(())
                })
            })
        })?;
        out(machine, state)
    })
}

#[inline(never)]
fn foreach<'p>(
    machine: &mut Machine<'p>,
    pattern: &'p Pattern,
    (source, init, update, extract): &'p (Expr, Expr, Expr, Expr),
    env: Env<'p, '_>,
    input: &Traced,
    out: Out<'_, 'p>,
) -> Flow {
    eval(machine, init, env, input.clone(), &mut |machine, start| {
        let mut state = start;
        values(machine, source, env, &input.value, &mut |machine, value| {
            destructure(machine, pattern, value, env, &mut |machine, env| {
                let before = state.clone();
                eval(machine, update, env, before, &mut |machine, after| {
                    state = after.clone();
                    eval(machine, extract, env, after, out)
                })
            })
        })
    })
}

#[inline(never)]
fn attempt<'p>(
    machine: &mut Machine<'p>,
    body: &'p Expr,
    catch: Option<&'p Expr>,
    env: Env<'p, '_>,
    input: &Traced,
    out: Out<'_, 'p>,
) -> Flow {
    let depth = machine.depth;
    let mut downstream = Ok(());
    let flow = eval(machine, body, env, input.clone(), &mut |machine, output| {
        downstream = out(machine, output);
        if downstream.is_ok() { Ok(()) } else { Err(Stop::Downstream) }
    });
    downstream?;
    machine.depth = depth;
    match (flow, catch) {
        (Err(Stop::Error(_)), None) => Ok(()),
        (Err(Stop::Error(error)), Some(catch)) => {
            eval(machine, catch, env, Traced { value: error, trace: input.trace.lost() }, out)
        }
        (flow, _) => flow,
    }
}

#[inline(never)]
fn condition<'p>(
    machine: &mut Machine<'p>,
    (condition, then, otherwise): &'p (Expr, Expr, Expr),
    env: Env<'p, '_>,
    input: &Traced,
    out: Out<'_, 'p>,
) -> Flow {
    values(machine, condition, env, &input.value, &mut |machine, holds| {
        eval(machine, if holds.is_true() { then } else { otherwise }, env, input.clone(), out)
    })
}
