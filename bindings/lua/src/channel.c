// A channel: submissions gathered for one call, completions taken one by one from the run that the ring shows.
#include "core.h"

#include <stdlib.h>
#include <string.h>

// The upper half of the tags of this binding, as in core_ffi.lua. A listener's requests have tags of the kernel's.
#define OWN_TAG 0x80000000u
// What is kept of a buffer that has grown for one large message.
#define KEPT_BYTES (1u << 20)

static struct channel *check_channel(lua_State *L) { return luaL_checkudata(L, 1, CHANNEL_TYPE); }

static struct channel *usable(lua_State *L) {
  struct channel *channel = check_channel(L);
  if (!channel->handle) luaL_error(L, "the channel is closed");
  return channel;
}

static size_t aligned(size_t bytes) { return (bytes + 7) & ~(size_t)7; }

// channel_open(kernel, config, record_max): a channel, or nil and a status.
static int core_channel_open(lua_State *L) {
  iok_kernel *kernel = to_kernel(L, 1);
  const char *config = luaL_checkstring(L, 2);
  struct channel *channel = lua_newuserdata(L, sizeof *channel);
  *channel = (struct channel){.record_max = (size_t)luaL_checkinteger(L, 3)};
  luaL_setmetatable(L, CHANNEL_TYPE);
  iok_status status = iok.iok_channel_open(kernel, config, &channel->handle);
  if (!status) return 1;
  lua_pushnil(L);
  lua_pushinteger(L, status);
  return 2;
}

// Submitting

// The bytes of a head: its place, at which the payload follows.
static size_t begin(lua_State *L, struct channel *channel) {
  size_t start = channel->out.count;
  memset(bytes_more(L, &channel->out, IOK_SUBMISSION_BYTES), 0, IOK_SUBMISSION_BYTES);
  return start;
}

// op, flags, endpoint, timeout_ms, hi, lo, key: arguments 2 to 8.
static iok_submission head_of(lua_State *L, const struct channel *channel) {
  return (iok_submission){
      .op = (uint16_t)lua_tointeger(L, 2),
      .flags = (uint16_t)lua_tointeger(L, 3),
      .endpoint = (uint32_t)lua_tointeger(L, 4),
      .timeout_ms = (uint32_t)lua_tointeger(L, 5),
      .tag = (uint64_t)lua_tointeger(L, 6) << 32 | (uint32_t)lua_tointeger(L, 7),
      .key = (uint64_t)lua_tointeger(L, 8),
      .marker = channel->marker,
  };
}

// Cuts the message at `start` into records of `record_max`, the last piece first, so that nothing is overwritten.
static void cut(lua_State *L, struct channel *channel, size_t start, iok_submission head, size_t payload) {
  size_t step = channel->record_max - IOK_SUBMISSION_BYTES, pieces = (payload + step - 1) / step;
  bytes_more(L, &channel->out, (pieces - 1) * IOK_SUBMISSION_BYTES);
  unsigned char *first = channel->out.at + start;
  for (size_t piece = pieces; piece-- > 0;) {
    size_t bytes = piece + 1 < pieces ? step : payload - piece * step;
    unsigned char *place = first + piece * channel->record_max;
    memmove(place + IOK_SUBMISSION_BYTES, first + IOK_SUBMISSION_BYTES + piece * step, bytes);
    iok_submission one = head;
    one.size = (uint32_t)(IOK_SUBMISSION_BYTES + bytes);
    one.flags = (uint16_t)(head.flags | (piece + 1 < pieces ? IOK_FLAG_MORE : 0));
    one.bytes_total = piece ? 0 : (uint32_t)payload;
    memcpy(place, &one, sizeof one);
  }
}

// The message that began at `start` is complete. Until here an error has left nothing behind: see `room`.
static int finish(lua_State *L, struct channel *channel, size_t start) {
  iok_submission head = head_of(L, channel);
  size_t size = channel->out.count - start;
  if (size <= channel->record_max) {
    head.size = (uint32_t)size;
    memcpy(channel->out.at + start, &head, sizeof head);
  } else {
    cut(L, channel, start, head, size - IOK_SUBMISSION_BYTES);
  }
  bytes_more(L, &channel->out, aligned(channel->out.count) - channel->out.count);
  channel->queued = channel->out.count;
  lua_pushinteger(L, (lua_Integer)(channel->queued - channel->taken));
  return 1;
}

// A channel to queue in, rid of what a value that could not be packed has left.
static struct channel *room(lua_State *L) {
  struct channel *channel = usable(L);
  channel->out.count = channel->queued;
  return channel;
}

