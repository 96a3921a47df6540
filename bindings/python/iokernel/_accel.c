/*
 * The hot path of a channel in C, over the same ABI as the rest of the binding: requests are encoded straight into the
 * ring, completions go straight to who waits. It keeps the GIL except in a real wait. Everything that is rare is left
 * to the Python class that is derived from Core (see _native.py), whose methods `_request_slow`, `_other`, `_schedule`
 * and `_poll_empty` it calls.
 *
 * The library is not linked: `bind` is given the addresses of its functions, so that one loaded library serves both
 * paths.
 */
#define PY_SSIZE_T_CLEAN
#define Py_LIMITED_API 0x030A0000
#include <Python.h>
#include <structmember.h>

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "_accel_future.h"
#include "_accel_loops.h"
#include "_accel_values.h"

/* The ABI, version 1. */
typedef struct iok_channel iok_channel;
typedef struct {
  uint32_t size;
  uint16_t op, flags;
  uint32_t endpoint, timeout_ms;
  uint64_t tag, key;
  uint32_t bytes_total, marker;
} iok_submission;
typedef struct {
  uint32_t size;
  uint16_t kind, flags;
  uint32_t endpoint;
  int32_t status;
  uint64_t tag;
  uint32_t peer;
  uint8_t fate, encoding;
  uint16_t reserved;
  uint32_t bytes_total, reserved2;
  uint64_t queued_ns, sent_ns, first_byte_ns, done_ns;
} iok_completion;
_Static_assert(sizeof(iok_submission) == 40, "the ABI's submission");
_Static_assert(sizeof(iok_completion) == 72, "the ABI's completion");

enum { OP_REQUEST = 5, KIND_DONE = 1, KIND_REQUEST = 3, KIND_TICK = 7, FLAG_MORE = 1 };

static struct {
  int32_t (*reserve)(iok_channel *, uint32_t, iok_submission **);
  int32_t (*commit)(iok_channel *);
  int32_t (*flush)(iok_channel *);
  int32_t (*wait)(iok_channel *, int32_t);
  size_t (*poll)(iok_channel *, const iok_completion **, size_t *);
  int32_t (*advance)(iok_channel *, size_t);
} iok;

static PyObject *name_set_result, *name_set_exception, *name_schedule, *name_other, *name_request_slow,
    *name_poll_empty, *name_undeliverable;

/* Core: a channel */

/* A place for who waits. Its tag is TAG_BIT, a generation and its index, so that late completions find nobody. */
typedef struct {
  PyObject *waiter; /* NULL: free */
  uint32_t generation;
  uint32_t next_free;
} Slot;

#define TAG_BIT (1ULL << 61)
#define INDEX_BITS 24
#define NO_SLOT UINT32_MAX

typedef struct Core Core;
struct Core {
  PyObject_HEAD
  iok_channel *channel;
  Slot *slots;
  uint32_t capacity, free;
  char scheduled, busy;
  unsigned unrung; /* requests since the kernel was last woken */
  int ended;
  PyObject *out, *unsent, *parts, *pack;
  PyObject *loop; /* the event loop it belongs to; NULL or None for a thread's */
  unsigned int area; /* whose markers its requests may carry */
  /* Who takes the requests of listeners, and how; NULL: they are other completions. */
  PyObject *server;
  int (*take)(Core *, uint64_t tag, uint32_t endpoint, const uint8_t *payload, const uint8_t *end);
};

/* Grows when a channel goes away: whoever remembers one without holding it looks here first. */
static uint64_t channels_gone;

static int grow(Core *core) {
  uint32_t capacity = core->capacity ? core->capacity * 2 : 64;
  if (capacity > 1u << INDEX_BITS) {
    PyErr_SetString(PyExc_OverflowError, "too many requests under way in one channel");
    return -1;
  }
  Slot *slots = PyMem_Realloc(core->slots, capacity * sizeof *slots);
  if (!slots) {
    PyErr_NoMemory();
    return -1;
  }
  core->slots = slots;
  for (uint32_t index = capacity; index-- > core->capacity;) {
    slots[index] = (Slot){NULL, 0, core->free};
    core->free = index;
  }
  core->capacity = capacity;
  return 0;
}

