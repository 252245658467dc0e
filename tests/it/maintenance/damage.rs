//! Damaged data: what a start does about it, and what the commands do.

use std::{fs, os::unix::fs::FileExt, path::PathBuf};

use super::{chat::Chat, tree};
use crate::common::{Random, Server};

/// A server with some talk that has been stopped in good order: the index knows all of it.
fn stopped() -> (Server, Chat) {
    let mut server = Server::start();
    let chat = Chat::new(&server);
    chat.talk(30);
    assert!(server.terminate().success());
    (server, chat)
}

/// The file of a log segment.
fn segment(server: &Server, number: u64) -> PathBuf {
    server.data().join(format!("log/{number:016}.seg"))
}

/// Overwrites the beginning of every file of the index.
fn spoil_index(server: &Server) {
    let files = tree(&server.data().join("index"));
    assert!(!files.is_empty());
    for (path, content) in files {
        let garbage: Vec<u8> =
            (0..content.len().min(8192)).map(|at| (at * 7 % 251) as u8).collect();
        let file = fs::OpenOptions::new().write(true).open(path).unwrap();
        file.write_all_at(&garbage, 0).unwrap();
    }
}

fn remove_index(server: &Server) {
    fs::remove_dir_all(server.data().join("index")).unwrap();
}

/// What the newest start has logged about the index.
fn rebuilt(server: &Server) -> bool {
    server.log().contains("the index was rebuilt from the event log")
}

#[test]
fn an_index_that_is_gone_or_damaged_is_made_again_at_the_start() {
    for spoil in [remove_index, spoil_index] {
        let (mut server, chat) = stopped();
        assert!(!rebuilt(&server), "{}", server.log());
        spoil(&server);
        server.restart();
        assert!(rebuilt(&server), "{}", server.log());
        assert!(!server.log().contains("ERROR"), "{}", server.log());
        assert_eq!(chat.check(&server), 30);
        chat.goes_on(&server);
    }
}

#[test]
fn reindex_makes_an_index_that_the_start_trusts() {
    for spoil in [remove_index, spoil_index, |_: &Server| ()] {
        let (mut server, chat) = stopped();
        spoil(&server);
        let told = server.run(&["reindex"]).ok();
        assert!(told.starts_with("The index is new, through position "), "{told}");
        server.restart();
        assert!(!rebuilt(&server), "{}", server.log());
        assert_eq!(chat.check(&server), 30);
        chat.goes_on(&server);
    }
}

/// Flips a byte of the text of a word in a plain segment.
fn spoil_word(server: &Server, word: &str) {
    let path = segment(server, 1);
    let mut content = fs::read(&path).unwrap();
    let at = content.windows(word.len()).rposition(|bytes| bytes == word.as_bytes()).unwrap();
    content[at + 2] ^= 1;
    fs::write(path, content).unwrap();
}

/// `serve` says what is wrong, where, and what to do; `repair` says it too and touches nothing.
fn is_refused(server: &Server) {
    let before = tree(&server.data());
    for _ in 0..2 {
        let refused = server.run(&["serve"]).failed_in_one_line();
        let parts = ["segment 1, byte ", "(after stream position ", "`parlour repair`", "backup"];
        assert!(parts.iter().all(|part| refused.contains(part)), "{refused}");
        let repair = server.run(&["repair"]);
        assert!(repair.failed().contains("--cut or --fill-gaps"), "{repair:?}");
        let offset = refused.split("byte ").nth(1).unwrap().split(' ').next().unwrap();
        assert!(
            repair.out.contains(&format!("(segment 1, byte {offset})")),
            "{refused} {repair:?}"
        );
        let not_index = |(path, _): &&(PathBuf, _)| !path.starts_with(server.data().join("index"));
        let now = tree(&server.data());
        // Opening sled may tidy its files up.
        assert!(now.iter().filter(not_index).eq(before.iter().filter(not_index)));
    }
    let log = server.data().join("log");
    let backup = server.run(&["backup", "of-damaged"]).failed();
    assert!(backup.contains("the event log is damaged"), "{backup}");
    assert!(log.is_dir());
}

#[test]
fn a_flipped_byte_stops_the_start_and_costs_one_record() {
    for (flag, lost) in [("--fill-gaps", 11..12), ("--cut", 11..30)] {
        let (mut server, chat) = stopped();
        spoil_word(&server, "word-0011");
        is_refused(&server);
        let damaged = fs::read(segment(&server, 1)).unwrap();
        let told = server.run(&["repair", flag]).ok();
        let aside = server.data().join("log.damaged-1");
        assert!(told.contains(aside.to_str().unwrap()), "{told}");
        assert_eq!(fs::read(aside.join("0000000000000001.seg")).unwrap(), damaged);
        server.restart();
        chat.check_lost(&server, &lost.collect::<Vec<_>>());
        chat.goes_on(&server);
        assert!(server.terminate().success());
        let whole = server.run(&["repair"]).ok();
        assert!(whole.starts_with("The log is whole through position "), "{whole}");
    }
}

