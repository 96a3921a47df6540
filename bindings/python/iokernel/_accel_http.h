/*
 * What a listener of HTTP tells and is told: the variables of CGI as a dict, the scope of ASGI as another, a whole
 * reply straight into the ring. A part of _accel.c, below Core.
 */

/* Names come back with nearly every request, and most of their values too: the objects made last are kept, one for each
 * place of a table that a name's bytes lead to. */
typedef struct {
  PyObject *name, *value, *pair;
} Word;

enum { WORDS = 512, KEPT_NAME_MAX = 64, KEPT_VALUE_MAX = 512 };

static Word variables[WORDS], fields[WORDS];

static inline Word *word_of(Word *words, const char *text, size_t bytes) {
  uint32_t first = 0, last = 0;
  size_t some = bytes < 4 ? bytes : 4;
  memcpy(&first, text, some);
  memcpy(&last, text + bytes - some, some);
  uint32_t hash = (first * 0x9e3779b1u) ^ (last * 0x85ebca6bu) ^ ((uint32_t)bytes * 0xc2b2ae35u);
  return &words[(hash ^ hash >> 15) & (WORDS - 1)];
}

static inline int is_text(PyObject *object, const char *text, size_t bytes) {
  Py_ssize_t size;
  const char *own = object ? PyUnicode_AsUTF8AndSize(object, &size) : NULL;
  if (object && !own) PyErr_Clear(); /* Surrogates, for bytes that are no UTF-8. */
  return own && (size_t)size == bytes && !memcmp(own, text, bytes);
}

static inline int are_bytes(PyObject *object, const char *text, size_t bytes) {
  return object && (size_t)PyBytes_Size(object) == bytes && !memcmp(PyBytes_AsString(object), text, bytes);
}

/* The str or bin at a place; NULL if something else stands there. */
static const char *get_span(const uint8_t **place, const uint8_t *end, size_t *bytes) {
  const uint8_t *at = *place;
  if (at >= end) return NULL;
  uint8_t mark = *at++;
  size_t width = 0, size;
  if (mark >= 0xa0 && mark < 0xc0) {
    size = mark & 31;
  } else {
    if (mark >= 0xc4 && mark <= 0xc6) width = (size_t)1 << (mark - 0xc4);
    else if (mark >= 0xd9 && mark <= 0xdb) width = (size_t)1 << (mark - 0xd9);
    else return NULL;
    if ((size_t)(end - at) < width) return NULL;
    size = (size_t)big_endian(at, (int)width);
  }
  at += width;
  if ((size_t)(end - at) < size) return NULL;
  *place = at + size;
  *bytes = size;
  return (const char *)at;
}

/* How many members a map or an array has; -1 if there is none. `few`: the mark of a small one, 0x80 or 0x90. */
static int64_t get_count(const uint8_t **place, const uint8_t *end, uint8_t few) {
  const uint8_t *at = *place;
  if (at >= end) return -1;
  uint8_t mark = *at++, wide = few == 0x80 ? 0xde : 0xdc;
  if ((mark & 0xf0) == few) return *place = at, mark & 15;
  if (mark != wide && mark != wide + 1) return -1;
  int width = mark == wide ? 2 : 4;
  if (end - at < width) return -1;
  *place = at + width;
  return (int64_t)big_endian(at, width);
}

/* The name of a variable, borrowed, or new by `*owned`. Names that clients choose are not interned: in some Pythons that
 * is for ever. */
static PyObject *variable_name(Word *word, const char *text, size_t bytes, PyObject **owned) {
  *owned = NULL;
  if (is_text(word->name, text, bytes)) return word->name;
  PyObject *name = PyUnicode_DecodeUTF8(text, (Py_ssize_t)bytes, "surrogateescape");
  if (!name) return NULL;
  if (bytes > KEPT_NAME_MAX) return *owned = name;
  if (bytes < 5 || memcmp(text, "HTTP_", 5)) PyUnicode_InternInPlace(&name);
  Py_XDECREF(word->name);
  Py_CLEAR(word->value);
  return word->name = name;
}

