//! The command line.

use std::fmt;
use std::time::Duration;

pub(crate) const HELP: &str = "\
usage: crawl [options] [http://host[:port]/path ...]

Crawls a web site with many green threads, same host only. Without a URL it serves the Rust toolchain's documentation on
loopback, or a generated site, and crawls that.

  --limit N         pages to fetch, by all processes together (2000)
  --concurrency N   green threads that fetch (200)
  --delay-ms N      how long our own server thinks before each reply (50)
  --timeout-ms N    how long a request may take (10000; 1000 for the generated site)
  --generated       serve the generated site even if the documentation is there
  --native          fetch by this crate's own sockets instead of the unmodified ureq
  --compare         crawl twice, first with ureq, then with --native, and print one table of both
  --frontier URL    share the crawl with other processes through Redis (redis://HOST:PORT/DB): start the same command as
                    often as you like; a process that dies loses nothing
  --crawl NAME      the shared crawl's name in Redis (the URLs); it begins anew once the last one of that name is over
  --serve PORT      crawl nothing: serve the site on this port of loopback until Ctrl-C (0: any free port)
  --json            print one JSON object instead of the table (with --compare it holds two: `patched` and `native`)
  --help            print this

exit code: 0; 1 if no page could be fetched, or Redis is lost; 2 for bad arguments; 130 after Ctrl-C
";

/// What to do.
#[derive(Debug)]
pub(crate) struct Args {
    pub(crate) limit: usize,
    pub(crate) concurrency: usize,
    pub(crate) delay: Duration,
    pub(crate) timeout: Option<Duration>,
    pub(crate) generated: bool,
    pub(crate) json: bool,
    pub(crate) native: bool,
    pub(crate) compare: bool,
    /// Redis, and the name of the crawl there.
    pub(crate) frontier: Option<(redis::Client, String)>,
    pub(crate) serve: Option<u16>,
    pub(crate) urls: Vec<Url>,
}

#[derive(Debug)]
pub(crate) enum Parsed {
    Help,
    Run(Box<Args>),
}

/// An `http` URL in its parts.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Url {
    /// As in the `Host` header: the port is left out if it is 80.
    pub(crate) authority: String,
    /// The host alone, without the brackets of an IPv6 address.
    pub(crate) name: String,
    pub(crate) port: u16,
    pub(crate) path: String,
}

/// Reads the arguments, or says what is wrong with them.
pub(crate) fn parse(mut rest: impl Iterator<Item = String>) -> Result<Parsed, String> {
    let mut args = Args {
        limit: 2_000,
        concurrency: 200,
        delay: Duration::from_millis(50),
        timeout: None,
        generated: false,
        json: false,
        native: false,
        compare: false,
        frontier: None,
        serve: None,
        urls: Vec::new(),
    };
    let (mut frontier, mut crawl) = (None, None);
    while let Some(argument) = rest.next() {
        let (name, value) = match argument.split_once('=') {
            Some((name, value)) if name.starts_with("--") => (name, Some(String::from(value))),
            _ => (&*argument, None),
        };
        let mut text = |what: &str| {
            let text = value.clone().or_else(|| rest.next()).filter(|text| !text.is_empty());
            text.ok_or_else(|| format!("{name} needs {what}"))
        };
        let mut number = |least: u64, most: u64| -> Result<u64, String> {
            let text = text("a number")?;
            let parsed = text.replace(['_', ','], "").parse();
            let fits = parsed.ok().filter(|n| (least..=most).contains(n));
            fits.ok_or_else(|| format!("{name} takes a number from {least} to {most}, not `{text}`"))
        };
        match name {
            "--limit" => args.limit = number(1, 100_000_000)? as usize,
            "--concurrency" => args.concurrency = number(1, 100_000)? as usize,
            "--delay-ms" => args.delay = Duration::from_millis(number(0, 60_000)?),
            "--timeout-ms" => args.timeout = Some(Duration::from_millis(number(1, 600_000)?)),
            "--serve" => args.serve = Some(number(0, 65_535)? as u16),
            "--frontier" => frontier = Some(redis_client(&text("a URL (redis://HOST:PORT/DB)")?)?),
            "--crawl" => crawl = Some(text("a name")?),
            "--generated" | "--json" | "--native" | "--compare" | "--help" | "-h" if value.is_some() => {
                return Err(format!("{name} takes no value"));
            }
            "--generated" => args.generated = true,
            "--json" => args.json = true,
            "--native" => args.native = true,
            "--compare" => args.compare = true,
            "--help" | "-h" => return Ok(Parsed::Help),
            _ if name.starts_with('-') => return Err(format!("unknown option `{name}`")),
            _ => args.urls.push(url(&argument)?),
        }
    }
    if let Some(what) = contradiction(&args, frontier.is_some(), crawl.is_some()) {
        return Err(String::from(what));
    }
    args.frontier = frontier.map(|client| (client, crawl.unwrap_or_else(|| default_name(&args.urls))));
    Ok(Parsed::Run(Box::new(args)))
}

