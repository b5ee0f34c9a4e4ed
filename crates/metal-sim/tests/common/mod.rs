//! What the tests share.
#![allow(dead_code, reason = "each test file uses its part")]

use metal_sim::{Binding, Buffer, CompileOptions, Device, Error, Library, Timing};

pub fn libraries(source: &str, name: &str) -> Vec<Library> {
    [false, true].map(|checked| library(source, name, checked)).into()
}

pub fn library(source: &str, name: &str, checked: bool) -> Library {
    match Library::from_source(source, name, &CompileOptions { checked }) {
        Ok(library) => library,
        Err(error) => panic!("{error}"),
    }
}

pub fn filled(device: &Device, label: &str, bytes: &[u8]) -> Buffer {
    let buffer = device.buffer(label, bytes.len());
    buffer.write(0, bytes);
    buffer
}

pub fn floats(device: &Device, label: &str, values: &[f32]) -> Buffer {
    let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
    filled(device, label, &bytes)
}

pub fn read_floats(buffer: &Buffer) -> Vec<f32> {
    let mut bytes = vec![0; buffer.len()];
    buffer.read(0, &mut bytes);
    bytes.chunks_exact(4).map(|bytes| f32::from_le_bytes(bytes.try_into().expect("four bytes"))).collect()
}

/// Runs one dispatch over whole buffers.
pub fn run(
    library: &Library,
    device: &Device,
    kernel: &str,
    buffers: &[&Buffer],
    groups: [u32; 3],
    threads: [u32; 3],
) -> Result<Timing, Error> {
    let kernel = library.kernel(kernel).expect("is in the file");
    let bindings: Vec<Binding<'_>> = buffers.iter().map(|buffer| buffer.whole()).collect();
    let mut commands = device.command_buffer("test");
    commands.dispatch(&kernel, &bindings, groups, threads);
    commands.commit().wait()
}

/// The texts of the reports of a run that must fail.
pub fn reports(result: Result<Timing, Error>) -> Vec<String> {
    match result {
        Err(Error::Checked { reports }) => reports.iter().map(ToString::to_string).collect(),
        Err(error) => panic!("{error}"),
        Ok(_) => Vec::new(),
    }
}
