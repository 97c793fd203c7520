// A guest that writes code and runs it: one small function rewritten every round, then called often.
#include "bench.h"
#include <sys/mman.h>
int main(int argc, char **argv) {
    long n = bench_size(argc, argv);
    unsigned char *page = mmap(NULL, 4096, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (page == MAP_FAILED) return 1;
    uint64_t sum = 0;
    for (long r = 0; r < n; r++) {
        uint32_t k = (uint32_t)(r * 7919) & 0xffff;
#if defined(__x86_64__)
        unsigned char code[] = {0x48, 0x8d, 0x87, 0, 0, 0, 0, 0xc3}; // lea rax, [rdi + imm32]; ret
        memcpy(code + 3, &k, 4);
#elif defined(__aarch64__)
        uint32_t code[] = {0x52800001u | k << 5, 0x8b010000u, 0xd65f03c0u}; // mov w1, #k; add x0, x0, x1; ret
#endif
        memcpy(page, code, sizeof code);
        __builtin___clear_cache((char *)page, (char *)page + sizeof code);
        uint64_t (*f)(uint64_t) = (uint64_t(*)(uint64_t))(uintptr_t)page;
        for (int i = 0; i < 100; i++) sum = f(sum) * 3;
    }
    return bench_done("jit", sum);
}
