/*
 * Values between Python and MessagePack, as far as requests and replies mostly need them; the rest is for the Python
 * package msgpack.
 */
#ifndef IOKERNEL_ACCEL_VALUES_H
#define IOKERNEL_ACCEL_VALUES_H

#include <Python.h>

#include <stdint.h>
#include <string.h>

#include "_accel_times.h"

enum { ENCODING_NONE, ENCODING_MSGPACK, ENCODING_BYTES, ENCODING_TEXT, ENCODING_RAW };
enum { PAYLOAD_BYTES_MAX = 1 << 28, DEPTH_MAX = 32, NESTED_MAX = 8 };

/* The function that decodes what is not for here. */
static PyObject *unpack;

/* Encoding: the bytes an argument takes at most, or -1 for what the Python packer has to do. No code of the program's
 * runs between measuring and writing, so that what is measured is what is written. */

static Py_ssize_t argument_bytes(PyObject *value, int depth);

static Py_ssize_t items_bytes(PyObject *values, int depth) {
  int is_list = PyList_Check(values);
  Py_ssize_t count = is_list ? PyList_Size(values) : PyTuple_Size(values), total = 5;
  for (Py_ssize_t index = 0; index < count; index++) {
    PyObject *item = is_list ? PyList_GetItem(values, index) : PyTuple_GetItem(values, index);
    Py_ssize_t bytes = argument_bytes(item, depth);
    if (bytes < 0) return -1;
    total += bytes;
  }
  return total;
}

static Py_ssize_t map_bytes(PyObject *values, int depth) {
  Py_ssize_t place = 0, total = 5;
  PyObject *key, *value;
  while (PyDict_Next(values, &place, &key, &value)) {
    Py_ssize_t bytes = argument_bytes(key, depth), more = argument_bytes(value, depth);
    if (bytes < 0 || more < 0) return -1;
    total += bytes + more;
  }
  return total;
}

static Py_ssize_t argument_bytes(PyObject *value, int depth) {
  if (PyBytes_Check(value)) return PyBytes_Size(value) + 5;
  if (PyUnicode_Check(value)) {
    Py_ssize_t bytes;
    if (!PyUnicode_AsUTF8AndSize(value, &bytes)) {
      PyErr_Clear();
      return -1;
    }
    return bytes + 5;
  }
  if (PyLong_Check(value) || PyFloat_Check(value)) return 9;
  if (value == Py_None) return 1;
  if (depth >= NESTED_MAX) return -1;
  if (PyList_CheckExact(value) || PyTuple_CheckExact(value)) return items_bytes(value, depth + 1);
  return PyDict_CheckExact(value) ? map_bytes(value, depth + 1) : -1;
}

static uint8_t *put_number(uint8_t *at, uint8_t mark, uint64_t value, int bytes) {
  *at++ = mark;
  while (bytes--) *at++ = (uint8_t)(value >> bytes * 8);
  return at;
}

static uint8_t *put_integer(uint8_t *at, PyObject *value) {
  int overflow;
  long long number = PyLong_AsLongLongAndOverflow(value, &overflow);
  if (overflow > 0) {
    unsigned long long large = PyLong_AsUnsignedLongLong(value);
    if (!PyErr_Occurred()) return put_number(at, 0xcf, large, 8);
    PyErr_Clear();
    return NULL;
  }
  if (overflow) return NULL;
  if (number >= 0 && number < 128) return *at = (uint8_t)number, at + 1;
  if (number >= -32 && number < 0) return *at = (uint8_t)number, at + 1;
  if (value == Py_True || value == Py_False) return NULL;
  if (number >= INT32_MIN && number <= INT32_MAX) return put_number(at, 0xd2, (uint64_t)number, 4);
  return put_number(at, 0xd3, (uint64_t)number, 8);
}

static uint8_t *put_argument(uint8_t *at, PyObject *value);

static uint8_t *put_count(uint8_t *at, Py_ssize_t count, uint8_t small, uint8_t large) {
  if (count < 16) return *at = small | (uint8_t)count, at + 1;
  return put_number(at, large, (uint64_t)count, 4);
}

