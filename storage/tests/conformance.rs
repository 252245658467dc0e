//! What every store must do, whatever is under it.
#![allow(clippy::unwrap_used, reason = "a test may")]

mod support;

use std::{ops::Bound, path::Path, sync::Arc};

use bytes::Bytes;
use parlour_event::StreamPos;
use parlour_storage::{
    Direction, MemoryEngine, Op, Record, SledEngine, StorageError, Store, StoreOptions, Writer,
};
use rand::RngExt;
use support::{Model, delete, fill, options, put, put_blob, record, rng, simfs::SimFs};

type Open = Box<dyn Fn() -> (Store, Writer)>;

/// All combinations of a log and an index, and whether they survive being closed.
fn stores(dir: &Path) -> Vec<(&'static str, Open, bool)> {
    let at = |name: &str, change: &dyn Fn(&mut StoreOptions)| -> Open {
        let mut options = options(&dir.join(name));
        change(&mut options);
        Box::new(move || Store::open(options.clone()).unwrap())
    };
    let sim = Arc::new(SimFs::default());
    vec![
        ("memory", Box::new(Store::in_memory), false),
        ("files and sled", at("sled", &|o| o.index = Arc::new(SledEngine)), true),
        ("files and memory", at("memory", &|o| o.index = Arc::new(MemoryEngine)), true),
        (
            "simulated files and memory",
            at("sim", &|o| {
                o.index = Arc::new(MemoryEngine);
                o.files = sim.clone();
            }),
            true,
        ),
    ]
}

/// Runs a check on a new store of every kind.
fn on_all(check: impl Fn(&Store, &mut Writer)) {
    let dir = tempfile::tempdir().unwrap();
    for (name, open, _) in stores(dir.path()) {
        println!("on {name}");
        let (store, mut writer) = open();
        check(&store, &mut writer);
        writer.close();
    }
}

fn value(store: &Store, key: &str) -> Option<String> {
    let entry = store.get(key.as_bytes()).unwrap()?;
    Some(String::from_utf8(entry.value.to_vec()).unwrap())
}

#[test]
fn a_new_store_is_empty() {
    on_all(|store, writer| {
        assert_eq!(store.applied(), StreamPos(0));
        assert_eq!(writer.next_pos(), StreamPos(1));
        assert_eq!(store.get(b"k").unwrap(), None);
        assert!(store.scan_prefix(b"", Direction::Forward, 9).unwrap().is_empty());
        assert_eq!(store.records(StreamPos(0)).unwrap().count(), 0);
        Model::default().check(store);
    });
}

#[test]
fn operations_take_effect_in_order() {
    on_all(|store, writer| {
        let next = writer.next_pos();
        let ops = vec![put("a", "1"), put("b", "1"), delete("a"), put("b", "2"), put("c", "")];
        writer.commit(&[record(next, ops), record(StreamPos(2), vec![put("d", "4")])]).unwrap();
        assert_eq!(store.applied(), StreamPos(2));
        assert_eq!(value(store, "a"), None);
        assert_eq!(value(store, "b").as_deref(), Some("2"));
        assert_eq!(value(store, "c").as_deref(), Some(""));
        writer.commit(&[record(StreamPos(3), vec![delete("b"), delete("unknown")])]).unwrap();
        assert_eq!(value(store, "b"), None);
        let found = store.multi_get(&["d", "b", "c", "d"]).unwrap();
        let found: Vec<_> = found.iter().map(|e| e.as_ref().map(|e| e.value.len())).collect();
        assert_eq!(found, [Some(1), None, Some(0), Some(1)]);
    });
}

#[test]
fn bodies_stay_in_the_log() {
    on_all(|store, writer| {
        let long = "body ".repeat(50_000);
        let ops =
            vec![put_blob("a", "v", "short"), put_blob("b", "", &long), put_blob("c", "", "")];
        writer.commit(&[record(StreamPos(1), ops)]).unwrap();
        let places: Vec<_> =
            ["a", "b", "c"].iter().map(|k| store.get(k.as_bytes()).unwrap().unwrap()).collect();
        assert_eq!(places[0].value, "v");
        let places: Vec<_> = places.iter().map(|entry| entry.blob.unwrap()).collect();
        let bodies = store.blobs(&places).unwrap();
        assert_eq!(bodies, [Bytes::from("short"), long.into(), Bytes::new()]);
        // A place that is none is an error, not somebody else's bytes.
        for wrong in [
            parlour_storage::BlobRef { offset: places[0].offset + 1, ..places[0] },
            parlour_storage::BlobRef { offset: u64::MAX, ..places[0] },
            parlour_storage::BlobRef { segment: 77, ..places[0] },
            parlour_storage::BlobRef { len: u32::MAX, ..places[0] },
        ] {
            assert!(matches!(store.blob(&wrong), Err(StorageError::Damaged { .. })));
        }
    });
}

