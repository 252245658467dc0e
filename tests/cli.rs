//! The command line, as a child process.

use std::{
    io::{BufRead, BufReader},
    process::{Command, Output, Stdio},
};

use parlour::config::DEFAULT;

fn parlour(args: &[&str], environment: &[(&str, &str)]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_parlour"));
    command.args(args).envs(environment.iter().copied()).env_remove("PARLOUR_SEED");
    command.output().expect("run")
}

#[test]
fn a_bad_configuration_is_one_line_and_exit_code_2() {
    for command in ["serve", "check-config", "reindex"] {
        let output = parlour(&[command], &[("PARLOUR_SERVER__NMAE", "x")]);
        let complaint = String::from_utf8(output.stderr).expect("UTF-8");
        assert_eq!(output.status.code(), Some(2), "{complaint}");
        assert!(complaint.contains("PARLOUR_SERVER__NMAE"), "{complaint}");
        assert_eq!(complaint.lines().count(), 1, "{complaint}");
    }
}

#[test]
fn the_default_configuration_can_be_printed_and_is_good() {
    let printed = parlour(&["generate-config"], &[]);
    assert_eq!(String::from_utf8(printed.stdout).expect("UTF-8"), DEFAULT);
    assert!(parlour(&["check-config"], &[]).status.success());
}

#[test]
fn maintenance_needs_a_data_directory() {
    let output = parlour(&["reindex"], &[("PARLOUR_SERVER__DATA_DIR", "memory")]);
    let complaint = String::from_utf8(output.stderr).expect("UTF-8");
    assert_eq!(output.status.code(), Some(1), "{complaint}");
    assert!(complaint.contains("server.data_dir"), "{complaint}");
}

#[test]
fn sigterm_ends_it_cleanly() {
    let mut child = Command::new(env!("CARGO_BIN_EXE_parlour"))
        .arg("serve")
        .env_remove("PARLOUR_SEED")
        .env("PARLOUR_SERVER__DATA_DIR", "memory")
        .env("PARLOUR_LISTENERS", r#"[{ address = "127.0.0.1", port = 0, apis = ["client"] }]"#)
        .stderr(Stdio::piped())
        .spawn()
        .expect("run");
    let mut log = BufReader::new(child.stderr.take().expect("stderr"));
    let mut line = String::new();
    // The server's own word, not that of a library: only then does it listen to signals.
    while !line.contains("listening address=") {
        line.clear();
        assert!(log.read_line(&mut line).expect("log") > 0, "it ended before it listened");
    }
    let kill = Command::new("kill").args(["-TERM", &child.id().to_string()]).status();
    assert!(kill.expect("kill").success());
    assert!(child.wait().expect("wait").success());
}

#[test]
fn test_mode_is_refused_where_others_can_reach_the_server() {
    let open = r#"[{ address = "0.0.0.0", port = 0, apis = ["client"] }]"#;
    let output = parlour(&["serve", "--test-mode"], &[("PARLOUR_LISTENERS", open)]);
    let complaint = String::from_utf8(output.stderr).expect("UTF-8");
    assert_eq!(output.status.code(), Some(2), "{complaint}");
    assert!(complaint.contains("127.0.0.1") && complaint.contains("--test-mode"), "{complaint}");
    assert_eq!(complaint.lines().count(), 1, "{complaint}");
    // Whatever the file and the environment say.
    let off = [("PARLOUR_LISTENERS", open), ("PARLOUR_SERVER__TEST_MODE", "false")];
    assert_eq!(parlour(&["serve", "--test-mode"], &off).status.code(), Some(2));
}
