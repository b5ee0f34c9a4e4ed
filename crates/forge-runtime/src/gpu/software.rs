//! The software backend: a thin adapter of `metal-sim`, which runs the same `kernels.metal` on the CPU.
//!
//! Environment: `METAL_SIM_THREADS` (default: all cores); `METAL_SIM_CHECKED=1` compiles the kernels from source in checked mode,
//! in which every fault of a kernel or schedule is an error of the command buffer, with kernel and line; `METAL_SIM_DEVICE=cuda`, in
//! programs built with the feature `cuda`, takes an NVIDIA GPU instead of the cores, which has no checks but leaves barriers out as
//! below.
//!
//! In checked mode, for tests that have to see a fault: `METAL_SIM_KERNELS=PATH` takes the kernels from another file, MSL or, if
//! it ends in `.so`, already compiled with checks; `METAL_SIM_SKIP_BARRIER=LABEL:INDEX` leaves out that barrier, counted from 0, of
//! every command buffer of that label; `METAL_SIM_REPORTS=PATH` appends `LABEL: REPORT` lines to that file and goes on instead of
//! failing, and counts the barriers of each command buffer there. `METAL_SIM_COUNTERS=PATH` appends a line of JSON for each command
//! buffer: what each of its dispatches read, wrote and executed, as the device counted it.

use std::fs::File;
use std::io::Write;
use std::num::NonZero;
use std::path::Path;
use std::sync::Arc;

use serde_json::{Value, json};

use super::{Buffer, GpuError, GpuTime, KernelSpec, Limits, Mapped, Page, Pages, Recorder, Slice, Source, plan_views};

/// The software device with every kernel of the model compiled.
pub struct Gpu {
    device: metal_sim::Device,
    kernels: Vec<Kernel>,
    limits: Limits,
    checked: bool,
    asked: Asked,
    recorder: Recorder,
}

/// What tests ask of checked mode; see the environment above.
#[derive(Default)]
struct Asked {
    /// Label of command buffers, and the barrier to leave out of each.
    skip: Option<(String, usize)>,
    outputs: Outputs,
}

/// Files for what the device has to say.
#[derive(Clone, Default)]
struct Outputs {
    reports: Option<Arc<File>>,
    counters: Option<Arc<File>>,
}

impl Asked {
    /// What a GPU can do of it.
    fn skip() -> Option<(String, usize)> {
        let value = std::env::var("METAL_SIM_SKIP_BARRIER").ok()?;
        let (label, index) = value.rsplit_once(':')?;
        Some((label.to_owned(), index.parse().ok()?))
    }

    fn from_environment() -> Result<Self, GpuError> {
        let append = |variable: &str| -> Result<Option<Arc<File>>, GpuError> {
            let Some(path) = std::env::var_os(variable) else { return Ok(None) };
            let failed = |error| GpuError::Library { reason: format!("{}: {error}", path.display()) };
            Ok(Some(Arc::new(File::options().create(true).append(true).open(&path).map_err(failed)?)))
        };
        let outputs = Outputs { reports: append("METAL_SIM_REPORTS")?, counters: append("METAL_SIM_COUNTERS")? };
        Ok(Self { skip: Self::skip(), outputs })
    }
}

/// A kernel ready to be dispatched.
#[derive(Clone)]
pub struct Kernel {
    kernel: metal_sim::Kernel,
    name: &'static str,
    threads: u32,
}

impl Kernel {
    /// Name of the kernel function.
    pub fn name(&self) -> &'static str {
        self.name
    }
}

#[derive(Clone)]
pub(super) struct Storage(metal_sim::Buffer);

impl Storage {
    pub(super) fn bytes(&self) -> u64 {
        self.0.len() as u64
    }

    pub(super) fn contents(&self) -> *mut u8 {
        self.0.contents()
    }

    /// Copies bytes from an offset on.
    pub(super) fn read(&self, offset: u64, bytes: &mut [u8]) {
        self.0.read(offset as usize, bytes);
    }

