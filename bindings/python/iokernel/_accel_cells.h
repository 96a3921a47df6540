/*
 * Cells: counters, sums, gauges and histograms in shared memory. A part of _accel.c. Each change is one relaxed atomic
 * operation, so that no thread loses a count; the classes of _cells.py are derived from these.
 */
typedef struct {
  PyObject_HEAD
  uint64_t *cells; /* NULL until `_attach` */
  double *bounds;
  Py_ssize_t bounds_count;
} Cells;

static inline uint64_t *cells_of(PyObject *self) {
  uint64_t *cells = ((Cells *)self)->cells;
  if (!cells) PyErr_SetString(PyExc_RuntimeError, "made by a kernel's counter(), sum(), gauge() or histogram() only");
  return cells;
}

static inline double as_double(uint64_t bits) {
  double number;
  memcpy(&number, &bits, sizeof number);
  return number;
}

static inline uint64_t as_bits(double number) {
  uint64_t bits;
  memcpy(&bits, &number, sizeof bits);
  return bits;
}

static inline void add_number(uint64_t *cell, double more) {
  uint64_t before = __atomic_load_n(cell, __ATOMIC_RELAXED);
  while (!__atomic_compare_exchange_n(
      cell, &before, as_bits(as_double(before) + more), 1, __ATOMIC_RELAXED, __ATOMIC_RELAXED)) {
  }
}

static int is_one_at_most(Py_ssize_t count, const char *name) {
  if (count <= 1) return 1;
  PyErr_Format(PyExc_TypeError, "%s takes one argument at most", name);
  return 0;
}

/* A finite number; 1 where none is given. -1 with an exception. */
static int finite_number(PyObject *const *arguments, Py_ssize_t count, const char *name, double *number) {
  if (!is_one_at_most(count, name)) return -1;
  *number = count ? PyFloat_AsDouble(arguments[0]) : 1.0;
  if (*number == -1.0 && PyErr_Occurred()) return -1;
  if (*number - *number == 0.0) return 0;
  PyErr_Format(PyExc_ValueError, "%s: %R: expected a finite number", name, arguments[0]);
  return -1;
}

static int refuse_negative(const char *name) {
  PyErr_Format(PyExc_ValueError, "%s: below 0: what counts only grows", name);
  return -1;
}

PyDoc_STRVAR(counter_inc_doc, "inc(n=1, /): counts n more, a whole number from 0 on. Any thread.");

static PyObject *counter_inc(PyObject *self, PyObject *const *arguments, Py_ssize_t count) {
  uint64_t *cells = cells_of(self);
  if (!cells || !is_one_at_most(count, "inc")) return NULL;
  long long more = count ? PyLong_AsLongLong(arguments[0]) : 1;
  if (more < 0 && (PyErr_Occurred() || refuse_negative("inc") < 0)) return NULL;
  __atomic_fetch_add(cells, (uint64_t)more, __ATOMIC_RELAXED);
  Py_RETURN_NONE;
}

static PyObject *counter_value(PyObject *self, void *unused) {
  (void)unused;
  uint64_t *cells = cells_of(self);
  return cells ? PyLong_FromUnsignedLongLong(__atomic_load_n(cells, __ATOMIC_RELAXED)) : NULL;
}

PyDoc_STRVAR(sum_inc_doc, "inc(n=1, /): adds n, a finite number from 0 on. Any thread.");

static PyObject *sum_inc(PyObject *self, PyObject *const *arguments, Py_ssize_t count) {
  uint64_t *cells = cells_of(self);
  double more;
  if (!cells || finite_number(arguments, count, "inc", &more) < 0) return NULL;
  if (more < 0 && refuse_negative("inc") < 0) return NULL;
  add_number(cells, more);
  Py_RETURN_NONE;
}

static PyObject *number_value(PyObject *self, void *unused) {
  (void)unused;
  uint64_t *cells = cells_of(self);
  return cells ? PyFloat_FromDouble(as_double(__atomic_load_n(cells, __ATOMIC_RELAXED))) : NULL;
}

PyDoc_STRVAR(gauge_inc_doc, "inc(n=1, /): goes up by n. Any thread.");
PyDoc_STRVAR(gauge_dec_doc, "dec(n=1, /): goes down by n. Any thread.");
PyDoc_STRVAR(gauge_set_doc, "set(value, /): is so much from here on. Any thread.");

static PyObject *gauge_inc(PyObject *self, PyObject *const *arguments, Py_ssize_t count) {
  uint64_t *cells = cells_of(self);
  double more;
  if (!cells || finite_number(arguments, count, "inc", &more) < 0) return NULL;
  add_number(cells, more);
  Py_RETURN_NONE;
}

static PyObject *gauge_dec(PyObject *self, PyObject *const *arguments, Py_ssize_t count) {
  uint64_t *cells = cells_of(self);
  double less;
  if (!cells || finite_number(arguments, count, "dec", &less) < 0) return NULL;
  add_number(cells, -less);
  Py_RETURN_NONE;
}

