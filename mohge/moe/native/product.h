/* Matrix products of a few dozen to a few hundred rows with matrices that come from memory once.

   A library's product copies both operands into its own layout first, which pays for itself with a thousand rows
   and not with sixty-four. Here the left operand is read in place, one number at a time, and the right one by
   vectors of adjacent columns, while the next part of whichever is the large one is fetched ahead. */

#include <stddef.h>
#if defined(__AVX2__)
#include <immintrin.h>
#endif

/* Any processor will do: without these two, the compiler makes its vectors of what there is. */
#if defined(__AVX512F__)
#define LANES 16 /* floats in a vector */
#define ROWS 14  /* of a tile: ROWS * 2 sums and 3 vectors of operands fit the registers */
#elif defined(__AVX2__)
#define LANES 8
#define ROWS 6
#else
#define LANES 4
#define ROWS 6
#endif
#define COLUMNS (2 * LANES) /* of a tile */
#define DEPTH 192           /* most rows of a panel: DEPTH * COLUMNS floats are half of a first-level cache */
#define BLOCK (64 * 1024)   /* floats of a large right operand that are fetched while as many are used */

typedef float vec __attribute__((vector_size(LANES * 4)));
typedef float vec_anywhere __attribute__((vector_size(LANES * 4), aligned(4)));
#define INLINE static inline __attribute__((always_inline))

INLINE vec load(const float *from) { return *(const vec_anywhere *)from; }
INLINE void store(float *to, vec value) { *(vec_anywhere *)to = value; }

/* To memory that is not read again soon, past the cache: it need not be fetched first, and evicts nothing. */
INLINE void store_past_cache(float *to, vec value) {
#if defined(__AVX512F__)
    _mm512_stream_ps(to, (__m512)value);
#elif defined(__AVX2__)
    _mm256_stream_ps(to, (__m256)value);
#else
    store(to, value);
#endif
}
/* Before another thread may read what was stored so. */
INLINE void finish_stores(void) {
#if defined(__AVX2__)
    _mm_sfence();
#endif
}

/* Minus and not plus, which would turn -0 into 0 and so cost an instruction. */
INLINE vec all(float value) { return value - (vec){0}; }

/* How a left operand lies in memory: element (i, k) at [i * stride + k], or at [i + k * stride]. */
enum order { ROW_MAJOR, COLUMN_MAJOR };

typedef struct {
    const float *data;
    ptrdiff_t stride;
    enum order order;
} left;

typedef struct {
    const float *data;
    ptrdiff_t stride; /* between rows */
} right;

typedef struct {
    float *data;
    ptrdiff_t stride; /* between rows */
    int add;          /* to what is there, instead of replacing it */
} result;

/* What to fetch for later: a step of `stride` floats for each k. */
typedef struct {
    const float *data;
    ptrdiff_t stride;
} ahead;

INLINE void tile(const int rows, const int vectors, const enum order order, int depth, const float *a,
                 ptrdiff_t a_stride, right b, result c, ahead next) {
    vec sum[ROWS][2];
    for (int i = 0; i < rows; i++)
        for (int j = 0; j < vectors; j++)
            if (c.add) {
                sum[i][j] = load(c.data + i * c.stride + j * LANES);
            } else {
                sum[i][j] = all(0);
                __builtin_prefetch(c.data + i * c.stride + j * LANES, 1, 2);
            }
    /* Row i is at of_rows[i / 3] + (i % 3) * a_stride: more pointers than five do not fit the registers. */
    const float *of_rows[(ROWS + 2) / 3];
    for (int i = 0; i < (ROWS + 2) / 3; i++) of_rows[i] = a + 3 * i * a_stride;
    for (int k = 0; k < depth; k++) {
        vec b0 = load(b.data), b1 = vectors > 1 ? load(b.data + LANES) : b0;
        b.data += b.stride;
        __builtin_prefetch(next.data, 0, 2);
        next.data += next.stride;
#pragma GCC unroll 16
        for (int i = 0; i < rows; i++) {
            vec x = all(order == ROW_MAJOR ? of_rows[i / 3][(i % 3) * a_stride] : a[i]);
            sum[i][0] += x * b0;
            if (vectors > 1) sum[i][1] += x * b1;
        }
        a += a_stride; /* of a column */
        for (int i = 0; i < (ROWS + 2) / 3; i++) of_rows[i]++;
    }
    for (int i = 0; i < rows; i++)
        for (int j = 0; j < vectors; j++) store(c.data + i * c.stride + j * LANES, sum[i][j]);
}

/* One function for each number of rows, vectors and order, so that sums stay in registers. */
#define CASE(n) \
    case n: tile(n, V, O, depth, a, a_stride, b, c, next); break;
