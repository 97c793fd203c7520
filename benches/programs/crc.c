// CRC-32 by table, a byte at a time.
#include "bench.h"
static uint32_t table[256];
static unsigned char data[8192];
int main(int argc, char **argv) {
    long n = bench_size(argc, argv);
    uint64_t seed = 7;
    uint32_t crc = ~0u;
    for (uint32_t i = 0; i < 256; i++) {
        uint32_t c = i;
        for (int k = 0; k < 8; k++) c = c & 1 ? 0xedb88320u ^ (c >> 1) : c >> 1;
        table[i] = c;
    }
    for (size_t i = 0; i < sizeof data; i++) data[i] = bench_next(&seed);
    for (long r = 0; r < n; r++)
        for (size_t i = 0; i < sizeof data; i++) crc = table[(crc ^ data[i]) & 255] ^ (crc >> 8);
    return bench_done("crc", crc);
}
