//! Signal handlers: they never park, wherever they run; those without `SA_RESTART` interrupt what main waits for, and
//! nobody else; a program sees its own.

use std::cell::Cell;
use std::io::{self, Read, Write};
use std::mem::zeroed;
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::thread::sleep;
use std::time::{Duration, Instant};

use greenthread::generator::Generator;
use greenthread::time::timeout_or_late;
use greenthread::{monkey, spawn, yield_now};

use super::{alone, ms, patched};

fn last() -> i32 {
    io::Error::last_os_error().raw_os_error().unwrap_or(0)
}

/// The kernel's number of this OS thread.
fn os_thread() -> i32 {
    // SAFETY: asks for a number.
    unsafe { libc::syscall(libc::SYS_gettid) as i32 }
}

fn send(thread: i32, signal: i32) {
    // SAFETY: a signal to an OS thread of this process.
    let sent = unsafe { libc::syscall(libc::SYS_tgkill, libc::getpid(), thread, signal) };
    assert_eq!(sent, 0);
}

fn install(signal: i32, handler: extern "C" fn(i32), flags: i32) -> libc::sigaction {
    // SAFETY: all-zero is a valid action; a handler of its type.
    unsafe {
        let (mut new, mut old): (libc::sigaction, libc::sigaction) = (zeroed(), zeroed());
        new.sa_sigaction = handler as *const () as usize;
        new.sa_flags = flags;
        assert_eq!(libc::sigaction(signal, &raw const new, &raw mut old), 0);
        old
    }
}

static CAUGHT: AtomicU32 = AtomicU32::new(0);

extern "C" fn counts(_: i32) {
    CAUGHT.fetch_add(1, Ordering::SeqCst);
}

/// A pipe that takes no more.
fn full_pipe() -> (io::PipeReader, io::PipeWriter) {
    let (reader, writer) = io::pipe().unwrap();
    // SAFETY: flags of a descriptor that is open.
    unsafe { libc::fcntl(writer.as_raw_fd(), libc::F_SETFL, libc::O_NONBLOCK) };
    while (&writer).write(&[0; 4096]).is_ok() {}
    // SAFETY: flags of a descriptor that is open.
    unsafe { libc::fcntl(writer.as_raw_fd(), libc::F_SETFL, 0) };
    (reader, writer)
}

static WRITER: AtomicI32 = AtomicI32::new(-1);
static BEGUN: AtomicU32 = AtomicU32::new(0);
static ENDED: AtomicU32 = AtomicU32::new(0);

extern "C" fn writes(_: i32) {
    BEGUN.fetch_add(1, Ordering::SeqCst);
    // SAFETY: a byte of a constant.
    let wrote = unsafe { libc::write(WRITER.load(Ordering::SeqCst), c"x".as_ptr().cast(), 1) };
    assert_eq!(wrote, 1);
    ENDED.fetch_add(1, Ordering::SeqCst);
}

