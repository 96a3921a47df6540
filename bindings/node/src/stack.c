/* Lets `/stack` show JavaScript frames: of a thread that computes, V8 is interrupted at its next safe point.
 *
 * The signal's handler only rings a bell. A helper thread asks V8 to interrupt the thread, which then writes its frames
 * and a zero byte. A thread that runs no JavaScript, or does not come to a safe point soon (it sleeps, or is in a call
 * into C), is left to its native frames: the helper writes the zero byte. V8's functions have no C interface and are
 * looked up by their names in this very node; where one is missing there are native frames.
 */
#define _GNU_SOURCE
#include "addon.h"

#include <dlfcn.h>
#include <errno.h>
#include <pthread.h>
#include <semaphore.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { FRAMES = 32, TEXT_BYTES = 4096, PATIENCE_MS = 15 };

/* v8::Location: both begin at 0. */
typedef struct place {
    int line;
    int column;
} place;

typedef struct v8 {
    void (*interrupt)(void *isolate, void (*callback)(void *isolate, void *data), void *data);
    void *(*trace)(void *isolate, int frames, int options);
    int (*count)(const void *trace);
    void *(*frame)(const void *trace, void *isolate, uint32_t at);
    place (*location)(const void *frame);
    void *(*function)(const void *frame);
    void *(*script)(const void *frame);
} v8;

static v8 engine;
static pthread_mutex_t opening = PTHREAD_MUTEX_INITIALIZER;
static pthread_mutex_t asking = PTHREAD_MUTEX_INITIALIZER;
static bool is_ready;
static int pipe_fd = -1;
static sem_t bell;

/* What a handler asks for, one at a time: the I/O thread waits for an answer before it asks again. */
static _Atomic(void *) asked_isolate;
static atomic_uint asked;
static atomic_uint answered;

/* Of this thread. Looked at by the handler: never allocated when first touched. */
static __thread void *own_isolate __attribute__((tls_model("initial-exec")));
static __thread napi_env own_env __attribute__((tls_model("initial-exec")));

static void on_signal(int number, siginfo_t *about, void *context) {
    (void)number, (void)about, (void)context;
    int before = errno;
    atomic_store(&asked_isolate, own_isolate);
    atomic_fetch_add(&asked, 1);
    sem_post(&bell);
    errno = before;
}

static size_t add_text(char *out, size_t at, napi_env env, void *string) {
    size_t length = 0;
    if (string) napi_get_value_string_utf8(env, (napi_value)string, out + at, TEXT_BYTES - at, &length);
    return at + length;
}

/* `  at function (script:line)` for each frame, as Node writes them. */
static size_t describe(char *out, void *isolate) {
    void *trace = engine.trace(isolate, FRAMES, 0x7f);
    int count = engine.count(trace);
    size_t at = 0;
    for (int number = 0; number < count && at + 512 < TEXT_BYTES; number++) {
        const void *frame = engine.frame(trace, isolate, (uint32_t)number);
        at += (size_t)snprintf(out + at, TEXT_BYTES - at, "  at ");
        size_t before = at;
        at = add_text(out, at, own_env, engine.function(frame));
        if (at == before) at += (size_t)snprintf(out + at, TEXT_BYTES - at, "<anonymous>");
        at += (size_t)snprintf(out + at, TEXT_BYTES - at, " (");
        at = add_text(out, at, own_env, engine.script(frame));
        at += (size_t)snprintf(out + at, TEXT_BYTES - at, ":%d)\n", engine.location(frame).line + 1);
    }
    return at;
}

static void tell(const char *text, size_t length) {
    ssize_t written = write(pipe_fd, text, length);
    (void)written; /* Where there is no room, whoever reads does without. */
}

/* On the thread that was asked, at a safe point of V8. */
static void on_interrupt(void *isolate, void *data) {
    char text[TEXT_BYTES + 1];
    unsigned number = (unsigned)(uintptr_t)data, before = number - 1;
    if (!atomic_compare_exchange_strong(&answered, &before, number)) return;
    size_t length = describe(text, isolate);
    text[length] = 0;
    tell(text, length + 1);
}

