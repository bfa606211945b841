//! The server: a folder of files, or a generated site with every kind of trouble in it.

use std::fmt::Write as _;
use std::fs::File;
use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

use greenthread::net::{TcpListener, TcpStream};
use greenthread::{sleep, spawn_local};

/// How long the generated site's slow pages take.
const SLOW: Duration = Duration::from_secs(2);
const MOST_HEAD: usize = 16 << 10;

#[derive(Debug)]
pub(crate) enum Site {
    Files(PathBuf),
    /// So many pages, linked as a tree with eight branches at each page.
    Generated(u32),
}

/// Serves it on loopback from now on; each reply comes after `delay`. Port 0: any that is free.
pub(crate) fn serve(site: Site, delay: Duration, port: u16) -> io::Result<SocketAddr> {
    let listener = TcpListener::bind(("127.0.0.1", port))?;
    let address = listener.local_addr()?;
    let site = Rc::new(site);
    spawn_local(move || {
        for stream in listener.incoming() {
            let Ok(stream) = stream else { return };
            let site = site.clone();
            // A client that goes away ends its connection; that is no news.
            spawn_local(move || converse(&site, &stream, delay).ok());
        }
    });
    Ok(address)
}

/// One connection: request, pause, reply, and again.
fn converse(site: &Site, mut stream: &TcpStream, delay: Duration) -> io::Result<()> {
    let (mut request, mut reply) = (Vec::new(), Vec::new());
    loop {
        let Some(end) = read_head(stream, &mut request)? else {
            return Ok(());
        };
        sleep(delay);
        reply.clear();
        let goes_on = match parse_request(&request[..end]) {
            Some(path) => match site {
                Site::Files(folder) => file(folder, path, &mut reply)?,
                Site::Generated(pages) => generated(*pages, path, &mut reply),
            },
            None => {
                simple(&mut reply, "400 Bad Request", "");
                false
            }
        };
        stream.write_all(&reply)?;
        request.drain(..end);
        if !goes_on {
            return Ok(());
        }
        if reply.capacity() > 1 << 20 {
            reply = Vec::new();
        }
    }
}

/// Reads until there is the head of a request, and gives its end. `None`: the client is done.
fn read_head(mut stream: &TcpStream, request: &mut Vec<u8>) -> io::Result<Option<usize>> {
    loop {
        if let Some(end) = request.windows(4).position(|w| w == b"\r\n\r\n") {
            return Ok(Some(end + 4));
        }
        let mut buffer = [0; 1024];
        let got = stream.read(&mut buffer)?;
        if got == 0 || request.len() > MOST_HEAD {
            return Ok(None);
        }
        request.extend_from_slice(&buffer[..got]);
    }
}

/// The path that a GET asks for.
fn parse_request(head: &[u8]) -> Option<&str> {
    let line = head.split(|&b| b == b'\r').next()?;
    let path = std::str::from_utf8(line).ok()?.strip_prefix("GET ")?;
    let path = path.strip_suffix(" HTTP/1.1")?;
    path.starts_with('/').then_some(path)
}

fn simple(reply: &mut Vec<u8>, status: &str, headers: &str) {
    let page = format!("<!DOCTYPE html><title>{status}</title>{status}\n");
    full(reply, status, headers, "text/html", page.as_bytes());
}

fn full(reply: &mut Vec<u8>, status: &str, headers: &str, kind: &str, body: &[u8]) {
    let len = body.len();
    let _ = write!(
        reply,
        "HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {len}\r\n{headers}\r\n"
    );
    reply.extend_from_slice(body);
}

/// Replies with a file of a folder. Whether the connection goes on.
fn file(folder: &Path, path: &str, reply: &mut Vec<u8>) -> io::Result<bool> {
    let Some(name) = safe_path(path) else {
        simple(reply, "403 Forbidden", "");
        return Ok(true);
    };
    let mut found = folder.join(&name);
    if name.is_empty() || name.ends_with('/') {
        found.push("index.html");
    }
    let opened = File::open(&found).and_then(|file| Ok((file.metadata()?, file)));
    match opened {
        Ok((metadata, _)) if metadata.is_dir() => {
            let path = path.split('?').next().unwrap_or(path);
            simple(reply, "301 Moved Permanently", &format!("Location: {path}/\r\n"));
        }
        Ok((metadata, file)) => {
            let (len, kind) = (metadata.len(), mime(&found));
            let _ = write!(
                reply,
                "HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\nContent-Length: {len}\r\n\r\n"
            );
            let head = reply.len() as u64;
            file.take(len).read_to_end(reply)?;
            // It shrank in between: the client has been told too much.
            return Ok(reply.len() as u64 == head + len);
        }
        Err(_) => simple(reply, "404 Not Found", ""),
    }
    Ok(true)
}

/// The path without its slash and query, decoded; nothing that leads out of the folder.
fn safe_path(path: &str) -> Option<String> {
    let path = path.split('?').next().unwrap_or(path).trim_start_matches('/');
    let mut bytes = Vec::with_capacity(path.len());
    let mut rest = path.bytes();
    while let Some(b) = rest.next() {
        bytes.push(match b {
            b'%' => {
                let mut digit = || char::from(rest.next()?).to_digit(16);
                (digit()? * 16 + digit()?) as u8
            }
            b => b,
        });
    }
    let name = String::from_utf8(bytes).ok()?;
    let bad = name.starts_with('/') || name.contains(['\0', '\\']) || name.split('/').any(|part| part == "..");
    (!bad).then_some(name)
}

