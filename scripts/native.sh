# Sourced by other scripts: native_tool NAME ARGS... runs a tool of the unpacked root that has this
# machine's own architecture, so that no script depends on what else is installed here.
case "$(uname -m)" in
    x86_64) native_root=target/roots/amd64 native_ld=lib64/ld-linux-x86-64.so.2 native_lib=x86_64-linux-gnu ;;
    aarch64) native_root=target/roots/arm64 native_ld=lib/ld-linux-aarch64.so.1 native_lib=aarch64-linux-gnu ;;
    *) echo "no root for $(uname -m)" >&2; exit 1 ;;
esac
native_tool() {
    local tool=$1
    shift
    PYTHONHOME=$PWD/$native_root/usr "$native_root/$native_ld" --library-path "$native_root/usr/lib/$native_lib" "$native_root/usr/bin/$tool" "$@"
}
