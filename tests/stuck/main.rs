//! `LoopExit` and fork: what can only be seen in a process whose OS threads are all known, so without libtest.
//! Each scenario runs in a child: this binary, run again.

mod ends;
mod fork;
mod late;
mod scarce;

use std::io::{Read, Write};
use std::os::unix::process::ExitStatusExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::{Command, ExitCode, Output, Stdio};
use std::time::{Duration, Instant};

use greenthread::hub::{self, LoopExit};
use greenthread::net::{TcpListener, TcpStream, UnixStream};
use greenthread::sync::Mutex;
use greenthread::sync::queue::Queue;
use greenthread::{sleep, spawn, spawn_local, thread, threadpool, yield_now};

const VARIABLE: &str = "GREENTHREAD_STUCK";

struct Test {
    name: &'static str,
    /// Runs in the child, on its only OS thread.
    child: fn(),
    check: fn(&Output, &str),
}

const TESTS: &[Test] = &[
    Test {
        name: "a_hopeless_join_says_who_waits_for_what_and_where_each_was_spawned",
        child: hopeless_join,
        check: told,
    },
    Test {
        name: "a_caught_loop_exit_leaves_a_hub_that_works",
        child: caught,
        check: succeeds,
    },
    Test {
        name: "a_lock_that_a_caught_loop_exit_left_goes_to_the_next",
        child: locked,
        check: succeeds,
    },
    Test {
        name: "a_loop_exit_while_main_unwinds_leaves_no_doubt_of_who_unwinds_later",
        child: unwinding,
        check: succeeds,
    },
    Test {
        name: "park_and_block_on_of_main_are_told_as_well",
        child: other_verbs,
        check: succeeds,
    },
    Test {
        name: "not_while_another_os_thread_is_busy",
        child: busy_os_thread,
        check: succeeds_silently,
    },
    Test {
        name: "not_while_a_pool_thread_works",
        child: busy_pool,
        check: succeeds_silently,
    },
    Test {
        name: "not_while_an_idle_pool_thread_is_late_for_its_job",
        child: late::pool_thread,
        check: succeeds_silently,
    },
    Test {
        name: "not_while_another_hub_is_late_for_its_message",
        child: late::hub,
        check: succeeds_silently,
    },
    Test {
        name: "not_while_a_timer_or_a_callback_is_due",
        child: timer,
        check: succeeds_silently,
    },
    Test {
        name: "without_os_threads_the_caller_does_it",
        child: scarce::of_os_threads,
        check: succeeds,
    },
    Test {
        name: "in_spite_of_idle_pool_threads",
        child: idle_pool,
        check: succeeds,
    },
    Test {
        name: "in_spite_of_other_hubs_that_are_as_idle",
        child: idle_hubs,
        check: succeeds,
    },
    Test {
        name: "in_spite_of_a_run_forever_that_was_killed",
        child: killed_forever,
        check: succeeds,
    },
    Test {
        name: "not_while_a_descriptor_is_waited_for",
        child: descriptor,
        check: succeeds_silently,
    },
    Test {
        name: "not_while_a_future_waits_for_a_child_or_a_signal",
        child: futures_of_the_world,
        check: succeeds,
    },
    Test {
        name: "not_while_another_os_thread_holds_a_handle",
        child: held_handle,
        check: succeeds_silently,
    },
    #[cfg(panic = "abort")]
    Test {
        name: "without_unwinding_a_killed_block_on_lets_the_others_run",
        child: abort_block_on,
        check: succeeds_silently,
    },
    Test {
        name: "a_scope_that_would_be_left_aborts",
        child: scope,
        check: aborts,
    },
    Test {
        name: "not_under_a_time_out",
        child: timed,
        check: succeeds_silently,
    },
    Test {
        name: "a_forked_child_has_a_fresh_hub_and_none_of_the_green_threads",
        child: fork_on_main,
        check: succeeds_silently,
    },
    Test {
        name: "a_green_thread_that_forks_ends_the_child_when_it_returns",
        child: fork_in_green_thread,
        check: succeeds_silently,
    },
    Test {
        name: "a_pending_spawn_does_not_run_in_the_forked_child",
        child: fork_with_pending,
        check: succeeds_silently,
    },
    Test {
        name: "a_lock_that_is_given_back_in_the_forked_child_goes_to_nobody_of_the_parent",
        child: fork_with_lock,
        check: succeeds_silently,
    },
    Test {
        name: "a_forked_child_sends_nothing_to_the_hubs_of_the_parent",
        child: fork_with_hubs,
        check: succeeds_silently,
    },
    Test {
        name: "a_local_child_of_a_scope_may_exit",
        child: exit_in_scope,
        check: succeeds_silently,
    },
    // The address sanitizer takes the stacks of the parent's OS threads, which the child uses again, for used.
    #[cfg(not(feature = "sanitizer"))]
    Test {
        name: "the_pool_works_in_the_forked_child",
        child: fork_with_pool,
        check: succeeds_silently,
    },
    // The sanitizer's run-time has locks of its own that a fork knows nothing of.
    #[cfg(not(feature = "sanitizer"))]
    Test {
        name: "a_child_that_is_forked_in_the_midst_of_everything_can_use_everything",
        child: fork::while_others_use_everything,
        check: succeeds,
    },
    // Nor does it know the OS threads that a child begins while it is being forked.
    #[cfg(not(feature = "sanitizer"))]
    Test {
        name: "handlers_of_a_fork_can_use_everything",
        child: fork::with_handlers_that_use_this_crate,
        check: succeeds,
    },
    Test {
        name: "a_listener_to_signals_works_on_both_sides_of_a_fork",
        child: fork::with_a_listener_on_both_sides,
        check: succeeds_silently,
    },
    Test {
        name: "the_end_of_main_ends_the_children_of_a_scope_in_good_order",
        child: ends::scope_child_that_ends,
        check: succeeds_silently,
    },
    Test {
        name: "the_end_of_main_names_the_child_of_a_scope_that_will_not_end",
        child: ends::scope_child_that_does_not,
        check: ends::named,
    },
    Test {
        name: "a_full_stderr_keeps_no_hub_and_what_was_left_out_is_counted",
        child: ends::full_stderr,
        check: succeeds,
    },
    Test {
        name: "a_flood_of_one_kind_is_cut_and_counted_and_no_other_kind_suffers",
        child: ends::flood,
        check: ends::cut,
    },
    Test {
        name: "panics_written_aside_read_as_std_writes_them",
        child: ends::panics_aside,
        check: ends::panics_read,
    },
    Test {
        name: "sockets_work_on_both_sides_of_a_fork",
        child: fork_with_sockets,
        check: succeeds_silently,
    },
];

const fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

// What the parent checks.

fn succeeds(out: &Output, stderr: &str) {
    assert!(out.status.success(), "{:?}: {stderr}", out.status);
}

fn succeeds_silently(out: &Output, stderr: &str) {
    succeeds(out, stderr);
    assert_eq!(stderr, "");
}

fn aborts(out: &Output, stderr: &str) {
    assert_eq!(out.status.signal(), Some(libc::SIGABRT), "{stderr}");
    assert!(stderr.contains("block forever") && stderr.contains("scope"), "{stderr}");
}

fn told(out: &Output, stderr: &str) {
    assert_eq!(out.status.code(), Some(101), "{stderr}");
    assert!(stderr.contains("this operation would block forever"), "{stderr}");
    assert!(
        stderr.contains("native stack, which waits for the end of green thread"),
        "{stderr}"
    );
    let line = |who: &str| {
        let line = stderr.lines().find(|line| line.contains(who));
        line.unwrap_or_else(|| panic!("no {who} in {stderr}"))
    };
    assert!(
        line(" 'waiter' ").contains("waits for unpark, spawned at tests/stuck/main.rs:"),
        "{stderr}"
    );
    assert!(
        line(" 'joiner' ").contains("waits for the end of green thread"),
        "{stderr}"
    );
}

// What the children do.

fn named<T: Send + 'static>(name: &str, f: impl FnOnce() -> T + Send + 'static) -> greenthread::JoinHandle<T> {
    thread::Builder::new().name(name).spawn(f).unwrap()
}

fn hopeless_join() {
    let waiter = named("waiter", thread::park);
    let joiner = named("joiner", move || waiter.join().is_ok());
    let _ = joiner.join();
}

