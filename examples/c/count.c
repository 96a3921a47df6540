/* Counts from two processes and many threads without a call, and says what it does meanwhile:
 *
 *     count 4
 *
 * With `admin=unix:/run/count.sock` in the configuration, `curl --unix-socket /run/count.sock http://x/metrics` shows the
 * sum of both processes, and `/state` the marker.
 */
#include <pthread.h>
#include <sys/wait.h>
#include <unistd.h>

#include "program.h"

enum { ROUNDS = 100000 };

/* Several threads: an atomic addition. A thread that is alone needs no more than `*cell += 1`. */
static void count(uint64_t *cell, uint64_t more)
{
    __atomic_fetch_add(cell, more, __ATOMIC_RELAXED);
}

/* A gauge's cell holds the bits of a double. */
static void set(uint64_t *cell, double value)
{
    uint64_t bits;
    memcpy(&bits, &value, sizeof bits);
    __atomic_store_n(cell, bits, __ATOMIC_RELAXED);
}

static void *work(void *orders)
{
    for (int round = 0; round < ROUNDS; round++)
        count(orders, 1);
    return NULL;
}

/* Enters a marker in the first place of this thread's slot. iokernel.h has the rules for more than one at a time. */
static void say(iok_markers *slot, const char *text)
{
    iok_marker *place = &slot->places[0];
    size_t length = strlen(text) < sizeof place->text ? strlen(text) : sizeof place->text;
    slot->last = (slot->last & ~IOK_MARKER_COUNT_MASK) | ((slot->last + 1) & IOK_MARKER_COUNT_MASK);
    __atomic_store_n(&place->serial, 0, __ATOMIC_RELEASE);
    memcpy(place->text, text, length);
    place->length = (uint32_t)length | IOK_MARKER_ACTIVE;
    __atomic_store_n(&place->serial, slot->last, __ATOMIC_RELEASE);
    slot->current = slot->last;
}

int main(int argc, char **argv)
{
    int threads = argc > 1 ? atoi(argv[1]) : 4;
    if (threads < 1 || threads > 64) {
        fprintf(stderr, "usage: %s THREADS (1 to 64)\n", argv[0]);
        return 2;
    }
    session session = session_open();
    iok_markers *slot;
    check(iok_marker_slot(session.kernel, &slot), "iok_marker_slot");
    say(slot, "count orders");

    uint64_t *orders, *depth, *took;
    uint32_t cells;
    check(iok_counter(session.kernel, "orders_total", &orders), "iok_counter");
    check(iok_cells(session.kernel, "kind=gauge&name=depth&help=Orders%20at%20hand.", &depth, &cells), "iok_cells");
    check(iok_cells(session.kernel, "kind=histogram&name=took&unit=seconds&label.shop=a&buckets=0.1,1", &took, &cells), "iok_cells");
    took[1]++; /* between 0.1 and 1 second; the fourth cell is the sum */
    set(&took[cells - 1], 0.5);
    set(depth, 3);

    pthread_t workers[64];
    for (int at = 0; at < threads; at++)
        pthread_create(&workers[at], NULL, work, orders);
    for (int at = 0; at < threads; at++)
        pthread_join(workers[at], NULL);

    /* The same pointer is the child's own cell: it begins at 0, or where a process that has ended left it. */
    pid_t child = fork();
    if (child == 0) {
        work(orders);
        _exit(*orders == ROUNDS ? 0 : 1);
    }
    int status;
    if (child < 0 || waitpid(child, &status, 0) != child || status != 0)
        return 1;

    session_close(&session);
    count(orders, 0); /* cells outlive their kernel */
    printf("%llu orders here, in %u threads\n", (unsigned long long)*orders, (unsigned)threads);
    return *orders == (uint64_t)threads * ROUNDS ? 0 : 1;
}
