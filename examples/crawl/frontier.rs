//! What is still to be fetched: by this process alone, or shared with others through Redis.
//!
//! [`Frontier`] is what the workers see. It knows the hosts and reads links; its queue is a [`Local`] one, or a
//! [`Shared`] one.

use std::cell::{Cell, RefCell};
use std::collections::{HashSet, VecDeque};
use std::net::SocketAddr;
use std::rc::Rc;

use greenthread::thread::{self, Thread};

use crate::links::{self, Target};
use crate::shared::{Shared, Total};

/// A host that is crawled.
#[derive(Debug)]
pub(crate) struct Host {
    /// As in the `Host` header.
    pub(crate) authority: String,
    pub(crate) addresses: Vec<SocketAddr>,
    /// The paths that this process ever queued.
    seen: RefCell<HashSet<Rc<str>>>,
}

impl Host {
    pub(crate) fn new(authority: String, addresses: Vec<SocketAddr>) -> Host {
        Host {
            authority,
            addresses,
            seen: RefCell::default(),
        }
    }

    /// Notes a path. `None`: it was known.
    #[inline]
    fn note(&self, path: &str) -> Option<Rc<str>> {
        let mut seen = self.seen.borrow_mut();
        if seen.contains(path) {
            return None;
        }
        let path: Rc<str> = Rc::from(path);
        seen.insert(path.clone());
        Some(path)
    }
}

/// A page to fetch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Job {
    /// Which of [`Frontier::hosts`].
    pub(crate) host: usize,
    pub(crate) path: Rc<str>,
}

/// A job under way, and what came of it so far.
#[derive(Debug)]
pub(crate) struct Task {
    pub(crate) job: Job,
    /// The redirects that led here.
    pub(crate) chain: Vec<Job>,
    pub(crate) is_page: bool,
    pub(crate) is_error: bool,
    pub(crate) bytes: u64,
    /// The shared queue's name for it.
    pub(crate) id: String,
    /// The links for the shared queue, which takes them when the task is done.
    pub(crate) found: Vec<String>,
}

impl Task {
    pub(crate) fn new(job: Job) -> Task {
        Task {
            job,
            chain: Vec::new(),
            is_page: false,
            is_error: false,
            bytes: 0,
            id: String::new(),
            found: Vec::new(),
        }
    }
}

/// What is to be fetched, and where.
#[derive(Debug)]
pub(crate) struct Frontier {
    pub(crate) hosts: Rc<[Host]>,
    queue: Queue,
}

#[derive(Debug)]
enum Queue {
    Local(Local),
    Shared(Rc<Shared>),
}

impl Frontier {
    /// A frontier of this process.
    pub(crate) fn local(hosts: Rc<[Host]>, limit: usize, starts: &[(usize, String)]) -> Frontier {
        let frontier = Frontier {
            hosts,
            queue: Queue::Local(Local::new(limit)),
        };
        for (host, path) in starts {
            frontier.add(*host, path, &mut Vec::new());
        }
        frontier
    }

    /// A frontier that others crawl as well. It has its start pages already.
    pub(crate) fn shared(hosts: Rc<[Host]>, queue: Rc<Shared>) -> Frontier {
        Frontier {
            hosts,
            queue: Queue::Shared(queue),
        }
    }

    /// The next page to fetch; parks until there is one. `None`: the crawl is over.
    pub(crate) fn next(&self) -> Option<Task> {
        match &self.queue {
            Queue::Local(local) => local.next().map(Task::new),
            Queue::Shared(shared) => shared.next(),
        }
    }

    /// A task from [`next`](Self::next) is done with. If it was no page after all, another may take its place.
    pub(crate) fn done(&self, task: Task) {
        match &self.queue {
            Queue::Local(local) => local.done(task.is_page),
            Queue::Shared(shared) => shared.done(task),
        }
    }

    /// Tasks that are not done from now on are left to the other processes.
    pub(crate) fn stop(&self) {
        if let Queue::Shared(shared) = &self.queue {
            shared.stop();
        }
    }

    /// Ends it; what all processes did together, if there may be others.
    pub(crate) fn close(&self) -> Result<Option<Total>, String> {
        match &self.queue {
            Queue::Local(_) => Ok(None),
            Queue::Shared(shared) => shared.close().map(Some),
        }
    }

    /// Pages done, jobs in flight here, and jobs to do.
    pub(crate) fn counts(&self) -> (usize, usize, usize) {
        match &self.queue {
            Queue::Local(local) => (local.pages.get(), local.active.get(), local.queue.borrow().len()),
            Queue::Shared(shared) => shared.counts(),
        }
    }

