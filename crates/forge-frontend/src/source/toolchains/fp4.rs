//! Matrices of E2M1 codes: compressed-tensors' `nvfp4-pack-quantized` and `mxfp4-pack-quantized`, ModelOpt's NVFP4.

use forge_formats::Format;

use super::Folder;
use crate::checkpoint::Dtype;
use crate::source::apart;
use crate::{FrontendError, Refusal};

/// What a module's tensors are called.
#[derive(Clone, Copy)]
pub(super) struct Names {
    /// Bytes of two codes, the first in the low bits.
    codes: &'static str,
    /// What NVFP4's scales are multiplied with, or divided by.
    factor: &'static str,
    divides: bool,
}

pub(super) const COMPRESSED: Names = Names { codes: ".weight_packed", factor: ".weight_global_scale", divides: true };
pub(super) const MODEL_OPT: Names = Names { codes: ".weight", factor: ".weight_scale_2", divides: false };

impl Folder<'_> {
    /// Joins each matrix of bytes of two codes with its scales, E4M3 numbers per 16 columns or powers of two per 32.
    pub(super) fn join_fp4(&mut self, names: Names) -> Result<(), FrontendError> {
        for module in self.modules(names.codes) {
            let [codes, factor] = [names.codes, names.factor].map(|suffix| format!("{module}{suffix}"));
            let scales = format!("{module}.weight_scale");
            let Some(tensor) = self.set.tensors().get(&codes).filter(|tensor| tensor.dtype == Dtype::U8) else {
                continue;
            };
            let format = match self.part(&scales, &codes)?.dtype {
                Dtype::U8 | Dtype::F8E8M0 => Format::Mxfp4,
                _ => Format::Nvfp4,
            };
            self.check_type(&scales, &[Dtype::F8E4M3, Dtype::U8, Dtype::F8E8M0], "F8_E4M3 or U8")?;
            let [leading @ .., bytes] = &tensor.shape[..] else { continue };
            let cols = bytes.checked_mul(2).ok_or_else(|| {
                let found = format!("shape {:?}", tensor.shape);
                self.not_as_expected(Refusal::Fp4Width, &codes, "codes of fewer columns", found)
            })?;
            let weight = format!("{module}.weight");
            apart::join(self.entries, self.set, format, [&codes, &scales], &weight, [leading, &[cols]].concat())?;
            if format.has_row_factors() {
                self.part(&factor, &codes)?;
                let number = |stored: f32| if names.divides { 1.0 / stored } else { stored };
                apart::join_factors(self.entries, self.set, &factor, &weight, number)?;
            }
            self.entries.remove(&format!("{module}.weight_shape"));
        }
        Ok(())
    }
}
