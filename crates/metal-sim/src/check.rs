//! Checked mode on the host's side: each dispatch's bindings in memory of their own, what was touched, and hazards between
//! the dispatches of a command buffer.

use std::collections::BTreeSet;
use std::ffi::{CString, c_char, c_void};

use crate::buffer::Buffer;
use crate::command::{Bound, Dispatch};
use crate::counters::{BindingCounters, DispatchCounters};
use crate::error::{Error, Report};
use crate::library::Worker;
use crate::shadow::{Bits, Shadow};

/// Poisoned bytes around a binding.
const RED_ZONE: usize = 4096;

/// Memory that is only read, all written, and this far from other bindings is used where it is.
const LONELY: usize = 1 << 20;

/// As `HostRegion` in msl_check.cpp.
#[repr(C)]
struct HostRegion {
    lo: *mut u8,
    len: u64,
    written: *mut u64,
    was_read: *mut u64,
    was_written: *mut u64,
}

/// As `HostBinding` in msl_check.cpp.
#[repr(C)]
struct HostBinding {
    index: u32,
    region: u32,
    begin: u64,
    end: u64,
    offset: u64,
    name: *const c_char,
    label: *const c_char,
    bytes_read: u64,
    bytes_written: u64,
    writable: u32,
    used: u32,
}

/// `Counters` of `msl_rt.h`.
#[repr(C)]
#[derive(Default)]
pub(crate) struct HostCounters {
    barriers: u64,
    matrix_operations: u64,
    threadgroup_bytes_read: u64,
    threadgroup_bytes_written: u64,
}

pub(crate) type CheckBegin = unsafe extern "C" fn(*mut c_void, *mut c_void, u32, *mut c_void, u32) -> bool;
pub(crate) type CheckEnd = unsafe extern "C" fn(*mut c_void, *mut HostCounters);

/// Overlapping bindings of one buffer, in memory of their own during the dispatch.
struct Region {
    buffer: Buffer,
    begin: usize,
    end: usize,
    /// The copy, with red zones; none where the memory is used in place.
    copy: Vec<u8>,
    data: *mut u8,
    writable: bool,
    /// Bytes that hold something; none if all do.
    written: Option<Bits>,
    was_read: Bits,
    was_written: Bits,
}

impl Region {
    fn len(&self) -> usize {
        self.end - self.begin
    }

    fn source(&self) -> *mut u8 {
        self.buffer.contents().wrapping_add(self.begin)
    }

    /// Copies the binding's bytes out of the buffer; those that nobody wrote stay 0xFF.
    fn copy_in(&mut self) {
        let (source, len) = (self.source(), self.len());
        self.copy = vec![0xFF; len + 3 * RED_ZONE];
        // same place in a page, so that alignment is what it was
        let base = self.copy.as_mut_ptr().wrapping_add(RED_ZONE);
        let shift = (source as usize).wrapping_sub(base as usize) % RED_ZONE;
        self.data = base.wrapping_add(shift);
        match &self.written {
            // SAFETY: the copy has room for `len` bytes at `data`, and the binding was validated against its buffer
            None => unsafe { self.data.copy_from_nonoverlapping(source, len) },
            // SAFETY: as above, byte by byte
            Some(written) => written.for_each(len, |at, count| unsafe {
                self.data.add(at).copy_from_nonoverlapping(source.add(at), count);
            }),
        }
    }

    /// Copies what the dispatch wrote back, and marks it written.
    fn copy_out(&self) {
        if self.copy.is_empty() {
            return;
        }
        let mut written = self.buffer.written();
        self.was_written.for_each(self.len(), |at, count| {
            // SAFETY: both ranges are inside the region
            unsafe { self.source().add(at).copy_from_nonoverlapping(self.data.add(at), count) };
            written.mark(self.begin + at, self.begin + at + count, self.buffer.len());
        });
    }
}

