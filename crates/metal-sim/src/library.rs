//! A compiled kernel file, loaded: its kernels and the C interface of its runtime (`cpp/rt/msl_rt.cpp`).

use std::ffi::{CStr, c_char, c_void};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::check::{CheckBegin, CheckEnd};
use crate::compile::{CompileOptions, compile};
use crate::error::{Error, Report};
use crate::symbols::Symbols;

/// Must equal `msl_abi()` of the runtime.
const ABI: u32 = 1;

/// Threads a threadgroup can have at most.
pub(crate) const MAX_THREADS: u32 = 1024;

#[repr(C)]
struct KernelRow {
    name: *const c_char,
    thunk: *const c_void,
    arguments: *const c_char,
    line: u32,
    max_threads: u32,
    uses_sync: u32,
}

/// A buffer parameter of a kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Argument {
    /// Its `[[buffer(index)]]`.
    pub index: u32,
    /// Its name in the kernel's declaration.
    pub name: String,
    /// Its element type as written, without address space and qualifiers.
    pub type_name: String,
    /// Whether the kernel may write it: neither `constant` nor a pointer to `const`.
    pub writable: bool,
}

pub(crate) struct KernelInfo {
    pub(crate) index: u32,
    pub(crate) name: String,
    pub(crate) arguments: Vec<Argument>,
    pub(crate) line: u32,
    /// As declared; 0 if absent.
    pub(crate) max_threads: u32,
    /// Threads that a threadgroup can have.
    pub(crate) thread_limit: u32,
}

type Run = unsafe extern "C" fn(*mut c_void, u32, *const *mut c_void, *const u32, *const u32, u64, u64) -> u64;

pub(crate) struct Interface {
    worker_new: unsafe extern "C" fn() -> *mut c_void,
    worker_free: unsafe extern "C" fn(*mut c_void),
    run: Run,
    take_reports: unsafe extern "C" fn(*mut c_void, *mut *const c_char) -> usize,
    /// Only of libraries compiled with checks.
    pub(crate) check: Option<(CheckBegin, CheckEnd)>,
}

/// A shared object of this machine.
pub(crate) struct Loaded {
    pub(crate) interface: Interface,
    /// The file's bytes, for the lines in reports; empty without checks.
    object_bytes: Vec<u8>,
    // last: the functions above live in it
    _object: libloading::Library,
}

/// What runs a library's kernels.
#[derive(Clone)]
pub(crate) enum Code {
    Object(Arc<Loaded>),
    #[cfg(feature = "cuda")]
    Cuda(Arc<crate::cuda::Module>),
}

/// A kernel file compiled and loaded. Cheap to clone.
#[derive(Clone)]
pub struct Library {
    code: Code,
    kernels: Arc<[Arc<KernelInfo>]>,
}

/// One kernel of a [`Library`], which it keeps loaded.
#[derive(Clone)]
pub struct Kernel {
    pub(crate) code: Code,
    pub(crate) info: Arc<KernelInfo>,
}

/// # Safety
/// `text` must point to a NUL-terminated string or be null.
unsafe fn text(text: *const c_char) -> String {
    if text.is_null() {
        return String::new();
    }
    // SAFETY: by this function's contract
    unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned()
}

fn arguments(spec: &str) -> Vec<Argument> {
    let mut arguments: Vec<_> = spec
        .split(' ')
        .filter_map(|one| {
            let mut fields = one.splitn(5, ':');
            let index = fields.next()?.parse().ok()?;
            let name = fields.next()?.to_owned();
            let _kind = fields.next()?;
            let writable = fields.next()? == "write";
            Some(Argument { index, name, type_name: fields.next()?.to_owned(), writable })
        })
        .collect();
    arguments.sort_by_key(|argument| argument.index);
    arguments
}

impl Loaded {
    /// Makes the program counters in `reports` lines of the kernel file.
    pub(crate) fn resolve(&self, reports: &mut [Report]) {
        if let Some(symbols) = Symbols::new(&self.object_bytes) {
            for report in reports {
                report.message = symbols.resolve(&report.message);
            }
        }
    }
}

