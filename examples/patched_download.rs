//! An unmodified blocking HTTP client, `ureq`, downloads three pages at once on one OS thread; or two files.
//!
//! ```text
//! cargo run --release --example patched_download
//! cargo run --release --example patched_download -- files [FOLDER]
//! ```
//!
//! A server of its own on loopback thinks 1.0, 0.8 and 0.6 s about them. Expect three `GET:` lines, then three
//! `… bytes received`, the quickest first, in 1.0 s and not 2.4 s. With `files` it writes two files of 5,000,000 bytes,
//! to a fresh folder, which vanishes at the end, if none is given: two `GET:`, two `… bytes written`, 2.0 s and not
//! 3.5 s.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use greenthread::{monkey, spawn};

#[path = "servers/mod.rs"]
mod servers;

use servers::{Folder, Outcome};

/// Thinks for as many milliseconds as the path says, about so many bytes.
fn page(path: &str) -> (Duration, Vec<u8>) {
    let size = if path.ends_with(".mp4") { 5_000_000 } else { 1_000_000 };
    let delay = path.trim_start_matches("/after").trim_end_matches(".mp4").parse();
    (Duration::from_millis(delay.unwrap_or(1000)), vec![b'x'; size])
}

fn get(url: &str) -> Result<Vec<u8>, ureq::Error> {
    println!("GET: {url}");
    ureq::get(url).call()?.body_mut().read_to_vec()
}

fn download(url: &str) -> Outcome {
    let body = get(url)?;
    println!("{} bytes received from {url}.", body.len());
    Ok(())
}

/// The file keeps all others of this OS thread waiting while it is written, as with gevent.
fn save(url: &str, file: &Path) -> Outcome {
    fs::write(file, get(url)?)?;
    println!("{} bytes written to {}", fs::metadata(file)?.len(), file.display());
    Ok(())
}

fn pages() -> Outcome {
    let address = servers::http(page)?;
    let urls = ["after1000", "after800", "after600"].map(|name| format!("http://{address}/{name}"));
    servers::join_all("three downloads", urls.map(|url| spawn(move || download(&url))))?;
    Ok(())
}

fn files(folder: PathBuf) -> Outcome {
    let address = servers::http(page)?;
    let names = ["after2000.mp4", "after1500.mp4"].map(|name| (format!("http://{address}/{name}"), folder.join(name)));
    servers::join_all("two files", names.map(|(url, file)| spawn(move || save(&url, &file))))?;
    Ok(())
}

fn main() -> Outcome {
    let mut args = std::env::args().skip(1);
    monkey::patch_all()?;
    if args.next().is_none_or(|arg| arg != "files") {
        return greenthread::run(pages);
    }
    let folder = Folder::given_or_fresh(args.next())?;
    let path = folder.path.clone();
    greenthread::run(|| files(path))
}
