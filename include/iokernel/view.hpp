// A look at a payload where it lies: nothing is copied, and nothing is decoded that is not asked for.
#pragma once

#include <iokernel/pack.hpp>

#include <iterator>

namespace iokernel {

enum class Kind : std::uint8_t {
    invalid,  // no value is there, or its bytes are none
    nil,
    boolean,
    integer,
    number,  // a double
    text,
    bytes,
    array,
    set,  // RESP3's; elements as an array's
    map,
    error,       // an error inside of a reply
    big_number,  // an integer of any size: its digits are its text
    attributed,  // two elements: a map of attributes, and the value
    ext,         // anything else: see `ext_type` and `raw`
};

namespace detail {

// The head of one MessagePack value.
struct Token {
    Kind kind = Kind::invalid;
    bool is_unsigned = false;
    std::int8_t ext_type = 0;
    std::uint64_t bits = 0;      // of a boolean, an integer or a double
    std::size_t size = 0;        // bytes of text and the like, elements of an array, members of a map
    const char* data = nullptr;  // what follows the head
};

inline std::uint64_t big_endian(const char* at, std::size_t bytes) noexcept {
    std::uint64_t value = 0;
    for (std::size_t i = 0; i < bytes; i++) value = value << 8 | static_cast<unsigned char>(at[i]);
    return value;
}

// Reads heads and values off the front of what is left. Fails, once and for all, at the first byte that is none.
class Reader {
public:
    explicit Reader(std::string_view rest) noexcept : at_(rest.data()), end_(rest.data() + rest.size()) {}

    const char* at() const noexcept { return at_; }

    Token token() noexcept {
        Token found;
        const char* head = take(1);
        if (!head) return found;
        auto code = static_cast<unsigned char>(*head);
        if (code < 0x80) return integer(code, false);
        if (code < 0x90) return sized(Kind::map, code & 0x0f);
        if (code < 0xa0) return sized(Kind::array, code & 0x0f);
        if (code < 0xc0) return blob(Kind::text, code & 0x1f);
        if (code >= 0xe0) return integer(static_cast<std::uint64_t>(static_cast<std::int8_t>(code)), false);
        switch (code) {
        case 0xc0: return sized(Kind::nil, 0);
        case 0xc2:
        case 0xc3: return scalar(Kind::boolean, code & 1);
        case 0xc4:
        case 0xc5:
        case 0xc6: return blob(Kind::bytes, number(std::size_t{1} << (code - 0xc4)));
        case 0xc7:
        case 0xc8:
        case 0xc9: return ext(number(std::size_t{1} << (code - 0xc7)));
        case 0xca: return single();
        case 0xcb: return scalar(Kind::number, number(8));
        case 0xcc:
        case 0xcd:
        case 0xce:
        case 0xcf: return integer(number(std::size_t{1} << (code - 0xcc)), true);
        case 0xd0: return integer(static_cast<std::uint64_t>(static_cast<std::int8_t>(number(1))), false);
        case 0xd1: return integer(static_cast<std::uint64_t>(static_cast<std::int16_t>(number(2))), false);
        case 0xd2: return integer(static_cast<std::uint64_t>(static_cast<std::int32_t>(number(4))), false);
        case 0xd3: return integer(number(8), false);
        case 0xd4:
        case 0xd5:
        case 0xd6:
        case 0xd7:
        case 0xd8: return ext(std::size_t{1} << (code - 0xd4));
        case 0xd9:
        case 0xda:
        case 0xdb: return blob(Kind::text, number(std::size_t{1} << (code - 0xd9)));
        case 0xdc:
        case 0xdd: return sized(Kind::array, number(std::size_t{2} << (code - 0xdc)));
        case 0xde:
        case 0xdf: return sized(Kind::map, number(std::size_t{2} << (code - 0xde)));
        default: return failed();
        }
    }

    // Passes over one whole value, however deep it is.
    void skip() noexcept {
        for (std::uint64_t left = 1; left > 0 && !failed_; left--) {
            Token one = token();
            if (one.kind == Kind::array) left += one.size;
            if (one.kind == Kind::map) left += 2 * static_cast<std::uint64_t>(one.size);
        }
    }

private:
    const char* take(std::uint64_t bytes) noexcept {
        if (failed_ || bytes > static_cast<std::uint64_t>(end_ - at_)) {
            failed_ = true;
            at_ = end_;
            return nullptr;
        }
        const char* taken = at_;
        at_ += bytes;
        return taken;
    }

