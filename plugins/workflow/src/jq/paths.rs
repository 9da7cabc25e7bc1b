//! Reading and changing a value at a path.
//!
//! Relies on values. Promises jq's rules: what is missing reads as null, and setting makes what is missing.
//! Knows no expression.

use super::machine::{Machine, Stop};
use crate::value::{Pairs, Value};

/// The longest array that setting an index may make.
const ARRAY_ITEMS_MAX: i64 = 100_000;

/// What replaces the value at a path.
pub(super) type Change<'c, 'p> = dyn FnMut(&mut Machine<'p>, Value) -> Result<Value, Stop> + 'c;

/// An index or slice bound as a whole number, rounded down.
fn whole(number: &Value) -> Option<i64> {
    match number {
        Value::Int(number) => Some(*number),
        Value::Float(number) if !number.is_nan() => Some(number.floor() as i64),
        _ => None,
    }
}

/// The place in an array that an index means; negative ones count from the end.
fn place(index: i64, length: usize) -> Option<usize> {
    let length = i64::try_from(length).ok()?;
    let from_start = if index < 0 { index + length } else { index };
    usize::try_from(from_start).ok()
}

/// `{"start": .., "end": ..}` as the places it means in something of this length.
fn slice_places(from: Option<&Value>, to: Option<&Value>, length: usize) -> Option<(usize, usize)> {
    let end = i64::try_from(length).ok()?;
    let bound = |bound: Option<&Value>, missing: i64, up: bool| -> Option<i64> {
        let at = match bound {
            None | Some(Value::Null) => missing,
            Some(Value::Float(number)) if up => number.ceil() as i64,
            Some(number) => whole(number)?,
        };
        Some((if at < 0 { at + end } else { at }).clamp(0, end))
    };
    let from = bound(from, 0, false)?;
    let to = bound(to, end, true)?.max(from);
    Some((usize::try_from(from).ok()?, usize::try_from(to).ok()?))
}

fn cannot_index(value: &Value, index: &Value) -> Stop {
    match index {
        Value::Str(key) => Stop::error(&format!("Cannot index {} with \"{key}\"", value.type_name())),
        _ => Stop::error(&format!("Cannot index {} with {}", value.type_name(), index.type_name())),
    }
}

/// The value at one step of a path.
pub(super) fn index(machine: &mut Machine<'_>, value: &Value, index: &Value) -> Result<Value, Stop> {
    match (value, index) {
        (Value::Object(_), Value::Str(key)) => Ok(value.field(key).cloned().unwrap_or_default()),
        (Value::Array(_), Value::Int(_) | Value::Float(_)) => {
            let items = value.items().unwrap_or_default();
            let at = whole(index).and_then(|index| place(index, items.len()));
            Ok(at.and_then(|at| items.get(at)).cloned().unwrap_or_default())
        }
        (Value::Null, Value::Str(_) | Value::Int(_) | Value::Float(_) | Value::Null) => Ok(Value::Null),
        (Value::Array(_), Value::Array(_)) => super::functions::indices(machine, value, index),
        (_, Value::Object(_)) => slice(machine, value, index.field("start"), index.field("end")),
        _ => Err(cannot_index(value, index)),
    }
}

/// Part of an array or a text.
pub(super) fn slice(
    machine: &mut Machine<'_>,
    value: &Value,
    from: Option<&Value>,
    to: Option<&Value>,
) -> Result<Value, Stop> {
    let wrong = || Stop::error(&format!("Cannot slice {} with these bounds", value.type_name()));
    match value {
        Value::Null => Ok(Value::Null),
        Value::Array(_) => {
            let items = value.items().unwrap_or_default();
            let (from, to) = slice_places(from, to, items.len()).ok_or_else(wrong)?;
            machine.charge(to - from)?;
            Ok(Value::array(items[from..to].to_vec())?)
        }
        Value::Str(text) => {
            machine.charge(text.len() / 8)?;
            let (from, to) = slice_places(from, to, text.chars().count()).ok_or_else(wrong)?;
            let part: String = text.chars().skip(from).take(to - from).collect();
            Ok(Value::text(&part))
        }
        _ => Err(wrong()),
    }
}

/// The value at a path.
pub(super) fn get(machine: &mut Machine<'_>, value: &Value, path: &[Value]) -> Result<Value, Stop> {
    let mut at = value.clone();
    for step in path {
        machine.charge(1)?;
        if at.is_null() {
            return Ok(Value::Null);
        }
        at = index(machine, &at, step)?;
    }
    Ok(at)
}

/// The value with what a path leads to replaced by what `change` makes of it.
pub(super) fn update<'p>(
    machine: &mut Machine<'p>,
    mut value: Value,
    path: &[Value],
    change: &mut Change<'_, 'p>,
) -> Result<Value, Stop> {
    machine.charge(1)?;
    let Some((step, rest)) = path.split_first() else { return change(machine, value) };
    machine.deeper()?;
    let updated = match (&value, step) {
        (Value::Null, Value::Str(_)) | (Value::Object(_), Value::Str(_)) => {
            let key = step.as_text().unwrap_or_default();
            if value.is_null() {
                value = Value::empty_object();
            }
            charge_copy(machine, &value)?;
            let old = value.take_field(key);
            let new = update(machine, old, rest, change)?;
            value.with_field(key, new)?
        }
        (Value::Null | Value::Array(_), Value::Int(_) | Value::Float(_)) => {
            update_item(machine, value, step, rest, change)?
        }
        (Value::Null | Value::Array(_), Value::Object(_)) => {
            update_slice(machine, value, step, rest, change)?
        }
        _ => return Err(cannot_index(&value, step)),
    };
    machine.shallower();
    Ok(updated)
}