/// Handlers that write to a full pipe, with these flags, in a green thread and in a generator above it: no other green
/// thread runs until they are through.
fn a_handler_that_waits(flags: i32) {
    let (mut reader, writer) = full_pipe();
    WRITER.store(writer.as_raw_fd(), Ordering::SeqCst);
    for signal in [libc::SIGUSR1, libc::SIGUSR2] {
        install(signal, writes, flags | libc::SA_RESTART);
    }
    patched(move || {
        let stop = Arc::new(AtomicBool::new(false));
        let (theirs, inside) = (stop.clone(), Arc::new(AtomicU32::new(0)));
        let seen = inside.clone();
        let other = spawn(move || {
            while !theirs.load(Ordering::SeqCst) {
                let is_inside = BEGUN.load(Ordering::SeqCst) != ENDED.load(Ordering::SeqCst);
                seen.fetch_add(is_inside.into(), Ordering::SeqCst);
                yield_now();
            }
        });
        let drains = std::thread::spawn(move || {
            for n in 1..=4 {
                while BEGUN.load(Ordering::SeqCst) < n {
                    std::hint::spin_loop();
                }
                // Time for the other one, if it could.
                sleep(ms(20));
                while ENDED.load(Ordering::SeqCst) < n {
                    let _ = reader.read(&mut [0; 4096]).unwrap();
                }
            }
            reader
        });
        let deep = move || {
            for signal in [libc::SIGUSR1, libc::SIGUSR2] {
                let begun = BEGUN.load(Ordering::SeqCst);
                send(os_thread(), signal);
                assert_eq!(BEGUN.load(Ordering::SeqCst), begun + 1);
                assert_eq!(ENDED.load(Ordering::SeqCst), begun + 1, "it has run to its end");
                // Full again.
                // SAFETY: flags, and bytes of a constant.
                unsafe {
                    let fd = WRITER.load(Ordering::SeqCst);
                    libc::fcntl(fd, libc::F_SETFL, libc::O_NONBLOCK);
                    while libc::write(fd, [0_u8; 4096].as_ptr().cast(), 4096) > 0 {}
                    libc::fcntl(fd, libc::F_SETFL, 0);
                }
            }
        };
        deep();
        let mut above = Generator::new(move |y| {
            y.yield_(());
            deep();
        });
        assert_eq!(above.next(), Some(()));
        assert_eq!(above.next(), None);
        stop.store(true, Ordering::SeqCst);
        other.join().unwrap();
        assert_eq!(
            inside.load(Ordering::SeqCst),
            0,
            "others ran in the middle of a handler"
        );
        // Who has been in a handler parks as before.
        let (mut near, mut far) = UnixStream::pair().unwrap();
        let reads = spawn(move || near.read(&mut [0]).unwrap());
        yield_now();
        far.write_all(b"x").unwrap();
        assert_eq!(reads.join().unwrap(), 1);
        drop((drains.join().unwrap(), writer));
    });
}

#[test]
fn a_handler_on_the_alternate_stack_does_not_park() {
    if alone("signals::a_handler_on_the_alternate_stack_does_not_park") {
        a_handler_that_waits(libc::SA_ONSTACK);
    }
}

#[test]
fn a_handler_on_the_green_thread_s_stack_does_not_park() {
    if alone("signals::a_handler_on_the_green_thread_s_stack_does_not_park") {
        a_handler_that_waits(0);
    }
}

/// Two of them on one alternate stack, which is std's, unless that is too small.
#[test]
fn handlers_on_the_alternate_stack_nest() {
    if !alone("signals::handlers_on_the_alternate_stack_nest") {
        return;
    }
    extern "C" fn outer(_: i32) {
        let frame = std::hint::black_box([7_u8; 600]);
        send(os_thread(), libc::SIGUSR2);
        assert!(std::hint::black_box(&frame).iter().all(|byte| *byte == 7));
        writes(0);
    }
    let (mut reader, writer) = io::pipe().unwrap();
    WRITER.store(writer.as_raw_fd(), Ordering::SeqCst);
    install(libc::SIGUSR1, outer, libc::SA_ONSTACK | libc::SA_RESTART);
    install(libc::SIGUSR2, writes, libc::SA_ONSTACK | libc::SA_RESTART);
    patched(|| send(os_thread(), libc::SIGUSR1));
    assert_eq!(reader.read(&mut [0; 8]).unwrap(), 2);
}

/// As crates do that grow the stack for deep recursion.
#[cfg(target_arch = "x86_64")]
#[test]
fn on_a_stack_of_its_own_making_a_green_thread_parks() {
    extern "C" fn sleeps() {
        sleep(ms(100));
    }
    fn grown() {
        let mut stack = vec![0_u128; 16 * 1024];
        let top = stack.as_mut_ptr_range().end;
        // SAFETY: a stack of 256 KiB that outlives the call; r12 is kept by the function that is called.
        unsafe {
            std::arch::asm!(
                "mov r12, rsp",
                "mov rsp, {top}",
                "call {f}",
                "mov rsp, r12",
                top = in(reg) top,
                f = in(reg) sleeps as *const (),
                out("r12") _,
                clobber_abi("C"),
            );
        }
    }
    patched(|| {
        let start = Instant::now();
        let all: Vec<_> = (0..20).map(|_| spawn(grown)).collect();
        super::join_all(all);
        assert!(start.elapsed() < ms(1500), "at once: {:?}", start.elapsed());
    });
}

