//! A socket that was polled on a hub with a waker of the user's is dropped on another OS thread. The waker's
//! destructor, which is code of the user's, may panic or wait: neither aborts the process or hangs it.
#![forbid(unsafe_code)]

use std::pin::pin;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Wake, Waker};

use cases::{ms, scenarios};
use greenthread::io::Async;
use greenthread::sleep;
use greenthread::sync::channel;

static DROPS: AtomicUsize = AtomicUsize::new(0);

struct Dropped(fn());

impl Wake for Dropped {
    fn wake(self: Arc<Self>) {}
}

impl Drop for Dropped {
    fn drop(&mut self) {
        DROPS.fetch_add(1, Ordering::SeqCst);
        (self.0)();
    }
}

fn with(as_it_is_dropped: fn()) {
    let (near, _far) = std::os::unix::net::UnixStream::pair().unwrap();
    let socket = Async::new(near).unwrap();
    {
        let waker = Waker::from(Arc::new(Dropped(as_it_is_dropped)));
        let polled = pin!(&socket);
        assert!(matches!(
            polled.poll_readable(&mut Context::from_waker(&waker)),
            Poll::Pending
        ));
    }
    let (sender, receiver) = channel::unbounded();
    std::thread::spawn(move || {
        std::thread::sleep(ms(50));
        drop(socket); // on an OS thread without a hub
        std::thread::sleep(ms(50));
        sender.send(1).unwrap();
    });
    assert_eq!(receiver.recv(), Ok(1));
    // The hub of this thread drops what was registered with it, at the latest when it looks at its messages.
    for _ in 0..100 {
        if DROPS.load(Ordering::SeqCst) > 0 {
            break;
        }
        sleep(ms(10));
    }
    assert_eq!(DROPS.load(Ordering::SeqCst), 1);
}

fn main() -> ExitCode {
    scenarios::main(&[
        ("nothing", || with(|| ())),
        ("panics", || with(|| panic!("a waker's drop panics"))),
        ("waits", || with(|| sleep(ms(20)))),
    ])
}
