//! Command buffers as graphs. Nodes are dispatches; edges are barriers: each dispatch after one waits for all before it, and
//! dispatches between two barriers have no edges among them.

use std::collections::HashMap;
use std::ffi::c_void;
use std::sync::Arc;

use super::Gpu;
use super::driver::{Handle, KernelNode};
use super::module::Module;
use crate::error::Error;

/// Graphs kept at most: a decode step has a few, a verification hundreds that never come again.
const KEPT: usize = 64;

/// Edges between two segments up to which each pair has one; beyond, an empty node stands between.
const DIRECT_EDGES: usize = 16;

/// A dispatch as the GPU gets it.
pub(super) struct Node {
    /// Keeps the function loaded.
    pub(super) _module: Arc<Module>,
    pub(super) function: Handle,
    pub(super) grid: [u32; 3],
    pub(super) block: [u32; 3],
    /// Addresses, in the order of the kernel's parameters: the threadgroup counts of an indirect grid, else 0; the buffers.
    pub(super) addresses: Vec<u64>,
}

impl Node {
    fn is_same(&self, other: &Self) -> bool {
        (self.function, self.grid, self.block) == (other.function, other.grid, other.block)
            && self.addresses == other.addresses
    }

    /// Hands the dispatch to `with` in the driver's form.
    fn with<R>(&self, with: impl FnOnce(&KernelNode) -> R) -> R {
        let mut parameters: Vec<*mut c_void> =
            self.addresses.iter().map(|address| std::ptr::from_ref(address).cast_mut().cast()).collect();
        with(&KernelNode {
            function: self.function,
            grid: self.grid,
            block: self.block,
            shared_bytes: 0,
            parameters: parameters.as_mut_ptr(),
            extra: std::ptr::null_mut(),
            kernel: std::ptr::null_mut(),
            context: std::ptr::null_mut(),
        })
    }
}

/// For each node the nodes that it waits for, by number; numbers from `nodes` on are empty nodes, in their order.
#[derive(Debug, PartialEq, Eq)]
struct Edges {
    /// Of the dispatches.
    before: Vec<Vec<usize>>,
    /// Of the empty nodes.
    joints: Vec<Vec<usize>>,
}

/// The edges of segments of `lengths` dispatches with a barrier between each two.
fn edges(lengths: &[usize]) -> Edges {
    let count: usize = lengths.iter().sum();
    let mut edges = Edges { before: Vec::new(), joints: Vec::new() };
    let (mut first, mut waits) = (0, Vec::new());
    for (index, length) in lengths.iter().enumerate() {
        edges.before.extend(std::iter::repeat_n(waits, *length));
        let own: Vec<usize> = (first..first + length).collect();
        first += length;
        let next = lengths.get(index + 1).copied().unwrap_or(0);
        waits = if own.len() * next > DIRECT_EDGES {
            edges.joints.push(own);
            vec![count + edges.joints.len() - 1]
        } else {
            own
        };
    }
    edges
}

/// A graph ready to be launched.
struct Executable {
    executable: Handle,
    /// What it was made from: the nodes' handles belong to it.
    graph: Handle,
    handles: Vec<Handle>,
    /// The dispatches as the graph has them now.
    nodes: Vec<Node>,
}

/// The graphs of a device's command buffers.
pub(super) struct Graphs {
    gpu: Arc<Gpu>,
    /// By the functions of each segment.
    kept: HashMap<Vec<Vec<usize>>, Executable>,
}

impl Graphs {
    pub(super) fn new(gpu: &Arc<Gpu>) -> Self {
        Self { gpu: Arc::clone(gpu), kept: HashMap::new() }
    }

    /// Launches `segments`, none of them empty, with a barrier between each two. The context must be current.
    ///
    /// A command buffer that differs from an earlier one in its bindings and grids only takes that one's graph.
    ///
    /// # Errors
    /// What the driver says.
    pub(super) fn launch(&mut self, segments: Vec<Vec<Node>>) -> Result<(), Error> {
        let driver = &self.gpu.driver;
        let key: Vec<Vec<usize>> =
            segments.iter().map(|segment| segment.iter().map(|node| node.function as usize).collect()).collect();
        let executable = if let Some(kept) = self.kept.get_mut(&key) {
            let handles = kept.handles.iter().zip(&mut kept.nodes);
            for ((handle, have), node) in handles.zip(segments.into_iter().flatten()) {
                if !have.is_same(&node) {
                    // SAFETY: the node is of the graph that the executable was made from, and its function the same
                    let status = node.with(|node| unsafe { (driver.graph_update)(kept.executable, *handle, node) });
                    driver.check("cuGraphExecKernelNodeSetParams", status)?;
                    *have = node;
                }
            }
            kept.executable
        } else {
            if self.kept.len() >= KEPT {
                self.clear()?;
            }
            let made = build(&self.gpu, segments)?;
            self.kept.entry(key).or_insert(made).executable
        };
        let driver = &self.gpu.driver;
        // SAFETY: the executable is whole, and the nodes' memory is kept by the job
        driver.check("cuGraphLaunch", unsafe { (driver.graph_launch)(executable, self.gpu.stream) })
    }

