/* Copies of pieces of arrays, with a conversion on the way: row by row, for many pieces in one call. */

#include "_arrays.h"
#include <math.h>

#define MOST_DIMS 16
#define SHORT 32768 /* bytes that are written sooner than the interpreter's lock changes hands */

/* -- all elements of two arrays of one shape, row by row --------------------------------------------------------- */

typedef struct {
    int ndim;
    Size shape[MOST_DIMS], out[MOST_DIMS], in[MOST_DIMS]; /* sizes, and strides of both */
} Pair;

/* Axes of size 1 go, and axes that follow one another without a gap in both arrays become one. */
static int pair(const Py_buffer *out, const Py_buffer *in, Pair *both)
{
    if (out->ndim != in->ndim)
        return fail("the arrays have different numbers of dims");
    both->ndim = 0;
    for (int axis = 0; axis < out->ndim; axis++) {
        Size size = out->shape[axis];
        if (size != in->shape[axis])
            return fail("the arrays have different shapes");
        if (size == 1)
            continue;
        int last = both->ndim - 1;
        if (last >= 0 && both->out[last] == size * out->strides[axis] && both->in[last] == size * in->strides[axis]) {
            both->shape[last] *= size;
            both->out[last] = out->strides[axis];
            both->in[last] = in->strides[axis];
        } else {
            last = both->ndim++;
            both->shape[last] = size;
            both->out[last] = out->strides[axis];
            both->in[last] = in->strides[axis];
        }
    }
    if (!both->ndim) {
        both->shape[0] = 1;
        both->out[0] = out->itemsize;
        both->in[0] = in->itemsize;
        both->ndim = 1;
    }
    return 1;
}

typedef void (*Row)(char *out, Size out_step, const char *in, Size in_step, Size count, const void *with);

/* Rows of a window lie apart, and are too short for the processor to guess the next one: it is asked for some rows
   ahead. A window of 8 frames of 120 x 120 numbers takes half the time so. */
#define AHEAD 1024 /* bytes of rows that are asked for ahead, and of one row at most */
#define LINE 64    /* bytes that come at once */

typedef struct {
    Size at[MOST_DIMS];
    char *out;
    const char *in;
} Cursor;

/* The next row; 0 after the last one. */
INLINE int next_row(const Pair *both, Cursor *cursor)
{
    int axis = both->ndim - 2;
    for (; axis >= 0; axis--) {
        cursor->out += both->out[axis];
        cursor->in += both->in[axis];
        if (++cursor->at[axis] < both->shape[axis])
            return 1;
        cursor->out -= both->shape[axis] * both->out[axis];
        cursor->in -= both->shape[axis] * both->in[axis];
        cursor->at[axis] = 0;
    }
    return 0;
}

INLINE void ask_for(const char *in, Size bytes)
{
    for (Size at = 0; at < bytes; at += LINE)
        __builtin_prefetch(in + at);
    __builtin_prefetch(in + bytes - 1);
}

static void each_row(Row row, const Pair *both, char *out, const char *in, const void *with)
{
    Cursor here = {{0}, out, in}, ahead = here;
    int last = both->ndim - 1;
    Size count = both->shape[last], bytes = count * both->in[last];
    for (int axis = 0; axis <= last; axis++)
        if (!both->shape[axis])
            return;
    int more = last > 0 && bytes > 0;
    bytes = bytes < AHEAD ? bytes : AHEAD;
    for (Size rows = more ? AHEAD / bytes : 0; rows > 0 && more; rows--)
        if ((more = next_row(both, &ahead)))
            ask_for(ahead.in, bytes);
    do {
        if (more && (more = next_row(both, &ahead)))
            ask_for(ahead.in, bytes);
        row(here.out, both->out[last], here.in, both->in[last], count, with);
    } while (next_row(both, &here));
}

/* -- copy: numbers as they are ------------------------------------------------------------------------------------ */

