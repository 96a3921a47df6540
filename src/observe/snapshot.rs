//! What an area held at one moment, with the cells of all its processes merged.

/// Families in the order of their names, each name once.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Snapshot {
    pub families: Vec<Family>,
}

/// The series of one name.
#[derive(Clone, Debug, PartialEq)]
pub struct Family {
    /// `[a-zA-Z_:][a-zA-Z0-9_:]*`, without `_total` at its end.
    pub name: String,
    pub kind: Kind,
    pub help: String,
    /// `seconds`, `bytes`, or empty. Where there is one, the name ends with it.
    pub unit: String,
    /// In the order of their labels, each set of labels once.
    pub series: Vec<Series>,
}

/// One set of labels and its value.
#[derive(Clone, Debug, PartialEq)]
pub struct Series {
    /// Names `[a-zA-Z_][a-zA-Z0-9_]*` in their order, values any text.
    pub labels: Vec<(String, String)>,
    pub value: Value,
}

/// How the gauges of several processes make one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Merge {
    #[default]
    Sum = 0,
    Max = 1,
    Min = 2,
}

/// What a family counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// Only grows; whole numbers.
    Counter = 0,
    /// Only grows; seconds, for instance.
    Sum,
    /// Goes up and down.
    Gauge,
    Histogram,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// Of [`Kind::Counter`].
    Count(u64),
    /// Of [`Kind::Sum`] and [`Kind::Gauge`].
    Number(f64),
    /// Of [`Kind::Histogram`].
    Distribution(Distribution),
}

/// How often values fell where.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Distribution {
    /// Upper bounds, growing, each inclusive; without the last, which is infinite.
    pub bounds: Vec<f64>,
    /// One more than bounds; each value is counted in one of them.
    pub counts: Vec<u64>,
    pub sum: f64,
}

impl Distribution {
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// The value below which a share (0 to 1) of all lies, interpolated within its bucket; the last bound if it lies
    /// beyond. None without any value.
    pub fn quantile(&self, share: f64) -> Option<f64> {
        let total = self.count();
        let rank = share.clamp(0.0, 1.0) * total as f64;
        let mut below = 0.0;
        let mut lower = 0.0;
        for (count, upper) in self.counts.iter().zip(&self.bounds) {
            let count = *count as f64;
            if count > 0.0 && below + count >= rank {
                return Some(lower + (upper - lower) * ((rank - below) / count).clamp(0.0, 1.0));
            }
            (below, lower) = (below + count, *upper);
        }
        (total > 0).then(|| self.bounds.last().copied().unwrap_or(0.0))
    }
}

impl Kind {
    pub fn name(self) -> &'static str {
        match self {
            Kind::Counter => "counter",
            Kind::Sum => "sum",
            Kind::Gauge => "gauge",
            Kind::Histogram => "histogram",
        }
    }

    /// The kind in the first word of an area's entry.
    pub(super) fn of(state: u64) -> Option<Kind> {
        [Kind::Counter, Kind::Sum, Kind::Gauge, Kind::Histogram].get((state >> 8) as u8 as usize).copied()
    }
}
