// 32-bit integer matrix product, and the same with 8-bit elements.
#include "bench.h"
enum { N = 48 };
static int32_t a[N][N], b[N][N], c[N][N];
static int8_t d[N][N];
int main(int argc, char **argv) {
    long n = bench_size(argc, argv);
    uint64_t seed = 5, sum = 0;
    for (int i = 0; i < N; i++)
        for (int j = 0; j < N; j++) a[i][j] = bench_next(&seed), b[i][j] = bench_next(&seed), d[i][j] = bench_next(&seed);
    for (long r = 0; r < n; r++) {
        for (int i = 0; i < N; i++)
            for (int j = 0; j < N; j++) {
                int32_t s = 0;
                for (int k = 0; k < N; k++) s += (uint32_t)a[i][k] * (uint32_t)b[k][j] + d[k][i];
                c[i][j] = s;
            }
        a[r % N][(r * 7) % N] ^= c[(r * 5) % N][(r * 3) % N];
        sum = sum * 17 + (uint32_t)c[r % N][(r * 11) % N];
    }
    return bench_done("matmul", sum);
}