fn regions(dispatch: &Dispatch) -> (Vec<Region>, Vec<usize>) {
    let arguments = dispatch.kernel.arguments();
    let mut order: Vec<_> = arguments.iter().map(|argument| (argument.index as usize, argument.writable)).collect();
    order.sort_by_key(|(index, _)| {
        let bound = &dispatch.bindings[*index];
        (bound.buffer.contents() as usize, bound.offset)
    });
    let mut regions: Vec<Region> = Vec::new();
    let mut region_of = vec![0; dispatch.bindings.len()];
    for (index, writable) in order {
        let bound = &dispatch.bindings[index];
        let (begin, end) = (bound.offset, bound.offset + bound.len);
        match regions.last_mut() {
            Some(last) if last.buffer.is_same(&bound.buffer) && begin < last.end => {
                last.end = last.end.max(end);
                last.writable |= writable;
            }
            _ => regions.push(Region {
                buffer: bound.buffer.clone(),
                begin,
                end,
                copy: Vec::new(),
                data: std::ptr::null_mut(),
                writable,
                written: None,
                was_read: Bits::default(),
                was_written: Bits::default(),
            }),
        }
        region_of[index] = regions.len() - 1;
    }
    let ranges: Vec<_> = regions.iter().map(|region| (region.source() as usize, region.len())).collect();
    for (number, region) in regions.iter_mut().enumerate() {
        let len = region.len();
        region.was_read = Bits::new(len);
        region.was_written = Bits::new(len);
        region.written = match &*region.buffer.written() {
            Shadow::Everything => None,
            Shadow::Nothing => Some(Bits::new(len)),
            Shadow::Some(bits) => Some(bits.slice(region.begin, region.end)),
        };
        let (at, _) = ranges[number];
        let lonely = ranges.iter().enumerate().all(|(other, (begin, other_len))| {
            other == number || *begin >= at + len + LONELY || begin + other_len + LONELY <= at
        });
        if !region.writable && region.written.is_none() && lonely {
            region.data = region.source();
        } else {
            region.copy_in();
        }
    }
    (regions, region_of)
}

/// What one dispatch touched of one buffer.
struct Touched {
    dispatch: usize,
    kernel: String,
    buffer: Buffer,
    begin: usize,
    end: usize,
    read: Bits,
    written: Bits,
}

/// The dispatches of a command buffer since the last barrier.
#[derive(Default)]
pub(crate) struct Segment {
    touched: Vec<Touched>,
    dispatches: usize,
}

impl Segment {
    /// A barrier: what came before is done.
    pub(crate) fn barrier(&mut self) {
        self.touched.clear();
    }

    fn hazard(earlier: &Touched, later: &Touched) -> Option<(usize, &'static str)> {
        let (begin, end) = (earlier.begin.max(later.begin), earlier.end.min(later.end));
        let mut at = begin;
        while at < end {
            let window = |bits: &Bits, base: usize| bits.window(at - base);
            let (earlier_read, earlier_written) =
                (window(&earlier.read, earlier.begin), window(&earlier.written, earlier.begin));
            let (later_read, later_written) = (window(&later.read, later.begin), window(&later.written, later.begin));
            let kinds = [
                (earlier_written & later_read, "is written by the first and read by the second"),
                (earlier_read & later_written, "is read by the first and written by the second"),
                (earlier_written & later_written, "is written by both"),
            ];
            for (bits, kind) in kinds {
                let first = at + bits.trailing_zeros() as usize;
                if bits != 0 && first < end {
                    return Some((first, kind));
                }
            }
            at += 64;
        }
        None
    }

    fn add(&mut self, kernel: &str, regions: Vec<Region>) -> Vec<Report> {
        let dispatch = self.dispatches;
        self.dispatches += 1;
        let mut reports = Vec::new();
        let mut seen = BTreeSet::new();
        let mut new = Vec::new();
        for region in regions.into_iter().filter(|region| !region.buffer.is_read_only()) {
            let Region { buffer, begin, end, was_read, was_written, .. } = region;
            let later = Touched {
                dispatch,
                kernel: kernel.to_owned(),
                buffer,
                begin,
                end,
                read: was_read,
                written: was_written,
            };
            for earlier in self.touched.iter().filter(|earlier| earlier.buffer.is_same(&later.buffer)) {
                let Some((byte, kind)) = Self::hazard(earlier, &later) else { continue };
                if seen.insert((earlier.dispatch, kind)) {
                    reports.push(Report {
                        kernel: kernel.to_owned(),
                        message: format!(
                            "no barrier between dispatch {} ({}) and dispatch {dispatch} ({kernel}): byte {byte} of buffer {} {kind}",
                            earlier.dispatch,
                            earlier.kernel,
                            later.buffer.label(),
                        ),
                    });
                }
            }
            new.push(later);
        }
        self.touched.extend(new);
        reports
    }
}

fn c_string(text: &str) -> CString {
    // a label with a NUL is cut there
    CString::new(text.split('\0').next().unwrap_or_default()).unwrap_or_default()
}

/// The counts of an indirect grid as memory that its dispatch reads.
fn counts_region(Bound { buffer, offset, len }: &Bound) -> Region {
    let mut was_read = Bits::new(*len);
    was_read.set(0, *len);
    Region {
        buffer: buffer.clone(),
        begin: *offset,
        end: offset + len,
        copy: Vec::new(),
        data: std::ptr::null_mut(),
        writable: false,
        written: None,
        was_read,
        was_written: Bits::new(*len),
    }
}

