//! A web crawler: many green threads, each a plain loop of blocking reads and writes, on one OS thread.
//!
//! ```text
//! cargo run --release --example crawl                          # the toolchain's documentation, by a server of its own
//! cargo run --release --example crawl -- --generated           # a generated site with every kind of trouble in it
//! cargo run --release --example crawl -- http://127.0.0.1:8000/ --limit 100
//! cargo run --release --example crawl -- --json                # one object on stdout, for a script
//! cargo run --release --example crawl -- --native              # by this crate's own sockets
//! cargo run --release --example crawl -- --compare             # by one, then by the other, and both in one table
//! ```
//!
//! Without URLs it serves `$(rustc --print sysroot)/share/doc/rust/html` on loopback (where that is missing: a
//! generated site of 2,000 linked pages), and delays each reply by 50 ms, as a far-away server would. 200 green threads
//! then fetch 2,000 pages in the time that one at a time would take for two dozen. The client is the crate `ureq`,
//! unmodified: its system calls park the green thread, because libc is patched. Expect a progress bar on stderr (where
//! that is a terminal), and a table with the pages, bytes and latencies, and all that went wrong by kind. Ctrl-C ends
//! it early, with the same table.
//!
//! # Several processes
//! With `--frontier` several processes, on as many machines as you like, share one crawl through Redis (6.2 or newer), by
//! the blocking crate `redis`, unmodified too. They need URLs, as without them each would crawl a site of its own:
//!
//! ```text
//! cargo run --release --example crawl -- --generated --serve 8000                               # a site for all
//! cargo run --release --example crawl -- --frontier redis://127.0.0.1/ http://127.0.0.1:8000/   # as often as you like
//! ```
//!
//! Each page is fetched by one of them, the limit is that of all together, and each prints what it did itself and what
//! all did. A process that is killed loses nothing: after four seconds the others claim its jobs. The protocol is at
//! the head of `shared.rs`.
//!
//! The exit code is 0, 1 if no page could be fetched or Redis is lost, 2 for bad arguments, and 130 after Ctrl-C.
//!
//! `--json` prints an object, which has a key `all` if the crawl is shared; `--compare --json` one with the keys
//! `patched` and `native`, each with such an object.
#![forbid(unsafe_code)]

mod args;
mod frontier;
mod http;
mod links;
mod patched;
mod report;
mod shared;
mod site;

use std::cell::RefCell;
use std::io::IsTerminal;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Command, ExitCode};
use std::rc::Rc;
use std::time::{Duration, Instant};

use args::{Args, Parsed};
use frontier::{Frontier, Host, Task};
use greenthread::{net, signal, sleep, spawn_local, thread};
use http::Get;
use report::Report;
use shared::Shared;
use site::Site;

const MOST_REDIRECTS: usize = 5;
const GENERATED_PAGES: u32 = 2_000;

fn main() -> ExitCode {
    match args::parse(std::env::args().skip(1)) {
        Ok(Parsed::Help) => {
            print!("{}", args::HELP);
            ExitCode::SUCCESS
        }
        Ok(Parsed::Run(args)) => greenthread::run(move || match crawl(*args) {
            Ok(code) => ExitCode::from(code),
            Err(what) => {
                eprintln!("crawl: {what}");
                ExitCode::from(1)
            }
        }),
        Err(what) => {
            eprintln!("crawl: {what}\nTry --help.");
            ExitCode::from(2)
        }
    }
}

/// What the green threads share. They are all on one OS thread: no lock, no atomic.
struct Crawl {
    frontier: Frontier,
    report: RefCell<Report>,
}

const NATIVE: &str = "greenthread's own sockets";
const PATCHED: &str = "unmodified ureq, patched libc";

/// What the arguments ask for; gives the exit code.
fn crawl(args: Args) -> Result<u8, String> {
    if let Some(port) = args.serve {
        return serve(&args, port);
    }
    let plan = if args.urls.is_empty() {
        our_own(&args)?
    } else {
        theirs(&args)?
    };
    let (first, lost) = run(&args, &plan, args.native)?;
    let mut code = first.exit_code();
    if args.compare && !first.interrupted {
        let (second, _) = run(&args, &plan, true)?;
        code = code.max(second.exit_code());
        match args.json {
            true => println!("{}", report::comparison_json(&first, &second)),
            false => print!("{}", report::comparison(&first, &second)),
        }
    } else if args.json {
        println!("{}", first.json());
    } else {
        print!("{}", first.table());
    }
    match lost {
        Some(what) => Err(what),
        None => Ok(code),
    }
}