/// What `f` blocks for ever with.
fn loop_exit<T>(f: impl FnOnce() -> T) -> LoopExit {
    let payload = match catch_unwind(AssertUnwindSafe(f)) {
        Ok(_) => panic!("it returned"),
        Err(payload) => payload,
    };
    *payload.downcast::<LoopExit>().expect("the payload is a LoopExit")
}

fn locked() {
    let mutex = std::rc::Rc::new(greenthread::sync::Mutex::new(()));
    let theirs = mutex.clone();
    let holder = spawn_local(move || {
        let _held = theirs.lock().unwrap();
        thread::park();
    });
    yield_now();
    loop_exit(|| drop(mutex.lock()));
    holder.thread().unpark();
    holder.join().unwrap();
    assert!(mutex.try_lock().is_ok(), "main is in its line no more");
}

/// A wait that can fail returns at once while its stack unwinds: also after a `LoopExit` out of a wait that could not
/// fail.
fn unwinding() {
    struct Locks<'a>(&'a greenthread::sync::Mutex<()>);
    impl Drop for Locks<'_> {
        fn drop(&mut self) {
            loop_exit(|| drop(self.0.lock()));
        }
    }
    struct Sleeps;
    impl Drop for Sleeps {
        fn drop(&mut self) {
            thread::sleep(Duration::from_secs(3));
        }
    }
    let mutex = greenthread::sync::Mutex::new(());
    let _held = mutex.lock();
    // `resume_unwind` does not call the panic hook.
    let unwinds = || std::panic::resume_unwind(Box::new(()));
    let caught = catch_unwind(AssertUnwindSafe(|| {
        let _locks = Locks(&mutex);
        unwinds()
    }));
    assert!(caught.is_err());
    let start = Instant::now();
    let sleeper = spawn_local(move || {
        let _sleeps = Sleeps;
        unwinds()
    });
    assert!(sleeper.join().is_err());
    assert!(start.elapsed() < Duration::from_secs(2), "{:?}", start.elapsed());
}

fn caught() {
    let waiter = spawn(thread::park);
    let who = waiter.thread();
    for round in 0..3 {
        let other = spawn(thread::park);
        let exit = loop_exit(thread::park);
        assert!(
            exit.to_string().starts_with("this operation would block forever"),
            "{exit}"
        );
        assert_eq!(hub::live(), 2, "round {round}");
        other.kill();
        assert!(other.join().unwrap_err().is_killed());
        assert_eq!(
            spawn(|| {
                sleep(ms(1));
                5
            })
            .join()
            .unwrap(),
            5
        );
    }
    who.unpark();
    waiter.join().unwrap();
}

fn other_verbs() {
    let exit = loop_exit(thread::park);
    assert!(exit.to_string().contains("waits for unpark"), "{exit}");
    let exit = loop_exit(|| Queue::<u8>::unbounded().peek());
    assert!(exit.to_string().contains("an item of a queue (peek)"), "{exit}");
    let exit = loop_exit(|| greenthread::future::block_on(std::future::pending::<()>()));
    assert!(exit.to_string().contains("a future (block_on)"), "{exit}");
}

fn busy_os_thread() {
    let waiter = spawn(thread::park);
    let who = waiter.thread();
    let busy = std::thread::spawn(move || {
        std::thread::sleep(ms(700)); // longer than the hub's patience of 100 ms
        who.unpark();
    });
    waiter.join().unwrap();
    busy.join().unwrap();
}

fn busy_pool() {
    let main = thread::current();
    drop(spawn(move || {
        threadpool::unblock(move || {
            std::thread::sleep(ms(500));
            main.unpark();
        })
    }));
    thread::park();
    let main = thread::current();
    let killed = spawn(move || {
        threadpool::unblock(move || {
            std::thread::sleep(ms(500));
            main.unpark();
        })
    });
    yield_now();
    killed.kill();
    thread::park();
    assert!(killed.join().unwrap_err().is_killed());
}

fn timer() {
    let main = thread::current();
    hub::handle().call_later(ms(300), move || main.unpark()).unwrap();
    thread::park();
    let main = thread::current();
    drop(thread::spawn_after(ms(300), move || main.unpark()));
    thread::park();
    drop(thread::spawn_after(ms(300), hub::stop));
    hub::run_forever();
}

