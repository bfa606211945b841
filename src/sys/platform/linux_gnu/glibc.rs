//! What glibc keeps behind a thread control block: how to make a block, reset it, and run its destructors.
//!
//! Nothing here is a public interface of glibc. All offsets come from what glibc tells debuggers (`_thread_db_*`), from
//! the kernel, or from an experiment at first use. If anything is missing or looks odd, isolation is turned off, with a
//! reason.
//!
//! ```text
//!   static thread-locals (an image of each module)      struct pthread
//!  ┌──────┬────────────┬────────────┬───────────┐┌──────┬─────┬──────┬───────────────┬──────────────┬─────┐
//!  │ …    │ libc's     │ other's    │ program's ││ self │ dtv │ self │ canary, guard │ tid, robust… │ keys│
//!  └──────┴────────────┴────────────┴───────────┘└──────┴─────┴──────┴───────────────┴──────────────┴─────┘
//!                                                 ▲ base
//! ```
//!
//! This is x86-64. Elsewhere the parts lie in another order, which the port knows. All offsets count from the base.
//!
//! # Invariants
//! - **GLIBC-1** A block is used by the OS thread that made it and by no other, and is not the native block of any.
//! - **GLIBC-2** `malloc`'s words and that of `getrandom` travel with the base. All blocks of an OS thread share one
//!   cache, one arena and one state of `getrandom`, and one block is in use at a time.
//! - **GLIBC-3** A block in the pool is as `_dl_allocate_tls` made it, except for the words of GLIBC-2: images laid
//!   anew, no value under any key, nothing allocated for dynamic modules.
//!
//! # What `start_thread` does, and what does it here
//! The left column follows glibc 2.36 line by line, and names what later versions have added; the table in
//! [`isolation`](crate::isolation) says what it means for a green thread.
//!
//! | glibc | here |
//! |---|---|
//! | `__resp = &pd->res` | [`Glibc::begin`] |
//! | `__ctype_init` | [`Glibc::begin`] |
//! | rseq, robust list: told to the kernel | not told; [`Glibc::make`] says so in the block |
//! | the signal mask; the set-up for `pthread_exit` and cancellation | none |
//! | `__call_tls_dtors`, `__nptl_deallocate_tsd` | [`Glibc::end`] |
//! | `__libc_thread_freeres`: resolver, texts of `strerror` and `strsignal`, `dlerror`'s | [`Glibc::end`], one by one |
//! | the same: `malloc`'s cache and arena | GLIBC-2: they travel; the OS thread's end frees them |
//! | `__getrandom_vdso_release` (since 2.41) | GLIBC-2: the state travels; the OS thread's end gives it back |
//! | the same: Sun RPC's variables | none: there is no RPC to link to since glibc 2.32 |
//! | the last thread calls `exit` | not counted |
//! | robust mutexes that it holds | stay held |

use std::ffi::{CStr, c_int, c_void};
use std::ptr;
use std::sync::atomic::{AtomicPtr, AtomicU32, Ordering};

use super::images::{Image, images, static_size};
use super::{at, base, port, set_word, word};
use crate::sys::fork::{GlobalOnce, Order};

/// `struct pthread_key_struct`.
#[repr(C)]
struct Key {
    sequence: usize,
    destructor: Option<unsafe extern "C" fn(*mut c_void)>,
}

/// `struct pthread_key_data`.
#[repr(C)]
struct Value {
    sequence: usize,
    data: *mut c_void,
}

/// `dtv_t`.
#[repr(C)]
struct Dynamic {
    value: usize,
    to_free: *mut c_void,
}

/// The number of keys in one second-level table, and the number of tables.
const LEVEL: usize = 32;
/// The size of a table of values. The first one lies in the block, right before the pointers to all tables.
const VALUES: usize = LEVEL * size_of::<Value>();
/// The size of `struct robust_list_head`, and of the word before it, by which robust mutexes are linked backwards.
const ROBUST: usize = 4 * size_of::<usize>();
/// The size of the pointers to the tables.
const TABLES: usize = LEVEL * size_of::<usize>();

