//! The C++ compiler that the software Metal device needs, found or installed.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Result, bail};

use crate::shell;

/// Oldest major version that compiles the kernels.
const OLDEST: u32 = 16;
/// Versions to look for and to install, best first.
const VERSIONS: [u32; 7] = [19, 20, 21, 22, 18, 17, 16];

/// Makes sure that a suitable `clang++` is there, installing one where this user may.
///
/// # Errors
/// None is there and none can be installed; the error says which command to run.
pub fn ensure() -> Result<()> {
    if cfg!(target_os = "macos") || find().is_some() {
        return Ok(());
    }
    let Some(apt) = shell::which("apt-get") else {
        bail!(
            "clang++ {OLDEST} or newer is needed: install clang with your system's package manager, or set METAL_SIM_CXX"
        );
    };
    let package = || {
        let known = |name: &String| {
            let policy = shell::capture(Command::new("apt-cache").args(["policy", name]));
            policy.is_ok_and(|text| text.contains("Candidate:") && !text.contains("Candidate: (none)"))
        };
        VERSIONS.map(|version| format!("clang-{version}")).into_iter().find(known)
    };
    let Some(prefix) = privilege() else {
        let package = package().unwrap_or_else(|| "clang".to_owned());
        bail!("clang++ {OLDEST} or newer is needed; run: sudo apt-get install -y {package}");
    };
    let as_root = |args: &[&str]| {
        let mut command = Command::new("nice");
        // After sudo, because sudo clears the environment.
        command.args(prefix).args(["env", "DEBIAN_FRONTEND=noninteractive"]).arg(&apt).args(args);
        shell::run(&mut command)
    };
    let package = match package() {
        Some(package) => package,
        None => {
            as_root(&["update", "-qq"])?;
            match package() {
                Some(package) => package,
                None => bail!("this system has no clang {OLDEST} or newer; install one and set METAL_SIM_CXX"),
            }
        }
    };
    println!("installing {package}, the C++ compiler of the software Metal device");
    // g++ brings the C++ standard headers that clang looks for.
    as_root(&["install", "-y", "-qq", "--no-install-recommends", &package, "g++"])?;
    match find() {
        Some(_) => Ok(()),
        None => bail!("{package} is installed, but no clang++ {OLDEST} or newer is on PATH"),
    }
}

/// The words before a command that make it run as root; `None` where that is not possible without asking.
fn privilege() -> Option<&'static [&'static str]> {
    let id = shell::capture(Command::new("id").arg("-u")).ok()?;
    if id.trim() == "0" {
        return Some(&[]);
    }
    let sudo = shell::output(Command::new("sudo").args(["-n", "true"])).ok()?;
    sudo.status.success().then_some(&["sudo", "-n"])
}

/// The compiler that the software device will use, when it is new enough.
fn find() -> Option<PathBuf> {
    if let Some(compiler) = std::env::var_os("METAL_SIM_CXX") {
        return Some(compiler.into());
    }
    VERSIONS
        .iter()
        .find_map(|version| shell::which(&format!("clang++-{version}")))
        .or_else(|| shell::which("clang++").filter(|path| major_version(path) >= Some(OLDEST)))
}

fn major_version(compiler: &PathBuf) -> Option<u32> {
    let text = shell::capture(Command::new(compiler).arg("-dumpversion")).ok()?;
    text.split('.').next()?.trim().parse().ok()
}
