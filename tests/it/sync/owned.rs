//! Guards that own their lock: where they may go, what a panic does, and what is left when they are dropped.

use std::cell::Cell;
use std::future::Future;
use std::mem::size_of;
use std::sync::{Arc, TryLockError};
use std::task::{Context, Poll, Waker};

use greenthread::sync::{
    Mutex, MutexGuard, OwnedMutexGuard, OwnedRwLockReadGuard, OwnedRwLockWriteGuard, RwLock, RwLockReadGuard,
    RwLockWriteGuard,
};
use greenthread::{future, spawn, timeout, yield_now};

use crate::support::fresh::{fresh, ms};

#[test]
fn an_owned_guard_unlocks_wherever_it_is_dropped() {
    fresh(|| {
        let mutex = Arc::new(Mutex::new(vec![1]));
        let mut held = mutex.lock_owned().unwrap();
        assert!(matches!(mutex.try_lock_owned(), Err(TryLockError::WouldBlock)));
        assert!(matches!(mutex.lock_owned_timeout(ms(1)), Err(TryLockError::WouldBlock)));
        let waits = spawn({
            let mutex = mutex.clone();
            move || mutex.lock_owned().unwrap().len()
        });
        yield_now();
        std::thread::spawn(move || held.push(2)).join().unwrap();
        assert_eq!(waits.join().unwrap(), 2);

        let lock = Arc::new(RwLock::new(0));
        let readers = [lock.read_owned().unwrap(), lock.try_read_owned().unwrap()];
        assert!(lock.try_write_owned().is_err() && lock.write_owned_timeout(ms(1)).is_err());
        let writes = spawn({
            let lock = lock.clone();
            move || *lock.write_owned().unwrap() += 1
        });
        yield_now();
        assert!(lock.try_read_owned().is_err(), "a writer waits");
        for reader in readers {
            std::thread::spawn(move || drop(reader)).join().unwrap();
        }
        writes.join().unwrap();
        assert_eq!(*lock.read_owned_timeout(ms(1)).unwrap(), 1);
    });
}

#[test]
fn a_panic_under_an_owned_guard_poisons_and_a_kill_does_not() {
    fresh(|| {
        let (mutex, lock) = (Arc::new(Mutex::new(0)), Arc::new(RwLock::new(0)));
        for panics in [false, true] {
            let (held, writes) = (mutex.lock_owned().unwrap(), lock.write_owned().unwrap());
            let holder = spawn(move || {
                let _both = (held, writes);
                assert!(!panics, "poisons");
                greenthread::thread::park();
            });
            yield_now();
            holder.kill();
            assert!(holder.join().is_err());
            assert_eq!((mutex.is_poisoned(), lock.is_poisoned()), (panics, panics));
        }
        assert!(matches!(mutex.try_lock_owned(), Err(TryLockError::Poisoned(_))));
        assert!(mutex.lock_owned().is_err() && lock.read_owned().is_err() && lock.write_owned().is_err());
        lock.clear_poison();
        let reads = lock.read_owned().unwrap();
        assert!(spawn(move || assert_eq!(*reads, 1)).join().is_err());
        assert!(!lock.is_poisoned(), "a reader does not");
    });
}

#[test]
fn the_last_owner_drops_the_value_after_the_unlock() {
    struct Value(Arc<Mutex<u32>>);
    impl Drop for Value {
        fn drop(&mut self) {
            *self.0.lock().unwrap() += 1;
        }
    }
    fresh(|| {
        let drops = Arc::new(Mutex::new(0));
        let mutex = Arc::new(Mutex::new(Value(drops.clone())));
        let held = mutex.lock_owned().unwrap();
        assert!(Arc::ptr_eq(OwnedMutexGuard::mutex(&held), &mutex));
        drop(mutex);
        assert_eq!(*drops.lock().unwrap(), 0);
        drop(held);
        assert_eq!(*drops.lock().unwrap(), 1);
        let lock = Arc::new(RwLock::new(Value(drops.clone())));
        let reads = lock.read_owned().unwrap();
        assert!(Arc::ptr_eq(OwnedRwLockReadGuard::rwlock(&reads), &lock));
        drop(lock);
        drop(reads);
        assert_eq!(*drops.lock().unwrap(), 2);
    });
}

#[test]
fn a_future_of_an_owned_guard_needs_no_borrow_and_passes_on_what_it_was_handed() {
    fresh(|| {
        let mutex = Arc::new(Mutex::new(1));
        let task = future::spawn(mutex.lock_owned_async());
        let value = future::block_on(async { *task.await.unwrap().unwrap() });
        assert_eq!(value, 1);
        let (held, mut context) = (mutex.lock_owned().unwrap(), Context::from_waker(Waker::noop()));
        let mut waits = [(); 2].map(|()| Box::pin(mutex.lock_owned_async()));
        assert!(
            waits
                .iter_mut()
                .all(|wait| wait.as_mut().poll(&mut context).is_pending())
        );
        drop(held);
        let [first, mut second] = waits;
        drop(first);
        assert!(matches!(second.as_mut().poll(&mut context), Poll::Ready(Ok(_))));
        let lock = Arc::new(RwLock::new(1));
        let (reads, writes) = (lock.read_owned_async(), lock.write_owned_async());
        assert_eq!(*future::block_on(reads).unwrap(), 1);
        *future::block_on(writes).unwrap() += 1;
        let held = lock.write_owned().unwrap();
        assert!(timeout(ms(1), || drop(lock.read_owned())).is_err());
        assert_eq!((*held, OwnedRwLockWriteGuard::rwlock(&held).is_poisoned()), (2, false));
    });
}

#[test]
fn guards_are_as_small_and_as_free_to_go_as_they_can_be() {
    fn is<T: Send + Sync + 'static>() {}
    fn sends<T: Send + 'static>() {}
    is::<OwnedMutexGuard<u8>>();
    is::<(OwnedRwLockReadGuard<u8>, OwnedRwLockWriteGuard<u8>)>();
    sends::<OwnedMutexGuard<Cell<u8>>>();
    let word = size_of::<usize>();
    assert_eq!(size_of::<MutexGuard<'_, u8>>(), 2 * word);
    assert_eq!(size_of::<RwLockReadGuard<'_, u8>>(), word);
    assert_eq!(size_of::<RwLockWriteGuard<'_, u8>>(), 2 * word);
    assert_eq!(size_of::<OwnedRwLockReadGuard<u8>>(), word);
    // What is not sized may be locked as well.
    let mutex: Arc<Mutex<dyn Fn() -> u8 + Send>> = Arc::new(Mutex::new(|| 7));
    assert_eq!((mutex.lock_owned().unwrap())(), 7);
}
