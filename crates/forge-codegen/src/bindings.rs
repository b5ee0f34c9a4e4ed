//! How `kernels.metal` declares a kernel's arguments: types, and comments of shape and format.

use forge_plan::Kernel;
use forge_plan::binding::{Binding, Element, Extent};
use forge_spec::{CacheType, Role};

use crate::naming::format_name_of;

/// The MSL type that a cache is an array of.
fn cache_type(cache: CacheType) -> &'static str {
    if cache.block() == 1 { cache.element() } else { "uchar" }
}

/// `device const float* x`.
pub fn declaration(binding: &Binding) -> String {
    let name = binding.role.name();
    let element = match binding.element {
        Element::F32 => "float",
        Element::U32 => "uint",
        Element::AtomicU32 => "atomic_uint",
        Element::Candidate => "Candidate",
        Element::Packed(_) => "uchar",
        Element::Cache(cache) => cache_type(cache),
        Element::Params => return format!("constant StepParams* {name}"),
    };
    if binding.access.writes() {
        format!("device {element}* {name}")
    } else {
        format!("device const {element}* {name}")
    }
}

/// `[4096, 4096] q8_0`: what an argument of `kernel` holds.
pub fn comment(binding: &Binding, kernel: &Kernel) -> String {
    let list = |first: &[&str], shape: &[usize]| {
        let rest = shape.iter().map(usize::to_string);
        format!("[{}]", first.iter().map(|axis| (*axis).to_owned()).chain(rest).collect::<Vec<_>>().join(", "))
    };
    let rows: &[&str] = if kernel.is_for_one_row() { &[] } else { &["rows"] };
    let extent = match &binding.extent {
        Extent::Fixed(shape) if shape.is_empty() => String::new(),
        Extent::Fixed(shape) => list(&[], shape),
        Extent::Rows(shape) => list(rows, shape),
        Extent::Positions(shape) => list(&["positions"], shape),
        Extent::Slots { slots: 1, shape } if shape.is_empty() => String::new(),
        Extent::Slots { slots: 1, shape } => list(&[], shape),
        Extent::Slots { slots, shape } => list(&[&slots.to_string()], shape),
        Extent::State { slots: 1, shape } => list(&["2"], shape),
        Extent::State { slots, shape } => list(&[&slots.to_string(), "2"], shape),
        Extent::LayerRows { layers, width } => format!("[{layers}, rows, {width}]"),
        Extent::Parts { heads, head_dim, .. } => {
            return format!(
                "[rows] of [parts, {}] f32 sums, then [parts, {heads}, 2] highest score and weight",
                heads * head_dim
            );
        }
    };
    let element = match binding.element {
        Element::F32 => "f32".to_owned(),
        Element::Packed(format) => format_name_of(format),
        Element::Cache(cache) => cache.element().to_owned(),
        Element::U32 | Element::AtomicU32 | Element::Candidate | Element::Params => String::new(),
    };
    let text = [extent, element].into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join(" ");
    match note(binding.role, kernel) {
        note if text.is_empty() => note.to_owned(),
        "" => text,
        note if matches!(binding.element, Element::F32 | Element::Cache(_)) => format!("{text}, {note}"),
        note => format!("{text} {note}"),
    }
}

/// What arguments are whose names do not say it.
const NOTES: [(Role, &str); 21] = [
    (Role::InputSums, "partial sums of squares"),
    (Role::InputScales, "powers of two"),
    // An argument of its own has only xIELU.
    (Role::Activation, "alpha_p, alpha_n, beta, eps"),
    (Role::ResultSums, "partial sums of y^2"),
    (Role::Scaled, "x * gamma"),
    (Role::Sums, "partial sums of x^2"),
    (Role::Scale, "the layer's"),
    (Role::Pairs, "row * experts of a row + which of them"),
    (Role::Tiles, "expert, first pair, pairs"),
    (Role::Threadgroups, "of the grids over the tiles"),
    (Role::Step, "[rows] records of this step"),
    (Role::Latents, "a latent and a key that all heads share"),
    (Role::State, "that after position p in copy p % 2"),
    (Role::Seen, "bits, one per token"),
    (Role::LogitBias, "added to logits"),
    (Role::Times, "times that each token was chosen"),
    (Role::Allowed, "bits, one per token that may be chosen"),
    (Role::Best, "key and id"),
    (Role::Count, "candidates"),
    (Role::NextToken, "what the next step embeds"),
    (Role::Chosen, "the same, for the host"),
];

/// What an argument is, where its name does not say it.
fn note(role: Role, kernel: &Kernel) -> &'static str {
    let has = |other: Role| kernel.bindings.iter().any(|binding| binding.role == other);
    if role == Role::Input && has(Role::InputSums) {
        return "x * gamma";
    }
    if role == Role::Gamma && has(Role::Scaled) {
        return "the next norm's";
    }
    NOTES.iter().find(|(noted, _)| *noted == role).map_or("", |(_, note)| note)
}
