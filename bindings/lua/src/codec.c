// Values between Lua and MessagePack. What a table means beyond a list or a map, its metatable's `__iokernel` says:
// "map", "null", "bytes", or a function that gives the number and the bytes of an ext.
#include "core.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

enum { DEPTH_MAX = 128 };

// Keys of the registry: what decoding makes of maps that would look like lists, of nil inside of others, of exts;
// what raises the error of a value that cannot be packed.
static const char MAP_KEY, NULL_KEY, EXT_KEY, FAIL_KEY;

// A value that cannot be packed: the function for it raises the binding's own error.
static void fail(lua_State *L, const char *format, ...) {
  va_list arguments;
  va_start(arguments, format);
  const char *why = lua_pushvfstring(L, format, arguments);
  va_end(arguments);
  if (lua_rawgetp(L, LUA_REGISTRYINDEX, &FAIL_KEY) == LUA_TFUNCTION) {
    lua_insert(L, -2);
    lua_call(L, 1, 0);
  }
  luaL_error(L, "%s", why);
}

static void put_big_endian(unsigned char *at, uint64_t value, int bytes) {
  while (bytes--) *at++ = (unsigned char)(value >> (8 * bytes));
}

// A byte that names the type, and a number of so many bytes.
static void put_head(lua_State *L, struct bytes *out, int type, uint64_t value, int bytes) {
  unsigned char *at = bytes_more(L, out, (size_t)bytes + 1);
  *at = (unsigned char)type;
  put_big_endian(at + 1, value, bytes);
}

static void put_sized(lua_State *L, struct bytes *out, const char *data, size_t count, int type8) {
  if (count < 256)
    put_head(L, out, type8, count, 1);
  else if (count < 65536)
    put_head(L, out, type8 + 1, count, 2);
  else
    put_head(L, out, type8 + 2, count, 4);
  memcpy(bytes_more(L, out, count), data, count);
}

static void put_text(lua_State *L, struct bytes *out, const char *text, size_t count) {
  if (count >= 32) {
    put_sized(L, out, text, count, 0xd9);
    return;
  }
  unsigned char *at = bytes_more(L, out, count + 1);
  *at = (unsigned char)(0xa0 | count);
  memcpy(at + 1, text, count);
}

static void put_integer(lua_State *L, struct bytes *out, lua_Integer value) {
  if (value >= 0) {
    uint64_t number = (uint64_t)value;
    if (number < 0x80) put_head(L, out, (int)number, 0, 0);
    else if (number <= UINT8_MAX) put_head(L, out, 0xcc, number, 1);
    else if (number <= UINT16_MAX) put_head(L, out, 0xcd, number, 2);
    else if (number <= UINT32_MAX) put_head(L, out, 0xce, number, 4);
    else put_head(L, out, 0xcf, number, 8);
  } else {
    uint64_t number = (uint64_t)value;
    if (value >= -32) put_head(L, out, (int)(number & 0xff), 0, 0);
    else if (value >= INT8_MIN) put_head(L, out, 0xd0, number, 1);
    else if (value >= INT16_MIN) put_head(L, out, 0xd1, number, 2);
    else if (value >= INT32_MIN) put_head(L, out, 0xd2, number, 4);
    else put_head(L, out, 0xd3, number, 8);
  }
}

static void put_number(lua_State *L, struct bytes *out, int index) {
  if (lua_isinteger(L, index)) {
    put_integer(L, out, lua_tointeger(L, index));
    return;
  }
  double number = lua_tonumber(L, index);
  uint64_t bits;
  memcpy(&bits, &number, sizeof bits);
  put_head(L, out, 0xcb, bits, 8);
}

static void put_count(lua_State *L, struct bytes *out, size_t count, int fixed, int type16) {
  if (count < 16)
    put_head(L, out, fixed | (int)count, 0, 0);
  else if (count < 65536)
    put_head(L, out, type16, count, 2);
  else
    put_head(L, out, type16 + 1, count, 4);
}

void pack_array_head(lua_State *L, struct bytes *out, size_t count) { put_count(L, out, count, 0x90, 0xdc); }

