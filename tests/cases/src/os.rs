//! What the programs ask of the operating system, below std.

use std::os::fd::AsRawFd;
use std::time::Duration;

use greenthread::monkey::original;

/// A pause of the OS thread, also where libc is patched.
pub fn sleep(time: Duration) {
    let mut left = time.as_micros();
    while left > 0 {
        let part = left.min(500_000) as u32;
        // SAFETY: no pointers; the OS thread sleeps.
        unsafe { original::usleep(part) };
        left -= u128::from(part);
    }
}

/// Ends the process without any clean-up.
pub fn exit_now(code: i32) -> ! {
    // SAFETY: ends the process; nothing of it is used afterwards.
    unsafe { libc::_exit(code) }
}

/// Checks the result of a libc call.
#[track_caller]
pub fn good(result: impl TryInto<i64>) -> i64 {
    let result = result.try_into().unwrap_or(-1);
    assert!(result >= 0, "{}", std::io::Error::last_os_error());
    result
}

/// Forks. What the child does is `f`; its result is the exit code.
pub fn fork(f: impl FnOnce() -> i32) -> libc::pid_t {
    // SAFETY: the child runs `f` alone, which is made for it, and exits without destructors.
    let pid = unsafe { libc::fork() };
    if pid == 0 {
        exit_now(f());
    }
    good(pid) as libc::pid_t
}

/// The status of a child that has ended; `None` if it runs.
pub fn ended(pid: libc::pid_t) -> Option<i32> {
    let mut status = 0;
    // SAFETY: the place is valid for a write.
    let got = good(unsafe { libc::waitpid(pid, &raw mut status, libc::WNOHANG) });
    (got != 0).then_some(status)
}

/// Ends a child that was not waited for yet.
pub fn end_child(pid: libc::pid_t) {
    // SAFETY: no pointers that are followed; the process is a child, so its number is its own until it is waited for.
    unsafe {
        libc::kill(pid, libc::SIGKILL);
        libc::waitpid(pid, std::ptr::null_mut(), 0);
    }
}

/// The number of this OS thread.
pub fn thread_id() -> i32 {
    // SAFETY: asks for a number.
    unsafe { libc::gettid() }
}

/// Sends a signal to an OS thread of this process.
pub fn signal_thread(thread: i32, signal: i32) {
    // SAFETY: no pointers; the kernel checks the numbers.
    good(unsafe { libc::syscall(libc::SYS_tgkill, libc::getpid(), thread, signal) });
}

/// Sets a handler that is safe in a signal, with these flags (`SA_..`).
pub fn on_signal(signal: i32, handler: extern "C" fn(i32), flags: i32) {
    // SAFETY: zeroes are a valid `sigaction`: no flags, an empty mask.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    action.sa_sigaction = handler as *const () as usize;
    action.sa_flags = flags;
    // SAFETY: the action is valid, and its handler safe in a signal.
    good(unsafe { libc::sigaction(signal, &raw const action, std::ptr::null_mut()) });
}

/// Sets a number as an option of a socket, at the level SOL_SOCKET.
pub fn set_option(socket: &impl AsRawFd, option: i32, value: i32) {
    // SAFETY: the value is valid for reads of its size.
    good(unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            option,
            (&raw const value).cast(),
            size_of::<i32>() as u32,
        )
    });
}

/// A close of this socket resets the connection.
pub fn reset_at_close(socket: &impl AsRawFd) {
    let linger = libc::linger {
        l_onoff: 1,
        l_linger: 0,
    };
    // SAFETY: the value is valid for reads of its size.
    good(unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_LINGER,
            (&raw const linger).cast(),
            size_of::<libc::linger>() as u32,
        )
    });
}

/// Whether the descriptor is non-blocking.
pub fn is_nonblocking(file: &impl AsRawFd) -> bool {
    // SAFETY: asks for flags.
    good(unsafe { libc::fcntl(file.as_raw_fd(), libc::F_GETFL) }) as i32 & libc::O_NONBLOCK != 0
}

/// Processor time of this process.
pub fn processor_time() -> Duration {
    clock(libc::CLOCK_PROCESS_CPUTIME_ID)
}

/// Processor time of this OS thread.
pub fn processor_time_of_thread() -> Duration {
    clock(libc::CLOCK_THREAD_CPUTIME_ID)
}

fn clock(clock: libc::clockid_t) -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the clock exists, and the place is valid for a write.
    unsafe { libc::clock_gettime(clock, &raw mut time) };
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

/// Resident memory in KiB.
pub fn resident() -> usize {
    let text = std::fs::read_to_string("/proc/self/statm").expect("/proc");
    let pages = text
        .split_whitespace()
        .nth(1)
        .and_then(|pages| pages.parse::<usize>().ok());
    pages.expect("a number") * 4
}

/// How many descriptors are open.
pub fn descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").map_or(0, |all| all.count().saturating_sub(1))
}

/// One more than the highest descriptor in use.
pub fn top_descriptor() -> u64 {
    let all = std::fs::read_dir("/proc/self/fd").expect("/proc");
    let numbers = all.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<u64>().ok());
    numbers.max().map_or(0, |top| top + 1)
}

/// Allows descriptors below this number only.
pub fn limit_descriptors(end: u64) {
    let mut limit = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: the place is valid for a write.
    good(unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) });
    limit.rlim_cur = end.min(limit.rlim_max);
    // SAFETY: the value is valid for a read.
    good(unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) });
}

/// Ended children of this process that it did not wait for.
pub fn zombies() -> usize {
    let this = std::process::id().to_string();
    let is_ours = |stat: &String| {
        let mut fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace();
        fields.next() == Some("Z") && fields.next() == Some(this.as_str())
    };
    let all = std::fs::read_dir("/proc").expect("/proc");
    let stats = all.filter_map(|entry| std::fs::read_to_string(entry.ok()?.path().join("stat")).ok());
    stats.filter(is_ours).count()
}
