//! Breaks the index while the server is down: it must be rebuilt from the log.

use std::{
    fs::{self, OpenOptions},
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};

use crate::common::Random;

/// Removes, cuts or overwrites the index below a data directory.
pub(crate) fn index(data: &Path, random: &mut Random) {
    let index = data.join("index");
    assert!(index.is_dir(), "no index in {}: what is damaged here?", data.display());
    match random.below(3) {
        0 => {
            println!("damage: the index is gone");
            fs::remove_dir_all(&index).unwrap();
        }
        1 => {
            println!("damage: its files are cut in half");
            for file in files(&index) {
                let length = fs::metadata(&file).unwrap().len();
                OpenOptions::new().write(true).open(&file).unwrap().set_len(length / 2).unwrap();
            }
        }
        _ => {
            println!("damage: its files begin with garbage");
            for file in files(&index) {
                let garbage: Vec<u8> =
                    (0..4096).map(|_| random.below(256).to_le_bytes()[0]).collect();
                let length = usize::try_from(fs::metadata(&file).unwrap().len()).unwrap();
                let file = OpenOptions::new().write(true).open(&file).unwrap();
                file.write_all_at(&garbage[..length.min(garbage.len())], 0).unwrap();
            }
        }
    }
}

fn files(dir: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    let mut left = vec![dir.to_path_buf()];
    while let Some(dir) = left.pop() {
        for entry in fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() { left.push(path) } else { files.push(path) }
        }
    }
    files
}
