//! What glibc keeps behind a thread control block: how to make one, lay its images anew, and run its destructors.
//!
//! Nothing here is a public interface of glibc. All offsets come from what it tells debuggers (`_thread_db_*`), from the
//! kernel, or from an experiment at first use; whatever is missing or looks odd turns isolation off, with a reason.
//!
//! ```text
//!   static thread-locals (an image of each module)      struct pthread
//!  ┌──────┬────────────┬────────────┬───────────┐┌──────┬─────┬──────┬───────────────┬──────────────┬─────┐
//!  │ …    │ libc's     │ other's    │ program's ││ self │ dtv │ self │ canary, guard │ tid, robust… │ keys│
//!  └──────┴────────────┴────────────┴───────────┘└──────┴─────┴──────┴───────────────┴──────────────┴─────┘
//!                                                 ▲ fs base
//! ```
//!
//! # Invariants
//! - **G1** A block is used by the OS thread that made it and by no other, and is native to none.
//! - **G2** `malloc`'s words travel with the base: one cache and one arena for all blocks of an OS thread, of which one runs
//!   at a time.
//! - **G3** A block in the pool is as `_dl_allocate_tls` made it but for G2's words: images laid anew, no value under any
//!   key, nothing allocated for dynamic modules.
//!
//! # What `start_thread` does, and who does it here
//! Of glibc 2.36, line by line; the table in [`tls`](crate::tls) says what it comes to.
//!
//! | glibc | here |
//! |---|---|
//! | `__resp = &pd->res` | [`Glibc::begin`] |
//! | `__ctype_init` | [`Glibc::begin`] |
//! | rseq, robust list: told to the kernel | not told; [`Glibc::make`] says so in the block |
//! | the signal mask; the set-up for `pthread_exit` and cancellation | none |
//! | `__call_tls_dtors`, `__nptl_deallocate_tsd` | [`Glibc::end`] |
//! | `__libc_thread_freeres`: resolver, texts of `strerror` and `strsignal`, `dlerror`'s | [`Glibc::end`], one by one |
//! | the same: `malloc`'s cache and arena | G2: they travel; the OS thread's end frees them |
//! | the same: Sun RPC's variables | none: there is no RPC to link to since glibc 2.32 |
//! | the last thread calls `exit` | not counted |
//! | robust mutexes that it holds | stay held |

use std::ffi::{CStr, c_int, c_void};
use std::ptr;
use std::sync::atomic::{AtomicPtr, AtomicU32, Ordering};

use super::base;
use super::fork::{GlobalOnce, Order};

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

/// The keys of one second-level table, and the tables.
const LEVEL: usize = 32;

/// An image of thread-locals in the static area.
#[derive(Clone, Copy)]
struct Image {
    /// How far below the base it begins.
    below: usize,
    from: usize,
    filled: usize,
    size: usize,
}

/// What was found out about this process's glibc.
pub(crate) struct Glibc {
    allocate: unsafe extern "C" fn(*mut c_void) -> *mut c_void,
    deallocate: unsafe extern "C" fn(*mut c_void, bool),
    call_destructors: unsafe extern "C" fn(),
    ctype: unsafe extern "C" fn(),
    keys: *const Key,
    tid: usize,
    values: usize,
    robust: Option<usize>,
    rseq: Option<isize>,
    /// Where it says whether a key was ever given a value.
    used: usize,
    resolver: Option<Resolver>,
    /// Words, by how far they are above the base, that are all 0 while libc keeps nothing for a thread.
    results: [isize; 4],
    /// Where the texts of `strerror` and `strsignal` are, if a thread has them; 0: it has not.
    texts: [usize; 2],
}

/// Name look-ups keep their state for each thread.
#[derive(Clone, Copy)]
struct Resolver {
    /// How far below the base the pointer to it is.
    pointer: usize,
    /// How far above the base a thread has the state itself.
    state: usize,
    close: unsafe extern "C" fn(*mut c_void),
}

// SAFETY: numbers, functions, and the address of a table that lives as long as the process.
unsafe impl Send for Glibc {}
// SAFETY: as above.
unsafe impl Sync for Glibc {}

