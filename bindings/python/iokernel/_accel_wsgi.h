/*
 * The WSGI server's loop: requests out of the ring, through the application, replies into the ring. A part of _accel.c,
 * below _accel_http.h. Whatever is rare is done by the Python class that is derived from Wsgi (serve/_wsgi.py).
 *
 * Several threads share one channel. One of them *leads*: it takes requests and runs the application itself, so that a
 * request costs no change of threads. Another one stands by without the GIL and looks at the leader's pulse: a leader
 * that is long in one request loses the lead, and answers that request through a channel of its thread. All of it
 * changes hands under the GIL.
 */
#include <pthread.h>
#include <time.h>

enum { NOBODY, WAITING, TAKING, RUNNING };

/* How long a request may take before others are taken by another thread, and for how long a thread that stands by goes
 * on looking when nothing happens. */
enum { PULSE_NS = 1000000, QUIET_PULSES = 50 };
/* A reply waits no longer than this for others before the kernel is told of it. */
enum { RING_NS = 100000 };

typedef struct {
  PyObject_HEAD
  Core *core;
  PyObject *start_class, *app, *base, *stash, *spare;
  PyObject *adjust;           /* NULL, or what is asked about environments */
  char adjusts_all;           /* about all of them, not only those that came through a proxy */
  uint64_t rung_ns;
  unsigned long long served, limit; /* requests so far, and at which of them `_limit` is called */
  const iok_completion *head; /* the next record of the run under way */
  size_t left;                /* records of it */
  unsigned long leader;
  volatile int doing, closing, asleep;
  volatile uint32_t pulse;
  pthread_mutex_t lock;
  pthread_cond_t call;
} Wsgi;

/* start_response of one request. */
typedef struct {
  PyObject_HEAD
  PyObject *server, *environ, *status, *headers, *reply;
  unsigned long long tag;
  unsigned int endpoint;
  char sent; /* the headers are on their way */
} Start;

static PyObject *name_respond, *name_failed, *name_streamed, *name_write, *name_flush, *name_restart,
    *name_input, *name_limit, *name_forwarded_for, *name_forwarded_proto;

static PyObject *start_call(PyObject *self, PyObject *arguments, PyObject *names) {
  Start *start = (Start *)self;
  static char *keywords[] = {"status", "headers", "exc_info", NULL};
  PyObject *status, *headers, *exc_info = Py_None;
  if (!PyArg_ParseTupleAndKeywords(arguments, names, "OO|O:start_response", keywords, &status, &headers, &exc_info)) return NULL;
  if (exc_info != Py_None || start->status || !PyUnicode_Check(status) || !PyList_CheckExact(headers)) {
    PyObject *done = PyObject_CallMethodObjArgs(self, name_restart, status, headers, exc_info, NULL);
    if (!done) return NULL;
    Py_DECREF(done);
  } else {
    Py_INCREF(status);
    Py_INCREF(headers);
    start->status = status;
    start->headers = headers;
  }
  return PyObject_GetAttr(self, name_write);
}

static int start_traverse(PyObject *self, visitproc visit, void *arg) {
  Start *start = (Start *)self;
  Py_VISIT(Py_TYPE(self));
  Py_VISIT(start->server);
  Py_VISIT(start->environ);
  Py_VISIT(start->status);
  Py_VISIT(start->headers);
  Py_VISIT(start->reply);
  return 0;
}

static int start_clear(PyObject *self) {
  Start *start = (Start *)self;
  Py_CLEAR(start->server);
  Py_CLEAR(start->environ);
  Py_CLEAR(start->status);
  Py_CLEAR(start->headers);
  Py_CLEAR(start->reply);
  return 0;
}

static void start_dealloc(PyObject *self) {
  PyObject_GC_UnTrack(self);
  start_clear(self);
  free_object(self);
}

