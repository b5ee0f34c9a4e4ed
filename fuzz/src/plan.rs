//! What follows on a checkpoint that was read: whatever its sizes and numbers are, there is a plan and a weights file, or an error.

use std::fs;
use std::sync::atomic::AtomicBool;

use forge_formats::Format;
use forge_frontend::Checkpoint;
use forge_pack::Packing;
use forge_plan::quantize::Recipe;
use forge_plan::{PlanOptions, plan, quantize};

use super::frontend::{folder, with_gguf, with_safetensors};

/// Largest weights file that is written: what seeds are is far below.
const MOST: u64 = 4 << 20;

/// A GGUF file as it is, and with its floats quantised.
pub fn gguf(data: &[u8]) -> bool {
    with_gguf(data, |checkpoint| {
        let (as_it_is, graph) = (packed(checkpoint), checkpoint.graph.clone());
        let quantized = [Format::Q8_0, Format::Nvfp4].map(|format| {
            checkpoint.graph = graph.clone();
            quantize(&mut checkpoint.graph, &Recipe::all(format)).is_ok() && packed(checkpoint)
        });
        as_it_is || quantized.contains(&true)
    })
}

/// A safetensors file in the folders that [`super::frontend::safetensors`] makes.
pub fn safetensors(data: &[u8]) -> bool {
    with_safetensors(data, |checkpoint| packed(checkpoint))
}

/// Whether there is a plan and its weights file can be written.
fn packed(checkpoint: &Checkpoint) -> bool {
    let options = PlanOptions { slots: 2, ..PlanOptions::default() };
    let Ok(plan) = plan(&checkpoint.graph, &options) else { return false };
    if forge_pack::Header::new(&plan.weights).file_bytes > MOST {
        return true;
    }
    let path = folder().join("weights.safetensors");
    let _ = fs::remove_file(&path);
    let cancel = AtomicBool::new(false);
    let packing = Packing { plan: &plan.weights, graph: &checkpoint.graph, source: checkpoint, cancel: &cancel };
    packing.pack(&path, |_| {}).is_ok()
}