/// Calls `call` in main while a signal comes again and again; it is to end before long.
fn signalled<T>(signal: i32, call: impl FnOnce() -> T) -> T {
    let (main, done) = (os_thread(), Arc::new(AtomicBool::new(false)));
    let theirs = done.clone();
    let sender = std::thread::spawn(move || {
        for _ in 0..10_000 {
            if theirs.load(Ordering::SeqCst) {
                return;
            }
            send(main, signal);
            sleep(ms(2));
        }
        eprintln!("it has not ended");
        std::process::abort();
    });
    let result = call();
    done.store(true, Ordering::SeqCst);
    sender.join().unwrap();
    result
}

type Call = Box<dyn FnOnce() -> i64 + Send>;

fn call(f: impl FnOnce() -> i64 + Send + 'static) -> Call {
    Box::new(f)
}

/// Calls that are restarted where the handler says so.
fn restartable() -> Vec<(&'static str, Call)> {
    let (near, far) = UnixStream::pair().unwrap();
    let read = call(move || {
        let got = size((&near).read(&mut [0]));
        drop(far);
        got
    });
    let (near, far) = UnixStream::pair().unwrap();
    // SAFETY: a byte of room.
    let recv = call(move || unsafe {
        let got = libc::recv(near.as_raw_fd(), [0_u8].as_mut_ptr().cast(), 1, 0) as i64;
        let error = last();
        drop(far);
        fail(error, got)
    });
    let (reader, writer) = full_pipe();
    // SAFETY: a byte of a constant.
    let write = call(move || unsafe {
        let wrote = libc::write(writer.as_raw_fd(), c"x".as_ptr().cast(), 1) as i64;
        drop(reader);
        wrote
    });
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let null = std::ptr::null_mut;
    // SAFETY: asks for no address.
    let accept = call(move || unsafe { libc::accept(listener.as_raw_fd(), null(), null().cast()).into() });
    let waitpid = call(move || {
        let mut child = Command::new("sleep").arg("20").spawn().unwrap();
        // SAFETY: asks for no status.
        let waited = unsafe { libc::waitpid(child.id() as i32, null().cast(), 0) };
        let error = last();
        child.kill().unwrap();
        child.wait().unwrap();
        fail(error, waited.into())
    });
    // SAFETY: asks for a descriptor, and gives room for a number.
    let eventfd = call(|| unsafe {
        let fd = OwnedFd::from_raw_fd(libc::eventfd(0, 0));
        libc::read(fd.as_raw_fd(), [0_u64].as_mut_ptr().cast(), 8) as i64
    });
    vec![
        ("read", read),
        ("recv", recv),
        ("write", write),
        ("accept", accept),
        ("waitpid", waitpid),
        ("eventfd", eventfd),
    ]
}