static PyMemberDef start_members[] = {
    {"server", T_OBJECT, offsetof(Start, server), 0, NULL},   {"environ", T_OBJECT, offsetof(Start, environ), 0, NULL},
    {"status", T_OBJECT, offsetof(Start, status), 0, NULL},   {"headers", T_OBJECT, offsetof(Start, headers), 0, NULL},
    {"reply", T_OBJECT, offsetof(Start, reply), 0, NULL},     {"tag", T_ULONGLONG, offsetof(Start, tag), 0, NULL},
    {"endpoint", T_UINT, offsetof(Start, endpoint), 0, NULL}, {"sent", T_BOOL, offsetof(Start, sent), 0, NULL},
    {NULL, 0, 0, 0, NULL},
};

static PyType_Slot start_slots[] = {
    {Py_tp_doc, "start_response of one request."},
    {Py_tp_call, start_call},
    {Py_tp_members, start_members},
    {Py_tp_traverse, start_traverse},
    {Py_tp_clear, start_clear},
    {Py_tp_dealloc, start_dealloc},
    {0, NULL},
};

static PyType_Spec start_spec = {
    "iokernel._accel.Start", sizeof(Start), 0, Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_HAVE_GC, start_slots,
};

/* A start_response for a request: the last one again, where nobody has kept it. */
static Start *begin_start(Wsgi *wsgi, uint64_t tag, uint32_t endpoint, PyObject *environ) {
  Start *start = (Start *)wsgi->spare;
  wsgi->spare = NULL;
  if (!start) {
    PyTypeObject *class = (PyTypeObject *)wsgi->start_class;
    allocfunc allocate = (allocfunc)(uintptr_t)PyType_GetSlot(class, Py_tp_alloc);
    if (!(start = (Start *)allocate(class, 0))) return NULL;
  }
  Py_INCREF(wsgi);
  Py_INCREF(environ);
  start->server = (PyObject *)wsgi;
  start->environ = environ;
  start->tag = tag;
  start->endpoint = endpoint;
  start->sent = 0;
  return start;
}

static void end_start(Wsgi *wsgi, Start *start) {
  if (Py_REFCNT(start) != 1 || wsgi->spare) {
    Py_DECREF(start);
    return;
  }
  start_clear((PyObject *)start);
  if (wsgi->spare) Py_DECREF(start); /* Clearing may run a finalizer, which lets other threads run. */
  else wsgi->spare = (PyObject *)start;
}

/* Requests */

static int leads(Wsgi *wsgi) { return wsgi->leader == PyThread_get_thread_ident(); }

/* The body where all of it is in a list or a tuple of at most one; else NULL. Borrowed. */
static PyObject *only_piece(PyObject *result) {
  static PyObject *nothing;
  if (!nothing && !(nothing = PyBytes_FromStringAndSize("", 0))) return NULL;
  Py_ssize_t count = count_of(result);
  if (count == 0) return nothing;
  return count == 1 && PyBytes_CheckExact(item_of(result, 0)) ? item_of(result, 0) : NULL;
}

/* Hands the current exception to Python: it is logged, and the client is told of a failure. */
static int app_failed(Wsgi *wsgi, Start *start) {
  PyObject *kind, *value, *trace;
  PyErr_Fetch(&kind, &value, &trace);
  PyErr_NormalizeException(&kind, &value, &trace);
  if (trace) PyException_SetTraceback(value, trace);
  PyObject *done = PyObject_CallMethodObjArgs((PyObject *)wsgi, name_failed, (PyObject *)start, value, NULL);
  Py_XDECREF(kind);
  Py_XDECREF(value);
  Py_XDECREF(trace);
  Py_XDECREF(done);
  return done ? 0 : -1;
}

static uint64_t now_ns(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
}

/* Of replies that follow each other closely the kernel is told in portions, of the last ones before the next wait. */
static void ring_soon(Wsgi *wsgi) {
  Core *core = wsgi->core;
  if (++core->unrung < RING_EVERY && now_ns() - wsgi->rung_ns < RING_NS) return;
  core->unrung = 0;
  iok.flush(core->channel);
  wsgi->rung_ns = now_ns();
}

