//! What need not be `Send` never leaves the context that it was made in: not when a green thread ends, not by a
//! callback.

use std::cell::{Cell, RefCell};
use std::marker::PhantomData;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use greenthread::future::{Asyncify, Task, asyncify, await_};
use greenthread::{JoinHandle, future, green_local, hub, spawn, spawn_local, thread};

use crate::support::fresh::{fresh, poll};

thread_local! {
    static HERE: Cell<u8> = const { Cell::new(0) };
}

fn here() -> usize {
    HERE.with(|here| std::ptr::from_ref(here).addr())
}

/// Knows where it was made, and tells if it is dropped elsewhere.
struct Native {
    to: usize,
    told: Arc<AtomicBool>,
    _not_send: PhantomData<*const ()>,
}

impl Native {
    fn new(told: &Arc<AtomicBool>) -> Native {
        Native {
            to: here(),
            told: told.clone(),
            _not_send: PhantomData,
        }
    }
}

impl Drop for Native {
    fn drop(&mut self) {
        self.told.fetch_or(self.to != here(), Ordering::Relaxed);
    }
}

/// Whether what `f`, in an isolated green thread, makes with `Native::new` is dropped elsewhere.
fn escapes(f: fn(&Arc<AtomicBool>)) -> bool {
    let told = Arc::new(AtomicBool::new(false));
    let theirs = told.clone();
    fresh(move || {
        spawn(move || f(&theirs)).join().unwrap();
        hub::idle();
        NATIVE_LOCAL.with(|native| drop(native.take()));
    });
    assert_eq!(Arc::strong_count(&told), 1, "it was not dropped at all");
    told.load(Ordering::Relaxed)
}

green_local! {
    static NATIVE_LOCAL: RefCell<Option<Native>> = RefCell::new(None);
}

#[test]
fn a_result_whose_handle_goes_with_the_thread_locals() {
    thread_local! {
        static HANDLE: RefCell<Option<JoinHandle<Native>>> = const { RefCell::new(None) };
        static TASK: RefCell<Option<Task<Native>>> = const { RefCell::new(None) };
    }
    assert!(!escapes(|told| {
        let told = told.clone();
        HANDLE.set(Some(spawn_local(move || Native::new(&told))));
    }));
    assert!(!escapes(|told| {
        let told = told.clone();
        TASK.set(Some(future::spawn(async move { Native::new(&told) })));
    }));
}

#[test]
fn a_green_local_that_a_destructor_of_a_thread_local_makes() {
    struct Makes(Arc<AtomicBool>);
    impl Drop for Makes {
        fn drop(&mut self) {
            NATIVE_LOCAL.set(Some(Native::new(&self.0)));
        }
    }
    thread_local! {
        static MAKES: RefCell<Option<Makes>> = const { RefCell::new(None) };
    }
    assert!(!escapes(|told| MAKES.set(Some(Makes(told.clone())))));
}

#[test]
fn green_locals_of_a_callback_are_its_own() {
    assert!(!escapes(|told| {
        let told = told.clone();
        hub::call_soon(move || NATIVE_LOCAL.set(Some(Native::new(&told))));
    }));
    if thread::isolation().is_err() {
        return; // As under a sanitizer: then all have one context, and one set of locals is right.
    }
    // And those of the native stack are there again afterwards.
    fresh(|| {
        let told = Arc::new(AtomicBool::new(false));
        NATIVE_LOCAL.set(Some(Native::new(&told)));
        spawn(|| hub::call_soon(|| assert!(NATIVE_LOCAL.take().is_none())))
            .join()
            .unwrap();
        hub::idle();
        assert!(NATIVE_LOCAL.take().is_some());
    });
}

/// It is dropped when the list of those that are polled has gone.
#[test]
fn an_asyncify_in_a_thread_local_unwinds_there() {
    thread_local! {
        static KEPT: RefCell<Option<Asyncify<()>>> = const { RefCell::new(None) };
    }
    fn keep(told: &Arc<AtomicBool>) {
        // First, so that it goes last.
        KEPT.with_borrow(|kept| assert!(kept.is_none()));
        let told = told.clone();
        let mut body = asyncify(move || {
            let _native = Native::new(&told);
            await_(std::future::pending::<()>());
        });
        assert!(poll(&mut body).is_pending());
        KEPT.set(Some(body));
    }
    assert!(!escapes(keep));
    let told = Arc::new(AtomicBool::new(false));
    let theirs = told.clone();
    fresh(move || keep(&theirs));
    assert_eq!(Arc::strong_count(&told), 1, "its stack was not unwound");
}
