// The shared scenarios in C++: `bindings/scenarios/run.py cpp`. Where C++ has coroutines, they are shown there too.
#include <iokernel.hpp>

#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cinttypes>
#include <cstdarg>
#include <dirent.h>
#include <fstream>
#include <iterator>
#include <set>
#include <thread>

using namespace iokernel;
using namespace std::chrono_literals;
using Clock = std::chrono::steady_clock;

namespace {

struct Failed {
    std::string why;
};

[[gnu::format(printf, 2, 3)]] void check(bool is_so, const char* format, ...) {
    if (is_so) return;
    char text[512];
    va_list arguments;
    va_start(arguments, format);
    std::vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    throw Failed{text};
}

// What the scenarios have in common

std::string redis_url() { return std::getenv("IOK_REDIS"); }

// An endpoint in a kernel of its own.
struct Opened {
    Kernel kernel = Kernel::start().value();
    Endpoint redis = kernel.open(redis_url()).value();
};

std::string text(View view) { return std::string(view.text()); }
std::int64_t number(View view) { return view.integer().value(); }
Milliseconds time_of(View view) { return Milliseconds(number(view)); }

Milliseconds since(Clock::time_point start) { return std::chrono::duration_cast<Milliseconds>(Clock::now() - start); }

// Whether a reply is what a scenario says: `{"bytes": "v"}`.
bool matches(View found, View wanted) {
    View given = wanted["text"];
    if (given) return found.kind() == Kind::text && found.text() == given.text();
    if ((given = wanted["bytes"])) return found.kind() == Kind::bytes && found.text() == given.text();
    if ((given = wanted["int"])) return found.integer() && found.integer() == given.integer();
    if (wanted["nil"]) return found.is_nil();
    given = wanted["array"];
    if (found.kind() != Kind::array || found.size() != given.size()) return false;
    for (std::size_t i = 0; i < given.size(); i++)
        if (!matches(found[i], given[i])) return false;
    return true;
}

std::string lower(std::string_view name) {
    std::string made(name);
    for (char& each : made) each = static_cast<char>(std::tolower(each));
    return made;
}

const char* fate_name(Fate fate) {
    static const char* const names[] = {"", "not_sent", "maybe_executed", "replied"};
    return names[static_cast<int>(fate)];
}

void is_error(const Error& error, View wanted) {
    std::string name = lower(error.name()), what = error.text();
    check(name == wanted["error"].text(), "%s: %s: expected %s", what.c_str(), name.c_str(),
          text(wanted["error"]).c_str());
    if (wanted["code"]) check(error.code == wanted["code"].text(), "%s: code %s", what.c_str(), error.code.c_str());
    if (wanted["fate"])
        check(fate_name(error.fate) == wanted["fate"].text(), "%s: %s", what.c_str(), fate_name(error.fate));
    if (wanted["names"]) check(what.find(text(wanted["names"])) != what.npos, "%s: expected a name", what.c_str());
}

// The outcome is what a scenario says: `reply` or `error`.
void expect(const Result<Reply>& found, View wanted) {
    if (wanted["error"]) {
        check(!found, "it succeeded: expected %s", text(wanted["error"]["error"]).c_str());
        return is_error(found.error(), wanted["error"]);
    }
    check(bool(found), "%s", found ? "" : found.error().text().c_str());
    check(matches(found->view(), wanted["reply"]), "another reply than expected: %s", text(found->view()).c_str());
}

// The same where the error stands in the scenario itself.
void expect_error(const Result<Reply>& found, View scenario) {
    check(!found, "it succeeded: expected %s", text(scenario["error"]["error"]).c_str());
    is_error(found.error(), scenario["error"]);
}

// A request whose `$name` is filled in.
Array filled(View request, const Value& with) {
    Array made;
    for (View each : request) made.push_back(each.text().substr(0, 1) == "$" ? with : to_value(each));
    return made;
}

Array filled(View request, std::int64_t with) { return filled(request, std::to_string(with)); }

// The scenarios

void echo(View one) {
    Kernel kernel = Kernel::start().value();
    for (View each : one["values"]) {
        Value value = to_value(each);
        check(kernel.echo(value).get().value().value() == value, "another value came back than %s",
              each.text().empty() ? "that" : text(each).c_str());
    }
}

void get_set(View one) {
    Opened at;
    for (View call : one["calls"]) expect(at.redis.call(words(call["call"])), call);
}

void errors_and_fates(View one) {
    get_set(one);
    for (View wrong : one["urls"]) {
        auto opened = iokernel::open(wrong["url"].text());
        check(!opened, "%s: it was opened", text(wrong["url"]).c_str());
        is_error(opened.error(), wrong["error"]);
    }
    View refused = one["refused"];
    Endpoint nobody = iokernel::open(refused["url"].text()).value();
    expect_error(nobody.call(within(time_of(refused["timeout"])), words(refused["call"])), refused);
}

void timeout(View one) {
    Opened at;
    at.redis.ready().get().value();
    expect_error(at.redis.call(within(time_of(one["timeout"])), words(one["slow"])), one);
    expect(at.redis.call(words(one["then"]["call"])), one["then"]);
}

void cancel_a_future(View one) {
    Opened at;
    at.redis.ready().get().value();
    auto slow = at.redis.request(words(one["slow"]));
    std::this_thread::sleep_for(time_of(one["cancel_after"]));
    auto start = Clock::now();
    slow.cancel();
    expect_error(slow.get(), one);
    check(since(start) < time_of(one["ends_within"]), "it did not end at once");
    expect(at.redis.call(words(one["then"]["call"])), one["then"]);
}

// A coroutine that is destroyed while it waits.
void cancel_a_task(View one) {
    Opened at;
    Loop loop(at.kernel);
    at.redis.ready().get().value();
    bool came_back = false;
    {
        auto ask = [&]() -> Task<> {
            (void)co_await at.redis.request(words(one["slow"]));
            came_back = true;
        };
        auto task = ask();
        task.start();
        auto rest = [&]() -> Task<> { co_await loop.sleep(time_of(one["cancel_after"])); };
        loop.run(rest());
    }
    auto then = [&]() -> Task<Result<Reply>> { co_return co_await at.redis.request(words(one["then"]["call"])); };
    expect(loop.run(then()), one["then"]);
    check(!came_back, "a destroyed coroutine was resumed");
}

void cancel(View one) {
    cancel_a_future(one);
    cancel_a_task(one);
}

void pubsub(View one) {
    Opened at;
    std::int64_t count = number(one["messages"]);
    auto news = at.redis.subscribe(words(one["subscribe"])).get().value();
    for (std::int64_t i = 0; i < count; i++) at.redis.send(words(filled(one["publish"], i))).value();
    for (std::int64_t i = 0; i < count; i++) {
        auto message = news.next().get().value();
        check(message.view()[2].text() == std::to_string(i), "message %" PRId64 " is %s", i,
              text(message.view()[2]).c_str());
    }
    news.close();
    auto after = news.next().get();
    check(!after && after.error().kind() == ErrorKind::closed, "it goes on after its end");

    Loop loop(at.kernel);
    auto listen = [&]() -> Task<> {
        auto more = (co_await at.redis.subscribe(words(one["subscribe"]))).value();
        for (std::int64_t i = 0; i < count; i++) at.redis.send(words(filled(one["publish"], i))).value();
        for (std::int64_t i = 0; i < count; i++) {
            auto message = (co_await more.next()).value();
            check(message.view()[2].text() == std::to_string(i), "in a loop, message %" PRId64 " is another", i);
        }
    };
    loop.run(listen());
}

void pushes_lost(View one) {
    Opened at;
    std::int64_t count = number(one["messages"]);
    Channel small = at.kernel.open_channel(text(one["channel"])).value();
    auto flood = at.redis.via(small).subscribe(words(one["subscribe"])).get().value();
    for (std::int64_t i = 0; i < count; i++) {
        std::string bytes = std::to_string(i);
        bytes.insert(0, static_cast<std::size_t>(number(one["bytes"])) - bytes.size(), '0');
        at.redis.call(words(filled(one["publish"], bytes))).value();
    }
    std::int64_t came = 0, last = -1;
    while (came + static_cast<std::int64_t>(flood.lost()) < count) {
        auto next = flood.next();
        if (!next.wait(2000ms)) break;
        std::int64_t found = std::stoll(text(next.get().value().view()[2]));
        check(found > last, "message %" PRId64 " came after %" PRId64, found, last);
        last = found;
        came++;
    }
    auto lost = static_cast<std::int64_t>(flood.lost());
    check(lost > 0, "nothing was lost");
    check(came + lost == count, "%" PRId64 " came, %" PRId64 " lost", came, lost);
}

void value(View one) {
    Opened at;
    std::string whole(static_cast<std::size_t>(number(one["bytes"])), '\0');
    std::uint64_t random = 88172645463325252u;
    for (char& each : whole) {
        random ^= random << 13, random ^= random >> 7, random ^= random << 17;
        each = static_cast<char>(random);
    }
    check(at.redis.call("SET", "s:value", bytes(whole)).value().text() == "OK", "it was not set");
    check(at.redis.call("GET", "s:value").value().text() == whole, "another value came back");
    at.redis.call("DEL", "s:value").value();
}

std::string connected_clients(Endpoint& redis) {
    std::string said = text(redis.call("INFO", "clients").value().view());
    std::size_t at = said.find("connected_clients:");
    return said.substr(at, said.find('\r', at) - at);
}

void many(View one) {
    Opened at;
    std::string before = connected_clients(at.redis);
    Loop loop(at.kernel);
    std::int64_t count = number(one["requests"]), fired = 0, right = 0, ended = 0;
    auto tick = [&]() -> Task<> {
        while (ended < count) {
            co_await loop.sleep(time_of(one["timer"]));
            fired += ended < count;
        }
    };
    auto ask = [&](std::int64_t i) -> Task<> {
        auto reply = co_await at.redis.request(words(filled(one["call"], i)));
        ended++;
        right += reply && reply->text() == std::to_string(i);
    };
    auto main = [&]() -> Task<> {
        for (std::int64_t i = 0; i < count; i++) detach(ask(i));
        co_await tick();
    };
    loop.run(main());
    check(right == count, "%" PRId64 " of %" PRId64 " replies were right", right, count);
    check(fired > 0, "no timer fired meanwhile");
    check(before == connected_clients(at.redis), "more than one conn");
}

void back_pressure(View one) {
    Opened at;
    Channel small = at.kernel.open_channel(text(one["channel"])).value();
    Requests redis = at.redis.via(small);
    std::int64_t count = number(one["requests"]);
    std::vector<Future<Reply>> futures;
    for (std::int64_t i = 0; i < count; i++) futures.push_back(redis.request(words(filled(one["call"], i))));
    for (std::int64_t i = 0; i < count; i++)
        check(futures[static_cast<std::size_t>(i)].get().value().integer() == i + 1, "the order was not kept");
    auto found = redis.call("LRANGE", "s:order", 0, -1).value();
    std::int64_t next = 0;
    for (View each : found.view()) check(each.text() == std::to_string(next++), "values are out of order");
    check(next == count, "%" PRId64 " values of %" PRId64, next, count);
}

void lost_connection(View one) {
    Opened at;
    {
        Lease conn = at.redis.lease().get().value();
        std::int64_t id = conn.call("CLIENT", "ID").value().integer().value();
        auto waiting = conn.request(words(one["lease"]));
        std::this_thread::sleep_for(50ms);
        check(at.redis.call(words(filled(one["kill"], id))).value().integer() == 1, "there was no such conn");
        expect_error(waiting.get(), one);
    }
    expect(at.redis.call(words(one["then"]["call"])), one["then"]);
}

void transaction(View one) {
    Opened at;
    std::vector<Future<Reply>> beside;
    for (int i = 0; i < 100; i++) beside.push_back(at.redis.request("ECHO", i));
    Lease conn = at.redis.lease().get().value();
    for (View call : one["calls"]) {
        expect(conn.call(words(call["call"])), call);
        check(at.redis.call("ECHO", "beside").value().text() == "beside", "others' requests are in it");
    }
    for (std::size_t i = 0; i < beside.size(); i++)
        check(beside[i].get().value().text() == std::to_string(i), "a reply beside it was another's");
}

// What a command says on its standard output, while this thread polls its channel.
class Command {
public:
    explicit Command(const std::string& line) : pipe_(popen(line.c_str(), "r")) {}
    ~Command() { pclose(pipe_); }
    int fd() const { return fileno(pipe_); }
    std::string read() {
        std::string said;
        char piece[4096];
        while (std::size_t size = std::fread(piece, 1, sizeof piece, pipe_)) said.append(piece, size);
        return said;
    }

private:
    std::FILE* pipe_;
};

void listen(View one) {
    Kernel kernel = Kernel::start().value();
    Listener listener = kernel.listen(one["url"].text()).value();
    Command curl("curl -s -m 5 -w ' %{http_code}' '" + listener.url() + text(one["path"]) + "'");
    Request request = listener.next().get().value();
    View head = request.args()[0];
    check(head[0].text() == "GET" && head[1].text() == one["path"].text(), "it asked for %s", text(head[1]).c_str());
    request.reply(list(number(one["status"]), Map{}, one["body"].text()));
    Loop loop(kernel);
    auto wait = [&]() -> Task<> { co_await loop.ready(curl.fd(), POLLIN); };
    loop.run(wait());
    std::string said = curl.read(), wanted = text(one["body"]) + " " + std::to_string(number(one["status"]));
    check(said == wanted, "curl says %s", said.c_str());
}

void fork(View one) {
    Opened at;
    at.redis.ready().get().value();
    auto under_way = at.redis.request("DEBUG", "SLEEP", "0.2");
    pid_t child = ::fork();
    if (child == 0) {
        auto found = at.redis.call(within(5s), words(filled(one["call"], getpid())));
        auto old = under_way.get();
        bool is_forked = !old && old.error().status == IOK_STATUS_FORKED;
        _exit(found && found->text() == std::to_string(getpid()) ? (is_forked ? 0 : 3) : 1);
    }
    check(under_way.get().value().text() == "OK", "the parent's request was disturbed");
    check(at.redis.call(words(filled(one["call"], getpid()))).value().text() == std::to_string(getpid()),
          "the parent's reply was another's");
    int status = 0;
    waitpid(child, &status, 0);
    check(WIFEXITED(status) && WEXITSTATUS(status) == 0, "the child ended with %d", status);
}

void close(View one) {
    Opened at;
    at.redis.ready().get().value();
    auto slow = at.redis.request(words(one["slow"]));
    auto start = Clock::now();
    at.kernel.close().value();
    expect_error(slow.get(), one);
    expect_error(at.redis.call("PING"), one);
    at.kernel.close().value();
    at.redis.close();
    at.redis.close();
    check(since(start) < time_of(one["ends_within"]), "it took too long");
}

void threads(View one) {
    Opened at;
    std::int64_t count = number(one["requests"]);
    std::string wrong[2];
    auto run = [&](int thread) {
        Loop loop(at.kernel);
        auto ask = [&](std::int64_t i) -> Task<bool> {
            std::string mine = std::to_string(thread) + ":" + std::to_string(i);
            auto reply = co_await at.redis.request(words(filled(one["call"], mine)));
            co_return reply && reply->text() == mine;
        };
        auto main = [&]() -> Task<std::int64_t> {
            std::int64_t right = 0;
            for (std::int64_t i = 0; i < count; i++) right += co_await ask(i);
            co_return right;
        };
        std::int64_t right = loop.run(main());
        if (right != count) wrong[thread] = std::to_string(right) + " replies were right";
    };
    std::thread first(run, 0), second(run, 1);
    first.join();
    second.join();
    for (const std::string& each : wrong) check(each.empty(), "%s", each.c_str());
}

std::size_t open_files() {
    std::size_t count = 0;
    DIR* folder = opendir("/proc/self/fd");
    while (readdir(folder)) count++;
    closedir(folder);
    return count;
}

void loops(View one) {
    Opened at;
    auto ask = [&](std::int64_t i) -> Task<std::string> {
        auto reply = co_await at.redis.request(words(filled(one["call"], i)));
        co_return reply ? std::string(reply->text()) : reply.error().text();
    };
    std::size_t before = 0;
    for (std::int64_t i = 0; i <= number(one["rounds"]); i++) {
        std::thread thread([&, i] {  // Each with a channel of its own, which ends with its thread.
            Loop loop(at.kernel);
            (void)loop.run(ask(i));
        });
        thread.join();
        Loop loop(at.kernel);
        check(loop.run(ask(i)) == std::to_string(i), "round %" PRId64 " failed", i);
        if (i == 0) before = open_files();
    }
    check(open_files() <= before, "%zu descriptors became %zu", before, open_files());
}

double cpu_ms() {
    rusage used;
    getrusage(RUSAGE_SELF, &used);
    auto ms = [](timeval time) {
        return static_cast<double>(time.tv_sec) * 1000 + static_cast<double>(time.tv_usec) / 1000;
    };
    return ms(used.ru_utime) + ms(used.ru_stime);
}

void idle(View one) {
    Opened at;
    Loop loop(at.kernel);
    auto rest = [&]() -> Task<double> {
        auto news = (co_await at.redis.subscribe("SUBSCRIBE", "s:idle")).value();
        (co_await at.redis.request("PING")).value();
        double before = cpu_ms();
        co_await loop.sleep(time_of(one["idle"]));
        co_return cpu_ms() - before;
    };
    double used = loop.run(rest());
    check(used <= static_cast<double>(number(one["cpu_at_most"])), "%.1f ms of CPU time", used);
}

// A kernel with an admin endpoint, and somebody else who asks it while we hang.
class Hanging {
public:
    explicit Hanging(View one)
        : folder_(make_folder()), kernel(Kernel::start({{"admin", "unix:" + socket()}}).value()) {
        ask_ = "sleep 0.3; curl -s -m 10 --unix-socket " + socket() + " http://localhost" + text(one["path"]);
    }
    ~Hanging() {
        unlink(socket().c_str());
        rmdir(folder_.c_str());
    }

