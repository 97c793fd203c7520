// Atomic operations by one thread.
#include "bench.h"
#include <stdatomic.h>
int main(int argc, char **argv) {
    long n = bench_size(argc, argv);
    static _Atomic uint64_t counter, mask;
    static _Atomic uint32_t word;
    uint64_t sum = 0;
    for (long r = 0; r < n; r++) {
        sum += atomic_fetch_add(&counter, r | 1);
        uint64_t old = atomic_load(&counter);
        while (!atomic_compare_exchange_weak(&counter, &old, old * 5 + 1)) {
        }
        atomic_fetch_or(&mask, old);
        atomic_fetch_and(&mask, ~(uint64_t)r);
        sum ^= atomic_exchange(&word, (uint32_t)old);
        atomic_store(&word, atomic_load(&word) + 1);
    }
    return bench_done("atomic1", sum ^ mask ^ word);
}
