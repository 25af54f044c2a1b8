/* Inner loops that no library has a single call for. Each runs without the interpreter's lock from its first value
   to its last: what numpy needs several calls for takes several times as long, and threads wait for one another
   between two calls.

   Arrays come in by the buffer protocol. Every function checks what it is given, so that no call reaches beyond an
   array; what the values mean is the business of kernels.py, which also does the same by numpy.

   Shuffle: HDF5 specification, "Shuffle Filter". Differences: TIFF 6.0, section 14. */

#define Py_LIMITED_API 0x030B0000
#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <math.h>
#include "_inner.h"

#define VERSION 1 /* as kernels.py has it; one more with every change of a function */
#define MOST_DIMS 16
#define SHORT 32768 /* bytes that are written sooner than the interpreter's lock changes hands */

/* -- what is given -------------------------------------------------------------------------------------------- */

static int fail(const char *what)
{
    PyErr_SetString(PyExc_ValueError, what);
    return 0;
}

/* One array in memory, writable if so wanted; released by the caller. */
static int take(PyObject *object, Py_buffer *view, int flags)
{
    if (PyObject_GetBuffer(object, view, flags) < 0)
        return 0;
    if (view->ndim > MOST_DIMS) {
        PyBuffer_Release(view);
        return fail("too many dims");
    }
    return 1;
}

#define FLAT PyBUF_C_CONTIGUOUS
#define SPREAD PyBUF_STRIDES

/* Two of them: what is written and what is read. */
static int take_both(PyObject *first, PyObject *second, int flags, Py_buffer *out, Py_buffer *in)
{
    if (!take(first, out, flags | PyBUF_WRITABLE))
        return 0;
    if (take(second, in, flags))
        return 1;
    PyBuffer_Release(out);
    return 0;
}

static void release_both(Py_buffer *out, Py_buffer *in)
{
    PyBuffer_Release(in);
    PyBuffer_Release(out);
}

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

/* -- the calls of both --------------------------------------------------------------------------------------------- */

typedef struct {
    Py_buffer out, in;
    Pair both;
    Row row;
} Job;

static int aligned(const Py_buffer *view)
{
    uintptr_t all = view->len ? (uintptr_t)view->buf : 0;
    for (int axis = 0; view->len && axis < view->ndim; axis++)
        all |= view->shape[axis] > 1 ? (uintptr_t)view->strides[axis] : 0;
    return all % (uintptr_t)view->itemsize == 0;
}

/* One of the pairs; the caller releases what was taken. 0 for an error, -1 where an array is not aligned. */
static int begin(PyObject *pair_of, const Row rows[3], Job *job)
{
    if (!pair_of || !PyTuple_Check(pair_of) || PyTuple_Size(pair_of) != 2)
        return fail("pairs of arrays are wanted");
    if (!take_both(PyTuple_GetItem(pair_of, 0), PyTuple_GetItem(pair_of, 1), SPREAD, &job->out, &job->in))
        return 0;
    Size width = job->in.itemsize;
    job->row = width == 1 ? rows[0] : width == 2 ? rows[1] : width == 4 ? rows[2] : NULL;
    int good = 0;
    if (job->out.itemsize != sizeof(float) || !job->row)
        fail("float32 of integers of another width are wanted");
    else if (pair(&job->out, &job->in, &job->both))
        good = aligned(&job->out) && aligned(&job->in) ? 1 : -1;
    if (good < 1) {
        release_both(&job->out, &job->in);
    }
    return good;
}

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
            each_row(jobs[i].row, &jobs[i].both, jobs[i].out.buf, jobs[i].in.buf, with);
        if (state)
            PyEval_RestoreThread(state);
    }
    while (begun-- > 0)
        release_both(&jobs[begun].out, &jobs[begun].in);
    PyMem_Free(jobs);
    return good ? PyBool_FromLong(good > 0) : NULL;
}

