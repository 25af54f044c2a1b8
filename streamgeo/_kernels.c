/* Inner loops that no library has a single call for. Each runs without the interpreter's lock from its first value
   to its last: what numpy needs several calls for takes several times as long, and threads wait for one another
   between two calls.

   Arrays come in by the buffer protocol. Every function checks what it is given, so that no call reaches beyond an
   array; what the values mean is the business of kernels.py, which also does the same by numpy.

   Shuffle: HDF5 specification, "Shuffle Filter". Differences: TIFF 6.0, section 14. */

#include "_arrays.h"

#define VERSION 2 /* as kernels.py has it; one more with every change of a function */

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
    while (held < 4 && PyObject_GetBuffer(objects[held], views + held, held ? FLAT : FLAT | PyBUF_WRITABLE) == 0)
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

PyObject *look_up(PyObject *self, PyObject *args); /* _rows.c */
PyObject *linear(PyObject *self, PyObject *args);
PyObject *copy(PyObject *self, PyObject *pairs);

static PyMethodDef functions[] = {
    {"copy", copy, METH_O, "copy([(out, stored), ...]): numbers as they are, of one width"},
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
