#!/bin/bash
# Boots a real arm64 Linux kernel in qemu-system-aarch64, registers xrun with its binfmt_misc, and runs the checks of
# fixtures/vm/checks.sh and the programs of fixtures/syscalls in an amd64 Debian root: what they print must be what they print on an
# x86_64 kernel.
#   scripts/test-vm.sh [ROUND...]   rounds: xrun, xrun-noproc (no /proc in the root), qemu (qemu-x86_64 instead of xrun, to compare
#                                   with; its failures do not count). All three if none is said.
#   scripts/test-vm.sh --record     runs the checks on this x86_64 machine's kernel and keeps what they print (fixtures/vm/*.out)
#
# Kernel, busybox and root come from Debian (target/debs, target/vm). Making the root and recording need root.
# The last line says how many checks passed and failed.
set -euo pipefail
cd "$(dirname "$0")/.."
scripts/setup.sh --vm
host=$(uname -m)
target=aarch64-unknown-linux-gnu
: "${CARGO_TARGET_DIR:=$PWD/target}" "${XRUN:=$CARGO_TARGET_DIR/$target/release/xrun}"
vm=$PWD/target/vm
debs=$PWD/target/debs/vm
mkdir -p "$vm" "$debs"

say() { printf 'test-vm: %s\n' "$*"; }
die() { printf 'test-vm: %s\n' "$*" >&2; exit 1; }
root() { if [ "$(id -u)" = 0 ]; then "$@"; else sudo "$@"; fi; }

download() { # package of arm64, as a file name pattern
    compgen -G "$debs/$1_*_arm64.deb" >/dev/null && return
    say "downloading $1"
    (cd "$debs" && apt-get -q -o APT::Sandbox::User= download "$1:arm64" >/dev/null)
}

kernel_files() {
    local image
    image=$(apt-cache depends linux-image-cloud-arm64:arm64 | sed -n 's/.*Depends: \(linux-image-[^:]*\).*/\1/p' | head -n 1)
    [ -n "$image" ] || die "apt knows no linux-image-cloud-arm64; run scripts/setup.sh"
    [ "$(cat "$vm/kernel/.version" 2>/dev/null)" = "$image" ] && return
    download "$image"
    download busybox-static
    rm -rf "$vm/kernel"
    mkdir -p "$vm/kernel"
    dpkg -x "$debs/${image}"_*.deb "$vm/kernel"
    dpkg -x "$debs"/busybox-static_*.deb "$vm/kernel"
    echo "$image" >"$vm/kernel/.version"
}

# The amd64 root, installed by Debian's own tool. Where amd64 programs do not run by themselves, xrun runs its second half.
debian_root() {
    local stamp mirror foreign=()
    local packages=pbzip2,bzip2,python3-minimal,libpython3-stdlib,sudo,procps,gawk
    stamp=$(sed -n '/^debian_root/,/^}/p' scripts/test-vm.sh | sha256sum)
    [ "$(cat "$vm/root.stamp" 2>/dev/null)" = "$stamp" ] && return
    say "installing an amd64 Debian under $vm/root (about 80 MB to download)"
    root rm -rf "$vm/root"
    mirror=$(apt-get indextargets --format '$(RELEASE) $(REPO_URI)' 'Created-By: Packages' | awk '$1 == "bookworm" { print $2; exit }')
    mkdir -p "$PWD/target/debs/debootstrap"
    [ "$host" = x86_64 ] || foreign=(--foreign)
    root debootstrap --arch=amd64 --variant=minbase "${foreign[@]}" --cache-dir="$PWD/target/debs/debootstrap" \
        --include=$packages bookworm "$vm/root" "$mirror" >"$vm/debootstrap.log" || die "debootstrap failed: $vm/debootstrap.log"
    if [ "$host" != x86_64 ]; then
        root cp "$XRUN" "$vm/root/xrun"
        root chroot "$vm/root" /xrun /bin/sh /debootstrap/debootstrap --second-stage >>"$vm/debootstrap.log"
        root rm "$vm/root/xrun"
    fi
    echo "$stamp" >"$vm/root.stamp"
}

