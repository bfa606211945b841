//! `ureq`, which blocks, in green threads on patched libc.

use greenthread::{monkey, spawn};
use ureq::Agent;

use super::{Outcome, Program, servers};

pub(crate) fn main(args: Vec<String>) -> Outcome {
    monkey::patch_all()?;
    let program = Program::new(args, || servers::http(servers::echo_path))?;
    let session = Agent::new_with_defaults(); // one, shared by all
    program.run(|url, done| {
        let session = session.clone();
        spawn(move || {
            println!("request: {url}");
            let page = session.get(&url).call()?.body_mut().read_to_vec()?;
            done(&url, &page)
        })
    })
}
