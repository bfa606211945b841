//! One build of ours against another: `compare -- --against PATH [--bar 1.03] [-r 15] WORKLOAD ..`, where PATH is the
//! program `ours` of the other build.
//!
//! The clock of a shared machine drifts, so only ratios within a round count. First the other build runs against itself
//! (A/A): what that shows is noise. Then each round runs A B B A, and gives one ratio. The verdict looks at the 95 %
//! interval of the median of the ratios: it is worse if all of that lies above the bar. Where the A/A interval is itself
//! wider than the bar the clock cannot tell, and instructions are counted by valgrind instead.

use std::ffi::OsStr;
use std::io::Error;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::load::{self, Dialogue, Span};
use crate::table::Results;
use crate::{LOAD_TIME, Server, here, serve_program, work_program};

/// The two builds.
pub(crate) struct Against {
    pub(crate) other: PathBuf,
    pub(crate) bar: f64,
    pub(crate) rounds: u32,
}

/// What a figure of a workload came to.
struct Verdict {
    workload: String,
    metric: String,
    noise: (f64, f64),
    ratio: (f64, f64, f64),
    counted: Option<f64>,
}

/// Connections for the servers, and how many requests are counted.
const SERVERS: &[(&str, &Dialogue, &[usize], [usize; 2])] = &[
    ("echo", &load::ECHO, &[50, 1000], [5_000, 15_000]),
    ("http", &load::HTTP, &[64], [2_000, 6_000]),
];

/// How much is done of the others where instructions are counted.
const COUNTS: &[(&str, &str)] = &[
    ("switch", "100000"),
    ("spawn", "30000"),
    ("yield", "1000"),
    ("chan", "100000"),
];

impl Against {
    /// Runs the workloads; whether none of them is worse.
    pub(crate) fn run(&self, workloads: &[String]) -> bool {
        let mut verdicts = Vec::new();
        for workload in workloads {
            match self.workload(workload) {
                Ok(found) => verdicts.extend(found),
                Err(error) => {
                    eprintln!("{workload}: {error}");
                    return false;
                }
            }
        }
        self.print(&verdicts);
        !verdicts.iter().any(|verdict| self.is_worse(verdict))
    }

    fn workload(&self, workload: &str) -> Result<Vec<Verdict>, Error> {
        let ours = here("ours");
        let mut noise = Vec::new();
        for round in 1..=self.rounds {
            noise.push(ratios(&[&self.other, &self.other], workload)?);
            eprintln!("{workload}: A/A, round {round} of {}", self.rounds);
        }
        let mut found = Vec::new();
        for round in 1..=self.rounds {
            found.push(ratios(&[&self.other, &ours, &ours, &self.other], workload)?);
            eprintln!("{workload}: ABBA, round {round} of {}", self.rounds);
        }
        let first = found.first().into_iter().flatten();
        let of = |rounds: &[Vec<Ratio>], like: &Ratio| -> Vec<f64> {
            let same = |ratio: &&Ratio| ratio.workload == like.workload && ratio.metric == like.metric;
            rounds.iter().flatten().filter(same).map(|ratio| ratio.value).collect()
        };
        let mut verdicts = Vec::new();
        for like in first {
            let (low, _, high) = interval(of(&noise, like));
            let mut verdict = Verdict {
                workload: like.workload.clone(),
                metric: like.metric.clone(),
                noise: (low, high),
                ratio: interval(of(&found, like)),
                counted: None,
            };
            if self.is_noisy(&verdict) {
                verdict.counted = count(&ours, workload, &like.workload)?
                    .zip(count(&self.other, workload, &like.workload)?)
                    .map(|(ours, other)| ours / other);
            }
            verdicts.push(verdict);
        }
        Ok(verdicts)
    }

    fn is_noisy(&self, verdict: &Verdict) -> bool {
        verdict.noise.1 > self.bar || verdict.noise.0 < 1.0 / self.bar
    }

    fn is_worse(&self, verdict: &Verdict) -> bool {
        verdict.counted.map_or(verdict.ratio.0, |counted| counted) > self.bar
    }

    fn print(&self, verdicts: &[Verdict]) {
        println!(
            "\n| figure | A/A, 95 % | median (95 %) | instructions | at most {} |",
            self.bar
        );
        println!("|---|---:|---:|---:|---|");
        for verdict in verdicts {
            let Verdict {
                workload,
                metric,
                noise,
                ratio,
                counted,
            } = verdict;
            let counted = counted.map_or(String::from("–"), |counted| format!("{counted:.3}"));
            let word = if self.is_worse(verdict) { "WORSE" } else { "holds" };
            println!(
                "| {workload} {metric} | {:.3}–{:.3} | {:.3} ({:.3}–{:.3}) | {counted} | {word} |",
                noise.0, noise.1, ratio.1, ratio.0, ratio.2
            );
        }
    }
}

