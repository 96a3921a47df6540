// Kernels: an I/O thread each, with the channels of this process's threads.
#pragma once

#include <iokernel/future.hpp>

#include <atomic>
#include <pthread.h>
#include <cstdlib>

namespace iokernel {

class Endpoint;
class Listener;
class Counter;
class Gauge;
class Histogram;

// Options: `{{"heartbeat", "5s"}, {"pool", "2"}}`, as a URL's query has them. Sizes and times carry their unit.
using Query = std::vector<std::pair<std::string, std::string>>;

namespace detail {

inline std::string quoted(std::string_view text) {
    static const char digits[] = "0123456789ABCDEF";
    std::string made;
    for (char each : text) {
        auto code = static_cast<unsigned char>(each);
        bool is_plain = (code >= '0' && code <= '9') || ((code | 32) >= 'a' && (code | 32) <= 'z');
        if (is_plain || code == '-' || code == '_' || code == '.' || code == '~')
            made += each;
        else
            made += {'%', digits[code >> 4], digits[code & 15]};
    }
    return made;
}

inline std::string query_of(const Query& options) {
    std::string made;
    for (const auto& [key, value] : options) {
        if (!made.empty()) made += '&';
        made += quoted(key) + '=' + quoted(value);
    }
    return made;
}

inline std::string with_options(std::string_view url, const Query& options) {
    std::string made(url);
    if (options.empty()) return made;
    if (made.find('?') == std::string::npos)
        made += '?';
    else if (made.back() != '?' && made.back() != '&')
        made += '&';
    return made + query_of(options);
}

// A URL without its query and password.
inline std::string shown(std::string_view url) {
    std::string_view before = url.substr(0, url.find('?'));
    std::size_t joint = before.find("//");
    if (joint == std::string_view::npos) return std::string(before);
    std::string_view rest = before.substr(joint + 2), authority = rest.substr(0, rest.find('/'));
    std::size_t at = authority.rfind('@');
    if (at == std::string_view::npos) return std::string(before);
    std::string user(authority.substr(0, at));
    user = user.substr(0, user.find(':'));
    return std::string(before.substr(0, joint + 2)) + user + ":***" + std::string(rest.substr(at));
}

// How often this process's ancestors forked since the program began: handles of another number are a parent's.
inline std::atomic<std::uint32_t> forks{0};

inline void watch_forks() {
    static const int done = pthread_atfork([] { common_mutex().lock(); }, [] { common_mutex().unlock(); },
                                           [] {
                                               common_mutex().unlock();
                                               forks.fetch_add(1, std::memory_order_relaxed);
                                           });
    (void)done;
}

inline std::uint32_t fork_number() noexcept { return forks.load(std::memory_order_relaxed); }

class KernelState;

// The channels of one thread, one for each kernel.
class ThreadChannels {
public:
    ~ThreadChannels() { is_gone() = true; }

    // Threads end in an order of their own: then there are none any more.
    static bool& is_gone() {
        static thread_local bool gone = false;
        return gone;
    }

    static ThreadChannels& mine() {
        static thread_local ThreadChannels channels;
        return channels;
    }

    Channel& of(KernelState& kernel);

private:
    struct Entry {
        std::uint64_t kernel;
        std::uint32_t forks;
        std::unique_ptr<Channel> channel;
    };
    std::vector<Entry> entries_;
};

class KernelState : public std::enable_shared_from_this<KernelState> {
public:
    explicit KernelState(std::string config) : id(next_id()), config_(std::move(config)) {
        watch_forks();
        takes_stacks_ = config_.compare(0, 6, "admin=") == 0 || config_.find("&admin=") != std::string::npos;
    }

    ~KernelState() { (void)close(Milliseconds(0)); }

    // The handle; after a fork, or at the first use, of a kernel that is opened here.
    Result<iok_kernel*> handle() {
        iok_kernel* handle = handle_.load(std::memory_order_acquire);
        if (handle && forks_ == fork_number()) return handle;
        std::lock_guard<std::mutex> lock(common_mutex());
        if (is_closed_) return error_of(IOK_STATUS_CLOSED, Fate::not_sent, "the kernel is closed");
        handle = handle_.load(std::memory_order_relaxed);
        if (handle && forks_ == fork_number()) return handle;
        iok_status status = iok_kernel_open(config_.c_str(), &handle);
        if (status != IOK_STATUS_OK) return last_error(status);
        if (takes_stacks_) let_stacks_be_taken(handle);
        names->clear();
        forks_ = fork_number();
        handle_.store(handle, std::memory_order_release);
        return handle;
    }

