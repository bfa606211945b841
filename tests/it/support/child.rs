//! Scenarios that need a process of their own: this test binary runs itself again.

use std::process::{Command, Output, Stdio};

const VARIABLE: &str = "GREENTHREAD_SCENARIO";

/// What became of a child.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) ok: bool,
    /// The signal that ended it.
    pub(crate) signal: Option<i32>,
    pub(crate) stderr: String,
}

impl From<Output> for Ended {
    fn from(output: Output) -> Ended {
        use std::os::unix::process::ExitStatusExt;
        Ended {
            ok: output.status.success(),
            signal: output.status.signal(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }
}

/// What the test binary needs to run [`entry`] only.
pub(crate) const ARGS: [&str; 4] = ["support::child::entry", "--exact", "--nocapture", "--test-threads=2"];

fn finish(mut command: Command, scenario: &str) -> Ended {
    command.env(VARIABLE, scenario).env_remove("RUST_BACKTRACE");
    command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command.output().expect("the test binary runs again").into()
}

/// The name by which the test harness knows the test `name` of a module, whose `module_path!()` this is.
pub(crate) fn test_name(module: &str, name: &str) -> String {
    let (_, module) = module.split_once("::").expect("a module of the test binary");
    format!("{module}::{name}")
}

/// Runs a scenario in a process of its own.
pub(crate) fn run(scenario: &str) -> Ended {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(ARGS);
    finish(command, scenario)
}

/// The same with a variable in its environment.
pub(crate) fn run_with_variable(scenario: &str, name: &str, value: &str) -> Ended {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(ARGS).env(name, value);
    finish(command, scenario)
}

/// The same with at most `kib` KiB of address space.
pub(crate) fn run_with_memory(scenario: &str, kib: usize) -> Ended {
    let mut command = Command::new("bash");
    command.args(["-c", &format!("ulimit -v {kib} && ulimit -c 0 && exec \"$0\" \"$@\"")]);
    command.arg(std::env::current_exe().unwrap()).args(ARGS);
    finish(command, scenario)
}

/// Where the children begin; for a parent there is nothing to do.
#[test]
fn entry() {
    let Ok(scenario) = std::env::var(VARIABLE) else {
        return;
    };
    match &*scenario {
        "no_memory" => crate::thread::builder::no_memory(),
        "hubs_new" => crate::hub::several::new_killed_anywhere(),
        "scoped panic" => crate::thread::scope_handle::a_child_panics(),
        "a socket" => crate::hub::turn::one_byte_through_a_socket(),
        #[cfg(not(target_env = "musl"))]
        "many lives" => crate::thread::isolation::many_lives(),
        #[cfg(not(target_env = "musl"))]
        "many results" => crate::thread::isolation::many_results(),
        #[cfg(not(target_env = "musl"))]
        "many states" => crate::thread::isolation::many_states(),
        #[cfg(not(target_env = "musl"))]
        "stop" => crate::thread::isolation::stop(),
        #[cfg(not(target_env = "musl"))]
        #[cfg(not(feature = "sanitizer"))]
        "unknown glibc" => crate::thread::unknown_glibc::child(),
        "process descriptors" => crate::process::wait::no_descriptor_is_left(),
        "drops under locks" => crate::hub::drops::under_locks(),
        "drops without memory" => crate::hub::drops::without_memory(),
        "one descriptor twice" => crate::io::double::all(),
        "trimmed" => crate::thread::memory::trimmed(),
        "idle" => crate::thread::memory::idle(),
        "stale" => crate::thread::memory::stale(),
        "panics" => crate::thread::memory::panics(),
        "silent" => crate::thread::memory::silent(),
        "late" => crate::thread::memory::late(),
        "return" => {}
        other => crate::thread::overflow::scenario(other),
    }
}

#[test]
fn the_harness_tells_success_from_failure() {
    let fine = run("return");
    assert!(fine.ok && fine.signal.is_none(), "{fine:?}");
    let bad = run("no such scenario");
    assert!(!bad.ok && bad.stderr.contains("no such scenario"), "{bad:?}");
}
