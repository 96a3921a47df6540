/* What every request and every reply goes through, in C: the twins of subs in Perl, which do the same where there is
 * no compiler, and here whatever is not plain. Objects look as those subs make them. No Perl runs in between, and so no
 * handler of %SIG. */

#define PERL_NO_GET_CONTEXT
#include "EXTERN.h"
#include "perl.h"
#include "XSUB.h"

#define MY_CXT_KEY "IOKernel::Native::_guts" XS_VERSION
typedef struct {
    HV *futures;    /* The package of futures, which is another one in each thread. */
} my_cxt_t;
START_MY_CXT

enum { BEFORE_BYTES = 12, TAG_BYTES = 8, DEPTH_MAX = 100 };

/* What the Perl files say: fields of channels and of futures, sizes and numbers of records. */
static IV HANDLE, CHANNEL_PENDING, OUT, NEXT_TAG, ENDED, READY, RUN_COUNT, HANDED, PARTS, SCHEDULE;
static IV GATHERED_BYTES, WHOLE_BYTES_MAX, STATUS_OK;
static IV STATE, VALUE, CHANNEL, TAG, CALLBACKS, PENDING, DONE;
static IV SUBMISSION_BYTES, COMPLETION_BYTES, PLAIN, ENCODING_NONE, ENCODING_MSGPACK, ENCODING_BYTES, ENCODING_TEXT;

/* The library's, which has been loaded already. */
static int32_t (*submit_batch)(void *channel, const void *records, size_t bytes, size_t *taken);
static size_t (*poll_run)(void *channel, const void **run, size_t *bytes);
static int32_t (*advance)(void *channel, size_t bytes);

/* Zero in a child of the process. */
static const volatile char *here;

static IV constant(pTHX_ const char *name) {
    CV *code = get_cv(name, 0);
    SV *value = code ? cv_const_sv(code) : NULL;
    if (!value) croak("%s: expected a constant", name);
    return SvIV(value);
}

static void learn(pTHX) {
    SV *page = get_sv("IOKernel::Process::HERE", 0);
    if (!page || !SvPOK(page)) croak("IOKernel::Process: expected to be loaded before");
    here = SvPVX_const(page);
#define OF(package, name) name = constant(aTHX_ "IOKernel::" package "::" #name)
    CHANNEL_PENDING = constant(aTHX_ "IOKernel::Channel::PENDING");
    OF("Channel", OUT), OF("Channel", NEXT_TAG), OF("Channel", ENDED), OF("Channel", READY), OF("Channel", SCHEDULE);
    OF("Channel", HANDLE), OF("Channel", RUN_COUNT), OF("Channel", HANDED), OF("Channel", PARTS);
    OF("Channel", GATHERED_BYTES), OF("Channel", WHOLE_BYTES_MAX), OF("Channel", PLAIN);
    OF("Future", STATE), OF("Future", VALUE), OF("Future", CHANNEL), OF("Future", TAG), OF("Future", CALLBACKS);
    OF("Future", PENDING), OF("Future", DONE);
    OF("Record", SUBMISSION_BYTES), OF("Record", COMPLETION_BYTES);
    OF("Record", ENCODING_NONE), OF("Record", ENCODING_MSGPACK), OF("Record", ENCODING_BYTES);
    OF("Record", ENCODING_TEXT), OF("Record", STATUS_OK);
#undef OF
}

/* The array, or hash, that a reference is of; NULL for anything else. */
static SV *referred(SV *reference, svtype type) {
    if (!reference || !SvROK(reference) || SvTYPE(SvRV(reference)) != type) return NULL;
    return SvRV(reference);
}

static SV *field(AV *array, IV at) {
    return at <= AvFILLp(array) ? AvARRAY(array)[at] : NULL;
}

/* Packing */

/* `bytes` more at the end of a string. */
static U8 *more(pTHX_ SV *out, STRLEN bytes) {
    STRLEN was = SvCUR(out);
    char *start = SvLEN(out) < was + bytes + 1 ? SvGROW(out, 2 * was + bytes + 1) : SvPVX(out);
    SvCUR_set(out, was + bytes);
    start[was + bytes] = '\0';
    return (U8 *)start + was;
}

