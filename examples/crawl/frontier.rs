//! What is still to be fetched, and who waits for more of it.

use std::cell::{Cell, RefCell};
use std::collections::{HashSet, VecDeque};
use std::net::SocketAddr;
use std::rc::Rc;

use greenthread::thread::{self, Thread};

use crate::links::{self, Target};

/// A host that is crawled.
#[derive(Debug)]
pub(crate) struct Host {
    /// As in the `Host` header.
    pub(crate) authority: String,
    pub(crate) addresses: Vec<SocketAddr>,
    /// The paths that were ever queued.
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
}

/// A page to fetch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Job {
    /// Which of [`Frontier::hosts`].
    pub(crate) host: usize,
    pub(crate) path: Rc<str>,
}

/// The queue of pages. It ends the crawl when it is empty and nobody is busy, or when there are pages enough.
#[derive(Debug)]
pub(crate) struct Frontier {
    pub(crate) hosts: Vec<Host>,
    queue: RefCell<VecDeque<Job>>,
    /// Workers that found nothing to do.
    waiting: RefCell<Vec<Thread>>,
    limit: usize,
    pages: Cell<usize>,
    active: Cell<usize>,
}

impl Frontier {
    pub(crate) fn new(hosts: Vec<Host>, limit: usize) -> Frontier {
        Frontier {
            hosts,
            queue: RefCell::default(),
            waiting: RefCell::default(),
            limit,
            pages: Cell::new(0),
            active: Cell::new(0),
        }
    }

    /// The next page to fetch; parks until there is one. `None`: the crawl is over.
    pub(crate) fn next(&self) -> Option<Job> {
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

    /// A page from [`next`](Self::next) is done with. If it was none after all, another may take its place.
    pub(crate) fn done(&self, is_page: bool) {
        self.active.set(self.active.get() - 1);
        self.pages.set(self.pages.get() + usize::from(is_page));
        if !is_page {
            self.wake_one();
        }
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

    /// Pages in flight, and pages in the queue.
    pub(crate) fn counts(&self) -> (usize, usize) {
        (self.active.get(), self.queue.borrow().len())
    }

    /// Queues a page, unless it is known.
    pub(crate) fn add(&self, host: usize, path: &str) {
        if let Some(path) = self.new_path(host, path) {
            self.queue.borrow_mut().push_back(Job { host, path });
            self.wake_one();
        }
    }

    /// Notes a page that is fetched right now. Whether it was new.
    pub(crate) fn mark(&self, job: &Job) -> bool {
        self.hosts[job.host].seen.borrow_mut().insert(job.path.clone())
    }

    #[inline]
    fn new_path(&self, host: usize, path: &str) -> Option<Rc<str>> {
        let mut seen = self.hosts[host].seen.borrow_mut();
        if seen.contains(path) {
            return None;
        }
        let path: Rc<str> = Rc::from(path);
        seen.insert(path.clone());
        Some(path)
    }

    fn host(&self, authority: &str) -> Option<usize> {
        let is = |host: &Host| host.authority.eq_ignore_ascii_case(authority);
        self.hosts.iter().position(is)
    }

    /// Queues the links of a page. How many lead to other hosts.
    pub(crate) fn add_links(&self, page: &Job, html: &[u8], scratch: &mut String) -> usize {
        let mut other_hosts = 0;
        links::each_href(html, |link| {
            let host = match links::resolve(&page.path, link, scratch) {
                Target::Here => Some(page.host),
                Target::There(authority) => self.host(authority),
                Target::Elsewhere => None,
                Target::Nowhere => return,
            };
            match host {
                Some(host) if links::may_be_page(scratch) => self.add(host, scratch),
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
