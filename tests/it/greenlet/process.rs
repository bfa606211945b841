//! Greenlets and generators at the end of the process. (greenlet's `test_interpreter_shutdown`.)
//! Each test runs itself again in a child process, and judges that by its exit code.

use std::process::{Command, Output};

use greenthread::generator::Generator;
use greenthread::greenlet::{self, Greenlet};

use crate::support::child::test_name;

const CHILD: &str = "GREENLET_PROCESS_CHILD";

/// In the child: `None`. In the parent: what became of the child that ran the test `name`.
fn child(name: &str) -> Option<Output> {
    if std::env::var_os(CHILD).is_some() {
        return None;
    }
    let output = Command::new(std::env::current_exe().unwrap())
        .args([
            &*test_name(module_path!(), name),
            "--exact",
            "--nocapture",
            "--test-threads=1",
        ])
        .env(CHILD, "1")
        .output()
        .unwrap();
    Some(output)
}

fn suspended(depth: u32) -> Greenlet<u32> {
    let main = greenlet::current::<u32>();
    let g = Greenlet::new(move |n| {
        let _inner = (depth > 0).then(|| suspended(depth - 1));
        let _guard = std::sync::Mutex::new(());
        main.switch(n)
    });
    g.switch(0);
    g
}

fn code(output: &Output) -> Option<i32> {
    if output.status.code().is_none() {
        eprintln!("{}", String::from_utf8_lossy(&output.stderr));
    }
    output.status.code()
}

#[test]
fn exit_with_suspended_ones_keeps_the_exit_code() {
    let Some(output) = child("exit_with_suspended_ones_keeps_the_exit_code") else {
        let _many: Vec<_> = (0..100).map(suspended_flat).collect();
        let mut generator = Generator::<u32>::new(|y| y.yield_all(0..9));
        generator.next();
        std::process::exit(7);
    };
    assert_eq!(code(&output), Some(7));
}

fn suspended_flat(_: u32) -> Greenlet<u32> {
    suspended(0)
}

#[test]
fn exit_with_nested_ones_keeps_the_exit_code() {
    let Some(output) = child("exit_with_nested_ones_keeps_the_exit_code") else {
        let _nested = suspended(1);
        std::process::exit(8);
    };
    assert_eq!(code(&output), Some(8));
}

#[test]
fn exit_from_inside_a_greenlet_keeps_the_exit_code() {
    let Some(output) = child("exit_from_inside_a_greenlet_keeps_the_exit_code") else {
        let _other = suspended(0);
        Greenlet::new(|_: u32| std::process::exit(9)).switch(0);
        unreachable!()
    };
    assert_eq!(code(&output), Some(9));
}

#[test]
fn ones_forgotten_by_an_ending_thread_do_no_harm() {
    let Some(output) = child("ones_forgotten_by_an_ending_thread_do_no_harm") else {
        std::thread::spawn(|| std::mem::forget(suspended(1))).join().unwrap();
        std::process::exit(10);
    };
    assert_eq!(code(&output), Some(10));
}

#[test]
fn what_would_not_end_is_told_on_stderr() {
    let Some(output) = child("what_would_not_end_is_told_on_stderr") else {
        let main = greenlet::current::<u32>();
        let g = Greenlet::builder()
            .name("stubborn")
            .build(move |n| {
                loop {
                    let wait = std::panic::AssertUnwindSafe(|| main.switch(n));
                    let _ = std::panic::catch_unwind(wait);
                }
            })
            .unwrap();
        g.switch(0);
        drop(g);
        let mut generator = Generator::<u32>::new(|y| {
            loop {
                let _ = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| y.yield_(1)));
            }
        });
        generator.next();
        drop(generator);
        std::process::exit(11);
    };
    assert_eq!(code(&output), Some(11));
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(
        text.contains("\"stubborn\"") && text.contains("would not end"),
        "{text}"
    );
    assert!(text.contains("a dropped generator would not end"), "{text}");
}
