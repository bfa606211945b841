//! A web crawler: many green threads, each a plain loop of blocking reads and writes, on one OS thread.
//!
//! ```text
//! cargo run --release --example crawl                          # the toolchain's documentation, by a server of its own
//! cargo run --release --example crawl -- --generated           # a generated site with every kind of trouble in it
//! cargo run --release --example crawl -- http://127.0.0.1:8000/ --limit 100
//! cargo run --release --example crawl -- --json                # one object on stdout, for a script
//! cargo run --release --example crawl -- --native              # by this crate's own sockets
//! ```
//!
//! Without URLs it serves `$(rustc --print sysroot)/share/doc/rust/html` on loopback (where that is missing: a generated
//! site of 2,000 linked pages), and delays each reply by 50 ms, as a far-away server would. 200 green threads then fetch
//! 2,000 pages in the time that one at a time would take for two dozen. The client is the crate `ureq`, unmodified: its
//! system calls park the green thread, because libc is patched. Expect a progress bar on stderr (where that is a terminal), and a table
//! with the pages, bytes and latencies, and all that went wrong by kind. Ctrl-C ends it early, with the same table.
//!
//! The exit code is 0, 1 if no page could be fetched, 2 for bad arguments, and 130 after Ctrl-C.
#![forbid(unsafe_code)]

mod args;
mod frontier;
mod http;
mod links;
mod patched;
mod report;
mod site;

use std::cell::{Cell, RefCell};
use std::io::IsTerminal;
use std::path::PathBuf;
use std::process::{Command, ExitCode};
use std::rc::Rc;
use std::time::{Duration, Instant};

use args::{Args, Parsed};
use frontier::{Frontier, Host, Job};
use greenthread::{net, signal, sleep, spawn_local, thread};
use http::Get;
use report::Report;
use site::Site;

const MOST_REDIRECTS: usize = 5;
const GENERATED_PAGES: u32 = 2_000;