    /// Brings these bytes here, where a GPU of its own memory wrote them.
    pub(super) fn fetch(&self, offset: u64, len: usize) {
        self.0.fetch(offset as usize, len);
    }

    /// Tells checked mode that the host wrote these bytes.
    pub(super) fn written(&self, offset: u64, len: usize) {
        self.0.mark_written(offset as usize, len);
    }
}

impl Gpu {
    /// Opens the device, loads or compiles the kernels and looks up each of `specs`.
    ///
    /// # Errors
    /// [`GpuError::Device`], [`GpuError::Compile`] with the whole of the compiler's messages, [`GpuError::Library`],
    /// [`GpuError::NoKernel`] and [`GpuError::ThreadLimit`].
    pub fn open(source: &Source, specs: &'static [KernelSpec]) -> Result<Self, GpuError> {
        let checked = std::env::var("METAL_SIM_CHECKED").is_ok_and(|value| value == "1");
        let threads = std::env::var("METAL_SIM_THREADS")
            .ok()
            .and_then(|value| value.parse::<usize>().ok())
            .or_else(|| std::thread::available_parallelism().ok().map(NonZero::get))
            .unwrap_or(1);
        let device = metal_sim::Device::from_environment(threads);
        let device = device.map_err(|error| GpuError::Device { reason: error.to_string() })?;
        let compile = |text: &str| compile(&device, text, source.file, checked);
        let failed = |reason: String| GpuError::Library { reason };
        let library = match (source.compiled, std::env::var_os("METAL_SIM_KERNELS").filter(|_| checked)) {
            (_, Some(path)) if Path::new(&path).extension().is_some_and(|extension| extension == "so") => {
                metal_sim::Library::load(&path).map_err(|error| failed(error.to_string()))?
            }
            (_, Some(path)) => {
                let text = std::fs::read_to_string(&path);
                compile(&text.map_err(|error| failed(format!("{}: {error}", path.display())))?)?
            }
            (Some(compiled), None) if !checked && !device.is_gpu() => {
                metal_sim::Library::from_bytes(compiled).map_err(|error| failed(error.to_string()))?
            }
            _ => compile(source.metal)?,
        };
        Ok(Self {
            kernels: find(&library, specs)?,
            limits: Limits {
                name: device.name().to_owned(),
                max_buffer_bytes: u64::MAX,
                working_set_bytes: device.memory(),
            },
            checked,
            asked: if checked {
                Asked::from_environment()?
            } else {
                Asked { skip: device.is_gpu().then(Asked::skip).flatten(), ..Asked::default() }
            },
            recorder: Recorder::default(),
            device,
        })
    }

    /// Compiles more kernels for this device, each of `specs`.
    ///
    /// # Errors
    /// As [`Gpu::open`].
    pub fn compile(&self, source: &Source, specs: &'static [KernelSpec]) -> Result<Vec<Kernel>, GpuError> {
        find(&compile(&self.device, source.metal, source.file, self.checked)?, specs)
    }

    /// Keeps what command buffers hold, once started.
    pub fn recorder(&self) -> &Recorder {
        &self.recorder
    }

    /// Whether its times say nothing about a GPU.
    pub fn is_software(&self) -> bool {
        !self.device.is_gpu()
    }

    /// Name and sizes of the device.
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// The kernel at `index` of the table given to [`Gpu::open`].
    ///
    /// # Panics
    /// If there is none.
    pub fn kernel(&self, index: usize) -> &Kernel {
        &self.kernels[index]
    }

    /// A zero-filled buffer of `bytes` bytes.
    ///
    /// # Errors
    /// [`GpuError::OutOfMemory`].
    pub fn alloc(&self, label: &str, bytes: u64) -> Result<Buffer, GpuError> {
        let len = usize::try_from(bytes).map_err(|_| GpuError::OutOfMemory { label: label.into(), bytes })?;
        Ok(Buffer::new(label, Storage(self.device.buffer(label, len))))
    }

