// Coroutines, and a small loop to run them in. With an event loop of your own, `detach` them and poll the channel.
#pragma once

#include <iokernel/listener.hpp>

#if defined(__cpp_impl_coroutine)

#include <cerrno>
#include <poll.h>

namespace iokernel {

template <class T = void>
class Task;

namespace detail {

// A list of detached tasks, each of which leaves it when it ends. What is in there at its own end ends too, where it
// waits.
class DetachedTasks {
public:
    class Member {
    public:
        Member() = default;
        Member(const Member&) = delete;
        ~Member() { leave(); }

    private:
        friend class DetachedTasks;
        void leave() noexcept {
            if (!list_) return;
            (before_ ? before_->after_ : list_->first_) = after_;
            if (after_) after_->before_ = before_;
            list_ = nullptr;
        }
        DetachedTasks* list_ = nullptr;
        Member *before_ = nullptr, *after_ = nullptr;
        std::coroutine_handle<> task_;
    };

    DetachedTasks() = default;
    DetachedTasks(const DetachedTasks&) = delete;
    ~DetachedTasks() { end(); }

    void enter(Member& member, std::coroutine_handle<> task) noexcept {
        member.list_ = this;
        member.task_ = task;
        member.before_ = nullptr;
        member.after_ = first_;
        if (first_) first_->before_ = &member;
        first_ = &member;
    }

    void end() {
        while (first_) first_->task_.destroy();
    }

private:
    Member* first_ = nullptr;
};

// What tasks have in common: who goes on when they have ended.
struct PromiseBase {
    struct Final {
        bool await_ready() noexcept { return false; }
        template <class Promise>
        std::coroutine_handle<> await_suspend(std::coroutine_handle<Promise> ended) noexcept {
            auto& promise = ended.promise();
            if (!promise.is_detached) return promise.next ? promise.next : std::noop_coroutine();
            ended.destroy();
            return std::noop_coroutine();
        }
        void await_resume() noexcept {}
    };

    std::suspend_always initial_suspend() noexcept { return {}; }
    Final final_suspend() noexcept { return {}; }

#if defined(__cpp_exceptions)
    void unhandled_exception() {
        if (is_detached) std::terminate();
        exception = std::current_exception();
    }
    void rethrow() {
        if (exception) std::rethrow_exception(std::exchange(exception, nullptr));
    }
    std::exception_ptr exception;
#else
    void unhandled_exception() { std::abort(); }
    void rethrow() {}
#endif

    std::coroutine_handle<> next;
    bool is_detached = false;
    DetachedTasks::Member detached;
};

template <class T>
struct Promise : PromiseBase {
    Task<T> get_return_object();
    template <class From>
    void return_value(From&& from) {
        value.emplace(std::forward<From>(from));
    }
    T take() { return rethrow(), std::move(*value); }
    std::optional<T> value;
};

template <>
struct Promise<void> : PromiseBase {
    Task<void> get_return_object();
    void return_void() {}
    void take() { rethrow(); }
};

}  // namespace detail

// A coroutine that begins when it is awaited, run or detached. Exceptions in it go to who awaits it. Destroying it ends
// it where it waits, and cancels what it waits for.
template <class T>
class [[nodiscard]] Task {
public:
    using promise_type = detail::Promise<T>;

    explicit Task(std::coroutine_handle<promise_type> handle) : handle_(handle) {}
    Task(Task&& other) noexcept : handle_(std::exchange(other.handle_, {})) {}
    Task& operator=(Task&& other) noexcept {
        std::swap(handle_, other.handle_);
        return *this;
    }
    ~Task() {
        if (handle_) handle_.destroy();
    }

    void start() { handle_.resume(); }
    bool is_done() const { return handle_.done(); }
    T take() { return handle_.promise().take(); }

    // Lets it run without anybody who waits for it, for as long as its thread's Loop lives, if there is one. An exception
    // that leaves it then ends the program.
    void detach() &&;

    auto operator co_await() && {
        struct Awaiter {
            Task task;
            bool await_ready() const noexcept { return false; }
            std::coroutine_handle<> await_suspend(std::coroutine_handle<> waiting) {
                task.handle_.promise().next = waiting;
                return task.handle_;
            }
            T await_resume() { return task.take(); }
        };
        return Awaiter{std::move(*this)};
    }

private:
    std::coroutine_handle<promise_type> handle_;
};

template <class T>
inline Task<T> detail::Promise<T>::get_return_object() {
    return Task<T>(std::coroutine_handle<Promise>::from_promise(*this));
}

inline Task<void> detail::Promise<void>::get_return_object() {
    return Task<void>(std::coroutine_handle<Promise>::from_promise(*this));
}

// Begins a task that nobody waits for: in a Loop, which ends it at its own end, or in an event loop of your own that
// polls the thread's channel.
inline void detach(Task<void> task) { std::move(task).detach(); }

// Runs coroutines of one thread: `Loop loop(kernel); loop.run(main());`. It drives the thread's channel, timers and
// descriptors of yours; what a turn asks for goes to the kernel in one call. It may be opened and closed at any time,
// but not by a task of its own. What is detached in a thread belongs to the Loop that was opened last there, and is
// destroyed with it, wherever it waits; another task that still sleeps or watches then is never resumed.
class Loop {
public:
    explicit Loop(const Kernel& kernel)
        : channel_(kernel.channel()), batch_(channel_), state_(channel_.state()), opened_before_(last_opened()) {
        state_->is_driven = true;
        last_opened() = this;
    }
    Loop(const Loop&) = delete;
    Loop& operator=(const Loop&) = delete;
    ~Loop() {
        detached_.end();
        for (auto& each : sleepers_) each.second->is_waiting_ = false;
        for (Watch* each : watches_) each->is_waiting_ = false;
        for (Loop** link = &last_opened(); *link; link = &(*link)->opened_before_) {
            if (*link != this) continue;
            *link = opened_before_;
            break;
        }
        state_->is_driven = false;
    }

