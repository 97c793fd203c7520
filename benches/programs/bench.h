// Shared by all benchmark programs: the size argument, a repeatable random source and the checksum line.
//
// Every program is `NAME SIZE`: work proportional to SIZE, one line of output that depends on all of
// the work. The same source is built for both architectures, so the line must not depend on
// the architecture (no address, no pointer size surprises, no contracted multiply-add).
#pragma once
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define NOINLINE __attribute__((noinline, noclone))

static inline long bench_size(int argc, char **argv) {
    long n = argc > 1 ? atol(argv[1]) : 0;
    if (n <= 0) {
        fprintf(stderr, "usage: %s SIZE\n", argv[0]);
        exit(2);
    }
    return n;
}

static inline uint64_t bench_next(uint64_t *state) { // xorshift64*
    uint64_t x = *state;
    x ^= x >> 12;
    x ^= x << 25;
    x ^= x >> 27;
    *state = x;
    return x * 0x2545F4914F6CDD1DULL;
}

static inline int bench_done(const char *name, uint64_t sum) {
    return printf("%s %016llx\n", name, (unsigned long long)sum) < 0;
}
