// A value with everything it holds, to be kept, changed, compared and sent.
#pragma once

#include <iokernel/view.hpp>

namespace iokernel {

struct Value;
struct Member;

using Array = std::vector<Value>;
using Map = std::vector<Member>;  // in the order of the wire

struct Set {
    Array members;
};

// An integer of any size, in decimal.
struct BigNumber {
    std::string digits;
};

// A value that came with attributes.
struct Attributed {
    Array pair;  // the attributes, a Map; and the value
};

// What has no type of its own here.
struct Ext {
    std::int8_t type = 0;
    std::string data;
};

// An error inside of a reply, as the peer said it.
struct Fault {
    std::string code, message;
};

// One value: `std::get_if<std::string>(&value.is)`, or `value.as<std::string>()`. Integers are int64_t where they fit.
struct Value {
    using Is = std::variant<std::monostate, bool, std::int64_t, std::uint64_t, double, std::string, Bytes, Array, Map,
                            Set, Fault, BigNumber, Attributed, Ext>;
    Is is;

    Value() = default;
    Value(std::nullptr_t) {}
    Value(bool value) : is(value) {}
    Value(double value) : is(value) {}
    Value(const char* text) : is(std::string(text)) {}
    Value(std::string_view text) : is(std::string(text)) {}
    Value(std::string text) : is(std::move(text)) {}
    Value(Bytes bytes) : is(std::move(bytes)) {}
    Value(Array values) : is(std::move(values)) {}
    Value(Map members);
    Value(Set set) : is(std::move(set)) {}
    Value(Fault fault) : is(std::move(fault)) {}
    Value(BigNumber number) : is(std::move(number)) {}
    Value(Attributed value) : is(std::move(value)) {}
    Value(Ext ext) : is(std::move(ext)) {}

    template <class T, std::enable_if_t<std::is_integral_v<T> && !std::is_same_v<T, bool>, int> = 0>
    Value(T value) {
        if (std::is_signed_v<T> || static_cast<std::uint64_t>(value) >> 63 == 0)
            is = static_cast<std::int64_t>(value);
        else
            is = static_cast<std::uint64_t>(value);
    }

    bool is_nil() const noexcept { return is.index() == 0; }

    // What it holds, if it is of that type; else nullptr.
    template <class T>
    const T* as() const noexcept {
        return std::get_if<T>(&is);
    }

    // The value of a map's key that is text or bytes; nullptr if there is none.
    const Value* find(std::string_view key) const noexcept;
};

struct Member {
    Value key, value;
};

inline Value::Value(Map members) : is(std::move(members)) {}

inline const Value* Value::find(std::string_view key) const noexcept {
    if (const Map* members = as<Map>())
        for (const Member& each : *members) {
            const auto* text = each.key.as<std::string>();
            const auto* bytes = each.key.as<Bytes>();
            if ((text && *text == key) || (bytes && bytes->data == key)) return &each.value;
        }
    return nullptr;
}

inline bool operator==(const Value& a, const Value& b) { return a.is == b.is; }
inline bool operator!=(const Value& a, const Value& b) { return !(a == b); }
inline bool operator==(const Member& a, const Member& b) { return a.key == b.key && a.value == b.value; }
inline bool operator==(const Set& a, const Set& b) { return a.members == b.members; }
inline bool operator==(const BigNumber& a, const BigNumber& b) { return a.digits == b.digits; }
inline bool operator==(const Attributed& a, const Attributed& b) { return a.pair == b.pair; }
inline bool operator==(const Ext& a, const Ext& b) { return a.type == b.type && a.data == b.data; }
inline bool operator==(const Fault& a, const Fault& b) { return a.code == b.code && a.message == b.message; }

namespace detail {

inline constexpr int depth_max = 512;

inline Value value_of(const View& view, int depth);

inline Array array_of(const View& view, int depth) {
    Array made;
    made.reserve(view.size());
    for (View each : view) made.push_back(value_of(each, depth));
    return made;
}

inline Map map_of(const View& view, int depth) {
    Map made;
    made.reserve(view.size());
    for (auto at = view.begin(); at != view.end(); ++at) {
        Value key = value_of(*at, depth);
        ++at;
        made.push_back({std::move(key), at == view.end() ? Value() : value_of(*at, depth)});
    }
    return made;
}

// What nests deeper than any peer may send ends as nil.
inline Value value_of(const View& view, int depth) {
    if (depth > depth_max) return {};
    switch (view.kind()) {
    case Kind::boolean: return *view.boolean();
    case Kind::integer: return view.integer() ? Value(*view.integer()) : Value(*view.natural());
    case Kind::number: return *view.number();
    case Kind::text: return view.text();
    case Kind::bytes: return Bytes{std::string(view.text())};
    case Kind::array: return array_of(view, depth + 1);
    case Kind::map: return map_of(view, depth + 1);
    case Kind::set: return Set{array_of(view, depth + 1)};
    case Kind::error: return Fault{std::string(view[0].text()), std::string(view[1].text())};
    case Kind::big_number: return BigNumber{std::string(view.text())};
    case Kind::attributed: return Attributed{array_of(view, depth + 1)};
    case Kind::ext: return Ext{view.ext_type(), std::string(view.raw())};
    default: return {};
    }
}

}  // namespace detail

// A copy of what a view shows. Bytes that are no MessagePack become nil: `bool(view)` tells.
inline Value to_value(const View& view) { return detail::value_of(view, 0); }

inline void pack(Buffer& out, const Value& value);
inline void pack(Buffer& out, const Map& members);

namespace detail {

struct Packing {
    Buffer& out;

    void operator()(std::monostate) { iokernel::pack(out, nullptr); }
    void operator()(bool value) { iokernel::pack(out, value); }
    void operator()(std::int64_t value) { pack_signed(out, value); }
    void operator()(std::uint64_t value) { pack_unsigned(out, value); }
    void operator()(double value) { pack_double(out, value); }
    void operator()(const std::string& text) { pack_text(out, text); }
    void operator()(const Bytes& bytes) { pack_bytes(out, bytes.data); }
    void operator()(const Array& values) {
        pack_array(out, values.size());
        for (const Value& each : values) iokernel::pack(out, each);
    }
    void operator()(const Map& members) { iokernel::pack(out, members); }
    void operator()(const Set& set) { inside(IOK_EXT_SET, set.members); }
    void operator()(const Attributed& value) { inside(IOK_EXT_ATTRIBUTED, value.pair); }
    void operator()(const Fault& fault) { inside(IOK_EXT_ERROR, {fault.code, fault.message}); }
    void operator()(const BigNumber& number) { pack_ext(out, IOK_EXT_BIG_NUMBER, number.digits); }
    void operator()(const Ext& ext) { pack_ext(out, ext.type, ext.data); }

    void inside(std::int8_t type, const Array& values) {
        Buffer packed;
        Packing{packed}(values);
        pack_ext(out, type, packed.view());
    }
};

}  // namespace detail

inline void pack(Buffer& out, const Value& value) { std::visit(detail::Packing{out}, value.is); }

inline void pack(Buffer& out, const Map& members) {
    detail::pack_map(out, members.size());
    for (const Member& each : members) pack(out, each.key), pack(out, each.value);
}

// A value as MessagePack.
template <class T>
inline std::string packed(const T& value) {
    Buffer out;
    pack(out, value);
    return std::string(out.view());
}

}  // namespace iokernel
