//! The frontier that several processes share, through Redis. Its client is the crate `redis`, blocking and unmodified.
//!
//! # The protocol
//! A crawl has a name; each time that it is begun anew is a *run*, with a number. Redis (6.2 or newer) holds:
//!
//! | key | what |
//! |---|---|
//! | `crawl:NAME` | the number of the latest run |
//! | `crawl:NAME:RUN:state` | a hash: `over`, `limit`, `hosts`, `open`, `processes`, and the totals of what was done |
//! | `crawl:NAME:RUN:seen` | a set: the pages that were ever queued, as `host/path` |
//! | `crawl:NAME:RUN:jobs` | a stream: the pages that are not done; its consumer group is `crawl` |
//! | `crawl:NAME:RUN:waiting` | a set: the processes that want more than there was |
//! | `crawl:NAME:RUN:wake:PROCESS` | a list that a process waits at (`BLPOP`) |
//!
//! An entry of `jobs` is the page and, after spaces, the redirects that led to it. All that changes the keys is one of
//! two scripts, and a script is atomic: a process that is killed has run it, or has not.
//!
//! **Join** (`join.lua`). The first process begins a run. Each gets a number, which is its consumer's name. The pages
//! to begin with are queued unless they are in `seen`. Another limit, or other hosts, than those of the run are
//! refused.
//!
//! **Turn** (`turn.lua`). A process hands in the jobs that it has done, and takes new ones for its idle workers.
//! 1. A job is done once: only if `XACK` finds it pending are its links queued and its page counted. Otherwise it had
//!    been claimed, and another process has handed it in. A link is queued once: `SADD`, and only if it is new `XADD`.
//! 2. A process takes by `XREADGROUP`, and never more than `limit` - `pages` - jobs under way anywhere: the limit is
//!    met exactly. If it gets less than it wants it is noted in `waiting`, and woken when there is more.
//! 3. Once a second a turn is a *beat*. It makes the process's own jobs look fresh (`XCLAIM`), and claims those that
//!    were idle for four seconds (`XAUTOCLAIM`): their process is dead, or cut off, or was stopped. In the last case
//!    both fetch the page: at least once, but counted once.
//! 4. The crawl is over when no job is `open` (queued and not done, whoever has it) or there are pages enough. The turn
//!    that finds this wakes everybody, deletes `seen` and `jobs`, and lets `state` live for a minute, so that the
//!    others can read what came of it.
//!
//! **Redirects** are jobs too: a job is one request, so whoever claims it finds all as it was.
//!
//! **Ctrl-C** ends with a turn that gives the jobs to a consumer `nobody`, from whom the next beat claims them. If
//! nobody is left the crawl stands still, and goes on when a process joins it within a day, which is how long the keys
//! live.
//!
//! **A lost connection** ends the process with an error: its jobs are claimed as those of the dead are.
//!
//! **A second crawl** of the same name begins anew once the first one is over.
//!
//! # Rejected
//! - `XREADGROUP BLOCK`: it would take jobs that the limit has no room for, and say nothing of the end.
//! - `XINFO GROUPS` for the end: its `lag` is not always known; `open` is.
//! - An idle time longer than any request: the jobs of the dead would wait for a minute. The beat lets it be short.
//!
//! # In this process
//! Workers are local green threads and share this state without locks. Two more of them talk to Redis: the *clerk*
//! takes the turns, and so hands in what came together during the last one; the *ear* waits to be woken. As only
//! isolated green threads park in patched calls, each call is made in one of its own.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;
use std::time::{Duration, Instant};

use greenthread::thread::{self, Thread};
use greenthread::{JoinHandle, monkey, spawn, spawn_local};
use redis::{Client, Connection, RedisError, RedisResult, Script};

use crate::frontier::{Host, Job, Task};

/// How often a process shows that it is alive.
const BEAT: Duration = Duration::from_secs(1);
/// A job without a sign of life for so long is claimed.
const CLAIM_AFTER: Duration = Duration::from_secs(4);
/// How long the keys of a crawl live that nobody works on, and those of one that is over.
const KEPT: Duration = Duration::from_secs(24 * 3600);
const KEPT_WHEN_OVER: Duration = Duration::from_secs(60);
/// A Redis that does not answer for so long is lost.
const PATIENCE: Duration = Duration::from_secs(10);
/// So many links are handed in at a time: scripts stay short.
const MOST_LINKS: usize = 10_000;

