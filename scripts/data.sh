#!/bin/bash
# Real text to measure on, the same on every machine: the Perl and Python sources and manuals of the
# unpacked amd64 root, in the order of their names.
#   target/data/text       21 to 22 MB
#   target/data/text.bz2   the same by pbzip2, in many independent blocks
#   target/data/text-1m, -5m   its first one and five million bytes; the first also as .bz2, .gz and .xz
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/native.sh
mkdir -p target/data
out=target/data/text
if [ ! -s $out.bz2 ] || [ target/roots/amd64/.stamp -nt $out.bz2 ]; then
    (cd target/roots/amd64/usr && find share/perl lib/python3.11 lib/x86_64-linux-gnu/perl lib/x86_64-linux-gnu/perl-base \
        -type f \( -name '*.p[lmy]' -o -name '*.pod' \) -print0 |
        LC_ALL=C sort -z | xargs -0 cat) >$out.all
    head -c 22000000 $out.all >$out
    rm $out.all
    head -c 1000000 $out >$out-1m
    head -c 5000000 $out >$out-5m
    size=$(stat -c %s $out)
    [ "$size" -ge 20000000 ] || { echo "data: only $size bytes of text" >&2; exit 1; }
    native_tool pbzip2 -zkc -p2 $out >$out.bz2.new
    native_tool pbzip2 -zkc -p2 -b1 $out-1m >$out-1m.bz2
    native_tool gzip -nc $out-1m >$out-1m.gz
    native_tool xz -c $out-1m >$out-1m.xz
    mv $out.bz2.new $out.bz2
    echo "data: $out ($size bytes), $out.bz2 ($(stat -c %s $out.bz2) bytes)"
fi
