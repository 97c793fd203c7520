// Collatz chains: shifts, tests and unpredictable branches in registers.
#include "bench.h"
int main(int argc, char **argv) {
    long n = bench_size(argc, argv);
    uint64_t sum = 0;
    for (long i = 1; i <= n; i++) {
        uint64_t x = i, steps = 0;
        while (x != 1) {
            x = x & 1 ? 3 * x + 1 : x >> 1;
            steps++;
        }
        sum = sum * 33 + steps;
    }
    return bench_done("collatz", sum);
}
