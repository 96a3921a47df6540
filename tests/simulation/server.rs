//! Servers that speak RESP: keys, roles, blocking, subscriptions, transactions.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use iokernel::peer::Place;

use crate::profile::Servers;
use crate::resp;
use crate::world::{Event, MS, World};

/// One server, and the host under it.
pub struct Node {
    pub address: SocketAddr,
    pub alive: bool,
    /// SIGSTOP: what comes waits in the socket.
    pub stopped: bool,
    pub partitioned: bool,
    /// The host is off: nobody even says that the port is closed.
    pub off: bool,
    pub loading: bool,
    /// It lets nobody in.
    pub refuses: bool,
    pub primary: bool,
    pub follows: Option<usize>,
    /// It knows no HELLO.
    pub old: bool,
    /// Which life it lives.
    pub run: u64,
    pub links: Vec<usize>,
    pub slow_ns: u64,
    /// Who owns each range of slots, as it knows.
    pub view: Vec<usize>,
}

impl Node {
    pub fn is_cut_off(&self) -> bool {
        self.partitioned || self.off
    }

    pub fn is_well(&self) -> bool {
        self.alive && !self.stopped && !self.is_cut_off() && !self.loading
    }

    pub fn name(&self) -> String {
        self.address.to_string()
    }
}

/// What a server holds of one conn.
#[derive(Default)]
pub struct Session {
    pub resp3: bool,
    pub asking: bool,
    pub readonly: bool,
    multi: Option<Vec<Vec<Vec<u8>>>>,
    pub topics: BTreeSet<Vec<u8>>,
    /// Those that live where their slot does.
    shard_topics: BTreeSet<Vec<u8>>,
    /// The command that waits.
    blocked: Option<(u64, Vec<Vec<u8>>)>,
    tickets: u64,
}

const READONLY: &str = "-READONLY You can't write against a read only replica.";
const LOADING: &str = "-LOADING Redis is loading the dataset in memory";

fn text(word: &[u8]) -> String {
    String::from_utf8_lossy(word).into_owned()
}

fn is_write(name: &str) -> bool {
    matches!(name, "SET" | "MSET" | "INCR" | "BLPOP")
}

fn keys(name: &str, words: &[Vec<u8>]) -> Vec<Vec<u8>> {
    match name {
        "MGET" => words[1..].to_vec(),
        "MSET" => words[1..].iter().step_by(2).cloned().collect(),
        "ECHO" => Vec::new(),
        _ => words[1..2].to_vec(),
    }
}

impl World {
    pub fn build_nodes(&mut self) {
        let (servers, count) = (self.profile.servers, self.profile.count);
        for index in 0..count {
            let follows = match servers {
                Servers::Alike => None,
                Servers::Replicated => (index > 0).then_some(0),
                Servers::Cluster => (index >= count / 2).then(|| index - count / 2),
            };
            let ip = IpAddr::V4(Ipv4Addr::new(10, 0, 0, index as u8 + 1));
            let old = servers != Servers::Cluster && self.rng.usize(..12) == 0;
            self.nodes.push(Node {
                address: SocketAddr::new(ip, 6379),
                alive: true,
                stopped: false,
                partitioned: false,
                off: false,
                loading: false,
                refuses: false,
                primary: follows.is_none(),
                follows,
                old,
                run: 0,
                links: Vec::new(),
                slow_ns: 0,
                view: Vec::new(),
            });
        }
        self.build_cluster();
    }

    pub fn node_at(&self, place: &Place) -> Option<usize> {
        let Place::Tcp(address) = place else { return None };
        self.nodes.iter().position(|node| node.address == *address)
    }

    /// What a connect meets: acceptance, refusal, or silence.
    pub fn answer_of(&self, place: &Place) -> Option<bool> {
        match self.node_at(place).map(|node| &self.nodes[node]) {
            Some(node) if node.is_cut_off() => None,
            Some(node) => Some(node.alive),
            None => Some(false),
        }
    }

