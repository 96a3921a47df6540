//! Stands between a client and a server and spoils what passes: delays, splits, joins, cuts at a byte, swallows.
//! Seeded, so that a run can be repeated as far as the system's own timing allows.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

/// Which way bytes travel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    ToServer = 0,
    ToClient = 1,
}

/// What the proxy does to what passes. Changes take effect at once.
#[derive(Default)]
pub struct Plan {
    /// Bytes of one write, at most; 0: as they come.
    pub chunk_max: AtomicUsize,
    /// Microseconds before a chunk goes on, at most.
    pub delay_us: AtomicU64,
    /// One chunk of so many is delayed; 0: each.
    pub delay_every: AtomicU64,
    /// Bytes that still pass each way before the conn is cut; below 0: any number.
    left: [AtomicI64; 2],
    /// Nothing passes, and nothing is read.
    pub stalled: AtomicBool,
    /// New conns are closed at once.
    pub closed: AtomicBool,
    /// Bytes that passed each way.
    pub passed: [AtomicU64; 2],
    /// Conns ever taken.
    pub conns: AtomicUsize,
    over: AtomicBool,
}

pub struct Proxy {
    pub port: u16,
    pub plan: Arc<Plan>,
}

impl Proxy {
    pub fn start(server_port: u16, seed: u64) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let plan = Arc::new(Plan { left: [AtomicI64::new(-1), AtomicI64::new(-1)], ..Plan::default() });
        let shared = plan.clone();
        std::thread::spawn(move || {
            for (number, client) in listener.incoming().enumerate() {
                if shared.over.load(Ordering::SeqCst) {
                    return;
                }
                let Ok(client) = client else { continue };
                if shared.closed.load(Ordering::SeqCst) {
                    continue;
                }
                let Ok(server) = TcpStream::connect(("127.0.0.1", server_port)) else { continue };
                shared.conns.fetch_add(1, Ordering::SeqCst);
                let (client, server) = (Arc::new(client), Arc::new(server));
                for (way, from, to) in
                    [(Way::ToServer, client.clone(), server.clone()), (Way::ToClient, server, client)]
                {
                    let plan = shared.clone();
                    let rng = fastrand::Rng::with_seed(seed ^ (number as u64) << 1 ^ way as u64);
                    std::thread::spawn(move || pump(&plan, way, &from, &to, rng));
                }
            }
        });
        Proxy { port, plan }
    }

    pub fn url(&self, options: &str) -> String {
        format!("redis://127.0.0.1:{}?{options}", self.port)
    }

    /// Cuts one conn, once so many more bytes have passed this way.
    pub fn cut_after(&self, way: Way, bytes: u64) {
        self.plan.left[way as usize].store(bytes as i64, Ordering::SeqCst);
    }

    /// Takes a cut back that has not happened.
    pub fn heal(&self) {
        for left in &self.plan.left {
            left.store(-1, Ordering::SeqCst);
        }
    }

    pub fn passed(&self, way: Way) -> u64 {
        self.plan.passed[way as usize].load(Ordering::SeqCst)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.plan.over.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect(("127.0.0.1", self.port));
    }
}

fn pump(plan: &Plan, way: Way, from: &TcpStream, to: &TcpStream, rng: fastrand::Rng) {
    let _ = carry(plan, way, from, to, rng);
    let _ = from.shutdown(Shutdown::Both);
    let _ = to.shutdown(Shutdown::Both);
}

fn carry(
    plan: &Plan,
    way: Way,
    mut from: &TcpStream,
    mut to: &TcpStream,
    mut rng: fastrand::Rng,
) -> std::io::Result<()> {
    from.set_read_timeout(Some(Duration::from_millis(20)))?;
    to.set_nodelay(true)?;
    let mut buffer = vec![0; 64 << 10];
    while !plan.over.load(Ordering::Relaxed) {
        let left = &plan.left[way as usize];
        if left.compare_exchange(0, -1, Ordering::SeqCst, Ordering::SeqCst).is_ok() {
            return Ok(());
        }
        if plan.stalled.load(Ordering::SeqCst) {
            std::thread::sleep(Duration::from_millis(1));
            continue;
        }
        let chunk_max = match plan.chunk_max.load(Ordering::Relaxed) {
            0 => buffer.len(),
            max => rng.usize(1..=max),
        };
        let count = match from.read(&mut buffer[..chunk_max]) {
            Ok(0) => return Ok(()),
            Ok(count) => count,
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => continue,
            Err(error) => return Err(error),
        };
        let delay_us = plan.delay_us.load(Ordering::Relaxed);
        if delay_us > 0 && rng.u64(0..plan.delay_every.load(Ordering::Relaxed).max(1)) == 0 {
            std::thread::sleep(Duration::from_micros(rng.u64(0..=delay_us)));
        }
        let pass = match left.load(Ordering::SeqCst) {
            ..0 => count,
            left => count.min(left as usize),
        };
        plan.passed[way as usize].fetch_add(pass as u64, Ordering::SeqCst);
        to.write_all(&buffer[..pass])?;
        if pass < count {
            left.store(-1, Ordering::SeqCst);
            return Ok(());
        }
        let _ = left
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| (left > 0).then(|| (left - pass as i64).max(0)));
    }
    Ok(())
}
