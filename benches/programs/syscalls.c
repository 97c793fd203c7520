// System calls that do next to nothing in the kernel.
#include "bench.h"
#include <sys/syscall.h>
#include <unistd.h>
int main(int argc, char **argv) {
    long n = bench_size(argc, argv);
    uint64_t sum = 0;
    long parent = syscall(SYS_getppid);
    for (long r = 0; r < n; r++) sum = sum * 31 + (uint64_t)(syscall(SYS_getppid) == parent) + (uint64_t)syscall(SYS_dup, -1) * 7;
    return bench_done("syscalls", sum);
}
