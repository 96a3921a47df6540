/*
 * Dates, times and numbers of PostgreSQL (ext 16, 17, 18, 20, 21), as `_pg_values.py` makes them, for replies that have
 * thousands of them. The classes of Python's datetime take their own pickled form, which is a few bytes.
 */
#ifndef IOKERNEL_ACCEL_TIMES_H
#define IOKERNEL_ACCEL_TIMES_H

#include <Python.h>

#include <stdint.h>

enum { EXT_NUMERIC = 16, EXT_DATE = 17, EXT_TIME = 18, EXT_TIMESTAMP = 20, EXT_TIMESTAMPTZ = 21 };
static const int64_t DAY_US = INT64_C(86400000000);

static PyObject *date_class, *time_class, *datetime_class, *utc, *decimal_class;

/* False with an exception. */
static int import_times(void) {
  PyObject *datetime = PyImport_ImportModule("datetime"), *decimal = PyImport_ImportModule("decimal");
  PyObject *timezone = datetime ? PyObject_GetAttrString(datetime, "timezone") : NULL;
  if (timezone && decimal) {
    date_class = PyObject_GetAttrString(datetime, "date");
    time_class = PyObject_GetAttrString(datetime, "time");
    datetime_class = PyObject_GetAttrString(datetime, "datetime");
    utc = PyObject_GetAttrString(timezone, "utc");
    decimal_class = PyObject_GetAttrString(decimal, "Decimal");
  }
  Py_XDECREF(timezone);
  Py_XDECREF(decimal);
  Py_XDECREF(datetime);
  return date_class && time_class && datetime_class && utc && decimal_class;
}

static int64_t floor_div(int64_t value, int64_t by) {
  return value / by - (value % by < 0);
}

/* A day since 1970-01-01 as year, month and day of the proleptic Gregorian calendar, in 4 bytes. False beyond Python's
 * years. Years begin in March here, so that a leap day is the last of its year. */
static int put_date(uint8_t *at, int64_t day) {
  if (day < -719162 || day > 2932896) return 0;
  int64_t shifted = day + 719468, era = floor_div(shifted, 146097);
  int of_era = (int)(shifted - era * 146097);
  int year_of_era = (of_era - of_era / 1460 + of_era / 36524 - of_era / 146096) / 365;
  int of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
  int from_march = (5 * of_year + 2) / 153;
  int month = from_march < 10 ? from_march + 3 : from_march - 9;
  int year = (int)(era * 400) + year_of_era + (month <= 2);
  at[0] = (uint8_t)(year >> 8);
  at[1] = (uint8_t)year;
  at[2] = (uint8_t)month;
  at[3] = (uint8_t)(of_year - (153 * from_march + 2) / 5 + 1);
  return 1;
}

/* Microseconds of a day as hour, minute, second and microsecond, in 6 bytes. */
static void put_time(uint8_t *at, int64_t us) {
  int seconds = (int)(us / 1000000), fraction = (int)(us % 1000000);
  at[0] = (uint8_t)(seconds / 3600);
  at[1] = (uint8_t)(seconds / 60 % 60);
  at[2] = (uint8_t)(seconds % 60);
  at[3] = (uint8_t)(fraction >> 16);
  at[4] = (uint8_t)(fraction >> 8);
  at[5] = (uint8_t)fraction;
}

static PyObject *unpickled(PyObject *of, const uint8_t *state, Py_ssize_t bytes, PyObject *zone) {
  PyObject *argument = PyBytes_FromStringAndSize((const char *)state, bytes);
  PyObject *value = argument ? PyObject_CallFunctionObjArgs(of, argument, zone, NULL) : NULL;
  Py_XDECREF(argument);
  return value;
}

/* NULL without an exception: for Python to see to, as `infinity`. */
static PyObject *get_pg_value(int kind, const uint8_t *data, uint64_t size) {
  uint8_t state[10];
  if (kind == EXT_NUMERIC && size < 1024) {
    PyObject *text = PyUnicode_DecodeUTF8((const char *)data, (Py_ssize_t)size, NULL);
    PyObject *value = text ? PyObject_CallFunctionObjArgs(decimal_class, text, NULL) : NULL;
    Py_XDECREF(text);
    return value;
  }
  if (kind == EXT_DATE && size == 4) {
    int64_t day = (int32_t)((uint32_t)data[0] << 24 | (uint32_t)data[1] << 16 | (uint32_t)data[2] << 8 | data[3]);
    return put_date(state, day) ? unpickled(date_class, state, 4, NULL) : NULL;
  }
  if (size != 8) return NULL;
  uint64_t bits = 0;
  for (int index = 0; index < 8; index++) bits = bits << 8 | data[index];
  int64_t us = (int64_t)bits;
  if (kind == EXT_TIME) {
    if (us < 0 || us >= DAY_US) return NULL;
    put_time(state, us);
    return unpickled(time_class, state, 6, NULL);
  }
  if (kind != EXT_TIMESTAMP && kind != EXT_TIMESTAMPTZ) return NULL;
  int64_t day = floor_div(us, DAY_US);
  if (!put_date(state, day)) return NULL;
  put_time(state + 4, us - day * DAY_US);
  return unpickled(datetime_class, state, 10, kind == EXT_TIMESTAMPTZ ? utc : NULL);
}

#endif
