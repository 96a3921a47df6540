// Values to MessagePack. C++ has no codec of its own, and a header should need none beside it: this one knows what
// requests and replies are made of.
//
// | C++                                                    | MessagePack                       |
// |--------------------------------------------------------|-----------------------------------|
// | nullptr, an empty std::optional                        | nil                               |
// | bool, integers, float, double                          | boolean, int, float 64            |
// | std::string, std::string_view, const char*             | str                               |
// | Bytes, BytesView, std::vector of bytes                 | bin                               |
// | std::vector, std::array, std::initializer_list, tuples | array                             |
// | std::map, std::unordered_map                           | map                               |
// | Value, View                                            | what they hold                    |
// | Error                                                  | ext 1: `[code, message]`          |
#pragma once

#include <iokernel/result.hpp>

#include <array>
#include <cstddef>
#include <cstring>
#include <initializer_list>
#include <limits>
#include <map>
#include <memory>
#include <optional>
#include <tuple>
#include <type_traits>
#include <unordered_map>
#include <vector>

namespace iokernel {

// Bytes that are no text.
struct Bytes {
    std::string data;
    operator std::string_view() const noexcept { return data; }
    friend bool operator==(const Bytes& a, const Bytes& b) { return a.data == b.data; }
};

// Somebody else's bytes that are no text.
struct BytesView {
    std::string_view data;
};

// Says that text is bytes: `call("SET", "key", bytes(picture))`.
inline BytesView bytes(std::string_view data) noexcept { return {data}; }

// Memory that grows at its end and is not cleared first.
class Buffer {
public:
    char* data() noexcept { return data_.get(); }
    const char* data() const noexcept { return data_.get(); }
    std::size_t size() const noexcept { return size_; }
    std::size_t capacity() const noexcept { return capacity_; }
    std::string_view view() const noexcept { return {data_.get(), size_}; }
    void truncate(std::size_t size) noexcept { size_ = size; }

    // Room for so many more bytes at the end.
    char* grow(std::size_t more) {
        if (size_ + more > capacity_) reallocate(size_ + more);
        char* at = data_.get() + size_;
        size_ += more;
        return at;
    }

    void append(const void* bytes, std::size_t count) {
        if (count) std::memcpy(grow(count), bytes, count);
    }

    void release() noexcept {
        data_.reset();
        size_ = capacity_ = 0;
    }

private:
    void reallocate(std::size_t least) {
        std::size_t capacity = capacity_ * 2 > least ? capacity_ * 2 : least + 256;
        std::unique_ptr<char[]> larger(new char[capacity]);
        if (size_) std::memcpy(larger.get(), data_.get(), size_);
        data_ = std::move(larger);
        capacity_ = capacity;
    }

