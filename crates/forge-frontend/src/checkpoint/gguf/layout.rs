//! Where the tensors of one GGUF file lie, checked against each other and the file.

use std::path::Path;

use forge_formats::{Format, FormatError, ggml_block, ggml_name};

use super::parse::{Header, TensorInfo};
use super::{GgufTensor, MetaValue};
use crate::checkpoint::CheckpointError;
use crate::checkpoint::file::first_overlap;

/// Alignment of a file that does not say otherwise (`GGUF_DEFAULT_ALIGNMENT`).
const DEFAULT_ALIGNMENT: u64 = 32;

/// The tensors of a header, whose infos are taken out of it; `length` is the file's.
pub(super) fn place(
    path: &Path,
    length: u64,
    file: usize,
    header: &mut Header,
) -> Result<Vec<GgufTensor>, CheckpointError> {
    let alignment = alignment(path, header)?;
    // A file without tensors need not be padded up to its data.
    let data_start = header.end.checked_next_multiple_of(alignment).unwrap_or(length).min(length);
    let available = length - data_start;
    let infos = std::mem::take(&mut header.infos);
    let mut starts: Vec<u64> = infos.iter().map(|info| info.offset).collect();
    starts.sort_unstable();

    let span = |offset: u64| {
        let next = starts.partition_point(|&start| start <= offset);
        starts.get(next).copied().unwrap_or(available).saturating_sub(offset)
    };

    let mut formats = Vec::with_capacity(infos.len());
    for info in &infos {
        if !info.offset.is_multiple_of(alignment) {
            return Err(CheckpointError::Misaligned {
                path: path.to_owned(),
                tensor: info.name.clone(),
                alignment,
                offset: info.offset,
            });
        }
        formats.push(Format::from_ggml(info.ggml_type, elements(path, info)?, span(info.offset), alignment));
    }
    settle_ambiguous(&mut formats);

    let mut tensors = Vec::with_capacity(infos.len());
    for (info, format) in infos.into_iter().zip(formats) {
        let size = size(path, &info, &format)?.unwrap_or(span(info.offset));
        if info.offset.checked_add(size).is_none_or(|end| end > available) {
            let TensorInfo { name: tensor, offset, .. } = info;
            return Err(CheckpointError::OutsideFile {
                path: path.to_owned(),
                tensor,
                offset,
                needed: size,
                available,
            });
        }
        let TensorInfo { name, dims, ggml_type, offset } = info;
        let start = data_start + offset;
        tensors.push(GgufTensor { name, dims, ggml_type, format, file, range: start..start + size });
    }
    let ranges = tensors.iter().enumerate().map(|(i, t)| (t.range.start, t.range.end, i)).collect();
    if let Some((first, second)) = first_overlap(ranges) {
        return Err(CheckpointError::Overlap {
            path: path.to_owned(),
            first: tensors[first].name.clone(),
            second: tensors[second].name.clone(),
        });
    }
    Ok(tensors)
}

fn alignment(path: &Path, header: &Header) -> Result<u64, CheckpointError> {
    let Some(value) = header.metadata.get("general.alignment") else { return Ok(DEFAULT_ALIGNMENT) };
    let found = value.as_u64().ok_or_else(|| CheckpointError::KeyType {
        path: path.to_owned(),
        key: "general.alignment".to_owned(),
        expected: "an unsigned integer",
        found: MetaValue::type_name(value),
    })?;
    if found < 8 || !found.is_power_of_two() {
        return Err(CheckpointError::Alignment { path: path.to_owned(), found });
    }
    Ok(found)
}

/// A file uses type 42 for one format only: tensors too small to tell follow one that is not.
fn settle_ambiguous(formats: &mut [Result<Format, FormatError>]) {
    let ambiguous = |format: &Result<_, _>| matches!(format, Err(FormatError::AmbiguousGgmlType { .. }));
    let settled = formats.iter().find(|format| matches!(format, Ok(Format::Tq2_0G128 | Format::Q2_0)));
    if let Some(settled) = settled.cloned() {
        formats.iter_mut().filter(|format| ambiguous(format)).for_each(|format| *format = settled.clone());
    }
}

fn elements(path: &Path, info: &TensorInfo) -> Result<u64, CheckpointError> {
    let product = info.dims.iter().try_fold(1u64, |product, &dim| product.checked_mul(dim));
    // GGML counts elements in i64.
    product.filter(|&n| n > 0 && i64::try_from(n).is_ok()).ok_or_else(|| CheckpointError::Shape {
        path: path.to_owned(),
        tensor: info.name.clone(),
        shape: info.dims.clone(),
    })
}

/// Bytes of a tensor; `None` when the type's blocks are not known.
fn size(path: &Path, info: &TensorInfo, format: &Result<Format, FormatError>) -> Result<Option<u64>, CheckpointError> {
    let block = match format {
        Ok(format) => Some((format.block_elements() as u32, format.block_bytes() as u32)),
        Err(FormatError::AmbiguousGgmlType { .. }) => None,
        Err(_) => ggml_block(info.ggml_type),
    };
    let Some((weights, bytes)) = block else { return Ok(None) };
    let cols = info.dims.first().copied().unwrap_or(1);
    if !cols.is_multiple_of(weights.into()) {
        return Err(CheckpointError::RowNotBlocks {
            path: path.to_owned(),
            tensor: info.name.clone(),
            ggml_type: ggml_name(info.ggml_type).unwrap_or("unknown"),
            cols,
            block: weights,
        });
    }
    let size = (elements(path, info)? / u64::from(weights)).checked_mul(bytes.into());
    size.map(Some).ok_or_else(|| CheckpointError::Shape {
        path: path.to_owned(),
        tensor: info.name.clone(),
        shape: info.dims.clone(),
    })
}
