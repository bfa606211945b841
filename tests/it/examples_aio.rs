//! The examples of asyncio's programs: both styles print the same, in the time that waiting together takes.

use std::io::{BufRead, BufReader};
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, ExitStatus, Stdio};
use std::time::Duration;

use crate::examples::binary;
use crate::lines::{prints, seconds, took};
use crate::thread_fresh::ms;

/// Without the times, which differ from run to run.
fn words(lines: &[String]) -> Vec<String> {
    let word = |line: &String| match line.rsplit_once(": ") {
        Some((what, time)) if time.ends_with(" s") => what.to_owned(),
        _ => line.clone(),
    };
    lines.iter().map(word).collect()
}

/// The lines of both styles, run side by side; without times they are the same.
fn both(name: &str, at_least: Duration, at_most: Duration) -> [Vec<String>; 2] {
    let path = binary(name);
    let runs = ["green", "async"].map(|style| {
        let path = path.clone();
        std::thread::spawn(move || prints(path, &[style], at_least, at_most))
    });
    let both = runs.map(|run| run.join().unwrap());
    // In any order: two that are due at once may be told in two turns.
    let sorted = both.each_ref().map(|lines| {
        let mut words = words(lines);
        words.sort_unstable();
        words
    });
    assert_eq!(sorted[0], sorted[1]);
    both
}

#[test]
fn loop_control_calls_in_order_and_at_its_times() {
    let lines = prints(binary("loop_control"), &[], ms(2000), ms(10_000));
    assert_eq!(lines[..3], ["False", "Hello word!", "Stopping loop."]);
    assert_eq!(
        words(&lines[3..]),
        ["timer 1", "timer 2", "Stopping loop.", "Hello world!"]
    );
    took(&lines, "timer 1", 1.0, 3.0);
    took(&lines, "timer 2", 2.0, 4.0);
}

#[test]
fn ctrl_c_ends_a_loop_that_has_nothing_to_do() {
    let mut child = Command::new(binary("loop_control"))
        .arg("forever")
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap())
        .read_line(&mut line)
        .unwrap();
    assert_eq!(line, "press Ctrl-C\n");
    // SAFETY: a plain system call; the child is ours and has not been waited for.
    assert_eq!(unsafe { libc::kill(child.id().cast_signed(), libc::SIGINT) }, 0);
    // What the shell calls 130.
    assert_eq!(child.wait().unwrap().signal(), Some(libc::SIGINT));
}

/// Starts an example and presses Ctrl-C at each line but those in `quiet`; what it printed, and how it ended.
fn pressed(argument: &str, quiet: &[&str]) -> (Vec<String>, ExitStatus) {
    let mut child = Command::new(binary("interrupt"))
        .arg(argument)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = Vec::new();
    for line in BufReader::new(child.stdout.take().unwrap()).lines() {
        lines.push(line.unwrap());
        if !quiet.contains(&&**lines.last().unwrap()) {
            // SAFETY: a plain system call; the child is ours and has not been waited for.
            assert_eq!(unsafe { libc::kill(child.id().cast_signed(), libc::SIGINT) }, 0);
        }
    }
    (lines, child.wait().unwrap())
}

#[test]
fn the_first_ctrl_c_cancels_the_main_task_and_the_second_ends_the_program() {
    for style in ["green", "async"] {
        let quiet = ["cleaned up", "interrupted by Ctrl-C"];
        let (lines, status) = pressed(style, &quiet);
        assert_eq!(
            (lines, status.code()),
            (["press Ctrl-C", quiet[0], quiet[1]].map(String::from).into(), Some(130))
        );
    }
    let (lines, status) = pressed("stubborn", &[]);
    assert_eq!(lines, ["press Ctrl-C", "and again"]);
    assert_eq!(status.signal(), Some(libc::SIGINT));
}