impl Library {
    pub(crate) fn new(code: Code, kernels: Vec<Arc<KernelInfo>>) -> Self {
        Self { code, kernels: kernels.into() }
    }

    /// Loads a shared object that [`compile`] wrote.
    ///
    /// # Errors
    /// A file that is not there, cannot be loaded, or is not of this version.
    pub fn load(path: impl AsRef<Path>) -> Result<Self, Error> {
        let path = path.as_ref();
        let failed = |source| Error::Load { path: path.to_owned(), source };
        // SAFETY: the object runs no initialisers of its own beyond constant tables; a file that is none of ours is the
        // caller's choice, as with any dynamic library
        let object = unsafe { libloading::Library::new(path) }.map_err(failed)?;
        // SAFETY: the names and types are those of msl_rt.cpp
        let (abi, kernel, interface) = unsafe {
            let check_begin = object.get(b"msl_check_begin\0").ok();
            let check_end = object.get(b"msl_check_end\0").ok();
            (
                *object.get::<unsafe extern "C" fn() -> u32>(b"msl_abi\0").map_err(failed)?,
                *object.get::<unsafe extern "C" fn(u32) -> *const KernelRow>(b"msl_kernel\0").map_err(failed)?,
                Interface {
                    worker_new: *object.get(b"msl_worker_new\0").map_err(failed)?,
                    worker_free: *object.get(b"msl_worker_free\0").map_err(failed)?,
                    run: *object.get(b"msl_run\0").map_err(failed)?,
                    take_reports: *object.get(b"msl_take_reports\0").map_err(failed)?,
                    check: check_begin.zip(check_end).map(|(begin, end)| (*begin, *end)),
                },
            )
        };
        // SAFETY: takes no arguments and reads a constant
        let found = unsafe { abi() };
        if found != ABI {
            return Err(Error::Abi { path: path.to_owned(), expected: ABI, found });
        }
        let mut kernels = Vec::new();
        // SAFETY: msl_kernel gives a row of a constant table with constant strings, or null past its end
        unsafe {
            while let Some(row) = kernel(kernels.len() as u32).as_ref() {
                kernels.push(Arc::new(KernelInfo {
                    index: kernels.len() as u32,
                    name: text(row.name),
                    arguments: arguments(&text(row.arguments)),
                    line: row.line,
                    max_threads: row.max_threads,
                    thread_limit: if row.max_threads > 0 { row.max_threads.min(MAX_THREADS) } else { MAX_THREADS },
                }));
            }
        }
        let object_bytes = if interface.check.is_some() {
            fs::read(path).map_err(|source| Error::Io { path: path.to_owned(), source })?
        } else {
            Vec::new()
        };
        Ok(Self::new(Code::Object(Arc::new(Loaded { interface, object_bytes, _object: object })), kernels))
    }

    /// Loads the bytes of a shared object, such as a program embeds.
    ///
    /// # Errors
    /// As [`Library::load`], and where no temporary file can be written.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, Error> {
        let folder = tempfile::tempdir().map_err(|source| Error::Io { path: std::env::temp_dir(), source })?;
        let path: PathBuf = folder.path().join("kernels.so");
        fs::write(&path, bytes).map_err(|source| Error::Io { path: path.clone(), source })?;
        Self::load(&path)
    }

    /// Compiles and loads MSL text; see [`compile`].
    ///
    /// # Errors
    /// As [`compile`] and [`Library::load`].
    pub fn from_source(source: &str, file_name: &str, options: &CompileOptions) -> Result<Self, Error> {
        let folder = tempfile::tempdir().map_err(|source| Error::Io { path: std::env::temp_dir(), source })?;
        let path = folder.path().join("kernels.so");
        compile(source, file_name, options, &path)?;
        Self::load(&path)
    }

    /// The kernel of this name.
    pub fn kernel(&self, name: &str) -> Option<Kernel> {
        let info = self.kernels.iter().find(|kernel| kernel.name == name)?;
        Some(Kernel { code: self.code.clone(), info: Arc::clone(info) })
    }

    /// The names of all kernels, in the order of the file.
    pub fn kernels(&self) -> Vec<String> {
        self.kernels.iter().map(|kernel| kernel.name.clone()).collect()
    }

    /// Whether it was compiled with checks.
    pub fn is_checked(&self) -> bool {
        match &self.code {
            Code::Object(loaded) => loaded.interface.check.is_some(),
            #[cfg(feature = "cuda")]
            Code::Cuda(_) => false,
        }
    }
}