/* A byte, and a number in so many, the highest first. */
static U8 *put_head(pTHX_ SV *out, U8 byte, UV number, int bytes, STRLEN then) {
    U8 *to = more(aTHX_ out, 1 + bytes + then);
    *to++ = byte;
    while (bytes--) *to++ = (U8)(number >> 8 * bytes);
    return to;
}

static void put_integer(pTHX_ SV *out, SV *value) {
    IV number = SvIVX(value);
    if (SvIsUV(value) || number >= 0) {
        UV whole = SvUVX(value);
        if (whole < 0x80) put_head(aTHX_ out, (U8)whole, 0, 0, 0);
        else if (whole <= 0xFF) put_head(aTHX_ out, 0xCC, whole, 1, 0);
        else if (whole <= 0xFFFF) put_head(aTHX_ out, 0xCD, whole, 2, 0);
        else if (whole <= 0xFFFFFFFF) put_head(aTHX_ out, 0xCE, whole, 4, 0);
        else put_head(aTHX_ out, 0xCF, whole, 8, 0);
    }
    else if (number >= -0x20) put_head(aTHX_ out, (U8)number, 0, 0, 0);
    else if (number >= -0x80) put_head(aTHX_ out, 0xD0, (UV)number, 1, 0);
    else if (number >= -0x8000) put_head(aTHX_ out, 0xD1, (UV)number, 2, 0);
    else if (number >= -0x80000000LL) put_head(aTHX_ out, 0xD2, (UV)number, 4, 0);
    else put_head(aTHX_ out, 0xD3, (UV)number, 8, 0);
}

static void put_string(pTHX_ SV *out, SV *value) {
    STRLEN length = SvCUR(value);
    U8 *to;
    if (SvUTF8(value) && length < 32) to = put_head(aTHX_ out, 0xA0 + length, 0, 0, length);
    else {
        U8 byte = SvUTF8(value) ? 0xD9 : 0xC4;
        if (length <= 0xFF) to = put_head(aTHX_ out, byte, length, 1, length);
        else if (length <= 0xFFFF) to = put_head(aTHX_ out, byte + 1, length, 2, length);
        else to = put_head(aTHX_ out, byte + 2, length, 4, length);
    }
    Copy(SvPVX_const(value), to, length, U8);
}

static void put_array_head(pTHX_ SV *out, UV count) {
    if (count < 16) put_head(aTHX_ out, 0x90 + count, 0, 0, 0);
    else if (count <= 0xFFFF) put_head(aTHX_ out, 0xDC, count, 2, 0);
    else put_head(aTHX_ out, 0xDD, count, 4, 0);
}

/* One value as MessagePack. False for what is left to Perl. */
static bool put(pTHX_ SV *out, SV *value, int depth) {
    if (!value || SvGMAGICAL(value)) return FALSE;
    if (SvROK(value)) {
        AV *array = (AV *)referred(value, SVt_PVAV);
        if (!array || SvOBJECT(array) || SvRMAGICAL(array) || depth > DEPTH_MAX) return FALSE;
        put_array_head(aTHX_ out, AvFILLp(array) + 1);
        for (SSize_t at = 0; at <= AvFILLp(array); ++at) {
            if (!put(aTHX_ out, AvARRAY(array)[at], depth + 1)) return FALSE;
        }
        return TRUE;
    }
    if (!SvOK(value)) put_head(aTHX_ out, 0xC0, 0, 0, 0);
    else if (isGV_with_GP(value) || SvIsBOOL(value)) return FALSE;
    else if (SvPOK(value) && SvCUR(value) <= 0xFFFFFFFF) put_string(aTHX_ out, value);
    else if (SvIOK(value) && !SvNOK(value)) put_integer(aTHX_ out, value);
    else return FALSE;
    return TRUE;
}

static void *handle(pTHX_ AV *channel) {
    return INT2PTR(void *, SvUV(field(channel, HANDLE)));
}

/* Gives the kernel what is queued, as much as it takes. A status. */
static int32_t submit(pTHX_ AV *channel) {
    SV *out = field(channel, OUT);
    size_t taken = 0;
    int32_t status = submit_batch(handle(aTHX_ channel), SvPVX_const(out), SvCUR(out), &taken);
    if (!taken) return status;
    if (SvIsCOW(out)) sv_force_normal(out);
    if (taken < SvCUR(out)) sv_chop(out, SvPVX_const(out) + taken);
    else {
        SvCUR_set(out, 0);
        *SvPVX(out) = '\0';
    }
    return status;
}