static uint8_t *put_items(uint8_t *at, PyObject *values) {
  int is_list = PyList_Check(values);
  Py_ssize_t count = is_list ? PyList_Size(values) : PyTuple_Size(values);
  at = put_count(at, count, 0x90, 0xdd);
  for (Py_ssize_t index = 0; at && index < count; index++)
    at = put_argument(at, is_list ? PyList_GetItem(values, index) : PyTuple_GetItem(values, index));
  return at;
}

static uint8_t *put_map(uint8_t *at, PyObject *values) {
  Py_ssize_t place = 0;
  PyObject *key, *value;
  at = put_count(at, PyDict_Size(values), 0x80, 0xdf);
  while (at && PyDict_Next(values, &place, &key, &value)) {
    at = put_argument(at, key);
    if (at) at = put_argument(at, value);
  }
  return at;
}

static uint8_t *put_argument(uint8_t *at, PyObject *value) {
  if (PyUnicode_Check(value)) {
    Py_ssize_t bytes;
    const char *text = PyUnicode_AsUTF8AndSize(value, &bytes);
    if (bytes < 32) *at++ = 0xa0 | (uint8_t)bytes;
    else if (bytes < 256) at = put_number(at, 0xd9, (uint64_t)bytes, 1);
    else at = put_number(at, 0xdb, (uint64_t)bytes, 4);
    memcpy(at, text, (size_t)bytes);
    return at + bytes;
  }
  if (PyBytes_Check(value)) {
    Py_ssize_t bytes = PyBytes_Size(value);
    at = bytes < 256 ? put_number(at, 0xc4, (uint64_t)bytes, 1) : put_number(at, 0xc6, (uint64_t)bytes, 4);
    memcpy(at, PyBytes_AsString(value), (size_t)bytes);
    return at + bytes;
  }
  if (value == Py_None) return *at = 0xc0, at + 1;
  if (value == Py_True || value == Py_False) return *at = value == Py_True ? 0xc3 : 0xc2, at + 1;
  if (PyLong_Check(value)) return put_integer(at, value);
  if (PyList_Check(value) || PyTuple_Check(value)) return put_items(at, value);
  if (PyDict_Check(value)) return put_map(at, value);
  double number = PyFloat_AsDouble(value);
  uint64_t bits;
  memcpy(&bits, &number, sizeof bits);
  return put_number(at, 0xcb, bits, 8);
}

/* Decoding: what replies mostly are. NULL without an exception: the rest is for msgpack. */

static const uint8_t *need(const uint8_t *at, const uint8_t *end, size_t bytes) {
  return (size_t)(end - at) >= bytes ? at : NULL;
}

static uint64_t big_endian(const uint8_t *at, int bytes) {
  uint64_t value = 0;
  while (bytes--) value = value << 8 | *at++;
  return value;
}

static PyObject *get_value(const uint8_t **place, const uint8_t *end, int depth);

static PyObject *get_array(const uint8_t **place, const uint8_t *end, uint64_t count, int depth) {
  if (depth >= DEPTH_MAX || count > (uint64_t)(end - *place)) return NULL;
  PyObject *list = PyList_New((Py_ssize_t)count);
  for (uint64_t index = 0; list && index < count; index++) {
    PyObject *item = get_value(place, end, depth + 1);
    if (!item) {
      Py_DECREF(list);
      return NULL;
    }
    PyList_SetItem(list, (Py_ssize_t)index, item);
  }
  return list;
}

static PyObject *get_text(const uint8_t **place, const uint8_t *end, uint64_t bytes, int is_text) {
  const char *at = (const char *)need(*place, end, bytes);
  if (!at) return NULL;
  *place += bytes;
  return is_text ? PyUnicode_DecodeUTF8(at, (Py_ssize_t)bytes, "surrogateescape")
                 : PyBytes_FromStringAndSize(at, (Py_ssize_t)bytes);
}

/* An ext of which there may be many is for here, any other alone for msgpack, so that what is around it is decoded here. `at`: its mark. */
static PyObject *get_ext(const uint8_t **place, const uint8_t *end, const uint8_t *at) {
  uint64_t size = UINT64_C(1) << ((*at - 0xd4) & 7);
  const uint8_t *data = at + 1;
  if (*at < 0xd4) {
    int width = 1 << (*at - 0xc7);
    if (!need(data, end, (size_t)width)) return NULL;
    size = big_endian(data, width);
    data += width;
  }
  if (!need(data, end, size + 1)) return NULL;
  *place = data + 1 + size;
  PyObject *made = get_pg_value((int8_t)*data, data + 1, size);
  if (made || PyErr_Occurred()) return made;
  PyObject *bytes = PyBytes_FromStringAndSize((const char *)at, *place - at);
  PyObject *value = bytes ? PyObject_CallFunctionObjArgs(unpack, bytes, NULL) : NULL;
  Py_XDECREF(bytes);
  return value;
}

