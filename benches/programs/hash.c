// FNV-1a over bytes, then a 64-bit multiply-rotate mix.
#include "bench.h"
static unsigned char data[4096];
int main(int argc, char **argv) {
    long n = bench_size(argc, argv);
    uint64_t seed = 1, h = 0xcbf29ce484222325ULL;
    for (size_t i = 0; i < sizeof data; i++) data[i] = bench_next(&seed);
    for (long r = 0; r < n; r++) {
        for (size_t i = 0; i < sizeof data; i++) h = (h ^ data[i]) * 0x100000001b3ULL;
        for (size_t i = 0; i + 8 <= sizeof data; i += 8) {
            uint64_t w;
            memcpy(&w, data + i, 8);
            w *= 0x9e3779b97f4a7c15ULL;
            h = ((h ^ w) << 27 | (h ^ w) >> 37) * 5 + 0x52dce729;
        }
    }
    return bench_done("hash", h);
}
