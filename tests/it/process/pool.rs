//! Pools of processes: this test binary is its own worker, by the test `worker`, and its own parent that dies.

use std::ffi::OsStr;
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use greenthread::processpool::{Builder, Functions, ProcessPool, Workers};
use greenthread::threadpool::{PoolFuture, ShutDown};
use greenthread::{sleep, spawn};

use crate::support::child::test_name;
use crate::support::fresh::{fresh, ms, text};

const PARENT: &str = "GREENTHREAD_POOL_PARENT";

fn id(_: ()) -> u32 {
    std::process::id()
}

fn mixed((text, bytes, n): (String, Vec<u8>, Option<u128>)) -> (usize, String, f64) {
    (bytes.len(), text.to_uppercase(), n.map_or(0.5, |n| n as f64))
}

fn large(bytes: usize) -> Vec<u8> {
    vec![7; bytes]
}

fn panics(n: u32) -> u32 {
    panic!("number {n}")
}

fn exits(code: i32) {
    std::process::exit(code)
}

fn sleeps(file: PathBuf) {
    std::fs::write(file, std::process::id().to_string()).unwrap();
    std::thread::sleep(Duration::from_secs(600));
}

/// Dies, but leaves a process that has all its descriptors.
fn leaves_a_child(_: ()) {
    // SAFETY: the child calls nothing but what a forked child may.
    unsafe {
        if libc::fork() == 0 {
            libc::sleep(20);
            libc::_exit(0);
        }
    }
    std::process::abort();
}

fn path(valid: bool) -> PathBuf {
    PathBuf::from(OsStr::from_bytes(if valid { b"a" } else { b"\xff" }))
}

fn echo(path: PathBuf) -> PathBuf {
    path
}

fn speaks(text: String) -> usize {
    println!("{text}");
    std::io::stdin().read(&mut [0; 8]).unwrap()
}

fn green(n: u64) -> u64 {
    let parts = (0..n).map(|n| {
        spawn(move || {
            sleep(ms(1));
            n
        })
    });
    greenthread::thread::join_all(parts)
        .into_iter()
        .map(Result::unwrap)
        .sum()
}

fn functions() -> Functions {
    let all = Functions::new()
        .with(id)
        .with(mixed)
        .with(large)
        .with(panics)
        .with(exits);
    all.with(sleeps)
        .with(leaves_a_child)
        .with(path)
        .with(echo)
        .with(speaks)
        .with(green)
}

/// Where the workers begin; else there is nothing to do.
#[test]
fn worker() {
    functions().serve();
}

/// One that has other functions.
#[test]
fn other_worker() {
    Functions::new().with(id).serve();
}

fn builder(entry: &str) -> Builder {
    let workers: Workers = functions().serve();
    let entry = test_name(module_path!(), entry);
    Builder::new(&workers).args([entry.as_str(), "--exact", "--nocapture", "--test-threads=1", "-q"])
}

fn pool(processes: usize) -> ProcessPool {
    builder("worker").processes(processes).build()
}

fn kill(process: u32) {
    // SAFETY: a plain system call; the process is a worker of this test's.
    assert_eq!(unsafe { libc::kill(process.cast_signed(), libc::SIGKILL) }, 0);
}

/// Whether it is there, and has not ended: all of its OS threads, as its first is told to have ended before the others
/// have.
fn lives(process: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat"));
    let runs = stat.is_ok_and(|stat| !stat.rsplit(')').next().unwrap().starts_with(" Z"));
    runs || std::fs::read_dir(format!("/proc/{process}/task")).is_ok_and(|threads| threads.count() > 1)
}

/// A file that a worker writes its number to.
fn note(name: &str) -> PathBuf {
    std::env::temp_dir().join(format!("greenthread-pool-{name}-{}", std::process::id()))
}

fn read_note(file: &PathBuf) -> u32 {
    loop {
        let text = std::fs::read_to_string(file).unwrap_or_default();
        if let Ok(id) = text.parse() {
            std::fs::remove_file(file).unwrap();
            return id;
        }
        sleep(ms(2));
    }
}

#[test]
fn values_come_back_in_order_from_other_processes() {
    fresh(|| {
        let pool = pool(2);
        let argument = (String::from("abc"), vec![1; 3_000_000], Some(1 << 100));
        assert_eq!(
            pool.submit(mixed, argument).unwrap().wait().unwrap(),
            (3_000_000, String::from("ABC"), (1_u128 << 100) as f64)
        );
        let sizes = pool
            .map([5_000_000, 0, 1], large)
            .unwrap()
            .map(|value| value.unwrap().len());
        assert_eq!(sizes.collect::<Vec<_>>(), [5_000_000, 0, 1]);
        assert_eq!(pool.submit(green, 10).unwrap().wait().unwrap(), 45);
        let ids: Vec<_> = pool.map([(); 6], id).unwrap().map(Result::unwrap).collect();
        assert!(ids.iter().all(|id| *id != std::process::id() && lives(*id)), "{ids:?}");
        pool.shutdown(true, false);
        assert!(ids.iter().all(|id| !lives(*id)), "they have ended");
        assert_eq!(pool.submit(id, ()).unwrap_err(), ShutDown);
    });
}

#[test]
fn a_panic_is_an_error_with_its_text_and_the_worker_lives_on() {
    fresh(|| {
        let pool = pool(1);
        let before = pool.submit(id, ()).unwrap().wait().unwrap();
        let error = pool.submit(panics, 5).unwrap().wait().unwrap_err();
        assert_eq!(error.to_string(), "the job panicked: number 5");
        assert_eq!(text(&*error.into_panic()), "number 5");
        assert_eq!(pool.submit(id, ()).unwrap().wait().unwrap(), before);
    });
}