/// What does not go together.
fn contradiction(args: &Args, shared: bool, named: bool) -> Option<&'static str> {
    let (compare, has_urls) = (args.compare, !args.urls.is_empty());
    let faults = [
        (args.generated && has_urls, "either --generated or URLs, not both"),
        (compare && args.native, "either --compare or --native, not both"),
        (compare && shared, "either --compare or --frontier, not both"),
        (
            args.serve.is_some() && (has_urls || compare || shared),
            "--serve crawls nothing: no URLs, --compare, --frontier",
        ),
        (
            shared && !has_urls,
            "--frontier needs URLs: without them each process crawls a site of its own (--serve can serve one for all)",
        ),
        (named && !shared, "--crawl needs --frontier"),
    ];
    faults.into_iter().find_map(|(is_so, what)| is_so.then_some(what))
}

/// Nothing is connected yet.
fn redis_client(url: &str) -> Result<redis::Client, String> {
    // The URL may hold a password: it is not said again.
    redis::Client::open(url).map_err(|error| format!("--frontier takes redis://HOST:PORT/DB: {error}"))
}

/// The URLs, whatever their order.
fn default_name(urls: &[Url]) -> String {
    let mut names: Vec<_> = urls.iter().map(Url::to_string).collect();
    names.sort_unstable();
    names.join(" ")
}

impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "http://{}{}", self.authority, self.path)
    }
}

/// Splits a URL.
fn url(text: &str) -> Result<Url, String> {
    let bad = |what: &str| format!("`{text}`: {what}");
    let (scheme, rest) = text
        .split_once("://")
        .ok_or_else(|| bad("not a URL (http://host/path)"))?;
    match &*scheme.to_ascii_lowercase() {
        "http" => {}
        "https" => return Err(bad("https is not supported here, only http")),
        _ => return Err(bad("only http URLs can be crawled")),
    }
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let (authority, path) = rest.split_at(end);
    let authority = authority.to_ascii_lowercase();
    let (host, port) = match authority.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (
            host,
            port.parse().map_err(|_| bad("the port is not a number up to 65535"))?,
        ),
        _ => (&*authority, 80),
    };
    let name = host.trim_start_matches('[').trim_end_matches(']');
    if name.is_empty() || !host.bytes().all(|b| b.is_ascii_graphic() && b != b'@') {
        return Err(bad("no host that could be looked up"));
    }
    let mut clean = String::from("/");
    crate::links::resolve("/", path, &mut clean);
    Ok(Url {
        authority: if port == 80 {
            String::from(host)
        } else {
            format!("{host}:{port}")
        },
        name: String::from(name),
        port,
        path: clean,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(line: &str) -> Result<Args, String> {
        match parse(line.split_whitespace().map(String::from))? {
            Parsed::Run(args) => Ok(*args),
            Parsed::Help => Err(String::from("help")),
        }
    }

    #[test]
    fn options_are_read() {
        let args = run("--limit 5 --concurrency=7 --delay-ms 0 --json http://h:81/a/../b?q#f").unwrap();
        assert_eq!((args.limit, args.concurrency, args.json), (5, 7, true));
        assert_eq!((&*args.urls[0].authority, &*args.urls[0].path), ("h:81", "/b?q"));
        assert_eq!(run("http://[::1]:80").unwrap().urls[0].name, "::1");
        assert_eq!(run("-h").unwrap_err(), "help");
    }

    #[test]
    fn a_shared_crawl_is_named() {
        let name = |line: &str| {
            run(&format!("--frontier redis://h:1/2 {line}"))
                .unwrap()
                .frontier
                .unwrap()
                .1
        };
        assert_eq!(name("http://b:81/x http://a"), "http://a/ http://b:81/x");
        assert_eq!(name("http://a --crawl=mine"), "mine");
    }

    #[test]
    fn what_is_wrong_is_said() {
        let cases = [
            ("--limit", "needs a number"),
            ("--limit 0", "from 1 to"),
            ("--limit x", "not `x`"),
            ("--json=1", "no value"),
            ("--wat", "unknown option"),
            ("example.com", "not a URL"),
            ("https://a/", "https is not supported"),
            ("ftp://a/", "only http"),
            ("http:///x", "no host"),
            ("http://a:x/", "port"),
            ("--generated http://a/", "not both"),
            ("--compare --native", "not both"),
            ("--compare --frontier redis://h http://a/", "not both"),
            ("--serve 0 http://a/", "crawls nothing"),
            ("--serve 70000", "from 0 to"),
            ("--frontier", "needs a URL"),
            ("--frontier http://h/ http://a/", "takes redis://"),
            ("--frontier redis://h/", "needs URLs"),
            ("--crawl x http://a/", "needs --frontier"),
        ];
        for (line, part) in cases {
            let said = run(line).expect_err(line);
            assert!(said.contains(part), "{line}: {said}");
        }
    }
}
