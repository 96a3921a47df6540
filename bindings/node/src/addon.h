/* What the files of the addon share. One environment of Node (a main thread, or a worker) has one `addon`. */
#ifndef IOKERNEL_ADDON_H
#define IOKERNEL_ADDON_H

#define NAPI_VERSION 8
#include <node_api.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "iokernel.h"

/* The functions of the library, looked up by name in the one that was loaded. */
#define LIBRARY_FUNCTIONS(F) \
    F(abi_version) F(kernel_open) F(kernel_close) F(channel_open) F(channel_close) F(channel_fd) F(channel_status) \
    F(submit_batch) F(poll) F(advance) F(wait) F(status_name) F(status_text) F(status_retriable) F(last_error) \
    F(cells) F(marker_slot) F(stack_open) F(stack_arm) F(stack_close)

#define DECLARE(name) __typeof__(iok_##name) *name;
typedef struct library { LIBRARY_FUNCTIONS(DECLARE) } library;
#undef DECLARE

extern library iok;

#define ARGUMENTS(count) \
    napi_value argument[count]; \
    size_t argument_count = count; \
    napi_get_cb_info(env, info, &argument_count, argument, NULL, NULL)

napi_value addon_number(napi_env env, double value);
napi_value addon_text(napi_env env, const char *text);
napi_value addon_pointer(napi_env env, const void *pointer);
void *addon_to_pointer(napi_env env, napi_value value);
void *addon_to_external(napi_env env, napi_value value);
/* A copy that the caller frees. NULL, and an exception, if it is no text. */
char *addon_to_text(napi_env env, napi_value value);

/* Each file's functions, added to `exports`. */
void addon_kernel(napi_env env, napi_value exports);
void addon_channel(napi_env env, napi_value exports);
void addon_cells(napi_env env, napi_value exports);
void addon_markers(napi_env env, napi_value exports);
void addon_stack(napi_env env, napi_value exports);

typedef struct export_entry {
    const char *name;
    napi_callback function;
} export_entry;

void addon_export(napi_env env, napi_value exports, const export_entry *entries, size_t count);

#endif