// put(op, flags, endpoint, timeout_ms, hi, lo, key, ...): queues a request of these arguments. Returns how many bytes
// are queued.
static int channel_put(lua_State *L) {
  struct channel *channel = room(L);
  int top = lua_gettop(L);
  size_t start = begin(L, channel);
  pack_array_head(L, &channel->out, (size_t)(top - 8));
  for (int index = 9; index <= top; index++) pack_value(L, &channel->out, index, 1);
  return finish(L, channel, start);
}

// put_value(op, flags, endpoint, timeout_ms, hi, lo, key, value): its payload is one value.
static int channel_put_value(lua_State *L) {
  struct channel *channel = room(L);
  size_t start = begin(L, channel);
  lua_settop(L, 9);
  pack_value(L, &channel->out, 9, 0);
  return finish(L, channel, start);
}

// put_bytes(op, flags, endpoint, timeout_ms, hi, lo, key, payload): its payload are these bytes.
static int channel_put_bytes(lua_State *L) {
  struct channel *channel = room(L);
  size_t start = begin(L, channel), count;
  const char *payload = luaL_checklstring(L, 9, &count);
  memcpy(bytes_more(L, &channel->out, count), payload, count);
  return finish(L, channel, start);
}

// What was queued is submitted, or of no use any more.
static void emptied(struct channel *channel) {
  channel->taken = channel->queued = channel->out.count = 0;
  if (channel->out.room > KEPT_BYTES) bytes_free(&channel->out);
}

// Passes over the message that was not taken. Pushes its tag's halves and its endpoint.
static int refused(lua_State *L, struct channel *channel) {
  iok_submission head;
  memcpy(&head, channel->out.at + channel->taken, sizeof head);
  iok_submission piece = head;
  do {
    memcpy(&piece, channel->out.at + channel->taken, sizeof piece);
    channel->taken += aligned(piece.size);
  } while (piece.flags & IOK_FLAG_MORE && channel->taken < channel->queued);
  lua_pushinteger(L, (lua_Integer)(head.tag >> 32));
  lua_pushinteger(L, (lua_Integer)(head.tag & UINT32_MAX));
  lua_pushinteger(L, head.endpoint);
  return 4;
}

// flush(): submits what is queued, as much as fits. A status; where a message is too large, also what it was: its
// tag's halves and its endpoint. What follows it is submitted by the next call.
static int channel_flush(lua_State *L) {
  struct channel *channel = usable(L);
  size_t taken = 0;
  if (channel->taken == channel->queued) {
    lua_pushinteger(L, 0);
    return 1;
  }
  iok_status status = iok.iok_submit_batch(channel->handle, channel->out.at + channel->taken,
                                           channel->queued - channel->taken, &taken);
  channel->taken += taken;
  if (status == IOK_STATUS_OK) emptied(channel);
  lua_pushinteger(L, status);
  return status == IOK_STATUS_TOO_LARGE ? refused(L, channel) : 1;
}

// unsent(): bytes that are queued.
static int channel_unsent(lua_State *L) {
  struct channel *channel = check_channel(L);
  lua_pushinteger(L, (lua_Integer)(channel->queued - channel->taken));
  return 1;
}

// Completing

// wait(timeout_ms): sleeps until something has completed. A status.
static int channel_wait(lua_State *L) {
  struct channel *channel = usable(L);
  lua_pushinteger(L, iok.iok_wait(channel->handle, (int32_t)luaL_checkinteger(L, 2)));
  return 1;
}

// The next record of the run, or of the next run; NULL if there is none.
static const unsigned char *next_record(struct channel *channel) {
  if (channel->run_at == channel->run_bytes) {
    const iok_completion *first = NULL;
    if (channel->run) iok.iok_advance(channel->handle, channel->run_bytes);
    size_t count = iok.iok_poll(channel->handle, &first, &channel->run_bytes);
    channel->run = count ? (const unsigned char *)first : NULL;
    channel->run_at = 0;
    if (!count) {
      channel->run_bytes = 0;
      return NULL;
    }
  }
  const unsigned char *record = channel->run + channel->run_at;
  memcpy(&channel->last, record, sizeof channel->last);
  channel->run_at += aligned(channel->last.size);
  return record;
}

static struct assembly **find_assembly(struct channel *channel, uint64_t tag) {
  struct assembly **at = &channel->assemblies;
  while (*at && (*at)->tag != tag) at = &(*at)->next;
  return at;
}

static struct assembly *assemble(lua_State *L, struct channel *channel, const unsigned char *data, size_t bytes) {
  struct assembly **at = find_assembly(channel, channel->last.tag);
  if (!*at) {
    struct assembly *made = calloc(1, sizeof *made);
    if (!made) luaL_error(L, "not enough memory");
    made->tag = channel->last.tag;
    *at = made;
    bytes_more(L, &made->bytes, channel->last.bytes_total);
    made->bytes.count = 0;
  }
  memcpy(bytes_more(L, &(*at)->bytes, bytes), data, bytes);
  return *at;
}

