/*
 * Which event loop runs in this thread: asyncio's, unless the program has loaded another framework that may run one.
 * Then a function of loops/__init__.py says. It is looked for a framework whenever the number of loaded modules is not
 * what it was.
 */
#ifndef IOKERNEL_ACCEL_LOOPS_H
#define IOKERNEL_ACCEL_LOOPS_H

#include <Python.h>

/* asyncio's; and what finds those of others, where `sniffed.name` is not None (always, if `sniffed` is NULL). */
static PyObject *get_running_loop, *find_loop, *sniffed, *name_name;
static PyObject *modules, *look;
static Py_ssize_t modules_seen = -1;

/* Greenlets may take turns on a thread: which channel is theirs is for Python to find. */
static int has_greenlets;

/* 1: another framework may run here; -1 with an exception. */
static inline int is_elsewhere(void) {
  if (!sniffed) return 1;
  PyObject *name = PyObject_GetAttr(sniffed, name_name);
  if (!name) return -1;
  Py_DECREF(name);
  return name != Py_None;
}

/* The loop, None, or NULL with an exception. */
static inline PyObject *running_loop(void) {
  if (modules && PyDict_Size(modules) != modules_seen) {
    PyObject *done = PyObject_CallNoArgs(look);
    if (!done) return NULL;
    Py_DECREF(done);
  }
  if (find_loop) {
    int elsewhere = is_elsewhere();
    if (elsewhere) return elsewhere < 0 ? NULL : PyObject_CallNoArgs(find_loop);
  }
  return PyObject_CallNoArgs(get_running_loop);
}

PyDoc_STRVAR(running_loop_doc, "running_loop() -> the loop that runs in this thread and takes turns with who asks, or None");

static PyObject *running_loop_of_module(PyObject *self, PyObject *unused) {
  (void)self;
  (void)unused;
  return running_loop();
}

static void keep(PyObject **place, PyObject *value) {
  PyObject *before = *place;
  *place = value == Py_None ? NULL : value;
  Py_XINCREF(*place);
  Py_XDECREF(before);
}

PyDoc_STRVAR(looks_doc, "looks(get_running_loop, modules, look): asyncio's function, and what looks when modules have come");

static PyObject *looks(PyObject *self, PyObject *arguments) {
  (void)self;
  PyObject *asyncios, *loaded, *function;
  if (!PyArg_ParseTuple(arguments, "OO!O", &asyncios, &PyDict_Type, &loaded, &function)) return NULL;
  keep(&get_running_loop, asyncios);
  keep(&look, function);
  keep(&modules, loaded);
  Py_RETURN_NONE;
}

PyDoc_STRVAR(loops_doc, "loops(find, sniffed, has_greenlets): what was found");

static PyObject *loops(PyObject *self, PyObject *arguments) {
  (void)self;
  PyObject *find, *told_by;
  int greenlets;
  if (!PyArg_ParseTuple(arguments, "OOp", &find, &told_by, &greenlets)) return NULL;
  keep(&find_loop, find);
  keep(&sniffed, told_by);
  has_greenlets = greenlets;
  modules_seen = PyDict_Size(modules);
  Py_RETURN_NONE;
}

#endif
