// One endpoint, used blocking and with futures.
//
// $ first redis://127.0.0.1:6379
// OK
// hello
// WRONGTYPE
// 0 1 2
#include <iokernel.hpp>

#include <iostream>

int main(int argc, char** argv) {
    auto redis = iokernel::open(argc > 1 ? argv[1] : "redis://127.0.0.1:6379").value();

    std::cout << redis.call("SET", "greeting", "hello").value().text() << '\n';
    std::cout << redis.call("GET", "greeting").value().text() << '\n';

    auto wrong = redis.call("LPUSH", "greeting", 1);  // Errors are values; `value()` would throw this one.
    std::cout << wrong.error().code << '\n';

    // Three under way at once, on the same connection.
    std::vector<iokernel::Future<iokernel::Reply>> replies;
    for (int number = 0; number < 3; number++) replies.push_back(redis.request("ECHO", number));
    for (auto& each : replies) std::cout << each.get().value().text() << (&each == &replies.back() ? '\n' : ' ');
}
