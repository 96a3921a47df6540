// A channel: submissions gathered for one call, completions given to who waits for them.
#pragma once

#include <iokernel/value.hpp>

#include <chrono>
#include <mutex>

namespace iokernel {

using Milliseconds = std::chrono::milliseconds;

// A reply, or one message of a stream, with what is known of it.
class Reply {
public:
    Reply() = default;
    Reply(const iok_completion& head, std::string payload) : head_(head), payload_(std::move(payload)) {}

    // Its value. It points into this Reply.
    View view() const noexcept { return {head_.encoding, payload_}; }
    Value value() const { return to_value(view()); }

    bool is_nil() const noexcept { return view().is_nil(); }
    std::string_view text() const noexcept { return view().text(); }
    std::optional<std::int64_t> integer() const noexcept { return view().integer(); }
    std::optional<double> number() const noexcept { return view().number(); }

    // The payload itself; `head().encoding` says what it is. Moves it out.
    std::string&& payload() && noexcept { return std::move(payload_); }
    const std::string& payload() const& noexcept { return payload_; }

    // When it was queued, sent, answered and done, and by which peer.
    const iok_completion& head() const noexcept { return head_; }

    // The last word of a client's request: nothing more comes of it.
    bool is_end() const noexcept { return head_.kind == IOK_KIND_END; }

private:
    iok_completion head_{};
    std::string payload_;
};

namespace detail {

// What is locked for a moment and must be free in the child of a fork.
inline std::mutex& common_mutex() {
    static std::mutex mutex;
    return mutex;
}

// The URLs of a kernel's endpoints, for what errors say.
class Names {
public:
    void set(std::uint32_t number, std::string url) {
        std::lock_guard<std::mutex> lock(common_mutex());
        urls_[number] = std::move(url);
    }
    std::string get(std::uint32_t number) const {
        std::lock_guard<std::mutex> lock(common_mutex());
        auto found = urls_.find(number);
        return found == urls_.end() ? std::string() : found->second;
    }
    void clear() { urls_.clear(); }

private:
    std::unordered_map<std::uint32_t, std::string> urls_;
};

class ChannelState;

// One thing under way. It belongs to the thread of its channel.
class Op {
public:
    Op() = default;
    Op(const Op&) = delete;
    Op& operator=(const Op&) = delete;

    void hold() noexcept { refs_++; }
    void let_go() noexcept {
        if (--refs_ == 0) delete this;
    }

    // A completion with all of its payload. `whole` is where the payload was put together, if it came in fragments.
    virtual void event(const iok_completion& came, std::string_view bytes, std::string* whole);

    // It ends without a completion.
    virtual void fail(Error error) {
        error_ = std::make_unique<Error>(std::move(error));
        finish();
    }

    // Nobody will take what it brings.
    virtual void drop() {}

    bool is_ok() const noexcept { return !error_; }
    const Error& error() const noexcept { return *error_; }

    std::shared_ptr<void> owner;  // what its outcome is made with
    ChannelState* channel = nullptr;
    std::uint64_t tag = 0;  // 0: the kernel knows nothing of it
    bool done = false;
    bool is_wait_for_up = false;
    bool hears_after_cancel = false;
    iok_completion head{};
    std::string payload;
    std::string parts;  // the fragments that came so far
    void (*wake)(void*) = nullptr;
    void* who = nullptr;

protected:
    virtual ~Op() = default;