static int answer(Wsgi *wsgi, Start *start, PyObject *result) {
  PyObject *body = start->status && !start->sent ? only_piece(result) : NULL;
  if (body && leads(wsgi) && put_reply(wsgi->core, start->tag, start->endpoint, start->status, start->headers, body)) {
    ring_soon(wsgi);
    return 0;
  }
  wsgi->doing = leads(wsgi) ? RUNNING : wsgi->doing;
  PyObject *done = PyObject_CallMethodObjArgs((PyObject *)wsgi, name_respond, (PyObject *)start, result, NULL);
  if (!done) return app_failed(wsgi, start);
  Py_DECREF(done);
  return 0;
}

static int reached_limit(PyObject *server) {
  PyObject *done = PyObject_CallMethodObjArgs(server, name_limit, NULL);
  Py_XDECREF(done);
  return done ? 0 : -1;
}

/* Runs the application for one request. The lead may be gone afterwards. */
static int serve_one(Wsgi *wsgi, uint64_t tag, uint32_t endpoint, PyObject *environ) {
  Start *start = begin_start(wsgi, tag, endpoint, environ);
  if (!start) return -1;
  wsgi->pulse++;
  wsgi->doing = RUNNING;
  PyObject *result = PyObject_CallFunctionObjArgs(wsgi->app, environ, (PyObject *)start, NULL);
  if (leads(wsgi)) wsgi->doing = TAKING;
  int failed = result ? answer(wsgi, start, result) : app_failed(wsgi, start);
  Py_XDECREF(result);
  end_start(wsgi, start);
  if (leads(wsgi)) wsgi->doing = TAKING;
  if (!failed && ++wsgi->served == wsgi->limit) failed = reached_limit((PyObject *)wsgi);
  return failed;
}

static int adjust_environ(Wsgi *wsgi, PyObject *environ) {
  if (!wsgi->adjusts_all && !PyDict_GetItemWithError(environ, name_forwarded_for) &&
      !PyDict_GetItemWithError(environ, name_forwarded_proto))
    return PyErr_Occurred() ? -1 : 0;
  PyObject *done = PyObject_CallFunctionObjArgs(wsgi->adjust, environ, NULL);
  Py_XDECREF(done);
  return done ? 0 : -1;
}

/* The environment of a request, its body included. */
static PyObject *take_environ(Wsgi *wsgi, uint64_t tag, uint32_t endpoint, const uint8_t *at, const uint8_t *end) {
  if (get_count(&at, end, 0x90) != 2) return not_http();
  PyObject *environ = get_environ(wsgi->base, &at, end);
  if (environ && wsgi->adjust && adjust_environ(wsgi, environ) < 0) Py_CLEAR(environ);
  if (!environ) return NULL;
  if (end - at == 1 && *at == 0xc0) return environ;
  PyObject *body = get_value(&at, end, 0), *number = NULL, *of = NULL, *input = NULL;
  if (body && (number = PyLong_FromUnsignedLongLong(tag)) && (of = PyLong_FromUnsignedLong(endpoint)))
    input = PyObject_CallMethodObjArgs((PyObject *)wsgi, name_streamed, number, of, body, NULL);
  if (!body && !PyErr_Occurred()) not_http();
  if (!input || PyDict_SetItem(environ, name_input, input) < 0) Py_CLEAR(environ);
  Py_XDECREF(body);
  Py_XDECREF(number);
  Py_XDECREF(of);
  Py_XDECREF(input);
  return environ;
}

