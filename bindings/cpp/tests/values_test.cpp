// Values to MessagePack and back, without a network: every width, every kind, and bytes that are none.
#include <iokernel.hpp>

#include <random>

#include "test.hpp"

using namespace iokernel;
using namespace std::string_literals;

namespace {

std::string hex(const std::string& bytes) {
    std::string made;
    for (char each : bytes) {
        char digits[3];
        std::snprintf(digits, sizeof digits, "%02x", static_cast<unsigned char>(each));
        made += digits;
    }
    return made;
}

Value everything() {
    Array wide;
    for (int i = 0; i < 70000; i++) wide.push_back(i);
    Map named;
    for (int i = 0; i < 20; i++) named.push_back({std::to_string(i), i});
    return Array{nullptr,
                 true,
                 false,
                 0.5,
                 "",
                 std::string(31, 'a'),
                 std::string(32, 'b'),
                 std::string(256, 'c'),
                 std::string(70000, 'd'),
                 Bytes{""},
                 Bytes{std::string(300, '\xff')},
                 Bytes{std::string(70000, '\0')},
                 Array{},
                 Array{Array{Array{1}}},
                 wide,
                 Map{},
                 named,
                 Set{{1, "two"}},
                 Fault{"WRONGTYPE", "no list"},
                 BigNumber{"-123456789012345678901234567890"},
                 Attributed{{Map{{"ttl", 7}}, "value"}},
                 Ext{42, "whatever"},
                 Ext{43, std::string(17, 'e')}};
}

}  // namespace

TEST(integers_take_the_fewest_bytes) {
    CHECK(hex(packed(0)) == "00");
    CHECK(hex(packed(127)) == "7f");
    CHECK(hex(packed(128)) == "cc80");
    CHECK(hex(packed(255u)) == "ccff");
    CHECK(hex(packed(256)) == "cd0100");
    CHECK(hex(packed(65536)) == "ce00010000");
    CHECK(hex(packed(4294967296)) == "cf0000000100000000");
    CHECK(hex(packed(-1)) == "ff");
    CHECK(hex(packed(-32)) == "e0");
    CHECK(hex(packed(-33)) == "d0df");
    CHECK(hex(packed(-129)) == "d1ff7f");
    CHECK(hex(packed(-32769)) == "d2ffff7fff");
    CHECK(hex(packed(-2147483649)) == "d3ffffffff7fffffff");
}

TEST(integers_come_back) {
    for (int bit = 0; bit < 64; bit++)
        for (int more = -2; more <= 2; more++) {
            std::uint64_t natural = (std::uint64_t{1} << bit) + static_cast<std::uint64_t>(more);
            auto integer = static_cast<std::int64_t>(natural);
            std::string as_natural = packed(natural), as_integer = packed(integer);
            CHECK(View(as_natural).natural() == natural);
            CHECK(View(as_integer).integer() == integer);
            CHECK(View(as_integer).natural().has_value() == (integer >= 0));
            CHECK(View(as_natural).integer().has_value() == (natural >> 63 == 0));
        }
}

TEST(what_goes_comes_back) {
    Value value = everything();
    std::string bytes = packed(value);
    CHECK(to_value(View(bytes)) == value);
    CHECK(packed(View(bytes)) == bytes);
}

TEST(types_of_the_language_are_taken) {
    std::map<std::string, std::vector<int>> map{{"a", {1, 2}}, {"b", {}}};
    std::vector<std::byte> raw{std::byte{1}, std::byte{255}};
    std::string bytes =
        packed(list("text", "s"s, std::string_view("v"), iokernel::bytes("b"), raw, map, 1.5f, 'a',
                    std::optional<int>(), std::optional<int>(3), std::array<int, 2>{4, 5}, nullptr, true));
    Value wanted = Array{"text", "s", "v",     Bytes{"b"}, Bytes{"\x01\xff"}, Map{{"a", Array{1, 2}}, {"b", Array{}}},
                         1.5,    97,  nullptr, 3,          Array{4, 5},       nullptr,
                         true};
    CHECK(to_value(View(bytes)) == wanted);
}

TEST(views_look_where_the_bytes_are) {
    std::string bytes = packed(Value(Map{{"name", "Ada"}, {Bytes{"raw"}, Array{1, 2.5, "x"}}, {7, nullptr}}));
    View view(bytes);
    CHECK(view.kind() == Kind::map && view.size() == 3);
    CHECK(view["name"].text() == "Ada" && view["raw"][1].number() == 2.5 && view["raw"][0].number() == 1.0);
    CHECK(view["name"].text().data() > bytes.data() && view["name"].text().data() < bytes.data() + bytes.size());
    CHECK(!view["nothing"] && !view["raw"][3] && !view["name"][0] && !View()["x"] && view["raw"][2].text() == "x");
    std::size_t parts = 0;
    for (View each : view["raw"]) parts += static_cast<bool>(each);
    CHECK(parts == 3);
}