fn killed_forever() {
    let server = spawn(hub::run_forever);
    yield_now();
    server.kill();
    assert!(server.join().unwrap_err().is_killed());
    loop_exit(thread::park);
    // One that was not killed still forbids it.
    let (server, main) = (spawn(hub::run_forever), thread::current());
    yield_now();
    assert!(greenthread::timeout(ms(400), thread::park).is_err());
    drop((server, main));
}

fn descriptor() {
    let (mut reader, writer) = std::io::pipe().unwrap();
    // A process of its own writes: no other OS thread, and no timer, speaks for the wait.
    let late = Command::new("sh")
        .args(["-c", "sleep 0.5; echo x"])
        .stdout(writer)
        .spawn();
    greenthread::io::wait_readable(&reader, None).unwrap();
    assert_eq!(reader.read(&mut [0]).unwrap(), 1);
    assert!(late.unwrap().wait().unwrap().success());
}

fn futures_of_the_world() {
    use greenthread::{future::block_on, process, signal};
    let shell = |text: &str| process::Command::new("sh").args(["-c", text]).spawn().unwrap();
    let signals = signal::Signals::new([signal::SIGUSR1]).unwrap();
    for _ in 0..2 {
        assert!(block_on(shell("sleep 0.3").wait_async()).unwrap().success());
        let mut sender = shell("sleep 0.3; kill -USR1 $PPID");
        assert_eq!(block_on(signals.recv_async()).unwrap(), signal::SIGUSR1);
        assert!(sender.wait().unwrap().success());
    }
    // The hub that waits for futures has nothing to do any more, and does not speak for this wait.
    loop_exit(thread::park);
}

fn held_handle() {
    let (handle, main) = (hub::handle(), thread::current());
    let holder = std::thread::spawn(move || {
        std::thread::sleep(ms(500)); // longer than the hub's patience of 100 ms
        handle.spawn(move || main.unpark()).unwrap().join().unwrap();
    });
    thread::park();
    // It ends by itself once its join is answered.
    threadpool::unblock(|| holder.join().unwrap());
}

#[cfg(panic = "abort")]
fn abort_block_on() {
    let (done, wait) = futures::channel::oneshot::channel();
    let waiter = spawn(|| greenthread::future::block_on(wait).unwrap());
    yield_now();
    waiter.kill();
    let others = spawn(|| (0..10).for_each(|_| sleep(ms(1))));
    others.join().unwrap();
    assert!(!waiter.is_finished());
    done.send(5).unwrap();
    assert_eq!(waiter.join().unwrap(), 5);
}

fn timed() {
    assert!(greenthread::timeout(ms(400), thread::park).is_err());
}

fn idle_pool() {
    assert_eq!(threadpool::unblock(|| 5), 5);
    loop_exit(thread::park);
    // And of one that has a hub besides, for a job used it.
    threadpool::unblock(|| sleep(ms(1)));
    loop_exit(thread::park);
}

fn idle_hubs() {
    let others: Vec<_> = (0..2)
        .map(|_| std::thread::spawn(|| drop(loop_exit(thread::park))))
        .collect();
    // One that was told goes on, and might wake the others: those are told when it waits again.
    loop_exit(thread::park);
    while !others.iter().all(std::thread::JoinHandle::is_finished) {
        loop_exit(thread::park);
    }
    others.into_iter().for_each(|other| other.join().unwrap());
}

fn scope() {
    let data = [1];
    let _ = catch_unwind(|| {
        thread::scope(|s| {
            drop(s.spawn(|| {
                thread::park();
                data.len()
            }));
        });
    });
}

/// Forks; in the child `f` runs, and its panic is exit code 3. Gives the child's exit code.
fn forked(f: impl FnOnce()) -> i32 {
    // SAFETY: the child's only OS thread is this one, and no other holds a lock: the scenarios see to that.
    let pid = unsafe { libc::fork() };
    assert!(pid >= 0);
    if pid == 0 {
        let code = if catch_unwind(AssertUnwindSafe(f)).is_ok() {
            0
        } else {
            3
        };
        std::process::exit(code);
    }
    reap(pid)
}

/// Waits for a child on the pool, so that the hub goes on.
fn reap(pid: libc::pid_t) -> i32 {
    threadpool::unblock(move || {
        let mut status = 0;
        // SAFETY: a plain system call with a valid pointer.
        assert_eq!(unsafe { libc::waitpid(pid, &mut status, 0) }, pid);
        if libc::WIFEXITED(status) {
            libc::WEXITSTATUS(status)
        } else {
            -libc::WTERMSIG(status)
        }
    })
}