/// What was found out about the glibc of this process.
pub(crate) struct Glibc {
    allocate: unsafe extern "C" fn(*mut c_void) -> *mut c_void,
    deallocate: unsafe extern "C" fn(*mut c_void, bool),
    call_destructors: unsafe extern "C" fn(),
    ctype: unsafe extern "C" fn(),
    keys: *const Key,
    /// Where `struct pthread` begins.
    thread: isize,
    tid: isize,
    values: isize,
    robust: Option<isize>,
    /// Where the kernel would write the number of the processor, and the size of that area.
    rseq: Option<(isize, usize)>,
    /// Where a block records whether a key was ever given a value.
    used: isize,
    resolver: Option<Resolver>,
    /// Offsets of words that are all 0 while libc keeps nothing for the thread.
    results: [isize; 4],
    /// Offsets of the pointers to the texts of `strerror` and `strsignal`; 0 if a thread has no such pointer.
    texts: [isize; 2],
}

/// The state of name look-ups, which each thread has.
#[derive(Clone, Copy)]
struct Resolver {
    /// Where the pointer to the state is, and where the thread's own state is.
    pointer: isize,
    state: isize,
    close: unsafe extern "C" fn(*mut c_void),
}

// SAFETY: numbers, functions, and the address of a table that lives as long as the process.
unsafe impl Send for Glibc {}
// SAFETY: numbers, functions, and the address of a table that lives as long as the process.
unsafe impl Sync for Glibc {}

/// The images of all modules in the static area, as a new thread has them. Replaced as a whole when a library was
/// loaded. The old one is never freed, because another OS thread may be copying it.
static TEMPLATE: AtomicPtr<Template> = AtomicPtr::new(ptr::null_mut());

struct Template {
    /// All images, from the lowest one up.
    bytes: Vec<u64>,
    /// Where they begin, from the base on.
    start: isize,
    /// The part of the area that libraries get which are loaded later: where it begins, and its size. Not on each
    /// processor.
    spare: (isize, usize),
    /// Whether there are modules with thread-locals that are allocated at first use.
    is_dynamic: bool,
    /// The generation of the table of modules that this was read from.
    generation: usize,
}

/// The last owner number that was given to a block. They begin above all numbers that the kernel gives to threads.
static OWNER: AtomicU32 = AtomicU32::new(1 << 22);

/// The offset of a word that is never 0: the block's own address, or its table of modules.
const NEVER_ZERO: isize = 0;

/// The glibc of this process. The error says why isolation cannot use it.
#[inline]
pub(crate) fn get() -> Result<&'static Glibc, &'static str> {
    // SAFETY: null, or the address of what `look` found, which is never dropped.
    match unsafe { FOUND.load(Ordering::Acquire).as_ref() } {
        Some(found) => Ok(found),
        None => look(),
    }
}

/// Before 2.34, where libpthread was a library of its own, only debuggers that read its symbol table could know.
const NOT_DESCRIBED: &str =
    "this glibc does not describe its thread control block (_thread_db_*), as 2.34 and later do";

/// What [`get`] has found. Null if nothing was found, or if it was not called yet.
static FOUND: AtomicPtr<Glibc> = AtomicPtr::new(ptr::null_mut());

#[cold]
fn look() -> Result<&'static Glibc, &'static str> {
    static LOOKED: GlobalOnce<Result<Glibc, &'static str>> = GlobalOnce::new(Order::Glibc);
    let found = LOOKED.get_or_init(|| Glibc::find().map_err(with_version));
    let found = found.as_ref().map_err(|reason| *reason)?;
    FOUND.store(ptr::from_ref(found).cast_mut(), Ordering::Release);
    Ok(found)
}