/// Calls that no flag restarts.
fn never_restarted() -> Vec<(&'static str, Call)> {
    let (near, far) = UnixStream::pair().unwrap();
    let poll = call(move || {
        let mut one = libc::pollfd {
            fd: near.as_raw_fd(),
            events: libc::POLLIN,
            revents: 0,
        };
        // SAFETY: one descriptor.
        let found = unsafe { libc::poll(&raw mut one, 1, 20_000) };
        let error = last();
        drop(far);
        fail(error, found.into())
    });
    let (other, kept) = UnixStream::pair().unwrap();
    // SAFETY: nothing to look at.
    let nothing = call(|| unsafe { libc::poll(std::ptr::null_mut(), 0, 20_000).into() });
    let select = call(move || {
        let mut time = libc::timeval { tv_sec: 20, tv_usec: 0 };
        // SAFETY: a set of one descriptor.
        let found = unsafe {
            let mut set: libc::fd_set = zeroed();
            libc::FD_SET(other.as_raw_fd(), &raw mut set);
            let null = std::ptr::null_mut();
            libc::select(other.as_raw_fd() + 1, &raw mut set, null, null, &raw mut time)
        };
        let error = last();
        drop(kept);
        fail(error, found.into())
    });
    // SAFETY: an epoll of nothing, and room for an event.
    let epoll = call(|| unsafe {
        let fd = OwnedFd::from_raw_fd(libc::epoll_create1(0));
        let mut event: libc::epoll_event = zeroed();
        let found = libc::epoll_wait(fd.as_raw_fd(), &raw mut event, 1, 20_000);
        fail(last(), found.into())
    });
    let limited = UdpSocket::bind("127.0.0.1:0").unwrap();
    limited.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let recv = call(move || size(limited.recv(&mut [0])));
    let nanosleep = call(|| {
        let time = libc::timespec { tv_sec: 20, tv_nsec: 0 };
        let mut left = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        // SAFETY: a time, and room for one.
        let slept = unsafe { libc::nanosleep(&raw const time, &raw mut left) };
        let error = last();
        assert!((10..20).contains(&left.tv_sec), "{}", left.tv_sec);
        fail(error, slept.into())
    });
    // SAFETY: no pointers.
    let usleep = call(|| unsafe { libc::usleep(20_000_000).into() });
    vec![
        ("poll", poll),
        ("poll of nothing", nothing),
        ("select", select),
        ("epoll_wait", epoll),
        ("recv with a time-out", recv),
        ("nanosleep", nanosleep),
        ("usleep", usleep),
    ]
}

fn size(result: io::Result<usize>) -> i64 {
    match result {
        Ok(size) => size as i64,
        Err(error) => fail(error.raw_os_error().unwrap_or(0), -1),
    }
}

/// Gives a result, with errno as it was.
fn fail(error: i32, result: i64) -> i64 {
    // SAFETY: errno.
    unsafe { *libc::__errno_location() = error };
    result
}

#[test]
fn a_handler_without_sa_restart_interrupts_what_main_waits_for() {
    if !alone("signals::a_handler_without_sa_restart_interrupts_what_main_waits_for") {
        return;
    }
    install(libc::SIGUSR1, counts, 0);
    patched(|| {
        for (name, call) in restartable().into_iter().chain(never_restarted()) {
            let got = signalled(libc::SIGUSR1, move || (call(), last()));
            assert_eq!(got, (-1, libc::EINTR), "{name}");
        }
        // SAFETY: no pointers.
        let left = signalled(libc::SIGUSR1, || unsafe { libc::sleep(20) });
        assert!((10..20).contains(&left), "{left}");
    });
    assert!(CAUGHT.load(Ordering::SeqCst) >= 14);
}

#[test]
fn a_handler_with_sa_restart_interrupts_what_is_never_restarted() {
    if !alone("signals::a_handler_with_sa_restart_interrupts_what_is_never_restarted") {
        return;
    }
    install(libc::SIGUSR1, counts, libc::SA_RESTART);
    patched(|| {
        for (name, call) in never_restarted() {
            let got = signalled(libc::SIGUSR1, move || (call(), last()));
            assert_eq!(got, (-1, libc::EINTR), "{name}");
        }
        // What is restarted gets its bytes.
        let (mut near, mut far) = UnixStream::pair().unwrap();
        let writer = std::thread::spawn(move || {
            let begun = CAUGHT.load(Ordering::SeqCst);
            while CAUGHT.load(Ordering::SeqCst) < begun + 20 {
                std::hint::spin_loop();
            }
            far.write_all(b"x").unwrap();
        });
        assert_eq!(signalled(libc::SIGUSR1, move || near.read(&mut [0]).unwrap()), 1);
        writer.join().unwrap();
    });
}

