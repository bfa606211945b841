//! The others' side of the comparison: `peers bare|epoll|tokio|may|threads WORKLOAD [N]`.

mod bare;
mod epoll;
mod may;
mod threads;
mod tokio;

use peers::Args;

fn main() {
    let args = Args::read(1);
    match std::env::args().nth(1).as_deref() {
        Some("bare") => bare::main(args),
        Some("epoll") => epoll::main(args),
        Some("tokio") => tokio::main(args),
        Some("may") => may::main(args),
        Some("threads") => threads::main(args),
        _ => panic!("which? bare|epoll|tokio|may|threads WORKLOAD [N]"),
    }
}