/// Adds the version of this glibc to a reason. Called once in a process, so the text is never freed.
fn with_version(reason: &'static str) -> &'static str {
    // SAFETY: libc returns a text that lives as long as the process.
    let version = unsafe { CStr::from_ptr(libc::gnu_get_libc_version()) };
    format!("{reason} (glibc {})", version.to_string_lossy()).leak()
}

/// The number by which C's locks know the running context as their owner.
#[cfg(feature = "monkey")]
pub(crate) fn own_id() -> Option<u32> {
    Some(get().ok()?.number(base::get()))
}

pub(super) fn symbol(name: &CStr) -> Option<*mut c_void> {
    // SAFETY: `dlsym` with a valid name.
    let found = unsafe { libc::dlsym(libc::RTLD_DEFAULT, name.as_ptr()) };
    (!found.is_null()).then_some(found)
}

/// The offset of a field in its structure: the third number of a descriptor that glibc has for debuggers.
fn field(name: &CStr) -> Option<usize> {
    let found = symbol(name)?.cast::<[u32; 3]>();
    // SAFETY: glibc's `_thread_db_*` symbols of fields are three numbers.
    let [_, _, offset] = unsafe { *found };
    Some(offset as usize)
}

fn size(name: &CStr) -> Option<usize> {
    let found = symbol(name)?.cast::<u32>();
    // SAFETY: glibc's `_thread_db_*` symbols of sizes are one number.
    Some(unsafe { *found } as usize)
}

impl Glibc {
    fn find() -> Result<Glibc, &'static str> {
        base::prepare();
        let of = |name: &CStr| symbol(name).ok_or("this glibc lacks a symbol that isolation needs");
        let thread = port::thread_at(size(c"_thread_db_sizeof_pthread").ok_or(NOT_DESCRIBED)?);
        let of_thread = |name: &CStr| {
            let offset = field(name).ok_or(NOT_DESCRIBED)?;
            Ok::<isize, &'static str>(thread + offset.cast_signed())
        };
        // SAFETY: these functions have had these types since glibc 2.17 at least.
        let (allocate, deallocate, call_destructors, ctype) = unsafe {
            (
                std::mem::transmute::<*mut c_void, unsafe extern "C" fn(*mut c_void) -> *mut c_void>(of(
                    c"_dl_allocate_tls",
                )?),
                std::mem::transmute::<*mut c_void, unsafe extern "C" fn(*mut c_void, bool)>(of(c"_dl_deallocate_tls")?),
                std::mem::transmute::<*mut c_void, unsafe extern "C" fn()>(of(c"__call_tls_dtors")?),
                std::mem::transmute::<*mut c_void, unsafe extern "C" fn()>(of(c"__ctype_init")?),
            )
        };
        // The types above must be laid out as glibc's.
        if size(c"_thread_db_sizeof_pthread_key_struct") != Some(size_of::<Key>())
            || size(c"_thread_db_sizeof_pthread_key_data") != Some(size_of::<Value>())
            || size(c"_thread_db_sizeof_pthread_key_data_level2") != Some(VALUES)
            || field(c"_thread_db_pthread_key_struct_destr") != Some(8)
            || field(c"_thread_db_pthread_key_data_data") != Some(8)
            || of_thread(c"_thread_db_pthread_dtvp")? != port::DTV
        {
            return Err("this glibc lays out its tables in an unknown way");
        }
        let mut glibc = Glibc {
            allocate,
            deallocate,
            call_destructors,
            ctype,
            keys: of(c"__pthread_keys")?.cast(),
            thread,
            tid: of_thread(c"_thread_db_pthread_tid")?,
            values: of_thread(c"_thread_db_pthread_specific")?,
            robust: robust_list(),
            rseq: rseq(),
            used: of_thread(c"_thread_db_pthread_specific")? + TABLES.cast_signed(),
            resolver: None,
            results: [NEVER_ZERO; 4],
            texts: [0; 2],
        };
        glibc.check_places()?;
        let native = base::get();
        glibc.check_header(native)?;
        glibc.learn()?;
        glibc.resolver = resolver(native);
        glibc.watch_results();
        Ok(glibc)
    }

    /// Checks that all fields which [`make`](Self::make) writes lie in the block that glibc allocates.
    fn check_places(&self) -> Result<(), &'static str> {
        let (area, size) = (static_size().unwrap_or(0), size_of_pthread());
        let is_inside = |place: isize, len: usize| {
            let end = (place - self.thread) + len.cast_signed();
            place >= self.thread && end <= size.cast_signed()
        };
        // The byte `used` follows the pointers to the tables.
        let tables = self.values - VALUES.cast_signed();
        let are_inside = is_inside(self.tid, size_of::<c_int>())
            && is_inside(tables, VALUES + TABLES + 1)
            && self.robust.is_none_or(|head| is_inside(head - 8, ROBUST));
        // The area for the kernel lies in `struct pthread`, or since 2.41 beside the images. What glibc says of the
        // static area counts `struct pthread` too, if that lies above the base.
        let images = if self.thread < 0 {
            area
        } else {
            area.saturating_sub(size)
        };
        let is_rseq_inside =
            |(place, len): (isize, usize)| is_inside(place, len) || port::is_static(place, len, images);
        if size > area || !are_inside || !self.rseq.is_none_or(is_rseq_inside) {
            return Err("this glibc describes fields outside of the thread control block");
        }
        Ok(())
    }

    /// Compares the header of the block that this OS thread runs on with what is known of the OS thread, such as its
    /// number.
    fn check_header(&self, native: usize) -> Result<(), &'static str> {
        // SAFETY: BASE-1: the header of the block that this OS thread runs on.
        let (is_known, tid) = unsafe {
            (
                port::is_header_known(native, self.thread),
                *(at(native, self.tid) as *const i32),
            )
        };
        if !is_known || i64::from(tid) != i64::try_from(crate::sys::thread::id()).unwrap_or(0) {
            return Err("this glibc lays out the thread control block in an unknown way");
        }
        let values = at(native, self.values);
        // The first pointer is that to the first table. So the offsets agree.
        // SAFETY: a word of the same block, at an offset that glibc gave.
        if unsafe { word(values) } != values - VALUES {
            return Err("this glibc lays out the tables of pthread keys in an unknown way");
        }
        Ok(())
    }

    /// Finds by experiment what glibc has no name for: the words of `malloc` and `getrandom`, the mark of a used key,
    /// the message of `dlerror`.
    fn learn(&mut self) -> Result<(), &'static str> {
        let libc = images().0.into_iter().find(Image::contains_errno);
        let libc = libc.ok_or("libc's thread-locals were not found")?;
        if libc.size > size_of::<[usize; 256]>() {
            return Err("this glibc has more thread-locals than expected");
        }
        // Let malloc fill its words in the native block too, so that they can travel from there.
        allocate_once();
        let block = self.make(base::get()).ok_or("no memory for a set of thread-locals")?;
        let mut probe = Probe {
            libc: (at(block, libc.offset), libc.size / 8),
            used: at(block, self.used),
            before: [0; 256],
            changed: [0; 4],
            count: 0,
            marked: false,
            message: None,
            texts: [0; 2],
        };
        // SAFETY: BASE-1: a block that was just made. `probe` is of the type that `experiment` expects.
        unsafe { base::call(block, base::get(), experiment, (&raw mut probe).cast()) };
        // If the word of the message was not found, take one that is never 0: the message is then dropped at each end.
        let of_libc = |index: usize| libc.offset + (index * 8).cast_signed();
        self.results = [probe.message.map_or(NEVER_ZERO, of_libc); 4];
        self.texts = probe.texts.map(|text| self.place_of(block, text));
        let random = self.random_word(block);
        let mut ended = (&*self, block);
        // SAFETY: BASE-1: the block that was made above. `ended` is of the type that `end_experiment` expects. GLIBC-1:
        // the block is not in use after that, so it may be freed.
        unsafe {
            base::call(block, base::get(), end_experiment, (&raw mut ended).cast());
            (self.deallocate)(block as *mut c_void, true);
        }
        if !probe.marked {
            return Err("this glibc marks used pthread keys in an unknown way");
        }
        if probe.count > probe.changed.len() - 1 {
            return Err("malloc changes more thread-locals than expected");
        }
        let words = probe.changed[..probe.count].iter().map(|word| of_libc(*word));
        let mut travelling = [0; 4];
        for (place, word) in travelling.iter_mut().zip(words.chain(random?)) {
            *place = word;
        }
        base::set_travelling(travelling);
        Ok(())
    }

    /// Finds the word of `struct pthread` that has the state of `getrandom`. That word exists since glibc 2.41, if the
    /// kernel has `getrandom` in its vDSO.
    ///
    /// The state that `block` gets is lost together with `block`, which happens once in a process.
    fn random_word(&self, block: usize) -> Result<Option<isize>, &'static str> {
        let place = |index: usize| self.thread + (index * 8).cast_signed();
        // SAFETY: words of the `struct pthread` of a block that `learn` has made.
        let read = |index: usize| unsafe { word(at(block, place(index))) };
        let before: Vec<_> = (0..size_of_pthread() / 8).map(read).collect();
        // SAFETY: BASE-1: a block that `learn` has made.
        unsafe { base::call(block, base::get(), ask_random, ptr::null_mut()) };
        let mut changed = (0..before.len()).filter(|index| read(*index) != before[*index]);
        let found = changed.next();
        if changed.next().is_some() || found.is_some_and(|index| before[index] != 0) {
            return Err("this glibc keeps the state of getrandom in an unknown way");
        }
        Ok(found.map(place))
    }

    /// Makes [`has_results`](Self::has_results) look at the resolver's state and at the texts too.
    fn watch_results(&mut self) {
        let servers = self.resolver.map_or(0, |resolver| resolver.state + SERVERS);
        for (place, at) in self.results[1..]
            .iter_mut()
            .zip([servers, self.texts[0], self.texts[1]])
        {
            if at != 0 {
                *place = at;
            }
        }
    }

    /// Where in `struct pthread` the word `wanted` is, outside of the values of keys; 0 if there is none.
    fn place_of(&self, block: usize, wanted: usize) -> isize {
        let keys = self.values - VALUES.cast_signed()..self.values + TABLES.cast_signed();
        let mut places = (0..size_of_pthread() / 8).map(|index| self.thread + (index * 8).cast_signed());
        // SAFETY: words of the `struct pthread` of a block that was just made.
        let is_there = |place: isize| unsafe { word(at(block, place)) } == wanted;
        let found = places.find(|place| !keys.contains(place) && wanted != 0 && is_there(*place));
        found.unwrap_or(0)
    }

    /// Makes a block for this OS thread. `native` is the thread's native block. `None` if there is no memory.
    pub(crate) fn make(&self, native: usize) -> Option<usize> {
        // SAFETY: with null, the function allocates the block itself.
        let block = unsafe { (self.allocate)(ptr::null_mut()) }.addr();
        if block == 0 {
            return None;
        }
        // SAFETY: words of the `struct pthread` of a new block, which has no other user. BASE-1: the caller guarantees
        // that `native` is the native block.
        unsafe {
            // If a library was loaded since the template was read, the template is out of date.
            let generation = generation(block);
            if template().is_none_or(|template| template.generation != generation) {
                renew(generation);
            }
            if let Some((spare, size)) = template().map(|template| template.spare) {
                ptr::write_bytes(at(block, spare) as *mut u8, 0, size);
            }
            port::lay_header(block, native, self.thread);
            // A number that no thread and no other block has, so that two green threads cannot both own a recursive
            // mutex.
            *(at(block, self.tid) as *mut u32) = OWNER.fetch_add(1, Ordering::Relaxed) + 1;
            if let Some(robust) = self.robust {
                // An empty list of robust mutexes: its head points to itself in both directions.
                let head = at(block, robust);
                set_word(head, head);
                set_word(head - 8, head);
            }
            if let Some((rseq, size)) = self.rseq {
                // Beside the images glibc leaves the area as `malloc` returned it.
                ptr::write_bytes(at(block, rseq) as *mut u8, 0, size);
                // "Registration failed": code that wants the number of the processor asks the kernel.
                *((at(block, rseq) + 4) as *mut i32) = -2;
            }
            let values = at(block, self.values);
            set_word(values, values - VALUES);
        }
        Some(block)
    }

    /// The owner number of a block of this OS thread, as C's locks know it.
    #[cfg(feature = "monkey")]
    pub(crate) fn number(&self, block: usize) -> u32 {
        // SAFETY: the caller passes a block of this OS thread, which has this field.
        unsafe { *(at(block, self.tid) as *const u32) }
    }

    /// Prepares the running block; to be called before anything else in it.
    pub(crate) fn begin(&self) {
        let block = base::get();
        // SAFETY: as at the start of an OS thread: words of the running block get its own resolver state, and libc sets
        // the block's tables of character classes.
        unsafe {
            if let Some(resolver) = self.resolver {
                set_word(at(block, resolver.pointer), at(block, resolver.state));
            }
            (self.ctype)();
        }
    }

    /// Runs the destructors of the running block's thread-locals, then those of its keys, then frees what libc keeps
    /// for it.
    #[inline]
    pub(crate) fn end(&self, block: usize) {
        // SAFETY: what glibc does at the end of an OS thread, in the same order.
        unsafe { (self.call_destructors)() };
        if self.is_used(block) {
            self.end_keys(block);
        }
        if self.has_results(block) {
            self.free_results(block);
        }
    }

    /// Runs the destructors of the keys, in as many rounds as glibc does: a destructor may set a value again.
    #[inline(never)]
    fn end_keys(&self, block: usize) {
        let _ = (0..4).find(|_| !self.end_values(block));
    }

    /// Whether libc may keep something for this block.
    #[inline]
    fn has_results(&self, block: usize) -> bool {
        // SAFETY: words of a block of this crate, and of libc's image in it.
        let words = self.results.map(|offset| unsafe { word(at(block, offset)) });
        words.into_iter().fold(0, |all, word| all | word) != 0
    }

    /// Frees what libc keeps for the running block, except `malloc`'s cache, which belongs to the OS thread.
    #[cold]
    fn free_results(&self, block: usize) {
        forget_message();
        // SAFETY: words of the running block's `struct pthread`, at offsets that `learn` and `resolver` have verified.
        // The texts were allocated by libc's `malloc`.
        unsafe {
            if let Some(resolver) = self.resolver {
                let state = at(block, resolver.state);
                if *((state + SERVERS.unsigned_abs()) as *const c_int) != 0 {
                    (resolver.close)(state as *mut c_void);
                    (state as *mut u8).write_bytes(0, RESOLVER);
                }
            }
            for text in self.texts {
                let place = at(block, text);
                if text != 0 && word(place) != 0 {
                    libc::free(word(place) as *mut c_void);
                    set_word(place, 0);
                }
            }
        }
    }

    #[inline]
    fn is_used(&self, block: usize) -> bool {
        // SAFETY: a byte of a block of this crate, where `learn` saw the mark.
        unsafe { *(at(block, self.used) as *const u8) != 0 }
    }

    /// Runs one round of destructors over the values of the keys. Says whether there were any.
    fn end_values(&self, block: usize) -> bool {
        let mut any = false;
        for table in 0..LEVEL {
            // SAFETY: a word of the running block. Only code in that block changes its tables.
            let values = unsafe { word(at(block, self.values) + table * 8) } as *mut Value;
            if values.is_null() {
                continue;
            }
            for index in 0..LEVEL {
                // SAFETY: a table of values has `LEVEL` entries, and glibc's table of keys has `LEVEL` for each of
                // them.
                let (value, key) = unsafe { (&mut *values.add(index), &*self.keys.add(table * LEVEL + index)) };
                // Taken out before the destructor runs, as in glibc: the destructor may set a new value, for the next
                // round.
                let data = std::mem::replace(&mut value.data, ptr::null_mut());
                if data.is_null() || value.sequence != key.sequence {
                    continue;
                }
                if let Some(destructor) = key.destructor {
                    any = true;
                    // SAFETY: the destructor of a live key (the sequence numbers agree), called once with this block's
                    // value.
                    unsafe { destructor(data) };
                }
            }
        }
        any
    }

    /// Makes an ended block as new (GLIBC-3); to be called outside of it.
    ///
    /// # Safety
    /// GLIBC-1: the block belongs to this OS thread. Nothing runs in it, and nothing refers to its thread-locals.
    pub(crate) unsafe fn reset_block(&self, block: usize) {
        let Some(template) = template() else { return };
        // SAFETY: the caller guarantees that nothing else uses the block. It has room for the template at its place.
        unsafe {
            if self.is_used(block) {
                self.forget_values(block);
            }
            if template.is_dynamic || template.generation != generation(block) {
                forget_dynamic(block);
            }
            let words = &template.bytes;
            ptr::copy_nonoverlapping(words.as_ptr(), at(block, template.start) as *mut u64, words.len());
        }
    }

    /// # Safety
    /// As for [`reset_block`](Self::reset_block): nothing runs in the block, and nothing refers to its thread-locals.
    #[cold]
    unsafe fn forget_values(&self, block: usize) {
        // SAFETY: the first table lies in the block, and glibc has allocated the others. The caller guarantees that the
        // block is not in use.
        unsafe {
            let values = at(block, self.values);
            (word(values) as *mut Value).write_bytes(0, LEVEL);
            for table in 1..LEVEL {
                let place = values + table * 8;
                libc::free(word(place) as *mut c_void);
                set_word(place, 0);
            }
            *(at(block, self.used) as *mut u8) = 0;
        }
    }

    /// Frees a block.
    ///
    /// # Safety
    /// As for [`reset_block`](Self::reset_block): nothing runs in the block, and nothing refers to its thread-locals.
    pub(crate) unsafe fn free(&self, block: usize) {
        // SAFETY: the caller guarantees that the block is not in use. `reset_block` has freed what the block refers to.
        unsafe {
            self.reset_block(block);
            (self.deallocate)(block as *mut c_void, true);
        }
    }
}

