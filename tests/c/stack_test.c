/* The stack of a program in C, asked through the admin endpoint: a hang is named, the program's handlers are its own. */
#include <iokernel.h>

#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define CHECK(what) ((what) ? (void)0 : fail(#what, __LINE__))

static char path[80];
static char answer[1 << 16];
static atomic_bool over;
static atomic_int foreign, asked;
static int text_fd;

static void fail(const char *what, int line)
{
    fprintf(stderr, "line %d: %s\n%s\n%s\n", line, what, iok_last_error(), answer);
    _exit(1);
}

/* One GET; the whole reply is in `answer`. */
static void ask(void)
{
    static const char request[] = "GET /stack HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    struct sockaddr_un address = { .sun_family = AF_UNIX };
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    strcpy(address.sun_path, path);
    CHECK(connect(fd, (struct sockaddr *)&address, sizeof address) == 0);
    CHECK(write(fd, request, sizeof request - 1) == (ssize_t)sizeof request - 1);
    size_t at = 0;
    ssize_t count;
    while (at < sizeof answer - 1 && (count = read(fd, answer + at, sizeof answer - 1 - at)) > 0)
        at += (size_t)count;
    answer[at] = 0;
    close(fd);
    CHECK(strstr(answer, "200 OK") && strstr(answer, "\"main\""));
}

/* Asks until the answer has `word`: a busy machine may let a thread miss its time. */
static void ask_for(const char *word)
{
    for (int round = 0; round < 100; round++) {
        ask();
        if (strstr(answer, word))
            return;
        nanosleep(&(struct timespec){ .tv_nsec = 50000000 }, NULL);
    }
    fail(word, __LINE__);
}

static void *asker(void *word)
{
    ask_for(word);
    atomic_store(&over, true);
    return NULL;
}

/* A runtime's safe point. */
static void tell_late(void)
{
    static const char text[] = "  File \"app.lua\", line 7 in at_a_safe_point\n";
    if (atomic_exchange(&asked, 0))
        CHECK(write(text_fd, text, sizeof text) == (ssize_t)sizeof text);
}

/* Not inlined and not left early, so that it is a frame with a name of its own. */
__attribute__((noinline, noipa)) void hang_here(const char *word, bool has_safe_points)
{
    pthread_t thread;
    atomic_store(&over, false);
    CHECK(pthread_create(&thread, NULL, asker, (void *)word) == 0);
    while (!atomic_load(&over))
        if (has_safe_points)
            tell_late();
    CHECK(pthread_join(thread, NULL) == 0);
}

static void on_foreign(int signal)
{
    (void)signal;
    atomic_fetch_add(&foreign, 1);
}

static void on_ask(int signal)
{
    (void)signal;
    atomic_store(&asked, 1);
}

static void handle(int signal, void (*handler)(int))
{
    struct sigaction action = { .sa_handler = handler };
    CHECK(sigaction(signal, &action, NULL) == 0);
}

static iok_kernel *open_kernel(const char *name)
{
    char config[200];
    iok_kernel *kernel;
    snprintf(path, sizeof path, "/tmp/iokernel-stack-%s-%d", name, getpid());
    snprintf(config, sizeof config, "admin=unix:%s&stack_signal=USR1", path);
    CHECK(iok_kernel_open(config, &kernel) == IOK_STATUS_OK);
    return kernel;
}

static void in_child(void)
{
    int signal, before = atomic_load(&foreign);
    CHECK(raise(SIGUSR1) == 0 && atomic_load(&foreign) == before + 1);
    iok_kernel *kernel = open_kernel("child");
    CHECK(iok_stack_open(kernel, &signal, &text_fd) == IOK_STATUS_OK && iok_stack_arm(kernel, 0) == IOK_STATUS_OK);
    hang_here("hang_here+", false);
    CHECK(raise(SIGUSR1) == 0 && atomic_load(&foreign) == before + 2);
    CHECK(iok_kernel_close(kernel, 0) == IOK_STATUS_OK);
    _exit(0);
}

int main(void)
{
    int signal = 0, fd = -1, status;
    bool restored = true;
    alarm(100);
    handle(SIGUSR1, on_foreign);
    iok_kernel *kernel = open_kernel("test");
    CHECK(iok_stack_open(NULL, &signal, &fd) == IOK_STATUS_NULL && iok_stack_open(kernel, NULL, &fd) == IOK_STATUS_NULL);
    CHECK(iok_stack_arm(kernel, 0) == IOK_STATUS_BAD_CONFIG);
    CHECK(iok_stack_open(kernel, &signal, &fd) == IOK_STATUS_OK && signal == SIGUSR1 && fd >= 0);
    CHECK(iok_stack_arm(kernel, 6) == IOK_STATUS_BAD_CONFIG);
    CHECK(iok_stack_arm(kernel, 0) == IOK_STATUS_OK && iok_stack_arm(kernel, 0) == IOK_STATUS_OK);

    hang_here("hang_here+", false);
    CHECK(!strstr(answer, "\"error\"") && strstr(answer, "main+"));
    CHECK(atomic_load(&foreign) == 0 && raise(SIGUSR1) == 0 && atomic_load(&foreign) == 1);

    pid_t child = fork();
    if (child == 0)
        in_child();
    CHECK(waitpid(child, &status, 0) == child && status == 0);

    CHECK(iok_stack_close(kernel, &restored) == IOK_STATUS_OK && restored);
    CHECK(iok_stack_close(kernel, &restored) == IOK_STATUS_OK && !restored);
    CHECK(raise(SIGUSR1) == 0 && atomic_load(&foreign) == 2);

    /* A runtime that writes at safe points. */
    CHECK(iok_stack_open(kernel, &signal, &text_fd) == IOK_STATUS_OK);
    handle(SIGUSR1, on_ask);
    CHECK(iok_stack_arm(kernel, IOK_STACK_LATE) == IOK_STATUS_OK);
    hang_here("at_a_safe_point", true);
    CHECK(strstr(answer, "\"app.lua\"") && strstr(answer, "hang_here+"));
    hang_here("no safe point", false);
    CHECK(strstr(answer, "hang_here+"));
    CHECK(raise(SIGUSR1) == 0 && atomic_load(&foreign) == 3);

    /* A kernel that is closed gives the signal back. */
    CHECK(iok_kernel_close(kernel, 0) == IOK_STATUS_OK);
    CHECK(raise(SIGUSR1) == 0 && atomic_load(&foreign) == 4);
    puts("fine");
    return 0;
}
