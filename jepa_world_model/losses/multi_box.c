/* The multi-box distance of pictures and its gradient, one picture after the other, so that it never leaves the cache.

   The formula is that of `multi_box` in image_distance.py. Plain C99; loops
   are written for a compiler that turns them into vectors. Sums run in one order whatever the number of threads. */

#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

typedef struct {
    int64_t height, width;
    int64_t kernel, stride, rows, columns; /* of boxes: side, step, grid */
    float beta, share;
    float *picture, *error, *weight; /* [channels,height,width], [height,width] twice; of the thread */
} Scale;

/* 2x2 means; at an odd border the mean of what is left. [h,w] -> [ceil(h/2),ceil(w/2)] */
static void halve(const float *from, int64_t h, int64_t w, float *to) {
    int64_t half = (w + 1) / 2;
    for (int64_t y = 0; y < (h + 1) / 2; y++) {
        const float *a = from + 2 * y * w, *b = 2 * y + 1 < h ? a + w : a;
        float *line = to + y * half;
        for (int64_t x = 0; x < w / 2; x++)
            line[x] = 0.25f * ((a[2 * x] + b[2 * x]) + (a[2 * x + 1] + b[2 * x + 1]));
        if (w % 2) line[half - 1] = 0.5f * (a[w - 1] + b[w - 1]);
    }
}

/* The adjoint of `halve`, added: to [h,w] += of carried [ceil(h/2),ceil(w/2)]. wide: room for a line */
static void add_halved_back(const float *carried, int64_t h, int64_t w, float *wide, float *to) {
    int64_t half = (w + 1) / 2;
    for (int64_t y = 0; y < (h + 1) / 2; y++) {
        const float *line = carried + y * half;
        int one_row = 2 * y + 1 >= h;
        float part = one_row ? 0.5f : 0.25f;
        for (int64_t x = 0; x < w / 2; x++) wide[2 * x] = wide[2 * x + 1] = part * line[x];
        if (w % 2) wide[w - 1] = 2 * part * line[half - 1];
        for (int64_t row = 2 * y; row < 2 * y + 2 - one_row; row++)
            for (int64_t x = 0; x < w; x++) to[row * w + x] += wide[x];
    }
}

/* error[y,x] = sum over channels of |picture[c,y,x]| */
static void sum_of_sizes(const float *picture, int64_t channels, int64_t pixels, float *error) {
    for (int64_t i = 0; i < pixels; i++) error[i] = fabsf(picture[i]);
    for (int64_t c = 1; c < channels; c++)
        for (int64_t i = 0; i < pixels; i++) error[i] += fabsf(picture[c * pixels + i]);
}

/* weight = min((error / mean of its box)^beta, most). line: room for two lines */
static void hardness(const Scale *s, float tiny, float most, float *line) {
    float *sums = line, *across = line + s->width;
    float area = (float)(s->kernel * s->kernel);
    for (int64_t r = 0, y = 0; r < s->rows; r++) {
        const float *top = s->error + r * s->stride * s->width;
        memcpy(sums, top, s->width * sizeof(float));
        for (int64_t k = 1; k < s->kernel; k++)
            for (int64_t x = 0; x < s->width; x++) sums[x] += top[k * s->width + x];
        for (int64_t c = 0, x = 0; c < s->columns; c++) {
            float box = 0;
            for (int64_t k = 0; k < s->kernel; k++) box += sums[c * s->stride + k];
            float one_over = 1 / (box / area + tiny);
            for (; x * s->columns / s->width == c && x < s->width; x++) across[x] = one_over;
        }
        for (; y * s->rows / s->height == r && y < s->height; y++) {
            const float *e = s->error + y * s->width;
            float *w = s->weight + y * s->width;
            for (int64_t x = 0; x < s->width; x++) w[x] = e[x] * across[x];
            if (s->beta == 2)
                for (int64_t x = 0; x < s->width; x++) w[x] *= w[x];
            else
                for (int64_t x = 0; x < s->width; x++) w[x] = powf(w[x], s->beta);
            for (int64_t x = 0; x < s->width; x++) w[x] = w[x] > most ? most : w[x]; /* what is not a number stays so */
        }
    }
}