INLINE void copy_of(char *out, Size to, const char *in, Size from, Size count, size_t width)
{
    for (Size i = 0; i < count; i++)
        memcpy(out + i * to, in + i * from, width);
}

static void copy_row(char *out, Size to, const char *in, Size from, Size count, const void *with)
{
    Size width = *(const Size *)with;
    if (to == width && from == width) {
        memcpy(out, in, (size_t)(count * width));
        return;
    }
    switch (width) { /* of a known width it is one instruction */
    case 1: copy_of(out, to, in, from, count, 1); break;
    case 2: copy_of(out, to, in, from, count, 2); break;
    case 4: copy_of(out, to, in, from, count, 4); break;
    case 8: copy_of(out, to, in, from, count, 8); break;
    default: copy_of(out, to, in, from, count, (size_t)width);
    }
}

/* -- look_up: every stored integer of 8 or 16 bits becomes what a table has for its bits ------------------------- */

#define LOOK_UP(name, type)                                                                                     \
    static void name(char *out, Size to, const char *in, Size from, Size count, const void *with)               \
    {                                                                                                           \
        const float *table = with;                                                                              \
        if (to == sizeof(float) && from == sizeof(type)) {                                                      \
            float *restrict values = (float *)out;                                                              \
            const type *restrict stored = (const type *)in;                                                     \
            for (Size i = 0; i < count; i++)                                                                    \
                values[i] = table[stored[i]];                                                                   \
        } else                                                                                                  \
            for (Size i = 0; i < count; i++)                                                                    \
                *(float *)(out + i * to) = table[*(const type *)(in + i * from)];                               \
    }
LOOK_UP(look_up_8, uint8_t)
LOOK_UP(look_up_16, uint16_t)

/* -- linear: integers times a scale plus an offset, in float or in double; one of them is NaN -------------------- */

typedef struct {
    int64_t missing; /* one that the integers cannot be: none is missing */
    double scale, offset;
} Line;

#define LINEAR(name, type, real)                                                                                \
    WIDE static void name(char *out, Size to, const char *in, Size from, Size count, const void *with)          \
    {                                                                                                           \
        const Line *line = with;                                                                                \
        const type missing = (type)line->missing;                                                               \
        const int some = (int64_t)missing == line->missing;                                                     \
        const real scale = (real)line->scale, offset = (real)line->offset;                                      \
        if (to == sizeof(float) && from == sizeof(type)) {                                                      \
            float *restrict values = (float *)out;                                                              \
            const type *restrict stored = (const type *)in;                                                     \
            if (some)                                                                                           \
                for (Size i = 0; i < count; i++)                                                                \
                    values[i] = stored[i] == missing ? NAN : (float)((real)stored[i] * scale + offset);         \
            else                                                                                                \
                for (Size i = 0; i < count; i++)                                                                \
                    values[i] = (float)((real)stored[i] * scale + offset);                                      \
        } else                                                                                                  \
            for (Size i = 0; i < count; i++) {                                                                  \
                type value = *(const type *)(in + i * from);                                                    \
                *(float *)(out + i * to) = some && value == missing ? NAN : (float)((real)value * scale + offset); \
            }                                                                                                   \
    }