/* Takes the next record off the ring. 1: it is a request, whose environment is told. */
static int take_record(Wsgi *wsgi, uint64_t *tag, uint32_t *endpoint, PyObject **environ) {
  Core *core = wsgi->core;
  const iok_completion *head = wsgi->head;
  size_t step = (head->size + 7u) & ~(size_t)7;
  int failed = 0, is_request = head->kind == KIND_REQUEST && !head->flags;
  PyObject *data = NULL;
  if (is_request) {
    *tag = head->tag;
    *endpoint = head->endpoint;
    const uint8_t *start = (const uint8_t *)(head + 1);
    *environ = take_environ(wsgi, head->tag, head->endpoint, start, start + (head->size - sizeof *head));
    failed = !*environ;
  } else if (head->kind != KIND_TICK) {
    data = PyBytes_FromStringAndSize((const char *)head, head->size);
    failed = !data;
  }
  wsgi->head = (const iok_completion *)((const char *)head + step);
  wsgi->left--;
  if (core->channel) iok.advance(core->channel, step);
  if (failed) return -1;
  if (data) {
    PyObject *zero = PyLong_FromLong(0), *size = PyLong_FromSsize_t(PyBytes_Size(data)), *done = NULL;
    if (zero && size) done = PyObject_CallMethodObjArgs((PyObject *)core, name_other, data, zero, size, NULL);
    failed = !done;
    Py_DECREF(data);
    Py_XDECREF(zero);
    Py_XDECREF(size);
    Py_XDECREF(done);
  }
  return failed ? -1 : is_request;
}

/* Sees to it that there is a record to take, sleeping until there is or `timeout_ms` is over. 1: there is one. */
static int have_record(Wsgi *wsgi, int32_t timeout_ms) {
  Core *core = wsgi->core;
  if (wsgi->left) return 1;
  if (!core->channel || core->ended) return 0;
  size_t bytes;
  wsgi->left = iok.poll(core->channel, &wsgi->head, &bytes);
  if (wsgi->left) return 1;
  if (is_queued(core) || core->ended) {
    PyObject *done = PyObject_CallMethodObjArgs((PyObject *)core, name_flush, NULL);
    Py_XDECREF(done);
    if (!done) return -1;
  }
  core->unrung = 0;
  wsgi->doing = WAITING;
  iok_channel *channel = core->channel;
  int32_t status;
  Py_BEGIN_ALLOW_THREADS
  status = iok.wait(channel, timeout_ms);
  Py_END_ALLOW_THREADS
  wsgi->pulse++;
  wsgi->doing = TAKING;
  wsgi->rung_ns = now_ns();
  __atomic_thread_fence(__ATOMIC_SEQ_CST);
  if (wsgi->asleep) {
    pthread_mutex_lock(&wsgi->lock);
    wsgi->asleep = 0;
    pthread_cond_signal(&wsgi->call);
    pthread_mutex_unlock(&wsgi->lock);
  }
  if (PyErr_CheckSignals() < 0) return -1;
  if (status == 0 && core->channel) wsgi->left = iok.poll(core->channel, &wsgi->head, &bytes);
  if (wsgi->left || status == 0) return wsgi->left > 0;
  PyObject *done = PyObject_CallMethodObjArgs((PyObject *)core, name_poll_empty, NULL);
  Py_XDECREF(done);
  return done ? 0 : -1;
}

/* A request that was found by a thread that waited for something else. 1: there was one. */
static int take_stashed(Wsgi *wsgi, uint64_t *tag, uint32_t *endpoint, PyObject **environ) {
  Py_ssize_t count = PyList_Size(wsgi->stash);
  if (count <= 0) return (int)count;
  PyObject *one = PyList_GetItem(wsgi->stash, 0);
  PyObject *kept = PyTuple_GetItem(one, 2);
  *tag = PyLong_AsUnsignedLongLong(PyTuple_GetItem(one, 0));
  *endpoint = (uint32_t)PyLong_AsUnsignedLong(PyTuple_GetItem(one, 1));
  Py_INCREF(kept);
  *environ = kept;
  return PyList_SetSlice(wsgi->stash, 0, 1, NULL) < 0 ? -1 : 1;
}

PyDoc_STRVAR(wsgi_run_doc, "run(): serves for as long as this thread leads");

