//! asyncio's names over this crate: tasks, waiting for them, and the loop.
//!
//! A [`Task`] runs a future or [green code](green), and either can wait for it: `task.await` or `task.wait()`.
//!
//! ```
//! use std::time::Duration;
//! use greenthread::{aio, sleep};
//!
//! async fn say(after: u64, what: &'static str) -> &'static str {
//!     aio::sleep(Duration::from_millis(after)).await;
//!     what
//! }
//!
//! let words = aio::run(async {
//!     let green = aio::green(|| { sleep(Duration::from_millis(2)); "hello" });
//!     let tasks = [aio::create_task(green), aio::create_task(say(1, "world"))];
//!     aio::gather(tasks).await.unwrap()
//! });
//! assert_eq!(words.unwrap(), ["hello", "world"]);
//! ```
//!
//! # What differs from asyncio
//! * **Exceptions.** A panic counts as an exception. So does the `Err` of a body that is [`fallible`]; without
//!   `fallible` an `Err` is a value. Errors come as a [`TaskError`].
//! * **Cancel.** Green code unwinds at its next park, and may catch that. A future is dropped: no `async` code can
//!   catch it, but what blocks in its poll unwinds there. If a task is cancelled while it waits for another task, the
//!   other task is cancelled too, as in Python, and the first ends after it. If the first task runs a future, that
//!   future has already been dropped; only its end is delayed.
//! * **Time-outs** are no cancels: `cancelling()` does not count them.
//! * **Results** are cloned for each waiter.
//! * **One hub on each OS thread.** A loop belongs to the hub: [`new_event_loop`] makes one, and it runs once it is
//!   bound to a hub.
//!
//! # What has another name
//!
//! | asyncio | here |
//! |---|---|
//! | `Future`, `loop.create_future` | [`Promise`](crate::sync::Promise), [`create_future`]; `add_done_callback` is `on_set` |
//! | `isfuture`, `iscoroutine` | [`IntoTask`] is for what can become a task, by type |
//! | `Task.get_stack`, `print_stack`, `get_coro`; `ps`, `pstree` | [`debug::dump`](crate::debug::dump) |
//! | `remove_done_callback` | [`DoneCallback::cancel`] |
//! | `create_task(.., name=name)` | [`Task::set_name`] |
//! | `create_eager_task_factory`, `set_task_factory` | none: a task begins soon; [`hub::set_hook`](crate::hub::set_hook) sees each spawn |
//! | `sleep(delay, result)` | [`sleep`] in `async` code, [`time::sleep`](crate::sleep) in green code; the result is yours |
//! | `Lock` | [`sync::Mutex`](crate::sync::Mutex), `lock_async` |
//! | `Event`, `Semaphore`, `BoundedSemaphore`, `Condition`, `Barrier` | the same in [`sync`](crate::sync) (`Condvar`) |
//! | `Queue`, `LifoQueue`, `PriorityQueue`, `QueueEmpty`, `QueueFull`, `QueueShutDown` | in [`sync::queue`](crate::sync::queue) |
//! | `run_coroutine_threadsafe` | [`hub::Handle::spawn`](crate::hub::Handle::spawn), `spawn_future` |
//! | `loop.run_in_executor`, `to_thread`, `wrap_future` | the same, from [`threadpool`](crate::threadpool) |
//! | `loop.set_default_executor`, `shutdown_default_executor` | none: [`run_in_executor`] takes the pool; the default one ends with the process |
//! | `create_server(factory, host, port)`, `Protocol`, `Transport` | [`create_server`] on a listener, [`server`](crate::server) |
//! | `BufferedProtocol` | a green thread that reads into its own buffer |
//! | `create_unix_server`, `create_unix_connection` | [`create_server`] with a [`UnixListener`](crate::net::UnixListener), and [`connect_accepted_socket`] |
//! | `start_unix_server`, `open_unix_connection` | [`StreamServer`](crate::server::StreamServer); [`io::Reader`](crate::io::Reader) and [`io::Writer`](crate::io::Writer) on a [`UnixStream`](crate::net::UnixStream) |
//! | `ssl=context`, `start_tls` | `net::tls::TlsStream`, `server::TlsConnection` (feature `tls`) |
//! | `Server.close`, `wait_closed`, `serve_forever`, `close_clients` | [`server::Handle`](crate::server::Handle): `close`, `wait`, `stop` |
//! | `create_datagram_endpoint`, `DatagramProtocol`, `DatagramTransport` | the same, [`server`](crate::server); also [`DatagramServer`](crate::server::DatagramServer) |
//! | `StreamReader`, `StreamWriter`, `open_connection` | [`io::Reader`](crate::io::Reader), [`io::Writer`](crate::io::Writer), [`open_connection`] |
//! | `IncompleteReadError`, `LimitOverrunError` | [`io::IncompleteRead`](crate::io::IncompleteRead), [`io::LimitOverrun`](crate::io::LimitOverrun) |
//! | `loop.sock_recv`, `sock_sendall`, `sock_connect`, `sock_accept` | [`net`](crate::net)'s sockets; on a descriptor of your own, [`io::Async`](crate::io::Async) |
//! | `loop.getaddrinfo`, `getnameinfo` | [`dns::lookup_host`](crate::dns::lookup_host); names of addresses: [`to_thread`] |
//! | `connect_read_pipe`, `connect_write_pipe` | [`io::Async`](crate::io::Async) on the pipe |
//! | `remove_reader`, `remove_writer`, `remove_signal_handler` | [`Watch::cancel`]; the drop of the handler |
//! | `create_subprocess_exec`, `create_subprocess_shell`, `Process` | [`process::Command`](crate::process::Command), [`create_subprocess_shell`], [`process::Child`](crate::process::Child) |
//! | `SubprocessProtocol`, `loop.subprocess_exec` | a green thread for each pipe of the child |
//! | `async with` | a guard with a `Drop` that may park; [`with_async`] |
//! | `async for` | an iterator; [`future::block_on_stream`](crate::future::block_on_stream), and `stream` of what has one |
//! | `contextvars` | [`green_local!`](crate::green_local) |
//! | `KeyboardInterrupt` out of `run` | [`TaskError::Interrupted`] |
//! | `CancelledError`, `InvalidStateError`, `TimeoutError` | [`TaskError`] |
//! | policies, child watchers, `shutdown_asyncgens` | none: there is nothing for them to do |
#![forbid(unsafe_code)]

