//! One loop over an edge-triggered epoll, without threads of any kind: what an echo server can cost at least.

use std::io::{Error, ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsRawFd, RawFd};

use peers::{Args, unsupported};

pub(crate) fn main(args: Args) {
    match args.workload.as_str() {
        "echo" => serve(args.port()).expect("an echo server"),
        other => unsupported(other),
    }
}

fn serve(port: u16) -> Result<(), Error> {
    let listener = TcpListener::bind(("127.0.0.1", port))?;
    listener.set_nonblocking(true)?;
    // SAFETY: no pointers.
    let epoll = unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) };
    add(epoll, listener.as_raw_fd())?;
    let mut streams: Vec<Option<TcpStream>> = Vec::new(); // by descriptor
    let mut events = [libc::epoll_event { events: 0, u64: 0 }; 1024];
    let mut buffer = [0; 4096];
    loop {
        // SAFETY: as many events as are said.
        let n = unsafe { libc::epoll_wait(epoll, events.as_mut_ptr(), events.len() as i32, -1) };
        for event in &events[..n.max(0) as usize] {
            let fd = event.u64 as RawFd;
            if fd == listener.as_raw_fd() {
                while let Ok((stream, _)) = listener.accept() {
                    stream.set_nonblocking(true)?;
                    stream.set_nodelay(true)?;
                    add(epoll, stream.as_raw_fd())?;
                    let at = stream.as_raw_fd() as usize;
                    streams.resize_with(streams.len().max(at + 1), || None);
                    streams[at] = Some(stream);
                }
            } else if let Some(stream) = &streams[fd as usize]
                && !echo(stream, &mut buffer)
            {
                streams[fd as usize] = None;
            }
        }
    }
}

fn add(epoll: RawFd, fd: RawFd) -> Result<(), Error> {
    let mut event = libc::epoll_event {
        events: (libc::EPOLLIN | libc::EPOLLRDHUP | libc::EPOLLET) as u32,
        u64: fd as u64,
    };
    // SAFETY: the event is there during the call.
    match unsafe { libc::epoll_ctl(epoll, libc::EPOLL_CTL_ADD, fd, &mut event) } {
        0 => Ok(()),
        _ => Err(Error::last_os_error()),
    }
}

/// Echoes what there is; false at the end. A short read has drained the socket.
fn echo(mut stream: &TcpStream, buffer: &mut [u8]) -> bool {
    loop {
        match stream.read(buffer) {
            Ok(0) => return false,
            Ok(n) if stream.write_all(&buffer[..n]).is_err() => return false,
            Ok(n) if n < buffer.len() => return true,
            Ok(_) => {}
            Err(error) => return error.kind() == ErrorKind::WouldBlock,
        }
    }
}
