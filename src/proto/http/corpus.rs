//! Reads `tests/corpus`: bytes on the wire, and what each side must make of them. The form is told at the top of each file.

/// One case.
pub struct Case {
    pub title: &'static str,
    /// What was asked; of requests nothing.
    pub asked: &'static str,
    pub bytes: Vec<u8>,
    /// The peer closes behind the bytes.
    pub closes: bool,
    pub outcomes: Vec<&'static str>,
}

pub fn requests() -> Vec<Case> {
    read(include_str!("../../../tests/corpus/http_requests.txt"))
}

pub fn responses() -> Vec<Case> {
    read(include_str!("../../../tests/corpus/http_responses.txt"))
}

fn read(text: &'static str) -> Vec<Case> {
    let mut cases: Vec<Case> = Vec::new();
    for line in text.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
        if let Some(title) = line.strip_prefix("== ") {
            cases.push(Case { title, asked: "", bytes: Vec::new(), closes: false, outcomes: Vec::new() });
            continue;
        }
        let case = cases.last_mut().expect("a title comes first");
        match line.split_at(line.len().min(2)) {
            ("> ", bytes) => case.bytes.extend(unescaped(bytes)),
            ("? ", asked) => case.asked = asked,
            ("= ", outcome) => case.outcomes.push(outcome),
            ("!", "") => case.closes = true,
            _ => panic!("{}: {line:?} is no line of a case", case.title),
        }
    }
    assert!(cases.iter().all(|case| !case.outcomes.is_empty()));
    cases
}

fn unescaped(mut text: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    while let Some(at) = text.find(['\\', '{']) {
        bytes.extend_from_slice(&text.as_bytes()[..at]);
        let rest = &text[at + 1..];
        let used = match (&text[at..=at], rest.as_bytes()[0]) {
            ("{", _) => {
                let (repeated, count) = rest.split_once('*').expect("{TEXT*N}");
                let (count, _) = count.split_once('}').expect("{TEXT*N}");
                bytes.extend(unescaped(repeated).repeat(count.parse().expect("a number")));
                repeated.len() + count.len() + 2
            }
            (_, b'x') => {
                bytes.push(u8::from_str_radix(&rest[1..3], 16).expect("two digits"));
                3
            }
            (_, escaped) => {
                bytes.push(match escaped {
                    b'r' => b'\r',
                    b'n' => b'\n',
                    b't' => b'\t',
                    b'\\' => b'\\',
                    other => panic!("\\{} is no escape", char::from(other)),
                });
                1
            }
        };
        text = &rest[used..];
    }
    bytes.extend_from_slice(text.as_bytes());
    bytes
}

/// Where to cut bytes in two: everywhere, or, where they are many, at some places.
pub fn cuts(bytes: &[u8]) -> impl Iterator<Item = usize> {
    (1..bytes.len()).step_by(1 + bytes.len() / 2000)
}
