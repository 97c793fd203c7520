// C++ exceptions: throw through several frames, catch by type.
#include <stdexcept>
#include <string>
#include "bench.h"
struct Odd : std::runtime_error {
    uint64_t value;
    explicit Odd(uint64_t v) : std::runtime_error("odd"), value(v) {}
};
static NOINLINE uint64_t deep(uint64_t x, int level) {
    std::string keep(level + 1, 'x'); // has a destructor to run on the way out
    if (level == 0) {
        if (x & 1) throw Odd(x);
        throw static_cast<int>(x & 1023);
    }
    return deep(x, level - 1) + keep.size();
}
int main(int argc, char **argv) {
    long n = bench_size(argc, argv);
    uint64_t seed = 83, sum = 0;
    for (long r = 0; r < n; r++) {
        try {
            sum += deep(bench_next(&seed), 4);
        } catch (const Odd &odd) {
            sum = sum * 31 + odd.value;
        } catch (int small) {
            sum ^= static_cast<uint64_t>(small);
        }
    }
    return bench_done("throw", sum);
}