static PyObject *get_number(uint8_t mark, const uint8_t *at, int bytes) {
  uint64_t value = big_endian(at, bytes);
  if (mark < 0xd0) return PyLong_FromUnsignedLongLong(value);
  int unused = 64 - bytes * 8;
  return PyLong_FromLongLong((int64_t)(value << unused) >> unused);
}

static PyObject *get_value(const uint8_t **place, const uint8_t *end, int depth) {
  if (!need(*place, end, 1)) return NULL;
  uint8_t mark = *(*place)++;
  if (mark < 0x80) return PyLong_FromLong(mark);
  if (mark >= 0xe0) return PyLong_FromLong((int8_t)mark);
  if (mark >= 0xa0 && mark < 0xc0) return get_text(place, end, mark & 31, 1);
  if (mark >= 0x90 && mark < 0xa0) return get_array(place, end, mark & 15, depth);
  switch (mark) {
    case 0xc0: Py_RETURN_NONE;
    case 0xc2: Py_RETURN_FALSE;
    case 0xc3: Py_RETURN_TRUE;
    case 0xc4: case 0xc5: case 0xc6: case 0xd9: case 0xda: case 0xdb: case 0xdc: case 0xdd: {
      int width = mark < 0xc8 ? 1 << (mark - 0xc4) : mark < 0xdc ? 1 << (mark - 0xd9) : 2 << (mark - 0xdc);
      if (!need(*place, end, (size_t)width)) return NULL;
      uint64_t size = big_endian(*place, width);
      *place += width;
      return mark >= 0xdc ? get_array(place, end, size, depth) : get_text(place, end, size, mark >= 0xd9);
    }
    case 0xcb: {
      if (!need(*place, end, 8)) return NULL;
      uint64_t bits = big_endian(*place, 8);
      double number;
      memcpy(&number, &bits, sizeof number);
      *place += 8;
      return PyFloat_FromDouble(number);
    }
    case 0xcc: case 0xcd: case 0xce: case 0xcf: case 0xd0: case 0xd1: case 0xd2: case 0xd3: {
      int width = 1 << (mark & 3);
      if (!need(*place, end, (size_t)width)) return NULL;
      const uint8_t *at = *place;
      *place += width;
      return get_number(mark, at, width);
    }
    case 0xc7: case 0xc8: case 0xc9: case 0xd4: case 0xd5: case 0xd6: case 0xd7: case 0xd8:
      return get_ext(place, end, *place - 1);
    default: return NULL;
  }
}

static PyObject *get_payload(uint8_t encoding, const uint8_t *payload, size_t bytes) {
  switch (encoding) {
    case ENCODING_BYTES: case ENCODING_RAW: return PyBytes_FromStringAndSize((const char *)payload, (Py_ssize_t)bytes);
    case ENCODING_TEXT: return PyUnicode_DecodeUTF8((const char *)payload, (Py_ssize_t)bytes, "surrogateescape");
    case ENCODING_NONE: Py_RETURN_NONE;
  }
  const uint8_t *at = payload, *end = payload + bytes;
  PyObject *value = get_value(&at, end, 0);
  if (value && at == end) return value;
  Py_XDECREF(value);
  if (PyErr_Occurred()) return NULL;
  PyObject *data = PyBytes_FromStringAndSize((const char *)payload, (Py_ssize_t)bytes);
  if (!data) return NULL;
  value = PyObject_CallFunctionObjArgs(unpack, data, NULL);
  Py_DECREF(data);
  return value;
}

/* Bytes that the arguments take in the ring at most; -1: not for here. */
static Py_ssize_t payload_bytes(PyObject *values) {
  Py_ssize_t total = items_bytes(values, 0);
  return total <= PAYLOAD_BYTES_MAX ? total : -1;
}

#endif
