//! Locks on files, opens of FIFOs, queues and semaphores between processes, C11's threads: others run while one waits.

use std::ffi::CString;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::mem::zeroed;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread::sleep;

use greenthread::time::timeout_or_late;
use greenthread::{JoinHandle, spawn, yield_now};

use super::{alone, join_all, ms, patched};

fn last() -> i32 {
    io::Error::last_os_error().raw_os_error().unwrap_or(0)
}

/// A path of this test's own, with nothing there.
pub(super) fn path(name: &str) -> PathBuf {
    let path = std::env::temp_dir().join(format!("greenthread-{name}-{}", std::process::id()));
    let _ = std::fs::remove_file(&path);
    path
}

/// Others run while it waits; then `then` lets it go on.
fn meanwhile<T>(waiter: JoinHandle<T>, then: impl FnOnce()) -> T {
    for _ in 0..3 {
        yield_now();
        sleep(ms(1));
    }
    assert!(!waiter.is_finished(), "it waits");
    then();
    waiter.join().unwrap()
}

fn range(kind: i32) -> libc::flock {
    // SAFETY: all-zero is the whole file.
    let mut range: libc::flock = unsafe { zeroed() };
    range.l_type = kind as i16;
    range
}

/// `fcntl` with a lock; errno, or 0.
fn command(file: &File, command: i32, kind: i32) -> i32 {
    // SAFETY: a lock.
    let done = unsafe { libc::fcntl(file.as_raw_fd(), command, &range(kind)) };
    if done == 0 { 0 } else { last() }
}