/* picture -> sign(picture) * weight * slope, in each channel */
static void uphill(const float *picture, const float *weight, float slope, int64_t channels, int64_t pixels, float *to) {
    for (int64_t c = 0; c < channels; c++)
        for (int64_t i = 0; i < pixels; i++) {
            float d = picture[c * pixels + i];
            to[c * pixels + i] = (float)((d > 0) - (d < 0)) * (weight[i] * slope);
        }
}

/* The distance of one picture; share / n of its gradient into `slopes` [channels,height,width] unless that is NULL */
static float one_picture(const float *picture, float *slopes, Scale *scales, int64_t count, int64_t channels, int64_t n,
                         float tiny, float most, float *line) {
    float distance = 0;
    for (int64_t i = 0; i < count; i++) {
        const Scale *s = &scales[i], *coarser = s + 1;
        int64_t pixels = s->height * s->width;
        const float *level = i ? s->picture : picture;
        for (int64_t c = 0; i + 1 < count && c < channels; c++)
            halve(level + c * pixels, s->height, s->width, coarser->picture + c * coarser->height * coarser->width);
        sum_of_sizes(level, channels, pixels, s->error);
        hardness(s, tiny, most, line);
        float weights = 0, weighted = 0;
#pragma omp simd reduction(+ : weights, weighted)
        for (int64_t p = 0; p < pixels; p++) {
            weights += s->weight[p];
            weighted += s->weight[p] * s->error[p];
        }
        float part = s->share / (weights + tiny);
        distance += part * weighted;
        if (slopes) uphill(level, s->weight, part / (float)n, channels, pixels, i ? s->picture : slopes);
    }
    for (int64_t i = count - 1; slopes && i > 0; i--)
        for (int64_t c = 0; c < channels; c++) {
            const Scale *s = &scales[i], *finer = &scales[i - 1];
            float *to = i == 1 ? slopes : finer->picture;
            add_halved_back(s->picture + c * s->height * s->width, finer->height, finer->width, line,
                            to + c * finer->height * finer->width);
        }
    return distance;
}

/* Distances [n] of `difference` [n,channels,height,width], and the gradient of their mean, of the same shape, unless that is
   NULL. shares: weight of each scale over the channels. Returns 0, or 1 where there is no memory. */
int multi_box(const float *difference, int64_t n, int64_t channels, int64_t height, int64_t width, int64_t count,
              const int64_t *kernels, const int64_t *strides, const float *betas, const float *shares, float tiny, float most,
              int threads, float *distances, float *gradients) {
    int failed = 0;
    int64_t room = 2 * width + 2;
    for (int64_t i = 0, h = height, w = width; i < count; i++, h = (h + 1) / 2, w = (w + 1) / 2)
        room += (2 + (i ? channels : 0)) * h * w;
#pragma omp parallel num_threads(threads)
    {
        float *memory = malloc(room * sizeof(float));
        Scale *scales = malloc(count * sizeof(Scale));
        if (!memory || !scales) {
#pragma omp atomic write
            failed = 1;
        } else {
            float *free_from = memory + 2 * width + 2;
            for (int64_t i = 0, h = height, w = width; i < count; i++, h = (h + 1) / 2, w = (w + 1) / 2) {
                int64_t side = h < w ? h : w, kernel = kernels[i] < side ? kernels[i] : side;
                scales[i] = (Scale){h, w, kernel, strides[i], (h - kernel) / strides[i] + 1, (w - kernel) / strides[i] + 1,
                                    betas[i], shares[i], NULL, free_from, free_from + h * w};
                free_from += 2 * h * w;
                if (i) {
                    scales[i].picture = free_from;
                    free_from += channels * h * w;
                }
            }
        }
#pragma omp barrier
        if (!failed) {
            int64_t size = channels * height * width;
#pragma omp for schedule(static)
            for (int64_t i = 0; i < n; i++)
                distances[i] = one_picture(difference + i * size, gradients ? gradients + i * size : NULL, scales, count,
                                           channels, n, tiny, most, memory);
        }
        free(memory);
        free(scales);
    }
    return failed;
}
