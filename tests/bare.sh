#!/usr/bin/env bash
# README's commands on a bare system, timed: a fresh root file system of Debian 12 or Ubuntu 24.04 by debootstrap, the
# packages that README asks for, Rust, a clone of this repository, and then each command in turn.
#
#     sudo tests/bare.sh debian|ubuntu FOLDER [COMMAND ..]
#
# FOLDER must not exist; it takes some 4 GB and is removed in the end. Without COMMAND these are README's first commands
# but for `cargo xtask test`. Rust is not fetched: the toolchain that runs here is mounted there, to read alone. Where
# SSL_CERT_FILE names certificates, the system there trusts them too. Seconds are of the clock and of processors: the
# second figure is what other work on this machine does not change much.
set -euo pipefail

fail() {
    echo "error: $*" >&2
    exit 1
}

[ $# -ge 2 ] || fail "usage: tests/bare.sh debian|ubuntu FOLDER [COMMAND ..]"
case $1 in
debian) suite=bookworm components=main keys=/usr/share/keyrings/debian-archive-keyring.gpg ;;
# clang is in "universe", which an installed Ubuntu has.
ubuntu) suite=noble components=main,universe keys=/usr/share/keyrings/ubuntu-archive-keyring.gpg ;;
*) fail "debian or ubuntu, not $1" ;;
esac
system=$1 root=$2
shift 2
[ ! -e "$root" ] || fail "$root exists"
[ "$(id -u)" = 0 ] || fail "debootstrap and chroot need root"
repository=$(cd "$(dirname "$0")/.." && pwd)
rust=$(rustc --print sysroot)

# What README says is needed, and its commands.
readme=$repository/README.md
packages=$(sed -n 's/^ *sudo apt-get install -y //p' "$readme" | head -n 1)
[ -n "$packages" ] || fail "README names no packages"
if [ $# -eq 0 ]; then
    set -- "cargo xtask demo" "cargo install --locked --path crates/forge" "forge inspect assets/demo/model.Q8_0.gguf"
    for command in "${@:1:2}"; do
        grep -q "^    $command\( \|$\)" "$readme" || fail "README does not have: $command"
    done
fi

mounts=()
clean() {
    for ((i = ${#mounts[@]} - 1; i >= 0; i--)); do umount "${mounts[i]}" || umount --lazy "${mounts[i]}"; done
    # Nothing that is mounted is ever removed.
    if ! grep -q " $(realpath "$root")/" /proc/mounts; then rm -rf --one-file-system "$root"; fi
}
trap clean EXIT
# mount_in WHAT WHERE: to read alone.
mount_in() {
    if [ -d "$1" ]; then mkdir -p "$root$2"; else mkdir -p "$root$(dirname "$2")" && touch "$root$2"; fi
    mount --bind "$1" "$root$2"
    mounts+=("$root$2")
    mount -o remount,ro,bind "$root$2"
}
inside() {
    local certificates=()
    if [ -n "${SSL_CERT_FILE:-}" ]; then
        certificates=(SSL_CERT_FILE=/opt/certificates CARGO_HTTP_CAINFO=/opt/certificates)
    fi
    chroot "$root" /usr/bin/env -i HOME=/opt/home LANG=C.UTF-8 DEBIAN_FRONTEND=noninteractive "${certificates[@]}" \
        PATH=/opt/home/.cargo/bin:/opt/rust/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
        /bin/bash -c "$1" </dev/null
}
# timed LABEL COMMAND
report=()
timed() {
    echo "== $1"
    local TIMEFORMAT='%R %U %S' times
    { times=$({ time "$2" "$3" >&3 2>&4; } 2>&1); } 3>&1 4>&2
    report+=("$(awk -v name="$1" '{ printf "%-60s %7.1f s, processors %7.1f s", name, $1, $2 + $3 }' <<<"$times")")
    echo "${report[-1]}"
}

bare() {
    local check=(--no-check-gpg)
    if [ -e "$keys" ]; then check=(--keyring="$keys"); else echo "the packages' signatures are not checked: $keys is not here"; fi
    debootstrap --variant=minbase --components="$components" "${check[@]}" "$suite" "$root" >"$log"
}
log=$(mktemp)
timed "debootstrap $suite" bare ""
rm -f "$log"
mount -t proc proc "$root/proc"
mounts+=("$root/proc")
mount_in "$rust" /opt/rust
if [ -n "${SSL_CERT_FILE:-}" ]; then mount_in "$SSL_CERT_FILE" /opt/certificates; fi
mkdir -p "$root/opt/home"
git clone --quiet --bare "$repository" "$root/srv/forge.git"

timed "apt-get install $packages" inside "apt-get update -qq && apt-get install -y -qq $packages >/dev/null"
timed "git clone" inside "git clone --quiet /srv/forge.git /opt/forge"
for command in "$@"; do
    timed "$command" inside "cd /opt/forge && $command"
done

echo
echo "$system $(inside '. /etc/os-release; echo "$VERSION"'), $(inside 'rustc --version'), $(nproc) processors," \
    "$(du -sxh "$root" | cut -f 1) in the end"
printf '%s\n' "${report[@]}"
