//! Whom a service believes, and whom a listener.

use super::*;
use crate::status::IOK_STATUS_REFUSED;

/// What the client finds wrong with a server that has this certificate.
fn refusal(pair: &Pair, leaf: &Leaf, name: &str) -> String {
    let path = pair.folder.write("other.pem", &leaf.both());
    let server = tls(&format!("tls_cert={}", path.display()), true).unwrap();
    refused_by_client(&pair.client, &server, name)
}

fn refused_by_client(client: &Tls, server: &Tls, name: &str) -> String {
    let (a, b) = UnixStream::pair().unwrap();
    let mut client = End::new(a, client.made.begin(Some(name)).unwrap());
    let mut server = End::new(b, server.made.begin(None).unwrap());
    assert_eq!((client.shake(), server.shake()), (Ok(false), Ok(false)));
    let failure = client.shake().unwrap_err();
    assert_eq!((failure.status, failure.refused), (IOK_STATUS_REFUSED, true), "{failure:?}");
    // The peer hears of it by an alert.
    assert!(server.shake().is_err());
    failure.words
}

#[test]
fn what_is_wrong_with_a_servers_certificate_is_said() {
    let pair = Pair::new("", "");
    let words = refusal(&pair, &pair.authority.leaf(&["a.test", "*.b.test", "10.0.0.1"]), "localhost");
    assert_eq!(words, "the peer's certificate is not for localhost, but for a.test, *.b.test, 10.0.0.1");
    let words = refusal(&pair, &pair.authority.leaf(&["a.test"]), "10.0.0.7");
    assert_eq!(words, "the peer's certificate is not for 10.0.0.7, but for a.test");
    let words = refusal(&pair, &pair.authority.leaf(&[]), "localhost");
    assert!(words.contains("names nobody (no subjectAltName)"), "{words}");
    let words = refusal(&pair, &pair.authority.expired(&["localhost"]), "localhost");
    assert!(words.starts_with("the peer's certificate expired at 2021-02-03T00:00:00Z; it is 20"), "{words}");
    let mut early = parameters(&["localhost"]);
    (early.not_before, early.not_after) = (date_time_ymd(2101, 1, 1), date_time_ymd(2102, 1, 1));
    let words = refusal(&pair, &pair.authority.issue(&early), "localhost");
    assert!(words.contains("valid from 2101-01-01T00:00:00Z only"), "{words}");
    let words = refusal(&pair, &Authority::new().leaf(&["localhost"]), "localhost");
    assert!(words.contains("issued by nobody whom we believe (tls_ca= names roots)"), "{words}");
    let mut other = parameters(&["localhost"]);
    other.extended_key_usages = vec![ExtendedKeyUsagePurpose::CodeSigning];
    let words = refusal(&pair, &pair.authority.issue(&other), "localhost");
    assert!(words.contains("for another purpose"), "{words}");
    let mut authority = parameters(&["localhost"]);
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let words = refusal(&pair, &pair.authority.issue(&authority), "localhost");
    assert!(words.contains("is a CA's"), "{words}");
}

#[test]
fn a_certificate_that_is_believed_itself_needs_no_authority_but_its_name() {
    let pair = Pair::new("", "");
    let key = KeyPair::generate().unwrap();
    let mut own = parameters(&["localhost"]);
    // As `openssl req -x509` makes them.
    own.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let cert = own.self_signed(&key).unwrap().pem();
    let both = pair.folder.write("self.pem", &format!("{cert}{}", key.serialize_pem()));
    let ca = pair.folder.write("self-ca.pem", &cert);
    let server = tls(&format!("tls_cert={}", both.display()), true).unwrap();
    let client = tls(&format!("tls_ca={}", ca.display()), false).unwrap();
    assert!(refused_by_client(&client, &server, "other.test").contains("not for other.test, but for localhost"));
    let pair = Pair { server, client, ..pair };
    assert!(pair.shake("localhost").is_ok());
}

#[test]
fn a_pinned_key_is_asked_for_beside_the_chain_or_in_its_place() {
    let pair = Pair::new("", "");
    let leaf = pair.authority.leaf(&["localhost"]);
    let other = "sha256//47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=";
    let ca = shown(&pair.folder.path("ca.pem"));
    let path = pair.folder.write("pinned.pem", &leaf.both());
    let server = tls(&format!("tls_cert={}", path.display()), true).unwrap();
    let pinned = tls(&format!("tls_ca={ca}&tls_pin={other}"), false).unwrap();
    let words = refused_by_client(&pinned, &server, "localhost");
    let pin = words.split("but ").nth(1).expect("it tells the key that it found").to_string();
    assert!(words.contains("none of tls_pin=") && pin.starts_with("sha256//"), "{words}");
    for query in [format!("tls_ca={ca}&tls_pin={other},{pin}"), format!("tls_verify=false&tls_pin={pin}")] {
        let (a, b) = (tls(&format!("tls_cert={}", path.display()), true).unwrap(), tls(&query, false).unwrap());
        let pair = Pair { server: a, client: b, folder: Folder::new(), authority: Authority::new() };
        assert!(pair.shake("localhost").is_ok(), "{query}");
    }
    let blind = tls(&format!("tls_verify=false&tls_pin={other}"), false).unwrap();
    assert!(refused_by_client(&blind, &server, "localhost").contains("none of tls_pin="));
}