fn mime(path: &Path) -> &'static str {
    match path.extension().and_then(|ending| ending.to_str()) {
        Some("html" | "htm") => "text/html; charset=utf-8",
        Some("css") => "text/css",
        Some("js") => "text/javascript",
        Some("json") => "application/json",
        Some("svg") => "image/svg+xml",
        Some("png") => "image/png",
        Some("ico") => "image/x-icon",
        Some("woff2") => "font/woff2",
        Some("txt" | "md") => "text/plain; charset=utf-8",
        _ => "application/octet-stream",
    }
}

/// Replies as the generated site. Whether the connection goes on.
fn generated(pages: u32, path: &str, reply: &mut Vec<u8>) -> bool {
    let (kind, number) = match path.trim_start_matches('/').split_once('/') {
        Some((kind, number)) => (kind, number.parse().ok()),
        None => ("page", (path == "/").then_some(0)),
    };
    let Some(number) = number.filter(|&number| number < pages) else {
        simple(reply, "404 Not Found", "");
        return true;
    };
    let moved = |reply: &mut Vec<u8>, to: &str| simple(reply, "301 Moved Permanently", &format!("Location: {to}\r\n"));
    match kind {
        "page" => {
            let body = page(pages, number);
            if number % 10 == 3 {
                chunked(reply, &body);
            } else {
                full(reply, "200 OK", "", "text/html; charset=utf-8", body.as_bytes());
            }
        }
        "redirect" => moved(reply, &format!("/page/{number}")),
        "loop" => moved(reply, &format!("../pool/{number}")),
        "pool" => moved(reply, &format!("/loop/{number}")),
        "away" => moved(reply, "http://elsewhere.invalid/"),
        "error" => simple(reply, "500 Internal Server Error", ""),
        "garbage" => {
            reply.extend_from_slice(b"220 ready when you are\r\n");
            return false;
        }
        "slow" => {
            sleep(SLOW);
            simple(reply, "200 OK", "");
        }
        "drop" => {
            full(reply, "200 OK", "", "text/html", &[b'.'; 4096]);
            reply.truncate(reply.len() / 2);
            return false;
        }
        _ => simple(reply, "404 Not Found", ""),
    }
    true
}

/// Page `number`: links to its branches, and for most pages to one piece of trouble.
fn page(pages: u32, number: u32) -> String {
    let mut html = format!("<!DOCTYPE html>\n<html><head><title>Page {number}</title></head><body>\n");
    let _ = writeln!(
        html,
        "<p><a href=\"/\">top</a> <a href=\"#end\">end</a> <a href=\"mailto:a@b\">mail</a>"
    );
    for child in (number * 8 + 1..=number * 8 + 8).filter(|&child| child < pages) {
        let _ = match child % 3 {
            0 => writeln!(html, "<a href=\"/page/{child}\">{child}</a>"),
            1 => writeln!(html, "<A class=x HREF = '/none/../page/{child}#top'>{child}</A>"),
            _ => writeln!(html, "<a href=/./page/{child}>{child}</a>"),
        };
    }
    let trouble = [
        "missing", "redirect", "loop", "slow", "drop", "error", "garbage", "away",
    ];
    match trouble.get((number % 20) as usize) {
        Some(kind) => {
            let _ = writeln!(html, "<a href=\"/{kind}/{number}\">{kind}</a>");
        }
        None => html.push_str("<a href=\"http://elsewhere.invalid/x\">elsewhere</a>\n"),
    }
    for line in 0..number % 40 {
        let _ = writeln!(
            html,
            "<p>Line {line} of a page that says nothing at all, and takes its time to.</p>"
        );
    }
    html.push_str("<p id=\"end\"></body></html>\n");
    html
}

fn chunked(reply: &mut Vec<u8>, body: &str) {
    reply.extend_from_slice(b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nTransfer-Encoding: chunked\r\n\r\n");
    for piece in body.as_bytes().chunks(100) {
        let _ = write!(reply, "{:x}\r\n", piece.len());
        reply.extend_from_slice(piece);
        reply.extend_from_slice(b"\r\n");
    }
    reply.extend_from_slice(b"0\r\n\r\n");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_leads_out_of_the_folder() {
        for bad in [
            "/../x",
            "/a/../../x",
            "/%2e%2e/x",
            "/a%2f..%2f..%2fx",
            "/%2fetc/passwd",
            "/a%00",
            "/%zz",
            "/%f",
        ] {
            assert_eq!(safe_path(bad), None, "{bad}");
        }
        assert_eq!(safe_path("/a%20b/c.html?../x").as_deref(), Some("a b/c.html"));
        assert_eq!(safe_path("//etc/passwd").as_deref(), Some("etc/passwd"));
    }

    #[test]
    fn requests_are_read() {
        assert_eq!(parse_request(b"GET /a?b HTTP/1.1\r\nHost: x\r\n\r\n"), Some("/a?b"));
        for bad in [
            "POST / HTTP/1.1\r\n\r\n",
            "GET x HTTP/1.1\r\n\r\n",
            "GET /\r\n\r\n",
            "\r\n\r\n",
        ] {
            assert_eq!(parse_request(bad.as_bytes()), None, "{bad}");
        }
    }

    #[test]
    fn every_generated_page_is_linked() {
        let linked: std::collections::HashSet<u32> = (0..500)
            .flat_map(|n| {
                let html = page(500, n);
                let mut found = Vec::new();
                crate::links::each_href(html.as_bytes(), |href| {
                    let mut path = String::new();
                    crate::links::resolve("/page/0", href, &mut path);
                    found.extend(path.strip_prefix("/page/").and_then(|n| n.parse::<u32>().ok()));
                });
                found
            })
            .collect();
        assert!((1..500).all(|n| linked.contains(&n)));
    }
}
