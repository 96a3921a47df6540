//! Files that are wrong, and files that change.

use std::os::unix::fs::symlink;

use super::*;

fn error(query: &str, listener: bool) -> String {
    tls(query, listener).err().expect(query).to_string()
}

#[test]
fn what_is_wrong_with_a_file_is_said_with_its_line() {
    let (folder, authority) = (Folder::new(), Authority::new());
    let leaf = authority.leaf(&["localhost"]);
    let file = |text: &str| shown(&folder.write("file.pem", text));
    let good = shown(&folder.write("good.pem", &leaf.cert));
    let cert = |text: &str| error(&format!("tls_cert={}", file(text)), true);
    let key = |text: &str| error(&format!("tls_cert={good}&tls_key={}", file(text)), true);
    let ca = |text: &str| error(&format!("tls_ca={}", file(text)), false);
    let missing = error(&format!("tls_cert={}", folder.path("nowhere").display()), true);
    assert!(missing.contains("tls_cert: ") && missing.contains("can be read: No such file"), "{missing}");
    let not_a_file = error(&format!("tls_ca={}", folder.0.display()), false);
    assert!(not_a_file.contains("not a regular file"), "{not_a_file}");
    assert!(cert("").ends_with("expected certificates in PEM: it is empty"), "{}", cert(""));
    assert!(cert("hello").contains("no line that begins with -----BEGIN"), "{}", cert("hello"));
    assert!(cert(&leaf.key).contains("it holds a private key alone"), "{}", cert(&leaf.key));
    assert!(key(&leaf.cert).contains("it holds certificates alone"), "{}", key(&leaf.cert));
    let torn: String = leaf.cert.lines().take(4).map(|line| format!("{line}\n")).collect();
    assert!(ca(&torn).contains("certificates in PEM: line 4: no -----END CERTIFICATE----- follows"), "{}", ca(&torn));
    let spoilt = leaf.cert.replacen("MII", "M*I", 1);
    assert!(ca(&spoilt).contains("is not base64") && ca(&spoilt).contains("line "), "{}", ca(&spoilt));
    let no_certificate = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    assert!(ca(no_certificate).contains("line 3: the peer's certificate cannot be read"), "{}", ca(no_certificate));
    let encrypted = leaf.key.replace("PRIVATE KEY", "ENCRYPTED PRIVATE KEY");
    assert!(key(&encrypted).contains("the key in it is encrypted"), "{}", key(&encrypted));
    let no_key = "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n";
    assert!(key(no_key).contains("expected an RSA (2048 bits or more), ECDSA"), "{}", key(no_key));
    let other = key(&authority.leaf(&["localhost"]).key);
    assert!(other.starts_with("tls_key: ") && other.contains("good.pem, which has another one"), "{other}");
    let der = rcgen::CertificateParams::new(Vec::new()).unwrap().self_signed(&KeyPair::generate().unwrap()).unwrap();
    std::fs::write(folder.path("file.der"), der.der()).unwrap();
    let der = error(&format!("tls_ca={}", folder.path("file.der").display()), false);
    assert!(der.contains("it is DER"), "{der}");
}

