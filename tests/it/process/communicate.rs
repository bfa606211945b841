//! Conversations with a child: both ways at once, cut short, and gone on with.

use std::io::ErrorKind;
use std::os::unix::process::ExitStatusExt;

use greenthread::process::{Command, Stdio};
use greenthread::signal::SIGKILL;
use greenthread::thread::catch_kill;
use greenthread::{sleep, spawn, time, timeout, yield_now};

use super::wait::cat;
use crate::support::fresh::{fresh, ms, secs};

/// More than the pipes hold, and not the same everywhere.
fn much() -> Vec<u8> {
    (0..1 << 20).map(|n: u32| (n ^ (n >> 8)) as u8).collect()
}

#[test]
fn a_mebibyte_goes_through_cat() {
    fresh(|| {
        let two = [(); 2].map(|()| spawn(|| cat().communicate(&much()).unwrap()));
        for one in two {
            let output = one.join().unwrap();
            assert!(output.status.success() && output.stdout == much() && output.stderr.is_empty());
        }
    });
}

#[test]
fn output_and_errors_are_read_at_once() {
    fresh(|| {
        let mut tee = Command::new("tee");
        tee.arg("/dev/stderr").stdin(Stdio::piped());
        let mut tee = tee.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let output = tee.communicate(&much()).unwrap();
        assert!(output.stdout == much() && output.stderr == much());
    });
}

#[test]
fn others_run_while_a_child_writes_without_end() {
    fresh(|| {
        let mut yes = Command::new("yes").stdout(Stdio::piped()).spawn().unwrap();
        let other = spawn(|| sleep(ms(20)));
        assert!(yes.communicate_timeout(&[], ms(200)).unwrap().is_none());
        assert!(other.is_finished());
        yes.kill().unwrap();
        let output = yes.communicate(&[]).unwrap();
        assert_eq!(output.status.signal(), Some(SIGKILL));
        assert!(output.stdout.len() > 100_000);
    });
}

#[test]
fn a_child_that_does_not_read_is_no_error() {
    fresh(|| {
        let mut deaf = Command::new("true").stdin(Stdio::piped()).spawn().unwrap();
        assert!(deaf.communicate(&much()).unwrap().status.success());
    });
}

#[test]
fn an_input_that_cannot_be_given_is_refused() {
    fresh(|| {
        let mut child = Command::new("cat").stdin(Stdio::null()).spawn().unwrap();
        let error = child.communicate(b"x").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
        assert!(child.communicate(&[]).unwrap().status.success());
        let mut shell = Command::new("sh");
        shell.args(["-c", "sleep 0.2; cat"]).stdin(Stdio::piped());
        let mut shell = shell.stdout(Stdio::piped()).spawn().unwrap();
        assert!(shell.communicate_timeout(b"first", ms(0)).unwrap().is_none());
        let error = shell.communicate(b"second").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
        assert_eq!(shell.communicate(&[]).unwrap().stdout, b"first");
    });
}

#[test]
fn what_was_read_before_the_time_was_up_is_kept() {
    fresh(|| {
        let mut shell = Command::new("sh");
        shell.args(["-c", "echo one; echo 1 >&2; sleep 0.3; echo two; echo 2 >&2"]);
        let mut shell = shell.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut late = 0;
        let output = loop {
            match shell.communicate_timeout(&[], ms(20)).unwrap() {
                Some(output) => break output,
                None => late += 1,
            }
        };
        assert!(late > 0);
        assert_eq!((&*output.stdout, &*output.stderr), (&b"one\ntwo\n"[..], &b"1\n2\n"[..]));
    });
}

#[test]
fn a_large_input_goes_on_after_a_time_out() {
    fresh(|| {
        let mut cat = cat();
        let (mut input, mut late) = (much(), 0);
        let output = loop {
            // The virtual deadline has passed: each call does one step.
            match cat.communicate_deadline(&input, time::now()).unwrap() {
                Some(output) => break output,
                None => late += 1,
            }
            input.clear();
            yield_now();
        };
        assert!(late > 1 && output.stdout == much());
    });
}

#[test]
fn killed_at_the_kth_turn_it_goes_on_where_it_was() {
    fresh(|| {
        let mut cut = 0;
        for turns in 0..40 {
            let talker = spawn(|| {
                let mut cat = cat();
                match catch_kill(|| cat.communicate(&much())) {
                    Ok(output) => (false, output.unwrap()),
                    Err(_) => (true, cat.communicate(&[]).unwrap()),
                }
            });
            for _ in 0..=turns {
                yield_now();
            }
            talker.kill();
            let (was_cut, output) = talker.join().unwrap();
            cut += u32::from(was_cut);
            assert!(
                output.stdout == much(),
                "killed after {turns} turns: {}",
                output.stdout.len()
            );
        }
        assert!(cut > 10, "{cut} of 40 were cut short");
    });
}

#[test]
fn timed_out_from_outside_it_goes_on_where_it_was() {
    fresh(|| {
        let mut shell = Command::new("sh");
        shell.args(["-c", "echo one; sleep 0.2; cat"]).stdin(Stdio::piped());
        let mut shell = shell.stdout(Stdio::piped()).spawn().unwrap();
        assert!(timeout(ms(50), || shell.communicate(&much())).is_err());
        let output = shell.communicate(&[]).unwrap();
        assert!(output.stdout.starts_with(b"one\n") && output.stdout[4..] == much());
    });
}

#[test]
fn wait_with_output_closes_the_input() {
    fresh(|| {
        let output = cat().wait_with_output().unwrap();
        assert!(output.status.success() && output.stdout.is_empty());
        assert!(timeout(secs(50), || cat().wait_with_output()).is_ok());
    });
}
