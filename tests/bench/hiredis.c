// GETs in pipelines of 100 through hiredis, as a C program does without us. Prints `name value unit` lines.
//
// usage: hiredis HOST PORT
#define _GNU_SOURCE
#include <hiredis/hiredis.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

enum { DEPTH = 100, TOTAL = 500000 };

static double now(clockid_t clock) {
  struct timespec time;
  clock_gettime(clock, &time);
  return (double)time.tv_sec + (double)time.tv_nsec / 1e9;
}

int main(int argc, char **argv) {
  if (argc != 3) return 2;
  redisContext *context = redisConnect(argv[1], atoi(argv[2]));
  if (!context || context->err) return 1;
  const char *words[] = {"GET", "key"};
  const size_t sizes[] = {3, 3};
  double start = now(CLOCK_MONOTONIC), cpu = now(CLOCK_THREAD_CPUTIME_ID);
  for (int done = 0; done < TOTAL; done += DEPTH) {
    for (int i = 0; i < DEPTH; i++) redisAppendCommandArgv(context, 2, words, sizes);
    for (int i = 0; i < DEPTH; i++) {
      void *reply;
      if (redisGetReply(context, &reply) != REDIS_OK) return 1;
      freeReplyObject(reply);
    }
  }
  printf("get_100 %.0f per_second\n", TOTAL / (now(CLOCK_MONOTONIC) - start));
  printf("get_100_app_cpu %.1f ns\n", (now(CLOCK_THREAD_CPUTIME_ID) - cpu) * 1e9 / TOTAL);
  redisFree(context);
  return 0;
}