    std::uint64_t number(std::size_t bytes) noexcept {
        const char* from = take(bytes);
        return from ? big_endian(from, bytes) : 0;
    }

    Token failed() noexcept {
        failed_ = true;
        at_ = end_;
        return {};
    }

    Token scalar(Kind kind, std::uint64_t bits) noexcept {
        Token made;
        if (failed_) return made;
        made.kind = kind;
        made.bits = bits;
        made.data = at_;
        return made;
    }

    Token integer(std::uint64_t bits, bool is_unsigned) noexcept {
        Token made = scalar(Kind::integer, bits);
        made.is_unsigned = is_unsigned;
        return made;
    }

    Token single() noexcept {
        auto bits = static_cast<std::uint32_t>(number(4));
        float value;
        std::memcpy(&value, &bits, sizeof value);
        double wide = static_cast<double>(value);
        std::uint64_t wide_bits;
        std::memcpy(&wide_bits, &wide, sizeof wide_bits);
        return scalar(Kind::number, wide_bits);
    }

    Token sized(Kind kind, std::uint64_t size) noexcept {
        // Each element has a byte at least: a size beyond what is left is a lie.
        if (!failed_ && size > static_cast<std::uint64_t>(end_ - at_)) return failed();
        Token made = scalar(kind, 0);
        made.size = static_cast<std::size_t>(size);
        return made;
    }

    Token blob(Kind kind, std::uint64_t size) noexcept {
        const char* data = take(size);
        if (!data) return {};
        Token made = scalar(kind, 0);
        made.data = data;
        made.size = static_cast<std::size_t>(size);
        return made;
    }

    Token ext(std::uint64_t size) noexcept {
        auto type = static_cast<std::int8_t>(number(1));
        Token made = blob(Kind::ext, size);
        made.ext_type = type;
        return made;
    }

    const char* at_;
    const char* end_;
    bool failed_ = false;
};

}  // namespace detail

// One value. It points into the payload that it was made of, and is good as long as that is.
class View {
public:
    View() noexcept = default;

    // A MessagePack value.
    explicit View(std::string_view packed) noexcept : View(IOK_ENCODING_MSGPACK, packed) {}

    // The payload of a completion: `IOK_ENCODING_*` says what it is.
    View(std::uint8_t encoding, std::string_view payload) noexcept : whole_(payload) {
        if (encoding == IOK_ENCODING_MSGPACK) {
            read();
            return;
        }
        token_.kind = encoding == IOK_ENCODING_NONE   ? Kind::nil
                      : encoding == IOK_ENCODING_TEXT ? Kind::text
                                                      : Kind::bytes;
        token_.data = payload.data();
        token_.size = payload.size();
        is_bare_ = true;
    }

    Kind kind() const noexcept { return token_.kind; }
    bool is_nil() const noexcept { return kind() == Kind::nil; }
    bool is_error() const noexcept { return kind() == Kind::error; }
    explicit operator bool() const noexcept { return kind() != Kind::invalid; }

    std::optional<bool> boolean() const noexcept {
        if (kind() != Kind::boolean) return {};
        return token_.bits != 0;
    }

    // Empty if it is none, or does not fit.
    std::optional<std::int64_t> integer() const noexcept {
        if (kind() != Kind::integer || (token_.is_unsigned && token_.bits >> 63)) return {};
        return static_cast<std::int64_t>(token_.bits);
    }

    std::optional<std::uint64_t> natural() const noexcept {
        if (kind() != Kind::integer || (!token_.is_unsigned && token_.bits >> 63)) return {};
        return token_.bits;
    }

    // A double, or an integer as one.
    std::optional<double> number() const noexcept {
        if (kind() == Kind::integer) {
            return token_.is_unsigned ? static_cast<double>(token_.bits)
                                      : static_cast<double>(static_cast<std::int64_t>(token_.bits));
        }
        if (kind() != Kind::number) return {};
        double value;
        std::memcpy(&value, &token_.bits, sizeof value);
        return value;
    }

    // Text, bytes, the digits of a big number; empty for anything else. `kind` tells them apart.
    std::string_view text() const noexcept {
        switch (kind()) {
        case Kind::text:
        case Kind::bytes:
        case Kind::big_number: return {token_.data, token_.size};
        default: return {};
        }
    }