/// What the modules have in the static area, as it is for a new thread. Replaced as a whole when a library was loaded, and
/// never freed.
static TEMPLATE: AtomicPtr<Template> = AtomicPtr::new(ptr::null_mut());

struct Template {
    /// All that lies below the base, from the lowest image up.
    bytes: Vec<u64>,
    /// Whether there are modules whose thread-locals are allocated when first used.
    is_dynamic: bool,
    /// Of the table of modules that this was read from.
    generation: usize,
}

/// The last unique owner number given to a block: above all that the kernel gives to threads.
static OWNER: AtomicU32 = AtomicU32::new(1 << 22);

const SELF: usize = 0;
const DTV: usize = 8;
const SELF_TOO: usize = 16;
const MULTIPLE_THREADS: usize = 0x18;
const CANARY: usize = 0x28;
const POINTER_GUARD: usize = 0x30;

/// The glibc of this process, or why it will not do.
#[inline]
pub(crate) fn get() -> Result<&'static Glibc, &'static str> {
    // SAFETY: null, or what `look` found, which is never dropped.
    match unsafe { FOUND.load(Ordering::Acquire).as_ref() } {
        Some(found) => Ok(found),
        None => look(),
    }
}

/// What [`get`] has found; null: nothing, or not looked for yet.
static FOUND: AtomicPtr<Glibc> = AtomicPtr::new(ptr::null_mut());

#[cold]
fn look() -> Result<&'static Glibc, &'static str> {
    static LOOKED: GlobalOnce<Result<Glibc, &'static str>> = GlobalOnce::new(Order::Glibc);
    let found = LOOKED.get_or_init(Glibc::find).as_ref().map_err(|reason| *reason)?;
    FOUND.store(ptr::from_ref(found).cast_mut(), Ordering::Release);
    Ok(found)
}

/// The number by which C's locks know the running thread as their owner.
#[cfg(feature = "monkey")]
pub(crate) fn own_id() -> Option<u32> {
    Some(get().ok()?.number(base::get()))
}

fn symbol(name: &CStr) -> Option<*mut c_void> {
    // SAFETY: a search by name.
    let found = unsafe { libc::dlsym(libc::RTLD_DEFAULT, name.as_ptr()) };
    (!found.is_null()).then_some(found)
}

/// One of the descriptors that glibc has for debuggers: the third number is the offset of a field.
fn field(name: &CStr) -> Option<usize> {
    let found = symbol(name)?.cast::<[u32; 3]>();
    // SAFETY: glibc's `_thread_db_*` symbols of fields are three numbers.
    let [_, _, offset] = unsafe { *found };
    Some(offset as usize)
}

fn size(name: &CStr) -> Option<usize> {
    let found = symbol(name)?.cast::<u32>();
    // SAFETY: those of sizes are one number.
    Some(unsafe { *found } as usize)
}

/// # Safety
/// `at` is the address of an aligned word that may be read.
unsafe fn word(at: usize) -> usize {
    // SAFETY: the caller's.
    unsafe { *(at as *const usize) }
}

/// # Safety
/// `at` is the address of an aligned word that may be written.
unsafe fn set_word(at: usize, value: usize) {
    // SAFETY: the caller's.
    unsafe { *(at as *mut usize) = value };
}

