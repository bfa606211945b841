//! Reads, writes, children, files, jobs and servers that are cut short at each of their parks: no byte is lost,
//! doubled or torn, and those that go on with the same stream get what is theirs.
//!
//! `kth [NAME..]`; MOST is the most parks that are tried
#![forbid(unsafe_code)]

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::convert::Infallible;
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::process::ExitCode;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use cases::aim::{Aim, Scenario, cut_everywhere};
use cases::flood::{client_config, server_config};
use cases::os::set_option;
use cases::{Verdict, is_short, ms};
use greenthread::aio;
use greenthread::http::HttpServer;
use greenthread::io::{Reader, Writer};
use greenthread::net::tls::TlsStream;
use greenthread::net::{TcpListener, TcpStream, UnixStream};
use greenthread::process::{Command, Stdio};
use greenthread::server::TlsConnection;
use greenthread::{fs, monkey, sleep, spawn, spawn_local, thread, threadpool, yield_now};
use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper::{Request, Response};

/// A byte of a stream by its place.
fn byte(at: usize) -> u8 {
    (at.wrapping_mul(2_654_435_761) >> 7) as u8
}
fn bytes(from: usize, len: usize) -> Vec<u8> {
    (from..from + len).map(byte).collect()
}
fn same(what: &str, got: &[u8], from: usize) -> Result<(), String> {
    match got.iter().enumerate().find(|(i, b)| **b != byte(from + i)) {
        Some((i, _)) => Err(format!("{what}: wrong byte at {} of {}", from + i, got.len())),
        None => Ok(()),
    }
}

const N: usize = 3000;

/// Slow writer of N bytes in small pieces.
fn drip(mut s: impl Write + 'static) -> greenthread::JoinHandle<()> {
    spawn_local(move || {
        let all = bytes(0, N);
        for piece in all.chunks(250) {
            if s.write_all(piece).is_err() {
                return;
            }
            sleep(Duration::from_micros(500));
        }
    })
}

fn tcp_pair() -> (TcpStream, TcpStream) {
    let l = TcpListener::bind("127.0.0.1:0").unwrap();
    let a = l.local_addr().unwrap();
    let h = spawn_local(move || l.accept().unwrap().0);
    let c = TcpStream::connect(a).unwrap();
    (c, h.join().unwrap())
}

/// The same with small buffers of the kernel's.
fn narrow_pair() -> (TcpStream, TcpStream) {
    let (a, b) = tcp_pair();
    for socket in [&a, &b] {
        for option in [libc::SO_SNDBUF, libc::SO_RCVBUF] {
            set_option(&socket.as_fd(), option, 20_000);
        }
    }
    (a, b)
}

fn read(aim: &Arc<Aim>) -> Result<bool, String> {
    let (a, b) = tcp_pair();
    let d = drip(a);
    let b = Rc::new(b);
    let got = Rc::new(RefCell::new(Vec::new()));
    let (b2, g2) = (b.clone(), got.clone());
    let f = move || loop {
        let mut x = [0; 100];
        let n = (&*b2).read(&mut x).unwrap();
        if n == 0 {
            return;
        }
        g2.borrow_mut().extend_from_slice(&x[..n]);
    };
    let whole = aim.run(f).is_some();
    let mut rest = Vec::new();
    (&*b).read_to_end(&mut rest).map_err(|e| e.to_string())?;
    d.join().unwrap();
    let mut all = got.take();
    all.extend_from_slice(&rest);
    same("read", &all, 0)?;
    if all.len() != N {
        return Err(format!("read: {} of {N}", all.len()));
    }
    Ok(whole)
}

