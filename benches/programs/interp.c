// A bytecode interpreter: one switch in a loop, operands from a stack.
#include "bench.h"
enum { PUSH, ADD, SUB, MUL, XOR, LOAD, STORE, JNZ, DUP, SHR, HALT };
int main(int argc, char **argv) {
    long n = bench_size(argc, argv);
    // acc = seed; for (i = n; i; i--) acc = ((acc * 31 + i) ^ (acc >> 7)) - i;
    static const int code[] = {
        LOAD, 1, DUP, PUSH, 31, MUL, LOAD, 0, ADD, LOAD, 1, PUSH, 7, SHR, XOR, LOAD, 0, SUB, STORE, 1,
        STORE, 2, LOAD, 0, PUSH, 1, SUB, DUP, STORE, 0, JNZ, 0, HALT};
    uint64_t var[4] = {n, 12345, 0, 0}, stack[16];
    int sp = 0, pc = 0;
    for (;;) {
        switch (code[pc++]) {
        case PUSH: stack[sp++] = code[pc++]; break;
        case ADD: sp--; stack[sp - 1] += stack[sp]; break;
        case SUB: sp--; stack[sp - 1] -= stack[sp]; break;
        case MUL: sp--; stack[sp - 1] *= stack[sp]; break;
        case XOR: sp--; stack[sp - 1] ^= stack[sp]; break;
        case SHR: sp--; stack[sp - 1] >>= stack[sp]; break;
        case LOAD: stack[sp++] = var[code[pc++]]; break;
        case STORE: var[code[pc++]] = stack[--sp]; break;
        case DUP: stack[sp] = stack[sp - 1]; sp++; break;
        case JNZ: pc = stack[--sp] ? code[pc] : pc + 1; break;
        case HALT: return bench_done("interp", var[1] ^ var[2]);
        }
    }
}
