//! The examples with real drivers, run as a user runs them: what they print, and how long they take.

use std::time::Duration;

#[path = "../../../tests/it/lines.rs"]
mod lines;

use lines::{begin, prints, refuses_async, run, took};

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

#[test]
fn redis_talks_to_two_servers_and_waits_on_both() {
    let lines = prints(env!("CARGO_BIN_EXE_redis"), &["patched"], ms(1000), ms(60_000));
    let hash = "{key1: 1, key2: 2, key3: 3}";
    let start = |line: &String| line.strip_prefix("开始执行 127.0.0.1:").map(String::from);
    let end = |line: &String| line.strip_prefix("结束 127.0.0.1:").map(String::from);
    let one = start(&lines[0]).unwrap();
    assert_eq!((&*lines[1], end(&lines[2])), (hash, Some(one.clone())));
    assert!(start(&lines[3]) == Some(one) && start(&lines[4]).is_some(), "{lines:?}");
    assert_ne!(lines[3], lines[4], "two servers");
    assert_eq!(lines[5..9].iter().filter(|line| *line == hash).count(), 2, "{lines:?}");
    let both: Vec<_> = lines[5..9].iter().filter_map(end).collect();
    assert!(both.len() == 2 && both[0] != both[1], "{lines:?}");
    assert!(lines.contains(&String::from("they counted to 80")), "{lines:?}");
    assert_eq!(begin(&lines, "BLPOP: "), ["None", "None"]);
    took(&lines, "two BLPOPs of a second", 1.0, 2.0);
    refuses_async(env!("CARGO_BIN_EXE_redis"));
}

#[test]
fn redis_says_that_nobody_is_there() {
    let (output, _, _) = run(env!("CARGO_BIN_EXE_redis"), &["redis://127.0.0.1:1/"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(
        String::from_utf8_lossy(&output.stderr).starts_with("error: "),
        "{output:?}"
    );
}

#[test]
fn mysql_sleeps_twice_at_once_and_survives_a_wrong_password() {
    let lines = prints(env!("CARGO_BIN_EXE_mysql"), &["patched"], ms(1000), ms(120_000));
    let rows = "[(\"127.0.0.1\", \"root\"), ";
    assert!(lines[0] == "开始 1" && lines[1].starts_with(&format!("1: {rows}")) && lines[2] == "结束 1");
    for what in ["two at once", "two SELECT SLEEP(1) at once"] {
        let last = lines
            .iter()
            .position(|line| line.starts_with(&format!("{what}: ")))
            .unwrap();
        let first = lines[..last].iter().rposition(|line| line == "开始 1").unwrap();
        assert_eq!(lines[first..first + 2], ["开始 1", "开始 2"], "{lines:?}");
        assert_eq!(begin(&lines[first + 2..last], "结束 ").len(), 2, "{lines:?}");
    }
    took(&lines, "two SELECT SLEEP(1) at once", 1.0, 2.0);
    let ends: Vec<_> = ["1 did well", "3 did well"]
        .map(|line| lines.iter().any(|l| l == line))
        .into();
    assert_eq!(ends, [true, true], "{lines:?}");
    assert!(begin(&lines, "2 failed: ")[0].contains("Access denied"), "{lines:?}");
    refuses_async(env!("CARGO_BIN_EXE_mysql"));
}

#[test]
fn udp_tls_echoes_and_gets_pages_at_once() {
    let lines = prints(env!("CARGO_BIN_EXE_udp_tls"), &["patched"], ms(1000), ms(20_000));
    let mut echoes: Vec<_> = lines[..6]
        .iter()
        .filter_map(|line| line.strip_suffix(" came back"))
        .collect();
    echoes.sort_unstable();
    assert_eq!(echoes, ["ours 1", "ours 2", "ours 3", "std's 1", "std's 2", "std's 3"]);
    took(&lines, "six echoes over UDP", 0.5, 3.0);
    let pages = begin(&lines, "https://localhost:");
    for n in 1..=3 {
        let end = format!("/{n}: HTTP/1.1 200 OK: this is /{n}");
        assert_eq!(pages.iter().filter(|page| page.ends_with(&end)).count(), 1, "{lines:?}");
    }
    took(&lines, "three pages over TLS", 0.5, 1.5);
    refuses_async(env!("CARGO_BIN_EXE_udp_tls"));
}
