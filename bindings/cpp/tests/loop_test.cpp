// Coroutines and listeners: `loop_test URL [TEST...]`. The Loop, an event loop of somebody else's, tasks that end
// early, and clients of ours.
#include <iokernel.hpp>

#include <netinet/in.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <stdexcept>
#include <thread>

#include "test.hpp"

using namespace iokernel;
using namespace std::chrono_literals;
using Clock = std::chrono::steady_clock;

namespace {

std::string url;

struct Opened {
    Kernel kernel = Kernel::start().value();
    Endpoint redis = kernel.open(url).value();
};

Task<std::string> ask(Endpoint& redis, std::string what) {
    auto reply = co_await redis.request("ECHO", what);
    co_return std::string(reply.value().text());
}

Task<int> deep(Endpoint& redis, int depth) {
    if (depth == 0) co_return 0;
    (co_await redis.request("PING")).value();
    co_return 1 + co_await deep(redis, depth - 1);
}

Task<> fails(Endpoint& redis) { (co_await redis.request("NOSUCH")).value(); }

// A command in the shell, and the loop that waits for what it says.
class Command {
public:
    explicit Command(const std::string& line) : pipe_(popen(line.c_str(), "r")) {}
    Command(const Command&) = delete;
    ~Command() { pclose(pipe_); }
    Task<std::string> said(Loop& loop) {
        std::string all;
        char piece[65536];
        for (;;) {
            co_await loop.ready(fileno(pipe_), POLLIN);
            ssize_t size = read(fileno(pipe_), piece, sizeof piece);
            if (size <= 0) co_return all;
            all.append(piece, static_cast<std::size_t>(size));
        }
    }

private:
    std::FILE* pipe_;
};

// A client that has asked, and leaves as curl cannot.
class Client {
public:
    explicit Client(const std::string& listener) : fd_(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
        sockaddr_in to{};
        to.sin_family = AF_INET;
        to.sin_port = htons(static_cast<std::uint16_t>(std::stoi(listener.substr(listener.rfind(':') + 1))));
        to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
        CHECK(connect(fd_, reinterpret_cast<sockaddr*>(&to), sizeof to) == 0);
        std::string_view ask = "GET / HTTP/1.1\r\nHost: here\r\nConnection: close\r\n\r\n";
        CHECK(write(fd_, ask.data(), ask.size()) == static_cast<ssize_t>(ask.size()));
    }
    Client(const Client&) = delete;
    ~Client() { ::close(fd_); }

    void end_sending() { CHECK(shutdown(fd_, SHUT_WR) == 0); }

    // Leaves with a reset, which the other side hears of at once.
    void reset() {
        linger at_once{1, 0};
        CHECK(setsockopt(fd_, SOL_SOCKET, SO_LINGER, &at_once, sizeof at_once) == 0);
        ::close(std::exchange(fd_, -1));
    }

    Task<std::string> said(Loop& loop) {
        std::string all;
        char piece[4096];
        for (;;) {
            co_await loop.ready(fd_, POLLIN);
            ssize_t size = read(fd_, piece, sizeof piece);
            if (size <= 0) co_return all;
            all.append(piece, static_cast<std::size_t>(size));
        }
    }

private:
    int fd_;
};

// Counts those that are alive.
struct Counted {
    explicit Counted(int& all) : all(all) { all++; }
    Counted(const Counted&) = delete;
    ~Counted() { all--; }
    int& all;
};

}  // namespace

TEST(tasks_await_tasks) {
    Opened at;
    Loop loop(at.kernel);
    auto main = [&]() -> Task<std::string> { co_return co_await ask(at.redis, "a") + co_await ask(at.redis, "b"); };
    CHECK(loop.run(main()) == "ab" && loop.run(deep(at.redis, 200)) == 200);
}

TEST(errors_go_to_who_awaits) {
    Opened at;
    Loop loop(at.kernel);
    auto main = [&]() -> Task<std::string> {
        try {
            co_await fails(at.redis);
        } catch (const RemoteError& error) {
            co_return error.error().code;
        }
        co_return "nothing was thrown";
    };
    CHECK(loop.run(main()) == "ERR");
    bool came = false;
    try {
        loop.run(fails(at.redis));
    } catch (const RemoteError&) {
        came = true;
    }
    CHECK(came);
}