mod contextlib;
mod coroutines;
mod events;
mod exceptions;
mod futures;
mod runners;
mod streams;
mod subprocess;
mod taskgroups;
mod tasks;
mod timeouts;
mod transports;

pub use contextlib::{AsyncContext, with_async};
pub use coroutines::{Fallible, Green, fallible, green};
pub use events::{
    EventLoop, ExceptionContext, Handle, Watch, get_event_loop, get_running_loop, new_event_loop, set_event_loop,
};
pub use exceptions::{ExceptionGroup, TaskError};
pub use futures::{AnyTask, all_tasks, create_future, current_task};
pub use runners::{Runner, run};
pub use streams::{Reading, Writing, open_connection, start_server};
pub use subprocess::{create_subprocess_exec, create_subprocess_shell};
pub use taskgroups::TaskGroup;
pub use tasks::wait::{AsCompleted, ReturnWhen, as_completed, wait, wait_async, wait_for, wait_for_async};
pub use tasks::{
    DoneCallback, IntoTask, Task, Waiting, create_task, ensure_future, gather, gather_exceptions, shield,
    try_create_task,
};
pub use timeouts::{Timeout, timeout, timeout_at};
pub use transports::{connect_accepted_socket, create_connection, create_datagram_endpoint};

pub use crate::server::serve_protocol as create_server;
pub use crate::threadpool::{run_in_executor, to_thread, wrap_future};
pub use crate::time::sleep_async as sleep;
