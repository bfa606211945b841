//! Our sockets in tokio's I/O traits, without tokio's runtime.

use greenthread::future::block_on;
use greenthread::net::{TcpListener, TcpStream};
use greenthread::{spawn_local, yield_now};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};

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
