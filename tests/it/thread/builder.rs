//! Names, stack sizes, no memory; and green threads in destructors of thread-locals.

use std::cell::RefCell;
use std::io::ErrorKind;
use std::sync::{Arc, Mutex};

use greenthread::thread::{self, Builder, Locals};
use greenthread::{hub, sleep, spawn, yield_now};

use crate::support::child;
use crate::support::fresh::{fresh, ms};

#[test]
fn the_name_shows_in_debug_and_inside() {
    fresh(|| {
        let handle = Builder::new()
            .name("worker-7")
            .spawn(|| thread::current().name().map(String::from))
            .unwrap();
        let shown = format!("{handle:?}");
        let number = handle.thread().id().as_u64();
        assert_eq!(shown, format!("green thread #{number} 'worker-7'"));
        assert_eq!(shown, format!("{:?}", handle.thread()));
        assert_eq!(handle.join().unwrap().as_deref(), Some("worker-7"));
        let unnamed = spawn(|| thread::current().name().is_none());
        let number = unnamed.thread().id().as_u64();
        assert_eq!(format!("{unnamed:?}"), format!("green thread #{number}"));
        assert!(unnamed.join().unwrap());
        assert!(format!("{:?}", thread::current()).starts_with("native stack #"));
    });
}

#[test]
fn ids_differ_and_are_not_used_again() {
    fresh(|| {
        let ids: std::collections::HashSet<_> = (0..2500)
            .map(|_| {
                let handle = spawn(|| thread::current().id());
                let id = handle.thread().id();
                assert_eq!(handle.join().unwrap(), id);
                id
            })
            .collect();
        assert_eq!(ids.len(), 2500);
    });
}

#[test]
fn a_stack_size_is_honoured() {
    /// Touches some `kib` KiB of stack.
    fn deep(kib: usize) -> usize {
        let block = std::hint::black_box([1_u8; 1024]);
        if kib == 0 {
            0
        } else {
            usize::from(block[kib % 1024]) + deep(kib - 1)
        }
    }
    fresh(|| {
        let handle = Builder::new().stack_size(16 << 20).spawn(|| deep(3000)).unwrap();
        assert_eq!(handle.join().unwrap(), 3000);
        let tiny = Builder::new().stack_size(1).spawn(|| 1).unwrap();
        assert_eq!(tiny.join().unwrap(), 1, "rounded up");
    });
}

#[test]
fn impossible_stack_sizes_are_errors_and_drop_the_closure() {
    fresh(|| {
        let owned = Arc::new(());
        for size in [
            0,
            usize::MAX,
            usize::MAX - 4095,
            1 << 50,
            3 << 50,
            isize::MAX as usize,
            1 << 63,
        ] {
            let theirs = owned.clone();
            let error = Builder::new().stack_size(size).spawn(move || drop(theirs)).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidInput, "{size}: {error}");
        }
        assert_eq!(Arc::strong_count(&owned), 1);
        assert_eq!(hub::live(), 0);
        assert_eq!(spawn(|| 1).join().unwrap(), 1);
    });
}

#[test]
fn locals_may_not_go_to_one_that_is_send() {
    fresh(|| {
        for locals in [Locals::Inherit, Locals::Share] {
            let error = Builder::new().locals(locals).spawn(|| ()).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidInput);
            Builder::new()
                .locals(locals)
                .spawn_local(|| ())
                .unwrap()
                .join()
                .unwrap();
        }
    });
}

/// In a process of little address space; see [`child`].
pub(crate) fn no_memory() {
    fresh(|| {
        let owned = Arc::new(());
        let mut held = Vec::new();
        let error = loop {
            let theirs = owned.clone();
            match Builder::new().stack_size(32 << 20).spawn(move || drop(theirs)) {
                Ok(handle) => held.push(handle),
                Err(error) => break error,
            }
            assert!(held.len() < 10_000, "no limit");
        };
        assert_eq!(error.kind(), ErrorKind::OutOfMemory, "{error}");
        assert_eq!(
            Arc::strong_count(&owned),
            held.len() + 1,
            "the refused closure is dropped"
        );
        let before = hub::live();
        let panicked = std::panic::catch_unwind(|| {
            // The default size: small stacks may still fit in what is left, but not for ever.
            let all: Vec<_> = (0..100_000).map(|_| spawn(|| ())).collect();
            all.len()
        });
        let text = crate::support::fresh::text(&*panicked.unwrap_err());
        assert!(text.contains("failed to spawn green thread"), "{text}");
        assert!(hub::live() >= before);
        assert!(thread::join_all(held).iter().all(Result::is_ok));
        hub::idle();
        assert_eq!(hub::live(), 0);
        // Healthy afterwards.
        assert_eq!(Arc::strong_count(&owned), 1);
        let after = thread::join_all((0..100).map(|n| {
            spawn(move || {
                sleep(ms(1));
                n
            })
        }));
        assert!(after.into_iter().enumerate().all(|(n, r)| r.unwrap() == n));
        Builder::new()
            .stack_size(32 << 20)
            .spawn(|| ())
            .unwrap()
            .join()
            .unwrap();
    });
    eprintln!("healthy");
}