    std::shared_ptr<ChannelState> open_channel(const std::string& config) {
        auto kernel = handle();
        if (!kernel) return std::make_shared<ChannelState>(nullptr, names, std::move(kernel).error());
        iok_channel* channel = nullptr;
        iok_status status = iok_channel_open(*kernel, config.c_str(), &channel);
        if (status != IOK_STATUS_OK) return std::make_shared<ChannelState>(nullptr, names, last_error(status));
        return std::make_shared<ChannelState>(channel, names, Error());
    }

    Channel& channel() { return ThreadChannels::is_gone() ? late() : ThreadChannels::mine().of(*this); }

    Result<Ok> close(Milliseconds drain) {
        iok_kernel* handle = nullptr;
        {
            std::lock_guard<std::mutex> lock(common_mutex());
            is_closed_ = true;
            handle = handle_.exchange(nullptr);
            if (forks_ != fork_number()) handle = nullptr;
        }
        if (!handle) return Ok{};
        iok_status status = iok_kernel_close(handle, static_cast<std::uint32_t>(drain.count()));
        if (status == IOK_STATUS_OK || status == IOK_STATUS_BAD_HANDLE) return Ok{};
        return last_error(status);
    }

    bool is_closed() const noexcept { return is_closed_; }

    const std::uint64_t id;
    const std::shared_ptr<Names> names = std::make_shared<Names>();

private:
    static std::uint64_t next_id() {
        static std::atomic<std::uint64_t> last{0};
        return ++last;
    }

    // What a thread that ends has instead of a channel.
    Channel& late() const {
        Error error = error_of(IOK_STATUS_CLOSED, Fate::not_sent, "the thread has ended");
        static Channel* const none = new Channel(std::make_shared<ChannelState>(nullptr, names, std::move(error)));
        return *none;
    }

    static void let_stacks_be_taken(iok_kernel* handle) {
        std::int32_t signal = 0, fd = -1;
        if (iok_stack_open(handle, &signal, &fd) == IOK_STATUS_OK) iok_stack_arm(handle, 0);
    }

    std::string config_;
    bool takes_stacks_ = false;
    std::atomic<bool> is_closed_{false};
    std::atomic<std::uint32_t> forks_{0};
    std::atomic<iok_kernel*> handle_{nullptr};
};

inline Channel& ThreadChannels::of(KernelState& kernel) {
    for (Entry& each : entries_)
        if (each.kernel == kernel.id) {
            if (each.forks == fork_number() && (each.channel->is_open() || kernel.is_closed())) return *each.channel;
            if (each.forks != fork_number()) each.channel->state()->end(error_of(IOK_STATUS_FORKED));
            each.forks = fork_number();
            each.channel = std::make_unique<Channel>(kernel.open_channel(""));
            return *each.channel;
        }
    std::size_t kept = 0;  // Those of kernels that are gone make room.
    for (Entry& each : entries_)
        if (each.channel->is_open()) std::swap(entries_[kept++], each);
    entries_.resize(kept);
    entries_.push_back({kernel.id, fork_number(), std::make_unique<Channel>(kernel.open_channel(""))});
    return *entries_.back().channel;
}

// What was packed comes back as bytes.
class EchoOp final : public Op {
    void event(const iok_completion& came, std::string_view bytes, std::string* whole) override {
        iok_completion packed = came;
        if (packed.status == IOK_STATUS_OK) packed.encoding = IOK_ENCODING_MSGPACK;
        Op::event(packed, bytes, whole);
    }
};

// One operation of the calling thread, to its end.
inline Result<iok_completion> block(KernelState& kernel, const Ask& ask, std::string_view payload,
                                    std::string* said = {}) {
    Ref<Op> op(new Op);
    std::shared_ptr<ChannelState> channel = kernel.channel().state();
    channel->submit(op.get(), ask, 0, [payload](Buffer& out) { out.append(payload.data(), payload.size()); });
    channel->wait([&op] { return op->done; });
    if (!op->is_ok()) return op->error();
    if (said) *said = std::move(op->payload);
    return op->head;
}

}  // namespace detail

// An I/O thread with everything that it owns. Usually the one behind `iokernel::open` is enough.
//
// Any thread may use it. Closes itself at the end of its life; endpoints that outlive it give Errors of the kind
// `closed`.
class Kernel {
public:
    // `config`: `"name=web-1&admin=auto"`; the keys are those of iok_kernel_open. Error: bad_config, or the system's.
    static Result<Kernel> start(std::string config = {}) {
        auto state = std::make_shared<detail::KernelState>(std::move(config));
        auto handle = state->handle();
        if (!handle) return std::move(handle).error();
        return Kernel(std::move(state));
    }
    static Result<Kernel> start(const Query& config) { return start(detail::query_of(config)); }

