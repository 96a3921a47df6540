//! What goes wrong, and gets better.

use std::net::IpAddr;

use crate::names::Mood;
use crate::profile::Servers;
use crate::world::{Event, Heal, MS, World};

impl World {
    /// One fault, and the next one's time.
    pub fn fault_turn(&mut self) {
        if self.calm {
            return;
        }
        let pace = [30, 150, 600, 2500][(self.seed % 4) as usize];
        let wait = self.rng.u64(1..pace);
        self.in_ms(wait, Event::Fault);
        self.faults += 1;
        let node = self.rng.usize(..self.nodes.len());
        match self.rng.usize(..19) {
            0 | 1 => self.fail_node(node, false),
            2 => self.fail_node(node, true),
            3 => self.stop_node(node),
            4 => self.part_node(node),
            5..=8 => self.cut_some_link(),
            9 => self.promote_some(),
            10 | 11 if self.profile.is_cluster() => self.begin_move(),
            12 => self.spoil_names(),
            13 => self.change_names(),
            14 => self.spoil_sentinel(),
            15 => self.begin_loading(node),
            16 => self.refuse(node),
            _ => self.slow_node(node),
        }
    }

    fn fail_node(&mut self, node: usize, host: bool) {
        self.note(&format!("  fault: kill {node} host {host}"));
        self.kill(node, host);
        let wait = self.rng.u64(5..2000);
        self.in_ms(wait, Event::Heal(Heal::Start(node)));
        self.replace(node);
    }

    /// Somebody may be promoted in place of a primary that is gone.
    fn replace(&mut self, node: usize) {
        let heirs: Vec<usize> =
            (0..self.nodes.len()).filter(|heir| self.cluster.follows[*heir] == Some(node)).collect();
        if !heirs.is_empty() && self.rng.bool() {
            let heir = heirs[self.rng.usize(..heirs.len())];
            let wait = self.rng.u64(20..1000);
            self.in_ms(wait, Event::Heal(Heal::Promote(heir)));
        }
    }

    fn stop_node(&mut self, node: usize) {
        if self.nodes[node].alive {
            self.nodes[node].stopped = true;
            let wait = self.rng.u64(20..2500);
            self.in_ms(wait, Event::Heal(Heal::Resume(node)));
            self.replace(node);
        }
    }

    fn part_node(&mut self, node: usize) {
        self.nodes[node].partitioned = true;
        let wait = self.rng.u64(20..2500);
        self.in_ms(wait, Event::Heal(Heal::Join(node)));
        self.replace(node);
    }

    fn cut_some_link(&mut self) {
        let open: Vec<usize> = self
            .nodes
            .iter()
            .flat_map(|node| &node.links)
            .copied()
            .filter(|link| self.links[*link].client_open && self.links[*link].server_open)
            .collect();
        if !open.is_empty() {
            let link = open[self.rng.usize(..open.len())];
            self.cut_link(link);
        }
        self.trim_links();
    }

    fn promote_some(&mut self) {
        let fit: Vec<usize> = (0..self.nodes.len()).filter(|node| self.may_promote(*node)).collect();
        if !fit.is_empty() {
            let node = fit[self.rng.usize(..fit.len())];
            self.note(&format!("  fault: promote {node}"));
            self.promote(node);
        }
    }

    fn spoil_names(&mut self) {
        self.names.mood = [Mood::ServFail, Mood::Silent, Mood::NoSuchName, Mood::Partial][self.rng.usize(..4)];
        let wait = self.rng.u64(100..4000);
        self.in_ms(wait, Event::Heal(Heal::Names));
    }

    /// Records change, or the program tells others.
    fn change_names(&mut self) {
        let mut nodes: Vec<usize> = (0..self.nodes.len()).collect();
        self.rng.shuffle(&mut nodes);
        let count = self.rng.usize(1..=nodes.len());
        let ip = |node: &usize| self.nodes[*node].address.ip();
        let set: Vec<IpAddr> = nodes[..count].iter().map(ip).collect();
        let host = ["cache.test", "b.test", "all.test"][self.rng.usize(..3)];
        let set = if host == "all.test" { set } else { set[..1].to_vec() };
        self.names.records.insert(host.into(), set);
        self.names.services =
            nodes[..count].iter().map(|node| (*node, self.rng.u16(1..3), self.rng.u16(0..3))).collect();
        if self.profile.is_told() {
            self.tell_peers(&nodes[..count]);
        }
    }

    fn spoil_sentinel(&mut self) {
        if self.profile.has_sentinels() {
            let sentinel = self.rng.usize(..3);
            self.stop_sentinel(sentinel);
            let wait = self.rng.u64(50..3000);
            self.in_ms(wait, Event::Heal(Heal::Sentinel(sentinel)));
        }
    }

    /// It takes its data from another anew, while its conns stand.
    fn begin_loading(&mut self, node: usize) {
        if self.nodes[node].alive {
            self.nodes[node].loading = true;
            let (wait, run) = (self.rng.u64(20..600), self.nodes[node].run);
            self.in_ms(wait, Event::Loaded { node, run });
        }
    }

    /// It takes nobody in for a while, as after a change of passwords.
    fn refuse(&mut self, node: usize) {
        if self.rng.usize(..3) == 0 {
            self.nodes.iter_mut().for_each(|node| node.refuses = true);
        }
        self.nodes[node].refuses = true;
        let wait = self.rng.u64(20..1000);
        self.in_ms(wait, Event::Heal(Heal::Admit));
    }

    fn slow_node(&mut self, node: usize) {
        self.nodes[node].slow_ns = self.rng.u64(MS..100 * MS);
        let wait = self.rng.u64(20..1000);
        self.in_ms(wait, Event::Heal(Heal::Slow(node)));
    }

    pub fn heal(&mut self, heal: Heal) {
        match heal {
            Heal::Start(node) => self.start(node),
            Heal::Resume(node) => self.resume(node),
            Heal::Join(node) => self.join(node),
            Heal::Promote(node) => self.promote(node),
            Heal::Names => self.names.mood = Mood::Well,
            Heal::Sentinel(sentinel) => self.start_sentinel(sentinel),
            Heal::FinishMove(range) => self.finish_move(range),
            Heal::Admit => self.nodes.iter_mut().for_each(|node| node.refuses = false),
            Heal::Slow(node) => self.nodes[node].slow_ns = 0,
        }
    }

    /// Faults cease, and everything that is broken is mended.
    pub fn calm_down(&mut self) {
        self.note("calm");
        self.calm = true;
        for node in 0..self.nodes.len() {
            (self.nodes[node].slow_ns, self.nodes[node].refuses) = (0, false);
            self.start(node);
            self.resume(node);
            self.join(node);
        }
        self.names.mood = Mood::Well;
        for sentinel in 0..self.names.sentinels.len() {
            self.start_sentinel(sentinel);
            self.in_ms(100, Event::SentinelHears { sentinel });
        }
        let all: Vec<usize> = (0..self.nodes.len()).collect();
        let ips: Vec<IpAddr> = self.nodes.iter().map(|node| node.address.ip()).collect();
        self.names.services = all.iter().map(|node| (*node, 1, 1)).collect();
        self.names.records.insert("all.test".into(), ips);
        if self.profile.is_told() {
            self.tell_peers(&all);
        }
        if self.profile.servers == Servers::Alike {
            return;
        }
        for node in all {
            self.hears_soon(node);
        }
    }
}
