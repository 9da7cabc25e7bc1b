//! Functions from values to a value.
//!
//! Relies on values. Promises to take fuel in proportion to what is walked or built before it is. Knows no
//! expression.

use std::rc::Rc;

use super::machine::{Machine, Stop};
use super::native::Fun;
use super::term::{Compare, Math};
use super::{dates, paths, regex, texts};
use crate::value::{Pairs, Value};

type Result<T> = std::result::Result<T, Stop>;

/// The longest text that repetition may make, in bytes.
const REPEATED_BYTES_MAX: usize = 1 << 20;
/// Letters that cost one step.
const LETTERS_PER_STEP: usize = 8;

fn wrong(value: &Value, cannot: &str) -> Stop {
    let mut text = value.to_json();
    if text.len() > 40 {
        text = text.chars().take(30).chain("...".chars()).collect();
    }
    Stop::error(&format!("{} ({text}) {cannot}", value.type_name()))
}

fn pair_wrong(left: &Value, right: &Value, cannot: &str) -> Stop {
    Stop::error(&format!("{} and {} cannot be {cannot}", left.type_name(), right.type_name()))
}

fn items<'v>(value: &'v Value, cannot: &str) -> Result<&'v [Value]> {
    value.items().ok_or_else(|| wrong(value, cannot))
}

fn text_of<'v>(value: &'v Value, cannot: &str) -> Result<&'v str> {
    value.as_text().ok_or_else(|| wrong(value, cannot))
}

/// Takes fuel for walking a whole value.
fn charge_walk(machine: &mut Machine<'_>, value: &Value) -> Result<()> {
    match value {
        Value::Str(text) => machine.charge(text.len() / LETTERS_PER_STEP),
        Value::Array(_) => {
            let items = value.items().unwrap_or_default();
            machine.charge(items.len())?;
            items.iter().filter(|item| !is_small(item)).try_for_each(|item| charge_walk(machine, item))
        }
        Value::Object(_) => {
            let pairs = value.pairs().map_or(0, Pairs::len);
            machine.charge(pairs)?;
            let inner = value.pairs().into_iter().flatten().map(|(_, item)| item);
            inner.filter(|item| !is_small(item)).try_for_each(|item| charge_walk(machine, item))
        }
        _ => Ok(()),
    }
}

fn is_small(value: &Value) -> bool {
    match value {
        Value::Str(text) => text.len() <= LETTERS_PER_STEP,
        Value::Array(_) | Value::Object(_) => false,
        _ => true,
    }
}

/// Takes fuel for comparing two values.
fn charge_comparison(machine: &mut Machine<'_>, left: &Value, right: &Value) -> Result<()> {
    if is_small(left) || is_small(right) || left.is_same(right) {
        return Ok(());
    }
    // A comparison walks no more than the smaller of the two; either bounds it.
    charge_walk(machine, left)
}

/// Takes fuel for sorting this many items.
fn charge_sort(machine: &mut Machine<'_>, items: &[Value]) -> Result<()> {
    for item in items {
        charge_walk(machine, item)?;
    }
    let rounds = usize::BITS - items.len().leading_zeros();
    machine.charge(items.len() * rounds as usize)
}

/// A comparison of two values.
pub(super) fn compare(machine: &mut Machine<'_>, op: Compare, left: &Value, right: &Value) -> Result<Value> {
    charge_comparison(machine, left, right)?;
    let order = left.cmp(right);
    Ok(Value::Bool(match op {
        Compare::Lt => order.is_lt(),
        Compare::Le => order.is_le(),
        Compare::Gt => order.is_gt(),
        Compare::Ge => order.is_ge(),
        Compare::Eq => order.is_eq(),
        Compare::Ne => order.is_ne(),
    }))
}

/// An operation on two values.
pub(super) fn math(machine: &mut Machine<'_>, op: Math, left: Value, right: Value) -> Result<Value> {
    match op {
        Math::Add => add(machine, left, right),
        Math::Sub => subtract(machine, &left, &right),
        Math::Mul => multiply(machine, left, right),
        Math::Div => divide(machine, &left, &right),
        Math::Rem => remainder(&left, &right),
    }
}

