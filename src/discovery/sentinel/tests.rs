use std::collections::HashMap;

use super::truth::{HOLD, LOWER_FOR, SETTLE};
use super::*;
use crate::discovery::script::Script;

const A: &str = "10.0.0.1:6379";
const B: &str = "10.0.0.2:6379";
const C: &str = "10.0.0.3:6379";

/// What a scripted sentinel answers.
#[derive(Clone, Debug, Default)]
struct Says {
    epoch: u64,
    master: &'static str,
    replicas: Vec<(&'static str, &'static str)>,
    error: Option<&'static str>,
    resp2: bool,
    old: bool,
    silent: bool,
}

struct Rig {
    source: Box<dyn Source>,
    script: Script,
    now: Instant,
    says: Vec<Says>,
    answered: usize,
}

fn says(epoch: u64, master: &'static str, replicas: &[&'static str]) -> Says {
    Says { epoch, master, replicas: replicas.iter().map(|name| (*name, "slave")).collect(), ..Says::default() }
}

fn opened(url: &str) -> (Url, Result<Box<dyn Source>, ConfigError>) {
    let second = Duration::from_secs(1);
    let terms = Terms { spread: false, remote: false, default_port: 6379, ttl_min: second, ttl_max: second };
    let mut url = Url::parse(url, |_| Some(6379)).unwrap();
    let source = crate::discovery::open(&mut url, &terms);
    (url, source)
}

impl Rig {
    fn new(says: Vec<Says>) -> Self {
        let hosts: Vec<String> = (1..=says.len()).map(|n| format!("s{n}")).collect();
        let source = opened(&format!("redis+sentinel://{}/mymaster", hosts.join(","))).1.unwrap();
        let mut rig = Rig { source, script: Script::default(), now: Instant::now(), says, answered: 0 };
        rig.hear(News::Open);
        rig.answer();
        rig
    }

    fn hear(&mut self, news: News<'_>) {
        self.source.handle(self.now, news, &mut self.script);
    }

    /// Answers every question that was asked, as the sentinels are told.
    fn answer(&mut self) {
        while let Some((query, at, body)) = self.script.requests.get(self.answered).cloned() {
            self.answered += 1;
            let says = self.says[at].clone();
            match (says.silent, says.error) {
                (true, _) => self.hear(News::Reply { query, outcome: Err("no connection") }),
                (_, Some(error)) => self.hear(News::Reply { query, outcome: Err(error) }),
                _ => self.hear(News::Reply { query, outcome: Ok(&says.reply(&reply::words(&body))) }),
            }
        }
    }

    fn pass(&mut self, span: Duration) {
        let end = self.now + span;
        while let Some(at) = self.source.poll_timeout().filter(|at| *at <= end) {
            assert!(at > self.now, "the next timeout is later");
            self.now = at;
            self.hear(News::Time);
            self.answer();
        }
        self.now = end;
    }

    fn push(&mut self, at: usize, channel: &str, payload: &str) {
        let query = self.script.streams.iter().rfind(|(_, service, _)| *service == at).unwrap().0;
        let body = command(&["message", channel, payload]);
        self.hear(News::Push { query, body: &body });
    }

    fn primary(&self) -> String {
        self.script.shown().into_iter().find(|name| name.starts_with("primary")).unwrap_or_default()
    }
}

impl Says {
    fn reply(&self, words: &[String]) -> Vec<u8> {
        let mut out = Vec::new();
        match words[1].as_str() {
            // Until its failover is over, a sentinel's MASTER shows the old address.
            "MASTER" => {
                let epoch = self.epoch.to_string();
                self.fields(
                    &mut out,
                    &[("ip", "10.9.9.9"), ("port", "1"), ("config-epoch", &epoch), ("flags", "master")],
                )
            }
            "GET-MASTER-ADDR-BY-NAME" => {
                let (ip, port) = self.master.split_once(':').unwrap();
                out = command(&[ip, port]);
            }
            "REPLICAS" if self.old => {
                write::error_ext(&mut out, 1, b"ERR", b"Unknown sentinel subcommand 'REPLICAS'");
            }
            _ => {
                write::array(&mut out, self.replicas.len() as u32);
                for (name, flags) in &self.replicas {
                    let (ip, port) = name.split_once(':').unwrap();
                    let role = if flags.contains("returned") { "master" } else { "slave" };
                    self.fields(&mut out, &[("ip", ip), ("port", port), ("flags", flags), ("role-reported", role)]);
                }
            }
        }
        out
    }

    fn fields(&self, out: &mut Vec<u8>, fields: &[(&str, &str)]) {
        match self.resp2 {
            true => write::array(out, fields.len() as u32 * 2),
            false => write::map(out, fields.len() as u32),
        }
        for (key, value) in fields {
            write::bin(out, key.as_bytes());
            write::str(out, value.as_bytes());
        }
    }
}

