/* Channels: the rings of one environment, and the descriptor that its loop watches.
 *
 * Script submits a batch with one call, and takes a run with one call. The loop watches the descriptor by uv_poll, and
 * calls the script when it is readable; the watch keeps the loop alive only while the script says so.
 */
#include "addon.h"

#include <stdlib.h>
#include <string.h>
#include <uv.h>

typedef struct channel {
    napi_env env;
    iok_channel *handle;
    iok_status status;
    uv_poll_t *watch;
    bool kept;
    napi_ref script;
    napi_async_context context;
    napi_async_cleanup_hook_handle cleanup;
    bool collected;
} channel;

/* The loop has let the watch go: nothing calls the script any more. */
static void unwatched(uv_handle_t *watch) {
    channel *one = uv_handle_get_data(watch);
    free(watch);
    one->watch = NULL;
    napi_delete_reference(one->env, one->script);
    napi_async_destroy(one->env, one->context);
    napi_remove_async_cleanup_hook(one->cleanup);
    if (one->collected) free(one);
}

/* The rings go at once, the watch at the end of the loop's turn. */
static void end(channel *one) {
    if (!one->handle) return;
    uv_poll_stop(one->watch);
    iok.channel_close(one->handle);
    one->handle = NULL;
    uv_close((uv_handle_t *)one->watch, unwatched);
}

/* The environment ends, and waits until the hook is removed. */
static void clean(napi_async_cleanup_hook_handle hook, void *data) {
    (void)hook;
    end(data);
}

/* The script has let the channel go, which it does after closing it. */
static void finalize(napi_env env, void *data, void *hint) {
    channel *one = data;
    (void)env, (void)hint;
    if (!one->watch) free(one);
    else one->collected = true;
}

static void readable(uv_poll_t *watch, int status, int events) {
    channel *one = uv_handle_get_data((uv_handle_t *)watch);
    napi_env env = one->env;
    napi_handle_scope scope = NULL;
    (void)status, (void)events;
    if (napi_open_handle_scope(env, &scope) != napi_ok) return;
    napi_value script = NULL, receiver = NULL, error = NULL;
    bool threw = false;
    napi_get_reference_value(env, one->script, &script);
    napi_get_global(env, &receiver);
    napi_make_callback(env, one->context, receiver, script, 0, NULL, NULL);
    if (napi_is_exception_pending(env, &threw) == napi_ok && threw) {
        napi_get_and_clear_last_exception(env, &error);
        napi_fatal_exception(env, error);
    }
    napi_close_handle_scope(env, scope);
}

/* The descriptor is watched from the beginning, and keeps no loop alive until the script asks for it. */
static bool watch(channel *one, uv_loop_t *loop) {
    one->watch = calloc(1, uv_handle_size(UV_POLL));
    if (!one->watch) return false;
    if (uv_poll_init(loop, one->watch, iok.channel_fd(one->handle))) {
        free(one->watch);
        one->watch = NULL;
        return false;
    }
    uv_handle_set_data((uv_handle_t *)one->watch, one);
    uv_unref((uv_handle_t *)one->watch);
    uv_poll_start(one->watch, UV_READABLE, readable);
    return true;
}

/* channelOpen(kernel, config, readable): the channel, or a status. */
static napi_value channel_open(napi_env env, napi_callback_info info) {
    ARGUMENTS(3);
    uv_loop_t *loop = NULL;
    channel *one = calloc(1, sizeof *one);
    char *config = addon_to_text(env, argument[1]);
    if (!one || !config || napi_get_uv_event_loop(env, &loop) != napi_ok) return NULL;
    one->env = env;
    iok_status status = iok.channel_open(addon_to_pointer(env, argument[0]), config, &one->handle);
    free(config);
    if (!status && !watch(one, loop)) {
        iok.channel_close(one->handle);
        status = IOK_STATUS_SYSTEM;
    }
    if (status) {
        free(one);
        return addon_number(env, status);
    }
    napi_value out = NULL;
    napi_create_reference(env, argument[2], 1, &one->script);
    napi_async_init(env, NULL, addon_text(env, "IOKernelChannel"), &one->context);
    napi_add_async_cleanup_hook(env, clean, one, &one->cleanup);
    napi_create_external(env, one, finalize, NULL, &out);
    return out;
}

/* channelClose(channel) */
static napi_value channel_close(napi_env env, napi_callback_info info) {
    ARGUMENTS(1);
    end(addon_to_external(env, argument[0]));
    return NULL;
}

