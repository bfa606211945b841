//! Green threads with thread-locals of their own: what would be wrong if they shared them, is right.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use greenthread::{hub, sleep, spawn, spawn_local, thread, yield_now};

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

#[test]
fn it_works_here() {
    thread::isolation().unwrap();
    assert!(!thread::is_isolated());
    assert!(spawn(thread::is_isolated).join().unwrap());
    assert!(!spawn_local(thread::is_isolated).join().unwrap());
    assert!(greenthread::run(thread::is_isolated));
    let (one, two) = greenthread::scope(|s| {
        let one = s.spawn(thread::is_isolated);
        let two = s.spawn_local(thread::is_isolated);
        (one.join().unwrap(), two.join().unwrap())
    });
    assert!(one && !two);
}

/// Two enter the initialiser of one lazy thread-local: shared, the second value would replace the first, which is
/// borrowed.
#[test]
fn a_lazy_thread_local_whose_initialiser_parks_is_each_one_s_own() {
    thread_local! {
        static TURN: Cell<u32> = const { Cell::new(0) };
        static LAZY: String = {
            TURN.set(TURN.get() + 1);
            yield_now();
            yield_now();
            format!("v{}-{}", TURN.get(), "x".repeat(64))
        };
    }
    let look = || {
        LAZY.with(|text| {
            let held = text.as_str();
            for _ in 0..3 {
                yield_now();
            }
            String::from(held)
        })
    };
    let (a, b) = (spawn(look), spawn(look));
    let expected = format!("v1-{}", "x".repeat(64));
    assert_eq!((a.join().unwrap(), b.join().unwrap()), (expected.clone(), expected));
}

/// They leave their scopes in the order of entering, which a shared scoped thread-local cannot bear.
#[test]
fn scoped_thread_locals_may_be_left_in_any_order() {
    scoped_tls::scoped_thread_local!(static SCOPED: String);
    let a = spawn(|| {
        let text = "a".repeat(64);
        SCOPED.set(&text, yield_now);
    });
    let b = spawn(|| {
        let text = "b".repeat(64);
        SCOPED.set(&text, || {
            yield_now();
            yield_now();
            SCOPED.with(String::clone)
        })
    });
    a.join().unwrap();
    assert_eq!(b.join().unwrap(), "b".repeat(64));
}

#[test]
fn each_has_a_std_thread_of_its_own() {
    let ids: Vec<_> = (0..3)
        .map(|_| {
            spawn(|| {
                let before = std::thread::current().id();
                yield_now();
                assert_eq!(std::thread::current().id(), before);
                before
            })
        })
        .collect();
    let mut ids: Vec<_> = ids.into_iter().map(|handle| handle.join().unwrap()).collect();
    ids.push(std::thread::current().id());
    ids.sort_by_key(|id| format!("{id:?}"));
    ids.dedup();
    assert_eq!(ids.len(), 4);
}

#[test]
fn a_thread_that_unwinds_and_parks_does_not_make_others_panic_or_poison() {
    struct Parks(Arc<AtomicU32>);
    impl Drop for Parks {
        fn drop(&mut self) {
            self.0.store(1, Ordering::SeqCst);
            sleep(ms(20));
            assert!(std::thread::panicking());
            self.0.store(2, Ordering::SeqCst);
        }
    }
    let stage = Arc::new(AtomicU32::new(0));
    let lock = Arc::new(Mutex::new(0));
    let parks = Parks(stage.clone());
    let unwinds = spawn(move || {
        let _parks = parks;
        std::panic::resume_unwind(Box::new("quietly"));
    });
    let (seen, innocent) = (stage.clone(), lock.clone());
    let bystander = spawn(move || {
        while seen.load(Ordering::SeqCst) == 0 {
            yield_now();
        }
        let panicking = std::thread::panicking();
        *innocent.lock().unwrap() += 1;
        (panicking, seen.load(Ordering::SeqCst))
    });
    assert_eq!(bystander.join().unwrap(), (false, 1));
    assert!(unwinds.join().unwrap_err().is_panic());
    assert!(!lock.is_poisoned());
    assert_eq!(stage.load(Ordering::SeqCst), 2);
}

/// Pushes its name when it is dropped.
struct Logs(&'static str, Arc<Mutex<Vec<&'static str>>>);

impl Drop for Logs {
    fn drop(&mut self) {
        sleep(ms(1));
        self.1.lock().unwrap().push(self.0);
    }
}

thread_local! {
    static KEPT: RefCell<Option<Logs>> = const { RefCell::new(None) };
}