fn fork_on_main() {
    let parked = spawn(thread::park);
    yield_now();
    let lost = spawn(|| 1);
    let code = forked(|| {
        assert_eq!(hub::live(), 0);
        let answers = thread::join_all((0..10).map(|n| {
            spawn(move || {
                sleep(ms(1));
                n
            })
        }));
        assert_eq!(answers.into_iter().map(Result::unwrap).sum::<i32>(), 45);
        assert_eq!(hub::live(), 0);
        assert!(!hub::is_running());
    });
    assert_eq!(code, 0);
    assert_eq!(lost.join().unwrap(), 1);
    parked.thread().unpark();
    parked.join().unwrap();
}

/// Another OS thread may have had the lock of an inbox, which nobody gives back in the child.
fn fork_with_hubs() {
    let handle = hub::handle();
    let waker = std::rc::Rc::new(std::cell::RefCell::new(None));
    let left = waker.clone();
    let task = greenthread::future::spawn(std::future::poll_fn(move |context| {
        *left.borrow_mut() = Some(context.waker().clone());
        std::task::Poll::<()>::Pending
    }));
    sleep(ms(1));
    let code = forked(|| {
        waker.take().into_iter().for_each(std::task::Waker::wake);
        task.cancel();
        assert!(!handle.is_alive() && handle.spawn(|| ()).is_err());
        assert!(hub::handle().is_alive());
    });
    assert_eq!(code, 0);
    assert!(!task.is_finished() && handle.is_alive());
}

fn exit_in_scope() {
    greenthread::scope(|s| {
        s.spawn_local(|| {
            sleep(ms(1));
            std::process::exit(0)
        });
        s.spawn_local(thread::park);
    });
}

fn fork_in_green_thread() {
    let neighbour = spawn(|| {
        for _ in 0..50 {
            sleep(ms(1));
        }
        std::process::id()
    });
    let parent = std::process::id();
    let forker = spawn(move || {
        // SAFETY: as in `forked`.
        let pid = unsafe { libc::fork() };
        assert!(pid >= 0);
        if pid == 0 {
            assert_ne!(std::process::id(), parent);
            assert_eq!(spawn(|| 5).join().unwrap(), 5);
            return None; // and with it the process
        }
        Some(reap(pid))
    });
    let code = forker.join().unwrap();
    assert_eq!(std::process::id(), parent, "the child went on in main");
    assert_eq!(code, Some(0));
    assert_eq!(neighbour.join().unwrap(), parent);
}

fn fork_with_pending() {
    let (mut ours, theirs) = std::os::unix::net::UnixStream::pair().unwrap();
    let mut writer = theirs.try_clone().unwrap();
    let pending = spawn(move || {
        writer
            .write_all(format!("{}\n", std::process::id()).as_bytes())
            .unwrap()
    });
    let mut late = theirs.try_clone().unwrap();
    hub::call_soon(move || late.write_all(b"call\n").unwrap());
    let code = forked(|| {
        sleep(ms(20));
        hub::idle();
    });
    assert_eq!(code, 0);
    pending.join().unwrap();
    hub::idle();
    drop(theirs);
    let mut text = String::new();
    ours.read_to_string(&mut text).unwrap();
    let mut lines: Vec<_> = text.lines().map(String::from).collect();
    lines.sort();
    assert_eq!(lines, [std::process::id().to_string(), String::from("call")]);
}

fn fork_with_lock() {
    let lock = std::sync::Arc::new(Mutex::new(0));
    let mut held = Some(lock.lock().unwrap());
    let theirs = lock.clone();
    let waits = spawn(move || *theirs.lock().unwrap() += 1);
    yield_now();
    let code = forked(|| {
        drop(held.take());
        assert!(lock.lock_timeout(ms(10)).is_ok());
    });
    assert_eq!(code, 0);
    drop(held);
    waits.join().unwrap();
    assert_eq!(*lock.lock().unwrap(), 1);
}