/* Queues a request of the arguments on the channel of this thread: a new reference to its future. NULL, and nothing
 * has happened, if anything about it is not plain. */
static SV *queue(pTHX_ SV *self, SV **arguments, SSize_t count) {
    dMY_CXT;
    if (!*here) return NULL;
    HV *caller = (HV *)referred(self, SVt_PVHV);
    SV **plain = caller ? hv_fetchs(caller, "plain", 0) : NULL;
    if (!plain || !SvPOK(*plain) || !SvCUR(*plain)) return NULL;
    SV **held = hv_fetchs(caller, "kernel", 0);
    HV *kernel = held ? (HV *)referred(*held, SVt_PVHV) : NULL;
    held = kernel ? hv_fetchs(kernel, "channel", 0) : NULL;
    AV *channel = held ? (AV *)referred(*held, SVt_PVAV) : NULL;
    if (!channel || SvTRUE(field(channel, ENDED))) return NULL;
    SV *schedule = field(channel, SCHEDULE);
    if (schedule && SvOK(schedule)) return NULL;

    SV *out = field(channel, OUT);
    if (SvIsCOW(out)) sv_force_normal(out);
    STRLEN was = SvCUR(out);
    Zero(more(aTHX_ out, SUBMISSION_BYTES), SUBMISSION_BYTES, U8);
    put_array_head(aTHX_ out, count);
    bool is_plain = TRUE;
    for (SSize_t at = 0; is_plain && at < count; ++at) is_plain = put(aTHX_ out, arguments[at], 0);
    STRLEN size = SvCUR(out) - was;
    if (!is_plain || size > (STRLEN)WHOLE_BYTES_MAX) {
        SvCUR_set(out, was);
        *SvEND(out) = '\0';
        return NULL;
    }
    STRLEN pad = -size & 7;
    Zero(more(aTHX_ out, pad), pad, U8);

    SV *next = field(channel, NEXT_TAG);
    UV tag = SvUV(next) + 1;
    sv_setuv(next, tag);
    U32 size32 = size;
    char *to = SvPVX(out) + was;
    Copy(&size32, to, sizeof size32, char);
    to += sizeof size32;
    Copy(SvPVX_const(*plain), to, BEFORE_BYTES, char);
    Copy(&tag, to + BEFORE_BYTES, TAG_BYTES, char);
    Copy(SvPVX_const(*plain) + BEFORE_BYTES, to + BEFORE_BYTES + TAG_BYTES, SvCUR(*plain) - BEFORE_BYTES, char);

    AV *future = newAV();
    av_extend(future, TAG);
    av_store(future, STATE, newSViv(PENDING));
    av_store(future, CHANNEL, newRV_inc((SV *)channel));
    av_store(future, TAG, newSVuv(tag));
    SV *reference = sv_bless(newRV_noinc((SV *)future), MY_CXT.futures);
    HV *pending = (HV *)SvRV(field(channel, CHANNEL_PENDING));
    /* With keys of its own: in the table of all of Perl's shared keys each new tag costs a miss of the cache. */
    if (!HvTOTALKEYS(pending)) HvSHAREKEYS_off(pending);
    (void)hv_store(pending, (char *)&tag, TAG_BYTES, newRV_inc((SV *)future), 0);

    bool is_due = HvUSEDKEYS(pending) == 1 || SvCUR(out) > (STRLEN)GATHERED_BYTES;
    if (is_due && (submit(aTHX_ channel) != STATUS_OK || SvCUR(out))) {
        dSP;
        sv_2mortal(reference);
        ENTER;
        SAVETMPS;
        PUSHMARK(SP);
        XPUSHs(sv_2mortal(newRV_inc((SV *)channel)));
        PUTBACK;
        call_pv("IOKernel::Channel::_submit_gathered", G_VOID | G_DISCARD);
        FREETMPS;
        LEAVE;
        return SvREFCNT_inc(reference);
    }
    return reference;
}

/* Unpacking: where in the data we are, and its end. */
typedef struct {
    const U8 *at, *end;
} Data;

