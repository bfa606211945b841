//! Children: how they are started, waited for, signalled and dropped.

use std::io::{ErrorKind, Read, Write};
use std::os::unix::process::ExitStatusExt;
use std::time::Instant;

use futures::FutureExt;
use greenthread::future::block_on;
use greenthread::process::{Child, Command, Stdio};
use greenthread::signal::{SIGKILL, SIGSTOP, SIGTERM, SIGUSR1};
use greenthread::thread::catch_kill;
use greenthread::{io, sleep, spawn, thread, time, timeout, yield_now};

use crate::support::fresh::{fresh, ms, secs, virtually};

/// One that ends when its standard input does.
pub(crate) fn cat() -> Child {
    let mut cat = Command::new("cat");
    cat.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap()
}

fn sleeper() -> Child {
    Command::new("sleep").arg("600").spawn().unwrap()
}

/// The letter for the state of a process, `None` if there is none.
fn state(pid: u32) -> Option<char> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit(')').next()?.trim_start().chars().next()
}

#[test]
fn status_and_output_are_stds() {
    fresh(|| {
        let mut shell = Command::new("sh");
        shell
            .args(["-c", "echo $WHAT; pwd; echo no >&2; cat; exit 3"])
            .env("WHAT", "yes")
            .env_remove("LANG")
            .current_dir("/");
        for _ in 0..2 {
            let output = shell.output().unwrap();
            assert_eq!(output.status.code(), Some(3));
            assert_eq!((&*output.stdout, &*output.stderr), (&b"yes\n/\n"[..], &b"no\n"[..]));
        }
        assert_eq!(Command::new("true").status().unwrap().code(), Some(0));
        assert!(Command::new("env").env_clear().output().unwrap().stdout.is_empty());
        let error = Command::new("/no/such/program").spawn().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotFound);
    });
}

#[test]
fn output_leaves_the_standard_descriptors_as_they_were() {
    fresh(|| {
        let mut command = Command::new("true");
        command.output().unwrap();
        let mut child = command.spawn().unwrap();
        assert!(child.stdin.is_none() && child.stdout.is_none() && child.stderr.is_none());
        assert!(child.wait().unwrap().success());
        let mut said = Command::new("echo");
        said.stdout(Stdio::null());
        assert!(said.output().unwrap().stdout.is_empty());
    });
}

#[test]
fn others_run_while_a_child_does() {
    fresh(|| {
        let mut first = cat();
        let mut second = Command::new("cat");
        second.stdin(first.stdout.take().unwrap());
        // It ends after the first, which ends only when the other has gone on and waits for it.
        let waiter = spawn(move || second.status());
        yield_now(); // it waits
        let other = spawn(move || {
            (0..5).for_each(|_| sleep(ms(1)));
            first.wait()
        });
        assert!(waiter.join().unwrap().unwrap().success());
        assert!(other.join().unwrap().unwrap().success());
    });
}

#[test]
fn a_wait_times_out_and_the_status_stays() {
    fresh(|| {
        let mut child = sleeper();
        assert!(child.try_wait().unwrap().is_none());
        assert!(child.wait_timeout(ms(0)).unwrap().is_none());
        assert!(child.wait_timeout(ms(10)).unwrap().is_none());
        assert!(child.wait_deadline(time::now()).unwrap().is_none());
        assert!(timeout(ms(10), || child.wait()).is_err());
        child.terminate().unwrap();
        let status = child.wait_deadline(time::now() + secs(50)).unwrap().unwrap();
        assert_eq!(status.signal(), Some(SIGTERM));
        assert_eq!(child.wait().unwrap(), status);
        assert_eq!(child.wait_timeout(ms(0)).unwrap(), Some(status));
        assert_eq!(child.try_wait().unwrap(), Some(status));
        // To nobody.
        child.kill().unwrap();
        child.send_signal(SIGUSR1).unwrap();
    });
}

#[test]
fn a_wait_ends_at_its_time_on_a_clock_that_jumps() {
    virtually(|| {
        let mut child = sleeper();
        let start = time::now();
        assert!(child.wait_timeout(secs(3600)).unwrap().is_none());
        assert_eq!(time::now() - start, secs(3600));
        child.kill().unwrap();
        assert_eq!(child.wait().unwrap().signal(), Some(SIGKILL));
    });
}

#[test]
fn signals_are_sent_and_wrong_numbers_refused() {
    fresh(|| {
        let mut child = sleeper();
        for wrong in [0, -1, 1000] {
            assert_eq!(child.send_signal(wrong).unwrap_err().kind(), ErrorKind::InvalidInput);
        }
        child.send_signal(SIGSTOP).unwrap();
        // A stop is no end.
        assert!(child.wait_timeout(ms(20)).unwrap().is_none());
        child.kill().unwrap();
        assert_eq!(child.wait().unwrap().signal(), Some(SIGKILL));
    });
}