#[test]
fn nobody_but_main_is_interrupted_and_no_lock_is() {
    if !alone("signals::nobody_but_main_is_interrupted_and_no_lock_is") {
        return;
    }
    install(libc::SIGUSR1, counts, 0);
    patched(|| {
        let (mut near, mut far) = UnixStream::pair().unwrap();
        let other = spawn(move || near.read(&mut [0]).map_err(|error| error.kind()));
        let lock = Arc::new(Mutex::new(()));
        let guard = lock.clone();
        let (tell, told) = mpsc::channel();
        let holder = std::thread::spawn(move || {
            let held = guard.lock().unwrap();
            tell.send(()).unwrap();
            let begun = CAUGHT.load(Ordering::SeqCst);
            while CAUGHT.load(Ordering::SeqCst) < begun + 20 {
                std::hint::spin_loop();
            }
            drop(held);
            far.write_all(b"x").unwrap();
        });
        told.recv().unwrap();
        signalled(libc::SIGUSR1, || drop(lock.lock().unwrap()));
        assert_eq!(signalled(libc::SIGUSR1, || other.join().unwrap()), Ok(1));
        holder.join().unwrap();
        // A sleep of std's goes on, at its length.
        let start = Instant::now();
        signalled(libc::SIGUSR1, || sleep(ms(50)));
        assert!(start.elapsed() >= ms(50));
        // A kill and a time-out are told as ever.
        let (mut near, _far) = UnixStream::pair().unwrap();
        let got = timeout_or_late(ms(20), || near.read(&mut [0])).unwrap_err().1;
        assert_eq!(got.unwrap().unwrap_err().raw_os_error(), Some(libc::ETIMEDOUT));
    });
}

/// Others come back from their waits at the very turn that main's is ended.
#[test]
fn those_who_are_woken_beside_main_are_not_interrupted() {
    if !alone("signals::those_who_are_woken_beside_main_are_not_interrupted") {
        return;
    }
    install(libc::SIGUSR1, counts, 0);
    patched(|| {
        let stop = Arc::new(AtomicBool::new(false));
        let pairs = (0..8).map(|_| {
            let (mut near, mut far) = UnixStream::pair().unwrap();
            let stop = stop.clone();
            let answers = spawn(move || while near.read(&mut [0]).unwrap() > 0 && near.write(b"x").unwrap() > 0 {});
            spawn(move || {
                while !stop.load(Ordering::SeqCst) {
                    assert_eq!(far.write(b"x").unwrap(), 1);
                    assert_eq!(far.read(&mut [0]).unwrap(), 1);
                }
                drop(far);
                answers.join().unwrap();
            })
        });
        let pairs: Vec<_> = pairs.collect();
        let (mut near, _far) = UnixStream::pair().unwrap();
        signalled(libc::SIGUSR1, || {
            for _ in 0..100 {
                assert_eq!(near.read(&mut [0]).unwrap_err().kind(), io::ErrorKind::Interrupted);
            }
        });
        stop.store(true, Ordering::SeqCst);
        super::join_all(pairs);
    });
}

/// A hub that sleeps, and hears no signals, is woken by others as before.
#[test]
fn a_handler_takes_nobody_s_wake() {
    if !alone("signals::a_handler_takes_nobody_s_wake") {
        return;
    }
    install(libc::SIGUSR1, counts, 0);
    monkey::patch_all().unwrap();
    for by_poller in [false, true] {
        let (tell, told) = mpsc::channel();
        let hub = std::thread::spawn(move || {
            if by_poller {
                let (near, far) = UnixStream::pair().unwrap();
                drop(spawn(move || (&near).read(&mut [0]).map(|_| drop(far))));
            }
            tell.send((greenthread::hub::handle(), os_thread())).unwrap();
            greenthread::hub::run_forever();
        });
        let (handle, thread) = told.recv().unwrap();
        for n in 0..200 {
            for _ in 0..n % 3 + 1 {
                send(thread, libc::SIGUSR1);
            }
            let answer = handle.spawn(move || n).unwrap();
            assert_eq!(answer.join().unwrap(), n);
        }
        handle.stop().unwrap();
        hub.join().unwrap();
    }
}

#[test]
fn a_run_inside_of_a_run_is_main_as_long_as_it_lasts() {
    if !alone("signals::a_run_inside_of_a_run_is_main_as_long_as_it_lasts") {
        return;
    }
    install(libc::SIGUSR1, counts, 0);
    let read = || {
        let (mut near, _far) = UnixStream::pair().unwrap();
        signalled(libc::SIGUSR1, move || near.read(&mut [0]))
            .unwrap_err()
            .kind()
    };
    patched(move || {
        assert_eq!(greenthread::run(read), io::ErrorKind::Interrupted);
        assert_eq!(read(), io::ErrorKind::Interrupted);
    });
}