static void put_ext(lua_State *L, struct bytes *out, int type, const char *data, size_t count) {
  if (count < 256)
    put_head(L, out, 0xc7, count, 1);
  else if (count < 65536)
    put_head(L, out, 0xc8, count, 2);
  else
    put_head(L, out, 0xc9, count, 4);
  *bytes_more(L, out, 1) = (unsigned char)type;
  memcpy(bytes_more(L, out, count), data, count);
}

static size_t count_pairs(lua_State *L, int table) {
  size_t count = 0;
  for (lua_pushnil(L); lua_next(L, table); lua_pop(L, 1)) count++;
  return count;
}

static void put_map(lua_State *L, struct bytes *out, int table, size_t count, int depth) {
  put_count(L, out, count, 0x80, 0xde);
  for (lua_pushnil(L); lua_next(L, table); lua_pop(L, 1)) {
    pack_value(L, out, lua_gettop(L) - 1, depth + 1);
    pack_value(L, out, lua_gettop(L), depth + 1);
  }
}

static void put_list_or_map(lua_State *L, struct bytes *out, int table, int depth) {
  size_t count = count_pairs(L, table), length = (size_t)lua_rawlen(L, table);
  if (length && length != count)
    fail(L, "a table with holes, or with a list's and a map's keys: expected one of them, and null for nil");
  if (count && !length) {
    put_map(L, out, table, count, depth);
    return;
  }
  pack_array_head(L, out, length);
  for (size_t at = 1; at <= length; at++) {
    lua_rawgeti(L, table, (lua_Integer)at);
    pack_value(L, out, lua_gettop(L), depth + 1);
    lua_pop(L, 1);
  }
}

// A table whose metatable says what it is; `__iokernel` is on top.
static void put_special(lua_State *L, struct bytes *out, int table, int depth) {
  size_t count;
  if (lua_isfunction(L, -1)) {
    lua_pushvalue(L, table);
    lua_call(L, 1, 2);
    const char *data = luaL_checklstring(L, -1, &count);
    put_ext(L, out, (int)luaL_checkinteger(L, -2), data, count);
    lua_pop(L, 2);
    return;
  }
  const char *kind = lua_tostring(L, -1);
  if (!strcmp(kind, "null")) {
    put_head(L, out, 0xc0, 0, 0);
  } else if (!strcmp(kind, "map")) {
    put_map(L, out, table, count_pairs(L, table), depth);
  } else {
    lua_rawgeti(L, table, 1);
    const char *data = luaL_checklstring(L, -1, &count);
    put_sized(L, out, data, count, 0xc4);
    lua_pop(L, 1);
  }
  lua_pop(L, 1);
}

static void put_table(lua_State *L, struct bytes *out, int table, int depth) {
  if (depth > DEPTH_MAX) fail(L, "nested more than %d deep", DEPTH_MAX);
  luaL_checkstack(L, 8, "nested too deep");
  if (luaL_getmetafield(L, table, "__iokernel") != LUA_TNIL)
    put_special(L, out, table, depth);
  else
    put_list_or_map(L, out, table, depth);
}

void pack_value(lua_State *L, struct bytes *out, int index, int depth) {
  size_t count;
  const char *text;
  switch (lua_type(L, index)) {
  case LUA_TSTRING:
    text = lua_tolstring(L, index, &count);
    put_text(L, out, text, count);
    return;
  case LUA_TNUMBER:
    put_number(L, out, index);
    return;
  case LUA_TBOOLEAN:
    put_head(L, out, lua_toboolean(L, index) ? 0xc3 : 0xc2, 0, 0);
    return;
  case LUA_TTABLE:
    put_table(L, out, index, depth);
    return;
  case LUA_TLIGHTUSERDATA: // The null of cjson and others.
    if (lua_touserdata(L, index)) break;
    // fall through
  case LUA_TNIL:
    put_head(L, out, 0xc0, 0, 0);
    return;
  }
  fail(L, "%s: expected nil, a boolean, number, string or table", luaL_typename(L, index));
}

// Decoding

struct reader {
  const unsigned char *at, *end;
};

static int take(struct reader *from, int bytes, uint64_t *value) {
  if (from->end - from->at < bytes) return 0;
  *value = 0;
  while (bytes--) *value = *value << 8 | *from->at++;
  return 1;
}

static int push_text(lua_State *L, struct reader *from, uint64_t count) {
  if ((uint64_t)(from->end - from->at) < count) return 0;
  lua_pushlstring(L, (const char *)from->at, (size_t)count);
  from->at += count;
  return 1;
}

