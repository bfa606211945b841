//! The buffers of one call, as C lists them.
#![forbid(unsafe_code)]

use libc::iovec;

/// How many bytes the buffers have.
pub(super) fn total_of(vectors: &[iovec]) -> usize {
    vectors.iter().map(|vector| vector.iov_len).sum()
}

/// The parts of the buffers after the first `done` bytes, but no more than `most` bytes.
pub(super) fn rest_of(vectors: &[iovec], mut done: usize, mut most: usize) -> Vec<iovec> {
    let mut rest = Vec::with_capacity(vectors.len());
    for vector in vectors {
        let skip = done.min(vector.iov_len);
        done -= skip;
        let len = (vector.iov_len - skip).min(most);
        most -= len;
        if len > 0 {
            rest.push(iovec {
                iov_base: vector.iov_base.wrapping_byte_add(skip),
                iov_len: len,
            });
        }
    }
    rest
}
