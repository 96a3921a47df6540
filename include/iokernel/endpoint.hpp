// Endpoints: services that requests go to; leases and subscriptions of them.
#pragma once

#include <iokernel/kernel.hpp>

#include <algorithm>
#include <deque>

namespace iokernel {

// How one request is made: `endpoint.call(within(100ms).idempotent(), "GET", "key")`.
class Options {
public:
    // The request's own deadline, in place of the endpoint's (`timeout=`).
    Options within(std::chrono::nanoseconds time) const {
        Options made = *this;
        auto ms = std::chrono::ceil<Milliseconds>(time).count();
        made.is_over_ = ms <= 0;
        made.timeout_ms_ = ms >= IOK_TIMEOUT_NONE ? IOK_TIMEOUT_NONE : static_cast<std::uint32_t>(ms);
        return made;
    }

    Options without_deadline() const {
        Options made = *this;
        made.timeout_ms_ = IOK_TIMEOUT_NONE;
        return made;
    }

    // It may be sent again when its fate is in doubt.
    Options idempotent() const { return with(IOK_FLAG_IDEMPOTENT); }

    // Requests of one route go to one peer, for as long as the peers stay the same. 0 counts as 2^64 - 1.
    Options route(std::uint64_t key) const {
        Options made = with(IOK_FLAG_ROUTE);
        made.key_ = key ? key : ~std::uint64_t{0};
        return made;
    }

    detail::Ask ask(std::uint16_t op, std::uint32_t endpoint, std::uint64_t lease) const {
        detail::Ask made{op, flags_, endpoint};
        made.timeout_ms = timeout_ms_;
        made.key = flags_ & IOK_FLAG_ROUTE ? key_ : lease;
        return made;
    }
    bool is_over() const noexcept { return is_over_; }

private:
    Options with(int flag) const {
        Options made = *this;
        made.flags_ = static_cast<std::uint16_t>(made.flags_ | flag);
        return made;
    }

    std::uint32_t timeout_ms_ = 0;
    std::uint16_t flags_ = 0;
    std::uint64_t key_ = 0;
    bool is_over_ = false;
};

inline Options within(std::chrono::nanoseconds time) { return Options().within(time); }
inline Options idempotent() { return Options().idempotent(); }
inline Options route(std::uint64_t key) { return Options().route(key); }

class Lease;
class Subscription;

namespace detail {

class EndpointState {
public:
    EndpointState(std::shared_ptr<KernelState> kernel, std::string url)
        : kernel(std::move(kernel)), url(std::move(url)) {}

    // Its number; after a fork that of one that is opened here.
    Result<std::uint32_t> number() {
        std::uint64_t now = number_.load(std::memory_order_acquire);
        if (now >> 32 == fork_number() && static_cast<std::uint32_t>(now)) return static_cast<std::uint32_t>(now);
        if (is_closed) {
            Error error = error_of(IOK_STATUS_CLOSED, Fate::not_sent, "the endpoint is closed");
            error.endpoint = shown(url);
            return error;
        }
        return open(now);
    }

    bool is_now(std::uint32_t number) const noexcept {
        return number_.load(std::memory_order_acquire) == (std::uint64_t{fork_number()} << 32 | number);
    }

    // Takes the number away; 0 if there is none here.
    std::uint32_t close() {
        is_closed = true;
        std::uint64_t was = number_.exchange(0);
        return was >> 32 == fork_number() ? static_cast<std::uint32_t>(was) : 0;
    }

    const std::shared_ptr<KernelState> kernel;
    const std::string url;
    std::atomic<bool> is_closed{false};

private:
    Result<std::uint32_t> open(std::uint64_t before) {
        auto done = block(*kernel, {IOK_OP_OPEN}, url);
        if (!done) return std::move(done).error();
        std::uint64_t mine = std::uint64_t{fork_number()} << 32 | done->endpoint;
        kernel->names->set(done->endpoint, shown(url));
        if (number_.compare_exchange_strong(before, mine)) return done->endpoint;
        (void)block(*kernel, {IOK_OP_CLOSE, 0, done->endpoint}, {});  // Another thread was faster.
        return number();
    }

    std::atomic<std::uint64_t> number_{0};  // above it, the number of forks
};

// Hands a look at the reply to a handler, where it lies.
template <class Handler>
class ViewOp final : public Op {
public:
    explicit ViewOp(Handler handler) : handler_(std::move(handler)) {}