static SV *text(pTHX_ const U8 *bytes, STRLEN length) {
    SV *value = newSVpvn((const char *)bytes, length);
    /* What is no UTF-8 stays bytes. */
    if (sv_utf8_decode(value)) SvUTF8_on(value);
    return value;
}

static UV number(Data *data, int bytes) {
    UV value = 0;
    while (bytes--) value = value << 8 | *data->at++;
    return value;
}

static SV *take(pTHX_ Data *data, int depth);

static SV *take_array(pTHX_ Data *data, UV count, int depth) {
    if (count > (UV)(data->end - data->at)) return NULL;
    AV *array = newAV();
    if (count) av_extend(array, count - 1);
    for (UV at = 0; at < count; ++at) {
        SV *value = take(aTHX_ data, depth + 1);
        if (!value) {
            SvREFCNT_dec(array);
            return NULL;
        }
        av_push(array, value);
    }
    return newRV_noinc((SV *)array);
}

/* A hash, if every key is a string. */
static SV *take_map(pTHX_ Data *data, UV count, int depth) {
    HV *hash = newHV();
    while (count--) {
        SV *key = take(aTHX_ data, depth + 1);
        SV *value = key && SvPOK(key) ? take(aTHX_ data, depth + 1) : NULL;
        if (value) (void)hv_store_ent(hash, key, value, 0);
        SvREFCNT_dec(key);
        if (!value) {
            SvREFCNT_dec(hash);
            return NULL;
        }
    }
    return newRV_noinc((SV *)hash);
}

/* One value. NULL for what is left to Perl: exts, floats, odd keys, and what is wrong. */
static SV *take(pTHX_ Data *data, int depth) {
    if (data->at >= data->end || depth > DEPTH_MAX) return NULL;
    U8 byte = *data->at++;
    if (byte < 0x80) return newSVuv(byte);
    if (byte < 0x90) return take_map(aTHX_ data, byte & 15, depth);
    if (byte < 0xA0) return take_array(aTHX_ data, byte & 15, depth);
    if (byte >= 0xE0) return newSViv((IV)byte - 0x100);
    STRLEN length = byte & 31;
    bool is_text = TRUE;
    if (byte >= 0xC0) {
        /* Those of the number behind the head. */
        int bytes = byte < 0xC4 ? 0 : byte < 0xD9 ? 1 << (byte & 3) : byte < 0xDC ? 1 << (byte - 0xD9)
            : 2 << (byte & 1);
        if (data->end - data->at < bytes) return NULL;
        switch (byte) {
        case 0xC0: return newSV(0);
        case 0xC2: return newSVsv(&PL_sv_no);
        case 0xC3: return newSVsv(&PL_sv_yes);
        case 0xC4: case 0xC5: case 0xC6: is_text = FALSE; /* FALLTHROUGH */
        case 0xD9: case 0xDA: case 0xDB: length = number(data, bytes); break;
        case 0xCC: case 0xCD: case 0xCE: case 0xCF: return newSVuv(number(data, bytes));
        case 0xD0: return newSViv((I8)number(data, bytes));
        case 0xD1: return newSViv((I16)number(data, bytes));
        case 0xD2: return newSViv((I32)number(data, bytes));
        case 0xD3: return newSViv((IV)number(data, bytes));
        case 0xDC: case 0xDD: return take_array(aTHX_ data, number(data, bytes), depth);
        case 0xDE: case 0xDF: return take_map(aTHX_ data, number(data, bytes), depth);
        default: return NULL;
        }
    }
    if ((STRLEN)(data->end - data->at) < length) return NULL;
    const U8 *from = data->at;
    data->at += length;
    return is_text ? text(aTHX_ from, length) : newSVpvn((const char *)from, length);
}

static SV *unpacked(pTHX_ const U8 *bytes, STRLEN length) {
    Data data = { bytes, bytes + length };
    SV *value = take(aTHX_ &data, 0);
    if (value && data.at == data.end) return value;
    SvREFCNT_dec(value);
    dSP;
    ENTER;
    SAVETMPS;
    PUSHMARK(SP);
    XPUSHs(sv_2mortal(newSVpvn((const char *)bytes, length)));
    PUTBACK;
    call_pv("IOKernel::Values::unpack_value", G_SCALAR);
    SPAGAIN;
    value = SvREFCNT_inc(POPs);
    PUTBACK;
    FREETMPS;
    LEAVE;
    return value;
}