#[test]
fn a_flipped_byte_in_a_compressed_segment_stops_the_start() {
    let (mut server, chat) = stopped();
    server.restart();
    // Several compressed frames after those with the words.
    let (alice, mut random) = (server.again(&chat.alice), Random::new(1));
    for _ in 0..8 {
        let text: String = (0..2000).map(|_| format!("{:016x}", random.next())).collect();
        alice.say(&chat.room, &text).ok();
    }
    server.run(&["backup", "copy"]).ok();
    let copy = server.home().join("copy");
    for flag in ["--fill-gaps", "--cut"] {
        // A backup is compressed, and so is what is restored from it.
        let mut second = Server::prepare(&[]);
        second.run(&["restore", copy.to_str().unwrap()]).ok();
        second.restart();
        assert_eq!(chat.check(&second), 30);
        assert!(second.terminate().success());
        let path = segment(&second, 1);
        let mut content = fs::read(&path).unwrap();
        let late = content.len() / 4 * 3;
        content[late] ^= 1;
        fs::write(path, content).unwrap();
        is_refused(&second);
        assert!(second.run(&["repair", flag]).ok().contains("log.damaged-1"));
        second.restart();
        assert_eq!(chat.check(&second), 30);
        chat.goes_on(&second);
    }
}

#[test]
fn a_damaged_backup_is_not_restored() {
    let (server, _) = stopped();
    server.run(&["backup", "copy"]).ok();
    let path = server.home().join("copy/log/0000000000000001.seg");
    let mut content = fs::read(&path).unwrap();
    let middle = content.len() / 2;
    content[middle] ^= 1;
    fs::write(path, content).unwrap();
    let second = Server::prepare(&[]);
    let copy = server.home().join("copy");
    let refused = second.run(&["restore", copy.to_str().unwrap()]).failed();
    assert!(refused.contains("the backup") && refused.contains("segment 1, byte "), "{refused}");
    assert!(!second.data().join("log").exists());
}

/// A write that a power cut stopped: the head of a record, and half of what it announces.
fn half_a_record(server: &Server) -> u64 {
    let path = segment(server, 1);
    let mut content = fs::read(&path).unwrap();
    let first_record = content[64..64 + 60].to_vec();
    content.extend(&first_record);
    fs::write(path, content).unwrap();
    first_record.len() as u64
}

/// Cuts the last segment, and so the newest commit. After a kill there are zeros behind it.
fn shorten(server: &Server) {
    let path = segment(server, 1);
    let content = fs::read(&path).unwrap();
    let zeros = content.iter().rev().take_while(|byte| **byte == 0).count();
    fs::write(path, &content[..content.len() - zeros - 5]).unwrap();
}

#[test]
fn a_torn_tail_is_cut_off_and_logged() {
    let (mut server, chat) = stopped();
    let torn = half_a_record(&server);
    server.restart();
    assert!(server.log().contains(&format!("torn_bytes={torn}")), "{}", server.log());
    assert_eq!(chat.check(&server), 30);
    chat.goes_on(&server);
    server.kill();
    shorten(&server);
    remove_index(&server);
    server.restart();
    assert_eq!(server.log().matches("torn_bytes=").count(), 2, "{}", server.log());
    assert_eq!(chat.check(&server), 30, "only the newest commit is gone");
}

#[test]
fn what_the_index_knows_of_is_not_cut_off_in_silence() {
    let (mut server, chat) = stopped();
    shorten(&server);
    let before = fs::read(segment(&server, 1)).unwrap();
    for command in ["serve", "reindex"] {
        let refused = server.run(&[command]).failed();
        assert!(refused.contains("the index knows of commits up to"), "{command}: {refused}");
        assert!(refused.contains("`parlour repair`"), "{command}: {refused}");
    }
    let told = server.run(&["repair"]).ok();
    assert!(told.contains("--cut"), "{told}");
    assert_eq!(fs::read(segment(&server, 1)).unwrap(), before);
    server.run(&["repair", "--cut"]).ok();
    server.restart();
    assert!(chat.check(&server) >= 29);
    chat.goes_on(&server);
}

#[test]
fn a_log_that_is_older_than_its_index_is_told_loudly() {
    let mut server = Server::start();
    let chat = Chat::new(&server);
    chat.talk(5);
    server.run(&["backup", "copy"]).ok();
    chat.talk(5);
    assert!(server.terminate().success());
    let log = server.data().join("log");
    fs::remove_dir_all(&log).unwrap();
    fs::rename(server.home().join("copy/log"), &log).unwrap();
    server.restart();
    let told = server.log();
    let line = told.lines().find(|line| line.contains("ERROR")).unwrap_or_default();
    assert!(line.contains("the index knew of") && line.contains("lost="), "{told}");
    assert_eq!(chat.check(&server), 5);
    chat.goes_on(&server);
}

#[test]
fn a_repair_that_was_stopped_at_its_end_is_finished() {
    let (mut server, chat) = stopped();
    let log = server.data().join("log");
    fs::rename(&log, server.data().join("log.repairing")).unwrap();
    server.restart();
    assert!(server.log().contains("the last step of a repair"), "{}", server.log());
    assert_eq!(chat.check(&server), 30);
    chat.goes_on(&server);
}