#[test]
fn destructors_run_before_the_join_returns_and_may_park() {
    let log: Arc<Mutex<Vec<&'static str>>> = Arc::default();
    for _ in 0..3 {
        let mine = log.clone();
        spawn(move || KEPT.set(Some(Logs("dropped", mine)))).join().unwrap();
    }
    assert_eq!(*log.lock().unwrap(), ["dropped"; 3]);
    assert!(KEPT.with_borrow(Option::is_none));
}

#[test]
fn a_killed_one_s_destructors_run_too() {
    let log: Arc<Mutex<Vec<&'static str>>> = Arc::default();
    let mine = log.clone();
    let victim = spawn(move || {
        KEPT.set(Some(Logs("dropped", mine)));
        thread::park();
    });
    yield_now();
    victim.kill();
    assert!(victim.join().unwrap_err().is_killed());
    assert_eq!(*log.lock().unwrap(), ["dropped"]);
}

#[test]
fn local_ones_share_their_maker_s_and_the_last_ends_them() {
    let log: Arc<Mutex<Vec<&'static str>>> = Arc::default();
    let mine = log.clone();
    spawn(move || {
        let inner = mine.clone();
        KEPT.set(Some(Logs("thread-locals", mine)));
        drop(spawn_local(move || {
            sleep(ms(10));
            assert!(thread::is_isolated());
            assert!(KEPT.with_borrow(Option::is_some));
            inner.lock().unwrap().push("local one");
        }));
    })
    .join()
    .unwrap();
    assert!(log.lock().unwrap().is_empty(), "they live on while a member does");
    while log.lock().unwrap().len() < 2 {
        sleep(ms(1));
    }
    assert_eq!(*log.lock().unwrap(), ["local one", "thread-locals"]);
}

#[test]
fn callbacks_run_in_the_context_that_left_them() {
    thread_local!(static WHO: Cell<&'static str> = const { Cell::new("nobody") });
    WHO.set("native");
    let seen = spawn(|| {
        WHO.set("mine");
        let seen = Rc::new(Cell::new(""));
        let told = seen.clone();
        hub::call_soon(move || told.set(WHO.get()));
        while seen.get().is_empty() {
            yield_now();
        }
        seen.get()
    });
    assert_eq!(seen.join().unwrap(), "mine");
    let ours = Rc::new(Cell::new(""));
    let told = ours.clone();
    hub::call_soon(move || told.set(WHO.get()));
    yield_now();
    assert_eq!(ours.get(), "native");
}

#[test]
fn a_callback_that_outlives_its_green_thread_keeps_the_context() {
    let log: Arc<Mutex<Vec<&'static str>>> = Arc::default();
    let mine = log.clone();
    spawn(move || {
        let inner = mine.clone();
        KEPT.set(Some(Logs("thread-locals", mine.clone())));
        hub::call_soon(move || {
            let kept = KEPT.with_borrow(Option::is_some);
            inner.lock().unwrap().push(if kept { "callback" } else { "too late" });
        });
    })
    .join()
    .unwrap();
    while log.lock().unwrap().len() < 2 {
        sleep(ms(1));
    }
    // The destructor parks, which a callback could not.
    assert_eq!(*log.lock().unwrap(), ["callback", "thread-locals"]);
}

/// A cache of `malloc`'s for each life would be lost with it: 1,664 bytes each, 33 MB here.
#[test]
fn a_life_that_allocates_leaves_no_memory_behind() {
    let out = crate::support::child::run("many lives");
    assert!(out.ok, "{out:?}");
}

/// Runs in a child, which has its memory to itself.
pub(crate) fn many_lives() {
    live_and_leave_nothing(|| drop(std::hint::black_box(vec![1_u8; 1000])));
}

fn live_and_leave_nothing(f: fn()) {
    fn resident() -> usize {
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        // Not `VmRSS`: pages of the program's own file come and go as the system likes.
        let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).unwrap();
        line.trim().trim_end_matches(" kB").parse().unwrap()
    }
    let live = |times| (0..times).for_each(|_| spawn(f).join().unwrap());
    live(1_000);
    let before = resident();
    live(20_000);
    let grown = resident().saturating_sub(before);
    assert!(grown < 1_024, "{grown} KiB");
}

unsafe extern "C" {
    fn __res_state() -> *mut u8;
    fn __res_init() -> i32;
}

fn resolver() -> usize {
    // SAFETY: asks for the address of the caller's state.
    unsafe { __res_state() }.addr()
}