    void event(const iok_completion& came, std::string_view bytes, std::string*) override {
        done = true;
        if (came.status == IOK_STATUS_OK)
            handler_(Result<View>(View(came.encoding, bytes)));
        else
            handler_(Result<View>(error_of(came, bytes, *channel->names())));
    }

    void fail(Error error) override {
        done = true;
        handler_(Result<View>(std::move(error)));
    }

private:
    Handler handler_;
};

class LeaseOp;
class SubscriptionOp;

}  // namespace detail

// What endpoints and leases have in common: requests. A request's arguments are what `pack` takes (pack.hpp):
// `call("SET", "key", bytes(picture), "EX", 60)`. A `list` as argument makes a batch, answered by one array, in which
// errors are elements: `call(list("SET", "a", 1), list("GET", "a"))`.
//
// Errors: those of the peer are `remote`; `bad_request` for what the protocol cannot send; and the rest of ErrorKind.
class Requests {
public:
    // One request, blocking until its reply.
    template <class... T>
    Result<Reply> call(const Options& options, const T&... arguments) const {
        return request(options, arguments...).get();
    }
    template <class... T>
    Result<Reply> call(const T&... arguments) const {
        return request(Options(), arguments...).get();
    }

    // One request; returns at once.
    template <class... T>
    Future<Reply> request(const Options& options, const T&... arguments) const {
        detail::Ref<detail::Op> op(new detail::Op);
        begin(op.get(), options, arguments...);
        return Future<Reply>(std::move(op));
    }
    template <class... T>
    Future<Reply> request(const T&... arguments) const {
        return request(Options(), arguments...);
    }

    // One request whose reply is shown to `handler(Result<View>)` where it lies in the ring, without a copy: the View
    // is good until the handler returns or waits. The handler runs in this thread, while it waits, polls or runs a
    // loop.
    template <class Handler, class... T>
    void look(Handler handler, const Options& options, const T&... arguments) const {
        detail::Ref<detail::Op> op(new detail::ViewOp<Handler>(std::move(handler)));
        begin(op.get(), options, arguments...);
    }
    template <class Handler, class... T>
    void look(Handler handler, const T&... arguments) const {
        look(std::move(handler), Options(), arguments...);
    }

    // One request whose reply nobody waits for. `Channel::failures()` counts those that failed.
    template <class... T>
    Result<Ok> send(const T&... arguments) const {
        auto number = this->number();
        if (!number) return std::move(number).error();
        auto channel = this->channel();
        if (!channel->is_alive()) return channel->ended();
        channel->submit_quietly({IOK_OP_REQUEST, 0, *number, 0, lease_},
                                [&](Buffer& out) { detail::pack_request(out, arguments...); });
        return Ok{};
    }

    // The same, by way of another channel than the calling thread's.
    Requests via(const Channel& channel) const {
        Requests made = *this;
        made.channel_ = channel.state();
        return made;
    }

    // A request that keeps giving: `subscribe("SUBSCRIBE", "news").get()`, ready once the peer has accepted it.
    template <class... T>
    Future<Subscription> subscribe(const Options& options, const T&... arguments) const;
    template <class... T>
    Future<Subscription> subscribe(const T&... arguments) const {
        return subscribe(Options(), arguments...);
    }

protected:
    explicit Requests(std::shared_ptr<detail::EndpointState> state) : state_(std::move(state)) {}

    std::shared_ptr<detail::ChannelState> channel() const {
        return channel_ ? channel_ : state_->kernel->channel().state();
    }

    Result<std::uint32_t> number() const {
        if (state_) return state_->number();
        return detail::error_of(IOK_STATUS_NO_LEASE, Fate::not_sent, "it was given back, or moved away");
    }

    template <class... T>
    void begin(detail::Op* op, const Options& options, const T&... arguments) const {
        begin(op, IOK_OP_REQUEST, options, [&](Buffer& out) { detail::pack_request(out, arguments...); });
    }

    template <class Fill>
    void begin(detail::Op* op, std::uint16_t code, const Options& options, const Fill& fill) const {
        auto number = this->number();
        if (!number) return op->fail(std::move(number).error());
        if (options.is_over()) {
            std::string text = "the time was over before the request began";
            return op->fail(detail::error_of(IOK_STATUS_TIMEOUT, Fate::not_sent, std::move(text)));
        }
        detail::Ask ask = options.ask(code, *number, lease_);
        channel_ ? channel_->submit(op, ask, 0, fill) : state_->kernel->channel().state()->submit(op, ask, 0, fill);
    }

