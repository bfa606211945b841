//! asyncio's names over what is there: tasks, waiting for them, and the loop.
//!
//! A [`Task`] runs a future or [green code](green), and is waited for by either: `task.await` or `task.wait()`.
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
//! * **Exceptions.** A panic is one. So is the `Err` of a body that is [`fallible`]; without that it is a value. Errors come as a
//!   [`TaskError`].
//! * **Cancel.** Green code unwinds at its next park, and may catch that. A future is dropped: no `async` code can catch it. Who is
//!   cancelled while it waits for a task cancels that task too, as in Python; green code then stays for its end, a future that is
//!   dropped cannot.
//! * **Time-outs** are no cancels: `cancelling()` does not count them.
//! * **Results** are cloned for each who waits.
//! * **One hub on each OS thread.** A loop is bound to it, not made.
//!
//! # What has another name
//!
//! | asyncio | here |
//! |---|---|
//! | `Future`, `loop.create_future` | [`Promise`](crate::sync::Promise), [`create_future`] |
//! | `Lock` | [`sync::Mutex`](crate::sync::Mutex), `lock_async` |
//! | `Event`, `Semaphore`, `BoundedSemaphore`, `Condition`, `Barrier` | the same in [`sync`](crate::sync) (`Condvar`) |
//! | `Queue`, `LifoQueue`, `PriorityQueue` | the same in [`sync::queue`](crate::sync::queue) |
//! | `loop.run_in_executor`, `to_thread`, `wrap_future` | the same, from [`threadpool`](crate::threadpool) |
//! | `run_coroutine_threadsafe` | [`hub::Handle::spawn`](crate::hub::Handle::spawn) |
//! | `create_server(factory)`, `Protocol`, `Transport` | [`serve_protocol`](crate::server::serve_protocol), [`server`](crate::server) |
//! | `create_connection(factory)` | [`run_protocol`](crate::server::run_protocol) on a connected stream |
//! | `start_server(f)` | [`StreamServer`](crate::server::StreamServer) |
//! | `create_datagram_endpoint` | [`DatagramServer`](crate::server::DatagramServer), [`UdpSocket`](crate::net::UdpSocket) |
//! | `StreamReader`, `StreamWriter`, `open_connection` | [`io::Reader`](crate::io::Reader), [`io::Writer`](crate::io::Writer), [`open_connection`] |
//! | `create_subprocess_exec`, `create_subprocess_shell` | [`process::Command`](crate::process::Command), [`create_subprocess_shell`] |
//! | `async with` | a guard whose `Drop` may park; [`with_async`] |
//! | `contextvars` | [`green_local!`](crate::green_local) |
#![forbid(unsafe_code)]

mod ctrl_c;
mod error;
mod event_loop;
mod gather;
mod group;
mod names;
mod report;
mod run;
mod slow;
mod spawn;
mod task;
mod timeout;
mod wait;
mod with;

pub use error::{ExceptionGroup, TaskError};
pub use event_loop::{EventLoop, Handle, Watch, get_event_loop, get_running_loop, new_event_loop, set_event_loop};
pub use gather::{gather, gather_exceptions, shield};
pub use group::TaskGroup;
pub use names::{
    Reading, Writing, connect_accepted_socket, create_connection, create_datagram_endpoint, create_future,
    create_subprocess_exec, create_subprocess_shell, open_connection, start_server,
};
pub use report::ExceptionContext;
pub use run::{Runner, run};
pub use spawn::{
    Fallible, Green, IntoTask, all_tasks, create_task, current_task, ensure_future, fallible, green, try_create_task,
};
pub use task::{AnyTask, DoneCallback, Task, Waiting};
pub use timeout::{Timeout, timeout, timeout_at};
pub use wait::{AsCompleted, ReturnWhen, as_completed, wait, wait_async, wait_for, wait_for_async};
pub use with::{AsyncContext, with_async};

pub use crate::server::serve_protocol as create_server;
pub use crate::threadpool::{run_in_executor, to_thread, wrap_future};
pub use crate::time::sleep_async as sleep;
