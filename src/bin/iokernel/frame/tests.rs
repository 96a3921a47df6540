use serde_json::json;

use super::*;

fn look() -> Look {
    let peer = |name: &str, state: &str, requests: u64, error: &str| {
        json!({"name": name, "state": state, "role": "primary", "conns": 1, "inflight": 3, "latency_us": 412,
               "requests": requests, "failures": 2, "weight": 1, "priority": 0, "last_error": error})
    };
    let state = json!({
        "kernel": {"name": "web-1", "pid": 4711, "version": "0.1.0", "uptime_ms": 11_100_000, "ready": false,
                   "missing": ["redis://sessions.internal:6379"], "admin": "unix:/run/web.sock"},
        "main": {"busy_ms": 12_300, "tid": 4711, "state": "R", "markers": ["render invoice id=7", "regex\x1b[2J"]},
        "endpoints": [
            {"endpoint": 1, "url": "redis://cache.internal:6379/0?heartbeat=5s", "kind": "service", "state": "up",
             "required": true, "description": "redis 7.2.4, 2 peers", "conns": 2, "inflight": 3, "queued": 0,
             "leases": 0, "topics": 0, "attempts": 0, "last_error": "", "peers": [
                 peer("10.0.0.1:6379", "up", 300, ""), peer("10.0.0.2:6379", "down", 0, "connection refused")]},
            {"endpoint": 2, "url": "redis://sessions.internal:6379", "kind": "service", "state": "down",
             "conns": 0, "inflight": 0, "queued": 17, "last_error": "no such host", "peers": []},
        ],
        "channels": [{"channel": 1, "live": 3, "backlog": 0}],
    });
    let request = |age: u64| {
        json!({"request": 9, "endpoint": 1, "url": "redis://cache.internal:6379/0", "peer": "10.0.0.1:6379",
               "command": "BLPOP", "bytes": 2048, "age_ms": age, "phase": "written", "fate": "maybe", "lease": 0,
               "channel": 1, "retries": 0, "marker": "render invoice id=7"})
    };
    let requests = json!({"count": 40, "requests": (0..40).map(|at| request(9000 - at)).collect::<Vec<_>>()});
    let stack = json!({"pid": 4711, "took_ms": 1, "main": {"tid": 4711, "name": "python", "state": "R", "python": [
        {"file": "/srv/app.py", "line": 12, "function": "match"}, {"file": "/srv/app.py", "line": 40, "function": "main"}],
        "native": ["sre_ucs1_match"]}, "threads": [{"tid": 4712, "name": "web-1", "state": "S"}]});
    Look { state, requests, stack }
}

fn texts(scene: &Scene, width: usize, height: Option<usize>) -> Vec<String> {
    draw(scene, width, height).into_iter().map(|line| line.text).collect()
}

fn has(lines: &[String], parts: &[&str]) -> bool {
    lines.iter().any(|line| parts.iter().all(|part| line.contains(part)))
}

#[test]
fn a_small_screen_shows_what_matters() {
    let lines = texts(&Scene { look: Some(look()), ..Scene::default() }, 80, Some(24));
    let shown = lines.join("\n");
    assert_eq!(lines.len(), 24);
    assert!(lines.iter().all(|line| line.chars().count() <= 80), "{shown}");
    assert!(has(&lines, &["web-1", "pid 4711", "NOT READY", "up 3h05m"]), "{shown}");
    assert!(has(&lines, &["missing: redis://sessions"]), "{shown}");
    assert!(has(&lines, &["busy 12.3s", "running", "render invoice id=7 > regex·[2J"]), "{shown}");
    assert!(has(&lines, &["redis://cache", " up "]), "{shown}");
    assert!(has(&lines, &["redis://sessions", "down", "17"]), "{shown}");
    assert!(has(&lines, &["10.0.0.1:6379", "412us"]), "{shown}");
    assert!(has(&lines, &["40 in flight"]), "{shown}");
    assert!(has(&lines, &["9.0s", "written", "BLPOP"]), "{shown}");
    assert!(has(&lines, &["more"]), "{shown}");
    assert!(lines[23].contains("q quit"), "{shown}");
}