fn add(machine: &mut Machine<'_>, left: Value, right: Value) -> Result<Value> {
    match (left, right) {
        (Value::Null, value) | (value, Value::Null) => Ok(value),
        (Value::Int(left), Value::Int(right)) => {
            Ok(left.checked_add(right).map_or_else(|| Value::number(left as f64 + right as f64), Value::Int))
        }
        (Value::Str(left), Value::Str(right)) => {
            machine.charge((left.len() + right.len()) / LETTERS_PER_STEP)?;
            Ok(Value::Str([&*left, &*right].concat().into()))
        }
        (left @ Value::Array(_), right @ Value::Array(_)) => {
            let right = right.items().unwrap_or_default();
            machine.charge(left.items().unwrap_or_default().len() + right.len())?;
            let mut all = left.into_items().unwrap_or_default();
            all.extend_from_slice(right);
            Ok(Value::array(all)?)
        }
        (left @ Value::Object(_), right @ Value::Object(_)) => {
            let right = right.into_pairs().unwrap_or_default();
            machine.charge(left.pairs().map_or(0, Pairs::len) + right.len())?;
            let mut all = left.into_pairs().unwrap_or_default();
            all.extend(right);
            Ok(Value::object(all)?)
        }
        (left, right) => match (left.as_float(), right.as_float()) {
            (Some(left), Some(right)) => Ok(Value::number(left + right)),
            _ => Err(pair_wrong(&left, &right, "added")),
        },
    }
}

fn subtract(machine: &mut Machine<'_>, left: &Value, right: &Value) -> Result<Value> {
    match (left, right) {
        (Value::Int(a), Value::Int(b)) => {
            Ok(a.checked_sub(*b).map_or_else(|| Value::number(*a as f64 - *b as f64), Value::Int))
        }
        (Value::Array(_), Value::Array(_)) => {
            let (all, without) = (left.items().unwrap_or_default(), right.items().unwrap_or_default());
            machine.charge(all.len() * (1 + without.len()))?;
            charge_walk(machine, right)?;
            Ok(Value::array(all.iter().filter(|item| !without.contains(item)).cloned().collect())?)
        }
        _ => match (left.as_float(), right.as_float()) {
            (Some(left), Some(right)) => Ok(Value::number(left - right)),
            _ => Err(pair_wrong(left, right, "subtracted")),
        },
    }
}

fn multiply(machine: &mut Machine<'_>, left: Value, right: Value) -> Result<Value> {
    match (left, right) {
        (Value::Int(left), Value::Int(right)) => {
            Ok(left.checked_mul(right).map_or_else(|| Value::number(left as f64 * right as f64), Value::Int))
        }
        (Value::Str(text), number @ (Value::Int(_) | Value::Float(_)))
        | (number @ (Value::Int(_) | Value::Float(_)), Value::Str(text)) => {
            let times = number.as_float().unwrap_or(0.0);
            if times <= 0.0 || times.is_nan() {
                return Ok(Value::Null);
            }
            let times = (times as usize).max(1);
            let bytes = text.len().saturating_mul(times);
            if bytes > REPEATED_BYTES_MAX {
                return Err(Stop::error("Repeat string result too long"));
            }
            machine.charge(bytes / LETTERS_PER_STEP)?;
            Ok(Value::Str(text.repeat(times).into()))
        }
        (left @ Value::Object(_), right @ Value::Object(_)) => merge(machine, left, right),
        (left, right) => match (left.as_float(), right.as_float()) {
            (Some(left), Some(right)) => Ok(Value::number(left * right)),
            _ => Err(pair_wrong(&left, &right, "multiplied")),
        },
    }
}

/// Merges objects at every level.
fn merge(machine: &mut Machine<'_>, left: Value, right: Value) -> Result<Value> {
    let right = right.into_pairs().unwrap_or_default();
    machine.charge(left.pairs().map_or(0, Pairs::len) + right.len())?;
    let mut all = left.into_pairs().unwrap_or_default();
    for (key, value) in right {
        let old = all.remove(&key);
        let merged = match (old, value) {
            (Some(old @ Value::Object(_)), value @ Value::Object(_)) => merge(machine, old, value)?,
            (_, value) => value,
        };
        all.insert(key, merged);
    }
    Ok(Value::object(all)?)
}

fn divide(machine: &mut Machine<'_>, left: &Value, right: &Value) -> Result<Value> {
    if let (Value::Str(_), Value::Str(_)) = (left, right) {
        return texts::split(machine, left, right);
    }
    match (left.as_float(), right.as_float()) {
        (Some(_), Some(0.0)) => Err(pair_wrong(left, right, "divided because the divisor is zero")),
        (Some(left), Some(right)) => Ok(Value::number(left / right)),
        _ => Err(pair_wrong(left, right, "divided")),
    }
}

