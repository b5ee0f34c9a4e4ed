//! Kernels' parameters and attributes.

use metal_sim::msl::{KernelSource, Parameter};

use crate::text::Fault;

/// Attributes that are positions or sizes, of one, two or three dimensions.
const POSITIONS: [&str; 7] = [
    "thread_position_in_grid",
    "thread_position_in_threadgroup",
    "threadgroup_position_in_grid",
    "threads_per_threadgroup",
    "dispatch_threads_per_threadgroup",
    "threads_per_grid",
    "threadgroups_per_grid",
];

const POSITION_TYPES: [&str; 6] = ["uint", "uint2", "uint3", "ushort", "ushort2", "ushort3"];

fn components(type_name: &str) -> char {
    type_name.chars().last().filter(|last| matches!(last, '2' | '3')).unwrap_or('1')
}

fn kernel(kernel: &KernelSource, found: &mut Vec<Fault>) {
    let name = &kernel.name;
    let find = |attribute: &str| kernel.parameters.iter().find(|parameter| parameter.attribute == attribute);
    let positions: Vec<&Parameter> =
        kernel.parameters.iter().filter(|parameter| POSITIONS.contains(&parameter.attribute.as_str())).collect();
    for parameter in &kernel.parameters {
        let (attribute, type_name) = (parameter.attribute.as_str(), parameter.core_type());
        if POSITIONS.contains(&attribute) {
            if !POSITION_TYPES.contains(&type_name.as_str()) {
                found.push((
                    parameter.line,
                    format!("kernel {name}: [[{attribute}]] must be ushort or uint, scalar or vector, not {type_name}"),
                ));
            }
        } else if attribute != "buffer" && !matches!(type_name.as_str(), "uint" | "ushort") {
            found.push((
                parameter.line,
                format!("kernel {name}: [[{attribute}]] must be ushort or uint, not {type_name}"),
            ));
        }
        if attribute == "buffer" && !parameter.is_indirect() {
            found.push((
                parameter.line,
                format!("kernel {name}: [[buffer]] {} must be a pointer or a reference", parameter.name),
            ));
        }
    }
    if let Some(first) = positions.first() {
        for other in &positions[1..] {
            if components(&other.core_type()) != components(&first.core_type()) {
                found.push((
                    other.line,
                    format!(
                        "kernel {name}: {} is {}, but {} is {}: position attributes must have the same number of components",
                        other.attribute,
                        other.core_type(),
                        first.attribute,
                        first.core_type()
                    ),
                ));
                break;
            }
        }
    }
    for (one, other) in [("thread_position_in_grid", "threads_per_grid")] {
        if let (Some(one), Some(other)) = (find(one), find(other))
            && one.core_type() != other.core_type()
            && components(&one.core_type()) == components(&other.core_type())
        {
            found.push((
                other.line,
                format!("kernel {name}: {} and {} must have the same type", one.attribute, other.attribute),
            ));
        }
    }
    if let (Some(position), Some(index)) = (find("thread_position_in_threadgroup"), find("thread_index_in_threadgroup"))
        && position.core_type().starts_with("uint")
        && index.core_type() == "ushort"
    {
        found.push((
            index.line,
            format!(
                "kernel {name}: thread_index_in_threadgroup must be uint where thread_position_in_threadgroup is {}",
                position.core_type()
            ),
        ));
    }
    let mut seen = Vec::new();
    for parameter in kernel.parameters.iter().filter(|parameter| parameter.attribute != "buffer") {
        if seen.contains(&&parameter.attribute) {
            found.push((parameter.line, format!("kernel {name}: two parameters are [[{}]]", parameter.attribute)));
        }
        seen.push(&parameter.attribute);
    }
}

/// Faults of the kernels' declarations. What needs a compiler to evaluate is checked in `compiler`.
pub(crate) fn check(kernels: &[KernelSource], threads: &[(&str, u32)]) -> Vec<Fault> {
    let mut found = Vec::new();
    for source in kernels {
        kernel(source, &mut found);
    }
    for (name, _) in threads {
        if !kernels.iter().any(|kernel| kernel.name == *name) {
            found.push((0, format!("the host dispatches kernel {name}, which the file does not have")));
        }
    }
    found
}
