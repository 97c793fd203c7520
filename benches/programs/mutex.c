// An uncontended pthread mutex, with a second thread present.
#include "bench.h"
#include <pthread.h>
#include <semaphore.h>
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static sem_t go;
static uint64_t shared;
static void *last(void *arg) {
    sem_wait(&go);
    pthread_mutex_lock(&lock);
    shared += (uintptr_t)arg;
    pthread_mutex_unlock(&lock);
    return NULL;
}
int main(int argc, char **argv) {
    long n = bench_size(argc, argv);
    pthread_t t;
    sem_init(&go, 0, 0);
    if (pthread_create(&t, NULL, last, (void *)7)) return 1;
    for (long r = 0; r < n; r++) {
        pthread_mutex_lock(&lock);
        shared = shared * 31 + (uint64_t)r;
        pthread_mutex_unlock(&lock);
    }
    sem_post(&go);
    pthread_join(t, NULL);
    return bench_done("mutex", shared);
}
