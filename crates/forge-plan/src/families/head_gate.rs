//! Attention's result times the sigmoid of a gate for each element, which comes from the projection of queries, keys and values.

use forge_spec::{Dim, Operation, Role};

use super::{Body, KernelFamily, Launch, ONE, ROW_THREADS};
use crate::binding::{Binding, Element, Extent, Touch};
use crate::call::{Call, Constant, Position, Value};

/// Constants of the gates of heads.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct HeadGate {
    /// Heads.
    pub heads: usize,
    /// Elements of a head's result, and of its gate.
    pub head_dim: usize,
    /// Where in a row the gates of the first head begin.
    pub first: usize,
    /// From the gates of one head to those of the next.
    pub stride: usize,
    /// Elements of a row of queries and gates, keys and values.
    pub width: usize,
}

impl KernelFamily for HeadGate {
    fn bindings(&self) -> Vec<Binding> {
        let gated = self.heads * self.head_dim;
        vec![
            Binding::read(Role::Qkv, Element::F32, Extent::Rows(vec![self.width])).touching(Touch::Columns(gated)),
            Binding::update(Role::Y, Element::F32, Extent::Rows(vec![gated])),
        ]
    }

    fn launch(&self) -> Launch {
        let groups = (self.heads * self.head_dim).div_ceil(ROW_THREADS as usize);
        Launch { threads: ROW_THREADS, threadgroup_bytes: 0, grid: [Dim::Const(groups), Dim::Rows, ONE] }
    }

    fn title(&self) -> String {
        format!("gates of {} heads of {}", self.heads, self.head_dim)
    }

    fn body(&self) -> Body<'_> {
        let at = [Position::Group2, Position::Thread].map(Value::At);
        Body::Call(Call {
            function: "head_gate",
            constants: [self.heads, self.head_dim, self.first, self.stride, self.width].map(Constant::Size).into(),
            arguments: [Role::Qkv, Role::Y].map(Value::Bound).into_iter().chain(at).collect(),
        })
    }

    fn sources(&self) -> &'static [&'static str] {
        &["head_gate"]
    }

    fn operation<'a>(&'a self, _: &'a [Vec<f32>]) -> Operation<'a> {
        let Self { heads, head_dim, first, stride, width } = *self;
        Operation::HeadGate { heads, head_dim, first, stride, width }
    }
}