impl Glibc {
    fn find() -> Result<Glibc, &'static str> {
        base::prepare();
        let of = |name: &CStr| symbol(name).ok_or("a symbol of glibc's is missing");
        let at = |name: &CStr| field(name).ok_or("a descriptor of glibc's is missing");
        // SAFETY: functions of these types since glibc 2.17 at least.
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
        if size(c"_thread_db_sizeof_pthread_key_struct") != Some(size_of::<Key>())
            || size(c"_thread_db_sizeof_pthread_key_data") != Some(size_of::<Value>())
            || size(c"_thread_db_sizeof_pthread_key_data_level2") != Some(LEVEL * size_of::<Value>())
            || field(c"_thread_db_pthread_key_struct_destr") != Some(8)
            || field(c"_thread_db_pthread_key_data_data") != Some(8)
            || field(c"_thread_db_pthread_dtvp") != Some(DTV)
        {
            return Err("glibc's tables are not laid out as known");
        }
        let mut glibc = Glibc {
            allocate,
            deallocate,
            call_destructors,
            ctype,
            keys: of(c"__pthread_keys")?.cast(),
            tid: at(c"_thread_db_pthread_tid")?,
            values: at(c"_thread_db_pthread_specific")?,
            robust: robust_list(),
            rseq: rseq(),
            used: at(c"_thread_db_pthread_specific")? + LEVEL * size_of::<usize>(),
            resolver: None,
            results: [SELF.cast_signed(); 4],
            texts: [0; 2],
        };
        let native = base::get();
        // SAFETY: the header of the block that this OS thread runs on.
        let (one, two, tid) = unsafe {
            (
                word(native + SELF),
                word(native + SELF_TOO),
                *((native + glibc.tid) as *const i32),
            )
        };
        if one != native || two != native || i64::from(tid) != i64::try_from(super::thread::id()).unwrap_or(0) {
            return Err("the thread control block is not laid out as known");
        }
        // SAFETY: as above.
        if unsafe { word(native + glibc.values) } != native + glibc.values - LEVEL * size_of::<Value>() {
            return Err("the tables of keys are not laid out as known");
        }
        glibc.learn()?;
        glibc.resolver = resolver(native);
        glibc.watch_results();
        Ok(glibc)
    }

    /// Finds by experiment what glibc has no name for: `malloc`'s words, and the mark of a used key.
    fn learn(&mut self) -> Result<(), &'static str> {
        let libc = images().0.into_iter().find(Image::contains_errno);
        let libc = libc.ok_or("libc's thread-locals were not found")?;
        if libc.size > size_of::<[usize; 256]>() {
            return Err("libc has more thread-locals than known");
        }
        // A first use, so that the native block has its words too.
        allocate_once();
        let block = self.make(base::get()).ok_or("no memory for a set of thread-locals")?;
        let mut probe = Probe {
            libc: (block - libc.below, libc.size / 8),
            used: block + self.used,
            before: [0; 256],
            changed: [0; 4],
            count: 0,
            marked: false,
            message: None,
            texts: [0; 2],
        };
        // SAFETY: B1: a block just made; `experiment` is what `probe` is for.
        unsafe { base::call(block, base::get(), experiment, (&raw mut probe).cast()) };
        // Where it was not found, a word that is never 0 has it asked for each time.
        let message = probe.message.map(|index| libc.below - index * 8);
        self.results = [message.map_or(SELF.cast_signed(), |below| -below.cast_signed()); 4];
        self.texts = probe.texts.map(|text| self.place_of(block, text));
        let mut ended = (&*self, block);
        // SAFETY: as above; and then, G1: nobody uses it any more.
        unsafe {
            base::call(block, base::get(), end_experiment, (&raw mut ended).cast());
            (self.deallocate)(block as *mut c_void, true);
        }
        if !probe.marked {
            return Err("keys are not marked as known");
        }
        if probe.count > probe.changed.len() {
            return Err("malloc changes more thread-locals than known");
        }
        let mut malloc = [0; 4];
        for (below, word) in malloc.iter_mut().zip(&probe.changed[..probe.count]) {
            *below = libc.below - word * 8;
        }
        base::set_malloc(malloc);
        Ok(())
    }

    /// Has [`has_results`](Self::has_results) look at the resolver's state and at the texts too.
    fn watch_results(&mut self) {
        let servers = self.resolver.map_or(0, |resolver| resolver.state + SERVERS);
        for (place, at) in self.results[1..]
            .iter_mut()
            .zip([servers, self.texts[0], self.texts[1]])
        {
            if at != 0 {
                *place = at.cast_signed();
            }
        }
    }

    /// Where in `struct pthread` this word is, other than as the value of a key; 0: nowhere.
    fn place_of(&self, block: usize, wanted: usize) -> usize {
        let keys = self.values - LEVEL * size_of::<Value>()..self.values + LEVEL * size_of::<usize>();
        let mut places = (0..size_of_pthread() / 8).map(|index| index * 8);
        // SAFETY: words of a block that was just made.
        let found = places.find(|at| !keys.contains(at) && wanted != 0 && unsafe { word(block + at) } == wanted);
        found.unwrap_or(0)
    }

    /// A block of this OS thread, whose native one is `native`; `None` if there is no memory.
    pub(crate) fn make(&self, native: usize) -> Option<usize> {
        // SAFETY: with null it allocates the block itself.
        let block = unsafe { (self.allocate)(ptr::null_mut()) }.addr();
        if block == 0 {
            return None;
        }
        // SAFETY: the header of a new block, and of the native one.
        unsafe {
            set_word(block + SELF, block);
            set_word(block + SELF_TOO, block);
            for at in [CANARY, POINTER_GUARD] {
                set_word(block + at, word(native + at));
            }
            // With 0 malloc would leave its locks alone, though there may be other OS threads.
            *((block + MULTIPLE_THREADS) as *mut c_int) = 1;
            *((native + MULTIPLE_THREADS) as *mut c_int) = 1;
            *((block + self.tid) as *mut u32) = OWNER.fetch_add(1, Ordering::Relaxed) + 1;
            if let Some(robust) = self.robust {
                set_word(block + robust, block + robust);
                set_word(block + robust - 8, block + robust);
            }
            if let Some(rseq) = self.rseq {
                // "Registration failed": whoever wants the number of the processor asks the kernel.
                *((block.wrapping_add_signed(rseq) + 4) as *mut i32) = -2;
            }
            set_word(block + self.values, block + self.values - LEVEL * size_of::<Value>());
            let generation = generation(block);
            if template().is_none_or(|template| template.generation != generation) {
                renew(generation);
            }
        }
        Some(block)
    }

    /// The number by which C's locks know what runs in a block of this OS thread.
    #[cfg(feature = "monkey")]
    pub(crate) fn number(&self, block: usize) -> u32 {
        // SAFETY: a field of a block that is there.
        unsafe { *((block + self.tid) as *const u32) }
    }

    /// The first thing in a block.
    pub(crate) fn begin(&self) {
        let block = base::get();
        // SAFETY: as at the start of an OS thread: this block's state of the resolver, and its tables of character classes.
        unsafe {
            if let Some(resolver) = self.resolver {
                set_word(block - resolver.pointer, block + resolver.state);
            }
            (self.ctype)();
        }
    }

    /// Runs the destructors of the thread-locals of the block that runs, then those of its keys.
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

    /// Runs the destructors of the keys, as often as glibc goes over them.
    #[inline(never)]
    fn end_keys(&self, block: usize) {
        let _ = (0..4).find(|_| !self.end_values(block));
    }

    /// Whether libc may keep something for this block.
    #[inline]
    fn has_results(&self, block: usize) -> bool {
        // SAFETY: words of a block of ours and of libc's image before it.
        let words = self.results.map(|at| unsafe { word(block.wrapping_add_signed(at)) });
        words.into_iter().fold(0, |all, word| all | word) != 0
    }

    /// Frees what libc keeps for the block that runs; but for `malloc`'s cache, which is the OS thread's.
    #[cold]
    fn free_results(&self, block: usize) {
        forget_message();
        // SAFETY: words of this block's `struct pthread`, which are what they were found to be.
        unsafe {
            if let Some(resolver) = self.resolver {
                let state = block + resolver.state;
                if *((state + SERVERS) as *const c_int) != 0 {
                    (resolver.close)(state as *mut c_void);
                    (state as *mut u8).write_bytes(0, RESOLVER);
                }
            }
            for at in self.texts {
                if at != 0 && word(block + at) != 0 {
                    libc::free(word(block + at) as *mut c_void);
                    set_word(block + at, 0);
                }
            }
        }
    }

    #[inline]
    fn is_used(&self, block: usize) -> bool {
        // SAFETY: a byte of a block of ours, where `learn` saw the mark.
        unsafe { *((block + self.used) as *const u8) != 0 }
    }

    /// One round over the keys' values; whether there was one.
    fn end_values(&self, block: usize) -> bool {
        let mut any = false;
        for table in 0..LEVEL {
            // SAFETY: the block that runs: nobody else changes its tables.
            let values = unsafe { word(block + self.values + table * 8) } as *mut Value;
            if values.is_null() {
                continue;
            }
            for index in 0..LEVEL {
                // SAFETY: a table has that many, and so has glibc's table of keys.
                let (value, key) = unsafe { (&mut *values.add(index), &*self.keys.add(table * LEVEL + index)) };
                let data = std::mem::replace(&mut value.data, ptr::null_mut());
                if data.is_null() || value.sequence != key.sequence {
                    continue;
                }
                if let Some(destructor) = key.destructor {
                    any = true;
                    // SAFETY: as glibc would: a live key's destructor, with this thread's value.
                    unsafe { destructor(data) };
                }
            }
        }
        any
    }

    /// Makes an ended block as new (G3), from outside.
    ///
    /// # Safety
    /// G1; nothing runs in the block, and nothing refers to its thread-locals.
    pub(crate) unsafe fn lay(&self, block: usize) {
        let Some(template) = template() else { return };
        // SAFETY: the caller's: the block is ours alone, and has room for the template.
        unsafe {
            if self.is_used(block) {
                self.forget_values(block);
            }
            if template.is_dynamic || template.generation != generation(block) {
                forget_dynamic(block);
            }
            let words = &template.bytes;
            ptr::copy_nonoverlapping(words.as_ptr(), (block as *mut u64).sub(words.len()), words.len());
        }
    }

    /// # Safety
    /// As for [`lay`](Self::lay).
    #[cold]
    unsafe fn forget_values(&self, block: usize) {
        // SAFETY: the first table lies in the block, the others were allocated.
        unsafe {
            (word(block + self.values) as *mut Value).write_bytes(0, LEVEL);
            for table in 1..LEVEL {
                let at = block + self.values + table * 8;
                libc::free(word(at) as *mut c_void);
                set_word(at, 0);
            }
            *((block + self.used) as *mut u8) = 0;
        }
    }

    /// Frees a block.
    ///
    /// # Safety
    /// As for [`lay`](Self::lay).
    pub(crate) unsafe fn free(&self, block: usize) {
        // SAFETY: the caller's; `lay` has freed what hangs on it.
        unsafe {
            self.lay(block);
            (self.deallocate)(block as *mut c_void, true);
        }
    }
}

