//! The loop: callbacks, timers, stop, other OS threads, descriptors, signals, debug mode.

use std::io::{Read, Write};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use greenthread::aio::{self, EventLoop, ExceptionContext, TaskError};
use greenthread::net::UnixStream;
use greenthread::{signal, sleep, thread, time};

use crate::support::fresh::{fresh, ms, secs, text, virtually};

/// What callbacks have left, in order.
#[derive(Clone, Default)]
struct Notes(Arc<Mutex<Vec<String>>>);

impl Notes {
    fn put(&self, note: &str) -> impl FnOnce() + Send + 'static {
        let (notes, note) = (self.0.clone(), note.to_owned());
        move || notes.lock().unwrap().push(note)
    }

    fn take(&self) -> Vec<String> {
        std::mem::take(&mut *self.0.lock().unwrap())
    }

    /// Puts down what a loop's handler is told.
    fn hear(&self, event_loop: &EventLoop) {
        let notes = self.0.clone();
        let hear = move |context: &ExceptionContext| notes.lock().unwrap().push(context.to_string());
        event_loop.set_exception_handler(Some(hear));
    }
}

fn stop(event_loop: &EventLoop) -> impl FnOnce() + Send + 'static {
    let event_loop = event_loop.clone();
    move || event_loop.stop()
}

#[test]
fn callbacks_come_in_order_and_timers_by_their_time() {
    virtually(|| {
        let (event_loop, notes) = (EventLoop::new(), Notes::default());
        let start = event_loop.time();
        event_loop.call_later(secs(2), notes.put("two"));
        event_loop.call_later(secs(1), notes.put("one"));
        event_loop.call_at(start + secs(1), notes.put("one more"));
        event_loop.call_soon(notes.put("soon"));
        event_loop.call_soon(notes.put("never")).cancel();
        let handle = event_loop.call_later(secs(1), notes.put("never"));
        assert_eq!(handle.when(), Some(start + secs(1)));
        handle.cancel();
        assert!(format!("{handle:?}").starts_with("<Handle cancelled created at tests/it/aio/event_loop.rs:"));
        event_loop.call_soon(notes.put("then"));
        event_loop.call_later(secs(3), stop(&event_loop));
        assert!(!event_loop.is_running());
        event_loop.run_forever();
        assert_eq!(notes.take(), ["soon", "then", "one", "one more", "two"]);
        assert_eq!(event_loop.time() - start, secs(3));
    });
}

#[test]
fn what_a_callback_asks_for_comes_in_a_later_turn() {
    virtually(|| {
        let (event_loop, notes) = (EventLoop::new(), Notes::default());
        let (inner, put, late) = (event_loop.clone(), notes.put("outer"), notes.put("inner"));
        event_loop.call_soon(move || {
            put();
            assert!(inner.is_running() && aio::get_running_loop().unwrap() == inner);
            inner.call_soon(late);
        });
        event_loop.call_soon(notes.put("other"));
        event_loop.call_later(ms(1), stop(&event_loop));
        event_loop.run_forever();
        assert_eq!(notes.take(), ["outer", "other", "inner"]);
    });
}

#[test]
fn a_loop_runs_again_and_keeps_what_was_not_done() {
    virtually(|| {
        let event_loop = EventLoop::new();
        let task = event_loop.create_task(aio::green(|| {
            sleep(secs(2));
            7
        }));
        event_loop.call_later(secs(1), stop(&event_loop));
        let stopped = event_loop.run_until_complete(task.clone());
        assert!(matches!(stopped, Err(TaskError::Stopped)));
        assert!(!task.done() && task.cancelling() == 0);
        assert_eq!(event_loop.run_until_complete(task).unwrap(), 7);
    });
}

#[test]
fn one_that_was_stopped_before_makes_one_turn() {
    virtually(|| {
        let (event_loop, notes) = (EventLoop::new(), Notes::default());
        event_loop.stop();
        event_loop.call_soon(notes.put("in the one turn"));
        event_loop.run_forever();
        assert_eq!(notes.take(), ["in the one turn"]);
        event_loop.call_soon(stop(&event_loop));
        event_loop.run_forever();
    });
}