/// What is shared must be copied before it is changed.
fn charge_copy(machine: &mut Machine<'_>, value: &Value) -> Result<(), Stop> {
    let shared = match value {
        Value::Array(array) => std::rc::Rc::strong_count(array) > 1,
        Value::Object(object) => std::rc::Rc::strong_count(object) > 1,
        _ => false,
    };
    if shared {
        machine.charge(value.items().map_or_else(|| value.pairs().map_or(0, Pairs::len), <[_]>::len))
    } else {
        Ok(())
    }
}

fn update_item<'p>(
    machine: &mut Machine<'p>,
    mut value: Value,
    step: &Value,
    rest: &[Value],
    change: &mut Change<'_, 'p>,
) -> Result<Value, Stop> {
    let length = value.items().map_or(0, <[_]>::len);
    let index = whole(step).ok_or_else(|| cannot_index(&value, step))?;
    let at = place(index, length).ok_or_else(|| Stop::error("Out of bounds negative array index"))?;
    if index > ARRAY_ITEMS_MAX {
        return Err(Stop::error("Array index too large"));
    }
    if at >= length {
        machine.charge(at + 1)?;
        let mut items = value.into_items().unwrap_or_default();
        items.resize(at + 1, Value::Null);
        value = Value::array(items)?;
    } else {
        charge_copy(machine, &value)?;
    }
    let old = value.take_item(at);
    let new = update(machine, old, rest, change)?;
    Ok(value.with_item(at, new)?)
}

fn update_slice<'p>(
    machine: &mut Machine<'p>,
    value: Value,
    step: &Value,
    rest: &[Value],
    change: &mut Change<'_, 'p>,
) -> Result<Value, Stop> {
    let mut items = value.into_items().unwrap_or_default();
    let (from, to) = slice_places(step.field("start"), step.field("end"), items.len())
        .ok_or_else(|| Stop::error("Start and end indices of an array slice must be numbers"))?;
    machine.charge(items.len())?;
    let old = Value::array(items[from..to].to_vec())?;
    let new = update(machine, old, rest, change)?;
    let Some(new) = new.into_items() else {
        return Err(Stop::error("A slice of an array can only be assigned another array"));
    };
    machine.charge(new.len())?;
    items.splice(from..to, new);
    Ok(Value::array(items)?)
}

/// The value without what a path leads to.
pub(super) fn delete(machine: &mut Machine<'_>, value: Value, path: &[Value]) -> Result<Value, Stop> {
    let Some((last, parents)) = path.split_last() else { return Ok(Value::Null) };
    if get(machine, &value, parents)?.is_null() {
        return Ok(value);
    }
    update(machine, value, parents, &mut |machine, parent| {
        machine.charge(parent.items().map_or(1, <[_]>::len))?;
        match (&parent, last) {
            (Value::Null, _) => Ok(parent),
            (Value::Object(_), Value::Str(key)) => {
                let mut pairs = parent.into_pairs().unwrap_or_default();
                pairs.remove(key);
                Ok(Value::object(pairs)?)
            }
            (Value::Array(_), Value::Int(_) | Value::Float(_)) => {
                let mut items = parent.into_items().unwrap_or_default();
                let at = whole(last).and_then(|index| place(index, items.len()));
                if let Some(at) = at.filter(|at| *at < items.len()) {
                    items.remove(at);
                }
                Ok(Value::array(items)?)
            }
            (Value::Array(_), Value::Object(_)) => {
                let mut items = parent.into_items().unwrap_or_default();
                if let Some((from, to)) = slice_places(last.field("start"), last.field("end"), items.len()) {
                    items.drain(from..to);
                }
                Ok(Value::array(items)?)
            }
            _ => Err(Stop::error(&format!("Cannot delete {} from {}", last.type_name(), parent.type_name()))),
        }
    })
}

/// The value without what any of the paths leads to.
pub(super) fn delete_all(
    machine: &mut Machine<'_>,
    mut value: Value,
    mut paths: Vec<Value>,
) -> Result<Value, Stop> {
    machine.charge(paths.len())?;
    // From the last to the first, so that places do not move before they are deleted.
    paths.sort();
    for path in paths.iter().rev() {
        let Some(path) = path.items() else { return Err(Stop::error("Paths must be specified as an array")) };
        value = delete(machine, value, path)?;
    }
    Ok(value)
}
