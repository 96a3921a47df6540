// Tests that name themselves: `TEST(name) { CHECK(...); }`, then `run_tests(argc, argv)`, which runs those named, or
// all.
#pragma once

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <vector>

struct Test {
    const char* name;
    void (*run)();
};

inline std::vector<Test>& tests() {
    static std::vector<Test> all;
    return all;
}

struct Registered {
    Registered(const char* name, void (*run)()) { tests().push_back({name, run}); }
};

#define TEST(name)                                          \
    static void name();                                     \
    static const Registered registered_##name(#name, name); \
    static void name()

#define CHECK(what) ((what) ? (void)0 : test_failed(#what, __FILE__, __LINE__))

[[noreturn]] inline void test_failed(const char* what, const char* file, int line) {
    std::fprintf(stderr, "%s:%d: %s\n", file, line, what);
    std::abort();
}

// Prints TAP. A test that fails ends the program.
inline int run_tests(int count, char** names) {
    int ran = 0;
    for (const Test& each : tests()) {
        bool is_asked = count == 0;
        for (int i = 0; i < count; i++) is_asked |= std::strcmp(names[i], each.name) == 0;
        if (!is_asked) continue;
        each.run();
        std::printf("ok %d - %s\n", ++ran, each.name);
        std::fflush(stdout);
    }
    std::printf("1..%d\n", ran);
    return ran ? 0 : 1;
}
