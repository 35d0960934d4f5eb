/* Where each heat map is hottest: the mean position under a softmax over the map, and its gradient.

   The formula is that of `SpatialSoftArgmax` in encoder.py. Maps lie side by side, [cells,maps]: a vector holds one cell of
   sixteen maps, no sum runs across a vector, and the sixteen stay in the nearest cache from the first pass to the last.
   Nothing of the softmax is kept: the backward pass finds it again, sooner than it could be written down and read. C99 with
   the vector types of gcc and clang. */

#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <math.h>

enum { LANES = 16 };
typedef float reals __attribute__((vector_size(4 * LANES)));
typedef int32_t wholes __attribute__((vector_size(4 * LANES)));
typedef uint16_t halves __attribute__((vector_size(2 * LANES)));
typedef uint32_t bits __attribute__((vector_size(4 * LANES)));

enum { MEAN, DEVIATION, TOP, SHARE, KEPT }; /* of each map: mean, 1 / deviation, largest logit, 1 / the sum of e^(logit - top) */

static inline reals either(wholes is_first, reals first, reals second) {
    return (reals)((is_first & (wholes)first) | (~is_first & (wholes)second));
}

/* e^x for x <= 0 within 2e-7 of itself; below -87 that of -87, which is next to nothing; what is not a number stays so */
static inline reals exponential(reals x) {
    const float rounds = 12582912.0f; /* 1.5 * 2^23: what is added to it and taken away again is a whole number */
    reals held = either(x < -87.0f, (reals){0} - 87.0f, x);
    reals n = (held * 1.44269504f + rounds) - rounds;
    reals f = (held - n * 0.693359375f) + n * 2.12194440e-4f;
    reals y = f * 1.9875691500e-4f + 1.3981999507e-3f;
    y = y * f + 8.3334519073e-3f;
    y = y * f + 4.1665795894e-2f;
    y = y * f + 1.6666665459e-1f;
    y = y * f + 5.0000001201e-1f;
    y = y * f * f + f + 1.0f;
    return y * (reals)((__builtin_convertvector(n, wholes) + 127) << 23);
}

/* `count` numbers of a row, at most LANES, as floats; zeros after them */
static inline reals taken(const void *row, int64_t place, int half, int64_t count) {
    if (half) {
        halves narrow = {0};
        if (count == LANES)
            memcpy(&narrow, (const uint16_t *)row + place, sizeof narrow);
        else
            memcpy(&narrow, (const uint16_t *)row + place, count * sizeof(uint16_t));
        return (reals)(__builtin_convertvector(narrow, bits) << 16);
    }
    reals wide = {0};
    if (count == LANES)
        memcpy(&wide, (const float *)row + place, sizeof wide);
    else
        memcpy(&wide, (const float *)row + place, count * sizeof(float));
    return wide;
}

/* The other way, to the nearest bf16, ties to even */
static inline void put(reals wide, void *row, int64_t place, int half, int64_t count) {
    if (half) {
        bits own = (bits)wide;
        bits nearest = (own + 0x7FFF + ((own >> 16) & 1)) >> 16;
        bits lost = (bits)((own & 0x7FFFFFFF) > 0x7F800000);
        halves narrow = __builtin_convertvector((lost & 0x7FC0) | (~lost & nearest), halves);
        if (count == LANES)
            memcpy((uint16_t *)row + place, &narrow, sizeof narrow);
        else
            memcpy((uint16_t *)row + place, &narrow, count * sizeof(uint16_t));
        return;
    }
    if (count == LANES)
        memcpy((float *)row + place, &wide, sizeof wide);
    else
        memcpy((float *)row + place, &wide, count * sizeof(float));
}

/* Of `count` maps of one picture's heat [cells,maps]: their points [2,maps] and what the backward pass needs, [KEPT,maps].
   room: [cells] vectors */