#[test]
fn a_killed_waiter_loses_nothing() {
    fresh(|| {
        let waiter = spawn(|| {
            let mut child = sleeper();
            let killed = catch_kill(|| child.wait()).is_err();
            child.kill().unwrap();
            (killed, child.wait().unwrap().signal())
        });
        yield_now(); // it waits
        waiter.kill();
        assert_eq!(waiter.join().unwrap(), (true, Some(SIGKILL)));
    });
}

#[test]
fn wait_closes_standard_input() {
    fresh(|| {
        assert!(cat().wait().unwrap().success());
        assert!(cat().wait_timeout(secs(50)).unwrap().unwrap().success());
        assert!(block_on(cat().wait_async()).unwrap().success());
    });
}

#[test]
fn pipes_park_and_lead_from_one_child_to_the_next() {
    fresh(|| {
        let mut first = cat();
        let mut second = Command::new("sed");
        second.arg("s/a/b/").stdin(first.stdout.take().unwrap());
        let mut second = second.stdout(Stdio::piped()).spawn().unwrap();
        let mut stdout = second.stdout.take().unwrap();
        let reader = spawn(move || {
            let mut text = String::new();
            stdout.read_to_string(&mut text).map(|_| text)
        });
        yield_now(); // it waits
        first.stdin.take().unwrap().write_all(b"cat\n").unwrap();
        assert_eq!(reader.join().unwrap().unwrap(), "cbt\n");
        assert!(first.wait().unwrap().success() && second.wait().unwrap().success());
    });
}

#[test]
fn a_read_of_a_pipe_times_out_and_can_be_killed() {
    fresh(|| {
        let mut child = cat();
        let mut stdout = child.stdout.take().unwrap();
        stdout.set_read_timeout(Some(ms(10))).unwrap();
        assert_eq!(stdout.read(&mut [0]).unwrap_err().kind(), ErrorKind::TimedOut);
        stdout.set_read_timeout(None).unwrap();
        let reader = spawn(move || {
            let killed = catch_kill(|| stdout.read(&mut [0])).is_err();
            let mut byte = [0];
            stdout.read_exact(&mut byte).map(|()| (killed, byte[0]))
        });
        yield_now(); // it waits
        reader.kill();
        yield_now(); // it waits again
        child.stdin.take().unwrap().write_all(b"x").unwrap();
        assert_eq!(reader.join().unwrap().unwrap(), (true, b'x'));
        child.wait().unwrap();
    });
}

#[test]
fn pipes_go_to_std_and_back_in_blocking_mode() {
    fresh(|| {
        let mut child = cat();
        let mut stdin = std::process::ChildStdin::from(child.stdin.take().unwrap());
        let mut stdout = std::process::ChildStdout::from(child.stdout.take().unwrap());
        let reader = std::thread::spawn(move || {
            let mut text = String::new();
            stdout.read_to_string(&mut text).map(|_| text)
        });
        stdin.write_all(b"blocking").unwrap();
        drop(stdin);
        assert_eq!(reader.join().unwrap().unwrap(), "blocking");
        child.wait().unwrap();
        let child = std::process::Command::new("echo").stdout(Stdio::piped()).spawn();
        assert_eq!(Child::from(child.unwrap()).wait_with_output().unwrap().stdout, b"\n");
    });
}

#[test]
fn any_executor_waits() {
    fresh(|| {
        // On an OS thread without a hub.
        let mut child = Command::new("sleep").arg("0.05").spawn().unwrap();
        assert!(futures::executor::block_on(child.wait_async()).unwrap().success());
        let mut two = [cat(), sleeper()];
        let [first, second] = &mut two;
        let ended = futures::future::select(first.wait_async().boxed(), second.wait_async().boxed());
        let ended = match block_on(ended) {
            futures::future::Either::Left((status, _)) => status.ok(),
            futures::future::Either::Right(_) => None,
        };
        assert!(ended.unwrap().success());
        // The other's future was dropped; the child was not hurt.
        assert!(two[1].wait_async().now_or_never().is_none());
        two[1].kill().unwrap();
        assert_eq!(two[1].wait().unwrap().signal(), Some(SIGKILL));
    });
}

#[test]
fn one_who_is_killed_in_output_or_status_takes_the_child_along() {
    fresh(|| {
        for which in [0, 1, 2] {
            let (reader, writer) = std::io::pipe().unwrap();
            let runner = spawn(move || {
                let mut command = Command::new("sleep");
                command.arg("600").stderr(writer);
                match which {
                    0 => drop(command.output()),
                    1 => drop(command.output_timeout(secs(600))),
                    _ => drop(command.status()),
                }
            });
            yield_now(); // it waits
            runner.kill();
            assert!(runner.join().unwrap_err().is_killed());
            // The child had the last copy of the writer.
            io::wait_readable(&reader, Some(secs(50))).unwrap();
            assert_eq!((&reader).read(&mut [0]).unwrap(), 0);
        }
    });
}

