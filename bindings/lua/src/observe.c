// What others may see of the program: cells that it counts in, markers that say what it does, where its thread is.
#include "core.h"

#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

// Cells

#define CELLS_TYPE "iokernel.cells"

struct cells {
  uint64_t *at;
  uint32_t count;
};

// cells(kernel, spec): the cells of a series, or nil and a status.
static int core_cells(lua_State *L) {
  struct cells *cells = lua_newuserdata(L, sizeof *cells);
  iok_status status = iok.iok_cells(to_kernel(L, 1), luaL_checkstring(L, 2), &cells->at, &cells->count);
  if (status) {
    lua_pushnil(L);
    lua_pushinteger(L, status);
    return 2;
  }
  luaL_setmetatable(L, CELLS_TYPE);
  return 1;
}

// The cell of argument 2: 0 is the first, below 0 counts from the end.
static uint64_t *cell(lua_State *L) {
  struct cells *cells = luaL_checkudata(L, 1, CELLS_TYPE);
  lua_Integer at = luaL_checkinteger(L, 2);
  if (at < 0) at += cells->count;
  luaL_argcheck(L, at >= 0 && at < cells->count, 2, "there is no such cell");
  return cells->at + at;
}

static double as_double(uint64_t bits) {
  double number;
  memcpy(&number, &bits, sizeof number);
  return number;
}

static uint64_t as_bits(double number) {
  uint64_t bits;
  memcpy(&bits, &number, sizeof bits);
  return bits;
}

// add(at, n): counts whole numbers.
static int cells_add(lua_State *L) {
  __atomic_fetch_add(cell(L), (uint64_t)luaL_checkinteger(L, 3), __ATOMIC_RELAXED);
  return 0;
}

// add_float(at, x)
static int cells_add_float(lua_State *L) {
  uint64_t *place = cell(L), before = __atomic_load_n(place, __ATOMIC_RELAXED), after;
  double more = luaL_checknumber(L, 3);
  do after = as_bits(as_double(before) + more);
  while (!__atomic_compare_exchange_n(place, &before, after, 0, __ATOMIC_RELAXED, __ATOMIC_RELAXED));
  return 0;
}

// set_float(at, x)
static int cells_set_float(lua_State *L) {
  __atomic_store_n(cell(L), as_bits(luaL_checknumber(L, 3)), __ATOMIC_RELAXED);
  return 0;
}

static int cells_get(lua_State *L) {
  lua_pushinteger(L, (lua_Integer)__atomic_load_n(cell(L), __ATOMIC_RELAXED));
  return 1;
}

static int cells_get_float(lua_State *L) {
  lua_pushnumber(L, as_double(__atomic_load_n(cell(L), __ATOMIC_RELAXED)));
  return 1;
}

// Markers

#define MARKERS_TYPE "iokernel.markers"

static iok_markers *markers(lua_State *L) { return *(iok_markers **)luaL_checkudata(L, 1, MARKERS_TYPE); }

// markers(kernel): this thread's slot, or nil and a status.
static int core_markers(lua_State *L) {
  iok_markers **slot = lua_newuserdata(L, sizeof *slot);
  iok_status status = iok.iok_marker_slot(to_kernel(L, 1), slot);
  if (status) {
    lua_pushnil(L);
    lua_pushinteger(L, status);
    return 2;
  }
  luaL_setmetatable(L, MARKERS_TYPE);
  return 1;
}

// enter(text): the place (from 0) and the serial of a marker; -1 and 0 if no place is left.
static int markers_enter(lua_State *L) {
  iok_markers *slot = markers(L);
  size_t count;
  const char *text = luaL_checklstring(L, 2, &count);
  luaL_argcheck(L, count <= IOK_MARKER_TEXT_BYTES, 2, "too long");
  uint32_t serial = (slot->last + 1) & IOK_MARKER_COUNT_MASK;
  if (!serial) serial = 1;
  for (int tried = 0; tried < IOK_MARKER_PLACES; tried++) {
    int at = (int)((serial + (uint32_t)tried) % IOK_MARKER_PLACES);
    iok_marker *place = &slot->places[at];
    if (place->length & IOK_MARKER_ACTIVE) continue;
    serial |= slot->last & ~(uint32_t)IOK_MARKER_COUNT_MASK;
    slot->last = serial;
    __atomic_store_n(&place->serial, 0, __ATOMIC_RELAXED);
    __atomic_thread_fence(__ATOMIC_RELEASE);
    memcpy(place->text, text, count);
    uint64_t head = (uint64_t)((uint32_t)count | IOK_MARKER_ACTIVE) << 32 | serial;
    __atomic_store_n((uint64_t *)place, head, __ATOMIC_RELEASE);
    lua_pushinteger(L, at);
    lua_pushinteger(L, serial);
    return 2;
  }
  slot->overflows++;
  lua_pushinteger(L, -1);
  lua_pushinteger(L, 0);
  return 2;
}

// leave(place, serial)
static int markers_leave(lua_State *L) {
  iok_markers *slot = markers(L);
  lua_Integer at = luaL_checkinteger(L, 2);
  if (at < 0 || at >= IOK_MARKER_PLACES) return 0;
  iok_marker *place = &slot->places[at];
  if (place->serial == (uint32_t)luaL_checkinteger(L, 3)) place->length &= ~(uint32_t)IOK_MARKER_ACTIVE;
  return 0;
}

// set_current(serial): what this thread is doing from here on; 0: nothing.
static int markers_set_current(lua_State *L) {
  __atomic_store_n(&markers(L)->current, (uint32_t)luaL_checkinteger(L, 2), __ATOMIC_RELEASE);
  return 0;
}

