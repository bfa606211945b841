//! An isolated green thread has a resolver state of its own, as each OS thread has (`__resp` in glibc). So look-ups
//! of std by green threads of two OS threads at once are right, and close no descriptors of others.

use std::ffi::{CString, c_int, c_long};
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, ToSocketAddrs, UdpSocket};
use std::process::ExitCode;
use std::sync::atomic::{AtomicUsize, Ordering};

use cases::{Verdict, ms, watchdog};
use greenthread::spawn;

unsafe extern "C" {
    fn __res_state() -> *mut u8;
    fn __res_init() -> c_int;
}

const LOOKUPS: usize = 500;
static GOOD: AtomicUsize = AtomicUsize::new(0);
static BAD: AtomicUsize = AtomicUsize::new(0);
static BROKEN: AtomicUsize = AtomicUsize::new(0);

fn main() -> ExitCode {
    watchdog(ms(100_000));
    let mut verdict = Verdict::default();
    let states = [
        state(),
        std::thread::spawn(|| spawn(state).join().unwrap()).join().unwrap(),
        spawn(state).join().unwrap(),
    ];
    verdict.holds(
        states[0] != states[1] && states[0] != states[2],
        format_args!("resolver states of main and of two isolated green threads: {states:#x?}"),
    );
    let port = serve();
    std::thread::spawn(use_pipes);
    let all: Vec<_> = (0..2)
        .map(|number| std::thread::spawn(move || spawn(move || look_up(number, port)).join().unwrap()))
        .collect();
    all.into_iter().for_each(|one| one.join().unwrap());
    let [good, bad, broken] = [&GOOD, &BAD, &BROKEN].map(|count| count.load(Ordering::SeqCst));
    verdict.holds(
        good == 2 * LOOKUPS && bad == 0,
        format_args!("{good} look-ups were right, {bad} were not"),
    );
    verdict.holds(broken == 0, format_args!("{broken} pipes of others broke"));
    verdict.end()
}

fn state() -> usize {
    // SAFETY: asks for an address.
    unsafe { __res_state() }.addr()
}

/// An address that goes with the name.
fn hash(name: &[u8]) -> [u8; 4] {
    let hash = name.iter().fold(0x811c_9dc5_u32, |hash, byte| {
        (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193)
    });
    hash.to_be_bytes()
}

/// A name server: any name has the address of its hash.
fn serve() -> u16 {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let port = socket.local_addr().unwrap().port();
    std::thread::spawn(move || {
        let mut question = [0; 512];
        loop {
            let Ok((_, from)) = socket.recv_from(&mut question) else {
                continue;
            };
            let mut end = 12;
            while question[end] != 0 {
                end += 1 + usize::from(question[end]);
            }
            end += 5;
            let mut answer = question[..end].to_vec();
            let is_ipv4 = question[end - 3] == 1;
            answer[2..4].copy_from_slice(&[0x81, 0x80]);
            answer[6..12].copy_from_slice(&[0, u8::from(is_ipv4), 0, 0, 0, 0]);
            if is_ipv4 {
                answer.extend([0xc0, 0x0c, 0, 1, 0, 1, 0, 0, 0, 0, 0, 4]);
                answer.extend(hash(&question[12..end]));
            }
            let _ = socket.send_to(&answer, from);
        }
    });
    port
}

/// Lets this thread's resolver ask our server: the first fields of glibc's `struct __res_state`.
fn ask_at(port: u16) {
    const NO_RELOAD: c_long = 0x0200_0000;
    let address = libc::sockaddr_in {
        sin_family: libc::AF_INET as u16,
        sin_port: port.to_be(),
        sin_addr: libc::in_addr {
            s_addr: u32::from_ne_bytes([127, 0, 0, 1]),
        },
        sin_zero: [0; 8],
    };
    // SAFETY: the state is this thread's own for as long as it lives, and its layout is part of glibc's interface:
    // two numbers (the patience and the attempts), the options, the number of servers, and their addresses.
    unsafe {
        __res_init();
        let state = __res_state();
        state.cast::<c_int>().write(5);
        state.add(4).cast::<c_int>().write(2);
        *state.add(8).cast::<c_long>() |= NO_RELOAD;
        state.add(16).cast::<c_int>().write(1);
        state.add(20).cast::<libc::sockaddr_in>().write_unaligned(address);
    }
}

fn look_up(number: usize, port: u16) {
    ask_at(port);
    for count in 0..LOOKUPS {
        let name = format!("n{count}-{number}.test");
        let mut wire = Vec::new();
        for label in name.split('.') {
            wire.push(label.len() as u8);
            wire.extend(label.as_bytes());
        }
        wire.extend([0, 0, 1, 0, 1]);
        let want = SocketAddr::from((Ipv4Addr::from(hash(&wire)), 80));
        let name = CString::new(name).unwrap();
        let got = (name.to_str().unwrap(), 80).to_socket_addrs();
        match got.map(Vec::from_iter) {
            Ok(got) if got == [want] => GOOD.fetch_add(1, Ordering::SeqCst),
            other => {
                eprintln!("{name:?}: {other:?}");
                BAD.fetch_add(1, Ordering::SeqCst)
            }
        };
    }
}

/// Uses descriptors, and sees whether another thread closes them.
fn use_pipes() {
    loop {
        let (mut reader, mut writer) = std::io::pipe().unwrap();
        let mut byte = [0];
        let whole = (0..20).all(|_| {
            std::thread::yield_now();
            writer.write_all(&[7]).is_ok() && reader.read(&mut byte).is_ok_and(|len| len == 1) && byte == [7]
        });
        BROKEN.fetch_add(usize::from(!whole), Ordering::SeqCst);
    }
}
