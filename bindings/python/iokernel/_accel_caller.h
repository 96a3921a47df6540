/*
 * Caller: what endpoints and leases have in common, being called. A part of _accel.c, below what it uses of Core.
 * The first call in a thread or loop, and every call with options, is done by `_call` of _endpoint.py.
 */
/* Requests get a trace context: the slow path has to ask for it. */
static int is_traced;

static PyObject *aio_future_class, *name_call_slow, *name_loop, *name_tag, *name_channel;

typedef struct {
  PyObject_HEAD
  unsigned int number;        /* of the endpoint; 0: see the slow path */
  unsigned long long key;     /* of the lease, or 0 */
  Core *channel;              /* the one used last; not held: good while `gone` is `channels_gone` */
  uint64_t gone;
  unsigned long thread;       /* whose channel it is */
} Caller;

/* The channel to use here, if it is the one used last. `loop`: the running one. */
static inline Core *usable_channel(Caller *caller, PyObject *loop) {
  Core *core = caller->channel;
  if (!core || !caller->number || caller->gone != channels_gone) return NULL;
  if (caller->thread != PyThread_get_thread_ident() || core->busy || is_queued(core)) return NULL;
  return (core->loop ? core->loop : Py_None) == loop ? core : NULL;
}

static PyObject *begin_in_thread(Caller *caller, Core *core, PyObject *arguments) {
  PyObject *future = future_new((PyObject *)core);
  if (!future) return NULL;
  uint64_t tag = submit_request(core, 0, caller->number, 0, caller->key, arguments, future);
  if (!tag) Py_CLEAR(future);
  else ((Future *)future)->tag = tag;
  return future;
}

static PyObject *begin_in_loop(Caller *caller, Core *core, PyObject *loop, PyObject *arguments, PyObject *future_class) {
  static PyObject *names;
  if (!names && !(names = PyDict_New())) return NULL;
  if (PyDict_SetItem(names, name_loop, loop) < 0) return NULL;
  PyObject *none = PyTuple_New(0), *future = none ? PyObject_Call(future_class, none, names) : NULL;
  Py_XDECREF(none);
  if (PyDict_SetItem(names, name_loop, Py_None) < 0 || !future) return future;
  uint64_t tag = submit_request(core, 0, caller->number, 0, caller->key, arguments, future);
  PyObject *number = tag ? PyLong_FromUnsignedLongLong(tag) : NULL;
  if (!number || PyObject_SetAttr(future, name_tag, number) < 0 || PyObject_SetAttr(future, name_channel, (PyObject *)core) < 0)
    Py_CLEAR(future);
  Py_XDECREF(number);
  return future;
}

static PyObject *slowly(PyObject *self, PyObject *name, PyObject *arguments, PyObject *names) {
  PyObject *method = PyObject_GetAttr(self, name);
  PyObject *result = method ? PyObject_Call(method, arguments, names) : NULL;
  Py_XDECREF(method);
  return result;
}

static PyObject *caller_call(PyObject *self, PyObject *arguments, PyObject *names) {
  Caller *caller = (Caller *)self;
  if (!names && caller->channel && !is_traced) {
    PyObject *loop = running_loop();
    if (!loop) return NULL;
    Core *core = usable_channel(caller, loop);
    PyObject *future = NULL;
    if (core && loop != Py_None) {
      future = begin_in_loop(caller, core, loop, arguments, aio_future_class);
    } else if (core && !has_greenlets && (future = begin_in_thread(caller, core, arguments))) {
      iok.flush(core->channel);
    }
    Py_DECREF(loop);
    if (future || PyErr_Occurred()) return future;
  }
  return slowly(self, name_call_slow, arguments, names);
}

PyDoc_STRVAR(
    begin_doc,
    "_begin(future_class, arguments) -> a future of the running loop whose request is under way; None: not for here");

static PyObject *caller_begin(PyObject *self, PyObject *arguments) {
  Caller *caller = (Caller *)self;
  PyObject *kind, *values, *future = NULL;
  if (!PyArg_ParseTuple(arguments, "OO!", &kind, &PyTuple_Type, &values)) return NULL;
  if (!caller->channel || is_traced) Py_RETURN_NONE;
  PyObject *loop = running_loop();
  if (!loop) return NULL;
  Core *core = usable_channel(caller, loop);
  if (core && loop != Py_None) future = begin_in_loop(caller, core, loop, values, kind);
  Py_DECREF(loop);
  if (future || PyErr_Occurred()) return future;
  Py_RETURN_NONE;
}

PyDoc_STRVAR(remember_doc, "_remember(channel): the next calls here may use it");

static PyObject *caller_remember(PyObject *self, PyObject *channel) {
  Caller *caller = (Caller *)self;
  caller->channel = (Core *)channel;
  caller->gone = channels_gone;
  caller->thread = PyThread_get_thread_ident();
  Py_RETURN_NONE;
}

static void caller_dealloc(PyObject *self) { free_object(self); }

static PyMethodDef caller_methods[] = {
    {"_begin", caller_begin, METH_VARARGS, begin_doc},
    {"_remember", caller_remember, METH_O, remember_doc},
    {NULL, NULL, 0, NULL},
};

static PyMemberDef caller_members[] = {
    {"_number", T_UINT, offsetof(Caller, number), 0, NULL},
    {"_key", T_ULONGLONG, offsetof(Caller, key), 0, NULL},
    {NULL, 0, 0, 0, NULL},
};

static PyType_Slot caller_slots[] = {
    {Py_tp_doc, "What can be called."}, {Py_tp_methods, caller_methods}, {Py_tp_members, caller_members},
    {Py_tp_call, caller_call},          {Py_tp_dealloc, caller_dealloc}, {0, NULL},
};

static PyType_Spec caller_spec = {
    "iokernel._accel.Caller", sizeof(Caller), 0, Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE, caller_slots,
};

PyDoc_STRVAR(futures_doc, "futures(future, aio_future): the classes to make");

static PyObject *futures(PyObject *self, PyObject *arguments) {
  (void)self;
  if (!PyArg_ParseTuple(arguments, "OO", &future_class, &aio_future_class)) return NULL;
  Py_INCREF(future_class);
  Py_INCREF(aio_future_class);
  Py_RETURN_NONE;
}

PyDoc_STRVAR(traced_doc, "traced(on): whether requests get a trace context");

static PyObject *traced(PyObject *self, PyObject *on) {
  (void)self;
  int truth = PyObject_IsTrue(on);
  if (truth < 0) return NULL;
  is_traced = truth;
  Py_RETURN_NONE;
}
