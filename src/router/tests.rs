//! The router of a service under a scripted kernel and fake time.

mod growth;
mod limits;
mod peers;
mod pool;
mod roles;
mod single;
mod slots;

use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

use super::service::{Service, ServiceConfig};
use super::{Act, Again, ConnId, Down, How, Returned, Router, Sent};
use crate::peer::{Peer, Place, Role};
use crate::proto::{Body, Class, Fact, Need, Rejection, RequestId, Route, Tenancy};
use crate::status::*;

fn config() -> ServiceConfig {
    ServiceConfig {
        queue_max: 4,
        lanes_max: 2,
        backoff_min: Duration::from_millis(100),
        backoff_max: Duration::from_secs(1),
        seed: 7,
        ..ServiceConfig::default()
    }
}

/// A kernel that notes what it is asked for.
#[derive(Default)]
struct Script {
    dialled: Vec<ConnId>,
    /// Whom each of them leads to.
    peers: Vec<String>,
    probed: Vec<ConnId>,
    doubts: usize,
    dropped: Vec<ConnId>,
    sent: Vec<(ConnId, u64)>,
    failed: Vec<(u64, Status)>,
    finished: Vec<u64>,
    leased: Vec<(u64, u64)>,
    accepted: Vec<u64>,
    reset: Vec<ConnId>,
    topics: Vec<(ConnId, bool, Vec<u8>)>,
    /// Requests that went with `How::Asking`.
    asking: Vec<u64>,
    /// Where conns lead.
    places: HashMap<ConnId, Place>,
    tenancies: HashMap<ConnId, (usize, Tenancy)>,
    ended: HashSet<u64>,
    held_up: HashSet<ConnId>,
    /// Conns take no more.
    full: bool,
    /// They take one request at a time.
    one_each: bool,
    /// How often something was asked of a conn.
    looks: std::cell::Cell<usize>,
}

impl Act for Script {
    fn dial(&mut self, peer: &Peer) -> ConnId {
        self.peers.push(peer.name.clone());
        let conn = ConnId(self.dialled.len() as u32 + 1);
        self.dialled.push(conn);
        conn
    }
    fn drop_conn(&mut self, conn: ConnId, _why: &str) {
        self.dropped.push(conn);
    }
    fn send(&mut self, conn: ConnId, request: RequestId, how: How) -> Sent {
        let is_busy = |(on, id): &(ConnId, u64)| *on == conn && !self.ended.contains(id);
        if self.full || self.one_each && self.sent.iter().any(is_busy) {
            return Sent::Later;
        }
        if how == How::Asking {
            self.asking.push(request.0);
        }
        self.sent.push((conn, request.0));
        Sent::Gone
    }
    fn reset(&mut self, conn: ConnId) {
        self.reset.push(conn);
    }
    fn subscribe(&mut self, conn: ConnId, topic: &[u8]) {
        self.topics.push((conn, true, topic.to_vec()));
    }
    fn unsubscribe(&mut self, conn: ConnId, topic: &[u8]) {
        self.topics.push((conn, false, topic.to_vec()));
    }
    fn probe(&mut self, conn: ConnId) {
        self.probed.push(conn);
    }
    fn doubt(&mut self) {
        self.doubts += 1;
    }
    fn inflight(&self) -> usize {
        self.sent.iter().filter(|(_, id)| !self.ended.contains(id)).count()
    }
    fn latency_ns(&self, _conn: ConnId) -> u64 {
        self.looks.set(self.looks.get() + 1);
        0
    }
    fn is_held_up(&self, conn: ConnId, _span: Duration) -> bool {
        self.held_up.contains(&conn)
    }
    fn place(&self, conn: ConnId) -> Option<Place> {
        self.places.get(&conn).cloned()
    }
    fn tenancy(&self, conn: ConnId) -> (usize, Tenancy) {
        self.looks.set(self.looks.get() + 1);
        self.tenancies.get(&conn).copied().unwrap_or((0, Tenancy::Clean))
    }
    fn fail(&mut self, request: RequestId, status: Status, _code: &str, _message: &str) {
        self.ended.insert(request.0);
        self.failed.push((request.0, status));
    }
    fn finish(&mut self, request: RequestId, _body: Body<'_>) {
        self.ended.insert(request.0);
        self.finished.push(request.0);
    }
    fn lease(&mut self, request: RequestId, lease: u64) {
        self.ended.insert(request.0);
        self.leased.push((request.0, lease));
    }
    fn accept(&mut self, stream: RequestId) {
        self.accepted.push(stream.0);
    }
    fn is_live(&self, request: RequestId) -> bool {
        !self.ended.contains(&request.0)
    }
}

/// A service, its kernel, and the time.
struct Scene {
    service: Service,
    act: Script,
    now: Instant,
}

