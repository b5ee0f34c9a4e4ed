//! A profile as trace events ("Trace Event Format" of chrome://tracing, which Perfetto reads too).

use serde_json::{Value, json};

use super::Pass;

/// Passes as a JSON object of complete events, one process for each name, time in microseconds: dispatches in the order
/// of the schedule, each as long as its kernel takes on average.
pub fn trace(device: &str, timelines: &[(&str, &[Pass])]) -> Value {
    let mut events = Vec::new();
    for (pid, (name, passes)) in timelines.iter().enumerate() {
        let process = json!({ "name": "process_name", "ph": "M", "pid": pid, "tid": 0, "args": { "name": name } });
        let thread = json!({ "name": "thread_name", "ph": "M", "pid": pid, "tid": 0, "args": { "name": "GPU" } });
        events.extend([process, thread]);
        let mut start = 0.0;
        for pass in *passes {
            for &index in &pass.order {
                let role = &pass.roles[index];
                let count = role.dispatches as u64;
                let duration = role.seconds * 1e6 / role.dispatches as f64;
                events.push(json!({
                    "name": role.kernel, "cat": "gpu", "ph": "X", "pid": pid, "tid": 0, "ts": start, "dur": duration,
                    "args": {
                        "position": pass.size.position, "rows": pass.size.rows,
                        "bytes": role.bytes / count, "flops": role.flops / count,
                    },
                }));
                start += duration;
            }
        }
    }
    json!({
        "traceEvents": events,
        "displayTimeUnit": "ms",
        "otherData": { "device": device, "durations": "mean of the kernel's dispatches, run by themselves" },
    })
}
