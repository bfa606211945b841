//! The access log.
#![forbid(unsafe_code)]

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use hyper::{Method, Request, StatusCode, Uri, Version};

use crate::time;

pub(super) type Log = Arc<dyn Fn(&Access) + Send + Sync>;

/// The address of the client, in the extensions of a request: see [`HttpServer::peers`](super::HttpServer::peers).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Peer(pub SocketAddr);

/// A request that was answered: a line of the access log.
///
/// `Display` gives the line in the common log format, in UTC:
///
/// ```text
/// 127.0.0.1 - - [01/Dec/2026:08:20:27 +0000] "GET /items/5?q=abc HTTP/1.1" 200 23
/// ```
///
/// With `{:#}` the line ends in the time that it took, as in ` 0.412 ms`.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Access {
    /// The client's address; none if it is not an IP address.
    pub peer: Option<SocketAddr>,
    /// When the head of the request had come.
    pub at: SystemTime,
    /// The request's method.
    pub method: Method,
    /// The request's path and query; with HTTP/2 the whole address.
    pub uri: Uri,
    /// The version of HTTP.
    pub version: Version,
    /// The status of the response.
    pub status: StatusCode,
    /// How many bytes of the response's body went to the connection.
    pub bytes: u64,
    /// From the head of the request to the end of the response.
    pub took: Duration,
}

impl fmt::Display for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.peer.map(|peer| peer.ip()) {
            Some(IpAddr::V6(ip)) => write!(f, "{}", ip.to_canonical())?,
            Some(ip) => write!(f, "{ip}")?,
            None => f.write_str("-")?,
        }
        let seconds = self.at.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        write!(f, " - - [{} +0000] \"{} ", Utc(seconds), self.method)?;
        let path = self.uri.path_and_query().map(|path| path.as_str());
        // The path may have a quotation mark, which would end the field. `CONNECT` has only an authority.
        match (path, self.uri.authority()) {
            (Some(path), _) => f.write_str(&path.replace('"', "%22"))?,
            (None, Some(authority)) => f.write_str(authority.as_str())?,
            (None, None) => f.write_str("-")?,
        }
        write!(f, " {:?}\" {} {}", self.version, self.status.as_u16(), self.bytes)?;
        if f.alternate() {
            write!(f, " {:.3} ms", self.took.as_secs_f64() * 1e3)?;
        }
        Ok(())
    }
}

/// Seconds since 1970, as a date and a time of day.
struct Utc(u64);

impl fmt::Display for Utc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const MONTHS: [&str; 12] = [
            "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
        ];
        // The calendar repeats itself every 400 years. A year that begins in March has its leap day at its end.
        const ERA: u64 = 400 * 365 + 97;
        let days = self.0 / 86_400 + 719_468; // since the first of March of the year 0
        let day_of_era = days % ERA;
        let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
        let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let month_from_march = (5 * day_of_year + 2) / 153;
        let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
        let month = (month_from_march + 2) % 12;
        let year = year_of_era + days / ERA * 400 + u64::from(month < 2);
        let name = MONTHS[usize::try_from(month).unwrap_or_default()];
        let (hour, minute, second) = (self.0 / 3600 % 24, self.0 / 60 % 60, self.0 % 60);
        write!(f, "{day:02}/{name}/{year}:{hour:02}:{minute:02}:{second:02}")
    }
}

/// A line of the log that is to come.
pub(super) struct Entry {
    log: Log,
    begun: Instant,
    access: Access,
}

impl Entry {
    pub(super) fn new<B>(log: Log, peer: Option<SocketAddr>, request: &Request<B>) -> Box<Entry> {
        let access = Access {
            peer,
            at: SystemTime::now(),
            method: request.method().clone(),
            uri: request.uri().clone(),
            version: request.version(),
            status: StatusCode::OK,
            bytes: 0,
            took: Duration::ZERO,
        };
        Box::new(Entry {
            log,
            begun: time::now(),
            access,
        })
    }
}

/// Writes its line when it is dropped, at the end of the response.
pub(super) struct Line(Option<Box<Entry>>);

impl Line {
    /// The line of a response with this status.
    pub(super) fn of(entry: Option<Box<Entry>>, status: StatusCode) -> Line {
        Line(entry.map(|mut entry| {
            entry.access.status = status;
            entry
        }))
    }

    /// Counts bytes of the body.
    pub(super) fn count(&mut self, bytes: impl FnOnce() -> usize) {
        if let Some(entry) = &mut self.0 {
            entry.access.bytes += bytes() as u64;
        }
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        if let Some(mut entry) = self.0.take() {
            entry.access.took = time::now().saturating_duration_since(entry.begun);
            (entry.log)(&entry.access);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Utc;

    #[test]
    fn dates_are_right_around_leap_days_and_the_ends_of_years() {
        let wanted = [
            (0, "01/Jan/1970:00:00:00"),
            (951_782_399, "28/Feb/2000:23:59:59"),
            (951_782_400, "29/Feb/2000:00:00:00"),
            (951_868_800, "01/Mar/2000:00:00:00"),
            (971_211_336, "10/Oct/2000:20:55:36"),
            (1_735_689_599, "31/Dec/2024:23:59:59"),
            (1_735_689_600, "01/Jan/2025:00:00:00"),
            (4_107_542_400, "01/Mar/2100:00:00:00"),
        ];
        for (seconds, date) in wanted {
            assert_eq!(Utc(seconds).to_string(), date);
        }
    }
}
