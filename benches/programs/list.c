// Linked lists and a tree from malloc: insert, walk, free.
#include "bench.h"
struct node { struct node *left, *right; uint32_t key; };
static NOINLINE struct node *insert(struct node *t, uint32_t key) {
    struct node **at = &t;
    while (*at) at = key < (*at)->key ? &(*at)->left : &(*at)->right;
    *at = calloc(1, sizeof **at);
    (*at)->key = key;
    return t;
}
static NOINLINE uint64_t fold(const struct node *t, uint64_t sum) {
    if (!t) return sum;
    sum = fold(t->left, sum);
    return fold(t->right, sum * 31 + t->key);
}
static NOINLINE void drop(struct node *t) {
    if (t) drop(t->left), drop(t->right), free(t);
}
int main(int argc, char **argv) {
    long n = bench_size(argc, argv);
    uint64_t seed = 43, sum = 0;
    for (long r = 0; r < n; r++) {
        struct node *t = NULL;
        for (int i = 0; i < 500; i++) t = insert(t, bench_next(&seed));
        sum = fold(t, sum);
        drop(t);
    }
    return bench_done("list", sum);
}
