// What went wrong, and the value or error that functions give.
#pragma once

#include <iokernel.h>

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <string_view>
#include <utility>
#include <variant>

#if defined(__cpp_exceptions)
#include <exception>
#endif

namespace iokernel {

// The families of statuses that programs tell apart.
enum class ErrorKind {
    remote,       // the peer answered with an error: `code` and `message` are its own
    timeout,      // the deadline passed
    unavailable,  // no connection could be made, or the peer refused it
    lost,         // the connection was lost before the reply, or its peer broke the protocol
    overloaded,   // a limit of the endpoint or the channel was reached
    cancelled,    // by the program
    bad_request,  // not a request of the endpoint's protocol, or too large
    bad_config,   // a URL or option is wrong
    closed,       // the kernel, endpoint, listener or lease is closed, or is a parent's (`IOK_STATUS_FORKED`)
    other,
};

// What is known of a request that failed.
enum class Fate : std::uint8_t { none, not_sent, maybe_executed, replied };

struct Error {
    iok_status status = IOK_STATUS_OK;  // 0 inside of a reply (a batch, a transaction)
    Fate fate = Fate::none;             // not_sent: sending again is safe
    std::uint32_t peer = 0;             // the number of the connection; 0: none was involved
    std::string endpoint;               // its URL, secrets left out
    std::string code;                   // a word for programs, such as `WRONGTYPE`
    std::string message;                // a sentence for people

    ErrorKind kind() const noexcept {
        switch (status) {
        case IOK_STATUS_OK:
        case IOK_STATUS_REMOTE: return ErrorKind::remote;
        case IOK_STATUS_TIMEOUT: return ErrorKind::timeout;
        case IOK_STATUS_UNAVAILABLE:
        case IOK_STATUS_REFUSED: return ErrorKind::unavailable;
        case IOK_STATUS_LOST:
        case IOK_STATUS_PROTOCOL: return ErrorKind::lost;
        case IOK_STATUS_FULL:
        case IOK_STATUS_OVERLOADED:
        case IOK_STATUS_REPLY_DROPPED: return ErrorKind::overloaded;
        case IOK_STATUS_CANCELLED: return ErrorKind::cancelled;
        case IOK_STATUS_NULL:
        case IOK_STATUS_BAD_RECORD:
        case IOK_STATUS_BAD_REQUEST:
        case IOK_STATUS_TOO_LARGE: return ErrorKind::bad_request;
        case IOK_STATUS_BAD_CONFIG: return ErrorKind::bad_config;
        case IOK_STATUS_BAD_HANDLE:
        case IOK_STATUS_CLOSED:
        case IOK_STATUS_FORKED:
        case IOK_STATUS_NO_ENDPOINT:
        case IOK_STATUS_NO_LEASE:
        case IOK_STATUS_NO_REQUEST: return ErrorKind::closed;
        default: return ErrorKind::other;
        }
    }

    // The name of the status, such as `TIMEOUT`.
    std::string_view name() const noexcept { return std::string_view(iok_status_name(status)).substr(11); }

    // For people: the message, whose endpoint it was, and what became of the request.
    std::string text() const {
        if (kind() == ErrorKind::remote) return code.empty() ? message : code + " " + message;
        if (kind() == ErrorKind::bad_request || kind() == ErrorKind::bad_config) return message;
        std::string notes = endpoint;
        if (fate == Fate::not_sent || fate == Fate::maybe_executed) {
            if (!notes.empty()) notes += ", ";
            notes += fate == Fate::not_sent ? "not sent" : "maybe executed";
        }
        return notes.empty() ? message : message + " (" + notes + ")";
    }