#[test]
fn misuse_is_told() {
    virtually(|| {
        let said = |f: fn()| text(&*std::panic::catch_unwind(f).unwrap_err());
        let closed = said(|| {
            let event_loop = EventLoop::new();
            event_loop.close();
            event_loop.call_soon(|| ());
        });
        assert_eq!(closed, "the event loop is closed");
        let elsewhere = said(|| {
            let event_loop = aio::new_event_loop();
            aio::set_event_loop(&event_loop);
            let result = std::thread::spawn(move || event_loop.run_forever()).join();
            std::panic::resume_unwind(result.unwrap_err())
        });
        assert_eq!(elsewhere, "the event loop is another OS thread's");
        assert!(matches!(aio::get_running_loop(), Err(TaskError::NoRunningLoop)));
    });
}

#[test]
fn a_loop_in_another_os_thread_takes_calls_before_and_while_it_runs() {
    let (event_loop, notes) = (aio::new_event_loop(), Notes::default());
    event_loop.call_soon_threadsafe(notes.put("early"));
    let theirs = event_loop.clone();
    let runs = std::thread::spawn(move || {
        aio::set_event_loop(&theirs);
        theirs.run_forever();
    });
    let (told, hears) = std::sync::mpsc::channel();
    event_loop.call_soon_threadsafe(notes.put("never")).cancel();
    event_loop.call_soon_threadsafe(notes.put("while it runs"));
    event_loop.call_soon_threadsafe(move || told.send(()).unwrap());
    hears.recv().unwrap();
    assert!(event_loop.is_running());
    let start = Instant::now();
    event_loop.stop();
    runs.join().unwrap();
    assert!(start.elapsed() < ms(100), "{:?}", start.elapsed());
    assert!(!event_loop.is_running());
    assert_eq!(notes.take(), ["early", "while it runs"]);
}

#[test]
fn four_loops_sleep_at_the_same_time() {
    let start = Instant::now();
    let threads: Vec<_> = (0..4)
        .map(|_| std::thread::spawn(|| aio::run(async { aio::sleep(secs(1)).await }).unwrap()))
        .collect();
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    let took = start.elapsed();
    assert!(took >= secs(1) && took < ms(2500), "{took:?}");
}

#[test]
fn the_error_of_a_servers_callback_is_told() {
    fresh(|| {
        let (event_loop, notes) = (EventLoop::new(), Notes::default());
        notes.hear(&event_loop);
        let serve = async {
            let server = aio::start_server("127.0.0.1:0", |_, _, _| Err::<(), _>("no milk")).unwrap();
            server.start().unwrap();
            let (mut reader, _writer) = aio::open_connection(server.local_addr().unwrap()).unwrap();
            assert_eq!(reader.read(&mut [0]).unwrap(), 0);
            server.stop(secs(1));
        };
        event_loop.run_until_complete(serve).unwrap();
        assert_eq!(
            notes.take(),
            ["unhandled exception in a connection's callback: no milk"]
        );
    });
}

#[test]
fn a_callback_that_panics_is_told_and_the_loop_goes_on() {
    virtually(|| {
        let (event_loop, notes) = (EventLoop::new(), Notes::default());
        notes.hear(&event_loop);
        event_loop.call_soon(|| panic!("boom"));
        event_loop.call_soon(stop(&event_loop));
        event_loop.run_forever();
        let told = notes.take();
        assert!(
            told[0].starts_with("exception in callback <Handle created at tests/it/aio/event_loop.rs:"),
            "{told:?}"
        );
        assert!(told[0].ends_with("panicked: boom") && told.len() == 1);
        event_loop.set_exception_handler(Some(|_: &ExceptionContext| panic!("the handler too")));
        event_loop.call_soon(|| panic!("boom"));
        event_loop.call_soon(stop(&event_loop));
        event_loop.run_forever();
    });
}

