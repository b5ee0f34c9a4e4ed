//! A kernel file compiled for the GPU at hand.

use std::ffi::{CString, c_char, c_int};
use std::sync::Arc;

use super::Gpu;
use super::driver::{Handle, MAX_THREADS_PER_BLOCK, Nvrtc};
use crate::error::Error;
use crate::library::{Argument, Code, KernelInfo, Library};
use crate::msl::{self, CUDA_HEADERS, KernelSource};

/// The kernels of one file on one GPU.
pub(crate) struct Module {
    gpu: Arc<Gpu>,
    module: Handle,
    /// By the kernel's index in the file.
    functions: Vec<Function>,
}

/// A kernel, and the indices of its buffers in the order of its parameters.
pub(super) struct Function {
    pub(super) handle: Handle,
    pub(super) buffers: Vec<usize>,
}

// SAFETY: handles of the driver may be used from every thread that has the context current
unsafe impl Send for Module {}
// SAFETY: as above
unsafe impl Sync for Module {}

impl Drop for Module {
    fn drop(&mut self) {
        if self.gpu.enter().is_ok() {
            // SAFETY: jobs hold the kernels they run, and those this module
            unsafe { (self.gpu.driver.module_unload)(self.module) };
        }
    }
}

impl Module {
    pub(super) fn function(&self, index: u32) -> &Function {
        &self.functions[index as usize]
    }

    pub(super) fn is_on(&self, gpu: &Arc<Gpu>) -> bool {
        Arc::ptr_eq(&self.gpu, gpu)
    }
}

fn c_string(text: &str) -> CString {
    // a kernel file with a NUL in it ends there, and does not compile
    CString::new(text.split('\0').next().unwrap_or_default()).unwrap_or_default()
}

/// Compiles CUDA text to a cubin for compute capability `capability`. `file` is the name for messages.
///
/// # Errors
/// What NVRTC says, whole; or that it is not there.
pub(super) fn compile(text: &str, file: &str, capability: (c_int, c_int)) -> Result<Vec<u8>, Error> {
    let nvrtc = Nvrtc::load()?;
    let failed = |call: &str, status: c_int| Error::Cuda { reason: format!("{call} failed ({status})") };
    let texts = CUDA_HEADERS.map(|(name, header)| (c_string(name), c_string(header)));
    let headers = texts.each_ref().map(|(_, header)| header.as_ptr());
    let names = texts.each_ref().map(|(name, _)| name.as_ptr());
    let (text, name) = (c_string(text), c_string("kernels.cu"));
    let options = [
        format!("-arch=sm_{}{}", capability.0, capability.1),
        "-std=c++17".to_owned(),
        "-default-device".to_owned(),
        // lines of the kernel file in what compute-sanitizer and ncu report
        "-lineinfo".to_owned(),
        "-w".to_owned(),
    ]
    .map(|option| c_string(&option));
    let options = options.each_ref().map(|option| option.as_ptr());
    let mut program = std::ptr::null_mut();
    // SAFETY: all strings and arrays outlive the program, which is destroyed before the function ends; the log and the cubin
    // have the sizes that NVRTC told
    unsafe {
        let count = headers.len() as c_int;
        let status =
            (nvrtc.create)(&raw mut program, text.as_ptr(), name.as_ptr(), count, headers.as_ptr(), names.as_ptr());
        if status != 0 {
            return Err(failed("nvrtcCreateProgram", status));
        }
        let compiled = (nvrtc.compile)(program, options.len() as c_int, options.as_ptr());
        let read = |size: unsafe extern "C" fn(Handle, *mut usize) -> c_int,
                    get: unsafe extern "C" fn(Handle, *mut c_char) -> c_int| {
            let mut bytes = 0;
            let mut status = size(program, &raw mut bytes);
            let mut buffer = vec![0u8; bytes];
            if status == 0 && bytes > 0 {
                status = get(program, buffer.as_mut_ptr().cast());
            }
            if status == 0 { Ok(buffer) } else { Err(failed("NVRTC", status)) }
        };
        let result = if compiled == 0 {
            read(nvrtc.cubin_size, nvrtc.cubin)
        } else {
            read(nvrtc.log_size, nvrtc.log).and_then(|log| {
                let messages = String::from_utf8_lossy(&log).trim_end_matches('\0').to_owned();
                Err(Error::Compile { compiler: "NVRTC".to_owned(), file: file.to_owned(), messages })
            })
        };
        (nvrtc.destroy)(&raw mut program);
        result
    }
}

