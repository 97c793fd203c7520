// The C library's qsort: an indirect call for every comparison.
#include "bench.h"
static int compare(const void *a, const void *b) {
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return x < y ? -1 : x > y;
}
static uint32_t v[2000];
int main(int argc, char **argv) {
    long n = bench_size(argc, argv);
    uint64_t seed = 11, sum = 0;
    for (long r = 0; r < n; r++) {
        for (int i = 0; i < 2000; i++) v[i] = bench_next(&seed);
        qsort(v, 2000, sizeof *v, compare);
        for (int i = 0; i < 2000; i += 7) sum = sum * 31 + v[i];
    }
    return bench_done("sort", sum);
}
