// What a message costs a program in C++, beside hiredis. Prints one JSON line for each case; each figure is the median
// of five runs. Redis is found at IOK_REDIS.
#include <hiredis/hiredis.h>
#include <iokernel.hpp>

#include <ctime>
#include <functional>

using namespace iokernel;

namespace {

constexpr int runs = 5, depth = 100, gets = 300000, noops = 1000000, singles = 5000;

double now(clockid_t clock) {
    timespec time;
    clock_gettime(clock, &time);
    return static_cast<double>(time.tv_sec) + static_cast<double>(time.tv_nsec) / 1e9;
}

double median(std::vector<double> values) {
    std::sort(values.begin(), values.end());
    return values[values.size() / 2];
}

void must(bool is_right) {
    if (is_right) return;
    std::fprintf(stderr, "a request failed\n");
    std::exit(1);
}

struct Side {
    const char* name;
    std::function<void()> work;
    std::vector<double> per_second = {}, cpu_ns = {};
};

// Each side does so many messages, in turns, so that what the machine does besides meets all: messages a second, and
// nanoseconds of this thread's CPU time for each.
void measure(const char* name, int messages, std::vector<Side> sides) {
    for (int run = 0; run < runs; run++) {
        for (auto& side : sides) {
            double start = now(CLOCK_MONOTONIC), cpu = now(CLOCK_THREAD_CPUTIME_ID);
            side.work();
            side.cpu_ns.push_back((now(CLOCK_THREAD_CPUTIME_ID) - cpu) * 1e9 / messages);
            side.per_second.push_back(messages / (now(CLOCK_MONOTONIC) - start));
        }
    }
    for (auto& side : sides)
        std::printf("{\"case\": \"%s\", \"side\": \"%s\", \"per_second\": %.0f, \"cpu_ns\": %.0f}\n", name, side.name,
                    median(side.per_second), median(side.cpu_ns));
    std::fflush(stdout);
}

// One at a time, blocking: the median of how long each took.
template <class Work>
void measure_latency(const char* side, const Work& work) {
    std::vector<double> took;
    for (int i = 0; i < singles; i++) {
        double start = now(CLOCK_MONOTONIC);
        work();
        took.push_back(now(CLOCK_MONOTONIC) - start);
    }
    std::printf(
        "{\"case\": \"GET, one at a time\", \"side\": \"%s\", \"p50_us\": %.1f, \"per_second\": %.0f}\n",
        side, median(took) * 1e6, 1 / median(took));
    std::fflush(stdout);
}

void with_futures(Channel& channel, Endpoint& redis) {
    std::vector<Future<Reply>> replies;
    for (int done = 0; done < gets; done += depth) {
        {
            Batch batch(channel);
            for (int i = 0; i < depth; i++) replies.push_back(redis.request("GET", "key"));
        }
        for (auto& each : replies) must(each.get().value().text().size() == 100);
        replies.clear();
    }
}

void with_views(Channel& channel, Endpoint& redis) {
    int sent = 0, done = 0;
    auto take = [&done](Result<View> reply) {
        must(reply && reply->text().size() == 100);
        done++;
    };
    while (done < gets) {
        {
            Batch batch(channel);
            while (sent < gets && sent - done < depth) redis.look(take, "GET", "key"), sent++;
        }
        must(channel.wait(Milliseconds(5000)) > 0);
    }
}

#if defined(__cpp_impl_coroutine)
Task<> one_after_another(Endpoint& redis, int count, int& left) {
    for (int i = 0; i < count; i++) must((co_await redis.request("GET", "key")).value().text().size() == 100);
    left--;
}

void with_coroutines(Kernel& kernel, Endpoint& redis) {
    Loop loop(kernel);
    int left = depth;
    for (int i = 0; i < depth; i++) detach(one_after_another(redis, gets / depth, left));
    while (left) loop.turn(Milliseconds(5000));
}
#endif

void with_hiredis(redisContext* context) {
    for (int done = 0; done < gets; done += depth) {
        for (int i = 0; i < depth; i++) redisAppendCommand(context, "GET key");
        for (int i = 0; i < depth; i++) {
            void* reply;
            must(redisGetReply(context, &reply) == REDIS_OK && static_cast<redisReply*>(reply)->len == 100);
            freeReplyObject(reply);
        }
    }
}

void with_hiredis_arguments(redisContext* context) {
    const char* words[] = {"GET", "key"};
    const std::size_t sizes[] = {3, 3};
    for (int done = 0; done < gets; done += depth) {
        for (int i = 0; i < depth; i++) redisAppendCommandArgv(context, 2, words, sizes);
        for (int i = 0; i < depth; i++) {
            void* reply;
            must(redisGetReply(context, &reply) == REDIS_OK && static_cast<redisReply*>(reply)->len == 100);
            freeReplyObject(reply);
        }
    }
}

// No-ops of the I/O thread, 256 outstanding: what the way there and back costs, and nothing else.
void with_noops(Kernel& kernel) {
    Channel& channel = kernel.channel();
    int sent = 0, done = 0;
    while (done < noops) {
        {
            Batch batch(channel);
            while (sent < noops && sent - done < 256)
                kernel.echo(nullptr).then([&done](Result<Reply>) { done++; }), sent++;
        }
        must(channel.wait(Milliseconds(5000)) > 0);
    }
}

}  // namespace

int main() {
    std::string url = std::getenv("IOK_REDIS");
    std::string address = url.substr(url.find("//") + 2);
    std::string host = address.substr(0, address.find(':')), port = address.substr(host.size() + 1);
    Kernel kernel = Kernel::start("name=bench").value();
    Endpoint redis = kernel.open(url).value();
    redis.call("SET", "key", std::string(100, 'v')).value();
    Channel& channel = kernel.channel();
    redisContext* context = redisConnect(host.c_str(), std::atoi(port.c_str()));
    must(context && !context->err);

    measure("no-op, 256 outstanding", noops, {{"iokernel", [&] { with_noops(kernel); }}});
    measure("GET, 100 in flight", gets,
            {
                {"hiredis", [&] { with_hiredis(context); }},
                {"hiredis, argv", [&] { with_hiredis_arguments(context); }},
                {"iokernel, futures", [&] { with_futures(channel, redis); }},
                {"iokernel, views", [&] { with_views(channel, redis); }},
#if defined(__cpp_impl_coroutine)
                {"iokernel, coroutines", [&] { with_coroutines(kernel, redis); }},
#endif
            });
    measure_latency("iokernel", [&] { must(redis.call("GET", "key").value().text().size() == 100); });
    measure_latency("hiredis", [&] {
        auto* reply = static_cast<redisReply*>(redisCommand(context, "GET key"));
        must(reply && reply->len == 100);
        freeReplyObject(reply);
    });
    redisFree(context);
}
