// Naive recursion: calls and returns.
#include "bench.h"
static NOINLINE uint64_t fib(uint32_t n) {
    if (n < 2) return n;
    uint64_t a = fib(n - 1);
    return a + fib(n - 2);
}
int main(int argc, char **argv) {
    long n = bench_size(argc, argv);
    uint64_t sum = 0;
    for (long r = 0; r < n; r++) sum = sum * 31 + fib(12 + (r & 3));
    return bench_done("fib", sum);
}
