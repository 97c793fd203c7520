// Integer vectors of 128 bits: lane arithmetic, compares, blends, shuffles, at every lane width.
#include "bench.h"
typedef uint8_t b16 __attribute__((vector_size(16)));
typedef int16_t h8 __attribute__((vector_size(16)));
typedef uint32_t s4 __attribute__((vector_size(16)));
typedef uint64_t d2 __attribute__((vector_size(16)));
static b16 bytes[256];
static h8 halves[256];
static s4 words[256];
int main(int argc, char **argv) {
    long n = bench_size(argc, argv);
    uint64_t seed = 71;
    for (int i = 0; i < 256; i++) {
        d2 x = {bench_next(&seed), bench_next(&seed)}, y = {bench_next(&seed), bench_next(&seed)};
        bytes[i] = (b16)x, halves[i] = (h8)y, words[i] = (s4)(x ^ y);
    }
    s4 acc = {1, 2, 3, 4};
    for (long r = 0; r < n; r++)
        for (int i = 0; i < 255; i++) {
            b16 low = bytes[i] < bytes[i + 1] ? bytes[i] : bytes[i + 1];
            h8 mixed = halves[i] * halves[i + 1] + (halves[i] >> 3);
            h8 big = mixed > halves[i + 1] ? mixed : halves[i + 1];
            s4 sum = words[i] + (words[i + 1] << 5) + (acc >> 27) + (acc << 5);
            s4 turned = __builtin_shuffle(sum, (s4){2, 3, 0, 1});
            b16 packed = __builtin_shuffle(low, (b16)big, (b16){0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23});
            acc = (turned ^ (s4)packed) + (acc | (s4)low);
        }
    d2 last = (d2)acc;
    return bench_done("simd_int", last[0] * 31 + last[1]);
}
