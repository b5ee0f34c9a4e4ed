//! The device: one thread that runs command buffers in commit order.

use std::any::Any;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;
use std::time::Instant;

use crate::buffer::Buffer;
use crate::check::{self, Segment};
use crate::command::{Command, CommandBuffer, Dispatch, Job, Timing};
use crate::compile::CompileOptions;
use crate::error::{Error, Report};
use crate::library::{Library, Worker};
use crate::pool::Pool;

/// A software GPU. Dropping it waits for what was committed.
pub struct Device {
    queue: Option<Sender<Job>>,
    thread: Option<JoinHandle<()>>,
    name: String,
    #[cfg(feature = "cuda")]
    gpu: Option<Arc<crate::cuda::Gpu>>,
}

impl Device {
    /// A device whose threadgroups run on `threads` threads; 0 means one for each core.
    pub fn new(threads: usize) -> Self {
        let cores = || std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let threads = if threads == 0 { cores() } else { threads };
        let (queue, thread) = spawn(move |jobs| run_jobs(jobs, threads));
        Self {
            queue: Some(queue),
            thread,
            name: format!("software Metal device ({threads} threads)"),
            #[cfg(feature = "cuda")]
            gpu: None,
        }
    }

    /// The device that `METAL_SIM_DEVICE` names: `cpu`, which it is without that, with `threads` threads as in
    /// [`Device::new`]; or `cuda`, an NVIDIA GPU, for crates built with the feature `cuda`.
    ///
    /// # Errors
    /// Another name; a GPU that is not there, or a crate built without it.
    pub fn from_environment(threads: usize) -> Result<Self, Error> {
        match std::env::var("METAL_SIM_DEVICE") {
            Ok(name) => Self::named(&name, threads),
            Err(_) => Ok(Self::new(threads)),
        }
    }

    /// The device of this name, as [`Device::from_environment`] finds it.
    ///
    /// # Errors
    /// As there.
    pub fn named(name: &str, threads: usize) -> Result<Self, Error> {
        match name {
            "" | "cpu" => Ok(Self::new(threads)),
            "cuda" => Self::cuda(),
            _ => Err(Error::DeviceName { name: name.to_owned() }),
        }
    }

    /// The first NVIDIA GPU of the machine.
    ///
    /// # Errors
    /// No driver or no GPU.
    #[cfg(feature = "cuda")]
    pub fn cuda() -> Result<Self, Error> {
        let gpu = crate::cuda::Gpu::open()?;
        let runner = Arc::clone(&gpu);
        let (queue, thread) = spawn(move |jobs| crate::cuda::run_jobs(jobs, &runner));
        Ok(Self { queue: Some(queue), thread, name: format!("{} as a Metal device", gpu.name), gpu: Some(gpu) })
    }

    /// None: this crate was built without the feature `cuda`.
    ///
    /// # Errors
    /// Always.
    #[cfg(not(feature = "cuda"))]
    pub fn cuda() -> Result<Self, Error> {
        Err(Error::Cuda { reason: "metal-sim was built without its feature cuda".to_owned() })
    }

    /// What it is, for people.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Bytes of the memory of its own that it has, if any.
    pub fn memory(&self) -> Option<u64> {
        #[cfg(feature = "cuda")]
        if let Some(gpu) = &self.gpu {
            return Some(gpu.memory);
        }
        None
    }

    /// Whether it is a GPU: its times are a GPU's, and it runs none of the objects that [`compile`](crate::compile()) writes.
    pub fn is_gpu(&self) -> bool {
        self.memory().is_some()
    }

    /// Compiles MSL text for this device. `file_name` is the name that messages show.
    ///
    /// # Errors
    /// As [`Library::from_source`]; on a GPU what its compiler says, and checked mode, which it does not have.
    pub fn compile(&self, source: &str, file_name: &str, options: &CompileOptions) -> Result<Library, Error> {
        #[cfg(feature = "cuda")]
        if let Some(gpu) = &self.gpu {
            if options.checked {
                return Err(Error::Cuda { reason: "checked mode is the software device's alone".to_owned() });
            }
            return gpu.library(source, file_name);
        }
        Library::from_source(source, file_name, options)
    }