impl Kernel {
    /// Its name.
    pub fn name(&self) -> &str {
        &self.info.name
    }

    /// The line of its declaration in the MSL source.
    pub fn line(&self) -> u32 {
        self.info.line
    }

    /// Its buffer parameters, by index.
    pub fn arguments(&self) -> &[Argument] {
        &self.info.arguments
    }

    /// `[[max_total_threads_per_threadgroup]]`, where declared.
    pub fn max_total_threads_per_threadgroup(&self) -> Option<u32> {
        (self.info.max_threads > 0).then_some(self.info.max_threads)
    }

    /// The threads that one threadgroup may have: as declared, else 1024; fewer where a GPU's registers do not suffice.
    pub fn thread_limit(&self) -> u32 {
        self.info.thread_limit
    }

    /// The shared object it is in.
    ///
    /// # Errors
    /// A kernel that was compiled for a GPU.
    pub(crate) fn object(&self) -> Result<&Arc<Loaded>, Error> {
        match &self.code {
            Code::Object(loaded) => Ok(loaded),
            #[cfg(feature = "cuda")]
            Code::Cuda(_) => Err(Error::OtherDevice { kernel: self.info.name.clone() }),
        }
    }
}

/// One thread's machine: stacks, threadgroup memory, reports.
pub(crate) struct Worker {
    pointer: *mut c_void,
    // the code that made it also frees it
    owner: Arc<Loaded>,
}

// SAFETY: a worker is plain memory, used by the one thread that holds it
unsafe impl Send for Worker {}

impl Worker {
    pub(crate) fn new(owner: &Arc<Loaded>) -> Result<Self, Error> {
        // SAFETY: takes no arguments
        let pointer = unsafe { (owner.interface.worker_new)() };
        if pointer.is_null() {
            return Err(Error::WorkerMemory);
        }
        Ok(Self { pointer, owner: Arc::clone(owner) })
    }

    pub(crate) fn pointer(&mut self) -> *mut c_void {
        self.pointer
    }

    /// Runs threadgroups `range` of the grid; true if nothing was reported.
    ///
    /// # Safety
    /// `kernel` must be a kernel of `loaded`, that of the worker's mode, and every pointer it uses in `buffers` valid for
    /// all it does.
    pub(crate) unsafe fn run(
        &mut self,
        loaded: &Loaded,
        kernel: &Kernel,
        buffers: &[*mut c_void],
        threadgroups: [u32; 3],
        threads: [u32; 3],
        range: std::ops::Range<u64>,
    ) -> bool {
        // SAFETY: by this function's contract; the arrays have the lengths that msl_run reads
        let reports = unsafe {
            (loaded.interface.run)(
                self.pointer,
                kernel.info.index,
                buffers.as_ptr(),
                threadgroups.as_ptr(),
                threads.as_ptr(),
                range.start,
                range.end,
            )
        };
        reports == 0
    }

    /// The reports since the last call.
    pub(crate) fn take_reports(&mut self, kernel: &str) -> Vec<Report> {
        let mut text: *const c_char = std::ptr::null();
        // SAFETY: the worker is ours, and `text` is set to its buffer of the returned length
        let bytes = unsafe {
            let length = (self.owner.interface.take_reports)(self.pointer, &raw mut text);
            if length == 0 { &[] } else { std::slice::from_raw_parts(text.cast::<u8>(), length) }
        };
        bytes
            .split(|byte| *byte == 0)
            .filter(|report| !report.is_empty())
            .map(|report| Report { kernel: kernel.to_owned(), message: String::from_utf8_lossy(report).into_owned() })
            .collect()
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        // SAFETY: made by the same library's msl_worker_new, and not used after this
        unsafe { (self.owner.interface.worker_free)(self.pointer) }
    }
}
