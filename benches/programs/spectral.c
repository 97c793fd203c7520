// Spectral norm: integer to double conversions and divisions.
#include "bench.h"
enum { N = 64 };
static double entry(int i, int j) { return 1.0 / ((i + j) * (i + j + 1) / 2 + i + 1); }
int main(int argc, char **argv) {
    long n = bench_size(argc, argv);
    double u[N], v[N];
    for (int i = 0; i < N; i++) u[i] = 1;
    for (long r = 0; r < n; r++) {
        for (int i = 0; i < N; i++) {
            v[i] = 0;
            for (int j = 0; j < N; j++) v[i] += entry(i, j) * u[j];
        }
        double top = 0;
        for (int i = 0; i < N; i++) {
            u[i] = 0;
            for (int j = 0; j < N; j++) u[i] += entry(j, i) * v[j];
            if (u[i] > top) top = u[i];
        }
        for (int i = 0; i < N; i++) u[i] /= top;
    }
    uint64_t sum = 0, w;
    for (int i = 0; i < N; i++) memcpy(&w, &u[i], 8), sum = sum * 31 + w;
    return bench_done("spectral", sum);
}
