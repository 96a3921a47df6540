/*
 * Rows as the text that COPY reads, as `_pg_text.py` makes it, for copies of millions of rows.
 */
#ifndef IOKERNEL_ACCEL_COPY_H
#define IOKERNEL_ACCEL_COPY_H

#include <Python.h>

#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include "_accel_times.h"

static PyObject *epoch, *epoch_utc, *name_tzinfo, *name_days, *name_seconds, *name_microseconds;

/* After the classes of datetime. False with an exception. */
static int prepare_copy(void) {
  epoch = PyObject_CallFunction(datetime_class, "iii", 1970, 1, 1);
  epoch_utc = PyObject_CallFunction(datetime_class, "iiiiiiiO", 1970, 1, 1, 0, 0, 0, 0, utc);
  name_tzinfo = PyUnicode_InternFromString("tzinfo");
  name_days = PyUnicode_InternFromString("days");
  name_seconds = PyUnicode_InternFromString("seconds");
  name_microseconds = PyUnicode_InternFromString("microseconds");
  return epoch && epoch_utc && name_tzinfo && name_days && name_seconds && name_microseconds;
}

/* What is given back is written here first. */
typedef struct {
  char *at;
  size_t size, room;
} Text;

/* NULL with an exception. */
static char *text_room(Text *text, size_t more) {
  if (text->room - text->size < more) {
    size_t room = 2 * (text->size + more);
    char *at = PyMem_Realloc(text->at, room);
    if (!at) {
      PyErr_NoMemory();
      return NULL;
    }
    text->at = at;
    text->room = room;
  }
  return text->at + text->size;
}

static int put_bytes(Text *text, const char *bytes, size_t count) {
  char *at = text_room(text, count);
  if (!at) return 0;
  memcpy(at, bytes, count);
  text->size += count;
  return 1;
}

static int put_escaped(Text *text, PyObject *value) {
  Py_ssize_t count;
  const char *from = PyUnicode_AsUTF8AndSize(value, &count);
  char *at = from ? text_room(text, 2 * (size_t)count) : NULL;
  if (!at) return 0;
  for (const char *end = from + count; from < end; from++) {
    char byte = *from;
    if (byte == '\\' || byte == '\t' || byte == '\n' || byte == '\r') {
      *at++ = '\\';
      byte = byte == '\t' ? 't' : byte == '\n' ? 'n' : byte == '\r' ? 'r' : byte;
    }
    *at++ = byte;
  }
  text->size = (size_t)(at - text->at);
  return 1;
}

/* As the program's function writes it. */
static int put_other(Text *text, PyObject *value, PyObject *field) {
  PyObject *made = PyObject_CallFunctionObjArgs(field, value, NULL);
  Py_ssize_t count = 0;
  const char *from = made ? PyUnicode_AsUTF8AndSize(made, &count) : NULL;
  int is_put = from && put_bytes(text, from, (size_t)count);
  Py_XDECREF(made);
  return is_put;
}

static int put_whole(Text *text, PyObject *value, PyObject *field) {
  int overflow;
  long long number = PyLong_AsLongLongAndOverflow(value, &overflow);
  if (overflow) return put_other(text, value, field);
  char digits[24];
  return put_bytes(text, digits, (size_t)snprintf(digits, sizeof digits, "%lld", number));
}

static int put_float(Text *text, PyObject *value) {
  char *digits = PyOS_double_to_string(PyFloat_AsDouble(value), 'r', 0, Py_DTSF_ADD_DOT_0, NULL);
  int is_put = digits && put_bytes(text, digits, strlen(digits));
  PyMem_Free(digits);
  return is_put;
}

static int get_part(PyObject *of, PyObject *name, int64_t *into) {
  PyObject *part = PyObject_GetAttr(of, name);
  *into = part ? PyLong_AsLongLong(part) : -1;
  Py_XDECREF(part);
  return !PyErr_Occurred();
}

/* Without a zone or in UTC; the rest is for the program's function. */
static int put_moment(Text *text, PyObject *value, PyObject *field) {
  PyObject *zone = PyObject_GetAttr(value, name_tzinfo);
  if (!zone) return 0;
  int is_utc = zone == utc, is_ours = is_utc || zone == Py_None;
  Py_DECREF(zone);
  if (!is_ours) return put_other(text, value, field);
  PyObject *since = PyNumber_Subtract(value, is_utc ? epoch_utc : epoch);
  int64_t day, second, us;
  int has_parts = since && get_part(since, name_days, &day) && get_part(since, name_seconds, &second) &&
                  get_part(since, name_microseconds, &us);
  Py_XDECREF(since);
  uint8_t state[10];
  if (!has_parts) return 0;
  if (!put_date(state, day)) return put_other(text, value, field);
  put_time(state + 4, second * 1000000 + us);
  char *at = text_room(text, 48);
  if (!at) return 0;
  int year = state[0] << 8 | state[1], fraction = state[7] << 16 | state[8] << 8 | state[9];
  int parts[] = {year / 100, year % 100, state[2], state[3], state[4], state[5], state[6],
                 fraction / 10000, fraction / 100 % 100, fraction % 100};
  static const char behind[] = {0, '-', '-', ' ', ':', ':', '.', 0, 0, 0};
  size_t count = fraction ? sizeof parts / sizeof *parts : 7;
  for (size_t index = 0; index < count; index++) {
    *at++ = (char)('0' + parts[index] / 10);
    *at++ = (char)('0' + parts[index] % 10);
    if (behind[index] && index + 1 < count) *at++ = behind[index];
  }
  text->size = (size_t)(at - text->at);
  return !is_utc || put_bytes(text, "+00", 3);
}

static int put_field(Text *text, PyObject *value, PyObject *field) {
  if (value == Py_None) return put_bytes(text, "\\N", 2);
  if (PyUnicode_CheckExact(value)) return put_escaped(text, value);
  if (PyLong_CheckExact(value)) return put_whole(text, value, field);
  if (PyFloat_CheckExact(value)) return put_float(text, value);
  if (Py_IS_TYPE(value, (PyTypeObject *)datetime_class)) return put_moment(text, value, field);
  return put_other(text, value, field);
}

static int put_line(Text *text, PyObject *row, PyObject *field) {
  Py_ssize_t count = PyTuple_Size(row);
  for (Py_ssize_t index = 0; index < count; index++) {
    if (index && !put_bytes(text, "\t", 1)) return 0;
    if (!put_field(text, PyTuple_GetItem(row, index), field)) return 0;
  }
  return put_bytes(text, "\n", 1);
}

PyDoc_STRVAR(copy_lines_doc, "copy_lines(rows, field): a list of sequences as text; `field` writes what is not written here");

static PyObject *copy_lines(PyObject *self, PyObject *arguments) {
  (void)self;
  PyObject *rows, *field, *made = NULL;
  if (!PyArg_ParseTuple(arguments, "O!O", &PyList_Type, &rows, &field)) return NULL;
  Text text = {NULL, 0, 0};
  int is_put = text_room(&text, 1 << 16) != NULL;
  for (Py_ssize_t index = 0; is_put && index < PyList_Size(rows); index++) {
    /* Of the row's own, as `field` may change a list. */
    PyObject *row = PySequence_Tuple(PyList_GetItem(rows, index));
    is_put = row && put_line(&text, row, field);
    Py_XDECREF(row);
  }
  if (is_put) made = PyBytes_FromStringAndSize(text.at, (Py_ssize_t)text.size);
  PyMem_Free(text.at);
  return made;
}

#endif
