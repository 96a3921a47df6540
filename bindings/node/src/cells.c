/* Cells of shared memory: counted by any thread, one atomic addition each, and read by the I/O thread. */
#include "addon.h"

#include <stdlib.h>
#include <string.h>

/* cells(kernel, spec): their address, or a status. */
static napi_value cells(napi_env env, napi_callback_info info) {
    ARGUMENTS(2);
    char *spec = addon_to_text(env, argument[1]);
    if (!spec) return NULL;
    uint64_t *first = NULL;
    uint32_t count = 0;
    iok_status status = iok.cells(addon_to_pointer(env, argument[0]), spec, &first, &count);
    free(spec);
    if (status) return addon_number(env, status);
    napi_value out = NULL;
    napi_create_external(env, first, NULL, NULL, &out);
    return out;
}

static uint64_t *cell_at(napi_env env, napi_value address, napi_value index) {
    uint32_t at = 0;
    napi_get_value_uint32(env, index, &at);
    return (uint64_t *)addon_to_external(env, address) + at;
}

/* cellCount(cells, index, n): adds a whole number. */
static napi_value cell_count(napi_env env, napi_callback_info info) {
    ARGUMENTS(3);
    int64_t more = 0;
    napi_get_value_int64(env, argument[2], &more);
    __atomic_fetch_add(cell_at(env, argument[0], argument[1]), (uint64_t)more, __ATOMIC_RELAXED);
    return NULL;
}

static double as_number(uint64_t bits) {
    double number = 0;
    memcpy(&number, &bits, sizeof number);
    return number;
}

static uint64_t as_bits(double number) {
    uint64_t bits = 0;
    memcpy(&bits, &number, sizeof bits);
    return bits;
}

/* cellAdd(cells, index, x): adds to the double whose bits the cell holds. */
static napi_value cell_add(napi_env env, napi_callback_info info) {
    ARGUMENTS(3);
    double more = 0;
    napi_get_value_double(env, argument[2], &more);
    uint64_t *place = cell_at(env, argument[0], argument[1]);
    uint64_t before = __atomic_load_n(place, __ATOMIC_RELAXED);
    while (!__atomic_compare_exchange_n(place, &before, as_bits(as_number(before) + more), true, __ATOMIC_RELAXED,
                                        __ATOMIC_RELAXED)) {
    }
    return NULL;
}

/* cellSet(cells, index, x) */
static napi_value cell_set(napi_env env, napi_callback_info info) {
    ARGUMENTS(3);
    double value = 0;
    napi_get_value_double(env, argument[2], &value);
    __atomic_store_n(cell_at(env, argument[0], argument[1]), as_bits(value), __ATOMIC_RELAXED);
    return NULL;
}

/* cellBits(cells, index): the word as a BigInt. */
static napi_value cell_bits(napi_env env, napi_callback_info info) {
    ARGUMENTS(2);
    napi_value out = NULL;
    uint64_t *place = cell_at(env, argument[0], argument[1]);
    napi_create_bigint_uint64(env, __atomic_load_n(place, __ATOMIC_RELAXED), &out);
    return out;
}

/* cellNumber(cells, index): the double. */
static napi_value cell_number(napi_env env, napi_callback_info info) {
    ARGUMENTS(2);
    uint64_t *place = cell_at(env, argument[0], argument[1]);
    return addon_number(env, as_number(__atomic_load_n(place, __ATOMIC_RELAXED)));
}

void addon_cells(napi_env env, napi_value exports) {
    static const export_entry entries[] = {
        {"cells", cells},
        {"cellCount", cell_count},
        {"cellAdd", cell_add},
        {"cellSet", cell_set},
        {"cellBits", cell_bits},
        {"cellNumber", cell_number},
    };
    addon_export(env, exports, entries, sizeof entries / sizeof *entries);
}