#[cfg_attr(feature = "sanitizer", allow(dead_code, reason = "it is not run"))]
fn fork_with_pool() {
    assert_eq!(threadpool::unblock(|| 1), 1);
    assert_eq!(forked(|| assert_eq!(threadpool::unblock(|| 2), 2)), 0);
    assert_eq!(threadpool::unblock(|| 3), 3);
    let pool = threadpool::ThreadPool::new(1);
    let (gate, open) = std::sync::mpsc::channel::<()>();
    let running = pool.submit(move || open.recv().is_err()).unwrap();
    let pending = pool.submit(|| true).unwrap();
    while !running.is_running() {
        sleep(ms(1));
    }
    let (mut both, mut pool) = (Some((running, pending)), Some(pool));
    // The child has neither the OS thread nor its jobs: what it waits for in vain is told, and its pool is a fresh one.
    let code = forked(|| {
        let (running, pending) = both.take().unwrap();
        let (done, _) = threadpool::wait(vec![running, pending], None, threadpool::ReturnWhen::All);
        assert!(done.into_iter().all(|future| future.wait().unwrap_err().is_lost()));
        let pool = pool.take().unwrap();
        assert_eq!(pool.submit(|| 5).unwrap().wait().unwrap(), 5);
        assert_eq!((pool.threads(), pool.pending()), (1, 0));
    });
    assert_eq!(code, 0);
    drop(gate);
    let (running, pending) = both.unwrap();
    assert!(running.wait().unwrap());
    assert!(pending.wait().unwrap());
}

fn echo() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let server = spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut buffer = [0; 5];
        stream.read_exact(&mut buffer).unwrap();
        stream.write_all(&buffer).unwrap();
    });
    let mut client = TcpStream::connect(address).unwrap();
    client.write_all(b"hello").unwrap();
    let mut answer = [0; 5];
    client.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"hello");
    server.join().unwrap();
}

fn fork_with_sockets() {
    echo();
    let (mut ours, mut theirs) = UnixStream::pair().unwrap();
    let reader = spawn(move || {
        let mut word = [0; 5];
        ours.read_exact(&mut word).unwrap();
        word
    });
    yield_now(); // it waits in the poller by now
    let code = forked(|| {
        echo();
        theirs.write_all(b"child").unwrap();
    });
    assert_eq!(code, 0);
    assert_eq!(&reader.join().unwrap(), b"child");
    echo();
}

fn verdict(test: &Test) -> Result<(), String> {
    let mut command = Command::new("timeout");
    command.arg("60").arg(std::env::current_exe().unwrap());
    command.env(VARIABLE, test.name).env("RUST_BACKTRACE", "0");
    command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let out = command.output().map_err(|error| error.to_string())?;
    let stderr = String::from_utf8_lossy(&out.stderr).into_owned();
    catch_unwind(|| (test.check)(&out, &stderr)).map_err(|_| stderr)
}

fn main() -> ExitCode {
    if let Ok(name) = std::env::var(VARIABLE) {
        // The crash is the point of some of them: no core.
        let none = libc::rlimit {
            rlim_cur: 0,
            rlim_max: 0,
        };
        // SAFETY: a plain system call with a valid pointer.
        unsafe { libc::setrlimit(libc::RLIMIT_CORE, &none) };
        let test = TESTS.iter().find(|test| test.name == name).expect("a scenario's name");
        (test.child)();
        return ExitCode::SUCCESS;
    }
    let mut arguments = std::env::args().skip(1);
    let mut filters = Vec::new();
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            // Meant for the other test binaries.
            "--skip" => drop(arguments.next()),
            flag if flag.starts_with('-') => {}
            _ => filters.push(argument),
        }
    }
    let chosen = |test: &&Test| filters.is_empty() || filters.iter().any(|filter| test.name.contains(&**filter));
    let (mut passed, mut failed) = (0, 0);
    for test in TESTS.iter().filter(chosen) {
        let verdict = verdict(test);
        println!(
            "test {} ... {}",
            test.name,
            if verdict.is_ok() { "ok" } else { "FAILED" }
        );
        match verdict {
            Ok(()) => passed += 1,
            Err(stderr) => {
                failed += 1;
                println!("---- its stderr ----\n{stderr}");
            }
        }
    }
    let (word, out) = (if failed == 0 { "ok" } else { "FAILED" }, TESTS.len() - passed - failed);
    println!(
        "\ntest result: {word}. {passed} passed; {failed} failed; 0 ignored; 0 measured; {out} filtered out; finished in 0.00s\n"
    );
    if failed == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}