#[test]
fn no_memory_is_an_error_or_a_panic_and_the_process_stays_healthy() {
    let out = child::run_with_memory("no_memory", 600 * 1024);
    assert!(out.ok && out.stderr.contains("healthy"), "{out:?}");
}

type Log = Arc<Mutex<Vec<&'static str>>>;

struct AtEnd(Log);

impl Drop for AtEnd {
    fn drop(&mut self) {
        let log = self.0.clone();
        let note = |what| self.0.lock().unwrap_or_else(|e| e.into_inner()).push(what);
        note("destructor");
        let slept = std::panic::catch_unwind(|| sleep(ms(1)));
        note(if slept.is_ok() { "slept" } else { "sleep refused" });
        let joined = std::panic::catch_unwind(|| {
            spawn(move || {
                sleep(ms(1));
                log.lock().unwrap().push("ran");
            })
            .join()
            .is_ok()
        });
        note(match joined {
            Ok(true) => "joined",
            Ok(false) => "join failed",
            Err(_) => "spawn refused",
        });
        let built = std::panic::catch_unwind(|| Builder::new().spawn(|| ()).map(drop).map_err(|e| e.kind()));
        note(match built {
            Ok(Ok(())) => "built",
            Ok(Err(ErrorKind::NotConnected)) => "build error",
            Ok(Err(_)) => "another error",
            Err(_) => "build panicked",
        });
        let _ = std::panic::catch_unwind(yield_now);
        let _ = std::panic::catch_unwind(|| thread::park_timeout(ms(0)));
        note("end");
    }
}

thread_local! {
    static AT_END: RefCell<Option<AtEnd>> = const { RefCell::new(None) };
}

fn at_end(hub_first: bool) -> Vec<&'static str> {
    let log = Log::default();
    let theirs = log.clone();
    let os_thread = std::thread::spawn(move || {
        if hub_first {
            spawn(|| ()).join().unwrap();
        }
        AT_END.with(|slot| *slot.borrow_mut() = Some(AtEnd(theirs)));
        spawn(|| ()).join().unwrap();
    });
    os_thread.join().unwrap();
    let log = log.lock().unwrap();
    log.clone()
}

#[test]
fn a_thread_locals_destructor_before_the_hubs_end_can_do_everything() {
    assert_eq!(at_end(true), ["destructor", "slept", "ran", "joined", "built", "end"]);
}

#[test]
fn a_thread_locals_destructor_after_the_hubs_end_is_refused_and_does_not_crash() {
    assert_eq!(
        at_end(false),
        ["destructor", "slept", "spawn refused", "build error", "end"]
    );
}

#[test]
fn every_verb_after_the_hubs_end_returns_or_panics() {
    struct Tries(Log);
    impl Drop for Tries {
        fn drop(&mut self) {
            let verbs: [(&'static str, fn()); 10] = [
                ("yield", yield_now),
                ("park", thread::park),
                ("scope", || thread::scope(|s| drop(s.spawn(|| ())))),
                ("timeout", || greenthread::timeout(ms(1), || ()).unwrap()),
                ("block_on", || greenthread::future::block_on(async {})),
                ("handle", || _ = hub::handle()),
                ("unblock", || greenthread::threadpool::unblock(|| ())),
                ("idle", hub::idle),
                ("turn", hub::turn),
                ("dump", || drop(greenthread::debug::dump())),
            ];
            for (name, verb) in verbs {
                let _ = std::panic::catch_unwind(verb);
                self.0.lock().unwrap().push(name);
            }
        }
    }
    thread_local! {
        static TRIES: RefCell<Option<Tries>> = const { RefCell::new(None) };
    }
    let log = Log::default();
    let theirs = log.clone();
    fresh(move || {
        TRIES.with(|slot| *slot.borrow_mut() = Some(Tries(theirs)));
        yield_now();
    });
    assert_eq!(log.lock().unwrap().len(), 10);
}
