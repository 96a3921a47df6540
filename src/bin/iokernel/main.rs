//! `iokernel`: asks the admin endpoints of running kernels, and shows the answers to people.
//!
//! | file | what it is for |
//! |---|---|
//! | `args` | the words after `iokernel` |
//! | `target`, `find` | which kernel is meant, and where it listens |
//! | `http` | the question and the answer |
//! | `cells` | counters read from the memory of a process that cannot be asked |
//! | `show`, `table`, `words` | an answer as lines of text |
//! | `top`, `frame`, `terminal` | the live view: looking, drawing, and the terminal it is drawn on |
//!
//! It knows nothing of the library but its answers and the shape of areas, so that it can ask kernels of other versions.
#![forbid(unsafe_code)]

mod args;
mod cells;
mod fault;
mod find;
mod frame;
mod http;
mod show;
mod table;
mod target;
mod terminal;
mod top;
mod words;

use std::io::Write;
use std::process::ExitCode;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use clap::ArgMatches;
use serde_json::{Value, json};

use self::fault::{Fault, UNHEALTHY};
use self::show::Line;
use self::target::{Address, Target};

fn main() -> ExitCode {
    let given = match args::command().try_get_matches() {
        Ok(given) => given,
        // Help and the version are fine; the rest is wrong usage, status 2.
        Err(error) => error.exit(),
    };
    let Some((name, given)) = given.subcommand() else { return ExitCode::from(fault::USAGE) };
    match run(name, given) {
        Ok(status) => ExitCode::from(status),
        Err(fault) => {
            eprintln!("iokernel: {fault}");
            ExitCode::from(fault.status)
        }
    }
}

fn run(name: &str, given: &ArgMatches) -> Result<u8, Fault> {
    match name {
        "completion" => completion(&args::value::<String>(given, "shell")),
        "list" => list(&Asking::of(given)?),
        "top" => top::run(&Asking::of(given)?, args::value(given, "interval"), given.get_flag("once")),
        "health" => health(&Asking::of(given)?),
        "metrics" => metrics(&Asking::of(given)?, given.get_flag("openmetrics")),
        "requests" => {
            let asking = Asking::of(given)?;
            asking.show(&requests_path(given), show::requests)
        }
        "slow" => {
            let path = format!("/slow?limit={}", args::value::<u32>(given, "limit"));
            Asking::of(given)?.show(&path, |answer, width| show::slow(answer, wall_s(), width))
        }
        "stack" => {
            let path = if given.get_flag("threads") { "/stack?threads=all" } else { "/stack" };
            Asking::of(given)?.show(path, show::stack)
        }
        _ => Asking::of(given)?.show("/state", show::state),
    }
}

fn requests_path(given: &ArgMatches) -> String {
    let mut path = format!("/requests?limit={}", args::value::<u32>(given, "limit"));
    if let Some(endpoint) = given.get_one::<u32>("endpoint") {
        path.push_str(&format!("&endpoint={endpoint}"));
    }
    if given.get_flag("arguments") {
        path.push_str("&arguments=true");
    }
    path
}

fn wall_s() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64())
}

/// What every command about kernels was given.
#[derive(Clone, Debug)]
pub struct Asking {
    pub target: Target,
    pub timeout: Duration,
    pub json: bool,
}

impl Asking {
    fn of(given: &ArgMatches) -> Result<Self, Fault> {
        let target = given.try_get_one::<String>("target").ok().flatten();
        Ok(Asking {
            target: Target::parse(target.map(String::as_str))?,
            timeout: args::value(given, "timeout"),
            json: given.get_flag("json"),
        })
    }

    pub fn locate(&self) -> Result<Address, Fault> {
        find::locate(&self.target, self.timeout)
    }

    /// An answer, whatever its status.
    fn ask(&self, address: &Address, path: &str, accept: &str) -> Result<http::Answer, Fault> {
        http::get(address, path, accept, self.timeout).map_err(|error| self.unanswered(address, path, &error))
    }

    fn unanswered(&self, address: &Address, path: &str, error: &std::io::Error) -> Fault {
        use std::io::ErrorKind;
        let way_out = match error.kind() {
            ErrorKind::NotFound => "expected the socket of a kernel with an admin endpoint: `iokernel list` shows them",
            ErrorKind::ConnectionRefused => {
                "nobody listens there: has the program ended? `iokernel list` shows who does"
            }
            ErrorKind::PermissionDenied => "the socket is its owner's alone: run as the program's user",
            ErrorKind::TimedOut => "is it a kernel's admin endpoint? --timeout allows for more",
            _ => "expected the admin endpoint of a kernel",
        };
        Fault::no_answer(format!("{address}: asked for {path}, for at most {:?}: {error}; {way_out}", self.timeout))
    }