/// What all processes of a crawl did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Total {
    pub(crate) pages: u64,
    pub(crate) bytes: u64,
    pub(crate) requests: u64,
    pub(crate) errors: u64,
    pub(crate) processes: u64,
}

/// This process's part in a shared crawl.
#[derive(Debug, Default)]
pub(crate) struct Shared {
    hosts: Rc<[Host]>,
    /// Redis, for messages.
    address: String,
    /// `crawl:NAME` and `crawl:NAME:RUN`.
    keys: [String; 2],
    /// The number of this process, which is the name of its consumer.
    me: String,
    ready: RefCell<VecDeque<Task>>,
    /// What the clerk has yet to hand in.
    finished: RefCell<VecDeque<Task>>,
    /// Workers that found nothing to do.
    waiting: RefCell<Vec<Thread>>,
    active: Cell<usize>,
    /// Redis has noted that we want more than there is.
    noted: Cell<bool>,
    /// How often the ear was woken.
    heard: Cell<u64>,
    /// The process leaves.
    stopped: Cell<bool>,
    /// The crawl is over, or Redis is lost.
    end: RefCell<Option<Result<(), String>>>,
    total: Cell<Total>,
    open: Cell<u64>,
    clerk: RefCell<Option<JoinHandle<()>>>,
    ear: RefCell<Option<JoinHandle<()>>>,
}

/// Calls in a green thread of its own, which a patched libc parks; the caller parks in the join.
fn apart<T: Send + 'static>(call: impl FnOnce() -> T + Send + 'static) -> T {
    match spawn(call).join() {
        Ok(value) => value,
        Err(error) => std::panic::resume_unwind(error.into_panic()),
    }
}

impl Shared {
    /// Joins the crawl `name`, or begins it. Patches libc for this process.
    pub(crate) fn join(
        client: Client,
        name: &str,
        limit: usize,
        hosts: Rc<[Host]>,
        starts: &[(usize, String)],
    ) -> Result<Rc<Shared>, String> {
        monkey::patch_all().map_err(|error| format!("cannot patch libc: {error}"))?;
        let address = client.get_connection_info().addr().to_string();
        let mut authorities: Vec<_> = hosts.iter().map(|host| &*host.authority).collect();
        authorities.sort_unstable();
        let authorities = authorities.join(" ");
        let pages: Vec<_> = starts
            .iter()
            .map(|(host, path)| format!("{}{path}", hosts[*host].authority))
            .collect();
        let key = format!("crawl:{name}");
        let asked = key.clone();
        let joined = apart(move || -> RedisResult<_> {
            let mut connection = connect(&client)?;
            let ear = connect(&client)?;
            let script = Script::new(include_str!("join.lua"));
            let mut call = script.key(asked);
            call.arg(limit).arg(authorities).arg(KEPT.as_secs()).arg(pages);
            let answer: (u64, String) = call.invoke(&mut connection)?;
            Ok((connection, ear, answer))
        });
        let (connection, ear, answer) = joined.map_err(|error| lost(&address, &error))?;
        let (run, me) = match answer {
            (0, why) => return Err(format!("the crawl `{name}` {why} (--crawl NAME begins another)")),
            answer => answer,
        };
        let shared = Rc::new(Shared {
            hosts,
            address,
            keys: [key.clone(), format!("{key}:{run}")],
            me,
            ..Shared::default()
        });
        let own = shared.clone();
        *shared.clerk.borrow_mut() = Some(spawn_local(move || own.keep(connection)));
        let own = shared.clone();
        *shared.ear.borrow_mut() = Some(spawn_local(move || own.listen(ear)));
        Ok(shared)
    }

    /// The number of this process, from 1 on.
    pub(crate) fn me(&self) -> &str {
        &self.me
    }

    pub(crate) fn address(&self) -> &str {
        &self.address
    }

    /// The next page to fetch; parks until there is one. `None`: the crawl is over, here at least.
    pub(crate) fn next(&self) -> Option<Task> {
        loop {
            if self.stopped.get() || self.end.borrow().is_some() {
                return None;
            }
            if let Some(task) = self.ready.borrow_mut().pop_front() {
                self.active.set(self.active.get() + 1);
                return Some(task);
            }
            self.waiting.borrow_mut().push(thread::current());
            self.wake_clerk();
            thread::park();
        }
    }