    Kernel(Kernel&&) noexcept = default;
    Kernel& operator=(Kernel&& other) noexcept {
        if (state_ && this != &other) (void)close();
        state_ = std::move(other.state_);
        return *this;
    }
    ~Kernel() {
        if (state_) (void)close();
    }

    // Opens a service and returns at once; names, connections and heartbeats live from here on. Error: bad_config. That
    // the peer cannot be reached is seen by requests, `ready` and `state`.
    Result<Endpoint> open(std::string_view url, const Query& options = {}) const;

    // Listens: `listen("http://127.0.0.1:0")`; `url()` of the result has the port. Error: bad_config, or the system's.
    Result<Listener> listen(std::string_view url, const Query& options = {}) const;

    // The calling thread's channel, made at its first use. It lives as long as the thread.
    Channel& channel() const { return state_->channel(); }

    // One more channel: `"ring=64KiB&push_buffer=64KiB"`, the keys are those of iok_channel_open.
    Result<Channel> open_channel(const std::string& config = {}) const {
        auto channel = state_->open_channel(config);
        if (!channel->is_alive()) return channel->ended();
        return Channel(std::move(channel));
    }

    // Comes back from the I/O thread as it went, without a network.
    template <class T>
    Future<Reply> echo(const T& value) const {
        detail::Ref<detail::Op> op(new detail::EchoOp);
        channel().state()->submit(op.get(), {IOK_OP_ECHO}, 0, [&value](Buffer& out) { pack(out, value); });
        return Future<Reply>(std::move(op));
    }

    // How it is: a map with `ready`, `missing` and `endpoints`.
    Future<Reply> state() const {
        detail::Ref<detail::Op> op(new detail::Op);
        channel().state()->submit(op.get(), {IOK_OP_STATE});
        return Future<Reply>(std::move(op));
    }

    // Ready when every endpoint opened with `require=true` is up. Error: unavailable after `timeout`.
    Future<Ok> ready(Milliseconds timeout) const {
        detail::Ref<detail::Op> op(new detail::Op);
        op->is_wait_for_up = true;
        detail::Ask ask{IOK_OP_STATE, IOK_FLAG_UNTIL_UP};
        ask.timeout_ms = static_cast<std::uint32_t>(timeout.count());
        channel().state()->submit(op.get(), ask);
        return Future<Ok>(std::move(op));
    }

    // Metrics, readable from outside whatever the program does. Names: `[a-zA-Z_:][a-zA-Z0-9_:]*`. The same name and
    // labels give the same series. Error: bad_config, overloaded. See cells.hpp.
    Result<Counter> counter(std::string_view name, const Query& labels = {}, std::string_view help = {}) const;
    Result<Gauge> gauge(std::string_view name, const Query& labels = {}, std::string_view help = {}) const;
    Result<Histogram> histogram(std::string_view name, std::vector<double> buckets = {}, const Query& labels = {},
                                std::string_view help = {}) const;

    // Closes every endpoint and ends the I/O thread; what is under way may finish for `drain`, and ends as `closed`
    // then. Bounded. Twice is harmless. Error: timeout (it ends by itself later).
    Result<Ok> close(Milliseconds drain = Milliseconds(0)) const { return state_->close(drain); }

    bool is_closed() const noexcept { return state_->is_closed(); }

    const std::shared_ptr<detail::KernelState>& shared() const noexcept { return state_; }

private:
    explicit Kernel(std::shared_ptr<detail::KernelState> state) : state_(std::move(state)) {}

    std::shared_ptr<detail::KernelState> state_;
};

namespace detail {

inline constexpr Milliseconds drain_at_exit{200};

struct DefaultKernel {
    Result<Kernel> kernel;
    ~DefaultKernel() {
        if (kernel) (void)kernel->close(drain_at_exit);
    }
};

}  // namespace detail

// The kernel of `iokernel::open` and `iokernel::listen`, started at the first call. IOKERNEL_ADMIN in the environment
// gives it an admin endpoint. At exit, what is under way may finish for a moment.
inline Result<Kernel>& default_kernel() {
    static detail::DefaultKernel made{[] {
        const char* admin = std::getenv("IOKERNEL_ADMIN");
        return Kernel::start(admin && *admin ? Query{{"name", "iokernel"}, {"admin", admin}}
                                             : Query{{"name", "iokernel"}});
    }()};
    return made.kernel;
}

}  // namespace iokernel