static PyObject *wsgi_run(PyObject *self, PyObject *unused) {
  (void)unused;
  Wsgi *wsgi = (Wsgi *)self;
  while (leads(wsgi) && !wsgi->closing && wsgi->core->channel && !wsgi->core->ended) {
    uint64_t tag;
    uint32_t endpoint;
    PyObject *environ = NULL;
    int found = take_stashed(wsgi, &tag, &endpoint, &environ);
    if (!found && (found = have_record(wsgi, 1000)) > 0) found = take_record(wsgi, &tag, &endpoint, &environ);
    if (found > 0 && environ) found = serve_one(wsgi, tag, endpoint, environ);
    Py_XDECREF(environ);
    if (found < 0) {
      if (leads(wsgi)) wsgi->leader = 0, wsgi->doing = NOBODY;
      return NULL;
    }
  }
  if (leads(wsgi)) wsgi->leader = 0, wsgi->doing = NOBODY;
  Py_RETURN_NONE;
}

PyDoc_STRVAR(wsgi_pump_doc, "pump(timeout_ms): takes what has come for others, as the leader; requests are put aside");

static PyObject *wsgi_pump(PyObject *self, PyObject *argument) {
  Wsgi *wsgi = (Wsgi *)self;
  long timeout_ms = PyLong_AsLong(argument);
  if (timeout_ms == -1 && PyErr_Occurred()) return NULL;
  wsgi->doing = TAKING;
  int found = have_record(wsgi, (int32_t)timeout_ms);
  while (found > 0 && wsgi->left) {
    uint64_t tag;
    uint32_t endpoint;
    PyObject *environ = NULL;
    found = take_record(wsgi, &tag, &endpoint, &environ);
    if (found > 0 && environ) {
      PyObject *one = Py_BuildValue("KIN", (unsigned long long)tag, (unsigned int)endpoint, environ);
      if (!one || PyList_Append(wsgi->stash, one) < 0) found = -1;
      Py_XDECREF(one);
    }
    if (!found) found = 1;
  }
  wsgi->doing = RUNNING;
  return found < 0 ? NULL : PyLong_FromSsize_t(PyList_Size(wsgi->stash));
}

PyDoc_STRVAR(wsgi_request_doc, "request(tag, endpoint, payload): serves a request that came in parts");

static PyObject *wsgi_request(PyObject *self, PyObject *arguments) {
  Wsgi *wsgi = (Wsgi *)self;
  unsigned long long tag;
  unsigned int endpoint;
  const char *payload;
  Py_ssize_t bytes;
  if (!PyArg_ParseTuple(arguments, "KIy#", &tag, &endpoint, &payload, &bytes)) return NULL;
  const uint8_t *at = (const uint8_t *)payload;
  PyObject *environ = take_environ(wsgi, tag, endpoint, at, at + bytes);
  PyObject *one = environ ? Py_BuildValue("KIN", tag, endpoint, environ) : NULL;
  int failed = one ? PyList_Append(wsgi->stash, one) : -1;
  Py_XDECREF(one);
  if (failed) return NULL;
  Py_RETURN_NONE;
}

PyDoc_STRVAR(wsgi_lead_doc, "lead() -> whether this thread leads from here on: if nobody else does");

static PyObject *wsgi_lead(PyObject *self, PyObject *unused) {
  (void)unused;
  Wsgi *wsgi = (Wsgi *)self;
  if (!wsgi->leader) {
    wsgi->leader = PyThread_get_thread_ident();
    wsgi->doing = TAKING;
  }
  return PyBool_FromLong(leads(wsgi));
}

PyDoc_STRVAR(wsgi_step_back_doc, "step_back(): leads no more");

static PyObject *wsgi_step_back(PyObject *self, PyObject *unused) {
  (void)unused;
  Wsgi *wsgi = (Wsgi *)self;
  if (leads(wsgi)) wsgi->leader = 0, wsgi->doing = NOBODY;
  pthread_mutex_lock(&wsgi->lock);
  wsgi->asleep = 0;
  pthread_cond_broadcast(&wsgi->call);
  pthread_mutex_unlock(&wsgi->lock);
  Py_RETURN_NONE;
}

