//! Three pages and then three images at once, on one OS thread: by an unmodified blocking client, `ureq`, on patched libc; or by
//! hyper's asynchronous one on the hub, without tokio's runtime.
//!
//! ```text
//! cargo run --release --example fetch_three -- [patched|async] [URL...] [FOLDER]
//! ```
//!
//! Without URLs it asks a server of its own on loopback, which thinks for a second about each. Expect three `request`,
//! then three `answer` with URL and length, in 1.0 s and not 3.0 s. Then the same for the images, each of which is saved
//! under what follows `__` in its URL: three `download complete`, in 1.0 s. URLs with `__` are images; `http` only, as the
//! clients are built without TLS. The folder is a fresh one, which vanishes at the end, if none is given.

mod asynchronous;
mod patched;

use std::fs;
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

use greenthread::thread::JoinError;

#[path = "../servers/mod.rs"]
mod servers;

use servers::{Folder, Outcome};

/// What is to be done with the bytes of a URL.
type Done = Arc<dyn Fn(&str, &[u8]) -> Outcome + Send + Sync>;

struct Program {
    urls: Vec<String>,
    folder: Folder,
}

impl Program {
    /// From the arguments; without URLs, three pages and three images of a server of our own.
    fn new(args: Vec<String>, server: impl FnOnce() -> io::Result<SocketAddr>) -> Outcome<Program> {
        let (mut urls, folders): (Vec<_>, Vec<_>) = args.into_iter().partition(|arg| arg.contains("://"));
        if urls.is_empty() {
            let address = server()?;
            let pages = ["", "news", "about/us"];
            let images = ["2024__one.jpg", "cars/2024__two.jpg", "cars/q_95__three.jpg"];
            urls.extend(
                [pages, images]
                    .concat()
                    .iter()
                    .map(|path| format!("http://{address}/{path}")),
            );
        }
        let folder = Folder::given_or_fresh(folders.into_iter().next())?;
        Ok(Program { urls, folder })
    }

    /// All pages at once, and then all images, by what starts to fetch one.
    fn run<J>(self, fetch: impl Fn(String, Done) -> J) -> Outcome
    where
        J: Future<Output = Result<Outcome, JoinError>>,
    {
        let (images, pages): (Vec<_>, Vec<_>) = self.urls.into_iter().partition(|url| image_name(url).is_some());
        let done: Done = Arc::new(page);
        servers::join_all("pages", pages.into_iter().map(|url| fetch(url, done.clone())))?;
        let folder = self.folder.path.clone();
        let done: Done = Arc::new(move |url, bytes| image(&folder, url, bytes));
        servers::join_all("images", images.into_iter().map(|url| fetch(url, done.clone())))?;
        Ok(())
    }
}

fn page(url: &str, text: &[u8]) -> Outcome {
    println!("answer: {url} {}", text.len());
    Ok(())
}

/// What follows the `__` in the last part of a URL's path.
fn image_name(url: &str) -> Option<&str> {
    let path = url.split(['?', '#']).next()?;
    let (_, name) = path.rsplit('/').next()?.rsplit_once("__")?;
    (!["", ".", ".."].contains(&name)).then_some(name)
}

fn image(folder: &Path, url: &str, bytes: &[u8]) -> Outcome {
    let name = image_name(url).ok_or("no name")?;
    fs::write(folder.join(name), bytes)?; // files block, but not for long
    println!("download complete: {name} {}", bytes.len());
    Ok(())
}

fn main() -> ExitCode {
    servers::faces(patched::main, asynchronous::main)
}