    std::shared_ptr<detail::EndpointState> state_;
    std::shared_ptr<detail::ChannelState> channel_;
    std::uint64_t lease_ = 0;

    friend class detail::LeaseOp;
};

// A service, alive in the background from `open` until it is closed or ends its life. Any thread.
class Endpoint : public Requests {
public:
    Endpoint(Endpoint&&) noexcept = default;
    Endpoint& operator=(Endpoint&& other) noexcept {
        if (this != &other) leave();
        Requests::operator=(std::move(other));
        return *this;
    }
    ~Endpoint() { leave(); }

    // The URL, without password and options.
    std::string url() const { return detail::shown(state_->url); }

    // Ready once the endpoint is up. Error: unavailable after `timeout`, with the last cause.
    Future<Ok> ready(Milliseconds timeout = Milliseconds(5000)) const {
        detail::Ref<detail::Op> op(new detail::Op);
        op->is_wait_for_up = true;
        auto number = state_->number();
        if (!number) return op->fail(std::move(number).error()), Future<Ok>(std::move(op));
        detail::Ask ask{IOK_OP_STATE, IOK_FLAG_UNTIL_UP, *number};
        ask.timeout_ms = static_cast<std::uint32_t>(timeout.count());
        channel()->submit(op.get(), ask);
        return Future<Ok>(std::move(op));
    }

    // How it is: a map with `state` (`up`, `degraded`, `connecting`, `down`), `description`, `peers` and more.
    Future<Reply> state() const {
        detail::Ref<detail::Op> op(new detail::Op);
        begin(op.get(), IOK_OP_STATE, Options(), [](Buffer&) {});
        return Future<Reply>(std::move(op));
    }

    // How it is, at once and after every change: each message is a map as `state` has it.
    Future<Subscription> watch() const;

    // A connection of one's own: `auto conn = endpoint.lease().get().value();`.
    Future<Lease> lease(const Options& options = {}) const;

    // Tells the peers of an endpoint opened as `scheme+app://label`: the whole set, each time; each `host:port`.
    Future<Ok> set_peers(const std::vector<std::string>& peers) const {
        detail::Ref<detail::Op> op(new detail::Op);
        begin(op.get(), IOK_OP_PEERS, Options(), [&](Buffer& out) { pack(out, peers); });
        return Future<Ok>(std::move(op));
    }

    // What is under way ends as `closed`, and so does what comes later. Twice is harmless.
    void close() {
        std::uint32_t number = state_->close();
        if (number && !state_->kernel->is_closed()) (void)detail::block(*state_->kernel, {IOK_OP_CLOSE, 0, number}, {});
    }

    bool is_closed() const noexcept { return state_->is_closed; }

private:
    friend class Kernel;
    explicit Endpoint(std::shared_ptr<detail::EndpointState> state) : Requests(std::move(state)) {}

    // As `close`, without waiting.
    void leave() {
        if (!state_) return;
        std::uint32_t number = state_->close();
        if (!number || state_->kernel->is_closed() || detail::ThreadChannels::is_gone()) return;
        auto channel = state_->kernel->channel().state();
        channel->submit(nullptr, {IOK_OP_CLOSE, IOK_FLAG_QUIET, number}, std::uint64_t{1} << 62);
    }
};

inline Result<Endpoint> Kernel::open(std::string_view url, const Query& options) const {
    auto state = std::make_shared<detail::EndpointState>(state_, detail::with_options(url, options));
    auto number = state->number();
    if (!number) return std::move(number).error();
    return Endpoint(std::move(state));
}

// A connection of one's own, until `release` or the end of its life: transactions, and what else changes a connection.
// It goes back clean; what is under way on it is cancelled. It belongs to the thread that asked for it.
class Lease : public Requests {
public:
    Lease(Lease&&) noexcept = default;
    Lease& operator=(Lease&& other) noexcept {
        if (this != &other) release();
        Requests::operator=(std::move(other));
        number_ = std::exchange(other.number_, 0);
        return *this;
    }
    ~Lease() { release(); }