fn remainder(left: &Value, right: &Value) -> Result<Value> {
    let (Some(a), Some(b)) = (left.as_float(), right.as_float()) else {
        return Err(pair_wrong(left, right, "divided"));
    };
    if a.is_nan() || b.is_nan() {
        return Ok(Value::Float(f64::NAN));
    }
    // As in jq, both are cut to whole numbers, and the sign is that of the left.
    let (a, b) = (left.as_int().unwrap_or(a as i64), right.as_int().unwrap_or(b as i64));
    match a.checked_rem(b) {
        Some(rest) => Ok(Value::Int(rest)),
        None if b == -1 => Ok(Value::Int(0)),
        None => Err(pair_wrong(left, right, "divided because the divisor is zero")),
    }
}

/// Runs a function on its input and arguments.
pub(super) fn run(machine: &mut Machine<'_>, fun: Fun, input: &Value, arguments: &[Value]) -> Result<Value> {
    let null = Value::Null;
    let first = arguments.first().unwrap_or(&null);
    match fun {
        Fun::Length => length(machine, input),
        Fun::Utf8ByteLength => Ok(Value::count(text_of(input, "only strings have UTF-8 byte length")?.len())),
        Fun::Not => Ok(Value::Bool(!input.is_true())),
        Fun::Keys | Fun::KeysUnsorted => keys(machine, input),
        Fun::Has => has(input, first),
        Fun::Contains => contains(machine, input, first).map(Value::Bool),
        Fun::Add => add_all(machine, input),
        Fun::Type => Ok(Value::text(input.type_name())),
        Fun::ToString | Fun::ToJson | Fun::FromJson | Fun::ToNumber => convert(machine, fun, input),
        Fun::Sort | Fun::Unique | Fun::SortBy | Fun::GroupBy | Fun::MinBy | Fun::MaxBy | Fun::Reverse => {
            ordered(machine, fun, input, first)
        }
        Fun::Flatten => flatten(machine, input, f64::INFINITY),
        Fun::FlattenBy => match first.as_float() {
            Some(depth) if depth >= 0.0 => flatten(machine, input, depth),
            _ => Err(Stop::error("flatten depth must not be negative")),
        },
        Fun::Transpose => transpose(machine, input),
        Fun::ToEntries | Fun::FromEntries => entries(machine, fun, input),
        Fun::Indices => indices(machine, input, first),
        Fun::SetPath => {
            let steps = items(first, "Path must be specified as an array")?;
            let new = arguments.get(1).cloned().unwrap_or_default();
            paths::update(machine, input.clone(), steps, &mut |_, _| Ok(new.clone()))
        }
        Fun::DelPaths => {
            let paths = items(first, "Paths must be specified as an array")?.to_vec();
            paths::delete_all(machine, input.clone(), paths)
        }
        Fun::Match | Fun::Test => regex::run(machine, fun, input, first, arguments.get(1).unwrap_or(&null)),
        Fun::ToDate | Fun::FromDate | Fun::BrokenDown | Fun::MakeTime | Fun::FormatTime => {
            dates::run(fun, input, first)
        }
        Fun::Pow | Fun::Infinite | Fun::Nan => Ok(match fun {
            Fun::Infinite => Value::Float(f64::INFINITY),
            Fun::Nan => Value::Float(f64::NAN),
            _ => {
                let number = |value: &Value| value.as_float().ok_or_else(|| wrong(value, "number required"));
                Value::number(number(first)?.powf(number(arguments.get(1).unwrap_or(&null))?))
            }
        }),
        Fun::Floor | Fun::Ceil | Fun::Round | Fun::Trunc | Fun::Sqrt | Fun::Fabs | Fun::Abs | Fun::Log => {
            of_number(fun, input)
        }
        Fun::Log2 | Fun::Log10 | Fun::Exp | Fun::Exp2 | Fun::IsInfinite | Fun::IsNan | Fun::IsNormal => {
            of_number(fun, input)
        }
        _ => texts::run(machine, fun, input, first),
    }
}