static int push_any(lua_State *L, struct reader *from, int depth);

// As `push_any`; a nil is pushed as what stands for it inside of others.
static int push_inner(lua_State *L, struct reader *from, int depth) {
  if (!push_any(L, from, depth)) return 0;
  if (lua_isnil(L, -1)) {
    lua_pop(L, 1);
    lua_rawgetp(L, LUA_REGISTRYINDEX, &NULL_KEY);
  }
  return 1;
}

static int push_list(lua_State *L, struct reader *from, uint64_t count, int depth) {
  if (depth > DEPTH_MAX || count > (uint64_t)(from->end - from->at) || !lua_checkstack(L, 8)) return 0;
  lua_createtable(L, (int)count, 0);
  for (uint64_t at = 1; at <= count; at++) {
    if (!push_inner(L, from, depth + 1)) return 0;
    lua_rawseti(L, -2, (lua_Integer)at);
  }
  return 1;
}

static int push_map(lua_State *L, struct reader *from, uint64_t count, int depth) {
  if (depth > DEPTH_MAX || count > (uint64_t)(from->end - from->at) || !lua_checkstack(L, 8)) return 0;
  lua_createtable(L, 0, (int)count);
  for (uint64_t at = 0; at < count; at++) {
    if (!push_inner(L, from, depth + 1) || !push_inner(L, from, depth + 1)) return 0;
    int is_nan = lua_isnumber(L, -2) && lua_tonumber(L, -2) != lua_tonumber(L, -2);
    if (is_nan) lua_pop(L, 2);
    else lua_rawset(L, -3);
  }
  int looks_like_list = count == 0 || lua_rawgeti(L, -1, 1) != LUA_TNIL;
  if (count) lua_pop(L, 1);
  if (looks_like_list) {
    lua_rawgetp(L, LUA_REGISTRYINDEX, &MAP_KEY);
    lua_setmetatable(L, -2);
  }
  return 1;
}

static int push_ext(lua_State *L, struct reader *from, uint64_t count) {
  uint64_t type;
  if (!take(from, 1, &type) || !lua_checkstack(L, 8)) return 0;
  lua_rawgetp(L, LUA_REGISTRYINDEX, &EXT_KEY);
  lua_pushinteger(L, (int8_t)type);
  if (!push_text(L, from, count)) return 0;
  lua_call(L, 2, 1);
  return 1;
}

static int push_float(lua_State *L, uint64_t bits, int bytes) {
  double number;
  float small;
  uint32_t half = (uint32_t)bits;
  if (bytes == 8) {
    memcpy(&number, &bits, sizeof number);
  } else {
    memcpy(&small, &half, sizeof small);
    number = (double)small;
  }
  lua_pushnumber(L, number);
  return 1;
}

// An unsigned number that is too large for an integer is given to the function for exts, as decimal text.
static int push_unsigned(lua_State *L, uint64_t value) {
  if (value <= INT64_MAX) {
    lua_pushinteger(L, (lua_Integer)value);
    return 1;
  }
  char digits[24];
  int count = snprintf(digits, sizeof digits, "%llu", (unsigned long long)value);
  lua_rawgetp(L, LUA_REGISTRYINDEX, &EXT_KEY);
  lua_pushinteger(L, IOK_EXT_BIG_NUMBER);
  lua_pushlstring(L, digits, (size_t)count);
  lua_call(L, 2, 1);
  return 1;
}

static int push_signed(lua_State *L, uint64_t value, int bytes) {
  int unused = 64 - 8 * bytes;
  lua_pushinteger(L, (lua_Integer)(int64_t)(value << unused) >> unused);
  return 1;
}

