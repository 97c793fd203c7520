// The C library's string functions on short strings.
#include "bench.h"
static char text[4200];
int main(int argc, char **argv) {
    long n = bench_size(argc, argv);
    uint64_t seed = 31, sum = 0;
    for (int i = 0; i < 4096; i++) text[i] = "etaoin shrdlu,.\n"[bench_next(&seed) >> 60];
    for (long r = 0; r < n; r++) {
        uint64_t x = bench_next(&seed);
        char *s = text + (x & 2047), copy[128];
        size_t len = strlen(text + (x & 4095));
        char *c = strchr(s, ','), *m = memchr(s, 'u', 64), *f = strstr(s, "the");
        size_t span = strcspn(s, ",."), keep = span < 100 ? span : 100;
        memcpy(copy, s, keep);
        copy[keep] = 0;
        sum = sum * 31 + len + (c ? c - s : 9) + (m ? m - s : 7) + (f ? f - s : 5) + span;
        sum += strcmp(copy, s) == 0 ? 1 : strncmp(copy, s, keep) == 0 ? 2 : 3;
        sum += strrchr(copy, 'e') ? 1 : 0;
    }
    return bench_done("strings", sum);
}