TEST(timers_fire_in_their_order) {
    Opened at;
    Loop loop(at.kernel);
    std::string order;
    int left = 3;
    auto later = [&](Milliseconds time, char name) -> Task<> {
        co_await loop.sleep(time);
        order += name;
        left--;
    };
    auto main = [&]() -> Task<> {
        detach(later(60ms, 'c'));
        detach(later(20ms, 'a'));
        detach(later(40ms, 'b'));
        auto forgotten = later(30ms, 'x');
        forgotten.start();
        { auto gone = std::move(forgotten); }
        while (left) co_await loop.sleep(5ms);
    };
    auto start = Clock::now();
    loop.run(main());
    CHECK(order == "abc" && Clock::now() - start >= 60ms && Clock::now() - start < 2s);
}

// Replies that all wait, each with work to do: a turn takes some of them, then timers and descriptors.
TEST(many_replies_starve_nobody) {
    Opened at;
    Loop loop(at.kernel);
    const int count = 2000;
    int ended = 0, fired = 0, read_at = count, ends[2];
    CHECK(pipe(ends) == 0 && write(ends[1], "x", 1) == 1);
    auto ask = [&](int i) -> Task<> {
        (co_await at.redis.request("ECHO", i)).value();
        for (auto start = Clock::now(); Clock::now() - start < 50us;) continue;
        ended++;
    };
    auto tick = [&]() -> Task<> {
        for (; ended < count; fired += ended < count) co_await loop.sleep(1ms);
    };
    auto look = [&]() -> Task<> {
        CHECK(co_await loop.ready(ends[0], POLLIN));
        read_at = ended;
    };
    for (int i = 0; i < count; i++) detach(ask(i));
    at.kernel.channel().flush();
    std::this_thread::sleep_for(300ms);
    detach(look());
    loop.run(tick());
    CHECK(ended == count && fired >= 4 && read_at < count / 2);
    ::close(ends[0]);
    ::close(ends[1]);
}

TEST(a_loop_that_closes_ends_its_tasks) {
    Opened at;
    int alive = 0, came_back = 0, ends[2];
    CHECK(pipe(ends) == 0);
    at.redis.ready().get().value();
    std::optional<Task<>> kept_asleep, kept_watching;
    {
        Loop loop(at.kernel);
        auto sleep = [&]() -> Task<> {
            Counted one(alive);
            co_await loop.sleep(30ms);
            came_back++;
        };
        auto watch = [&]() -> Task<> {
            Counted one(alive);
            co_await loop.ready(ends[0], POLLIN);
            came_back++;
        };
        auto ask = [&]() -> Task<> {
            Counted one(alive);
            (void)co_await at.redis.request("BLPOP", "never", 0);
            came_back++;
        };
        auto nested = [&]() -> Task<> {
            Counted one(alive);
            co_await sleep();
        };
        auto brief = [&]() -> Task<> {
            Counted one(alive);
            co_await loop.sleep(1ms);
        };
        auto main = [&]() -> Task<> {
            detach(sleep()), detach(watch()), detach(ask()), detach(nested()), detach(brief());
            kept_asleep = sleep(), kept_watching = watch();
            kept_asleep->start(), kept_watching->start();
            co_await loop.sleep(5ms);
        };
        loop.run(main());
        CHECK(alive == 7);
    }
    CHECK(alive == 2);
    CHECK(write(ends[1], "x", 1) == 1);
    Loop next(at.kernel);
    auto rest = [&]() -> Task<> { co_await next.sleep(50ms); };
    next.run(rest());
    kept_asleep.reset(), kept_watching.reset();
    CHECK(alive == 0 && came_back == 0 && next.run(ask(at.redis, "still here")) == "still here");
    ::close(ends[0]);
    ::close(ends[1]);
}

TEST(destroyed_tasks_cancel_what_they_wait_for) {
    Opened at;
    Loop loop(at.kernel);
    at.redis.ready().get().value();
    bool came_back = false;
    auto wait_for_ever = [&]() -> Task<> {
        (void)co_await at.redis.request("BLPOP", "never", 0);
        came_back = true;
    };
    std::optional<Task<>> task = wait_for_ever();
    task->start();
    auto blocked = [&]() -> Task<std::int64_t> {
        auto reply = (co_await at.redis.request("INFO", "clients")).value();
        std::string text(reply.text());
        co_return std::stoll(text.substr(text.find("blocked_clients:") + 16));
    };
    for (int i = 0; i < 500 && loop.run(blocked()) != 1; i++) std::this_thread::sleep_for(5ms);
    CHECK(loop.run(blocked()) == 1);
    task.reset();
    for (int i = 0; i < 500 && loop.run(blocked()) != 0; i++) std::this_thread::sleep_for(5ms);
    CHECK(loop.run(blocked()) == 0 && !came_back);
}

