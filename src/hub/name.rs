//! How a green thread is named in messages.
#![forbid(unsafe_code)]

use std::fmt;

use super::task::marks;

/// `green thread #2 'worker'`, or `green thread #2` if it has no name; `native stack #1`. It allocates nothing, so a
/// signal handler may write it.
#[derive(Clone, Copy)]
pub(crate) struct Name<'a> {
    pub(crate) id: u64,
    pub(crate) name: Option<&'a str>,
}

impl fmt::Display for Name<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if marks::is_native(self.id) {
            return write!(f, "native stack #{}", marks::without_native(self.id));
        }
        write!(f, "green thread #{}", self.id)?;
        match self.name {
            Some(name) => write!(f, " '{name}'"),
            None => Ok(()),
        }
    }
}

/// A buffer for text that cannot grow; what does not fit is left out.
pub(super) struct Buffer<'a> {
    pub(super) bytes: &'a mut [u8],
    pub(super) len: usize,
}

impl fmt::Write for Buffer<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for (to, from) in self.bytes[self.len..].iter_mut().zip(text.bytes()) {
            *to = from;
            self.len += 1;
        }
        Ok(())
    }
}
