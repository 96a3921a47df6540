/*
 * The ASGI server's hot path: a request becomes a scope and a coroutine, whose first step is taken at once; receive and
 * send that need not wait complete without a future. A part of _accel.c, below _accel_http.h. Whatever is rare is done by
 * the Python classes that are derived from these (serve/_asgi.py).
 */

/* Awaitables that are ready: the value is there when they are awaited. */
typedef struct {
  PyObject_HEAD
  PyObject *value;
} Ready;

static PyObject *ready_class, *nothing_ready;

static PyObject *ready_with(PyObject *value) {
  allocfunc allocate = (allocfunc)(uintptr_t)PyType_GetSlot((PyTypeObject *)ready_class, Py_tp_alloc);
  Ready *ready = (Ready *)allocate((PyTypeObject *)ready_class, 0);
  if (!ready) return NULL;
  Py_INCREF(value);
  ready->value = value;
  return (PyObject *)ready;
}

static PyObject *ready_self(PyObject *self) {
  Py_INCREF(self);
  return self;
}

static PySendResult ready_step(PyObject *self, PyObject *unused, PyObject **result) {
  (void)unused;
  Py_INCREF(((Ready *)self)->value);
  *result = ((Ready *)self)->value;
  return PYGEN_RETURN;
}

static PyObject *ready_next(PyObject *self) {
  PyErr_SetObject(PyExc_StopIteration, ((Ready *)self)->value);
  return NULL;
}

static PyObject *ready_send(PyObject *self, PyObject *unused) {
  (void)unused;
  return ready_next(self);
}

static PyObject *ready_throw(PyObject *self, PyObject *arguments) {
  (void)self;
  PyObject *kind, *value = Py_None, *trace = Py_None;
  if (!PyArg_ParseTuple(arguments, "O|OO", &kind, &value, &trace)) return NULL;
  if (PyExceptionInstance_Check(kind)) {
    PyErr_SetObject((PyObject *)Py_TYPE(kind), kind);
  } else {
    PyErr_SetObject(kind, value);
  }
  return NULL;
}

static PyObject *ready_close(PyObject *self, PyObject *unused) {
  (void)self;
  (void)unused;
  Py_RETURN_NONE;
}

static void ready_dealloc(PyObject *self) {
  PyObject_GC_UnTrack(self);
  Py_CLEAR(((Ready *)self)->value);
  free_object(self);
}

static int ready_traverse(PyObject *self, visitproc visit, void *arg) {
  Py_VISIT(Py_TYPE(self));
  Py_VISIT(((Ready *)self)->value);
  return 0;
}

