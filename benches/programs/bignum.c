// Multi-word addition and multiplication: carries and 64x64 -> 128 products.
#include "bench.h"
enum { W = 32 };
typedef unsigned __int128 u128;
int main(int argc, char **argv) {
    long n = bench_size(argc, argv);
    uint64_t a[W], b[W], c[2 * W], seed = 13, sum = 0;
    for (int i = 0; i < W; i++) a[i] = bench_next(&seed), b[i] = bench_next(&seed);
    for (long r = 0; r < n; r++) {
        memset(c, 0, sizeof c);
        for (int i = 0; i < W; i++) {
            uint64_t carry = 0;
            for (int j = 0; j < W; j++) {
                u128 t = (u128)a[i] * b[j] + c[i + j] + carry;
                c[i + j] = t;
                carry = t >> 64;
            }
            c[i + W] = carry;
        }
        unsigned char carry = 0;
        for (int i = 0; i < W; i++) {
            uint64_t t;
            unsigned char k = __builtin_add_overflow(a[i], c[i + W], &t);
            k |= __builtin_add_overflow(t, (uint64_t)carry, &t);
            a[i] = t, carry = k;
        }
        sum ^= a[r % W] + c[r % (2 * W)];
    }
    return bench_done("bignum", sum);
}
