//! What was done, as a table and as JSON.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::time::Duration;

use crate::shared::Total;

/// What the workers count.
#[derive(Debug, Default)]
pub(crate) struct Report {
    pub(crate) pages: usize,
    pub(crate) bytes: u64,
    /// Of every request, whatever came of it.
    pub(crate) latencies: Vec<Duration>,
    pub(crate) redirects: usize,
    /// Links and redirects to other hosts: not followed.
    pub(crate) other_hosts: usize,
    pub(crate) other_files: usize,
    pub(crate) wall: Duration,
    pub(crate) interrupted: bool,
    /// Of the OS thread, where the system tells: fetching, and serving a site of our own.
    pub(crate) cpu: Option<Duration>,
    pub(crate) shared: Option<Shared>,
    site: String,
    client: &'static str,
    /// How many of each kind, and one that it happened to.
    errors: BTreeMap<String, (usize, String)>,
}

/// A crawl that others take part in.
#[derive(Debug)]
pub(crate) struct Shared {
    /// Its name, and where.
    pub(crate) crawl: String,
    /// Which of its processes this is.
    pub(crate) process: String,
    /// What all of them did, once that is known.
    pub(crate) total: Option<Total>,
}

impl Report {
    pub(crate) fn new(site: String, client: &'static str) -> Report {
        Report {
            site,
            client,
            ..Report::default()
        }
    }

    /// Pages by whomever: a process of a shared crawl may come too late for one.
    pub(crate) fn exit_code(&self) -> u8 {
        let all = self.shared.as_ref().and_then(|shared| shared.total);
        match (self.interrupted, all.map_or(0, |all| all.pages as usize) + self.pages) {
            (true, _) => 130,
            (false, 0) => 1,
            (false, _) => 0,
        }
    }

    pub(crate) fn error(&mut self, kind: &str, url: &str) {
        match self.errors.get_mut(kind) {
            Some((count, _)) => *count += 1,
            None => {
                self.errors.insert(String::from(kind), (1, String::from(url)));
            }
        }
    }

    pub(crate) fn error_count(&self) -> usize {
        self.errors.values().map(|(count, _)| count).sum()
    }

    /// The median of the latencies and what 99 of 100 stay below, in ms.
    fn percentiles(&self) -> (f64, f64) {
        let mut sorted = self.latencies.clone();
        sorted.sort_unstable();
        let at = |share: f64| {
            let rank = (share * sorted.len() as f64).ceil() as usize;
            let latency = sorted.get(rank.saturating_sub(1)).copied().unwrap_or_default();
            latency.as_secs_f64() * 1e3
        };
        (at(0.5), at(0.99))
    }

    fn sequential(&self) -> f64 {
        self.latencies.iter().sum::<Duration>().as_secs_f64()
    }

    fn pages_per_s(&self) -> f64 {
        self.pages as f64 / self.wall.as_secs_f64().max(1e-9)
    }

    /// The rows of the table, the site's left out.
    fn rows(&self) -> Vec<(&'static str, String)> {
        let (p50, p99) = self.percentiles();
        let (wall, sequential) = (self.wall.as_secs_f64(), self.sequential());
        vec![
            ("client", String::from(self.client)),
            ("pages", grouped(self.pages as u64)),
            ("bytes", grouped(self.bytes)),
            ("requests", grouped(self.latencies.len() as u64)),
            ("redirects", grouped(self.redirects as u64)),
            (
                "links to other hosts",
                format!("{} (skipped)", grouped(self.other_hosts as u64)),
            ),
            (
                "other files",
                format!("{} (not HTML)", grouped(self.other_files as u64)),
            ),
            ("errors", grouped(self.error_count() as u64)),
            ("latency p50", format!("{p50:.1} ms")),
            ("latency p99", format!("{p99:.1} ms")),
            ("pages/s", grouped(self.pages_per_s() as u64)),
            ("time", format!("{wall:.2} s")),
            (
                "CPU time",
                self.cpu
                    .map_or_else(String::new, |cpu| format!("{:.2} s", cpu.as_secs_f64())),
            ),
            (
                "one at a time",
                format!(
                    "{sequential:.1} s, {:.0} times as long (sum of the latencies)",
                    sequential / wall.max(1e-9)
                ),
            ),
        ]
    }

    /// What is said of a shared crawl.
    fn shared_rows(&self) -> Vec<(&'static str, String)> {
        let Some(Shared { crawl, process, total }) = &self.shared else {
            return Vec::new();
        };
        let mut rows = vec![("shared crawl", crawl.clone())];
        if let Some(total) = total {
            let [pages, bytes, requests, errors] =
                [total.pages, total.bytes, total.requests, total.errors].map(grouped);
            rows.push(("process", format!("{process} of {}", total.processes)));
            rows.push((
                "all processes",
                format!("{pages} pages, {bytes} bytes, {requests} requests, {errors} errors"),
            ));
        }
        rows
    }

