//! Norms of whole rows: before a tile's projections, and after a projection on its way to the residual stream.

use forge_spec::{Dim, Operation, Role};

use super::projection::next_bindings;
use super::{
    Body, KernelFamily, Launch, NextNorm, ONE, ROW_ELEMENTS, ROW_POSITIONS, ROW_THREADS, Rows, SHARE_POSITIONS,
};
use crate::binding::{Binding, Element, Extent};
use crate::call::{Call, Constant, Position, Value};

/// Constants of the row norm.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RmsNorm {
    /// Row width.
    pub width: usize,
    /// Added to the mean of squares.
    pub eps: f32,
}

impl KernelFamily for RmsNorm {
    fn bindings(&self) -> Vec<Binding> {
        vec![
            Binding::read(Role::X, Element::F32, Extent::Rows(vec![self.width])),
            Binding::read(Role::Gamma, Element::F32, Extent::Fixed(vec![self.width])),
            Binding::write(Role::Y, Element::F32, Extent::Rows(vec![self.width])),
        ]
    }

    fn launch(&self) -> Launch {
        Launch { threads: ROW_THREADS, threadgroup_bytes: 32, grid: [Dim::Rows, ONE, ONE] }
    }

    fn title(&self) -> String {
        "RMS norm of each row".to_owned()
    }

    fn body(&self) -> Body<'_> {
        let bound = [Role::X, Role::Gamma, Role::Y].map(Value::Bound);
        let arguments = [&bound[..], &[Value::Shared, Value::Float(self.eps)], &ROW_POSITIONS].concat();
        Body::Call(Call { function: "rms_norm_row", constants: vec![Constant::Size(self.width)], arguments })
    }

    fn sources(&self) -> &'static [&'static str] {
        &["norm"]
    }

    fn operation<'a>(&'a self, _: &'a [Vec<f32>]) -> Operation<'a> {
        Operation::RmsNorm { width: self.width, eps: self.eps }
    }
}

/// Constants of the row norm that subtracts the mean.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LayerNorm {
    /// Row width.
    pub width: usize,
    /// Added to the variance.
    pub eps: f32,
    /// Whether a vector is added.
    pub beta: bool,
}

impl KernelFamily for LayerNorm {
    fn bindings(&self) -> Vec<Binding> {
        let vector = |role| Binding::read(role, Element::F32, Extent::Fixed(vec![self.width]));
        let mut list = vec![Binding::read(Role::X, Element::F32, Extent::Rows(vec![self.width])), vector(Role::Gamma)];
        list.extend(self.beta.then(|| vector(Role::Beta)));
        list.push(Binding::write(Role::Y, Element::F32, Extent::Rows(vec![self.width])));
        list
    }

    fn launch(&self) -> Launch {
        Launch { threads: ROW_THREADS, threadgroup_bytes: 64, grid: [Dim::Rows, ONE, ONE] }
    }

    fn title(&self) -> String {
        "norm of each row less its mean".to_owned()
    }

    fn body(&self) -> Body<'_> {
        let bound = self.bindings().into_iter().map(|binding| Value::Bound(binding.role));
        let rest = [Value::Shared, Value::Float(self.eps)];
        Body::Call(Call {
            function: if self.beta { "layer_norm_biased_row" } else { "layer_norm_row" },
            constants: vec![Constant::Size(self.width)],
            arguments: bound.chain(rest).chain(ROW_POSITIONS).collect(),
        })
    }

    fn sources(&self) -> &'static [&'static str] {
        &["norm", "layer_norm"]
    }

    fn operation<'a>(&'a self, _: &'a [Vec<f32>]) -> Operation<'a> {
        Operation::LayerNorm { width: self.width, eps: self.eps }
    }
}

/// Constants of the post-norm.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct PostNorm {
    /// Row width.
    pub width: usize,
    /// Added to the mean of squares.
    pub eps: f32,
    /// Factor on the normed value.
    pub factor: f32,
    /// Whether a number of the checkpoint multiplies the sum.
    pub scaled: bool,
    /// Partial sums of squares to add up; `None`: the kernel sums the row itself (tiles).
    pub partials: Option<usize>,
    /// In steps: what the next projection needs.
    pub next: Option<NextNorm>,
}

impl KernelFamily for PostNorm {
    fn bindings(&self) -> Vec<Binding> {
        let row = || Extent::Rows(vec![self.width]);
        let vector = |role, length| Binding::read(role, Element::F32, Extent::Fixed(vec![length]));
        let mut list = vec![Binding::read(Role::Y, Element::F32, row())];
        let sums = |partials| Binding::read(Role::ResultSums, Element::F32, Extent::Rows(vec![partials]));
        list.extend(self.partials.map(sums));
        list.push(vector(Role::PostGamma, self.width));
        list.extend(self.scaled.then(|| vector(Role::Scale, 1)));
        list.push(Binding::update(Role::X, Element::F32, row()));
        list.extend(next_bindings(self.next, self.width));
        list
    }

    fn launch(&self) -> Launch {
        // Whoever sums a row itself needs all of it.
        let spread = self.next.is_some() && self.partials.is_some();
        let shares = if spread { self.width.div_ceil(ROW_ELEMENTS) } else { 1 };
        let grid = [Dim::Const(shares), Dim::Rows, ONE];
        let threadgroup_bytes = if self.next.is_some() && !spread { 64 } else { 32 };
        Launch { threads: ROW_THREADS, threadgroup_bytes, grid }
    }

    fn title(&self) -> String {
        "norm of a projection, added to the residual stream".to_owned()
    }

    fn body(&self) -> Body<'_> {
        let scale = if self.scaled { Value::First(Role::Scale) } else { Value::Float(1.0) };
        let factors = [Value::Shared, Value::Float(self.eps), Value::Float(self.factor), scale];
        let Some(next) = self.next else {
            let bound = [Role::Y, Role::PostGamma, Role::X].map(Value::Bound);
            let [_, rest @ ..] = ROW_POSITIONS;
            let arguments = [&bound[..], &factors, &[Value::At(Position::GroupY)], &rest].concat();
            return Body::Call(Call {
                function: "post_norm_row",
                constants: vec![Constant::Size(self.width)],
                arguments,
            });
        };
        let Some(partials) = self.partials else {
            let bound = [Role::Y, Role::PostGamma, Role::X, Role::Gamma, Role::Scaled, Role::Sums].map(Value::Bound);
            let [_, rest @ ..] = ROW_POSITIONS;
            return Body::Call(Call {
                function: "post_norm_prepared_row",
                constants: [self.width, next.partials].map(Constant::Size).into(),
                arguments: [&bound[..], &factors, &[Value::At(Position::GroupY)], &rest].concat(),
            });
        };
        let sizes = [self.width, partials, next.partials];
        let bound = [Role::Y, Role::ResultSums, Role::PostGamma, Role::X, Role::Gamma, Role::Scaled, Role::Sums]
            .map(Value::Bound);
        Body::Call(Call {
            function: "post_norm_scaled_row",
            constants: sizes.map(Constant::Size).into(),
            arguments: [&bound[..], &factors, &SHARE_POSITIONS].concat(),
        })
    }

    fn sources(&self) -> &'static [&'static str] {
        &["rows", "norm"]
    }

    fn operation<'a>(&'a self, _: &'a [Vec<f32>]) -> Operation<'a> {
        Operation::PostNorm { width: self.width, eps: self.eps, factor: self.factor }
    }

    fn rows(&self) -> Rows {
        if self.next.is_some() { Rows::Few } else { Rows::Any }
    }
}