static void drop_assembly(struct channel *channel, uint64_t tag) {
  struct assembly **at = find_assembly(channel, tag), *gone = *at;
  *at = gone->next;
  bytes_free(&gone->bytes);
  free(gone);
}

// Pushes what `next` gives of the record at hand.
static int push_completion(lua_State *L, struct channel *channel, const unsigned char *payload, size_t bytes) {
  const iok_completion *last = &channel->last;
  int is_own = last->tag >> 32 == OWN_TAG;
  lua_pushinteger(L, is_own ? last->kind : -last->kind);
  lua_pushinteger(L, (lua_Integer)(last->tag & UINT32_MAX));
  lua_pushinteger(L, last->status);
  if (push_payload(L, last->encoding, payload, bytes)) return 4;
  lua_pushinteger(L, IOK_STATUS_PROTOCOL);
  lua_replace(L, -2);
  lua_pushnil(L);
  return 4;
}

// next(): the next completion: its kind (negative where the tag is the kernel's own), the lower half of its tag, its
// status, its value. Nothing if there is none.
static int channel_next(lua_State *L) {
  struct channel *channel = check_channel(L);
  const unsigned char *record;
  while (channel->handle && (record = next_record(channel))) {
    const unsigned char *payload = record + IOK_COMPLETION_BYTES;
    size_t bytes = channel->last.size - IOK_COMPLETION_BYTES;
    if (channel->last.kind == IOK_KIND_TICK) continue;
    int has_more = channel->last.flags & IOK_FLAG_MORE;
    if (!has_more && !channel->assemblies) return push_completion(L, channel, payload, bytes);
    if (!has_more && !*find_assembly(channel, channel->last.tag)) return push_completion(L, channel, payload, bytes);
    struct assembly *whole = assemble(L, channel, payload, bytes);
    if (has_more) continue;
    uint64_t tag = channel->last.tag;
    int count = push_completion(L, channel, whole->bytes.at, whole->bytes.count);
    drop_assembly(channel, tag);
    return count;
  }
  return 0;
}

// detail(): of the last completion: the upper half of its tag, its endpoint, peer, fate and payload bytes.
static int channel_detail(lua_State *L) {
  const iok_completion *last = &check_channel(L)->last;
  lua_pushinteger(L, (lua_Integer)(last->tag >> 32));
  lua_pushinteger(L, last->endpoint);
  lua_pushinteger(L, last->peer);
  lua_pushinteger(L, last->fate);
  lua_pushinteger(L, last->bytes_total ? last->bytes_total : last->size - IOK_COMPLETION_BYTES);
  return 5;
}

static int channel_fd(lua_State *L) {
  struct channel *channel = check_channel(L);
  lua_pushinteger(L, channel->handle ? iok.iok_channel_fd(channel->handle) : -1);
  return 1;
}

static int channel_status(lua_State *L) {
  struct channel *channel = check_channel(L);
  lua_pushinteger(L, channel->handle ? iok.iok_channel_status(channel->handle) : IOK_STATUS_CLOSED);
  return 1;
}

static int channel_set_marker(lua_State *L) {
  check_channel(L)->marker = (uint32_t)luaL_checkinteger(L, 2);
  return 0;
}

static int channel_close(lua_State *L) {
  struct channel *channel = check_channel(L);
  if (channel->handle) iok.iok_channel_close(channel->handle);
  while (channel->assemblies) drop_assembly(channel, channel->assemblies->tag);
  bytes_free(&channel->out);
  *channel = (struct channel){0};
  return 0;
}

void open_channel(lua_State *L) {
  static const luaL_Reg functions[] = {{"channel_open", core_channel_open}, {NULL, NULL}};
  static const luaL_Reg methods[] = {
      {"put", channel_put},
      {"put_value", channel_put_value},
      {"put_bytes", channel_put_bytes},
      {"flush", channel_flush},
      {"unsent", channel_unsent},
      {"wait", channel_wait},
      {"next", channel_next},
      {"detail", channel_detail},
      {"fd", channel_fd},
      {"status", channel_status},
      {"set_marker", channel_set_marker},
      {"close", channel_close},
      {"__gc", channel_close},
      {NULL, NULL},
  };
  luaL_setfuncs(L, functions, 0);
  luaL_newmetatable(L, CHANNEL_TYPE);
  luaL_setfuncs(L, methods, 0);
  lua_pushvalue(L, -1);
  lua_setfield(L, -2, "__index");
  lua_pop(L, 1);
}
