/* As much MessagePack as these programs need: a writer for requests, and a printer for whatever comes back. A program
 * of your own would rather use a library. Specification: https://github.com/msgpack/msgpack/blob/master/spec.md */
#ifndef IOK_EXAMPLE_MSGPACK_H
#define IOK_EXAMPLE_MSGPACK_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

/* Writes into a buffer of the caller. After the last value, `overflow` tells whether it all fitted. */
typedef struct {
    unsigned char *bytes;
    size_t used, room;
    bool overflow;
} mp_writer;

static inline mp_writer mp_writer_over(void *bytes, size_t room)
{
    mp_writer writer = {bytes, 0, room, false};
    return writer;
}

static inline void mp_put(mp_writer *writer, const void *bytes, size_t count)
{
    if (count > writer->room - writer->used) {
        writer->overflow = true;
        return;
    }
    memcpy(writer->bytes + writer->used, bytes, count);
    writer->used += count;
}

/* A marker and a big-endian number of `count` bytes. */
static inline void mp_mark(mp_writer *writer, unsigned marker, uint64_t number, int count)
{
    unsigned char head[9] = {(unsigned char)marker};
    for (int at = 0; at < count; at++)
        head[1 + at] = (unsigned char)(number >> (8 * (count - 1 - at)));
    mp_put(writer, head, 1 + (size_t)count);
}

static inline void mp_array(mp_writer *writer, uint32_t count)
{
    if (count < 16)
        mp_mark(writer, 0x90 | count, 0, 0);
    else
        mp_mark(writer, 0xdd, count, 4);
}

static inline void mp_uint(mp_writer *writer, uint64_t number)
{
    if (number < 128)
        mp_mark(writer, (unsigned)number, 0, 0);
    else
        mp_mark(writer, 0xcf, number, 8);
}

static inline void mp_bin(mp_writer *writer, const void *bytes, uint32_t count)
{
    mp_mark(writer, 0xc6, count, 4);
    mp_put(writer, bytes, count);
}

static inline void mp_str(mp_writer *writer, const char *text)
{
    size_t count = strlen(text);
    if (count < 32)
        mp_mark(writer, 0xa0 | (unsigned)count, 0, 0);
    else
        mp_mark(writer, 0xdb, count, 4);
    mp_put(writer, text, count);
}

/* Reads from bytes that need not be trusted. */
typedef struct {
    const unsigned char *at, *end;
} mp_reader;

static inline bool mp_take(mp_reader *reader, size_t count, const unsigned char **bytes)
{
    if ((size_t)(reader->end - reader->at) < count)
        return false;
    *bytes = reader->at;
    reader->at += count;
    return true;
}

static inline bool mp_number(mp_reader *reader, int count, uint64_t *number)
{
    const unsigned char *bytes;
    if (!mp_take(reader, (size_t)count, &bytes))
        return false;
    for (*number = 0; count > 0; count--)
        *number = *number << 8 | *bytes++;
    return true;
}

enum { MP_DEPTH_MAX = 16 };

static inline bool mp_print(FILE *out, mp_reader *reader, int depth);

static inline bool mp_print_bytes(FILE *out, mp_reader *reader, uint64_t count)
{
    const unsigned char *bytes;
    if (!mp_take(reader, count, &bytes))
        return false;
    fwrite(bytes, 1, count, out);
    return true;
}

static inline bool mp_print_items(FILE *out, mp_reader *reader, uint64_t count, const char *ends, int depth)
{
    if (depth == MP_DEPTH_MAX)
        return false;
    fputc(ends[0], out);
    for (uint64_t at = 0; at < count; at++) {
        if (at)
            fputs(ends[0] == '{' && at % 2 ? ": " : ", ", out);
        if (!mp_print(out, reader, depth + 1))
            return false;
    }
    fputc(ends[1], out);
    return true;
}

static inline int64_t mp_signed(uint64_t number, int bytes)
{
    uint64_t sign = (uint64_t)1 << (8 * bytes - 1);
    return (int64_t)((number ^ sign) - sign);
}

static inline bool mp_print_double(FILE *out, mp_reader *reader, int bytes)
{
    uint64_t number;
    double wide;
    float narrow;
    if (!mp_number(reader, bytes, &number))
        return false;
    uint32_t low = (uint32_t)number;
    memcpy(&wide, &number, sizeof wide);
    memcpy(&narrow, &low, sizeof narrow);
    fprintf(out, "%.17g", bytes == 8 ? wide : (double)narrow);
    return true;
}

/* A type byte, then bytes: shown as ext(type, bytes). */
static inline bool mp_print_ext(FILE *out, mp_reader *reader, uint64_t count)
{
    const unsigned char *type;
    if (!mp_take(reader, 1, &type))
        return false;
    fprintf(out, "ext(%d, ", *type);
    if (!mp_print_bytes(out, reader, count))
        return false;
    fputc(')', out);
    return true;
}

/* Markers from 0xc0 to 0xdf. */
static inline bool mp_print_marked(FILE *out, mp_reader *reader, unsigned marker, int depth)
{
    static const signed char size_bytes[32] = {0, 0, 0, 0, 1, 2, 4, 1, 2, 4, 0, 0, 1, 2, 4, 8,
                                               1, 2, 4, 8, 0, 0, 0, 0, 0, 1, 2, 4, 2, 4, 2, 4};
    uint64_t number = 0;
    if (marker == 0xca || marker == 0xcb)
        return mp_print_double(out, reader, marker == 0xca ? 4 : 8);
    if (!mp_number(reader, size_bytes[marker - 0xc0], &number))
        return false;
    if (marker <= 0xc3)
        return fputs(marker == 0xc0 ? "nil" : marker == 0xc3 ? "true" : "false", out) >= 0;
    if (marker >= 0xcc && marker <= 0xcf)
        return fprintf(out, "%llu", (unsigned long long)number) >= 0;
    if (marker >= 0xd0 && marker <= 0xd3)
        return fprintf(out, "%lld", (long long)mp_signed(number, size_bytes[marker - 0xc0])) >= 0;
    if (marker >= 0xd4 && marker <= 0xd8)
        return mp_print_ext(out, reader, (uint64_t)1 << (marker - 0xd4));
    if (marker >= 0xc7 && marker <= 0xc9)
        return mp_print_ext(out, reader, number);
    if (marker >= 0xde)
        return mp_print_items(out, reader, 2 * number, "{}", depth);
    if (marker >= 0xdc)
        return mp_print_items(out, reader, number, "[]", depth);
    return mp_print_bytes(out, reader, number);
}

/* Prints one value; false if the bytes are no MessagePack. */
static inline bool mp_print(FILE *out, mp_reader *reader, int depth)
{
    const unsigned char *first;
    if (!mp_take(reader, 1, &first))
        return false;
    unsigned marker = *first;
    if (marker < 0x80)
        return fprintf(out, "%u", marker) >= 0;
    if (marker >= 0xe0)
        return fprintf(out, "%d", (int)marker - 256) >= 0;
    if (marker < 0x90)
        return mp_print_items(out, reader, 2 * (marker & 15), "{}", depth);
    if (marker < 0xa0)
        return mp_print_items(out, reader, marker & 15, "[]", depth);
    if (marker < 0xc0)
        return mp_print_bytes(out, reader, marker & 31);
    return mp_print_marked(out, reader, marker, depth);
}

#endif