#[test]
fn a_chain_alone_is_good_for_any_name() {
    let pair = Pair::new("", "&tls_verify=chain");
    assert!(pair.shake("elsewhere.test").is_ok());
    let words = refusal(&pair, &Authority::new().leaf(&["localhost"]), "localhost");
    assert!(words.contains("issued by nobody whom we believe"), "{words}");
    let words = refusal(&pair, &pair.authority.expired(&["localhost"]), "localhost");
    assert!(words.contains("expired"), "{words}");
}

#[test]
fn nobody_is_asked_without_verification() {
    let pair = Pair::new("", "");
    let leaf = Authority::new().expired(&["elsewhere.test"]);
    let path = pair.folder.write("worst.pem", &leaf.both());
    let server = tls(&format!("tls_cert={}", path.display()), true).unwrap();
    let client = tls("tls_verify=false", false).unwrap();
    assert!(Pair { server, client, ..pair }.shake("localhost").is_ok());
}

#[test]
fn a_listener_asks_clients_for_certificates() {
    let authority = Authority::new();
    let folder = Folder::new();
    let client_ca = shown(&folder.write("clients.pem", &authority.pem()));
    let good = shown(&folder.write("good.pem", &authority.leaf(&["client"]).both()));
    let bad = shown(&folder.write("bad.pem", &Authority::new().leaf(&["client"]).both()));
    let late = shown(&folder.write("late.pem", &authority.expired(&["client"]).both()));
    for (client, asked, well) in [
        (None, "", false),
        (None, "&tls_client=optional", true),
        (Some(&good), "", true),
        (Some(&good), "&tls_client=optional", true),
        (Some(&bad), "", false),
        (Some(&bad), "&tls_client=optional", false),
        (Some(&late), "", false),
    ] {
        for version in ["", "&tls_min=1.3"] {
            let own = client.map_or(String::new(), |path| format!("&tls_cert={path}"));
            let pair = Pair::new(&format!("&tls_client_ca={client_ca}{asked}{version}"), &own);
            let outcome = pair.shake("localhost");
            assert_eq!(outcome.is_ok(), well, "{client:?} {asked} {version}");
            if let Err((_, server)) = outcome {
                assert!(server.is_some_and(|failure| failure.refused));
            }
        }
    }
}

#[test]
fn a_client_of_13_hears_afterwards_that_it_is_refused() {
    let authority = Authority::new();
    let folder = Folder::new();
    let client_ca = shown(&folder.write("clients.pem", &authority.pem()));
    let pair = Pair::new(&format!("&tls_client_ca={client_ca}"), "");
    let (mut client, mut server) = pair.begin("localhost");
    assert_eq!((client.shake(), server.shake()), (Ok(false), Ok(false)));
    assert_eq!(client.shake(), Ok(true), "it has done everything on its side");
    assert!(server.shake().is_err());
    let error = client.read().unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::PermissionDenied);
    assert_eq!(error.to_string(), "TLS: the peer wants a certificate of ours (tls_cert=)");
}

#[test]
fn a_listener_with_several_certificates_shows_the_one_that_was_asked_for() {
    let pair = Pair::new("", "");
    let one = shown(&pair.folder.write("one.pem", &pair.authority.leaf(&["one.test"]).both()));
    let two = shown(&pair.folder.write("two.pem", &pair.authority.leaf(&["two.test", "*.two.test"]).both()));
    let server = tls(&format!("tls_cert={one},{two}"), true).unwrap();
    for name in ["one.test", "two.test", "www.two.test"] {
        let server = tls(&format!("tls_cert={one},{two}"), true).unwrap();
        let client = tls(&format!("tls_ca={}", pair.folder.path("ca.pem").display()), false).unwrap();
        let pair = Pair { server, client, folder: Folder::new(), authority: Authority::new() };
        assert!(pair.shake(name).is_ok(), "{name}");
    }
    let words = refused_by_client(&pair.client, &server, "three.test");
    assert!(words.contains("but for one.test"), "the first is for whoever asks for another: {words}");
}

#[test]
fn names_are_those_of_certificates() {
    let pair = Pair::new("", "");
    for name in ["localhost", "localhost.", "LOCALHOST", "127.0.0.1"] {
        assert!(pair.shake(name).is_ok(), "{name}");
    }
    for name in ["", "a b", "b\u{fc}cher.test"] {
        let failure = pair.client.made.begin(Some(name)).err().unwrap();
        assert!(failure.refused && failure.words.contains("tls_server_name="), "{failure:?}");
    }
    let peer = |name: &str, server_name: Option<&str>| Peer {
        server_name: server_name.map(str::to_string),
        ..Peer::new(name, Vec::new())
    };
    let named = |query: &str, peer: &Peer| tls(query, false).unwrap().name_of(peer);
    let ca = format!("tls_ca={}", pair.folder.path("ca.pem").display());
    assert_eq!(named(&ca, &peer("a.test:1", None)).as_deref(), Some("a.test"));
    assert_eq!(named(&ca, &peer("10.0.0.1:1", Some("a.test"))).as_deref(), Some("a.test"));
    assert_eq!(named(&ca, &peer("[::1]:1", None)).as_deref(), Some("::1"));
    assert_eq!(named(&ca, &peer("/run/socket", None)), None);
    assert_eq!(named("tls_verify=false", &peer("/run/socket", None)).as_deref(), Some("localhost"));
    let fixed = format!("{ca}&tls_server_name=b.test");
    assert_eq!(named(&fixed, &peer("10.0.0.1:1", Some("a.test"))).as_deref(), Some("b.test"));
}