    // What it answered while we hung, so long at least.
    std::string said(Milliseconds hang);

private:
    static std::string make_folder() {
        char name[] = "/tmp/iok-scenario-XXXXXX";
        return mkdtemp(name);
    }
    std::string socket() const { return folder_ + "/admin"; }

    std::string folder_, ask_;

public:
    Kernel kernel;
};

}  // namespace

// Computes and calls nothing, so long at least, and until it is let go: false if that takes too long. Its name is looked
// for in the program's stack.
[[gnu::noinline]] bool hang_in_here(Milliseconds time, const std::atomic<bool>& is_let_go) {
    auto start = Clock::now();
    while (since(start) < time || (!is_let_go && since(start) < 15s))
        for (int i = 0; i < 100000; i++) std::atomic_signal_fence(std::memory_order_seq_cst);
    return is_let_go;
}

namespace {

std::string Hanging::said(Milliseconds hang) {
    Command curl(ask_);
    std::string said;
    std::atomic<bool> has_answered{false};
    std::thread reader([&] {
        said = curl.read();
        has_answered = true;
    });
    bool has_answered_in_time = hang_in_here(hang, has_answered);
    reader.join();
    check(has_answered_in_time, "no answer came while the program hung");
    return said;
}

bool has(const std::string& text, const std::string& part) { return text.find(part) != text.npos; }

void stack_while_hung(View one) {
    Hanging hanging(one);
    std::string said = hanging.said(time_of(one["hang"]));
    check(has(said, "hang_in_here"), "%.400s", said.c_str());
}

void counters(View one) {
    Hanging hanging(one);
    hanging.kernel.counter(one["counter"].text()).value().inc(static_cast<std::uint64_t>(number(one["add"])));
    std::string said = "\n" + hanging.said(1000ms);
    check(has(said, "\n" + text(one["line"]) + "\n"), "%.400s", said.c_str());
}

void markers(View one) {
    Hanging hanging(one);
    Marker marker(hanging.kernel, one["marker"].text());
    std::string said = hanging.said(1000ms);
    check(has(said, text(one["marker"])), "%.400s", said.c_str());
}

const std::map<std::string, void (*)(View)> scenarios = {
    {"echo", echo},
    {"get-set", get_set},
    {"errors-and-fates", errors_and_fates},
    {"timeout", timeout},
    {"cancel", cancel},
    {"pubsub", pubsub},
    {"pushes-lost", pushes_lost},
    {"value-1MiB", value},
    {"value-64MiB", value},
    {"many", many},
    {"back-pressure", back_pressure},
    {"lost-connection", lost_connection},
    {"transaction", transaction},
    {"listen", listen},
    {"fork", fork},
    {"close", close},
    {"threads", threads},
    {"loops", loops},
    {"idle", idle},
    {"stack-while-hung", stack_while_hung},
    {"counters", counters},
    {"markers", markers},
};

// Why it failed; empty if it did not.
std::string run(View one) {
    auto found = scenarios.find(text(one["name"]));
    if (found == scenarios.end()) return "there is none of this name";
    try {
        found->second(one);
        return {};
    } catch (const Failed& failed) {
        return "failed: " + failed.why;
    } catch (const std::exception& error) {
        return std::string("failed: ") + error.what();
    }
}

}  // namespace

int main() {
    std::ifstream file(std::getenv("IOK_SCENARIOS_MSGPACK"), std::ios::binary);
    std::string packed((std::istreambuf_iterator<char>(file)), {});
    View listed = View(packed)["scenarios"];
    std::printf("1..%zu\n", listed.size());
    int at = 0, failed = 0;
    for (View one : listed) {
        std::string why = run(one);
        for (char& each : why) each = each == '\n' ? ' ' : each;
        failed += !why.empty();
        std::printf("%sok %d - %s%s%s\n", why.empty() ? "" : "not ", ++at, text(one["name"]).c_str(),
                    why.empty() ? "" : " # ", why.c_str());
        std::fflush(stdout);
    }
    return failed ? 1 : 0;
}
