//! Which futures may go to another OS thread: those of every primitive, where what they carry may. For an executor of
//! many threads asks for that.

use std::future::Future;
use std::rc::Rc;

use greenthread::future::{self, asyncify_on};
use greenthread::io::Async;
use greenthread::net::{TcpListener, TcpStream, UdpSocket};
use greenthread::sync::queue::{PriorityQueue, Queue};
use greenthread::sync::{
    Barrier, BoundedSemaphore, Condvar, Event, Mutex, Once, OnceLock, Promise, RwLock, Semaphore, channel,
};
use greenthread::time::{Interval, Sleep, sleep_async};
use greenthread::{JoinHandle, hub, threadpool};

use crate::support::fresh::fresh;

fn is_send<T: Send>(_: &T) {}

fn future_is_send<F: Future + Send>(_: F) {}

#[test]
fn futures_of_primitives_are_send() {
    let (mutex, lock, condvar) = (Mutex::new(0), RwLock::new(0), Condvar::new());
    future_is_send(mutex.lock_async());
    future_is_send(lock.read_async());
    future_is_send(lock.write_async());
    future_is_send(condvar.wait_async(mutex.lock().unwrap()));
    future_is_send(Semaphore::new(1).acquire_async());
    future_is_send(BoundedSemaphore::new(1).acquire_async());
    future_is_send(Event::new().wait_async());
    future_is_send(Promise::<u32>::new().wait_async());
    future_is_send(Once::new().wait_async());
    let cell = OnceLock::new();
    future_is_send(cell.wait_async());
    future_is_send(cell.get_or_init_async(async || 1));
    future_is_send(Barrier::new(2).wait_async());
    let (sender, receiver) = channel::bounded(1);
    future_is_send(sender.send_async(1));
    future_is_send(receiver.recv_async());
    is_send(&receiver.stream());
    let (queue, sorted) = (Queue::bounded(1), PriorityQueue::unbounded());
    future_is_send(queue.put_async(1));
    future_is_send(queue.get_async());
    future_is_send(queue.peek_async());
    future_is_send(queue.join_async());
    future_is_send(sorted.put_async(1));
    future_is_send(sorted.get_async());
}

#[test]
fn futures_of_timers_handles_and_jobs_are_send() {
    fresh(|| {
        is_send::<Sleep>(&sleep_async(std::time::Duration::ZERO));
        is_send(&Interval::new(std::time::Duration::from_secs(1)).stream());
        future_is_send::<JoinHandle<u32>>(greenthread::spawn_local(|| 1));
        // What comes of it is, though it is not itself.
        let local = Rc::new(2);
        future_is_send::<future::Task<u32>>(future::spawn(async move { *local }));
        future_is_send(asyncify_on(&hub::handle(), || 3).unwrap());
        future_is_send(threadpool::ThreadPool::new(1).submit(|| 4).unwrap());
    });
}

#[test]
fn futures_of_sockets_are_send() {
    fresh(|| {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let stream = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        future_is_send(listener.accept_async());
        future_is_send(stream.readable_async());
        future_is_send(stream.writable_async());
        future_is_send(socket.recv_from_async(&mut [0]));
        future_is_send(socket.send_to_async(&[0], listener.local_addr().unwrap()));
        let any = Async::new(std::io::pipe().unwrap().0).unwrap();
        future_is_send(any.readable_async());
        future_is_send(any.read_with_async(|_| Ok(())));
        is_send(&(listener, stream, socket, any));
    });
}