#[test]
fn long_values_come_back() {
    on_all(|store, writer| {
        for len in [0, 1, 4095, 4096, 4097, 200_000] {
            let ops = vec![put("v", &"v".repeat(len)), put_blob("w", &"w".repeat(len), "body")];
            writer.commit(&[record(writer.next_pos(), ops)]).unwrap();
            let entry = store.get(b"v").unwrap().unwrap();
            assert_eq!((entry.value.len(), entry.blob), (len, None));
            let entry = store.get(b"w").unwrap().unwrap();
            assert_eq!(entry.value, "w".repeat(len));
            assert_eq!(store.blob(&entry.blob.unwrap()).unwrap(), "body");
        }
    });
}

#[test]
fn scans_keep_their_range_order_and_limit() {
    on_all(|store, writer| {
        let keys = ["a", "ab", "abc", "b", "ba", "c", "\u{ff}", "\u{ff}x"];
        writer.commit(&[record(StreamPos(1), keys.iter().map(|k| put(k, k)).collect())]).unwrap();
        let scan = |low: Bound<&str>, high: Bound<&str>, direction, limit| -> Vec<String> {
            let range = (low.map(str::as_bytes), high.map(str::as_bytes));
            let found = store.scan(range, direction, limit).unwrap();
            found.into_iter().map(|(k, _)| String::from_utf8(k.to_vec()).unwrap()).collect()
        };
        use Bound::{Excluded, Included, Unbounded};
        use Direction::{Backward, Forward};
        assert_eq!(scan(Unbounded, Unbounded, Forward, 99), keys);
        assert_eq!(scan(Unbounded, Unbounded, Backward, 2), ["\u{ff}x", "\u{ff}"]);
        assert_eq!(scan(Included("ab"), Excluded("b"), Forward, 99), ["ab", "abc"]);
        assert_eq!(scan(Excluded("ab"), Included("b"), Backward, 99), ["b", "abc"]);
        assert_eq!(scan(Included("ab"), Unbounded, Forward, 1), ["ab"]);
        assert_eq!(scan(Unbounded, Excluded("ab"), Backward, 9), ["a"]);
        for (low, high) in [
            (Included("c"), Included("b")),
            (Excluded("b"), Excluded("b")),
            (Included("x"), Excluded("x")),
        ] {
            assert!(scan(low, high, Forward, 9).is_empty());
            assert!(scan(low, high, Backward, 9).is_empty());
        }
        assert!(scan(Unbounded, Unbounded, Forward, 0).is_empty());
        let prefix =
            |prefix: &[u8], direction| store.scan_prefix(prefix, direction, 9).unwrap().len();
        assert_eq!(
            [prefix(b"a", Forward), prefix(b"ab", Backward), prefix(b"", Forward)],
            [3, 2, 8]
        );
        assert_eq!([prefix(&[0xc3], Forward), prefix(&[0xff], Backward)], [2, 0]);
    });
}