fn reader(aim: &Arc<Aim>) -> Result<bool, String> {
    let (a, b) = tcp_pair();
    let d = drip(a);
    let r = Rc::new(RefCell::new(Reader::with_limit(4096, b)));
    let got = Rc::new(RefCell::new(Vec::new()));
    let (r2, g2) = (r.clone(), got.clone());
    let whole = aim
        .run(move || {
            for i in 0..10 {
                let len = 100 + i * 37;
                if g2.borrow().len() + len > N {
                    break;
                }
                let part = r2.borrow_mut().read_exactly(len).unwrap();
                g2.borrow_mut().extend_from_slice(&part);
            }
        })
        .is_some();
    let mut rest = Vec::new();
    r.borrow_mut().read_to_end(&mut rest).map_err(|e| e.to_string())?;
    d.join().unwrap();
    let mut all = got.take();
    all.extend_from_slice(&rest);
    same("reader", &all, 0)?;
    if all.len() != N {
        return Err(format!("reader: {} of {N}", all.len()));
    }
    Ok(whole)
}

const BIG: usize = 1_000_000;

/// Reads slowly until the end.
fn sip(mut s: impl Read + 'static) -> greenthread::JoinHandle<Vec<u8>> {
    spawn_local(move || {
        let mut all = Vec::new();
        let mut x = vec![0; 50_000];
        loop {
            sleep(Duration::from_micros(300));
            match s.read(&mut x) {
                Ok(0) => return all,
                Ok(n) => all.extend_from_slice(&x[..n]),
                Err(_) => return all,
            }
        }
    })
}

fn write(aim: &Arc<Aim>) -> Result<bool, String> {
    let (a, b) = narrow_pair();
    let h = sip(b);
    let told = Rc::new(Cell::new(0));
    let (a, t2) = (Rc::new(a), told.clone());
    let a2 = a.clone();
    let whole = aim
        .run(move || {
            let all = bytes(0, BIG);
            while t2.get() < BIG {
                t2.set(t2.get() + (&*a2).write(&all[t2.get()..]).unwrap());
            }
        })
        .is_some();
    // What write told is what has gone; go on from there.
    let all = bytes(0, BIG);
    (&*a).write_all(&all[told.get()..]).map_err(|e| e.to_string())?;
    drop(a);
    let got = h.join().unwrap();
    same("write", &got, 0)?;
    if got.len() != BIG {
        return Err(format!("write: {} of {BIG}", got.len()));
    }
    Ok(whole)
}

fn writer(aim: &Arc<Aim>) -> Result<bool, String> {
    let (a, b) = narrow_pair();
    let h = sip(b);
    let w = Rc::new(RefCell::new(Writer::with_limit(50_000, a)));
    let put = Rc::new(Cell::new(0));
    let (w2, p2) = (w.clone(), put.clone());
    let whole = aim
        .run(move || {
            let all = bytes(0, BIG);
            while p2.get() < BIG {
                let n = w2
                    .borrow_mut()
                    .write(&all[p2.get()..(p2.get() + 10_000).min(BIG)])
                    .unwrap();
                p2.set(p2.get() + n);
                w2.borrow_mut().drain().unwrap();
            }
        })
        .is_some();
    let all = bytes(0, BIG);
    w.borrow_mut().write_all(&all[put.get()..]).map_err(|e| e.to_string())?;
    w.borrow_mut().flush().map_err(|e| e.to_string())?;
    drop(w);
    let got = h.join().unwrap();
    same("writer", &got, 0)?;
    if got.len() != BIG {
        return Err(format!("writer: {} of {BIG} (put {})", got.len(), put.get()));
    }
    Ok(whole)
}

fn tls_pair() -> (TlsStream<TcpStream>, TlsStream<TcpStream>) {
    let (a, b) = narrow_pair();
    let h = spawn_local(move || TlsStream::accept(server_config(), b, ms(20_000)).unwrap());
    let mut a = TlsStream::connect(client_config(), "localhost", a, ms(20_000)).unwrap();
    let mut b = h.join().unwrap();
    // The session tickets are read away, so that no close resets.
    b.write_all(b"!").unwrap();
    a.read_exact(&mut [0]).unwrap();
    (a, b)
}

