//! The functions of the CUDA driver (`cuda.h`) and of NVRTC (`nvrtc.h`) that are used, loaded by name. Names with `_v2` are
//! those that the headers' names stand for.

use std::ffi::{CStr, OsString, c_char, c_int, c_uchar, c_uint, c_ulonglong, c_void};

use crate::error::Error;

/// A context, stream, event, module, function, graph or node.
pub(super) type Handle = *mut c_void;

/// `CUresult` or `nvrtcResult`; 0 is success.
pub(super) type Status = c_int;

/// `CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR` and `_MINOR`.
pub(super) const COMPUTE_CAPABILITY_MAJOR: c_int = 75;
pub(super) const COMPUTE_CAPABILITY_MINOR: c_int = 76;
/// `CU_FUNC_ATTRIBUTE_MAX_THREADS_PER_BLOCK`.
pub(super) const MAX_THREADS_PER_BLOCK: c_int = 0;
/// `CU_STREAM_NON_BLOCKING`: no waiting for copies by other threads.
pub(super) const NON_BLOCKING: c_uint = 1;

/// `CUDA_KERNEL_NODE_PARAMS_v2`.
#[repr(C)]
pub(super) struct KernelNode {
    pub(super) function: Handle,
    pub(super) grid: [c_uint; 3],
    pub(super) block: [c_uint; 3],
    pub(super) shared_bytes: c_uint,
    pub(super) parameters: *mut *mut c_void,
    pub(super) extra: *mut *mut c_void,
    pub(super) kernel: Handle,
    pub(super) context: Handle,
}

