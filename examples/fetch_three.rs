//! An unmodified blocking HTTP client, `ureq`, fetches three pages and then three images at once, on one OS thread.
//!
//! ```text
//! cargo run --release --example fetch_three -- patched [URL...] [FOLDER]
//! ```
//!
//! Without URLs it asks a server of its own on loopback, which thinks for a second about each. Expect three 发送请求, then
//! three 得到结果 with URL and length, in 1.0 s and not 3.0 s; then the same for the images, each of which is saved under
//! what follows `__` in its URL: three 下载完成, in 1.0 s. URLs with `__` are images; `http` only, as this ureq is built
//! without TLS. The folder is a fresh one, which vanishes at the end, if none is given.

use std::fs;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use greenthread::{monkey, spawn};
use ureq::Agent;

#[path = "servers/mod.rs"]
mod servers;

use servers::{Folder, Outcome};

fn fetch(session: &Agent, url: &str) -> Result<Vec<u8>, ureq::Error> {
    println!("发送请求: {url}");
    session.get(url).call()?.body_mut().read_to_vec()
}

fn page(session: &Agent, url: &str) -> Outcome {
    let text = fetch(session, url)?;
    println!("得到结果: {url} {}", text.len());
    Ok(())
}

/// What follows the `__` in the last part of a URL's path.
fn image_name(url: &str) -> Option<&str> {
    let path = url.split(['?', '#']).next()?;
    let (_, name) = path.rsplit('/').next()?.rsplit_once("__")?;
    (!["", ".", ".."].contains(&name)).then_some(name)
}

fn image(session: &Agent, url: &str, folder: &Path) -> Outcome {
    let bytes = fetch(session, url)?;
    let name = image_name(url).ok_or("no name")?;
    fs::write(folder.join(name), &bytes)?; // files block, but not for long
    println!("下载完成: {name} {}", bytes.len());
    Ok(())
}

fn fetch_all(urls: Vec<String>, folder: Arc<Path>) -> Outcome {
    let session = Agent::new_with_defaults(); // one, shared by all
    let (images, pages): (Vec<_>, Vec<_>) = urls.into_iter().partition(|url| image_name(url).is_some());
    let pages = pages.into_iter().map(|url| {
        let session = session.clone();
        spawn(move || page(&session, &url))
    });
    servers::join_all("pages", pages.collect::<Vec<_>>())?;
    let images = images.into_iter().map(|url| {
        let (session, folder) = (session.clone(), folder.clone());
        spawn(move || image(&session, &url, &folder))
    });
    servers::join_all("images", images.collect::<Vec<_>>())?;
    Ok(())
}

/// Three pages and three images of a server of our own.
fn own_urls() -> Outcome<Vec<String>> {
    let address = servers::http(|path| (Duration::from_secs(1), path.repeat(1000).into_bytes()))?;
    let paths = [
        "",
        "news",
        "about/us",
        "2024__one.jpg",
        "cars/2024__two.jpg",
        "cars/q_95__three.jpg",
    ];
    Ok(paths.map(|path| format!("http://{address}/{path}")).into())
}

fn patched(args: Vec<String>) -> Outcome {
    let (urls, folders): (Vec<_>, Vec<_>) = args.into_iter().partition(|arg| arg.contains("://"));
    let folder = Folder::given_or_fresh(folders.into_iter().next())?;
    let path = Arc::from(folder.path.as_path());
    monkey::patch_all()?;
    greenthread::run(move || {
        let urls = if urls.is_empty() { own_urls()? } else { urls };
        fetch_all(urls, path)
    })
}

fn main() -> ExitCode {
    servers::faces(patched)
}