#[test]
fn a_wide_screen_shows_everything() {
    let lines = texts(&Scene { look: Some(look()), ..Scene::default() }, 200, Some(70));
    let shown = lines.join("\n");
    assert!(has(&lines, &["NUMBER", "ENDPOINT", "INFLIGHT", "QUEUED", "CONNS", "ABOUT"]), "{shown}");
    assert!(has(&lines, &["redis 7.2.4, 2 peers"]) && has(&lines, &["no such host"]), "{shown}");
    assert!(has(&lines, &["10.0.0.2:6379", "primary", "connection refused"]), "{shown}");
    assert!(has(&lines, &["9.0s", "2.0KiB", "redis://cache.internal:6379/0", "render invoice id=7"]), "{shown}");
    assert!(!has(&lines, &["more"]), "{shown}");
}

#[test]
fn each_view_fits_each_screen() {
    for view in [View::Overview, View::Requests, View::Stack] {
        let scene =
            Scene { view, look: Some(look()), silent: Some((Duration::ZERO, "gone".into())), ..Scene::default() };
        for (width, height) in [(1, 1), (1, 40), (20, 5), (40, 10), (80, 24), (300, 3), (200, 60)] {
            let lines = texts(&scene, width, Some(height));
            assert_eq!(lines.len(), height, "{view:?} {width}x{height}");
            assert!(lines.iter().all(|line| line.chars().count() <= width), "{view:?} {width}x{height}: {lines:#?}");
        }
    }
}

#[test]
fn the_stack_names_the_function_that_hangs() {
    let scene = Scene { view: View::Stack, look: Some(look()), ..Scene::default() };
    let lines = texts(&scene, 80, Some(24));
    assert!(has(&lines, &["match", "/srv/app.py:12"]), "{lines:#?}");
    assert!(has(&lines, &["sre_ucs1_match"]) && has(&lines, &["4712", "web-1", "sleeping"]), "{lines:#?}");
}

#[test]
fn silence_is_told_above_what_was_last_seen() {
    let silent = Some((Duration::from_secs(5), "unix:/run/web.sock: nobody listens".into()));
    let lines = texts(&Scene { look: Some(look()), silent, ..Scene::default() }, 80, Some(24));
    assert_eq!(lines[0], "no answer for 5.0s: unix:/run/web.sock: nobody listens");
    assert!(lines[1].contains("web-1"));
}

#[test]
fn answers_of_other_versions_are_shown_as_far_as_they_go() {
    for state in [json!({}), json!([]), json!({"kernel": 1, "main": "x", "endpoints": [{}, 7, {"peers": [{}]}]})] {
        let scene = Scene { look: Some(Look { state, ..Look::default() }), ..Scene::default() };
        assert_eq!(texts(&scene, 80, Some(24)).len(), 24);
        assert!(!texts(&scene, 80, None).is_empty());
    }
}

#[test]
fn rates_are_what_was_counted_since() {
    let before = Counts::of(&look().state);
    let mut later = look();
    later.state["endpoints"][0]["peers"][0]["requests"] = 550.into();
    let counts = Counts::of(&later.state);
    let rates = counts.rates(&before, Duration::from_millis(500));
    assert_eq!(rates[&(1, Some("10.0.0.1:6379".into()))], 500.0);
    assert_eq!(rates[&(1, None)], 500.0);
    assert!(before.rates(&counts, Duration::from_secs(1)).values().all(|rate| *rate == 0.0), "a peer began again");
    assert!(counts.rates(&before, Duration::ZERO).is_empty());
    let lines = texts(&Scene { look: Some(later), rates, ..Scene::default() }, 80, Some(24));
    assert!(has(&lines, &["redis://cache", "500"]), "{lines:#?}");
}
