// A small LZ77 coder and decoder over generated text: the mix of a real compressor.
#include "bench.h"
enum { N = 16384 };
static unsigned char text[N], packed[2 * N], back[N];
static int table[4096];
int main(int argc, char **argv) {
    long n = bench_size(argc, argv);
    uint64_t seed = 23, sum = 0;
    static const char *words[] = {"the ", "quick ", "brown ", "fox ", "jumps ", "over ", "lazy ", "dog\n"};
    for (long r = 0; r < n; r++) {
        int len = 0;
        while (len < N - 8) {
            const char *w = words[bench_next(&seed) >> 61];
            size_t l = strlen(w);
            memcpy(text + len, w, l);
            len += l;
        }
        int out = 0;
        memset(table, 0xff, sizeof table);
        for (int i = 0; i < len;) {
            int best = 0, from = 0;
            if (i + 4 <= len) {
                uint32_t k;
                memcpy(&k, text + i, 4);
                uint32_t slot = k * 2654435761u >> 20;
                int c = table[slot];
                table[slot] = i;
                if (c >= 0)
                    while (i + best < len && best < 255 && text[c + best] == text[i + best]) best++;
                from = c;
            }
            if (best >= 4) {
                packed[out++] = 1, packed[out++] = best;
                packed[out++] = (i - from) & 255, packed[out++] = (i - from) >> 8;
                i += best;
            } else {
                packed[out++] = 0, packed[out++] = text[i++];
            }
        }
        int p = 0;
        for (int i = 0; i < out;) {
            if (packed[i]) {
                int l = packed[i + 1], d = packed[i + 2] | packed[i + 3] << 8;
                for (; l; l--, p++) back[p] = back[p - d];
                i += 4;
            } else {
                back[p++] = packed[i + 1], i += 2;
            }
        }
        if (p != len || memcmp(text, back, len)) {
            puts("lz: round trip failed");
            return 1;
        }
        sum = sum * 31 + out;
    }
    return bench_done("lz", sum);
}
