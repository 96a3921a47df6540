//! Tables that fit the width: wide columns shrink, then the least important ones go.

use super::words::cut;

/// A column. Those with the highest `rank` go first where there is no room; rank 0 never goes.
#[derive(Clone, Copy, Debug)]
pub struct Column {
    pub title: &'static str,
    pub right: bool,
    pub rank: u8,
    /// May shrink to so many characters.
    pub least: usize,
}

/// A column of numbers.
pub const fn number(title: &'static str, rank: u8) -> Column {
    Column { title, right: true, rank, least: usize::MAX }
}

/// A column of short words.
pub const fn word(title: &'static str, rank: u8) -> Column {
    Column { title, right: false, rank, least: usize::MAX }
}

/// A column of texts of any length.
pub const fn prose(title: &'static str, rank: u8, least: usize) -> Column {
    Column { title, right: false, rank, least }
}

const GAP: usize = 2;

/// The title and the rows, each within `width` characters. Columns without anything in them are left out.
pub fn lines(columns: &[Column], rows: &[Vec<String>], width: usize) -> Vec<String> {
    let longest = |at: usize| {
        let cells = rows.iter().filter_map(|row| row.get(at)).map(|cell| cell.chars().count());
        cells.max().unwrap_or(0)
    };
    let filled = (0..columns.len()).filter(|at| columns[*at].rank == 0 || longest(*at) > 0);
    let shown = fit(columns, filled.map(|at| (at, longest(at).max(columns[at].title.len()))).collect(), width);
    let titles: Vec<String> = columns.iter().map(|column| column.title.into()).collect();
    let all = std::iter::once(&titles).chain(rows);
    all.map(|row| line(columns, &shown, row, width)).collect()
}

fn total(shown: &[(usize, usize)]) -> usize {
    shown.iter().map(|(_, width)| width + GAP).sum::<usize>().saturating_sub(GAP)
}

/// Columns and their widths: without the least important ones where even shrunken columns have no room.
fn fit(columns: &[Column], mut shown: Vec<(usize, usize)>, width: usize) -> Vec<(usize, usize)> {
    let least = |(at, now): &(usize, usize)| (*now).min(columns[*at].least);
    loop {
        let narrow: Vec<_> = shown.iter().map(|column| (column.0, least(column))).collect();
        let last = shown.iter().enumerate().max_by_key(|(_, (at, _))| columns[*at].rank);
        match last {
            Some((place, (at, _))) if total(&narrow) > width && columns[*at].rank > 0 => shown.remove(place),
            _ => break,
        };
    }
    // One character at a time from the widest, so that wide columns share what is missing.
    while total(&shown) > width {
        let widest = shown.iter_mut().filter(|(at, now)| *now > columns[*at].least).max_by_key(|(_, now)| *now);
        match widest {
            Some((_, now)) => *now -= 1,
            None => break,
        }
    }
    shown
}

fn line(columns: &[Column], shown: &[(usize, usize)], row: &[String], width: usize) -> String {
    let cells = shown.iter().map(|(at, width)| {
        let cell = cut(row.get(*at).map_or("", String::as_str), *width);
        if columns[*at].right { format!("{cell:>width$}") } else { format!("{cell:<width$}") }
    });
    let text = cells.collect::<Vec<_>>().join("  ");
    cut(text.trim_end(), width)
}

#[cfg(test)]
mod tests {
    use super::*;

    const COLUMNS: &[Column] = &[word("PEER", 0), prose("ERROR", 2, 8), number("REQUESTS", 1), number("CONNS", 3)];

    fn rows() -> Vec<Vec<String>> {
        let row = |peer: &str, error: &str| vec![peer.into(), error.into(), "12345".into(), "2".into()];
        vec![row("10.0.0.1:6379", "connection refused by the host"), row("10.0.0.2:6379", "")]
    }

    #[test]
    fn with_room_everything_is_shown_aligned() {
        assert_eq!(
            lines(COLUMNS, &rows(), 100),
            [
                "PEER           ERROR                           REQUESTS  CONNS",
                "10.0.0.1:6379  connection refused by the host     12345      2",
                "10.0.0.2:6379                                     12345      2",
            ]
        );
    }

    #[test]
    fn without_room_texts_shrink_and_columns_go() {
        for width in 0..80 {
            for line in lines(COLUMNS, &rows(), width) {
                assert!(line.chars().count() <= width, "{width}: {line}");
            }
        }
        assert_eq!(lines(COLUMNS, &rows(), 48)[1], "10.0.0.1:6379  connection refu…     12345      2");
        assert_eq!(lines(COLUMNS, &rows(), 25)[1], "10.0.0.1:6379     12345");
    }

    #[test]
    fn columns_with_nothing_in_them_are_left_out() {
        let rows = [vec!["a".into(), String::new(), String::new(), "1".into()]];
        assert_eq!(lines(COLUMNS, &rows, 80), ["PEER  CONNS", "a         1"]);
    }
}