/* Without the GIL: until the leader seems to be stuck, there is none, or all ends. The pulse that was felt last. */
static uint32_t watch_leader(Wsgi *wsgi) {
  uint32_t last = wsgi->pulse;
  int quiet = 0;
  pthread_mutex_lock(&wsgi->lock);
  while (!wsgi->closing && wsgi->doing != NOBODY) {
    struct timespec until;
    clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_nsec += PULSE_NS;
    if (until.tv_nsec >= 1000000000) until.tv_sec++, until.tv_nsec -= 1000000000;
    if (quiet >= QUIET_PULSES) {
      /* The leader, which has the GIL when it begins, calls. It is asked first, then looked at once more. */
      wsgi->asleep = 1;
      __atomic_thread_fence(__ATOMIC_SEQ_CST);
      until.tv_sec += 60;
      while (wsgi->asleep && wsgi->pulse == last && !wsgi->closing &&
             pthread_cond_timedwait(&wsgi->call, &wsgi->lock, &until) == 0) {
      }
      wsgi->asleep = 0;
    } else {
      pthread_cond_timedwait(&wsgi->call, &wsgi->lock, &until);
    }
    uint32_t pulse = wsgi->pulse;
    if (pulse == last && wsgi->doing == RUNNING) break;
    quiet = pulse == last ? quiet + 1 : 0;
    last = pulse;
  }
  pthread_mutex_unlock(&wsgi->lock);
  return last;
}

PyDoc_STRVAR(wsgi_stand_by_doc, "stand_by() -> True once this thread leads; False when all ends");

static PyObject *wsgi_stand_by(PyObject *self, PyObject *unused) {
  (void)unused;
  Wsgi *wsgi = (Wsgi *)self;
  while (!wsgi->closing) {
    uint32_t pulse;
    Py_BEGIN_ALLOW_THREADS
    pulse = watch_leader(wsgi);
    Py_END_ALLOW_THREADS
    /* With the GIL again: the leader may have gone on meanwhile. */
    int stuck = wsgi->doing == RUNNING && wsgi->pulse == pulse;
    if (!wsgi->closing && (!wsgi->leader || stuck)) {
      wsgi->leader = PyThread_get_thread_ident();
      wsgi->doing = TAKING;
      Py_RETURN_TRUE;
    }
  }
  Py_RETURN_FALSE;
}

PyDoc_STRVAR(wsgi_end_doc, "end(): everyone who runs or stands by returns soon. Any thread");

static PyObject *wsgi_end(PyObject *self, PyObject *unused) {
  (void)unused;
  Wsgi *wsgi = (Wsgi *)self;
  pthread_mutex_lock(&wsgi->lock);
  wsgi->closing = 1;
  wsgi->asleep = 0;
  pthread_cond_broadcast(&wsgi->call);
  pthread_mutex_unlock(&wsgi->lock);
  Py_RETURN_NONE;
}

static PyObject *wsgi_new(PyTypeObject *type, PyObject *arguments, PyObject *names) {
  (void)names;
  PyObject *start_class, *core, *app, *base;
  if (!PyArg_ParseTuple(arguments, "OOOO!", &start_class, &core, &app, &PyDict_Type, &base)) return NULL;
  allocfunc allocate = (allocfunc)(uintptr_t)PyType_GetSlot(type, Py_tp_alloc);
  Wsgi *wsgi = (Wsgi *)allocate(type, 0);
  if (!wsgi) return NULL;
  pthread_condattr_t monotonic;
  pthread_condattr_init(&monotonic);
  pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
  pthread_mutex_init(&wsgi->lock, NULL);
  pthread_cond_init(&wsgi->call, &monotonic);
  pthread_condattr_destroy(&monotonic);
  Py_INCREF(start_class);
  Py_INCREF(core);
  Py_INCREF(app);
  Py_INCREF(base);
  wsgi->start_class = start_class;
  wsgi->core = (Core *)core;
  wsgi->app = app;
  wsgi->base = base;
  wsgi->stash = PyList_New(0);
  if (!wsgi->stash) Py_CLEAR(wsgi);
  return (PyObject *)wsgi;
}