static void keep(channel *one, bool kept) {
    if (one->kept == kept || !one->handle) return;
    one->kept = kept;
    (kept ? uv_ref : uv_unref)((uv_handle_t *)one->watch);
}

/* keep(channel, kept): whether it keeps the loop alive. */
static napi_value set_kept(napi_env env, napi_callback_info info) {
    ARGUMENTS(2);
    bool kept = false;
    napi_get_value_bool(env, argument[1], &kept);
    keep(addon_to_external(env, argument[0]), kept);
    return NULL;
}

/* submit(channel, records, start, end, kept): how many bytes were taken. `status` says why not all were. */
static napi_value submit(napi_env env, napi_callback_info info) {
    ARGUMENTS(5);
    channel *one = addon_to_external(env, argument[0]);
    uint8_t *records = NULL;
    uint32_t start = 0, stop = 0;
    size_t length = 0, taken = 0;
    bool kept = false;
    napi_get_buffer_info(env, argument[1], (void **)&records, &length);
    napi_get_value_uint32(env, argument[2], &start);
    napi_get_value_uint32(env, argument[3], &stop);
    napi_get_value_bool(env, argument[4], &kept);
    if (stop > length || start > stop) return addon_number(env, 0);
    one->status = iok.submit_batch(one->handle, records + start, stop - start, &taken);
    keep(one, kept);
    return addon_number(env, (double)taken);
}

/* The whole records at the beginning of a run that fit into `room` bytes; at least the size of the first one. */
static size_t whole_records(const uint8_t *run, size_t bytes, size_t room) {
    size_t at = 0;
    while (at < bytes) {
        const iok_completion *record = (const iok_completion *)(const void *)(run + at);
        size_t next = at + (((size_t)record->size + 7) & ~(size_t)7);
        if (next > room && at > 0) break;
        at = next;
        if (at > room) break;
    }
    return at;
}

/* drain(channel, slab, position): copies completions there. How many bytes; -1: the channel has ended; below that: so
 * many are needed for one. */
static napi_value drain(napi_env env, napi_callback_info info) {
    ARGUMENTS(3);
    channel *one = addon_to_external(env, argument[0]);
    const iok_completion *first = NULL;
    size_t bytes = 0, length = 0;
    uint8_t *slab = NULL;
    uint32_t position = 0;
    if (!one->handle) return addon_number(env, -1);
    if (!iok.poll(one->handle, &first, &bytes)) return addon_number(env, iok.channel_status(one->handle) ? -1 : 0);
    napi_get_buffer_info(env, argument[1], (void **)&slab, &length);
    napi_get_value_uint32(env, argument[2], &position);
    size_t room = position < length ? length - position : 0;
    size_t fits = bytes <= room ? bytes : whole_records((const uint8_t *)first, bytes, room);
    if (fits > room) return addon_number(env, -(double)fits);
    memcpy(slab + position, first, fits);
    iok.advance(one->handle, fits);
    return addon_number(env, (double)fits);
}

/* wait(channel, timeout_ms): blocks this thread. A status. */
static napi_value wait(napi_env env, napi_callback_info info) {
    ARGUMENTS(2);
    channel *one = addon_to_external(env, argument[0]);
    int32_t timeout_ms = 0;
    napi_get_value_int32(env, argument[1], &timeout_ms);
    return addon_number(env, iok.wait(one->handle, timeout_ms));
}

/* refused(channel): why the last submission was not taken as a whole. */
static napi_value refused(napi_env env, napi_callback_info info) {
    ARGUMENTS(1);
    channel *one = addon_to_external(env, argument[0]);
    return addon_number(env, one->status);
}

/* status(channel): what ended it, or OK. */
static napi_value status(napi_env env, napi_callback_info info) {
    ARGUMENTS(1);
    channel *one = addon_to_external(env, argument[0]);
    return addon_number(env, one->handle ? iok.channel_status(one->handle) : IOK_STATUS_CLOSED);
}

void addon_channel(napi_env env, napi_value exports) {
    static const export_entry entries[] = {
        {"channelOpen", channel_open},
        {"channelClose", channel_close},
        {"keep", set_kept},
        {"submit", submit},
        {"drain", drain},
        {"wait", wait},
        {"refused", refused},
        {"channelStatus", status},
    };
    addon_export(env, exports, entries, sizeof entries / sizeof *entries);
}