#[test]
fn each_has_a_resolver_of_its_own() {
    let one = spawn(|| {
        let here = resolver();
        let two = spawn(|| {
            let here = resolver();
            let three = || (resolver(), spawn(resolver).join().unwrap());
            (here, std::thread::spawn(three).join().unwrap())
        });
        let (two, (os_thread, three)) = two.join().unwrap();
        assert_eq!(here, resolver());
        [here, two, os_thread, three]
    });
    let all = one.join().unwrap();
    let all: std::collections::HashSet<_> = all.into_iter().chain([resolver()]).collect();
    assert_eq!(all.len(), 5, "{all:x?}");
}

#[test]
fn a_resolver_begins_unused_and_its_end_closes_it() {
    let live = || {
        // SAFETY: the options and the number of servers, of the caller's own state.
        unsafe {
            let state = __res_state();
            let before = (*state.add(8).cast::<u64>(), *state.add(16).cast::<i32>());
            assert_eq!(__res_init(), 0);
            (before, *state.add(16).cast::<i32>() > 0)
        }
    };
    for _ in 0..3 {
        assert_eq!(spawn(live).join().unwrap(), ((0, 0), true));
    }
}

/// What `dlerror`, `strerror`, `strsignal` and the resolver keep for each thread: 2 MB here by the first alone.
#[test]
fn what_libc_keeps_for_a_thread_goes_with_it() {
    let out = crate::support::child::run("many results");
    assert!(out.ok, "{out:?}");
}

pub(crate) fn many_results() {
    live_and_leave_nothing(|| {
        // SAFETY: names and numbers that there are none of.
        unsafe {
            assert!(libc::dlsym(libc::RTLD_DEFAULT, c"no such symbol".as_ptr()).is_null());
            assert!(!libc::strerror(9_999).is_null() && !libc::strsignal(9_999).is_null());
            assert_eq!(__res_init(), 0);
        }
    });
}

/// Since glibc 2.41 `getrandom` keeps a state for each thread, which nothing would give back: 144 bytes of each block
/// here.
#[test]
fn the_state_of_getrandom_is_the_os_thread_s() {
    let out = crate::support::child::run("many states");
    assert!(out.ok, "{out:?}");
}

pub(crate) fn many_states() {
    /// The KiB of memory that the system may drop, in which only such states are.
    fn size() -> usize {
        let (mut size, mut all) = (0, 0);
        for line in std::fs::read_to_string("/proc/self/smaps").unwrap().lines() {
            let mut words = line.split_whitespace();
            match words.next() {
                Some("Size:") => size = words.next().unwrap().parse().unwrap(),
                Some("VmFlags:") if words.any(|flag| flag == "dp") => all += size,
                _ => {}
            }
        }
        all
    }
    let ask = || {
        let mut random = 0_u64;
        // SAFETY: writes eight bytes, for which there is room.
        assert_eq!(unsafe { libc::getrandom((&raw mut random).cast(), 8, 0) }, 8);
        yield_now();
        // SAFETY: writes eight bytes, for which there is room.
        assert_eq!(unsafe { libc::getrandom((&raw mut random).cast(), 8, 0) }, 8);
    };
    spawn(ask).join().unwrap();
    let before = size();
    let all: Vec<_> = (0..2_000).map(|_| spawn(ask)).collect();
    all.into_iter().for_each(|one| one.join().unwrap());
    let grown = size() - before;
    assert!(grown <= 16, "{grown} KiB");
}

/// Since glibc 2.41 the area lies in memory that `malloc` has returned: code that trusts what it says would take a
/// number of a processor from there.
#[test]
#[cfg(target_arch = "x86_64")]
fn the_area_of_restartable_sequences_is_marked_as_unregistered() {
    // SAFETY: `dlsym` with a valid name.
    let offset = unsafe { libc::dlsym(libc::RTLD_DEFAULT, c"__rseq_offset".as_ptr()) }.cast::<isize>();
    if offset.is_null() {
        return println!("not here: glibc has this area since 2.35");
    }
    // SAFETY: glibc's variable of this name has this type.
    let offset = unsafe { *offset };
    // What new blocks will be made of.
    drop(std::hint::black_box(vec![vec![0xff_u8; 5_000]; 500]));
    let look = move || {
        yield_now();
        // SAFETY: the area of the running block, from which `pthread_self` is the base here.
        unsafe { *((libc::pthread_self() as usize).wrapping_add_signed(offset) as *const [i32; 8]) }
    };
    let all: Vec<_> = (0..100).map(|_| spawn(look)).collect();
    for one in all {
        assert_eq!(one.join().unwrap(), [0, -2, 0, 0, 0, 0, 0, 0]);
    }
}

