//! The examples with real drivers, run as a user runs them: what they print, and how long they take.

#[path = "../../../tests/it/support/lines.rs"]
mod lines;

#[test]
fn both_faces_print_what_is_shown_in_the_time_of_waiting_together() {
    let text = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../README.md")).unwrap();
    let binary = |name: &str| match name {
        "redis" => env!("CARGO_BIN_EXE_redis").into(),
        "mysql" => env!("CARGO_BIN_EXE_mysql").into(),
        "udp_tls" => env!("CARGO_BIN_EXE_udp_tls").into(),
        other => panic!("{other} is not here"),
    };
    assert_eq!(lines::check_all(&text, |shown| shown.is_of("drivers"), binary), 6);
}

#[test]
fn redis_says_that_nobody_is_there() {
    for face in ["patched", "async"] {
        let (output, _, _) = lines::run(env!("CARGO_BIN_EXE_redis"), &[face, "redis://127.0.0.1:1/"]);
        assert_eq!(output.status.code(), Some(1), "{face}");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(
            said.starts_with("error: ") && said.contains("refused"),
            "{face}: {said}"
        );
    }
}
