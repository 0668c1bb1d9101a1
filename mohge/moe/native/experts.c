/* The routed experts of a layer on a CPU, in float32: SwiGLU networks of several widths, forward and backward.

   Shapes: T tokens, D model width, E experts, G groups, N experts per group, W width of a group's experts,
   R rows, sorted by expert. D and W are multiples of LANES. Each expert is computed by one thread, in blocks of
   rows whose intermediate results stay in that core's cache; weights are read, and their gradients written, once
   for each block. */

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "product.h"

typedef int32_t ivec __attribute__((vector_size(LANES * 4)));

typedef struct {
    const float *gate_up, *down;      /* (N, 2W, D), (N, D, W) */
    float *grad_gate_up, *grad_down;  /* of the same shapes; backward alone */
    int64_t width;                    /* W */
} group;

typedef struct {
    int64_t d_model, num_groups, per_group;
    int64_t backward;                 /* 0 or 1, since tensors without rows may be NULL in both directions */
    const group *groups;
    const int64_t *counts, *tokens;   /* (E), (R) */
    const float *x;                   /* (T, D) */
    float *kept;                      /* for each group in turn, (rows, 2W): the input of SwiGLU; or NULL */
    float *y;                         /* (R, D) */
    const float *weights, *grad_y;    /* (R), (T, D); backward alone, as what follows */
    float *grad_x, *grad_weights;     /* (R, D), (R) */
} layer;

typedef struct {
    int64_t group, expert, row, rows, kept; /* expert of the group's N; first of `rows` rows; offset in `kept` */
    int64_t cost;
} task;

typedef struct {
    const layer *layer;
    task *tasks;
    int64_t num_tasks, next_task, next_thread, block, scratch_floats;
    float *scratch;
} job;

typedef void (*parallel_function)(void (*)(void *), void *, unsigned, unsigned);

#define MAX(a, b) ((a) > (b) ? (a) : (b))
#define MIN(a, b) ((a) < (b) ? (a) : (b))
#define ROUND_UP(n) (((n) + LANES - 1) / LANES * LANES)
#define APART(n) ((n) + LANES) /* stride of scratch rows: with a power of two, rows would evict one another */
#define LINE 64 /* bytes of a cache line: a vector across two of them takes twice as long to load */
#define FEW 4 /* rows whose sums fit the registers at once */
#define MOST_FEW 8 /* rows of an expert that are computed so, in two turns */
#define CACHE_FLOATS (384 * 1024) /* for the blocks of one thread: 1.5 MB of a second-level cache */

INLINE vec either(ivec condition, vec a, vec b) { return (vec)((condition & (ivec)a) | (~condition & (ivec)b)); }

/* e^x to 2 units in the last place (coefficients of Cephes' expf). */
INLINE vec exponential(vec x) {
    x = either(x > 88.0f, all(88.0f), x);
    x = either(x < -87.0f, all(-87.0f), x);
    vec n = x * 1.44269504f + 12582912.0f; /* rounds: no fraction is left at this magnitude */
    n = n - 12582912.0f;
    vec r = x - n * 0.693359375f + n * 2.12194440e-4f;
    vec p = all(1.9875691500e-4f);
    p = p * r + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    p = p * r * r + r + 1.0f;
    ivec power = (__builtin_convertvector(n, ivec) + 127) << 23;
    return p * (vec)power;
}

INLINE vec sigmoid(vec x) { return 1.0f / (1.0f + exponential(-x)); }

/* Exchange, in every pair of rows `step` apart, the blocks of `step` columns across the diagonal. */
INLINE void exchange(vec *rows, const int step) {
    ivec low, high;
#pragma GCC unroll 16
    for (int j = 0; j < LANES; j++) {
        low[j] = j & step ? LANES + j - step : j;
        high[j] = j & step ? LANES + j : j + step;
    }
#pragma GCC unroll 16
    for (int i = 0; i < LANES; i++)
        if (!(i & step)) {
            vec a = rows[i], b = rows[i + step];
            rows[i] = __builtin_shuffle(a, b, low);
            rows[i + step] = __builtin_shuffle(a, b, high);
        }
}

/* to[j][i] = from[i][j], for LANES rows and columns. */
INLINE void transpose_square(const float *const *from, float *const *to, const int past_cache) {
    vec rows[LANES];
#pragma GCC unroll 16
    for (int i = 0; i < LANES; i++) rows[i] = load(from[i]);
    if (LANES > 8) exchange(rows, 8);
    if (LANES > 4) exchange(rows, 4);
    exchange(rows, 2);
    exchange(rows, 1);
#pragma GCC unroll 16
    for (int i = 0; i < LANES; i++) (past_cache ? store_past_cache : store)(to[i], rows[i]);
}