/// Frees the message of `dlerror` that the running block has.
fn forget_message() {
    for _ in 0..2 {
        // The first call returns the message, the second one forgets it.
        // SAFETY: it touches only the message of the running block.
        if unsafe { libc::dlerror() }.is_null() {
            break;
        }
    }
}

/// # Safety
/// `block` is a thread control block.
#[inline]
unsafe fn generation(block: usize) -> usize {
    // SAFETY: the caller guarantees that this is a block. The first entry of its table of modules is the generation.
    unsafe { (*(word(at(block, port::DTV)) as *const Dynamic)).value }
}

/// # Safety
/// As for [`Glibc::reset_block`]: nothing runs in the block, and nothing refers to its thread-locals.
#[cold]
unsafe fn forget_dynamic(block: usize) {
    // SAFETY: the block's table of modules. Its length stands before its first entry. The caller guarantees that the
    // block is not in use.
    unsafe {
        let table = word(at(block, port::DTV)) as *mut Dynamic;
        let modules = (*table.sub(1)).value;
        for entry in 1..=modules {
            let entry = &mut *table.add(entry);
            if !entry.to_free.is_null() {
                libc::free(std::mem::replace(&mut entry.to_free, ptr::null_mut()));
                // glibc's mark for "not allocated yet": the next use allocates.
                entry.value = usize::MAX;
            }
        }
    }
}

