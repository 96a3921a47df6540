/* Markers: what this thread is doing, written into its slot of shared memory as `iok_marker` in the header says. */
#include "addon.h"

#include <string.h>

static const uint32_t ACTIVE = IOK_MARKER_ACTIVE;

/* markerSlot(kernel): this thread's slot, or a status. */
static napi_value marker_slot(napi_env env, napi_callback_info info) {
    ARGUMENTS(1);
    iok_markers *slot = NULL;
    iok_status status = iok.marker_slot(addon_to_pointer(env, argument[0]), &slot);
    if (status) return addon_number(env, status);
    napi_value out = NULL;
    napi_create_external(env, slot, NULL, NULL, &out);
    return out;
}

/* The place that was left first; NULL if none is left. */
static iok_marker *free_place(iok_markers *slot, uint32_t count) {
    for (uint32_t step = 0; step < IOK_MARKER_PLACES; step++) {
        iok_marker *place = &slot->places[(count + step) % IOK_MARKER_PLACES];
        if (!(place->length & ACTIVE)) return place;
    }
    return NULL;
}

/* As much of a text as a marker holds, cut at the start of a character. */
static uint32_t fill(napi_env env, napi_value text, uint8_t *out) {
    char whole[IOK_MARKER_TEXT_BYTES + 4];
    size_t length = 0;
    napi_get_value_string_utf8(env, text, whole, sizeof whole, &length);
    if (length > IOK_MARKER_TEXT_BYTES) {
        length = IOK_MARKER_TEXT_BYTES;
        while (length > 0 && ((uint8_t)whole[length] & 0xc0) == 0x80) length--;
    }
    memcpy(out, whole, length);
    return (uint32_t)length;
}

static void publish(iok_marker *place, uint32_t serial, uint32_t length) {
    uint32_t halves[2] = {serial, length};
    uint64_t word = 0;
    memcpy(&word, halves, sizeof word);
    __atomic_store_n((uint64_t *)(void *)place, word, __ATOMIC_RELEASE);
}

/* markerEnter(slot, text): the marker's serial; 0 if there is no place. */
static napi_value marker_enter(napi_env env, napi_callback_info info) {
    ARGUMENTS(2);
    iok_markers *slot = addon_to_external(env, argument[0]);
    uint32_t count = (slot->last + 1) & IOK_MARKER_COUNT_MASK;
    if (!count) count = 1;
    iok_marker *place = free_place(slot, count);
    if (!place) {
        slot->overflows++;
        return addon_number(env, 0);
    }
    uint32_t serial = (slot->last & ~(uint32_t)IOK_MARKER_COUNT_MASK) | count;
    slot->last = serial;
    __atomic_store_n(&place->serial, 0, __ATOMIC_RELAXED);
    __atomic_thread_fence(__ATOMIC_RELEASE);
    uint32_t length = fill(env, argument[1], place->text);
    publish(place, serial, length | ACTIVE);
    return addon_number(env, serial);
}

/* markerLeave(slot, serial) */
static napi_value marker_leave(napi_env env, napi_callback_info info) {
    ARGUMENTS(2);
    iok_markers *slot = addon_to_external(env, argument[0]);
    uint32_t serial = 0;
    napi_get_value_uint32(env, argument[1], &serial);
    for (uint32_t at = 0; serial && at < IOK_MARKER_PLACES; at++) {
        iok_marker *place = &slot->places[at];
        if (place->serial == serial) publish(place, serial, place->length & ~ACTIVE);
    }
    return NULL;
}

/* markerCurrent(slot, serial): what submissions of this thread carry, where they say nothing themselves. */
static napi_value marker_current(napi_env env, napi_callback_info info) {
    ARGUMENTS(2);
    iok_markers *slot = addon_to_external(env, argument[0]);
    uint32_t serial = 0;
    napi_get_value_uint32(env, argument[1], &serial);
    __atomic_store_n(&slot->current, serial, __ATOMIC_RELAXED);
    return NULL;
}

void addon_markers(napi_env env, napi_value exports) {
    static const export_entry entries[] = {
        {"markerSlot", marker_slot},
        {"markerEnter", marker_enter},
        {"markerLeave", marker_leave},
        {"markerCurrent", marker_current},
    };
    addon_export(env, exports, entries, sizeof entries / sizeof *entries);
}