#[test]
fn loop_threads_stop_at_once_and_sleep_together() {
    let lines = prints(binary("loop_threads"), &[], ms(2000), ms(10_000));
    let hellos = ["Hello world!", "Hello world!", "Hello again!", "Hello again!"];
    assert_eq!(lines[..2], ["is_running True", "Hello word"]);
    assert!(seconds(&lines, "joined") < 0.1, "{lines:?}");
    assert_eq!(lines[3..7], hellos);
    assert_eq!(lines[7], "one thread");
    took(&lines, "two hellos", 1.0, 2.0);
    took(&lines, "four loops", 1.0, 4.0);
}

#[test]
fn tasks_run_together_and_call_back() {
    for mut lines in both("tasks", ms(9000), ms(25_000)) {
        // Two end at once, and each calls back a turn later.
        lines[5..9].sort_unstable();
        let first = "no running event loop: start with aio::run or EventLoop";
        let two = ["main开始", "main结束", "1", "1", "2", "2", "返回值 n1", "返回值 n2"];
        assert_eq!(lines[0], first);
        assert_eq!(lines[1..9], two);
        let tea = [
            "default name: true",
            "InvalidStateError",
            "Now making chamomile tea.",
            "true chamomile tea",
        ];
        assert_eq!(lines[10..14], tea);
        took(&lines, "two tasks", 2.0, 4.0);
        took(&lines, "concurrent", 2.0, 3.0);
        took(&lines, "callback 7", 3.0, 5.0);
        took(&lines, "callback 4", 5.0, 8.0);
        took(&lines, "callbacks", 5.0, 8.0);
    }
}

#[test]
fn gather_gives_values_in_the_order_asked() {
    let steps = [
        "Task A: Compute factorial(2)...",
        "Task B: Compute factorial(2)...",
        "Task C: Compute factorial(2)...",
        "Task A: factorial(2) = 2",
        "Task B: Compute factorial(3)...",
        "Task C: Compute factorial(3)...",
        "Task B: factorial(3) = 6",
        "Task C: Compute factorial(4)...",
        "Task C: factorial(4) = 24",
    ];
    let teas = [
        "false",
        r#"["chamomile tea", "green tea", "herbal tea"]"#,
        "Mixing the herbal tea and green tea together.",
        "14! = 87178291200, 13! = 6227020800, 16! = 20922789888000",
    ];
    for lines in both("gather", ms(10_500), ms(30_000)) {
        assert_eq!(lines[..9], steps);
        assert_eq!(lines[10..14], teas);
        took(&lines, "A B C", 3.0, 6.0);
        took(&lines, "factorials", 7.5, 20.0);
    }
}

#[test]
fn wait_tells_done_from_pending_by_its_mode() {
    for lines in both("wait", ms(11_000), ms(30_000)) {
        took(&lines, "timeout 1/1", 3.0, 6.0);
        took(&lines, "FIRST_COMPLETED 1/2", 1.0, 6.0);
        took(&lines, "FIRST_EXCEPTION 2/1", 2.0, 6.0);
        took(&lines, "none raised 2/0", 2.0, 3.0);
        took(&lines, "all 3/0", 3.0, 6.0);
        assert!(
            lines.contains(&"RuntimeError: Raising an exception.".to_owned()),
            "{lines:?}"
        );
        assert_eq!(lines[10..13], ["Done after 1s", "Done after 2s", "Done after 3s"]);
    }
}

#[test]
fn async_iter_counts_in_each_way() {
    let numbers: Vec<_> = (1..100).map(|number: u32| number.to_string()).collect();
    for lines in both("async_iter", ms(0), ms(10_000)) {
        assert_eq!(lines, numbers);
    }
    assert_eq!(prints(binary("async_iter"), &["generator"], ms(0), ms(10_000)), numbers);
}

#[test]
fn async_with_leaves_in_each_case() {
    for lines in both("async_with", ms(2100), ms(10_000)) {
        assert_eq!(lines[..4], ["enter", "ok", "666", "exit"]);
        let rest = ["enter", "exit", r#"Err("no rows")"#, "enter", "exit", "timed out: true"];
        assert_eq!(lines[5..], rest);
        took(&lines, "in all", 2.0, 4.0);
    }
}
