#!/bin/bash
# Unpacks Debian packages into roots that tests and benchmarks take their programs from:
#   target/roots/amd64   what xrun runs
#   target/roots/arm64   the same programs as native twins
#   target/roots/peers   qemu-x86_64 as an AArch64 program, to compare with
#   target/roots/programs-amd64, programs-arm64   the larger programs of `make test-programs`
# usage: scripts/roots.sh [amd64] [arm64] [peers]      (these three by default)
#        scripts/roots.sh programs-amd64 | programs-arm64
#
# apt resolves and verifies the packages as for an empty system of that architecture; nothing is
# installed on this machine. Downloads are kept in target/debs; a root is made again only when
# its list (scripts/roots.packages, scripts/programs.packages) or this script changes. Needs no root rights, only apt's package lists
# (scripts/setup.sh).
set -euo pipefail
cd "$(dirname "$0")/.."

say() { printf 'roots: %s\n' "$*"; }
die() { printf 'roots: %s\n' "$*" >&2; exit 1; }
wanted=("$@")
[ $# = 0 ] && wanted=(amd64 arm64 peers)

# apt for an empty machine of architecture $1, with its state and cache under target/debs.
apt_for() {
    local arch=$1 dir
    shift
    dir=$PWD/target/debs/$arch
    mkdir -p "$dir/partial"
    [ -e "$dir/status" ] || : >"$dir/status"
    apt-get -q -y -o Debug::NoLocking=1 \
        -o APT::Architecture="$arch" -o APT::Architectures="$arch" \
        -o Dir::State::status="$dir/status" -o Dir::Cache::archives="$dir" \
        -o APT::Install-Recommends=0 -o APT::Get::AllowUnauthenticated=0 \
        -o DPkg::Post-Invoke= -o APT::Sandbox::User= -o Acquire::Retries=3 "$@"
}

unpack() { # root, deb files...
    local root=$1
    shift
    mkdir -p "$root"
    local d
    say "unpacking $# packages"
    for deb in "$@"; do dpkg -x "$deb" "$root"; done
    # The layout of an installed system: /bin, /sbin and /lib live in /usr.
    for d in bin sbin lib lib64; do
        mkdir -p "$root/usr/$d"
        if [ -d "$root/$d" ]; then
            cp -a "$root/$d/." "$root/usr/$d/"
            rm -r "${root:?}/$d"
        fi
        ln -sfn "usr/$d" "$root/$d"
    done
    mkdir -p "$root/tmp" "$root/proc" "$root/dev" "$root/root"
    chmod 1777 "$root/tmp"
    # Links that an installed system has absolute are made relative, so that the root can be used
    # from outside (-L) as well as by chroot.
    find "$root" -type l -lname '/*' | while read -r link; do
        target=$(readlink "$link")
        case "$target" in /proc/* | /dev/*) continue ;; esac
        ln -sfnr "$root$target" "$link"
    done
}

finish() { # what maintainer scripts would have done
    local root=$1
    ln -sfn mawk "$root/usr/bin/awk"
    ln -sfn lua5.4 "$root/usr/bin/lua"
    cp "$root/usr/share/base-passwd/passwd.master" "$root/etc/passwd"
    cp "$root/usr/share/base-passwd/group.master" "$root/etc/group"
}

# Perl's own tests, from its source package, beside the library of the installed one: $1/srv/perl/t and lib.
perl_tests() {
    local root=$1 dir=$PWD/target/debs/perl uri
    local apt=(-q -o Dir::Etc::sourcelist="$dir/list" -o Dir::Etc::sourceparts=/dev/null -o Dir::State::lists="$dir/lists" -o APT::Sandbox::User=)
    mkdir -p "$dir/lists/partial" "$root/srv/perl/lib"
    if ! compgen -G "$dir/perl_*.orig.tar.xz" >/dev/null; then
        say "perl's tests: downloading its source (about 14 MB)"
        uri=$(apt-get indextargets --format '$(REPO_URI)' 'Codename: bookworm' 'Component: main' 'Created-By: Packages' | head -n 1)
        echo "deb-src $uri bookworm main" >"$dir/list"
        apt-get "${apt[@]}" update >/dev/null
        (cd "$dir" && apt-get "${apt[@]}" source --download-only perl >/dev/null)
    fi
    tar -xJf "$dir"/perl_*.orig.tar.xz -C "$root/srv/perl" --strip-components=1 --wildcards '*/t'
    cp -a "$root"/usr/share/perl/5.*.*/. "$root"/usr/lib/*/perl/5.*.*/. "$root"/usr/lib/*/perl-base/. "$root/srv/perl/lib/"
}

mkdir -p target
for what in "${wanted[@]}"; do
    root=target/roots/$what
    packages=scripts/roots.packages size="50 MB" arch=$what
    case "$what" in programs-*) packages=scripts/programs.packages size="450 MB" arch=${what#programs-} ;; esac
    stamp=$(cat $packages scripts/roots.sh | sha256sum | cut -d' ' -f1)
    [ "$(cat "$root/.stamp" 2>/dev/null)" = "$stamp" ] && continue
    case "$what" in
        amd64 | arm64 | programs-amd64 | programs-arm64)
            list=($(sed 's/#.*//' $packages | awk -v a="$arch" 'NF == 1 || $2 == a { print $1 }'))
            say "$what: downloading ${#list[@]} packages and what they depend on (about $size)"
            apt_for "$arch" --download-only install "${list[@]}" |
                grep -E '^(Get|E:|Err)' | sed 's/^\(Get:[0-9]*\) [^ ]* /  \1 /' || true
            debs=()
            while read -r deb; do
                debs+=("target/debs/$arch/$deb")
            done < <(apt_for "$arch" --print-uris -o Dir::Cache::archives=/nonexistent/ install "${list[@]}" 2>/dev/null |
                awk -F"'" '/^\x27/ { split($3, f, " "); print f[1] }')
            [ ${#debs[@]} -gt 0 ] || die "$what: apt resolves nothing; run scripts/setup.sh first"
            for deb in "${debs[@]}"; do [ -s "$deb" ] || die "$deb was not downloaded"; done
            rm -rf "$root"
            unpack "$root" "${debs[@]}"
            finish "$root"
            case "$what" in programs-*) perl_tests "$root" ;; esac
            ;;
        peers)
            say "peers: downloading qemu-user for arm64 (about 18 MB)"
            mkdir -p target/debs/peers
            release=
            compgen -G '/var/lib/apt/lists/*_dists_bookworm-backports_main_binary-arm64_Packages*' >/dev/null &&
                release=/bookworm-backports
            if ! compgen -G 'target/debs/peers/qemu-user*_arm64.deb' >/dev/null; then
                (cd target/debs/peers && apt-get -q -o APT::Sandbox::User= download "qemu-user:arm64$release")
            fi
            rm -rf "$root"
            mkdir -p "$root"
            dpkg -x target/debs/peers/qemu-user*_arm64.deb target/debs/peers/unpacked
            cp target/debs/peers/unpacked/usr/bin/qemu-x86_64 "$root/"
            rm -rf target/debs/peers/unpacked
            ;;
        *) die "unknown root $what" ;;
    esac
    echo "$stamp" >"$root/.stamp"
    say "$what: ready ($(du -sh "$root" | cut -f1))"
done

# What Python's maintainer scripts would have done: its library byte-compiled, so that no program
# run from the root does that. The version is one for both roots, so this machine's compiles both.
. scripts/native.sh
for what in amd64 arm64; do
    root=target/roots/$what
    if [ -d $root ] && [ -d "$native_root" ] && [ ! -e $root/.compiled ]; then
        say "$what: byte-compiling Python's library"
        native_tool python3 -S -m compileall -q --invalidation-mode unchecked-hash -s $root $root/usr/lib/python3.11 || true
        : >$root/.compiled
    fi
done
