//! Ports for servers of tests.

use std::net::{TcpListener, UdpSocket};

/// A loopback port that nobody has, by TCP or by UDP. Below the range from which the system takes the ports of outgoing
/// conns, so that none of these comes between.
pub fn free_port() -> u16 {
    let is_free =
        |port: &u16| TcpListener::bind(("127.0.0.1", *port)).is_ok() && UdpSocket::bind(("127.0.0.1", *port)).is_ok();
    (0..200).map(|_| fastrand::u16(12_000..32_000)).find(is_free).expect("a free port")
}