fn arguments(kernel: &KernelSource) -> Vec<Argument> {
    let argument = |parameter: &msl::Parameter| {
        let index = parameter.argument.as_deref().and_then(|index| index.parse().ok())?;
        let (name, type_name) = (parameter.name.clone(), parameter.core_type());
        Some(Argument { index, name, type_name, writable: parameter.is_writable() })
    };
    kernel.buffers().filter_map(argument).collect()
}

impl Gpu {
    /// Compiles and loads MSL text. `file` is the name for messages.
    ///
    /// # Errors
    /// MSL that is not handled, what NVRTC says, or a failure of the driver.
    pub(crate) fn library(self: &Arc<Self>, source: &str, file: &str) -> Result<Library, Error> {
        let rewritten = msl::rewrite(source, file)?;
        let cubin = compile(&rewritten.cuda(file)?, file, self.capability)?;
        self.enter()?;
        let driver = &self.driver;
        let mut handle = std::ptr::null_mut();
        // SAFETY: the image is a whole cubin
        driver.check("cuModuleLoadData", unsafe { (driver.module_load)(&raw mut handle, cubin.as_ptr().cast()) })?;
        let mut module = Module { gpu: Arc::clone(self), module: handle, functions: Vec::new() };
        let mut kernels = Vec::new();
        for (index, kernel) in rewritten.kernels.iter().enumerate() {
            let name = c_string(&format!("msl_kernel_{}", kernel.name));
            let (mut function, mut limit) = (std::ptr::null_mut(), 0);
            // SAFETY: the module is loaded, and each pointer is to a local of the type it fills
            unsafe {
                let status = (driver.module_function)(&raw mut function, handle, name.as_ptr());
                driver.check(&format!("kernel {}: cuModuleGetFunction", kernel.name), status)?;
                let status = (driver.function_attribute)(&raw mut limit, MAX_THREADS_PER_BLOCK, function);
                driver.check("cuFuncGetAttribute", status)?;
            }
            let mut arguments = arguments(kernel);
            let buffers = arguments.iter().map(|argument| argument.index as usize).collect();
            module.functions.push(Function { handle: function, buffers });
            arguments.sort_by_key(|argument| argument.index);
            let thread_limit = limit.unsigned_abs();
            kernels.push(Arc::new(KernelInfo {
                index: index as u32,
                name: kernel.name.clone(),
                arguments,
                line: kernel.line,
                max_threads: if kernel.max_threads.is_some() { thread_limit } else { 0 },
                thread_limit,
            }));
        }
        Ok(Library::new(Code::Cuda(Arc::new(module)), kernels))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[ignore = "needs NVRTC"]
    fn emitted_kernels_compile_and_errors_have_lines() {
        for project in ["demo", "llama"] {
            let path = format!("{}/../../tests/snapshots/{project}/shaders/kernels.metal", env!("CARGO_MANIFEST_DIR"));
            let source = std::fs::read_to_string(path).expect("the snapshots are there");
            let text = msl::rewrite(&source, "kernels.metal").and_then(|rewritten| rewritten.cuda("kernels.metal"));
            let cubin = compile(&text.expect("is handled"), "kernels.metal", (9, 0)).expect("compiles");
            assert!(cubin.starts_with(b"\x7fELF"));
        }
        let wrong = "#include \"msl_cuda.h\"\n#line 1 \"kernels.metal\"\n\nint f() { return nothing; }\n";
        let error = compile(wrong, "kernels.metal", (9, 0)).expect_err("does not compile").to_string();
        assert!(
            error.contains("NVRTC rejected kernels.metal:\nkernels.metal(2): error: identifier \"nothing\""),
            "{error}"
        );
    }
}
