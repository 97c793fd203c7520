#!/bin/bash
# Invented instructions and blocks, run by this x86_64 processor and through the translator, compared;
# a difference is shrunk and printed. usage: scripts/fuzz.sh SECONDS [options of `truth fuzz`]
set -euo pipefail
cd "$(dirname "$0")/.."
seconds=$1
shift
if [ "$(uname -m)" != x86_64 ]; then
    echo "fuzz: the truth is an x86_64 processor and this is $(uname -m); nothing to compare with here"
    exit 0
fi
export PATH=/usr/bin:$PATH
: "${CARGO_TARGET_DIR:=$PWD/target}"
export CARGO_TARGET_DIR
cargo build --quiet --example truth
cargo build --quiet --example truth --target aarch64-unknown-linux-gnu
"$CARGO_TARGET_DIR/debug/examples/truth" fuzz \
    --server "$CARGO_TARGET_DIR/aarch64-unknown-linux-gnu/debug/examples/truth" --time "$seconds" "$@"
