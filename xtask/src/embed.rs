//! `cargo xtask test --only embed`: the demo project as one file, alone in an empty folder, against the same program with its weights
//! beside it.

use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};

use crate::forge::build_embedded;
use crate::{demo, shell};

const WEIGHTS: &str = "weights.safetensors";
/// What the largest pages are that a program may run with, Apple silicon's.
const PAGE: u64 = 16 << 10;

/// Builds, moves and runs the one file.
///
/// # Errors
/// A program that does not build, needs something beside it, says something else, or holds its weights twice.
pub fn main() -> Result<()> {
    let (project, program) = demo::project()?;
    let folder = tempfile::tempdir()?;
    let beside = folder.path().join("beside");
    fs::copy(&program, &beside).with_context(|| program.display().to_string())?;
    let built = build_embedded(&project)?;
    let alone = folder.path().join("alone");
    fs::create_dir(&alone)?;
    let alone = alone.join("story");
    fs::copy(&built, &alone).with_context(|| built.display().to_string())?;
    let place = place(&fs::read(&alone)?, &fs::read(project.join(WEIGHTS))?)?;
    println!("{place}");

    let args = ["generate", "--raw", "--temperature", "0", "--max-tokens", "32", "One day, a little"];
    let with_file = watched(Command::new(&beside).args(args).arg("--weights").arg(&project))?;
    let weights = fs::metadata(project.join(WEIGHTS))?.len();
    // The program knows where it was built: nothing is to be found there.
    let _hidden = Hidden::new(&project.join(WEIGHTS))?;
    let in_program = watched(Command::new(&alone).args(args).current_dir(folder.path()))?;
    ensure!(with_file.text == in_program.text, "it says {:?} instead of {:?}", in_program.text, with_file.text);
    print!("{}", in_program.text);
    if let (Some(file), Some(program)) = (with_file.anonymous, in_program.anonymous) {
        println!("memory of its own: {file} KiB with the file beside it, {program} KiB alone");
        ensure!(program * 1024 < file * 1024 + weights / 2, "the weights are copied");
    }
    let verified = shell::capture(Command::new(&alone).arg("verify"))?;
    let first = verified.lines().next().unwrap_or_default();
    ensure!(
        first.starts_with("weights in the program: length and header match; ") && first.ends_with("matches its record"),
        "verify says {first:?}"
    );
    Ok(())
}

/// A file under another name as long as this lives.
struct Hidden {
    path: PathBuf,
    away: PathBuf,
}

impl Hidden {
    fn new(path: &Path) -> Result<Self> {
        let away = path.with_extension("away");
        fs::rename(path, &away).with_context(|| path.display().to_string())?;
        Ok(Self { path: path.to_owned(), away })
    }
}

impl Drop for Hidden {
    fn drop(&mut self) {
        let _ = fs::rename(&self.away, &self.path);
    }
}

/// What a run says, and the most memory of its own that was seen, in KiB, where the system tells.
struct Run {
    text: String,
    anonymous: Option<u64>,
}

fn watched(command: &mut Command) -> Result<Run> {
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn()?;
    let status = format!("/proc/{}/status", child.id());
    let anonymous = || {
        let status = fs::read_to_string(&status).ok()?;
        let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:"))?;
        line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()
    };
    let (mut text, mut most) = (Vec::new(), None);
    let mut out = child.stdout.take().context("no output")?;
    let mut piece = [0; 64];
    loop {
        let count = out.read(&mut piece)?;
        // Each word comes when it is there: the model is loaded by then.
        most = most.max(anonymous());
        if count == 0 {
            break;
        }
        text.extend_from_slice(&piece[..count]);
    }
    ensure!(child.wait()?.success(), "{} failed", shell::display(command));
    Ok(Run { text: String::from_utf8(text)?, anonymous: most })
}

/// Where the weights lie in a program or a shared library: in a segment of their own, on pages, whole.
///
/// # Errors
/// They do not, or it is no ELF or Mach-O for a 64-bit little-endian machine.
pub fn place(program: &[u8], weights: &[u8]) -> Result<String> {
    let segments = if program.starts_with(b"\x7fELF") { elf(program) } else { mach_o(program) };
    let segments = segments.context("neither ELF nor Mach-O")?;
    let holds = |segment: &&Segment| {
        let bytes = program.get(segment.offset as usize..).unwrap_or_default();
        bytes.starts_with(weights) && segment.bytes >= weights.len() as u64
    };
    let Some(segment) = segments.iter().find(holds) else { bail!("no segment begins with the weights") };
    let Segment { offset, address, protected, .. } = segment;
    ensure!(offset % PAGE == 0 && address % PAGE == 0, "they begin at {offset:#x} and are mapped to {address:#x}");
    ensure!(protected, "they could be written or run");
    Ok(format!("weights at {offset:#x} of the file, mapped to {address:#x}, {} bytes", weights.len()))
}