TEST(blocking_inside_of_a_coroutine_is_possible) {
    Opened at;
    Loop loop(at.kernel);
    auto main = [&]() -> Task<> {
        auto first = at.redis.request("ECHO", 1);
        CHECK(at.redis.call("ECHO", 2).value().text() == "2");
        CHECK((co_await std::move(first)).value().text() == "1");
        CHECK(at.redis.call("ECHO", 3).value().text() == "3");
    };
    loop.run(main());
}

TEST(somebody_elses_loop_runs_coroutines) {
    Opened at;
    Channel& channel = at.kernel.channel();
    int epoll = epoll_create1(EPOLL_CLOEXEC), left = 1000;
    epoll_event event{};
    event.events = EPOLLIN;
    CHECK(epoll_ctl(epoll, EPOLL_CTL_ADD, channel.fd(), &event) == 0);
    auto count = [&](int i) -> Task<> {
        CHECK((co_await at.redis.request("ECHO", i)).value().text() == std::to_string(i));
        CHECK((co_await at.redis.request("ECHO", -i)).value().text() == std::to_string(-i));
        left--;
    };
    {
        Batch batch(channel);
        for (int i = 0; i < 1000; i++) detach(count(i));
    }
    while (left > 0) {
        CHECK(epoll_wait(epoll, &event, 1, 5000) == 1);
        while (channel.poll() > 0) continue;
    }
    CHECK(epoll_wait(epoll, &event, 1, 0) == 0 || !"the descriptor is readable while nothing waits");
    ::close(epoll);
}

TEST(a_kernel_that_closes_ends_every_task) {
    Opened at;
    Loop loop(at.kernel);
    int ended = 0;
    auto wait = [&]() -> Task<> {
        auto reply = co_await at.redis.request("BLPOP", "never", 0);
        ended += !reply && reply.error().kind() == ErrorKind::closed;
    };
    auto listen = [&]() -> Task<> {
        auto news = (co_await at.redis.subscribe("SUBSCRIBE", "never")).value();
        auto message = co_await news.next();
        ended += !message && message.error().kind() == ErrorKind::closed;
    };
    auto main = [&]() -> Task<> {
        for (int i = 0; i < 5; i++) detach(wait()), detach(listen());
        (co_await at.redis.request("PING")).value();
        co_await loop.sleep(20ms);
        at.kernel.close().value();
        while (ended < 10) co_await loop.sleep(1ms);
    };
    loop.run(main());
    CHECK(ended == 10);
}

TEST(a_listener_serves_many) {
    Opened at;
    Loop loop(at.kernel);
    Listener listener = at.kernel.listen("http://127.0.0.1:0").value();
    int served = 0;
    auto answer = [&](Request request) -> Task<> {
        std::string path(request.args()[0][1].text());
        if (path == "/wrong") {
            request.error("ERR", "no");
        } else {
            auto reply = co_await at.redis.request("ECHO", path);
            request.reply(list(200, Map{{"X-Number", std::to_string(served)}}, bytes(reply.value().text())));
        }
        served++;
    };
    auto serve = [&]() -> Task<> {
        while (auto request = co_await listener.next()) detach(answer(*std::move(request)));
    };
    auto main = [&]() -> Task<> {
        detach(serve());
        Command curl("curl -s '" + listener.url() + "/[1-200]'; curl -s -o /dev/null -w '%{http_code}' " +
                     listener.url() + "/wrong");
        std::string wanted, said = co_await curl.said(loop);
        for (int i = 1; i <= 200; i++) wanted += "/" + std::to_string(i);
        CHECK(said == wanted + "500");
    };
    loop.run(main());
    CHECK(served == 201 && listener.failures() == 0);
    listener.close();
    listener.close();
    CHECK(listener.next().get().error().kind() == ErrorKind::closed);
}