static PyObject *look_up(PyObject *self, PyObject *args)
{
    PyObject *pairs, *known, *result = NULL;
    Py_buffer table;
    if (!PyArg_ParseTuple(args, "OO", &pairs, &known) || !take(known, &table, FLAT))
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

static PyObject *linear(PyObject *self, PyObject *args)
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

/* -- unshuffle: first bytes of all numbers, then second ones, ... become numbers --------------------------------- */

INLINE void together_of(uint8_t *restrict out, const uint8_t *restrict in, Size count, Size width)
{
    for (Size i = 0; i < count; i++)
        for (Size byte = 0; byte < width; byte++)
            out[i * width + byte] = in[byte * count + i];
}

WIDE static void together(uint8_t *out, const uint8_t *in, Size count, Size width)
{
    switch (width) { /* of a known width it is done in wide registers */
    case 2: together_of(out, in, count, 2); break;
    case 4: together_of(out, in, count, 4); break;
    case 8: together_of(out, in, count, 8); break;
    default: together_of(out, in, count, width);
    }
}

static PyObject *unshuffle(PyObject *self, PyObject *args)
{
    PyObject *first, *second;
    Py_buffer out, in;
    Size width;
    if (!PyArg_ParseTuple(args, "OOn", &first, &second, &width) || !take_both(first, second, FLAT, &out, &in))
        return NULL;
    int good = width > 0 && out.len == in.len && in.len % width == 0;
    if (good) {
        Size count = in.len / width;
        Py_BEGIN_ALLOW_THREADS
        together(out.buf, in.buf, count, width);
        Py_END_ALLOW_THREADS
    } else
        fail("as many bytes are wanted as are given, and whole numbers");
    release_both(&out, &in);
    return good ? Py_NewRef(Py_None) : NULL;
}

/* -- planes: pixels with their bands side by side become a plane for each band; differences are summed up -------- */

#define PLANES(name, type)                                                                                      \
    INLINE void name##_of(type *restrict out, type *restrict in, Size rows, Size cols, Size bands, int sum) \
    {                                                                                                           \
        for (Size y = 0; y < rows; y++) {                                                                       \
            type *restrict row = in + y * cols * bands;                                                         \
            if (sum)                                                                                            \
                for (Size i = bands; i < cols * bands; i++)                                                     \
                    row[i] = (type)(row[i] + row[i - bands]);                                                   \
            type *restrict planes = out + y * cols;                                                             \
            for (Size x = 0; x < cols; x++)                                                                     \
                for (Size band = 0; band < bands; band++)                                                       \
                    planes[band * rows * cols + x] = row[x * bands + band];                                     \
        }                                                                                                       \
    }                                                                                                           \
    WIDE static void name(void *out, void *in, Size rows, Size cols, Size bands, int sum)                       \
    {                                                                                                           \
        switch (bands) { /* of known numbers it is done in wide registers */                                    \
        case 1: name##_of(out, in, rows, cols, 1, sum); break;                                                  \
        case 3: name##_of(out, in, rows, cols, 3, sum); break;                                                  \
        case 4: name##_of(out, in, rows, cols, 4, sum); break;                                                  \
        default: name##_of(out, in, rows, cols, bands, sum);                                                    \
        }                                                                                                       \
    }
PLANES(planes_8, uint8_t)
PLANES(planes_16, uint16_t)
PLANES(planes_32, uint32_t)
PLANES(planes_64, uint64_t)

static PyObject *planes(PyObject *self, PyObject *args)
{
    PyObject *first, *second;
    Py_buffer out, in;
    int sum;
    if (!PyArg_ParseTuple(args, "OOp", &first, &second, &sum) ||
        !take_both(first, second, FLAT | PyBUF_WRITABLE, &out, &in))
        return NULL;
    void (*run)(void *, void *, Size, Size, Size, int) = in.itemsize == 1   ? planes_8
                                                         : in.itemsize == 2 ? planes_16
                                                         : in.itemsize == 4 ? planes_32
                                                         : in.itemsize == 8 ? planes_64
                                                                            : NULL;
    int good = run && in.ndim == 3 && out.ndim == 3 && out.itemsize == in.itemsize && out.shape[0] == in.shape[2] &&
               out.shape[1] == in.shape[0] && out.shape[2] == in.shape[1] && aligned(&out) && aligned(&in);
    if (good) {
        Size rows = in.shape[0], cols = in.shape[1], bands = in.shape[2];
        Py_BEGIN_ALLOW_THREADS
        if (rows && cols && bands)
            run(out.buf, in.buf, rows, cols, bands, sum);
        Py_END_ALLOW_THREADS
    } else
        fail("(band, y, x) of (y, x, band) are wanted");
    release_both(&out, &in);
    return good ? Py_NewRef(Py_None) : NULL;
}

/* -- rice: tiles of as many pixels each, see _rice.c ---------------------------------------------------------------- */

Size rice_tiles(char *out, Size itemsize, Size tiles, Size count, const uint8_t *data, Size length,
                const int64_t *starts, const int64_t *sizes, Size block);

static PyObject *rice(PyObject *self, PyObject *args)
{
    PyObject *objects[4];
    Py_buffer views[4]; /* out, data, starts, sizes */
    Size block, found = -1;
    int held = 0;
    if (!PyArg_ParseTuple(args, "OOOOn", objects, objects + 1, objects + 2, objects + 3, &block))
        return NULL;
    while (held < 4 && take(objects[held], views + held, held ? FLAT : FLAT | PyBUF_WRITABLE))
        held++;
    if (held == 4) {
        const Py_buffer *out = views, *starts = views + 2, *sizes = views + 3;
        if (out->ndim != 2 || (out->itemsize != 1 && out->itemsize != 2 && out->itemsize != 4) || block < 1 ||
            starts->itemsize != 8 || sizes->itemsize != 8 || starts->len != 8 * out->shape[0] ||
            sizes->len != starts->len || !aligned(out) || !aligned(starts) || !aligned(sizes))
            fail("(tiles, pixels) of 8, 16 or 32 bits are wanted, and int64 for each tile");
        else {
            Py_BEGIN_ALLOW_THREADS
            found = rice_tiles(out->buf, out->itemsize, out->shape[0], out->shape[1], views[1].buf, views[1].len,
                               starts->buf, sizes->buf, block);
            Py_END_ALLOW_THREADS
        }
    }
    while (held)
        PyBuffer_Release(views + --held);
    return found < 0 ? NULL : PyLong_FromSsize_t(found);
}

/* -- lzw: a strip or tile, see _lzw.c ---------------------------------------------------------------------------- */

int lzw(const uint8_t *data, Size size, uint8_t *out, Size count);

static PyObject *lzw_of(PyObject *self, PyObject *args)
{
    PyObject *first, *second;
    Py_buffer out, data;
    int good;
    if (!PyArg_ParseTuple(args, "OO", &first, &second) || !take_both(first, second, FLAT, &out, &data))
        return NULL;
    Py_BEGIN_ALLOW_THREADS
    good = lzw(data.buf, data.len, out.buf, out.len);
    Py_END_ALLOW_THREADS
    release_both(&out, &data);
    return PyBool_FromLong(good);
}

/* -- the module --------------------------------------------------------------------------------------------------- */

static PyMethodDef functions[] = {
    {"look_up", look_up, METH_VARARGS,
     "look_up([(out, stored), ...], table): out[i] = table[bits of stored[i]]; False where an array is not aligned"},
    {"linear", linear, METH_VARARGS,
     "linear([(out, stored), ...], signed, missing, scale, offset, double): NaN where missing, else a line; as above"},
    {"unshuffle", unshuffle, METH_VARARGS, "unshuffle(out, data, width): bytes of numbers that were sorted by place"},
    {"planes", planes, METH_VARARGS, "planes(out, pixels, sum): (band, y, x) of (y, x, band), which it may change"},
    {"rice", rice, METH_VARARGS, "rice(out, data, starts, sizes, block): how many tiles were sound, from the first on"},
    {"lzw", lzw_of, METH_VARARGS, "lzw(out, data): whether out could be filled"},
    {NULL, NULL, 0, NULL},
};

static int begun(PyObject *module)
{
    return PyModule_AddIntConstant(module, "VERSION", VERSION);
}

static PyModuleDef_Slot slots[] = {{Py_mod_exec, begun}, {0, NULL}};

static struct PyModuleDef module = {PyModuleDef_HEAD_INIT, "_kernels", NULL, 0, functions, slots, NULL, NULL, NULL};

PyMODINIT_FUNC PyInit__kernels(void)
{
    return PyModuleDef_Init(&module);
}