#if ROWS > 6
#define CASES CASE(1) CASE(2) CASE(3) CASE(4) CASE(5) CASE(6) CASE(7) CASE(8) CASE(9) CASE(10) CASE(11) \
              CASE(12) CASE(13) CASE(14)
#else
#define CASES CASE(1) CASE(2) CASE(3) CASE(4) CASE(5) CASE(6)
#endif
#define DEFINE_TILES(name, vectors, order_)                                                                    \
    static void name(int rows, int depth, const float *a, ptrdiff_t a_stride, right b, result c, ahead next) { \
        const int V = vectors;                                                                                 \
        const enum order O = order_;                                                                           \
        switch (rows) { CASES }                                                                                \
    }
DEFINE_TILES(row_major_1, 1, ROW_MAJOR)
DEFINE_TILES(row_major_2, 2, ROW_MAJOR)
DEFINE_TILES(column_major_1, 1, COLUMN_MAJOR)
DEFINE_TILES(column_major_2, 2, COLUMN_MAJOR)

INLINE void any_tile(int rows, int columns, int depth, enum order order, const float *a, ptrdiff_t a_stride,
                     right b, result c, ahead next) {
    if (columns == COLUMNS)
        (order == ROW_MAJOR ? row_major_2 : column_major_2)(rows, depth, a, a_stride, b, c, next);
    else
        (order == ROW_MAJOR ? row_major_1 : column_major_1)(rows, depth, a, a_stride, b, c, next);
}

/* C (M x N) = A (M x K) B (K x N), for a large A and a B that stays in the cache. N: a multiple of LANES. */
static void product_by_rows(ptrdiff_t M, ptrdiff_t N, ptrdiff_t K, left a, right b, result c) {
    ptrdiff_t tiles = (M + ROWS - 1) / ROWS, step = a.order == ROW_MAJOR ? a.stride : 1;
    for (ptrdiff_t t = 0; t < tiles; t++) {
        ptrdiff_t i = M * t / tiles, rows = M * (t + 1) / tiles - i; /* tiles of about equal height */
        ptrdiff_t panels = (N + COLUMNS - 1) / COLUMNS;
        for (ptrdiff_t j = 0; j < N; j += COLUMNS) {
            /* Each panel fetches its share of the next tile's rows (of a row-major A without gaps). */
            const float *share = a.data + (i + rows) * step + rows * K / panels * (j / COLUMNS);
            ahead next = {share, (LANES - 1) / panels + 1};
            right panel = {b.data + j, b.stride};
            result part = {c.data + i * c.stride + j, c.stride, c.add};
            ptrdiff_t columns = N - j < COLUMNS ? LANES : COLUMNS;
            any_tile(rows, columns, K, a.order, a.data + i * step, a.stride, panel, part, next);
        }
    }
}

/* The same for a large B without gaps between its rows. It is taken in blocks of rows, of whose columns one panel
   after the other is copied to `panel` (DEPTH * COLUMNS floats). */
static void product_by_columns(ptrdiff_t M, ptrdiff_t N, ptrdiff_t K, left a, const float *b, result c, float *panel) {
    ptrdiff_t tiles = (M + ROWS - 1) / ROWS, parts = tiles * ((N + COLUMNS - 1) / COLUMNS);
    ptrdiff_t row_step = a.order == ROW_MAJOR ? a.stride : 1, column_step = a.order == ROW_MAJOR ? 1 : a.stride;
    ptrdiff_t block = BLOCK / N < 32 ? 32 : BLOCK / N > DEPTH ? DEPTH : BLOCK / N;
    for (ptrdiff_t k = 0; k < K; k += block) {
        ptrdiff_t depth = K - k < block ? K - k : block, part = 0;
        for (ptrdiff_t j = 0; j < N; j += COLUMNS) {
            ptrdiff_t columns = N - j < COLUMNS ? LANES : COLUMNS;
            for (ptrdiff_t d = 0; d < depth; d++)
                for (ptrdiff_t l = 0; l < columns; l += LANES)
                    store(panel + d * columns + l, load(b + (k + d) * N + j + l));
            for (ptrdiff_t t = 0; t < tiles; t++, part++) {
                ptrdiff_t i = M * t / tiles, rows = M * (t + 1) / tiles - i;
                /* Each tile fetches its share of the next block. */
                ahead next = {b + (k + depth) * N + depth * N / parts * part, N / parts + 1};
                result of = {c.data + i * c.stride + j, c.stride, c.add || k};
                any_tile(rows, columns, depth, a.order, a.data + i * row_step + k * column_step, a.stride,
                         (right){panel, columns}, of, next);
            }
        }
    }
}
