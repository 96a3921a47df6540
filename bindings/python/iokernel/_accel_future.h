/*
 * Future: a reply under way, for the thread that asked. Its rarer methods are in _future.py.
 */
#ifndef IOKERNEL_ACCEL_FUTURE_H
#define IOKERNEL_ACCEL_FUTURE_H

#include <Python.h>
#include <structmember.h>

#include <stdint.h>

typedef struct {
  PyObject_HEAD
  PyObject *channel, *value, *error;
  unsigned long long tag;
  char done;
} Future;

static PyObject *future_class, *name_result_slow;

static PyObject *future_new(PyObject *channel) {
  allocfunc allocate = (allocfunc)(uintptr_t)PyType_GetSlot((PyTypeObject *)future_class, Py_tp_alloc);
  PyObject *self = allocate((PyTypeObject *)future_class, 0);
  if (self) {
    Py_INCREF(channel);
    ((Future *)self)->channel = channel;
  }
  return self;
}

static PyObject *future_set_result(PyObject *self, PyObject *value) {
  Future *future = (Future *)self;
  PyObject *before = future->value;
  Py_INCREF(value);
  future->value = value;
  future->done = 1;
  Py_XDECREF(before);
  Py_RETURN_NONE;
}

static PyObject *future_set_exception(PyObject *self, PyObject *error) {
  Future *future = (Future *)self;
  PyObject *before = future->error;
  Py_INCREF(error);
  future->error = error;
  future->done = 1;
  Py_XDECREF(before);
  Py_RETURN_NONE;
}

PyDoc_STRVAR(
    result_doc,
    "result(timeout=None): the reply, waiting for it. Raises what the request failed with.\n\n"
    "timeout: seconds to wait here; when they are over, Timeout is raised and the request goes on.");

static PyObject *future_result(PyObject *self, PyObject *arguments, PyObject *names) {
  Future *future = (Future *)self;
  if (future->done && !future->error && future->value) {
    Py_INCREF(future->value);
    return future->value;
  }
  PyObject *method = PyObject_GetAttr(self, name_result_slow);
  PyObject *value = method ? PyObject_Call(method, arguments, names) : NULL;
  Py_XDECREF(method);
  return value;
}

static int future_traverse(PyObject *self, visitproc visit, void *arg) {
  Future *future = (Future *)self;
  Py_VISIT(Py_TYPE(self));
  Py_VISIT(future->channel);
  Py_VISIT(future->value);
  Py_VISIT(future->error);
  return 0;
}

static int future_clear(PyObject *self) {
  Future *future = (Future *)self;
  Py_CLEAR(future->channel);
  Py_CLEAR(future->value);
  Py_CLEAR(future->error);
  return 0;
}

static void free_object(PyObject *self) {
  PyTypeObject *type = Py_TYPE(self);
  freefunc release = (freefunc)(uintptr_t)PyType_GetSlot(type, Py_tp_free);
  release(self);
  Py_DECREF(type);
}

static void future_dealloc(PyObject *self) {
  PyObject_GC_UnTrack(self);
  future_clear(self);
  free_object(self);
}

static PyMethodDef future_methods[] = {
    {"set_result", future_set_result, METH_O, NULL},
    {"set_exception", future_set_exception, METH_O, NULL},
    {"result", (PyCFunction)(uintptr_t)future_result, METH_VARARGS | METH_KEYWORDS, result_doc},
    {NULL, NULL, 0, NULL},
};

static PyMemberDef future_members[] = {
    {"_channel", T_OBJECT, offsetof(Future, channel), 0, NULL},
    {"_value", T_OBJECT, offsetof(Future, value), 0, NULL},
    {"_error", T_OBJECT, offsetof(Future, error), 0, NULL},
    {"_tag", T_ULONGLONG, offsetof(Future, tag), 0, NULL},
    {"_done", T_BOOL, offsetof(Future, done), 0, NULL},
    {NULL, 0, 0, 0, NULL},
};

static PyType_Slot future_slots[] = {
    {Py_tp_doc, "A reply under way."},   {Py_tp_methods, future_methods}, {Py_tp_members, future_members},
    {Py_tp_traverse, future_traverse},   {Py_tp_clear, future_clear},     {Py_tp_dealloc, future_dealloc},
    {0, NULL},
};

static PyType_Spec future_spec = {
    "iokernel._accel.Future", sizeof(Future), 0, Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_HAVE_GC,
    future_slots,
};

#endif
