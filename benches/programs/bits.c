// Counting, scanning, rotating and byte-swapping: bit boards and hash mixing.
#include "bench.h"
int main(int argc, char **argv) {
    long n = bench_size(argc, argv);
    uint64_t seed = 19, sum = 0;
    for (long r = 0; r < n; r++) {
        uint64_t x = bench_next(&seed), m = x & (x << 3) & ~(x >> 5);
        while (m) {
            int k = __builtin_ctzll(m);
            m &= m - 1;
            sum += (x >> k | x << (-k & 63)) ^ __builtin_bswap64(x + k);
        }
        sum += 64 - __builtin_clzll(x | 1);
        sum = sum << 13 | sum >> 51;
        uint16_t h = x;
        uint8_t c = x >> 16;
        h = h << 5 | h >> 11, c ^= h >> 3;
        sum ^= (uint64_t)h << 8 | c;
    }
    return bench_done("bits", sum);
}