fn of_number(fun: Fun, input: &Value) -> Result<Value> {
    let number = input.as_float().ok_or_else(|| wrong(input, "number required"))?;
    if let (Value::Int(whole), Fun::Floor | Fun::Ceil | Fun::Round | Fun::Trunc) = (input, fun) {
        return Ok(Value::Int(*whole));
    }
    Ok(match fun {
        Fun::Floor => Value::number(number.floor()),
        Fun::Ceil => Value::number(number.ceil()),
        Fun::Round => Value::number(number.round()),
        Fun::Trunc => Value::number(number.trunc()),
        Fun::Sqrt => Value::number(number.sqrt()),
        Fun::Fabs | Fun::Abs => Value::number(number.abs()),
        Fun::Log => Value::number(number.ln()),
        Fun::Log2 => Value::number(number.log2()),
        Fun::Log10 => Value::number(number.log10()),
        Fun::Exp => Value::number(number.exp()),
        Fun::Exp2 => Value::number(number.exp2()),
        Fun::IsInfinite => Value::Bool(number.is_infinite()),
        Fun::IsNan => Value::Bool(number.is_nan()),
        _ => Value::Bool(number.is_normal()),
    })
}

fn length(machine: &mut Machine<'_>, input: &Value) -> Result<Value> {
    Ok(match input {
        Value::Null => Value::Int(0),
        Value::Bool(_) => return Err(wrong(input, "has no length")),
        Value::Int(number) => number.checked_abs().map_or(Value::Float(-(*number as f64)), Value::Int),
        Value::Float(number) => Value::number(number.abs()),
        Value::Str(text) => {
            machine.charge(text.len() / LETTERS_PER_STEP)?;
            Value::count(text.chars().count())
        }
        Value::Array(_) => Value::count(input.items().map_or(0, <[_]>::len)),
        Value::Object(_) => Value::count(input.pairs().map_or(0, Pairs::len)),
    })
}

fn keys(machine: &mut Machine<'_>, input: &Value) -> Result<Value> {
    match input {
        Value::Object(_) => {
            let pairs = input.pairs().into_iter().flatten();
            machine.charge(input.pairs().map_or(0, Pairs::len))?;
            Ok(Value::array(pairs.map(|(key, _)| Value::Str(key.clone())).collect())?)
        }
        Value::Array(_) => {
            let length = input.items().map_or(0, <[_]>::len);
            machine.charge(length)?;
            Ok(Value::array((0..length).map(Value::count).collect())?)
        }
        _ => Err(wrong(input, "has no keys")),
    }
}

fn has(input: &Value, key: &Value) -> Result<Value> {
    match (input, key) {
        (Value::Object(_), Value::Str(key)) => Ok(Value::Bool(input.field(key).is_some())),
        (Value::Array(_), Value::Int(_) | Value::Float(_)) => {
            let at = key.as_float().unwrap_or(-1.0);
            Ok(Value::Bool(at >= 0.0 && at < input.items().map_or(0, <[_]>::len) as f64))
        }
        _ => Err(Stop::error(&format!(
            "Cannot check whether {} has a {} key",
            input.type_name(),
            key.type_name()
        ))),
    }
}

fn contains(machine: &mut Machine<'_>, input: &Value, part: &Value) -> Result<bool> {
    machine.charge(1)?;
    match (input, part) {
        (Value::Object(_), Value::Object(_)) => {
            for (key, part) in part.pairs().into_iter().flatten() {
                match input.field(key) {
                    Some(value) if contains(machine, value, part)? => {}
                    _ => return Ok(false),
                }
            }
            Ok(true)
        }
        (Value::Array(_), Value::Array(_)) => {
            for part in part.items().unwrap_or_default() {
                let mut found = false;
                for item in input.items().unwrap_or_default() {
                    machine.charge(1)?;
                    let same_type = item.type_name() == part.type_name();
                    if same_type && contains(machine, item, part)? {
                        found = true;
                        break;
                    }
                }
                if !found {
                    return Ok(false);
                }
            }
            Ok(true)
        }
        (Value::Str(text), Value::Str(part)) => {
            machine.charge((text.len() + part.len()) / LETTERS_PER_STEP)?;
            Ok(text.contains(&**part))
        }
        _ if input.type_name() == part.type_name() => Ok(input == part),
        _ => Err(pair_wrong(input, part, "have their containment checked")),
    }
}