static PyObject *gauge_set(PyObject *self, PyObject *argument) {
  uint64_t *cells = cells_of(self);
  double number = cells ? PyFloat_AsDouble(argument) : -1.0;
  if (number == -1.0 && PyErr_Occurred()) return NULL;
  __atomic_store_n(cells, as_bits(number), __ATOMIC_RELAXED);
  Py_RETURN_NONE;
}

PyDoc_STRVAR(observe_doc, "observe(value, /): counts a finite value. Any thread.");

static PyObject *histogram_observe(PyObject *self, PyObject *argument) {
  Cells *own = (Cells *)self;
  uint64_t *cells = cells_of(self);
  double value;
  if (!cells || finite_number(&argument, 1, "observe", &value) < 0) return NULL;
  Py_ssize_t low = 0, high = own->bounds_count;
  while (low < high) {
    Py_ssize_t middle = (low + high) / 2;
    if (value <= own->bounds[middle]) high = middle;
    else low = middle + 1;
  }
  __atomic_fetch_add(&cells[low], 1, __ATOMIC_RELAXED);
  add_number(&cells[own->bounds_count + 1], value);
  Py_RETURN_NONE;
}

PyDoc_STRVAR(cells_attach_doc, "_attach(address, bounds): where the cells are, and a histogram's bounds");

static PyObject *cells_attach(PyObject *self, PyObject *arguments) {
  PyObject *address, *bounds;
  if (!PyArg_ParseTuple(arguments, "OO!", &address, &PyTuple_Type, &bounds)) return NULL;
  Cells *own = (Cells *)self;
  Py_ssize_t count = PyTuple_Size(bounds);
  double *numbers = own->cells || !count ? NULL : PyMem_Malloc((size_t)count * sizeof *numbers);
  if (own->cells || (count && !numbers)) return own->cells ? PyErr_Format(PyExc_RuntimeError, "attached") : PyErr_NoMemory();
  for (Py_ssize_t index = 0; index < count; index++) numbers[index] = PyFloat_AsDouble(PyTuple_GetItem(bounds, index));
  own->bounds = numbers;
  own->bounds_count = count;
  own->cells = PyLong_AsVoidPtr(address);
  if (PyErr_Occurred()) return NULL;
  Py_RETURN_NONE;
}

static void cells_dealloc(PyObject *self) {
  PyMem_Free(((Cells *)self)->bounds);
  free_object(self);
}

#define FASTCALL(function) (PyCFunction)(void (*)(void))(function), METH_FASTCALL

static PyMethodDef counter_methods[] = {
    {"inc", FASTCALL(counter_inc), counter_inc_doc},
    {"_attach", cells_attach, METH_VARARGS, cells_attach_doc},
    {NULL, NULL, 0, NULL},
};
static PyMethodDef sum_methods[] = {
    {"inc", FASTCALL(sum_inc), sum_inc_doc},
    {"_attach", cells_attach, METH_VARARGS, cells_attach_doc},
    {NULL, NULL, 0, NULL},
};
static PyMethodDef gauge_methods[] = {
    {"inc", FASTCALL(gauge_inc), gauge_inc_doc},
    {"dec", FASTCALL(gauge_dec), gauge_dec_doc},
    {"set", gauge_set, METH_O, gauge_set_doc},
    {"_attach", cells_attach, METH_VARARGS, cells_attach_doc},
    {NULL, NULL, 0, NULL},
};
static PyMethodDef histogram_methods[] = {
    {"observe", histogram_observe, METH_O, observe_doc},
    {"_attach", cells_attach, METH_VARARGS, cells_attach_doc},
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef counter_values[] = {{"_value", counter_value, NULL, NULL, NULL}, {NULL, NULL, NULL, NULL, NULL}};
static PyGetSetDef number_values[] = {{"_value", number_value, NULL, NULL, NULL}, {NULL, NULL, NULL, NULL, NULL}};

#define CELLS_TYPE(kind, python_name, methods, values)                                                             \
  static PyType_Slot kind##_slots[] = {                                                                             \
      {Py_tp_doc, "Cells in shared memory."}, {Py_tp_methods, methods}, {Py_tp_getset, values},                     \
      {Py_tp_dealloc, cells_dealloc},         {0, NULL},                                                            \
  };                                                                                                                \
  static PyType_Spec kind##_spec = {                                                                                \
      "iokernel._accel." python_name, sizeof(Cells), 0, Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE, kind##_slots,     \
  };

static PyGetSetDef no_values[] = {{NULL, NULL, NULL, NULL, NULL}};
CELLS_TYPE(counter_cell, "CounterCell", counter_methods, counter_values)
CELLS_TYPE(sum_cell, "SumCell", sum_methods, number_values)
CELLS_TYPE(gauge_cell, "GaugeCell", gauge_methods, number_values)
CELLS_TYPE(histogram_cell, "HistogramCell", histogram_methods, no_values)