static PyMethodDef ready_methods[] = {
    {"send", ready_send, METH_O, NULL},
    {"throw", ready_throw, METH_VARARGS, NULL},
    {"close", ready_close, METH_NOARGS, NULL},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot ready_slots[] = {
    {Py_tp_doc, "An awaitable whose value is there."},
    {Py_am_await, ready_self},
    {Py_am_send, ready_step},
    {Py_tp_iter, ready_self},
    {Py_tp_iternext, ready_next},
    {Py_tp_methods, ready_methods},
    {Py_tp_traverse, ready_traverse},
    {Py_tp_dealloc, ready_dealloc},
    {0, NULL},
};

static PyType_Spec ready_spec = {
    "iokernel._accel.Ready", sizeof(Ready), 0, Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC, ready_slots,
};

/* One request with its response. */
typedef struct {
  PyObject_HEAD
  Core *core;
  PyObject *body, *status, *headers;
  unsigned long long tag;
  unsigned int endpoint;
  char stage; /* of the response */
  char told;  /* the body was received */
  char gone;  /* the client has left */
  char slowly; /* Python has to see the end of the response: somebody waits for it, or trailers follow */
} Cycle;

enum { FRESH, STARTED, OPEN, OVER };

static PyObject *word_type, *word_status, *word_headers, *word_body, *word_more_body, *word_trailers, *word_start,
    *word_response_body, *word_request, *name_receive, *name_send, *name_slow_receive, *name_slow_send, *no_headers;

/* Is it that word? Strings of messages are mostly the same object again. */
static inline int is_word(PyObject *object, PyObject *word, PyObject **seen) {
  if (object == word || object == *seen) return 1;
  if (!object || !PyUnicode_Check(object) || PyUnicode_Compare(object, word) != 0) return 0;
  Py_XDECREF(*seen);
  Py_INCREF(object);
  *seen = object;
  return 1;
}

/* 1: done; 0: not for here. */
static int send_at_once(Cycle *cycle, PyObject *message) {
  static PyObject *seen_start, *seen_body;
  if (!PyDict_CheckExact(message) || cycle->gone) return 0;
  PyObject *type = PyDict_GetItemWithError(message, word_type);
  if (!type) return 0;
  if (cycle->stage == FRESH) {
    if (!is_word(type, word_start, &seen_start)) return 0;
    PyObject *status = PyDict_GetItemWithError(message, word_status);
    PyObject *headers = PyDict_GetItemWithError(message, word_headers);
    PyObject *trailers = PyDict_GetItemWithError(message, word_trailers);
    if (!status || !PyLong_CheckExact(status) || (trailers && trailers != Py_False)) return 0;
    long number = PyLong_AsLong(status);
    if (number < 200 || number > 999) return PyErr_Clear(), 0;
    if (!headers) headers = no_headers;
    if (count_of(headers) < 0) return 0;
    Py_INCREF(status);
    Py_INCREF(headers);
    cycle->status = status;
    cycle->headers = headers;
    cycle->stage = STARTED;
    return 1;
  }
  if (cycle->stage != STARTED || cycle->slowly || !is_word(type, word_response_body, &seen_body)) return 0;
  PyObject *more = PyDict_GetItemWithError(message, word_more_body);
  PyObject *body = PyDict_GetItemWithError(message, word_body);
  if ((more && more != Py_False) || (body && !PyBytes_CheckExact(body))) return 0;
  static PyObject *nothing;
  if (!nothing && !(nothing = PyBytes_FromStringAndSize("", 0))) return -1;
  int sent = put_reply(cycle->core, cycle->tag, cycle->endpoint, cycle->status, cycle->headers, body ? body : nothing);
  if (sent <= 0) return sent;
  cycle->stage = OVER;
  Py_CLEAR(cycle->headers);
  Core *core = cycle->core;
  core->unrung++;
  if (!core->scheduled && !core->busy) {
    PyObject *done = PyObject_CallMethodObjArgs((PyObject *)core, name_schedule, NULL);
    if (!done) PyErr_WriteUnraisable((PyObject *)core);
    Py_XDECREF(done);
  }
  return 1;
}

static PyObject *cycle_send(PyObject *self, PyObject *message) {
  int sent = send_at_once((Cycle *)self, message);
  if (sent > 0) return ready_self(nothing_ready);
  return sent < 0 || PyErr_Occurred() ? NULL : PyObject_CallMethodObjArgs(self, name_slow_send, message, NULL);
}

static PyObject *cycle_receive(PyObject *self, PyObject *unused) {
  (void)unused;
  Cycle *cycle = (Cycle *)self;
  if (cycle->told || cycle->gone || cycle->stage == OVER || !cycle->body || !PyBytes_CheckExact(cycle->body))
    return PyObject_CallMethodObjArgs(self, name_slow_receive, NULL);
  PyObject *message = PyDict_New();
  if (!message || PyDict_SetItem(message, word_type, word_request) < 0 ||
      PyDict_SetItem(message, word_body, cycle->body) < 0 || PyDict_SetItem(message, word_more_body, Py_False) < 0) {
    Py_XDECREF(message);
    return NULL;
  }
  cycle->told = 1;
  Py_CLEAR(cycle->body);
  PyObject *ready = ready_with(message);
  Py_DECREF(message);
  return ready;
}

static int cycle_traverse(PyObject *self, visitproc visit, void *arg) {
  Cycle *cycle = (Cycle *)self;
  Py_VISIT(Py_TYPE(self));
  Py_VISIT(cycle->core);
  Py_VISIT(cycle->body);
  Py_VISIT(cycle->status);
  Py_VISIT(cycle->headers);
  return 0;
}

static int cycle_clear(PyObject *self) {
  Cycle *cycle = (Cycle *)self;
  Py_CLEAR(cycle->core);
  Py_CLEAR(cycle->body);
  Py_CLEAR(cycle->status);
  Py_CLEAR(cycle->headers);
  return 0;
}

static void cycle_dealloc(PyObject *self) {
  PyObject_GC_UnTrack(self);
  cycle_clear(self);
  free_object(self);
}

static PyMethodDef cycle_methods[] = {
    {"send", cycle_send, METH_O, NULL},
    {"receive", cycle_receive, METH_NOARGS, NULL},
    {NULL, NULL, 0, NULL},
};

static PyMemberDef cycle_members[] = {
    {"channel", T_OBJECT, offsetof(Cycle, core), READONLY, NULL}, {"body", T_OBJECT, offsetof(Cycle, body), 0, NULL},
    {"status", T_OBJECT, offsetof(Cycle, status), 0, NULL},       {"headers", T_OBJECT, offsetof(Cycle, headers), 0, NULL},
    {"tag", T_ULONGLONG, offsetof(Cycle, tag), READONLY, NULL},   {"endpoint", T_UINT, offsetof(Cycle, endpoint), READONLY, NULL},
    {"stage", T_BYTE, offsetof(Cycle, stage), 0, NULL},           {"told", T_BOOL, offsetof(Cycle, told), 0, NULL},
    {"gone", T_BOOL, offsetof(Cycle, gone), 0, NULL},             {"slowly", T_BOOL, offsetof(Cycle, slowly), 0, NULL},
    {NULL, 0, 0, 0, NULL},
};

static PyType_Slot cycle_slots[] = {
    {Py_tp_doc, "One request with its response."}, {Py_tp_methods, cycle_methods},   {Py_tp_members, cycle_members},
    {Py_tp_traverse, cycle_traverse},              {Py_tp_clear, cycle_clear},       {Py_tp_dealloc, cycle_dealloc},
    {0, NULL},
};

static PyType_Spec cycle_spec = {
    "iokernel._accel.Cycle", sizeof(Cycle), 0, Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_HAVE_GC, cycle_slots,
};

/* A coroutine whose first step was taken outside of its task: what it waited for then comes first. */
typedef struct {
  PyObject_HEAD
  PyObject *coroutine;
  PyObject *first;   /* what it waits for, until the task has been told */
  PyObject *outcome; /* (value, exception) if that first step was the last one */
} Resumed;

static PySendResult resumed_step(PyObject *self, PyObject *value, PyObject **result) {
  Resumed *resumed = (Resumed *)self;
  if (resumed->outcome) {
    PyObject *error = PyTuple_GetItem(resumed->outcome, 1);
    *result = error == Py_None ? PyTuple_GetItem(resumed->outcome, 0) : NULL;
    Py_XINCREF(*result);
    if (*result) return PYGEN_RETURN;
    PyErr_SetObject((PyObject *)Py_TYPE(error), error);
    return PYGEN_ERROR;
  }
  if (resumed->first) {
    *result = resumed->first;
    resumed->first = NULL;
    return PYGEN_NEXT;
  }
  return PyIter_Send(resumed->coroutine, value, result);
}

static PyObject *resumed_send(PyObject *self, PyObject *value) {
  PyObject *result;
  PySendResult step = resumed_step(self, value, &result);
  if (step == PYGEN_RETURN) {
    PyErr_SetObject(PyExc_StopIteration, result);
    Py_CLEAR(result);
  }
  return step == PYGEN_ERROR ? NULL : result;
}

static PyObject *resumed_next(PyObject *self) { return resumed_send(self, Py_None); }

static PyObject *resumed_throw(PyObject *self, PyObject *arguments) {
  Resumed *resumed = (Resumed *)self;
  Py_CLEAR(resumed->first);
  PyObject *method = PyObject_GetAttrString(resumed->coroutine, "throw");
  PyObject *result = method ? PyObject_CallObject(method, arguments) : NULL;
  Py_XDECREF(method);
  return result;
}

static PyObject *resumed_close(PyObject *self, PyObject *unused) {
  (void)unused;
  return PyObject_CallMethod(((Resumed *)self)->coroutine, "close", NULL);
}

static PyObject *resumed_new(PyTypeObject *type, PyObject *arguments, PyObject *names) {
  (void)names;
  PyObject *coroutine;
  if (!PyArg_ParseTuple(arguments, "O", &coroutine)) return NULL;
  allocfunc allocate = (allocfunc)(uintptr_t)PyType_GetSlot(type, Py_tp_alloc);
  Resumed *resumed = (Resumed *)allocate(type, 0);
  if (!resumed) return NULL;
  Py_INCREF(coroutine);
  resumed->coroutine = coroutine;
  return (PyObject *)resumed;
}

static int resumed_traverse(PyObject *self, visitproc visit, void *arg) {
  Resumed *resumed = (Resumed *)self;
  Py_VISIT(Py_TYPE(self));
  Py_VISIT(resumed->coroutine);
  Py_VISIT(resumed->first);
  Py_VISIT(resumed->outcome);
  return 0;
}

static int resumed_clear(PyObject *self) {
  Resumed *resumed = (Resumed *)self;
  Py_CLEAR(resumed->coroutine);
  Py_CLEAR(resumed->first);
  Py_CLEAR(resumed->outcome);
  return 0;
}

static void resumed_dealloc(PyObject *self) {
  PyObject_GC_UnTrack(self);
  resumed_clear(self);
  free_object(self);
}

static PyMethodDef resumed_methods[] = {
    {"send", resumed_send, METH_O, NULL},
    {"throw", resumed_throw, METH_VARARGS, NULL},
    {"close", resumed_close, METH_NOARGS, NULL},
    {NULL, NULL, 0, NULL},
};

static PyMemberDef resumed_members[] = {
    {"coroutine", T_OBJECT, offsetof(Resumed, coroutine), READONLY, NULL},
    {"first", T_OBJECT, offsetof(Resumed, first), 0, NULL},
    {"outcome", T_OBJECT, offsetof(Resumed, outcome), 0, NULL},
    {NULL, 0, 0, 0, NULL},
};

static PyType_Slot resumed_slots[] = {
    {Py_tp_doc, "A coroutine whose first step was taken."},
    {Py_tp_new, resumed_new},
    {Py_am_await, ready_self},
    {Py_am_send, resumed_step},
    {Py_tp_iter, ready_self},
    {Py_tp_iternext, resumed_next},
    {Py_tp_methods, resumed_methods},
    {Py_tp_members, resumed_members},
    {Py_tp_traverse, resumed_traverse},
    {Py_tp_clear, resumed_clear},
    {Py_tp_dealloc, resumed_dealloc},
    {0, NULL},
};

static PyType_Spec resumed_spec = {
    "iokernel._accel.Resumed", sizeof(Resumed), 0, Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC, resumed_slots,
};

/* The server */

typedef struct {
  PyObject_HEAD
  PyObject *cycle_class, *app, *base, *state, *extensions, *loop, *adjust;
  /* How a coroutine begins: a task of this class is entered for its first step, which is taken at once. NULL: `_spawn`
   * does everything. */
  PyObject *task_class, *enter, *leave, *copy_context;
  /* Of the step under way, for a task that is asked for more than its identity. */
  PyObject *coroutine, *context;
  char adjusts_all, is_made;
  unsigned long long served, limit; /* requests so far, and at which of them `_limit` is called */
} Asgi;

static PyObject *name_spawn, *name_stepped, *name_run, *name_state, *name_extensions, *word_http,
    *step_function, *step_done;

/* One step of a coroutine, to be run in its context. */
static PyObject *step(PyObject *self, PyObject *coroutine) {
  (void)self;
  PyObject *result;
  PySendResult how = PyIter_Send(coroutine, Py_None, &result);
  if (how != PYGEN_RETURN) return how == PYGEN_NEXT ? result : NULL;
  Py_DECREF(result);
  return ready_self(step_done);
}

static PyMethodDef step_method = {"step", step, METH_O, NULL};

/* The current exception with its traceback. */
static PyObject *take_exception(void) {
  PyObject *kind, *value, *trace;
  PyErr_Fetch(&kind, &value, &trace);
  PyErr_NormalizeException(&kind, &value, &trace);
  if (trace) PyException_SetTraceback(value, trace);
  Py_XDECREF(kind);
  Py_XDECREF(trace);
  return value;
}

/* Takes the first step of the coroutine in `asgi`. Whatever is not over then is left to Python. */
static int first_step(Asgi *asgi, PyObject *cycle, PyObject *task) {
  PyObject *entered = PyObject_CallFunctionObjArgs(asgi->enter, asgi->loop, task, NULL), *error = NULL;
  if (!entered) return -1;
  Py_DECREF(entered);
  PyObject *result = PyObject_CallMethodObjArgs(asgi->context, name_run, step_function, asgi->coroutine, NULL);
  if (!result) error = take_exception();
  PyObject *done = PyObject_CallFunctionObjArgs(asgi->leave, asgi->loop, task, NULL);
  if (done && (result != step_done || asgi->is_made || ((Cycle *)cycle)->stage != OVER)) {
    Py_DECREF(done);
    PyObject *yielded = !result ? Py_None : result;
    done = PyObject_CallMethodObjArgs((PyObject *)asgi, name_stepped, cycle, task, yielded, error ? error : Py_None, NULL);
  }
  Py_XDECREF(result);
  Py_XDECREF(error);
  Py_XDECREF(done);
  return done ? 0 : -1;
}

static int begin_task(Asgi *asgi, PyObject *cycle, PyObject *coroutine) {
  PyTypeObject *class = (PyTypeObject *)asgi->task_class;
  allocfunc allocate = (allocfunc)(uintptr_t)PyType_GetSlot(class, Py_tp_alloc);
  PyObject *context = PyObject_CallNoArgs(asgi->copy_context), *task = context ? allocate(class, 0) : NULL;
  Py_INCREF(coroutine);
  asgi->coroutine = coroutine;
  asgi->context = context;
  asgi->is_made = 0;
  int failed = task ? first_step(asgi, cycle, task) : -1;
  Py_CLEAR(asgi->coroutine);
  Py_CLEAR(asgi->context);
  Py_XDECREF(task);
  return failed;
}

static PyObject *new_cycle(Core *core, uint64_t tag, uint32_t endpoint, PyObject *body) {
  PyTypeObject *class = (PyTypeObject *)((Asgi *)core->server)->cycle_class;
  allocfunc allocate = (allocfunc)(uintptr_t)PyType_GetSlot(class, Py_tp_alloc);
  Cycle *cycle = (Cycle *)allocate(class, 0);
  if (!cycle) return NULL;
  Py_INCREF(core);
  Py_INCREF(body);
  cycle->core = core;
  cycle->body = body;
  cycle->tag = tag;
  cycle->endpoint = endpoint;
  return (PyObject *)cycle;
}

/* A copy of its own for whoever may change it. */
static int set_copy(PyObject *scope, PyObject *name, PyObject *value) {
  PyObject *copy = PyDict_Copy(value);
  int failed = copy ? PyDict_SetItem(scope, name, copy) : -1;
  Py_XDECREF(copy);
  return failed;
}

static PyObject *take_scope(Asgi *asgi, const uint8_t **at, const uint8_t *end) {
  saw_forwarded = 0;
  PyObject *scope = get_count(at, end, 0x90) == 2 ? get_scope(asgi->base, at, end) : not_http();
  if (!scope) return NULL;
  int failed = asgi->state && asgi->state != Py_None ? set_copy(scope, name_state, asgi->state) : 0;
  if (!failed) failed = set_copy(scope, name_extensions, asgi->extensions);
  if (!failed && asgi->adjust && asgi->adjust != Py_None && (asgi->adjusts_all || saw_forwarded)) {
    PyObject *done = PyObject_CallFunctionObjArgs(asgi->adjust, scope, NULL);
    failed = done ? 0 : -1;
    Py_XDECREF(done);
  }
  if (failed) Py_CLEAR(scope);
  return scope;
}

static int spawn(Asgi *asgi, PyObject *cycle, PyObject *scope) {
  PyObject *done = PyObject_CallMethodObjArgs((PyObject *)asgi, name_spawn, cycle, scope, NULL);
  Py_XDECREF(done);
  return done ? 0 : -1;
}

static int serve_scope(Asgi *asgi, PyObject *cycle, PyObject *scope) {
  static PyObject *seen_http;
  int at_once = asgi->task_class && asgi->task_class != Py_None && !asgi->coroutine;
  if (!at_once || !is_word(PyDict_GetItemWithError(scope, word_type), word_http, &seen_http)) return spawn(asgi, cycle, scope);
  PyObject *receive = PyObject_GetAttr(cycle, name_receive), *send = PyObject_GetAttr(cycle, name_send);
  PyObject *coroutine = receive && send ? PyObject_CallFunctionObjArgs(asgi->app, scope, receive, send, NULL) : NULL;
  Py_XDECREF(receive);
  Py_XDECREF(send);
  int failed = -1;
  if (coroutine) {
    failed = begin_task(asgi, cycle, coroutine);
    Py_DECREF(coroutine);
  } else if (receive && send) {
    PyObject *error = take_exception();
    PyObject *done = PyObject_CallMethodObjArgs((PyObject *)asgi, name_stepped, cycle, Py_None, Py_None, error, NULL);
    failed = done ? 0 : -1;
    Py_XDECREF(done);
    Py_XDECREF(error);
  }
  return failed;
}

/* Takes a request of a listener. */
static int asgi_take(Core *core, uint64_t tag, uint32_t endpoint, const uint8_t *at, const uint8_t *end) {
  Asgi *asgi = (Asgi *)core->server;
  PyObject *scope = take_scope(asgi, &at, end), *body = scope ? get_value(&at, end, 0) : NULL;
  if (scope && !body && !PyErr_Occurred()) not_http();
  static PyObject *nothing;
  if (!nothing) nothing = PyBytes_FromStringAndSize("", 0);
  PyObject *cycle = body && nothing ? new_cycle(core, tag, endpoint, body == Py_None ? nothing : body) : NULL;
  int failed = cycle ? serve_scope(asgi, cycle, scope) : -1;
  if (!failed && ++asgi->served == asgi->limit) failed = reached_limit((PyObject *)asgi);
  Py_XDECREF(scope);
  Py_XDECREF(body);
  Py_XDECREF(cycle);
  return failed;
}

PyDoc_STRVAR(asgi_take_doc, "take(channel, tag, endpoint, payload): serves a request that came in parts");

static PyObject *asgi_take_whole(PyObject *self, PyObject *arguments) {
  (void)self;
  PyObject *core;
  unsigned long long tag;
  unsigned int endpoint;
  const char *payload;
  Py_ssize_t bytes;
  if (!PyArg_ParseTuple(arguments, "OKIy#", &core, &tag, &endpoint, &payload, &bytes)) return NULL;
  const uint8_t *at = (const uint8_t *)payload;
  if (asgi_take((Core *)core, tag, endpoint, at, at + bytes) < 0) return NULL;
  Py_RETURN_NONE;
}

PyDoc_STRVAR(asgi_attach_doc, "attach(channel): takes its requests");

static PyObject *asgi_attach(PyObject *self, PyObject *channel) {
  Core *core = (Core *)channel;
  Py_INCREF(self);
  Py_XDECREF(core->server);
  core->server = self;
  core->take = asgi_take;
  Py_RETURN_NONE;
}

static int asgi_traverse(PyObject *self, visitproc visit, void *arg) {
  Asgi *asgi = (Asgi *)self;
  Py_VISIT(Py_TYPE(self));
  Py_VISIT(asgi->cycle_class);
  Py_VISIT(asgi->app);
  Py_VISIT(asgi->base);
  Py_VISIT(asgi->state);
  Py_VISIT(asgi->extensions);
  Py_VISIT(asgi->loop);
  Py_VISIT(asgi->adjust);
  Py_VISIT(asgi->task_class);
  Py_VISIT(asgi->enter);
  Py_VISIT(asgi->leave);
  Py_VISIT(asgi->copy_context);
  Py_VISIT(asgi->coroutine);
  Py_VISIT(asgi->context);
  return 0;
}

static int asgi_clear(PyObject *self) {
  Asgi *asgi = (Asgi *)self;
  Py_CLEAR(asgi->cycle_class);
  Py_CLEAR(asgi->app);
  Py_CLEAR(asgi->base);
  Py_CLEAR(asgi->state);
  Py_CLEAR(asgi->extensions);
  Py_CLEAR(asgi->loop);
  Py_CLEAR(asgi->adjust);
  Py_CLEAR(asgi->task_class);
  Py_CLEAR(asgi->enter);
  Py_CLEAR(asgi->leave);
  Py_CLEAR(asgi->copy_context);
  Py_CLEAR(asgi->coroutine);
  Py_CLEAR(asgi->context);
  return 0;
}

static void asgi_dealloc(PyObject *self) {
  PyObject_GC_UnTrack(self);
  asgi_clear(self);
  free_object(self);
}

static PyMethodDef asgi_methods[] = {
    {"attach", asgi_attach, METH_O, asgi_attach_doc},
    {"take", asgi_take_whole, METH_VARARGS, asgi_take_doc},
    {NULL, NULL, 0, NULL},
};

static PyMemberDef asgi_members[] = {
    {"cycle_class", T_OBJECT, offsetof(Asgi, cycle_class), 0, NULL},
    {"app", T_OBJECT, offsetof(Asgi, app), 0, NULL},
    {"base", T_OBJECT, offsetof(Asgi, base), 0, NULL},
    {"state", T_OBJECT, offsetof(Asgi, state), 0, NULL},
    {"extensions", T_OBJECT, offsetof(Asgi, extensions), 0, NULL},
    {"loop", T_OBJECT, offsetof(Asgi, loop), 0, NULL},
    {"adjust", T_OBJECT, offsetof(Asgi, adjust), 0, NULL},
    {"adjusts_all", T_BOOL, offsetof(Asgi, adjusts_all), 0, NULL},
    {"task_class", T_OBJECT, offsetof(Asgi, task_class), 0, NULL},
    {"enter", T_OBJECT, offsetof(Asgi, enter), 0, NULL},
    {"leave", T_OBJECT, offsetof(Asgi, leave), 0, NULL},
    {"copy_context", T_OBJECT, offsetof(Asgi, copy_context), 0, NULL},
    {"coroutine", T_OBJECT, offsetof(Asgi, coroutine), READONLY, NULL},
    {"context", T_OBJECT, offsetof(Asgi, context), READONLY, NULL},
    {"is_made", T_BOOL, offsetof(Asgi, is_made), 0, NULL},
    {"served", T_ULONGLONG, offsetof(Asgi, served), READONLY, NULL},
    {"_most", T_ULONGLONG, offsetof(Asgi, limit), 0, NULL},
    {NULL, 0, 0, 0, NULL},
};

static PyType_Slot asgi_slots[] = {
    {Py_tp_doc, "The hot path of an ASGI server."}, {Py_tp_methods, asgi_methods},   {Py_tp_members, asgi_members},
    {Py_tp_traverse, asgi_traverse},                {Py_tp_clear, asgi_clear},       {Py_tp_dealloc, asgi_dealloc},
    {0, NULL},
};

static PyType_Spec asgi_spec = {
    "iokernel._accel.Asgi", sizeof(Asgi), 0, Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_HAVE_GC, asgi_slots,
};

PyDoc_STRVAR(serving_doc, "serving() -> what `_stepped` is given for a coroutine that is over: names and words are made");

static PyObject *serving(PyObject *self, PyObject *unused) {
  (void)self;
  (void)unused;
  struct {
    PyObject **place;
    const char *text;
  } names[] = {
      {&name_respond, "_respond"}, {&name_failed, "_failed"}, {&name_streamed, "_input"}, {&name_write, "write"},
      {&name_flush, "flush"}, {&name_limit, "_limit"}, {&name_restart, "_restart"}, {&name_input, "wsgi.input"},
      {&name_forwarded_for, "HTTP_X_FORWARDED_FOR"}, {&name_forwarded_proto, "HTTP_X_FORWARDED_PROTO"},
      {&name_headers, "headers"}, {&name_client, "client"}, {&name_server, "server"},
      {&word_type, "type"}, {&word_status, "status"}, {&word_headers, "headers"}, {&word_body, "body"},
      {&word_more_body, "more_body"}, {&word_trailers, "trailers"}, {&word_start, "http.response.start"},
      {&word_response_body, "http.response.body"}, {&word_request, "http.request"}, {&word_http, "http"},
      {&name_receive, "receive"}, {&name_send, "send"}, {&name_slow_receive, "_receive"}, {&name_slow_send, "_send"},
      {&name_spawn, "_spawn"}, {&name_stepped, "_stepped"}, {&name_run, "run"}, {&name_state, "state"},
      {&name_extensions, "extensions"},
  };
  for (size_t index = 0; index < sizeof names / sizeof *names; index++)
    if (!(*names[index].place = PyUnicode_InternFromString(names[index].text))) return NULL;
  if (!(no_headers = PyTuple_New(0)) || !(nothing_ready = ready_with(Py_None)) || !(step_done = ready_with(Py_None)) ||
      !(step_function = PyCFunction_New(&step_method, NULL)))
    return NULL;
  Py_INCREF(step_done);
  return step_done;
}