macro_rules! library {
    ($(#[$doc:meta])* $name:ident { $($field:ident = $symbol:literal ($($argument:ty),*);)* }) => {
        $(#[$doc])*
        pub(super) struct $name {
            $(pub(super) $field: unsafe extern "C" fn($($argument),*) -> Status,)*
            _library: libloading::Library,
        }

        impl $name {
            fn from_library(library: libloading::Library) -> Result<Self, Error> {
                let missing = |source: libloading::Error| Error::Cuda { reason: source.to_string() };
                $(
                    // SAFETY: the type is that of the function in the library's header
                    let $field = *unsafe { library.get(concat!($symbol, "\0").as_bytes()) }.map_err(missing)?;
                )*
                Ok(Self { $($field,)* _library: library })
            }
        }
    };
}

library! {
    /// The CUDA driver, 12.0 or newer.
    Driver {
        init = "cuInit"(c_uint);
        error_string = "cuGetErrorString"(Status, *mut *const c_char);
        device_get = "cuDeviceGet"(*mut c_int, c_int);
        device_name = "cuDeviceGetName"(*mut c_char, c_int, c_int);
        device_memory = "cuDeviceTotalMem_v2"(*mut usize, c_int);
        device_attribute = "cuDeviceGetAttribute"(*mut c_int, c_int, c_int);
        context_retain = "cuDevicePrimaryCtxRetain"(*mut Handle, c_int);
        context_release = "cuDevicePrimaryCtxRelease_v2"(c_int);
        context_set = "cuCtxSetCurrent"(Handle);
        module_load = "cuModuleLoadData"(*mut Handle, *const c_void);
        module_unload = "cuModuleUnload"(Handle);
        module_function = "cuModuleGetFunction"(*mut Handle, Handle, *const c_char);
        function_attribute = "cuFuncGetAttribute"(*mut c_int, c_int, Handle);
        allocate = "cuMemAlloc_v2"(*mut u64, usize);
        free = "cuMemFree_v2"(u64);
        fill = "cuMemsetD8Async"(u64, c_uchar, usize, Handle);
        upload = "cuMemcpyHtoDAsync_v2"(u64, *const c_void, usize, Handle);
        download = "cuMemcpyDtoH_v2"(*mut c_void, u64, usize);
        pin = "cuMemHostRegister_v2"(*mut c_void, usize, c_uint);
        unpin = "cuMemHostUnregister"(*mut c_void);
        stream_create = "cuStreamCreate"(*mut Handle, c_uint);
        stream_destroy = "cuStreamDestroy_v2"(Handle);
        stream_wait = "cuStreamSynchronize"(Handle);
        event_create = "cuEventCreate"(*mut Handle, c_uint);
        event_record = "cuEventRecord"(Handle, Handle);
        event_wait = "cuEventSynchronize"(Handle);
        event_elapsed = "cuEventElapsedTime"(*mut f32, Handle, Handle);
        event_destroy = "cuEventDestroy_v2"(Handle);
        graph_create = "cuGraphCreate"(*mut Handle, c_uint);
        graph_kernel = "cuGraphAddKernelNode_v2"(*mut Handle, Handle, *const Handle, usize, *const KernelNode);
        graph_empty = "cuGraphAddEmptyNode"(*mut Handle, Handle, *const Handle, usize);
        graph_destroy = "cuGraphDestroy"(Handle);
        graph_instantiate = "cuGraphInstantiateWithFlags"(*mut Handle, Handle, c_ulonglong);
        graph_update = "cuGraphExecKernelNodeSetParams_v2"(Handle, Handle, *const KernelNode);
        graph_launch = "cuGraphLaunch"(Handle, Handle);
        graph_executable_destroy = "cuGraphExecDestroy"(Handle);
    }
}

library! {
    /// The run-time compiler.
    Nvrtc {
        create = "nvrtcCreateProgram"(
            *mut Handle, *const c_char, *const c_char, c_int, *const *const c_char, *const *const c_char
        );
        compile = "nvrtcCompileProgram"(Handle, c_int, *const *const c_char);
        log_size = "nvrtcGetProgramLogSize"(Handle, *mut usize);
        log = "nvrtcGetProgramLog"(Handle, *mut c_char);
        cubin_size = "nvrtcGetCUBINSize"(Handle, *mut usize);
        cubin = "nvrtcGetCUBIN"(Handle, *mut c_char);
        destroy = "nvrtcDestroyProgram"(*mut Handle);
    }
}

/// The first of `names` that loads.
fn load(names: &[OsString], what: &str) -> Result<libloading::Library, Error> {
    let mut failures = Vec::new();
    for name in names {
        // SAFETY: NVIDIA's libraries run no initialisers with conditions of their own
        match unsafe { libloading::Library::new(name) } {
            Ok(library) => return Ok(library),
            Err(source) => failures.push(source.to_string()),
        }
    }
    Err(Error::Cuda { reason: format!("{what} cannot be loaded: {}", failures.join("; ")) })
}

impl Driver {
    /// Loads the driver's library.
    ///
    /// # Errors
    /// A machine without the driver, or with one that is too old.
    pub(super) fn load() -> Result<Self, Error> {
        Self::from_library(load(&["libcuda.so.1".into(), "libcuda.so".into()], "the CUDA driver")?)
    }

    /// The error of a call that failed.
    pub(super) fn check(&self, call: &str, status: Status) -> Result<(), Error> {
        if status == 0 {
            return Ok(());
        }
        let mut text = std::ptr::null();
        // SAFETY: fills `text` with a constant string, or leaves it null for a number it does not know
        unsafe { (self.error_string)(status, &raw mut text) };
        let meaning = if text.is_null() {
            "unknown error".into()
        } else {
            // SAFETY: the driver's strings end with a zero and are constant
            unsafe { CStr::from_ptr(text) }.to_string_lossy()
        };
        Err(Error::Cuda { reason: format!("{call}: {meaning} ({status})") })
    }
}

impl Nvrtc {
    /// Loads NVRTC: `METAL_SIM_NVRTC`, else by the names of the toolkit's versions, also where it is installed by default.
    ///
    /// # Errors
    /// A machine without it.
    pub(super) fn load() -> Result<Self, Error> {
        let named = std::env::var_os("METAL_SIM_NVRTC");
        let usual = ["libnvrtc.so", "libnvrtc.so.13", "libnvrtc.so.12", "/usr/local/cuda/lib64/libnvrtc.so"];
        let names: Vec<OsString> = named.map_or_else(|| usual.map(OsString::from).into(), |name| vec![name]);
        Self::from_library(load(&names, "NVRTC")?)
    }
}