#[test]
fn two_locks_on_one_file() {
    type Lock = (&'static str, fn(&File), fn(&File));
    let ways: [Lock; 3] = [
        ("lock", |file| file.lock().unwrap(), |file| file.unlock().unwrap()),
        (
            "flock",
            // SAFETY: no pointers.
            |file| assert_eq!(unsafe { libc::flock(file.as_raw_fd(), libc::LOCK_EX) }, 0),
            // SAFETY: no pointers.
            |file| assert_eq!(unsafe { libc::flock(file.as_raw_fd(), libc::LOCK_UN) }, 0),
        ),
        (
            "F_OFD_SETLKW",
            |file| assert_eq!(command(file, libc::F_OFD_SETLKW, libc::F_WRLCK), 0),
            |file| assert_eq!(command(file, libc::F_OFD_SETLKW, libc::F_UNLCK), 0),
        ),
    ];
    patched(move || {
        for (name, lock, unlock) in ways {
            let path = path("lock");
            let open = || {
                OpenOptions::new()
                    .write(true)
                    .create(true)
                    .truncate(false)
                    .open(&path)
                    .unwrap()
            };
            let holder = open();
            lock(&holder);
            // Several at once, of which each has it in turn.
            static INSIDE: AtomicU32 = AtomicU32::new(0);
            let others: Vec<_> = (0..5)
                .map(|_| {
                    let file = open();
                    spawn(move || {
                        lock(&file);
                        assert_eq!(INSIDE.fetch_add(1, Ordering::SeqCst), 0);
                        sleep(ms(2));
                        INSIDE.fetch_sub(1, Ordering::SeqCst);
                        unlock(&file);
                    })
                })
                .collect();
            sleep(ms(5));
            assert!(others.iter().all(|other| !other.is_finished()), "{name}");
            unlock(&holder);
            join_all(others);
            std::fs::remove_file(path).unwrap();
        }
    });
}

/// These belong to processes: the other one is a child.
#[test]
fn locks_of_another_process_are_waited_for() {
    patched(|| {
        for by_lockf in [false, true] {
            let path = path("posix");
            let file = OpenOptions::new()
                .write(true)
                .create(true)
                .truncate(false)
                .open(&path)
                .unwrap();
            let (mut told, tell) = io::pipe().unwrap();
            let (hold, mut go) = io::pipe().unwrap();
            // SAFETY: the child makes system calls only, and ends.
            let child = unsafe { libc::fork() };
            if child == 0 {
                // SAFETY: the child has no other OS thread, and makes system calls only, with pointers to values that
                // live over them.
                unsafe {
                    libc::syscall(libc::SYS_close, go.as_raw_fd());
                    let lock = range(libc::F_WRLCK);
                    libc::syscall(libc::SYS_fcntl, file.as_raw_fd(), libc::F_SETLKW, &raw const lock);
                    let byte = 0_u8;
                    libc::syscall(libc::SYS_write, tell.as_raw_fd(), &raw const byte, 1);
                    libc::syscall(libc::SYS_read, hold.as_raw_fd(), &raw const byte, 1);
                    libc::_exit(0);
                }
            }
            told.read_exact(&mut [0]).unwrap();
            assert_eq!(command(&file, libc::F_SETLK, libc::F_WRLCK), libc::EAGAIN);
            let waits = spawn(move || {
                if by_lockf {
                    // SAFETY: no pointers.
                    unsafe { libc::lockf(file.as_raw_fd(), libc::F_LOCK, 0) }
                } else {
                    command(&file, libc::F_SETLKW, libc::F_WRLCK)
                }
            });
            assert_eq!(meanwhile(waits, || go.write_all(b"x").unwrap()), 0);
            // SAFETY: the child of above.
            assert_eq!(unsafe { libc::waitpid(child, std::ptr::null_mut(), 0) }, child);
            std::fs::remove_file(path).unwrap();
        }
    });
}

#[test]
fn locks_that_do_not_wait_and_odd_ones_are_as_libc_has_them() {
    patched(|| {
        let path = path("odd-lock");
        let open = || {
            OpenOptions::new()
                .write(true)
                .create(true)
                .truncate(false)
                .open(&path)
                .unwrap()
        };
        let (one, other) = (open(), open());
        one.lock().unwrap();
        assert!(matches!(other.try_lock(), Err(std::fs::TryLockError::WouldBlock)));
        one.unlock().unwrap();
        other.try_lock().unwrap();
        // SAFETY: no pointers that are read.
        unsafe {
            assert_eq!((libc::flock(-1, libc::LOCK_EX), last()), (-1, libc::EBADF));
            assert_eq!((libc::flock(one.as_raw_fd(), 0), last()), (-1, libc::EINVAL));
            assert_eq!(
                (libc::fcntl(-1, libc::F_SETLKW, &range(libc::F_WRLCK)), last()),
                (-1, libc::EBADF)
            );
            assert_eq!(libc::fcntl(one.as_raw_fd(), libc::F_GETFD), libc::FD_CLOEXEC);
            let copy = libc::fcntl(one.as_raw_fd(), libc::F_DUPFD_CLOEXEC, 100);
            assert!(copy >= 100);
            libc::close(copy);
        }
        // To be locked to be written it must be open so.
        let reader = File::open(&path).unwrap();
        assert_eq!(command(&reader, libc::F_OFD_SETLKW, libc::F_WRLCK), libc::EBADF);
        std::fs::remove_file(path).unwrap();
    });
}

pub(super) fn fifo(path: &Path) {
    let path = CString::new(path.to_str().unwrap()).unwrap();
    // SAFETY: a string.
    assert_eq!(unsafe { libc::mkfifo(path.as_ptr(), 0o600) }, 0);
}

#[test]
fn the_open_of_a_fifo_waits_for_its_other_end() {
    patched(|| {
        // More than a pool has threads, all readers first.
        let paths: Vec<_> = (0..40).map(|n| path(&format!("fifo-{n}"))).collect();
        paths.iter().for_each(|path| fifo(path));
        let read = |path: PathBuf| std::fs::read_to_string(path).unwrap();
        let readers: Vec<_> = paths.iter().cloned().map(|path| spawn(move || read(path))).collect();
        sleep(ms(20));
        assert!(readers.iter().all(|reader| !reader.is_finished()));
        let write = |path: PathBuf| {
            OpenOptions::new()
                .write(true)
                .open(path)
                .unwrap()
                .write_all(b"hello")
                .unwrap()
        };
        let writers: Vec<_> = paths.iter().cloned().map(|path| spawn(move || write(path))).collect();
        join_all(writers);
        join_all(readers).into_iter().for_each(|text| assert_eq!(text, "hello"));
        paths.iter().for_each(|path| std::fs::remove_file(path).unwrap());
    });
}

/// Two OS threads wait for each byte. The one that does not get it goes on with its other green threads.
#[test]
fn a_fifo_with_two_readers_stops_no_hub() {
    greenthread::monkey::patch_all().unwrap();
    let path = path("fifo-readers");
    fifo(&path);
    // Both ends, so that no open waits.
    let file = OpenOptions::new().read(true).write(true).open(&path).unwrap();
    let reader = |file: File| {
        std::thread::spawn(move || {
            greenthread::run(move || {
                let is_over = std::sync::Arc::new(AtomicU32::new(0));
                let sees = is_over.clone();
                let ticks = spawn(move || {
                    let mut longest = ms(0);
                    while sees.load(Ordering::Relaxed) == 0 {
                        let before = std::time::Instant::now();
                        sleep(ms(1));
                        longest = longest.max(before.elapsed());
                    }
                    longest
                });
                let mut byte = [0];
                while (&file).read(&mut byte).unwrap() == 1 && byte[0] == 0 {}
                is_over.store(1, Ordering::Relaxed);
                ticks.join().unwrap()
            })
        })
    };
    let readers = [(); 2].map(|()| reader(File::open(&path).unwrap()));
    for _ in 0..12 {
        sleep(ms(300));
        (&file).write_all(&[0]).unwrap();
    }
    sleep(ms(300));
    (&file).write_all(&[1, 1]).unwrap();
    let longest = readers.map(|reader| reader.join().unwrap());
    assert!(longest.iter().all(|longest| *longest < ms(250)), "{longest:?}");
    std::fs::remove_file(path).unwrap();
}

/// Both ends on one OS thread, more bytes than it holds, and in pieces that stay whole.
#[test]
fn a_fifo_is_read_and_written() {
    patched(|| {
        let path = path("fifo-data");
        fifo(&path);
        let theirs = path.clone();
        let reader = spawn(move || {
            let mut file = File::open(theirs).unwrap();
            let mut all = Vec::new();
            file.read_to_end(&mut all).unwrap();
            all
        });
        let mut file = OpenOptions::new().write(true).open(&path).unwrap();
        let writers: Vec<_> = (0..4)
            .map(|n: u8| {
                let mut file = file.try_clone().unwrap();
                spawn(move || {
                    for _ in 0..200 {
                        assert_eq!(file.write(&[n; 1000]).unwrap(), 1000);
                    }
                })
            })
            .collect();
        join_all(writers);
        assert_eq!(file.write(&vec![9; 300_000]).unwrap(), 300_000);
        let two = [io::IoSlice::new(&[8; 5000]), io::IoSlice::new(&[8; 3000])];
        assert_eq!(file.write_vectored(&two).unwrap(), 8000);
        drop(file);
        let all = reader.join().unwrap();
        assert_eq!(all.len(), 800_000 + 300_000 + 8000);
        assert!(all.chunks(1000).all(|piece| piece.iter().all(|byte| *byte == piece[0])));
        std::fs::remove_file(path).unwrap();
    });
}

/// poll never reports the end of a FIFO that is for the other direction, nor an empty FIFO for a read of no bytes.
#[test]
fn calls_on_a_fifo_that_cannot_wait_return_at_once() {
    patched(|| {
        let path = path("fifo-wrong");
        fifo(&path);
        let both = OpenOptions::new().read(true).write(true).open(&path).unwrap();
        let mut reader = File::open(&path).unwrap();
        let mut writer = OpenOptions::new().write(true).open(&path).unwrap();
        let at_once = timeout_or_late(ms(5000), move || {
            let wrong = [writer.read(&mut [0; 8]), reader.write(&[0; 8])];
            let wrong = wrong.map(|result| result.map_err(|error| error.raw_os_error()));
            assert_eq!(wrong, [Err(Some(libc::EBADF)); 2]);
            assert_eq!(reader.read_vectored(&mut [io::IoSliceMut::new(&mut [])]).unwrap(), 0);
        });
        assert!(at_once.is_ok(), "it does not wait");
        drop(both);
        std::fs::remove_file(path).unwrap();
    });
}

#[test]
fn opens_that_do_not_wait_are_as_libc_has_them() {
    patched(|| {
        let path = path("fifo-odd");
        fifo(&path);
        let name = CString::new(path.to_str().unwrap()).unwrap();
        // SAFETY: strings; descriptors are closed by hand.
        unsafe {
            let nothing = libc::open(name.as_ptr(), libc::O_WRONLY | libc::O_NONBLOCK);
            assert_eq!((nothing, last()), (-1, libc::ENXIO));
            let both = libc::open(name.as_ptr(), libc::O_RDWR | libc::O_CLOEXEC);
            assert!(both >= 0);
            let reader = libc::openat(libc::AT_FDCWD, name.as_ptr(), libc::O_RDONLY | libc::O_CLOEXEC);
            assert!(reader >= 0, "there is a writer");
            let only = libc::open(name.as_ptr(), libc::O_PATH);
            assert!(only >= 0);
            [both, reader, only]
                .into_iter()
                .for_each(|fd| assert_eq!(libc::close(fd), 0));
            assert_eq!(
                (libc::open(c"/nowhere/at/all".as_ptr(), libc::O_RDONLY), last()),
                (-1, libc::ENOENT)
            );
            assert_eq!(
                (libc::open(std::ptr::null(), libc::O_RDONLY), last()),
                (-1, libc::EFAULT)
            );
            // The mode arrives.
            let made = path.with_extension("made");
            let name = CString::new(made.to_str().unwrap()).unwrap();
            let fd = libc::open(name.as_ptr(), libc::O_WRONLY | libc::O_CREAT | libc::O_EXCL, 0o640);
            let mut stat: libc::stat = zeroed();
            assert_eq!(libc::fstat(fd, &raw mut stat), 0);
            assert_eq!(stat.st_mode & 0o777 & !0o022, 0o640 & !0o022);
            libc::close(fd);
            std::fs::remove_file(made).unwrap();
        }
        std::fs::remove_file(path).unwrap();
    });
}

#[test]
fn a_posix_queue_is_waited_for() {
    patched(|| {
        let name = CString::new(format!("/greenthread-{}", std::process::id())).unwrap();
        // SAFETY: a string, attributes, and buffers of the size of a message.
        unsafe {
            let mut attributes: libc::mq_attr = zeroed();
            (attributes.mq_maxmsg, attributes.mq_msgsize) = (2, 8);
            let flags = libc::O_RDWR | libc::O_CREAT | libc::O_EXCL;
            let queue = libc::mq_open(name.as_ptr(), flags, 0o600, &raw mut attributes);
            if queue < 0 {
                eprintln!("no queues here: {}", io::Error::last_os_error());
                return;
            }
            libc::mq_unlink(name.as_ptr());
            let receive = move || {
                let mut bytes = [0_u8; 8];
                let got = libc::mq_receive(queue, bytes.as_mut_ptr().cast(), 8, std::ptr::null_mut());
                (got, bytes[0])
            };
            let send = move |byte: u8| libc::mq_send(queue, (&raw const byte).cast(), 1, 0);
            assert_eq!(meanwhile(spawn(receive), || assert_eq!(send(7), 0)), (1, 7));
            assert_eq!((send(1), send(2)), (0, 0));
            let sends = spawn(move || send(3));
            assert_eq!(meanwhile(sends, || assert_eq!(receive(), (1, 1))), 0);
            assert_eq!((receive(), receive()), ((1, 2), (1, 3)));
            // Until a time, and killed.
            let until = |time: i64| libc::timespec {
                tv_sec: time,
                tv_nsec: 0,
            };
            let timed = move |until: libc::timespec| {
                let mut bytes = [0_u8; 8];
                let null = std::ptr::null_mut();
                let got = libc::mq_timedreceive(queue, bytes.as_mut_ptr().cast(), 8, null, &raw const until);
                (got, last())
            };
            assert_eq!(timed(until(1)), (-1, libc::ETIMEDOUT));
            assert_eq!(timed(until(-1)), (-1, libc::EINVAL));
            let mut soon = until(0);
            libc::clock_gettime(libc::CLOCK_REALTIME, &raw mut soon);
            soon.tv_sec += 1;
            assert_eq!(meanwhile(spawn(move || timed(soon)), || ()), (-1, libc::ETIMEDOUT));
            let killed = spawn(move || (receive().0, last()));
            yield_now();
            killed.kill();
            let late = killed.join().unwrap_err().into_value::<(isize, i32)>().unwrap();
            assert_eq!(late, (-1, libc::ECANCELED));
            libc::mq_close(queue);
        }
    });
}

#[test]
fn system_v_s_queues_and_semaphores_are_waited_for() {
    #[repr(C)]
    struct Message(libc::c_long, u8);
    patched(|| {
        // SAFETY: messages of one byte after their kind; operations on one semaphore.
        unsafe {
            let queue = libc::msgget(libc::IPC_PRIVATE, 0o600);
            assert!(queue >= 0);
            let receive = move || {
                let mut message = Message(0, 0);
                let got = libc::msgrcv(queue, (&raw mut message).cast(), 1, 0, 0);
                (got, message.1)
            };
            let send = |byte: u8| {
                let message = Message(1, byte);
                libc::msgsnd(queue, (&raw const message).cast(), 1, 0)
            };
            assert_eq!(meanwhile(spawn(receive), || assert_eq!(send(7), 0)), (1, 7));
            let mut message = Message(0, 0);
            let at_once = libc::msgrcv(queue, (&raw mut message).cast(), 1, 0, libc::IPC_NOWAIT);
            assert_eq!((at_once, last()), (-1, libc::ENOMSG));
            libc::msgctl(queue, libc::IPC_RMID, std::ptr::null_mut());

            let set = libc::semget(libc::IPC_PRIVATE, 1, 0o600);
            assert!(set >= 0);
            let operate = move |by: i16, flags: i16| {
                let mut operation = libc::sembuf {
                    sem_num: 0,
                    sem_op: by,
                    sem_flg: flags,
                };
                libc::semop(set, &raw mut operation, 1)
            };
            let waits = spawn(move || operate(-1, 0));
            assert_eq!(meanwhile(waits, || assert_eq!(operate(1, 0), 0)), 0);
            assert_eq!((operate(-1, libc::IPC_NOWAIT as i16), last()), (-1, libc::EAGAIN));
            libc::semctl(set, 0, libc::IPC_RMID);
        }
    });
}

#[test]
fn signals_are_waited_for() {
    if !alone("files::signals_are_waited_for") {
        return;
    }
    patched(|| {
        // SAFETY: a set of one signal, which is blocked here and sent to this OS thread.
        unsafe {
            let mut set: libc::sigset_t = zeroed();
            libc::sigaddset(&raw mut set, libc::SIGUSR1);
            libc::pthread_sigmask(libc::SIG_BLOCK, &raw const set, std::ptr::null_mut());
            let send = || {
                let thread = libc::syscall(libc::SYS_gettid);
                libc::syscall(libc::SYS_tgkill, libc::getpid(), thread, libc::SIGUSR1);
            };
            let info = spawn(move || {
                let mut info: libc::siginfo_t = zeroed();
                let got = libc::sigwaitinfo(&raw const set, &raw mut info);
                (got, info.si_pid())
            });
            assert_eq!(meanwhile(info, send), (libc::SIGUSR1, libc::getpid()));
            let plain = spawn(move || {
                let mut signal = 0;
                (libc::sigwait(&raw const set, &raw mut signal), signal)
            });
            assert_eq!(meanwhile(plain, send), (0, libc::SIGUSR1));
            let timed = move |nanos| {
                let time = libc::timespec {
                    tv_sec: 0,
                    tv_nsec: nanos,
                };
                let got = libc::sigtimedwait(&raw const set, std::ptr::null_mut(), &raw const time);
                (got, last())
            };
            assert_eq!(timed(0), (-1, libc::EAGAIN));
            assert_eq!(timed(-1), (-1, libc::EINVAL));
            assert_eq!(meanwhile(spawn(move || timed(200_000_000)), || ()), (-1, libc::EAGAIN));
        }
    });
}

/// Until a handler has run.
#[test]
fn main_pauses() {
    static CAUGHT: AtomicU32 = AtomicU32::new(0);
    extern "C" fn counts(_: i32) {
        CAUGHT.fetch_add(1, Ordering::SeqCst);
    }
    if !alone("files::main_pauses") {
        return;
    }
    patched(|| {
        // SAFETY: all-zero is a valid action and a valid set; a handler of its type.
        unsafe {
            let mut action: libc::sigaction = zeroed();
            action.sa_sigaction = counts as *const () as usize;
            action.sa_flags = libc::SA_RESTART;
            libc::sigaction(libc::SIGUSR1, &raw const action, std::ptr::null_mut());
            let (process, thread) = (libc::getpid(), libc::syscall(libc::SYS_gettid));
            let other = spawn(move || {
                for n in 1..=2 {
                    sleep(ms(20));
                    libc::syscall(libc::SYS_tgkill, process, thread, libc::SIGUSR1);
                    assert_eq!(CAUGHT.load(Ordering::SeqCst), n);
                }
            });
            assert_eq!((libc::pause(), last()), (-1, libc::EINTR));
            let mut now: libc::sigset_t = zeroed();
            libc::pthread_sigmask(libc::SIG_BLOCK, std::ptr::null(), &raw mut now);
            assert_eq!((libc::sigsuspend(&raw const now), last()), (-1, libc::EINTR));
            other.join().unwrap();
        }
    });
}

/// As C has them: memory of a size, set up by a call.
#[repr(C, align(8))]
struct Object([u8; 48]);

unsafe extern "C" {
    fn mtx_init(lock: *mut Object, kind: i32) -> i32;
    fn mtx_lock(lock: *mut Object) -> i32;
    fn mtx_trylock(lock: *mut Object) -> i32;
    fn mtx_timedlock(lock: *mut Object, until: *const libc::timespec) -> i32;
    fn mtx_unlock(lock: *mut Object) -> i32;
    fn cnd_init(condition: *mut Object) -> i32;
    fn cnd_wait(condition: *mut Object, lock: *mut Object) -> i32;
    fn cnd_timedwait(condition: *mut Object, lock: *mut Object, until: *const libc::timespec) -> i32;
    fn cnd_signal(condition: *mut Object) -> i32;
    fn cnd_broadcast(condition: *mut Object) -> i32;
    fn thrd_sleep(time: *const libc::timespec, left: *mut libc::timespec) -> i32;
    fn thrd_create(
        id: *mut libc::pthread_t,
        f: extern "C" fn(*mut libc::c_void) -> i32,
        with: *mut libc::c_void,
    ) -> i32;
    fn thrd_join(id: libc::pthread_t, result: *mut i32) -> i32;
    fn call_once(once: *mut i32, f: extern "C" fn());
}

const TIMED: i32 = 2;
const BUSY: i32 = 1;
const TIMED_OUT: i32 = 4;

struct C11 {
    lock: std::cell::UnsafeCell<Object>,
    condition: std::cell::UnsafeCell<Object>,
    ready: AtomicU32,
}

// SAFETY: C's own objects, for any thread.
unsafe impl Sync for C11 {}

#[test]
fn c11_s_threads_wait_in_their_turn() {
    static ALL: C11 = C11 {
        lock: std::cell::UnsafeCell::new(Object([0; 48])),
        condition: std::cell::UnsafeCell::new(Object([0; 48])),
        ready: AtomicU32::new(0),
    };
    patched(|| {
        let lock = || ALL.lock.get();
        let condition = || ALL.condition.get();
        let soon = |nanos: i64| {
            let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
            // SAFETY: room for a time.
            unsafe { libc::clock_gettime(libc::CLOCK_REALTIME, &raw mut time) };
            time.tv_nsec += nanos;
            (time.tv_sec, time.tv_nsec) = (time.tv_sec + time.tv_nsec / 1_000_000_000, time.tv_nsec % 1_000_000_000);
            time
        };
        // SAFETY: objects that live as long as the program, set up first.
        unsafe {
            assert_eq!((mtx_init(lock(), TIMED), cnd_init(condition())), (0, 0));
            assert_eq!(mtx_lock(lock()), 0);
            let waits = spawn(move || {
                assert_eq!(mtx_trylock(lock()), BUSY);
                assert_eq!(mtx_timedlock(lock(), &soon(1_000_000)), TIMED_OUT);
                assert_eq!(mtx_lock(lock()), 0);
                assert_eq!(mtx_unlock(lock()), 0);
            });
            meanwhile(waits, || assert_eq!(mtx_unlock(lock()), 0));
            let waiters: Vec<_> = (0..5)
                .map(|_| {
                    spawn(move || {
                        assert_eq!(mtx_lock(lock()), 0);
                        while ALL.ready.load(Ordering::SeqCst) == 0 {
                            assert_eq!(cnd_wait(condition(), lock()), 0);
                        }
                        assert_eq!(mtx_unlock(lock()), 0);
                    })
                })
                .collect();
            assert_eq!(mtx_lock(lock()), 0);
            assert_eq!(cnd_timedwait(condition(), lock(), &soon(20_000_000)), TIMED_OUT);
            assert_eq!(cnd_signal(condition()), 0);
            ALL.ready.store(1, Ordering::SeqCst);
            assert_eq!((cnd_broadcast(condition()), mtx_unlock(lock())), (0, 0));
            join_all(waiters);
        }
    });
}

#[test]
fn c11_s_sleeps_joins_and_onces() {
    static RELEASED: AtomicU32 = AtomicU32::new(0);
    extern "C" fn body(_: *mut libc::c_void) -> i32 {
        while RELEASED.load(Ordering::SeqCst) == 0 {
            sleep(ms(1));
        }
        7
    }
    extern "C" fn once() {
        sleep(ms(20));
        RELEASED.fetch_add(1, Ordering::SeqCst);
    }
    patched(|| {
        super::at_once(ms(50), |_| {
            let time = libc::timespec {
                tv_sec: 0,
                tv_nsec: 50_000_000,
            };
            // SAFETY: a time.
            assert_eq!(unsafe { thrd_sleep(&raw const time, std::ptr::null_mut()) }, 0);
        });
        let join = spawn(|| {
            let (mut id, mut result) = (0, 0);
            // SAFETY: room for an id and a number.
            unsafe {
                assert_eq!(thrd_create(&raw mut id, body, std::ptr::null_mut()), 0);
                assert_eq!(thrd_join(id, &raw mut result), 0);
            }
            result
        });
        static ONCE: AtomicU32 = AtomicU32::new(0);
        let joined = meanwhile(join, || {
            // SAFETY: a flag that lives as long as the program.
            let onces = (0..5).map(|_| spawn(|| unsafe { call_once(ONCE.as_ptr().cast(), once) }));
            join_all(onces.collect());
        });
        assert_eq!((joined, RELEASED.load(Ordering::SeqCst)), (7, 1));
    });
}