/// What a system maps of a program: on Mach-O the section of the weights, which is what the code refers to.
struct Segment {
    offset: u64,
    address: u64,
    bytes: u64,
    /// To read alone, where that was asked for.
    protected: bool,
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

fn long(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(bytes.get(at..at + 8)?.try_into().ok()?))
}

/// `PT_LOAD` entries of the program headers (`Elf64_Phdr`).
fn elf(program: &[u8]) -> Option<Vec<Segment>> {
    const LOAD: u32 = 1;
    let (start, size) = (long(program, 32)? as usize, 56);
    let count = usize::from(u16::from_le_bytes(program.get(56..58)?.try_into().ok()?));
    let headers = (0..count).map(|index| start + index * size).filter(|&at| word(program, at) == Some(LOAD));
    let segment = |at| {
        Some(Segment {
            offset: long(program, at + 8)?,
            address: long(program, at + 16)?,
            bytes: long(program, at + 32)?,
            // No script of one line has a say in it.
            protected: true,
        })
    };
    headers.map(segment).collect()
}

/// Sections of the segment of the weights in a Mach-O file (`mach_header_64`, `LC_SEGMENT_64`, `section_64`).
fn mach_o(program: &[u8]) -> Option<Vec<Segment>> {
    const MAGIC: u32 = 0xfeed_facf;
    const SEGMENT: u32 = 0x19;
    const NAME: &[u8] = b"__WEIGHTS\0";
    /// Sizes of the command and of each section behind it.
    const SIZES: (usize, usize) = (72, 80);
    if word(program, 0)? != MAGIC {
        return None;
    }
    let (mut at, mut sections) = (32, Vec::new());
    for _ in 0..word(program, 16)? {
        if word(program, at)? == SEGMENT && program.get(at + 8..)?.starts_with(NAME) {
            // Initial protection: 1 to read, 2 to write, 4 to run.
            let protected = word(program, at + 60)? == 1;
            for section in 0..word(program, at + 64)? as usize {
                let section = at + SIZES.0 + section * SIZES.1;
                sections.push(Segment {
                    offset: word(program, section + 48)?.into(),
                    address: long(program, section + 32)?,
                    bytes: long(program, section + 40)?,
                    protected,
                });
            }
        }
        at += word(program, at + 4)? as usize;
    }
    Some(sections)
}

#[cfg(test)]
mod tests {
    use super::place;

    #[test]
    fn segments_of_elf() {
        let mut file = vec![0; 3 * 16384];
        file[..4].copy_from_slice(b"\x7fELF");
        file[32..40].copy_from_slice(&64u64.to_le_bytes());
        file[56..58].copy_from_slice(&1u16.to_le_bytes());
        for (at, value) in [(64, 1), (72, 16384), (80, 32768), (96, 7)] {
            file[at..at + 8].copy_from_slice(&(value as u64).to_le_bytes());
        }
        file[16384..16391].copy_from_slice(b"weights");
        assert_eq!(place(&file, b"weights").unwrap(), "weights at 0x4000 of the file, mapped to 0x8000, 7 bytes");
        assert!(place(&file, b"weights!").is_err());
        file[80] = 8;
        assert!(place(&file, b"weights").unwrap_err().to_string().contains("mapped to 0x8008"));
        assert!(place(b"text", b"weights").is_err());
    }

    #[test]
    fn sections_of_mach_o() {
        let mut file = vec![0; 2 * 16384];
        // A command with one section behind it.
        for (at, value) in [(0, 0xfeed_facf_u32), (16, 1), (32, 0x19), (36, 152), (92, 1), (96, 1), (152, 16384)] {
            file[at..at + 4].copy_from_slice(&value.to_le_bytes());
        }
        file[40..49].copy_from_slice(b"__WEIGHTS");
        for (at, value) in [(136, 0x1_0000_4000_u64), (144, 7)] {
            file[at..at + 8].copy_from_slice(&value.to_le_bytes());
        }
        file[16384..16391].copy_from_slice(b"weights");
        assert_eq!(place(&file, b"weights").unwrap(), "weights at 0x4000 of the file, mapped to 0x100004000, 7 bytes");
        let spoiled = |at: usize, value: u8| {
            let mut file = file.clone();
            file[at] = value;
            place(&file, b"weights").unwrap_err().to_string()
        };
        assert!(spoiled(137, 0x48).contains("mapped to 0x100004800"));
        assert!(spoiled(92, 3).contains("written"));
        assert_eq!(spoiled(40, b'-'), "no segment begins with the weights");
    }
}
