//! Python's operators where the engine's differ.

use minijinja::value::{Tuple, ValueKind};
use minijinja::{Error, Value};

use super::filters::escape;
use super::format::percent;
use super::methods::refusal;
use super::repr::text;

/// The operator `%`: formats where its left side is a string, else the remainder with the sign of the divisor.
pub(super) fn remainder(left: &Value, right: &Value) -> Result<Value, Error> {
    if let Some(template) = left.as_str() {
        return percent(template, right).map(Value::from);
    }
    let (left, right) = (number(left), number(right));
    let (Some(left), Some(right)) = (&left, &right) else {
        return Err(refusal("unsupported operand types for %"));
    };
    if left.is_integer() && right.is_integer() {
        let (a, b) = (i128::try_from(left.clone())?, i128::try_from(right.clone())?);
        let rest = a.checked_rem(b).ok_or_else(|| refusal("division by zero"))?;
        let rest = if rest != 0 && (rest < 0) != (b < 0) { rest + b } else { rest };
        return Ok(i64::try_from(rest).map_or(Value::from(rest), Value::from));
    }
    let (a, b) = (f64::try_from(left.clone())?, f64::try_from(right.clone())?);
    if b == 0.0 {
        return Err(refusal("division by zero"));
    }
    let rest = a % b;
    Ok(Value::from(match rest {
        0.0 => 0.0_f64.copysign(b),
        rest if (rest < 0.0) != (b < 0.0) => rest + b,
        rest => rest,
    }))
}

/// A number, or a truth as one.
fn number(value: &Value) -> Option<Value> {
    match value.kind() {
        ValueKind::Bool => Some(Value::from(i64::from(value.is_true()))),
        ValueKind::Number => Some(value.clone()),
        _ => None,
    }
}

/// The operator `+`, where a safe string may be on either side: it escapes the other.
pub(super) fn sum(left: &Value, right: &Value) -> Result<Value, Error> {
    if let (Some(_), Some(_)) = (left.as_str(), right.as_str()) {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        return Ok(if left.is_safe() || right.is_safe() {
            Value::from_safe_string(text(&escape(left, false)) + &text(&escape(right, false)))
        } else {
            Value::from(text(left) + &text(right))
        });
    }
    if let (Some(left), Some(right)) = (number(left), number(right)) {
        let whole = if left.is_integer() && right.is_integer() {
            i128::try_from(left.clone())?.checked_add(i128::try_from(right.clone())?)
        } else {
            None
        };
        return Ok(match whole {
            Some(whole) => i64::try_from(whole).map_or(Value::from(whole), Value::from),
            None => Value::from(f64::try_from(left)? + f64::try_from(right)?),
        });
    }
    if left.kind() != ValueKind::Seq || right.kind() != ValueKind::Seq || left.is_tuple() != right.is_tuple() {
        return Err(refusal("unsupported operand types for +"));
    }
    let items: Vec<Value> = left.try_iter()?.chain(right.try_iter()?).collect();
    Ok(if left.is_tuple() { Value::from(Tuple::from(items)) } else { Value::from(items) })
}

/// Most characters or items of a product.
const LONGEST_PRODUCT: usize = 100_000_000;

/// The operator `*`: repeats strings and lists too, not at all where the factor is negative.
pub(super) fn product(left: &Value, right: &Value) -> Result<Value, Error> {
    if let (Some(left), Some(right)) = (number(left), number(right)) {
        let whole = if left.is_integer() && right.is_integer() {
            i128::try_from(left.clone())?.checked_mul(i128::try_from(right.clone())?)
        } else {
            None
        };
        return Ok(match whole {
            Some(whole) => i64::try_from(whole).map_or(Value::from(whole), Value::from),
            None => Value::from(f64::try_from(left)? * f64::try_from(right)?),
        });
    }
    let (items, factor) = if number(right).is_some() { (left, right) } else { (right, left) };
    let factor = number(factor).filter(Value::is_integer).ok_or_else(|| refusal("unsupported operand types for *"))?;
    let factor = usize::try_from(i128::try_from(factor)?.max(0)).unwrap_or(usize::MAX);
    let within = |length: usize| {
        let fits = length.checked_mul(factor).is_some_and(|length| length <= LONGEST_PRODUCT);
        if fits { Ok(()) } else { Err(refusal("the product is too long")) }
    };
    if let Some(text) = items.as_str() {
        within(text.len())?;
        return Ok(text.repeat(factor).into());
    }
    if items.kind() != ValueKind::Seq {
        return Err(refusal("unsupported operand types for *"));
    }
    let list: Vec<Value> = items.try_iter()?.collect();
    within(list.len())?;
    let repeated: Vec<Value> = list.iter().cycle().take(list.len() * factor).cloned().collect();
    Ok(if items.is_tuple() { Value::from(Tuple::from(repeated)) } else { Value::from(repeated) })
}

/// `value[start:stop:step]`.
pub(super) fn slice(value: &Value, start: Option<i64>, stop: Option<i64>, step: Option<i64>) -> Result<Value, Error> {
    let step = step.unwrap_or(1);
    if step == 0 {
        return Err(refusal("slice step cannot be zero"));
    }
    let items: Vec<Value> = match value.as_str() {
        Some(text) => text.chars().map(Value::from).collect(),
        None if matches!(value.kind(), ValueKind::Seq | ValueKind::Iterable) => value.try_iter()?.collect(),
        None => return Err(refusal(format!("a value of type {} cannot be sliced", value.kind()))),
    };
    let length = items.len() as i64;
    let (least, most) = if step > 0 { (0, length) } else { (-1, length - 1) };
    let place = |at: i64| if at < 0 { (at + length).max(least) } else { at.min(most) };
    let (first, last) = if step > 0 { (least, most) } else { (most, least) };
    let (mut at, stop) = (start.map_or(first, place), stop.map_or(last, place));
    let mut taken = Vec::new();
    while if step > 0 { at < stop } else { at > stop } {
        taken.extend(items.get(at as usize).cloned());
        at = at.saturating_add(step);
    }
    Ok(match value.as_str() {
        Some(_) => taken.iter().map(text).collect::<String>().into(),
        None if value.is_tuple() => Value::from(Tuple::from(taken)),
        None => Value::from(taken),
    })
}
