//! Second scales: a tensor of numbers that a matrix's weights are multiplied by besides, one for all of it or one for each matrix of
//! a stack. GGUF has them as `X.scale` beside `X.weight`, MLX as `X.global_scale`, other toolchains under names of their own.

use forge_formats::Format;

use super::tensors::Tensors;
use super::{Dialect, Stored};
use crate::checkpoint::MappedFile;
use crate::{FrontendError, Refusal};

/// A tensor of factors.
pub(super) struct Factors<'a> {
    pub name: &'a str,
    /// File name, for errors.
    pub file: String,
    /// Its type: a format of floats, or another's name.
    pub kind: Result<Format, String>,
    /// Outermost first.
    pub shape: &'a [usize],
    pub bytes: &'a [u8],
}

impl Factors<'_> {
    /// The factors of a matrix, or of a stack of matrices, of this shape; `number` makes a factor of what is stored.
    ///
    /// # Errors
    /// Another type than F32, as many numbers as neither the matrix nor the stack has, or one that is not finite.
    pub fn read(&self, of: &[usize], number: impl Fn(f32) -> f32) -> Result<Vec<f32>, FrontendError> {
        let (file, tensor) = (self.file.clone(), self.name.to_owned());
        if self.kind != Ok(Format::F32) {
            let found = match &self.kind {
                Ok(format) => format.to_string(),
                Err(name) => name.clone(),
            };
            return Err(FrontendError::TensorType {
                refusal: Refusal::FactorType,
                file,
                tensor,
                expected: "F32",
                found,
            });
        }
        let matrices = of.iter().rev().skip(2).product::<usize>();
        let count: usize = self.shape.iter().product();
        if count != 1 && count != matrices {
            return Err(FrontendError::TensorShape {
                refusal: Refusal::FactorShape,
                file,
                tensor,
                expected: vec![matrices],
                found: self.shape.to_vec(),
            });
        }
        let numbers = self.bytes.as_chunks().0.iter().take(count).map(|bytes| number(f32::from_le_bytes(*bytes)));
        let factors: Vec<f32> = numbers.collect();
        match factors.iter().position(|factor| !factor.is_finite()) {
            Some(index) => Err(FrontendError::Tensor {
                refusal: Refusal::FactorValue,
                file,
                tensor,
                expected: "finite factors",
                found: format!("{} at {index}", factors[index]),
            }),
            None => Ok(factors),
        }
    }
}

impl Stored {
    /// The same, multiplied besides.
    pub(super) fn factored(self, factors: Vec<f32>) -> Self {
        Self::Factored { of: Box::new(self), factors }
    }
}

impl Tensors {
    /// Joins the factors of a GGUF, `X.scale`, with the matrices `X.weight` of formats that have some; but for those that the family
    /// has another use for.
    ///
    /// # Errors
    /// Factors that are no finite F32 numbers, one for each matrix or for all.
    pub fn join_factors(&mut self, files: &[MappedFile]) -> Result<(), FrontendError> {
        if self.dialect != Dialect::Gguf {
            return Ok(());
        }
        let has_factors = |stored: &Stored| matches!(stored, Stored::Rows(format, _) if format.has_row_factors());
        let matrices = self.entries.iter().filter(|(_, entry)| has_factors(&entry.stored));
        let modules: Vec<String> =
            matrices.filter_map(|(name, _)| name.strip_suffix(".weight")).map(str::to_owned).collect();
        for module in modules {
            let (weight, scale) = (format!("{module}.weight"), format!("{module}.scale"));
            let own = self.roles.iter().any(|role| scale == role.gguf || scale.ends_with(&format!(".{}", role.gguf)));
            let Some(entry) = self.entries.get(&scale).filter(|_| !own) else { continue };
            let (kind, bytes) = match &entry.stored {
                Stored::Rows(format, range) => {
                    (Ok(*format), &files[range.file].bytes()[range.range.start as usize..range.range.end as usize])
                }
                other => (Err(other.name()), &[][..]),
            };
            let tensor = Factors { name: &scale, file: entry.file.clone(), kind, shape: &entry.shape, bytes };
            let factors = tensor.read(&self.entries[&weight].shape, |factor| factor)?;
            self.entries.remove(&scale);
            let mut entry = self.entries.remove(&weight).expect("one of these");
            entry.stored = entry.stored.factored(factors);
            self.entries.insert(weight, entry);
        }
        // Those of activations, which are not quantised here.
        self.ignore(|name| name.ends_with(".input_scale"));
        Ok(())
    }
}
