//! From MSL text to a shared object, through the rewriting in [`crate::msl`] and the host's clang++.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::{env, fs};

use crate::cache::Cache;
use crate::error::Error;
use crate::msl;

/// How kernels are compiled.
///
/// `METAL_SIM_CACHE` names a folder where compiled kernels are kept and found again by their text, for one machine and one
/// version of the compiler.
///
/// The code may use every instruction of this host, as is right where the machine that compiles also runs. For an object
/// that other machines load, `METAL_SIM_CPU` names the oldest one (`x86-64-v3`, `generic`).
#[derive(Clone, Debug, Default)]
pub struct CompileOptions {
    /// Whether every access is checked as it happens; some ten times slower.
    pub checked: bool,
}

/// Headers and runtime sources, by path below the include folder.
const SOURCES: [(&str, &str); 10] = [
    ("metal_stdlib", include_str!("../cpp/include/metal_stdlib")),
    ("msl_atomic.h", include_str!("../cpp/include/msl_atomic.h")),
    ("msl_math.h", include_str!("../cpp/include/msl_math.h")),
    ("msl_matrix.h", include_str!("../cpp/include/msl_matrix.h")),
    ("msl_simd.h", include_str!("../cpp/include/msl_simd.h")),
    ("msl_types.h", include_str!("../cpp/include/msl_types.h")),
    ("msl_rt.h", include_str!("../cpp/rt/msl_rt.h")),
    ("msl_rt.cpp", include_str!("../cpp/rt/msl_rt.cpp")),
    ("msl_check.h", include_str!("../cpp/rt/msl_check.h")),
    ("msl_check.cpp", include_str!("../cpp/rt/msl_check.cpp")),
];

/// MSL's partial headers; each is all of metal_stdlib here.
const PARTIAL_HEADERS: [&str; 13] = [
    "metal_atomic",
    "metal_common",
    "metal_compute",
    "metal_geometric",
    "metal_integer",
    "metal_limits",
    "metal_math",
    "metal_matrix",
    "metal_relational",
    "metal_simdgroup",
    "metal_simdgroup_matrix",
    "metal_type_traits",
    "metal_types",
];

const COMMON: &[&str] = &[
    "-std=c++17",
    "-fPIC",
    "-fsigned-char",
    "-ffp-contract=on",
    "-fno-math-errno",
    "-fno-strict-aliasing",
    "-fno-exceptions",
    "-fno-rtti",
    "-fvisibility=hidden",
    "-fvisibility-inlines-hidden",
];

const KERNEL: &[&str] = &[
    "-Xclang",
    "-cl-single-precision-constant",
    "-Xclang",
    "-ffloat16-excess-precision=none",
    "-Wall",
    "-Wno-unused-function",
    "-Wno-unused-variable",
    "-Wno-unused-but-set-variable",
    "-Wno-unknown-attributes",
    "-Wno-unused-const-variable",
    "-Wno-reserved-user-defined-literal",
    // fibres have small stacks
    "-Werror=frame-larger-than",
];

/// Reports of checks name lines.
const CHECKED: &[&str] = &["-DMSL_CHECK", "-g1", "-gdwarf-4"];

/// Every access of a kernel becomes a call of ours (`msl_check.cpp`): clang's sanitizers without their runtimes.
const INSTRUMENTED: &[&str] = &[
    "-O1",
    "-fno-vectorize",
    "-fno-slp-vectorize",
    "-fsanitize=thread",
    "-fsanitize=bounds,shift,integer-divide-by-zero,float-cast-overflow,signed-integer-overflow",
    "-fsanitize-recover=all",
    "-mllvm",
    "-tsan-instrument-func-entry-exit=0",
    "-mllvm",
    "-tsan-instrument-memintrinsics=1",
    "-mllvm",
    "-tsan-instrument-read-before-write=1",
    "-Wframe-larger-than=32768",
];

/// The clang++ to use: `METAL_SIM_CXX`, else the first of the names that Linux distributions give it.
///
/// # Errors
/// Where there is none of version 16 or newer.
pub fn compiler() -> Result<OsString, Error> {
    if let Some(named) = env::var_os("METAL_SIM_CXX") {
        return Ok(named);
    }
    let names: Vec<String> = [19, 20, 21, 22, 18, 17, 16].iter().map(|version| format!("clang++-{version}")).collect();
    let names = names.into_iter().chain(["clang++".to_owned()]);
    let mut tried = Vec::new();
    for name in names {
        let version = Command::new(&name).arg("-dumpversion").stderr(Stdio::null()).output();
        if let Ok(version) = version {
            let text = String::from_utf8_lossy(&version.stdout);
            let major = text.split('.').next().and_then(|major| major.trim().parse::<u32>().ok());
            if major.is_some_and(|major| major >= 16) {
                return Ok(name.into());
            }
        }
        tried.push(name);
    }
    Err(Error::CompilerMissing { tried: tried.join(", ") })
}