    /// The clerk will hand it in; once stopped, it is left to others.
    pub(crate) fn done(&self, task: Task) {
        self.active.set(self.active.get() - 1);
        if !self.stopped.get() {
            self.finished.borrow_mut().push_back(task);
            self.wake_clerk();
        }
    }

    /// Gives back what is not done yet.
    pub(crate) fn stop(&self) {
        self.stopped.set(true);
        self.wake_clerk();
    }

    /// Leaves, and waits until Redis knows. What all processes did.
    pub(crate) fn close(&self) -> Result<Total, String> {
        self.stop();
        let (clerk, ear) = (self.clerk.take(), self.ear.take());
        if clerk.is_some_and(|clerk| clerk.join().is_err()) {
            return Err(String::from("the clerk of the shared frontier panicked"));
        }
        if let Some(ear) = ear {
            ear.kill();
        }
        match &*self.end.borrow() {
            Some(Err(what)) => Err(what.clone()),
            _ => Ok(self.total.get()),
        }
    }

    /// Pages done by all, jobs in flight here, and jobs to do.
    pub(crate) fn counts(&self) -> (usize, usize, usize) {
        let (active, open) = (self.active.get(), self.open.get() as usize);
        (self.total.get().pages as usize, active, open.saturating_sub(active))
    }

    fn wake_clerk(&self) {
        if let Some(clerk) = &*self.clerk.borrow() {
            clerk.thread().unpark();
        }
    }

    fn wake_workers(&self, most: usize) {
        let mut waiting = self.waiting.borrow_mut();
        let from = waiting.len().saturating_sub(most);
        waiting.drain(from..).for_each(|worker| worker.unpark());
    }

    fn end(&self, how: Result<(), String>) {
        self.end.borrow_mut().get_or_insert(how);
        self.wake_workers(usize::MAX);
        self.wake_clerk();
    }

    /// What the clerk does.
    fn keep(&self, mut connection: Connection) {
        let mut beaten: Option<Instant> = None;
        while self.end.borrow().is_none() {
            let leaves = self.stopped.get();
            let beat = beaten.is_none_or(|at| at.elapsed() >= BEAT);
            let turn = self.turn(beat);
            let idle = turn.done.is_empty() && (turn.want == 0 || self.noted.get());
            if idle && !beat && !leaves {
                thread::park();
                continue;
            }
            if beat {
                beaten = Some(Instant::now());
            }
            let (wanted, heard) = (turn.want, self.heard.get());
            let answer;
            (connection, answer) = apart(move || {
                let answer = turn.take(&mut connection);
                (connection, answer)
            });
            match answer {
                Ok(answer) => {
                    // Woken in between: that may have been after this turn.
                    let met = answer.1.len() as i64 >= wanted * 2;
                    self.noted.set(!met && self.heard.get() == heard);
                    self.answered(answer);
                }
                Err(error) => return self.end(Err(lost(&self.address, &error))),
            }
            if leaves && self.finished.borrow().is_empty() {
                return;
            }
        }
    }

    /// What to tell Redis, and what to ask for.
    fn turn(&self, beat: bool) -> Turn {
        let mut finished = self.finished.borrow_mut();
        let (mut done, mut links) = (Vec::new(), 0);
        while links < MOST_LINKS
            && let Some(task) = finished.pop_front()
        {
            links += task.found.len();
            done.push(Done::from(task));
        }
        // A worker is idle, and what it did not handed in yet: no process has more jobs than workers.
        let asked = self.waiting.borrow().len().saturating_sub(finished.len());
        let want = match self.stopped.get() {
            false => asked as i64,
            true if finished.is_empty() => -1,
            true => 0,
        };
        Turn {
            keys: self.keys.clone(),
            me: self.me.clone(),
            want,
            beat,
            done,
        }
    }