    // Twice is harmless.
    void release() {
        if (!state_ || !lease_) return;
        std::uint64_t lease = std::exchange(lease_, 0);
        if (channel_->is_alive() && state_->is_now(number_))
            channel_->submit(nullptr, {IOK_OP_RELEASE, IOK_FLAG_QUIET, number_, 0, lease}, std::uint64_t{1} << 62);
        state_.reset();
    }

private:
    friend struct detail::Taking<Lease>;
    Lease(Requests of, std::shared_ptr<detail::ChannelState> channel, std::uint32_t number, std::uint64_t lease)
        : Requests(std::move(of)), number_(number) {
        channel_ = std::move(channel);
        lease_ = lease;
    }

    std::uint32_t number_;
};

namespace detail {

// A lease that comes when nobody wants it any more is given back.
class LeaseOp final : public Op {
public:
    LeaseOp(Requests of, std::weak_ptr<ChannelState> channel) : of(std::move(of)), lives(std::move(channel)) {
        hears_after_cancel = true;
    }

    void event(const iok_completion& came, std::string_view bytes, std::string* whole) override {
        if (!done) return Op::event(came, bytes, whole);
        head = came;
        payload = bytes;
    }

    std::uint64_t lease() const {
        return head.kind == IOK_KIND_DONE && head.status == IOK_STATUS_OK ? View(payload).natural().value_or(0) : 0;
    }

    ~LeaseOp() override {
        auto channel = lives.lock();
        if (!is_taken && lease() && channel && channel->is_alive())
            channel->submit(nullptr, {IOK_OP_RELEASE, IOK_FLAG_QUIET, head.endpoint, 0, lease()},
                            std::uint64_t{1} << 62);
    }

    Requests of;
    std::weak_ptr<ChannelState> lives;
    bool is_taken = false;
};

template <>
struct Taking<Lease> {
    static Result<Lease> take(Op& op) {
        if (!op.is_ok()) return op.error();
        auto& mine = static_cast<LeaseOp&>(op);
        mine.is_taken = true;
        return Lease(mine.of, mine.lives.lock(), op.head.endpoint, mine.lease());
    }
};

// What has come and was not taken yet, and the one who waits for it.
class Inbox : public std::enable_shared_from_this<Inbox> {
public:
    class Waiter final : public Op {
    public:
        explicit Waiter(std::weak_ptr<Inbox> of) : of_(std::move(of)) {}

        // What came and was not taken is there for the next one.
        void drop() override {
            auto inbox = of_.lock();
            if (!inbox) return;
            if (!done)
                inbox->waiter_ = nullptr;
            else if (is_ok())
                inbox->keep(true, head, std::move(payload));
        }

    private:
        std::weak_ptr<Inbox> of_;
    };

    void put(const iok_completion& head, std::string_view payload, std::string* whole) {
        if (Waiter* waiter = std::exchange(waiter_, nullptr)) return waiter->event(head, payload, whole);
        keep(false, head, whole ? std::move(*whole) : std::string(payload));
    }

    // Nothing more comes.
    void end(Error why) {
        if (is_over()) return;
        end_ = std::make_unique<Error>(std::move(why));
        if (Waiter* waiter = std::exchange(waiter_, nullptr)) waiter->fail(*end_);
    }

    Ref<Op> next(ChannelState* channel) {
        Ref<Waiter> waiter(new Waiter(weak_from_this()));
        waiter->channel = channel;
        if (!waiting_.empty()) {
            Reply first = std::move(waiting_.front());
            waiting_.pop_front();
            bytes_ -= first.payload().size();
            std::string payload = std::move(first).payload();
            waiter->event(first.head(), payload, &payload);
        } else if (end_) {
            waiter->fail(*end_);
        } else if (waiter_) {
            waiter->fail(error_of(IOK_STATUS_BAD_REQUEST, Fate::not_sent, "another one waits for the next message"));
        } else {
            waiter_ = waiter.get();
        }
        return Ref<Op>(waiter.release());
    }

    std::size_t size() const noexcept { return waiting_.size(); }
    std::size_t bytes() const noexcept { return bytes_; }
    bool is_over() const noexcept { return end_ != nullptr; }

private:
    void keep(bool in_front, const iok_completion& head, std::string payload) {
        bytes_ += payload.size();
        waiting_.emplace(in_front ? waiting_.begin() : waiting_.end(), head, std::move(payload));
    }

