//! The images of thread-locals that the loaded modules have, and where they lie in a block.

use std::ffi::{c_int, c_void};

use super::glibc::symbol;
use super::{at, base, port};

/// An image of thread-locals in the static area.
#[derive(Clone, Copy)]
pub(super) struct Image {
    /// Where the image begins, from the base on.
    pub(super) offset: isize,
    pub(super) from: usize,
    pub(super) filled: usize,
    pub(super) size: usize,
}

impl Image {
    pub(super) fn contains_errno(&self) -> bool {
        // SAFETY: returns the address of a thread-local.
        let errno = unsafe { libc::__errno_location() }.addr();
        let start = at(base::get(), self.offset);
        (start..start + self.size).contains(&errno)
    }
}

/// The images of the modules in the static area, and whether there are modules outside of it.
pub(super) fn images() -> (Vec<Image>, bool) {
    let mut search = Search {
        base: base::get(),
        area: static_size().unwrap_or(0),
        // SAFETY: glibc's `__tls_get_addr` has this type.
        get: symbol(c"__tls_get_addr").map(|found| unsafe { std::mem::transmute::<*mut c_void, GetAddress>(found) }),
        images: Vec::new(),
        is_dynamic: false,
    };
    // SAFETY: `module` expects what glibc passes, and `search`, which outlives the call.
    unsafe { libc::dl_iterate_phdr(Some(module), (&raw mut search).cast()) };
    (search.images, search.is_dynamic)
}

/// `__tls_get_addr`: the address of a thread-local, from the number of its module and an offset.
type GetAddress = unsafe extern "C" fn(&[usize; 2]) -> usize;

struct Search {
    base: usize,
    area: usize,
    get: Option<GetAddress>,
    images: Vec<Image>,
    is_dynamic: bool,
}

unsafe extern "C" fn module(info: *mut libc::dl_phdr_info, size: usize, search: *mut c_void) -> c_int {
    // SAFETY: glibc passes a whole `dl_phdr_info`, and `images` passes a `Search` that has no other user meanwhile.
    let (info, search) = unsafe { (&*info, &mut *search.cast::<Search>()) };
    if size < size_of::<libc::dl_phdr_info>() {
        return 0;
    }
    for index in 0..usize::from(info.dlpi_phnum) {
        // SAFETY: the module has `dlpi_phnum` headers.
        let header = unsafe { &*info.dlpi_phdr.add(index) };
        if header.p_type != libc::PT_TLS {
            continue;
        }
        let mut data = info.dlpi_tls_data.addr();
        if data == 0
            && let Some(get) = search.get
            && info.dlpi_tls_modid != 0
        {
            // This OS thread has never used the module. If the module is in the static area, its image is there all the
            // same.
            // SAFETY: the function that compiled code calls for a thread-local of this module.
            data = unsafe { get(&[info.dlpi_tls_modid, 0]) };
        }
        let offset = data.wrapping_sub(search.base).cast_signed();
        // Outside of the static area: such an image is allocated at first use, and `reset_block` frees it.
        if data == 0 || !port::is_static(offset, header.p_memsz as usize, search.area) {
            search.is_dynamic = true;
            continue;
        }
        search.images.push(Image {
            offset,
            from: (info.dlpi_addr + header.p_vaddr) as usize,
            filled: header.p_filesz as usize,
            size: header.p_memsz as usize,
        });
    }
    0
}

/// The size in bytes of glibc's static block, `struct pthread` included.
pub(super) fn static_size() -> Option<usize> {
    let ask = symbol(c"_dl_get_tls_static_info")?;
    // SAFETY: this function has had this type since glibc 2.3.
    let ask = unsafe { std::mem::transmute::<*mut c_void, unsafe extern "C" fn(*mut usize, *mut usize)>(ask) };
    let (mut size, mut align) = (0, 0);
    // SAFETY: writes two numbers, for which there is room.
    unsafe { ask(&raw mut size, &raw mut align) };
    (size > 0).then_some(size)
}