#[test]
fn in_debug_mode_what_is_slow_is_told() {
    fresh(|| {
        let (event_loop, notes) = (EventLoop::new(), Notes::default());
        notes.hear(&event_loop);
        assert_eq!(event_loop.slow_callback_duration(), ms(100));
        event_loop.call_soon(|| std::thread::sleep(ms(110)));
        event_loop
            .run_until_complete(async { std::thread::sleep(ms(110)) })
            .unwrap();
        assert!(notes.take().is_empty(), "not in debug mode");
        event_loop.set_debug(true);
        event_loop.call_soon(|| std::thread::sleep(ms(110)));
        event_loop.call_soon(|| ());
        let hog = async {
            aio::sleep(ms(200)).await; // others may be slow: this is no hog
            std::thread::sleep(ms(110));
        };
        event_loop.run_until_complete(hog).unwrap();
        let told = notes.take();
        assert_eq!(told.len(), 2, "{told:?}");
        assert!(told[0].starts_with("executing <Handle created at tests/it/aio/event_loop.rs:"));
        assert!(told[1].starts_with("executing <Task pending name='Task-") && told[1].contains("took 0.1"));
        event_loop.set_debug(false);
    });
}

#[test]
fn in_debug_mode_slow_turns_of_green_threads_are_told_too() {
    fresh(|| {
        let (event_loop, notes) = (EventLoop::new(), Notes::default());
        notes.hear(&event_loop);
        event_loop.set_debug(true); // before there is a hub
        let hog = aio::green(|| {
            sleep(ms(120)); // others may be slow: this is no hog
            std::thread::sleep(ms(110));
            thread::yield_now();
            std::thread::sleep(ms(110));
            sleep(ms(1));
            let other = thread::spawn(|| std::thread::sleep(ms(110)));
            other.join().unwrap();
        });
        let task = event_loop.create_task(hog);
        task.set_name("hog");
        event_loop.run_until_complete(task).unwrap();
        let told = notes.take();
        assert_eq!(told.len(), 3, "{told:?}");
        for (told, who) in told.iter().zip([" 'Task-", " 'Task-", " "]) {
            assert!(told.starts_with("executing green thread #"), "{told}");
            assert!(told.contains(who) && told.contains("took 0.1"), "{told}");
        }
        event_loop.set_debug(false);
        event_loop
            .run_until_complete(aio::green(|| std::thread::sleep(ms(110))))
            .unwrap();
        assert!(notes.take().is_empty(), "not in debug mode");
    });
}

#[test]
fn a_descriptor_is_watched_until_that_is_cancelled() {
    fresh(|| {
        let event_loop = EventLoop::new();
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let (mut reader, notes, stopper) = (ours.try_clone().unwrap(), seen.clone(), event_loop.clone());
        let watch = event_loop.add_reader(&ours, move || {
            let mut byte = [0]; // one at a time: it is called again for the rest
            reader.read_exact(&mut byte).unwrap();
            notes.lock().unwrap().push(byte[0]);
            if byte == *b"c" {
                stopper.stop();
            }
        });
        let written = Arc::new(AtomicU32::new(0));
        let count = written.clone();
        let writes = event_loop.add_writer(&ours, move || {
            count.fetch_add(1, Ordering::Relaxed);
        });
        theirs.write_all(b"abc").unwrap();
        event_loop.run_forever();
        assert_eq!(*seen.lock().unwrap(), b"abc");
        assert!(written.load(Ordering::Relaxed) > 1);
        watch.unwrap().cancel();
        writes.unwrap().cancel();
        theirs.write_all(b"d").unwrap();
        sleep(ms(5));
        assert_eq!(*seen.lock().unwrap(), b"abc");
    });
}

#[test]
fn a_signal_calls_its_handler_on_the_loop() {
    fresh(|| {
        let event_loop = EventLoop::new();
        let stopper = event_loop.clone();
        let _handler = event_loop
            .add_signal_handler(signal::SIGWINCH, move || stopper.stop())
            .unwrap();
        event_loop.call_soon(|| signal_hook::low_level::raise(signal::SIGWINCH).unwrap());
        event_loop.run_forever();
    });
}

#[test]
fn a_stop_at_each_moment_is_never_lost() {
    for k in 0..6 {
        virtually(move || {
            let event_loop = EventLoop::new();
            let stopper = event_loop.clone();
            thread::spawn(move || {
                for _ in 0..k {
                    thread::yield_now();
                }
                stopper.stop();
            });
            let start = time::now();
            let result = event_loop.run_until_complete(aio::green(thread::park));
            assert!(matches!(result, Err(TaskError::Stopped)));
            assert_eq!(time::now(), start);
        });
    }
}
