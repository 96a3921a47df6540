// What the ring and the I/O thread cost, seen from C: round trips, no-ops in bulk, Redis GETs through one conn, memory,
// latency seen by a program that stalls, and what many pending deadlines cost.
//
// usage: core ring | noop | get URL | memory URL | stall URL | deadlines URL SILENT_URL
// Prints `name value unit` lines; each is the median of so many runs as RUNS says in the environment (7).
#define _GNU_SOURCE
#include <dirent.h>
#include <iokernel.h>
#include <inttypes.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

enum { RUNS_MAX = 32 };
static int runs = 7;

static uint64_t now_ns(clockid_t clock) {
  struct timespec time;
  clock_gettime(clock, &time);
  return (uint64_t)time.tv_sec * 1000000000u + (uint64_t)time.tv_nsec;
}

static int by_value(const void *a, const void *b) {
  double x = *(const double *)a, y = *(const double *)b;
  return (x > y) - (x < y);
}

static double median(double *values, int count) {
  qsort(values, (size_t)count, sizeof *values, by_value);
  return values[count / 2];
}

static void check(iok_status status, const char *what) {
  if (status == IOK_STATUS_OK) return;
  fprintf(stderr, "%s: %s: %s\n", what, iok_status_name(status), iok_last_error());
  exit(1);
}

// Waits by the descriptor, as a loop does, so that the I/O thread does all its work itself.
static int by_descriptor;

static void await_completions(iok_channel *channel) {
  if (!by_descriptor) {
    iok_wait(channel, -1);
    return;
  }
  struct pollfd one = {.fd = iok_channel_fd(channel), .events = POLLIN};
  poll(&one, 1, -1);
}

// Takes what waits, at least one; returns how many, and the last one's head in `last`.
static size_t take(iok_channel *channel, iok_completion *last) {
  for (;;) {
    const iok_completion *first;
    size_t bytes;
    size_t count = iok_poll(channel, &first, &bytes);
    if (count > 0) {
      const char *at = (const char *)first;
      for (size_t i = 0; i < count; i++) {
        const iok_completion *one = (const iok_completion *)(const void *)at;
        if (one->status != IOK_STATUS_OK) {
          fprintf(stderr, "a request failed: %s\n", iok_status_name(one->status));
          exit(1);
        }
        if (last) *last = *one;
        at += (one->size + 7u) & ~7u;
      }
      iok_advance(channel, bytes);
      return count;
    }
    await_completions(channel);
  }
}

static void put(iok_channel *channel, uint16_t op, uint32_t endpoint, uint64_t tag, const void *payload, size_t bytes) {
  iok_submission head = {.size = (uint32_t)(sizeof head + bytes), .op = op, .endpoint = endpoint, .tag = tag};
  iok_status status;
  while ((status = iok_submit(channel, &head, payload)) == IOK_STATUS_FULL) iok_wait(channel, -1);
  check(status, "submit");
}

static int ping_fd, pong_fd;

static void *echo_thread(void *unused) {
  (void)unused;
  uint64_t value;
  while (read(ping_fd, &value, 8) == 8 && value != 2) {
    value = 1;
    if (write(pong_fd, &value, 8) != 8) break;
  }
  return NULL;
}

// What two bare eventfds cost between two threads: the least that a wake each way can cost without spinning.
static double eventfd_round_trip(int rounds) {
  ping_fd = eventfd(0, 0), pong_fd = eventfd(0, 0);
  pthread_t thread;
  pthread_create(&thread, NULL, echo_thread, NULL);
  uint64_t value, start = now_ns(CLOCK_MONOTONIC);
  for (int i = 0; i < rounds; i++) {
    value = 1;
    if (write(ping_fd, &value, 8) != 8 || read(pong_fd, &value, 8) != 8) exit(1);
  }
  double each = (double)(now_ns(CLOCK_MONOTONIC) - start) / rounds;
  value = 2;
  if (write(ping_fd, &value, 8) != 8) exit(1);
  pthread_join(thread, NULL);
  close(ping_fd), close(pong_fd);
  return each;
}

static void ring(iok_channel *channel) {
  enum { ROUNDS = 20000 };
  double ours[RUNS_MAX], bare[RUNS_MAX];
  for (int run = 0; run < runs; run++) {
    bare[run] = eventfd_round_trip(ROUNDS);
    uint64_t start = now_ns(CLOCK_MONOTONIC);
    for (int i = 0; i < ROUNDS; i++) {
      put(channel, IOK_OP_ECHO, 0, (uint64_t)i, "x", 1);
      take(channel, NULL);
    }
    ours[run] = (double)(now_ns(CLOCK_MONOTONIC) - start) / ROUNDS;
  }
  printf("ring_round_trip %.0f ns\neventfd_round_trip %.0f ns\n", median(ours, runs), median(bare, runs));
}