    /// True if the server that the link belongs to still lives.
    fn serves(&self, link: usize) -> bool {
        let of = &self.links[link];
        of.server_open && self.nodes[of.node].alive && self.nodes[of.node].run == of.run
    }

    pub fn server_bytes(&mut self, link: usize, bytes: &[u8]) {
        if !self.serves(link) {
            return;
        }
        self.links[link].inbox.extend_from_slice(bytes);
        self.serve(link);
    }

    pub fn server_end(&mut self, link: usize) {
        if self.nodes[self.links[link].node].stopped {
            // It will be seen with everything else that waits.
            return;
        }
        self.close_server(link, false);
    }

    /// Executes what has come, as far as the server runs and the conn does not wait.
    pub fn serve(&mut self, link: usize) {
        let mut out = Vec::new();
        while self.serves(link)
            && !self.nodes[self.links[link].node].stopped
            && self.links[link].session.blocked.is_none()
        {
            let Some((words, used)) = resp::command(&self.links[link].inbox) else { break };
            self.links[link].inbox.drain(..used);
            out.extend(self.answer(link, words));
        }
        self.carry(link, false, out);
    }

    fn answer(&mut self, link: usize, words: Vec<Vec<u8>>) -> Vec<u8> {
        let name = text(&words[0]).to_ascii_uppercase();
        let node = self.links[link].node;
        let ok = resp::line("+OK");
        let asking = std::mem::take(&mut self.links[link].session.asking);
        let session = &mut self.links[link].session;
        match name.as_str() {
            "HELLO" => return self.hello(link),
            "CLIENT" | "SELECT" | "AUTH" | "MONITOR" => return ok,
            "ROLE" => return self.role(node),
            "CLUSTER" => return self.cluster_slots(node),
            "READONLY" => session.readonly = true,
            "ASKING" => session.asking = true,
            "PING" if self.nodes[node].loading => return resp::line(LOADING),
            "PING" if !session.resp3 && !session.topics.is_empty() => {
                return resp::array(&[resp::bulk("pong"), resp::bulk("")]);
            }
            "PING" => return resp::line("+PONG"),
            "SUBSCRIBE" | "UNSUBSCRIBE" => return self.subscription(link, &name, &words[1]),
            "SSUBSCRIBE" | "SUNSUBSCRIBE" => return self.shard_subscription(link, &name, &words[1]),
            "MULTI" => session.multi = Some(Vec::new()),
            "DISCARD" if session.multi.take().is_none() => return resp::line("-ERR DISCARD without MULTI"),
            "DISCARD" | "WATCH" | "UNWATCH" => {}
            "EXEC" => return self.exec(link),
            _ => return self.data(link, &name, words, asking),
        }
        ok
    }

    fn hello(&mut self, link: usize) -> Vec<u8> {
        let node = self.links[link].node;
        if self.nodes[node].refuses {
            return resp::line("-WRONGPASS invalid username-password pair or user is disabled.");
        }
        if self.nodes[node].old {
            return resp::line("-ERR unknown command 'HELLO', with args beginning with: '3'");
        }
        self.links[link].session.resp3 = true;
        let pairs = [("server", "redis"), ("version", "7.2.0"), ("mode", "standalone"), ("role", "master")];
        let mut out = resp::line("%6");
        for (key, value) in pairs {
            out.extend(resp::bulk(key));
            out.extend(resp::bulk(value));
        }
        out.extend(resp::bulk("proto"));
        out.extend(resp::line(":3"));
        out.extend(resp::bulk("id"));
        out.extend(resp::line(&format!(":{link}")));
        out
    }

    fn role(&self, node: usize) -> Vec<u8> {
        match self.nodes[node].follows {
            None => resp::array(&[resp::bulk("master"), resp::line(":0"), resp::array(&[])]),
            Some(primary) => {
                let address = self.nodes[primary].address;
                let port = resp::line(&format!(":{}", address.port()));
                let ip = resp::bulk(&address.ip().to_string());
                resp::array(&[resp::bulk("slave"), ip, port, resp::bulk("connected"), resp::line(":0")])
            }
        }
    }