/// The size of `struct __res_state`, and the offset in it of the number of servers, which is 0 until the first use.
const RESOLVER: usize = 568;
const SERVERS: isize = 16;

fn size_of_pthread() -> usize {
    size(c"_thread_db_sizeof_pthread").unwrap_or(0)
}

/// Finds the resolver's state. If that fails, isolated green threads share the state of the first OS thread.
fn resolver(native: usize) -> Option<Resolver> {
    let thread = port::thread_at(size_of_pthread());
    let pointer = from_base(native, symbol(c"__resp")?.addr())?;
    let close = symbol(c"__res_nclose")?;
    let here = move || {
        let base = base::get();
        // SAFETY: a thread-local of libc's, which lies at the same distance from each base.
        let state = unsafe { word(at(base, pointer)) }.wrapping_sub(at(base, thread));
        (state < size_of_pthread().saturating_sub(RESOLVER) && state % 8 == 0).then(|| thread + state.cast_signed())
    };
    // The first OS thread keeps its state outside of its block, so another one must look.
    let state = here().or_else(|| on_another(here))?;
    Some(Resolver {
        pointer,
        state,
        // SAFETY: libc's `__res_nclose` has this type.
        close: unsafe { std::mem::transmute::<*mut c_void, unsafe extern "C" fn(*mut c_void)>(close) },
    })
}