fn add_all(machine: &mut Machine<'_>, input: &Value) -> Result<Value> {
    let mut sum = Value::Null;
    match input {
        Value::Array(_) => {
            let items = input.items().unwrap_or_default();
            if items.iter().all(|item| matches!(item, Value::Str(_))) && !items.is_empty() {
                // Texts at once, since one by one would copy what was added again and again.
                charge_walk(machine, input)?;
                let texts: Vec<&str> = items.iter().filter_map(Value::as_text).collect();
                return Ok(Value::Str(texts.concat().into()));
            }
            for item in items {
                machine.charge(1)?;
                sum = add(machine, sum, item.clone())?;
            }
        }
        Value::Object(_) => {
            for (_, item) in input.pairs().into_iter().flatten() {
                machine.charge(1)?;
                sum = add(machine, sum, item.clone())?;
            }
        }
        _ => return Err(wrong(input, "cannot be iterated over")),
    }
    Ok(sum)
}

fn convert(machine: &mut Machine<'_>, fun: Fun, input: &Value) -> Result<Value> {
    charge_walk(machine, input)?;
    match (fun, input) {
        (Fun::ToString, Value::Str(_)) | (Fun::ToNumber, Value::Int(_) | Value::Float(_)) => {
            Ok(input.clone())
        }
        (Fun::ToString | Fun::ToJson, _) => Ok(Value::text(&input.to_json())),
        (Fun::FromJson, Value::Str(text)) => {
            Value::from_json(text).map_err(|problem| Stop::error(&format!("{problem} (while parsing JSON)")))
        }
        (Fun::ToNumber, Value::Str(text)) => {
            let is_number = text.starts_with(|first: char| first.is_ascii_digit() || "-.".contains(first));
            let number = text.parse::<f64>().ok().filter(|_| is_number);
            let whole = text.parse::<i64>().map(Value::Int);
            number
                .map(|number| whole.unwrap_or(Value::number(number)))
                .ok_or_else(|| wrong(input, "cannot be parsed as a number"))
        }
        (Fun::FromJson, _) => Err(wrong(input, "only strings can be parsed")),
        _ => Err(wrong(input, "cannot be parsed as a number")),
    }
}

/// What depends on an order: sorting and its kin.
fn ordered(machine: &mut Machine<'_>, fun: Fun, input: &Value, keys: &Value) -> Result<Value> {
    if let (Fun::Reverse, Value::Str(text)) = (fun, input) {
        machine.charge(text.len() / LETTERS_PER_STEP)?;
        return Ok(Value::text(&text.chars().rev().collect::<String>()));
    }
    if input.is_null() && fun == Fun::Reverse {
        return Ok(Value::empty_array());
    }
    let all = items(input, "cannot be sorted, as it is not an array")?;
    if matches!(fun, Fun::Reverse) {
        machine.charge(all.len())?;
        return Ok(Value::array(all.iter().rev().cloned().collect())?);
    }
    if matches!(fun, Fun::Sort | Fun::Unique) {
        charge_sort(machine, all)?;
        let mut sorted = all.to_vec();
        sorted.sort();
        if fun == Fun::Unique {
            sorted.dedup();
        }
        return Ok(Value::array(sorted)?);
    }
    let keys = items(keys, "cannot be sorted by this")?;
    charge_sort(machine, keys)?;
    let mut keyed: Vec<(&Value, &Value)> = keys.iter().zip(all).collect();
    match fun {
        Fun::MinBy => {
            let least = keyed.iter().rev().min_by_key(|(key, _)| *key);
            return Ok(least.map(|(_, item)| (*item).clone()).unwrap_or_default());
        }
        Fun::MaxBy => {
            return Ok(keyed
                .iter()
                .max_by_key(|(key, _)| *key)
                .map(|(_, item)| (*item).clone())
                .unwrap_or_default());
        }
        _ => keyed.sort_by_key(|(key, _)| *key),
    }
    if fun == Fun::SortBy {
        return Ok(Value::array(keyed.into_iter().map(|(_, item)| item.clone()).collect())?);
    }
    let mut groups: Vec<Value> = Vec::new();
    for group in keyed.chunk_by(|(a, _), (b, _)| a == b) {
        groups.push(Value::array(group.iter().map(|(_, item)| (*item).clone()).collect())?);
    }
    Ok(Value::array(groups)?)
}

