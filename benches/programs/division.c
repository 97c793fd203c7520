// 64- and 32-bit division and remainder, signed and unsigned.
#include "bench.h"
int main(int argc, char **argv) {
    long n = bench_size(argc, argv);
    uint64_t seed = 17, sum = 0;
    for (long r = 0; r < n; r++) {
        uint64_t a = bench_next(&seed), b = (bench_next(&seed) >> (r & 31)) | 1;
        sum += a / b + a % b;
        sum ^= (uint64_t)((int64_t)a / (int64_t)b);
        sum += (uint32_t)a / ((uint32_t)b | 1) + (uint32_t)((int32_t)a % ((int32_t)(b >> 33) | 1));
    }
    return bench_done("division", sum);
}
