"""Calls of redis-py on the server: scripts, pipelines, configuration, what it tells of itself. See `redis_py`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .redis_py import Recorder, Scenario, ignored, loose, unordered, with_sets

LIBRARY = """#!lua name=lib
redis.register_function{function_name='f', callback=function(k, a) return a end, flags={'no-writes'}}"""
KINDS = ["string", "integer", "double", "bignum", "null", "array", "set", "map", "attrib", "verbatim", "true", "false"]


def scripts(r: Recorder) -> Scenario:
    yield r.eval("return {KEYS[1], ARGV[1], 7, false}", 1, "key", "value")
    yield r.eval("return redis.status_reply('FINE')", 0)
    yield r.eval("return redis.error_reply('MY own error')", 0)
    yield r.eval("return redis.error_reply('lonely')", 0)
    yield r.eval("return {1, {2, redis.error_reply('INNER x')}}", 0)
    yield r.eval("return {redis.error_reply('LOADING x'), 1}", 0)
    yield r.eval("syntax error", 0)
    yield r.eval("return redis.call('lpush', 'k')", 0)
    yield r.eval_ro("return redis.call('set', 'k', 1)", 0)
    yield r.eval("redis.setresp(3); return {double=3.5}", 0)
    yield r.eval("redis.setresp(3); return {map={a=1}}", 0)
    yield r.eval("redis.setresp(3); return {set={a=true}}", 0)
    yield r.eval("redis.setresp(3); return true", 0)
    sha = yield r.script_load("return ARGV[1]")
    yield r.evalsha(sha or "", 0, "x")
    yield r.evalsha_ro(sha or "", 0, "x")
    yield r.evalsha("0" * 40, 0)
    yield r.script_exists(sha or "", "0" * 40)
    yield r.do("register_script", lambda c: c.register_script("return {KEYS[1], ARGV[1]}")(keys=["k"], args=[1]))
    yield r.script_flush()
    yield r.script_flush("ASYNC")
    yield r.script_kill()
    yield r.function_load(LIBRARY)
    yield r.function_load(LIBRARY)
    yield r.function_load(LIBRARY, replace=True)
    yield r.fcall("f", 0, "x", "y")
    yield r.fcall_ro("f", 0, "x")
    yield r.fcall("missing", 0)
    yield with_sets(r.function_list())
    yield with_sets(r.function_list(withcode=True))
    yield r.function_stats()
    dump = yield r.function_dump()
    yield r.function_delete("lib")
    yield r.function_restore(dump or b"")
    yield r.function_flush()
    yield r.function_kill()
    for kind in KINDS:
        if kind != "attrib":
            yield unordered(r.execute_command("DEBUG", "PROTOCOL", kind))


def _filled(make: Callable[..., Any], raise_on_error: bool = True) -> Callable[[Any], Any]:
    def call(client: Any) -> Any:
        pipeline = client.pipeline(**({"transaction": False} if make.__name__.startswith("plain") else {}))
        make(pipeline)
        return pipeline.execute(raise_on_error=raise_on_error)

    return call


def plain_good(p: Any) -> None:
    p.set("a", 1).get("a").incr("a").hset("h", mapping={"x": 1}).hgetall("h").smembers("none").zadd("z", {"m": 1.5})
    p.zrange("z", 0, -1, withscores=True).xadd("x", {"f": 1}, id="1-1").xrange("x").get("missing").dump("missing")


def plain_bad(p: Any) -> None:
    p.set("a", "x").incr("a").get("a").lpush("a", 1).execute_command("NOSUCH").set("b", 1)


def plain_config(p: Any) -> None:
    p.config_get("maxmemory").config_set("maxmemory-samples", 5).echo("x").ping().time().exists("a")


def plain_waits(p: Any) -> None:
    p.rpush("pl", 1, 2).blpop("pl", 1).blpop("pl", 1).blpop("pl", 0.02).llen("pl")


def plain_names(p: Any) -> None:
    p.client_setname("piped").client_getname().get("a")


def plain_many(p: Any) -> None:
    for index in range(10_000):
        p.set(f"many:{index}", index)


def many(p: Any) -> None:
    for _ in range(5_000):
        p.incr("many")


good, bad, waits = plain_good, plain_bad, plain_waits


def transaction_good(p: Any) -> None:
    good(p)


def transaction_bad(p: Any) -> None:
    bad(p)


def transaction_aborted(p: Any) -> None:
    p.set("a", 1).execute_command("SET", "a").get("a")


def transaction_waits(p: Any) -> None:
    waits(p)


def transaction_data_error(p: Any) -> None:
    p.set("a", 1).set("b", object())


def pipelines(r: Recorder) -> Scenario:
    made = [plain_good, plain_bad, plain_config, plain_waits, plain_names, plain_many, many, transaction_good]
    made += [transaction_bad, transaction_aborted, transaction_waits, transaction_data_error]
    for make in made:
        for raise_on_error in (True, False):
            look = loose if make is plain_config else (lambda call: call)
            yield r.flushall()
            yield look(r.do("pipeline", _filled(make, raise_on_error)))
    yield r.do("pipeline", lambda c: c.pipeline().execute())
    yield r.set("sum", 1)


def pubsub_commands(r: Recorder) -> Scenario:
    yield r.publish("channel", "message")
    yield r.spublish("channel", "message")
    yield r.pubsub_channels()
    yield r.pubsub_numpat()
    yield r.pubsub_numsub("a", "b")
    yield r.pubsub_shardchannels()
    yield r.pubsub_shardnumsub("a")


def server(r: Recorder) -> Scenario:
    yield r.ping()
    yield r.echo("hi")
    yield r.echo(b"\x01\x02")
    yield loose(r.time())
    yield loose(r.info())
    yield loose(r.info("server"))
    yield loose(r.info("keyspace", "commandstats"))
    yield loose(r.lastsave())
    yield r.config_set("maxmemory-samples", 6)
    yield r.config_get("maxmemory-samples")
    yield r.config_get("max*", "hz")
    yield r.config_set("nosuch", 1)
    yield r.config_resetstat()
    yield r.config_rewrite()
    yield r.command_count()
    yield loose(r.command())
    yield r.command_info()
    yield r.command_docs("get")
    yield r.command_getkeys("MSET", "a", 1, "b", 2)
    yield r.command_getkeys("PING")
    yield with_sets(r.command_getkeysandflags("MSET", "a", 1))
    yield loose(r.command_list())
    yield unordered(r.command_list(category="hyperloglog"))
    yield unordered(r.command_list(pattern="hget*"))
    yield with_sets(r.execute_command("COMMAND INFO", "get"))
    yield loose(r.memory_stats())
    yield r.set("k", 1)
    yield r.memory_usage("k")
    yield r.memory_usage("missing")
    yield r.memory_purge()
    yield loose(r.memory_malloc_stats())
    yield r.memory_doctor()
    yield r.memory_help()
    yield r.module_list()
    yield r.module_load("/nonexistent.so")
    yield r.module_loadex("/nonexistent.so", args=["a"])
    yield r.module_unload("nonexistent")
    yield r.slowlog_reset()
    yield r.slowlog_len()
    yield r.slowlog_get()
    yield r.slowlog_get(1)
    yield r.latency_latest()
    yield r.latency_history("command")
    yield r.latency_reset()
    yield r.latency_histogram("nosuch")
    yield r.latency_doctor()
    yield r.latency_graph()
    yield r.lolwut()
    yield loose(r.lolwut(5, 1))
    yield r.role()
    yield r.wait(0, 10)
    yield r.waitaof(0, 0, 10)
    yield loose(r.debug_object("k"))
    yield r.debug_object("missing")
    yield ignored(r.save())
    yield ignored(r.bgsave())
    yield ignored(r.bgrewriteaof())
    yield r.replicaof("NO", "ONE")
    yield r.slaveof()
    yield r.failover()
    yield r.migrate("127.0.0.1", 1, "missing", 0, 10)
    yield r.migrate("127.0.0.1", 1, [], 0, 10)
    yield r.readonly()
    yield r.readwrite()
    yield r.cluster("INFO")
    yield r.cluster("MYID")
    yield r.sentinel("masters")
    yield r.sentinel_masters()
    yield r.hotkeys_get()
    yield r.hotkeys_start(["CPU"])
    yield r.hotkeys_stop()
    yield r.hotkeys_reset()
    yield r.shutdown(abort=True)
    yield r.shutdown(save=True, nosave=True)


def clients(r: Recorder) -> Scenario:
    yield r.client_setname("mine")
    yield r.client_getname()
    yield loose(r.client_id())
    yield loose(r.client_info())
    yield loose(r.client_list())
    yield loose(r.client_list(_type="normal"))
    yield r.client_list(client_id=["999999999"])
    yield r.client_list(_type="bad")
    yield r.client_getredir()
    yield r.client_kill("1.2.3.4:5")
    yield r.client_kill_filter(_id="999999999")
    yield r.client_kill_filter()
    yield r.client_no_evict("on")
    yield r.client_no_evict("off")
    yield r.client_no_touch("on")
    yield r.client_pause(1, all=False)
    yield r.client_unpause()
    yield r.client_reply("ON")
    yield r.client_setinfo("LIB-NAME", "mine")
    yield with_sets(r.client_trackinginfo())
    yield r.client_tracking()
    yield r.client_tracking_off()
    yield r.client_tracking_on()
    yield with_sets(r.client_trackinginfo())
    yield r.client_tracking_off()
    yield r.client_unblock(999999999)
    yield r.client_unblock(999999999, error=True)
    yield r.auth("wrong")
    yield r.auth("wrong", username="nobody")
    yield r.select(3)
    yield r.set("in3", 1)
    yield r.select(0)
    yield r.get("in3")
    yield r.select(99)
    yield r.script_debug("NO")
    yield r.watch("k")
    yield r.unwatch()
    yield r.hello()


def acl(r: Recorder) -> Scenario:
    yield r.acl_whoami()
    yield unordered(r.acl_cat())
    yield unordered(r.acl_cat("hyperloglog"))
    yield r.acl_cat("nosuch")
    yield r.acl_setuser("u1", enabled=True, passwords=["+pw"], keys=["k*"], commands=["+get"], categories=["+@read"])
    yield with_sets(r.acl_getuser("u1"))
    yield with_sets(r.acl_getuser("nobody"))
    yield r.acl_list()
    yield r.acl_users()
    yield r.acl_dryrun("u1", "GET", "key")
    yield r.acl_dryrun("u1", "SET", "key", "v")
    yield loose(r.acl_genpass())
    yield loose(r.acl_genpass(128))
    yield r.acl_help()
    yield r.acl_log_reset()
    yield r.acl_log()
    yield r.acl_deluser("u1")
    yield r.acl_load()
    yield r.acl_save()
    yield r.acl_setuser("u2", commands=["+nosuch"])


def queue(p: Any) -> None:
    p.multi()
    p.set("a", 1).get("a").lrange("none", 0, -1)


def helpers(r: Recorder) -> Scenario:
    """What is built of several commands."""
    yield r.do("transaction", lambda c: c.transaction(queue, "a"))
    yield r.do("lock", lambda c: c.lock("lock", timeout=10).acquire(blocking=False))
    yield r.do("lock", lambda c: c.lock("lock", timeout=10).acquire(blocking=False))
    yield r.delete("lock")
    yield r.himport_set("k", "nosuch", [1])
    yield r.himport_prepare("fields", ["a", "b"])
    yield r.himport_set("k", "fields", [1, 2])
    yield r.himport_discard("fields")
    yield r.himport_discard_all()
    yield r.set_response_callback("ECHO", len)
    yield r.echo("four")


SERVER: list[Callable[[Recorder], Scenario]] = [
    scripts,
    pipelines,
    pubsub_commands,
    server,
    clients,
    acl,
    helpers,
]