    /// A mapped file as buffers that kernels may read; `largest` is the length of its largest tensor.
    ///
    /// # Errors
    /// [`GpuError::TensorTooLarge`].
    pub fn import(&self, label: &str, map: &Arc<Pages>, largest: u64) -> Result<Mapped, GpuError> {
        let len = map.len() as u64;
        let views = plan_views(len, self.limits.max_buffer_bytes, 1, largest)?;
        let buffers = views.into_iter().map(|view| {
            let bytes = &map[view.start as usize..view.end as usize];
            // SAFETY: the view lies inside the mapping, which is read-only and which the buffer keeps alive.
            let buffer =
                unsafe { self.device.buffer_no_copy(label, bytes.as_ptr().cast_mut(), bytes.len(), map.clone()) };
            (view.start, Buffer::new(label, Storage(buffer)))
        });
        Ok(Mapped::new(buffers.collect()))
    }

    /// A new command buffer.
    pub fn commands(&self, label: &str) -> Commands {
        let Asked { skip, outputs } = &self.asked;
        Commands {
            commands: self.device.command_buffer(label),
            label: label.to_owned(),
            barriers: 0,
            skip: skip.as_ref().filter(|(skipped, _)| skipped == label).map(|(_, index)| *index),
            outputs: outputs.clone(),
            page: self.recorder.page(),
        }
    }
}

fn compile(
    device: &metal_sim::Device,
    text: &str,
    file: &'static str,
    checked: bool,
) -> Result<metal_sim::Library, GpuError> {
    device
        .compile(text, file, &metal_sim::CompileOptions { checked })
        .map_err(|error| GpuError::Compile { file, log: error.to_string() })
}

fn find(library: &metal_sim::Library, specs: &'static [KernelSpec]) -> Result<Vec<Kernel>, GpuError> {
    let find = |spec: &'static KernelSpec| {
        let kernel = library.kernel(spec.name).ok_or(GpuError::NoKernel { name: spec.name })?;
        Ok(Kernel { kernel, name: spec.name, threads: spec.threads })
    };
    specs.iter().map(find).collect()
}

fn binding(slice: &Slice) -> metal_sim::Binding<'_> {
    let buffer = &slice.buffer().storage().0;
    metal_sim::Binding { buffer, offset: slice.offset() as usize, len: slice.bytes() as usize }
}

/// A command buffer being filled.
pub struct Commands {
    commands: metal_sim::CommandBuffer,
    label: String,
    /// Barriers so far, and the one to leave out.
    barriers: usize,
    skip: Option<usize>,
    outputs: Outputs,
    page: Option<Page>,
}

impl Commands {
    /// Adds a dispatch of `threadgroups` threadgroups; `args[i]` is `[[buffer(i)]]`.
    pub fn dispatch(&mut self, kernel: &Kernel, args: &[&Slice], threadgroups: [u32; 3]) {
        if let Some(page) = &mut self.page {
            page.dispatch(kernel, args, None, threadgroups);
        }
        let bindings: Vec<metal_sim::Binding<'_>> = args.iter().map(|slice| binding(slice)).collect();
        self.commands.dispatch(&kernel.kernel, &bindings, threadgroups, [kernel.threads, 1, 1]);
    }

    /// Adds a dispatch of as many threadgroups as `counts` says when its turn comes: three u32, one for each axis, none of
    /// them above `most`. Where one is 0 nothing runs. The dispatch reads `counts`, so that one of the same command buffer
    /// that writes it needs a barrier between.
    pub fn dispatch_indirect(&mut self, kernel: &Kernel, args: &[&Slice], counts: &Slice, most: [u32; 3]) {
        if let Some(page) = &mut self.page {
            page.dispatch(kernel, args, Some(counts), most);
        }
        let bindings: Vec<metal_sim::Binding<'_>> = args.iter().map(|slice| binding(slice)).collect();
        self.commands.dispatch_indirect(&kernel.kernel, &bindings, binding(counts), most, [kernel.threads, 1, 1]);
    }