#[test]
fn output_within_a_time_kills_the_late() {
    fresh(|| {
        let start = Instant::now();
        let error = Command::new("sleep").arg("600").output_timeout(ms(20)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::TimedOut);
        assert!(error.to_string().contains("sleep"), "{error}");
        let error = Command::new("sleep").arg("600").output_deadline(time::now());
        assert_eq!(error.unwrap_err().kind(), ErrorKind::TimedOut);
        assert!(start.elapsed() < secs(50));
        let output = Command::new("echo").output_timeout(secs(50)).unwrap();
        assert_eq!(output.stdout, b"\n");
    });
}

#[test]
fn a_dropped_child_runs_on_and_is_reaped_by_a_later_spawn() {
    fresh(|| {
        let mut child = cat();
        let (pid, stdin) = (child.id(), child.stdin.take());
        drop(child);
        assert!(Command::new("true").status().unwrap().success());
        assert!(state(pid).is_some_and(|state| state != 'Z'), "it runs");
        drop(stdin);
        // Another test's spawn may reap it before it is seen as a zombie.
        while state(pid).is_some_and(|state| state != 'Z') {
            sleep(ms(1));
        }
        assert!(Command::new("true").status().unwrap().success());
        assert_eq!(state(pid), None);
    });
}

#[test]
fn a_status_that_somebody_else_took_is_an_error() {
    fresh(|| {
        let mut child = Command::new("true").spawn().unwrap();
        let pid = rustix::process::Pid::from_raw(child.id() as i32);
        rustix::process::waitpid(pid, rustix::process::WaitOptions::empty()).unwrap();
        assert_eq!(child.wait().unwrap_err().raw_os_error(), Some(10), "ECHILD");
        assert_eq!(child.kill().unwrap_err().raw_os_error(), Some(10), "to nobody else");
    });
}

/// How many descriptors this process has.
fn descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}

/// In a process of its own: others would open and close theirs meanwhile.
pub(crate) fn no_descriptor_is_left() {
    let round = || {
        let mut child = cat();
        assert_eq!(child.communicate(b"x").unwrap().stdout, b"x");
        assert!(Command::new("sleep").arg("600").output_timeout(ms(1)).is_err());
        drop(cat());
        let mut child = sleeper();
        assert!(child.wait_timeout(ms(1)).unwrap().is_none());
        assert!(child.wait_async().now_or_never().is_none());
        child.kill().unwrap();
        block_on(child.wait_async()).unwrap();
        let killed = spawn(|| Command::new("sleep").arg("600").output());
        yield_now();
        killed.kill();
        assert!(killed.join().unwrap_err().is_killed());
        assert!(Command::new("/no/such/program").output().is_err());
    };
    let seen = || Command::new("ls").arg("/proc/self/fd").output().unwrap().stdout;
    let at_first = seen();
    // What stays: the poller of this hub, and that of the one that waits for futures.
    round();
    let mut child = Command::new("sleep").arg("0.1").spawn().unwrap();
    assert!(block_on(child.wait_async()).unwrap().success());
    let before = descriptors();
    for _ in 0..10 {
        round();
    }
    // Those of the last futures go when the other hub has heard of it.
    let end = Instant::now() + secs(20);
    while descriptors() > before && Instant::now() < end {
        thread::park_timeout(ms(5));
    }
    assert_eq!(descriptors(), before);
    // Nor has a child any that is not its own.
    let _open = [cat(), cat()];
    assert_eq!(seen(), at_first);
}

#[test]
fn no_descriptor_is_lost_or_inherited() {
    let ended = crate::support::child::run("process descriptors");
    assert!(ended.ok, "{ended:?}");
}

/// Only where a process may say which number the next has.
#[test]
fn one_that_std_has_waited_for_takes_nobodys_status_as_it_is_dropped() {
    for _ in 0..20 {
        let mut first = std::process::Command::new("true").spawn().unwrap();
        let pid = first.id();
        assert!(first.wait().unwrap().success());
        if std::fs::write("/proc/sys/kernel/ns_last_pid", (pid - 1).to_string()).is_err() {
            return;
        }
        let mut second = std::process::Command::new("true").spawn().unwrap();
        while state(second.id()) != Some('Z') {
            std::thread::yield_now();
        }
        let is_same = second.id() == pid;
        drop(Child::from(first));
        assert!(second.wait().unwrap().success());
        if is_same {
            return;
        }
    }
}