/* A thread that runs no JavaScript, or has ended meanwhile, is not asked. */
static void interrupt(unsigned number) {
    pthread_mutex_lock(&asking);
    void *isolate = atomic_load(&asked_isolate);
    if (isolate) engine.interrupt(isolate, on_interrupt, (void *)(uintptr_t)number);
    pthread_mutex_unlock(&asking);
}

static void *helper(void *unused) {
    const struct timespec patience = {0, PATIENCE_MS * 1000000L};
    (void)unused;
    for (;;) {
        while (sem_wait(&bell)) {
        }
        unsigned number = atomic_load(&asked), before = number - 1;
        atomic_store(&answered, before);
        interrupt(number);
        nanosleep(&patience, NULL);
        if (atomic_compare_exchange_strong(&answered, &before, number)) tell("", 1);
    }
    return NULL;
}

#define FIND(name, symbol) (*(void **)&engine.name = dlsym(RTLD_DEFAULT, symbol))

static bool find_engine(void) {
    return FIND(interrupt, "_ZN2v87Isolate16RequestInterruptEPFvPS0_PvES2_") &&
           FIND(trace, "_ZN2v810StackTrace17CurrentStackTraceEPNS_7IsolateEiNS0_17StackTraceOptionsE") &&
           FIND(count, "_ZNK2v810StackTrace13GetFrameCountEv") &&
           FIND(frame, "_ZNK2v810StackTrace8GetFrameEPNS_7IsolateEj") &&
           FIND(location, "_ZNK2v810StackFrame11GetLocationEv") &&
           FIND(function, "_ZNK2v810StackFrame15GetFunctionNameEv") &&
           FIND(script, "_ZNK2v810StackFrame13GetScriptNameEv");
}

/* The helper lives as long as the process, with every signal blocked. */
static bool start_helper(void) {
    pthread_t thread;
    sigset_t all, before;
    if (sem_init(&bell, 0, 0)) return false;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    bool started = !pthread_create(&thread, NULL, helper, NULL);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (started) pthread_detach(thread);
    return started;
}

/* Installs the handler for text; where there can be none, native frames are what there is. */
static bool begin(int signal_number, int fd) {
    pthread_mutex_lock(&opening);
    if (!is_ready) is_ready = find_engine() && start_helper();
    pipe_fd = fd;
    pthread_mutex_unlock(&opening);
    if (!is_ready) return false;
    struct sigaction action = {.sa_sigaction = on_signal, .sa_flags = SA_SIGINFO | SA_ONSTACK | SA_RESTART};
    sigemptyset(&action.sa_mask);
    return !sigaction(signal_number, &action, NULL);
}

/* stackOpen(kernel): a status. */
static napi_value stack_open(napi_env env, napi_callback_info info) {
    ARGUMENTS(1);
    iok_kernel *kernel = addon_to_pointer(env, argument[0]);
    int32_t number = 0, fd = -1;
    iok_status status = iok.stack_open(kernel, &number, &fd);
    if (status) return addon_number(env, status);
    return addon_number(env, iok.stack_arm(kernel, begin(number, fd) ? IOK_STACK_LATE : 0));
}

/* stackClose(kernel): a status. */
static napi_value stack_close(napi_env env, napi_callback_info info) {
    ARGUMENTS(1);
    bool restored = false;
    return addon_number(env, iok.stack_close(addon_to_pointer(env, argument[0]), &restored));
}

static void leave(void *unused) {
    (void)unused;
    void *isolate = own_isolate;
    own_isolate = NULL;
    own_env = NULL;
    pthread_mutex_lock(&asking);
    atomic_compare_exchange_strong(&asked_isolate, &isolate, NULL);
    pthread_mutex_unlock(&asking);
}

void addon_stack(napi_env env, napi_value exports) {
    static const export_entry entries[] = {{"stackOpen", stack_open}, {"stackClose", stack_close}};
    addon_export(env, exports, entries, sizeof entries / sizeof *entries);
    void *(*current)(void) = NULL;
    *(void **)&current = dlsym(RTLD_DEFAULT, "_ZN2v87Isolate10GetCurrentEv");
    own_isolate = current ? current() : NULL;
    own_env = env;
    napi_add_env_cleanup_hook(env, leave, NULL);
}
