// Radix-2 FFT in single precision.
#include "bench.h"
enum { N = 256 };
static float re[N], im[N], wr[N / 2], wi[N / 2];
int main(int argc, char **argv) {
    long n = bench_size(argc, argv);
    uint64_t seed = 67, sum = 0;
    // Roots of unity by repeated squaring of one rotation, so that no libm result is involved.
    double c = 0.99969881869620422, s = 0.024541228522912288, x = 1, y = 0;
    for (int i = 0; i < N / 2; i++) {
        wr[i] = x, wi[i] = y;
        double t = x * c - y * s;
        y = x * s + y * c, x = t;
    }
    for (int i = 0; i < N; i++) re[i] = (int32_t)bench_next(&seed) / 1e9f, im[i] = 0;
    for (long r = 0; r < n; r++) {
        for (int i = 0, j = 0; i < N; i++) {
            if (i < j) {
                float t = re[i];
                re[i] = re[j], re[j] = t, t = im[i], im[i] = im[j], im[j] = t;
            }
            int bit = N >> 1;
            while (j & bit) j ^= bit, bit >>= 1;
            j |= bit;
        }
        for (int len = 1; len < N; len *= 2)
            for (int i = 0; i < N; i += 2 * len)
                for (int k = 0; k < len; k++) {
                    float a = wr[k * (N / 2 / len)], b = wi[k * (N / 2 / len)];
                    float p = re[i + k + len] * a - im[i + k + len] * b, q = re[i + k + len] * b + im[i + k + len] * a;
                    re[i + k + len] = re[i + k] - p, im[i + k + len] = im[i + k] - q;
                    re[i + k] += p, im[i + k] += q;
                }
        for (int i = 0; i < N; i++) re[i] *= 1.0f / 16, im[i] *= 1.0f / 16;
    }
    uint32_t w;
    for (int i = 0; i < N; i++) memcpy(&w, &re[i], 4), sum = sum * 31 + w;
    return bench_done("fft", sum);
}
