//! Token id to residual stream.

use forge_spec::{Dim, Matrix, Operation, Role};

use super::projection::next_bindings;
use super::{KernelFamily, Launch, NextNorm, ONE, ROW_ELEMENTS, ROW_THREADS};
use crate::binding::{Binding, Element, Extent, Touch};

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

    fn operation<'a>(&'a self, _: &'a [Vec<f32>]) -> Operation<'a> {
        Operation::Embed { table: self.table, scale: self.scale }
    }

    fn matrices(&self) -> &[Matrix] {
        std::slice::from_ref(&self.table)
    }
}
