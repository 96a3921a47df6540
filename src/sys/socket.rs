//! What sockets can be told that socket2 does not tell them.

use std::io;
use std::os::fd::{AsFd, AsRawFd};

/// A TCP socket that listens hears of nobody new: the system drops each SYN, and whoever sent it tries again a second
/// later. Handshakes that have begun are finished, and may be accepted (socket(7), SO_ATTACH_FILTER). It holds for every
/// descriptor of this socket.
pub fn drop_syns(listener: &impl AsFd) -> io::Result<()> {
    const SYN: u32 = 0x02;
    let (load_byte, jump_if_any, give) =
        (libc::BPF_LD | libc::BPF_B | libc::BPF_ABS, libc::BPF_JMP | libc::BPF_JSET | libc::BPF_K, libc::BPF_RET);
    let step = |code: u32, jf, k| libc::sock_filter { code: code as u16, jt: 0, jf, k };
    // A filter of TCP sees segments from their header on, whose flags are its byte 13 (RFC 9293, 3.1).
    let mut steps = [step(load_byte, 0, 13), step(jump_if_any, 1, SYN), step(give, 0, 0), step(give, 0, u32::MAX)];
    let program = libc::sock_fprog { len: steps.len() as u16, filter: steps.as_mut_ptr() };
    // SAFETY: the descriptor is open for as long as `listener` is borrowed; the program and its steps outlive the call,
    // which copies them.
    super::check(unsafe {
        libc::setsockopt(
            listener.as_fd().as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_ATTACH_FILTER,
            (&raw const program).cast(),
            size_of::<libc::sock_fprog>() as libc::socklen_t,
        )
    })
    .map(drop)
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};
    use std::time::Duration;

    use super::*;

    #[test]
    fn who_has_connected_is_accepted_and_nobody_new_comes() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let at = listener.local_addr().unwrap();
        let before = TcpStream::connect(at).unwrap();
        drop_syns(&listener).unwrap();
        let error = TcpStream::connect_timeout(&at, Duration::from_millis(100)).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert_eq!(listener.accept().unwrap().1, before.local_addr().unwrap());
        drop(listener);
        // Its next SYN is refused.
        assert_eq!(TcpStream::connect(at).unwrap_err().kind(), io::ErrorKind::ConnectionRefused);
    }
}
