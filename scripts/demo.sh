#!/bin/bash
# xrun's main job, shown: Debian's amd64 pbzip2, four threads, decompresses real text; the output is
# compared with the native run's and with the text itself, and the time is shown beside qemu-x86_64's.
# usage: scripts/demo.sh "QEMU COMMAND or empty" XRUN
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/native.sh
qemu=$1
xrun=$2
root=target/roots/amd64
data=target/data/text
[ -s $data.bz2 ] || { echo "demo: no data; use make demo" >&2; exit 1; }
size=$(stat -c %s $data)
want=$(sha256sum <$data | cut -d' ' -f1)

printf '\n%s of text, sha256 %s\n' "$size bytes" "$want"
[ -n "$qemu" ] && printf 'This is not an AArch64 machine: AArch64 programs run under "%s".\n' "$qemu"
printf '%-44s %10s   %s\n' "pbzip2 -dc -p4" "seconds" "output"
failed=0
run() { # label, command...
    local label=$1 start end got
    shift
    printf '%-44s ' "$label"
    start=$(date +%s%N)
    got=$("$@" 2>target/demo.stderr | sha256sum | cut -d' ' -f1) || true
    end=$(date +%s%N)
    printf '%10s   ' "$(awk -v ns=$((end - start)) 'BEGIN { printf "%.2f", ns / 1e9 }')"
    if [ "$got" = "$want" ]; then
        echo "equal"
    else
        echo "DIFFERS (sha256 $got)"
        head -5 target/demo.stderr
        return 1
    fi
}
run "native ($(uname -m))" native_tool pbzip2 -dc -p4 $data.bz2 || failed=1
run "xrun" $qemu "$xrun" -L $root $root/usr/bin/pbzip2 -dc -p4 $data.bz2 || failed=1
# The peer's failure is its own; it is shown, and does not fail the demo. The model that QEMU_CPU names is an AArch64 one, which it does not know.
run "qemu-x86_64 (AArch64 build)" env -u QEMU_CPU $qemu target/roots/peers/qemu-x86_64 -L $root $root/usr/bin/pbzip2 -dc -p4 $data.bz2 || true
rm -f target/demo.stderr
exit $failed
