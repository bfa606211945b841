//! Odd arguments at odd moments: what libc does with them, patched calls do too.

use std::io::{self, Read, Write};
use std::mem::zeroed;
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::thread::sleep;
use std::time::{Duration, Instant};

use greenthread::time::timeout_or_late;
use greenthread::{spawn, yield_now};

use super::{ms, patched};

fn last() -> Option<i32> {
    io::Error::last_os_error().raw_os_error()
}

fn pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let near = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    (near, listener.accept().unwrap().0)
}

/// Closes it with a reset.
fn reset(stream: TcpStream) {
    let linger = libc::linger {
        l_onoff: 1,
        l_linger: 0,
    };
    // SAFETY: an option of its type.
    unsafe {
        let (at, len) = ((&raw const linger).cast(), size_of::<libc::linger>() as u32);
        libc::setsockopt(stream.as_raw_fd(), libc::SOL_SOCKET, libc::SO_LINGER, at, len);
    }
}

#[test]
fn a_thousand_time_outs_that_are_dealt_with_are_nobody_s_deafness() {
    patched(|| {
        let (near, _far) = UnixStream::pair().unwrap();
        for _ in 0..1100 {
            let (_, read) = timeout_or_late(Duration::from_micros(10), || (&near).read(&mut [0])).unwrap_err();
            assert_eq!(read.unwrap().unwrap_err().raw_os_error(), Some(libc::ETIMEDOUT));
        }
    });
}

/// The count may be larger than the sets are: the kernel looks at no more than there can be descriptors.
#[test]
fn select_with_a_large_count_touches_what_the_kernel_touches() {
    const COUNT: usize = 1 << 20;
    patched(|| {
        let (reader, mut writer) = io::pipe().unwrap();
        let sets = Box::leak(vec![0_u64; COUNT / 64].into_boxed_slice());
        let at = sets.as_mut_ptr().expose_provenance();
        let fd = reader.as_raw_fd();
        let waits = spawn(move || {
            let null = std::ptr::null_mut();
            let set = std::ptr::with_exposed_provenance_mut::<u64>(at);
            // SAFETY: bits for as many descriptors, which nobody else touches in the words that count.
            unsafe {
                *set.add(fd as usize / 64) |= 1 << (fd % 64);
                (
                    libc::select(COUNT as i32, set.cast(), null, null, null.cast()),
                    *set.add(COUNT / 64 - 1),
                )
            }
        });
        sleep(ms(5));
        // SAFETY: a word that is no descriptor's.
        unsafe { *std::ptr::with_exposed_provenance_mut::<u64>(at).add(COUNT / 64 - 1) = 42 };
        writer.write_all(b"x").unwrap();
        assert_eq!(waits.join().unwrap(), (1, 42));
    });
}

#[test]
fn copies_that_fail_wake_nobody() {
    patched(|| {
        let (near, mut far) = UnixStream::pair().unwrap();
        let fd = near.as_raw_fd();
        let reads = spawn(move || (&near).read(&mut [0]).unwrap());
        yield_now();
        // SAFETY: none of them closes anything.
        unsafe {
            assert_eq!((libc::dup2(-1, fd), last()), (-1, Some(libc::EBADF)));
            assert_eq!((libc::dup3(fd, fd, 0), last()), (-1, Some(libc::EINVAL)));
            assert_eq!(
                (libc::close_range(fd as u32, fd as u32, 1 << 20), last()),
                (-1, Some(libc::EINVAL))
            );
        }
        sleep(ms(2));
        assert!(!reads.is_finished());
        far.write_all(b"x").unwrap();
        assert_eq!(reads.join().unwrap(), 1);
    });
}