static inline uint64_t put_waiter(Core *core, PyObject *waiter) {
  uint32_t index = core->free;
  Slot *slot = &core->slots[index];
  core->free = slot->next_free;
  Py_INCREF(waiter);
  slot->waiter = waiter;
  return TAG_BIT | (uint64_t)slot->generation << INDEX_BITS | index;
}

/* The waiter of a tag, which is the caller's from here on; NULL if nobody waits. */
static inline PyObject *take_waiter(Core *core, uint64_t tag) {
  uint32_t index = tag & ((1u << INDEX_BITS) - 1);
  if (!(tag & TAG_BIT) || index >= core->capacity) return NULL;
  Slot *slot = &core->slots[index];
  if (!slot->waiter || slot->generation != (uint32_t)((tag & ~TAG_BIT) >> INDEX_BITS)) return NULL;
  PyObject *waiter = slot->waiter;
  slot->waiter = NULL;
  slot->generation++;
  slot->next_free = core->free;
  core->free = index;
  return waiter;
}

/* Requests */

/* Requests of one turn after which the kernel is woken without waiting for the turn's end. */
#define RING_EVERY 32

static PyObject *request_slow(Core *core, PyObject *arguments) {
  PyObject *method = PyObject_GetAttr((PyObject *)core, name_request_slow);
  if (!method) return NULL;
  PyObject *tag = PyObject_CallObject(method, arguments);
  Py_DECREF(method);
  return tag;
}

static int is_queued(Core *core) {
  return !core->channel || core->ended || (core->out && PyList_Size(core->out) > 0) ||
         (core->unsent && PyBytes_Size(core->unsent) > 0);
}

/* Tells the marker of the running task; NULL until a task has used one. */
static PyObject *context_marker;

static uint32_t marker_of_task(Core *core) {
  PyObject *area = PyLong_FromUnsignedLong(core->area);
  PyObject *number = area ? PyObject_CallFunctionObjArgs(context_marker, area, NULL) : NULL;
  unsigned long marker = number ? PyLong_AsUnsignedLong(number) : 0;
  Py_XDECREF(area);
  Py_XDECREF(number);
  if (!PyErr_Occurred()) return (uint32_t)marker;
  PyErr_WriteUnraisable((PyObject *)core);
  return 0;
}

/* Puts a request into the ring. Its tag; 0 without an exception: the slow path has to do it. */
static uint64_t submit_request(
    Core *core, unsigned flags, unsigned endpoint, unsigned timeout_ms, uint64_t key, PyObject *values, PyObject *waiter) {
  uint32_t marker = context_marker ? marker_of_task(core) : 0;
  Py_ssize_t bytes = is_queued(core) ? -1 : payload_bytes(values);
  iok_submission *place;
  if (bytes < 0 || iok.reserve(core->channel, (uint32_t)bytes, &place) != 0) return 0;
  if (core->free == NO_SLOT && grow(core) < 0) return 0;
  uint8_t *start = (uint8_t *)(place + 1), *end = put_items(start, values);
  if (!end) return 0;
  uint64_t tag = put_waiter(core, waiter);
  uint32_t size = (uint32_t)(sizeof *place + (size_t)(end - start));
  *place = (iok_submission){size, OP_REQUEST, (uint16_t)flags, endpoint, timeout_ms, tag, key, 0, marker};
  iok.commit(core->channel);
  /* A long turn lets the kernel begin before its end. */
  if (++core->unrung >= RING_EVERY) {
    core->unrung = 0;
    iok.flush(core->channel);
  }
  if (!core->scheduled) {
    PyObject *done = PyObject_CallMethodObjArgs((PyObject *)core, name_schedule, NULL);
    if (!done) PyErr_WriteUnraisable((PyObject *)core);
    Py_XDECREF(done);
  }
  return tag;
}

PyDoc_STRVAR(request_doc, "request(flags, endpoint, timeout_ms, key, arguments, waiter) -> tag");

static PyObject *core_request(PyObject *self, PyObject *arguments) {
  unsigned int flags, endpoint, timeout_ms;
  unsigned long long key;
  PyObject *values, *waiter;
  if (!PyArg_ParseTuple(arguments, "IIIKO!O", &flags, &endpoint, &timeout_ms, &key, &PyTuple_Type, &values, &waiter))
    return NULL;
  uint64_t tag = submit_request((Core *)self, flags, endpoint, timeout_ms, key, values, waiter);
  if (tag) return PyLong_FromUnsignedLongLong(tag);
  return PyErr_Occurred() ? NULL : request_slow((Core *)self, arguments);
}

