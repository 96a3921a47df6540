/*
 * Markers: what a thread is doing, written into its slot of shared memory with plain stores. A part of _accel.c. Inside
 * of a running event loop, where tasks take turns on one thread, `_enter_context` and `_exit_context` of _markers.py do
 * the work.
 */
#include <pthread.h>

enum { MARKER_PLACES = 15, MARKER_TEXT_BYTES = 56 };
#define MARKER_ACTIVE (1u << 31)
#define MARKER_COUNT_MASK ((1u << 26) - 1)

typedef struct {
  uint32_t serial, length;
  char text[MARKER_TEXT_BYTES];
} iok_marker;
typedef struct {
  uint32_t tid, current, last, overflows, reserved[12];
  iok_marker places[MARKER_PLACES];
} iok_markers;
_Static_assert(sizeof(iok_markers) == 1024, "the ABI's slot of markers");

typedef struct {
  PyObject_HEAD
  unsigned int area;
  uint32_t length;
  char text[MARKER_TEXT_BYTES];
} Marker;

/* A marker that was entered on this thread and not left. Its object is compared, never touched. */
typedef struct {
  const Marker *marker;
  int place; /* -1: it found none */
  uint32_t serial;
} Frame;

/* What a thread has of one area. */
typedef struct Thread {
  struct Thread *next;
  iok_markers *slot, own; /* `own`: for a thread that got no slot */
  uint32_t area, tid;
  unsigned depth, capacity;
  Frame *frames;
} Thread;

static __thread Thread *threads;
static pthread_key_t threads_key;
static PyObject *name_claim, *name_enter_context, *name_exit_context;
static int always_context;

static void free_threads(void *first) {
  for (Thread *thread = first, *next; thread; thread = next) {
    next = thread->next;
    free(thread->frames);
    free(thread);
  }
}

/* Has the thread a slot of its own? A forked child has zeros there. */
static int claim_slot(Thread *thread, PyObject *marker) {
  PyObject *address = PyObject_CallMethodObjArgs(marker, name_claim, NULL);
  iok_markers *slot = address ? PyLong_AsVoidPtr(address) : NULL;
  Py_XDECREF(address);
  if (PyErr_Occurred()) return -1;
  if (!slot) {
    slot = &thread->own;
    memset(slot, 0, sizeof *slot);
    slot->tid = 1;
  }
  for (unsigned index = 0; index < thread->depth; index++) thread->frames[index].place = -1, thread->frames[index].serial = 0;
  thread->slot = slot;
  thread->tid = slot->tid;
  return 0;
}

static Thread *thread_of(Marker *marker) {
  Thread *thread = threads;
  while (thread && thread->area != marker->area) thread = thread->next;
  if (!thread) {
    if (!(thread = calloc(1, sizeof *thread))) return (Thread *)PyErr_NoMemory();
    thread->area = marker->area;
    thread->next = threads;
    threads = thread;
    pthread_setspecific(threads_key, thread);
  }
  if (thread->slot && thread->slot->tid == thread->tid) return thread;
  return claim_slot(thread, (PyObject *)marker) < 0 ? NULL : thread;
}

static inline void take_place(Thread *thread, const Marker *marker, Frame *frame) {
  iok_markers *slot = thread->slot;
  uint32_t count = (slot->last + 1) & MARKER_COUNT_MASK;
  if (!count) count = 1;
  int at = (int)(count % MARKER_PLACES);
  for (int tried = 0; tried < MARKER_PLACES; tried++, at = at + 1 == MARKER_PLACES ? 0 : at + 1) {
    iok_marker *place = &slot->places[at];
    if (place->length & MARKER_ACTIVE) continue;
    uint32_t serial = (slot->last & ~MARKER_COUNT_MASK) | count;
    slot->last = serial;
    __atomic_store_n(&place->serial, 0, __ATOMIC_RELAXED);
    __atomic_thread_fence(__ATOMIC_RELEASE);
    memcpy(place->text, marker->text, MARKER_TEXT_BYTES);
    uint64_t head = serial | (uint64_t)(marker->length | MARKER_ACTIVE) << 32;
    __atomic_store_n((uint64_t *)(void *)place, head, __ATOMIC_RELEASE);
    __atomic_store_n(&slot->current, serial, __ATOMIC_RELAXED);
    *frame = (Frame){marker, at, serial};
    return;
  }
  slot->overflows++;
  *frame = (Frame){marker, -1, 0};
}