    std::size_t bytes_ = 0;
    std::deque<Reply> waiting_;
    Waiter* waiter_ = nullptr;
    std::unique_ptr<Error> end_;
};

class SubscriptionOp final : public Op {
public:
    void event(const iok_completion& came, std::string_view bytes, std::string* whole) override {
        switch (came.kind) {
        case IOK_KIND_ACCEPTED:
            if (done) return void(reconnects++);
            head = came;
            return finish();
        case IOK_KIND_LOST: lost += View(came.encoding, bytes).natural().value_or(0); return;
        case IOK_KIND_DONE:
            inbox->end(came.status == IOK_STATUS_OK ? over() : error_of(came, bytes, *channel->names()));
            if (!done) Op::event(came, bytes, whole);
            return;
        default:
            if (inbox->size() >= messages_max)
                lost++;
            else
                inbox->put(came, bytes, whole);
        }
    }

    void fail(Error error) override {
        inbox->end(error);
        if (!done) Op::fail(std::move(error));
    }

    // The Future, or the Subscription, is gone.
    void drop() override { close(); }

    void close() {
        if (inbox->is_over()) return;
        channel->cancel(tag, true);
        inbox->end(over());
    }

    static Error over() { return error_of(IOK_STATUS_CLOSED, Fate::none, "the subscription has ended"); }

    static constexpr std::size_t messages_max = 65536;
    const std::shared_ptr<Inbox> inbox = std::make_shared<Inbox>();
    std::uint64_t lost = 0, reconnects = 0;
};

}  // namespace detail

// Messages as they come, until `close` or the end of its life: `while (auto message = news.next().get()) ...`.
//
// It outlives lost connections: messages sent meanwhile are not delivered, `reconnects` counts. It belongs to the
// thread that asked for it.
class Subscription {
public:
    Subscription(Subscription&&) noexcept = default;
    Subscription& operator=(Subscription&& other) noexcept {
        close();
        op_ = std::move(other.op_);
        return *this;
    }
    ~Subscription() { close(); }

    // The next message; one asks at a time. A Future that is dropped leaves the message for the next one. After the
    // end: an Error of the kind `closed`, or of what ended it.
    Future<Reply> next() { return Future<Reply>(op_->inbox->next(op_->channel)); }

    // Messages dropped because the program left too many unread.
    std::uint64_t lost() const noexcept { return op_->lost; }
    std::uint64_t reconnects() const noexcept { return op_->reconnects; }
    bool is_over() const noexcept { return op_->inbox->is_over(); }

    // Messages that came before can still be taken. Twice is harmless.
    void close() {
        if (op_) op_->close();
    }

private:
    friend struct detail::Taking<Subscription>;
    explicit Subscription(detail::Ref<detail::SubscriptionOp> op) : op_(std::move(op)) {}

    detail::Ref<detail::SubscriptionOp> op_;
};

namespace detail {

template <>
struct Taking<Subscription> {
    static Result<Subscription> take(Op& op) {
        if (!op.is_ok()) return op.error();
        return Subscription(Ref<SubscriptionOp>::share(static_cast<SubscriptionOp*>(&op)));
    }
};

}  // namespace detail

template <class... T>
inline Future<Subscription> Requests::subscribe(const Options& options, const T&... arguments) const {
    detail::Ref<detail::Op> op(new detail::SubscriptionOp);
    begin(op.get(), IOK_OP_STREAM, options, [&](Buffer& out) { detail::pack_request(out, arguments...); });
    return Future<Subscription>(std::move(op));
}

inline Future<Subscription> Endpoint::watch() const {
    detail::Ref<detail::Op> op(new detail::SubscriptionOp);
    begin(op.get(), IOK_OP_WATCH, Options(), [](Buffer&) {});
    return Future<Subscription>(std::move(op));
}

inline Future<Lease> Endpoint::lease(const Options& options) const {
    detail::Ref<detail::Op> op(new detail::LeaseOp(*this, channel()));
    begin(op.get(), IOK_OP_LEASE, options, [](Buffer&) {});
    return Future<Lease>(std::move(op));
}

// Opens a service in the default kernel; see `Kernel::open`.
inline Result<Endpoint> open(std::string_view url, const Query& options = {}) {
    auto& kernel = default_kernel();
    if (!kernel) return kernel.error();
    return kernel->open(url, options);
}

}  // namespace iokernel
