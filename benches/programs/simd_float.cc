// Float and double vectors of 128 bits: 4x4 matrices times vectors, reductions, compares.
#include "bench.h"
typedef float f4 __attribute__((vector_size(16)));
typedef double d2 __attribute__((vector_size(16)));
typedef int32_t s4 __attribute__((vector_size(16)));
static f4 points[256];
static d2 pairs[256];
int main(int argc, char **argv) {
    long n = bench_size(argc, argv);
    uint64_t seed = 73, sum = 0;
    for (int i = 0; i < 256; i++) {
        for (int k = 0; k < 4; k++) points[i][k] = (int32_t)bench_next(&seed) / 1e9f;
        for (int k = 0; k < 2; k++) pairs[i][k] = (int32_t)bench_next(&seed) / 1e9;
    }
    f4 m[4] = {{0.5f, 0.25f, 0, 0.125f}, {-0.25f, 0.5f, 0.5f, 0}, {0, 0.25f, -0.5f, 0.25f}, {0.125f, 0, 0.25f, 0.5f}};
    d2 acc = {0, 0};
    for (long r = 0; r < n; r++)
        for (int i = 0; i < 256; i++) {
            f4 p = points[i];
            f4 x = __builtin_shuffle(p, (s4){0, 0, 0, 0}), y = __builtin_shuffle(p, (s4){1, 1, 1, 1});
            f4 z = __builtin_shuffle(p, (s4){2, 2, 2, 2}), w = __builtin_shuffle(p, (s4){3, 3, 3, 3});
            f4 q = m[0] * x + m[1] * y + m[2] * z + m[3] * w;
            f4 b = q > p ? q : p;
            points[i] = b * 0.75f - q * 0.5f + 0.01f;
            d2 t = pairs[i] * 0.5 + pairs[(i + 1) & 255] / (pairs[i] * pairs[i] + 1.0);
            acc = acc * 0.999 + t;
            pairs[i] = t;
        }
    uint32_t w;
    for (int i = 0; i < 256; i++)
        for (int k = 0; k < 4; k++) {
            float f = points[i][k];
            memcpy(&w, &f, 4);
            sum = sum * 31 + w;
        }
    uint64_t v;
    double a = acc[0] + acc[1];
    memcpy(&v, &a, 8);
    return bench_done("simd_float", sum ^ v);
}
