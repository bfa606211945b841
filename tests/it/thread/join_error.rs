//! What a join that has no value says: of whom, and why.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use greenthread::{sleep, spawn, spawn_local, thread};

use crate::support::fresh::{fresh, secs, virtually};

#[test]
fn it_names_the_green_thread_and_the_place_of_its_spawn() {
    fresh(|| {
        let worker = thread::Builder::new().name("worker").spawn(|| panic!("x")).unwrap();
        let (id, place) = (worker.thread().id().as_u64(), worker.spawned_at());
        let error = worker.join().unwrap_err();
        let expected = format!("green thread #{id} 'worker' (spawned at {place}) panicked: x");
        assert_eq!(error.to_string(), expected);
        assert_eq!(format!("{error:?}"), format!("JoinError({expected})"));
        assert!(place.file() == file!());

        let unnamed = spawn(thread::park);
        let (id, place) = (unnamed.thread().id().as_u64(), unnamed.spawned_at());
        unnamed.kill();
        let error = unnamed.join().unwrap_err();
        assert_eq!(
            error.to_string(),
            format!("green thread #{id} (spawned at {place}) was killed")
        );
        // and what is handed back still does
        assert!(
            error
                .try_into_panic()
                .unwrap_err()
                .to_string()
                .contains(&format!("#{id} "))
        );
    });
}

#[test]
fn an_exit_link_is_told_of_whom() {
    fresh(|| {
        let (send, receive) = std::sync::mpsc::channel();
        let bad = thread::Builder::new().name("bad").spawn(|| panic!("x")).unwrap();
        bad.on_exit(move |how| send.send(how.unwrap_err().to_string()).unwrap());
        assert!(bad.join().is_err());
        greenthread::hub::idle();
        assert!(receive.try_recv().unwrap().contains(" 'bad' (spawned at "));
    });
}

#[test]
fn a_join_in_a_destructor_of_one_that_unwinds_does_not_wait() {
    struct Joins(Option<greenthread::JoinHandle<u8>>, Arc<AtomicBool>);
    impl Drop for Joins {
        fn drop(&mut self) {
            let error = self.0.take().unwrap().join().unwrap_err();
            assert!(!error.is_taken() && !error.is_lost() && !error.is_killed() && !error.is_panic());
            self.1.store(error.is_interrupted(), Ordering::SeqCst);
        }
    }
    virtually(|| {
        let saw = Arc::new(AtomicBool::new(false));
        let theirs = saw.clone();
        let ended = Arc::new(AtomicBool::new(false));
        let late = ended.clone();
        let unwinds = spawn_local(move || {
            let _joins = Joins(
                Some(spawn(move || {
                    sleep(secs(5));
                    late.store(true, Ordering::SeqCst);
                    1
                })),
                theirs,
            );
            panic!("unwind");
        });
        assert!(unwinds.join().unwrap_err().is_panic());
        assert!(saw.load(Ordering::SeqCst));
        assert!(!ended.load(Ordering::SeqCst));
        sleep(secs(10));
        assert!(ended.load(Ordering::SeqCst), "detached, and not killed");
    });
}
