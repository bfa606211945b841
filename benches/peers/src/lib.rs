//! What every program here shares: the command line, the lines of output, the process's counters.

use std::fs;
use std::time::{Duration, Instant};

/// `PROGRAM [PEER] WORKLOAD [N]`.
pub struct Args {
    pub workload: String,
    pub n: Option<u64>,
    /// The port that comes after the number.
    pub second: Option<u16>,
}

impl Args {
    /// The arguments after the first `skip`.
    pub fn read(skip: usize) -> Args {
        let mut words = std::env::args().skip(1 + skip);
        let workload = words.next().unwrap_or_else(|| {
            eprintln!(
                "what? [PEER] switch|spawn|yield|mem|timers|chan|echo|http|redis|redisblock|blpop|httpdelay|\
                 threads|threads-patched [N] [PORT]"
            );
            std::process::exit(2)
        });
        Args {
            workload,
            n: words.next().and_then(|n| n.parse().ok()),
            second: words.next().and_then(|port| port.parse().ok()),
        }
    }

    pub fn n_or(&self, default: u64) -> u64 {
        self.n.unwrap_or(default)
    }

    pub fn port(&self) -> u16 {
        self.n.and_then(|n| n.try_into().ok()).expect("a port")
    }
}

pub fn emit(workload: &str, metric: &str, value: f64, unit: &str) {
    println!(r#"{{"workload":"{workload}","metric":"{metric}","value":{value:.3},"unit":"{unit}"}}"#);
}

/// The application of the workload `http`.
#[cfg(feature = "http")]
pub fn router() -> axum::Router {
    axum::Router::new().route("/", axum::routing::get(|| async { "Hello, World!" }))
}

/// Ends the program, because this peer has no such workload.
pub fn unsupported(workload: &str) -> ! {
    emit(workload, "unsupported", 0.0, "");
    std::process::exit(3)
}

/// How long `work` takes, in ns, divided by `n`.
pub fn each(n: u64, work: impl FnOnce()) -> f64 {
    let start = Instant::now();
    work();
    start.elapsed().as_nanos() as f64 / n as f64
}

/// The memory of this process in bytes: what is resident, and its page tables.
#[derive(Clone, Copy)]
pub struct Memory {
    rss: u64,
    pte: u64,
}

impl Memory {
    pub fn now() -> Memory {
        let status = fs::read_to_string("/proc/self/status").expect("procfs");
        let field = |name: &str| {
            let line = status
                .lines()
                .find_map(|line| line.strip_prefix(name))
                .expect("the field");
            line.split_whitespace()
                .next()
                .and_then(|n| n.parse::<u64>().ok())
                .expect("a number")
                * 1024
        };
        Memory {
            rss: field("VmRSS:"),
            pte: field("VmPTE:"),
        }
    }
}

impl Memory {
    /// How many resident bytes more than before.
    pub fn since(self, before: Memory) -> f64 {
        self.rss as f64 - before.rss as f64
    }

    /// How many bytes of page tables more than before.
    pub fn tables_since(self, before: Memory) -> f64 {
        self.pte as f64 - before.pte as f64
    }

    /// The resident bytes.
    pub fn resident(self) -> f64 {
        self.rss as f64
    }
}

/// The CPU time of this process so far, in ns.
pub fn cpu_ns() -> u64 {
    // SAFETY: rusage is plain numbers, and getrusage only writes to it.
    let usage = unsafe {
        let mut usage: libc::rusage = std::mem::zeroed();
        libc::getrusage(libc::RUSAGE_SELF, &mut usage);
        usage
    };
    let ns = |t: libc::timeval| t.tv_sec as u64 * 1_000_000_000 + t.tv_usec as u64 * 1000;
    ns(usage.ru_utime) + ns(usage.ru_stime)
}

/// The four figures of `mem`, given the memory before and after, and the times to make and to wake each.
pub fn emit_mem(n: u64, before: Memory, after: Memory, create: f64, wake: f64) {
    let name = sized("mem", n);
    let bytes = |before: u64, after: u64| after.saturating_sub(before) as f64 / n as f64;
    emit(&name, "rss_each", bytes(before.rss, after.rss), "B");
    emit(&name, "pte_each", bytes(before.pte, after.pte), "B");
    emit(&name, "create", create, "ns");
    emit(&name, "wake", wake, "ns");
    if let Ok(maps) = fs::read_to_string("/proc/sys/vm/max_map_count") {
        eprintln!("vm.max_map_count = {}", maps.trim());
    }
}

/// One run of `timers`: draw the delays, sleep, and say how late each sleep ended.
pub struct Timers {
    random: u64,
    start: Instant,
    cpu: u64,
}

impl Timers {
    #[allow(clippy::new_without_default)] // it begins to count here
    pub fn new() -> Timers {
        Timers {
            random: 0x9e37_79b9_7f4a_7c15,
            start: Instant::now(),
            cpu: cpu_ns(),
        }
    }

    /// The next delay: less than a second.
    pub fn delay(&mut self) -> Duration {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        Duration::from_nanos(((self.random >> 32) * 1_000_000_000) >> 32)
    }

    /// The figures, given by how many ns each was late.
    pub fn emit(self, mut late: Vec<i64>) {
        let (wall, cpu) = (self.start.elapsed(), cpu_ns() - self.cpu);
        late.sort_unstable();
        let name = sized("timers", late.len() as u64);
        let at = |quantile: f64| late[((late.len() - 1) as f64 * quantile) as usize] as f64 / 1000.0;
        emit(&name, "cpu_each", cpu as f64 / late.len() as f64, "ns");
        emit(&name, "late_min", at(0.0), "us");
        emit(&name, "late_p50", at(0.50), "us");
        emit(&name, "late_p99", at(0.99), "us");
        emit(&name, "wall", wall.as_secs_f64() * 1000.0, "ms");
    }
}

/// How much later than `at` it is, in ns; negative when it is earlier.
pub fn late(at: Instant, now: Instant) -> i64 {
    match now.checked_duration_since(at) {
        Some(late) => late.as_nanos() as i64,
        None => -((at - now).as_nanos() as i64),
    }
}

fn sized(workload: &str, n: u64) -> String {
    match n {
        1_000_000.. => format!("{workload}{}M", n / 1_000_000),
        _ => format!("{workload}{}k", n / 1000),
    }
}