    /// An answer that is fine.
    fn fetch(&self, address: &Address, path: &str, accept: &str) -> Result<Vec<u8>, Fault> {
        let answer = self.ask(address, path, accept)?;
        match answer.status {
            200 => Ok(answer.body),
            status => Err(Fault::no_answer(format!(
                "{address}: {path} was answered with status {status}: {}",
                words::clean(words::cut(String::from_utf8_lossy(&answer.body).trim(), 500).as_str())
            ))),
        }
    }

    pub fn fetch_json(&self, address: &Address, path: &str) -> Result<Value, Fault> {
        let body = self.fetch(address, path, "")?;
        serde_json::from_slice(&body).map_err(|error| {
            Fault::no_answer(format!("{address}: {path} was answered with something else than JSON: {error}"))
        })
    }

    fn show(&self, path: &str, lines: impl Fn(&Value, usize) -> Vec<Line>) -> Result<u8, Fault> {
        let address = self.locate()?;
        if self.json {
            return print(&self.fetch(&address, path, "")?);
        }
        print_lines(&lines(&self.fetch_json(&address, path)?, terminal::width()))
    }
}

fn completion(shell: &str) -> Result<u8, Fault> {
    let mut script = Vec::new();
    clap_complete::generate(args::shell(shell), &mut args::command(), "iokernel", &mut script);
    print(&script)
}

fn list(asking: &Asking) -> Result<u8, Fault> {
    let survey = find::everywhere(asking.timeout);
    if asking.json {
        let kernel = |one: &find::Kernel| json!({ "pid": one.pid, "name": one.name, "address": one.address.to_string(), "kernel": one.state["kernel"] });
        let kernels: Vec<Value> = survey.kernels.iter().map(kernel).collect();
        print(format!("{:#}\n", json!({ "kernels": kernels })).as_bytes())?;
    }
    if survey.kernels.is_empty() {
        return Err(Fault::no_answer(find::nothing(&Target::Only, &survey)));
    }
    if asking.json { Ok(0) } else { print_lines(&show::kernels(&survey, terminal::width())) }
}

fn metrics(asking: &Asking, openmetrics: bool) -> Result<u8, Fault> {
    if asking.json {
        return Err(Fault::usage("metrics: --json: expected without, because metrics are text in Prometheus' format"));
    }
    let accept = if openmetrics { "application/openmetrics-text; version=1.0.0" } else { "" };
    match asking.locate() {
        Ok(address) => print(&asking.fetch(&address, "/metrics", accept)?),
        // Nobody to ask: what is counted can be read all the same.
        Err(fault) => print(cells::text(&asking.target, openmetrics).ok_or(fault)?.as_bytes()),
    }
}

/// Both questions that a supervisor asks. Status 1 if either is answered with an error.
fn health(asking: &Asking) -> Result<u8, Fault> {
    let address = asking.locate()?;
    let [works, ready] = ["/healthz", "/readyz"].map(|path| asking.ask(&address, path, ""));
    let (works, ready) = (works?, ready?);
    let status = if works.status == 200 && ready.status == 200 { 0 } else { UNHEALTHY };
    if asking.json {
        let both = json!({ "healthz": body_of(&works), "readyz": body_of(&ready) });
        print(format!("{both:#}\n").as_bytes())?;
    } else {
        print_lines(&show::health(&works, &ready))?;
    }
    Ok(status)
}

/// JSON as it is, other text as a string.
pub fn body_of(answer: &http::Answer) -> Value {
    serde_json::from_slice(&answer.body)
        .unwrap_or_else(|_| String::from_utf8_lossy(&answer.body).trim_end().to_owned().into())
}

fn print_lines(lines: &[Line]) -> Result<u8, Fault> {
    print(terminal::painted(lines, terminal::has_colour()).as_bytes())
}

/// Whoever reads us may stop reading at any time: `| head`.
pub fn print(bytes: &[u8]) -> Result<u8, Fault> {
    let mut out = std::io::stdout().lock();
    match out.write_all(bytes).and_then(|()| out.flush()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            Err(Fault::no_answer(format!("standard output: {error}")))
        }
        _ => Ok(0),
    }
}
