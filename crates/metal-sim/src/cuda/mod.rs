//! An NVIDIA GPU as the device: the kernel file as CUDA ([`crate::msl::Rewritten::cuda`]), compiled by NVRTC for the GPU at
//! hand; command buffers as graphs whose edges are the encoder's barriers and nothing else, so that a missing barrier is a
//! race there too; each buffer's bytes on the GPU, copied when the other side needs them.
//!
//! Nothing is linked: the driver and NVRTC are loaded when a device is opened. Not a product: it proves emitted projects on
//! a real GPU and times them there.

mod driver;
mod graph;
mod memory;
mod module;
mod queue;
mod ranges;

use std::ffi::{CStr, c_char, c_int};
use std::sync::Arc;

use crate::error::Error;

pub(crate) use memory::Mirror;
pub(crate) use module::Module;
pub(crate) use queue::run_jobs;

use driver::{COMPUTE_CAPABILITY_MAJOR, COMPUTE_CAPABILITY_MINOR, Driver, Handle, NON_BLOCKING};

/// The first GPU, with its primary context and one stream.
pub(crate) struct Gpu {
    driver: Driver,
    device: c_int,
    context: Handle,
    stream: Handle,
    pub(crate) name: String,
    /// Bytes of memory.
    pub(crate) memory: u64,
    /// Major and minor.
    capability: (c_int, c_int),
}

// SAFETY: the driver's interface may be used from every thread, with the context made current there first (`enter`)
unsafe impl Send for Gpu {}
// SAFETY: as above
unsafe impl Sync for Gpu {}

impl Gpu {
    /// Opens the first GPU of the machine.
    ///
    /// # Errors
    /// No driver, no GPU, or one that cannot be used.
    pub(crate) fn open() -> Result<Arc<Self>, Error> {
        let driver = Driver::load()?;
        let (mut device, mut context, mut stream) = (0, std::ptr::null_mut(), std::ptr::null_mut());
        let mut name = [0 as c_char; 256];
        let (mut memory, mut major, mut minor) = (0, 0, 0);
        // SAFETY: signatures and order are those of the CUDA driver API; each pointer is to a local of the type it fills
        unsafe {
            driver.check("cuInit", (driver.init)(0))?;
            driver.check("cuDeviceGet", (driver.device_get)(&raw mut device, 0))?;
            driver.check("cuDeviceGetName", (driver.device_name)(name.as_mut_ptr(), 256, device))?;
            driver.check("cuDeviceTotalMem", (driver.device_memory)(&raw mut memory, device))?;
            let attribute = driver.device_attribute;
            driver.check("cuDeviceGetAttribute", attribute(&raw mut major, COMPUTE_CAPABILITY_MAJOR, device))?;
            driver.check("cuDeviceGetAttribute", attribute(&raw mut minor, COMPUTE_CAPABILITY_MINOR, device))?;
            driver.check("cuDevicePrimaryCtxRetain", (driver.context_retain)(&raw mut context, device))?;
            driver.check("cuCtxSetCurrent", (driver.context_set)(context))?;
            driver.check("cuStreamCreate", (driver.stream_create)(&raw mut stream, NON_BLOCKING))?;
        }
        // SAFETY: the driver ended the name with a zero
        let name = unsafe { CStr::from_ptr(name.as_ptr()) }.to_string_lossy().into_owned();
        let memory = memory as u64;
        Ok(Arc::new(Self { driver, device, context, stream, name, memory, capability: (major, minor) }))
    }

    /// Makes the context current on this thread.
    fn enter(&self) -> Result<(), Error> {
        // SAFETY: the context lives as long as `self`
        self.driver.check("cuCtxSetCurrent", unsafe { (self.driver.context_set)(self.context) })
    }
}

impl Drop for Gpu {
    fn drop(&mut self) {
        if self.enter().is_ok() {
            // SAFETY: whatever used the stream and the context held this `Gpu`
            unsafe {
                (self.driver.stream_destroy)(self.stream);
                (self.driver.context_release)(self.device);
            }
        }
    }
}