#[test]
fn memory_goes_freely_from_one_to_the_other_beside_another_os_thread() {
    let noise = std::thread::spawn(|| {
        for round in 0..20_000_usize {
            let block = vec![round as u8; round % 3000];
            assert!(block.iter().all(|byte| *byte == round as u8));
        }
    });
    let mut made = Vec::new();
    for round in 0..200_u32 {
        let mut before = std::mem::take(&mut made);
        let handles: Vec<_> = (0..20_u32)
            .map(|n| {
                let old: Vec<Vec<u32>> = before.split_off(before.len().saturating_sub(5));
                spawn(move || {
                    let fresh = vec![round + n; (n as usize * 37) % 900];
                    yield_now();
                    drop(old);
                    yield_now();
                    fresh
                })
            })
            .collect();
        for (n, handle) in handles.into_iter().enumerate() {
            let fresh = handle.join().unwrap();
            assert!(fresh.iter().all(|value| *value == round + n as u32));
            made.push(fresh);
        }
    }
    noise.join().unwrap();
}

#[test]
fn errno_is_each_one_s_own() {
    let missing = || std::fs::File::open("/nonexistent/file").unwrap_err().raw_os_error();
    let a = spawn(move || {
        let mine = missing();
        // SAFETY: a bad descriptor, for errno's sake.
        unsafe { libc::close(-1) };
        yield_now();
        (mine, std::io::Error::last_os_error().raw_os_error())
    });
    let b = spawn(move || {
        missing();
        yield_now();
        std::io::Error::last_os_error().raw_os_error()
    });
    assert_eq!(a.join().unwrap(), (Some(libc::ENOENT), Some(libc::EBADF)));
    assert_eq!(b.join().unwrap(), Some(libc::ENOENT));
}

#[test]
fn values_under_c_keys_are_apart_and_their_destructors_run() {
    static ENDED: AtomicU32 = AtomicU32::new(0);
    extern "C" fn count(value: *mut libc::c_void) {
        ENDED.fetch_add(value.addr() as u32, Ordering::SeqCst);
    }
    let mut key = 0;
    // SAFETY: a key of our own.
    assert_eq!(unsafe { libc::pthread_key_create(&raw mut key, Some(count)) }, 0);
    let use_key = move |value: usize| {
        move || {
            // SAFETY: the key lives until the end of the test.
            unsafe {
                assert!(libc::pthread_getspecific(key).is_null());
                assert_eq!(libc::pthread_setspecific(key, value as *const _), 0);
                yield_now();
                assert_eq!(libc::pthread_getspecific(key).addr(), value);
            }
        }
    };
    let handles = [spawn(use_key(1)), spawn(use_key(10)), spawn(use_key(100))];
    handles.into_iter().for_each(|handle| handle.join().unwrap());
    assert_eq!(ENDED.load(Ordering::SeqCst), 111);
    spawn(use_key(1000)).join().unwrap();
    assert_eq!(ENDED.load(Ordering::SeqCst), 1111);
    // SAFETY: nobody has a value any more.
    unsafe { libc::pthread_key_delete(key) };
}

#[test]
fn a_recursive_c_mutex_has_one_owner() {
    struct Shared(std::cell::UnsafeCell<libc::pthread_mutex_t>);
    // SAFETY: a C mutex is for all threads.
    unsafe impl Send for Shared {}
    // SAFETY: a C mutex is for all threads.
    unsafe impl Sync for Shared {}
    let mutex = Arc::new(Shared(std::cell::UnsafeCell::new(
        libc::PTHREAD_RECURSIVE_MUTEX_INITIALIZER_NP,
    )));
    let other = mutex.clone();
    let holder = spawn(move || {
        // SAFETY: an initialised mutex, unlocked by who locked it.
        unsafe {
            assert_eq!(libc::pthread_mutex_lock(mutex.0.get()), 0);
            assert_eq!(libc::pthread_mutex_lock(mutex.0.get()), 0);
            yield_now();
            yield_now();
            assert_eq!(libc::pthread_mutex_unlock(mutex.0.get()), 0);
            assert_eq!(libc::pthread_mutex_unlock(mutex.0.get()), 0);
        }
    });
    // SAFETY: an initialised mutex; it is not locked here, for another green thread has it.
    let seen = spawn(move || unsafe { libc::pthread_mutex_trylock(other.0.get()) });
    assert_eq!(seen.join().unwrap(), libc::EBUSY);
    holder.join().unwrap();
}

