/* What the system does to a C program that uses the library: signals, lack of memory and descriptors, forks at bad
 * moments. The program runs itself beside a private server and with refuse.so preloaded.
 *
 *     system_test URL
 */
#include <iokernel.h>

#include <dlfcn.h>
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define CHECK(condition)                                                                                    \
    do {                                                                                                    \
        if (!(condition)) {                                                                                 \
            fprintf(stderr, "%s:%d: %s (last error: %s)\n", __FILE__, __LINE__, #condition, iok_last_error()); \
            _exit(1);                                                                                       \
        }                                                                                                   \
    } while (0)

typedef struct {
    iok_kernel *kernel;
    iok_channel *channel;
    uint32_t endpoint;
    uint64_t tag;
} client;

static iok_status submit(client *client, uint16_t op, uint32_t endpoint, const void *payload, size_t bytes)
{
    iok_submission head = {
        .size = (uint32_t)(sizeof head + bytes), .op = op, .endpoint = endpoint, .timeout_ms = 20000, .tag = ++client->tag};
    return iok_submit(client->channel, &head, payload);
}

/* Waits for the last tag's end. Its status; the endpoint that it names goes to `*endpoint`. */
static iok_status ended(client *client, uint32_t *endpoint)
{
    for (;;) {
        const iok_completion *first;
        size_t bytes;
        while (iok_poll(client->channel, &first, &bytes) == 0) {
            iok_status status = iok_wait(client->channel, 20000);
            CHECK(status == IOK_STATUS_OK || status == IOK_STATUS_INTERRUPTED);
        }
        size_t size = (first->size + IOK_RECORD_ALIGN - 1) & ~(size_t)(IOK_RECORD_ALIGN - 1);
        iok_completion head = *first;
        CHECK(iok_advance(client->channel, size) == IOK_STATUS_OK);
        if (head.kind == IOK_KIND_DONE && head.tag == client->tag && !(head.flags & IOK_FLAG_MORE)) {
            if (endpoint)
                *endpoint = head.endpoint;
            return head.status;
        }
    }
}

static client open_client(const char *url)
{
    client made = {0};
    CHECK(iok_kernel_open("name=system", &made.kernel) == IOK_STATUS_OK);
    CHECK(iok_channel_open(made.kernel, "ring=64KiB", &made.channel) == IOK_STATUS_OK);
    if (url) {
        CHECK(submit(&made, IOK_OP_OPEN, 0, url, strlen(url)) == IOK_STATUS_OK);
        CHECK(ended(&made, &made.endpoint) == IOK_STATUS_OK);
    }
    return made;
}

static void close_client(client *client)
{
    CHECK(iok_channel_close(client->channel) == IOK_STATUS_OK);
    CHECK(iok_kernel_close(client->kernel, 0) == IOK_STATUS_OK);
}

/* ["PING"] in MessagePack. */
static const unsigned char PING[] = {0x91, 0xa4, 'P', 'I', 'N', 'G'};
/* ["CLIENT", "KILL", "TYPE", "normal"] */
static const unsigned char KILL[] = {0x94, 0xa6, 'C', 'L', 'I', 'E', 'N', 'T', 0xa4, 'K', 'I', 'L', 'L',
                                     0xa4, 'T', 'Y', 'P', 'E', 0xa6, 'n', 'o', 'r', 'm', 'a', 'l'};

static iok_status ping(client *client)
{
    CHECK(submit(client, IOK_OP_REQUEST, client->endpoint, PING, sizeof PING) == IOK_STATUS_OK);
    return ended(client, NULL);
}

/* ---- signals ---- */

static void on_alarm(int number)
{
    (void)number;
}

/* signal() sets SA_RESTART, which must not make a wait without a limit begin again by itself. */
static void waits_end_at_signals_that_restart_calls(const char *url)
{
    client client = open_client(url);
    signal(SIGALRM, on_alarm);
    struct itimerval soon = {{0, 20000}, {0, 20000}}, never = {{0, 0}, {0, 0}};
    setitimer(ITIMER_REAL, &soon, NULL);
    for (int round = 0; round < 5; round++) {
        CHECK(iok_wait(client.channel, -1) == IOK_STATUS_INTERRUPTED);
        CHECK(iok_wait(client.channel, 20000) == IOK_STATUS_INTERRUPTED);
    }
    setitimer(ITIMER_REAL, &never, NULL);
    close_client(&client);
}

/* SIGPIPE has its default disposition here, which is death: peers that close while we write must not bring it. */
static void peers_that_close_kill_nobody(const char *url)
{
    signal(SIGPIPE, SIG_DFL);
    client writer = open_client(url), killer = open_client(url);
    for (int round = 0; round < 100; round++) {
        for (int at = 0; at < 200; at++)
            if (submit(&writer, IOK_OP_REQUEST, writer.endpoint, PING, sizeof PING) != IOK_STATUS_OK)
                break;
        iok_flush(writer.channel);
        CHECK(submit(&killer, IOK_OP_REQUEST, killer.endpoint, KILL, sizeof KILL) == IOK_STATUS_OK);
        ended(&killer, NULL);
        ping(&writer);
    }
    for (int attempt = 0; ping(&writer) != IOK_STATUS_OK; attempt++)
        CHECK(attempt < 100);
    close_client(&writer);
    close_client(&killer);
}

/* ---- forks ---- */

/* AddressSanitizer's allocator forgets its locks in a fork: a child that allocates beside a second thread hangs there. */
#ifdef __SANITIZE_ADDRESS__
static void forks_under_load(const char *url)
{
    (void)url;
}
#else

static volatile int over;

static void *busy(void *memory)
{
    while (!over) {
        void *block = malloc((size_t)rand() % 100000 + 1);
        free(memory);
        memory = block;
    }
    free(memory);
    return NULL;
}

static void forks_under_load(const char *url)
{
    client parent = open_client(url);
    pthread_t thread;
    CHECK(pthread_create(&thread, NULL, busy, NULL) == 0);
    int rounds = getenv("IOKERNEL_SOAK") ? 10000 : 1000;
    for (int round = 0; round < rounds; round++) {
        CHECK(submit(&parent, IOK_OP_REQUEST, parent.endpoint, PING, sizeof PING) == IOK_STATUS_OK);
        iok_flush(parent.channel);
        pid_t child = fork();
        if (child == 0) {
            alarm(20);
            CHECK(iok_flush(parent.channel) == IOK_STATUS_FORKED);
            client own = open_client(url);
            CHECK(ping(&own) == IOK_STATUS_OK);
            close_client(&own);
            if (round % 8)
                _exit(0);
            exit(0);
        }
        CHECK(ended(&parent, NULL) == IOK_STATUS_OK);
        int status;
        CHECK(waitpid(child, &status, 0) == child && status == 0);
    }
    over = 1;
    pthread_join(thread, NULL);
    close_client(&parent);
}

#endif

/* ---- a system that refuses ---- */

/* Of refuse.so: makes the calls that get memory, descriptors and threads fail, from the `after`th on. */
static void (*refuse)(int after);
static int (*refused)(void);

static void refusals_become_statuses(const char *url)
{
    client client = open_client(url);
    CHECK(ping(&client) == IOK_STATUS_OK);
    int failures = 0, complete = 0;
    for (int after = 0; after < 40 && complete < 3; after++) {
        iok_kernel *kernel = NULL;
        iok_channel *channel = NULL;
        refuse(after);
        iok_status status = iok_kernel_open("name=refused", &kernel);
        if (status == IOK_STATUS_OK)
            status = iok_channel_open(kernel, NULL, &channel);
        int times = refused();
        refuse(-1);
        CHECK(times == 0 || status == IOK_STATUS_NO_MEMORY || status == IOK_STATUS_NO_FILES || status == IOK_STATUS_SYSTEM);
        CHECK(times != 0 || status == IOK_STATUS_OK);
        CHECK(status == IOK_STATUS_OK || strlen(iok_last_error()) > 5);
        failures += times != 0;
        complete += times == 0;
        if (channel)
            CHECK(iok_channel_close(channel) == IOK_STATUS_OK);
        if (kernel)
            CHECK(iok_kernel_close(kernel, 0) == IOK_STATUS_OK);
        CHECK(ping(&client) == IOK_STATUS_OK);
    }
    CHECK(failures >= 5 && complete == 3);
    close_client(&client);
}

int main(int argc, char **argv)
{
    CHECK(argc == 2);
    *(void **)&refuse = dlsym(RTLD_DEFAULT, "refuse");
    *(void **)&refused = dlsym(RTLD_DEFAULT, "refused");
    if (refuse)
        refusals_become_statuses(argv[1]);
    waits_end_at_signals_that_restart_calls(argv[1]);
    peers_that_close_kill_nobody(argv[1]);
    if (!refuse)
        forks_under_load(argv[1]);
    printf("fine\n");
    return 0;
}