/// Serves a site of ours until Ctrl-C.
fn serve(args: &Args, port: u16) -> Result<u8, String> {
    let site = OurSite::choose(args);
    let address = site::serve(site.site, args.delay, port);
    let address = address.map_err(|error| format!("cannot serve on port {port} of loopback: {error}"))?;
    println!("http://{address}{} ({}), until Ctrl-C", site.start, site.what);
    signal::ctrl_c().map_err(|error| format!("cannot wait for Ctrl-C: {error}"))?;
    Ok(0)
}

/// Crawls. What came of it, and whether the shared frontier was lost.
fn run(args: &Args, plan: &Plan, native: bool) -> Result<(Report, Option<String>), String> {
    let timeout = args.timeout.unwrap_or(plan.timeout);
    let workers = args.concurrency.min(args.limit);
    let patched = || patched::Client::new(timeout, workers).map_err(|error| format!("cannot patch libc: {error}"));
    let patched = (!native).then(patched).transpose()?;
    let crawl = Rc::new(Crawl::new(args, plan, native)?);
    let (begun, cpu) = (Instant::now(), cpu_time());
    let workers: Vec<_> = (0..workers)
        .map(|_| {
            let mut client: Box<dyn Get> = match &patched {
                Some(client) => Box::new(client.clone()),
                None => Box::new(http::Client::new(timeout)),
            };
            let crawl = crawl.clone();
            spawn_local(move || crawl.work(&mut *client))
        })
        .collect();
    let threads: Vec<_> = workers.iter().map(|worker| worker.thread().clone()).collect();

    let noted = crawl.clone();
    let ctrl_c = spawn_local(move || {
        if signal::ctrl_c().is_ok() {
            noted.report.borrow_mut().interrupted = true;
            noted.frontier.stop();
            threads.iter().for_each(thread::Thread::kill);
        }
    });
    let shown = crawl.clone();
    let limit = args.limit;
    let terminal = std::io::stderr().is_terminal();
    let progress = terminal.then(|| spawn_local(move || show_progress(&shown, limit)));

    let mut crashed = 0;
    for worker in workers {
        crashed += usize::from(worker.join().is_err_and(|error| error.is_panic()));
    }
    let wall = begun.elapsed();
    let closed = crawl.frontier.close();
    ctrl_c.kill();
    if let Some(progress) = progress {
        progress.kill();
        eprint!("\r\x1b[K");
    }

    let mut report = crawl.report.take();
    for _ in 0..crashed {
        report.error("worker panicked", "(see its message above)");
    }
    report.wall = wall;
    report.cpu = cpu.and_then(|before| cpu_time()?.checked_sub(before));
    let (total, lost) = closed.map_or_else(|what| (None, Some(what)), |total| (total, None));
    if let Some(shared) = &mut report.shared {
        shared.total = total;
    }
    Ok((report, lost))
}

/// What this OS thread has computed for, as Linux tells it.
fn cpu_time() -> Option<Duration> {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").ok()?;
    Some(Duration::from_nanos(text.split(' ').next()?.parse().ok()?))
}

/// What to crawl.
struct Plan {
    hosts: Vec<(String, Vec<SocketAddr>)>,
    starts: Vec<(usize, String)>,
    name: String,
    timeout: Duration,
}

/// A site to serve, its first page, what it is, and how long its pages may take.
struct OurSite {
    site: Site,
    start: &'static str,
    what: String,
    timeout: Duration,
}

impl OurSite {
    fn choose(args: &Args) -> OurSite {
        match if args.generated { None } else { documentation() } {
            Some(folder) => OurSite {
                what: folder.display().to_string(),
                site: Site::Files(folder),
                start: "/index.html",
                timeout: Duration::from_secs(10),
            },
            None => OurSite {
                what: String::from("generated site"),
                site: Site::Generated(GENERATED_PAGES),
                start: "/",
                timeout: Duration::from_secs(1),
            },
        }
    }
}

/// Serves a site of ours, in this very OS thread.
fn our_own(args: &Args) -> Result<Plan, String> {
    let OurSite {
        site,
        start,
        what,
        timeout,
    } = OurSite::choose(args);
    let address = site::serve(site, args.delay, 0).map_err(|error| format!("cannot serve on loopback: {error}"))?;
    Ok(Plan {
        hosts: vec![(address.to_string(), vec![address])],
        starts: vec![(0, String::from(start))],
        name: format!("http://{address}{start} ({what})"),
        timeout,
    })
}

/// The toolchain's HTML documentation, if it is installed.
fn documentation() -> Option<PathBuf> {
    let output = Command::new("rustc").args(["--print", "sysroot"]).output().ok()?;
    let folder = PathBuf::from(String::from_utf8(output.stdout).ok()?.trim_end()).join("share/doc/rust/html");
    folder.join("index.html").is_file().then_some(folder)
}

