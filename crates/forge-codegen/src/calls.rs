//! Bodies of kernels that are one call, and where their threads are.

use forge_plan::Plan;
use forge_plan::call::{Call, Constant, Param, Position, Value};
use forge_plan::families::{Operands, Router};

use forge_spec::{Activation, GroupScore, Routing, Scores};

use crate::kernels::Builtin;
use crate::naming::{float, packed_name};

/// Width of emitted lines.
const LINE: usize = 120;
/// Indentation of what does not fit on the line of the call.
const PAD: &str = "        ";

/// The name of one of so many tables of RoPE frequencies.
pub fn rope_table(index: usize, tables: usize) -> String {
    if tables == 1 { "ROPE_INV_FREQ".into() } else { format!("ROPE_INV_FREQ_{index}") }
}

/// The call as a statement: on one line, or its arguments on lines of their own. There are so many tables of RoPE frequencies.
pub fn statement(call: &Call, tables: usize) -> String {
    let constants: Vec<String> = call.constants.iter().map(constant).collect();
    let head = format!("    {}<{}>(", call.function, constants.join(", "));
    let mut items: Vec<String> = call.arguments.iter().map(|value| argument(value, tables)).collect();
    let last = items.len() - 1;
    items[..last].iter_mut().for_each(|item| item.push(','));
    items[last] += ");";
    let one = format!("{head}{}", items.join(" "));
    if one.len() <= LINE {
        return one;
    }
    let mut lines = vec![String::new()];
    for item in items {
        let line = lines.last_mut().expect("starts with one");
        let space = usize::from(!line.is_empty());
        if line.is_empty() || PAD.len() + line.len() + space + item.len() <= LINE {
            line.push_str(if line.is_empty() { "" } else { " " });
            line.push_str(&item);
        } else {
            lines.push(item);
        }
    }
    format!("{head}\n{PAD}{}", lines.join(&format!("\n{PAD}")))
}

fn constant(constant: &Constant) -> String {
    match constant {
        Constant::Size(size) => size.to_string(),
        Constant::Weights(format) => format!("Weights_{}", packed_name(*format)),
        Constant::Gemv(format) => format!("Gemv_{}", packed_name(*format)),
        Constant::Activation(kind) => activation(*kind),
        Constant::Router(router) => routing(router),
        Constant::Flag(flag) => flag.to_string(),
        Constant::Turned { format, heads, rows, cols } => {
            format!("Turned<Weights_{}, {heads}, {rows}, {cols}>", packed_name(*format))
        }
        Constant::Half(half) => (if *half { "half" } else { "float" }).to_owned(),
        Constant::Operands(operands) => operand(*operands).to_owned(),
        Constant::Weighing(half) => (if *half { "HalfWeights" } else { "FloatWeights" }).to_owned(),
    }
}

/// The type of `product.metal`.
pub fn operand(operands: Operands) -> &'static str {
    if operands.are_halves() { "Halves" } else { "Floats" }
}

/// The type of `activation.metal`.
pub fn activation(activation: Activation) -> String {
    match activation {
        Activation::Silu => "Silu".to_owned(),
        Activation::GeluTanh => "GeluTanh".to_owned(),
        Activation::ReluSquared => "ReluSquared".to_owned(),
        Activation::Xielu => "Xielu".to_owned(),
        Activation::ClampedSwiglu { alpha, limit } => format!("ClampedSwiglu<{alpha}, {limit}>"),
    }
}

/// A value of that type, in a kernel whose argument `activation` holds what numbers it takes.
pub fn activation_value(kind: Activation) -> String {
    match kind {
        Activation::Silu | Activation::GeluTanh | Activation::ReluSquared | Activation::ClampedSwiglu { .. } => {
            format!("{}()", activation(kind))
        }
        Activation::Xielu => "xielu(activation)".to_owned(),
    }
}

