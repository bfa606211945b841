//! A job has been handed to an idle pool thread that gets the processor late (here: another process holds it for 600
//! ms, as a quota, a debugger or a loaded machine would). A green thread that waits for what the job will send is not
//! told that nothing can ever come.

use std::io::{PipeReader, PipeWriter, Read, Write};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;

use cases::{Verdict, ms, os};
use greenthread::{hub, sync::channel, threadpool};

const TIMES: i32 = 2;

fn main() -> ExitCode {
    // No other OS thread but the pool's: any might be the one that sends.
    std::panic::set_hook(Box::new(|_| ()));
    let (orders, mut order) = std::io::pipe().unwrap();
    let (mut answer, answers) = std::io::pipe().unwrap();
    let holder = os::fork(|| hold(orders, answers));
    // SAFETY: no pointers: other processes may hold this one's threads.
    unsafe { libc::prctl(libc::PR_SET_PTRACER, libc::PR_SET_PTRACER_ANY) };
    let pool_thread = threadpool::to_thread(os::thread_id).wait().unwrap();
    let mut false_alarms = 0;
    for number in 0..TIMES {
        os::sleep(ms(50)); // the pool thread is idle from here on
        order.write_all(&pool_thread.to_ne_bytes()).unwrap();
        let mut held = [0];
        answer.read_exact(&mut held).unwrap();
        assert_eq!(held, [1], "cannot hold a thread here");
        let (sender, receiver) = channel::unbounded();
        let job = threadpool::to_thread(move || sender.send(number).unwrap());
        match catch_unwind(AssertUnwindSafe(|| receiver.recv())) {
            Ok(got) => assert_eq!(got, Ok(number)),
            Err(panic) => {
                assert!(panic.is::<hub::LoopExit>());
                false_alarms += 1;
                assert_eq!(receiver.recv_timeout(ms(5000)), Ok(number));
            }
        }
        drop(job);
    }
    os::end_child(holder);
    let mut verdict = Verdict::default();
    verdict.holds(
        false_alarms == 0,
        format_args!("{false_alarms} false alarms of {TIMES}"),
    );
    verdict.end()
}

/// Takes the number of a thread, holds it, answers, and lets it go after 600 ms.
fn hold(mut orders: PipeReader, mut answers: PipeWriter) -> i32 {
    let mut number = [0; 4];
    while orders.read_exact(&mut number).is_ok() {
        let thread = i32::from_ne_bytes(number);
        // SAFETY: no pointers but to a number; a thread that is not there is an error.
        let held = unsafe {
            let seized = libc::ptrace(libc::PTRACE_SEIZE, thread, 0, 0);
            let stopped = libc::ptrace(libc::PTRACE_INTERRUPT, thread, 0, 0);
            let mut status = 0;
            libc::waitpid(thread, &raw mut status, libc::__WALL);
            seized == 0 && stopped == 0
        };
        let _ = answers.write_all(&[u8::from(held)]);
        os::sleep(ms(600));
        // SAFETY: no pointers.
        unsafe { libc::ptrace(libc::PTRACE_DETACH, thread, 0, 0) };
    }
    0
}
