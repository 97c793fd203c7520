#!/bin/bash
# Installs what building, testing and measuring xrun needs, on Debian bookworm (x86_64 or aarch64).
#
# Says what it is about to install before it does; does nothing, quickly, when everything is there.
#   scripts/setup.sh          install what is missing
#   scripts/setup.sh --check  only say what is missing; exit 1 if anything is
#   scripts/setup.sh --vm     what `make test-vm` needs beside: qemu-system-aarch64 and debootstrap
#
# On x86_64 xrun is cross-built and run under qemu-aarch64; on aarch64 it is built and run natively.
set -euo pipefail

check_only=0 vm=0
for arg in "$@"; do
    case "$arg" in --check) check_only=1 ;; --vm) vm=1 ;; *) echo "setup: unknown argument $arg" >&2; exit 2 ;; esac
done

say() { printf 'setup: %s\n' "$*"; }
die() { printf 'setup: %s\n' "$*" >&2; exit 1; }

command -v dpkg >/dev/null || die "this script knows Debian only (dpkg not found); see the lists in it for what is needed"

host=$(dpkg --print-architecture)
rust=(rustc-web cargo-web rustfmt-web rust-web-clippy)
case "$host" in
    amd64)
        foreign=arm64
        # Rust for both sides; a C and C++ cross compiler for the native twins of the benchmarks; nasm for test inputs.
        packages=("${rust[@]}" libstd-rust-web-dev:arm64 gcc g++ libc6-dev
                  gcc-aarch64-linux-gnu g++-aarch64-linux-gnu libc6-dev-arm64-cross nasm make file)
        # bookworm's own qemu (7.2) lacks instructions and fixes the suites rely on.
        backports=(qemu-user-static)
        ;;
    arm64)
        foreign=amd64
        # A C and C++ cross compiler makes the x86_64 test programs.
        packages=("${rust[@]}" gcc g++ libc6-dev gcc-x86-64-linux-gnu g++-x86-64-linux-gnu
                  libc6-dev-amd64-cross nasm make file)
        backports=()
        ;;
    *) die "host architecture $host: xrun is developed on amd64 and arm64 only" ;;
esac
if [ $vm = 1 ]; then
    packages+=(debootstrap cpio e2fsprogs)
    backports+=(qemu-system-arm)
fi

# The programs that the tests and benchmarks run come from Debian too (scripts/roots.sh); that
# needs the package lists of both architectures, which is why the foreign one is always added.

suites() { apt-get indextargets --format '$(RELEASE)' 'Created-By: Packages' 2>/dev/null; }

installed() { # name[:arch]
    local state
    state=$(dpkg-query -W -f='${db:Status-Status}\n' "$1" 2>/dev/null || true)
    case "$state" in *not-installed*) return 1 ;; *installed*) return 0 ;; *) return 1 ;; esac
}

# The release began with a Rust that is too old; its security updates have the one that browsers are built with.
rust_needed=$(sed -n 's/^rust-version = "\(.*\)"/\1/p' "$(dirname "$0")/../Cargo.toml")
too_old() { # package
    local v
    case "$1" in *rust*) v=$(dpkg-query -W -f='${Version}' "$1") && dpkg --compare-versions "$v" lt "$rust_needed" ;; *) return 1 ;; esac
}
missing=() need_security=0
for p in "${packages[@]}"; do
    if ! installed "$p" || too_old "$p"; then missing+=("$p"); fi
done
case " ${missing[*]-} " in
    *rust*) suites | grep -x bookworm-security >/dev/null || need_security=1 ;;
esac
missing_backports=()
for p in ${backports[@]+"${backports[@]}"}; do
    # The old release's package of that name does not do.
    v=$(dpkg-query -W -f='${Version}' "$p" 2>/dev/null || true)
    if ! installed "$p" || dpkg --compare-versions "$v" lt 1:9; then missing_backports+=("$p"); fi
done
need_arch=0
dpkg --print-foreign-architectures | grep -qx "$foreign" || need_arch=1

have_lists() { # suite, architecture
    compgen -G "/var/lib/apt/lists/*_dists_$1_main_binary-$2_Packages*" >/dev/null
}
need_lists=0
for a in amd64 arm64; do
    have_lists bookworm "$a" && have_lists bookworm-backports "$a" || need_lists=1
done
need_backports=0
if [ $need_lists = 1 ]; then
    suites | grep -x bookworm-backports >/dev/null || need_backports=1
fi

# Can the kernel start a program of the other architecture? xrun is an AArch64 program, and guests
# that execute other programs make it start itself again, so on x86_64 the kernel must know how.
# x86_64 programs are never registered: they are xrun's business (and native on x86_64).
aarch64_starts() {
    [ "$host" = arm64 ] && return 0
    local dir rc=0
    dir=$(mktemp -d)
    aarch64_probe "$dir/probe"
    "$dir/probe" >/dev/null 2>&1 || rc=$?
    rm -rf "$dir"
    [ $rc = 42 ]
}
# Writes a 132-byte static AArch64 program that does exit(42): mov x0, #42; mov x8, #93; svc #0.
aarch64_probe() {
    printf '\x7fELF\x02\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00' >"$1"            # ident
    printf '\x02\x00\xb7\x00\x01\x00\x00\x00\x78\x00\x40\x00\x00\x00\x00\x00' >>"$1"  # EXEC, AArch64, entry
    printf '\x40\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00' >>"$1"  # phoff
    printf '\x00\x00\x00\x00\x40\x00\x38\x00\x01\x00\x00\x00\x00\x00\x00\x00' >>"$1"  # sizes
    printf '\x01\x00\x00\x00\x05\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00' >>"$1"  # PT_LOAD r-x
    printf '\x00\x00\x40\x00\x00\x00\x00\x00\x00\x00\x40\x00\x00\x00\x00\x00' >>"$1"  # vaddr
    printf '\x84\x00\x00\x00\x00\x00\x00\x00\x84\x00\x00\x00\x00\x00\x00\x00' >>"$1"  # filesz, memsz
    printf '\x00\x00\x01\x00\x00\x00\x00\x00' >>"$1"                                  # align
    printf '\x40\x05\x80\xd2\xa8\x0b\x80\xd2\x01\x00\x00\xd4' >>"$1"
    chmod +x "$1"
}