/// The type of `route.metal`.
fn routing(router: &Router) -> String {
    let Routing { experts, chosen, scores, groups, normalised: _, scale: _ } = router.routing;
    let scores = match scores {
        Scores::Softmax => 0,
        Scores::SoftmaxOfChosen => 1,
        Scores::Sigmoid => 2,
    };
    let (count, kept, judged) = groups.map_or((1, 1, 1), |groups| {
        let judged = match groups.judged_by {
            GroupScore::Best => 1,
            GroupScore::BestTwo => 2,
        };
        (groups.count, groups.chosen, judged)
    });
    let vector = if router.biased { 1 } else { 2 * u8::from(router.factors) };
    format!("Routing<{experts}, {chosen}, {scores}, {vector}, {count}, {kept}, {judged}>")
}

fn argument(value: &Value, tables: usize) -> String {
    match value {
        Value::Bound(role) => role.name().to_owned(),
        Value::First(role) => format!("{}[0]", role.name()),
        Value::RopeTable(index) => rope_table(*index, tables),
        Value::Shared => "shared".to_owned(),
        Value::Float(value) => float(*value),
        Value::Size(size) => size.to_string(),
        Value::Param(param) => format!("step->{}", word(*param).name()),
        Value::OfRow(param, row) => format!("step[{}].{}", at(*row), word(*param).name()),
        Value::Row(row) => format!("step[{}]", at(*row)),
        Value::SlotStart(positions, row) => slot_start(&format!("step[{}].", at(*row)), *positions),
        Value::TileStart(positions) => slot_start("step->", *positions),
        Value::At(position) => at(*position).to_owned(),
    }
}

/// Where the sequence of the row with this record begins in a cache of so many positions each.
pub fn slot_start(record: &str, positions: Option<usize>) -> String {
    let context = format!("{record}context");
    let each = positions.map_or_else(|| context.clone(), |count| format!("min({context}, {count}u)"));
    format!("{record}slot * {each}")
}

/// The word of `StepParams`.
fn word(param: Param) -> forge_spec::Param {
    match param {
        Param::Position => forge_spec::Param::Position,
        Param::Rows => forge_spec::Param::Rows,
    }
}

/// The words of `struct StepParams`, a line each: notes on neighbours of one type begin in one column.
pub fn step_params() -> Vec<String> {
    let mut lines = Vec::new();
    let mut rest = &forge_spec::Param::ALL[..];
    while let Some(first) = rest.first() {
        if !first.heading().is_empty() {
            lines.push(format!("// {}", first.heading()));
        }
        let is_other = |other: &forge_spec::Param| other.is_float() != first.is_float() || !other.heading().is_empty();
        let end = rest.iter().skip(1).position(is_other).map_or(rest.len(), |at| at + 1);
        let (alike, others) = rest.split_at(end);
        let declared = |param: &forge_spec::Param| {
            format!("{} {};", if param.is_float() { "float" } else { "uint" }, param.name())
        };
        let width = alike.iter().map(|param| declared(param).len()).max().unwrap_or(0);
        lines.extend(alike.iter().map(|param| match param.note() {
            "" => declared(param),
            note => format!("{:width$} // {note}", declared(param)),
        }));
        rest = others;
    }
    lines
}

fn at(position: Position) -> &'static str {
    match position {
        Position::Group | Position::Group2 | Position::Group3 => "group",
        Position::GroupX => "group.x",
        Position::GroupY => "group.y",
        Position::GroupZ => "group.z",
        Position::Thread => "thread_index",
        Position::Simdgroup => "simdgroup",
        Position::Lane => "lane",
    }
}

