//! What checked runs count.

/// Memory traffic of one `[[buffer(index)]]` in one dispatch, in bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BindingCounters {
    /// The buffer's index in the kernel.
    pub index: u32,
    /// The parameter's name in the kernel.
    pub name: String,
    /// The buffer's label.
    pub label: String,
    /// Bytes of all loads.
    pub bytes_read: u64,
    /// Bytes of all stores.
    pub bytes_written: u64,
    /// Different bytes loaded. Bindings that overlap are counted together.
    pub unique_bytes_read: u64,
    /// Different bytes stored.
    pub unique_bytes_written: u64,
}

/// What one dispatch did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DispatchCounters {
    /// The kernel.
    pub kernel: String,
    /// Threadgroups that ran, along each axis.
    pub threadgroups: [u32; 3],
    /// Bytes of threadgroup counts read for an indirect grid.
    pub counts_bytes_read: u64,
    /// Its buffers, by index.
    pub bindings: Vec<BindingCounters>,
    /// Threadgroup barriers executed, each counted once for a threadgroup.
    pub barriers: u64,
    /// Products of 8x8 matrices, each counted once for a simdgroup.
    pub matrix_operations: u64,
    /// Bytes of all loads from threadgroup memory.
    pub threadgroup_bytes_read: u64,
    /// Bytes of all stores to threadgroup memory.
    pub threadgroup_bytes_written: u64,
}