#define LINEAR_OF(real)                                                                                         \
    LINEAR(u8_by_##real, uint8_t, real)                                                                         \
    LINEAR(i8_by_##real, int8_t, real)                                                                          \
    LINEAR(u16_by_##real, uint16_t, real)                                                                       \
    LINEAR(i16_by_##real, int16_t, real)                                                                        \
    LINEAR(u32_by_##real, uint32_t, real)                                                                       \
    LINEAR(i32_by_##real, int32_t, real)                                                                        \
    static const Row linear_by_##real[2][3] = {{u8_by_##real, u16_by_##real, u32_by_##real},                    \
                                               {i8_by_##real, i16_by_##real, i32_by_##real}};
LINEAR_OF(float)
LINEAR_OF(double)

/* -- the calls --------------------------------------------------------------------------------------------- */

typedef struct {
    Py_buffer out, in;
    Pair both;
    Row row;
} Job;

/* One of the pairs; the caller releases what was taken. 0 for an error, -1 where an array is not aligned, or has too
   many dims. */
static int begin(PyObject *pair_of, const Row rows[3], Job *job)
{
    if (!pair_of || !PyTuple_Check(pair_of) || PyTuple_Size(pair_of) != 2)
        return fail("pairs of arrays are wanted");
    if (!take_both(PyTuple_GetItem(pair_of, 0), PyTuple_GetItem(pair_of, 1), SPREAD, &job->out, &job->in))
        return 0;
    Size width = job->in.itemsize, wanted = rows ? (Size)sizeof(float) : width;
    job->row = !rows ? copy_row : width == 1 ? rows[0] : width == 2 ? rows[1] : width == 4 ? rows[2] : NULL;
    int good = 0;
    if (job->out.itemsize != wanted || !job->row)
        fail("numbers of another width are wanted");
    else if (job->out.ndim > MOST_DIMS)
        good = -1;
    else if (pair(&job->out, &job->in, &job->both))
        good = !rows || (aligned(&job->out) && aligned(&job->in)) ? 1 : -1;
    if (good < 1)
        release_both(&job->out, &job->in);
    return good;
}

/* All pairs by the row for their width; they are copied as they are where there are no rows. */
static PyObject *by_rows(PyObject *pairs, const Row rows[3], const void *with)
{
    if (!PyList_Check(pairs))
        return fail("a list of pairs is wanted"), NULL;
    Size count = PyList_Size(pairs), begun = 0;
    Job *jobs = PyMem_Malloc((count ? count : 1) * sizeof(Job));
    if (!jobs)
        return PyErr_NoMemory();
    int good = 1;
    while (begun < count && (good = begin(PyList_GetItem(pairs, begun), rows, jobs + begun)) > 0)
        begun++;
    if (begun == count) {
        Size bytes = 0;
        for (Size i = 0; i < count; i++)
            bytes += jobs[i].out.len;
        PyThreadState *state = bytes < SHORT ? NULL : PyEval_SaveThread();
        for (Size i = 0; i < count; i++)
            each_row(jobs[i].row, &jobs[i].both, jobs[i].out.buf, jobs[i].in.buf, rows ? with : &jobs[i].in.itemsize);
        if (state)
            PyEval_RestoreThread(state);
    }
    while (begun-- > 0)
        release_both(&jobs[begun].out, &jobs[begun].in);
    PyMem_Free(jobs);
    return good ? PyBool_FromLong(good > 0) : NULL;
}

PyObject *look_up(PyObject *self, PyObject *args)
{
    PyObject *pairs, *known, *result = NULL;
    Py_buffer table;
    if (!PyArg_ParseTuple(args, "OO", &pairs, &known) || PyObject_GetBuffer(known, &table, FLAT) < 0)
        return NULL;
    const Row narrow[3] = {look_up_8, NULL, NULL}, wide[3] = {NULL, look_up_16, NULL};
    if (table.len == sizeof(float) << 8)
        result = by_rows(pairs, narrow, table.buf);
    else if (table.len == sizeof(float) << 16)
        result = by_rows(pairs, wide, table.buf);
    else
        fail("a table has a float32 for each integer");
    PyBuffer_Release(&table);
    return result;
}

PyObject *linear(PyObject *self, PyObject *args)
{
    PyObject *pairs;
    int is_signed, in_double;
    long long missing;
    Line line;
    if (!PyArg_ParseTuple(args, "OpLddp", &pairs, &is_signed, &missing, &line.scale, &line.offset, &in_double))
        return NULL;
    line.missing = missing;
    return by_rows(pairs, in_double ? linear_by_double[is_signed] : linear_by_float[is_signed], &line);
}

PyObject *copy(PyObject *self, PyObject *pairs)
{
    return by_rows(pairs, NULL, NULL);
}
