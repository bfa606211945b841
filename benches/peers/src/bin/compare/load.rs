//! The load for a server: so many connections, each with one request on its way at any time.

use std::fs;
use std::io::{Error, Read, Write};
use std::net::TcpStream;
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

const WARM_UP: Duration = Duration::from_millis(300);

/// What is asked, and how what comes back begins and ends.
pub(crate) struct Dialogue {
    pub(crate) request: &'static [u8],
    pub(crate) begin: &'static [u8],
    pub(crate) end: &'static [u8],
}

/// What comes back is what was sent.
pub(crate) const ECHO: Dialogue = Dialogue {
    request: &[b'x'; 64],
    begin: &[b'x'; 64],
    end: &[],
};

/// A page of few words, on a connection that is kept.
pub(crate) const HTTP: Dialogue = Dialogue {
    request: b"GET / HTTP/1.1\r\nhost: localhost\r\n\r\n",
    begin: b"HTTP/1.1 200 OK\r\n",
    end: b"\r\n\r\nHello, World!",
};

/// How long the load lasts.
#[derive(Clone, Copy)]
pub(crate) enum Span {
    /// So long after the warm-up.
    Time(Duration),
    /// Until so many answers have come, from the first on.
    Requests(usize),
}

/// What was measured, with its name and unit.
pub(crate) type Figure = (&'static str, f64, &'static str);

struct Connection {
    stream: TcpStream,
    dialogue: &'static Dialogue,
    sent: Instant,
    answer: Vec<u8>,
}

/// Loads the server `pid` at `port` for `span`.
pub(crate) fn load(
    dialogue: &'static Dialogue,
    pid: u32,
    port: u16,
    connections: usize,
    span: Span,
) -> Result<Vec<Figure>, Error> {
    // SAFETY: no pointers.
    let epoll = unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) };
    let mut all = (0..connections)
        .map(|i| connect(dialogue, epoll, port, i as u64))
        .collect::<Result<Vec<_>, _>>()?;
    for connection in &mut all {
        connection.ask()?;
    }
    let mut events = vec![libc::epoll_event { events: 0, u64: 0 }; 1024];
    let mut latencies: Vec<u32> = Vec::with_capacity(1 << 20);
    let begin = Instant::now();
    let mut measured: Option<(Instant, u64)> = None;
    let end = loop {
        // SAFETY: as many events as are said.
        let n = unsafe { libc::epoll_wait(epoll, events.as_mut_ptr(), events.len() as i32, 5000) };
        if n <= 0 {
            break Err(Error::other("the server fell silent"));
        }
        for event in &events[..n as usize] {
            let connection = &mut all[event.u64 as usize];
            if let Some(latency) = connection.hear()? {
                connection.ask()?;
                if measured.is_some() {
                    latencies.push(latency.as_nanos() as u32);
                }
            }
        }
        match measured {
            None if begin.elapsed() > span.warm_up() => measured = Some((Instant::now(), cpu_ns(pid))),
            Some((start, cpu)) if span.is_over(start.elapsed(), latencies.len()) => {
                break Ok((start.elapsed(), cpu_ns(pid) - cpu));
            }
            _ => {}
        }
    };
    // SAFETY: it is ours, and not used again.
    unsafe { libc::close(epoll) };
    let (time, cpu) = end?;
    latencies.sort_unstable();
    let at = |quantile: f64| f64::from(latencies[((latencies.len() - 1) as f64 * quantile) as usize]) / 1000.0;
    let requests = latencies.len() as f64;
    Ok(vec![
        ("cpu", cpu as f64 / requests, "ns/req"),
        ("rate", requests / time.as_secs_f64(), "req/s"),
        ("p50", at(0.5), "us"),
        ("p99", at(0.99), "us"),
        ("server_busy", cpu as f64 * 100.0 / time.as_nanos() as f64, "%"),
    ])
}

impl Span {
    fn warm_up(self) -> Duration {
        match self {
            Span::Time(_) => WARM_UP,
            Span::Requests(_) => Duration::ZERO,
        }
    }

    fn is_over(self, passed: Duration, answers: usize) -> bool {
        match self {
            Span::Time(time) => passed > time,
            Span::Requests(count) => answers >= count,
        }
    }
}

fn connect(dialogue: &'static Dialogue, epoll: i32, port: u16, index: u64) -> Result<Connection, Error> {
    let stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.set_nodelay(true)?;
    let mut connection = Connection {
        stream,
        dialogue,
        sent: Instant::now(),
        answer: Vec::with_capacity(4096),
    };
    // one round before the start: each is accepted and served
    connection.stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    connection.ask()?;
    while connection.hear()?.is_none() {}
    connection.stream.set_nonblocking(true)?;
    let mut event = libc::epoll_event {
        events: (libc::EPOLLIN | libc::EPOLLET) as u32,
        u64: index,
    };
    // SAFETY: the event is there during the call.
    match unsafe { libc::epoll_ctl(epoll, libc::EPOLL_CTL_ADD, connection.stream.as_raw_fd(), &mut event) } {
        0 => Ok(connection),
        _ => Err(Error::last_os_error()),
    }
}

impl Connection {
    fn ask(&mut self) -> Result<(), Error> {
        self.sent = Instant::now();
        self.answer.clear();
        self.stream.write_all(self.dialogue.request)
    }

    /// Reads; says how long the answer took, when it is whole.
    fn hear(&mut self) -> Result<Option<Duration>, Error> {
        let mut buffer = [0; 4096];
        match self.stream.read(&mut buffer) {
            Ok(0) => return Err(Error::other("the server closed a connection")),
            Ok(n) => self.answer.extend_from_slice(&buffer[..n]),
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => return Ok(None),
            Err(error) => return Err(error),
        }
        let Dialogue { begin, end, .. } = self.dialogue;
        let common = begin.len().min(self.answer.len());
        if self.answer[..common] != begin[..common] || end.is_empty() && self.answer.len() > begin.len() {
            return Err(Error::other("the server sent something else"));
        }
        let whole = self.answer.len() >= begin.len() && self.answer.ends_with(end);
        Ok(whole.then(|| self.sent.elapsed()))
    }
}

/// The CPU time of all threads of a process: from schedstat, in ns, where the kernel has it.
fn cpu_ns(pid: u32) -> u64 {
    let tasks = fs::read_dir(format!("/proc/{pid}/task"))
        .into_iter()
        .flatten()
        .flatten();
    let on_cpu = |path| {
        fs::read_to_string(path)
            .ok()?
            .split_whitespace()
            .next()?
            .parse::<u64>()
            .ok()
    };
    let exact: u64 = tasks.filter_map(|task| on_cpu(task.path().join("schedstat"))).sum();
    if exact > 0 {
        return exact;
    }
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let fields = stat.rsplit(") ").next().unwrap_or_default();
    let ticks: u64 = fields
        .split_whitespace()
        .skip(11)
        .take(2)
        .filter_map(|t| t.parse::<u64>().ok())
        .sum();
    ticks * 10_000_000
}