fn tls_read(aim: &Arc<Aim>) -> Result<bool, String> {
    let (mut a, b) = tls_pair();
    let d = spawn_local(move || {
        for piece in bytes(0, N).chunks(250) {
            a.write_all(piece).unwrap();
            sleep(Duration::from_micros(500));
        }
        a.close().unwrap();
    });
    let b = Rc::new(RefCell::new(b));
    let got = Rc::new(RefCell::new(Vec::new()));
    let (b2, g2) = (b.clone(), got.clone());
    let whole = aim
        .run(move || {
            loop {
                let mut x = [0; 100];
                let n = b2.borrow_mut().read(&mut x).unwrap();
                if n == 0 {
                    return;
                }
                g2.borrow_mut().extend_from_slice(&x[..n]);
            }
        })
        .is_some();
    let mut all = got.take();
    b.borrow_mut().read_to_end(&mut all).map_err(|e| e.to_string())?;
    d.join().unwrap();
    same("tls read", &all, 0)?;
    if all.len() != N {
        return Err(format!("tls read: {} of {N}", all.len()));
    }
    Ok(whole)
}

fn tls_write(aim: &Arc<Aim>) -> Result<bool, String> {
    let (a, b) = tls_pair();
    let h = sip(b);
    let a = Rc::new(RefCell::new(a));
    let put = Rc::new(Cell::new(0));
    let (a2, p2) = (a.clone(), put.clone());
    let whole = aim
        .run(move || {
            let all = bytes(0, BIG);
            while p2.get() < BIG {
                let n = a2.borrow_mut().write(&all[p2.get()..]).unwrap();
                p2.set(p2.get() + n);
            }
        })
        .is_some();
    let put = put.get();
    // What a cut write had taken is not known to its caller: a marker of position is needed, as for any stream. Go on
    // from what was told, and see what comes.
    let all = bytes(0, BIG);
    let mut a = Rc::into_inner(a).unwrap().into_inner();
    a.flush().map_err(|e| e.to_string())?;
    a.write_all(&all[put..]).map_err(|e| e.to_string())?;
    a.close().map_err(|e| e.to_string())?;
    let got = h.join().unwrap();
    let prefix = got.iter().zip(&all).take_while(|(a, b)| a == b).count();
    if got.len() == BIG && prefix == BIG {
        return Ok(whole);
    }
    // Some of the cut write went out though it told nothing.
    let extra = got.len() as i64 - BIG as i64;
    Err(format!(
        "tls write: told {put}, got {} ({extra} more), right up to {prefix}",
        got.len()
    ))
}

fn tls_halves(aim: &Arc<Aim>) -> Result<bool, String> {
    let (a, b) = tls_pair();
    let a = TlsConnection::new(a);
    let h = sip(TlsConnection::new(b));
    let put = Rc::new(Cell::new(0));
    let (mut a2, p2) = (a.clone(), put.clone());
    let whole = aim
        .run(move || {
            let all = bytes(0, BIG);
            while p2.get() < BIG {
                let n = a2.write(&all[p2.get()..]).unwrap();
                p2.set(p2.get() + n);
            }
        })
        .is_some();
    let all = bytes(0, BIG);
    let put = put.get();
    let mut a = a;
    a.flush().map_err(|e| e.to_string())?;
    a.write_all(&all[put..]).map_err(|e| e.to_string())?;
    greenthread::server::Connection::finish(&a).map_err(|e| e.to_string())?;
    drop(a);
    let got = h.join().unwrap();
    let prefix = got.iter().zip(&all).take_while(|(a, b)| a == b).count();
    if got.len() == BIG && prefix == BIG {
        return Ok(whole);
    }
    Err(format!(
        "tls halves: told {put}, got {} ({} more), right up to {prefix}",
        got.len(),
        got.len() as i64 - BIG as i64
    ))
}