fn write(path: &Path, text: &str) -> Result<(), Error> {
    fs::write(path, text).map_err(|source| Error::Io { path: path.to_owned(), source })
}

/// The flag that says which processor to compile for.
fn cpu() -> String {
    let cpu = env::var("METAL_SIM_CPU").unwrap_or_else(|_| "native".to_owned());
    match (cfg!(target_arch = "x86_64"), cpu.as_str()) {
        (true, "generic") => "-march=x86-64".to_owned(),
        (true, cpu) => format!("-march={cpu}"),
        (false, cpu) => format!("-mcpu={cpu}"),
    }
}

/// The object that is made of the kernel file.
const KERNELS: &str = "kernels";

struct Build<'a> {
    compiler: OsString,
    /// Where compiled files are kept.
    cache: Option<&'a Path>,
    file_name: &'a str,
    options: &'a CompileOptions,
}

impl Build<'_> {
    fn command(&self, folder: &Path) -> Command {
        let mut command = Command::new(&self.compiler);
        command.current_dir(folder).args(COMMON).arg("-I.").arg(cpu());
        if self.options.checked {
            command.args(CHECKED);
        }
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    /// The files to compile, with the flags of each.
    fn objects(&self) -> Vec<(&'static str, Vec<&'static str>)> {
        let instrumented: &[&str] =
            if self.options.checked { INSTRUMENTED } else { &["-O3", "-Wframe-larger-than=16384"] };
        let mut objects = vec![(KERNELS, [KERNEL, instrumented].concat()), ("msl_rt", vec!["-O2"])];
        if self.options.checked {
            objects.push(("msl_check", vec!["-O2"]));
        }
        objects
    }

    /// All that the compiled kernels follow from. Lines count, since reports speak of them, and what is behind their ends
    /// does not: comments are blanks here.
    fn key(&self, cpp: &str) -> Vec<String> {
        let mut key = self.key_of_sources(&format!("{:?}", self.objects()));
        key.extend(cpp.lines().map(|line| line.trim_end().to_owned()));
        key
    }

    /// All that an object of [`SOURCES`] alone follows from; `which` is its name and its flags.
    fn key_of_sources(&self, which: &str) -> Vec<String> {
        let mut key = vec![self.compiler.to_string_lossy().into_owned(), cpu(), which.to_owned()];
        key.push([COMMON, if self.options.checked { CHECKED } else { &[] }].concat().join(" "));
        key.extend(SOURCES.iter().map(|(_, text)| (*text).to_owned()));
        key
    }

    /// Compiles and links what is in `folder`; gives the shared object.
    fn link(&self, folder: &Path) -> Result<PathBuf, Error> {
        let objects = self.objects();
        let mut children = Vec::new();
        for (name, flags) in &objects {
            let object = folder.join(format!("{name}.o"));
            // The runtime is the same for all kernels.
            let place = |cache| Cache::new(cache, &self.key_of_sources(&format!("{name} {flags:?}")), "o");
            let kept = self.cache.filter(|_| *name != KERNELS).map(place);
            if kept.as_ref().is_some_and(|kept| kept.fetch(&object)) {
                continue;
            }
            let mut command = self.command(folder);
            command.args(flags).args(["-c", &format!("{name}.cpp"), "-o", &format!("{name}.o")]);
            children.push((self.spawn(&mut command)?, kept, object));
        }
        // all are waited for, so that none writes into a folder that is gone
        let finished = children.into_iter().map(|(child, kept, object)| {
            self.finish(child)?;
            if let Some(kept) = kept {
                kept.keep(&object);
            }
            Ok(())
        });
        finished.collect::<Vec<Result<(), Error>>>().into_iter().collect::<Result<(), _>>()?;
        let mut link = self.command(folder);
        link.args(["-shared", "-Wl,-z,defs", "-o", "kernels.so"])
            .args(objects.iter().map(|(name, _)| format!("{name}.o")))
            .arg("-lm");
        self.finish(self.spawn(&mut link)?)?;
        Ok(folder.join("kernels.so"))
    }

    fn spawn(&self, command: &mut Command) -> Result<std::process::Child, Error> {
        command.spawn().map_err(|source| match source.kind() {
            std::io::ErrorKind::NotFound => {
                Error::CompilerMissing { tried: self.compiler.to_string_lossy().into_owned() }
            }
            _ => Error::Io { path: (&self.compiler).into(), source },
        })
    }

    fn finish(&self, child: std::process::Child) -> Result<(), Error> {
        let output = child.wait_with_output().map_err(|source| Error::Io { path: (&self.compiler).into(), source })?;
        if output.status.success() {
            return Ok(());
        }
        Err(Error::Compile {
            compiler: self.compiler.to_string_lossy().into_owned(),
            file: self.file_name.to_owned(),
            messages: String::from_utf8_lossy(&output.stderr).into_owned(),
        })
    }
}

