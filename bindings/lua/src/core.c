// `iokernel.core`: what the Lua sources need of C where there is no FFI. Kernels, statuses, time, forks.
#include "core.h"

#include <dlfcn.h>
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

struct library iok;

// Grows by one in each forked child.
static volatile int generation;

static void forked(void) { generation++; }

unsigned char *bytes_more(lua_State *L, struct bytes *bytes, size_t more) {
  if (bytes->room - bytes->count < more) {
    size_t room = bytes->room ? bytes->room : 4096;
    while (room - bytes->count < more) room *= 2;
    unsigned char *at = realloc(bytes->at, room);
    if (!at) luaL_error(L, "not enough memory for a message of %d bytes", (int)more);
    bytes->at = at, bytes->room = room;
  }
  unsigned char *place = bytes->at + bytes->count;
  bytes->count += more;
  return place;
}

void bytes_free(struct bytes *bytes) {
  free(bytes->at);
  *bytes = (struct bytes){0};
}

// load(path): finds the functions in the library. Raises an error if it is none of this ABI.
static int core_load(lua_State *L) {
  const char *path = luaL_checkstring(L, 1);
  if (iok.iok_abi_version) return 0;
  void *library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
  if (!library) return luaL_error(L, "%s", dlerror());
  struct library found;
#define FIND(name)                                                                                                     \
  *(void **)&found.name = dlsym(library, #name);                                                                       \
  if (!found.name) return luaL_error(L, "%s: has no function %s", path, #name);
  LIBRARY_FUNCTIONS(FIND)
#undef FIND
  uint32_t version = found.iok_abi_version();
  if (version != IOK_ABI_VERSION)
    return luaL_error(L, "%s: ABI version %d: expected %d", path, (int)version, IOK_ABI_VERSION);
  iok = found;
  pthread_atfork(NULL, NULL, forked);
  return 0;
}

struct kernel {
  iok_kernel *handle;
  int is_owned;
};

static struct kernel *check_kernel(lua_State *L, int index) { return luaL_checkudata(L, index, KERNEL_TYPE); }

iok_kernel *to_kernel(lua_State *L, int index) { return check_kernel(L, index)->handle; }

static void push_kernel(lua_State *L, iok_kernel *handle, int is_owned) {
  *(struct kernel *)lua_newuserdata(L, sizeof(struct kernel)) = (struct kernel){handle, is_owned};
  luaL_setmetatable(L, KERNEL_TYPE);
}

// Nobody holds it any more, or the state ends: what is under way may finish for a moment.
static int kernel_gc(lua_State *L) {
  struct kernel *kernel = check_kernel(L, 1);
  if (kernel->is_owned) iok.iok_kernel_close(kernel->handle, 200);
  kernel->is_owned = 0;
  return 0;
}

// kernel_open(config): a kernel, or nil and a status.
static int core_kernel_open(lua_State *L) {
  iok_kernel *kernel = NULL;
  iok_status status = iok.iok_kernel_open(luaL_checkstring(L, 1), &kernel);
  if (status) {
    lua_pushnil(L);
    lua_pushinteger(L, status);
    return 2;
  }
  push_kernel(L, kernel, 1);
  return 1;
}

// kernel_join(token): the kernel that another state of this process told of by `kernel_token`.
static int core_kernel_join(lua_State *L) {
  push_kernel(L, (iok_kernel *)(uintptr_t)strtoull(luaL_checkstring(L, 1), NULL, 16), 0);
  return 1;
}

static int core_kernel_token(lua_State *L) {
  lua_pushfstring(L, "%p", (void *)to_kernel(L, 1));
  return 1;
}

// kernel_close(kernel, drain_ms): a status.
static int core_kernel_close(lua_State *L) {
  struct kernel *kernel = check_kernel(L, 1);
  lua_Integer drain_ms = luaL_checkinteger(L, 2);
  kernel->is_owned = 0;
  lua_pushinteger(L, iok.iok_kernel_close(kernel->handle, (uint32_t)drain_ms));
  return 1;
}

static int core_status_name(lua_State *L) {
  lua_pushstring(L, iok.iok_status_name((iok_status)luaL_checkinteger(L, 1)));
  return 1;
}

static int core_status_text(lua_State *L) {
  lua_pushstring(L, iok.iok_status_text((iok_status)luaL_checkinteger(L, 1)));
  return 1;
}

static int core_last_error(lua_State *L) {
  lua_pushstring(L, iok.iok_last_error());
  return 1;
}

// generation(): another number in a forked child.
static int core_generation(lua_State *L) {
  lua_pushinteger(L, generation);
  return 1;
}

// word(high, low): two halves as a key of a submission.
static int core_word(lua_State *L) {
  uint64_t high = (uint64_t)luaL_checkinteger(L, 1), low = (uint64_t)luaL_checkinteger(L, 2);
  lua_pushinteger(L, (lua_Integer)(high << 32 | low));
  return 1;
}

static double seconds(clockid_t clock) {
  struct timespec time;
  clock_gettime(clock, &time);
  return (double)time.tv_sec + (double)time.tv_nsec / 1e9;
}

// now(): seconds of a clock that only goes forward.
static int core_now(lua_State *L) {
  lua_pushnumber(L, seconds(CLOCK_MONOTONIC));
  return 1;
}

// thread_cpu(): seconds of CPU time that this thread has used.
static int core_thread_cpu(lua_State *L) {
  lua_pushnumber(L, seconds(CLOCK_THREAD_CPUTIME_ID));
  return 1;
}

// poll_fds({fd, ...}, timeout_ms): how many are readable; -1 if a signal came.
static int core_poll_fds(lua_State *L) {
  luaL_checktype(L, 1, LUA_TTABLE);
  lua_Integer count = (lua_Integer)lua_rawlen(L, 1);
  struct pollfd *fds = lua_newuserdata(L, sizeof *fds * (size_t)(count + 1));
  for (lua_Integer at = 0; at < count; at++) {
    lua_rawgeti(L, 1, at + 1);
    fds[at] = (struct pollfd){.fd = (int)lua_tointeger(L, -1), .events = POLLIN};
    lua_pop(L, 1);
  }
  lua_pushinteger(L, poll(fds, (nfds_t)count, (int)luaL_checkinteger(L, 2)));
  return 1;
}

static const luaL_Reg FUNCTIONS[] = {
    {"load", core_load},
    {"kernel_open", core_kernel_open},
    {"kernel_join", core_kernel_join},
    {"kernel_token", core_kernel_token},
    {"kernel_close", core_kernel_close},
    {"status_name", core_status_name},
    {"status_text", core_status_text},
    {"last_error", core_last_error},
    {"generation", core_generation},
    {"word", core_word},
    {"now", core_now},
    {"thread_cpu", core_thread_cpu},
    {"poll_fds", core_poll_fds},
    {NULL, NULL},
};

__attribute__((visibility("default"))) int luaopen_iokernel_core(lua_State *L);

int luaopen_iokernel_core(lua_State *L) {
  luaL_newmetatable(L, KERNEL_TYPE);
  lua_pushcfunction(L, kernel_gc);
  lua_setfield(L, -2, "__gc");
  lua_pop(L, 1);
  luaL_newlib(L, FUNCTIONS);
  open_codec(L);
  open_channel(L);
  open_observe(L);
  lua_pushliteral(L, "c");
  lua_setfield(L, -2, "name");
  return 1;
}
