// Listeners: clients connect to us, and their requests come as values.
#pragma once

#include <iokernel/endpoint.hpp>

namespace iokernel {

class Request;

namespace detail {

// What is kept of a client's request until it is answered.
struct RequestState {
    std::uint64_t tag = 0;
    bool is_settled = false;               // it was answered, or its client has left
    std::size_t came = 0, given_back = 0;  // bytes of its pieces
    const std::shared_ptr<Inbox> pieces = std::make_shared<Inbox>();
};

class ListenerState final : public Sink, public std::enable_shared_from_this<ListenerState> {
public:
    ListenerState(std::shared_ptr<KernelState> kernel, std::shared_ptr<ChannelState> channel)
        : kernel(std::move(kernel)), channel(std::move(channel)) {}

    void event(const iok_completion& came, std::string_view bytes, std::string* whole) override {
        auto keep = shared_from_this();
        if (came.kind == IOK_KIND_REQUEST) {
            auto request = std::make_shared<RequestState>();
            request->tag = came.tag;
            live[came.tag] = std::move(request);
            return requests->put(came, bytes, whole);
        }
        auto found = live.find(came.tag);
        if (found == live.end()) {
            failures += came.kind == IOK_KIND_DONE && came.status != IOK_STATUS_OK;
        } else if (came.kind == IOK_KIND_GONE) {
            lose(*found->second, error_of(IOK_STATUS_LOST, Fate::maybe_executed, "the client has left"));
            live.erase(came.tag);
        } else if (came.kind == IOK_KIND_PUSH || came.kind == IOK_KIND_END) {
            auto request = found->second;
            request->came += came.kind == IOK_KIND_PUSH ? bytes.size() : 0;
            request->pieces->put(came, bytes, whole);
            if (came.kind == IOK_KIND_END)
                request->pieces->end(error_of(IOK_STATUS_CLOSED, Fate::none, "it has ended"));
        }
    }

    void fail(const Error& error) override {
        auto keep = shared_from_this();
        number = 0;
        for (auto& each : std::exchange(live, {})) lose(*each.second, error);
        requests->end(error);
    }

    std::shared_ptr<RequestState> find(std::uint64_t tag) const {
        auto found = live.find(tag);
        if (found != live.end()) return found->second;
        auto gone = std::make_shared<RequestState>();
        gone->is_settled = true;
        gone->pieces->end(error_of(IOK_STATUS_LOST, Fate::maybe_executed, "the client has left"));
        return gone;
    }

    static void lose(RequestState& request, const Error& error) {
        request.is_settled = true;
        request.pieces->end(error);
    }

    const std::shared_ptr<KernelState> kernel;
    const std::shared_ptr<ChannelState> channel;
    const std::shared_ptr<Inbox> requests = std::make_shared<Inbox>();
    std::unordered_map<std::uint64_t, std::shared_ptr<RequestState>> live;
    std::uint32_t number = 0;
    std::uint64_t failures = 0;
    std::string url;
};

}  // namespace detail

// A client's request. It is answered once: by `reply`, by `error`, or by `begin`, `send` as often as needed and
// `finish`. One that is never answered gets the listener's `timeout=`. It belongs to its listener's thread. A client
// that has left is no error: `is_gone` tells.
class Request {
public:
    // What the client asked, as its protocol has it. It points into this Request.
    View args() const noexcept { return reply_.view(); }

    // The number of the client's connection, and when the request came.
    const iok_completion& head() const noexcept { return reply_.head(); }

    // Nobody waits for a reply any more.
    bool is_gone() const noexcept { return state_->is_settled; }

    template <class T>
    void reply(const T& value) {
        if (settle()) submit(IOK_OP_REPLY, 0, [&](Buffer& out) { pack(out, value); });
    }

    // After `begin` it shows the client that the reply is not complete, as far as the protocol can.
    void error(std::string_view code, std::string_view message) {
        Error error;
        error.code = code;
        error.message = message;
        if (!has_begun_)
            reply(error);
        else if (settle())
            submit(IOK_OP_SEND, state_->tag, [&](Buffer& out) { pack(out, error); });
    }

    // Begins a reply of which more follows.
    template <class T>
    void begin(const T& value) {
        has_begun_ = true;
        if (!is_gone()) submit(IOK_OP_REPLY, 0, [&](Buffer& out) { pack(out, value); });
    }

    // One more part. Ready once it is on its way: wait for it, or what is sent piles up. Error: lost, bad_request.
    template <class T>
    Future<Ok> send(const T& value) {
        detail::Ref<detail::Op> op(new detail::Op);
        if (state_->is_settled) {
            op->fail(detail::error_of(IOK_STATUS_LOST, Fate::maybe_executed, "the client has left"));
        } else {
            detail::Ask ask{IOK_OP_SEND, 0, listener_->number, 0, state_->tag};
            listener_->channel->submit(op.get(), ask, 0, [&](Buffer& out) { pack(out, value); });
        }
        return Future<Ok>(std::move(op));
    }

    // Ends a reply in parts. `last` is its last part, where the protocol has one.
    template <class T = std::nullptr_t>
    Future<Ok> finish(const T& last = nullptr) {
        auto sent = send(last);
        settle();
        return sent;
    }

    // What else comes of it, where the protocol has that; `Reply::is_end()` is true for the last. Taking a piece makes
    // room for more. Errors: lost (the client has left), closed (after the last).
    Future<Reply> piece() {
        credit();
        return Future<Reply>(state_->pieces->next(listener_->channel.get()));
    }

private:
    friend struct detail::Taking<Request>;
    Request(std::shared_ptr<detail::ListenerState> listener, std::shared_ptr<detail::RequestState> state, Reply reply)
        : listener_(std::move(listener)), state_(std::move(state)), reply_(std::move(reply)) {}

