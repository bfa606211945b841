//! A signal handler on the alternate stack writes to a blocking pipe, as POSIX allows. The pipe is full for a while.
//! In a patched green thread the write does not park inside the handler, whose frames a second signal would
//! overwrite.

use std::hint::black_box;
use std::io::Read;
use std::os::fd::AsRawFd;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU32, Ordering::SeqCst};
use std::time::Instant;

use cases::{Verdict, ms, os, watchdog};
use greenthread::{monkey, spawn};

static PIPE: AtomicI32 = AtomicI32::new(-1);
static BEGUN: AtomicU32 = AtomicU32::new(0);
static ENDED: AtomicU32 = AtomicU32::new(0);
static STOP: AtomicBool = AtomicBool::new(false);

extern "C" fn handler(signal: i32) {
    BEGUN.fetch_add(1, SeqCst);
    let frame = [signal as u8; 600];
    // SAFETY: the block is longer than a byte.
    unsafe { libc::write(PIPE.load(SeqCst), black_box(&frame).as_ptr().cast(), 1) };
    if black_box(&frame).iter().any(|byte| *byte != signal as u8) {
        os::exit_now(9);
    }
    ENDED.fetch_add(1, SeqCst);
}

fn work() {
    while !STOP.load(SeqCst) {
        let begin = Instant::now();
        while begin.elapsed() < ms(2) {}
        greenthread::sleep(ms(1));
    }
}

fn main() -> ExitCode {
    watchdog(ms(30_000));
    monkey::patch_all().unwrap();
    let (mut reader, writer) = std::io::pipe().unwrap();
    fill(&writer);
    PIPE.store(writer.as_raw_fd(), SeqCst);
    for signal in [libc::SIGUSR1, libc::SIGUSR2] {
        os::on_signal(signal, handler, libc::SA_ONSTACK | libc::SA_RESTART);
    }
    let (tell, told) = std::sync::mpsc::channel();
    let worker = std::thread::spawn(move || {
        tell.send(os::thread_id()).unwrap();
        let all: Vec<_> = (0..3).map(|_| spawn(work)).collect();
        all.into_iter().for_each(|one| one.join().unwrap());
    });
    let thread = told.recv().unwrap();
    os::sleep(ms(50));
    os::signal_thread(thread, libc::SIGUSR1);
    os::sleep(ms(100));
    os::signal_thread(thread, libc::SIGUSR2);
    os::sleep(ms(100));
    let blocked = ENDED.load(SeqCst);
    assert!(reader.read(&mut vec![0; 1 << 16]).unwrap() > 2);
    let end = Instant::now() + ms(10_000);
    while ENDED.load(SeqCst) < 2 && Instant::now() < end {
        os::sleep(ms(5));
    }
    STOP.store(true, SeqCst);
    worker.join().unwrap();
    let mut verdict = Verdict::default();
    verdict.holds(blocked == 0, "the pipe was full");
    let (begun, ended) = (BEGUN.load(SeqCst), ENDED.load(SeqCst));
    verdict.holds(
        begun == 2 && ended == 2,
        format_args!("{begun} handlers have begun, {ended} have ended"),
    );
    verdict.end()
}

/// Fills the pipe; it is blocking afterwards.
fn fill(writer: &std::io::PipeWriter) {
    let block = [0_u8; 4096];
    // SAFETY: the descriptor is open, and the block valid for reads of its length.
    unsafe {
        os::good(libc::fcntl(writer.as_raw_fd(), libc::F_SETFL, libc::O_NONBLOCK));
        while libc::write(writer.as_raw_fd(), block.as_ptr().cast(), block.len()) > 0 {}
        os::good(libc::fcntl(writer.as_raw_fd(), libc::F_SETFL, 0));
    }
}
