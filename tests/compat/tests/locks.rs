//! Crates that lock, queue, park, or carry a runtime of their own.

use std::sync::Arc;

use compat::{at_once, ms, patched};
use greenthread::spawn;

#[test]
fn parking_lot() {
    patched(|| {
        let lock = Arc::new(parking_lot::Mutex::new(0));
        let theirs = lock.clone();
        at_once(ms(40), move |_| {
            let mut value = theirs.lock();
            std::thread::sleep(ms(2));
            *value += 1;
        });
        assert_eq!(*lock.lock(), 20);
        let shared = Arc::new(parking_lot::RwLock::new(7));
        at_once(ms(20), move |_| {
            let value = shared.read();
            std::thread::sleep(ms(20));
            assert_eq!(*value, 7);
        });
        let pair = Arc::new((parking_lot::Mutex::new(false), parking_lot::Condvar::new()));
        let theirs = pair.clone();
        let setter = spawn(move || {
            std::thread::sleep(ms(20));
            *theirs.0.lock() = true;
            theirs.1.notify_all();
        });
        at_once(ms(15), move |_| {
            let mut set = pair.0.lock();
            while !*set {
                pair.1.wait(&mut set);
            }
        });
        setter.join().unwrap();
    });
}

#[test]
fn crossbeam_channel() {
    patched(|| {
        let (sender, receiver) = crossbeam_channel::bounded(2);
        let (done, dones) = crossbeam_channel::bounded(0);
        let receivers: Vec<_> = (0..4)
            .map(|_| {
                let (receiver, done) = (receiver.clone(), done.clone());
                spawn(move || {
                    let sum: u32 = receiver.iter().sum();
                    done.send(sum).unwrap();
                })
            })
            .collect();
        let senders: Vec<_> = (0..4)
            .map(|_| {
                let sender = sender.clone();
                spawn(move || (0..100).for_each(|n| sender.send(n).unwrap()))
            })
            .collect();
        drop((sender, done));
        let total: u32 = dones.iter().sum();
        assert_eq!(total, 4 * 4950);
        for handle in receivers.into_iter().chain(senders) {
            handle.join().unwrap();
        }
        at_once(ms(30), |_| {
            let (_keep, never) = crossbeam_channel::bounded::<()>(0);
            crossbeam_channel::select! {
                recv(never) -> _ => unreachable!("nobody sends"),
                recv(crossbeam_channel::after(ms(30))) -> _ => {}
            }
        });
    });
}

#[test]
fn a_whole_tokio_runtime_in_each() {
    patched(|| {
        at_once(ms(50), |n| {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap();
            runtime.block_on(async move {
                let other = tokio::spawn(async move {
                    tokio::time::sleep(ms(50)).await;
                    n
                });
                assert_eq!(other.await.unwrap(), n);
            });
        });
    });
}

#[test]
fn futures_block_on() {
    patched(|| {
        at_once(ms(30), |n| {
            let (sender, receiver) = futures::channel::oneshot::channel();
            let other = spawn(move || {
                std::thread::sleep(ms(30));
                sender.send(n).unwrap();
            });
            assert_eq!(futures::executor::block_on(receiver).unwrap(), n);
            other.join().unwrap();
        });
    });
}