/// The position parameters that a kernel declares for these, in the order that all kernels have.
pub fn builtins(positions: &[Position]) -> Vec<Builtin> {
    let three = positions.iter().any(|position| [Position::GroupZ, Position::Group3].contains(position));
    let axes = if three { "uint3 group" } else { "uint2 group" };
    let declared = |position: &Position| match position {
        Position::Group => Builtin::new("uint group", "threadgroup_position_in_grid"),
        Position::Group2 | Position::Group3 | Position::GroupX | Position::GroupY | Position::GroupZ => {
            Builtin::new(axes, "threadgroup_position_in_grid")
        }
        Position::Thread => Builtin::new("uint thread_index", "thread_index_in_threadgroup"),
        Position::Simdgroup => Builtin::new("uint simdgroup", "simdgroup_index_in_threadgroup"),
        Position::Lane => Builtin::new("uint lane", "thread_index_in_simdgroup"),
    };
    let mut sorted = positions.to_vec();
    sorted.sort_unstable();
    let mut list: Vec<Builtin> = sorted.iter().map(declared).collect();
    list.dedup();
    list
}

/// Where the threads of a call are.
pub fn positions(call: &Call) -> Vec<Position> {
    let position = |value: &Value| match value {
        Value::At(at) | Value::OfRow(_, at) | Value::Row(at) | Value::SlotStart(_, at) => Some(*at),
        Value::Bound(_)
        | Value::First(_)
        | Value::RopeTable(_)
        | Value::Shared
        | Value::Float(_)
        | Value::Size(_)
        | Value::Param(_)
        | Value::TileStart(_) => None,
    };
    call.arguments.iter().filter_map(position).collect()
}

/// Every source that a plan's kernels need, of those that families have.
pub fn sources(plan: &Plan) -> Vec<&'static str> {
    let families = plan.kernels.iter().map(|kernel| &kernel.family);
    let mut list: Vec<&str> =
        families.flat_map(|family| family.sources().iter().copied().chain(family.table_source())).collect();
    list.sort_unstable();
    list.dedup();
    list
}

#[cfg(test)]
mod tests {
    use forge_spec::Role;

    use super::*;

    #[test]
    fn a_call_fits_its_lines() {
        let arguments = vec![Value::Bound(Role::X), Value::Shared, Value::Float(1.5), Value::At(Position::Lane)];
        let call = Call { function: "f", constants: vec![Constant::Size(4)], arguments };
        assert_eq!(statement(&call, 1), "    f<4>(x, shared, 1.5f, lane);");
        let call = Call { arguments: vec![Value::Bound(Role::InputSums); 20], ..call };
        let text = statement(&call, 1);
        assert!(text.starts_with("    f<4>(\n") && text.lines().all(|line| line.len() <= LINE), "{text}");
        assert_eq!(text.matches("input_sums").count(), 20);
    }

    #[test]
    fn every_word_of_the_parameters_is_declared_once_and_in_order() {
        let lines = step_params();
        let declared = lines.iter().filter(|line| !line.starts_with("//"));
        let declared = declared.filter_map(|line| line.split_once(';').map(|(word, _)| word.to_owned()));
        let element = |param: &forge_spec::Param| if param.is_float() { "float" } else { "uint" };
        let expected = forge_spec::Param::ALL.iter().map(|param| format!("{} {}", element(param), param.name()));
        assert_eq!(declared.collect::<Vec<_>>(), expected.collect::<Vec<_>>());
        // The notes of neighbours begin in one column.
        let column = |line: &String| line.find(" // ").map(|at| at + 1);
        let columns: Vec<usize> = lines.iter().filter_map(column).collect();
        assert_eq!(columns, [15, 15, 15, 15, 15, 15, 27, 16, 16, 16, 16, 16, 16]);
    }

    #[test]
    fn positions_are_declared_once_and_in_order() {
        let declared = |positions: &[Position]| -> Vec<&str> {
            builtins(positions).iter().map(|builtin| builtin.declaration).collect()
        };
        assert_eq!(declared(&[Position::Lane, Position::GroupY, Position::GroupX]), ["uint2 group", "uint lane"]);
        assert_eq!(declared(&[Position::GroupZ, Position::Lane, Position::GroupX]), ["uint3 group", "uint lane"]);
    }
}
