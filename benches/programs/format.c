// snprintf and strtol/strtod: formatted numbers through the C library.
#include "bench.h"
int main(int argc, char **argv) {
    long n = bench_size(argc, argv);
    uint64_t seed = 37, sum = 0;
    for (long r = 0; r < n; r++) {
        char line[128], *end;
        uint64_t x = bench_next(&seed);
        int len = snprintf(line, sizeof line, "%ld %08x %.4f %s", (long)(x >> 20), (unsigned)x, (double)(x >> 44) / 64, "word");
        long a = strtol(line, &end, 10);
        unsigned long b = strtoul(end, &end, 16);
        double c = strtod(end, &end);
        sum = sum * 31 + len + a + b + (uint64_t)(c * 64);
    }
    return bench_done("format", sum);
}
