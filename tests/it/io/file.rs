//! Files: as std's, while others run, and what a kill leaves.

use std::io::{BufRead, BufReader, ErrorKind, Read, Seek, SeekFrom, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::PathBuf;
use std::sync::Arc;

use greenthread::fs::{self, File, OpenOptions};
use greenthread::thread::catch_kill;
use greenthread::{spawn, threadpool, yield_now};

use crate::support::fresh::{fresh, secs};

/// A folder that goes with the test.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Folder {
        let path = std::env::temp_dir().join(format!("greenthread-it-fs-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&path);
        std::fs::create_dir_all(&path).unwrap();
        Folder(path)
    }

    fn at(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

#[test]
fn the_functions_do_what_stds_do() {
    fresh(|| {
        let folder = Folder::new("functions");
        let (a, b) = (folder.at("a"), folder.at("x/y/b"));
        fs::write(&a, "text").unwrap();
        assert_eq!(fs::read(&a).unwrap(), b"text");
        assert!(fs::exists(&a).unwrap() && !fs::exists(&b).unwrap());
        assert_eq!(fs::copy(&a, &b).unwrap_err().kind(), ErrorKind::NotFound);
        fs::create_dir_all(folder.at("x/y")).unwrap();
        assert_eq!(
            fs::create_dir(folder.at("x")).unwrap_err().kind(),
            ErrorKind::AlreadyExists
        );
        assert_eq!(fs::copy(&a, &b).unwrap(), 4);
        fs::rename(&b, folder.at("c")).unwrap();
        fs::hard_link(folder.at("c"), &b).unwrap();
        assert_eq!(fs::read_to_string(&b).unwrap(), "text");
        fs::set_permissions(&b, fs::Permissions::from_mode(0o600)).unwrap();
        assert_eq!(fs::metadata(&b).unwrap().permissions().mode() & 0o777, 0o600);
        std::os::unix::fs::symlink(&a, folder.at("link")).unwrap();
        assert_eq!(fs::read_link(folder.at("link")).unwrap(), a);
        assert!(fs::symlink_metadata(folder.at("link")).unwrap().is_symlink());
        assert_eq!(
            fs::canonicalize(folder.at("link")).unwrap(),
            fs::canonicalize(&a).unwrap()
        );
        let mut seen: Vec<_> = fs::read_dir(&folder.0)
            .unwrap()
            .map(|entry| {
                let entry = entry.unwrap();
                assert_eq!(entry.metadata().unwrap().file_type(), entry.file_type().unwrap());
                assert_eq!(entry.path(), folder.0.join(entry.file_name()));
                (entry.file_name(), entry.file_type().unwrap().is_dir())
            })
            .collect();
        seen.sort();
        assert_eq!(seen.len(), 4);
        assert_eq!(seen[3], ("x".into(), true));
        assert_eq!(fs::read_dir(&a).unwrap_err().kind(), ErrorKind::NotADirectory);
        assert!(fs::remove_dir(folder.at("x")).is_err(), "it is not empty");
        fs::remove_file(&b).unwrap();
        fs::remove_dir(folder.at("x/y")).unwrap();
        fs::remove_dir_all(&folder.0).unwrap();
        assert_eq!(fs::metadata(&a).unwrap_err().kind(), ErrorKind::NotFound);
    });
}

#[test]
fn a_file_reads_writes_and_seeks() {
    fresh(|| {
        let folder = Folder::new("file");
        let path = folder.at("f");
        assert_eq!(File::open(&path).unwrap_err().kind(), ErrorKind::NotFound);
        let mut options = File::options();
        options.read(true).write(true).create_new(true);
        let mut file = options.open(&path).unwrap();
        assert_eq!(options.open(&path).unwrap_err().kind(), ErrorKind::AlreadyExists);
        file.write_all(b"one\ntwo\n").unwrap();
        file.seek(SeekFrom::Start(2)).unwrap();
        let mut four = [0; 4];
        file.read_exact(&mut four).unwrap();
        assert_eq!(&four, b"e\ntw");
        let mut rest = String::from("rest: ");
        assert_eq!(file.read_to_string(&mut rest).unwrap(), 2);
        assert_eq!(rest, "rest: o\n");
        assert_eq!(file.stream_position().unwrap(), 8);
        file.rewind().unwrap();
        let lines: Vec<_> = BufReader::new(&file).lines().map(Result::unwrap).collect();
        assert_eq!(lines, ["one", "two"]);
        let mut again = file.try_clone().unwrap();
        assert_eq!(again.stream_position().unwrap(), 8, "one position for both");
        file.set_len(3).unwrap();
        file.sync_all().unwrap();
        file.sync_data().unwrap();
        assert_eq!(file.metadata().unwrap().len(), 3);
        again.rewind().unwrap();
        assert_eq!(again.read(&mut [0; 10]).unwrap(), 3);
        assert_eq!(again.read(&mut [0; 10]).unwrap(), 0);
        std::fs::write(&path, [0xff]).unwrap();
        again.rewind().unwrap();
        let mut text = String::from("kept");
        assert_eq!(
            again.read_to_string(&mut text).unwrap_err().kind(),
            ErrorKind::InvalidData
        );
        assert_eq!(text, "kept");
        let mut unix = std::fs::OpenOptions::new();
        unix.append(true).create(true).mode(0o600);
        let mut file = OpenOptions::from(unix).open(folder.at("g")).unwrap();
        assert_eq!(file.read(&mut [0]).unwrap_err().raw_os_error(), Some(9), "EBADF");
        file.write_all(b"x").unwrap();
        assert_eq!(file.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    });
}

#[test]
fn large_reads_and_writes_go_in_pieces() {
    fresh(|| {
        let folder = Folder::new("large");
        let much: Vec<u8> = (0..1_000_000_u32).map(|n| (n ^ (n >> 8)) as u8).collect();
        let mut file = File::create(folder.at("f")).unwrap();
        let first = file.write(&much).unwrap();
        assert!(first < much.len());
        file.write_all(&much[first..]).unwrap();
        let mut file = File::open(folder.at("f")).unwrap();
        let mut got = vec![0; much.len()];
        file.read_exact(&mut got).unwrap();
        assert!(got == much);
        file.rewind().unwrap();
        let mut got = vec![7];
        assert_eq!(file.read_to_end(&mut got).unwrap(), much.len());
        assert!(got[0] == 7 && got[1..] == much);
    });
}

/// A file that can be made to wait: a pipe's end.
fn slow() -> (File, std::io::PipeReader) {
    let (reader, writer) = std::io::pipe().unwrap();
    (File::from(std::fs::File::from(OwnedFd::from(writer))), reader)
}

#[test]
fn a_killed_write_is_written_and_before_the_next() {
    fresh(|| {
        let (file, mut reader) = slow();
        let file = Arc::new(file);
        let theirs = file.clone();
        let writer = spawn(move || {
            // More than the pipe holds.
            let killed = catch_kill(|| (&*theirs).write(&[b'a'; 200_000])).is_err();
            // One that cleans up does not overtake the write that it left.
            (&*theirs).write_all(b"b").unwrap();
            killed
        });
        yield_now(); // it waits
        let next = spawn(move || (&*file).write_all(b"c"));
        yield_now(); // in line
        writer.kill();
        let reader = spawn(move || {
            threadpool::unblock(move || {
                let mut all = Vec::new();
                reader.read_to_end(&mut all).map(|_| all)
            })
        });
        assert!(writer.join().unwrap());
        next.join().unwrap().unwrap();
        let all = reader.join().unwrap().unwrap();
        assert_eq!(all.len(), 200_002);
        let (many, two) = all.split_at(200_000);
        assert!(many.iter().all(|byte| *byte == b'a'));
        assert_eq!(two, b"cb", "in the order of coming");
    });
}

#[test]
fn a_file_that_waits_keeps_nobody_else() {
    fresh(|| {
        let (file, mut reader) = slow();
        let waiter = spawn(move || {
            let file = file;
            (&file).write_all(&[0; 100_000]).map(|()| file.metadata().is_ok())
        });
        yield_now(); // it waits
        assert!(fs::metadata("Cargo.toml").unwrap().is_file());
        assert!(!waiter.is_finished());
        let reading = std::thread::spawn(move || std::io::copy(&mut reader, &mut std::io::sink()).unwrap());
        assert!(waiter.join().unwrap().unwrap());
        assert_eq!(reading.join().unwrap(), 100_000);
    });
}

#[test]
fn one_who_waits_for_the_turn_can_be_killed() {
    fresh(|| {
        let (file, mut reader) = slow();
        let file = Arc::new(file);
        let (first, second) = (file.clone(), file.clone());
        let first = spawn(move || (&*first).write_all(&[1; 100_000]));
        yield_now(); // it waits
        let second = spawn(move || (&*second).write_all(&[2; 10]));
        yield_now(); // in line
        second.kill();
        assert!(second.join().unwrap_err().is_killed());
        let reading = std::thread::spawn(move || {
            let mut all = Vec::new();
            reader.read_to_end(&mut all).map(|_| all)
        });
        first.join().unwrap().unwrap();
        (&*file).write_all(&[3]).unwrap();
        drop(file);
        let all = reading.join().unwrap().unwrap();
        assert!(all.len() == 100_001 && all.last() == Some(&3));
        assert!(greenthread::timeout(secs(50), || fs::exists("Cargo.toml")).is_ok());
    });
}

/// More FIFOs than a pool has OS threads, each with a reader first and then a writer; and in between a file.
#[test]
fn fifos_that_wait_for_their_other_end_keep_no_file_waiting() {
    fresh(|| {
        let folder = Folder::new("fifos");
        let paths: Vec<_> = (0..threadpool::MAX + 8).map(|n| folder.at(&n.to_string())).collect();
        let made = std::process::Command::new("mkfifo").args(&paths).status().unwrap();
        assert!(made.success());
        let readers = paths.iter().cloned().map(|path| {
            spawn(move || {
                let mut text = String::new();
                File::open(path).unwrap().read_to_string(&mut text).unwrap();
                text
            })
        });
        let readers: Vec<_> = readers.collect();
        (0..60).for_each(|_| yield_now());
        fs::write(folder.at("file"), "at once").unwrap();
        assert_eq!(fs::read_to_string(folder.at("file")).unwrap(), "at once");
        let files: Vec<_> = paths
            .iter()
            .map(|path| OpenOptions::new().write(true).open(path).unwrap())
            .collect();
        // All readers read by now, and wait for bytes.
        assert_eq!(fs::read_to_string(folder.at("file")).unwrap(), "at once");
        for mut file in files {
            file.write_all(b"late").unwrap();
        }
        assert!(readers.into_iter().all(|reader| reader.join().unwrap() == "late"));
    });
}

#[test]
fn slow_jobs_keep_no_file_and_no_name_waiting() {
    fresh(|| {
        let (gate, open) = std::sync::mpsc::channel::<()>();
        let open = Arc::new(std::sync::Mutex::new(open));
        let slow: Vec<_> = (0..threadpool::MAX + 8)
            .map(|_| {
                let open = open.clone();
                threadpool::to_thread(move || open.lock().unwrap().recv().is_err())
            })
            .collect();
        // While all of the pool's OS threads wait for the gate.
        assert!(!fs::read("/proc/self/comm").unwrap().is_empty());
        assert!(greenthread::dns::lookup_host("localhost", 80).is_ok());
        assert!(!slow.iter().any(threadpool::PoolFuture::is_done));
        drop(gate);
        assert!(slow.into_iter().all(|job| job.wait().unwrap()));
    });
}