    /// A buffer of `len` bytes, zero-filled. Checked mode still takes its bytes for unwritten, as on a real device.
    pub fn buffer(&self, label: &str, len: usize) -> Buffer {
        self.own(Buffer::zeroed(label, len))
    }

    fn own(&self, buffer: Buffer) -> Buffer {
        #[cfg(feature = "cuda")]
        if let Some(gpu) = &self.gpu {
            return buffer.on(gpu);
        }
        buffer
    }

    /// The caller's memory as a read-only buffer.
    ///
    /// # Safety
    /// `ptr` must be valid for reads of `len` bytes, and the bytes unchanged, as long as `keep_alive` lives.
    pub unsafe fn buffer_no_copy(
        &self,
        label: &str,
        ptr: *const u8,
        len: usize,
        keep_alive: Arc<dyn Any + Send + Sync>,
    ) -> Buffer {
        self.own(Buffer::borrowed(label, ptr, len, keep_alive))
    }

    /// An empty command buffer.
    pub fn command_buffer(&self, label: &str) -> CommandBuffer {
        // the queue is only taken by drop
        let queue = self.queue.clone().unwrap_or_else(|| channel().0);
        CommandBuffer::new(label, queue)
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        self.queue = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// A thread that runs the jobs of a queue.
fn spawn(run: impl FnOnce(&Receiver<Job>) + Send + 'static) -> (Sender<Job>, Option<JoinHandle<()>>) {
    let (queue, jobs) = channel();
    let thread = std::thread::Builder::new().name("metal-sim device".to_owned()).spawn(move || run(&jobs));
    (queue, thread.ok())
}

fn run_jobs(jobs: &Receiver<Job>, threads: usize) {
    let mut runner = Runner { pool: Pool::new(threads), checked: None };
    while let Ok(job) = jobs.recv() {
        let result = runner.run(&job);
        job.completion.complete(result);
    }
}

struct Runner {
    pool: Pool,
    checked: Option<Worker>,
}

impl Runner {
    fn run(&mut self, job: &Job) -> Result<Timing, Error> {
        let begin = Instant::now();
        let (mut reports, mut counters) = (Vec::new(), Vec::new());
        let mut segment = Segment::default();
        for command in &job.commands {
            match command {
                Command::Dispatch(dispatch) => {
                    // with a grid that is wrong nothing runs, and what else is wrong is told too
                    let threadgroups = dispatch.grid.resolve(dispatch.kernel.name()).unwrap_or_else(|report| {
                        reports.push(report);
                        [0; 3]
                    });
                    match dispatch.kernel.object()?.interface.check {
                        Some(functions) => {
                            let worker = self.checked_worker(dispatch)?;
                            let (new, counted) = check::run(worker, functions, dispatch, threadgroups, &mut segment)?;
                            reports.extend(new);
                            counters.push(counted);
                        }
                        None => reports.extend(self.unchecked(dispatch, threadgroups)?),
                    }
                }
                Command::Barrier => segment.barrier(),
            }
        }
        if reports.is_empty() {
            Ok(Timing { seconds: begin.elapsed().as_secs_f64(), counters })
        } else {
            Err(Error::Checked { reports })
        }
    }

    fn unchecked(&mut self, dispatch: &Dispatch, threadgroups: [u32; 3]) -> Result<Vec<Report>, Error> {
        let buffers =
            dispatch.bindings.iter().map(|bound| bound.buffer.contents().wrapping_add(bound.offset).cast()).collect();
        // what a kernel without checks writes is not known in detail
        for argument in dispatch.kernel.arguments().iter().filter(|argument| argument.writable) {
            let bound = &dispatch.bindings[argument.index as usize];
            bound.buffer.mark_written(bound.offset, bound.len);
        }
        self.pool.run(dispatch, threadgroups, buffers)
    }

    fn checked_worker(&mut self, dispatch: &Dispatch) -> Result<&mut Worker, Error> {
        Ok(match &mut self.checked {
            Some(worker) => worker,
            none => none.insert(Worker::new(dispatch.kernel.object()?)?),
        })
    }
}