    void finish() {
        hold();
        done = true;
        if (auto wakes = std::exchange(wake, nullptr)) wakes(std::exchange(who, nullptr));
        let_go();
    }

private:
    std::unique_ptr<Error> error_;
    std::uint32_t refs_ = 1;
};

template <class T>
class Ref {
public:
    Ref() noexcept = default;
    explicit Ref(T* taken) noexcept : op_(taken) {}
    static Ref share(T* op) noexcept { return op->hold(), Ref(op); }
    Ref(Ref&& other) noexcept : op_(std::exchange(other.op_, nullptr)) {}
    Ref& operator=(Ref other) noexcept { return std::swap(op_, other.op_), *this; }
    ~Ref() {
        if (op_) op_->let_go();
    }
    T* get() const noexcept { return op_; }
    T* operator->() const noexcept { return op_; }
    T& operator*() const noexcept { return *op_; }
    explicit operator bool() const noexcept { return op_ != nullptr; }
    T* release() noexcept { return std::exchange(op_, nullptr); }

private:
    T* op_ = nullptr;
};

inline Error error_of(const iok_completion& head, std::string_view payload, const Names& names) {
    Error made;
    made.status = head.status;
    made.fate = static_cast<Fate>(head.fate <= IOK_FATE_REPLIED ? head.fate : 0);
    made.peer = head.peer;
    made.endpoint = names.get(head.endpoint);
    View said(head.encoding, payload);
    made.code = said[0].text();
    made.message = said[1].text();
    if (made.message.empty()) made.message = iok_status_text(head.status);
    return made;
}

// Who takes what comes for a listener.
class Sink {
public:
    virtual void event(const iok_completion& head, std::string_view payload, std::string* whole) = 0;
    virtual void fail(const Error& error) = 0;

protected:
    ~Sink() = default;
};

// What a submission asks for. `timeout_ms` as in a record.
struct Ask {
    std::uint16_t op;
    std::uint16_t flags = 0;
    std::uint32_t endpoint = 0;
    std::uint32_t timeout_ms = 0;
    std::uint64_t key = 0;
};

class ChannelState : public std::enable_shared_from_this<ChannelState> {
public:
    // Takes `handle` over. Without one the channel has ended from the beginning, as `ended` says.
    ChannelState(iok_channel* handle, std::shared_ptr<Names> names, Error ended)
        : handle_(handle), names_(std::move(names)), ended_(std::move(ended)) {
        if (handle_) payload_max_ = find_payload_max();
    }

    ~ChannelState() { close(); }

    ChannelState(const ChannelState&) = delete;
    ChannelState& operator=(const ChannelState&) = delete;

    bool is_alive() const noexcept { return ended_.status == IOK_STATUS_OK; }
    const Error& ended() const noexcept { return ended_; }
    int fd() const noexcept { return handle_ ? iok_channel_fd(handle_) : -1; }
    const std::shared_ptr<Names>& names() const noexcept { return names_; }
    std::size_t unsent() const noexcept { return out_.size() - taken_; }
    std::uint64_t failures() const noexcept { return failures_; }
    std::uint64_t handed_out() const noexcept { return handed_out_; }

    // While above 0, submissions wait for `flush`, the next wait, or until they are many.
    int batching = 0;
    // A loop drives it: submitting never waits.
    bool is_driven = false;

    // Queues one submission, whose payload `fill(Buffer&)` writes. Its completions go to `op`, which is held until the
    // last. Without an `op` nobody hears of it under `tag`.
    template <class Fill>
    void submit(Op* op, const Ask& ask, std::uint64_t tag, const Fill& fill) {
        if (op) op->channel = this;
        if (!is_alive()) {
            if (op) op->fail(ended_);
            return;
        }
        if (op) op->tag = tag = take_slot(op);
        std::size_t start = out_.size();
        out_.grow(sizeof(iok_submission));
        fill(out_);
        seal(start, ask, tag);
        if (depth_ == 0 && batching == 0) flush();
        if (unsent() >= flush_bytes) flush();
        if (unsent() > unsent_bytes_max && !is_driven && depth_ == 0) hold_back();
    }

    void submit(Op* op, const Ask& ask, std::uint64_t tag = 0) {
        submit(op, ask, tag, [](Buffer&) {});
    }

    // One of which only a failure is heard, counted in `failures`.
    template <class Fill>
    void submit_quietly(Ask ask, const Fill& fill) {
        ask.flags |= IOK_FLAG_QUIET;
        bool is_known = false;
        for (std::uint32_t each : loose_) is_known |= each == ask.endpoint;
        if (!is_known) loose_.push_back(ask.endpoint);
        submit(nullptr, ask, ++next_quiet_, fill);
    }

    // Asks the kernel to end what is under way. With `is_deaf` nobody hears what still comes of it.
    void cancel(std::uint64_t tag, bool is_deaf) {
        Slot* slot = find(tag);
        if (!slot) return;
        submit(nullptr, {IOK_OP_CANCEL}, tag);
        slot = find(tag);
        if (slot && is_deaf) Ref<Op>(std::exchange(slot->op, nullptr));
    }

    // Gives the kernel what is queued, as much as fits.
    void flush() {
        while (is_alive() && taken_ < out_.size()) {
            std::size_t took = 0;
            iok_status status = iok_submit_batch(handle_, out_.data() + taken_, out_.size() - taken_, &took);
            taken_ += took;
            if (status == IOK_STATUS_FULL) return;
            if (status == IOK_STATUS_TOO_LARGE)
                refuse(status);
            else if (status != IOK_STATUS_OK)
                return end(last_error(status));
        }
        taken_ = 0;
        out_.capacity() > kept_bytes_max ? out_.release() : out_.truncate(0);
    }