#[test]
fn the_url_names_sentinels_master_and_database() {
    let (mut url, source) =
        opened("redis+sentinel://app:pw@s1,s2:7,[::1]/mymaster/3?sentinel_user=a%3Ab&sentinel_password=p%40w&db=3");
    assert_eq!((url.path.as_str(), url.options.text("db").as_deref()), ("3", Some("3")));
    url.options.finish().unwrap();
    assert_eq!(
        source.unwrap().services(),
        [
            "redis://a%3Ab:p%40w@s1:26379?heartbeat=1s&max_silence=2s&timeout=2s",
            "redis://a%3Ab:p%40w@s2:7?heartbeat=1s&max_silence=2s&timeout=2s",
            "redis://a%3Ab:p%40w@[::1]:26379?heartbeat=1s&max_silence=2s&timeout=2s",
        ]
    );
    let plain = opened("redis+sentinel://s1/mymaster").1.unwrap();
    assert!(plain.services()[0].starts_with("redis://s1:26379?"));
}

#[test]
fn sentinels_of_a_service_with_tls_are_asked_over_tls_with_its_options() {
    let (mut url, source) = opened("rediss+sentinel://s1/m?tls_ca=/a%26b.pem&tls_key=/k&heartbeat=1s");
    let tls = "&tls_ca=%2Fa%26b%2Epem&tls_key=%2Fk";
    assert_eq!(source.unwrap().services(), [format!("rediss://s1:26379?heartbeat=1s&max_silence=2s&timeout=2s{tls}")]);
    assert_eq!(url.options.text("tls_ca").as_deref(), Some("/a&b.pem"), "they are the service's own too");
    let (_, plain) = opened("rediss+sentinel://s1/m?tls_ca=/ca.pem&sentinel_tls=false");
    assert_eq!(plain.unwrap().services(), ["redis://s1:26379?heartbeat=1s&max_silence=2s&timeout=2s"]);
    let error = opened("redis+sentinel://s1").1.err().unwrap();
    assert!(error.key == "path" && error.expected.contains("master's name"), "{error}");
}

#[test]
fn master_and_usable_replicas_are_published_from_either_protocol() {
    for (resp2, old) in [(false, false), (true, false), (true, true)] {
        let mut one = says(1, A, &[B, C]);
        one.replicas.extend([("10.0.0.4:1", "s_down,slave"), ("10.0.0.5:1", "slave,disconnected")]);
        one.replicas.extend([("10.0.0.6:1", "o_down,slave"), ("10.0.0.7:1", "slave,returned")]);
        (one.resp2, one.old) = (resp2, old);
        let mut rig = Rig::new(vec![one]);
        rig.pass(Duration::from_secs(3));
        let expected = [format!("primary {A}"), format!("replica {B}"), format!("replica {C}")];
        assert_eq!(rig.script.shown(), expected);
        assert_eq!(rig.script.sets.len(), if old { 2 } else { 1 }, "published when it changes");
        assert!(rig.script.unknown.is_empty());
    }
}

#[test]
fn a_failover_is_followed_by_the_first_sentinel_that_says_so() {
    let mut rig = Rig::new(vec![says(1, A, &[B, C]); 3]);
    assert_eq!(rig.primary(), format!("primary {A}"));
    // The leader has promoted B; the others have not heard of it.
    rig.says[1] = says(2, B, &[B, C]);
    rig.push(1, "+promoted-slave", "slave 10.0.0.2:6379 10.0.0.2 6379 @ mymaster 10.0.0.1 6379");
    rig.answer();
    assert_eq!(rig.script.shown(), [format!("primary {B}"), format!("replica {C}")]);
    rig.pass(Duration::from_secs(20));
    assert_eq!(rig.primary(), format!("primary {B}"), "two older answers do not outvote it");
    rig.says = vec![says(2, B, &[A, C]); 3];
    rig.pass(Duration::from_secs(1));
    assert_eq!(rig.script.shown().len(), 3);
    assert_eq!(rig.script.sets.len(), 3);
}

#[test]
fn a_promotion_told_at_the_old_epoch_is_believed_and_held() {
    let mut rig = Rig::new(vec![says(1, A, &[B]); 3]);
    rig.says[2] = says(1, B, &[]);
    rig.pass(Duration::from_secs(1));
    assert_eq!(rig.primary(), format!("primary {B}"));
    rig.pass(HOLD - Duration::from_secs(1) - Duration::from_millis(1));
    assert_eq!(rig.primary(), format!("primary {B}"));
    // It was nothing: the epoch was never raised.
    rig.pass(Duration::from_secs(3));
    assert_eq!(rig.primary(), format!("primary {A}"));
}

#[test]
fn the_majority_of_one_epoch_wins_and_a_tie_does_not_flap() {
    let mut rig = Rig::new(vec![says(1, B, &[]), says(1, A, &[]), says(1, A, &[])]);
    rig.pass(Duration::from_secs(5));
    assert_eq!((rig.primary(), rig.script.sets.len()), (format!("primary {A}"), 1));
    let mut rig = Rig::new(vec![says(1, A, &[]), says(1, B, &[])]);
    rig.pass(Duration::from_secs(5));
    assert_eq!((rig.primary(), rig.script.sets.len()), (format!("primary {B}"), 1));
}