#[test]
fn generators_and_greenlets_work_in_their_own_context() {
    use greenthread::generator::{Generator, Yielder};
    use greenthread::greenlet::{self, Greenlet};
    let sum = spawn(|| {
        let numbers = Generator::new(|y: &Yielder<'_, u32>| {
            for n in 0..10 {
                sleep(ms(1));
                y.yield_(n);
            }
        });
        let main = greenlet::current::<u32>();
        let double = Greenlet::new(move |mut n| {
            loop {
                yield_now();
                n = main.switch(n * 2);
            }
        });
        numbers.map(|n| double.switch(n)).sum::<u32>()
    });
    assert_eq!(sum.join().unwrap(), 90);
}

/// A debugger stops in an isolated thread, shows where, and goes on. Without a gdb there is nothing to see.
#[test]
fn gdb_stops_in_one_and_goes_on() {
    let mut gdb = std::process::Command::new("gdb");
    gdb.args([
        "-nx",
        "-batch",
        "-ex",
        "set breakpoint pending on",
        "-ex",
        "break gdb_stops_here",
    ]);
    gdb.args([
        "-ex",
        "run",
        "-ex",
        "backtrace 4",
        "-ex",
        "info threads",
        "-ex",
        "continue",
        "--args",
    ]);
    gdb.arg(std::env::current_exe().unwrap());
    gdb.args([
        crate::support::child::ARGS[0],
        "--exact",
        "--nocapture",
        "--test-threads=1",
    ]);
    let Ok(output) = gdb.env("GREENTHREAD_SCENARIO", "stop").output() else {
        return;
    };
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(text.contains("it::thread::isolation::stop"), "{output:?}");
    assert!(text.contains("exited normally"), "{output:?}");
}

/// Runs under gdb.
pub(crate) fn stop() {
    let here = spawn(|| gdb_stops_here(thread::is_isolated())).join().unwrap();
    assert_eq!(here, 1);
}

#[inline(never)]
#[unsafe(no_mangle)]
fn gdb_stops_here(isolated: bool) -> u32 {
    std::hint::black_box(u32::from(isolated))
}

#[test]
fn a_backtrace_ends_with_its_green_thread() {
    let capture = || std::backtrace::Backtrace::force_capture().to_string();
    for trace in [spawn(capture).join().unwrap(), spawn_local(capture).join().unwrap()] {
        assert!(trace.contains("a_backtrace_ends_with_its_green_thread"), "{trace}");
        assert!(
            !trace.contains("Hub::pump"),
            "the hub, or main, is no part of it: {trace}"
        );
    }
}

#[test]
fn many_at_once_are_all_apart() {
    thread_local!(static MINE: Cell<u32> = const { Cell::new(0) });
    let handles: Vec<_> = (1..=2000)
        .map(|n| {
            spawn(move || {
                assert_eq!(MINE.replace(n), 0);
                for _ in 0..3 {
                    yield_now();
                    assert_eq!(MINE.get(), n);
                }
            })
        })
        .collect();
    handles.into_iter().for_each(|handle| handle.join().unwrap());
    assert_eq!(MINE.get(), 0);
}

#[test]
fn c_is_told_of_the_green_stack() {
    let ask = || {
        // SAFETY: attributes that the call initialises, asked for their stack.
        unsafe {
            let mut attributes: libc::pthread_attr_t = std::mem::zeroed();
            assert_eq!(libc::pthread_getattr_np(libc::pthread_self(), &raw mut attributes), 0);
            let (mut low, mut size) = (std::ptr::null_mut(), 0);
            assert_eq!(
                libc::pthread_attr_getstack(&raw const attributes, &raw mut low, &raw mut size),
                0
            );
            libc::pthread_attr_destroy(&raw mut attributes);
            let here = 0_u8;
            let range = low.addr()..low.addr() + size;
            (range.contains(&(&raw const here).addr()), size)
        }
    };
    let (isolated, local) = (greenthread::stack::DEFAULT_SIZE, greenthread::stack::LOCAL_SIZE);
    for (told, least) in [(spawn(ask), isolated), (spawn_local(ask), local)] {
        let (inside, size) = told.join().unwrap();
        // A guard may be as large as the largest page, 64 KiB, and the pages of this system smaller.
        let most = least + (least / 4).max(64 * 1024);
        assert!(inside && (least..=most).contains(&size), "{inside} {size}");
    }
    let (inside, size) = ask();
    assert!(
        inside && size > isolated + isolated / 4,
        "the native stack: {inside} {size}"
    );
}