/// Looks the hosts of the given URLs up.
fn theirs(args: &Args) -> Result<Plan, String> {
    let mut hosts: Vec<(String, Vec<SocketAddr>)> = Vec::new();
    let mut starts = Vec::new();
    for url in &args.urls {
        let known = hosts.iter().position(|(authority, _)| *authority == url.authority);
        let index = match known {
            Some(index) => index,
            None => {
                let found = net::lookup_host(&url.name, url.port);
                let addresses = found.map_err(|error| format!("cannot look {} up: {error}", url.name))?;
                hosts.push((url.authority.clone(), addresses));
                hosts.len() - 1
            }
        };
        starts.push((index, url.path.clone()));
    }
    let names: Vec<_> = args.urls.iter().map(args::Url::to_string).collect();
    Ok(Plan {
        hosts,
        starts,
        name: names.join(" "),
        timeout: Duration::from_secs(10),
    })
}

/// Gives a task back, on a panic too: else the others would wait for it for ever.
struct Done<'a>(&'a Frontier, Option<Task>);

impl Drop for Done<'_> {
    fn drop(&mut self) {
        if let Some(task) = self.1.take() {
            self.0.done(task);
        }
    }
}

impl Crawl {
    /// With nothing done yet. A shared crawl is joined.
    fn new(args: &Args, plan: &Plan, native: bool) -> Result<Crawl, String> {
        let mut report = Report::new(plan.name.clone(), if native { NATIVE } else { PATCHED });
        let host = |(authority, addresses): &(String, Vec<_>)| Host::new(authority.clone(), addresses.clone());
        let hosts = plan.hosts.iter().map(host).collect();
        let frontier = match &args.frontier {
            None => Frontier::local(hosts, args.limit, &plan.starts),
            Some((client, name)) => {
                let shared = Shared::join(client.clone(), name, args.limit, hosts.clone(), &plan.starts)?;
                report.shared = Some(report::Shared {
                    crawl: format!("`{name}` in Redis at {}", shared.address()),
                    process: String::from(shared.me()),
                    total: None,
                });
                Frontier::shared(hosts, shared)
            }
        };
        Ok(Crawl {
            frontier,
            report: RefCell::new(report),
        })
    }

    /// What each of the workers does.
    fn work(&self, client: &mut dyn Get) {
        let mut scratch = String::new();
        while let Some(task) = self.frontier.next() {
            let mut done = Done(&self.frontier, Some(task));
            if let Some(task) = &mut done.1 {
                self.fetch(client, task, &mut scratch);
            }
        }
    }

    /// Fetches one page, through its redirects, and queues its links.
    fn fetch(&self, client: &mut dyn Get, task: &mut Task, scratch: &mut String) {
        loop {
            let host = &self.frontier.hosts[task.job.host];
            let url = |task: &Task| format!("http://{}{}", host.authority, task.job.path);
            task.is_error = true; // unless it is reached
            let asked = Instant::now();
            let result = client.get(task.job.host, host, &task.job.path);
            let mut report = self.report.borrow_mut();
            report.latencies.push(asked.elapsed());
            let response = match result {
                Ok(response) => response,
                Err(failure) => return report.error(&failure.0, &url(task)),
            };
            if let Some(to) = response.redirect() {
                report.redirects += 1;
                let Some(next) = self.frontier.resolve(&task.job, to, scratch) else {
                    report.other_hosts += 1;
                    task.is_error = false;
                    return;
                };
                task.chain.push(task.job.clone());
                if task.chain.contains(&next) || task.chain.len() > MOST_REDIRECTS {
                    return report.error("redirect loop", &url(task));
                }
                task.is_error = false;
                if !self.frontier.follow(task, next) {
                    return; // a page that is known already, or queued now
                }
                continue;
            }
            if response.status != 200 {
                return report.error(&response.status_text(), &url(task));
            }
            task.is_error = false;
            task.bytes = response.body.len() as u64;
            report.bytes += task.bytes;
            if !response.is_html {
                report.other_files += 1;
                return;
            }
            report.pages += 1;
            task.is_page = true;
            report.other_hosts += self.frontier.add_links(task, response.body, scratch);
            return;
        }
    }
}

/// A line on the terminal of stderr, drawn anew ten times a second.
fn show_progress(crawl: &Crawl, limit: usize) {
    const WIDTH: usize = 30;
    loop {
        sleep(Duration::from_millis(100));
        let report = crawl.report.borrow();
        let errors = report.error_count();
        let (pages, active, waiting) = crawl.frontier.counts();
        let full = (pages * WIDTH / limit).min(WIDTH);
        let bar = format!("{}{}", "#".repeat(full), "-".repeat(WIDTH - full));
        eprint!("\r[{bar}] {pages}/{limit} pages, {errors} errors, {active} in flight, {waiting} to do\x1b[K");
    }
}