const SHARED: ConnId = ConnId(1);

impl Scene {
    fn open() -> Self {
        let mut scene = Scene { service: Service::new(config()), act: Script::default(), now: Instant::now() };
        scene.service.handle_peers(scene.now, &[Peer::at("10.0.0.1", 7)], &mut scene.act);
        assert_eq!(scene.act.dialled, [SHARED]);
        scene
    }

    fn up() -> Self {
        let mut scene = Scene::open();
        scene.ready(SHARED);
        scene
    }

    fn ready(&mut self, conn: ConnId) {
        self.service.handle_ready(self.now, conn, true, "", &mut self.act);
    }

    fn ask(&mut self, id: u64, class: Class, lease: u64) {
        let need = Need { class, idempotent: false, route: Route::default() };
        self.service.handle_request(self.now, RequestId(id), need, lease, &mut self.act);
    }

    fn down(&mut self, conn: ConnId, refused: bool) {
        let status = if refused { IOK_STATUS_REFUSED } else { IOK_STATUS_LOST };
        let under_way = self.act.tenancy(conn).0;
        let down = Down { was_ready: true, under_way, refused, status, message: "gone".into() };
        self.service.handle_down(self.now, conn, &down, &mut self.act);
    }

    /// The program cancels a request that is on `conn`.
    fn cancel(&mut self, id: u64, conn: Option<ConnId>) {
        self.act.ended.insert(id);
        self.service.handle_ended(self.now, RequestId(id), conn, &mut self.act);
    }

    fn progress(&mut self, conn: ConnId) {
        let (inflight, tenancy) = self.act.tenancy(conn);
        self.service.handle_progress(self.now, conn, inflight, tenancy, &mut self.act);
    }

    /// Time passes until the router wants to be called, and it is.
    fn sleep(&mut self) {
        self.now = self.service.poll_timeout().expect("a router that waits says until when");
        self.service.handle_timeout(self.now, &mut self.act);
    }

    fn lease(&mut self, id: u64) {
        self.service.handle_lease(self.now, RequestId(id), Route::default(), &mut self.act);
    }

    fn release(&mut self, lease: u64) -> bool {
        self.service.handle_release(self.now, lease, &mut self.act)
    }

    /// A service of these peers, none of which is connected.
    fn of(config: ServiceConfig, peers: &[Peer]) -> Self {
        let mut scene = Scene { service: Service::new(config), act: Script::default(), now: Instant::now() };
        scene.peers(peers);
        scene
    }

    fn peers(&mut self, peers: &[Peer]) {
        self.service.handle_peers(self.now, peers, &mut self.act);
    }

    /// The last conn that was dialled to a peer.
    fn to(&self, name: &str) -> ConnId {
        let at = self.act.peers.iter().rposition(|peer| peer == name).expect("it was dialled");
        self.act.dialled[at]
    }

    fn role(&mut self, conn: ConnId, role: Role, follows: Option<&str>) {
        self.service.handle_fact(self.now, conn, &Fact::Role { role, follows }, &mut self.act);
    }

    fn reign(&mut self, conn: ConnId, number: u64) {
        self.service.handle_fact(self.now, conn, &Fact::Reign(number), &mut self.act);
        self.role(conn, Role::Primary, None);
    }

    fn ask_at(&mut self, id: u64, route: Route) {
        let need = Need { class: Class::Shared, idempotent: false, route };
        self.service.handle_request(self.now, RequestId(id), need, 0, &mut self.act);
    }

    fn rejected(&mut self, conn: ConnId, id: u64, route: Route, why: Rejection<'_>) -> bool {
        let need = Need { class: Class::Shared, idempotent: false, route };
        // It is on no conn any more.
        self.act.sent.retain(|(_, sent)| *sent != id);
        let returned = Returned { conn: Some(conn), request: RequestId(id), need, why };
        self.service.handle_rejected(self.now, returned, &mut self.act)
    }

    /// The conn that a request was sent on, if it was.
    fn went(&self, id: u64) -> Option<ConnId> {
        self.act.sent.iter().rfind(|(_, sent)| *sent == id).map(|(conn, _)| *conn)
    }

    /// A reply comes.
    fn replied(&mut self, id: u64) {
        let conn = self.went(id).expect("it was sent");
        self.act.ended.insert(id);
        self.progress(conn);
    }

    fn word(&self) -> &'static str {
        self.service.state(&self.act).word
    }

    fn names(&self) -> Vec<String> {
        self.service.state(&self.act).peers.into_iter().map(|peer| peer.name).collect()
    }
}

fn peer(last: u8) -> Peer {
    Peer::at(&format!("10.0.0.{last}"), 7)
}

const A: &str = "10.0.0.1:7";
const B: &str = "10.0.0.2:7";
const C: &str = "10.0.0.3:7";
