//! Token id to residual stream.

use forge_spec::{Dim, Matrix, Operation, Role};

use super::projection::next_bindings;
use super::{Body, KernelFamily, Launch, NextNorm, ONE, ROW_ELEMENTS, ROW_THREADS, Rows, SHARE_POSITIONS};
use crate::binding::{Binding, Element, Extent, Touch};
use crate::call::{Call, Constant, Position, Value};

/// Constants of the embedding kernels.
#[derive(Debug, Clone, PartialEq)]
pub struct Embed {
    /// `[vocab, hidden]`.
    pub table: Matrix,
    /// Factor on the embedding.
    pub scale: f32,
    /// Sequences of the program, each with a token that its last step chose.
    pub slots: usize,
    /// In steps: what the next projection needs. `None` in tiles.
    pub next: Option<NextNorm>,
}

impl KernelFamily for Embed {
    fn bindings(&self) -> Vec<Binding> {
        let mut list = vec![
            Binding::matrix(Role::Table, &self.table).touching(Touch::PerRow),
            Binding::next_token(self.slots),
            Binding::write(Role::X, Element::F32, Extent::Rows(vec![self.table.cols])),
        ];
        list.extend(next_bindings(self.next, self.table.cols));
        list.push(Binding::params());
        list
    }

    fn launch(&self) -> Launch {
        let scaled = self.next.is_some();
        Launch {
            threads: ROW_THREADS,
            threadgroup_bytes: if scaled { 32 } else { 0 },
            grid: [Dim::Const(self.table.cols.div_ceil(ROW_ELEMENTS)), Dim::Rows, ONE],
        }
    }

    fn title(&self) -> String {
        "embedding lookup".to_owned()
    }

    fn body(&self) -> Body<'_> {
        let bound = [Role::Table, Role::NextToken, Role::X].map(Value::Bound);
        let row = Value::Row(Position::GroupY);
        let mut constants = vec![
            Constant::Weights(self.table.format),
            Constant::Size(self.table.rows),
            Constant::Size(self.table.cols),
        ];
        let Some(next) = self.next else {
            let rest = [row, Value::Float(self.scale), Value::At(Position::Group2), Value::At(Position::Thread)];
            return Body::Call(Call { function: "embed_row", constants, arguments: [&bound[..], &rest].concat() });
        };
        constants.push(Constant::Size(next.partials));
        let next = [Role::Gamma, Role::Scaled, Role::Sums].map(Value::Bound);
        let rest = [row, Value::Shared, Value::Float(self.scale)];
        let arguments = [&bound[..], &next, &rest, &SHARE_POSITIONS].concat();
        Body::Call(Call { function: "embed_scaled_row", constants, arguments })
    }

    fn sources(&self) -> &'static [&'static str] {
        &["rows", "embed"]
    }

    fn operation<'a>(&'a self, _: &'a [Vec<f32>]) -> Operation<'a> {
        Operation::Embed { table: self.table, scale: self.scale }
    }

    fn matrices(&self) -> &[Matrix] {
        std::slice::from_ref(&self.table)
    }

    fn rows(&self) -> Rows {
        if self.next.is_some() { Rows::Few } else { Rows::Any }
    }
}
