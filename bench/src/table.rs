//! The table that a run prints.

use std::{fmt, time::Duration};

/// Times of one kind.
#[derive(Clone, Default)]
pub struct Times(Vec<Duration>);

/// The rows so far.
#[derive(Default)]
pub struct Table(Vec<Row>);

struct Row {
    figure: String,
    ours: String,
    floor: String,
    ratio: Option<f64>,
    bar: Option<Bar>,
    is_missed: bool,
}

/// The bar of a figure.
#[derive(Clone, Copy)]
pub enum Bar {
    AtMost(f64),
    AtLeast(f64),
    Exactly(&'static str),
}

pub fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted[sorted.len() / 2]
}

impl Times {
    pub fn push(&mut self, time: Duration) {
        self.0.push(time);
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// In microseconds.
    pub fn median(&self) -> f64 {
        self.percentile(50)
    }

    /// The time, in microseconds, that so many of a hundred do not exceed.
    pub fn percentile(&self, of_a_hundred: usize) -> f64 {
        let mut sorted = self.0.clone();
        sorted.sort_unstable();
        let index = (sorted.len() * of_a_hundred).div_ceil(100).max(1) - 1;
        sorted[index].as_secs_f64() * 1e6
    }
}

impl FromIterator<Duration> for Times {
    fn from_iter<I: IntoIterator<Item = Duration>>(times: I) -> Self {
        Self(times.into_iter().collect())
    }
}

impl Table {
    /// A figure beside its floor.
    pub fn ratio(&mut self, figure: &str, [ours, floor]: [f64; 2], unit: &str, bar: f64) {
        self.row(Row {
            figure: figure.to_owned(),
            ours: quantity(ours, unit),
            floor: quantity(floor, unit),
            ratio: Some(ours / floor),
            bar: Some(Bar::AtMost(bar)),
            is_missed: ours / floor > bar,
        });
    }

    /// A figure that has no floor.
    pub fn figure(&mut self, figure: &str, ours: f64, unit: &str, bar: Option<Bar>) {
        self.row(Row {
            figure: figure.to_owned(),
            ours: quantity(ours, unit),
            floor: String::new(),
            ratio: None,
            bar,
            is_missed: matches!(bar, Some(Bar::AtLeast(least)) if ours < least),
        });
    }

    /// A text that was seen, and the one that is due.
    pub fn claim(&mut self, figure: &str, seen: &str, due: &'static str) {
        self.row(Row {
            figure: figure.to_owned(),
            ours: seen.to_owned(),
            floor: String::new(),
            ratio: None,
            bar: Some(Bar::Exactly(due)),
            is_missed: seen != due,
        });
    }

    fn row(&mut self, row: Row) {
        eprintln!("{row}");
        self.0.push(row);
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "| Figure | Ours | Floor | Ratio | Bar |")?;
        writeln!(f, "|---|---|---|---|---|")?;
        self.0.iter().try_for_each(|row| writeln!(f, "{row}"))
    }
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            figure,
            ours,
            floor,
            ..
        } = self;
        let ratio = self
            .ratio
            .map_or_else(String::new, |ratio| format!("{ratio:.2}"));
        let bar = self.bar.map_or_else(String::new, |bar| bar.to_string());
        let missed = if self.is_missed { ", missed" } else { "" };
        write!(
            f,
            "| {figure} | {ours} | {floor} | {ratio} | {bar}{missed} |"
        )
    }
}

impl fmt::Display for Bar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AtMost(bar) => write!(f, "≤ {bar}"),
            Self::AtLeast(bar) => write!(f, "≥ {bar}"),
            Self::Exactly(due) => f.write_str(due),
        }
    }
}

fn quantity(value: f64, unit: &str) -> String {
    let digits = if value >= 100.0 {
        0
    } else if value >= 10.0 {
        1
    } else {
        2
    };
    format!("{value:.digits$} {unit}")
}