/// Compiles MSL text to a shared object at `out`. `file_name` is the name that messages and reports show.
///
/// # Errors
/// MSL that this device does not handle, a missing clang++ (16 or newer; 19 preferred; `METAL_SIM_CXX` names another), or
/// what clang++ says, whole.
pub fn compile(source: &str, file_name: &str, options: &CompileOptions, out: &Path) -> Result<(), Error> {
    compile_in(env::var_os("METAL_SIM_CACHE").as_deref().map(Path::new), source, file_name, options, out)
}

/// Like [`compile`], with this folder in place of the one that `METAL_SIM_CACHE` names.
///
/// # Errors
/// As of [`compile`].
pub fn compile_in(
    cache: Option<&Path>,
    source: &str,
    file_name: &str,
    options: &CompileOptions,
    out: &Path,
) -> Result<(), Error> {
    let cpp = msl::rewrite(source, file_name)?.cpp(file_name);
    let build = Build { compiler: compiler()?, cache, file_name, options };
    let kept = cache.map(|folder| Cache::new(folder, &build.key(&cpp), "so"));
    if kept.as_ref().is_some_and(|kept| kept.fetch(out)) {
        return Ok(());
    }
    let folder = tempfile::tempdir().map_err(|source| Error::Io { path: env::temp_dir(), source })?;
    for (name, text) in SOURCES {
        write(&folder.path().join(name), text)?;
    }
    for name in PARTIAL_HEADERS {
        write(&folder.path().join(name), "#include <metal_stdlib>\n")?;
    }
    write(&folder.path().join("kernels.cpp"), &cpp)?;
    let linked = build.link(folder.path())?;
    if let Some(kept) = kept {
        kept.keep(&linked);
    }
    fs::copy(&linked, out).map(|_| ()).map_err(|source| Error::Io { path: out.to_owned(), source })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kept_kernels_are_found_by_their_text() {
        let folder = tempfile::tempdir().unwrap();
        let (cache, out) = (folder.path().join("kept"), folder.path().join("out.so"));
        let kernel = "kernel void one(device float* y [[buffer(0)]]) { *y = 1.0f; }\n";
        let compile = |text: &str, checked| {
            compile_in(Some(&cache), text, "one.metal", &CompileOptions { checked }, &out).unwrap();
            fs::read(&out).unwrap()
        };
        let kept = |extension: &str| {
            let files = fs::read_dir(&cache).unwrap().map(|entry| entry.unwrap().path());
            files.filter(|file| file.extension().is_some_and(|found| found == extension)).collect::<Vec<PathBuf>>()
        };
        compile(&format!("// A.\n{kernel}"), false);
        assert_eq!((kept("so").len(), kept("o").len()), (1, 1));
        // Not what a compiler writes, so that it is seen where it comes from.
        fs::write(&kept("so")[0], "kept").unwrap();
        assert_eq!(compile(&format!("// Another.\n{kernel}"), false), b"kept");
        // Other lines, another number, checks.
        for (text, checked) in [
            (format!("\n\n{kernel}"), false),
            (format!("\n{}", kernel.replace("1.0f", "2.0f")), false),
            (format!("\n{kernel}"), true),
        ] {
            assert_ne!(compile(&text, checked), b"kept", "{text} {checked}");
        }
        // The runtime, and with checks that of the checks: each once for all kernels.
        assert_eq!((kept("so").len(), kept("o").len()), (4, 3));
        // A cache that cannot be written to is none.
        let file = folder.path().join("file");
        fs::write(&file, "").unwrap();
        compile_in(Some(&file), kernel, "one.metal", &CompileOptions::default(), &out).unwrap();
        assert!(fs::read(&out).unwrap().len() > 1000);
    }
}
