//! What a server does with a TCP connection after its handler: see `net::linger` for the reason.
#![forbid(unsafe_code)]

use std::future::{Future, poll_fn};
use std::net::{Shutdown, TcpStream};
use std::pin::pin;
use std::task::{Context, Poll};

use super::Handle;
use crate::hub::{self, Hub};
use crate::io::Async;
use crate::net::linger::{MOST, Peer, look, read_away};
use crate::time::timeout_async;

/// Closes the socket: now if that loses nothing, else in a task of its own when the peer has ended. It is called by a
/// drop, on any OS thread, and also while that unwinds.
pub(super) fn let_go(server: &Handle, socket: Async<TcpStream>) {
    let Some(patience) = server.patience() else { return };
    let peer = look(socket.get_ref());
    if peer == Peer::Ended {
        return;
    }
    let _ = socket.get_ref().shutdown(Shutdown::Write);
    // A server that stops does not wait for peers that send nothing.
    if peer == Peer::Silent && server.is_closing() {
        return;
    }
    // Without a hub (the OS thread is ending, or has never waited) nothing can wait for the peer.
    if Hub::try_current().is_none() {
        return;
    }
    let Some(lingering) = server.lingers() else { return };
    let server = server.clone();
    let lingers = async move {
        let _ = timeout_async(patience, to_the_end(&server, &socket)).await;
        drop(socket);
        drop(lingering);
    };
    // Spawned as the hub's own work, not as the green thread's: the green thread's thread-locals need not outlive it
    // for this.
    drop(hub::handle().spawn_future(lingers));
}

/// Reads until the peer ends, or has sent too much; once the server closes, until the peer is silent.
async fn to_the_end(server: &Handle, socket: &Async<TcpStream>) {
    let mut closing = pin!(server.closing());
    let mut left = MOST;
    let mut closes = false;
    poll_fn(|context: &mut Context<'_>| {
        closes = closes || closing.as_mut().poll(context).is_ready();
        loop {
            match socket.poll_read_with(context, read_away) {
                Poll::Ready(Ok(len @ 1..)) if len <= left => left -= len,
                Poll::Ready(Ok(_) | Err(_)) => return Poll::Ready(()),
                // The poll may also be pending because the budget is used up: look at the socket itself.
                Poll::Pending if closes && look(socket.get_ref()) != Peer::Sending => return Poll::Ready(()),
                Poll::Pending => return Poll::Pending,
            }
        }
    })
    .await;
}
