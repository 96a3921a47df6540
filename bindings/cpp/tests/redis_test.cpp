// The wrapper beside a real server: `redis_test URL [TEST...]`. Order, ends, cancelling, who owns what, and what is
// left.
#include <iokernel.hpp>

#include <sys/wait.h>
#include <unistd.h>

#include <thread>

#include "test.hpp"

using namespace iokernel;
using namespace std::chrono_literals;

namespace {

std::string url;

struct Opened {
    Kernel kernel = Kernel::start().value();
    Endpoint redis = kernel.open(url).value();
};

std::int64_t conns(const Requests& redis) {
    std::string said(redis.call("CLIENT", "LIST").value().text());
    return static_cast<std::int64_t>(std::count(said.begin(), said.end(), '\n'));
}

}  // namespace

TEST(futures_end_in_any_order) {
    Opened at;
    std::vector<Future<Reply>> futures;
    for (int i = 0; i < 1000; i++) futures.push_back(at.redis.request("ECHO", i));
    for (int i = 999; i >= 0; i--)
        CHECK(futures[static_cast<std::size_t>(i)].get().value().text() == std::to_string(i));
}

TEST(a_batch_goes_in_one_piece_and_keeps_its_order) {
    Opened at;
    std::vector<Future<Reply>> futures;
    {
        Batch batch(at.kernel.channel());
        for (int i = 0; i < 100; i++) futures.push_back(at.redis.request("ECHO", i));
        std::this_thread::sleep_for(20ms);
        CHECK(at.kernel.channel().poll() == 0 || !"something was sent before the batch ended");
    }
    for (int i = 0; i < 100; i++) CHECK(futures[static_cast<std::size_t>(i)].get().value().text() == std::to_string(i));
}

TEST(commands_in_one_request_are_answered_by_one_array) {
    Opened at;
    auto reply =
        at.redis.call(list("SET", "b:a", 1), list("INCR", "b:a"), list("LPUSH", "b:a", "x"), list("GET", "b:a"))
            .value();
    View view = reply.view();
    CHECK(view.size() == 4 && view[0].text() == "OK" && view[1].integer() == 2 && view[3].text() == "2");
    CHECK(view[2].is_error() && view[2].error().code == "WRONGTYPE");
    CHECK(reply.value().as<Array>()->at(2).as<Fault>()->code == "WRONGTYPE");
    at.redis.call("DEL", "b:a").value();
}

TEST(errors_tell_whose_they_are) {
    Opened at;
    at.redis.call("SET", "e:text", "x").value();
    auto failed = at.redis.call("LPUSH", "e:text", "x");
    CHECK(!failed && failed.error().kind() == ErrorKind::remote && failed.error().fate == Fate::replied);
    CHECK(failed.error().endpoint == at.redis.url() && failed.error().peer != 0 && failed.error().code == "WRONGTYPE");
    CHECK(failed.error().text().find("WRONGTYPE Operation against a key") == 0);
    auto none = at.redis.call("SET", "x", nullptr);
    CHECK(!none && none.error().kind() == ErrorKind::bad_request &&
          none.error().text().find("nil") != std::string::npos);
    auto wrong = at.kernel.open(url, {{"heartbeat", "soon"}});
    CHECK(!wrong && wrong.error().kind() == ErrorKind::bad_config &&
          wrong.error().text().find("soon") != std::string::npos);
    CHECK(!at.redis.call(within(0ms), "PING") && at.redis.call(within(-1s), "PING").error().fate == Fate::not_sent);
}

TEST(a_reply_is_looked_at_where_it_lies) {
    Opened at;
    std::string large(3000000, 'l');
    at.redis.call("SET", "l:large", large).value();
    at.redis.call("SET", "l:small", "small").value();
    int seen = 0, failed = 0;
    at.redis.look([&](Result<View> view) { seen += view && view->text() == "small"; }, "GET", "l:small");
    at.redis.look([&](Result<View> view) { seen += view && view->text() == large; }, "GET", "l:large");
    at.redis.look([&](Result<View> view) { failed += !view && view.error().code == "WRONGTYPE"; }, within(5s), "LPUSH",
                  "l:small", 1);
    while (seen + failed < 3) CHECK(at.kernel.channel().wait(5s) > 0);
    CHECK(seen == 2 && failed == 1);
    at.redis.call("DEL", "l:large", "l:small").value();
}

