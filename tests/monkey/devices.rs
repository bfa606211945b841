//! What is neither socket nor pipe nor file and can be waited for: eventfd, timerfd, signalfd, inotify, terminals; and
//! waits for readiness with a mask of signals.

use std::collections::BTreeSet;
use std::ffi::CString;
use std::fs::File;
use std::io::{self, Read, Write};
use std::mem::zeroed;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread::sleep;
use std::time::Instant;

use greenthread::time::timeout_or_late;
use greenthread::{spawn, yield_now};

use super::{alone, ms, patched};

fn last() -> i32 {
    io::Error::last_os_error().raw_os_error().unwrap_or(0)
}

fn file(fd: i32) -> File {
    assert!(fd >= 0, "{}", io::Error::last_os_error());
    // SAFETY: a fresh descriptor.
    File::from(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn eventfd(count: u32, flags: i32) -> File {
    // SAFETY: asks for a descriptor.
    file(unsafe { libc::eventfd(count, libc::EFD_CLOEXEC | flags) })
}

/// One reads, and another runs while it waits, which it does until `then`.
fn read_while(mut reader: File, then: impl FnOnce() + Send + 'static) -> Vec<u8> {
    let reader = spawn(move || {
        let mut bytes = vec![0; 4096];
        let got = reader.read(&mut bytes).unwrap();
        bytes.truncate(got);
        bytes
    });
    for _ in 0..3 {
        yield_now();
        sleep(ms(1));
    }
    assert!(!reader.is_finished(), "it waits");
    then();
    reader.join().unwrap()
}

#[test]
fn an_eventfd_is_read_and_written() {
    patched(|| {
        let reader = eventfd(0, 0);
        let mut writer = reader.try_clone().unwrap();
        let got = read_while(reader, move || writer.write_all(&7_u64.to_ne_bytes()).unwrap());
        assert_eq!(got, 7_u64.to_ne_bytes());

        // One at a time, as a semaphore.
        let reader = eventfd(0, libc::EFD_SEMAPHORE);
        let readers: Vec<_> = (0..20)
            .map(|_| {
                let mut reader = reader.try_clone().unwrap();
                spawn(move || {
                    let mut count = [0; 8];
                    reader.read_exact(&mut count).unwrap();
                    u64::from_ne_bytes(count)
                })
            })
            .collect();
        yield_now();
        (&reader).write_all(&20_u64.to_ne_bytes()).unwrap();
        assert_eq!(super::join_all(readers), [1; 20]);
    });
}

#[test]
fn a_write_to_a_full_eventfd_waits_for_room() {
    patched(|| {
        for value in [1_u64, 5, u64::MAX - 1] {
            let counter = eventfd(0, 0);
            (&counter).write_all(&(u64::MAX - 1).to_ne_bytes()).unwrap();
            let mut writer = counter.try_clone().unwrap();
            let writes = spawn(move || writer.write(&value.to_ne_bytes()).unwrap());
            sleep(ms(5));
            assert!(!writes.is_finished());
            let mut count = [0; 8];
            (&counter).read_exact(&mut count).unwrap();
            assert_eq!(u64::from_ne_bytes(count), u64::MAX - 1);
            assert_eq!(writes.join().unwrap(), 8);
            (&counter).read_exact(&mut count).unwrap();
            assert_eq!(u64::from_ne_bytes(count), value);
        }
    });
}

#[test]
fn reads_of_devices_are_killed_timed_out_and_closed() {
    patched(|| {
        let reader = eventfd(0, 0);
        let mut theirs = reader.try_clone().unwrap();
        let reads = spawn(move || theirs.read(&mut [0; 8]).unwrap_err().raw_os_error());
        yield_now();
        reads.kill();
        let killed = reads.join().unwrap_err().into_value::<Option<i32>>();
        assert_eq!(killed.unwrap(), Some(libc::ECANCELED));
        let late = timeout_or_late(ms(10), || (&reader).read(&mut [0; 8])).unwrap_err().1;
        assert_eq!(late.unwrap().unwrap_err().raw_os_error(), Some(libc::ETIMEDOUT));
        let fd = reader.as_raw_fd();
        let reads = spawn(move || {
            // SAFETY: room for eight bytes.
            let got = unsafe { libc::read(fd, [0_u64].as_mut_ptr().cast(), 8) };
            (got, last())
        });
        yield_now();
        drop(reader);
        assert_eq!(reads.join().unwrap(), (-1, libc::EBADF));
    });
}

#[test]
fn odd_reads_of_devices_are_as_libc_has_them() {
    patched(|| {
        let read = |file: &File, len| {
            let mut bytes = [0_u8; 64];
            // SAFETY: room for more than that.
            let got = unsafe { libc::read(file.as_raw_fd(), bytes.as_mut_ptr().cast(), len) };
            (got, if got < 0 { last() } else { 0 })
        };
        let unblocked = eventfd(0, libc::EFD_NONBLOCK);
        assert_eq!(read(&unblocked, 8), (-1, libc::EAGAIN));
        assert_eq!(read(&eventfd(1, 0), 7), (-1, libc::EINVAL));
        assert_eq!(
            (&eventfd(0, 0)).write(&[0; 4]).unwrap_err().raw_os_error(),
            Some(libc::EINVAL)
        );
        // SAFETY: asks for descriptors.
        let (timer, watcher, events) = unsafe {
            let timer = libc::timerfd_create(libc::CLOCK_MONOTONIC, libc::TFD_CLOEXEC);
            let watcher = libc::inotify_init1(libc::IN_CLOEXEC);
            (
                file(timer),
                file(watcher),
                file(libc::epoll_create1(libc::EPOLL_CLOEXEC)),
            )
        };
        for wrong in [&timer, &watcher, &events] {
            // SAFETY: eight bytes of a constant.
            let wrote = unsafe { libc::write(wrong.as_raw_fd(), c"1234567".as_ptr().cast(), 8) };
            assert_eq!(wrote, -1);
            assert!([libc::EINVAL, libc::EBADF].contains(&last()), "{}", last());
        }
        assert_eq!(read(&events, 8), (-1, libc::EINVAL));
        assert_eq!(File::open("/dev/null").unwrap().read(&mut [0]).unwrap(), 0);
        assert_eq!(File::open("/dev/zero").unwrap().read(&mut [1; 64]).unwrap(), 64);
        assert_eq!(File::create("/dev/null").unwrap().write(&[1; 64]).unwrap(), 64);
        assert_eq!(
            File::create("/dev/full")
                .unwrap()
                .write(&[1])
                .unwrap_err()
                .raw_os_error(),
            Some(libc::ENOSPC)
        );
        assert!(std::fs::read_to_string("/proc/self/status").unwrap().contains("Name:"));
        assert!(!std::fs::read("/proc/self/mounts").unwrap().is_empty());
    });
}

#[test]
fn a_timerfd_a_signalfd_and_inotify_are_waited_for() {
    patched(|| {
        // SAFETY: asks for a descriptor; a time for it.
        let timer = unsafe {
            let timer = file(libc::timerfd_create(libc::CLOCK_MONOTONIC, libc::TFD_CLOEXEC));
            let mut time: libc::itimerspec = zeroed();
            time.it_value.tv_nsec = 200_000_000;
            assert_eq!(
                libc::timerfd_settime(timer.as_raw_fd(), 0, &raw const time, std::ptr::null_mut()),
                0
            );
            timer
        };
        assert_eq!(read_while(timer, || ()), 1_u64.to_ne_bytes());

        // SAFETY: a set of one signal, which this OS thread blocks.
        let signals = unsafe {
            let mut set: libc::sigset_t = zeroed();
            libc::sigaddset(&raw mut set, libc::SIGURG);
            libc::pthread_sigmask(libc::SIG_BLOCK, &raw const set, std::ptr::null_mut());
            file(libc::signalfd(-1, &raw const set, libc::SFD_CLOEXEC))
        };
        // SAFETY: a signal to this OS thread.
        let got = read_while(signals, || unsafe {
            libc::syscall(
                libc::SYS_tgkill,
                libc::getpid(),
                libc::syscall(libc::SYS_gettid),
                libc::SIGURG,
            );
        });
        assert_eq!(got.len(), size_of::<libc::signalfd_siginfo>());

        let folder = std::env::temp_dir().join(format!("greenthread-inotify-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let path = CString::new(folder.to_str().unwrap()).unwrap();
        // SAFETY: asks for a descriptor, and names a folder.
        let watcher = unsafe {
            let watcher = file(libc::inotify_init1(libc::IN_CLOEXEC));
            assert!(libc::inotify_add_watch(watcher.as_raw_fd(), path.as_ptr(), libc::IN_CREATE) >= 0);
            watcher
        };
        let new = folder.join("new");
        assert!(!read_while(watcher, move || drop(File::create(new).unwrap())).is_empty());
        std::fs::remove_dir_all(folder).unwrap();
    });
}

/// Both ends of a terminal; it gives bytes as they come, `least` of them at least, or waits tenths of a second.
fn terminal(raw: Option<(u8, u8)>) -> (File, File) {
    let (mut master, mut slave) = (0, 0);
    let null = std::ptr::null_mut();
    // SAFETY: room for two numbers, and for modes.
    unsafe {
        assert_eq!(
            libc::openpty(&raw mut master, &raw mut slave, null, null.cast(), null.cast()),
            0
        );
        if let Some((least, tenths)) = raw {
            let mut modes: libc::termios = zeroed();
            assert_eq!(libc::tcgetattr(slave, &raw mut modes), 0);
            libc::cfmakeraw(&raw mut modes);
            modes.c_cc[libc::VMIN] = least;
            modes.c_cc[libc::VTIME] = tenths;
            assert_eq!(libc::tcsetattr(slave, libc::TCSANOW, &raw const modes), 0);
        }
    }
    (file(master), file(slave))
}

#[test]
fn terminals_are_read() {
    patched(|| {
        let (master, mut slave) = terminal(None);
        let theirs = master.try_clone().unwrap();
        assert_eq!(
            read_while(theirs, move || slave.write_all(b"hello\n").unwrap()),
            b"hello\r\n"
        );
        // A line at a time.
        let (mut master, slave) = terminal(None);
        let line = read_while(slave, move || {
            master.write_all(b"he").unwrap();
            sleep(ms(5));
            master.write_all(b"llo\n").unwrap();
            std::mem::forget(master);
        });
        assert_eq!(line, b"hello\n");
        // The end: no other end is left.
        let (mut master, slave) = terminal(None);
        let end = spawn(move || master.read(&mut [0]).map_err(|error| error.raw_os_error()));
        yield_now();
        drop(slave);
        assert_eq!(end.join().unwrap(), Err(Some(libc::EIO)));
    });
}

#[test]
fn raw_terminals_give_what_they_are_set_to() {
    patched(|| {
        for (least, tenths) in [(1, 0), (1, 2), (3, 0), (3, 2)] {
            let (mut master, slave) = terminal(Some((least, tenths)));
            let got = read_while(slave, move || {
                master.write_all(b"abc").unwrap();
                std::mem::forget(master);
            });
            assert_eq!(got, b"abc", "{least} {tenths}");
        }
        // Fewer are asked for than it gives at least.
        let (mut master, mut slave) = terminal(Some((3, 0)));
        let two = spawn(move || {
            let mut two = [0; 2];
            (slave.read(&mut two).unwrap(), two)
        });
        sleep(ms(5));
        assert!(!two.is_finished());
        master.write_all(b"ab").unwrap();
        assert_eq!(two.join().unwrap(), (2, *b"ab"));
        // Without bytes it gives none, at once or after a time.
        let (_master, mut slave) = terminal(Some((0, 0)));
        assert_eq!(slave.read(&mut [0]).unwrap(), 0);
        let (_master, mut slave) = terminal(Some((0, 3)));
        let start = Instant::now();
        let none = spawn(move || slave.read(&mut [0]).unwrap());
        sleep(ms(10));
        assert!(start.elapsed() < ms(300), "others run");
        assert_eq!(none.join().unwrap(), 0);
        assert!(start.elapsed() >= ms(300));
        let (mut master, slave) = terminal(Some((0, 100)));
        let got = read_while(slave, move || {
            master.write_all(b"a").unwrap();
            std::mem::forget(master);
        });
        assert_eq!(got, b"a");
    });
}

#[test]
fn a_write_to_a_terminal_that_takes_no_more_waits() {
    patched(|| {
        const LEN: usize = 300_000;
        let (mut master, mut slave) = terminal(Some((1, 0)));
        let writes = spawn(move || {
            slave.write_all(&vec![b'x'; LEN]).unwrap();
            slave
        });
        sleep(ms(10));
        assert!(!writes.is_finished());
        let mut all = 0;
        let mut bytes = [0; 4096];
        while all < LEN {
            all += master.read(&mut bytes).unwrap();
        }
        drop(writes.join().unwrap());
        assert_eq!(all, LEN);
    });
}

fn mask() -> libc::sigset_t {
    // SAFETY: asks for the present mask; all-zero is a valid one.
    unsafe {
        let mut now: libc::sigset_t = zeroed();
        libc::pthread_sigmask(libc::SIG_BLOCK, std::ptr::null(), &raw mut now);
        now
    }
}

const SECONDS: libc::timespec = libc::timespec { tv_sec: 20, tv_nsec: 0 };

/// The waits that take a mask, for a descriptor to be readable.
fn masked_waits(fd: i32, mask: &libc::sigset_t) -> Vec<(&'static str, i32)> {
    // SAFETY: one descriptor in sets of their own, and room for one event.
    unsafe {
        let mut one = libc::pollfd {
            fd,
            events: libc::POLLIN,
            revents: 0,
        };
        let ppoll = libc::ppoll(&raw mut one, 1, &SECONDS, mask);
        let mut set: libc::fd_set = zeroed();
        libc::FD_SET(fd, &raw mut set);
        let null = std::ptr::null_mut();
        let pselect = libc::pselect(fd + 1, &raw mut set, null, null, &SECONDS, mask);
        let all = OwnedFd::from_raw_fd(libc::epoll_create1(0));
        let mut event = libc::epoll_event {
            events: libc::EPOLLIN as u32,
            u64: 7,
        };
        libc::epoll_ctl(all.as_raw_fd(), libc::EPOLL_CTL_ADD, fd, &raw mut event);
        let pwait = libc::epoll_pwait(all.as_raw_fd(), &raw mut event, 1, 20_000, mask);
        vec![("ppoll", ppoll), ("pselect", pselect), ("epoll_pwait", pwait)]
    }
}

#[test]
fn waits_with_a_mask_let_others_run() {
    patched(|| {
        let present = mask();
        let mut another = mask();
        // SAFETY: one more signal.
        unsafe { libc::sigaddset(&raw mut another, libc::SIGWINCH) };
        for mask in [present, another] {
            let (near, mut far) = UnixStream::pair().unwrap();
            let waits = spawn(move || masked_waits(near.as_raw_fd(), &mask));
            for _ in 0..3 {
                yield_now();
                sleep(ms(1));
            }
            assert!(!waits.is_finished());
            far.write_all(b"x").unwrap();
            assert_eq!(
                waits.join().unwrap(),
                [("ppoll", 1), ("pselect", 1), ("epoll_pwait", 1)]
            );
        }
    });
}

/// What such a mask is for: a signal that is blocked but while it waits.
#[test]
fn a_signal_that_only_the_mask_lets_in_interrupts() {
    static CAUGHT: AtomicU32 = AtomicU32::new(0);
    extern "C" fn counts(_: i32) {
        CAUGHT.fetch_add(1, Ordering::SeqCst);
    }
    if !alone("devices::a_signal_that_only_the_mask_lets_in_interrupts") {
        return;
    }
    // Blocked from here on, in the OS threads that are made too.
    let open = mask();
    // SAFETY: all-zero is a valid action and a valid set; a handler of its type.
    unsafe {
        let mut action: libc::sigaction = zeroed();
        action.sa_sigaction = counts as *const () as usize;
        libc::sigaction(libc::SIGUSR1, &raw const action, std::ptr::null_mut());
        let mut set: libc::sigset_t = zeroed();
        libc::sigaddset(&raw mut set, libc::SIGUSR1);
        libc::pthread_sigmask(libc::SIG_BLOCK, &raw const set, std::ptr::null_mut());
    }
    patched(move || {
        // One that is there already, and one that comes to the OS thread that waits.
        for before in [true, false] {
            let (near, far) = UnixStream::pair().unwrap();
            if before {
                send(os_thread());
            }
            let threads = threads();
            let waits = spawn(move || {
                let mut one = libc::pollfd {
                    fd: near.as_raw_fd(),
                    events: libc::POLLIN,
                    revents: 0,
                };
                // SAFETY: one descriptor.
                (unsafe { libc::ppoll(&raw mut one, 1, &SECONDS, &open) }, last())
            });
            while !before && !waits.is_finished() {
                self::threads().difference(&threads).for_each(|new| send(*new));
                sleep(ms(2));
            }
            assert_eq!(waits.join().unwrap(), (-1, libc::EINTR));
            drop(far);
        }
        assert!(CAUGHT.load(Ordering::SeqCst) >= 2);
    });
}

fn os_thread() -> i32 {
    // SAFETY: asks for a number.
    unsafe { libc::syscall(libc::SYS_gettid) as i32 }
}

fn threads() -> BTreeSet<i32> {
    let threads = std::fs::read_dir("/proc/self/task").unwrap();
    let numbers = threads.map(|thread| thread.unwrap().file_name().to_str().unwrap().parse().unwrap());
    numbers.collect()
}

/// A signal to an OS thread, which may have ended; of several that it has not taken yet there is one.
fn send(thread: i32) {
    // SAFETY: as it says.
    unsafe { libc::syscall(libc::SYS_tgkill, libc::getpid(), thread, libc::SIGUSR1) };
}
