#!/bin/bash
# Random and invented code into the translator, for every host, ordering and extent, and damaged ELF files into the loader: neither may panic,
# and each piece of code takes bounded time and memory. A failure names its seed. usage: scripts/fuzz-bytes.sh SECONDS
set -euo pipefail
cd "$(dirname "$0")/.."
export PATH=/usr/bin:$PATH XRUN_FUZZ_SECONDS=$1
: "${CARGO_TARGET_DIR:=$PWD/target}" "${XRUN_FUZZ_SEED:=$RANDOM$RANDOM}"
export CARGO_TARGET_DIR XRUN_FUZZ_SEED
cargo test --quiet --test translate_anything -- --nocapture
cargo test --quiet -p xrun-runtime --lib damaged_files