    // Runs a task to its end and gives what it gave. Turns of others happen meanwhile.
    template <class T>
    T run(Task<T> task) {
        task.start();
        while (!task.is_done()) turn(Milliseconds(-1));
        return task.take();
    }

    // `co_await loop.sleep(100ms)`
    auto sleep(std::chrono::nanoseconds time) { return Sleep(*this, Clock::now() + time); }

    // `co_await loop.ready(fd, POLLIN)`: true, or false if it hung up or is none.
    auto ready(int fd, short events) { return Watch(*this, fd, events); }

    // One turn: sends what was asked for, waits at most so long (below 0: as long as it takes), hands out what came. Of
    // much that came only a part, so that timers and descriptors have their turns too.
    void turn(Milliseconds timeout) {
        state_->flush();
        bool is_idle = state_->poll(completions_max) == 0;
        if (is_idle || !watches_.empty()) wait(is_idle ? timeout : Milliseconds(0));
        wake_sleepers();
        state_->flush();
    }

private:
    template <class T>
    friend class Task;
    using Clock = std::chrono::steady_clock;
    static constexpr std::size_t completions_max = 256;

    // Of this thread.
    static Loop*& last_opened() noexcept {
        static thread_local Loop* last = nullptr;
        return last;
    }

    class Sleep {
    public:
        Sleep(Loop& loop, Clock::time_point due) : loop_(loop), due_(due) {}
        Sleep(Sleep&&) = delete;
        ~Sleep() {
            if (is_waiting_) loop_.sleepers_.erase(place_);
        }
        bool await_ready() const noexcept { return false; }
        void await_suspend(std::coroutine_handle<> waiting) {
            waiting_ = waiting;
            place_ = loop_.sleepers_.emplace(due_, this);
            is_waiting_ = true;
        }
        void await_resume() noexcept {}

    private:
        friend class Loop;
        Loop& loop_;
        Clock::time_point due_;
        std::multimap<Clock::time_point, Sleep*>::iterator place_;
        std::coroutine_handle<> waiting_;
        bool is_waiting_ = false;
    };

    class Watch {
    public:
        Watch(Loop& loop, int fd, short events) : loop_(loop), fd_(fd), events_(events) {}
        Watch(Watch&&) = delete;
        ~Watch() { forget(); }
        bool await_ready() const noexcept { return false; }
        void await_suspend(std::coroutine_handle<> waiting) {
            waiting_ = waiting;
            loop_.watches_.push_back(this);
            is_waiting_ = true;
        }
        bool await_resume() const noexcept { return (came_ & events_) != 0; }

    private:
        friend class Loop;
        void forget() {
            if (!std::exchange(is_waiting_, false)) return;
            auto& all = loop_.watches_;
            all.erase(std::remove(all.begin(), all.end(), this), all.end());
        }
        Loop& loop_;
        int fd_;
        short events_, came_ = 0;
        std::coroutine_handle<> waiting_;
        bool is_waiting_ = false;
    };

    void wait(Milliseconds timeout) {
        if (!sleepers_.empty()) {
            auto left = std::chrono::ceil<Milliseconds>(sleepers_.begin()->first - Clock::now());
            left = std::max(left, Milliseconds(0));
            timeout = timeout.count() < 0 ? left : std::min(left, timeout);
        }
        if (watches_.empty() && state_->is_alive()) {
            state_->sleep(timeout);
            state_->poll(completions_max);
            return;
        }
        std::vector<pollfd> fds{{state_->fd(), POLLIN, 0}};
        for (Watch* each : watches_) fds.push_back({each->fd_, each->events_, 0});
        if (::poll(fds.data(), fds.size(), static_cast<int>(timeout.count())) <= 0) return;
        std::vector<Watch*> watched = watches_;
        for (std::size_t i = 0; i < watched.size(); i++)
            if (fds[i + 1].revents && is_watched(watched[i])) resume(*watched[i], fds[i + 1].revents);
        if (fds[0].revents) state_->poll(completions_max);
    }

    // A coroutine that was resumed before may have ended it.
    bool is_watched(Watch* watch) const { return std::find(watches_.begin(), watches_.end(), watch) != watches_.end(); }

    static void resume(Watch& watch, short came) {
        watch.came_ = came;
        watch.forget();
        watch.waiting_.resume();
    }

    void wake_sleepers() {
        auto now = Clock::now();
        while (!sleepers_.empty() && sleepers_.begin()->first <= now) {
            Sleep* due = sleepers_.begin()->second;
            sleepers_.erase(sleepers_.begin());
            due->is_waiting_ = false;
            due->waiting_.resume();
        }
    }

    Channel& channel_;
    Batch batch_;
    std::shared_ptr<detail::ChannelState> state_;
    std::multimap<Clock::time_point, Sleep*> sleepers_;
    std::vector<Watch*> watches_;
    detail::DetachedTasks detached_;
    Loop* opened_before_;
};

template <class T>
inline void Task<T>::detach() && {
    auto task = std::exchange(handle_, {});
    detail::PromiseBase& promise = task.promise();
    promise.is_detached = true;
    if (Loop* loop = Loop::last_opened()) loop->detached_.enter(promise.detached, task);
    task.resume();
}

}  // namespace iokernel

#endif