/* Completions */

/* Hands on the current exception. One that is no failure of the delivery, such as Ctrl-C, stays: then -1. */
static int undeliverable(Core *core, PyObject *waiter) {
  if (!PyErr_ExceptionMatches(PyExc_Exception)) return -1;
  PyObject *kind, *value, *trace;
  PyErr_Fetch(&kind, &value, &trace);
  PyErr_NormalizeException(&kind, &value, &trace);
  PyObject *done = PyObject_CallMethodObjArgs((PyObject *)core, name_undeliverable, waiter, value, NULL);
  if (!done) PyErr_WriteUnraisable((PyObject *)core);
  Py_XDECREF(done);
  Py_XDECREF(kind);
  Py_XDECREF(value);
  Py_XDECREF(trace);
  return 0;
}

static int settle(Core *core, PyObject *waiter, const iok_completion *head) {
  PyObject *value = get_payload(head->encoding, (const uint8_t *)(head + 1), head->size - sizeof *head);
  if (value && (PyObject *)Py_TYPE(waiter) == future_class) {
    PyObject *before = ((Future *)waiter)->value;
    ((Future *)waiter)->value = value;
    ((Future *)waiter)->done = 1;
    Py_XDECREF(before);
    return 0;
  }
  PyObject *done = value ? PyObject_CallMethodObjArgs(waiter, name_set_result, value, NULL) : NULL;
  int failed = done ? 0 : undeliverable(core, waiter);
  Py_XDECREF(value);
  Py_XDECREF(done);
  return failed;
}

static int other(Core *core, const iok_completion *head) {
  PyObject *data = PyBytes_FromStringAndSize((const char *)head, head->size);
  PyObject *zero = PyLong_FromLong(0), *size = PyLong_FromUnsignedLong(head->size), *done = NULL;
  if (data && zero && size) done = PyObject_CallMethodObjArgs((PyObject *)core, name_other, data, zero, size, NULL);
  int failed = done ? 0 : -1;
  Py_XDECREF(data);
  Py_XDECREF(zero);
  Py_XDECREF(size);
  Py_XDECREF(done);
  return failed;
}

PyDoc_STRVAR(poll_doc, "poll() -> how many completions of one run of the ring were handed out");

static PyObject *core_poll(PyObject *self, PyObject *unused) {
  (void)unused;
  Core *core = (Core *)self;
  if (core->busy || !core->channel) return PyLong_FromLong(0);
  const iok_completion *head;
  size_t bytes, count = iok.poll(core->channel, &head, &bytes);
  if (!count) {
    PyObject *done = PyObject_CallMethodObjArgs(self, name_poll_empty, NULL);
    Py_XDECREF(done);
    return done ? PyLong_FromLong(0) : NULL;
  }
  core->busy = 1;
  /* Closing the channel from inside of a callback unmaps the run: then nothing of it is touched any more. */
  size_t done_bytes = 0;
  int failed = 0;
  for (size_t index = 0; index < count && !failed && core->channel; index++) {
    size_t step = (head->size + 7u) & ~(size_t)7;
    done_bytes += step;
    PyObject *waiter = NULL;
    if (head->kind == KIND_DONE && !head->flags && !head->status && !PyList_Size(core->parts))
      waiter = take_waiter(core, head->tag);
    if (waiter) {
      failed = settle(core, waiter, head);
      Py_DECREF(waiter);
    } else if (head->kind == KIND_REQUEST && !head->flags && core->take) {
      const uint8_t *payload = (const uint8_t *)(head + 1);
      failed = core->take(core, head->tag, head->endpoint, payload, payload + (head->size - sizeof *head));
    } else if (head->kind != KIND_TICK) {
      failed = other(core, head);
    }
    head = (const iok_completion *)((const char *)head + step);
  }
  /* The last record may lack its padding in the run's length. */
  if (core->channel) iok.advance(core->channel, done_bytes < bytes ? done_bytes : bytes);
  core->busy = 0;
  if (core->take && core->unrung && core->channel) {
    core->unrung = 0;
    iok.flush(core->channel);
  }
  return failed ? NULL : PyLong_FromSize_t(count);
}

