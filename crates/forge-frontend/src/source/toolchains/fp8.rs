//! Matrices of E4M3 bytes with scales of blocks, channels or the whole tensor.

use forge_formats::{E4m3Matrix, Format, Repack};
use serde_json::Value;

use super::Folder;
use crate::checkpoint::Dtype;
use crate::source::{apart, unsigned};
use crate::{FrontendError, Refusal};

/// What scales are called, after the module's name. All are factors of the codes, `_inv` or not.
const SCALES: [&str; 4] = ["weight_scale_inv", "weight_scale", "qscale_weight", "scale"];

impl Folder<'_> {
    /// Joins each matrix of E4M3 bytes with its scales. What has none of these bytes stays as it is.
    pub(super) fn join_fp8(&mut self) -> Result<(), FrontendError> {
        let modules = self.modules(".weight");
        let weight = |module: &String| format!("{module}.weight");
        // Modules that have been joined have no tensor of this name.
        let is_e4m3 = |module: &&String| {
            self.set.tensors().get(&weight(module)).is_some_and(|tensor| tensor.dtype == Dtype::F8E4M3)
        };
        for module in modules.iter().filter(is_e4m3).collect::<Vec<_>>() {
            let codes = weight(module);
            let names = SCALES.map(|suffix| format!("{module}.{suffix}"));
            let there = names.iter().find(|name| self.set.tensors().contains_key(*name));
            let scales = there.unwrap_or(&names[usize::from(self.block_size()?.is_none())]).clone();
            let found = self.part(&scales, &codes)?.shape.clone();
            let [rows, cols] = self.matrix(&codes)?;
            // Powers of two for groups of columns.
            let powers = matches!(self.set.tensors()[&scales].dtype, Dtype::U8 | Dtype::F8E8M0);
            if powers && found == [rows, cols.div_ceil(32)] {
                apart::join(self.entries, self.set, Format::Mxfp8, [&codes, &scales], &codes, vec![rows, cols])?;
                continue;
            }
            let scale_format = self.scales(&scales, &[Dtype::F32, Dtype::F16, Dtype::BF16], "F32, F16 or BF16")?;
            let of_blocks =
                self.block_size()?.filter(|block| found == [rows.div_ceil(block[0]), cols.div_ceil(block[1])]);
            let block = match (of_blocks, &found[..]) {
                (Some(block), _) => block,
                (None, [] | [1] | [1, 1]) => [rows, cols],
                (None, [of] | [of, 1]) if *of == rows => [1, cols],
                // Groups of columns.
                (None, [of, groups]) if *of == rows && *groups > 0 && cols.is_multiple_of(*groups) => {
                    [1, cols / groups]
                }
                _ => {
                    let expected = match self.block_size()? {
                        Some(block) => vec![rows.div_ceil(block[0]), cols.div_ceil(block[1])],
                        None => vec![rows, 1],
                    };
                    return Err(self.check_shape(&scales, &expected).expect_err("none of the shapes"));
                }
            };
            let repack = Repack::E4m3(E4m3Matrix { rows, cols, block, scale_format });
            self.check_format(&repack, &codes)?;
            self.replace(module, vec![rows, cols], repack, &[codes, scales], &[]);
        }
        Ok(())
    }

    /// Rows and columns of a block, where the configuration has blocks.
    fn block_size(&self) -> Result<Option<[usize; 2]>, FrontendError> {
        let own = self.settings.get("weight_block_size").filter(|value| !value.is_null());
        let groups = self.settings.get("config_groups").and_then(Value::as_object);
        let of_group = |group: &Value| group.get("weights")?.get("block_structure").filter(|v| !v.is_null()).cloned();
        let Some(value) = own.cloned().or_else(|| groups?.values().find_map(of_group)) else { return Ok(None) };
        let sizes: Vec<Option<u32>> = match &value {
            Value::Array(sizes) => sizes.iter().map(unsigned).collect(),
            Value::String(text) => text.split('x').map(|size| size.parse().ok()).collect(),
            _ => Vec::new(),
        };
        match sizes[..] {
            [Some(rows), Some(cols)] if rows > 0 && cols > 0 => Ok(Some([rows as usize, cols as usize])),
            _ => Err(self.unsupported(
                Refusal::Fp8Blocks,
                "weight_block_size",
                value.to_string(),
                "a block is two sizes, of rows and columns",
            )),
        }
    }
}
