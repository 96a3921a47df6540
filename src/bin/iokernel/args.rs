//! What may be written after `iokernel`, and what it says when it cannot be read.

use std::time::Duration;

use clap::{Arg, ArgAction, ArgMatches, Command, ValueHint, value_parser};
use clap_complete::Shell;

const ABOUT: &str = "Asks running kernels what they do: also while their programs hang, because the I/O thread answers";

const AFTER: &str = "\
TARGET is one of
  /run/web.sock, unix:web.sock    the admin endpoint's socket
  unix:@name, @name               the same in Linux's abstract namespace
  127.0.0.1:9901, [::1]:9901      the same over TCP
  4711                            the pid of a program with one kernel
  web-1, name:4711                a kernel's name
  nothing                         the only kernel that is found
Kernels are found by pid and name among the processes that you may look into, if they were
opened with an admin endpoint: Kernel(admin=\"auto\"), admin=\"unix:/path\", admin=\"host:port\".

Exit status
  0  fine
  1  health: the kernel's program is busy for too long, or a required endpoint is missing
  2  wrong usage, or more than one kernel is meant
  3  no such kernel, no answer in time, or an answer that is an error";

pub fn command() -> Command {
    Command::new("iokernel")
        .version(env!("CARGO_PKG_VERSION"))
        .about(ABOUT)
        .after_help(AFTER)
        .subcommand_required(true)
        .arg_required_else_help(false)
        .disable_help_subcommand(true)
        .arg(
            Arg::new("timeout")
                .long("timeout")
                .global(true)
                .value_name("TIME")
                .default_value("2s")
                .value_parser(time)
                .help("How long an answer may take: 500ms, 2s, 1m"),
        )
        .arg(
            Arg::new("json")
                .long("json")
                .global(true)
                .action(ArgAction::SetTrue)
                .help("The answer as the kernel gave it, in JSON"),
        )
        .subcommand(top())
        .subcommand(
            about("requests", "Requests in flight, the oldest first")
                .arg(limit())
                .arg(
                    Arg::new("endpoint")
                        .long("endpoint")
                        .value_name("NUMBER")
                        .value_parser(value_parser!(u32))
                        .help("Only of this endpoint, by its number in `iokernel state`"),
                )
                .arg(
                    Arg::new("arguments")
                        .long("arguments")
                        .action(ArgAction::SetTrue)
                        .help("With the commands' arguments, without what is secret"),
                ),
        )
        .subcommand(
            about("stack", "Where the program's main thread is at this moment")
                .arg(Arg::new("threads").long("threads").action(ArgAction::SetTrue).help("Where all its threads are")),
        )
        .subcommand(about("metrics", "All counters, as Prometheus reads them").arg(
            Arg::new("openmetrics").long("openmetrics").action(ArgAction::SetTrue).help("In the format of OpenMetrics"),
        ))
        .subcommand(about("health", "Whether the program does its work and has what it needs"))
        .subcommand(about("state", "The kernel, its endpoints, their peers, and channels"))
        .subcommand(about("slow", "Requests that took longer than their endpoint's limit").arg(limit()))
        .subcommand(Command::new("list").about("All kernels that are found on this machine"))
        .subcommand(
            Command::new("completion").about("A script that completes this command's words in your shell").arg(
                Arg::new("shell")
                    .value_name("SHELL")
                    .required(true)
                    .value_parser(["bash", "zsh", "fish"])
                    .help("source <(iokernel completion bash)"),
            ),
        )
}

/// A subcommand about one kernel.
fn about(name: &'static str, about: &'static str) -> Command {
    Command::new(name).about(about).arg(
        Arg::new("target")
            .value_name("TARGET")
            .value_hint(ValueHint::AnyPath)
            .help("Which kernel; see `iokernel --help`"),
    )
}

fn top() -> Command {
    about("top", "A live view: endpoints, peers, requests in flight, the main thread")
        .after_help("Keys: r requests, s stack, o or Esc overview, q quit")
        .arg(
            Arg::new("interval")
                .long("interval")
                .value_name("TIME")
                .default_value("1s")
                .value_parser(time)
                .help("From one look to the next"),
        )
        .arg(
            Arg::new("once")
                .long("once")
                .action(ArgAction::SetTrue)
                .help("One frame, with rates over one interval; without a terminal it is so anyway"),
        )
}

fn limit() -> Arg {
    Arg::new("limit")
        .long("limit")
        .value_name("COUNT")
        .default_value("100")
        .value_parser(value_parser!(u32).range(1..))
        .help("At most so many")
}

/// The value of an argument with a default or that is required.
pub fn value<T: Clone + Send + Sync + 'static>(given: &ArgMatches, name: &str) -> T {
    given.get_one::<T>(name).cloned().expect("clap has a value for it")
}

/// The shell of one of the words above.
pub fn shell(word: &str) -> Shell {
    match word {
        "zsh" => Shell::Zsh,
        "fish" => Shell::Fish,
        _ => Shell::Bash,
    }
}

/// `500ms`, `2s`, `1m`. A bare number is refused, so that nobody wonders about its unit.
fn time(text: &str) -> Result<Duration, String> {
    let units = [("ms", 0.001), ("s", 1.0), ("m", 60.0)];
    let read = |(unit, seconds): (&str, f64)| Some(text.strip_suffix(unit)?.parse::<f64>().ok()? * seconds);
    let found = units.into_iter().find_map(read).and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    found
        .filter(|time| (Duration::from_millis(10)..=Duration::from_secs(3600)).contains(time))
        .ok_or_else(|| "expected a time from 10ms to 60m, such as 500ms, 2s or 1m".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_description_holds_together() {
        command().debug_assert();
    }

    #[test]
    fn times_have_units_and_bounds() {
        assert_eq!(time("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(time("1.5s"), Ok(Duration::from_millis(1500)));
        for text in ["2", "", "s", "-1s", "1ms", "61m", "1h", "infs", "NaNs"] {
            assert!(time(text).is_err(), "{text}");
        }
    }

    #[test]
    fn options_stand_before_and_after_the_target() {
        for line in ["iokernel --json --timeout 1s requests web", "iokernel requests web --timeout 1s --json"] {
            let given = command().try_get_matches_from(line.split(' ')).unwrap();
            let (name, given) = given.subcommand().unwrap();
            assert_eq!(name, "requests");
            assert!(given.get_flag("json"));
            assert_eq!(value::<Duration>(given, "timeout"), Duration::from_secs(1));
            assert_eq!(value::<String>(given, "target"), "web");
        }
    }
}
