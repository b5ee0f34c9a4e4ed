//! Token id to residual stream.

use forge_spec::{Dim, Matrix, Operation, Role};

use super::projection::next_bindings;
use super::{Body, KernelFamily, Launch, NextNorm, ONE, ROW_ELEMENTS, ROW_POSITIONS, ROW_THREADS};
use crate::binding::{Binding, Element, Extent, Touch};
use crate::call::{Call, Constant, Position, Value};

/// Constants of the embedding kernels.
#[derive(Debug, Clone, PartialEq)]
pub struct Embed {
    /// `[vocab, hidden]`.
    pub table: Matrix,
    /// Factor on the embedding.
    pub scale: f32,
    /// Decode: what the next projection needs. `None` in prefill.
    pub next: Option<NextNorm>,
}

impl KernelFamily for Embed {
    fn bindings(&self) -> Vec<Binding> {
        let mut list = vec![
            Binding::matrix(Role::Table, &self.table).touching(Touch::PerRow),
            Binding::read(Role::Tokens, Element::U32, Extent::Rows(Vec::new())),
            Binding::write(Role::X, Element::F32, Extent::Rows(vec![self.table.cols])),
        ];
        list.extend(next_bindings(self.next, self.table.cols));
        list
    }

    fn launch(&self) -> Launch {
        let scaled = self.next.is_some();
        Launch {
            threads: ROW_THREADS,
            threadgroup_bytes: if scaled { 32 } else { 0 },
            grid: [Dim::Const(self.table.cols.div_ceil(ROW_ELEMENTS)), if scaled { ONE } else { Dim::Rows }, ONE],
        }
    }

    fn title(&self) -> String {
        "embedding lookup".to_owned()
    }

    fn body(&self) -> Body<'_> {
        let bound = [Role::Table, Role::Tokens, Role::X].map(Value::Bound);
        let mut constants = vec![
            Constant::Weights(self.table.format),
            Constant::Size(self.table.rows),
            Constant::Size(self.table.cols),
        ];
        let Some(next) = self.next else {
            let rest = [Value::Float(self.scale), Value::At(Position::Group2), Value::At(Position::Thread)];
            return Body::Call(Call { function: "embed_row", constants, arguments: [bound, rest].concat() });
        };
        constants.push(Constant::Size(next.partials));
        let next = [Role::Gamma, Role::Scaled, Role::Sums].map(Value::Bound);
        let rest = [Value::Shared, Value::Float(self.scale)];
        let arguments = [&bound[..], &next, &rest, &ROW_POSITIONS].concat();
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
}