PyDoc_STRVAR(wait_doc, "_wait(timeout_ms) -> status; drops the GIL while it sleeps");

static PyObject *core_wait(PyObject *self, PyObject *argument) {
  Core *core = (Core *)self;
  long timeout_ms = PyLong_AsLong(argument);
  if (timeout_ms == -1 && PyErr_Occurred()) return NULL;
  iok_channel *channel = core->channel;
  int32_t status;
  Py_BEGIN_ALLOW_THREADS
  status = iok.wait(channel, (int32_t)timeout_ms);
  Py_END_ALLOW_THREADS
  return PyLong_FromLong(status);
}

PyDoc_STRVAR(bell_doc, "_bell(): wakes the kernel if it sleeps");

static PyObject *core_bell(PyObject *self, PyObject *unused) {
  (void)unused;
  Core *core = (Core *)self;
  core->unrung = 0;
  if (core->channel) iok.flush(core->channel);
  Py_RETURN_NONE;
}

PyDoc_STRVAR(take_doc, "_take_slot(tag) -> who waited for it, or None");

static PyObject *core_take(PyObject *self, PyObject *argument) {
  unsigned long long tag = PyLong_AsUnsignedLongLong(argument);
  if (tag == (unsigned long long)-1 && PyErr_Occurred()) return NULL;
  PyObject *waiter = take_waiter((Core *)self, tag);
  if (waiter) return waiter;
  Py_RETURN_NONE;
}

PyDoc_STRVAR(take_all_doc, "_take_slots() -> everyone who waits");

static PyObject *core_take_all(PyObject *self, PyObject *unused) {
  (void)unused;
  Core *core = (Core *)self;
  PyObject *all = PyList_New(0);
  for (uint32_t index = 0; all && index < core->capacity; index++) {
    Slot *slot = &core->slots[index];
    PyObject *waiter = slot->waiter;
    if (!waiter) continue;
    take_waiter(core, TAG_BIT | (uint64_t)slot->generation << INDEX_BITS | index);
    if (PyList_Append(all, waiter) < 0) Py_CLEAR(all);
    Py_DECREF(waiter);
  }
  return all;
}

PyDoc_STRVAR(attach_doc, "_attach(address): the channel's handle; 0 for none");

static PyObject *core_attach(PyObject *self, PyObject *argument) {
  void *handle = PyLong_AsVoidPtr(argument);
  if (!handle && PyErr_Occurred()) return NULL;
  Core *core = (Core *)self;
  core->channel = handle;
  if (!core->capacity) {
    core->free = NO_SLOT;
    if (grow(core) < 0) return NULL;
  }
  Py_RETURN_NONE;
}

static int core_traverse(PyObject *self, visitproc visit, void *arg) {
  Core *core = (Core *)self;
  Py_VISIT(Py_TYPE(self));
  Py_VISIT(core->out);
  Py_VISIT(core->unsent);
  Py_VISIT(core->parts);
  Py_VISIT(core->pack);
  Py_VISIT(core->loop);
  Py_VISIT(core->server);
  for (uint32_t index = 0; index < core->capacity; index++) Py_VISIT(core->slots[index].waiter);
  return 0;
}

static int core_clear(PyObject *self) {
  Core *core = (Core *)self;
  Py_CLEAR(core->out);
  Py_CLEAR(core->unsent);
  Py_CLEAR(core->parts);
  Py_CLEAR(core->pack);
  Py_CLEAR(core->loop);
  Py_CLEAR(core->server);
  for (uint32_t index = 0; index < core->capacity; index++) Py_CLEAR(core->slots[index].waiter);
  return 0;
}

static void core_dealloc(PyObject *self) {
  PyObject_GC_UnTrack(self);
  channels_gone++;
  core_clear(self);
  PyMem_Free(((Core *)self)->slots);
  free_object(self);
}

static PyMethodDef core_methods[] = {
    {"request", core_request, METH_VARARGS, request_doc},
    {"poll", core_poll, METH_NOARGS, poll_doc},
    {"_wait", core_wait, METH_O, wait_doc},
    {"_bell", core_bell, METH_NOARGS, bell_doc},
    {"_take_slot", core_take, METH_O, take_doc},
    {"_take_slots", core_take_all, METH_NOARGS, take_all_doc},
    {"_attach", core_attach, METH_O, attach_doc},
    {NULL, NULL, 0, NULL},
};

