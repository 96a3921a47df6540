// What the ring and the I/O thread cost, seen from C: round trips, no-ops in bulk, and Redis GETs through one conn.
//
// usage: core ring | noop | get URL
// Prints `name value unit` lines; each is the median of several runs.
#define _GNU_SOURCE
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

enum { RUNS = 7 };

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
    iok_wait(channel, -1);
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
  double ours[RUNS], bare[RUNS];
  for (int run = 0; run < RUNS; run++) {
    bare[run] = eventfd_round_trip(ROUNDS);
    uint64_t start = now_ns(CLOCK_MONOTONIC);
    for (int i = 0; i < ROUNDS; i++) {
      put(channel, IOK_OP_ECHO, 0, (uint64_t)i, "x", 1);
      take(channel, NULL);
    }
    ours[run] = (double)(now_ns(CLOCK_MONOTONIC) - start) / ROUNDS;
  }
  printf("ring_round_trip %.0f ns\neventfd_round_trip %.0f ns\n", median(ours, RUNS), median(bare, RUNS));
}

static void bulk(iok_channel *channel, const char *name, uint16_t op, uint32_t endpoint, const void *payload,
                 size_t bytes, unsigned depth, unsigned total) {
  double wall[RUNS], cpu[RUNS];
  for (int run = 0; run < RUNS; run++) {
    unsigned sent = 0, done = 0;
    uint64_t start = now_ns(CLOCK_MONOTONIC), cpu_start = now_ns(CLOCK_THREAD_CPUTIME_ID);
    while (done < total) {
      // As a pipeline does: so many at once, then all their replies.
      if (sent == done)
        while (sent < total && sent - done < depth) put(channel, op, endpoint, sent++, payload, bytes);
      iok_flush(channel);
      done += (unsigned)take(channel, NULL);
    }
    wall[run] = (double)total * 1e9 / (double)(now_ns(CLOCK_MONOTONIC) - start);
    cpu[run] = (double)(now_ns(CLOCK_THREAD_CPUTIME_ID) - cpu_start) / total;
  }
  printf("%s %.0f per_second\n%s_app_cpu %.1f ns\n", name, median(wall, RUNS), name, median(cpu, RUNS));
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

int main(int argc, char **argv) {
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
  } else {
    fprintf(stderr, "usage: %s ring | noop | get URL\n", argv[0]);
    return 2;
  }
  check(iok_channel_close(channel), "close");
  check(iok_kernel_close(kernel, 100), "close");
  return 0;
}
