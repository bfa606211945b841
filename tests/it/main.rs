//! All integration tests in one binary; what must have a process of its own runs as a child of it.

mod async_io_poll;
#[cfg(feature = "tokio-io")]
mod async_io_tokio;
mod aio_cancel;
mod aio_group;
mod aio_loop;
mod aio_task;
mod aio_transport;
mod aio_wait;
mod aio_with;
mod child;
mod compat_drop;
mod compat_send;
mod compat_wakes;
mod crash;
mod crawl;
mod examples;
mod fair_budget;
mod fs_file;
mod future_asyncify;
mod future_block_on;
mod future_stream;
#[cfg(feature = "hyper")]
mod http_limits;
#[cfg(feature = "hyper")]
mod http_server;
mod future_task;
mod hub_guarded;
mod hub_handle;
mod hub_stackless;
mod hub_turn;
mod io_buffered;
mod hubs;
mod io_late;
mod io_wait;
mod isolation;
mod isolation_ends;
mod layering;
mod lines;
mod net_edge;
mod net_full;
mod net_parity;
mod net_tcp;
mod process_communicate;
mod process_wait;
mod signal_wait;
#[cfg(feature = "tls")]
mod net_tls;
#[cfg(feature = "tls")]
mod net_tls_cut;
mod server_protocol;
mod server_linger;
mod server_stream;
#[cfg(feature = "tls")]
mod server_tls;
#[cfg(feature = "process-pool")]
mod processpool;
mod rows;
mod sync;
mod sync_once;
mod sync_promise;
mod sync_select;
mod sync_queue;
mod sync_queue_model;
mod sync_reentrant;
mod sync_waker;
mod thread_builder;
mod thread_fresh;
mod thread_group;
mod thread_join;
mod thread_join_error;
mod thread_kill;
mod thread_local;
mod thread_local_std;
mod thread_many;
mod thread_park;
mod thread_pool;
mod thread_scope;
mod thread_scope_handle;
mod threadpool_future;
mod threadpool_pool;
mod tidy;
mod time_async;
mod time_sleep;
mod time_timeout;
mod greenlet_switch;
mod greenlet_parent;
mod greenlet_throw;
mod greenlet_drop;
mod greenlet_trace;
mod greenlet_process;
mod greenlet_roots;
mod generator_values;
mod generator_drop;