TEST(handlers_may_ask_wait_and_be_asked_again) {
    Opened at;
    std::vector<int> order;
    std::vector<Future<Reply>> futures;
    for (int i = 0; i < 50; i++)
        at.redis.request("ECHO", i).then([&, i](Result<Reply> reply) {
            CHECK(reply && reply->text() == std::to_string(i));
            CHECK(at.redis.call("ECHO", "inside").value().text() == "inside");  // hands out what follows, meanwhile
            order.push_back(i);
        });
    while (order.size() < 50) CHECK(at.kernel.channel().wait(5s) > 0);
    std::sort(order.begin(), order.end());
    for (int i = 0; i < 50; i++) CHECK(order[static_cast<std::size_t>(i)] == i);
    bool at_once = false;
    auto done = at.redis.request("PING");
    while (!done.is_ready()) std::this_thread::sleep_for(1ms);
    std::move(done).then([&](Result<Reply> reply) { at_once = bool(reply); });
    CHECK(at_once);
}

TEST(a_channel_says_how_much_it_handed_out) {
    Opened at;
    at.redis.ready().get().value();
    auto channel = at.kernel.open_channel().value();
    CHECK(channel.wait(0ms) == 0 && channel.wait(20ms) == 0);
    for (std::size_t count : {std::size_t{1}, std::size_t{100}}) {
        std::size_t handed_out = 0, came = 0;
        for (std::size_t i = 0; i < count; i++)
            at.redis.via(channel).request("ECHO", i).then([&](Result<Reply> reply) { came += bool(reply); });
        auto start = std::chrono::steady_clock::now();
        while (came < count) {
            std::size_t before = came, now = channel.wait(5s);
            CHECK(now > 0 && now == came - before);
            handed_out += now;
        }
        CHECK(handed_out == count && std::chrono::steady_clock::now() - start < 4s);
    }
}

TEST(a_wait_that_ends_early_leaves_the_request_under_way) {
    Opened at;
    at.redis.ready().get().value();
    auto slow = at.redis.request("DEBUG", "SLEEP", "0.2");
    CHECK(!slow.wait(20ms) && !slow.is_ready() && slow.get().value().text() == "OK");
}

TEST(cancelling_at_any_moment_disturbs_nobody) {
    Opened at;
    for (int i = 0; i < 2000; i++) {
        auto before = at.redis.request("ECHO", i);
        auto cancelled = at.redis.request("ECHO", "c");
        auto dropped = at.redis.request("ECHO", "d");
        if (i % 3) CHECK(before.wait(5s));
        cancelled.cancel();
        cancelled.cancel();
        auto outcome = cancelled.get();
        CHECK(outcome ? outcome->text() == "c" : outcome.error().kind() == ErrorKind::cancelled);
        CHECK(before.get().value().text() == std::to_string(i));
    }
}

TEST(futures_outlive_channel_and_kernel) {
    std::vector<Future<Reply>> left;
    std::vector<Future<Subscription>> streams;
    std::vector<Future<Lease>> leases;
    {
        Opened at;
        at.redis.ready().get().value();
        Channel own = at.kernel.open_channel().value();
        left.push_back(at.redis.via(own).request("DEBUG", "SLEEP", "0.1"));
        left.push_back(at.redis.request("DEBUG", "SLEEP", "0.1"));
        streams.push_back(at.redis.subscribe("SUBSCRIBE", "o:1"));
        leases.push_back(at.redis.lease());
    }
    for (auto& each : left) CHECK(each.get().error().kind() == ErrorKind::closed);
    auto stream = streams[0].get();
    CHECK(!stream || !stream->next().get());
    (void)leases[0].get();
}

TEST(a_lease_that_nobody_takes_goes_back) {
    Opened at;
    Endpoint few = at.kernel.open(url, {{"lanes", "2"}}).value();
    for (int i = 0; i < 50; i++) {
        auto cancelled = few.lease(within(2s));
        auto dropped = few.lease(within(2s));
        if (i % 2) CHECK(cancelled.wait(2s));
        cancelled.cancel();
    }
    Lease one = few.lease(within(2s)).get().value(), two = few.lease(within(2s)).get().value();
    CHECK(one.call("CLIENT", "ID").value().integer() != two.call("CLIENT", "ID").value().integer());
    auto none = few.lease(within(50ms)).get();
    CHECK(!none);
    one.release();
    one.release();
    CHECK(one.call("PING").error().kind() == ErrorKind::closed);
    Lease three = few.lease(within(2s)).get().value();
    CHECK(three.call("PING").value().text() == "PONG");
}

