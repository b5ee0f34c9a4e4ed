//! Every layer's own input, from a projection of the embedding and a table (Gemma 4).

use forge_spec::{Dim, Matrix, Operation, Role};

use super::{Body, GROUP_HEADS, KernelFamily, Launch, ONE};
use crate::binding::{Binding, Element, Extent, Touch};
use crate::call::{Call, Constant, Position, Value};

/// Constants of the kernel of the layers' own inputs.
#[derive(Debug, Clone, PartialEq)]
pub struct LayerInputs {
    /// `[vocab, layers * width]`.
    pub table: Matrix,
    /// Sequences of the program, each with a token that its last step chose.
    pub slots: usize,
    /// Layers.
    pub layers: usize,
    /// Elements of a layer's input; the table and the projection have `layers * width` columns.
    pub width: usize,
    /// Added to the mean of squares of a layer's part of the projection.
    pub eps: f32,
    /// Factor on the table.
    pub scale: f32,
    /// Factor on the sum.
    pub factor: f32,
}

impl KernelFamily for LayerInputs {
    fn bindings(&self) -> Vec<Binding> {
        let Self { layers, width, .. } = *self;
        vec![
            Binding::matrix(Role::Table, &self.table).touching(Touch::PerRow),
            Binding::next_token(self.slots),
            Binding::read(Role::Projected, Element::F32, Extent::Rows(vec![layers * width])),
            Binding::read(Role::Gamma, Element::F32, Extent::Fixed(vec![width])),
            Binding::write(Role::Y, Element::F32, Extent::LayerRows { layers, width }),
            Binding::params(),
        ]
    }

    fn launch(&self) -> Launch {
        let groups = self.layers.div_ceil(GROUP_HEADS);
        Launch { threads: 32 * GROUP_HEADS as u32, threadgroup_bytes: 0, grid: [Dim::Const(groups), Dim::Rows, ONE] }
    }

    fn title(&self) -> String {
        format!("the inputs of {} layers, {} elements each", self.layers, self.width)
    }

    fn body(&self) -> Body<'_> {
        let sizes = [self.table.rows, self.layers, self.width].map(Constant::Size);
        let bound = [Role::Table, Role::NextToken, Role::Projected, Role::Gamma, Role::Y].map(Value::Bound);
        let floats = [self.eps, self.scale, self.factor].map(Value::Float);
        let rest = [
            Value::Row(Position::GroupY),
            Value::At(Position::Group2),
            Value::At(Position::Simdgroup),
            Value::At(Position::Lane),
        ];
        Body::Call(Call {
            function: "layer_inputs_row",
            constants: std::iter::once(Constant::Weights(self.table.format)).chain(sizes).collect(),
            arguments: [&bound[..], &floats, &rest].concat(),
        })
    }

    fn sources(&self) -> &'static [&'static str] {
        &["rows", "norm", "rope", "layer_inputs"]
    }

    fn operation<'a>(&'a self, _: &'a [Vec<f32>]) -> Operation<'a> {
        let Self { table, layers, eps, scale, factor, .. } = *self;
        Operation::LayerInputs { table, layers, eps, scale, factor }
    }

    fn matrices(&self) -> &[Matrix] {
        std::slice::from_ref(&self.table)
    }
}
