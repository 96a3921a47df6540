//! Pipelined requests of one channel are executed in their order.

use std::sync::atomic::Ordering;

use iokernel::ring::layout::IOK_OP_REQUEST;

use crate::client::{Kernel, LONG, PLAIN};
use crate::proxy::Proxy;
use crate::{redis_or_skip, values};

#[test]
fn requests_of_a_channel_are_executed_in_order() {
    const COUNT: usize = 20_000;
    let server = redis_or_skip!();
    let proxy = Proxy::start(server.port, 3);
    proxy.plan.chunk_max.store(5000, Ordering::Relaxed);
    let kernel = Kernel::start();
    let mut channel = kernel.channel("ring=64KiB").unwrap();
    // From before the conn stands until long after: queued requests and direct ones keep one order.
    let endpoint = channel.open(&proxy.url("")).unwrap();
    for number in 0..COUNT {
        let tag = channel.tag();
        let body = values::request(&["RPUSH", "list", &number.to_string()]);
        channel.submit(IOK_OP_REQUEST, tag, endpoint, PLAIN, &body).unwrap();
        if number % 50 == 0 {
            channel.flush();
        }
    }
    channel.flush();
    let mut last = 0;
    for number in 0..COUNT {
        let done = channel.next(LONG).unwrap();
        assert_eq!(done.ok().int(), number as i64 + 1);
        assert!(done.head.tag > last, "completions keep the order too");
        last = done.head.tag;
    }
    let list = server.direct().call(&["LRANGE", "list", "0", "-1"]);
    let in_order = list.items().iter().enumerate().all(|(at, item)| item.text() == at.to_string());
    assert!(in_order && list.items().len() == COUNT);
}