/// Frees the message of `dlerror` of the block that runs.
fn forget_message() {
    for _ in 0..2 {
        // Told once, and then forgotten.
        // SAFETY: only this block's own message is touched.
        if unsafe { libc::dlerror() }.is_null() {
            break;
        }
    }
}

/// # Safety
/// A block.
#[inline]
unsafe fn generation(block: usize) -> usize {
    // SAFETY: the first entry of the table of modules is the generation.
    unsafe { (*(word(block + DTV) as *const Dynamic)).value }
}

/// # Safety
/// As for [`Glibc::lay`].
#[cold]
unsafe fn forget_dynamic(block: usize) {
    // SAFETY: the table of modules, whose length stands before it.
    unsafe {
        let table = word(block + DTV) as *mut Dynamic;
        let modules = (*table.sub(1)).value;
        for entry in 1..=modules {
            let entry = &mut *table.add(entry);
            if !entry.to_free.is_null() {
                libc::free(std::mem::replace(&mut entry.to_free, ptr::null_mut()));
                entry.value = usize::MAX;
            }
        }
    }
}

/// The size of `struct __res_state`, and where in it the number of servers is: 0 until it is first used.
const RESOLVER: usize = 568;
const SERVERS: usize = 16;

fn size_of_pthread() -> usize {
    size(c"_thread_db_sizeof_pthread").unwrap_or(0)
}