# What the checks need, put into the root.
fill_root() {
    local r=$vm/root cc=x86_64-linux-gnu-gcc p=$vm/answer
    $cc -O2 -static -o "$vm/show" fixtures/vm/show.c
    $cc -O2 -o "$vm/show-dynamic" fixtures/vm/show.c
    rm -rf "$p"
    mkdir -p "$p/DEBIAN" "$p/usr/bin" "$p/usr/lib/x86_64-linux-gnu"
    $cc -O2 -shared -fPIC -Wl,-soname,libanswer.so.1 -o "$p/usr/lib/x86_64-linux-gnu/libanswer.so.1" fixtures/vm/answer.c
    $cc -O2 -DPROGRAM -o "$p/usr/bin/answer" fixtures/vm/answer.c "$p/usr/lib/x86_64-linux-gnu/libanswer.so.1"
    printf 'Package: answer\nVersion: 1\nArchitecture: amd64\nMaintainer: nobody <nobody@localhost>\nDescription: a library and a program\nDepends: libc6\n' >"$p/DEBIAN/control"
    printf 'activate-noawait ldconfig\n' >"$p/DEBIAN/triggers"
    printf '#!/bin/sh\necho "postinst $* on $(uname -m)"\n' >"$p/DEBIAN/postinst"
    chmod 755 "$p/DEBIAN/postinst"
    dpkg-deb --root-owner-group -b "$p" "$vm/answer.deb" >/dev/null
    root install -m 755 fixtures/vm/checks.sh "$r/srv/checks.sh"
    root install -m 644 "$vm/answer.deb" "$r/srv/answer.deb"
    for mode in show:755 show-dynamic:755 show-setuid:4755 show-setgid:2755 show-unreadable:711 show-appimage:755; do
        local name=${mode%:*} from=show
        [ "$name" = show-dynamic ] && from=show-dynamic
        root install -m "${mode#*:}" "$vm/$from" "$r/srv/$name"
    done
    root mkdir -p "$r/srv/syscalls"
    for source in fixtures/syscalls/*.c; do
        $cc -O1 -static -pthread -o "$vm/program" "$source"
        root install -m 755 "$vm/program" "$r/srv/syscalls/$(basename "$source" .c)"
    done
    printf 'AI\2' | root dd of="$r/srv/show-appimage" bs=1 seek=8 conv=notrunc status=none
    grep -q tester "$r/etc/passwd" || printf 'tester:x:1000:1000::/tmp:/bin/bash\n' | root tee -a "$r/etc/passwd" >/dev/null
    grep -q tester "$r/etc/group" || printf 'tester:x:1000:\n' | root tee -a "$r/etc/group" >/dev/null
    grep -q tester "$r/etc/shadow" || printf 'tester:*:19000:0:99999:7:::\n' | root tee -a "$r/etc/shadow" >/dev/null
    printf 'tester ALL=(ALL) NOPASSWD: ALL\n' | root tee "$r/etc/sudoers.d/tester" >/dev/null
    printf '127.0.0.1 localhost vm\n' | root tee "$r/etc/hosts" >/dev/null
}

record() {
    [ "$host" = x86_64 ] || die "recorded on x86_64 only"
    for round in proc noproc; do
        say "recording on this kernel, round $round"
        root rm -rf "$vm/native"
        root cp -a "$vm/root" "$vm/native"
        root unshare --mount --uts --propagation private bash -c '
            for fd in {3..63}; do eval "exec $fd>&-"; done
            mount --bind "$1" "$1"; cd "$1"; hostname vm; mount --rbind /dev dev; mount -t tmpfs tmp tmp; chmod 1777 tmp
            if [ $2 = proc ]; then mount -t proc proc proc 2>/dev/null || mount --rbind /proc proc; mount --rbind /sys sys; fi
            for c in $(chroot . /srv/checks.sh list); do
                echo "== $c"; chroot . /usr/bin/env -i PATH=/usr/bin:/bin /srv/checks.sh $c 2>&1 </dev/null; echo "-- $?"
            done' x "$vm/native" "$round" >"fixtures/vm/$round.out"
        root rm -rf "$vm/native"
    done
}

initramfs() {
    local d=$vm/initramfs m
    rm -rf "$d"
    mkdir -p "$d/bin" "$d/modules" "$d/etc"
    cp "$vm/kernel/bin/busybox" "$d/bin/" 2>/dev/null || cp "$vm/kernel/usr/bin/busybox" "$d/bin/"
    cp "$XRUN" "$d/bin/xrun"
    cp target/roots/peers/qemu-x86_64 "$d/bin/"
    for m in virtio_ring virtio virtio_mmio virtio_blk binfmt_misc; do
        find "$vm/kernel" -name "$m.ko" -exec cp {} "$d/modules/" \;
    done
    printf 'root:x:0:0::/:/bin/sh\nnobody:x:65534:65534::/:/bin/sh\n' >"$d/etc/passwd"
    install -m 755 fixtures/vm/init.sh "$d/init"
    (cd "$d" && find . | cpio --quiet -o -H newc -R 0:0 | gzip -1) >"$vm/initramfs.gz"
}

disk() {
    rm -f "$vm/disk.img"
    root mke2fs -q -t ext4 -d "$vm/root" -r 1 -N 0 -m 0 -O ^has_journal "$vm/disk.img" 900M
    [ "$(id -u)" = 0 ] || root chown "$(id -u)" "$vm/disk.img"
}

boot() { # round
    # Without SVE: qemu-system (10.0) goes on running the old code where an SVE store, the C library's memcpy, has put new. Without SME,
    # because the kernel hangs where that comes alone.
    local accel=(-accel "tcg,thread=multi" -cpu max,pauth-impdef=on,sve=off,sme=off)
    if [ "$host" = aarch64 ] && [ -w /dev/kvm ]; then accel=(-accel kvm -cpu host); fi
    timeout 1200 qemu-system-aarch64 -M virt "${accel[@]}" -smp 2 -m 1024 -nographic -no-reboot -nic none \
        -kernel "$vm"/kernel/boot/vmlinuz-* -initrd "$vm/initramfs.gz" -append "console=ttyAMA0 quiet loglevel=3 panic=-1 round=$1" \
        -drive "if=none,id=root,format=raw,file=$vm/disk.img,snapshot=on" -device virtio-blk-device,drive=root </dev/null >"$vm/$1.log" || true
    sed -i 's/\r//g' "$vm/$1.log"
}

# Compares what a round printed with what is recorded; a line for each check.
judge() { # round
    local round=$1 expected=fixtures/vm/proc.out ok bad
    [ "$round" = xrun-noproc ] && expected=fixtures/vm/noproc.out
    mkdir -p "$vm/$round"
    rm -f "$vm/$round"/*
    awk -v dir="$vm/$round/" '
        /^@@ check / { name = $3; file = dir name ".got"; printf "" >file; next }
        /^@@ end / { print "-- " $4 >>file; close(file); printf "%s %.1f\n", $3, $6 - $5 >>(dir "times"); name = ""; next }
        name != "" { print >>file }' "$vm/$round.log"
    awk -v dir="$vm/$round/" '/^== / { file = dir $2 ".want"; next } { print >>file }' "$expected"
    if [ "$round" != xrun-noproc ]; then
        for record in fixtures/syscalls/*.out; do
            sed 's/^exit status: /-- /' "$record" >"$vm/$round/syscalls-$(basename "$record" .out).want"
        done
    fi
    [ "$round" != xrun ] || cp fixtures/vm/registration.out "$vm/$round/registration.want"
    ok=0 bad=0
    for want in "$vm/$round"/*.want; do
        local name got time
        name=$(basename "$want" .want) got=${want%.want}.got
        time=$(awk -v n="$name" '$1 == n { print $2 " s" }' "$vm/$round/times" 2>/dev/null || true)
        if cmp -s "$want" "$got"; then
            printf 'ok      %s: %s (%s)\n' "$round" "$name" "$time"
            ok=$((ok + 1))
        else
            printf 'FAILED  %s: %s (%s)\n' "$round" "$name" "$time"
            [ "$round" = qemu ] || { diff "$want" "$got" 2>&1 || true; } | head -n 12 | sed 's/^/          /'
            bad=$((bad + 1))
        fi
    done
    grep -q '^@@ finished' "$vm/$round.log" || { printf 'FAILED  %s: the machine did not finish: %s\n' "$round" "$vm/$round.log"; bad=$((bad + 1)); }
    if [ "$round" = qemu ]; then
        printf 'qemu-x86_64, to compare with: %d passed, %d did not\n' "$ok" "$bad"
    else
        passed=$((passed + ok)) failed=$((failed + bad))
    fi
}

kernel_files
debian_root
fill_root
if [ "${1:-}" = --record ]; then record; exit; fi
[ -x "$XRUN" ] || die "$XRUN is not there: make build"
scripts/roots.sh peers
initramfs
disk
rounds=("$@")
[ $# = 0 ] && rounds=(xrun xrun-noproc qemu)
passed=0 failed=0
for round in "${rounds[@]}"; do
    start=$SECONDS
    boot "$round"
    judge "$round"
    say "round $round took $((SECONDS - start)) s"
done
printf '%d passed, %d failed\n' $passed $failed
[ $failed = 0 ]
