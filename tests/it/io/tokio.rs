//! Our sockets and files in tokio's I/O traits, without tokio's runtime.

use std::io::SeekFrom;

use greenthread::fs::File;
use greenthread::future::block_on;
use greenthread::net::{TcpListener, TcpStream};
use greenthread::{spawn_local, yield_now};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncSeekExt, AsyncWriteExt, BufReader, copy};

use crate::support::fresh::fresh;

#[test]
fn lines_are_echoed_by_split_halves_and_copy() {
    fresh(|| {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let server = spawn_local(move || {
            let (stream, _) = block_on(listener.accept_async()).unwrap();
            let (mut reader, mut writer) = tokio::io::split(stream);
            block_on(async {
                let copied = tokio::io::copy(&mut reader, &mut writer).await.unwrap();
                writer.shutdown().await.unwrap();
                copied
            })
        });
        let (reader, mut writer) = tokio::io::split(TcpStream::connect(address).unwrap());
        let sender = spawn_local(move || {
            block_on(async {
                for n in 0..100 {
                    writer.write_all(format!("line {n}\n").as_bytes()).await.unwrap();
                    yield_now();
                }
                writer.shutdown().await.unwrap();
            });
        });
        let mut lines = BufReader::new(reader).lines();
        block_on(async {
            for n in 0..100 {
                assert_eq!(lines.next_line().await.unwrap().unwrap(), format!("line {n}"));
            }
            assert_eq!(lines.next_line().await.unwrap(), None);
        });
        sender.join().unwrap();
        assert!(server.join().unwrap() > 100);
    });
}

#[test]
fn a_big_buffer_is_filled_by_several_reads_and_none_is_lost() {
    fresh(|| {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let bytes: Vec<u8> = (0..3_000_000_u32).map(|n| (n / 7) as u8).collect();
        let sent = bytes.clone();
        let sender = spawn_local(move || {
            let (mut stream, _) = listener.accept().unwrap();
            block_on(stream.write_all(&sent)).unwrap();
        });
        let mut stream = TcpStream::connect(address).unwrap();
        let mut got = Vec::with_capacity(4_000_000);
        block_on(stream.read_to_end(&mut got)).unwrap();
        sender.join().unwrap();
        assert!(got == bytes);
    });
}

#[test]
fn files_are_copied_and_sought() {
    fresh(|| {
        let path = |name| std::env::temp_dir().join(format!("greenthread-tokio-{name}-{}", std::process::id()));
        let (from, to) = (path("from"), path("to"));
        std::fs::write(&from, [7; 500_000]).unwrap();
        let mut reader = File::open(&from).unwrap();
        let mut writer = File::options();
        let mut writer = writer.read(true).write(true).create(true).open(&to).unwrap();
        block_on(async {
            assert_eq!(copy(&mut reader, &mut writer).await.unwrap(), 500_000);
            writer.shutdown().await.unwrap();
            assert_eq!(writer.seek(SeekFrom::End(-2)).await.unwrap(), 499_998);
            let mut rest = Vec::new();
            writer.read_to_end(&mut rest).await.unwrap();
            assert_eq!(rest, [7, 7]);
        });
        assert!(std::fs::read(&to).unwrap() == [7; 500_000]);
        [from, to].iter().for_each(|path| std::fs::remove_file(path).unwrap());
    });
}