/// What there is to know of the resolver. Without it isolated green threads share the state of the first OS thread.
fn resolver(native: usize) -> Option<Resolver> {
    let pointer = native
        .checked_sub(symbol(c"__resp")?.addr())
        .filter(|below| *below < 4096)?;
    let close = symbol(c"__res_nclose")?;
    let here = move || {
        let base = base::get();
        // SAFETY: a thread-local of libc's, which is as far below each base.
        let state = unsafe { word(base - pointer) }.wrapping_sub(base);
        (state < size_of_pthread().saturating_sub(RESOLVER) && state % 8 == 0).then_some(state)
    };
    // The first OS thread has it elsewhere, and must ask another one.
    let state = here().or_else(|| on_another(here))?;
    Some(Resolver {
        pointer,
        state,
        // SAFETY: a function of this type.
        close: unsafe { std::mem::transmute::<*mut c_void, unsafe extern "C" fn(*mut c_void)>(close) },
    })
}

/// Has another OS thread run `f`.
fn on_another(f: impl FnOnce() -> Option<usize> + Send + 'static) -> Option<usize> {
    let _inside = super::inside::enter();
    let (tell, told) = std::sync::mpsc::channel();
    super::thread::start("greenthread", move || _ = tell.send(f())).ok()?;
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

/// The compiler may not leave it out, as it does with what is allocated and freed unseen.
fn allocate_once() {
    // SAFETY: allocates, and frees that.
    unsafe { libc::free(std::hint::black_box(libc::malloc(24))) };
}

/// In a fresh block: which words of libc's does the first `malloc` change, which has the message of `dlerror`, and is a key's
/// first value marked? Uses no thread-local of its own.
unsafe fn experiment(probe: *mut ()) {
    // SAFETY: what `learn` hands over.
    let probe = unsafe { &mut *probe.cast::<Probe>() };
    let (at, words) = probe.libc;
    for index in 0..words {
        // SAFETY: a word of libc's image.
        probe.before[index] = unsafe { word(at + index * 8) };
    }
    let mut key = 0;
    // Before malloc, which may have a key of its own.
    // SAFETY: a key of our own, made and deleted here; the mark is a byte of the block.
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
        // SAFETY: a word of libc's image.
        if unsafe { word(at + index * 8) } != probe.before[index] {
            if let Some(changed) = probe.changed.get_mut(probe.count) {
                *changed = index;
            }
            probe.count += 1;
        }
    }
    probe.message = message(at, words);
    // SAFETY: numbers that there are none of, so that a text is made for this thread.
    probe.texts = unsafe {
        [
            libc::strerror(i16::MAX.into()).addr(),
            libc::strsignal(i16::MAX.into()).addr(),
        ]
    };
}

