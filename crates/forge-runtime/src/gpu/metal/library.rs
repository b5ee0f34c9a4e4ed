//! From kernels in source or compiled form to pipelines.

use dispatch2::DispatchData;
use objc2::available;
use objc2::rc::Retained;
use objc2::runtime::ProtocolObject;
use objc2_foundation::{NSError, NSString};
use objc2_metal::{
    MTLCompileOptions, MTLComputePipelineState, MTLDevice, MTLLanguageVersion, MTLLibrary,
    MTLMathFloatingPointFunctions, MTLMathMode,
};

use super::super::{GpuError, KernelSpec, Source};

type Pipeline = Retained<ProtocolObject<dyn MTLComputePipelineState>>;
type Library = Retained<ProtocolObject<dyn MTLLibrary>>;

/// A pipeline for each of `specs`, from the compiled library where there is one that this system takes, else from source: a
/// metallib may have been made for a newer macOS.
pub(super) fn pipelines(
    device: &ProtocolObject<dyn MTLDevice>,
    source: &Source,
    specs: &'static [KernelSpec],
) -> Result<Vec<Pipeline>, GpuError> {
    if let Some(compiled) = source.compiled {
        let library = device.newLibraryWithData_error(&DispatchData::from_static_bytes(compiled));
        if let Ok(library) = library
            && let Ok(pipelines) = build(device, &library, specs)
        {
            return Ok(pipelines);
        }
    }
    let library = compile(device, source)?;
    build(device, &library, specs)
}

/// Compiles the text. Warnings alone are no failure: what counts is whether a library came back.
fn compile(device: &ProtocolObject<dyn MTLDevice>, source: &Source) -> Result<Library, GpuError> {
    let options = MTLCompileOptions::new();
    // Unset, the version would follow the SDK that this program was linked with. 3.0 is macOS 13's.
    options.setLanguageVersion(MTLLanguageVersion::Version3_0);
    if available!(macos = 15.0) {
        options.setMathMode(MTLMathMode::Fast);
        options.setMathFloatingPointFunctions(MTLMathFloatingPointFunctions::Fast);
    } else {
        #[allow(deprecated, reason = "its successor does not exist before macOS 15")]
        options.setFastMathEnabled(true);
    }
    device
        .newLibraryWithSource_options_error(&NSString::from_str(source.metal), Some(&options))
        .map_err(|error| GpuError::Compile { file: source.file, log: words(&error) })
}

fn build(
    device: &ProtocolObject<dyn MTLDevice>,
    library: &ProtocolObject<dyn MTLLibrary>,
    specs: &'static [KernelSpec],
) -> Result<Vec<Pipeline>, GpuError> {
    specs
        .iter()
        .map(|spec| {
            let function = library
                .newFunctionWithName(&NSString::from_str(spec.name))
                .ok_or(GpuError::NoKernel { name: spec.name })?;
            device
                .newComputePipelineStateWithFunction_error(&function)
                .map_err(|error| GpuError::Pipeline { name: spec.name, reason: words(&error) })
        })
        .collect()
}

fn words(error: &NSError) -> String {
    error.localizedDescription().to_string()
}
