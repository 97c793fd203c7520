// Mutual recursion: a recursive-descent evaluator over expression text.
#include "bench.h"
static const char *at;
static NOINLINE uint64_t expr(void);
static NOINLINE uint64_t atom(void) {
    if (*at == '(') {
        at++;
        uint64_t v = expr();
        at++;
        return v;
    }
    uint64_t v = 0;
    while (*at >= '0' && *at <= '9') v = v * 10 + (*at++ - '0');
    return v;
}
static NOINLINE uint64_t term(void) {
    uint64_t v = atom();
    while (*at == '*') at++, v *= atom();
    return v;
}
static NOINLINE uint64_t expr(void) {
    uint64_t v = term();
    while (*at == '+' || *at == '-') {
        char op = *at++;
        uint64_t w = term();
        v = op == '+' ? v + w : v - w;
    }
    return v;
}
int main(int argc, char **argv) {
    long n = bench_size(argc, argv);
    char text[] = "(1+2)*((34-5)*6+7)*(8*(9+10*(11-2))-3)+((4+5)*(6-7))*12";
    uint64_t sum = 0;
    for (long r = 0; r < n; r++) {
        text[1] = '0' + r % 10;
        at = text;
        sum = sum * 31 + expr();
    }
    return bench_done("mutual", sum);
}