/* Rows of x, given by `tokens`, as columns; columns beyond `rows`, up to a whole vector, repeat the last. */
static void gather_columns(const float *x, const int64_t *tokens, int64_t rows, int64_t d_model, float *to,
                           int64_t stride) {
    for (int64_t i = 0; i < rows; i += LANES)
        for (int64_t d = 0; d < d_model; d += LANES) {
            const float *from[LANES];
            float *target[LANES];
            for (int l = 0; l < LANES; l++) {
                from[l] = x + tokens[MIN(i + l, rows - 1)] * d_model + d;
                target[l] = to + (d + l) * stride + i;
            }
            transpose_square(from, target, 0);
        }
}

/* Columns to contiguous rows in main memory: to (rows, width) from (width, stride). */
static void columns_to_rows(const float *columns, int64_t stride, int64_t rows, int64_t width, float *to) {
    float unused[LANES] __attribute__((aligned(LINE)));
    for (int64_t i = 0; i < rows; i += LANES)
        for (int64_t w = 0; w < width; w += LANES) {
            const float *from[LANES];
            float *target[LANES];
            for (int l = 0; l < LANES; l++) {
                from[l] = columns + (w + l) * stride + i;
                target[l] = i + l < rows ? to + (i + l) * width + w : unused;
            }
            transpose_square(from, target, 1);
        }
}

static void gather_rows(const float *x, const int64_t *tokens, int64_t rows, int64_t d_model, float *to) {
    for (int64_t i = 0; i < rows; i++)
        memcpy(to + i * APART(d_model), x + tokens[i] * d_model, d_model * sizeof(float));
}

/* Up to FEW rows times a matrix (outputs, depth), whose rows are read once, in order: each output is a product of
   two rows, and no padded row is computed. `to`: (count, outputs), `outputs` a multiple of LANES. */
INLINE void few_by_matrix(const int count, const float *const *x, const float *matrix, int64_t outputs, int64_t depth,
                          float *to) {
    float sums[FEW][LANES][LANES] __attribute__((aligned(LINE)));
    for (int64_t first = 0; first < outputs; first += LANES) {
        for (int j = 0; j < LANES; j += 2, matrix += 2 * depth) { /* two at a time, so that sums wait less */
            vec a[FEW], b[FEW];
            for (int i = 0; i < count; i++) a[i] = b[i] = all(0);
            for (int64_t k = 0; k < depth; k += LANES) {
                vec m = load(matrix + k), n = load(matrix + depth + k);
                for (int i = 0; i < count; i++) {
                    vec each = load(x[i] + k);
                    a[i] += each * m;
                    b[i] += each * n;
                }
            }
            for (int i = 0; i < count; i++) {
                store(sums[i][j], a[i]);
                store(sums[i][j + 1], b[i]);
            }
        }
        for (int i = 0; i < count; i++) { /* the lanes of each sum are added up as columns of the transposed */
            vec total = all(0);
            float columns[LANES][LANES] __attribute__((aligned(LINE)));
            const float *from[LANES];
            float *target[LANES];
            for (int l = 0; l < LANES; l++) from[l] = sums[i][l], target[l] = columns[l];
            transpose_square(from, target, 0);
            for (int l = 0; l < LANES; l++) total += load(columns[l]);
            store(to + i * outputs + first, total);
        }
    }
}

static void few_rows(const float *const *x, int64_t count, const float *matrix, int64_t outputs, int64_t depth,
                     float *to) {
    switch (count) { /* a function for each number, so that sums stay in registers */
    case 1: few_by_matrix(1, x, matrix, outputs, depth, to); break;
    case 2: few_by_matrix(2, x, matrix, outputs, depth, to); break;
    case 3: few_by_matrix(3, x, matrix, outputs, depth, to); break;
    default: few_by_matrix(4, x, matrix, outputs, depth, to);
    }
}

