// Plain loads and stores while a second thread exists: what memory ordering costs.
#include "bench.h"
#include <pthread.h>
#include <semaphore.h>
static sem_t go;
static void *wait_for_end(void *arg) {
    sem_wait(&go);
    return arg;
}
static uint32_t a[2048];
int main(int argc, char **argv) {
    long n = bench_size(argc, argv);
    pthread_t t;
    uint64_t seed = 79, sum = 0;
    sem_init(&go, 0, 0);
    if (pthread_create(&t, NULL, wait_for_end, NULL)) return 1;
    for (int i = 0; i < 2048; i++) a[i] = bench_next(&seed);
    for (long r = 0; r < n; r++) {
        for (int i = 1; i < 2048; i++) {
            uint32_t x = a[i - 1];
            if (x > a[i]) a[i - 1] = a[i] + 3, a[i] = x;
        }
        a[r & 2047] = bench_next(&seed);
        sum = sum * 31 + a[(r * 7) & 2047];
    }
    sem_post(&go);
    pthread_join(t, NULL);
    return bench_done("ordering2", sum);
}