/// Which of so many words of libc's is 0 but for the time that there is a message of `dlerror`. None: not just one.
fn message(at: usize, words: usize) -> Option<usize> {
    // SAFETY: a word of libc's image.
    let is_set = |index: &usize| unsafe { word(at + index * 8) } != 0;
    let mut may_be = [false; 256];
    (0..words).for_each(|index| may_be[index] = !is_set(&index));
    // SAFETY: a search by name, of one that there is not.
    unsafe { libc::dlsym(libc::RTLD_DEFAULT, c"greenthread looks for what there is not".as_ptr()) };
    (0..words).for_each(|index| may_be[index] &= is_set(&index));
    forget_message();
    let mut found = (0..words).filter(|index| may_be[*index] && !is_set(index));
    found.next().filter(|_| found.next().is_none())
}

/// Ends the block that was experimented in: a malloc that is not glibc's may have put it in a list of its threads.
unsafe fn end_experiment(ended: *mut ()) {
    // SAFETY: what `learn` hands over.
    let (glibc, block) = unsafe { *ended.cast::<(&Glibc, usize)>() };
    glibc.end(block);
}

impl Image {
    fn contains_errno(&self) -> bool {
        // SAFETY: the address of a thread-local.
        let errno = unsafe { libc::__errno_location() }.addr();
        let at = base::get() - self.below;
        (at..at + self.size).contains(&errno)
    }
}

#[inline]
fn template() -> Option<&'static Template> {
    // SAFETY: null, or a template that `renew` leaked.
    unsafe { TEMPLATE.load(Ordering::Acquire).as_ref() }
}

