// Sieve of Eratosthenes on bytes.
#include "bench.h"
static unsigned char composite[20001];
int main(int argc, char **argv) {
    long n = bench_size(argc, argv);
    uint64_t sum = 0;
    for (long r = 0; r < n; r++) {
        int limit = 20000 - (int)(r & 15);
        memset(composite, 0, sizeof composite);
        for (int i = 2; i * i <= limit; i++)
            if (!composite[i])
                for (int j = i * i; j <= limit; j += i) composite[j] = 1;
        for (int i = 2; i <= limit; i++)
            if (!composite[i]) sum = sum * 31 + i;
    }
    return bench_done("sieve", sum);
}