    /// Queues a page, unless it is known: now, or with the end of the task whose `found` it is.
    #[inline]
    fn add(&self, host: usize, path: &str, found: &mut Vec<String>) {
        let Some(path) = self.hosts[host].note(path) else {
            return;
        };
        match &self.queue {
            Queue::Local(local) => local.add(Job { host, path }),
            Queue::Shared(_) => found.push(self.name(&Job { host, path })),
        }
    }

    /// What the shared queue calls a page.
    fn name(&self, job: &Job) -> String {
        format!("{}{}", self.hosts[job.host].authority, job.path)
    }

    /// The task's page is elsewhere. Whether the task goes on, there; else the page is known, or queued.
    pub(crate) fn follow(&self, task: &mut Task, to: Job) -> bool {
        if self.hosts[to.host].note(&to.path).is_none() {
            return false;
        }
        match &self.queue {
            Queue::Local(_) => {
                task.job = to;
                true
            }
            // A task is one request: were it claimed by another process, the page would be known and nobody's.
            Queue::Shared(_) => {
                let names: Vec<_> = std::iter::once(&to)
                    .chain(&task.chain)
                    .map(|job| self.name(job))
                    .collect();
                task.found.push(names.join(" "));
                false
            }
        }
    }

    fn host(&self, authority: &str) -> Option<usize> {
        let is = |host: &Host| host.authority.eq_ignore_ascii_case(authority);
        self.hosts.iter().position(is)
    }

    /// Queues the links of a page. How many lead to other hosts.
    pub(crate) fn add_links(&self, task: &mut Task, html: &[u8], scratch: &mut String) -> usize {
        let mut other_hosts = 0;
        let Task { job: page, found, .. } = task;
        links::each_href(html, |link| {
            let host = match links::resolve(&page.path, link, scratch) {
                Target::Here => Some(page.host),
                Target::There(authority) => self.host(authority),
                Target::Elsewhere => None,
                Target::Nowhere => return,
            };
            match host {
                Some(host) if links::may_be_page(scratch) => self.add(host, scratch, found),
                Some(_) => {}
                None => other_hosts += 1,
            }
        });
        other_hosts
    }

    /// Where a redirect leads; `None`: to another host, or to no page at all.
    pub(crate) fn resolve(&self, from: &Job, link: &str, scratch: &mut String) -> Option<Job> {
        let host = match links::resolve(&from.path, link, scratch) {
            Target::Here => from.host,
            Target::There(authority) => self.host(authority)?,
            Target::Elsewhere | Target::Nowhere => return None,
        };
        let path = Rc::from(&**scratch);
        Some(Job { host, path })
    }
}

/// The queue of pages. It ends the crawl when it is empty and nobody is busy, or when there are pages enough.
#[derive(Debug)]
struct Local {
    queue: RefCell<VecDeque<Job>>,
    /// Workers that found nothing to do.
    waiting: RefCell<Vec<Thread>>,
    limit: usize,
    pages: Cell<usize>,
    active: Cell<usize>,
}

impl Local {
    fn new(limit: usize) -> Local {
        Local {
            queue: RefCell::default(),
            waiting: RefCell::default(),
            limit,
            pages: Cell::new(0),
            active: Cell::new(0),
        }
    }

    fn next(&self) -> Option<Job> {
        loop {
            // No more are under way than may still be pages: the limit is met exactly.
            if self.has_room()
                && let Some(job) = self.queue.borrow_mut().pop_front()
            {
                self.active.set(self.active.get() + 1);
                return Some(job);
            }
            if self.active.get() == 0 {
                self.waiting.take().iter().for_each(Thread::unpark);
                return None;
            }
            self.waiting.borrow_mut().push(thread::current());
            thread::park();
        }
    }

    fn done(&self, is_page: bool) {
        self.active.set(self.active.get() - 1);
        self.pages.set(self.pages.get() + usize::from(is_page));
        if !is_page {
            self.wake_one();
        }
    }

    fn add(&self, job: Job) {
        self.queue.borrow_mut().push_back(job);
        self.wake_one();
    }

    fn has_room(&self) -> bool {
        self.pages.get() + self.active.get() < self.limit
    }

    fn wake_one(&self) {
        if self.has_room()
            && let Some(worker) = self.waiting.borrow_mut().pop()
        {
            worker.unpark();
        }
    }
}
