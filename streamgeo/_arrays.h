/* Arrays come in by the buffer protocol. */

#define Py_LIMITED_API 0x030B0000
#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <string.h>
#include "_inner.h"

static inline int fail(const char *what)
{
    PyErr_SetString(PyExc_ValueError, what);
    return 0;
}

#define FLAT PyBUF_C_CONTIGUOUS
#define SPREAD PyBUF_STRIDES

/* Two arrays in memory: what is written and what is read; released by the caller. */
static inline int take_both(PyObject *first, PyObject *second, int flags, Py_buffer *out, Py_buffer *in)
{
    if (PyObject_GetBuffer(first, out, flags | PyBUF_WRITABLE) < 0)
        return 0;
    if (PyObject_GetBuffer(second, in, flags) == 0)
        return 1;
    PyBuffer_Release(out);
    return 0;
}

static inline void release_both(Py_buffer *out, Py_buffer *in)
{
    PyBuffer_Release(in);
    PyBuffer_Release(out);
}

/* Whether every number stands at a multiple of its size. */
static inline int aligned(const Py_buffer *view)
{
    uintptr_t all = view->len ? (uintptr_t)view->buf : 0;
    for (int axis = 0; view->len && axis < view->ndim; axis++)
        all |= view->shape[axis] > 1 ? (uintptr_t)view->strides[axis] : 0;
    return all % (uintptr_t)view->itemsize == 0;
}