/// Compiles a library with one thread-local, which starts as 42.
fn library() -> std::path::PathBuf {
    let folder = std::env::temp_dir().join(format!("greenthread-tls-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let source = folder.join("tls.c");
    std::fs::write(
        &source,
        "static __thread int value = 42; int swap(int new) { int old = value; value = new; return old; }",
    )
    .unwrap();
    let library = folder.join("libtls.so");
    // In an emulator, `gcc` is the host's.
    let cross = format!("{}-linux-gnu-gcc", std::env::consts::ARCH);
    let is_cross =
        cfg!(target_arch = "aarch64") && std::process::Command::new(&cross).arg("--version").output().is_ok();
    let made = std::process::Command::new(if is_cross { &cross } else { "gcc" })
        .args(["-shared", "-fPIC", "-o"])
        .args([&library, &source])
        .status()
        .unwrap();
    assert!(made.success());
    library
}

#[test]
fn a_library_loaded_while_they_live_has_its_thread_locals_in_each() {
    let path = library();
    let name = std::ffi::CString::new(path.to_str().unwrap()).unwrap();
    // One that has been there before, and blocks that wait in the pool.
    let many: Vec<_> = (0..5).map(|_| spawn(yield_now)).collect();
    many.into_iter().for_each(|handle| handle.join().unwrap());
    let swap = Arc::new(Mutex::new(None::<extern "C" fn(i32) -> i32>));
    let theirs = swap.clone();
    let old = spawn(move || {
        thread::park();
        let swap = theirs.lock().unwrap().unwrap();
        (swap(1), swap(2))
    });
    yield_now();
    // SAFETY: a library of our own, whose function has this type.
    let found = unsafe {
        let library = libc::dlopen(name.as_ptr(), libc::RTLD_NOW);
        assert!(!library.is_null());
        std::mem::transmute::<*mut libc::c_void, extern "C" fn(i32) -> i32>(libc::dlsym(library, c"swap".as_ptr()))
    };
    *swap.lock().unwrap() = Some(found);
    assert_eq!((found(7), found(8)), (42, 7));
    old.thread().unpark();
    assert_eq!(old.join().unwrap(), (42, 1), "it lived before");
    for _ in 0..3 {
        let (a, b) = (spawn(move || (found(3), found(4))), spawn(move || found(5)));
        assert_eq!((a.join().unwrap(), b.join().unwrap()), ((42, 3), 42), "from the pool");
    }
    assert_eq!(found(9), 8);
    std::fs::remove_dir_all(path.parent().unwrap()).unwrap();
}

fn io_error() -> Option<i32> {
    std::io::Error::last_os_error().raw_os_error()
}

#[test]
fn the_user_can_be_changed_beside_other_os_threads() {
    let (tell, told) = std::sync::mpsc::channel::<()>();
    let other = std::thread::spawn(move || told.recv().unwrap());
    // SAFETY: sets the ids that there are.
    let set = || unsafe { (libc::setgid(libc::getgid()), libc::setuid(libc::getuid())) };
    assert_eq!(spawn(set).join().unwrap(), (0, 0));
    // SAFETY: an id that there is not.
    let bad = || unsafe { (libc::setgid(u32::MAX), io_error()) };
    assert_eq!(spawn(bad).join().unwrap(), (-1, Some(libc::EINVAL)));
    tell.send(()).unwrap();
    other.join().unwrap();
}

#[test]
fn failed_allocations_in_many_contexts_leave_the_arenas_whole() {
    // An OS thread with a hub has ended: its arena is free for whoever looks for one.
    std::thread::spawn(|| spawn(|| drop(vec![0_u8; 1000])).join().unwrap())
        .join()
        .unwrap();
    for _ in 0..20 {
        let fails = || Vec::<u8>::new().try_reserve_exact(1 << 46).is_err();
        let handles: Vec<_> = (0..6).map(|_| spawn(fails)).collect();
        assert!(handles.into_iter().all(|handle| handle.join().unwrap()));
        let used: Vec<_> = (0..6).map(|n| spawn(move || vec![n; 5000])).collect();
        for (n, handle) in used.into_iter().enumerate() {
            assert_eq!(handle.join().unwrap(), vec![n; 5000]);
        }
    }
}