/// Reads the modules anew.
#[cold]
fn renew(generation: usize) {
    let (images, is_dynamic) = images();
    let size = images.iter().map(|image| image.below).max().unwrap_or(0);
    let mut bytes = vec![0_u64; size.div_ceil(8)];
    let top = bytes.len() * 8;
    for image in images {
        let at = bytes.as_mut_ptr().cast::<u8>().wrapping_add(top - image.below);
        // SAFETY: as much as the module has filled, to its place in the template.
        unsafe { ptr::copy_nonoverlapping(image.from as *const u8, at, image.filled) };
    }
    let template = Template {
        bytes,
        is_dynamic,
        generation,
    };
    TEMPLATE.store(Box::into_raw(Box::new(template)), Ordering::Release);
}

/// The modules in the static area, and whether there are others.
fn images() -> (Vec<Image>, bool) {
    let mut search = Search {
        base: base::get(),
        area: static_size().unwrap_or(0),
        // SAFETY: a function of this type.
        get: symbol(c"__tls_get_addr").map(|found| unsafe { std::mem::transmute::<*mut c_void, GetAddress>(found) }),
        images: Vec::new(),
        is_dynamic: false,
    };
    // SAFETY: `module` gets what glibc promises, and `search`.
    unsafe { libc::dl_iterate_phdr(Some(module), (&raw mut search).cast()) };
    (search.images, search.is_dynamic)
}

/// `__tls_get_addr`: of a module's number and an offset.
type GetAddress = unsafe extern "C" fn(&[usize; 2]) -> usize;

struct Search {
    base: usize,
    area: usize,
    get: Option<GetAddress>,
    images: Vec<Image>,
    is_dynamic: bool,
}

unsafe extern "C" fn module(info: *mut libc::dl_phdr_info, size: usize, search: *mut c_void) -> c_int {
    // SAFETY: what `images` hands over.
    let (info, search) = unsafe { (&*info, &mut *search.cast::<Search>()) };
    if size < size_of::<libc::dl_phdr_info>() {
        return 0;
    }
    for index in 0..usize::from(info.dlpi_phnum) {
        // SAFETY: a module has that many headers.
        let header = unsafe { &*info.dlpi_phdr.add(index) };
        if header.p_type != libc::PT_TLS {
            continue;
        }
        let mut data = info.dlpi_tls_data.addr();
        if data == 0
            && let Some(get) = search.get
            && info.dlpi_tls_modid != 0
        {
            // In the static area it is there, though this OS thread has never looked for it.
            // SAFETY: what the compiler calls for a thread-local of this module.
            data = unsafe { get(&[info.dlpi_tls_modid, 0]) };
        }
        let below = search.base.wrapping_sub(data);
        if data == 0 || below == 0 || below > search.area {
            search.is_dynamic = true;
            continue;
        }
        search.images.push(Image {
            below,
            from: (info.dlpi_addr + header.p_vaddr) as usize,
            filled: header.p_filesz as usize,
            size: header.p_memsz as usize,
        });
    }
    0
}

/// How many bytes glibc has for a block, its `struct pthread` included.
fn static_size() -> Option<usize> {
    let ask = symbol(c"_dl_get_tls_static_info")?;
    // SAFETY: a function of this type since glibc 2.3.
    let ask = unsafe { std::mem::transmute::<*mut c_void, unsafe extern "C" fn(*mut usize, *mut usize)>(ask) };
    let (mut size, mut align) = (0, 0);
    // SAFETY: writes two numbers.
    unsafe { ask(&raw mut size, &raw mut align) };
    (size > 0).then_some(size)
}

/// Where in `struct pthread` the list of robust mutexes is.
fn robust_list() -> Option<usize> {
    let (mut head, mut len) = (ptr::null_mut::<c_void>(), 0_usize);
    // SAFETY: writes two words.
    let asked = unsafe { libc::syscall(libc::SYS_get_robust_list, 0, &raw mut head, &raw mut len) };
    let offset = head.addr().wrapping_sub(base::get());
    (asked == 0 && offset < 4096).then_some(offset)
}

/// Where from the base the kernel writes the number of the processor.
fn rseq() -> Option<isize> {
    // Whether the kernel writes there or not: a new OS thread looks there whether its maker is registered.
    // SAFETY: glibc's variable of this type since 2.35.
    Some(unsafe { *symbol(c"__rseq_offset")?.cast::<isize>() })
}
