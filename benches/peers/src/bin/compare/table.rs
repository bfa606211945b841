//! What was measured, and the Markdown tables of it.

const OURS: &str = "ours";

struct Point {
    peer: &'static str,
    round: u32,
    workload: String,
    metric: String,
    value: f64,
    unit: String,
}

#[derive(Default)]
pub(crate) struct Results {
    peer: &'static str,
    round: u32,
    points: Vec<Point>,
}

impl Results {
    /// What comes now is of this peer and round.
    pub(crate) fn begin(&mut self, peer: &'static str, round: u32) {
        (self.peer, self.round) = (peer, round);
    }

    pub(crate) fn add(&mut self, workload: &str, metric: &str, value: f64, unit: &str) {
        let (peer, round) = (self.peer, self.round);
        let (workload, metric, unit) = (workload.to_owned(), metric.to_owned(), unit.to_owned());
        self.points.push(Point {
            peer,
            round,
            workload,
            metric,
            value,
            unit,
        });
    }

    /// Takes a line that a program printed.
    pub(crate) fn take(&mut self, line: &str) {
        let field = |name: &str| {
            let rest = line.split(&format!("\"{name}\":")).nth(1)?;
            Some(rest.split([',', '}']).next()?.trim_matches('"').to_owned())
        };
        if let (Some(workload), Some(metric), Some(value), Some(unit)) =
            (field("workload"), field("metric"), field("value"), field("unit"))
            && let Ok(value) = value.parse()
            && metric != "unsupported"
        {
            self.add(&workload, &metric, value, &unit);
        }
    }

    /// A table for each workload, and below it our figure as a multiple of each peer's.
    pub(crate) fn print(&self) {
        for workload in self.distinct(|point| Some(&point.workload)) {
            let of = |point: &Point| (point.workload == *workload).then(|| point.metric.clone());
            let metrics = self.distinct(of);
            let peers = self.distinct(|point| (point.workload == *workload).then_some(point.peer));
            let unit = |metric: &String| {
                let point = self
                    .points
                    .iter()
                    .find(|p| p.workload == *workload && p.metric == *metric);
                point.map_or("", |point| &point.unit)
            };
            let heads: Vec<_> = metrics
                .iter()
                .map(|metric| format!("{metric} ({})", unit(metric)))
                .collect();
            println!(
                "\n| {workload} | {} |\n|---{}|",
                heads.join(" | "),
                "|---:".repeat(heads.len())
            );
            for peer in &peers {
                let cells = metrics.iter().map(|metric| cell(self.values(workload, metric, peer)));
                println!("| {peer} | {} |", cells.collect::<Vec<_>>().join(" | "));
            }
            if !peers.contains(&OURS) || peers.len() < 2 {
                continue;
            }
            println!(
                "\n| {workload}: ours / | {} |\n|---{}|",
                metrics.join(" | "),
                "|---:".repeat(heads.len())
            );
            for peer in peers.iter().filter(|peer| **peer != OURS) {
                let cells = metrics.iter().map(|metric| cell(self.ratios(workload, metric, peer)));
                println!("| {peer} | {} |", cells.collect::<Vec<_>>().join(" | "));
            }
        }
    }

    /// All figures with their units, in the order in which they came.
    pub(crate) fn figures(&self) -> impl Iterator<Item = (&str, &str, &str)> {
        self.points
            .iter()
            .map(|point| (&*point.workload, &*point.metric, &*point.unit))
    }

    /// The figure, if there is one.
    pub(crate) fn value(&self, workload: &str, metric: &str) -> Option<f64> {
        let same = |point: &&Point| point.workload == workload && point.metric == metric;
        self.points.iter().find(same).map(|point| point.value)
    }

    /// In the order in which they came.
    fn distinct<'a, T: PartialEq>(&'a self, of: impl Fn(&'a Point) -> Option<T>) -> Vec<T> {
        let mut found = Vec::new();
        for value in self.points.iter().filter_map(of) {
            if !found.contains(&value) {
                found.push(value);
            }
        }
        found
    }

    fn points<'a>(&'a self, workload: &'a str, metric: &'a str, peer: &'a str) -> impl Iterator<Item = &'a Point> {
        let wanted = move |p: &&Point| p.workload == workload && p.metric == metric && p.peer == peer;
        self.points.iter().filter(wanted)
    }

    fn values(&self, workload: &str, metric: &str, peer: &str) -> Vec<f64> {
        self.points(workload, metric, peer).map(|point| point.value).collect()
    }

    /// Ours divided by the peer's in the same round.
    fn ratios(&self, workload: &str, metric: &str, peer: &str) -> Vec<f64> {
        let ratio = |ours: &Point| {
            let theirs = self.points(workload, metric, peer).find(|p| p.round == ours.round)?;
            (theirs.value != 0.0).then_some(ours.value / theirs.value)
        };
        self.points(workload, metric, OURS).filter_map(ratio).collect()
    }
}

/// The median, and the least and greatest.
fn cell(mut values: Vec<f64>) -> String {
    values.sort_by(f64::total_cmp);
    let (Some(least), Some(greatest)) = (values.first(), values.last()) else {
        return "–".to_owned();
    };
    let half = values.len() / 2;
    let median = if values.len() % 2 == 1 {
        values[half]
    } else {
        f64::midpoint(values[half - 1], values[half])
    };
    format!("{} ({}–{})", short(median), short(*least), short(*greatest))
}

/// Three digits that count.
fn short(value: f64) -> String {
    match value.abs() {
        100.0.. => format!("{value:.0}"),
        10.0.. => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}