TEST(bodies_stream_both_ways) {
    Opened at;
    Loop loop(at.kernel);
    Listener listener = at.kernel.listen("http://127.0.0.1:0", {{"stream_above", "4KiB"}, {"window", "64KiB"}}).value();
    std::size_t came = 0;
    auto answer = [&](Request request) -> Task<> {
        CHECK(request.args()[1].boolean() == true);
        request.begin(list(200, Map{}, true));
        for (;;) {
            auto piece = (co_await request.piece()).value();
            if (piece.is_end()) break;
            came += piece.text().size();
            (co_await request.send(bytes(piece.text()))).value();
        }
        (co_await request.finish()).value();
        CHECK(request.is_gone() && !co_await request.send("more"));
    };
    auto serve = [&]() -> Task<> { detach(answer((co_await listener.next()).value())); };
    auto main = [&]() -> Task<> {
        detach(serve());
        Command curl("head -c 3000000 /dev/zero | curl -s -H Expect: --data-binary @- " + listener.url() + " | cksum");
        Command wanted("head -c 3000000 /dev/zero | cksum");
        std::string said = co_await curl.said(loop);
        CHECK(said == co_await wanted.said(loop) && came == 3000000);
    };
    loop.run(main());
}

TEST(a_client_that_leaves_is_told_of) {
    Opened at;
    Loop loop(at.kernel);
    Listener listener = at.kernel.listen("http://127.0.0.1:0").value();
    auto main = [&]() -> Task<> {
        Client client(listener.url());
        Request request = (co_await listener.next()).value();
        CHECK(!request.is_gone());
        client.reset();
        for (int i = 0; i < 500 && !request.is_gone(); i++) co_await loop.sleep(5ms);
        CHECK(request.is_gone());
        request.reply(list(200, Map{}, "late"));
        CHECK((co_await request.piece()).error().kind() == ErrorKind::lost);
    };
    loop.run(main());
}

// One that only closes may still read, for all that TCP tells: it is known to have left once it was sent something.
TEST(a_client_that_leaves_in_silence_is_found_out) {
    Opened at;
    Loop loop(at.kernel);
    Listener listener = at.kernel.listen("http://127.0.0.1:0").value();
    auto main = [&]() -> Task<> {
        Command curl("curl -s -m 0.2 " + listener.url() + "; echo left");
        Request request = (co_await listener.next()).value();
        CHECK(co_await curl.said(loop) == "left\n" && !request.is_gone());
        request.begin(list(200, Map{}, true));
        auto sent = co_await request.send("more");
        for (int i = 0; i < 500 && sent; i++) {
            co_await loop.sleep(5ms);
            sent = co_await request.send("more");
        }
        CHECK(!sent && sent.error().kind() == ErrorKind::lost && request.is_gone());
    };
    loop.run(main());
}

TEST(a_client_that_has_said_all_is_answered) {
    Opened at;
    Loop loop(at.kernel);
    Listener listener = at.kernel.listen("http://127.0.0.1:0").value();
    auto main = [&]() -> Task<> {
        Client client(listener.url());
        Request request = (co_await listener.next()).value();
        client.end_sending();
        co_await loop.sleep(50ms);
        CHECK(!request.is_gone());
        request.reply(list(200, Map{}, "answered"));
        std::string said = co_await client.said(loop);
        CHECK(said.find(" 200 ") != said.npos && said.find("answered") != said.npos);
    };
    loop.run(main());
}

TEST(a_listener_leaves_gently) {
    Opened at;
    Loop loop(at.kernel);
    Listener listener = at.kernel.listen("http://127.0.0.1:0").value();
    auto main = [&]() -> Task<> {
        Command curl("curl -s " + listener.url());
        Request request = (co_await listener.next()).value();
        auto left = listener.close_gently(2s);
        co_await loop.sleep(50ms);
        request.reply(list(200, Map{}, "bye"));
        CHECK(co_await curl.said(loop) == "bye" && co_await std::move(left));
        CHECK((co_await listener.next()).error().kind() == ErrorKind::closed);
    };
    loop.run(main());
}

TEST(a_redis_of_our_own) {
    Kernel kernel = Kernel::start().value();
    Loop loop(kernel);
    Listener listener = kernel.listen("redis://127.0.0.1:0").value();
    Endpoint client = kernel.open(listener.url()).value();
    auto serve = [&]() -> Task<> {
        while (auto request = co_await listener.next()) {
            View words = request->args();
            words[0].text() == "FAIL" ? request->error("WRONG", "as you wish") : request->reply(words[1]);
        }
    };
    auto main = [&]() -> Task<> {
        detach(serve());
        for (int i = 0; i < 100; i++) CHECK((co_await client.request("ECHO", i)).value().text() == std::to_string(i));
        auto failed = co_await client.request("FAIL");
        CHECK(!failed && failed.error().code == "WRONG" && failed.error().message == "as you wish");
    };
    loop.run(main());
}

int main(int argc, char** argv) {
    if (argc < 2) return 2;
    url = argv[1];
    int status = run_tests(argc - 2, argv + 2);
    std::puts("# fine");
    return status;
}