/* 1: tasks may take turns on this thread; -1 with an exception. */
static inline int in_context(void) {
  if (always_context) return 1;
  PyObject *loop = running_loop();
  if (!loop) return -1;
  Py_DECREF(loop);
  return loop != Py_None;
}

static PyObject *marker_enter(PyObject *self, PyObject *unused) {
  (void)unused;
  Marker *marker = (Marker *)self;
  int context = in_context();
  if (context) return context < 0 ? NULL : PyObject_CallMethodObjArgs(self, name_enter_context, NULL);
  Thread *thread = thread_of(marker);
  if (!thread) return NULL;
  if (thread->depth == thread->capacity) {
    unsigned capacity = thread->capacity ? thread->capacity * 2 : 16;
    Frame *frames = realloc(thread->frames, capacity * sizeof *frames);
    if (!frames) return PyErr_NoMemory();
    thread->frames = frames;
    thread->capacity = capacity;
  }
  take_place(thread, marker, &thread->frames[thread->depth++]);
  Py_INCREF(self);
  return self;
}

/* Leaves the marker that this thread entered last. 0: it entered none of that name. */
static int leave(const Marker *marker) {
  Thread *thread = threads;
  while (thread && thread->area != marker->area) thread = thread->next;
  if (!thread) return 0;
  unsigned at = thread->depth;
  while (at && thread->frames[at - 1].marker != marker) at--;
  if (!at--) return 0;
  Frame frame = thread->frames[at];
  iok_markers *slot = thread->slot;
  if (frame.place >= 0 && slot->tid == thread->tid && slot->places[frame.place].serial == frame.serial)
    __atomic_store_n(&slot->places[frame.place].length, marker->length, __ATOMIC_RELAXED);
  memmove(&thread->frames[at], &thread->frames[at + 1], (thread->depth - at - 1) * sizeof frame);
  thread->depth--;
  if (slot->tid != thread->tid) return 1;
  uint32_t current = 0;
  for (at = thread->depth; at && !current; at--) current = thread->frames[at - 1].serial;
  __atomic_store_n(&slot->current, current, __ATOMIC_RELAXED);
  return 1;
}

static PyObject *marker_exit(PyObject *self, PyObject *const *unused, Py_ssize_t count) {
  (void)unused;
  (void)count;
  int context = in_context();
  if (context < 0) return NULL;
  if (!context && leave((Marker *)self)) Py_RETURN_NONE;
  PyObject *found = PyObject_CallMethodObjArgs(self, name_exit_context, NULL);
  if (!found) return NULL;
  if (found != Py_True) leave((Marker *)self);
  Py_DECREF(found);
  Py_RETURN_NONE;
}

PyDoc_STRVAR(marker_prepare_doc, "_prepare(area, text): which area, and the text as UTF-8, 56 bytes at most");

static PyObject *marker_prepare(PyObject *self, PyObject *arguments) {
  Marker *marker = (Marker *)self;
  const char *text;
  Py_ssize_t length;
  unsigned int area;
  if (!PyArg_ParseTuple(arguments, "Iy#", &area, &text, &length)) return NULL;
  if (length > MARKER_TEXT_BYTES) return PyErr_Format(PyExc_ValueError, "%zd bytes", length);
  marker->area = area;
  marker->length = (uint32_t)length;
  memcpy(marker->text, text, (size_t)length);
  Py_RETURN_NONE;
}

static void marker_dealloc(PyObject *self) { free_object(self); }

static PyMethodDef marker_methods[] = {
    {"__enter__", marker_enter, METH_NOARGS, NULL},
    {"__exit__", FASTCALL(marker_exit), NULL},
    {"_prepare", marker_prepare, METH_VARARGS, marker_prepare_doc},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot marker_slots[] = {
    {Py_tp_doc, "What a thread is doing."}, {Py_tp_methods, marker_methods}, {Py_tp_dealloc, marker_dealloc}, {0, NULL},
};

static PyType_Spec marker_spec = {
    "iokernel._accel.Marker", sizeof(Marker), 0, Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE, marker_slots,
};

PyDoc_STRVAR(contexts_doc, "contexts(current): markers of tasks are in use; `current(area)` is the number to submit");

static PyObject *contexts(PyObject *self, PyObject *function) {
  (void)self;
  Py_INCREF(function);
  context_marker = function;
  Py_RETURN_NONE;
}

PyDoc_STRVAR(always_doc, "always_contexts(): something else than asyncio takes turns on threads");

static PyObject *always_contexts(PyObject *self, PyObject *unused) {
  (void)self;
  (void)unused;
  always_context = 1;
  Py_RETURN_NONE;
}
