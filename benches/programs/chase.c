// Pointer chasing through one random cycle.
#include "bench.h"
struct node { struct node *next; uint64_t value; };
static struct node nodes[4096];
static uint32_t order[4096];
int main(int argc, char **argv) {
    long n = bench_size(argc, argv);
    uint64_t seed = 41, sum = 0;
    for (uint32_t i = 0; i < 4096; i++) order[i] = i, nodes[i].value = bench_next(&seed);
    for (uint32_t i = 4095; i > 0; i--) {
        uint32_t j = bench_next(&seed) % (i + 1), t = order[i];
        order[i] = order[j], order[j] = t;
    }
    for (uint32_t i = 0; i < 4096; i++) nodes[order[i]].next = &nodes[order[(i + 1) & 4095]];
    struct node *p = nodes;
    for (long r = 0; r < n; r++) {
        sum += p->value ^ r;
        p = p->next;
    }
    return bench_done("chase", sum);
}
