//! Matrices of codes in 32-bit words: GPTQ, AWQ and compressed-tensors' `pack-quantized`.

use forge_formats::{IntegerMatrix, Packing, Repack, Zeros};
use serde_json::Value;

use super::Folder;
use crate::checkpoint::Dtype;
use crate::{FrontendError, Refusal};

/// What a module's tensors are called.
struct Names {
    codes: String,
    scales: String,
    zeros: String,
    /// The group of each column.
    groups: String,
    /// `[rows, cols]`.
    shape: String,
}

impl Names {
    fn new(module: &str, [codes, scales, zeros, groups, shape]: [&str; 5]) -> Self {
        let [codes, scales, zeros, groups, shape] =
            [codes, scales, zeros, groups, shape].map(|suffix| format!("{module}.{suffix}"));
        Self { codes, scales, zeros, groups, shape }
    }
}

const OLD: [&str; 5] = ["qweight", "scales", "qzeros", "g_idx", ""];
const COMPRESSED: [&str; 5] = ["weight_packed", "weight_scale", "weight_zero_point", "weight_g_idx", "weight_shape"];

impl Folder<'_> {
    /// Joins the modules of a GPTQ folder.
    pub(super) fn join_gptq(&mut self) -> Result<(), FrontendError> {
        let zero_offset = match self.text("checkpoint_format").as_deref() {
            None | Some("gptq") => 1,
            Some("gptq_v2") => 0,
            Some(other) => {
                let read = "GPTQ's own packings, gptq and gptq_v2, are read";
                return Err(self.unsupported(Refusal::GptqPacking, "checkpoint_format", format!("{other:?}"), read));
            }
        };
        let bits = self.size("bits")?;
        for module in self.modules(".qweight") {
            let names = Names::new(&module, OLD);
            let [words, rows] = self.matrix(&names.codes)?;
            let cols = self.columns(&names.codes, words, bits)?;
            self.join_integers(&module, &names, Packing::Gptq { zero_offset }, [rows, cols], bits, None)?;
        }
        Ok(())
    }

    /// Joins the modules of an AWQ folder.
    pub(super) fn join_awq(&mut self) -> Result<(), FrontendError> {
        if let Some(other) = self.text("version").filter(|version| version != "gemm") {
            let read = "AWQ's gemm packing is read";
            return Err(self.unsupported(Refusal::AwqPacking, "version", format!("{other:?}"), read));
        }
        let bits = self.size("bits")?;
        if bits != 4 {
            let read = "AWQ's words hold codes of 4 bits";
            return Err(self.unsupported(Refusal::AwqBits, "bits", bits.to_string(), read));
        }
        for module in self.modules(".qweight") {
            let names = Names::new(&module, OLD);
            let [cols, words] = self.matrix(&names.codes)?;
            let rows = self.columns(&names.codes, words, bits)?;
            self.join_integers(&module, &names, Packing::Awq, [rows, cols], bits, None)?;
        }
        Ok(())
    }

    /// Joins the packed modules of a compressed-tensors folder.
    pub(super) fn join_compressed(&mut self) -> Result<(), FrontendError> {
        for module in self.modules(".weight_packed") {
            let names = Names::new(&module, COMPRESSED);
            let [stored_rows, words] = self.matrix(&names.codes)?;
            self.part(&names.shape, &names.codes)?;
            let shape = self.integers(&names.shape)?;
            let sizes: Vec<usize> = shape.iter().filter_map(|&size| usize::try_from(size).ok()).collect();
            // Of the widths that there are, the one that fills the words.
            let bits = |cols: usize| [4, 8].into_iter().find(|bits| (cols * bits).div_ceil(32) == words);
            let known = match sizes[..] {
                [rows, cols] if shape.len() == 2 && rows == stored_rows && cols < 1 << 32 => {
                    bits(cols).map(|bits| (rows, cols, bits))
                }
                _ => None,
            };
            let Some((rows, cols, bits)) = known else {
                let expected = "the sizes of a matrix of 4-bit or 8-bit codes";
                return Err(self.not_as_expected(Refusal::PackedSizes, &names.shape, expected, format!("{shape:?}")));
            };
            self.part(&names.scales, &names.codes)?;
            let [_, groups] = self.matrix(&names.scales)?;
            let group = cols.div_ceil(groups);
            self.join_integers(&module, &names, Packing::Compressed, [rows, cols], bits, Some(group))?;
        }
        Ok(())
    }

    /// Codes in so many words.
    fn columns(&self, name: &str, words: usize, bits: usize) -> Result<usize, FrontendError> {
        let codes = words.checked_mul(32).filter(|codes| codes.is_multiple_of(bits) && *codes < 1 << 32);
        codes.map(|codes| codes / bits).ok_or_else(|| {
            let found = format!("{words} of {bits} bits");
            self.not_as_expected(Refusal::RepackWords, name, "words that hold whole codes", found)
        })
    }

    fn join_integers(
        &mut self,
        module: &str,
        names: &Names,
        packing: Packing,
        [rows, cols]: [usize; 2],
        bits: usize,
        group: Option<usize>,
    ) -> Result<(), FrontendError> {
        // -1 is a group a row.
        let group = match (group, self.settings.get("group_size").and_then(Value::as_i64)) {
            (Some(group), _) => group,
            (None, Some(-1)) => cols,
            (None, _) => self.size("group_size")?,
        };
        self.check_type(&names.codes, &[Dtype::I32, Dtype::U32], "I32")?;
        self.part(&names.scales, &names.codes)?;
        let scale_format = self.scales(&names.scales, &[Dtype::F16, Dtype::BF16], "F16 or BF16")?;
        let zeros = if packing == Packing::Compressed && !self.set.tensors().contains_key(&names.zeros) {
            Zeros::Middle
        } else {
            self.part(&names.zeros, &names.codes)?;
            self.check_type(&names.zeros, &[Dtype::I32, Dtype::U32], "I32")?;
            Zeros::Stored
        };
        let mut matrix = IntegerMatrix { packing, bits: bits as u32, group, rows, cols, scale_format, zeros };
        self.check_format(&Repack::Integers(matrix.clone()), &names.codes)?;
        let [codes_shape, scales_shape, zeros_shape] = matrix.shapes();
        self.check_shape(&names.codes, &codes_shape)?;
        self.check_shape(&names.scales, &scales_shape)?;
        self.check_order(names, cols, group)?;
        let mut parts = vec![names.codes.clone(), names.scales.clone()];
        let mut known = vec![names.groups.clone(), names.shape.clone()];
        if zeros == Zeros::Stored {
            self.check_shape(&names.zeros, &zeros_shape)?;
            // The plain affine format needs one product less.
            let symmetric = self.settings.get("sym").and_then(Value::as_bool) == Some(true);
            let middle = symmetric && matrix.zeros_are_middle(self.set.data(&self.set.tensors()[&names.zeros]));
            matrix.zeros = if middle { Zeros::Middle } else { Zeros::Stored };
            if middle { &mut known } else { &mut parts }.push(names.zeros.clone());
        }
        self.replace(module, vec![rows, cols], Repack::Integers(matrix), &parts, &known);
        Ok(())
    }

    /// Refuses columns that are not in the order of their groups (`desc_act`): scales would differ from column to column, and the
    /// inputs cannot be put in another order, for other projections read them too.
    fn check_order(&self, names: &Names, cols: usize, group: usize) -> Result<(), FrontendError> {
        if !self.set.tensors().contains_key(&names.groups) {
            return Ok(());
        }
        self.check_shape(&names.groups, &[cols])?;
        let groups = self.integers(&names.groups)?;
        let in_order = groups.iter().enumerate().all(|(col, &of)| of == (col / group) as i64);
        // compressed-tensors writes -1 where there is no order.
        if in_order || groups.iter().all(|&of| of == -1) {
            return Ok(());
        }
        let found = "columns in the order of activations (desc_act)".to_owned();
        Err(self.not_as_expected(Refusal::ActOrder, &names.groups, "columns in the order of their groups", found))
    }
}
