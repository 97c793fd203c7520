// The C library's memcpy, memmove and memset over many lengths and alignments.
#include "bench.h"
static unsigned char a[8192], b[8192];
int main(int argc, char **argv) {
    long n = bench_size(argc, argv);
    uint64_t seed = 29, sum = 0;
    for (size_t i = 0; i < sizeof a; i++) a[i] = bench_next(&seed);
    for (long r = 0; r < n; r++) {
        uint64_t x = bench_next(&seed);
        size_t len = (x & 7) == 0 ? (x >> 8 & 2047) : (x >> 8 & 127);
        size_t from = x >> 24 & 4095, to = x >> 40 & 4095;
        memcpy(b + to, a + from, len);
        memmove(b + to + 3, b + to, len);
        if ((x & 15) == 1) memset(b + from, (int)x, len);
        sum = sum * 31 + b[to + len / 2];
    }
    return bench_done("memcpy", sum);
}