/// Runs `f` on another OS thread, and returns its value.
fn on_another(f: impl FnOnce() -> Option<isize> + Send + 'static) -> Option<isize> {
    let _inside = crate::sys::inside::enter();
    let (tell, told) = std::sync::mpsc::channel();
    crate::sys::thread::start("greenthread", move || _ = tell.send(f())).ok()?;
    told.recv().ok()?
}

struct Probe {
    libc: (usize, usize),
    used: usize,
    before: [usize; 256],
    changed: [usize; 4],
    count: usize,
    marked: bool,
    message: Option<usize>,
    texts: [usize; 2],
}

/// Allocates and frees some memory. `black_box` keeps the compiler from leaving out what it sees freed unused.
fn allocate_once() {
    // SAFETY: frees what it has allocated, once.
    unsafe { libc::free(std::hint::black_box(libc::malloc(24))) };
}

/// Runs in a fresh block. It finds which words of libc's the first `malloc` changes, which word has the message of
/// `dlerror`, and whether the first value of a key is marked.
///
/// It uses no thread-local of its own.
unsafe fn experiment(probe: *mut ()) {
    // SAFETY: `learn` passes a `Probe`, which has no other user meanwhile.
    let probe = unsafe { &mut *probe.cast::<Probe>() };
    let (at, words) = probe.libc;
    for index in 0..words {
        // SAFETY: a word of libc's image in the running block.
        probe.before[index] = unsafe { word(at + index * 8) };
    }
    let mut key = 0;
    // Before the first malloc, which may make a key of its own.
    // SAFETY: a key that is made and deleted here. The mark is a byte of the block.
    unsafe {
        let mark = probe.used as *const u8;
        let before = mark.read_volatile();
        if libc::pthread_key_create(&raw mut key, None) == 0 {
            libc::pthread_setspecific(key, probe.used as *const c_void);
            probe.marked = before == 0 && mark.read_volatile() == 1;
            libc::pthread_setspecific(key, ptr::null());
            libc::pthread_key_delete(key);
        }
    }
    allocate_once();
    for index in 0..words {
        // SAFETY: a word of libc's image in the running block.
        if unsafe { word(at + index * 8) } != probe.before[index] {
            if let Some(changed) = probe.changed.get_mut(probe.count) {
                *changed = index;
            }
            probe.count += 1;
        }
    }
    probe.message = message(at, words);
    // SAFETY: any number is allowed. There is no error and no signal of this number, so libc makes a text for this
    // thread.
    probe.texts = unsafe {
        [
            libc::strerror(i16::MAX.into()).addr(),
            libc::strsignal(i16::MAX.into()).addr(),
        ]
    };
}