#[test]
fn a_peek_that_waits_for_all_does_so_and_leaves_it_there() {
    for call in ["recv", "recvmsg"] {
        patched(move || {
            let (near, far) = pair();
            let reads = spawn(move || {
                let (mut seen, mut read) = ([0_u8; 10], [0_u8; 10]);
                let flags = libc::MSG_PEEK | libc::MSG_WAITALL;
                // SAFETY: buffers as long as said; all zeros are a message without any.
                let got = unsafe {
                    let mut vector = libc::iovec {
                        iov_base: seen.as_mut_ptr().cast(),
                        iov_len: 10,
                    };
                    let mut message: libc::msghdr = std::mem::zeroed();
                    (message.msg_iov, message.msg_iovlen) = (&mut vector, 1);
                    match call {
                        "recv" => libc::recv(near.as_raw_fd(), vector.iov_base, 10, flags),
                        _ => libc::recvmsg(near.as_raw_fd(), &mut message, flags),
                    }
                };
                (&near).read_exact(&mut read).unwrap();
                (got, seen, read)
            });
            yield_now(); // it waits
            (&far).write_all(b"01234").unwrap();
            sleep(ms(10));
            assert!(!reads.is_finished());
            (&far).write_all(b"56789").unwrap();
            assert_eq!(reads.join().unwrap(), (10, *b"0123456789", *b"0123456789"));
        });
    }
}

#[test]
fn an_error_after_a_part_is_left_for_the_next_call() {
    patched(|| {
        let (near, far) = pair();
        let reads = spawn(move || {
            let mut bytes = [0_u8; 100];
            // SAFETY: a buffer as long as said.
            let got = unsafe { libc::recv(near.as_raw_fd(), bytes.as_mut_ptr().cast(), 100, libc::MSG_WAITALL) };
            (got, (&near).read(&mut bytes).unwrap_err().kind())
        });
        (&far).write_all(b"0123456789").unwrap();
        sleep(ms(10));
        reset(far);
        assert_eq!(reads.join().unwrap(), (10, io::ErrorKind::ConnectionReset));

        let (near, far) = pair();
        let writes = spawn(move || {
            let large = vec![0_u8; 32 << 20];
            let part = (&near).write(&large).unwrap();
            (part < large.len(), (&near).write(b"x").unwrap_err().kind())
        });
        sleep(ms(20));
        reset(far);
        assert_eq!(writes.join().unwrap(), (true, io::ErrorKind::ConnectionReset));
    });
}

#[test]
fn after_a_part_of_a_message_none_follows() {
    patched(|| {
        let (near, mut far) = UnixStream::pair().unwrap();
        near.set_write_timeout(Some(ms(20))).unwrap();
        let sends = spawn(move || {
            let (mut one, mut two) = (vec![1_u8; 4 << 20], [2_u8; 4]);
            // SAFETY: two messages of one buffer each.
            unsafe {
                let mut vectors: [libc::iovec; 2] = zeroed();
                let mut messages: [libc::mmsghdr; 2] = zeroed();
                for (n, buffer) in [&mut one[..], &mut two[..]].into_iter().enumerate() {
                    vectors[n].iov_base = buffer.as_mut_ptr().cast();
                    vectors[n].iov_len = buffer.len();
                    messages[n].msg_hdr.msg_iov = &raw mut vectors[n];
                    messages[n].msg_hdr.msg_iovlen = 1;
                }
                libc::sendmmsg(near.as_raw_fd(), messages.as_mut_ptr(), 2, 0)
            }
        });
        sleep(ms(60));
        let mut read = Vec::new();
        far.read_to_end(&mut read).unwrap();
        assert_eq!(sends.join().unwrap(), 1);
        assert!(read.len() < 4 << 20 && read.iter().all(|byte| *byte == 1));
    });
}

#[test]
fn sendfile_from_a_stream_gives_what_is_there() {
    patched(|| {
        let (near, mut far) = pair();
        let (reader, writer) = io::pipe().unwrap();
        far.write_all(b"hello").unwrap();
        let null = std::ptr::null_mut();
        // SAFETY: descriptors that are open.
        let sent = unsafe { libc::sendfile(writer.as_raw_fd(), near.as_raw_fd(), null, 100) };
        if sent < 0 {
            return; // an older kernel, which knows only files
        }
        let mut bytes = [0; 5];
        (&reader).read_exact(&mut bytes).unwrap();
        assert_eq!((sent, &bytes), (5, b"hello"));
    });
}

