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
    /// A norm without weights that it goes through: added to the mean of squares.
    pub norm_eps: Option<f32>,
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
        // Sums of eight simdgroups, of each of the two.
        let sums = u32::from(self.next.is_some()) + u32::from(self.norm_eps.is_some());
        Launch {
            threads: ROW_THREADS,
            threadgroup_bytes: 32 * sums,
            grid: [Dim::Const(self.table.cols.div_ceil(ROW_ELEMENTS)), Dim::Rows, ONE],
        }
    }

    fn title(&self) -> String {
        let norm = if self.norm_eps.is_some() { ", normed" } else { "" };
        format!("embedding lookup{norm}")
    }

    fn body(&self) -> Body<'_> {
        let bound = [Role::Table, Role::NextToken, Role::X].map(Value::Bound);
        let row = Value::Row(Position::GroupY);
        let mut constants = vec![
            Constant::Weights(self.table.format),
            Constant::Size(self.table.rows),
            Constant::Size(self.table.cols),
        ];
        let scale = Value::Float(self.scale);
        let next = self.next.map(|next| {
            constants.push(Constant::Size(next.partials));
            [Role::Gamma, Role::Scaled, Role::Sums].map(Value::Bound)
        });
        let next = next.as_ref().map_or(&[][..], |next| next);
        let eps = self.norm_eps.map(Value::Float);
        let (function, rest) = match (eps, next.is_empty()) {
            (None, true) => ("embed_row", vec![row, scale, Value::At(Position::Group2), Value::At(Position::Thread)]),
            (None, false) => ("embed_scaled_row", [&[row, Value::Shared, scale][..], &SHARE_POSITIONS].concat()),
            (Some(eps), true) => {
                ("embed_normed_row", [&[row, Value::Shared, scale, eps][..], &SHARE_POSITIONS].concat())
            }
            (Some(eps), false) => {
                ("embed_normed_scaled_row", [&[row, Value::Shared, scale, eps][..], &SHARE_POSITIONS].concat())
            }
        };
        Body::Call(Call { function, constants, arguments: [&bound[..], next, &rest].concat() })
    }

    fn sources(&self) -> &'static [&'static str] {
        if self.norm_eps.is_some() { &["rows", "embed", "norm", "embed_norm"] } else { &["rows", "embed"] }
    }

    fn operation<'a>(&'a self, _: &'a [Vec<f32>]) -> Operation<'a> {
        Operation::Embed { table: self.table, scale: self.scale, norm_eps: self.norm_eps }
    }

    fn matrices(&self) -> &[Matrix] {
        std::slice::from_ref(&self.table)
    }

    fn rows(&self) -> Rows {
        if self.next.is_some() { Rows::Few } else { Rows::Any }
    }
}