static int wsgi_traverse(PyObject *self, visitproc visit, void *arg) {
  Wsgi *wsgi = (Wsgi *)self;
  Py_VISIT(Py_TYPE(self));
  Py_VISIT(wsgi->start_class);
  Py_VISIT(wsgi->core);
  Py_VISIT(wsgi->app);
  Py_VISIT(wsgi->base);
  Py_VISIT(wsgi->stash);
  Py_VISIT(wsgi->spare);
  Py_VISIT(wsgi->adjust);
  return 0;
}

static int wsgi_clear(PyObject *self) {
  Wsgi *wsgi = (Wsgi *)self;
  Py_CLEAR(wsgi->start_class);
  Py_CLEAR(wsgi->core);
  Py_CLEAR(wsgi->app);
  Py_CLEAR(wsgi->base);
  Py_CLEAR(wsgi->stash);
  Py_CLEAR(wsgi->spare);
  Py_CLEAR(wsgi->adjust);
  return 0;
}

static void wsgi_dealloc(PyObject *self) {
  Wsgi *wsgi = (Wsgi *)self;
  PyObject_GC_UnTrack(self);
  wsgi_clear(self);
  pthread_cond_destroy(&wsgi->call);
  pthread_mutex_destroy(&wsgi->lock);
  free_object(self);
}

static PyMethodDef wsgi_methods[] = {
    {"run", wsgi_run, METH_NOARGS, wsgi_run_doc},
    {"pump", wsgi_pump, METH_O, wsgi_pump_doc},
    {"request", wsgi_request, METH_VARARGS, wsgi_request_doc},
    {"lead", wsgi_lead, METH_NOARGS, wsgi_lead_doc},
    {"step_back", wsgi_step_back, METH_NOARGS, wsgi_step_back_doc},
    {"stand_by", wsgi_stand_by, METH_NOARGS, wsgi_stand_by_doc},
    {"end", wsgi_end, METH_NOARGS, wsgi_end_doc},
    {NULL, NULL, 0, NULL},
};

static PyMemberDef wsgi_members[] = {
    {"channel", T_OBJECT, offsetof(Wsgi, core), READONLY, NULL}, {"app", T_OBJECT, offsetof(Wsgi, app), READONLY, NULL},
    {"base", T_OBJECT, offsetof(Wsgi, base), READONLY, NULL},    {"stash", T_OBJECT, offsetof(Wsgi, stash), READONLY, NULL},
    {"adjust", T_OBJECT, offsetof(Wsgi, adjust), 0, NULL},       {"adjusts_all", T_BOOL, offsetof(Wsgi, adjusts_all), 0, NULL},
    {"pulse", T_UINT, offsetof(Wsgi, pulse), READONLY, NULL},    {"doing", T_INT, offsetof(Wsgi, doing), READONLY, NULL},
    {"served", T_ULONGLONG, offsetof(Wsgi, served), READONLY, NULL}, {"_most", T_ULONGLONG, offsetof(Wsgi, limit), 0, NULL},
    {NULL, 0, 0, 0, NULL},
};

static PyType_Slot wsgi_slots[] = {
    {Py_tp_doc, "The loop of a WSGI server."}, {Py_tp_new, wsgi_new},           {Py_tp_methods, wsgi_methods},
    {Py_tp_members, wsgi_members},             {Py_tp_traverse, wsgi_traverse}, {Py_tp_clear, wsgi_clear},
    {Py_tp_dealloc, wsgi_dealloc},             {0, NULL},
};

static PyType_Spec wsgi_spec = {
    "iokernel._accel.Wsgi", sizeof(Wsgi), 0, Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_HAVE_GC, wsgi_slots,
};
