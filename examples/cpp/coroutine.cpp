// Coroutines: a subscription is listened to beside requests, in one thread.
//
// $ coroutine redis://127.0.0.1:6379
// weather: sun
// weather: rain
// weather: snow
#include <iokernel.hpp>

#include <iostream>

using iokernel::Endpoint, iokernel::Subscription, iokernel::Task;

Task<> publish(Endpoint& redis, iokernel::Loop& loop) {
    for (const char* message : {"sun", "rain", "snow"}) {
        (co_await redis.request("PUBLISH", "weather", message)).value();
        co_await loop.sleep(std::chrono::milliseconds(10));
    }
}

Task<> listen(Endpoint& redis, iokernel::Loop& loop) {
    // Accepted by the server: what is published from here on is seen.
    Subscription weather = (co_await redis.subscribe("SUBSCRIBE", "weather")).value();
    detach(publish(redis, loop));
    for (int seen = 0; seen < 3; seen++) {
        auto message = (co_await weather.next()).value();
        iokernel::View view = message.view();
        std::cout << view[1].text() << ": " << view[2].text() << '\n';
    }
}

int main(int argc, char** argv) {
    auto kernel = iokernel::Kernel::start("name=weather").value();
    Endpoint redis = kernel.open(argc > 1 ? argv[1] : "redis://127.0.0.1:6379").value();
    iokernel::Loop loop(kernel);
    loop.run(listen(redis, loop));
}