TEST(a_lease_comes_back_clean) {
    Opened at;
    {
        Lease conn = at.redis.lease().get().value();
        conn.call("SELECT", 3).value();
        conn.call("MULTI").value();
        conn.call("SET", "never", 1).value();
    }
    Lease conn = at.redis.lease().get().value();
    CHECK(conn.call("EXISTS", "never").value().integer() == 0);
}

TEST(a_message_that_comes_after_a_wait_is_the_next_ones) {
    Opened at;
    auto news = at.redis.subscribe("SUBSCRIBE", "m:1").get().value();
    {
        auto early = news.next();
        CHECK(!early.wait(10ms));
        auto second = news.next().get();
        CHECK(!second && second.error().kind() == ErrorKind::bad_request);
        early.cancel();
        CHECK(early.get().error().kind() == ErrorKind::cancelled);
    }
    at.redis.call("PUBLISH", "m:1", "first").value();
    {
        auto seen = news.next();
        CHECK(seen.wait(5s));  // and dropped
    }
    at.redis.call("PUBLISH", "m:1", "second").value();
    CHECK(news.next().get().value().view()[2].text() == "first");
    CHECK(news.next().get().value().view()[2].text() == "second");
}

TEST(a_subscription_ends_with_its_object) {
    Opened at;
    for (int i = 0; i < 20; i++) {
        auto taken = at.redis.subscribe("SUBSCRIBE", "s:" + std::to_string(i)).get().value();
        auto dropped = at.redis.subscribe("SUBSCRIBE", "t:" + std::to_string(i));
        auto cancelled = at.redis.subscribe("SUBSCRIBE", "u:" + std::to_string(i));
        cancelled.cancel();
        CHECK(!cancelled.get());
    }
    for (int i = 0; i < 500 && !at.redis.call("PUBSUB", "CHANNELS").value().view().size(); i++) break;
    for (int i = 0; i < 500 && at.redis.call("PUBSUB", "CHANNELS").value().view().size(); i++)
        std::this_thread::sleep_for(10ms);
    CHECK(at.redis.call("PUBSUB", "CHANNELS").value().view().size() == 0);
    auto refused = at.redis.subscribe("GET", "x").get();
    CHECK(!refused && refused.error().kind() == ErrorKind::bad_request);
}

TEST(watching_tells_how_an_endpoint_is) {
    Opened at;
    auto watch = at.redis.watch().get().value();
    std::string state;
    for (int i = 0; i < 20 && state != "up"; i++) state = watch.next().get().value().view()["state"].text();
    CHECK(state == "up" && at.redis.state().get().value().view()["state"].text() == "up");
    CHECK(at.kernel.state().get().value().view()["endpoints"].size() == 1);
}

TEST(nobody_there_is_unavailable) {
    Kernel kernel = Kernel::start().value();
    Endpoint nobody = kernel.open("redis://127.0.0.1:1").value();
    auto up = nobody.ready(100ms).get();
    CHECK(!up && up.error().kind() == ErrorKind::unavailable && up.error().fate == Fate::not_sent);
    auto fast = kernel.open("redis://127.0.0.1:1", {{"when_down", "fail"}}).value();
    auto failed = fast.call(within(5s), "PING");
    CHECK(!failed && failed.error().kind() == ErrorKind::unavailable);
}

TEST(one_way_requests_are_sent_before_their_channel_goes) {
    Opened at;
    at.redis.call("DEL", "w:list").value();
    {
        Channel own = at.kernel.open_channel().value();
        for (int i = 0; i < 1000; i++) at.redis.via(own).send("RPUSH", "w:list", i).value();
    }
    CHECK(at.redis.call("LLEN", "w:list").value().integer() == 1000);
    std::uint64_t before = at.kernel.channel().failures();
    at.redis.send("LPUSH").value();
    at.redis.call("PING").value();
    CHECK(at.kernel.channel().failures() == before + 1);
    at.redis.call("DEL", "w:list").value();
}