/* Adds a variable to an environment. */
static int set_variable(PyObject *environ, const char *name, size_t name_bytes, const char *text, size_t bytes) {
  Word *word = word_of(variables, name, name_bytes);
  PyObject *owned, *key = variable_name(word, name, name_bytes, &owned);
  if (!key) return -1;
  int failed;
  if (!owned && is_text(word->value, text, bytes)) {
    failed = PyDict_SetItem(environ, key, word->value);
  } else {
    PyObject *value = PyUnicode_DecodeUTF8(text, (Py_ssize_t)bytes, "surrogateescape");
    failed = value ? PyDict_SetItem(environ, key, value) : -1;
    if (!failed && !owned && bytes <= KEPT_VALUE_MAX) {
      PyObject *before = word->value;
      Py_INCREF(value);
      word->value = value;
      Py_XDECREF(before);
    }
    Py_XDECREF(value);
  }
  Py_XDECREF(owned);
  return failed;
}

static PyObject *not_http(void) {
  PyErr_SetString(PyExc_ValueError, "a request that is not in the listener's form");
  return NULL;
}

/* A copy of `base` with the variables that stand at a place. */
static PyObject *get_environ(PyObject *base, const uint8_t **place, const uint8_t *end) {
  int64_t count = get_count(place, end, 0x80);
  if (count < 0) return not_http();
  PyObject *environ = PyDict_Copy(base);
  while (environ && count--) {
    size_t name_bytes, bytes;
    const char *name = get_span(place, end, &name_bytes), *text = name ? get_span(place, end, &bytes) : NULL;
    if (!text) {
      Py_DECREF(environ);
      return not_http();
    }
    if (set_variable(environ, name, name_bytes, text, bytes) < 0) Py_CLEAR(environ);
  }
  return environ;
}

/* Whether the scope under way has headers of a proxy. */
static int saw_forwarded;

/* A header of a scope: a tuple of two bytes. */
static PyObject *get_field(const uint8_t **place, const uint8_t *end) {
  size_t name_bytes, bytes;
  if (get_count(place, end, 0x90) != 2) return not_http();
  const char *name = get_span(place, end, &name_bytes), *text = name ? get_span(place, end, &bytes) : NULL;
  if (!text) return not_http();
  if (name_bytes > 12 && !memcmp(name, "x-forwarded-", 12)) saw_forwarded = 1;
  Word *word = word_of(fields, name, name_bytes);
  int is_known = are_bytes(word->name, name, name_bytes);
  if (is_known && word->pair && are_bytes(word->value, text, bytes)) {
    Py_INCREF(word->pair);
    return word->pair;
  }
  PyObject *key = is_known ? word->name : PyBytes_FromStringAndSize(name, (Py_ssize_t)name_bytes);
  PyObject *value = PyBytes_FromStringAndSize(text, (Py_ssize_t)bytes);
  if (is_known) Py_INCREF(key);
  PyObject *pair = key && value ? PyTuple_Pack(2, key, value) : NULL;
  if (pair && name_bytes <= KEPT_NAME_MAX && bytes <= KEPT_VALUE_MAX) {
    Py_XDECREF(word->name);
    Py_XDECREF(word->value);
    Py_XDECREF(word->pair);
    Py_INCREF(key);
    Py_INCREF(value);
    Py_INCREF(pair);
    *word = (Word){key, value, pair};
  }
  Py_XDECREF(key);
  Py_XDECREF(value);
  return pair;
}

static PyObject *get_fields(const uint8_t **place, const uint8_t *end) {
  int64_t count = get_count(place, end, 0x90);
  if (count < 0 || count > end - *place) return not_http();
  PyObject *list = PyList_New((Py_ssize_t)count);
  for (Py_ssize_t index = 0; list && index < count; index++) {
    PyObject *pair = get_field(place, end);
    if (!pair) Py_CLEAR(list);
    else PyList_SetItem(list, index, pair);
  }
  return list;
}

/* `client` and `server`: a pair, or None. */
static PyObject *get_address(const uint8_t **place, const uint8_t *end) {
  PyObject *value = get_value(place, end, 0);
  if (!value || !PyList_Check(value)) return value;
  PyObject *pair = PyList_AsTuple(value);
  Py_DECREF(value);
  return pair;
}

static PyObject *name_headers, *name_client, *name_server;