#[test]
fn a_worker_that_dies_fails_its_own_job_and_no_other() {
    fresh(|| {
        let pool = pool(1);
        let before = pool.submit(id, ()).unwrap().wait().unwrap();
        let file = note("killed");
        let victim = pool.submit(sleeps, file.clone()).unwrap();
        let behind = pool.submit(id, ()).unwrap();
        let process = read_note(&file);
        assert_eq!(process, before);
        kill(process);
        let error = victim.wait().unwrap_err();
        assert!(error.is_broken());
        let told = error.to_string();
        assert!(
            told.contains("signal: 9") && told.ends_with("it::process::pool::sleeps"),
            "{told}"
        );
        let after = behind.wait().unwrap();
        assert_ne!(after, before);
        // One that was killed while it had nothing to do is not missed.
        kill(after);
        while lives(after) {
            sleep(ms(1));
        }
        assert_ne!(pool.submit(id, ()).unwrap().wait().unwrap(), after);
        let error = pool.submit(exits, 3).unwrap().wait().unwrap_err();
        assert!(
            error.is_broken() && error.to_string().contains("exit status: 3"),
            "{error}"
        );
        // Its end of the socket stays open in the child that it leaves.
        let error = pool.submit(leaves_a_child, ()).unwrap().wait().unwrap_err();
        assert!(error.is_broken() && error.to_string().contains("signal: 6"), "{error}");
        assert!(pool.submit(id, ()).unwrap().wait().is_ok());
    });
}

#[test]
fn a_worker_is_replaced_after_so_many_jobs() {
    fresh(|| {
        let pool = builder("worker").processes(1).max_tasks_per_child(2).build();
        let ids: Vec<_> = pool.map([(); 5], id).unwrap().map(Result::unwrap).collect();
        assert!(ids[0] == ids[1] && ids[2] == ids[3], "{ids:?}");
        assert!(ids[1] != ids[2] && ids[3] != ids[4] && ids[4] != ids[0], "{ids:?}");
        drop(pool);
        assert!(ids.iter().all(|id| !lives(*id)));
    });
}

#[test]
fn a_shutdown_cancels_what_has_not_begun() {
    fresh(|| {
        let pool = pool(1);
        let file = note("shut");
        let victim = pool.submit(sleeps, file.clone()).unwrap();
        let behind: Vec<_> = (0..3).map(|_| pool.submit(id, ()).unwrap()).collect();
        let process = read_note(&file);
        pool.shutdown(false, true);
        assert!(
            behind
                .into_iter()
                .map(PoolFuture::wait)
                .all(|result| result.unwrap_err().is_cancelled())
        );
        kill(process);
        assert!(victim.wait().unwrap_err().is_broken());
    });
}

#[test]
fn what_serde_refuses_is_an_error() {
    fresh(|| {
        let pool = pool(1);
        let invalid = path(false);
        assert_eq!(pool.submit(echo, path(true)).unwrap().wait().unwrap(), path(true));
        let error = pool.submit(echo, invalid).unwrap().wait().unwrap_err();
        assert!(
            error.is_encoding() && error.to_string().contains("its argument cannot be"),
            "{error}"
        );
        let error = pool.submit(path, false).unwrap().wait().unwrap_err();
        assert!(
            error.is_encoding() && error.to_string().contains("its value cannot be"),
            "{error}"
        );
        assert!(pool.submit(path, true).unwrap().wait().is_ok());
    });
}

#[test]
fn misuse_is_told() {
    fresh(|| {
        let unknown = |n: u32| n;
        let one = pool(1);
        let panicked = catch_unwind(AssertUnwindSafe(|| one.submit(unknown, 1)));
        assert!(text(&*panicked.unwrap_err()).contains("was not registered"));
        for (entry, says) in [
            ("nobody", "Functions::serve"),
            ("other_worker", "its functions are not those of its parent"),
        ] {
            let error = builder(entry).build().submit(id, ()).unwrap().wait().unwrap_err();
            assert!(error.is_broken() && error.to_string().contains(says), "{error}");
        }
    });
}

/// What `the_workers_of_...` and `a_worker_speaks_...` run in a process of their own.
#[test]
fn parent() {
    let Some(file) = std::env::var_os(PARENT) else { return };
    let pool = pool(1);
    if file.is_empty() {
        assert_eq!(
            pool.submit(speaks, String::from("from the worker"))
                .unwrap()
                .wait()
                .unwrap(),
            0
        );
    } else {
        pool.submit(sleeps, PathBuf::from(file)).unwrap().wait().unwrap();
    }
}

fn as_parent(file: &OsStr) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command
        .args([&*test_name(module_path!(), "parent"), "--exact", "--nocapture"])
        .env(PARENT, file);
    command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null());
    command
}

#[test]
fn the_workers_of_a_killed_parent_end_in_the_middle_of_a_job() {
    fresh(|| {
        let file = note("parent");
        let mut parent = as_parent(file.as_os_str()).spawn().unwrap();
        let worker = read_note(&file);
        assert!(lives(worker));
        parent.kill().unwrap();
        parent.wait().unwrap();
        while lives(worker) {
            sleep(ms(2));
        }
    });
}

#[test]
fn a_worker_speaks_on_the_parents_output_and_has_no_input() {
    fresh(|| {
        let output = as_parent(OsStr::new("")).output().unwrap();
        assert!(output.status.success(), "{output:?}");
        assert!(
            String::from_utf8_lossy(&output.stdout)
                .lines()
                .any(|line| line == "from the worker")
        );
    });
}
