// Calls through tables of function pointers, as C++ virtual calls are.
#include "bench.h"
struct shape;
struct table { uint64_t (*area)(const struct shape *); void (*grow)(struct shape *, uint32_t); };
struct shape { const struct table *table; uint32_t a, b; };
static NOINLINE uint64_t area_rect(const struct shape *s) { return (uint64_t)s->a * s->b; }
static NOINLINE uint64_t area_tri(const struct shape *s) { return (uint64_t)s->a * s->b / 2; }
static NOINLINE uint64_t area_sq(const struct shape *s) { return (uint64_t)s->a * s->a; }
static NOINLINE void grow_both(struct shape *s, uint32_t k) { s->a += k, s->b ^= k; }
static NOINLINE void grow_one(struct shape *s, uint32_t k) { s->a = s->a * 5 + k; }
static const struct table tables[3] = {{area_rect, grow_both}, {area_tri, grow_one}, {area_sq, grow_both}};
int main(int argc, char **argv) {
    long n = bench_size(argc, argv);
    static struct shape shapes[64];
    uint64_t seed = 59, sum = 0;
    for (int i = 0; i < 64; i++) {
        shapes[i].table = &tables[bench_next(&seed) % 3];
        shapes[i].a = bench_next(&seed), shapes[i].b = bench_next(&seed);
    }
    for (long r = 0; r < n; r++)
        for (int i = 0; i < 64; i++) {
            struct shape *s = &shapes[i];
            s->table->grow(s, (uint32_t)r);
            sum = sum * 31 + s->table->area(s);
        }
    return bench_done("virtual", sum);
}