    // What the peer said, of an error inside of a reply.
    Error error() const {
        Error made;
        made.fate = Fate::replied;
        made.code = (*this)[0].text();
        made.message = (*this)[1].text();
        return made;
    }

    std::int8_t ext_type() const noexcept { return token_.ext_type; }

    // The bytes of an ext that has no kind of its own.
    std::string_view raw() const noexcept {
        return kind() == Kind::ext ? std::string_view(token_.data, token_.size) : std::string_view();
    }

    // Elements of an array, a set, an error or an attributed value; members of a map.
    std::size_t size() const noexcept { return has_parts() ? token_.size : 0; }

    class iterator {
    public:
        using iterator_category = std::input_iterator_tag;
        using value_type = View;
        using difference_type = std::ptrdiff_t;
        using pointer = const View*;
        using reference = View;

        iterator(std::string_view rest, std::size_t left) noexcept : rest_(rest), left_(left) { settle(); }
        View operator*() const noexcept { return View(rest_); }
        iterator& operator++() noexcept {
            detail::Reader reader(rest_);
            reader.skip();
            rest_.remove_prefix(static_cast<std::size_t>(reader.at() - rest_.data()));
            left_--;
            settle();
            return *this;
        }
        bool operator==(const iterator& other) const noexcept { return left_ == other.left_; }
        bool operator!=(const iterator& other) const noexcept { return left_ != other.left_; }

    private:
        void settle() noexcept {
            if (rest_.empty()) left_ = 0;
        }
        std::string_view rest_;
        std::size_t left_;
    };

    // Its parts, one after another; of a map each key and then its value.
    iterator begin() const noexcept {
        if (!has_parts()) return end();
        return {rest(), kind() == Kind::map ? 2 * token_.size : token_.size};
    }
    iterator end() const noexcept { return {std::string_view(), 0}; }

    // An element by its place, in linear time; invalid if there is none.
    View operator[](std::size_t place) const noexcept {
        if (kind() != Kind::map)
            for (View each : *this)
                if (place-- == 0) return each;
        return {};
    }

    // The value of a map's key that is text or bytes; invalid if there is none.
    View operator[](std::string_view key) const noexcept {
        if (kind() == Kind::map)
            for (auto at = begin(); at != end(); ++at) {
                bool is_it = (*at).text() == key && !(*at).text().empty();
                ++at;
                if (is_it) return *at;
            }
        return {};
    }

    // Packs it as it is.
    friend void pack(Buffer& out, const View& view) {
        if (!view.is_bare_) {
            out.append(view.whole_.data(), view.length());
        } else if (view.kind() == Kind::text) {
            detail::pack_text(out, view.whole_);
        } else {
            view.is_nil() ? pack(out, nullptr) : detail::pack_bytes(out, view.whole_);
        }
    }

private:
    bool has_parts() const noexcept {
        return kind() >= Kind::array && kind() != Kind::big_number && kind() != Kind::ext;
    }

    std::string_view rest() const noexcept {
        return {token_.data, static_cast<std::size_t>(whole_.data() + whole_.size() - token_.data)};
    }

    std::size_t length() const noexcept {
        detail::Reader reader(whole_);
        reader.skip();
        return static_cast<std::size_t>(reader.at() - whole_.data());
    }

    void read() noexcept {
        token_ = detail::Reader(whole_).token();
        if (kind() != Kind::ext) return;
        std::string_view inside(token_.data, token_.size);
        switch (token_.ext_type) {
        case IOK_EXT_BIG_NUMBER: token_.kind = Kind::big_number; return;
        case IOK_EXT_VERBATIM:
            if (inside.size() < 4) return;
            token_.kind = Kind::text;
            token_.data += 4;
            token_.size -= 4;
            return;
        case IOK_EXT_ERROR: return within(Kind::error, inside);
        case IOK_EXT_SET: return within(Kind::set, inside);
        case IOK_EXT_ATTRIBUTED: return within(Kind::attributed, inside);
        default: return;
        }
    }

    // An ext whose bytes are one array.
    void within(Kind kind, std::string_view inside) noexcept {
        detail::Token array = detail::Reader(inside).token();
        if (array.kind != Kind::array) return;
        token_.kind = kind;
        token_.size = array.size;
        token_.data = array.data;
    }

    std::string_view whole_;
    detail::Token token_;
    bool is_bare_ = false;
};

}  // namespace iokernel
