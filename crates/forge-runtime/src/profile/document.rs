//! A profile as a JSON document, which the page of `page/` draws.

use serde_json::{Value, json};

use super::super::ModelInfo;
use super::Pass;

/// What the passes ran on.
#[derive(Debug, Clone, PartialEq)]
pub struct Device<'a> {
    /// Its name.
    pub name: &'a str,
    /// Bytes per second of its memory.
    pub bandwidth: f64,
    /// Where that is from, for whoever reads it: "by copying".
    pub source: &'a str,
    /// Whether it is the software device, whose times say nothing about a GPU.
    pub software: bool,
}

/// Passes, each under a title, as an object with `format` "forge-profile" and `version` 1. Seconds of a dispatch are the mean of its kernel's
/// dispatches, run by themselves; `seconds` of a pass are those of its command buffers as the schedule has them. Bytes and operations
/// are what the plan says of the kernel at the pass's size.
pub fn document(info: &ModelInfo, device: &Device<'_>, passes: &[(String, &Pass)]) -> Value {
    let pass = |(title, pass): &(String, &Pass)| {
        let dispatch = |&index: &usize| {
            let role = &pass.roles[index];
            let count = role.dispatches as u64;
            json!({
                "kernel": role.kernel, "kind": role.kind, "seconds": role.seconds / role.dispatches as f64,
                "bytes": role.bytes / count, "flops": role.flops / count,
            })
        };
        json!({
            "title": title, "rows": pass.size.rows, "position": pass.size.position, "seconds": pass.seconds,
            "dispatches": pass.order.iter().map(dispatch).collect::<Vec<_>>(),
        })
    };
    json!({
        "format": "forge-profile",
        "version": 1,
        "model": {
            "name": info.name, "architecture": info.architecture, "source": info.source, "parameters": info.parameters,
        },
        "device": {
            "name": device.name, "bandwidth": device.bandwidth, "source": device.source, "software": device.software,
        },
        "passes": passes.iter().map(pass).collect::<Vec<_>>(),
    })
}