fn main() -> ExitCode {
    match args::parse(std::env::args().skip(1)) {
        Ok(Parsed::Help) => {
            print!("{}", args::HELP);
            ExitCode::SUCCESS
        }
        Ok(Parsed::Run(args)) => greenthread::run(move || match crawl(args) {
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

/// Crawls, prints what came of it, and gives the exit code.
fn crawl(args: Args) -> Result<u8, String> {
    let (hosts, starts, name, timeout) = if args.urls.is_empty() {
        our_own(&args)?
    } else {
        theirs(&args)?
    };
    let crawl = Rc::new(Crawl {
        frontier: Frontier::new(hosts, args.limit),
        report: RefCell::new(Report::new(name, if args.native { NATIVE } else { PATCHED })),
    });
    let timeout = args.timeout.unwrap_or(timeout);
    let workers = args.concurrency.min(args.limit);
    let patched = patched::Client::new(timeout, workers).map_err(|error| format!("cannot patch libc: {error}"));
    let client = || -> Result<Box<dyn Get>, String> {
        Ok(if args.native {
            Box::new(http::Client::new(timeout))
        } else {
            Box::new(patched.clone()?)
        })
    };
    for (host, path) in &starts {
        crawl.frontier.add(*host, path);
    }
    let begun = Instant::now();
    let workers: Vec<_> = (0..workers)
        .map(|_| {
            let (crawl, mut client) = (crawl.clone(), client()?);
            Ok(spawn_local(move || crawl.work(&mut *client)))
        })
        .collect::<Result<_, String>>()?;
    let threads: Vec<_> = workers.iter().map(|worker| worker.thread().clone()).collect();

    let interrupted = Rc::new(Cell::new(false));
    let noted = interrupted.clone();
    let ctrl_c = spawn_local(move || {
        if signal::ctrl_c().is_ok() {
            noted.set(true);
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
    ctrl_c.kill();
    if let Some(progress) = progress {
        progress.kill();
        eprint!("\r\x1b[K");
    }

    let mut report = crawl.report.borrow_mut();
    for _ in 0..crashed {
        report.error("worker panicked", "(see its message above)");
    }
    report.wall = wall;
    report.interrupted = interrupted.get();
    if args.json {
        println!("{}", report.json());
    } else {
        print!("{}", report.table());
    }
    Ok(match (report.interrupted, report.pages) {
        (true, _) => 130,
        (false, 0) => 1,
        (false, _) => 0,
    })
}

type Plan = (Vec<Host>, Vec<(usize, String)>, String, Duration);

/// Serves a site of ours, in this very OS thread.
fn our_own(args: &Args) -> Result<Plan, String> {
    let folder = if args.generated { None } else { documentation() };
    let (site, start, what, timeout) = match folder {
        Some(folder) => {
            let what = folder.display().to_string();
            (Site::Files(folder), "/index.html", what, 10_000)
        }
        None => (
            Site::Generated(GENERATED_PAGES),
            "/",
            String::from("generated site"),
            1_000,
        ),
    };
    let address = site::serve(site, args.delay).map_err(|error| format!("cannot serve on loopback: {error}"))?;
    let host = Host::new(address.to_string(), vec![address]);
    let name = format!("http://{address}{start} ({what})");
    let starts = vec![(0, String::from(start))];
    Ok((vec![host], starts, name, Duration::from_millis(timeout)))
}

/// The toolchain's HTML documentation, if it is installed.
fn documentation() -> Option<PathBuf> {
    let output = Command::new("rustc").args(["--print", "sysroot"]).output().ok()?;
    let folder = PathBuf::from(String::from_utf8(output.stdout).ok()?.trim_end()).join("share/doc/rust/html");
    folder.join("index.html").is_file().then_some(folder)
}

/// Looks the hosts of the given URLs up.
fn theirs(args: &Args) -> Result<Plan, String> {
    let mut hosts: Vec<Host> = Vec::new();
    let mut starts = Vec::new();
    for url in &args.urls {
        let known = hosts.iter().position(|host| host.authority == url.authority);
        let index = match known {
            Some(index) => index,
            None => {
                let found = net::lookup_host(&url.name, url.port);
                let addresses = found.map_err(|error| format!("cannot look {} up: {error}", url.name))?;
                hosts.push(Host::new(url.authority.clone(), addresses));
                hosts.len() - 1
            }
        };
        starts.push((index, url.path.clone()));
    }
    let names: Vec<_> = args
        .urls
        .iter()
        .map(|url| format!("http://{}{}", url.authority, url.path))
        .collect();
    Ok((hosts, starts, names.join(" "), Duration::from_secs(10)))
}

/// Gives a job back, on a panic too: else the others would wait for it for ever.
struct Done<'a>(&'a Frontier, bool);

impl Drop for Done<'_> {
    fn drop(&mut self) {
        self.0.done(self.1);
    }
}

impl Crawl {
    /// What each of the workers does.
    fn work(&self, client: &mut dyn Get) {
        let mut scratch = String::new();
        while let Some(job) = self.frontier.next() {
            let mut done = Done(&self.frontier, false);
            done.1 = self.fetch(client, job, &mut scratch);
        }
    }

    /// Fetches one page, through its redirects, and queues its links. Whether there was a page.
    fn fetch(&self, client: &mut dyn Get, mut job: Job, scratch: &mut String) -> bool {
        let mut chain = Vec::new();
        loop {
            let host = &self.frontier.hosts[job.host];
            let url = || format!("http://{}{}", host.authority, job.path);
            let asked = Instant::now();
            let result = client.get(job.host, host, &job.path);
            let mut report = self.report.borrow_mut();
            report.latencies.push(asked.elapsed());
            let response = match result {
                Ok(response) => response,
                Err(failure) => {
                    report.error(&failure.0, &url());
                    return false;
                }
            };
            if let Some(to) = response.redirect() {
                report.redirects += 1;
                let Some(next) = self.frontier.resolve(&job, to, scratch) else {
                    report.other_hosts += 1;
                    return false;
                };
                chain.push(job.clone());
                if chain.contains(&next) || chain.len() > MOST_REDIRECTS {
                    report.error("redirect loop", &url());
                    return false;
                }
                if !self.frontier.mark(&next) {
                    return false; // a page that is known already
                }
                job = next;
                continue;
            }
            if response.status != 200 {
                report.error(&response.status_text(), &url());
                return false;
            }
            report.bytes += response.body.len() as u64;
            if !response.is_html {
                report.other_files += 1;
                return false;
            }
            report.pages += 1;
            report.other_hosts += self.frontier.add_links(&job, response.body, scratch);
            return true;
        }
    }
}

/// A line on the terminal of stderr, drawn anew ten times a second.
fn show_progress(crawl: &Crawl, limit: usize) {
    const WIDTH: usize = 30;
    loop {
        sleep(Duration::from_millis(100));
        let report = crawl.report.borrow();
        let (pages, errors) = (report.pages, report.error_count());
        let (active, waiting) = crawl.frontier.counts();
        let full = (pages * WIDTH / limit).min(WIDTH);
        let bar = format!("{}{}", "#".repeat(full), "-".repeat(WIDTH - full));
        eprint!("\r[{bar}] {pages}/{limit} pages, {errors} errors, {active} in flight, {waiting} to do\x1b[K");
    }
}
