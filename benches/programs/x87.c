// long double: the x87 stack on x86_64. AArch64's long double is 128-bit software, so the
// native twin is built with double (-DREAL=double) and only leading digits are compared.
#include "bench.h"
#ifndef REAL
#define REAL long double
#endif
#define C(x) ((REAL)x)
static NOINLINE REAL poly(REAL x) { return ((x * C(0.5) - C(0.25)) * x + C(1)) / (x * x + C(1)); }
int main(int argc, char **argv) {
    long n = bench_size(argc, argv);
    REAL sum = 0, x = C(0.1);
    for (long r = 0; r < n; r++) {
        x = poly(x) - x * C(0.125);
        sum += x * (REAL)(r & 7);
        if (sum > C(1000)) sum -= C(999);
    }
    return printf("x87 %.6f\n", (double)sum) < 0;
}
