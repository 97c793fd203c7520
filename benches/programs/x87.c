// long double: the x87 stack on x86_64. AArch64's long double is 128-bit software, so the
// native twin is built with double (-DREAL=double) and only leading digits are compared.
#include "bench.h"
#ifndef REAL
#define REAL long double
#endif
static NOINLINE REAL poly(REAL x) { return ((x * 0.5L - 0.25L) * x + 1.0L) / (x * x + 1.0L); }
int main(int argc, char **argv) {
    long n = bench_size(argc, argv);
    REAL sum = 0, x = 0.1L;
    for (long r = 0; r < n; r++) {
        x = poly(x) - x * 0.125L;
        sum += x * (r & 7);
        if (sum > 1000.0L) sum -= 999.0L;
    }
    return printf("x87 %.6f\n", (double)sum) < 0;
}