    fn subscription(&mut self, link: usize, name: &str, topic: &[u8]) -> Vec<u8> {
        let session = &mut self.links[link].session;
        if name == "SUBSCRIBE" {
            session.topics.insert(topic.to_vec());
        } else {
            session.topics.remove(topic);
        }
        let count = resp::line(&format!(":{}", session.topics.len()));
        resp::push(session.resp3, &[resp::bulk(&name.to_ascii_lowercase()), resp::bulk(&text(topic)), count])
    }

    fn shard_subscription(&mut self, link: usize, name: &str, topic: &[u8]) -> Vec<u8> {
        let on = name == "SSUBSCRIBE";
        if on && let Some(error) = self.redirect(link, &[topic.to_vec()], true, false) {
            return resp::line(&error);
        }
        let topics = &mut self.links[link].session.shard_topics;
        if on {
            topics.insert(topic.to_vec());
        } else {
            topics.remove(topic);
        }
        self.shard_told(link, &name.to_ascii_lowercase(), topic)
    }

    fn shard_told(&self, link: usize, kind: &str, topic: &[u8]) -> Vec<u8> {
        let session = &self.links[link].session;
        let count = resp::line(&format!(":{}", session.shard_topics.len()));
        resp::push(session.resp3, &[resp::bulk(kind), resp::bulk(&text(topic)), count])
    }

    /// A node that does not own a slot any more withdraws what was asked for there.
    pub fn withdraw(&mut self, node: usize) {
        for link in self.nodes[node].links.clone() {
            if !self.serves(link) {
                continue;
            }
            for topic in self.links[link].session.shard_topics.clone() {
                if self.redirect(link, std::slice::from_ref(&topic), true, false).is_some() {
                    self.links[link].session.shard_topics.remove(&topic);
                    let bytes = self.shard_told(link, "sunsubscribe", &topic);
                    self.carry(link, false, bytes);
                }
            }
        }
    }

    fn exec(&mut self, link: usize) -> Vec<u8> {
        let Some(queued) = self.links[link].session.multi.take() else {
            return resp::line("-ERR EXEC without MULTI");
        };
        let replies: Vec<Vec<u8>> = queued.iter().map(|words| self.execute(link, words)).collect();
        resp::array(&replies)
    }

    fn data(&mut self, link: usize, name: &str, words: Vec<Vec<u8>>, asking: bool) -> Vec<u8> {
        let node = self.links[link].node;
        if self.nodes[node].loading {
            return resp::line(LOADING);
        }
        if let Some(error) = self.redirect(link, &keys(name, &words), is_write(name), asking) {
            return resp::line(&error);
        }
        if is_write(name) && !self.nodes[node].primary {
            return resp::line(READONLY);
        }
        if let Some(queued) = &mut self.links[link].session.multi {
            queued.push(words);
            return resp::line("+QUEUED");
        }
        if name != "BLPOP" {
            return self.execute(link, &words);
        }
        let session = &mut self.links[link].session;
        session.tickets += 1;
        session.blocked = Some((session.tickets, words));
        let ticket = session.tickets;
        let wait = self.rng.u64(MS..400 * MS);
        self.at(self.now_ns + wait, Event::Unblock { link, ticket });
        Vec::new()
    }

    fn execute(&mut self, link: usize, words: &[Vec<u8>]) -> Vec<u8> {
        let Some(id) = resp::mark(words) else { return resp::line("+OK") };
        self.executed(id, self.links[link].node);
        resp::bulk(&format!("#{id}#"))
    }

    pub fn unblock(&mut self, link: usize, ticket: u64) {
        if !self.serves(link) {
            return;
        }
        if self.nodes[self.links[link].node].stopped {
            return self.in_ms(5, Event::Unblock { link, ticket });
        }
        let session = &mut self.links[link].session;
        let Some((_, words)) = session.blocked.take_if(|(of, _)| *of == ticket) else { return };
        let reply = self.execute(link, &words);
        self.carry(link, false, reply);
        self.serve(link);
    }