    // Hands out what has completed: one run of the ring, or so much of it. How many completions there were.
    std::size_t poll(std::size_t at_most = ~std::size_t{0}) {
        auto keep = shared_from_this();
        std::size_t count = 0;
        if (at_ == end_ && !next_run()) return 0;
        depth_++;
        while (at_ != end_ && count < at_most) {
            iok_completion head;
            std::memcpy(&head, at_, sizeof head);
            std::string_view payload(at_ + sizeof head, head.size - sizeof head);
            at_ += (std::size_t{head.size} + 7) & ~std::size_t{7};
            count++;
            handed_out_++;
            deliver(head, payload);
        }
        if (at_ == end_) advance();
        if (--depth_ == 0) flush();
        return count;
    }

    // Sleeps until something has completed, a signal came, or the time is over (below 0: for as long as it takes).
    void sleep(Milliseconds time) {
        iok_status status = iok_wait(handle_, static_cast<std::int32_t>(time.count()));
        if (status != IOK_STATUS_OK && status != IOK_STATUS_TIMEOUT && status != IOK_STATUS_INTERRUPTED)
            end(error_of(status));
    }

    // Sleeps until `is_done()`. False if the time was over before.
    template <class IsDone>
    bool wait(const IsDone& is_done, std::optional<Milliseconds> timeout = {}) {
        auto deadline = std::chrono::steady_clock::now() + timeout.value_or(Milliseconds(0));
        auto keep = shared_from_this();
        flush();
        while (!is_done()) {
            if (!is_alive()) return is_done();
            if (at_ == end_) {
                Milliseconds slice = wait_slice;
                if (timeout) {
                    auto left = std::chrono::ceil<Milliseconds>(deadline - std::chrono::steady_clock::now());
                    if (left <= Milliseconds(0)) return poll(), is_done();
                    if (left < slice) slice = left;
                }
                sleep(slice);
            }
            poll();
            flush();
        }
        return true;
    }

    void listen(std::uint32_t endpoint, Sink* sink) { sinks_[endpoint] = sink; }
    void forget(std::uint32_t endpoint) { sinks_.erase(endpoint); }

    // The channel is of no use any more: whoever waits is told.
    void end(Error why) {
        if (!is_alive()) return;
        ended_ = std::move(why);
        out_.release();
        taken_ = 0;
        Error error = ended_;
        error.fate = Fate::maybe_executed;
        for (Slot& slot : std::exchange(slots_, {}))
            if (Ref<Op> op{slot.op}) op->fail(error);
        for (auto& each : std::exchange(sinks_, {})) each.second->fail(error);
    }

    void close() {
        if (!handle_) return;
        if (is_alive() && !loose_.empty() && depth_ == 0 && !weak_from_this().expired()) settle();
        end(error_of(IOK_STATUS_CLOSED));
        at_ = end_ = nullptr;
        run_bytes_ = 0;
        iok_channel_close(std::exchange(handle_, nullptr));
    }

private:
    struct Slot {
        std::uint64_t tag = 0;  // 0: free
        Op* op = nullptr;
    };

    static constexpr std::uint64_t tag_bit = std::uint64_t{1} << 61, quiet_bit = std::uint64_t{1} << 62;
    static constexpr std::size_t flush_bytes = 32 << 10;
    static constexpr std::size_t unsent_bytes_max = 4 << 20;
    static constexpr std::size_t kept_bytes_max = 1 << 20;
    static constexpr Milliseconds wait_slice{1000}, settle_time{1000};

    // A record has a quarter of the ring at most.
    std::size_t find_payload_max() {
        std::uint32_t bytes = 256 << 10;
        iok_submission* unused;
        while (bytes > 512 && iok_reserve(handle_, bytes, &unused) == IOK_STATUS_TOO_LARGE) bytes /= 2;
        return bytes > 512 ? bytes / 2 : 256;
    }

    std::uint64_t take_slot(Op* op) {
        std::uint32_t index;
        if (free_.empty()) {
            index = static_cast<std::uint32_t>(slots_.size());
            slots_.emplace_back();
        } else {
            index = free_.back();
            free_.pop_back();
        }
        generation_ = (generation_ + 1) & 0x0fffffff;
        std::uint64_t tag = tag_bit | std::uint64_t{generation_} << 32 | index;
        op->hold();
        slots_[index] = {tag, op};
        return tag;
    }

    Slot* find(std::uint64_t tag) noexcept {
        auto index = static_cast<std::uint32_t>(tag);
        return index < slots_.size() && slots_[index].tag == tag ? &slots_[index] : nullptr;
    }

    void free_slot(std::uint64_t tag) {
        auto index = static_cast<std::uint32_t>(tag);
        slots_[index] = {};
        free_.push_back(index);
    }