    friend bool operator==(const Error& a, const Error& b) {
        return a.status == b.status && a.fate == b.fate && a.code == b.code && a.message == b.message;
    }
};

namespace detail {

inline Error error_of(iok_status status, Fate fate = Fate::not_sent, std::string message = {}) {
    Error made;
    made.status = status;
    made.fate = fate;
    made.message = message.empty() ? iok_status_text(status) : std::move(message);
    return made;
}

// The error of a function of iokernel.h that this thread has just called.
inline Error last_error(iok_status status) { return error_of(status, Fate::not_sent, iok_last_error()); }

}  // namespace detail

#if defined(__cpp_exceptions)

// What `Result::value()` throws, in the kind's own class.
class Exception : public std::exception {
public:
    explicit Exception(Error error) : error_(std::move(error)), text_(error_.text()) {}
    const Error& error() const noexcept { return error_; }
    const char* what() const noexcept override { return text_.c_str(); }

private:
    Error error_;
    std::string text_;
};

class RemoteError : public Exception {
    using Exception::Exception;
};
class Timeout : public Exception {
    using Exception::Exception;
};
class Unavailable : public Exception {
    using Exception::Exception;
};
class ConnectionLost : public Exception {
    using Exception::Exception;
};
class Overloaded : public Exception {
    using Exception::Exception;
};
class Cancelled : public Exception {
    using Exception::Exception;
};
class BadRequest : public Exception {
    using Exception::Exception;
};
class BadConfig : public BadRequest {
    using BadRequest::BadRequest;
};
class Closed : public Exception {
    using Exception::Exception;
};

[[noreturn]] inline void raise(Error error) {
    switch (error.kind()) {
    case ErrorKind::remote: throw RemoteError(std::move(error));
    case ErrorKind::timeout: throw Timeout(std::move(error));
    case ErrorKind::unavailable: throw Unavailable(std::move(error));
    case ErrorKind::lost: throw ConnectionLost(std::move(error));
    case ErrorKind::overloaded: throw Overloaded(std::move(error));
    case ErrorKind::cancelled: throw Cancelled(std::move(error));
    case ErrorKind::bad_request: throw BadRequest(std::move(error));
    case ErrorKind::bad_config: throw BadConfig(std::move(error));
    case ErrorKind::closed: throw Closed(std::move(error));
    case ErrorKind::other: break;
    }
    throw Exception(std::move(error));
}

#else

[[noreturn]] inline void raise(const Error& error) {
    std::fprintf(stderr, "iokernel: %s\n", error.text().c_str());
    std::abort();
}

#endif

// A value or the error that there is instead: `if (result) use(*result); else tell(result.error());`
template <class T>
class [[nodiscard]] Result {
public:
    Result(T value) : held_(std::in_place_index<0>, std::move(value)) {}
    Result(Error error) : held_(std::in_place_index<1>, std::move(error)) {}

    explicit operator bool() const noexcept { return held_.index() == 0; }

    // Good only if it is a value.
    T& operator*() & noexcept { return *std::get_if<0>(&held_); }
    const T& operator*() const& noexcept { return *std::get_if<0>(&held_); }
    T&& operator*() && noexcept { return std::move(*std::get_if<0>(&held_)); }
    T* operator->() noexcept { return std::get_if<0>(&held_); }
    const T* operator->() const noexcept { return std::get_if<0>(&held_); }

    // Good only if it is none.
    Error& error() & noexcept { return *std::get_if<1>(&held_); }
    const Error& error() const& noexcept { return *std::get_if<1>(&held_); }
    Error&& error() && noexcept { return std::move(*std::get_if<1>(&held_)); }

    // The value. If there is none: throws the error's Exception, or, without exceptions, says so and aborts.
    T& value() & { return check(), **this; }
    const T& value() const& { return check(), **this; }
    T&& value() && { return check(), std::move(**this); }

    T value_or(T otherwise) && { return *this ? std::move(**this) : std::move(otherwise); }

private:
    void check() const {
        if (!*this) raise(error());
    }

    std::variant<T, Error> held_;
};

// The value of what has none.
struct Ok {
    friend bool operator==(Ok, Ok) noexcept { return true; }
};

}  // namespace iokernel