    /// What a server becomes when its role changes: whoever waits in it is sent away.
    pub fn set_role(&mut self, node: usize, follows: Option<usize>) {
        if self.nodes[node].follows == follows {
            return;
        }
        let demoted = self.nodes[node].primary && follows.is_some();
        (self.nodes[node].primary, self.nodes[node].follows) = (follows.is_none(), follows);
        if !demoted {
            return;
        }
        let kills = self.rng.usize(..3) == 0;
        for link in self.nodes[node].links.clone() {
            if !self.serves(link) {
                continue;
            }
            if self.links[link].session.blocked.take().is_some() {
                let error =
                    "-UNBLOCKED force unblock from blocking operation, instance state changed (master -> replica?)";
                self.carry(link, false, resp::line(error));
                self.serve(link);
            }
            if kills {
                self.close_server(link, false);
            }
        }
    }

    pub fn loaded(&mut self, node: usize, run: u64) {
        if self.nodes[node].run == run {
            self.nodes[node].loading = false;
        }
    }

    /// A message for everyone who listens, wherever they are connected.
    pub fn publish(&mut self, topic: &str, message: &str) {
        for link in 0..self.links.len() {
            let session = &self.links[link].session;
            let kinds = [(&session.topics, "message"), (&session.shard_topics, "smessage")];
            let heard: Vec<&str> = kinds
                .into_iter()
                .filter(|(topics, _)| self.serves(link) && topics.contains(topic.as_bytes()))
                .map(|(_, kind)| kind)
                .collect();
            for kind in heard {
                let parts = [resp::bulk(kind), resp::bulk(topic), resp::bulk(message)];
                let bytes = resp::push(self.links[link].session.resp3, &parts);
                self.carry(link, false, bytes);
            }
        }
    }

    /// The conns on which a topic is subscribed, and which their client still has.
    pub fn subscribers(&self, topic: &str) -> Vec<u32> {
        let carries = |link: &usize| {
            let session = &self.links[*link].session;
            self.serves(*link)
                && (session.topics.contains(topic.as_bytes()) || session.shard_topics.contains(topic.as_bytes()))
        };
        (0..self.links.len()).filter(carries).filter_map(|link| self.client_of(link)).collect()
    }

    /// The process is gone; its kernel says so to everyone, unless the host is gone too.
    pub fn kill(&mut self, node: usize, host: bool) {
        if !self.nodes[node].alive {
            return;
        }
        self.nodes[node].stopped = false;
        for link in self.nodes[node].links.clone() {
            if !host {
                self.close_server(link, true);
            }
        }
        (self.nodes[node].alive, self.nodes[node].off) = (false, host);
    }

    /// It begins anew, empty, and loads for a while.
    pub fn start(&mut self, node: usize) {
        if self.nodes[node].alive {
            return;
        }
        let old = std::mem::take(&mut self.nodes[node].links);
        let loads = self.rng.usize(..2) == 0;
        let of = &mut self.nodes[node];
        (of.alive, of.off, of.loading) = (true, false, loads);
        of.run += 1;
        let run = of.run;
        for link in old {
            self.release_held(link);
            self.close_server(link, true);
        }
        if loads {
            let wait = self.rng.u64(20..600);
            self.in_ms(wait, Event::Loaded { node, run });
        }
        self.hears_soon(node);
    }

    pub fn resume(&mut self, node: usize) {
        self.nodes[node].stopped = false;
        for link in self.nodes[node].links.clone() {
            self.serve(link);
            if !self.links[link].client_open {
                self.close_server(link, false);
            }
        }
    }

    pub fn join(&mut self, node: usize) {
        self.nodes[node].partitioned = false;
        for link in self.nodes[node].links.clone() {
            self.release_held(link);
        }
        self.hears_soon(node);
    }

    /// Forgets links that nobody looks at any more.
    pub fn trim_links(&mut self) {
        for node in 0..self.nodes.len() {
            let links = std::mem::take(&mut self.nodes[node].links);
            self.nodes[node].links = links.into_iter().filter(|link| self.links[*link].server_open).collect();
        }
    }
}
