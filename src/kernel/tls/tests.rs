//! Sessions of both sides over a pair of sockets, with certificates that are made here.

mod certificates;
mod files;
mod sessions;
mod storm;

use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair, date_time_ymd,
};

use super::words::Failure;
use super::*;
use crate::kernel::dial::Stream;
use crate::kernel::line::{Got, Line};
use crate::sys::owned::Owned;

pub const SCRATCH_BYTES: usize = 256 << 10;

fn next_number() -> u32 {
    static NUMBERS: AtomicU32 = AtomicU32::new(0);
    NUMBERS.fetch_add(1, Ordering::Relaxed)
}

/// A folder that goes with it.
pub struct Folder(PathBuf);

impl Folder {
    pub fn new() -> Self {
        let path = std::env::temp_dir().join(format!("iokernel-tls-{}-{}", std::process::id(), next_number()));
        std::fs::create_dir_all(&path).unwrap();
        Folder(path)
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    pub fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.path(name);
        std::fs::write(&path, text).unwrap();
        path
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// A throw-away authority.
pub struct Authority(CertifiedIssuer<'static, KeyPair>);

/// A chain and its key, as PEM.
pub struct Leaf {
    pub cert: String,
    pub key: String,
}

impl Leaf {
    pub fn both(&self) -> String {
        format!("{}{}", self.cert, self.key)
    }
}

pub fn parameters(names: &[&str]) -> CertificateParams {
    let names: Vec<String> = names.iter().map(|name| name.to_string()).collect();
    let mut parameters = CertificateParams::new(names).unwrap();
    parameters.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    parameters
}

impl Authority {
    pub fn new() -> Self {
        let mut parameters = CertificateParams::new(Vec::new()).unwrap();
        parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        // Another of the same name would be taken for this one, by mistake.
        let name = format!("authority {}", next_number());
        parameters.distinguished_name.push(DnType::CommonName, name);
        Authority(CertifiedIssuer::self_signed(parameters, KeyPair::generate().unwrap()).unwrap())
    }

    pub fn pem(&self) -> String {
        self.0.pem()
    }

    pub fn issue(&self, parameters: &CertificateParams) -> Leaf {
        let key = KeyPair::generate().unwrap();
        Leaf { cert: parameters.signed_by(&key, &self.0).unwrap().pem(), key: key.serialize_pem() }
    }

    pub fn leaf(&self, names: &[&str]) -> Leaf {
        self.issue(&parameters(names))
    }

    pub fn expired(&self, names: &[&str]) -> Leaf {
        let mut parameters = parameters(names);
        (parameters.not_before, parameters.not_after) = (date_time_ymd(2020, 1, 1), date_time_ymd(2021, 2, 3));
        self.issue(&parameters)
    }
}

/// An endpoint's TLS, of a URL's query.
pub fn tls(query: &str, listener: bool) -> Result<Box<Tls>, ConfigError> {
    let mut url = Url::parse(&format!("secure://localhost?{query}"), |_| Some(1)).unwrap();
    let scheme = Scheme { name: "secure", tls: true, alpn: &[b"one", b"two"], ..crate::proto::TABLE[0] };
    let tls = Tls::take(&mut url, &scheme, listener)?;
    url.options.finish()?;
    Ok(tls.expect("a scheme with TLS"))
}

/// What a test has of both sides: an authority, a listener that it vouches for, and a service that believes it.
pub struct Pair {
    pub folder: Folder,
    pub authority: Authority,
    pub server: Box<Tls>,
    pub client: Box<Tls>,
}

impl Pair {
    pub fn new(server: &str, client: &str) -> Self {
        let (folder, authority) = (Folder::new(), Authority::new());
        let ca = folder.write("ca.pem", &authority.pem());
        let both = folder.write("both.pem", &authority.leaf(&["localhost", "127.0.0.1"]).both());
        let server = tls(&format!("tls_cert={}{server}", both.display()), true).unwrap();
        let client = tls(&format!("tls_ca={}{client}", ca.display()), false).unwrap();
        Pair { folder, authority, server, client }
    }

    /// Both ends of a conn before anything was said.
    pub fn begin(&self, name: &str) -> (End, End) {
        let (a, b) = UnixStream::pair().unwrap();
        (End::new(a, self.client.made.begin(Some(name)).unwrap()), End::new(b, self.server.made.begin(None).unwrap()))
    }

    pub fn shake(&self, name: &str) -> Result<(End, End), (Option<Failure>, Option<Failure>)> {
        let (mut client, mut server) = self.begin(name);
        let (mut done, mut failed) = ([false; 2], [None, None]);
        for turn in 0..20 {
            let (at, end) = if turn % 2 == 0 { (0, &mut client) } else { (1, &mut server) };
            if failed[at].is_some() {
                continue;
            }
            match end.shake() {
                Ok(finished) => done[at] = finished,
                Err(failure) => failed[at] = Some(failure),
            }
        }
        match (done, &failed) {
            ([true, true], [None, None]) => Ok((client, server)),
            _ => {
                let [client, server] = failed;
                Err((client, server))
            }
        }
    }
}

/// One end of a conn.
pub struct End {
    pub socket: Stream,
    pub session: Session,
    scratch: Vec<u8>,
}

pub fn stream(socket: UnixStream) -> Stream {
    socket.set_nonblocking(true).unwrap();
    Stream::Unix(Owned::make(|| Ok(mio::net::UnixStream::from_std(socket))).unwrap())
}

impl End {
    pub fn new(socket: UnixStream, session: Session) -> Self {
        End { socket: stream(socket), session, scratch: vec![0; SCRATCH_BYTES] }
    }

    pub fn shake(&mut self) -> Result<bool, Failure> {
        self.session.shake(&mut self.socket, &mut self.scratch)
    }

    /// What comes next: some bytes, or the end.
    pub fn read(&mut self) -> std::io::Result<(Got, Vec<u8>)> {
        loop {
            let got = self.session.read(&mut self.socket, &mut self.scratch)?;
            if got.bytes > 0 || got.closed {
                return Ok((got, self.scratch[..got.bytes].to_vec()));
            }
        }
    }

    /// Everything that has come.
    pub fn drain(&mut self) -> Vec<u8> {
        let mut all = Vec::new();
        while let Ok((Got { closed: false, .. }, bytes)) = self.read() {
            all.extend(bytes);
        }
        all
    }

    pub fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.session.write(&mut self.socket, bytes)
    }

    pub fn into_line(self) -> Line {
        Line::secure(self.socket, self.session)
    }
}

pub fn shown(path: &Path) -> String {
    path.display().to_string()
}