#[test]
fn a_program_sees_its_own_handlers() {
    if !alone("signals::a_program_sees_its_own_handlers") {
        return;
    }
    extern "C" fn other(_: i32) {}
    let counts_at = counts as *const () as usize;
    for flags in [
        0,
        libc::SA_RESTART,
        libc::SA_RESTART | libc::SA_NODEFER,
        libc::SA_ONSTACK,
    ] {
        install(libc::SIGUSR1, counts, flags);
        let old = install(libc::SIGUSR1, other, 0);
        const KNOWN: i32 = libc::SA_RESTART | libc::SA_NODEFER | libc::SA_ONSTACK | libc::SA_SIGINFO;
        assert_eq!((old.sa_sigaction, old.sa_flags & KNOWN), (counts_at, flags));
    }
    // SAFETY: handlers of their type, or none; all-zero is a valid action.
    unsafe {
        let other_at = other as *const () as usize;
        assert_eq!(libc::signal(libc::SIGUSR1, counts_at), other_at);
        assert_eq!(libc::signal(libc::SIGUSR1, libc::SIG_IGN), counts_at);
        assert_eq!(libc::signal(libc::SIGUSR1, counts_at), libc::SIG_IGN);
        let mut now: libc::sigaction = zeroed();
        assert_eq!(libc::sigaction(libc::SIGUSR1, std::ptr::null(), &raw mut now), 0);
        assert_eq!(
            (now.sa_sigaction, now.sa_flags & libc::SA_RESTART),
            (counts_at, libc::SA_RESTART)
        );
        // As it was read it is put back.
        assert_eq!(libc::sigaction(libc::SIGUSR1, &raw const now, std::ptr::null_mut()), 0);
        send(os_thread(), libc::SIGUSR1);
        assert_eq!(CAUGHT.load(Ordering::SeqCst), 1);
        // Once only: then it is the system's again.
        install(libc::SIGUSR2, counts, libc::SA_RESETHAND);
        send(os_thread(), libc::SIGUSR2);
        assert_eq!(install(libc::SIGUSR2, counts, 0).sa_sigaction, libc::SIG_DFL);
        // Errors are the kernel's, and change nothing.
        let mut bad: libc::sigaction = zeroed();
        bad.sa_sigaction = other_at;
        for signal in [-1, 0, 65, 1000, i32::MIN, libc::SIGKILL, libc::SIGSTOP, 32] {
            let set = libc::sigaction(signal, &raw const bad, std::ptr::null_mut());
            assert_eq!((set, last()), (-1, libc::EINVAL), "{signal}");
            assert_eq!(
                (libc::signal(signal, other_at), last()),
                (libc::SIG_ERR, libc::EINVAL),
                "{signal}"
            );
        }
    }
}

