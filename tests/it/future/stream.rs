//! Streams of ours in async code: listeners and generators.

use std::io::Read;

use futures::StreamExt;
use greenthread::future::{self, block_on};
use greenthread::generator::Generator;
use greenthread::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use greenthread::{sleep, time};

use crate::support::fresh::{fresh, secs, virtually};

#[test]
fn a_listeners_stream_that_is_dropped_while_it_waits_has_taken_nobody() {
    fresh(|| {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        {
            let mut streams = listener.incoming_async();
            assert!(futures::FutureExt::now_or_never(streams.next()).is_none());
            let client = TcpStream::connect(address).unwrap();
            let mut ours = block_on(streams.next()).unwrap().unwrap();
            drop(client);
            assert_eq!(ours.read(&mut [0]).unwrap(), 0);
            assert!(futures::FutureExt::now_or_never(streams.next()).is_none());
        }
        let client = TcpStream::connect(address).unwrap();
        let (_, peer) = listener.accept().unwrap();
        assert_eq!(peer, client.local_addr().unwrap());
    });
}

#[test]
fn a_unix_listeners_connections_come_as_a_stream() {
    fresh(|| {
        let path = std::env::temp_dir().join(format!("greenthread-stream-{}", std::process::id()));
        let _ = std::fs::remove_file(&path);
        let listener = UnixListener::bind(&path).unwrap();
        let three = future::spawn(async move { listener.incoming_async().take(3).count().await });
        let clients = [(); 3].map(|()| UnixStream::connect(&path).unwrap());
        assert_eq!(three.join().unwrap(), 3);
        drop(clients);
        std::fs::remove_file(&path).unwrap();
    });
}

#[test]
fn a_generator_that_waits_in_its_body_keeps_no_other_task_waiting() {
    virtually(|| {
        let start = time::now();
        let counts = [1, 2].map(|n| {
            let numbers = Generator::new(move |y| {
                for number in 0..n {
                    sleep(secs(1));
                    y.yield_(number);
                }
            });
            future::spawn(async move { numbers.stream().fold(0, async |sum, n| sum + n).await })
        });
        assert_eq!(counts.map(|count| count.join().unwrap()), [0, 1]);
        assert_eq!(time::now() - start, secs(2));
    });
}
