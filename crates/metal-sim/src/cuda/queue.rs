//! The device's two threads: one hands command buffers to the GPU as they come, the other waits for their ends in order. A
//! command buffer is on its way while the one before it still runs.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};

use super::Gpu;
use super::driver::Handle;
use super::graph::{Graphs, Node};
use crate::command::{Bound, Command, Dispatch, Job, Timing};
use crate::error::Error;
use crate::grid::Grid;
use crate::library::Code;

/// A moment in the stream.
struct Event {
    gpu: Arc<Gpu>,
    event: Handle,
}

// SAFETY: handles of the driver may be used from every thread that has the context current
unsafe impl Send for Event {}

impl Event {
    /// Now, after what the stream has. The context must be current.
    fn record(gpu: &Arc<Gpu>) -> Result<Self, Error> {
        let mut event = std::ptr::null_mut();
        let driver = &gpu.driver;
        // SAFETY: fills a local; then records what it made
        unsafe {
            driver.check("cuEventCreate", (driver.event_create)(&raw mut event, 0))?;
            let made = Self { gpu: Arc::clone(gpu), event };
            driver.check("cuEventRecord", (driver.event_record)(event, gpu.stream))?;
            Ok(made)
        }
    }

    /// Waits for it; the seconds from `start` to it.
    fn wait(&self, start: &Self) -> Result<f64, Error> {
        let driver = &self.gpu.driver;
        let mut milliseconds = 0.0;
        // SAFETY: both events were recorded
        unsafe {
            driver.check("the command buffer", (driver.event_wait)(self.event))?;
            let status = (driver.event_elapsed)(&raw mut milliseconds, start.event, self.event);
            driver.check("cuEventElapsedTime", status)?;
        }
        Ok(f64::from(milliseconds) / 1000.0)
    }
}

impl Drop for Event {
    fn drop(&mut self) {
        if self.gpu.enter().is_ok() {
            // SAFETY: an event that is not done is destroyed when it is
            unsafe { (self.gpu.driver.event_destroy)(self.event) };
        }
    }
}

/// A command buffer that the GPU has.
struct Running {
    job: Job,
    start: Event,
    end: Event,
}

/// Runs jobs until their sender is gone.
pub(crate) fn run_jobs(jobs: &Receiver<Job>, gpu: &Arc<Gpu>) {
    let (running, launched) = channel::<Running>();
    let waiting = std::thread::Builder::new().name("metal-sim completion".to_owned()).spawn(move || {
        while let Ok(running) = launched.recv() {
            let result = finish(&running);
            running.job.completion.complete(result);
        }
    });
    let mut graphs = Graphs::new(gpu);
    while let Ok(job) = jobs.recv() {
        match launch(gpu, &mut graphs, &job) {
            Ok((start, end)) => {
                // a job that cannot be sent on is dropped, which completes it with an error
                let _ = running.send(Running { job, start, end });
            }
            Err(error) => job.completion.complete(Err(error)),
        }
    }
    drop(running);
    if let Ok(waiting) = waiting {
        let _ = waiting.join();
    }
}

fn node(gpu: &Arc<Gpu>, dispatch: &Dispatch) -> Result<Node, Error> {
    let other = || Error::OtherDevice { kernel: dispatch.kernel.name().to_owned() };
    let Code::Cuda(module) = &dispatch.kernel.code else { return Err(other()) };
    if !module.is_on(gpu) {
        return Err(other());
    }
    let function = module.function(dispatch.kernel.info.index);
    let address = |bound: &Bound| {
        let mirror = bound.buffer.mirror().ok_or_else(other)?;
        // SAFETY: the memory is the buffer's, and the context was made current
        Ok(unsafe { mirror.push(bound.buffer.contents()) }? + bound.offset as u64)
    };
    let (grid, counts) = match &dispatch.grid {
        Grid::Direct(threadgroups) => (*threadgroups, 0),
        Grid::Indirect(counts) => (counts.most, address(&counts.bound)?),
    };
    let buffers = function.buffers.iter().map(|index| address(&dispatch.bindings[*index]));
    let addresses = std::iter::once(Ok(counts)).chain(buffers).collect::<Result<_, Error>>()?;
    Ok(Node { _module: Arc::clone(module), function: function.handle, grid, block: dispatch.threads, addresses })
}

/// Hands a job to the GPU: its start, after what is copied for it, and its end.
fn launch(gpu: &Arc<Gpu>, graphs: &mut Graphs, job: &Job) -> Result<(Event, Event), Error> {
    gpu.enter()?;
    let mut segments = vec![Vec::new()];
    for command in &job.commands {
        match command {
            Command::Dispatch(dispatch) => {
                let node = node(gpu, dispatch)?;
                if let Some(segment) = segments.last_mut() {
                    segment.push(node);
                }
            }
            Command::Barrier => segments.push(Vec::new()),
        }
    }
    segments.retain(|segment| !segment.is_empty());
    let start = Event::record(gpu)?;
    if !segments.is_empty() {
        graphs.launch(segments)?;
    }
    Ok((start, Event::record(gpu)?))
}

/// Waits for a job's end.
fn finish(running: &Running) -> Result<Timing, Error> {
    running.end.gpu.enter()?;
    let seconds = running.end.wait(&running.start)?;
    for command in &running.job.commands {
        let Command::Dispatch(dispatch) = command else { continue };
        for argument in dispatch.kernel.arguments().iter().filter(|argument| argument.writable) {
            let bound = &dispatch.bindings[argument.index as usize];
            if let Some(mirror) = bound.buffer.mirror() {
                mirror.gpu_wrote(bound.offset..bound.offset + bound.len);
            }
        }
    }
    Ok(Timing { seconds, counters: Vec::new() })
}