/// Runs in a fresh block, and has libc keep a state for it.
unsafe fn ask_random(_: *mut ()) {
    let mut random = 0_u64;
    // SAFETY: writes eight bytes, for which there is room.
    unsafe { libc::getrandom((&raw mut random).cast(), size_of_val(&random), libc::GRND_NONBLOCK) };
}

/// The index of the one word of libc's that is 0 except while there is a message of `dlerror`. `None` if it is not
/// unique.
fn message(at: usize, words: usize) -> Option<usize> {
    // SAFETY: a word of libc's image in the running block.
    let is_set = |index: &usize| unsafe { word(at + index * 8) } != 0;
    let mut may_be = [false; 256];
    (0..words).for_each(|index| may_be[index] = !is_set(&index));
    // SAFETY: `dlsym` with a valid name, of a symbol that does not exist.
    unsafe { libc::dlsym(libc::RTLD_DEFAULT, c"greenthread looks for what there is not".as_ptr()) };
    (0..words).for_each(|index| may_be[index] &= is_set(&index));
    forget_message();
    let mut found = (0..words).filter(|index| may_be[*index] && !is_set(index));
    found.next().filter(|_| found.next().is_none())
}

/// Ends the block of the experiment. An allocator other than glibc's may have entered it in a list of its threads.
unsafe fn end_experiment(ended: *mut ()) {
    // SAFETY: `learn` passes a value of this type.
    let (glibc, block) = unsafe { *ended.cast::<(&Glibc, usize)>() };
    glibc.end(block);
}