static UV runs(AV *channel) {
    return SvUVX(field(channel, RUN_COUNT));
}

/* Replies as most are, until a record is something else. How many there were; `at` is behind them. */
static UV hand_out(pTHX_ AV *channel, const U8 **at, const U8 *end) {
    AV *ready = (AV *)SvRV(field(channel, READY));
    UV count = 0, round = runs(channel);
    U32 size;
    for (; end - *at >= COMPLETION_BYTES; *at += (size + 7) & ~7U, ++count) {
        U32 kind;
        I32 status;
        Copy(*at, &size, sizeof size, U8);
        Copy(*at + 4, &kind, sizeof kind, U8);
        Copy(*at + 12, &status, sizeof status, U8);
        if (kind != PLAIN || status || size < COMPLETION_BYTES || size > end - *at) break;
        const char *tag = (const char *)*at + 16;
        const U8 *payload = *at + COMPLETION_BYTES;
        STRLEN length = size - COMPLETION_BYTES;
        U8 encoding = (*at)[29];
        SV *value = encoding == ENCODING_MSGPACK ? unpacked(aTHX_ payload, length)
            : encoding == ENCODING_TEXT ? text(aTHX_ payload, length)
            : encoding == ENCODING_NONE ? newSV(0)
            : newSVpvn((const char *)payload, length);
        /* Where Perl unpacked, a handler of %SIG may have taken the whole run: it is not there any more. */
        HV *pending = (HV *)SvRV(field(channel, CHANNEL_PENDING));
        SV *waiting = runs(channel) == round ? hv_delete(pending, tag, TAG_BYTES, 0) : NULL;
        AV *future = (AV *)referred(waiting, SVt_PVAV);
        if (!future) {
            SvREFCNT_dec(value);
            break;
        }
        av_store(future, VALUE, value);
        sv_setiv(field(future, STATE), DONE);
        SV *callbacks = field(future, CALLBACKS);
        if (callbacks && SvOK(callbacks)) av_push(ready, SvREFCNT_inc(waiting));
    }
    return count;
}

/* Telling */

static void told(pTHX_ SV *reference) {
    SV *held = field((AV *)SvRV(reference), CALLBACKS);
    AV *callbacks = (AV *)referred(held, SVt_PVAV);
    if (!callbacks) return;
    sv_2mortal(SvREFCNT_inc((SV *)callbacks));
    while (AvFILLp(callbacks) >= 0) {
        dSP;
        ENTER;
        SAVETMPS;
        SV *callback = sv_2mortal(av_shift(callbacks));
        PUSHMARK(SP);
        XPUSHs(reference);
        PUTBACK;
        call_sv(callback, G_VOID | G_DISCARD | G_EVAL);
        if (SvTRUE(ERRSV)) warn("iokernel: a callback died: %" SVf, SVfARG(ERRSV));
        FREETMPS;
        LEAVE;
    }
}

/* Callbacks may wait for this channel themselves, and tell what is ready meanwhile. */
static void tell(pTHX_ AV *channel) {
    dMY_CXT;
    AV *ready = (AV *)sv_2mortal(SvREFCNT_inc(SvRV(field(channel, READY))));
    while (AvFILLp(ready) >= 0) {
        ENTER;
        SAVETMPS;
        SV *each = sv_2mortal(SvREFCNT_inc(AvARRAY(ready)[0]));
        if (SvSTASH(SvRV(each)) == MY_CXT.futures) told(aTHX_ each);
        else {
            dSP;
            PUSHMARK(SP);
            XPUSHs(each);
            PUTBACK;
            call_method("told", G_VOID | G_DISCARD);
        }
        if (AvFILLp(ready) >= 0 && SvRV(AvARRAY(ready)[0]) == SvRV(each)) SvREFCNT_dec(av_shift(ready));
        FREETMPS;
        LEAVE;
    }
}

MODULE = IOKernel::Native    PACKAGE = IOKernel::Native

PROTOTYPES: DISABLE

BOOT:
{
    MY_CXT_INIT;
    MY_CXT.futures = gv_stashpvs("IOKernel::Future", GV_ADD);
    learn(aTHX);
}