/// A dispatch that writes what its own grid is read from: the device may read it again while the threadgroups run.
fn writes_own_counts(kernel: &str, counts: &Region, regions: &[Region]) -> Option<Report> {
    let own = regions.iter().find(|region| {
        let (begin, end) = (region.begin.max(counts.begin), region.end.min(counts.end));
        region.buffer.is_same(&counts.buffer)
            && begin < end
            && region.was_written.count(begin - region.begin, end - region.begin) > 0
    })?;
    let message = format!("it writes its own threadgroup counts, buffer {} byte {}", own.buffer.label(), counts.begin);
    Some(Report { kernel: kernel.to_owned(), message })
}

/// Runs `threadgroups` of one dispatch with every access checked.
pub(crate) fn run(
    worker: &mut Worker,
    (begin, end): (CheckBegin, CheckEnd),
    dispatch: &Dispatch,
    threadgroups: [u32; 3],
    segment: &mut Segment,
) -> Result<(Vec<Report>, DispatchCounters), Error> {
    let (mut regions, region_of) = regions(dispatch);
    let mut host_regions: Vec<_> = regions
        .iter_mut()
        .map(|region| HostRegion {
            lo: region.data,
            len: region.len() as u64,
            written: region.written.as_mut().map_or(std::ptr::null_mut(), |bits| bits.words.as_mut_ptr()),
            was_read: region.was_read.words.as_mut_ptr(),
            was_written: region.was_written.words.as_mut_ptr(),
        })
        .collect();
    let arguments = dispatch.kernel.arguments();
    let texts: Vec<_> = arguments
        .iter()
        .map(|argument| {
            let bound = &dispatch.bindings[argument.index as usize];
            (c_string(&argument.name), c_string(bound.buffer.label()))
        })
        .collect();
    let mut pointers = vec![std::ptr::null_mut(); dispatch.bindings.len()];
    let mut host_bindings = Vec::new();
    for (argument, (name, label)) in arguments.iter().zip(&texts) {
        let index = argument.index as usize;
        let bound = &dispatch.bindings[index];
        let region = &regions[region_of[index]];
        let begin = bound.offset - region.begin;
        pointers[index] = region.data.wrapping_add(begin).cast();
        host_bindings.push(HostBinding {
            index: argument.index,
            region: region_of[index] as u32,
            begin: begin as u64,
            end: (begin + bound.len) as u64,
            offset: bound.offset as u64,
            name: name.as_ptr(),
            label: label.as_ptr(),
            bytes_read: 0,
            bytes_written: 0,
            writable: u32::from(argument.writable),
            used: 0,
        });
    }
    // SAFETY: the arrays have the layouts and lengths told, and live until `end`
    let begun = unsafe {
        begin(
            worker.pointer(),
            host_regions.as_mut_ptr().cast(),
            host_regions.len() as u32,
            host_bindings.as_mut_ptr().cast(),
            host_bindings.len() as u32,
        )
    };
    if !begun {
        return Err(Error::WorkerMemory);
    }
    let loaded = dispatch.kernel.object()?;
    let groups = threadgroups.iter().map(|groups| u64::from(*groups)).product();
    let mut counted = HostCounters::default();
    // SAFETY: every binding points to memory of its length, which checked mode does not leave
    unsafe {
        worker.run(loaded, &dispatch.kernel, &pointers, threadgroups, dispatch.threads, 0..groups);
        end(worker.pointer(), &raw mut counted);
    }
    let name = dispatch.kernel.name();
    let mut reports = worker.take_reports(name);
    if !reports.is_empty() {
        loaded.resolve(&mut reports);
    }
    let bindings = arguments
        .iter()
        .zip(&host_bindings)
        .map(|(argument, host)| {
            let region = &regions[host.region as usize];
            let (begin, end) = (host.begin as usize, host.end as usize);
            BindingCounters {
                index: argument.index,
                name: argument.name.clone(),
                label: region.buffer.label().to_owned(),
                bytes_read: host.bytes_read,
                bytes_written: host.bytes_written,
                unique_bytes_read: region.was_read.count(begin, end),
                unique_bytes_written: region.was_written.count(begin, end),
            }
        })
        .collect();
    for region in &regions {
        region.copy_out();
    }
    let counts = dispatch.grid.counts().map(|counts| counts_region(&counts.bound));
    let counts_bytes_read = counts.as_ref().map_or(0, Region::len) as u64;
    reports.extend(counts.as_ref().and_then(|counts| writes_own_counts(name, counts, &regions)));
    regions.extend(counts);
    reports.extend(segment.add(name, regions));
    let HostCounters { barriers, matrix_operations, threadgroup_bytes_read, threadgroup_bytes_written } = counted;
    let counters = DispatchCounters {
        kernel: name.to_owned(),
        threadgroups,
        counts_bytes_read,
        bindings,
        barriers,
        matrix_operations,
        threadgroup_bytes_read,
        threadgroup_bytes_written,
    };
    Ok((reports, counters))
}
