//! One of several green threads that is killed, or timed out, at each turn.

use std::rc::Rc;

use greenthread::{JoinHandle, sleep, spawn_local, timeout, yield_now};

use crate::support::fresh::ms;

pub(crate) fn join_all<T>(handles: Vec<JoinHandle<T>>) -> Vec<T> {
    handles.into_iter().map(|handle| handle.join().unwrap()).collect()
}

/// Runs `worker` in five green threads, and kills one of them, or lets its time run out, after `k` turns, for each `k`;
/// then `check` looks at what is left.
pub(crate) fn at_every_turn<S: 'static>(
    make: impl Fn() -> S,
    worker: impl Fn(usize, &S) + 'static,
    check: impl Fn(&S),
) {
    let worker = Rc::new(worker);
    for k in 0..40 {
        for timed in [false, true] {
            let shared = Rc::new(make());
            let start = |n: usize| {
                let (shared, worker) = (shared.clone(), worker.clone());
                spawn_local(move || {
                    if timed && n == 2 {
                        let _ = timeout(ms(k), || worker(n, &shared));
                    } else {
                        worker(n, &shared);
                    }
                })
            };
            let mut all: Vec<_> = (0..5).map(start).collect();
            if timed {
                sleep(ms(k));
            } else {
                (0..k).for_each(|_| yield_now());
                all[2].kill();
            }
            let victim = all.remove(2);
            join_all(all);
            let _ = victim.join();
            check(&shared);
        }
    }
}