TEST(threads_share_an_endpoint) {
    Opened at;
    std::int64_t before = conns(at.redis);
    std::vector<std::thread> threads;
    std::atomic<int> right{0};
    for (int thread = 0; thread < 4; thread++)
        threads.emplace_back([&, thread] {
            for (int i = 0; i < 500; i++)
                right += at.redis.call("ECHO", thread * 1000 + i).value().text() == std::to_string(thread * 1000 + i);
        });
    for (auto& each : threads) each.join();
    CHECK(right == 2000 && conns(at.redis) == before);
}

TEST(threads_open_and_close_at_the_same_time) {
    Opened at;
    std::vector<std::thread> threads;
    for (int thread = 0; thread < 4; thread++)
        threads.emplace_back([&] {
            for (int i = 0; i < 20; i++) {
                Endpoint own = at.kernel.open(url).value();
                CHECK(own.call("PING").value().text() == "PONG");
            }
        });
    for (auto& each : threads) each.join();
    at.redis.call("PING").value();
}

TEST(a_route_goes_with_a_request) {
    Opened at;
    CHECK(at.redis.call(route(7).idempotent().within(5s), "ECHO", "r").value().text() == "r");
    CHECK(at.redis.call(Options().without_deadline(), "ECHO", "r").value().text() == "r");
}

TEST(endpoints_close_and_stay_closed) {
    Opened at;
    Endpoint second = at.kernel.open(url).value();
    second.call("PING").value();
    Endpoint moved = std::move(second);
    CHECK(moved.call("PING").value().text() == "PONG" && second.call("PING").error().kind() == ErrorKind::closed);
    moved.close();
    moved.close();
    CHECK(moved.is_closed() && moved.call("PING").error().kind() == ErrorKind::closed);
    CHECK(moved.request("PING").get().error().fate == Fate::not_sent && !moved.send("PING") && !moved.lease().get());
    CHECK(!moved.subscribe("SUBSCRIBE", "x").get());
}

TEST(children_of_children_have_their_own) {
    Opened at;
    at.redis.ready().get().value();
    pid_t child = fork();
    if (child == 0) {
        bool is_right = at.redis.call(within(5s), "ECHO", "child").value().text() == "child";
        pid_t second = fork();
        if (second == 0) _exit(at.redis.call(within(5s), "ECHO", "second").value().text() == "second" ? 0 : 1);
        int status = 1;
        waitpid(second, &status, 0);
        is_right = is_right && status == 0 && at.redis.call(within(5s), "ECHO", "again").value().text() == "again";
        _exit(is_right ? 0 : 1);
    }
    int status = 1;
    waitpid(child, &status, 0);
    CHECK(status == 0 && at.redis.call("ECHO", "parent").value().text() == "parent");
}

TEST(counters_gauges_and_histograms) {
    Kernel kernel = Kernel::start().value();
    Counter counter = kernel.counter("cpp_orders", {{"shop", "north"}}, "Orders.").value();
    std::uint64_t before = counter.value();
    counter.inc();
    counter.inc(6);
    CHECK(counter.value() == before + 7 &&
          kernel.counter("cpp_orders", {{"shop", "north"}}).value().value() == before + 7);
    Gauge gauge = kernel.gauge("cpp_depth").value();
    gauge.set(2.5);
    gauge.add(-1);
    CHECK(gauge.value() == 1.5);
    Histogram histogram = kernel.histogram("cpp_took", {0.1, 1}).value();
    histogram.observe(0.1);
    histogram.observe(5);
    auto wrong = kernel.counter("no name");
    CHECK(!wrong && wrong.error().kind() == ErrorKind::bad_config);
}

TEST(markers_nest_and_overflow) {
    Kernel kernel = Kernel::start().value();
    Marker outer(kernel, "outer");
    for (int round = 0; round < 100; round++) {
        std::vector<std::unique_ptr<Marker>> inside;
        for (int i = 0; i < 20; i++) inside.push_back(std::make_unique<Marker>(kernel, std::string(100, 'm')));
        while (!inside.empty()) inside.pop_back();
    }
    iok_markers* slot = detail::marker_slot(*kernel.shared());
    CHECK(slot && slot->current != 0 && slot->overflows == 600);
    int active = 0;
    for (const iok_marker& place : slot->places) active += (place.length & 0x80000000u) != 0;
    CHECK(active == 1);
}

int main(int argc, char** argv) {
    if (argc < 2) return 2;
    url = argv[1];
    int status = run_tests(argc - 2, argv + 2);
    std::puts("# fine");
    return status;
}
