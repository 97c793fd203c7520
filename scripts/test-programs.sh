#!/bin/bash
# Larger Debian programs under xrun: fixtures/large/*.sh, each run in the unpacked root of target/roots/programs-* by chroot, natively and
# under xrun; standard output and exit code must be the same. Needs root (chroot).
#   scripts/test-programs.sh [NAME...]     all of them if none is said
# The last line says how many passed and failed. TIMEOUT: seconds a case may take under xrun (3600).
set -euo pipefail
cd "$(dirname "$0")/.."
scripts/setup.sh
case "$(uname -m)" in x86_64) native=amd64 ;; *) native=arm64 ;; esac
scripts/roots.sh programs-amd64
[ $native = amd64 ] || scripts/roots.sh programs-arm64
: "${CARGO_TARGET_DIR:=$PWD/target}" "${XRUN:=$CARGO_TARGET_DIR/aarch64-unknown-linux-gnu/release/xrun}"
root() { if [ "$(id -u)" = 0 ]; then "$@"; else sudo "$@"; fi; }

run() { # root, case, command before the shell...
    local r=$PWD/target/roots/$1 case=$2
    shift 2
    root install -m 755 "$XRUN" "$r/xrun"
    root cp "fixtures/large/$case.sh" "$r/srv/case.sh"
    printf '127.0.0.1 localhost\n' | root tee "$r/etc/hosts" >/dev/null
    root env QEMU_CPU="${QEMU_CPU:-neoverse-n1}" unshare --mount --pid --fork --kill-child --propagation private bash -c '
        cd "$1"; shift
        mount --rbind /dev dev; mount -t proc proc proc 2>/dev/null || mount --rbind /proc proc; mount -t tmpfs tmp tmp; chmod 1777 tmp
        ulimit -c 0
        exec timeout -k 5 "$0" chroot . "$@"' "${TIMEOUT:-3600}" "$r" "$@" /usr/bin/bash -c '
        export PATH=/usr/bin:/usr/sbin HOME=/root LC_ALL=C.UTF-8 TZ=UTC; mkdir /tmp/w; cd /tmp/w; . /srv/case.sh' </dev/null
}

cases=("$@")
[ $# != 0 ] || for f in fixtures/large/*.sh; do cases+=("$(basename "$f" .sh)"); done
out=$PWD/target/large passed=0 failed=0
mkdir -p "$out"
for case in "${cases[@]}"; do
    start=$SECONDS
    run programs-$native "$case" >"$out/$case.want" 2>"$out/$case.native-errors" && want=0 || want=$?
    run programs-amd64 "$case" /xrun >"$out/$case.got" 2>"$out/$case.errors" && got=0 || got=$?
    if [ "$want" = "$got" ] && cmp -s "$out/$case.want" "$out/$case.got"; then
        printf 'ok      %s (%d s)\n' "$case" $((SECONDS - start))
        passed=$((passed + 1))
    else
        printf 'FAILED  %s (%d s): exit code %s natively, %s under xrun\n' "$case" $((SECONDS - start)) "$want" "$got"
        { diff "$out/$case.want" "$out/$case.got" || true; } | head -n 8 | sed 's/^/          /'
        tail -n 5 "$out/$case.errors" | sed 's/^/          stderr: /'
        failed=$((failed + 1))
    fi
done
printf '%d passed, %d failed\n' $passed $failed
[ $failed = 0 ]
