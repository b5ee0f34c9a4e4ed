#!/usr/bin/env bash
# usage: setup.sh PREFIX
# On Debian 12 x86-64, puts a compiler with std and clippy for aarch64-apple-darwin, a linker set-up and link-time
# stubs of the Apple libraries into PREFIX, and writes PREFIX/env. Needs root for apt-get, rustup's toolchain
# (cargo, rust-lld), python3 and pip.
set -euo pipefail
prefix=$(mkdir -p "$1" && cd "$1" && pwd)
here=$(cd "$(dirname "$0")" && pwd)
target=aarch64-apple-darwin
rustup_bin=$(rustc --print sysroot)/lib/rustlib/x86_64-unknown-linux-gnu/bin

# Lists as a machine comes with may know an older rustc alone than projects ask for.
apt-get update -qq || true
# Debian's newest rustc is the only one whose std can be built for a target that Debian does not ship.
std=$(apt-cache depends libstd-rust-web-dev | sed -n 's/.*Depends: \(libstd-rust-web-[0-9.]*\)$/\1/p' | head -1)
llvm=$(apt-cache depends "$std" | sed -n 's/.*Depends: \(libllvm[0-9]*\).*/\1/p' | head -1)
apt-get install -y -qq --no-install-recommends "$llvm" gcc libc6-dev >/dev/null
mkdir -p "$prefix/dl"
cd "$prefix/dl"
apt-get -o APT::Sandbox::User=root download -qq rustc-web rust-web-clippy libstd-rust-web-dev "$std" rust-web-src
for package in rustc-web_*.deb rust-web-clippy_*.deb libstd-rust-web-*.deb; do dpkg-deb -x "$package" "$prefix"; done
dpkg-deb --fsys-tarfile rust-web-src_*.deb |
    tar -x -C "$prefix" --wildcards './usr/lib/rustlib/src/*' './usr/src/rustc-*/library'
sysroot=$prefix/usr
for tool in rustc clippy-driver; do
    printf '#!/bin/sh\nLD_LIBRARY_PATH=%s exec %s "$@"\n' \
        "$sysroot/lib/x86_64-linux-gnu" "$sysroot/bin/$tool" >"$prefix/$tool"
    chmod +x "$prefix/$tool"
done
echo "unpacked $("$prefix/rustc" --version)"

python3 -m pip download -q --no-deps --no-cache-dir -d "$prefix/dl" "ziglang==0.17.0"
python3 - "$prefix"/dl/ziglang-*.whl "$prefix/dl/libSystem.tbd" <<'PY'
import sys, zipfile
with zipfile.ZipFile(sys.argv[1]) as wheel, open(sys.argv[2], "wb") as out:
    out.write(wheel.read("ziglang/lib/libc/darwin/libSystem.tbd"))
PY
bash "$here/stubs.sh" "$prefix/sdk" "$prefix/dl/libSystem.tbd"

cat >"$prefix/env.new" <<ENV
export RUSTC=$prefix/rustc SDKROOT=$prefix/sdk
export CARGO_TARGET_AARCH64_APPLE_DARWIN_LINKER=$rustup_bin/rust-lld
export CARGO_TARGET_AARCH64_APPLE_DARWIN_RUSTFLAGS="-Clinker-flavor=ld64.lld"
ENV

# std, once, into the private sysroot.
build=$prefix/stdbuild
mkdir -p "$build/src"
: >"$build/src/lib.rs"
printf '[package]\nname = "stdbuild"\nversion = "0.0.0"\nedition = "2024"\n[workspace]\n' >"$build/Cargo.toml"
(
    . "$prefix/env.new"
    cd "$build"
    export CARGO_TARGET_DIR=$build/target RUSTC_BOOTSTRAP=1
    cargo build -q --release -Zbuild-std=std,panic_unwind,panic_abort,proc_macro,test --target $target
)
mkdir -p "$sysroot/lib/rustlib/$target/lib"
cp "$build/target/$target/release/deps/"lib*.rlib "$sysroot/lib/rustlib/$target/lib/"
rm -f "$sysroot/lib/rustlib/$target/lib/"libstdbuild-*
rm -rf "$build" "$prefix/dl"
# The last step: env is there only when everything is.
mv "$prefix/env.new" "$prefix/env"
echo "$target: std installed, $(du -sh "$prefix" | cut -f1) in all"
