//! From program counters in reports to lines of the kernel file, through the object's DWARF sections.

use addr2line::gimli::{Dwarf, EndianSlice, LittleEndian, SectionId};

type Reader<'a> = EndianSlice<'a, LittleEndian>;

fn number<const N: usize>(bytes: &[u8], at: usize) -> Option<u64> {
    let mut value = [0; 8];
    value[..N].copy_from_slice(bytes.get(at..at + N)?);
    Some(u64::from_le_bytes(value))
}

/// The bytes of a section of a 64-bit little-endian ELF file ("ELF-64 object file format", section header table).
fn section<'a>(object: &'a [u8], name: &str) -> Option<&'a [u8]> {
    let table = number::<8>(object, 0x28)? as usize;
    let (size, count) = (number::<2>(object, 0x3a)? as usize, number::<2>(object, 0x3c)? as usize);
    let data = |index: usize| {
        let header = table + index * size;
        let (begin, len) = (number::<8>(object, header + 0x18)? as usize, number::<8>(object, header + 0x20)? as usize);
        object.get(begin..begin.checked_add(len)?)
    };
    let names = data(number::<2>(object, 0x3e)? as usize)?;
    (0..count).find_map(|index| {
        let rest = names.get(number::<4>(object, table + index * size)? as usize..)?;
        let end = rest.iter().position(|byte| *byte == 0)?;
        (&rest[..end] == name.as_bytes()).then(|| data(index)).flatten()
    })
}

/// The debug information of one compiled kernel file.
pub(crate) struct Symbols<'a> {
    context: addr2line::Context<Reader<'a>>,
}

impl<'a> Symbols<'a> {
    /// None where the object holds none that can be read.
    pub(crate) fn new(object: &'a [u8]) -> Option<Self> {
        let load = |id: SectionId| {
            Ok::<_, addr2line::gimli::Error>(EndianSlice::new(section(object, id.name()).unwrap_or(&[]), LittleEndian))
        };
        let context = addr2line::Context::from_dwarf(Dwarf::load(load).ok()?).ok()?;
        Some(Self { context })
    }

    /// `kernels.metal:12`: the innermost inlined place outside of the headers.
    fn line(&self, address: u64) -> Option<String> {
        let mut frames = self.context.find_frames(address).skip_all_loads().ok()?;
        let mut first = None;
        while let Some(frame) = frames.next().ok()? {
            let Some((file, line)) = frame.location.and_then(|at| Some((at.file?, at.line?))) else { continue };
            let name = file.rsplit('/').next().unwrap_or(file);
            let text = format!("{name}:{line}");
            if !name.starts_with("metal_") && !name.starts_with("msl_") {
                return Some(text);
            }
            first.get_or_insert(text);
        }
        first
    }

    /// `message` with every `pc+0x1f` made a line, where it is known.
    pub(crate) fn resolve(&self, message: &str) -> String {
        let mut pieces = message.split("pc+0x");
        let mut text = pieces.next().unwrap_or_default().to_owned();
        for piece in pieces {
            let digits = piece.find(|c: char| !c.is_ascii_hexdigit()).unwrap_or(piece.len());
            let line = u64::from_str_radix(&piece[..digits], 16).ok().and_then(|address| self.line(address));
            text += &line.unwrap_or_else(|| format!("pc+0x{}", &piece[..digits]));
            text += &piece[digits..];
        }
        text
    }
}