    // The payload is written: makes it a record, or several.
    void seal(std::size_t start, const Ask& ask, std::uint64_t tag) {
        iok_submission head{};
        head.op = ask.op;
        head.flags = ask.flags;
        head.endpoint = ask.endpoint;
        head.timeout_ms = ask.timeout_ms;
        head.tag = tag;
        head.key = ask.key;
        std::size_t bytes = out_.size() - start - sizeof head;
        if (bytes <= payload_max_) return write_head(start, head);
        std::string whole(out_.data() + start + sizeof head, bytes);
        out_.truncate(start);
        head.bytes_total = static_cast<std::uint32_t>(bytes);
        for (std::size_t at = 0; at < bytes; at += payload_max_) {
            std::size_t part = bytes - at < payload_max_ ? bytes - at : payload_max_;
            head.flags = static_cast<std::uint16_t>(ask.flags | (at + part < bytes ? IOK_FLAG_MORE : 0));
            start = out_.size();
            out_.grow(sizeof head);
            out_.append(whole.data() + at, part);
            write_head(start, head);
            head.bytes_total = 0;
        }
    }

    void write_head(std::size_t start, iok_submission head) {
        std::size_t size = out_.size() - start;
        head.size = static_cast<std::uint32_t>(size);
        std::memcpy(out_.data() + start, &head, sizeof head);
        if (std::size_t padding = (8 - size % 8) % 8) std::memset(out_.grow(padding), 0, padding);
    }

    // The message at the front of what is unsent was not taken, and never will be: it is left out.
    void refuse(iok_status status) {
        iok_submission head;
        std::uint64_t tag = 0;
        do {
            std::memcpy(&head, out_.data() + taken_, sizeof head);
            tag = head.tag;
            taken_ += (std::size_t{head.size} + 7) & ~std::size_t{7};
        } while (head.flags & IOK_FLAG_MORE && taken_ < out_.size());
        Slot* slot = find(tag);
        if (!slot) return void(failures_++);
        Ref<Op> op(slot->op);
        free_slot(tag);
        if (op) op->fail(last_error(status));
    }

    // A thread that is far ahead of the kernel waits for it.
    void hold_back() {
        auto keep = shared_from_this();
        while (is_alive() && unsent() > unsent_bytes_max) {
            sleep(wait_slice);
            poll();
            flush();
        }
    }

    // Payloads of the run are gone, also those that somebody looks at inside of whom this runs.
    void advance() {
        std::size_t bytes = std::exchange(run_bytes_, 0);
        if (bytes && handle_) iok_advance(handle_, bytes);
    }

    bool next_run() {
        if (!handle_) return false;
        advance();
        const iok_completion* first = nullptr;
        std::size_t bytes = 0;
        if (iok_poll(handle_, &first, &bytes) == 0) {
            iok_status status = iok_channel_status(handle_);
            if (status != IOK_STATUS_OK) end(error_of(status));
            return false;
        }
        at_ = reinterpret_cast<const char*>(first);
        end_ = at_ + bytes;
        run_bytes_ = bytes;
        return true;
    }

    void deliver(const iok_completion& head, std::string_view payload) {
        if (head.kind == IOK_KIND_TICK) return;
        if (Slot* slot = find(head.tag)) {
            bool is_last = head.kind == IOK_KIND_DONE && !(head.flags & IOK_FLAG_MORE);
            Ref<Op> op;
            if (slot->op) op = is_last ? Ref<Op>(slot->op) : Ref<Op>::share(slot->op);
            if (is_last) free_slot(head.tag);
            if (op) hand_out(*op, op->parts, head, payload);
            return;
        }
        auto sink = sinks_.find(head.endpoint);
        if (sink != sinks_.end())
            hand_out(*sink->second, parts_[head.tag], head, payload);
        else if (head.kind == IOK_KIND_DONE && head.tag & quiet_bit && head.status != IOK_STATUS_OK)
            failures_++;
    }

    // To whoever takes it, once it is whole.
    template <class Taker>
    void hand_out(Taker& taker, std::string& parts, const iok_completion& head, std::string_view payload) {
        if (parts.empty() && !(head.flags & IOK_FLAG_MORE)) {
            if constexpr (std::is_same_v<Taker, Sink>) parts_.erase(head.tag);
            return taker.event(head, payload, nullptr);
        }
        if (parts.empty()) parts.reserve(head.bytes_total);
        parts.append(payload);
        if (head.flags & IOK_FLAG_MORE) return;
        std::string whole = std::move(parts);
        parts.clear();
        if constexpr (std::is_same_v<Taker, Sink>) parts_.erase(head.tag);
        taker.event(head, whole, &whole);
    }

