//! A glibc that is laid out in a way which is not known: isolation is off, with the reason, and all else goes on.
//!
//! The children of these tests see a glibc that answers wrongly: `dlsym` is defined here, ahead of libc's.

use std::cell::Cell;
use std::ffi::{CStr, c_char, c_void};
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};

use greenthread::monkey::{self, Patch};
use greenthread::{spawn, thread};

/// Has a child see a fault: the name of a symbol and, after a blank, "missing", "nothing" (a function that does nothing
/// and returns 0), or the number that the symbol is to have.
const VARIABLE: &CStr = c"GREENTHREAD_FAULT";

/// The faults, and a part of the reason that must come of them.
const FAULTS: [(&str, &str); 21] = [
    ("_dl_allocate_tls missing", "lacks a symbol"),
    ("_dl_deallocate_tls missing", "lacks a symbol"),
    ("__call_tls_dtors missing", "lacks a symbol"),
    ("__ctype_init missing", "lacks a symbol"),
    ("__pthread_keys missing", "lacks a symbol"),
    ("_thread_db_sizeof_pthread missing", "does not describe"),
    ("_thread_db_pthread_tid missing", "does not describe"),
    ("_thread_db_pthread_specific missing", "does not describe"),
    ("_thread_db_pthread_dtvp missing", "does not describe"),
    ("_thread_db_sizeof_pthread_key_struct 24", "lays out its tables"),
    ("_thread_db_sizeof_pthread_key_data missing", "lays out its tables"),
    ("_thread_db_sizeof_pthread_key_data_level2 1024", "lays out its tables"),
    ("_thread_db_pthread_dtvp 24", "lays out its tables"),
    // Where `struct pthread` lies below the base, its size moves the table of modules first.
    ("_thread_db_sizeof_pthread 64", "this glibc"),
    ("_thread_db_sizeof_pthread 1048576", "this glibc"),
    ("_thread_db_pthread_tid 65536", "outside of the thread control block"),
    ("_thread_db_pthread_specific 8", "outside of the thread control block"),
    ("_thread_db_pthread_tid 640", "thread control block in an unknown way"),
    ("_thread_db_pthread_specific 1024", "tables of pthread keys"),
    ("_dl_get_tls_static_info nothing", "outside of the thread control block"),
    ("__rseq_offset 1048576", "outside of the thread control block"),
];

/// Faults that only the trial can find.
const FAULTS_OF_FUNCTIONS: [(&str, &str); 2] = [
    ("_dl_allocate_tls nothing", "no memory"),
    ("__call_tls_dtors nothing", "a trial found that destructors"),
];

#[test]
fn isolation_is_off_with_a_reason() {
    for (fault, reason) in FAULTS.into_iter().chain(FAULTS_OF_FUNCTIONS) {
        let out = crate::support::child::run_with_variable("unknown glibc", VARIABLE.to_str().unwrap(), fault);
        // One line and no more: the library itself prints nothing.
        let said = out.ok && out.stderr.lines().count() == 1 && out.stderr.contains(reason);
        assert!(said, "{fault}: {out:?}");
        let has_version = out.stderr.contains("(glibc 2.");
        assert!(has_version || reason.starts_with("a trial"), "{fault}: {out:?}");
    }
}

/// Versions before 2.34 do not describe their blocks.
#[test]
fn isolation_begins_with_glibc_2_34() {
    // SAFETY: libc returns a text that lives as long as the process.
    let version = unsafe { CStr::from_ptr(libc::gnu_get_libc_version()) }
        .to_str()
        .unwrap();
    let minor: u32 = version.strip_prefix("2.").unwrap().parse().unwrap();
    match thread::isolation() {
        Ok(()) => assert!(minor >= 34, "{version}"),
        Err(error) => {
            let out = crate::support::child::run("unknown glibc");
            let reason = format!("as 2.34 and later do (glibc {version})");
            assert!(minor < 34 && error.to_string().ends_with(&reason), "{version}: {error}");
            assert!(out.ok && out.stderr.trim_end().ends_with(&reason), "{out:?}");
        }
    }
}

thread_local!(static MARK: Cell<u32> = const { Cell::new(0) });

/// Runs in a child that sees a fault.
pub(crate) fn child() {
    let error = thread::isolation().unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::Unsupported);
    let reason = error.to_string();
    for error in [monkey::patch_all().unwrap_err(), monkey::patch_threads().unwrap_err()] {
        assert_eq!(error.kind(), std::io::ErrorKind::Unsupported);
        assert!(error.to_string().ends_with(&reason), "{error}");
    }
    assert!(!monkey::is_patched(Patch::new().time()));
    MARK.set(1);
    let other = || (thread::is_isolated(), MARK.replace(2), std::thread::current().id());
    let here = std::thread::current().id();
    assert_eq!(spawn(other).join().unwrap(), (false, 1, here));
    assert_eq!(greenthread::run(other), (false, 2, here));
    eprintln!("{reason}");
}

unsafe extern "C" {
    fn dlvsym(handle: *mut c_void, name: *const c_char, version: *const c_char) -> *mut c_void;
}

type Dlsym = unsafe extern "C" fn(*mut c_void, *const c_char) -> *mut c_void;

/// Like libc's, but for the fault.
#[unsafe(no_mangle)]
unsafe extern "C" fn dlsym(handle: *mut c_void, name: *const c_char) -> *mut c_void {
    static ORIGINAL: AtomicUsize = AtomicUsize::new(0);
    const FIRST: &CStr = if cfg!(target_arch = "x86_64") {
        c"GLIBC_2.2.5"
    } else {
        c"GLIBC_2.17"
    };
    let mut original = ORIGINAL.load(Ordering::Relaxed);
    if original == 0 {
        // SAFETY: valid names; it searches the objects after this one.
        original = unsafe { dlvsym(libc::RTLD_NEXT, c"dlsym".as_ptr(), FIRST.as_ptr()) }.addr();
        assert_ne!(original, 0);
        ORIGINAL.store(original, Ordering::Relaxed);
    }
    // SAFETY: the caller passes a valid name, and libc's `dlsym` has this type.
    unsafe {
        match fault(CStr::from_ptr(name)) {
            Some(answer) => answer,
            None => std::mem::transmute::<usize, Dlsym>(original)(handle, name),
        }
    }
}

/// What this process is to see at this symbol, if there is a fault in it. Allocates nothing.
fn fault(symbol: &CStr) -> Option<*mut c_void> {
    /// A size is the first of these numbers, and an offset the last one.
    static NUMBERS: [AtomicU32; 3] = [const { AtomicU32::new(0) }; 3];
    // SAFETY: no test changes the environment of its own process.
    let text = unsafe { libc::getenv(VARIABLE.as_ptr()) };
    if text.is_null() {
        return None;
    }
    // SAFETY: libc returned a text.
    let text = unsafe { CStr::from_ptr(text) }.to_str().ok()?;
    let (_, what) = text
        .split_once(' ')
        .filter(|(name, _)| *name == symbol.to_string_lossy())?;
    match what {
        "missing" => return Some(std::ptr::null_mut()),
        "nothing" => return Some(nothing as *mut c_void),
        _ => {}
    }
    let number = what.parse().expect("a number");
    for place in &NUMBERS {
        place.store(number, Ordering::Relaxed);
    }
    Some((&raw const NUMBERS).cast_mut().cast())
}

extern "C" fn nothing() -> usize {
    0
}