#[test]
fn what_is_refused_leaves_no_trace() {
    on_all(|store, writer| {
        writer.commit(&[record(StreamPos(1), vec![put("a", "1")])]).unwrap();
        let at = StreamPos;
        let long = Op::Put { key: vec![b'k'; 5000].into(), value: Bytes::new() };
        let huge = Op::PutBlob {
            key: "k".into(),
            value: Bytes::new(),
            blob: vec![0; (64 << 20) + 1].into(),
        };
        let refused: Vec<Vec<Record>> = vec![
            vec![record(at(1), vec![put("a", "x")])],
            vec![record(at(3), vec![put("a", "x")])],
            vec![record(at(2), vec![put("a", "x")]), record(at(2), vec![])],
            vec![record(at(2), vec![put("a", "x"), put("", "x")])],
            vec![record(at(2), vec![put("a", "x"), put("\0own", "x")])],
            vec![record(at(2), vec![put("a", "x"), long])],
            vec![record(at(2), vec![put("a", "x")]), record(at(3), vec![huge])],
        ];
        for records in refused {
            let error = writer.commit(&records).unwrap_err();
            assert!(matches!(error, StorageError::Refused(_)), "{error}");
        }
        writer.commit(&[]).unwrap();
        assert_eq!((writer.next_pos(), store.applied()), (at(2), at(1)));
        assert_eq!(value(store, "a").as_deref(), Some("1"));
        writer.commit(&[record(at(2), vec![put("a", "2")])]).unwrap();
        assert_eq!(store.records(at(0)).unwrap().count(), 2);
    });
}

#[test]
fn the_log_is_read_from_anywhere() {
    on_all(|store, writer| {
        let (mut model, mut rng) = (Model::default(), rng(3));
        fill(writer, &mut model, &mut rng, 60);
        let len = model.records.len() as u64;
        for after in [0, 1, 2, len / 2, len - 1, len, len + 1, u64::MAX] {
            let found: Vec<_> =
                store.records(StreamPos(after)).unwrap().map(Result::unwrap).collect();
            let from = usize::try_from(after.min(len)).unwrap();
            assert_eq!(found, model.records[from..]);
        }
    });
}

#[test]
fn it_does_what_a_map_does_and_keeps_it() {
    let dir = tempfile::tempdir().unwrap();
    for (name, open, keeps) in stores(dir.path()) {
        println!("on {name}");
        let (mut model, mut rng) = (Model::default(), rng(name.len() as u64));
        for _ in 0..4 {
            let (store, mut writer) = open();
            if !keeps {
                model = Model::default();
            }
            model.check(&store);
            let groups = rng.random_range(1..40);
            fill(&mut writer, &mut model, &mut rng, groups);
            model.check(&store);
            writer.close();
        }
    }
}

#[test]
fn a_closed_store_answers_with_an_error_and_frees_its_directory() {
    let dir = tempfile::tempdir().unwrap();
    for (name, open, keeps) in stores(dir.path()) {
        println!("on {name}");
        let (store, mut writer) = open();
        writer.commit(&[record(StreamPos(1), vec![put("a", "1")])]).unwrap();
        writer.close();
        assert!(matches!(store.get(b"a"), Err(StorageError::Stopped(_))));
        if keeps {
            let (store, writer) = open();
            assert_eq!(value(&store, "a").as_deref(), Some("1"));
            // An index in memory is a new one each time.
            let is_rebuilt = store.recovery().rebuilt.is_some();
            assert_eq!(is_rebuilt, name.ends_with("memory"), "{name}");
            writer.close();
        }
    }
}

#[test]
fn two_cannot_have_one_directory() {
    let dir = tempfile::tempdir().unwrap();
    let (store, writer) = Store::open(options(dir.path())).unwrap();
    let error = Store::open(options(dir.path())).unwrap_err();
    assert!(matches!(error, StorageError::Locked { .. }), "{error}");
    drop((store, writer));
    Store::open(options(dir.path())).unwrap();
}

#[test]
fn readers_see_whole_commits_while_a_writer_writes() {
    on_all(|store, writer| {
        let reader = store.clone();
        let thread = std::thread::spawn(move || {
            while reader.applied() < StreamPos(200) {
                let applied = reader.applied();
                let a = reader.get(b"a").unwrap();
                let seen: u64 =
                    a.map_or(0, |e| std::str::from_utf8(&e.value).unwrap().parse().unwrap());
                assert!(seen >= applied.0, "what is announced can be read");
                let last = reader.records(StreamPos(0)).unwrap().map(Result::unwrap).last();
                assert!(last.map_or(0, |record| record.pos.0) >= applied.0);
            }
        });
        for pos in 1..=200 {
            let ops = vec![put_blob("a", &pos.to_string(), &"x".repeat(100))];
            writer.commit(&[record(StreamPos(pos), ops)]).unwrap();
        }
        thread.join().unwrap();
    });
}