    pub(crate) fn table(&self) -> String {
        let mut rows = vec![("site", self.site.clone())];
        rows.extend(self.rows());
        rows.extend(self.shared_rows());
        rows.retain(|(name, value)| !is_nothing(name, value));
        let mut text = String::from(if self.interrupted {
            "Interrupted. Until then:\n"
        } else {
            ""
        });
        for (name, value) in rows {
            let _ = writeln!(text, "{name:<22}{value}");
        }
        let width = self.errors.keys().map(String::len).max().unwrap_or(0);
        for (kind, (count, url)) in &self.errors {
            let _ = writeln!(text, "  {kind:<width$} {count:>7}  as in {url}");
        }
        text
    }

    pub(crate) fn json(&self) -> String {
        let (p50, p99) = self.percentiles();
        let all = match self.shared.as_ref().and_then(|shared| shared.total) {
            Some(all) => format!(
                ", \"all\": {{\"pages\": {}, \"bytes\": {}, \"requests\": {}, \"errors\": {}, \"processes\": {}}}",
                all.pages, all.bytes, all.requests, all.errors, all.processes,
            ),
            None => String::new(),
        };
        let errors: Vec<_> = self
            .errors
            .iter()
            .map(|(kind, (n, _))| format!("{}: {n}", quoted(kind)))
            .collect();
        format!(
            "{{\"pages\": {}, \"bytes\": {}, \"requests\": {}, \"redirects\": {}, \"other_hosts\": {}, \
             \"errors\": {{{}}}, \"p50_ms\": {p50:.3}, \"p99_ms\": {p99:.3}, \"pages_per_s\": {:.1}, \
             \"wall_s\": {:.3}, \"sequential_s\": {:.3}, \"interrupted\": {}{all}}}",
            self.pages,
            self.bytes,
            self.latencies.len(),
            self.redirects,
            self.other_hosts,
            errors.join(", "),
            self.pages_per_s(),
            self.wall.as_secs_f64(),
            self.sequential(),
            self.interrupted,
        )
    }
}

/// Whether a row may be left out.
fn is_nothing(name: &str, value: &str) -> bool {
    value.is_empty() || (value.starts_with("0 (") && name.contains("other"))
}

/// Two crawls of the same site as one table with a column for each.
pub(crate) fn comparison(a: &Report, b: &Report) -> String {
    let count = |of: &Report, kind| grouped(of.errors.get(kind).map_or(0, |(count, _)| *count as u64));
    let kinds: BTreeSet<_> = a.errors.keys().chain(b.errors.keys()).collect();
    let names = kinds.iter().map(|kind| kind.len() + 4).max().unwrap_or(0).max(22);
    let mut text = format!("{:<names$}{}\n", "site", a.site);
    for ((name, left), (_, right)) in a.rows().into_iter().zip(b.rows()) {
        if name != "one at a time" && !(is_nothing(name, &left) && is_nothing(name, &right)) {
            let _ = writeln!(text, "{name:<names$}{left:<32}{right}");
        }
    }
    for kind in kinds {
        let (name, left, right) = (format!("  {kind}"), count(a, kind), count(b, kind));
        let _ = writeln!(text, "{name:<names$}{left:<32}{right}");
    }
    text
}

/// Both as one object, with a key for each.
pub(crate) fn comparison_json(patched: &Report, native: &Report) -> String {
    format!("{{\"patched\": {}, \"native\": {}}}", patched.json(), native.json())
}

/// With a comma before each three digits.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// As a string of JSON.
fn quoted(text: &str) -> String {
    let mut out = String::from('"');
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            c if c.is_control() => {
                let _ = write!(out, "\\u{:04x}", c as u32);
            }
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_right() {
        let mut report = Report::new(String::from("here"), "mine");
        report.pages = 1_000;
        report.latencies = (1..=100).rev().map(Duration::from_millis).collect();
        report.wall = Duration::from_millis(505);
        report.error("404 Not Found", "a");
        report.error("404 Not Found", "b");
        report.error("a \"b\"", "c");
        assert_eq!(report.percentiles(), (50.0, 99.0));
        let json = report.json();
        for part in [
            "\"pages\": 1000,",
            "\"sequential_s\": 5.050",
            "{\"404 Not Found\": 2, \"a \\\"b\\\"\": 1}",
        ] {
            assert!(json.contains(part), "{json} lacks {part}");
        }
        let table = report.table();
        assert!(
            table.contains("10 times as long") && table.contains("2  as in a"),
            "{table}"
        );
    }

    #[test]
    fn nothing_done_is_no_crash() {
        let report = Report::default();
        assert!(report.json().contains("\"p99_ms\": 0.000"));
        assert!(!report.table().contains("NaN"));
    }

    #[test]
    fn numbers_are_grouped() {
        assert_eq!(
            [0, 999, 1_000, 1_234_567].map(grouped),
            ["0", "999", "1,000", "1,234,567"]
        );
    }
}
