//! What the driver's words about a failed command buffer mean to a user.

/// Parts of the driver's messages (`kIOGPUCommandBufferCallbackError...`), and what each says about the program.
const FAULTS: [(&str, &str); 7] = [
    (
        "ImpactingInteractivity",
        "macOS stopped the work because it kept the GPU from drawing the screen; a smaller prefill tile makes shorter work",
    ),
    (
        "OutOfMemory",
        "the weights, KV cache and activations do not fit in GPU memory beside what else is running; use a smaller --context",
    ),
    (
        "Insufficient Memory",
        "the weights, KV cache and activations do not fit in GPU memory beside what else is running; use a smaller --context",
    ),
    ("PageFault", "a kernel touched memory outside its buffers, which is a fault of the kernel or of the schedule"),
    ("Hang", "a kernel did not come to an end"),
    ("InnocentVictim", "another program's GPU work failed and took this down with it; try again"),
    ("SubmissionsIgnored", "macOS refuses this program's GPU work after earlier failures; start it again"),
];

/// Names of `MTLCommandBufferError` codes.
const CODES: [(isize, &str); 10] = [
    (1, "internal"),
    (2, "timeout"),
    (3, "page fault"),
    (4, "access revoked"),
    (7, "not permitted"),
    (8, "out of memory"),
    (9, "invalid resource"),
    (10, "memoryless"),
    (11, "device removed"),
    (12, "stack overflow"),
];

/// The driver's message, the error's code with its name, and advice where there is some.
pub fn explain_fault(message: &str, code: isize) -> String {
    let name = CODES.iter().find(|(known, _)| *known == code).map_or("unknown", |(_, name)| name);
    let advice = FAULTS.iter().find(|(words, _)| message.contains(words));
    let advice = advice.map(|(_, advice)| format!("; {advice}")).unwrap_or_default();
    format!("{message} (code {code}, {name}){advice}")
}
