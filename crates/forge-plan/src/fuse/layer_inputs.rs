//! `embedding -> Linear -> [Scale] -> HeadNorm -> Add(Embedding) -> [Scale]`: every layer's own input (Gemma 4).

use forge_frontend::graph::{Op, ValueId};

use super::{Fuser, LayerInputsStep, Norm, NormKind};
use crate::PlanError;

impl Fuser<'_> {
    /// Walks back from the layers' own inputs to the projection they come from: its value, and what is done to it.
    pub(super) fn layer_inputs(&mut self, result: ValueId) -> Result<(ValueId, LayerInputsStep), PlanError> {
        let block = self.block;
        let unsupported = self.unsupported("layers' own inputs that are not a projection, normed, and a table's row");
        let mut node_of = |value: ValueId| {
            let index = self.producer(value).ok_or_else(|| unsupported.clone())?;
            self.done[index] = true;
            Ok::<_, PlanError>(&block.nodes[index])
        };
        let mut factor = 1.0;
        let mut node = node_of(result)?;
        if let Op::Scale { factor: by } = node.op {
            factor = by;
            node = node_of(node.inputs[0])?;
        }
        let (Op::Add, &[normed, looked_up]) = (&node.op, &node.inputs[..]) else { return Err(unsupported) };
        let Op::Embedding { table, scale } = node_of(looked_up)?.op else { return Err(unsupported) };
        let norm_node = node_of(normed)?;
        let Op::HeadNorm { gamma: Some(gamma), heads, head_dim, mut eps } = norm_node.op else {
            return Err(unsupported);
        };
        let mut projected = norm_node.inputs[0];
        let producer = self.producer(projected).ok_or_else(|| unsupported.clone())?;
        if let Op::Scale { factor: by } = block.nodes[producer].op {
            // The norm of a multiple is the norm with another epsilon.
            eps /= by * by;
            self.done[producer] = true;
            projected = block.nodes[producer].inputs[0];
        }
        let source = self.producer(projected).map(|index| &block.nodes[index].op);
        let Some(Op::Linear { .. }) = source else { return Err(unsupported) };
        let step = LayerInputsStep {
            table,
            scale,
            norm: Norm { gamma, eps, kind: NormKind::Rms },
            layers: heads,
            width: head_dim,
            factor,
        };
        Ok((projected, step))
    }
}