static PyMemberDef core_members[] = {
    {"_scheduled", T_BOOL, offsetof(Core, scheduled), 0, NULL},
    {"busy", T_BOOL, offsetof(Core, busy), 0, NULL},
    {"ended", T_INT, offsetof(Core, ended), 0, NULL},
    {"_out", T_OBJECT_EX, offsetof(Core, out), 0, NULL},
    {"_unsent", T_OBJECT_EX, offsetof(Core, unsent), 0, NULL},
    {"_parts", T_OBJECT_EX, offsetof(Core, parts), 0, NULL},
    {"_pack", T_OBJECT_EX, offsetof(Core, pack), 0, NULL},
    {"loop", T_OBJECT, offsetof(Core, loop), 0, NULL},
    {"_area", T_UINT, offsetof(Core, area), 0, NULL},
    {"_server", T_OBJECT, offsetof(Core, server), READONLY, NULL},
    {NULL, 0, 0, 0, NULL},
};

static PyType_Slot core_slots[] = {
    {Py_tp_doc, "The hot path of a channel."},
    {Py_tp_methods, core_methods},
    {Py_tp_members, core_members},
    {Py_tp_traverse, core_traverse},
    {Py_tp_clear, core_clear},
    {Py_tp_dealloc, core_dealloc},
    {0, NULL},
};

static PyType_Spec core_spec = {
    "iokernel._accel.Core", sizeof(Core), 0, Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_HAVE_GC, core_slots,
};

#include "_accel_caller.h"
#include "_accel_cells.h"
#include "_accel_copy.h"
#include "_accel_http.h"
#include "_accel_wsgi.h"
#include "_accel_asgi.h"
#include "_accel_markers.h"

/* The module */

PyDoc_STRVAR(bind_doc, "bind(addresses, unpack): the library's functions by name, and msgpack's part of decoding");

static PyObject *bind(PyObject *self, PyObject *arguments) {
  (void)self;
  PyObject *addresses, *decoder;
  if (!PyArg_ParseTuple(arguments, "O!O", &PyDict_Type, &addresses, &decoder)) return NULL;
  struct {
    const char *name;
    void **place;
  } wanted[] = {
      {"iok_reserve", (void **)&iok.reserve}, {"iok_commit", (void **)&iok.commit}, {"iok_flush", (void **)&iok.flush},
      {"iok_wait", (void **)&iok.wait},       {"iok_poll", (void **)&iok.poll},     {"iok_advance", (void **)&iok.advance},
  };
  for (size_t index = 0; index < sizeof wanted / sizeof *wanted; index++) {
    PyObject *address = PyDict_GetItemString(addresses, wanted[index].name);
    void *function = address ? PyLong_AsVoidPtr(address) : NULL;
    if (!function) {
      if (!PyErr_Occurred()) PyErr_Format(PyExc_KeyError, "%s", wanted[index].name);
      return NULL;
    }
    memcpy(wanted[index].place, &function, sizeof function);
  }
  Py_INCREF(decoder);
  Py_XDECREF(unpack);
  unpack = decoder;
  Py_RETURN_NONE;
}

static PyMethodDef module_methods[] = {
    {"bind", bind, METH_VARARGS, bind_doc},
    {"futures", futures, METH_VARARGS, futures_doc},
    {"contexts", contexts, METH_O, contexts_doc},
    {"always_contexts", always_contexts, METH_NOARGS, always_doc},
    {"traced", traced, METH_O, traced_doc},
    {"serving", serving, METH_NOARGS, serving_doc},
    {"copy_lines", copy_lines, METH_VARARGS, copy_lines_doc},
    {"looks", looks, METH_VARARGS, looks_doc},
    {"loops", loops, METH_VARARGS, loops_doc},
    {"running_loop", running_loop_of_module, METH_NOARGS, running_loop_doc},
    {NULL, NULL, 0, NULL},
};

