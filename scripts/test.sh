#!/bin/bash
# Everything CI runs. Every step runs even when one before it failed; the last line says how many
# checks passed and failed.
#   CPUS      AArch64 CPU models for the suites that run under qemu-aarch64 (x86_64 hosts only)
#   PROGRAMS  short, default or full: how many Debian programs on how many models (tests/programs.rs)
set -uo pipefail
cd "$(dirname "$0")/.."
host=$(uname -m)
target=aarch64-unknown-linux-gnu
: "${CARGO_TARGET_DIR:=$PWD/target}" "${CPUS:=cortex-a72 neoverse-n1 neoverse-v1 max}" "${PROGRAMS:=default}"
export CARGO_TARGET_DIR CPUS PROGRAMS
unset XRUN QEMU # steps that use them say so
export PATH=/usr/bin:$PATH # Debian's own Rust first
export CARGO_TERM_PROGRESS_WHEN=never
# Translations are kept as they are by default, but not at home, and none from an earlier day.
export XRUN_CACHE=$PWD/target/tests/kept
rm -rf "$XRUN_CACHE"
xrun=$CARGO_TARGET_DIR/$target/release/xrun
log=$PWD/target/test.log
mkdir -p target
: >"$log"
passed=0 failed=0 failures=()

step() { # name, command...
    local name=$1 start=$SECONDS before rc
    shift
    printf '\n== %s\n' "$name" | tee -a "$log"
    before=$(wc -l <"$log")
    "$@" 2>&1 | tee -a "$log"
    rc=${PIPESTATUS[0]}
    # Test runners say how many they ran; a step that is one check counts as one.
    local counts p f
    counts=$(tail -n +$((before + 1)) "$log" |
        sed -nE 's/^test result: [a-zA-Z]+\. ([0-9]+) passed; ([0-9]+) failed.*/\1 \2/p; s/^([0-9]+) passed, ([0-9]+) failed$/\1 \2/p' |
        awk '{ p += $1; f += $2 } END { if (NR) print p, f }')
    read -r p f <<<"${counts:-$((rc == 0)) $((rc != 0))}"
    # A runner that died before its last line has failed too.
    if [ "$rc" != 0 ] && [ "$f" = 0 ]; then f=1; fi
    passed=$((passed + p)) failed=$((failed + f))
    [ "$rc" != 0 ] && failures+=("$name")
    printf -- '-- %s: %d passed, %d failed, %d s\n' "$name" "$p" "$f" $((SECONDS - start)) | tee -a "$log"
    return "$rc"
}

# The tests that run AArch64 code, under qemu-aarch64 as CPU model $1.
on_aarch64() {
    local rc=0
    export QEMU_CPU=$1 CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_RUNNER="/usr/bin/qemu-aarch64-static -cpu $1"
    cargo test --quiet --target $target -p xrun-runtime || rc=1
    cargo test --quiet --target $target -p xrun --test oracle || rc=1
    return $rc
}

finish() {
    printf '\n'
    for name in ${failures[@]+"${failures[@]}"}; do printf 'FAILED: %s\n' "$name"; done
    printf '%d passed, %d failed\n' "$passed" "$failed"
    [ "$failed" = 0 ] && [ "${#failures[@]}" = 0 ]
    exit
}

step "set-up" scripts/setup.sh || finish
step "Debian programs" scripts/roots.sh || finish
step "text data" scripts/data.sh || finish
# By their own names: cargo would look for its subcommands in its home first, where another toolchain's may be.
clippy() { /usr/bin/cargo-clippy clippy --quiet --workspace --all-targets "$@" -- -D warnings; }
step "format" /usr/bin/cargo-fmt fmt --all --check
step "licences" scripts/licences.sh
step "clippy" clippy
if [ "$host" = x86_64 ]; then
    step "clippy for AArch64" clippy --target $target
fi
step "release build" cargo build --quiet --release --target $target --bin xrun || finish
step "release binary" scripts/check-binary.sh "$xrun"

if [ "$host" = x86_64 ]; then
    # The translator is pure: it is tested natively. The runtime, and what translated code does, need AArch64.
    step "native tests" cargo test --quiet --workspace
    # A first run of each test binary, on the first model, also builds them.
    for cpu in $CPUS; do
        step "AArch64 tests, $cpu" on_aarch64 "$cpu"
        step "system calls, $cpu" env XRUN="$xrun" QEMU_CPU="$cpu" QEMU="qemu-aarch64-static -cpu $cpu" \
            cargo test --quiet --test syscalls
    done
else
    step "tests" env XRUN="$xrun" cargo test --quiet --workspace
fi
step "kept translations" env XRUN="$xrun" cargo test --quiet --test cache
step "programs" env XRUN="$xrun" cargo test --quiet --test programs
step "bench smoke" env XRUN="$xrun" cargo bench --quiet --profile dev --bench ratio -- --smoke
if [ "$host" = x86_64 ]; then
    step "instruction counts" env XRUN="$xrun" cargo bench --quiet --profile dev --bench ratio -- --gate
fi
step "fuzz smoke" scripts/fuzz.sh 20
finish