/* Rows of an expert too few to fill a vector, as when text is generated: for inference alone. */
static void forward_few(const job *job, const task *task, float *scratch) {
    const layer *layer = job->layer;
    const group *group = layer->groups + task->group;
    int64_t D = layer->d_model, W = group->width;
    const float *gate_up = group->gate_up + task->expert * 2 * W * D, *down = group->down + task->expert * W * D;
    for (int64_t first = 0; first < task->rows; first += FEW) {
        int64_t count = MIN(FEW, task->rows - first), row = task->row + first;
        float *inner = scratch, *hidden = inner + FEW * 2 * W;
        const float *x[FEW], *of_hidden[FEW];
        for (int64_t i = 0; i < count; i++) {
            x[i] = layer->x + layer->tokens[row + i] * D;
            of_hidden[i] = hidden + i * W;
        }
        few_rows(x, count, gate_up, 2 * W, D, inner);
        for (int64_t i = 0; i < count; i++)
            for (int64_t w = 0; w < W; w += LANES) {
                vec gate = load(inner + i * 2 * W + w), up = load(inner + i * 2 * W + W + w);
                store(hidden + i * W + w, gate * sigmoid(gate) * up);
            }
        few_rows(of_hidden, count, down, D, W, layer->y + row * D);
    }
}

static void forward_block(const job *job, const task *task, float *scratch) {
    const layer *layer = job->layer;
    const group *group = layer->groups + task->group;
    int64_t D = layer->d_model, W = group->width, rows = task->rows, stride = APART(ROUND_UP(rows));
    if (!layer->kept && rows <= MOST_FEW) {
        forward_few(job, task, scratch);
        return;
    }
    const float *gate_up = group->gate_up + task->expert * 2 * W * D, *down = group->down + task->expert * W * D;
    float *columns = scratch, *inner = columns + D * stride, *hidden = inner + 2 * W * stride;
    int64_t padded = ROUND_UP(rows);

    gather_columns(layer->x, layer->tokens + task->row, rows, D, columns, stride);
    product_by_rows(2 * W, padded, D, (left){gate_up, D, ROW_MAJOR}, (right){columns, stride},
                    (result){inner, stride, 0});
    for (int64_t w = 0; w < W; w++)
        for (int64_t i = 0; i < padded; i += LANES) {
            vec gate = load(inner + w * stride + i), up = load(inner + (W + w) * stride + i);
            store(hidden + w * stride + i, gate * sigmoid(gate) * up);
        }
    if (layer->kept) columns_to_rows(inner, stride, rows, 2 * W, layer->kept + task->kept);
    product_by_rows(D, padded, W, (left){down, W, ROW_MAJOR}, (right){hidden, stride},
                    (result){columns, stride, 0});
    columns_to_rows(columns, stride, rows, D, layer->y + task->row * D);
}

/* SwiGLU again, and its gradients: hidden comes in as the gradient of SwiGLU's output for weight 1, and goes out
   as that output times the weight. */
static void swiglu_backward(const layer *layer, int64_t row, int64_t rows, int64_t W, const float *kept,
                            float *hidden, float *grad_inner) {
    for (int64_t i = 0; i < rows; i++, kept += 2 * W, hidden += APART(W), grad_inner += APART(2 * W)) {
        vec weight = all(layer->weights[row + i]), sum = all(0);
        for (int64_t w = 0; w < W; w += LANES) {
            vec gate = load(kept + w), up = load(kept + W + w), grad = load(hidden + w);
            vec s = sigmoid(gate), silu = gate * s, output = silu * up;
            sum += grad * output;
            grad *= weight;
            store(hidden + w, output * weight);
            store(grad_inner + w, grad * up * s * (1.0f + gate - silu));
            store(grad_inner + W + w, grad * silu);
        }
        float total = 0;
        for (int l = 0; l < LANES; l++) total += sum[l];
        layer->grad_weights[row + i] = total;
    }
}

