/* Kernels: opened at once; closed on a thread of libuv's pool, since closing waits. */
#include "addon.h"

#include <stdlib.h>

/* What is left of an environment's kernels when it ends, as by `worker.terminate()`, is closed. */
static void clean(void *kernel) {
    iok.kernel_close(kernel, 0);
}

/* kernelOpen(config): its handle, or a status. */
static napi_value kernel_open(napi_env env, napi_callback_info info) {
    ARGUMENTS(1);
    char *config = addon_to_text(env, argument[0]);
    if (!config) return NULL;
    iok_kernel *kernel = NULL;
    iok_status status = iok.kernel_open(config, &kernel);
    free(config);
    if (status) return addon_number(env, status);
    napi_add_env_cleanup_hook(env, clean, kernel);
    return addon_pointer(env, kernel);
}

typedef struct closing {
    iok_kernel *kernel;
    uint32_t drain_ms;
    iok_status status;
    napi_deferred deferred;
    napi_async_work work;
} closing;

static void close_it(napi_env env, void *data) {
    (void)env;
    closing *one = data;
    one->status = iok.kernel_close(one->kernel, one->drain_ms);
}

static void closed(napi_env env, napi_status status, void *data) {
    (void)status;
    closing *one = data;
    napi_resolve_deferred(env, one->deferred, addon_number(env, one->status));
    napi_delete_async_work(env, one->work);
    free(one);
}

/* kernelClose(handle, drain_ms): a promise of a status. */
static napi_value kernel_close(napi_env env, napi_callback_info info) {
    ARGUMENTS(2);
    closing *one = calloc(1, sizeof *one);
    if (!one) return NULL;
    one->kernel = addon_to_pointer(env, argument[0]);
    napi_get_value_uint32(env, argument[1], &one->drain_ms);
    napi_remove_env_cleanup_hook(env, clean, one->kernel);
    napi_value promise = NULL;
    napi_create_promise(env, &one->deferred, &promise);
    napi_create_async_work(env, NULL, addon_text(env, "iokernel.close"), close_it, closed, one, &one->work);
    napi_queue_async_work(env, one->work);
    return promise;
}

/* kernelCloseNow(handle, drain_ms): waits for it. A status. */
static napi_value kernel_close_now(napi_env env, napi_callback_info info) {
    ARGUMENTS(2);
    uint32_t drain_ms = 0;
    iok_kernel *kernel = addon_to_pointer(env, argument[0]);
    napi_get_value_uint32(env, argument[1], &drain_ms);
    napi_remove_env_cleanup_hook(env, clean, kernel);
    return addon_number(env, iok.kernel_close(kernel, drain_ms));
}

void addon_kernel(napi_env env, napi_value exports) {
    static const export_entry entries[] = {
        {"kernelOpen", kernel_open},
        {"kernelClose", kernel_close},
        {"kernelCloseNow", kernel_close_now},
    };
    addon_export(env, exports, entries, sizeof entries / sizeof *entries);
}
