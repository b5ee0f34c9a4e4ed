//! Kernels as the plan knows them, one entry per distinct family, size and format, named by role.

use crate::binding::Binding;
use crate::families::{Family, KernelFamily, Launch, Rows};
use crate::format_name;
use crate::packed::stored;

/// Index into [`Plan::kernels`](crate::Plan::kernels).
pub type KernelId = usize;

/// One kernel of `kernels.metal`.
#[derive(Debug, Clone, PartialEq)]
pub struct Kernel {
    /// The role's name, unique: `qkv_proj`, `down_proj_q6_k`.
    pub name: String,
    /// Family and constants.
    pub family: Family,
    /// Threads, threadgroup memory, grid.
    pub launch: Launch,
    /// Buffer arguments, index = `[[buffer(i)]]`.
    pub bindings: Vec<Binding>,
}

impl Kernel {
    /// A kernel of this family.
    pub fn new(name: String, family: Family) -> Self {
        let (launch, bindings) = (family.launch(), family.bindings());
        Self { name, family, launch, bindings }
    }

    /// Whether one row is all that it works on.
    pub fn is_for_one_row(&self) -> bool {
        self.family.rows() == Rows::One
    }
}

/// Kernels collected so far.
#[derive(Default)]
pub(crate) struct Kernels {
    /// In file order.
    pub list: Vec<Kernel>,
}

impl Kernels {
    /// The kernel of this family, added under `role` (or `role` and its formats) where it is new.
    pub fn add(&mut self, role: &str, family: impl Into<Family>) -> KernelId {
        let family = family.into();
        if let Some(id) = self.list.iter().position(|k| k.family == family && k.name.starts_with(role)) {
            return id;
        }
        let name = self.name(role, &*family);
        self.list.push(Kernel::new(name, family));
        self.list.len() - 1
    }

    /// A name that no other kernel has: the role, where that is taken with the formats, then with the shape, then numbered.
    fn name(&self, role: &str, family: &dyn KernelFamily) -> String {
        let taken = |name: &str| self.list.iter().any(|k| k.name == name);
        if !taken(role) {
            return role.to_owned();
        }
        let mut namesakes = self.list.iter().filter(|k| k.name.starts_with(role)).map(|k| formats(&*k.family));
        let own = formats(family);
        let stem = match (&own, family.projection()) {
            (Some(_), Some([rows, cols])) if namesakes.any(|formats| formats == own) => format!("{role}_{rows}x{cols}"),
            (Some(formats), _) => format!("{role}_{formats}"),
            (None, _) => format!("{role}_alt"),
        };
        let numbered = (2..).map(|count| format!("{stem}_{count}"));
        std::iter::once(stem.clone()).chain(numbered).find(|name| !taken(name)).expect("numbers do not end")
    }
}

/// Formats in a projection's name.
fn formats(family: &dyn KernelFamily) -> Option<String> {
    family.projection()?;
    let mut names: Vec<String> = family.matrices().iter().map(|matrix| format_name(stored(matrix.format))).collect();
    names.dedup();
    Some(names.join("_"))
}

#[cfg(test)]
mod tests {
    use forge_spec::{Format, Matrix};

    use super::Kernels;
    use crate::families::{Epilogue, Gemm, Operands, RmsNorm};

    fn projection(format: Format, rows: usize, bias: bool) -> Gemm {
        let matrices = vec![Matrix { format, rows, cols: 64 }];
        let epilogue = Epilogue::Store { softcap: None, partials: None };
        Gemm { matrices, rows, cols: 64, operands: Operands::Floats, bias, epilogue }
    }

    #[test]
    fn names_are_roles_then_formats_then_shapes_then_numbers() {
        let mut kernels = Kernels::default();
        let first = kernels.add("down_proj", projection(Format::Q4K, 64, false));
        assert_eq!(kernels.add("down_proj", projection(Format::Q4K, 64, false)), first, "the same kernel is one");
        kernels.add("down_proj", projection(Format::Q6K, 64, false));
        kernels.add("down_proj", projection(Format::Q4K, 32, false));
        kernels.add("down_proj", projection(Format::Q4K, 32, true));
        for eps in [1e-5, 1e-6, 1e-7] {
            kernels.add("norm", RmsNorm { width: 64, eps });
        }
        let names: Vec<&str> = kernels.list.iter().map(|kernel| kernel.name.as_str()).collect();
        let projections = ["down_proj", "down_proj_q6_k", "down_proj_32x64", "down_proj_32x64_2"];
        assert_eq!(names, [&projections[..], &["norm", "norm_alt", "norm_alt_2"]].concat());
    }
}
