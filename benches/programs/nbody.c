// Gravity between five bodies: scalar double precision, square root and division.
#include "bench.h"
#include <math.h>
struct body { double x[3], v[3], m; };
int main(int argc, char **argv) {
    long n = bench_size(argc, argv);
    struct body b[5];
    uint64_t seed = 61;
    for (int i = 0; i < 5; i++) {
        for (int k = 0; k < 3; k++) {
            b[i].x[k] = (double)(int32_t)bench_next(&seed) / 1e8;
            b[i].v[k] = (double)(int32_t)bench_next(&seed) / 1e10;
        }
        b[i].m = 1.0 + i;
    }
    for (long r = 0; r < n; r++) {
        for (int i = 0; i < 5; i++)
            for (int j = i + 1; j < 5; j++) {
                double d[3], s = 0.01;
                for (int k = 0; k < 3; k++) d[k] = b[i].x[k] - b[j].x[k], s += d[k] * d[k];
                double f = 0.001 / (s * sqrt(s));
                for (int k = 0; k < 3; k++) b[i].v[k] -= d[k] * b[j].m * f, b[j].v[k] += d[k] * b[i].m * f;
            }
        for (int i = 0; i < 5; i++)
            for (int k = 0; k < 3; k++) b[i].x[k] += 0.001 * b[i].v[k];
    }
    uint64_t sum = 0, w;
    for (int i = 0; i < 5; i++)
        for (int k = 0; k < 3; k++) memcpy(&w, &b[i].x[k], 8), sum = sum * 31 + w;
    return bench_done("nbody", sum);
}