    /// Drops all graphs, once none runs.
    fn clear(&mut self) -> Result<(), Error> {
        let driver = &self.gpu.driver;
        // SAFETY: the stream is the device's, and a graph that has run may be destroyed
        unsafe {
            driver.check("cuStreamSynchronize", (driver.stream_wait)(self.gpu.stream))?;
            for (_, kept) in self.kept.drain() {
                (driver.graph_executable_destroy)(kept.executable);
                (driver.graph_destroy)(kept.graph);
            }
        }
        Ok(())
    }
}

impl Drop for Graphs {
    fn drop(&mut self) {
        if self.gpu.enter().is_ok() {
            // the device ends; what fails here has been told by its command buffer
            let _ = self.clear();
        }
    }
}

fn build(gpu: &Gpu, segments: Vec<Vec<Node>>) -> Result<Executable, Error> {
    let driver = &gpu.driver;
    let lengths: Vec<usize> = segments.iter().map(Vec::len).collect();
    let nodes: Vec<Node> = segments.into_iter().flatten().collect();
    let Edges { before, joints } = edges(&lengths);
    let mut graph = std::ptr::null_mut();
    // SAFETY: fills a local
    driver.check("cuGraphCreate", unsafe { (driver.graph_create)(&raw mut graph, 0) })?;
    let mut handles: Vec<Handle> = Vec::with_capacity(nodes.len());
    let mut joint_handles: Vec<Handle> = Vec::with_capacity(joints.len());
    let mut add = || -> Result<Handle, Error> {
        for (node, before) in nodes.iter().zip(&before) {
            let mut waits = Vec::with_capacity(before.len());
            for &number in before {
                let Some(joint) = number.checked_sub(nodes.len()) else {
                    waits.push(handles[number]);
                    continue;
                };
                if joint == joint_handles.len() {
                    let own: Vec<Handle> = joints[joint].iter().map(|number| handles[*number]).collect();
                    let mut handle = std::ptr::null_mut();
                    // SAFETY: the graph is whole, its nodes in `own` exist
                    let status = unsafe { (driver.graph_empty)(&raw mut handle, graph, own.as_ptr(), own.len()) };
                    driver.check("cuGraphAddEmptyNode", status)?;
                    joint_handles.push(handle);
                }
                waits.push(joint_handles[joint]);
            }
            let mut handle = std::ptr::null_mut();
            let status = node.with(|node| {
                // SAFETY: as above; the parameters are as many pointers as the function takes
                unsafe { (driver.graph_kernel)(&raw mut handle, graph, waits.as_ptr(), waits.len(), node) }
            });
            driver.check("cuGraphAddKernelNode", status)?;
            handles.push(handle);
        }
        let mut executable = std::ptr::null_mut();
        // SAFETY: fills a local
        let status = unsafe { (driver.graph_instantiate)(&raw mut executable, graph, 0) };
        driver.check("cuGraphInstantiate", status)?;
        Ok(executable)
    };
    match add() {
        Ok(executable) => Ok(Executable { executable, graph, handles, nodes }),
        Err(error) => {
            // SAFETY: nothing was made from it
            unsafe { (driver.graph_destroy)(graph) };
            Err(error)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// All nodes that node `of` waits for, through others too.
    fn waits_for(edges: &Edges, of: usize, count: usize) -> Vec<usize> {
        let mut all = vec![false; count];
        let mut open = edges.before[of].clone();
        while let Some(number) = open.pop() {
            match number.checked_sub(count) {
                Some(joint) => open.extend(&edges.joints[joint]),
                None if !all[number] => {
                    all[number] = true;
                    open.extend(&edges.before[number]);
                }
                None => {}
            }
        }
        (0..count).filter(|number| all[*number]).collect()
    }

    #[test]
    fn a_dispatch_waits_for_all_before_the_barrier_and_for_no_other() {
        for lengths in
            [vec![1, 1, 1], vec![3, 1, 5, 2], vec![5, 5, 1, 7, 7], vec![40], vec![17, 1, 17], vec![4, 4, 5, 4]]
        {
            let count: usize = lengths.iter().sum();
            let edges = edges(&lengths);
            assert_eq!(edges.before.len(), count);
            let mut first = 0;
            for length in lengths {
                for node in first..first + length {
                    assert_eq!(waits_for(&edges, node, count), (0..first).collect::<Vec<_>>(), "{node}");
                }
                first += length;
            }
        }
    }
}