#[test]
fn a_stale_sentinel_is_passed_over_even_when_it_is_the_only_one() {
    let mut rig = Rig::new(vec![says(1, A, &[]), says(5, B, &[]), says(5, B, &[])]);
    assert_eq!((rig.primary(), rig.script.sets.len()), (format!("primary {B}"), 1), "though it answered first");
    rig.says[1].silent = true;
    rig.says[2].silent = true;
    rig.pass(10 * LOWER_FOR);
    assert_eq!(rig.primary(), format!("primary {B}"));
}

#[test]
fn sentinels_that_agree_on_a_lower_epoch_for_a_while_are_believed() {
    let mut rig = Rig::new(vec![says(5, B, &[]); 3]);
    rig.says = vec![says(0, A, &[]), says(1, A, &[]), Says { silent: true, ..says(5, B, &[]) }];
    rig.pass(LOWER_FOR);
    assert_eq!(rig.primary(), format!("primary {B}"));
    rig.pass(Duration::from_secs(2));
    assert_eq!(rig.primary(), format!("primary {A}"));
}

#[test]
fn the_first_belief_waits_a_moment_for_the_slow() {
    let mut rig = Rig { answered: usize::MAX, ..Rig::new(vec![says(1, A, &[])]) };
    let hosts = ["s1", "s2"].join(",");
    rig.source = opened(&format!("redis+sentinel://{hosts}/mymaster")).1.unwrap();
    rig.script = Script::default();
    rig.hear(News::Open);
    let asked: HashMap<usize, Vec<_>> = rig.script.requests.iter().cloned().fold(HashMap::new(), |mut by, asked| {
        by.entry(asked.1).or_insert_with(Vec::new).push(asked);
        by
    });
    for (query, _, body) in &asked[&0] {
        rig.hear(News::Reply { query: *query, outcome: Ok(&says(1, A, &[]).reply(&reply::words(body))) });
    }
    assert!(rig.script.sets.is_empty());
    assert_eq!(rig.source.poll_timeout(), Some(rig.now + SETTLE));
    rig.now += SETTLE;
    rig.hear(News::Time);
    assert_eq!(rig.primary(), format!("primary {A}"));
}

#[test]
fn an_unknown_master_is_named_with_the_sentinels_words() {
    let error = Says { error: Some("ERR No such master with that name"), ..Says::default() };
    let mut rig = Rig::new(vec![error.clone(), Says { silent: true, ..Says::default() }]);
    rig.pass(Duration::from_secs(5));
    let why = rig.script.unknown.last().unwrap();
    assert!(why.contains("sentinel s1:26379 knows no master \"mymaster\": ERR No such master with that name"), "{why}");
    assert!(why.contains("sentinel s2:26379: no connection"), "{why}");
    assert_eq!((rig.script.sets.len(), rig.script.unknown.len()), (0, 2));
    // One that knows it is enough; and what is known survives when nobody can be heard.
    rig.says[1] = says(1, A, &[]);
    rig.pass(Duration::from_secs(1));
    assert_eq!(rig.primary(), format!("primary {A}"));
    rig.says[1].silent = true;
    rig.pass(Duration::from_secs(60));
    assert_eq!((rig.script.sets.len(), rig.script.unknown.len()), (1, 3));
}

#[test]
fn only_what_concerns_the_master_hurries_and_rounds_do_not_pile_up() {
    let mut rig = Rig::new(vec![says(1, A, &[]); 2]);
    assert_eq!(rig.script.streams.len(), 2);
    assert!(reply::words(&rig.script.streams[0].2).iter().any(|word| word == "+switch-master"));
    let before = rig.script.requests.len();
    rig.push(0, "+sdown", "slave 10.0.0.9:1 10.0.0.9 1 @ other 10.0.0.8 1");
    assert_eq!(rig.script.requests.len(), before);
    for _ in 0..20 {
        rig.push(0, "+switch-master", "mymaster 10.0.0.1 6379 10.0.0.2 6379");
        rig.hear(News::Doubt);
    }
    assert_eq!(rig.script.requests.len(), before + 6, "one round each is under way");
    rig.answer();
    assert_eq!(rig.script.requests.len(), before + 12, "and one more follows");
    let query = rig.script.streams[0].0;
    rig.hear(News::Standing { query });
    assert_eq!(rig.script.requests.len(), before + 15, "that sentinel alone");
    rig.answer();
    rig.hear(News::Ended { query, why: "lost" });
    assert_eq!(rig.script.streams.len(), 2);
    rig.pass(Duration::from_secs(1));
    assert_eq!(rig.script.streams.len(), 3, "begun anew with the next round");
}

#[test]
fn one_sentinels_opinion_of_a_replica_does_not_make_it_come_and_go() {
    let mut down = says(1, A, &[]);
    down.replicas.push((B, "s_down,slave"));
    let mut rig = Rig::new(vec![says(1, A, &[B]), down.clone(), says(1, A, &[B])]);
    rig.pass(Duration::from_secs(5));
    assert_eq!((rig.script.shown().len(), rig.script.sets.len()), (2, 1));
    rig.says[0] = down;
    rig.pass(Duration::from_secs(5));
    assert_eq!((rig.script.shown().len(), rig.script.sets.len()), (1, 2));
}
