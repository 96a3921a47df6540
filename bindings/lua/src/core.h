// What the files of `iokernel.core` share: the library's functions, found at run time, and a channel.
#ifndef IOKERNEL_LUA_CORE_H
#define IOKERNEL_LUA_CORE_H

#include <iokernel.h>
#include <lauxlib.h>
#include <lua.h>

#if LUA_VERSION_NUM < 503
#error "iokernel.core is for Lua 5.3 and later; LuaJIT needs no C module"
#endif

#define LIBRARY_FUNCTIONS(each)                                                                                        \
  each(iok_abi_version) each(iok_features) each(iok_kernel_open) each(iok_kernel_close) each(iok_channel_open)         \
  each(iok_channel_close) each(iok_channel_fd) each(iok_channel_status) each(iok_submit_batch) each(iok_wait)          \
  each(iok_poll) each(iok_advance) each(iok_cells) each(iok_marker_slot) each(iok_stack_open) each(iok_stack_arm)      \
  each(iok_stack_close) each(iok_status_name) each(iok_status_text) each(iok_last_error)

struct library {
#define DECLARE(name) __typeof__(&name) name;
  LIBRARY_FUNCTIONS(DECLARE)
#undef DECLARE
};

extern struct library iok;

// Bytes that grow.
struct bytes {
  unsigned char *at;
  size_t count, room;
};

unsigned char *bytes_more(lua_State *L, struct bytes *bytes, size_t more);
void bytes_free(struct bytes *bytes);

// A message whose fragments are coming.
struct assembly {
  uint64_t tag;
  struct bytes bytes;
  struct assembly *next;
};

// One channel: what was queued and not taken yet, and the run of completions that is being read.
struct channel {
  iok_channel *handle;
  struct bytes out;
  size_t queued, taken, record_max;
  const unsigned char *run;
  size_t run_at, run_bytes;
  iok_completion last;
  struct assembly *assemblies;
  uint32_t marker;
};

#define KERNEL_TYPE "iokernel.kernel"
#define CHANNEL_TYPE "iokernel.channel"

iok_kernel *to_kernel(lua_State *L, int index);

// Appends a value as MessagePack. Raises an error for one that has no such form.
void pack_value(lua_State *L, struct bytes *out, int index, int depth);
void pack_array_head(lua_State *L, struct bytes *out, size_t count);
// Pushes one value; 0 if the bytes are none.
int unpack_value(lua_State *L, const unsigned char *data, size_t bytes);
// Pushes the payload of a completion; 0 if it cannot be decoded.
int push_payload(lua_State *L, int encoding, const unsigned char *data, size_t bytes);

void open_codec(lua_State *L);
void open_channel(lua_State *L);
void open_observe(lua_State *L);

#endif