    // One-way submissions are written before the channel goes: once their endpoints are up, they are.
    void settle() {
        std::vector<Ref<Op>> ups;
        for (std::uint32_t endpoint : std::exchange(loose_, {})) {
            ups.emplace_back(new Op);
            Ask ask{IOK_OP_STATE, IOK_FLAG_UNTIL_UP, endpoint};
            ask.timeout_ms = static_cast<std::uint32_t>(settle_time.count());
            submit(ups.back().get(), ask);
        }
        auto all = [&ups] {
            for (const Ref<Op>& up : ups)
                if (!up->done) return false;
            return true;
        };
        wait(all, settle_time);
    }

    iok_channel* handle_;
    std::shared_ptr<Names> names_;
    Error ended_;
    std::size_t payload_max_ = 0;
    Buffer out_;
    std::size_t taken_ = 0;
    std::vector<Slot> slots_;
    std::vector<std::uint32_t> free_;
    std::uint32_t generation_ = 0;
    std::uint64_t next_quiet_ = quiet_bit;
    std::uint64_t failures_ = 0;
    std::uint64_t handed_out_ = 0;
    std::vector<std::uint32_t> loose_;
    std::unordered_map<std::uint32_t, Sink*> sinks_;
    std::unordered_map<std::uint64_t, std::string> parts_;
    const char* at_ = nullptr;
    const char* end_ = nullptr;
    std::size_t run_bytes_ = 0;
    int depth_ = 0;
};

inline void Op::event(const iok_completion& came, std::string_view bytes, std::string* whole) {
    head = came;
    if (came.status != IOK_STATUS_OK) {
        error_ = std::make_unique<Error>(error_of(came, bytes, *channel->names()));
        if (is_wait_for_up && came.status == IOK_STATUS_TIMEOUT) {
            error_->status = IOK_STATUS_UNAVAILABLE;
            error_->fate = Fate::not_sent;
        }
    } else if (whole) {
        payload = std::move(*whole);
    } else {
        payload.assign(bytes.data(), bytes.size());
    }
    finish();
}

}  // namespace detail

// The way of one thread to a kernel: submissions one way, completions the other. `Kernel::channel()` is the calling
// thread's; `Kernel::open_channel()` makes more, which end with their object. One thread at a time uses a channel.
//
// For an event loop of your own: watch `fd()` for reading and call `poll()` until it gives 0. A Batch around a turn
// sends what the turn asks for in one call.
class Channel {
public:
    explicit Channel(std::shared_ptr<detail::ChannelState> state) : state_(std::move(state)) {}
    Channel(Channel&&) noexcept = default;
    Channel& operator=(Channel&& other) noexcept {
        if (this != &other) close();
        state_ = std::move(other.state_);
        return *this;
    }
    ~Channel() { close(); }

    // Readable while completions wait. Watch it, never read or close it. -1 once the channel has ended.
    int fd() const noexcept { return state_->fd(); }

    // Hands out what has completed, without waiting: futures become ready, handlers and coroutines run. How many there
    // were.
    std::size_t poll() { return state_->poll(); }

    // As `poll`, and if there is nothing, waits for it so long at most.
    std::size_t wait(Milliseconds timeout) {
        std::uint64_t before = state_->handed_out();
        if (state_->poll() == 0) state_->wait([&] { return state_->handed_out() != before; }, timeout);
        return static_cast<std::size_t>(state_->handed_out() - before);
    }

    // Gives the kernel what a Batch holds back.
    void flush() { state_->flush(); }

    // Bytes that the ring had no room for yet.
    std::size_t unsent() const noexcept { return state_->unsent(); }

    // One-way requests that failed.
    std::uint64_t failures() const noexcept { return state_->failures(); }

    bool is_open() const noexcept { return state_->is_alive(); }

    // Ends everything under way in it. Twice is harmless.
    void close() {
        if (state_) state_->close();
    }

    const std::shared_ptr<detail::ChannelState>& state() const noexcept { return state_; }

private:
    std::shared_ptr<detail::ChannelState> state_;
};

// Requests made while it lives go to the kernel together: at its end, at the next wait, or when they are many.
class Batch {
public:
    explicit Batch(Channel& channel) : state_(channel.state()) { state_->batching++; }
    Batch(const Batch&) = delete;
    Batch& operator=(const Batch&) = delete;
    ~Batch() {
        if (--state_->batching == 0) state_->flush();
    }

private:
    std::shared_ptr<detail::ChannelState> state_;
};

}  // namespace iokernel
