/* The module: loads the library, and says what the statuses mean. Nothing here waits, or knows of records. */
#include "addon.h"

#include <dlfcn.h>
#include <pthread.h>
#include <stdlib.h>

library iok;

static pthread_mutex_t loading = PTHREAD_MUTEX_INITIALIZER;

napi_value addon_number(napi_env env, double value) {
    napi_value out = NULL;
    napi_create_double(env, value, &out);
    return out;
}

napi_value addon_text(napi_env env, const char *text) {
    napi_value out = NULL;
    napi_create_string_utf8(env, text ? text : "", NAPI_AUTO_LENGTH, &out);
    return out;
}

/* Pointers travel as BigInts, so that workers can be given them. */
napi_value addon_pointer(napi_env env, const void *pointer) {
    napi_value out = NULL;
    napi_create_bigint_uint64(env, (uint64_t)(uintptr_t)pointer, &out);
    return out;
}

void *addon_to_pointer(napi_env env, napi_value value) {
    uint64_t word = 0;
    bool lossless = false;
    napi_get_value_bigint_uint64(env, value, &word, &lossless);
    return (void *)(uintptr_t)word;
}

void *addon_to_external(napi_env env, napi_value value) {
    void *data = NULL;
    napi_get_value_external(env, value, &data);
    return data;
}

char *addon_to_text(napi_env env, napi_value value) {
    size_t length = 0;
    if (napi_get_value_string_utf8(env, value, NULL, 0, &length) != napi_ok) {
        napi_throw_type_error(env, NULL, "expected a string");
        return NULL;
    }
    char *text = malloc(length + 1);
    if (text) napi_get_value_string_utf8(env, value, text, length + 1, &length);
    return text;
}

void addon_export(napi_env env, napi_value exports, const export_entry *entries, size_t count) {
    for (size_t at = 0; at < count; at++) {
        napi_value function = NULL;
        napi_create_function(env, entries[at].name, NAPI_AUTO_LENGTH, entries[at].function, NULL, &function);
        napi_set_named_property(env, exports, entries[at].name, function);
    }
}

/* NULL, or what is wrong. The library is never unloaded: its I/O threads run in it. */
static const char *find_functions(const char *path) {
    void *handle = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    if (!handle) return dlerror();
#define FIND(name) \
    if (!(iok.name = (__typeof__(iok.name))dlsym(handle, "iok_" #name))) return "iok_" #name " is missing";
    LIBRARY_FUNCTIONS(FIND)
#undef FIND
    return NULL;
}

/* load(path): the version of the library's ABI, or the text of what is wrong. */
static napi_value load(napi_env env, napi_callback_info info) {
    ARGUMENTS(1);
    char *path = addon_to_text(env, argument[0]);
    if (!path) return NULL;
    pthread_mutex_lock(&loading);
    const char *wrong = iok.stack_close ? NULL : find_functions(path);
    napi_value out = wrong ? addon_text(env, wrong) : addon_number(env, iok.abi_version());
    pthread_mutex_unlock(&loading);
    free(path);
    return out;
}

static int32_t to_status(napi_env env, napi_callback_info info) {
    ARGUMENTS(1);
    int32_t status = 0;
    napi_get_value_int32(env, argument[0], &status);
    return status;
}

static napi_value status_name(napi_env env, napi_callback_info info) {
    return addon_text(env, iok.status_name(to_status(env, info)));
}

static napi_value status_text(napi_env env, napi_callback_info info) {
    return addon_text(env, iok.status_text(to_status(env, info)));
}

static napi_value status_retriable(napi_env env, napi_callback_info info) {
    napi_value out = NULL;
    napi_get_boolean(env, iok.status_retriable(to_status(env, info)), &out);
    return out;
}

static napi_value last_error(napi_env env, napi_callback_info info) {
    (void)info;
    return addon_text(env, iok.last_error());
}

NAPI_MODULE_INIT() {
    static const export_entry entries[] = {
        {"load", load},
        {"statusName", status_name},
        {"statusText", status_text},
        {"statusRetriable", status_retriable},
        {"lastError", last_error},
    };
    addon_export(env, exports, entries, sizeof entries / sizeof *entries);
    addon_kernel(env, exports);
    addon_channel(env, exports);
    addon_cells(env, exports);
    addon_markers(env, exports);
    addon_stack(env, exports);
    return exports;
}
