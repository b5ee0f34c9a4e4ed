//! Powers of two that take rows of any size into the range of halves, before tiles of half operands.

use forge_spec::{Dim, Operation, Role};

use super::{Body, KernelFamily, Launch, ONE, ROW_THREADS, SHARE_POSITIONS};
use crate::binding::{Binding, Element, Extent};
use crate::call::{Call, Constant, Value};

/// Constants of the kernel that finds the rows' scales.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RowScale {
    /// Elements of a row.
    pub width: usize,
    /// Such rows that a row of the step has.
    pub each: usize,
}

impl KernelFamily for RowScale {
    fn bindings(&self) -> Vec<Binding> {
        let Self { width, each } = *self;
        let shape = if each == 1 { vec![width] } else { vec![each, width] };
        vec![
            Binding::read(Role::Input, Element::F32, Extent::Rows(shape)),
            Binding::write(Role::InputScales, Element::F32, Extent::Rows(vec![each])),
        ]
    }

    fn launch(&self) -> Launch {
        Launch { threads: ROW_THREADS, threadgroup_bytes: 32, grid: [Dim::Const(self.each), Dim::Rows, ONE] }
    }

    fn title(&self) -> String {
        "a power of two for each row, which takes it into the range of halves".to_owned()
    }

    fn body(&self) -> Body<'_> {
        let bound = [Role::Input, Role::InputScales].map(Value::Bound);
        Body::Call(Call {
            function: "row_scale",
            constants: [self.width, self.each].map(Constant::Size).into(),
            arguments: [&bound[..], &[Value::Shared], &SHARE_POSITIONS].concat(),
        })
    }

    fn shared_integers(&self) -> bool {
        true
    }

    fn sources(&self) -> &'static [&'static str] {
        &["row_scale"]
    }

    fn operation<'a>(&'a self, _: &'a [Vec<f32>]) -> Operation<'a> {
        Operation::RowScale { width: self.width, each: self.each }
    }
}