static void bulk(iok_channel *channel, const char *name, uint16_t op, uint32_t endpoint, const void *payload,
                 size_t bytes, unsigned depth, unsigned total) {
  double wall[RUNS_MAX], cpu[RUNS_MAX];
  for (int run = 0; run < runs; run++) {
    unsigned sent = 0, done = 0;
    uint64_t start = now_ns(CLOCK_MONOTONIC), cpu_start = now_ns(CLOCK_THREAD_CPUTIME_ID);
    while (done < total) {
      // Requests as a pipeline: so many at once, then all their replies. No-ops as a window that slides.
      if (sent == done || op == IOK_OP_ECHO)
        while (sent < total && sent - done < depth) put(channel, op, endpoint, sent++, payload, bytes);
      done += (unsigned)take(channel, NULL);
    }
    wall[run] = (double)total * 1e9 / (double)(now_ns(CLOCK_MONOTONIC) - start);
    cpu[run] = (double)(now_ns(CLOCK_THREAD_CPUTIME_ID) - cpu_start) / total;
  }
  printf("%s %.0f per_second\n%s_app_cpu %.1f ns\n", name, median(wall, runs), name, median(cpu, runs));
}

static uint32_t open_service(iok_channel *channel, const char *url) {
  iok_completion done;
  put(channel, IOK_OP_OPEN, 0, 1, url, strlen(url));
  take(channel, &done);
  uint32_t endpoint = done.endpoint;
  iok_submission head = {.size = sizeof head, .op = IOK_OP_STATE, .flags = IOK_FLAG_UNTIL_UP, .endpoint = endpoint};
  check(iok_submit(channel, &head, NULL), "state");
  take(channel, &done);
  return endpoint;
}

// The CPU clock of the kernel's I/O thread: the only thread beside ours.
static clockid_t io_thread_clock(void) {
  DIR *folder = opendir("/proc/self/task");
  struct dirent *entry;
  long found = 0;
  while (folder && (entry = readdir(folder)) != NULL) {
    long id = atol(entry->d_name);
    if (id > 0 && id != (long)getpid()) found = id;
  }
  if (folder) closedir(folder);
  return (clockid_t)((~(unsigned)found << 3) | 6u);  // as clock_getcpuclockid would make it, for a thread
}

static double kib_of(const char *key) {
  FILE *file = fopen("/proc/self/smaps_rollup", "r");
  char line[256];
  double kib = 0;
  while (file && fgets(line, sizeof line, file))
    if (strncmp(line, key, strlen(key)) == 0) kib = atof(line + strlen(key));
  if (file) fclose(file);
  return kib;
}

static void compute(uint64_t nanoseconds) {
  uint64_t end = now_ns(CLOCK_MONOTONIC) + nanoseconds;
  while (now_ns(CLOCK_MONOTONIC) < end) continue;
}

// One GET at a time by a program that then computes for 20 to 50 ms, or sleeps for 2 ms, before it looks for the reply.
// What the program's own clock says, and what the kernel's stamps say.
static void stalled(iok_channel *channel, uint32_t endpoint, const char *name, int stalls) {
  enum { SAMPLES = 40 };
  double seen[SAMPLES], stamped[SAMPLES];
  uint64_t random = 88172645463325252u;
  for (int i = 0; i < SAMPLES; i++) {
    iok_completion done;
    uint64_t start = now_ns(CLOCK_MONOTONIC);
    put(channel, IOK_OP_REQUEST, endpoint, (uint64_t)i, "\x92\xa3GET\xa3key", 9);
    iok_flush(channel);
    random ^= random << 13, random ^= random >> 7, random ^= random << 17;
    if (stalls) compute(20000000 + random % 30000000);
    take(channel, &done);
    seen[i] = (double)(now_ns(CLOCK_MONOTONIC) - start);
    stamped[i] = (double)(done.first_byte_ns - done.queued_ns);
    if (!stalls) usleep(2000);
  }
  printf("%s_seen %.0f ns\n%s_stamped %.0f ns\n", name, median(seen, SAMPLES), name, median(stamped, SAMPLES));
}

// CPU of the I/O thread for each GET at depth 100, with the endpoint's own deadline or `timeout_ms`.
static double io_cpu_ns(iok_channel *channel, uint32_t endpoint, uint32_t timeout_ms, unsigned total) {
  clockid_t clock = io_thread_clock();
  uint64_t start = now_ns(clock);
  for (unsigned done = 0; done < total;) {
    for (unsigned i = 0; i < 100; i++) {
      iok_submission head = {.size = sizeof head + 9, .op = IOK_OP_REQUEST, .endpoint = endpoint, .tag = i + 1,
                             .timeout_ms = timeout_ms};
      check(iok_submit(channel, &head, "\x92\xa3GET\xa3key"), "submit");
    }
    iok_flush(channel);
    for (unsigned left = 100; left > 0;) left -= (unsigned)take(channel, NULL);
    done += 100;
  }
  return (double)(now_ns(clock) - start) / total;
}

