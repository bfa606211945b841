//! What a process says on stderr, and how it ends.

use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::process::Output;
use std::time::{Duration, Instant};

use greenthread::{hub, sleep, spawn, thread, yield_now};

const fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

/// A green thread waits in a scope for a child, and main ends.
fn in_a_scope(child: fn()) {
    let waiter = thread::Builder::new().name("waiter").spawn(move || {
        thread::scope(|s| {
            thread::Builder::new().name("stubborn").spawn_scoped(s, child).unwrap();
        });
    });
    drop(waiter.unwrap());
    yield_now();
    yield_now();
}

pub(crate) fn scope_child_that_ends() {
    // A descriptor that is waited for: the end must not sleep until it is ready.
    let (mut ours, theirs) = greenthread::net::UnixStream::pair().unwrap();
    drop(spawn(move || ours.read(&mut [0])));
    std::mem::forget(theirs);
    in_a_scope(|| sleep(Duration::from_secs(3600)));
}

pub(crate) fn scope_child_that_does_not() {
    in_a_scope(|| thread::shield(|| sleep(Duration::from_secs(3600))));
}

pub(crate) fn named(out: &Output, stderr: &str) {
    assert!(out.status.success(), "{:?}: {stderr}", out.status);
    assert!(stderr.contains("scoped green threads have not ended"), "{stderr}");
    assert!(
        stderr.contains("stubborn") && stderr.contains("spawned at tests/stuck/ends.rs"),
        "{stderr}"
    );
}

/// Puts a full pipe in the place of stderr; the end that reads it, and stderr as it was.
fn fill_stderr() -> (std::io::PipeReader, OwnedFd) {
    let before = rustix::io::dup(std::io::stderr()).unwrap();
    let (reader, mut writer) = std::io::pipe().unwrap();
    rustix::io::ioctl_fionbio(&writer, true).unwrap();
    while writer.write(&[b'.'; 512]).is_ok() {}
    rustix::io::ioctl_fionbio(&writer, false).unwrap();
    rustix::stdio::dup2_stderr(&writer).unwrap();
    (reader, before)
}

/// Many kinds of lines, of each no more than is written in a second.
fn complain_much() {
    for _ in 0..20 {
        drop(spawn(|| std::panic::resume_unwind(Box::new("told"))));
        hub::call_soon(|| std::panic::resume_unwind(Box::new("told")));
    }
    for _ in 0..10 {
        yield_now();
    }
}

pub(crate) fn full_stderr() {
    let (mut reader, before) = fill_stderr();
    let start = Instant::now();
    for _ in 0..50 {
        complain_much();
    }
    let ticker = spawn(|| (0..20).for_each(|_| sleep(ms(1))));
    ticker.join().unwrap();
    assert!(start.elapsed() < Duration::from_secs(20), "{:?}", start.elapsed());
    // A child writes nothing that was its parent's to write.
    // SAFETY: the child only leaves.
    let pid = unsafe { libc::fork() };
    if pid == 0 {
        std::process::exit(0);
    }
    let mut status = -1;
    // SAFETY: a plain system call with a valid pointer.
    unsafe { libc::waitpid(pid, &raw mut status, 0) };
    assert_eq!(status, 0);
    // Once somebody reads, all comes that was kept, and how much was not.
    let reader = std::thread::spawn(move || {
        let mut text = Vec::new();
        let mut chunk = [0; 4096];
        while !String::from_utf8_lossy(&text).contains("more of this kind were left out") {
            let count = reader.read(&mut chunk).unwrap();
            assert!(count > 0, "{}", String::from_utf8_lossy(&text));
            text.extend_from_slice(&chunk[..count]);
        }
        String::from_utf8_lossy(&text).into_owned()
    });
    let text = greenthread::threadpool::unblock(move || reader.join().unwrap());
    assert!(text.contains("panicked: told"), "{text}");
    rustix::stdio::dup2_stderr(&before).unwrap();
}

pub(crate) fn flood() {
    for _ in 0..1000 {
        drop(spawn(|| std::panic::resume_unwind(Box::new("flood"))));
    }
    yield_now();
    sleep(ms(1));
    // Another kind.
    let mut stubborn = greenthread::generator::Generator::new(|y: &greenthread::generator::Yielder<'_, u8>| {
        loop {
            let _ = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| y.yield_(1)));
        }
    });
    assert_eq!(stubborn.next(), Some(1));
}

pub(crate) fn cut(out: &Output, stderr: &str) {
    assert!(out.status.success(), "{:?}: {stderr}", out.status);
    let is_count = |line: &&str| line.contains("more of this kind were left out");
    let (counts, lines): (Vec<_>, Vec<_>) = stderr
        .lines()
        .filter(|line| line.ends_with("flood"))
        .partition(is_count);
    let numbers = counts
        .iter()
        .map(|line| line.split(' ').nth(1).unwrap().parse::<usize>().unwrap());
    let written = lines.len();
    assert_eq!(written + numbers.sum::<usize>(), 1000, "{stderr}");
    assert!((1..500).contains(&written), "{written} of 1000 were written");
    assert!(stderr.contains("a dropped generator would not end"), "{stderr}");
}

pub(crate) fn panics_aside() {
    let message = |f: fn()| {
        f();
        let (mut reader, writer) = std::io::pipe().unwrap();
        let before = rustix::io::dup(std::io::stderr()).unwrap();
        rustix::stdio::dup2_stderr(&writer).unwrap();
        assert!(spawn(|| panic!("a message")).join().is_err());
        rustix::stdio::dup2_stderr(&before).unwrap();
        drop(writer);
        let mut text = String::new();
        reader.read_to_string(&mut text).unwrap();
        text
    };
    let theirs = message(|| ());
    let ours = message(hub::write_panics_aside);
    // All but the number of the green thread is the same.
    assert_eq!(theirs.replace("#2", "#3"), ours);
    assert!(ours.contains("a message"), "{ours}");
    // A full stderr does not keep who panics.
    let (_reader, before) = fill_stderr();
    assert!(spawn(|| panic!("a message")).join().is_err());
    rustix::stdio::dup2_stderr(&before).unwrap();
}

pub(crate) fn panics_read(out: &Output, stderr: &str) {
    assert!(out.status.success(), "{:?}: {stderr}", out.status);
}
