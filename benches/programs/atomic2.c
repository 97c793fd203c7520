// Atomic addition by two threads on one counter.
#include "bench.h"
#include <pthread.h>
#include <stdatomic.h>
static _Atomic uint64_t counter;
static _Atomic uint64_t chain;
static long rounds;
static void *run(void *arg) {
    uint64_t add = (uint64_t)(uintptr_t)arg;
    for (long r = 0; r < rounds; r++) {
        atomic_fetch_add(&counter, add);
        atomic_fetch_xor(&chain, add * (uint64_t)r);
    }
    return NULL;
}
int main(int argc, char **argv) {
    rounds = bench_size(argc, argv);
    pthread_t t;
    if (pthread_create(&t, NULL, run, (void *)3)) return 1;
    run((void *)5);
    pthread_join(t, NULL);
    return bench_done("atomic2", counter * 31 + chain);
}
