//! `Linear -> [RmsNorm] -> [Scale] -> Add(stream) -> [ScaleBy]`: what is added to the residual stream, and the norm that reads
//! the sum.

use forge_frontend::graph::{Op, ValueId};

use super::{Fused, Fuser, Input, Next, Norm, NormKind, Outcome};

/// Tells each step that writes the residual stream which norm of the block reads it next. One that is read as it is needs
/// no gamma: then what is prepared is for the block that follows.
pub(super) fn link(ops: &mut [Fused]) {
    let mut next = Next::AfterBlock;
    for op in ops.iter_mut().rev() {
        let input = match op {
            Fused::Projection(projection) => {
                if let Outcome::Residual { next: prepared, .. } = &mut projection.outcome {
                    *prepared = next;
                }
                projection.input
            }
            Fused::Mixture(mixture) => {
                mixture.next = next;
                mixture.input
            }
            Fused::Embed { .. }
            | Fused::RopeAppend(_)
            | Fused::Attention(_)
            | Fused::ShortConv(_)
            | Fused::GatedDelta(_)
            | Fused::HeadGate(_)
            | Fused::LatentAppend(_)
            | Fused::LatentAttention(_)
            | Fused::LayerInputs(_) => continue,
        };
        // A norm apart reads the stream as it is.
        if let Input::Stream(norm) = input {
            next = norm.map_or(Next::AfterBlock, Next::Norm);
        }
    }
}

impl Fuser<'_> {
    /// Matches `value -> [RmsNorm] -> [Scale] -> Add(stream)`.
    pub(super) fn residual(&self, value: ValueId, stream: ValueId) -> Option<(Vec<usize>, Outcome, ValueId)> {
        let (mut nodes, mut factor, mut post_norm) = (Vec::new(), 1.0, None);
        let mut value = value;
        loop {
            let user = self.only_user(value)?;
            let node = &self.block.nodes[user];
            nodes.push(user);
            if let (Op::RmsNorm { gamma, eps }, None) = (&node.op, post_norm) {
                post_norm = Some(Norm { gamma: *gamma, eps: *eps, kind: NormKind::Rms });
            } else if let Op::Scale { factor: by } = node.op {
                factor *= by;
            } else if node.op == Op::Add && node.inputs.contains(&stream) {
                let mut sum = node.output?;
                let mut scale = None;
                if let Some(user) = self.only_user(sum)
                    && let Op::ScaleBy { scale: by } = self.block.nodes[user].op
                    && post_norm.is_some()
                {
                    nodes.push(user);
                    scale = Some(by);
                    sum = self.block.nodes[user].output?;
                }
                let next = Next::AfterBlock;
                return Some((nodes, Outcome::Residual { factor, post_norm, scale, next }, sum));
            } else {
                return None;
            }
            value = node.output?;
        }
    }
}