/// One figure of one round: the second program's by the first's.
struct Ratio {
    workload: String,
    metric: String,
    value: f64,
}

/// Runs the programs in this order, the outer ones being A and the inner ones B; or A and A.
fn ratios(programs: &[&Path], workload: &str) -> Result<Vec<Ratio>, Error> {
    let mut runs = Vec::new();
    for program in programs {
        runs.push(figures(program, workload)?);
    }
    let (inner, outer) = match runs.as_slice() {
        [a, b] => (vec![b], vec![a]),
        [a, b, c, d] => (vec![b, c], vec![a, d]),
        _ => return Err(Error::other("A A or A B B A")),
    };
    let mean = |runs: &[&Results], workload: &str, metric: &str| -> f64 {
        let logs = runs.iter().filter_map(|run| run.value(workload, metric)).map(f64::ln);
        (logs.clone().sum::<f64>() / logs.count() as f64).exp()
    };
    let lower_is_better = outer[0].figures().filter(|(.., unit)| unit.starts_with("ns"));
    Ok(lower_is_better
        .map(|(workload, metric, _)| Ratio {
            workload: workload.to_owned(),
            metric: metric.to_owned(),
            value: mean(&inner, workload, metric) / mean(&outer, workload, metric),
        })
        .collect())
}

fn figures(program: &Path, workload: &str) -> Result<Results, Error> {
    let mut results = Results::default();
    results.begin("ours", 1);
    match SERVERS.iter().find(|server| server.0 == workload) {
        Some((_, dialogue, connections, _)) => {
            serve_program(Command::new(program), workload, dialogue, connections, &mut results)?;
        }
        None => work_program(Command::new(program), workload, "", &mut results)?,
    }
    Ok(results)
}

/// Least, median and greatest: the order statistics that hold the true median in 95 of 100 cases.
fn interval(mut values: Vec<f64>) -> (f64, f64, f64) {
    values.sort_by(f64::total_cmp);
    let n = values.len();
    if n == 0 {
        return (f64::NAN, f64::NAN, f64::NAN);
    }
    // So many may be left out at each end: P(Bin(n, 1/2) <= k) is at most 2.5 %.
    let (mut k, mut term, mut sum) = (0, 0.5_f64.powi(n as i32), 0.0);
    while k < n / 2 {
        sum += term;
        if sum > 0.025 {
            break;
        }
        term *= (n - k) as f64 / (k + 1) as f64;
        k += 1;
    }
    let low = k.saturating_sub(1);
    let median = f64::midpoint(values[(n - 1) / 2], values[n / 2]);
    (values[low], median, values[n - 1 - low])
}

/// Instructions of a workload, by valgrind; none if that is not installed. For a server, those of one request.
fn count(program: &Path, workload: &str, figure: &str) -> Result<Option<f64>, Error> {
    let Some((_, dialogue, connections, requests)) = SERVERS.iter().find(|server| server.0 == workload) else {
        let n = COUNTS
            .iter()
            .find(|count| count.0 == workload)
            .map_or("", |count| count.1);
        let mut command = under_valgrind(program);
        command.arg(workload).args(Some(n).filter(|n| !n.is_empty()));
        return Ok(command.output().ok().and_then(|output| collected(&output.stderr)));
    };
    let Some(&connections) = connections.iter().find(|n| figure.ends_with(&n.to_string())) else {
        return Ok(None);
    };
    let mut totals = Vec::new();
    for requests in requests {
        let mut command = under_valgrind(program);
        command.stderr(Stdio::piped());
        let server = Server::start(command, workload)?;
        let (pid, port) = (server.pid(), server.port);
        let span = Span::Requests(*requests);
        let load = move || load::load(dialogue, pid, port, connections, span);
        std::thread::spawn(load).join().expect("no panic")?;
        let Some(total) = collected(&server.stop()?) else {
            return Ok(None);
        };
        totals.push(total);
    }
    Ok(Some((totals[1] - totals[0]) / (requests[1] - requests[0]) as f64))
}

fn under_valgrind(program: &Path) -> Command {
    let mut command = Command::new("valgrind");
    command
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        .arg::<&OsStr>(program.as_ref());
    command
}

/// What callgrind says at the end.
fn collected(said: &[u8]) -> Option<f64> {
    let said = String::from_utf8_lossy(said);
    let line = said.lines().find(|line| line.contains("Collected :"))?;
    line.rsplit(": ").next()?.trim().parse().ok()
}

/// The time for one measurement of a server.
pub(crate) const SPAN: Span = Span::Time(LOAD_TIME);
