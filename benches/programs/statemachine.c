// A tokenizer: a state machine over characters, all branches.
#include "bench.h"
static char text[8192];
int main(int argc, char **argv) {
    long n = bench_size(argc, argv);
    uint64_t seed = 47, sum = 0;
    for (size_t i = 0; i < sizeof text; i++) text[i] = "ab1 2c\"x+-(9);\n_"[bench_next(&seed) >> 60];
    for (long r = 0; r < n; r++) {
        enum { SPACE, NAME, NUMBER, STRING, OTHER } state = SPACE;
        uint64_t count[5] = {0};
        for (size_t i = 0; i < sizeof text; i++) {
            char c = text[i];
            if (state == STRING) {
                if (c == '"' || c == '\n') state = SPACE;
            } else if (c == '"') {
                state = STRING;
            } else if (c == ' ' || c == '\n') {
                state = SPACE;
            } else if (c >= '0' && c <= '9') {
                if (state != NAME) state = NUMBER;
            } else if ((c >= 'a' && c <= 'z') || c == '_') {
                state = NAME;
            } else {
                state = OTHER;
            }
            count[state]++;
        }
        text[r & 8191] = count[1] & 1 ? 'a' : '7';
        for (int i = 0; i < 5; i++) sum = sum * 31 + count[i];
    }
    return bench_done("statemachine", sum);
}