/* What this module keeps is the process's: it serves the main interpreter, and is filled once. Others use cffi. */
static int claim(void) {
  static int is_claimed;
  const char *why = NULL;
  if (PyInterpreterState_GetID(PyInterpreterState_Get()) != 0) why = "the accelerator serves the main interpreter alone";
  else if (is_claimed++) why = "the accelerator serves one copy of the package, and another one has it";
  if (why) PyErr_SetString(PyExc_ImportError, why);
  return why ? -1 : 0;
}

static int fill(PyObject *self) {
  if (claim() < 0) return -1;
  struct {
    PyObject **place;
    const char *text;
  } names[] = {
      {&name_set_result, "set_result"},     {&name_set_exception, "set_exception"},
      {&name_schedule, "_schedule"},        {&name_other, "_other"},
      {&name_poll_empty, "_poll_empty"},    {&name_request_slow, "_request_slow"},
      {&name_undeliverable, "_undeliverable"}, {&name_result_slow, "_result"},
      {&name_call_slow, "_call"},           {&name_loop, "loop"},
      {&name_tag, "_iok_tag"},              {&name_channel, "_iok_channel"},
      {&name_claim, "_claim"},              {&name_enter_context, "_enter_context"},
      {&name_exit_context, "_exit_context"}, {&name_name, "name"},
  };
  for (size_t index = 0; index < sizeof names / sizeof *names; index++) {
    *names[index].place = PyUnicode_InternFromString(names[index].text);
    if (!*names[index].place) return -1;
  }
  if (pthread_key_create(&threads_key, free_threads) != 0) {
    PyErr_SetString(PyExc_ImportError, "no key is left for what belongs to a thread");
    return -1;
  }
  if (!import_times() || !prepare_copy()) return -1;
  struct {
    PyType_Spec *spec;
    const char *name;
  } types[] = {{&core_spec, "Core"}, {&future_spec, "Future"}, {&caller_spec, "Caller"},
               {&marker_spec, "Marker"}, {&counter_cell_spec, "CounterCell"}, {&sum_cell_spec, "SumCell"},
               {&gauge_cell_spec, "GaugeCell"}, {&histogram_cell_spec, "HistogramCell"},
               {&start_spec, "Start"}, {&wsgi_spec, "Wsgi"}, {&cycle_spec, "Cycle"},
               {&asgi_spec, "Asgi"}, {&resumed_spec, "Resumed"}, {&ready_spec, "Ready"}};
  for (size_t index = 0; index < sizeof types / sizeof *types; index++) {
    PyObject *type = PyType_FromSpec(types[index].spec);
    int failed = !type || PyModule_AddObjectRef(self, types[index].name, type) < 0;
    if (type && types[index].spec == &ready_spec) ready_class = type;
    else Py_XDECREF(type);
    if (failed) return -1;
  }
  return 0;
}

/* Slots that the limited API of 3.10 does not name, as later Pythons number them; an earlier one refuses them. */
enum { SLOT_MULTIPLE_INTERPRETERS = 3, SLOT_GIL = 4 };
#define NO_OTHER_INTERPRETERS ((void *)0) /* Py_MOD_MULTIPLE_INTERPRETERS_NOT_SUPPORTED */
#define GIL_USED ((void *)0)              /* Py_MOD_GIL_USED */

static PyModuleDef_Slot module_slots[4];

static struct PyModuleDef module = {
    PyModuleDef_HEAD_INIT, "iokernel._accel", "The accelerator of the binding.", 0, module_methods, module_slots, NULL, NULL, NULL,
};

/* The minor version of the Python that runs, which may be later than the one that this was built with. */
static int running_minor(void) {
  const char *version = Py_GetVersion();
  return version[0] == '3' && version[1] == '.' ? atoi(version + 2) : 0;
}

PyMODINIT_FUNC PyInit__accel(void) {
  int minor = running_minor();
  PyModuleDef_Slot *slot = module_slots;
  *slot++ = (PyModuleDef_Slot){Py_mod_exec, (void *)(uintptr_t)fill};
  if (minor >= 12) *slot++ = (PyModuleDef_Slot){SLOT_MULTIPLE_INTERPRETERS, NO_OTHER_INTERPRETERS};
  if (minor >= 13) *slot++ = (PyModuleDef_Slot){SLOT_GIL, GIL_USED};
  *slot = (PyModuleDef_Slot){0, NULL};
  return PyModuleDef_Init(&module);
}
