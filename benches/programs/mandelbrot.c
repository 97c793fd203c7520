// Mandelbrot set: scalar double precision compares and branches.
#include "bench.h"
int main(int argc, char **argv) {
    long n = bench_size(argc, argv);
    uint64_t sum = 0;
    for (long row = 0; row < n; row++)
        for (int col = 0; col < 64; col++) {
            double cr = col / 32.0 - 1.5, ci = (double)(row % 64) / 32.0 - 1.0, zr = 0, zi = 0;
            int k = 0;
            while (k < 50 && zr * zr + zi * zi < 4.0) {
                double t = zr * zr - zi * zi + cr;
                zi = 2 * zr * zi + ci, zr = t, k++;
            }
            sum = sum * 31 + k;
        }
    return bench_done("mandelbrot", sum);
}