// Requests with long deadlines to an endpoint that never answers, through channels of their own.
static void leave_pending(iok_kernel *kernel, uint32_t silent, unsigned count) {
  iok_channel *channel;
  check(iok_channel_open(kernel, NULL, &channel), "channel");
  for (unsigned i = 0; i < count; i++) {
    iok_submission head = {.size = sizeof head + 9, .op = IOK_OP_REQUEST, .endpoint = silent, .tag = i + 1,
                           .timeout_ms = 600000 + i % 60000};
    iok_status status;
    while ((status = iok_submit(channel, &head, "\x92\xa3GET\xa3key")) == IOK_STATUS_FULL) iok_wait(channel, 1);
    check(status, "submit");
  }
  iok_flush(channel);
  if (iok_wait(channel, 200) == IOK_STATUS_TIMEOUT) return;
  iok_completion done;
  take(channel, &done);  // tells what went wrong
}

static void deadlines(iok_kernel *kernel, iok_channel *channel, uint32_t endpoint, uint32_t silent) {
  enum { TOTAL = 100000 };
  double none[RUNS_MAX], few[RUNS_MAX], many[RUNS_MAX];
  by_descriptor = 1;
  for (int run = 0; run < runs; run++) {
    none[run] = io_cpu_ns(channel, endpoint, IOK_TIMEOUT_NONE, TOTAL);
    few[run] = io_cpu_ns(channel, endpoint, 5000, TOTAL);
  }
  leave_pending(kernel, silent, 50000);
  leave_pending(kernel, silent, 50000);
  for (int run = 0; run < runs; run++) many[run] = io_cpu_ns(channel, endpoint, 5000, TOTAL);
  printf("io_cpu_without_deadline %.0f ns\nio_cpu_with_deadline %.0f ns\nio_cpu_with_100000_pending %.0f ns\n",
         median(none, runs), median(few, runs), median(many, runs));
}

int main(int argc, char **argv) {
  if (getenv("RUNS")) runs = atoi(getenv("RUNS"));
  if (runs < 1 || runs > RUNS_MAX) runs = 7;
  double rss = kib_of("Rss:"), pss = kib_of("Pss:");
  iok_kernel *kernel;
  iok_channel *channel;
  check(iok_kernel_open("name=bench", &kernel), "kernel");
  check(iok_channel_open(kernel, NULL, &channel), "channel");
  if (argc == 2 && strcmp(argv[1], "ring") == 0) {
    ring(channel);
  } else if (argc == 2 && strcmp(argv[1], "noop") == 0) {
    bulk(channel, "noop_1024", IOK_OP_ECHO, 0, NULL, 0, 1024, 5000000);
    bulk(channel, "noop_256", IOK_OP_ECHO, 0, NULL, 0, 256, 2000000);
  } else if (argc == 3 && strcmp(argv[1], "get") == 0) {
    uint32_t endpoint = open_service(channel, argv[2]);
    bulk(channel, "get_100", IOK_OP_REQUEST, endpoint, "\x92\xa3GET\xa3key", 9, 100, 500000);
    bulk(channel, "get_1", IOK_OP_REQUEST, endpoint, "\x92\xa3GET\xa3key", 9, 1, 20000);
  } else if (argc == 3 && strcmp(argv[1], "memory") == 0) {
    open_service(channel, argv[2]);
    usleep(1000000);
    printf("memory_rss %.0f KiB\nmemory_pss %.0f KiB\n", kib_of("Rss:") - rss, kib_of("Pss:") - pss);
  } else if (argc == 3 && strcmp(argv[1], "stall") == 0) {
    uint32_t endpoint = open_service(channel, argv[2]);
    stalled(channel, endpoint, "quiet", 0);
    stalled(channel, endpoint, "stalled", 1);
  } else if (argc == 4 && strcmp(argv[1], "deadlines") == 0) {
    iok_completion done;
    uint32_t endpoint = open_service(channel, argv[2]);
    put(channel, IOK_OP_OPEN, 0, 1, argv[3], strlen(argv[3]));
    take(channel, &done);
    deadlines(kernel, channel, endpoint, done.endpoint);
  } else {
    fprintf(stderr, "usage: %s ring | noop | get URL | memory URL | stall URL | deadlines URL SILENT_URL\n", argv[0]);
    return 2;
  }
  check(iok_channel_close(channel), "close");
  check(iok_kernel_close(kernel, 100), "close");
  return 0;
}