    /// Hands out what came.
    fn answered(&self, (numbers, jobs): Answer) {
        let [over, pages, bytes, requests, errors, open, processes] = numbers;
        if over > 1 {
            let what = format!(
                "Redis at {}: the keys of the crawl are gone (deleted, or over and expired)",
                self.address
            );
            return self.end(Err(what));
        }
        self.open.set(open);
        self.total.set(Total {
            pages,
            bytes,
            requests,
            errors,
            processes,
        });
        let mut ready = self.ready.borrow_mut();
        let before = ready.len();
        for entry in jobs.chunks_exact(2) {
            match self.task(&entry[0], &entry[1]) {
                Ok(task) => ready.push_back(task),
                Err(task) => self.finished.borrow_mut().push_back(task),
            }
        }
        let came = ready.len() - before;
        drop(ready);
        self.wake_workers(came);
        if over == 1 {
            self.end(Ok(()));
        }
    }

    /// Reads an entry of the stream. One that is not ours to read is an error, and done.
    fn task(&self, id: &str, entry: &str) -> Result<Task, Task> {
        let job = |name: &str| {
            let (authority, path) = name.split_at(name.find('/')?);
            let host = self.hosts.iter().position(|host| host.authority == authority)?;
            Some(Job {
                host,
                path: Rc::from(path),
            })
        };
        let mut names = entry.split(' ').map(job);
        let first = names.next().flatten();
        let chain: Option<Vec<Job>> = names.collect();
        let is_error = first.is_none() || chain.is_none();
        let task = Task {
            chain: chain.unwrap_or_default(),
            id: String::from(id),
            is_error,
            ..Task::new(first.unwrap_or_else(|| Job {
                host: 0,
                path: Rc::from("/"),
            }))
        };
        if is_error { Err(task) } else { Ok(task) }
    }

    /// What the ear does.
    fn listen(&self, mut connection: Connection) {
        let list = format!("{}:wake:{}", self.keys[1], self.me);
        while self.end.borrow().is_none() {
            let list = list.clone();
            let heard;
            (connection, heard) = apart(move || {
                let mut wait = redis::cmd("BLPOP");
                let heard = wait
                    .arg(list)
                    .arg(BEAT.as_secs())
                    .query::<Option<(String, String)>>(&mut connection);
                (connection, heard)
            });
            match heard {
                Ok(Some(_)) => {
                    self.heard.set(self.heard.get() + 1);
                    self.noted.set(false);
                }
                Ok(None) => {} // perhaps time for a beat
                Err(error) => return self.end(Err(lost(&self.address, &error))),
            }
            self.wake_clerk();
        }
    }
}

/// A connection that does not wait for ever.
fn connect(client: &Client) -> RedisResult<Connection> {
    let connection = client.get_connection_with_timeout(PATIENCE)?;
    connection.set_read_timeout(Some(PATIENCE))?;
    connection.set_write_timeout(Some(PATIENCE))?;
    Ok(connection)
}

fn lost(address: &str, error: &RedisError) -> String {
    match error.is_timeout() {
        true => format!("Redis at {address}: no answer for {PATIENCE:?}"),
        false => format!("Redis at {address}: {error}"),
    }
}

/// A job to hand in: what is `Send` of a task.
#[derive(Debug)]
struct Done {
    id: String,
    is_page: bool,
    is_error: bool,
    bytes: u64,
    links: Vec<String>,
}

impl From<Task> for Done {
    fn from(task: Task) -> Done {
        Done {
            id: task.id,
            is_page: task.is_page,
            is_error: task.is_error,
            bytes: task.bytes,
            links: task.found,
        }
    }
}

/// `over`, `pages`, `bytes`, `requests`, `errors`, `open`, `processes`; and ids and entries by turns.
type Answer = ([u64; 7], Vec<String>);

/// What `turn.lua` is called with.
#[derive(Debug)]
struct Turn {
    keys: [String; 2],
    me: String,
    want: i64,
    beat: bool,
    done: Vec<Done>,
}

impl Turn {
    fn take(self, connection: &mut Connection) -> RedisResult<Answer> {
        let script = Script::new(include_str!("turn.lua"));
        let mut call = script.key(&self.keys[..]);
        call.arg(self.me).arg(self.want).arg(u8::from(self.beat));
        call.arg(CLAIM_AFTER.as_millis() as u64);
        call.arg(KEPT.as_secs()).arg(KEPT_WHEN_OVER.as_secs());
        for done in self.done {
            call.arg(done.id)
                .arg(u8::from(done.is_page))
                .arg(done.bytes)
                .arg(u8::from(done.is_error));
            call.arg(done.links.len());
            for link in done.links {
                call.arg(link);
            }
        }
        call.invoke(connection)
    }
}