/* One member of a scope. */
static int set_scope(PyObject *scope, const uint8_t **place, const uint8_t *end) {
  size_t name_bytes, bytes;
  const char *name = get_span(place, end, &name_bytes);
  if (!name) return not_http(), -1;
  Word *word = word_of(variables, name, name_bytes);
  PyObject *owned, *key = variable_name(word, name, name_bytes, &owned), *value = NULL;
  if (!key) return -1;
  const uint8_t *at = *place;
  const char *text;
  if (key == name_headers) {
    value = get_fields(place, end);
  } else if (key == name_client || key == name_server) {
    value = get_address(place, end);
  } else if (!owned && at < end && (*at < 0xc4 || *at > 0xc6) && (text = get_span(&at, end, &bytes)) != NULL &&
             is_text(word->value, text, bytes)) {
    *place = at;
    value = word->value;
    Py_INCREF(value);
  } else if ((value = get_value(place, end, 0)) && !owned && PyUnicode_Check(value)) {
    Py_XDECREF(word->value);
    Py_INCREF(value);
    word->value = value;
  }
  if (!value && !PyErr_Occurred()) not_http();
  int failed = value ? PyDict_SetItem(scope, key, value) : -1;
  Py_XDECREF(value);
  Py_XDECREF(owned);
  return failed;
}

static PyObject *get_scope(PyObject *base, const uint8_t **place, const uint8_t *end) {
  int64_t count = get_count(place, end, 0x80);
  if (count < 0) return not_http();
  PyObject *scope = PyDict_Copy(base);
  while (scope && count--)
    if (set_scope(scope, place, end) < 0) Py_CLEAR(scope);
  return scope;
}

/* Replies */

enum { OP_REPLY = 10, FLAG_QUIET = 4 };

/* Bytes that a header takes at most; -1: it is none, or not for here. */
static Py_ssize_t text_bytes(PyObject *text) {
  if (PyBytes_Check(text)) return PyBytes_Size(text) + 5;
  if (!PyUnicode_Check(text)) return -1;
  Py_ssize_t bytes;
  if (!PyUnicode_AsUTF8AndSize(text, &bytes)) return PyErr_Clear(), -1;
  /* Characters beyond ASCII have other bytes in a header than here. */
  return bytes == PyUnicode_GetLength(text) ? bytes + 5 : -1;
}

/* Both are exact lists or tuples, of which nobody can make something else while they are read. */
static inline Py_ssize_t count_of(PyObject *all) {
  return PyList_CheckExact(all) ? PyList_Size(all) : PyTuple_CheckExact(all) ? PyTuple_Size(all) : -1;
}

static inline PyObject *item_of(PyObject *all, Py_ssize_t index) {
  return PyList_CheckExact(all) ? PyList_GetItem(all, index) : PyTuple_GetItem(all, index);
}

static Py_ssize_t fields_bytes(PyObject *headers) {
  Py_ssize_t count = count_of(headers), total = 5;
  if (count < 0) return -1;
  for (Py_ssize_t index = 0; index < count; index++) {
    PyObject *pair = item_of(headers, index);
    if (count_of(pair) != 2) return -1;
    Py_ssize_t name = text_bytes(item_of(pair, 0)), value = text_bytes(item_of(pair, 1));
    if (name < 0 || value < 0) return -1;
    total += name + value + 1;
  }
  return total;
}

/* Puts a whole reply into the ring. 0: the slow path has to. `status` is a number, or a str of ASCII. */
static int put_reply(Core *core, uint64_t tag, uint32_t endpoint, PyObject *status, PyObject *headers, PyObject *body) {
  if (is_queued(core) || !PyBytes_Check(body)) return 0;
  Py_ssize_t first = PyLong_Check(status) ? 9 : text_bytes(status), fields_size = fields_bytes(headers);
  Py_ssize_t bytes = first + fields_size + PyBytes_Size(body) + 6;
  iok_submission *place;
  if (first < 0 || fields_size < 0 || bytes > PAYLOAD_BYTES_MAX) return 0;
  if (iok.reserve(core->channel, (uint32_t)bytes, &place) != 0) return 0;
  uint8_t *start = (uint8_t *)(place + 1), *at = start;
  *at++ = 0x93;
  if (!(at = put_argument(at, status))) return 0;
  Py_ssize_t count = count_of(headers);
  at = put_count(at, count, 0x90, 0xdd);
  for (Py_ssize_t index = 0; index < count; index++) {
    PyObject *pair = item_of(headers, index);
    *at++ = 0x92;
    at = put_argument(at, item_of(pair, 0));
    at = put_argument(at, item_of(pair, 1));
  }
  at = put_argument(at, body);
  uint32_t size = (uint32_t)(sizeof *place + (size_t)(at - start));
  *place = (iok_submission){size, OP_REPLY, FLAG_QUIET, endpoint, 0, tag, 0, 0, 0};
  iok.commit(core->channel);
  return 1;
}