fn flatten(machine: &mut Machine<'_>, input: &Value, depth: f64) -> Result<Value> {
    fn into(machine: &mut Machine<'_>, items: &[Value], depth: f64, flat: &mut Vec<Value>) -> Result<()> {
        for item in items {
            machine.charge(1)?;
            match item.items() {
                Some(inner) if depth > 0.0 => into(machine, inner, depth - 1.0, flat)?,
                _ => flat.push(item.clone()),
            }
        }
        Ok(())
    }
    let mut flat = Vec::new();
    into(machine, items(input, "cannot be flattened")?, depth, &mut flat)?;
    Ok(Value::array(flat)?)
}

fn transpose(machine: &mut Machine<'_>, input: &Value) -> Result<Value> {
    let rows = items(input, "cannot be transposed")?;
    let width = rows.iter().map(|row| row.items().map_or(0, <[_]>::len)).max().unwrap_or(0);
    machine.charge(width.saturating_mul(rows.len()))?;
    let mut columns = Vec::with_capacity(width);
    for at in 0..width {
        let column =
            rows.iter().map(|row| row.items().and_then(|row| row.get(at)).cloned().unwrap_or_default());
        columns.push(Value::array(column.collect())?);
    }
    Ok(Value::array(columns)?)
}

fn entries(machine: &mut Machine<'_>, fun: Fun, input: &Value) -> Result<Value> {
    if fun == Fun::ToEntries {
        let Some(pairs) = input.pairs() else { return Err(wrong(input, "has no keys")) };
        machine.charge(pairs.len() * 2)?;
        let mut all = Vec::with_capacity(pairs.len());
        for (key, value) in pairs {
            let entry = [(Rc::from("key"), Value::Str(key.clone())), (Rc::from("value"), value.clone())];
            all.push(Value::object(entry.into_iter().collect())?);
        }
        return Ok(Value::array(all)?);
    }
    let mut pairs = Pairs::new();
    for entry in items(input, "cannot be made an object")? {
        machine.charge(2)?;
        let known = |names: &[&str]| {
            names.iter().filter_map(|name| entry.field(name)).find(|value| !value.is_null()).cloned()
        };
        let key: Rc<str> = match known(&["key", "k", "name", "Name", "Key", "K"]) {
            Some(Value::Str(key)) => key,
            Some(other @ (Value::Int(_) | Value::Float(_) | Value::Bool(_))) => other.to_json().into(),
            None if entry.pairs().is_some() => "null".into(),
            _ => return Err(wrong(entry, "cannot be used as an entry")),
        };
        let value = ["value", "v", "Value", "V"].iter().find_map(|name| entry.field(name)).cloned();
        pairs.insert(key, value.unwrap_or_default());
    }
    Ok(Value::object(pairs)?)
}

/// Where something occurs in a text or an array.
pub(super) fn indices(machine: &mut Machine<'_>, input: &Value, part: &Value) -> Result<Value> {
    match (input, part) {
        (Value::Null, _) => Ok(Value::Null),
        (Value::Str(text), Value::Str(part)) => {
            machine.charge(text.len())?;
            if part.is_empty() {
                return Ok(Value::Null);
            }
            machine.charge(text.len().saturating_mul(part.len()) / LETTERS_PER_STEP)?;
            let starts = text.char_indices().enumerate();
            let found = starts.filter(|(_, (byte, _))| text[*byte..].starts_with(&**part));
            Ok(Value::array(found.map(|(letter, _)| Value::count(letter)).collect())?)
        }
        (Value::Array(_), Value::Array(_)) => {
            let (all, part) = (input.items().unwrap_or_default(), part.items().unwrap_or_default());
            machine.charge(all.len().saturating_mul(part.len().max(1)))?;
            if part.is_empty() {
                return Ok(Value::Null);
            }
            let found = all.windows(part.len()).enumerate().filter(|(_, window)| *window == part);
            Ok(Value::array(found.map(|(at, _)| Value::count(at)).collect())?)
        }
        (Value::Array(_), _) => {
            let all = input.items().unwrap_or_default();
            machine.charge(all.len())?;
            charge_walk(machine, part)?;
            let found = all.iter().enumerate().filter(|(_, item)| *item == part);
            Ok(Value::array(found.map(|(at, _)| Value::count(at)).collect())?)
        }
        _ => Err(Stop::error(&format!("Cannot index {} with {}", input.type_name(), part.type_name()))),
    }
}