static int push_typed(lua_State *L, struct reader *from, int type, int depth) {
  uint64_t value = 0;
  int sized = type >= 0xc4 && type <= 0xc9 ? 1 << ((type - 0xc4) % 3) : 0;
  if (sized && !take(from, sized, &value)) return 0;
  switch (type) {
  case 0xc0: lua_pushnil(L); return 1;
  case 0xc2: case 0xc3: lua_pushboolean(L, type == 0xc3); return 1;
  case 0xc4: case 0xc5: case 0xc6: return push_text(L, from, value);
  case 0xc7: case 0xc8: case 0xc9: return push_ext(L, from, value);
  case 0xca: case 0xcb: return take(from, 4 << (type - 0xca), &value) && push_float(L, value, 4 << (type - 0xca));
  case 0xcc: case 0xcd: case 0xce: case 0xcf: return take(from, 1 << (type - 0xcc), &value) && push_unsigned(L, value);
  case 0xd0: case 0xd1: case 0xd2: case 0xd3:
    return take(from, 1 << (type - 0xd0), &value) && push_signed(L, value, 1 << (type - 0xd0));
  case 0xd4: case 0xd5: case 0xd6: case 0xd7: case 0xd8: return push_ext(L, from, 1u << (type - 0xd4));
  case 0xd9: case 0xda: case 0xdb: return take(from, 1 << (type - 0xd9), &value) && push_text(L, from, value);
  case 0xdc: case 0xdd: return take(from, 2 << (type - 0xdc), &value) && push_list(L, from, value, depth);
  case 0xde: case 0xdf: return take(from, 2 << (type - 0xde), &value) && push_map(L, from, value, depth);
  default: return 0;
  }
}

static int push_any(lua_State *L, struct reader *from, int depth) {
  if (from->at == from->end) return 0;
  int type = *from->at++;
  if (type < 0x80 || type >= 0xe0) {
    lua_pushinteger(L, (int8_t)type);
    return 1;
  }
  if (type < 0x90) return push_map(L, from, type & 15, depth);
  if (type < 0xa0) return push_list(L, from, type & 15, depth);
  if (type < 0xc0) return push_text(L, from, type & 31);
  return push_typed(L, from, type, depth);
}

int unpack_value(lua_State *L, const unsigned char *data, size_t bytes) {
  struct reader from = {data, data + bytes};
  int top = lua_gettop(L);
  if (push_any(L, &from, 0) && from.at == from.end) return 1;
  lua_settop(L, top);
  return 0;
}

int push_payload(lua_State *L, int encoding, const unsigned char *data, size_t bytes) {
  if (encoding == IOK_ENCODING_MSGPACK) return unpack_value(L, data, bytes);
  if (encoding == IOK_ENCODING_NONE)
    lua_pushnil(L);
  else
    lua_pushlstring(L, (const char *)data, bytes);
  return 1;
}

// pack(value): its MessagePack.
static int core_pack(lua_State *L) {
  struct bytes *out = lua_newuserdata(L, sizeof *out);
  *out = (struct bytes){0};
  luaL_setmetatable(L, "iokernel.bytes");
  luaL_checkany(L, 1);
  pack_value(L, out, 1, 0);
  lua_pushlstring(L, (const char *)out->at, out->count);
  bytes_free(out);
  return 1;
}

static int bytes_gc(lua_State *L) {
  bytes_free(lua_touserdata(L, 1));
  return 0;
}

// unpack(bytes): the value.
static int core_unpack(lua_State *L) {
  size_t count;
  const char *data = luaL_checklstring(L, 1, &count);
  if (!unpack_value(L, (const unsigned char *)data, count)) return luaL_error(L, "expected one value of MessagePack");
  return 1;
}

// setup{map =, null =, ext =, fail =}: what decoding makes of what Lua has no value for; what raises an error.
static int core_setup(lua_State *L) {
  lua_getfield(L, 1, "map");
  lua_rawsetp(L, LUA_REGISTRYINDEX, &MAP_KEY);
  lua_getfield(L, 1, "null");
  lua_rawsetp(L, LUA_REGISTRYINDEX, &NULL_KEY);
  lua_getfield(L, 1, "ext");
  lua_rawsetp(L, LUA_REGISTRYINDEX, &EXT_KEY);
  lua_getfield(L, 1, "fail");
  lua_rawsetp(L, LUA_REGISTRYINDEX, &FAIL_KEY);
  return 0;
}

void open_codec(lua_State *L) {
  static const luaL_Reg functions[] = {
      {"pack", core_pack},
      {"unpack", core_unpack},
      {"setup", core_setup},
      {NULL, NULL},
  };
  luaL_setfuncs(L, functions, 0);
  luaL_newmetatable(L, "iokernel.bytes");
  lua_pushcfunction(L, bytes_gc);
  lua_setfield(L, -2, "__gc");
  lua_pop(L, 1);
}