#[test]
fn what_would_come_before_tls_is_refused() {
    let (folder, authority) = (Folder::new(), Authority::new());
    let both = shown(&folder.write("both.pem", &authority.leaf(&["localhost"]).both()));
    let told = error(&format!("tls_cert={both}&proxy_protocol=v2"), true);
    assert!(told.starts_with(r#"proxy_protocol: "v2": expected off"#), "{told}");
}

/// Of the certificate that a client is shown.
fn shows(pair: &Pair) -> Option<String> {
    let (a, b) = UnixStream::pair().unwrap();
    let mut client = End::new(a, pair.client.made.begin(Some("nobody.test")).unwrap());
    let mut server = End::new(b, pair.server.made.begin(None).unwrap());
    assert_eq!((client.shake(), server.shake()), (Ok(false), Ok(false)));
    Some(client.shake().err()?.words.split("but for ").nth(1)?.to_string())
}

#[test]
fn what_has_changed_is_taken_into_use_and_what_is_of_no_use_is_not() {
    let mut pair = Pair::new("", "");
    let mut now = Instant::now();
    let mut later = |tls: &mut Tls| {
        now += LOOK_EVERY;
        tls.look(now);
        (tls.counts.reloads, tls.counts.reload_failures, tls.files_error.clone())
    };
    assert_eq!(later(&mut pair.server), (0, 0, String::new()));
    assert_eq!(shows(&pair).as_deref(), Some("localhost, 127.0.0.1"));
    let second = pair.authority.leaf(&["second.test"]);
    pair.folder.write("both.pem", &second.both());
    assert_eq!(later(&mut pair.server), (1, 0, String::new()));
    assert_eq!(shows(&pair).as_deref(), Some("second.test"));
    // Half of it is written, then nothing, then all.
    pair.folder.write("both.pem", &second.cert);
    let (reloads, failures, why) = later(&mut pair.server);
    assert!((reloads, failures) == (1, 1) && why.contains("it holds certificates alone"), "{why}");
    assert_eq!(shows(&pair).as_deref(), Some("second.test"), "the old one goes on");
    assert_eq!(later(&mut pair.server).1, 1, "one trouble is counted once");
    std::fs::remove_file(pair.folder.path("both.pem")).unwrap();
    let (_, failures, why) = later(&mut pair.server);
    assert!(failures == 2 && why.contains("No such file"), "{why}");
    pair.folder.write("both.pem", &pair.authority.leaf(&["third.test"]).both());
    assert_eq!(later(&mut pair.server), (2, 2, String::new()));
    assert_eq!(shows(&pair).as_deref(), Some("third.test"));
}

#[test]
fn a_link_that_leads_elsewhere_is_a_change_as_in_kubernetes() {
    let (folder, authority) = (Folder::new(), Authority::new());
    for (name, host) in [("..1", "one.test"), ("..2", "two.test")] {
        std::fs::create_dir(folder.path(name)).unwrap();
        let leaf = authority.leaf(&[host]);
        folder.write(&format!("{name}/tls.crt"), &leaf.cert);
        folder.write(&format!("{name}/tls.key"), &leaf.key);
    }
    symlink("..1", folder.path("..data")).unwrap();
    symlink("..data/tls.crt", folder.path("tls.crt")).unwrap();
    symlink("..data/tls.key", folder.path("tls.key")).unwrap();
    let (cert, key) = (shown(&folder.path("tls.crt")), shown(&folder.path("tls.key")));
    let mut server = tls(&format!("tls_cert={cert}&tls_key={key}"), true).unwrap();
    let now = Instant::now();
    server.look(now);
    symlink("..2", folder.path("..new")).unwrap();
    std::fs::rename(folder.path("..new"), folder.path("..data")).unwrap();
    server.look(now + LOOK_EVERY / 2);
    assert_eq!(server.counts.reloads, 0, "it is not looked at all the time");
    server.look(now + LOOK_EVERY);
    assert_eq!((server.counts.reloads, server.files_error.as_str()), (1, ""));
    let ca = folder.write("ca.pem", &authority.pem());
    let client = tls(&format!("tls_ca={}", ca.display()), false).unwrap();
    let pair = Pair { folder, authority, server, client };
    assert!(pair.shake("two.test").is_ok());
}

#[test]
fn a_service_learns_of_other_roots_and_resumes_nothing_that_the_old_ones_vouched_for() {
    let mut pair = Pair::new("", "");
    for _ in 0..2 {
        let (mut client, mut server) = pair.shake("localhost").ok().unwrap();
        server.write(b"x").unwrap();
        client.drain();
    }
    pair.folder.write("ca.pem", &Authority::new().pem());
    pair.client.look(Instant::now());
    assert_eq!(pair.client.counts.reloads, 1);
    let (client, _) = pair.shake("localhost").err().unwrap();
    assert!(client.unwrap().words.contains("issued by nobody whom we believe"));
}