fn process(aim: &Arc<Aim>) -> Result<bool, String> {
    let child = Command::new("sh")
        .args(["-c", "cat; exit 3"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .map_err(|e| e.to_string())?;
    let child = Rc::new(RefCell::new(child));
    let c2 = child.clone();
    let input = bytes(0, 400_000);
    let i2 = input.clone();
    let whole = aim
        .run(move || c2.borrow_mut().communicate(&i2).unwrap())
        .map(|o| (o.stdout, o.status.code()));
    let (out, code) = match &whole {
        Some(o) => o.clone(),
        None => {
            let begun = child.borrow_mut().communicate(&[]);
            let o = begun.map_err(|e| e.to_string())?;
            if o.stdout.is_empty() {
                return Ok(false);
            } // cut before its input was taken
            (o.stdout, o.status.code())
        }
    };
    same("process", &out, 0)?;
    if out.len() != input.len() || code != Some(3) {
        return Err(format!("process: {} of {} code {code:?}", out.len(), input.len()));
    }
    Ok(whole.is_some())
}

fn output(aim: &Arc<Aim>) -> Result<bool, String> {
    let whole = aim.run(|| {
        Command::new("sh")
            .args(["-c", "echo a; sleep 0.003; echo b"])
            .output()
            .unwrap()
            .stdout
    });
    if let Some(out) = &whole
        && out != b"a\nb\n"
    {
        return Err(format!("output: {out:?}"));
    }
    Ok(whole.is_some())
}

fn http_handler(aim: &Arc<Aim>) -> Result<bool, String> {
    let their_aim = aim.clone();
    let used = Arc::new(AtomicUsize::new(0));
    let inside = Arc::new(AtomicUsize::new(0));
    struct In(Arc<AtomicUsize>);
    impl Drop for In {
        fn drop(&mut self) {
            self.0.fetch_sub(1, SeqCst);
        }
    }
    let (u, i) = (used.clone(), inside.clone());
    let server = HttpServer::new(
        TcpListener::bind("127.0.0.1:0").unwrap(),
        service_fn(move |request: Request<Incoming>| {
            let (aim, u, i) = (their_aim.clone(), u.clone(), i.clone());
            async move {
                i.fetch_add(1, SeqCst);
                let _in = In(i);
                if request.uri().path() == "/victim" && u.fetch_add(1, SeqCst) == 0 {
                    aim.at(thread::current());
                }
                let body = request
                    .into_body()
                    .collect()
                    .await
                    .map(|b| b.to_bytes())
                    .unwrap_or_default();
                sleep(Duration::from_micros(200));
                threadpool::unblock(|| ());
                sleep(Duration::from_micros(200));
                Ok::<_, Infallible>(Response::new(Full::<Bytes>::from(body)))
            }
        }),
    );
    server.start().unwrap();
    let address = server.local_addr().unwrap();
    let ask = move |path: &str, slow: bool, tag: u8| -> io::Result<Vec<u8>> {
        let mut s = TcpStream::connect(address)?;
        s.set_read_timeout(Some(Duration::from_secs(5)))?;
        write!(
            s,
            "POST {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: 40\r\n\r\n"
        )?;
        for _ in 0..4 {
            s.write_all(&[tag; 10])?;
            if slow {
                sleep(Duration::from_micros(300));
            }
        }
        let mut all = Vec::new();
        s.read_to_end(&mut all)?;
        Ok(all)
    };
    let others: Vec<_> = (0..3_u8)
        .map(|n| spawn_local(move || ask("/", false, b'a' + n)))
        .collect();
    let victim = spawn_local(move || ask("/victim", true, b'v')).join().unwrap();
    for (n, o) in others.into_iter().enumerate() {
        let o = o.join().unwrap().map_err(|e| format!("another: {e}"))?;
        if !o.ends_with(&[b'a' + n as u8; 40]) || !o.starts_with(b"HTTP/1.1 200") {
            return Err(String::from("another got something else"));
        }
    }
    let whole = matches!(&victim, Ok(v) if v.starts_with(b"HTTP/1.1 200") && v.ends_with(&[b'v'; 40]));
    if !whole
        && let Ok(v) = &victim
        && v.starts_with(b"HTTP/1.1 200")
    {
        return Err(format!("half an answer: {:?}", String::from_utf8_lossy(v)));
    }
    let again = ask("/", false, b'z').map_err(|e| format!("after: {e}"))?;
    if !again.ends_with(&[b'z'; 40]) {
        return Err(String::from("after: another answer"));
    }
    let live = server.handle().live();
    let stopped = server.stop(Duration::from_secs(2));
    if inside.load(SeqCst) != 0 {
        return Err(format!("{} handlers not dropped", inside.load(SeqCst)));
    }
    if stopped.killed > 0 {
        return Err(format!("{stopped:?} live {live}"));
    }
    Ok(whole)
}

fn task_group(aim: &Arc<Aim>) -> Result<bool, String> {
    let ended = Arc::new(AtomicUsize::new(0));
    struct Ends(Arc<AtomicUsize>);
    impl Drop for Ends {
        fn drop(&mut self) {
            self.0.fetch_add(1, SeqCst);
        }
    }
    let e2 = ended.clone();
    let began = Arc::new(AtomicUsize::new(0));
    let b2 = began.clone();
    let task = aim.run_send(move || {
        let r = aio::TaskGroup::run(|group| {
            for n in 0..4_u64 {
                let (e, b) = (e2.clone(), b2.clone());
                group.create_task(aio::green(move || {
                    b.fetch_add(1, SeqCst);
                    let _e = Ends(e);
                    sleep(Duration::from_micros(300 * n));
                    n
                }));
                sleep(Duration::from_micros(200));
            }
        });
        // All of them have ended here, also when it unwinds (checked outside).
        r.is_ok()
    });
    let (b, e) = (began.load(SeqCst), ended.load(SeqCst));
    if b != e {
        return Err(format!("task group: {b} began, {e} had ended when the parent had"));
    }
    match task {
        Some(false) => Err(String::from("task group: an error without one")),
        Some(true) => Ok(true),
        None => Ok(false),
    }
}

fn files(aim: &Arc<Aim>) -> Result<bool, String> {
    let path = std::env::temp_dir().join(format!("cases-kth-{}", std::process::id()));
    let told = Arc::new(AtomicUsize::new(0));
    let t2 = told.clone();
    let f = Rc::new(RefCell::new(fs::File::create(&path).map_err(|e| e.to_string())?));
    let f2 = f.clone();
    let whole = aim
        .run(move || {
            let all = bytes(0, 60_000);
            for (i, piece) in all.chunks(10_000).enumerate() {
                f2.borrow_mut().write_all(piece).unwrap();
                t2.store((i + 1) * 10_000, SeqCst);
            }
            f2.borrow_mut().sync_all().unwrap();
        })
        .is_some();
    // "A killed write is written, and before the next": nothing torn.
    let mut f = Rc::into_inner(f).unwrap().into_inner();
    f.write_all(b"END").map_err(|e| e.to_string())?;
    f.flush().map_err(|e| e.to_string())?;
    drop(f);
    let got = std::fs::read(&path).map_err(|e| e.to_string())?;
    std::fs::remove_file(&path).unwrap();
    if !got.ends_with(b"END") {
        return Err(String::from("files: what was written last is not last"));
    }
    let body = &got[..got.len() - 3];
    same("files", body, 0)?;
    if body.len() < told.load(SeqCst) {
        return Err(format!("files: told {}, there are {}", told.load(SeqCst), body.len()));
    }
    if body.len() % 10_000 != 0 {
        return Err(format!("files: torn: {}", body.len()));
    }
    Ok(whole)
}

fn pool(aim: &Arc<Aim>) -> Result<bool, String> {
    let ran = Arc::new(AtomicUsize::new(0));
    let r2 = ran.clone();
    let whole = aim
        .run_send(move || {
            for _ in 0..5 {
                let r = r2.clone();
                threadpool::unblock(move || {
                    std::thread::sleep(Duration::from_micros(300));
                    r.fetch_add(1, SeqCst);
                });
            }
        })
        .is_some();
    let p = threadpool::ThreadPool::new(1);
    let f = p.submit(|| 5).unwrap();
    if f.wait().ok() != Some(5) {
        return Err(String::from("pool: does not work after"));
    }
    Ok(whole)
}

fn connect(aim: &Arc<Aim>) -> Result<bool, String> {
    let l = TcpListener::bind("127.0.0.1:0").unwrap();
    let a = l.local_addr().unwrap();
    let h = spawn_local(move || {
        let mut n = 0;
        l.set_read_timeout(Some(ms(20))).unwrap();
        while let Ok((mut s, _)) = l.accept() {
            n += 1;
            spawn_local(move || {
                let mut b = [0; 4];
                while s.read(&mut b).unwrap_or(0) > 0 {
                    let _ = s.write_all(b"pong");
                }
            });
        }
        n
    });
    let whole = aim
        .run_send(move || {
            for _ in 0..3 {
                let mut s = TcpStream::connect(("localhost", a.port())).unwrap();
                s.write_all(b"ping").unwrap();
                let mut b = [0; 4];
                s.read_exact(&mut b).unwrap();
                assert_eq!(&b, b"pong");
            }
        })
        .is_some();
    h.join().unwrap();
    Ok(whole)
}

fn std_sockets(aim: &Arc<Aim>) -> Result<bool, String> {
    // Patched std: read_exact is cut, and another goes on.
    let (a, b) = tcp_pair();
    let d = drip(a);
    let b: std::net::TcpStream = b.into();
    let b = Arc::new(b);
    let got = Arc::new(std::sync::Mutex::new(Vec::new()));
    let (b2, g2) = (b.clone(), got.clone());
    let whole = aim.run_send(move || {
        loop {
            let mut x = [0; 100];
            match (&*b2).read(&mut x) {
                Ok(0) => return true,
                Ok(n) => g2.lock().unwrap().extend_from_slice(&x[..n]),
                Err(_) => return false,
            }
        }
    });
    let b3 = b.clone();
    let rest = spawn(move || {
        let mut rest = Vec::new();
        (&*b3).read_to_end(&mut rest).map(|_| rest)
    })
    .join()
    .map_err(|e| e.to_string())?
    .map_err(|e| format!("the next reader: {e}"))?;
    d.join().unwrap();
    let mut all = got.lock().unwrap().clone();
    all.extend_from_slice(&rest);
    same("std", &all, 0)?;
    if all.len() != N {
        return Err(format!("std: {} of {N}", all.len()));
    }
    Ok(whole == Some(true))
}

fn std_write(aim: &Arc<Aim>) -> Result<bool, String> {
    // Patched std write_all is cut in the middle: what has gone is a prefix.
    let (a, b) = narrow_pair();
    let h = sip(b);
    let a: std::net::TcpStream = a.into();
    let a = Arc::new(a);
    let put = Arc::new(AtomicUsize::new(0));
    let (a2, p2) = (a.clone(), put.clone());
    let whole = aim.run_send(move || {
        let all = bytes(0, BIG);
        while p2.load(SeqCst) < BIG {
            match (&*a2).write(&all[p2.load(SeqCst)..]) {
                Ok(n) => {
                    p2.fetch_add(n, SeqCst);
                }
                Err(_) => return false,
            }
        }
        true
    });
    let put = put.load(SeqCst);
    let a3 = a.clone();
    drop(a);
    spawn(move || {
        let all = bytes(0, BIG);
        (&*a3).write_all(&all[put..])
    })
    .join()
    .map_err(|e| e.to_string())?
    .map_err(|e| format!("the next writer: {e}"))?;
    let got = h.join().unwrap();
    let all = bytes(0, BIG);
    let prefix = got.iter().zip(&all).take_while(|(a, b)| a == b).count();
    if got.len() == BIG && prefix == BIG {
        return Ok(whole == Some(true));
    }
    Err(format!(
        "std write: told {put}, got {} ({} more), right up to {prefix}",
        got.len(),
        got.len() as i64 - BIG as i64
    ))
}

fn udp(aim: &Arc<Aim>) -> Result<bool, String> {
    let s = Rc::new(greenthread::net::UdpSocket::bind("127.0.0.1:0").unwrap());
    let c = greenthread::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let a = s.local_addr().unwrap();
    let d = spawn_local(move || {
        for n in 0..20_u8 {
            c.send_to(&[n], a).unwrap();
            if n % 3 == 0 {
                sleep(Duration::from_micros(300));
            }
        }
    });
    let got = Rc::new(RefCell::new(Vec::new()));
    let (s2, g2) = (s.clone(), got.clone());
    let whole = aim
        .run(move || {
            while g2.borrow().len() < 20 {
                let mut b = [0];
                s2.recv_from(&mut b).unwrap();
                g2.borrow_mut().push(b[0]);
            }
        })
        .is_some();
    s.set_read_timeout(Some(ms(30))).unwrap();
    d.join().unwrap();
    let mut all = got.take();
    while all.len() < 20 {
        let mut b = [0];
        match s.recv_from(&mut b) {
            Ok(_) => all.push(b[0]),
            Err(e) => return Err(format!("udp: {e}: {all:?}")),
        }
    }
    if all != (0..20).collect::<Vec<u8>>() {
        return Err(format!("udp: {all:?}"));
    }
    Ok(whole)
}

fn unix(aim: &Arc<Aim>) -> Result<bool, String> {
    // Two readers of one stream; one is cut: the other must be woken for what there is.
    let (a, b) = UnixStream::pair().unwrap();
    let b = Rc::new(b);
    let total = Rc::new(RefCell::new(VecDeque::new()));
    let (b2, t2) = (b.clone(), total.clone());
    let other = spawn_local(move || {
        loop {
            let mut x = [0; 1];
            match (&*b2).read(&mut x) {
                Ok(0) | Err(_) => return,
                Ok(_) => t2.borrow_mut().push_back(x[0]),
            }
        }
    });
    let (b3, t3) = (b.clone(), total.clone());
    let d = spawn_local(move || {
        let mut a = a;
        for n in 0..30_u8 {
            a.write_all(&[n]).unwrap();
            if n % 4 == 0 {
                sleep(Duration::from_micros(200));
            } else {
                yield_now();
            }
        }
    });
    let whole = aim
        .run(move || {
            loop {
                let mut x = [0; 1];
                match (&*b3).read(&mut x) {
                    Ok(0) | Err(_) => return,
                    Ok(_) => t3.borrow_mut().push_back(x[0]),
                }
            }
        })
        .is_some();
    d.join().unwrap();
    let mut o = other;
    if o.join_timeout(Duration::from_secs(2)).is_none() {
        return Err(String::from("unix: the other reader hangs"));
    }
    let mut all: Vec<_> = total.take().into();
    all.sort();
    if all != (0..30).collect::<Vec<u8>>() {
        return Err(format!("unix: {all:?}"));
    }
    Ok(whole)
}

const SCENARIOS: &[(&str, Scenario)] = &[
    ("read", read),
    ("reader", reader),
    ("write", write),
    ("writer", writer),
    ("tls_read", tls_read),
    ("tls_write", tls_write),
    ("tls_halves", tls_halves),
    ("process", process),
    ("output", output),
    ("http_handler", http_handler),
    ("task_group", task_group),
    ("files", files),
    ("pool", pool),
    ("connect", connect),
    ("udp", udp),
    ("unix", unix),
    // These two with patched libc.
    ("std_sockets", std_sockets),
    ("std_write", std_write),
];

fn main() -> ExitCode {
    let wanted: Vec<_> = std::env::args().skip(1).collect();
    let most = std::env::var("MOST").ok().and_then(|most| most.parse().ok());
    let most = most.unwrap_or(if is_short() { 3 } else { 8 });
    std::panic::set_hook(Box::new(|_| ()));
    let mut verdict = Verdict::default();
    for (name, scenario) in SCENARIOS {
        if !wanted.is_empty() && !wanted.iter().any(|wanted| wanted == name) {
            continue;
        }
        if name.starts_with("std") {
            monkey::patch_all().unwrap();
        }
        cut_everywhere(&mut verdict, name, most, *scenario);
    }
    verdict.end()
}