need_binfmt=0
aarch64_starts || need_binfmt=1

if [ ${#missing[@]} = 0 ] && [ ${#missing_backports[@]} = 0 ] && [ $need_lists = 0 ] && [ $need_binfmt = 0 ]; then
    say "everything is there"
    exit 0
fi

say "this will, with the rights of root:"
[ $need_arch = 1 ] && say "  - add the architecture $foreign to dpkg (package lists only)"
[ $need_backports = 1 ] && say "  - add the suite bookworm-backports to apt's sources"
[ $need_security = 1 ] && say "  - add the suite bookworm-security to apt's sources"
[ $need_lists = 1 ] && say "  - refresh apt's package lists"
[ ${#missing[@]} != 0 ] && say "  - install ${missing[*]}"
[ ${#missing_backports[@]} != 0 ] && say "  - install from bookworm-backports: ${missing_backports[*]}"
[ $need_binfmt = 1 ] && say "  - register qemu-aarch64-static with the kernel's binfmt_misc, for AArch64 files only"
[ $check_only = 1 ] && exit 1

as_root=()
if [ "$(id -u)" != 0 ]; then
    command -v sudo >/dev/null || die "not root, and there is no sudo"
    as_root=(sudo)
fi
root() { ${as_root[@]+"${as_root[@]}"} "$@"; }
export DEBIAN_FRONTEND=noninteractive
apt() { root env DEBIAN_FRONTEND=noninteractive apt-get -y -o Dpkg::Use-Pty=0 -o DPkg::Lock::Timeout=300 "$@"; }

if [ $need_arch = 1 ]; then root dpkg --add-architecture "$foreign"; fi
add_suite() { # suite, mirror
    say "adding $1 from $2"
    printf 'Types: deb\nURIs: %s\nSuites: %s\nComponents: main\nSigned-By: /usr/share/keyrings/debian-archive-keyring.gpg\n' \
        "$2" "$1" | root tee "/etc/apt/sources.list.d/xrun-${1#bookworm-}.sources" >/dev/null
}
if [ $need_backports = 1 ] || [ $need_security = 1 ]; then
    # The mirror is the one the machine already uses for bookworm itself; security updates lie beside it.
    mirror=$(apt-get indextargets --format '$(RELEASE) $(REPO_URI)' 'Created-By: Packages' |
        awk '$1 == "bookworm" { print $2; exit }')
    [ -n "$mirror" ] || die "apt has no source for bookworm: this script sets up Debian bookworm"
    [ $need_backports = 0 ] || add_suite bookworm-backports "$mirror"
    [ $need_security = 0 ] || add_suite bookworm-security "${mirror%/}-security"
fi
if [ $need_lists = 1 ] || [ ${#missing[@]} != 0 ] || [ ${#missing_backports[@]} != 0 ]; then
    say "refreshing package lists"
    apt -q update
fi
if [ ${#missing[@]} != 0 ]; then
    say "installing ${missing[*]}"
    apt -q install --no-install-recommends "${missing[@]}"
    for p in "${missing[@]}"; do
        ! too_old "$p" || die "$p is older than $rust_needed, and apt has no newer one: add Debian's security updates to its sources"
    done
fi
if [ ${#missing_backports[@]} != 0 ]; then
    say "installing from bookworm-backports: ${missing_backports[*]}"
    apt -q install --no-install-recommends -t bookworm-backports "${missing_backports[@]}"
fi

if ! aarch64_starts; then
    say "registering qemu-aarch64-static for AArch64 files"
    misc=/proc/sys/fs/binfmt_misc
    if [ ! -e $misc/register ]; then
        root modprobe binfmt_misc 2>/dev/null || true
        root mount -t binfmt_misc binfmt_misc $misc ||
            die "cannot mount binfmt_misc: in a container, run this script once on its host"
    fi
    # F: the kernel keeps the emulator open, so it is found from within any root; P: argv[0] is kept.
    magic='\x7f\x45\x4c\x46\x02\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00\xb7\x00'
    mask='\xff\xff\xff\xff\xff\xff\xff\x00\xff\xff\xff\xff\xff\xff\xff\xff\xfe\xff\xff\xff'
    emulator=$(readlink -f "$(command -v qemu-aarch64-static)")
    if [ -e $misc/qemu-aarch64 ]; then echo -1 | root tee $misc/qemu-aarch64 >/dev/null; fi
    printf '%s' ":qemu-aarch64:M::$magic:$mask:$emulator:PF" | root tee $misc/register >/dev/null
    aarch64_starts || die "AArch64 programs still do not start (see $misc/qemu-aarch64)"
fi
say "done"
