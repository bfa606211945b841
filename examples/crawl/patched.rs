//! The same GET by an unmodified blocking client, `ureq`, on patched libc.

use std::io;
use std::time::Duration;

use greenthread::{monkey, spawn};
use ureq::http::header;
use ureq::{Agent, Error};

use crate::frontier::Host;
use crate::http::{Failure, Get, MOST_BODY, Response, failure};

/// Shares its connections with all other clones.
#[derive(Clone, Debug)]
pub(crate) struct Client {
    agent: Agent,
    body: Vec<u8>,
}

impl Client {
    /// Patches libc for this process.
    pub(crate) fn new(timeout: Duration, connections: usize) -> io::Result<Client> {
        monkey::patch_all()?;
        let config = Agent::config_builder()
            .timeout_global(Some(timeout))
            .http_status_as_error(false)
            .max_redirects(0)
            .max_redirects_will_error(false)
            .max_idle_connections(connections)
            .max_idle_connections_per_host(connections)
            .user_agent("greenthread-crawl")
            .accept("text/html")
            .build();
        Ok(Client {
            agent: config.into(),
            body: Vec::new(),
        })
    }
}

impl Get for Client {
    fn get(&mut self, _index: usize, host: &Host, path: &str) -> Result<Response<'_>, Failure> {
        let url = format!("http://{}{path}", host.authority);
        let agent = self.agent.clone();
        // An isolated green thread: what it calls may be anybody's code.
        let Ok(fetched) = spawn(move || fetch(&agent, &url)).join() else {
            return failure("worker panicked");
        };
        let (head, body) = fetched?;
        self.body = body;
        let text = |name| Some(head.headers.get(name)?.to_str().ok()?.to_owned());
        Ok(Response {
            status: head.status.as_u16(),
            reason: String::from(head.status.canonical_reason().unwrap_or_default()),
            is_html: text(header::CONTENT_TYPE).is_some_and(|kind| kind.starts_with("text/html")),
            location: text(header::LOCATION),
            body: &self.body,
        })
    }
}

fn fetch(agent: &Agent, url: &str) -> Result<(ureq::http::response::Parts, Vec<u8>), Failure> {
    let (head, mut body) = agent.get(url).call()?.into_parts();
    let bytes = body.with_config().limit(MOST_BODY as u64).read_to_vec()?;
    Ok((head, bytes))
}

impl From<Error> for Failure {
    fn from(error: Error) -> Failure {
        match error {
            Error::Timeout(_) => Failure("timed out".into()),
            Error::Io(error) => error.into(),
            Error::ConnectionFailed => Failure("connection refused".into()),
            Error::BodyExceedsLimit(_) => Failure("page too large".into()),
            Error::Protocol(error) if error.to_string().contains("HTTP version") => {
                Failure("bad response: not HTTP/1".into())
            }
            Error::Protocol(error) => Failure(format!("bad response: {error}").into()),
            error => Failure(error.to_string().into()),
        }
    }
}