static void backward_expert(const job *job, const task *task, float *scratch) {
    const layer *layer = job->layer;
    const group *group = layer->groups + task->group;
    int64_t D = layer->d_model, W = group->width, matrix = W * D;
    const float *gate_up = group->gate_up + task->expert * 2 * matrix, *down = group->down + task->expert * matrix;
    float *grad_gate_up = group->grad_gate_up + task->expert * 2 * matrix;
    float *grad_down = group->grad_down + task->expert * matrix;
    if (!task->rows) {
        memset(grad_gate_up, 0, 2 * matrix * sizeof(float));
        memset(grad_down, 0, matrix * sizeof(float));
    }
    int64_t blocks = (task->rows + job->block - 1) / job->block;
    for (int64_t b = 0; b < blocks; b++) {
        int64_t first = task->rows * b / blocks, rows = task->rows * (b + 1) / blocks - first;
        int64_t row = task->row + first;
        float *panel = scratch, *x = panel + DEPTH * COLUMNS, *grad_y = x + rows * APART(D);
        float *hidden = grad_y + rows * APART(D), *inner = hidden + rows * APART(W); /* gradient of SwiGLU's input */
        gather_rows(layer->x, layer->tokens + row, rows, D, x);
        gather_rows(layer->grad_y, layer->tokens + row, rows, D, grad_y);
        product_by_columns(rows, W, D, (left){grad_y, APART(D), ROW_MAJOR}, down,
                           (result){hidden, APART(W), 0}, panel);
        swiglu_backward(layer, row, rows, W, layer->kept + task->kept + first * 2 * W, hidden, inner);
        product_by_rows(D, W, rows, (left){grad_y, APART(D), COLUMN_MAJOR}, (right){hidden, APART(W)},
                        (result){grad_down, W, b > 0});
        product_by_rows(2 * W, D, rows, (left){inner, APART(2 * W), COLUMN_MAJOR}, (right){x, APART(D)},
                        (result){grad_gate_up, D, b > 0});
        float *grad_x = x; /* x is done with */
        product_by_columns(rows, D, 2 * W, (left){inner, APART(2 * W), ROW_MAJOR}, gate_up,
                           (result){grad_x, APART(D), 0}, panel);
        for (int64_t i = 0; i < rows; i++)
            for (int64_t d = 0; d < D; d += LANES)
                store_past_cache(layer->grad_x + (row + i) * D + d, load(grad_x + i * APART(D) + d));
    }
}

/* Every thread takes the next task until none is left. */
static void work(void *of) {
    job *job = of;
    int64_t thread = __atomic_fetch_add(&job->next_thread, 1, __ATOMIC_RELAXED), t;
    float *scratch = job->scratch + thread * job->scratch_floats;
    while ((t = __atomic_fetch_add(&job->next_task, 1, __ATOMIC_RELAXED)) < job->num_tasks)
        (job->layer->backward ? backward_expert : forward_block)(job, job->tasks + t, scratch);
    finish_stores();
}

/* So that no thread begins the largest task when the others are done. */
static int costliest_first(const void *a, const void *b) {
    int64_t x = ((const task *)a)->cost, y = ((const task *)b)->cost;
    return (x < y) - (x > y);
}

/* Compute the layer, forward or backward; returns 0, or 1 if memory is short. */
int experts(const layer *layer, int64_t threads, parallel_function parallel) {
    int64_t D = layer->d_model, widest = 0, num_tasks = 0, E = layer->num_groups * layer->per_group;
    for (int64_t g = 0; g < layer->num_groups; g++) widest = MAX(widest, layer->groups[g].width);
    int64_t block = CACHE_FLOATS / (layer->backward ? 2 * D + 3 * widest : D + 3 * widest) / LANES * LANES;
    block = MIN(MAX(block, 2 * LANES), 256);
    for (int64_t e = 0; e < E; e++) {
        num_tasks += layer->backward ? 1 : (layer->counts[e] + block - 1) / block;
    }
    job job = {.layer = layer, .num_tasks = num_tasks, .block = block};
    job.scratch_floats = APART(block) * (2 * APART(D) + 4 * APART(widest)) + DEPTH * COLUMNS;
    job.scratch_floats = (job.scratch_floats + LINE - 1) / LINE * LINE;
    job.tasks = malloc(MAX(num_tasks, 1) * sizeof(task));
    job.scratch = aligned_alloc(LINE, threads * job.scratch_floats * sizeof(float));
    if (job.tasks && job.scratch) {
        int64_t row = 0, kept = 0, t = 0;
        for (int64_t e = 0; e < E; e++) {
            int64_t count = layer->counts[e], g = e / layer->per_group, n = e % layer->per_group;
            int64_t W = layer->groups[g].width;
            int64_t parts = layer->backward ? 1 : (count + block - 1) / block;
            for (int64_t b = 0; b < parts; b++) {
                int64_t first = count * b / parts, last = count * (b + 1) / parts;
                job.tasks[t++] = (task){g, n, row + first, last - first, kept + first * 2 * W, (last - first) * W};
            }
            row += count;
            kept += count * 2 * W;
        }
        qsort(job.tasks, num_tasks, sizeof(task), costliest_first);
        if (threads > 1) parallel(work, &job, threads, 0);
        else work(&job);
    }
    int failed = !job.tasks || !job.scratch;
    free(job.tasks);
    free(job.scratch);
    return failed;
}

int lanes(void) { return LANES; }
