//! Traps of stacks among foreign code, those that no other test walks into; README.md says where each of the others is.

use std::sync::mpsc;
use std::time::Instant;

use compat::{ms, patched};
use greenthread::future::block_on;
use greenthread::thread::JoinError;
use greenthread::{JoinHandle, sleep, spawn, spawn_local};

/// Kills a green thread that waits in `f`, whose error it gives; it was told so, and did not unwind there.
fn killed_in<E: Send + 'static>(f: impl FnOnce() -> E + Send + 'static) -> E {
    let (tell, told) = mpsc::channel();
    let victim: JoinHandle<()> = spawn(move || {
        tell.send(f()).unwrap();
        // The next wait of ours unwinds.
        sleep(ms(3_600_000));
    });
    sleep(ms(100));
    assert!(!victim.is_finished());
    victim.kill();
    let killed = victim.join().as_ref().is_err_and(JoinError::is_killed);
    assert!(killed, "it goes on after its kill");
    told.recv().unwrap()
}

/// TRAP-1: a stack that is parked in a patched call belongs to code that cannot unwind. The call fails, and the crate
/// says so.
#[test]
fn compat_trap_kill_inside_unmodified_clients_is_an_error_of_theirs() {
    let server = compat::redis();
    let url = format!("redis://127.0.0.1:{}/", server.port);
    patched(move || {
        let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = silent.local_addr().unwrap();
        let error = killed_in(move || ureq::get(format!("http://{address}/")).call().unwrap_err());
        let ureq::Error::Io(error) = error else {
            panic!("{error}")
        };
        assert_eq!(error.raw_os_error(), Some(libc::ECANCELED));
        let client = redis::Client::open(url).unwrap();
        let error = killed_in(move || {
            let mut connection = client.get_connection().unwrap();
            let mut wait = redis::cmd("BLPOP");
            wait.arg("empty").arg(0).query::<()>(&mut connection).unwrap_err()
        });
        assert!(error.is_io_error(), "{error}");
    });
    drop(server);
}

/// TRAP-3: guards of a runtime's context, held over a wait, nest on each green thread, for each has its own
/// thread-locals.
#[test]
fn compat_trap_guards_of_tokios_context_are_held_over_waits() {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap();
    let handle = runtime.handle().clone();
    patched(move || {
        let greens: Vec<_> = (0..3)
            .map(|n| {
                let handle = handle.clone();
                spawn(move || {
                    let _guard = handle.enter();
                    // The first to enter is the first to leave.
                    sleep(ms(10 + 10 * n));
                    std::thread::sleep(ms(10));
                    block_on(tokio::spawn(tokio::time::sleep(ms(1)))).unwrap();
                })
            })
            .collect();
        sleep(ms(5));
        assert!(
            tokio::runtime::Handle::try_current().is_err(),
            "theirs does not show here"
        );
        greens.into_iter().for_each(|green| green.join().unwrap());
    });
}

/// TRAP-3 too: a poll under `async-compat` that sleeps, which is the entered context's and parks all the same.
#[test]
fn compat_trap_polls_beside_that_block_overlap() {
    patched(|| {
        let start = Instant::now();
        let greens: Vec<_> = (0..3)
            .map(|n| {
                spawn(move || {
                    block_on(async_compat::Compat::new(async move {
                        for _ in 0..3 {
                            std::thread::sleep(ms(30 + n));
                            tokio::time::sleep(ms(1)).await;
                        }
                    }));
                })
            })
            .collect();
        greens.into_iter().for_each(|green| green.join().unwrap());
        let took = start.elapsed();
        assert!(took >= ms(90) && took < ms(270), "three at once: {took:?}");
    });
}

/// TRAP-3, where thread-locals are shared: in `spawn_local` the context shows. So there nothing blocks while it is
/// entered.
#[test]
fn compat_trap_tokios_context_shows_among_local_green_threads() {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let handle = runtime.handle().clone();
    std::thread::spawn(move || {
        let entered = || tokio::runtime::Handle::try_current().is_ok();
        let holds = spawn_local(move || {
            let _guard = handle.enter();
            sleep(ms(20));
        });
        let seen = [spawn_local(entered), spawn(entered)].map(|green| green.join().unwrap());
        assert_eq!(seen, [true, false]);
        holds.join().unwrap();
    })
    .join()
    .unwrap();
}
