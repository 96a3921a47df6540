//! What holds for any input and any conversation.
use proptest::collection::vec;
use proptest::prelude::*;

use super::*;

#[derive(Clone, Debug)]
enum Sent {
    Text(String),
    Binary(Vec<u8>),
    Ping(Vec<u8>),
}

fn sent() -> impl Strategy<Value = Sent> {
    let alike = ("[ab ]{0,9}", 0..500_usize).prop_map(|(word, count)| word.repeat(count));
    prop_oneof![
        "\\PC{0,200}".prop_map(Sent::Text),
        alike.prop_map(Sent::Text),
        vec(any::<u8>(), 0..600).prop_map(Sent::Binary),
        (any::<u8>(), 0..70_000_usize).prop_map(|(byte, count)| Sent::Binary(vec![byte; count])),
        vec(any::<u8>(), 0..=125).prop_map(Sent::Ping),
    ]
}

fn params() -> impl Strategy<Value = Option<Params>> {
    let flags = any::<(bool, bool)>().prop_map(|(server, client)| Params {
        server_no_context_takeover: server,
        client_no_context_takeover: client,
        server_max_window_bits: false,
    });
    proptest::option::of(flags)
}

/// Any frames, the most of them nearly valid.
fn any_frames(role: Role) -> impl Strategy<Value = Vec<u8>> {
    let first = prop_oneof![
        8 => prop::sample::select(vec![0x81, 0x82, 0x01, 0x02, 0x00, 0x80, 0x89, 0x8A, 0xC1, 0x41, 0xC2]),
        1 => Just(0x88),
        1 => any::<u8>()
    ];
    let payload = prop_oneof![
        vec(any::<u8>(), 0..20),
        vec(b'a'..b'e', 0..300),
        Just(vec![0xF2, 0x48, 0xCD, 0xC9, 0xC9, 0x07, 0x00]),
        Just(vec![0xF3, 0x48, 0xCD, 0xC9, 0xC9, 0x07, 0x00, 0x00]),
        Just(vec![0x03, 0xE8]),
    ];
    vec((first, payload), 0..12)
        .prop_map(move |all| all.iter().flat_map(|(first, payload)| frame(role, *first, payload)).collect())
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(96) })]

    #[test]
    fn what_one_side_sends_the_other_hears(
        sent in vec(sent(), 0..12), params in params(), is_client in any::<bool>(), cut in 1..5000_usize,
    ) {
        let (role, other) = if is_client { (Role::Client, Role::Server) } else { (Role::Server, Role::Client) };
        let (mut from, mut wire, mut expected) = (codec(role, params), Vec::new(), Vec::new());
        for sent in sent {
            match sent {
                Sent::Text(text) => {
                    from.text(text.as_bytes(), &mut wire).unwrap();
                    expected.push(Text(text.into()));
                }
                Sent::Binary(bytes) => {
                    from.binary(&bytes, &mut wire).unwrap();
                    expected.push(Binary(bytes));
                }
                Sent::Ping(payload) => {
                    from.ping(&payload, &mut wire).unwrap();
                    expected.push(Ping(payload));
                }
            }
        }
        from.close(1000, b"done", &mut wire).unwrap();
        expected.push(Close(1000, b"done".to_vec()));
        let mut to = codec(other, params);
        let (heard, answers) = hear(&mut to, &wire, cut);
        prop_assert_eq!(&heard, &expected);
        // The answers are the pongs in their order and the close; then both sides are done.
        let pongs = |heard| match heard {
            Ping(payload) => Some(Pong(payload)),
            Close(code, _) => Some(Close(code, vec![])),
            _ => None,
        };
        let expected: Vec<Heard> = expected.into_iter().filter_map(pongs).collect();
        prop_assert_eq!(hear(&mut from, &answers, cut).0, expected);
        prop_assert!(from.is_over() && to.is_over());
    }

    #[test]
    fn cuts_make_no_difference_to_servers(bytes in any_frames(Role::Server), params in params(), cut in 1..50_usize) {
        cuts_make_no_difference(Role::Server, params, &bytes, cut)?;
    }

    #[test]
    fn cuts_make_no_difference_to_clients(bytes in any_frames(Role::Client), params in params(), cut in 1..50_usize) {
        cuts_make_no_difference(Role::Client, params, &bytes, cut)?;
    }

    #[test]
    fn no_bytes_panic(bytes in vec(any::<u8>(), 0..400), params in params(), cut in 1..50_usize) {
        for role in BOTH {
            cuts_make_no_difference(role, params, &bytes, cut)?;
        }
    }
}

fn cuts_make_no_difference(role: Role, params: Option<Params>, bytes: &[u8], cut: usize) -> Result<(), TestCaseError> {
    let whole = hear(&mut limited(role, params, 500), bytes, usize::MAX);
    prop_assert_eq!(hear(&mut limited(role, params, 500), bytes, cut), whole);
    Ok(())
}