/// Handlers that take more, a query in a handler, and signals of `signal-hook`'s.
#[test]
fn handlers_get_what_the_kernel_gives() {
    if !alone("signals::handlers_get_what_the_kernel_gives") {
        return;
    }
    thread_local!(static INFO: Cell<(i32, i32, i32)> = const { Cell::new((0, 0, 0)) });
    extern "C" fn with_info(signal: i32, info: *mut libc::siginfo_t, context: *mut libc::c_void) {
        assert!(!context.is_null());
        // SAFETY: the kernel's.
        INFO.set(unsafe { (signal, (*info).si_signo, (*info).si_pid()) });
        // It may install others.
        install(libc::SIGUSR2, counts, 0);
    }
    patched(|| {
        // SAFETY: all-zero is a valid action; a handler of the type that the flag asks for.
        let me = unsafe {
            let mut action: libc::sigaction = zeroed();
            action.sa_sigaction = with_info as *const () as usize;
            action.sa_flags = libc::SA_SIGINFO;
            assert_eq!(
                libc::sigaction(libc::SIGUSR1, &raw const action, std::ptr::null_mut()),
                0
            );
            libc::getpid()
        };
        send(os_thread(), libc::SIGUSR1);
        assert_eq!(INFO.get(), (libc::SIGUSR1, libc::SIGUSR1, me));
        send(os_thread(), libc::SIGUSR2);
        assert_eq!(CAUGHT.load(Ordering::SeqCst), 1);

        let signals = greenthread::signal::Signals::new([libc::SIGWINCH]).unwrap();
        send(os_thread(), libc::SIGWINCH);
        assert_eq!(signals.recv().unwrap(), libc::SIGWINCH);
        // SAFETY: flags of a signal; all-zero is a valid action.
        unsafe {
            unsafe extern "C" {
                fn siginterrupt(signal: i32, interrupts: i32) -> i32;
            }
            let mut now: libc::sigaction = zeroed();
            libc::sigaction(libc::SIGUSR2, std::ptr::null(), &raw mut now);
            // The user's own; where a function lies is not the same everywhere in a program.
            let installed = now.sa_sigaction;
            assert!(installed != libc::SIG_DFL && installed != libc::SIG_IGN);
            for interrupts in [1, 0] {
                assert_eq!(siginterrupt(libc::SIGUSR2, interrupts), 0);
                libc::sigaction(libc::SIGUSR2, std::ptr::null(), &raw mut now);
                assert_eq!(now.sa_flags & libc::SA_RESTART == 0, interrupts == 1);
                assert_eq!(now.sa_sigaction, installed);
            }
        }
    });
}

/// Servers that look at a flag when `accept` fails.
#[test]
fn a_daemon_stops_when_it_is_told_to() {
    if !alone("signals::a_daemon_stops_when_it_is_told_to") {
        return;
    }
    static STOP: AtomicBool = AtomicBool::new(false);
    extern "C" fn stops(_: i32) {
        STOP.store(true, Ordering::SeqCst);
    }
    install(libc::SIGTERM, stops, 0);
    let served = patched(|| {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let (address, main) = (listener.local_addr().unwrap(), os_thread());
        let client = spawn(move || {
            let mut all = String::new();
            TcpStream::connect(address).unwrap().read_to_string(&mut all).unwrap();
            send(main, libc::SIGTERM);
            all
        });
        let mut served = 0;
        while !STOP.load(Ordering::SeqCst) {
            let null = std::ptr::null_mut();
            // SAFETY: asks for no address; a fresh descriptor.
            let fd = unsafe { libc::accept(listener.as_raw_fd(), null, null.cast()) };
            if fd >= 0 {
                // SAFETY: a descriptor that `accept` has just given, and that has no other owner.
                let mut stream = TcpStream::from(unsafe { OwnedFd::from_raw_fd(fd) });
                stream.write_all(b"served").unwrap();
                served += 1;
            }
        }
        (client.join().unwrap(), served)
    });
    assert_eq!(served, (String::from("served"), 1));
}

/// As with libc: it has nothing to do with a call that begins after it.
#[test]
fn a_handler_that_has_run_interrupts_no_later_call() {
    if !alone("signals::a_handler_that_has_run_interrupts_no_later_call") {
        return;
    }
    install(libc::SIGUSR1, counts, 0);
    patched(|| {
        let (mut near, mut far) = UnixStream::pair().unwrap();
        for _ in 0..3 {
            let mut theirs = far.try_clone().unwrap();
            let sender = spawn(move || {
                sleep(ms(20));
                theirs.write_all(b"x").unwrap();
            });
            let before = CAUGHT.load(Ordering::SeqCst);
            send(os_thread(), libc::SIGUSR1);
            assert_eq!(CAUGHT.load(Ordering::SeqCst), before + 1);
            assert_eq!(near.read(&mut [0]).map_err(|error| error.kind()), Ok(1));
            sender.join().unwrap();
        }
        // One that comes as it is about to return does not concern the next one either.
        far.write_all(b"x").unwrap();
        send(os_thread(), libc::SIGUSR1);
        assert_eq!(near.read(&mut [0]).map_err(|error| error.kind()), Ok(1));
        let start = Instant::now();
        // SAFETY: no pointers.
        assert_eq!(unsafe { libc::usleep(20_000) }, 0);
        assert!(start.elapsed() >= ms(20));
    });
}