    // False if it was settled before.
    bool settle() {
        if (std::exchange(state_->is_settled, true)) return false;
        listener_->live.erase(state_->tag);
        return true;
    }

    template <class Fill>
    void submit(std::uint16_t op, std::uint64_t key, const Fill& fill) {
        if (listener_->number)
            listener_->channel->submit(nullptr, {op, IOK_FLAG_QUIET, listener_->number, 0, key}, state_->tag, fill);
    }

    // Of the window, what the program took and is done with.
    void credit() {
        std::size_t taken = state_->came - state_->pieces->bytes() - state_->given_back;
        if (taken == 0 || is_gone() || !listener_->number) return;
        state_->given_back += taken;
        listener_->channel->submit(nullptr, {IOK_OP_CREDIT, IOK_FLAG_QUIET, listener_->number, 0, state_->tag}, taken);
    }

    std::shared_ptr<detail::ListenerState> listener_;
    std::shared_ptr<detail::RequestState> state_;
    Reply reply_;
    bool has_begun_ = false;
};

// Where clients connect; made by `listen`. It belongs to the thread that made it, whose channel its requests come by,
// and ends with its object.
class Listener {
public:
    Listener(Listener&&) noexcept = default;
    Listener& operator=(Listener&& other) noexcept {
        (void)leave(Milliseconds(0), Milliseconds(0));
        state_ = std::move(other.state_);
        return *this;
    }
    ~Listener() { (void)leave(Milliseconds(0), Milliseconds(0)); }

    // Where it listens, with the port that the system chose.
    const std::string& url() const noexcept { return state_->url; }

    // The next request; one asks at a time. After the end: an Error of the kind `closed`.
    Future<Request> next() {
        auto op = state_->requests->next(state_->channel.get());
        op->owner = state_;
        return Future<Request>(std::move(op));
    }

    // Replies that could not be sent.
    std::uint64_t failures() const noexcept { return state_->failures; }

    // Stops listening and drops its clients; the address is free then. Twice is harmless.
    void close() { (void)leave(Milliseconds(0), Milliseconds(0)).get(); }

    // Leaves as politely as its protocol can: whoever asks about its health is told so; `delay` later nobody is let in
    // any more; what is under way has `drain` to finish. Meanwhile `next` goes on.
    Future<Ok> close_gently(Milliseconds drain, Milliseconds delay = Milliseconds(0)) { return leave(drain, delay); }

private:
    friend class Kernel;
    explicit Listener(std::shared_ptr<detail::ListenerState> state) : state_(std::move(state)) {}

    Future<Ok> leave(Milliseconds drain, Milliseconds delay);

    std::shared_ptr<detail::ListenerState> state_;
};

namespace detail {

// Tells the listener when everyone has left.
class LeaveOp final : public Op {
public:
    explicit LeaveOp(std::shared_ptr<ListenerState> listener) : listener_(std::move(listener)) {}

    void event(const iok_completion& came, std::string_view bytes, std::string* whole) override {
        over();
        Op::event(came, bytes, whole);
    }
    void fail(Error error) override {
        over();
        Op::fail(std::move(error));
    }

private:
    void over() {
        listener_->channel->forget(listener_->number);
        listener_->fail(error_of(IOK_STATUS_CLOSED, Fate::not_sent, "the listener is closed"));
    }
    std::shared_ptr<ListenerState> listener_;
};

template <>
struct Taking<Request> {
    static Result<Request> take(Op& op) {
        if (!op.is_ok()) return op.error();
        auto listener = std::static_pointer_cast<ListenerState>(op.owner);
        auto state = listener->find(op.head.tag);
        return Request(std::move(listener), std::move(state), Reply(op.head, std::move(op.payload)));
    }
};

}  // namespace detail

inline Future<Ok> Listener::leave(Milliseconds drain, Milliseconds delay) {
    if (!state_ || !state_->number) return detail::failed<Ok>(detail::error_of(IOK_STATUS_CLOSED));
    detail::Ref<detail::Op> op(new detail::LeaveOp(state_));
    detail::Ask ask{IOK_OP_CLOSE, 0, state_->number};
    ask.timeout_ms = static_cast<std::uint32_t>(drain.count());
    ask.key = static_cast<std::uint64_t>(delay.count());
    state_->channel->submit(op.get(), ask);
    if (drain.count() == 0) {
        state_->channel->forget(state_->number);
        state_->fail(detail::error_of(IOK_STATUS_CLOSED, Fate::not_sent, "the listener is closed"));
    }
    return Future<Ok>(std::move(op));
}

inline Result<Listener> Kernel::listen(std::string_view url, const Query& options) const {
    auto listener = std::make_shared<detail::ListenerState>(state_, channel().state());
    detail::Ref<detail::Op> op(new detail::Op);
    std::string whole = detail::with_options(url, options);
    listener->channel->submit(op.get(), {IOK_OP_LISTEN}, 0,
                              [&](Buffer& out) { out.append(whole.data(), whole.size()); });
    listener->channel->wait([&op] { return op->done; });
    if (!op->is_ok()) return op->error();
    listener->number = op->head.endpoint;
    listener->url = View(op->head.encoding, op->payload).text();
    listener->channel->listen(listener->number, listener.get());
    state_->names->set(listener->number, listener->url);
    return Listener(std::move(listener));
}

// Listens in the default kernel; see `Kernel::listen`.
inline Result<Listener> listen(std::string_view url, const Query& options = {}) {
    auto& kernel = default_kernel();
    if (!kernel) return kernel.error();
    return kernel->listen(url, options);
}

}  // namespace iokernel
