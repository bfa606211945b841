//! A blocking read of what is neither socket nor pipe, and a blocking open, let other green threads run, as with OS
//! threads (eventlet/eventlet#973: inotify; gevent/gevent#1871: a device; ocaml-multicore/eio#357,
//! socketry/io-event#86 and nodejs/node#23220: named pipes).

use std::ffi::CString;
use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::os::fd::{FromRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::thread;
use std::time::Instant;

use cases::os::good;
use cases::{ms, patched};
use greenthread::{spawn, timeout};

fn folder(name: &str) -> PathBuf {
    let path = std::env::temp_dir().join(format!("cases-{}-{name}", std::process::id()));
    let _ = std::fs::remove_dir_all(&path);
    std::fs::create_dir_all(&path).unwrap();
    path
}

fn fifo(path: &Path) {
    let path = CString::new(path.to_str().unwrap()).unwrap();
    // SAFETY: a string.
    good(unsafe { libc::mkfifo(path.as_ptr(), 0o600) });
}

fn file(fd: i32) -> File {
    good(fd);
    // SAFETY: a fresh descriptor.
    File::from(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// One reads; the other sleeps and then does what makes the read return.
fn read_while(mut reader: File, then: impl FnOnce() + Send + 'static) {
    let reader = spawn(move || reader.read(&mut [0; 4096]).unwrap());
    let other = spawn(move || {
        thread::sleep(ms(50));
        then();
    });
    other.join().unwrap();
    assert!(reader.join().unwrap() > 0);
}

fn eventfd() {
    patched(|| {
        // SAFETY: asks for a descriptor.
        let reader = file(unsafe { libc::eventfd(0, libc::EFD_CLOEXEC) });
        let mut writer = reader.try_clone().unwrap();
        read_while(reader, move || writer.write_all(&1_u64.to_ne_bytes()).unwrap());
    });
}

fn inotify() {
    patched(|| {
        let folder = folder("inotify");
        let path = CString::new(folder.to_str().unwrap()).unwrap();
        // SAFETY: asks for a descriptor, and names a folder.
        let reader = unsafe {
            let fd = libc::inotify_init1(libc::IN_CLOEXEC);
            good(libc::inotify_add_watch(fd, path.as_ptr(), libc::IN_CREATE));
            file(fd)
        };
        read_while(reader, move || drop(File::create(folder.join("new")).unwrap()));
    });
}

fn pty() {
    patched(|| {
        let (mut master, mut slave) = (0, 0);
        let null = std::ptr::null_mut();
        // SAFETY: room for two numbers.
        good(unsafe { libc::openpty(&raw mut master, &raw mut slave, null, null.cast(), null.cast()) });
        let mut slave = file(slave);
        read_while(file(master), move || slave.write_all(b"hello\n").unwrap());
    });
}

/// The kernel makes it readable; the others are to run meanwhile.
fn timerfd() {
    patched(|| {
        // SAFETY: asks for a descriptor, and sets a time.
        let mut reader = unsafe {
            let fd = libc::timerfd_create(libc::CLOCK_MONOTONIC, libc::TFD_CLOEXEC);
            let mut time: libc::itimerspec = std::mem::zeroed();
            time.it_value.tv_nsec = 500_000_000;
            good(libc::timerfd_settime(fd, 0, &raw const time, std::ptr::null_mut()));
            file(fd)
        };
        let reader = spawn(move || reader.read(&mut [0; 8]).unwrap());
        let start = Instant::now();
        spawn(|| thread::sleep(ms(20))).join().unwrap();
        let took = start.elapsed();
        reader.join().unwrap();
        assert!(
            took < ms(300),
            "a sleep of 20 ms took {took:?} beside a read of a timerfd"
        );
    });
}

fn open_of_a_named_pipe() {
    patched(|| {
        let path = folder("open").join("fifo");
        fifo(&path);
        let theirs = path.clone();
        let reader = spawn(move || {
            let mut text = String::new();
            File::open(theirs).unwrap().read_to_string(&mut text).unwrap();
            text
        });
        let writer = spawn(move || {
            OpenOptions::new()
                .write(true)
                .open(path)
                .unwrap()
                .write_all(b"hello")
                .unwrap()
        });
        writer.join().unwrap();
        assert_eq!(reader.join().unwrap(), "hello");
    });
}

/// The crate's own files: many readers of named pipes first, then their writers.
fn own_open_of_named_pipes() {
    let folder = folder("many");
    let paths: Vec<_> = (0..40).map(|n| folder.join(n.to_string())).collect();
    paths.iter().for_each(|path| fifo(path));
    let readers: Vec<_> = paths
        .iter()
        .map(|path| {
            let path = path.clone();
            spawn(move || {
                let mut text = String::new();
                greenthread::fs::File::open(path)
                    .unwrap()
                    .read_to_string(&mut text)
                    .unwrap();
                text
            })
        })
        .collect();
    greenthread::sleep(ms(100));
    let writers: Vec<_> = paths
        .iter()
        .map(|path| {
            let path = path.clone();
            spawn(move || {
                let mut file = greenthread::fs::OpenOptions::new().write(true).open(path).unwrap();
                file.write_all(b"hello").unwrap();
            })
        })
        .collect();
    writers.into_iter().for_each(|one| one.join().unwrap());
    readers
        .into_iter()
        .for_each(|one| assert_eq!(one.join().unwrap(), "hello"));
}

/// A time-out around an open that no other answers; a name can still be looked up, and the program ends.
fn own_open_without_a_peer() {
    let path = folder("alone").join("fifo");
    fifo(&path);
    for _ in 0..3 {
        let path = path.clone();
        assert!(timeout(ms(30), || greenthread::fs::File::open(path)).is_err());
    }
    assert!(greenthread::net::TcpListener::bind("localhost:0").is_ok());
}

fn main() -> ExitCode {
    cases::scenarios::main(&[
        ("eventfd", eventfd),
        ("inotify", inotify),
        ("pty", pty),
        ("timerfd", timerfd),
        ("open_of_a_named_pipe", open_of_a_named_pipe),
        ("own_open_of_named_pipes", own_open_of_named_pipes),
        ("own_open_without_a_peer", own_open_without_a_peer),
    ])
}
