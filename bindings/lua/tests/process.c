// fork and its like, for the tests.
#include <errno.h>
#include <lauxlib.h>
#include <lua.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static int process_fork(lua_State *L) {
  lua_pushinteger(L, fork());
  return 1;
}

static int process_getpid(lua_State *L) {
  lua_pushinteger(L, getpid());
  return 1;
}

static int process_kill(lua_State *L) {
  lua_pushinteger(L, kill((pid_t)luaL_checkinteger(L, 1), (int)luaL_checkinteger(L, 2)));
  return 1;
}

// waitpid(pid): its exit status, or 128 and the signal that ended it.
static int process_waitpid(lua_State *L) {
  int status = 0;
  while (waitpid((pid_t)luaL_checkinteger(L, 1), &status, 0) < 0)
    if (errno != EINTR) return luaL_error(L, "waitpid failed");
  lua_pushinteger(L, WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status));
  return 1;
}

static int process_exit(lua_State *L) { _exit((int)luaL_checkinteger(L, 1)); }

// sleep(seconds): the whole time, whatever signals come.
static int process_sleep(lua_State *L) {
  double seconds = luaL_checknumber(L, 1);
  struct timespec left = {(time_t)seconds, (long)((seconds - (double)(time_t)seconds) * 1e9)};
  while (nanosleep(&left, &left) < 0 && errno == EINTR) continue;
  return 0;
}

__attribute__((visibility("default"))) int luaopen_process(lua_State *L) {
  static const luaL_Reg functions[] = {
      {"fork", process_fork},       {"getpid", process_getpid}, {"kill", process_kill},
      {"waitpid", process_waitpid}, {"exit", process_exit},     {"sleep", process_sleep},
      {NULL, NULL},
  };
  lua_newtable(L);
  luaL_setfuncs(L, functions, 0);
  return 1;
}