TEST(bare_payloads_are_values) {
    CHECK(View(IOK_ENCODING_BYTES, "ab").kind() == Kind::bytes && View(IOK_ENCODING_TEXT, "ab").text() == "ab");
    CHECK(View(IOK_ENCODING_NONE, "").is_nil() && View(IOK_ENCODING_BYTES, "").kind() == Kind::bytes);
    CHECK(to_value(View(IOK_ENCODING_RAW, "+OK\r\n")) == Value(Bytes{"+OK\r\n"}));
    CHECK(packed(View(IOK_ENCODING_TEXT, "ab")) == packed("ab") &&
          hex(packed(View(IOK_ENCODING_BYTES, "a"))) == "c40161");
}

TEST(errors_inside_of_a_reply) {
    Error error;
    error.code = "WRONGTYPE";
    error.message = "no list";
    std::string bytes = packed(list(1, error));
    View inside = View(bytes)[1];
    CHECK(inside.is_error() && inside.error().code == "WRONGTYPE" && inside.error().kind() == ErrorKind::remote);
    CHECK(inside.error().text() == "WRONGTYPE no list");
}

TEST(verbatim_text_has_no_format) {
    std::string bytes = packed(Value(Ext{IOK_EXT_VERBATIM, "txt:Some string"}));
    CHECK(View(bytes).kind() == Kind::text && View(bytes).text() == "Some string");
    CHECK(View(packed(Value(Ext{IOK_EXT_VERBATIM, "tx"}))).kind() == Kind::ext);
}

TEST(cut_off_bytes_are_no_value_and_harmless) {
    std::string bytes = packed(everything());
    bytes.resize(2000);
    for (std::size_t size = 0; size < bytes.size(); size++) {
        std::string cut(bytes.data(), size);
        (void)to_value(View(cut));
        (void)packed(View(cut));
    }
    CHECK(View(std::string_view()).kind() == Kind::invalid && !View());
    CHECK(View("\xdd\xff\xff\xff\xff").kind() == Kind::invalid);  // an array that claims four thousand million elements
    CHECK(View("\xc6\xff\xff\xff\xff").kind() == Kind::invalid);
    CHECK(View("\xc1").kind() == Kind::invalid);
}

TEST(any_bytes_are_harmless) {
    std::mt19937 random(7);
    for (int round = 0; round < 20000; round++) {
        std::string bytes(random() % 64, '\0');
        for (char& each : bytes) each = static_cast<char>(random() % 3 ? 0x80 + random() % 80 : random());
        (void)to_value(View(bytes));
        (void)View(bytes)["key"];
        (void)View(bytes)[2];
    }
}

TEST(deep_nesting_ends) {
    std::string deep(100000, '\x91');
    deep += '\x01';
    Value value = to_value(View(deep));
    CHECK(value.as<Array>() && View(deep).size() == 1);
}

TEST(urls_hide_their_secrets) {
    CHECK(detail::shown("redis://app:secret@host:1/3?x=y") == "redis://app:***@host:1/3");
    CHECK(detail::shown("redis://:secret@host") == "redis://:***@host" &&
          detail::shown("redis://host?p=q") == "redis://host");
    CHECK(detail::with_options("redis://h", {{"a b", "c&d"}}) == "redis://h?a%20b=c%26d");
    CHECK(detail::with_options("redis://h?x=1", {{"a", "b"}}) == "redis://h?x=1&a=b");
}

TEST(results_hold_one_of_two) {
    Result<int> good(7), bad(detail::error_of(IOK_STATUS_TIMEOUT, Fate::maybe_executed, "late"));
    CHECK(good && *good == 7 && good.value() == 7 && !bad && std::move(bad).value_or(3) == 3);
    Error error = detail::error_of(IOK_STATUS_LOST, Fate::not_sent);
    error.endpoint = "redis://host";
    CHECK(error.name() == "LOST" && error.text() == error.message + " (redis://host, not sent)");
#if defined(__cpp_exceptions)
    try {
        Result<int> late(detail::error_of(IOK_STATUS_TIMEOUT, Fate::maybe_executed, "late"));
        (void)late.value();
        CHECK(!"it threw nothing");
    } catch (const Timeout& timeout) {
        CHECK(timeout.error().fate == Fate::maybe_executed &&
              std::strcmp(timeout.what(), "late (maybe executed)") == 0);
    }
    try {
        raise(detail::error_of(IOK_STATUS_BAD_CONFIG));
    } catch (const BadRequest&) {}
#endif
}

TEST(echoes_of_every_size_come_back_whole) {
    Kernel kernel = Kernel::start().value();
    for (std::size_t size : {0u, 1u, 100u, 131000u, 131072u, 131100u, 262144u, 1048576u, 5000000u}) {
        std::string text(size, 'x');
        if (size) text.back() = 'y';
        CHECK(kernel.echo(text).get().value().text() == text);
    }
    Channel small = kernel.open_channel("ring=64KiB").value();
    detail::Ref<detail::Op> op(new detail::Op);
    std::string text(500000, 'z');
    small.state()->submit(op.get(), {IOK_OP_ECHO}, 0, [&](Buffer& out) { out.append(text.data(), text.size()); });
    CHECK(Future<Reply>(std::move(op)).get().value().payload() == text);
}

int main(int argc, char** argv) { return run_tests(argc - 1, argv + 1); }