#[inline]
fn template() -> Option<&'static Template> {
    // SAFETY: null, or a template that `renew` has leaked.
    unsafe { TEMPLATE.load(Ordering::Acquire).as_ref() }
}

/// Reads the template of the loaded modules, and makes it the current one.
#[cold]
fn renew(generation: usize) {
    let (images, is_dynamic) = images();
    let start = images.iter().map(|image| image.offset).min().unwrap_or(0) & !7;
    let ends = images.iter().map(|image| image.offset + image.size.cast_signed());
    let end = port::images_end(ends.max().unwrap_or(start)).max(start);
    let mut bytes = vec![0_u64; (end - start).unsigned_abs().div_ceil(8)];
    for image in images {
        let at = bytes.as_mut_ptr().cast::<u8>().wrapping_offset(image.offset - start);
        // SAFETY: the initialised part of the module's image, copied to its place in the template, which has room for
        // it.
        unsafe { ptr::copy_nonoverlapping(image.from as *const u8, at, image.filled) };
    }
    let template = Template {
        bytes,
        start,
        spare: port::spare(end, static_size().unwrap_or(0)),
        is_dynamic,
        generation,
    };
    TEMPLATE.store(Box::into_raw(Box::new(template)), Ordering::Release);
}

/// Where the list of robust mutexes is.
fn robust_list() -> Option<isize> {
    let (mut head, mut len) = (ptr::null_mut::<c_void>(), 0_usize);
    // SAFETY: writes two words, for which there is room.
    let asked = unsafe { libc::syscall(libc::SYS_get_robust_list, 0, &raw mut head, &raw mut len) };
    from_base(base::get(), head.addr()).filter(|_| asked == 0)
}

/// The offset of a place from the base. `None` if it is too far away to be of the same block.
fn from_base(base: usize, place: usize) -> Option<isize> {
    let offset = place.wrapping_sub(base).cast_signed();
    (offset.unsigned_abs() < 4096).then_some(offset)
}

/// The offset from the base of the area in which the kernel writes the number of the processor, and the area's size.
fn rseq() -> Option<(isize, usize)> {
    // The area exists even if the kernel does not write there: a new OS thread looks there to see whether its maker is
    // registered.
    // SAFETY: glibc has had variables of these names and types since 2.35.
    unsafe {
        let offset = *symbol(c"__rseq_offset")?.cast::<isize>();
        let used = *symbol(c"__rseq_size")?.cast::<u32>();
        // The kernel's first version has 32 bytes, and glibc says fewer if the last ones are unused.
        Some((offset, (used as usize).max(32)))
    }
}
