// Signals a thread sends itself: delivery to a handler and return from it.
#include "bench.h"
#include <signal.h>
static volatile uint64_t caught;
static void handler(int sig) { caught = caught * 31 + (uint64_t)sig; }
int main(int argc, char **argv) {
    long n = bench_size(argc, argv);
    struct sigaction action = {.sa_handler = handler};
    sigaction(SIGUSR1, &action, NULL);
    sigaction(SIGUSR2, &action, NULL);
    for (long r = 0; r < n; r++) raise(r & 1 ? SIGUSR1 : SIGUSR2);
    return bench_done("signals", caught - (caught >> 1));
}
