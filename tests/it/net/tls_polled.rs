//! TLS that is polled: the async crates' traits on `TlsStream` and `TlsConnection`, and handshakes that are awaited.

use std::future::poll_fn;
use std::io::{self, ErrorKind};
use std::pin::Pin;
use std::task::Poll;

use futures::future::{join, try_join};
use futures::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use greenthread::future::{block_on, spawn};
use greenthread::net::UnixStream;
use greenthread::net::tls::TlsStream;
use greenthread::server::TlsConnection;
use greenthread::time;

use crate::support::fresh::{fresh, ms, secs, virtually};
use crate::support::tls::{client_config, server_config};

type Stream = TlsStream<UnixStream>;

/// A client and a server, past their handshake.
fn pair() -> (Stream, Stream) {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let client = TlsStream::connect_async(client_config(true), "localhost", ours, secs(20));
    let server = TlsStream::accept_async(server_config(), theirs, secs(20));
    block_on(try_join(client, server)).unwrap()
}

fn megabyte() -> Vec<u8> {
    (0..1_000_000_u32).map(|n| (n % 251) as u8).collect()
}

/// Sends back what comes, until the end.
async fn echo(mut stream: impl AsyncRead + AsyncWrite + Unpin) -> io::Result<usize> {
    let (mut all, mut buffer) = (0, [0; 5000]);
    loop {
        match stream.read(&mut buffer).await? {
            0 => break,
            len => stream.write_all(&buffer[..len]).await?,
        }
        stream.flush().await?;
        all += buffer.len().min(1);
    }
    stream.close().await?;
    Ok(all)
}

#[test]
fn a_megabyte_comes_back_and_both_say_good_bye() {
    fresh(|| {
        let (client, server) = pair();
        let server = spawn(echo(server));
        let (mut reader, mut writer) = client.split();
        let sent = megabyte();
        let writes = async {
            writer.write_all(&sent).await.unwrap();
            writer.close().await.unwrap();
        };
        let mut got = Vec::new();
        let (read, ()) = block_on(join(reader.read_to_end(&mut got), writes));
        assert_eq!(read.unwrap(), sent.len(), "to the good-bye");
        assert!(got == sent);
        assert!(server.join().unwrap().unwrap() > 0);
    });
}

#[test]
fn a_connection_is_read_by_one_task_and_written_by_another() {
    fresh(|| {
        let (client, server) = pair();
        let server = spawn(echo(TlsConnection::new(server)));
        let client = TlsConnection::new(client);
        let (mut writer, sent) = (client.clone(), megabyte());
        let wanted = sent.clone();
        let writes = spawn(async move {
            writer.write_all(&sent).await?;
            writer.close().await
        });
        let mut reader = client;
        let mut got = Vec::new();
        block_on(reader.read_to_end(&mut got)).unwrap();
        assert!(got == wanted);
        writes.join().unwrap().unwrap();
        assert!(server.join().unwrap().unwrap() > 0);
    });
}

#[cfg(feature = "tokio-io")]
#[test]
fn tokios_copy_and_lines_run_over_it() {
    use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, copy, split};
    fresh(|| {
        let (client, server) = pair();
        let server = spawn(async {
            let (mut reader, mut writer) = split(server);
            let copied = copy(&mut reader, &mut writer).await.unwrap();
            writer.shutdown().await.unwrap();
            copied
        });
        let (reader, mut writer) = split(client);
        let sender = spawn(async move {
            for n in 0..100 {
                writer.write_all(format!("line {n}\n").as_bytes()).await.unwrap();
            }
            writer.shutdown().await.unwrap();
        });
        block_on(async {
            let mut lines = BufReader::new(reader).lines();
            for n in 0..100 {
                assert_eq!(lines.next_line().await.unwrap().unwrap(), format!("line {n}"));
            }
            assert_eq!(lines.next_line().await.unwrap(), None);
        });
        sender.join().unwrap();
        assert!(server.join().unwrap() > 100);
    });
}

/// One poll of a write; none if the stream has no room.
fn put(stream: &mut (impl AsyncWrite + Unpin), data: &[u8]) -> Option<usize> {
    block_on(poll_fn(|context| {
        match Pin::new(&mut *stream).poll_write(context, data) {
            Poll::Ready(taken) => Poll::Ready(Some(taken.unwrap())),
            Poll::Pending => Poll::Ready(None),
        }
    }))
}

/// Fills the stream, of which the other end reads nothing; then what the polls have taken comes once, in order.
fn what_was_taken_comes_once<W>(mut writer: W, mut reader: Stream)
where
    W: AsyncWrite + Unpin + 'static,
{
    let mut sent = Vec::new();
    for letter in (b'a'..=b'z').cycle().take(1000) {
        match put(&mut writer, &[letter; 30_000]) {
            Some(taken) => sent.extend_from_slice(&[letter; 30_000][..taken]),
            None => break,
        }
    }
    assert!(
        sent.len() > 30_000 && sent.len() < 20_000_000,
        "it fills: {}",
        sent.len()
    );
    assert_eq!(put(&mut writer, b"not taken"), None);
    let closes = spawn(async move { writer.close().await });
    let mut got = Vec::new();
    block_on(reader.read_to_end(&mut got)).unwrap();
    assert!(got == sent);
    closes.join().unwrap().unwrap();
}

#[test]
fn polls_that_find_no_room_lose_and_repeat_nothing() {
    fresh(|| {
        let (client, server) = pair();
        what_was_taken_comes_once(client, server);
        let (client, server) = pair();
        what_was_taken_comes_once(TlsConnection::new(client), server);
    });
}

#[test]
fn a_peer_that_goes_without_a_word_is_an_error() {
    fresh(|| {
        // One byte goes to the client first: a drop with unread input, such as session tickets, would reset.
        fn lost(mut client: Stream, mut server: impl AsyncRead + AsyncWrite + Unpin) -> ErrorKind {
            block_on(async {
                server.write_all(b"x").await.unwrap();
                server.flush().await.unwrap();
                client.read_exact(&mut [0]).await.unwrap();
                drop(client);
                server.read(&mut [0]).await.unwrap_err().kind()
            })
        }
        let (client, server) = pair();
        assert_eq!(lost(client, server), ErrorKind::UnexpectedEof);
        let (client, server) = pair();
        assert_eq!(lost(client, TlsConnection::new(server)), ErrorKind::UnexpectedEof);
    });
}

#[test]
fn handshakes_that_fail_are_told_and_those_that_never_come_are_late() {
    virtually(|| {
        let (mut ours, theirs) = UnixStream::pair().unwrap();
        let server = spawn(TlsStream::accept_async(server_config(), theirs, secs(20)));
        block_on(ours.write_all(b"GET / HTTP/1.1\r\n\r\n")).unwrap();
        assert_eq!(server.join().unwrap().unwrap_err().kind(), ErrorKind::InvalidData);
        let mut alert = Vec::new();
        block_on(ours.read_to_end(&mut alert)).unwrap();
        assert_eq!(alert.first(), Some(&21), "an alert: {alert:?}");

        let (ours, theirs) = UnixStream::pair().unwrap();
        let server = spawn(TlsStream::accept_async(server_config(), theirs, secs(20)));
        drop(ours);
        assert_eq!(server.join().unwrap().unwrap_err().kind(), ErrorKind::UnexpectedEof);

        let (ours, theirs) = UnixStream::pair().unwrap();
        let start = time::now();
        let late = block_on(TlsStream::accept_async(server_config(), theirs, ms(500))).unwrap_err();
        assert_eq!((late.kind(), time::now() - start), (ErrorKind::TimedOut, ms(500)));
        drop(ours);
    });
}