static inline void find(const void *heat, int half, const float *restrict grid, int64_t cells, int64_t maps, int64_t count,
                        float sharpness, float tiny, reals *restrict room, float *restrict points, float *restrict kept) {
    reals mean = {0}, size = {0}, sum = {0}, across = {0}, down = {0};
    const float way = sharpness < 0 ? -1 : 1;
    reals high = taken(heat, 0, half, count) * way;
    for (int64_t i = 0; i < cells; i++) {
        reals x = taken(heat, i * maps, half, count);
        room[i] = x;
        mean += x;
        high = either(x * way > high, x * way, high);
    }
    mean /= (float)cells;
    for (int64_t i = 0; i < cells; i++) {
        reals off = room[i] - mean;
        size += off * off;
    }
    reals deviation;
    for (int k = 0; k < LANES; k++) deviation[k] = 1 / sqrtf(size[k] / (float)cells + tiny);
    reals top = (high * way - mean) * deviation * sharpness;
    for (int64_t i = 0; i < cells; i++) {
        reals share = exponential((room[i] - mean) * deviation * sharpness - top);
        sum += share;
        across += share * grid[2 * i];
        down += share * grid[2 * i + 1];
    }
    sum = 1 / sum;
    put(across * sum, points, 0, 0, count);
    put(down * sum, points, maps, 0, count);
    put(mean, kept, MEAN * maps, 0, count);
    put(deviation, kept, DEVIATION * maps, 0, count);
    put(top, kept, TOP * maps, 0, count);
    put(sum, kept, SHARE * maps, 0, count);
}

/* Slopes [cells,maps] of the same maps from those of their points, grad [2,maps]; into_sharpness [maps] is each map's part */
static inline void follow(const void *heat, int half, const float *restrict grid, int64_t cells, int64_t maps, int64_t count,
                          float sharpness, reals *restrict room, const float *restrict points, const float *restrict kept,
                          const float *restrict grad, void *slopes, float *restrict into_sharpness) {
    reals mean = taken(kept, MEAN * maps, 0, count), deviation = taken(kept, DEVIATION * maps, 0, count);
    reals top = taken(kept, TOP * maps, 0, count), part = taken(kept, SHARE * maps, 0, count);
    reals x = taken(points, 0, 0, count), y = taken(points, maps, 0, count);
    reals across = taken(grad, 0, 0, count), down = taken(grad, maps, 0, count), into = {0};
    for (int64_t i = 0; i < cells; i++) {
        reals even = (taken(heat, i * maps, half, count) - mean) * deviation;
        reals pull = exponential(even * sharpness - top) * part;
        pull *= (grid[2 * i] - x) * across + (grid[2 * i + 1] - y) * down;
        into += pull * even;
        room[2 * i] = even;
        room[2 * i + 1] = pull;
    }
    put(into, into_sharpness, 0, 0, count);
    /* The pulls of a map add up to nothing, so that its mean takes no part. */
    reals scale = deviation * sharpness, share = into / (float)cells;
    for (int64_t i = 0; i < cells; i++)
        put(scale * (room[2 * i + 1] - room[2 * i] * share), slopes, i * maps, half, count);
}

/* Of n pictures: points [n,2,maps] and kept [n,KEPT,maps] from heat [n,cells,maps], or, where grad [n,2,maps] is given,
   slopes [n,cells,maps] and into_sharpness [n,maps] from those. half: heat and slopes are bf16. grid: [cells,2].
   Returns 0, or 1 where there is no memory. */
int soft_argmax(const void *heat, int half, const float *grid, int64_t n, int64_t cells, int64_t maps, const float *sharpness,
                float tiny, int threads, float *points, float *kept, const float *grad, void *slopes, float *into_sharpness) {
    int failed = 0;
    int64_t width = half ? 2 : 4, blocks = (maps + LANES - 1) / LANES;
#pragma omp parallel num_threads(threads)
    {
        void *memory = malloc((2 * cells + 1) * sizeof(reals));
        reals *room = (reals *)(((uintptr_t)memory + sizeof(reals) - 1) / sizeof(reals) * sizeof(reals));
        if (!memory) {
#pragma omp atomic write
            failed = 1;
        }
#pragma omp barrier
        if (!failed) {
#pragma omp for schedule(static)
            for (int64_t job = 0; job < n * blocks; job++) {
                int64_t i = job / blocks, from = job % blocks * LANES;
                int64_t count = maps - from < LANES ? maps - from : LANES;
                int64_t start = (i * cells * maps + from) * width;
                const char *own = (const char *)heat + start;
                float *place = points + 2 * i * maps + from, *rest = kept + KEPT * i * maps + from;
                if (!grad) {
                    find(own, half, grid, cells, maps, count, *sharpness, tiny, room, place, rest);
                    continue;
                }
                const float *pulled = grad + 2 * i * maps + from;
                char *to = (char *)slopes + start;
                float *into = into_sharpness + i * maps + from;
                follow(own, half, grid, cells, maps, count, *sharpness, room, place, rest, pulled, to, into);
            }
        }
        free(memory);
    }
    return failed;
}
