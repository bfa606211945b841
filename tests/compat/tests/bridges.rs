//! What needs tokio's runtime, beside the hub and around it. (Inside of it, in a patched green thread: see `locks`.)

use std::io::ErrorKind;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Instant;

use async_compat::Compat;
use compat::ms;
use greenthread::future::block_on;
use greenthread::{JoinHandle, hub, sleep, spawn, spawn_local};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// *Beside*: the crate enters tokio's context for each poll; a background thread runs its reactor and its timers.
#[test]
fn compat_beside_futures_of_tokio_are_polled_on_the_hub() {
    std::thread::spawn(|| {
        let listener = greenthread::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        spawn_local(move || {
            for stream in listener.incoming().take(3) {
                spawn_local(move || {
                    sleep(ms(200));
                    std::io::Write::write_all(&mut stream.unwrap(), b"hello").unwrap();
                });
            }
        });
        let start = Instant::now();
        let ticks = spawn(|| (0..10).for_each(|_| sleep(ms(20))));
        let clients: Vec<_> = (0..3)
            .map(|_| {
                spawn_local(move || {
                    block_on(Compat::new(async move {
                        tokio::time::sleep(ms(200)).await;
                        let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
                        let mut text = String::new();
                        stream.read_to_string(&mut text).await.unwrap();
                        tokio::spawn(async move { text }).await.unwrap()
                    }))
                })
            })
            .collect();
        for client in clients {
            assert_eq!(client.join().unwrap(), "hello");
        }
        ticks.join().unwrap();
        let took = start.elapsed();
        assert!(took >= ms(400) && took < ms(1000), "three at once: {took:?}");
        assert!(
            tokio::runtime::Handle::try_current().is_err(),
            "entered for the polls only"
        );
    })
    .join()
    .unwrap();
}

/// Turns this OS thread's hub inside of tokio until `green` has ended.
async fn turn_until<T>(green: JoinHandle<T>) -> T {
    let fd = hub::as_fd().unwrap();
    let fd: OwnedFd = fd.as_fd().try_clone_to_owned().unwrap();
    // SAFETY: it is the same open descriptor until it is dropped.
    let fd = unsafe { AsyncFd::register(fd) }.unwrap();
    loop {
        hub::turn();
        if green.is_finished() {
            return green.join().unwrap();
        }
        let ready = async {
            loop {
                let mut guard = fd.readable().await.unwrap();
                // Only the system knows whether the turn has taken all that there was.
                let look = guard.try_io(|fd| {
                    let ready = poll(&mut [PollFd::new(fd, PollFlags::IN)], Some(&Timespec::default()))?;
                    if ready == 0 {
                        Err(ErrorKind::WouldBlock.into())
                    } else {
                        Ok(())
                    }
                });
                if look.is_ok() {
                    return;
                }
            }
        };
        match hub::next_deadline() {
            Some(at) => drop(tokio::time::timeout_at(at.into(), ready).await),
            None => ready.await,
        }
    }
}

fn inside_tokio<T: Send + 'static>(f: impl FnOnce() -> T + Send + 'static) -> T {
    let (tell, told) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        tell.send(runtime.block_on(async { turn_until(spawn_local(f)).await }))
            .unwrap();
    });
    told.recv_timeout(ms(10_000)).expect("it hangs, or panicked")
}

/// *Around*: the hub lives in a task of tokio's, on its thread.
#[test]
fn compat_around_the_hub_and_tokio_take_turns() {
    let (ticks, green) = inside_tokio(|| {
        let start = Instant::now();
        let listener = greenthread::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        // A task of tokio's on the same thread talks to a green thread, and ticks.
        let task = tokio::spawn(async move {
            let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
            for _ in 0..10 {
                tokio::time::sleep(ms(20)).await;
                stream.write_all(b"tick").await.unwrap();
                stream.read_exact(&mut [0; 4]).await.unwrap();
            }
            start.elapsed()
        });
        let (mut stream, _) = listener.accept().unwrap();
        let echo = spawn_local(move || std::io::copy(&mut stream.try_clone().unwrap(), &mut stream).unwrap());
        (0..10).for_each(|_| sleep(ms(20)));
        let green = start.elapsed();
        assert_eq!(echo.join().unwrap(), 40);
        (block_on(task).unwrap(), green)
    });
    assert!(ticks >= ms(200) && ticks < ms(2000), "{ticks:?}");
    assert!(green >= ms(200) && green < ms(2000), "{green:?}");
}

#[test]
fn compat_around_a_green_thread_awaits_what_tokio_does_on_the_same_thread_and_on_another() {
    let (here, there) = inside_tokio(|| {
        let (send, receive) = tokio::sync::oneshot::channel();
        tokio::spawn(async move {
            tokio::time::sleep(ms(20)).await;
            send.send(7).unwrap();
        });
        let here = block_on(receive).unwrap();
        let (send, receive) = tokio::sync::oneshot::channel();
        std::thread::spawn(move || {
            std::thread::sleep(ms(20));
            send.send(8).unwrap();
        });
        (here, block_on(receive).unwrap())
    });
    assert_eq!((here, there), (7, 8));
}

#[test]
fn compat_around_tasks_of_tokios_await_our_sockets_and_timers() {
    let text = inside_tokio(|| {
        use futures::io::{AsyncReadExt, AsyncWriteExt};
        let listener = greenthread::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let server = tokio::spawn(async move {
            let (mut stream, _) = listener.accept_async().await.unwrap();
            greenthread::time::sleep_async(ms(20)).await;
            tokio::time::sleep(ms(20)).await;
            stream.write_all(b"both").await.unwrap();
            stream.close().await.unwrap();
        });
        let mut stream = greenthread::net::TcpStream::connect(address).unwrap();
        let client = tokio::spawn(async move {
            let mut text = String::new();
            stream.read_to_string(&mut text).await.unwrap();
            text
        });
        block_on(server).unwrap();
        block_on(client).unwrap()
    });
    assert_eq!(text, "both");
}