    /// Makes what the dispatches before it wrote visible to those after it.
    pub fn barrier(&mut self) {
        if let Some(page) = &mut self.page {
            page.barrier();
        }
        if self.skip != Some(self.barriers) {
            self.commands.barrier();
        }
        self.barriers += 1;
    }

    /// Hands the command buffer to the device.
    pub fn commit(self) -> Pending {
        let Self { commands, label, barriers, outputs, page, .. } = self;
        if let Some(page) = page {
            page.commit();
        }
        Pending { submission: Some(commands.commit()), label, barriers, outputs }
    }
}

/// A command buffer that the device has. Dropped, it is waited for: its buffers are the host's again afterwards.
#[must_use = "what became of it is only in the result of wait"]
pub struct Pending {
    /// `None` once waited for.
    submission: Option<metal_sim::Submission>,
    label: String,
    barriers: usize,
    outputs: Outputs,
}

impl Drop for Pending {
    fn drop(&mut self) {
        if let Some(submission) = self.submission.take() {
            // Whoever drops it has an error of its own to tell.
            let _ = submission.wait();
        }
    }
}

impl Pending {
    /// Waits until it has run.
    ///
    /// # Errors
    /// [`GpuError::CommandBuffer`] with all that the device reported.
    pub fn wait(mut self) -> Result<GpuTime, GpuError> {
        let submission = self.submission.take().expect("only wait and drop take it");
        let result = submission.wait();
        let Self { label, barriers, outputs, .. } = &self;
        let failed = |reason: String| GpuError::CommandBuffer { label: label.clone(), reason };
        let append = |mut file: &File, text: String| file.write_all(text.as_bytes()).map_err(|e| failed(e.to_string()));
        if let (Some(file), Ok(timing)) = (&outputs.counters, &result) {
            append(file, counted(label, &timing.counters))?;
        }
        let Some(file) = &outputs.reports else {
            return result.map(|timing| GpuTime { seconds: timing.seconds }).map_err(|error| failed(error.to_string()));
        };
        let mut text = format!("{label}: {barriers} barriers\n");
        let seconds = match result {
            Ok(timing) => timing.seconds,
            Err(metal_sim::Error::Checked { reports }) => {
                text.extend(reports.iter().map(|report| format!("{label}: {report}\n")));
                0.0
            }
            Err(error) => return Err(failed(error.to_string())),
        };
        append(file, text)?;
        Ok(GpuTime { seconds })
    }
}

/// The counters of a command buffer as a line of JSON.
fn counted(label: &str, dispatches: &[metal_sim::DispatchCounters]) -> String {
    let binding = |b: &metal_sim::BindingCounters| {
        json!({
            "name": b.name,
            "bytes_read": b.bytes_read,
            "unique_bytes_read": b.unique_bytes_read,
            "bytes_written": b.bytes_written,
            "unique_bytes_written": b.unique_bytes_written,
        })
    };
    let dispatch = |d: &metal_sim::DispatchCounters| {
        let bindings: Vec<Value> = d.bindings.iter().map(binding).collect();
        json!({
            "kernel": d.kernel,
            "threadgroups": d.threadgroups,
            "counts_bytes_read": d.counts_bytes_read,
            "barriers": d.barriers,
            "matrix_operations": d.matrix_operations,
            "threadgroup_bytes_read": d.threadgroup_bytes_read,
            "threadgroup_bytes_written": d.threadgroup_bytes_written,
            "bindings": bindings,
        })
    };
    let dispatches: Vec<Value> = dispatches.iter().map(dispatch).collect();
    format!("{}\n", json!({ "label": label, "dispatches": dispatches }))
}

/// Runs `f`; on macOS it drains the autorelease pool after it.
pub fn pool<R>(f: impl FnOnce() -> R) -> R {
    f()
}

/// Nothing here; on macOS it sets what the driver reads from the environment.
///
/// # Safety
/// Call it before the process has a second thread.
pub unsafe fn prepare_process() {}