    std::unique_ptr<char[]> data_;
    std::size_t size_ = 0, capacity_ = 0;
};

namespace detail {

template <class Int>
inline void put_big_endian(char* at, Int value) noexcept {
    for (std::size_t i = sizeof value; i-- > 0;) *at++ = static_cast<char>(value >> (8 * i) & 0xff);
}

template <class Int>
inline void pack_head(Buffer& out, std::uint8_t code, Int value) {
    char* at = out.grow(1 + sizeof value);
    *at = static_cast<char>(code);
    put_big_endian(at + 1, value);
}

// A head whose length has 8, 16 or 32 bits; `code8` of 0: there is none of 8.
inline void pack_length(Buffer& out, std::size_t size, std::uint8_t code8, std::uint8_t code16) {
    if (code8 && size < 256) return pack_head(out, code8, static_cast<std::uint8_t>(size));
    if (size < 65536) return pack_head(out, code16, static_cast<std::uint16_t>(size));
    pack_head(out, static_cast<std::uint8_t>(code16 + 1), static_cast<std::uint32_t>(size));
}

inline void pack_array(Buffer& out, std::size_t count) {
    if (count < 16)
        *out.grow(1) = static_cast<char>(0x90 | count);
    else
        pack_length(out, count, 0, 0xdc);
}

inline void pack_map(Buffer& out, std::size_t count) {
    if (count < 16)
        *out.grow(1) = static_cast<char>(0x80 | count);
    else
        pack_length(out, count, 0, 0xde);
}

inline void pack_text(Buffer& out, std::string_view text) {
    if (text.size() < 32) {
        char* at = out.grow(1 + text.size());
        *at = static_cast<char>(0xa0 | text.size());
        if (!text.empty()) std::memcpy(at + 1, text.data(), text.size());
        return;
    }
    pack_length(out, text.size(), 0xd9, 0xda);
    out.append(text.data(), text.size());
}

inline void pack_bytes(Buffer& out, std::string_view bytes) {
    pack_length(out, bytes.size(), 0xc4, 0xc5);
    out.append(bytes.data(), bytes.size());
}

inline void pack_ext(Buffer& out, std::int8_t type, std::string_view bytes) {
    pack_length(out, bytes.size(), 0xc7, 0xc8);
    out.append(&type, 1);
    out.append(bytes.data(), bytes.size());
}

inline void pack_unsigned(Buffer& out, std::uint64_t value) {
    if (value < 128)
        *out.grow(1) = static_cast<char>(value);
    else if (value <= 0xff)
        pack_head(out, 0xcc, static_cast<std::uint8_t>(value));
    else if (value <= 0xffff)
        pack_head(out, 0xcd, static_cast<std::uint16_t>(value));
    else if (value <= 0xffffffff)
        pack_head(out, 0xce, static_cast<std::uint32_t>(value));
    else
        pack_head(out, 0xcf, value);
}

inline void pack_signed(Buffer& out, std::int64_t value) {
    if (value >= 0) return pack_unsigned(out, static_cast<std::uint64_t>(value));
    if (value >= -32)
        *out.grow(1) = static_cast<char>(value);
    else if (value >= std::numeric_limits<std::int8_t>::min())
        pack_head(out, 0xd0, static_cast<std::uint8_t>(value));
    else if (value >= std::numeric_limits<std::int16_t>::min())
        pack_head(out, 0xd1, static_cast<std::uint16_t>(value));
    else if (value >= std::numeric_limits<std::int32_t>::min())
        pack_head(out, 0xd2, static_cast<std::uint32_t>(value));
    else
        pack_head(out, 0xd3, static_cast<std::uint64_t>(value));
}

inline void pack_double(Buffer& out, double value) {
    std::uint64_t bits;
    std::memcpy(&bits, &value, sizeof bits);
    pack_head(out, 0xcb, bits);
}

template <class T>
constexpr bool is_byte = std::is_same_v<T, std::byte> || std::is_same_v<T, unsigned char>;

}  // namespace detail

// A value at the end of `out`. Overload it for a type of your own in that type's namespace: `pack(Buffer&, const T&)`.
inline void pack(Buffer& out, std::nullptr_t) { *out.grow(1) = static_cast<char>(0xc0); }

template <class T, std::enable_if_t<std::is_arithmetic_v<T>, int> = 0>
inline void pack(Buffer& out, T value) {
    if constexpr (std::is_same_v<T, bool>)
        *out.grow(1) = static_cast<char>(value ? 0xc3 : 0xc2);
    else if constexpr (std::is_floating_point_v<T>)
        detail::pack_double(out, static_cast<double>(value));
    else if constexpr (std::is_signed_v<T>)
        detail::pack_signed(out, value);
    else
        detail::pack_unsigned(out, value);
}

inline void pack(Buffer& out, std::string_view text) { detail::pack_text(out, text); }
inline void pack(Buffer& out, const std::string& text) { detail::pack_text(out, text); }
inline void pack(Buffer& out, const char* text) { detail::pack_text(out, text); }
inline void pack(Buffer& out, const Bytes& bytes) { detail::pack_bytes(out, bytes.data); }
inline void pack(Buffer& out, BytesView bytes) { detail::pack_bytes(out, bytes.data); }

inline void pack(Buffer& out, const Error& error) {
    Buffer pair;
    detail::pack_array(pair, 2);
    detail::pack_text(pair, error.code.empty() ? "ERR" : std::string_view(error.code));
    detail::pack_text(pair, error.message);
    detail::pack_ext(out, IOK_EXT_ERROR, pair.view());
}

template <class T>
void pack(Buffer& out, const std::optional<T>& value);
template <class T, class A>
void pack(Buffer& out, const std::vector<T, A>& values);
template <class T, std::size_t N>
void pack(Buffer& out, const std::array<T, N>& values);
template <class T>
void pack(Buffer& out, std::initializer_list<T> values);
template <class... T>
void pack(Buffer& out, const std::tuple<T...>& values);
template <class K, class V, class... More>
void pack(Buffer& out, const std::map<K, V, More...>& values);
template <class K, class V, class... More>
void pack(Buffer& out, const std::unordered_map<K, V, More...>& values);

namespace detail {

template <class Values>
inline void pack_each(Buffer& out, const Values& values) {
    pack_array(out, values.size());
    for (const auto& value : values) pack(out, value);
}

template <class Members>
inline void pack_members(Buffer& out, const Members& members) {
    pack_map(out, members.size());
    for (const auto& member : members) pack(out, member.first), pack(out, member.second);
}

}  // namespace detail

template <class T>
inline void pack(Buffer& out, const std::optional<T>& value) {
    value ? pack(out, *value) : pack(out, nullptr);
}

template <class T, class A>
inline void pack(Buffer& out, const std::vector<T, A>& values) {
    if constexpr (detail::is_byte<T>)
        detail::pack_bytes(out, {reinterpret_cast<const char*>(values.data()), values.size()});
    else
        detail::pack_each(out, values);
}

template <class T, std::size_t N>
inline void pack(Buffer& out, const std::array<T, N>& values) {
    detail::pack_each(out, values);
}

template <class T>
inline void pack(Buffer& out, std::initializer_list<T> values) {
    detail::pack_each(out, values);
}

template <class... T>
inline void pack(Buffer& out, const std::tuple<T...>& values) {
    detail::pack_array(out, sizeof...(T));
    std::apply([&out](const auto&... each) { (pack(out, each), ...); }, values);
}

template <class K, class V, class... More>
inline void pack(Buffer& out, const std::map<K, V, More...>& values) {
    detail::pack_members(out, values);
}

template <class K, class V, class... More>
inline void pack(Buffer& out, const std::unordered_map<K, V, More...>& values) {
    detail::pack_members(out, values);
}

// An array of values of any types: `call(list("SET", "a", 1), list("GET", "a"))` is a batch.
template <class... T>
inline auto list(const T&... words) {
    return std::make_tuple(words...);
}

// Arguments that are not known before the program runs: `call(words(values))` asks for what the values say together.
template <class T>
struct Words {
    const T& values;
};

template <class T>
Words<T> words(const T& values) {
    return {values};
}

namespace detail {

template <class... T>
inline void pack_request(Buffer& out, const T&... arguments) {
    pack_array(out, sizeof...(T));
    (pack(out, arguments), ...);
}

template <class T>
inline void pack_request(Buffer& out, const Words<T>& words) {
    pack(out, words.values);
}

}  // namespace detail

}  // namespace iokernel
