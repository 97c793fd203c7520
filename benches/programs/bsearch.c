// Binary search, compiled to branches and conditional moves.
#include "bench.h"
static uint32_t v[4096];
int main(int argc, char **argv) {
    long n = bench_size(argc, argv);
    uint64_t seed = 53, sum = 0;
    for (uint32_t i = 0, x = 0; i < 4096; i++) v[i] = x += 1 + (bench_next(&seed) >> 56);
    for (long r = 0; r < n; r++) {
        uint32_t key = bench_next(&seed) % (v[4095] + 1), lo = 0, hi = 4096;
        while (lo < hi) {
            uint32_t mid = (lo + hi) / 2;
            if (v[mid] < key) lo = mid + 1;
            else hi = mid;
        }
        sum = sum * 31 + lo;
    }
    return bench_done("bsearch", sum);
}
