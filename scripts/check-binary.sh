#!/bin/bash
# Fails unless $1 is what xrun promises to be: one static-pie AArch64 file with no interpreter and
# no library to load.
set -euo pipefail
f=$1
die() { echo "check-binary: $f $*" >&2; exit 1; }
header=$(LC_ALL=C readelf -hW "$f")
segments=$(LC_ALL=C readelf -lW "$f")
dynamic=$(LC_ALL=C readelf -dW "$f")
grep -q 'Machine: *AArch64' <<<"$header" || die "is not an AArch64 file"
grep -q 'Type: *DYN' <<<"$header" || die "is not position-independent"
grep -q INTERP <<<"$segments" && die "asks for an interpreter"
grep -q NEEDED <<<"$dynamic" && die "needs shared libraries"
grep -q 'FLAGS_1.*PIE' <<<"$dynamic" || die "is not marked PIE"
echo "check-binary: $f: AArch64 static-pie, no interpreter, $(($(stat -c %s "$f") / 1024)) KiB"