void
CLONE(...)
  CODE:
    MY_CXT_CLONE;
    MY_CXT.futures = gv_stashpvs("IOKernel::Future", GV_ADD);
    PERL_UNUSED_VAR(items);

void
request(...)
  PPCODE:
    SV *future = items ? queue(aTHX_ ST(0), &ST(1), items - 1) : NULL;
    if (future) {
        mXPUSHs(future);
    } else {
        PUSHMARK(SP);
        call_pv("IOKernel::Native::perl_request", GIMME_V);
        SPAGAIN;
    }

void
get(...)
  PPCODE:
    AV *future = items ? (AV *)referred(ST(0), SVt_PVAV) : NULL;
    SV *state = future ? field(future, STATE) : NULL;
    if (state && SvIOK(state) && SvIVX(state) == DONE) {
        if (GIMME_V != G_VOID) {
            SV *value = field(future, VALUE);
            PUSHs(value ? sv_mortalcopy(value) : &PL_sv_undef);
        }
    } else {
        PUSHMARK(SP);
        call_pv("IOKernel::Native::perl_get", GIMME_V);
        SPAGAIN;
    }

void
on_ready(...)
  PPCODE:
    AV *future = items == 2 ? (AV *)referred(ST(0), SVt_PVAV) : NULL;
    SV *state = future ? field(future, STATE) : NULL;
    if (state && SvIOK(state) && SvIVX(state) == PENDING) {
        AV *callbacks = (AV *)referred(field(future, CALLBACKS), SVt_PVAV);
        if (callbacks) av_push(callbacks, newSVsv(ST(1)));
        else av_store(future, CALLBACKS, newRV_noinc((SV *)av_make(1, &ST(1))));
        PUSHs(ST(0));
    } else {
        PUSHMARK(SP);
        call_pv("IOKernel::Native::perl_on_ready", GIMME_V);
        SPAGAIN;
    }

void
_tell(self)
    SV *self
  CODE:
    tell(aTHX_ (AV *)SvRV(self));

IV
_submit(self)
    SV *self
  CODE:
    RETVAL = submit(aTHX_ (AV *)SvRV(self));
  OUTPUT:
    RETVAL

void
poll(self)
    SV *self
  PPCODE:
    AV *channel = (AV *)SvRV(self);
    AV *parts = (AV *)SvRV(field(channel, PARTS));
    const void *run;
    size_t bytes, count = 0, done = 0;
    if (handle(aTHX_ channel) && AvFILLp(parts) < 0 && !SvUV(field(channel, HANDED))) {
        UV round = runs(channel);
        count = poll_run(handle(aTHX_ channel), &run, &bytes);
        if (count) {
            const U8 *at = run;
            done = hand_out(aTHX_ channel, &at, at + bytes);
            if (runs(channel) != round) done = count;
            else if (done == count) {
                sv_setuv(field(channel, RUN_COUNT), round + 1);
                advance(handle(aTHX_ channel), bytes);
            } else sv_setuv(field(channel, HANDED), at - (const U8 *)run);
        }
    }
    if (count && done == count) {
        if (AvFILLp((AV *)SvRV(field(channel, READY))) >= 0) tell(aTHX_ channel);
        mXPUSHu(count);
    } else {
        /* It sees the run once more, and what was handed out. */
        PUSHMARK(SP);
        call_pv("IOKernel::Native::perl_poll", GIMME_V);
        SPAGAIN;
    }

IV
_hand_out_plain(self, run)
    SV *self
    SV *run
  CODE:
    SV *bytes = SvRV(run);
    const U8 *at = (const U8 *)SvPVX_const(bytes);
    RETVAL = hand_out(aTHX_ (AV *)SvRV(self), &at, (const U8 *)SvEND(bytes));
  OUTPUT:
    RETVAL

void
_use(address_of_submit_batch, address_of_poll, address_of_advance)
    UV address_of_submit_batch
    UV address_of_poll
    UV address_of_advance
  CODE:
    submit_batch = INT2PTR(int32_t (*)(void *, const void *, size_t, size_t *), address_of_submit_batch);
    poll_run = INT2PTR(size_t (*)(void *, const void **, size_t *), address_of_poll);
    advance = INT2PTR(int32_t (*)(void *, size_t), address_of_advance);
