//! Which packed tensors a block reads: matrices stacked under one field, vectors, and what each layer has of them.

use std::collections::BTreeMap;

use forge_formats::{Format, Pairs};
use forge_frontend::graph::{Layer, SlotId, Source, Stage, WeightId};
use forge_spec::Matrix;

use super::Lowering;
use crate::PlanError;
use crate::pack::{PackPart, PackedTensor};
use crate::packed::format_name;
use crate::plan::{Arg, Field, FieldId};

/// Where a block's weights come from: the layers that run it, or a stage.
pub(super) enum Owners<'a> {
    Layers(Vec<(usize, &'a Layer)>),
    Stage(&'a Stage),
}

impl Owners<'_> {
    pub fn weight(&self, owner: usize, slot: SlotId) -> WeightId {
        match self {
            Owners::Layers(layers) => layers[owner].1.weights[slot],
            Owners::Stage(stage) => stage.weights[slot],
        }
    }

    pub fn count(&self) -> usize {
        match self {
            Owners::Layers(layers) => layers.len(),
            Owners::Stage(_) => 1,
        }
    }

    /// The layer of an owner, where it is one.
    fn layer(&self, owner: usize) -> Option<usize> {
        match self {
            Owners::Layers(layers) => Some(layers[owner].0),
            Owners::Stage(_) => None,
        }
    }
}

/// Fields of layers and of the model, and the tensors that fill them.
#[derive(Default)]
pub(super) struct WeightFields {
    layer: Vec<Field>,
    model: Vec<Field>,
    packed: BTreeMap<(Option<usize>, String), PackedTensor>,
}

impl WeightFields {
    /// Fields of a layer, those of the model, and all tensors in file order.
    pub fn finish(mut self, layers: usize) -> (Vec<Field>, Vec<Field>, Vec<PackedTensor>) {
        for field in &mut self.layer {
            field.optional = !(0..layers).all(|layer| self.packed.contains_key(&(Some(layer), field.name.clone())));
        }
        (self.layer, self.model, self.packed.into_values().collect())
    }
}

/// What a field holds: slots of a block, some of them only zeros.
pub(super) struct Parts<'a> {
    pub slots: &'a [Option<SlotId>],
    /// Rows of each matrix, or elements of each vector.
    pub lengths: &'a [usize],
    /// Vectors, concatenated and stored as F32, rather than matrices, stacked.
    pub vector: bool,
}

impl Lowering<'_> {
    /// Packs the parts of every owner under `field` and returns the argument that names it.
    pub(super) fn field(&mut self, owner: &Owners<'_>, field: &str, parts: &Parts<'_>) -> Arg {
        let (fields, arg): (&mut Vec<Field>, fn(FieldId) -> Arg) = match owner {
            Owners::Layers(_) => (&mut self.fields.layer, Arg::Layer),
            Owners::Stage(_) => (&mut self.fields.model, Arg::Model),
        };
        let known = fields.iter().position(|known| known.name == field);
        let id = known.unwrap_or(fields.len());
        let mut comments: Vec<String> = Vec::new();
        let total = parts.lengths.iter().sum();
        for index in 0..owner.count() {
            let list: Vec<PackPart> = parts
                .slots
                .iter()
                .zip(parts.lengths)
                .map(|(slot, &length)| match slot {
                    Some(slot) => PackPart::Weight(owner.weight(index, *slot)),
                    None => PackPart::Zeros(length),
                })
                .collect();
            let weight = list.iter().find_map(|part| match part {
                PackPart::Weight(id) => Some(&self.graph.weights[*id]),
                PackPart::Zeros(_) => None,
            });
            let Some(weight) = weight else { continue };
            let (format, rows, cols) =
                if parts.vector { (Format::F32, 1, total) } else { (weight.format, total, weight.cols) };
            let shape = if parts.vector { format!("[{cols}]") } else { format!("[{rows}, {cols}]") };
            let comment = format!("{shape} {}", format_name(format));
            if !comments.contains(&comment) {
                comments.push(comment);
            }
            let layer = owner.layer(index);
            let name = layer.map_or_else(|| field.to_owned(), |layer| format!("layers.{layer}.{field}"));
            let tensor = PackedTensor { name, layer, field: id, format, rows, cols, parts: list };
            self.fields.packed.entry((layer, field.to_owned())).or_insert(tensor);
        }
        if known.is_none() {
            let order = parts.slots.iter().flatten().copied().min().unwrap_or(usize::MAX);
            fields.push(Field { name: field.to_owned(), comment: comments.join(" or "), order, optional: false });
        }
        arg(id)
    }

    /// The vector in `slot`, under its role.
    pub(super) fn vector(&mut self, owner: &Owners<'_>, slot: SlotId) -> Arg {
        let weight = &self.graph.weights[owner.weight(0, slot)];
        let (role, length) = (weight.role.clone(), weight.cols);
        self.field(owner, &role, &Parts { slots: &[Some(slot)], lengths: &[length], vector: true })
    }

    /// The one matrix in `slot`, under `field`.
    pub(super) fn table(&mut self, owner: &Owners<'_>, slot: SlotId, field: &str) -> Result<(Arg, Matrix), PlanError> {
        let id = owner.weight(0, slot);
        let matrix = self.matrix(id, self.graph.weights[id].rows)?;
        let parts = Parts { slots: &[Some(slot)], lengths: &[matrix.rows], vector: false };
        Ok((self.field(owner, field, &parts), matrix))
    }

    /// `rows` rows of matrix `id`, packed.
    pub(super) fn matrix(&self, id: WeightId, rows: usize) -> Result<Matrix, PlanError> {
        let weight = &self.graph.weights[id];
        if !weight.cols.is_multiple_of(4) {
            return Err(PlanError::Width { role: weight.role.clone(), cols: weight.cols, multiple: 4 });
        }
        let pairs = self.pairs(id)?;
        Ok(Matrix { format: weight.format.packed(pairs), rows, cols: weight.cols })
    }

    /// How scales and zero points of matrix `id` are packed, beside what its format says.
    pub(super) fn pairs(&self, id: WeightId) -> Result<Pairs, PlanError> {
        let weight = &self.graph.weights[id];
        // The pieces of a stack are alike.
        Ok(match &weight.source.pieces()[0] {
            Source::Affine { scale_format: Format::BF16, .. } => Pairs { bf16: true, zeros: false },
            Source::Affine { scale_format, .. } if *scale_format != Format::F16 => {
                return Err(PlanError::AffineScales { tensor: weight.tensor.clone(), format: *scale_format });
            }
            Source::Repack { repack, .. } => repack.pairs(),
            Source::Affine { .. }
            | Source::Rows(_)
            | Source::Values(_)
            | Source::Strided { .. }
            | Source::Quantize { .. }
            | Source::Apart { .. }
            | Source::Factored { .. }
            | Source::Stack(_) => Pairs::default(),
        })
    }

    pub(super) fn role(&self, owner: &Owners<'_>, slot: SlotId) -> &str {
        &self.graph.weights[owner.weight(0, slot)].role
    }
}