// Stacks. The handler of the signal sets a hook, which is all that Lua allows it. The hook runs before the next
// instruction of the program and writes where it is.

enum { FRAMES_MAX = 200, COUNT = 1 };

// The coroutine that runs in this thread, as far as we know; NULL in threads whose stacks nobody asked for.
static __thread lua_State *running __attribute__((tls_model("initial-exec")));
static __thread lua_Hook hook_before __attribute__((tls_model("initial-exec")));
static __thread int mask_before __attribute__((tls_model("initial-exec")));
static __thread int count_before __attribute__((tls_model("initial-exec")));
static int stack_fd = -1, stack_signal;

static void tell_frame(lua_State *L, lua_Debug *frame) {
  char line[256];
  lua_getinfo(L, "Sln", frame);
  if (frame->what[0] == 'C') return;
  const char *name = frame->what[0] == 'm' ? "main chunk" : frame->name ? frame->name : "?";
  int count = snprintf(line, sizeof line, "  File \"%s\", line %d in %s\n", frame->short_src, frame->currentline, name);
  if (count >= (int)sizeof line) count = sizeof line - 1;
  if (write(stack_fd, line, (size_t)count) < 0) return;
}

static void tell(lua_State *L, lua_Debug *unused) {
  (void)unused;
  lua_sethook(L, hook_before, mask_before, count_before);
  lua_Debug frame;
  for (int level = 0; level < FRAMES_MAX && lua_getstack(L, level, &frame); level++) tell_frame(L, &frame);
  if (write(stack_fd, "", 1) < 0) return;
}

// Runs in the thread that is asked.
static void handle(int signal) {
  (void)signal;
  lua_State *L = running;
  if (!L || lua_gethook(L) == tell) return;
  hook_before = lua_gethook(L);
  mask_before = lua_gethookmask(L);
  count_before = lua_gethookcount(L);
  lua_sethook(L, tell, LUA_MASKCALL | LUA_MASKRET | LUA_MASKCOUNT, COUNT);
}

// stack_open(kernel): lets the admin endpoint ask this process's threads where they are. A status.
static int core_stack_open(lua_State *L) {
  iok_kernel *kernel = to_kernel(L, 1);
  int32_t number = 0, fd = -1;
  iok_status status = iok.iok_stack_open(kernel, &number, &fd);
  if (!status) stack_fd = fd;
  if (!status && stack_signal != number) {
    struct sigaction action = {.sa_handler = handle, .sa_flags = SA_RESTART};
    stack_signal = number;
    sigaction(number, &action, NULL);
  }
  if (!status) status = iok.iok_stack_arm(kernel, IOK_STACK_LATE);
  lua_rawgeti(L, LUA_REGISTRYINDEX, LUA_RIDX_MAINTHREAD);
  running = lua_tothread(L, -1);
  lua_pushinteger(L, status);
  return 1;
}

// stack_close(kernel): ends what `stack_open` began.
static int core_stack_close(lua_State *L) {
  bool restored = false;
  if (iok.iok_stack_close(to_kernel(L, 1), &restored) == 0 && restored) {
    signal(stack_signal, SIG_DFL);
    stack_signal = 0;
  }
  return 0;
}

// stack_forget(): in a forked child, whose descriptor is closed.
static int core_stack_forget(lua_State *L) {
  (void)L;
  if (stack_signal) signal(stack_signal, SIG_DFL);
  stack_signal = 0, stack_fd = -1;
  return 0;
}

// stack_running(coroutine): it runs from here on; nil: the main one.
static int core_stack_running(lua_State *L) {
  lua_State *next = lua_tothread(L, 1);
  if (!next) {
    lua_rawgeti(L, LUA_REGISTRYINDEX, LUA_RIDX_MAINTHREAD);
    next = lua_tothread(L, -1);
  }
  if (running) running = next;
  return 0;
}

static void type(lua_State *L, const char *name, const luaL_Reg *methods) {
  luaL_newmetatable(L, name);
  luaL_setfuncs(L, methods, 0);
  lua_pushvalue(L, -1);
  lua_setfield(L, -2, "__index");
  lua_pop(L, 1);
}

// The state ends: its thread may live on, and be asked.
static int state_ends(lua_State *L) {
  (void)L;
  running = NULL;
  return 0;
}

void open_observe(lua_State *L) {
  static const luaL_Reg functions[] = {
      {"cells", core_cells},
      {"markers", core_markers},
      {"stack_open", core_stack_open},
      {"stack_close", core_stack_close},
      {"stack_forget", core_stack_forget},
      {"stack_running", core_stack_running},
      {NULL, NULL},
  };
  static const luaL_Reg of_cells[] = {
      {"add", cells_add},
      {"add_float", cells_add_float},
      {"set_float", cells_set_float},
      {"get", cells_get},
      {"get_float", cells_get_float},
      {NULL, NULL},
  };
  static const luaL_Reg of_markers[] = {
      {"enter", markers_enter},
      {"leave", markers_leave},
      {"set_current", markers_set_current},
      {NULL, NULL},
  };
  luaL_setfuncs(L, functions, 0);
  type(L, CELLS_TYPE, of_cells);
  type(L, MARKERS_TYPE, of_markers);
  static const luaL_Reg of_end[] = {{"__gc", state_ends}, {NULL, NULL}};
  type(L, "iokernel.end", of_end);
  lua_newuserdata(L, 0);
  luaL_setmetatable(L, "iokernel.end");
  lua_setfield(L, LUA_REGISTRYINDEX, "iokernel.end.of.state");
}