/// Also where the kernel supports no vectored write that does not wait (`tests/long/kernels.sh`).
#[test]
fn vectors_are_one_datagram_and_all_of_them_go_into_a_stream() {
    patched(|| {
        let parts = [vec![3_u8; 6000], vec![4_u8; 4000]];
        let vectors = parts.each_ref().map(|part| libc::iovec {
            iov_base: part.as_ptr().cast_mut().cast(),
            iov_len: part.len(),
        });
        let (one, other) = UnixDatagram::pair().unwrap();
        // SAFETY: two vectors of our own.
        let wrote = unsafe { libc::writev(one.as_raw_fd(), vectors.as_ptr(), 2) };
        assert_eq!((wrote, other.recv(&mut [0; 20_000]).unwrap()), (10_000, 10_000));
        // SAFETY: as before; no vector.
        let nothing = unsafe { libc::writev(one.as_raw_fd(), vectors.as_ptr(), 0) };
        assert_eq!(nothing, 0);
        let (mut near, mut far) = UnixStream::pair().unwrap();
        let reader = spawn(move || {
            let mut all = Vec::new();
            far.read_to_end(&mut all).map(|_| all)
        });
        let large = vec![5; 1_000_000];
        let wrote = near.write_vectored(&[io::IoSlice::new(&large), io::IoSlice::new(&large)]);
        assert_eq!(wrote.unwrap(), 2_000_000);
        drop(near);
        assert_eq!(reader.join().unwrap().unwrap().len(), 2_000_000);
    });
}

#[test]
fn no_vectors_and_epolls_in_epolls() {
    patched(|| {
        let (near, _far) = UnixStream::pair().unwrap();
        // SAFETY: messages without any buffer; descriptors that are open.
        unsafe {
            let message: libc::msghdr = zeroed();
            assert_eq!(libc::sendmsg(near.as_raw_fd(), &raw const message, 0), 0);
            let event = OwnedFd::from_raw_fd(libc::eventfd(0, libc::EFD_CLOEXEC));
            let mut top = event.try_clone().unwrap();
            for _ in 0..5 {
                let epoll = OwnedFd::from_raw_fd(libc::epoll_create1(libc::EPOLL_CLOEXEC));
                let mut interest = libc::epoll_event {
                    events: libc::EPOLLIN as u32,
                    u64: 0,
                };
                let added = libc::epoll_ctl(
                    epoll.as_raw_fd(),
                    libc::EPOLL_CTL_ADD,
                    top.as_raw_fd(),
                    &raw mut interest,
                );
                assert_eq!(added, 0);
                std::mem::forget(std::mem::replace(&mut top, epoll));
            }
            spawn(move || {
                sleep(ms(20));
                (&io::PipeWriter::from(event)).write_all(&1_u64.to_ne_bytes()).unwrap();
            });
            let start = Instant::now();
            let mut one = libc::pollfd {
                fd: top.as_raw_fd(),
                events: libc::POLLIN,
                revents: 0,
            };
            assert_eq!(libc::poll(&raw mut one, 1, 60_000), 1);
            assert!(start.elapsed() < ms(30_000));
        }
    });
}

#[test]
fn who_writes_and_wants_to_read_is_told() {
    patched(|| {
        let lock = std::cell::UnsafeCell::new(libc::PTHREAD_RWLOCK_INITIALIZER);
        // SAFETY: a lock of our own.
        unsafe {
            assert_eq!(libc::pthread_rwlock_wrlock(lock.get()), 0);
            assert_eq!(libc::pthread_rwlock_rdlock(lock.get()), libc::EDEADLK);
            assert_eq!(libc::pthread_rwlock_unlock(lock.get()), 0);
        }
    });
}

/// Several accept on copies of one blocking listener, on OS threads of their own: it stays blocking.
#[test]
fn copies_of_a_listener_are_one_open_file() {
    greenthread::monkey::patch_all().unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let accepters: Vec<_> = (0..3)
        .map(|_| {
            let copy = listener.try_clone().unwrap();
            std::thread::spawn(move || greenthread::run(move || (0..300).filter(|_| copy.accept().is_ok()).count()))
        })
        .collect();
    for _ in 0..900 {
        TcpStream::connect(address).unwrap();
    }
    let accepted: Vec<_> = accepters.into_iter().map(|one| one.join().unwrap()).collect();
    assert_eq!(accepted, [300; 3]);
    // SAFETY: asks for flags.
    let flags = unsafe { libc::fcntl(listener.as_raw_fd(), libc::F_GETFL) };
    assert_eq!(flags & libc::O_NONBLOCK, 0);
}
