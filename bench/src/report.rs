//! Samples as tables, for people and for Markdown.

use std::fmt::Write as _;

use crate::call::Sample;

/// The measured quantiles of one contender's calls.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Summary {
    /// Half of the calls took at most this many milliseconds.
    pub(crate) p50: f64,
    /// 99 of 100 did; with fewer than 100 calls the longest.
    pub(crate) p99: f64,
    /// Half of the calls used at most this much CPU, in milliseconds.
    pub(crate) cpu: f64,
    /// The largest resident set of any, in megabytes.
    pub(crate) rss: f64,
}

impl Summary {
    /// Of at least one call.
    pub(crate) fn of(samples: &[Sample]) -> Self {
        let column =
            |value: fn(&Sample) -> f64| -> Vec<f64> { samples.iter().map(value).collect() };
        let wall = column(|sample| sample.wall);
        Self {
            p50: quantile(wall.clone(), 50),
            p99: quantile(wall, 99),
            cpu: quantile(column(|sample| sample.cpu), 50),
            rss: quantile(column(|sample| sample.rss), 100),
        }
    }
}

/// The smallest value that at least `percent` of the values do not exceed; not a number where there are none.
pub(crate) fn quantile(mut values: Vec<f64>, percent: usize) -> f64 {
    values.sort_by(f64::total_cmp);
    let rank = (values.len() * percent).div_ceil(100).max(1);
    values.get(rank - 1).copied().unwrap_or(f64::NAN)
}

/// How far the medians of consecutive parts of a series lie apart, in percent of the whole's median:
/// what the machine did in the meantime.
pub(crate) fn spread(series: &[f64]) -> f64 {
    let part = series.len().div_ceil(PARTS).max(1);
    let medians = series.chunks(part).map(|part| quantile(part.to_vec(), 50));
    let (low, high) = medians.fold((f64::MAX, f64::MIN), |(low, high), median| {
        (low.min(median), high.max(median))
    });
    (high - low) / quantile(series.to_vec(), 50) * 100.0
}

/// A Markdown table with columns of even width; the first is text, the others are numbers.
pub(crate) fn table(header: &[&str], rows: &[Vec<String>]) -> String {
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column));
        let cells = cells.map(|cell| cell.chars().count());
        cells
            .chain([header[column].chars().count(), 4])
            .max()
            .unwrap_or_default()
    };
    let widths: Vec<usize> = (0..header.len()).map(width).collect();
    let mut text = String::new();
    let mut line = |cells: Vec<&str>| {
        for (column, (cell, width)) in cells.iter().zip(&widths).enumerate() {
            // Writing to a string cannot fail.
            let _ = if column == 0 {
                write!(text, "| {cell:width$} ")
            } else {
                write!(text, "| {cell:>width$} ")
            };
        }
        text.push_str("|\n");
    };
    line(header.to_vec());
    let rules: Vec<String> = widths
        .iter()
        .enumerate()
        .map(|(column, width)| match column {
            0 => "-".repeat(*width),
            _ => "-".repeat(width - 1) + ":",
        })
        .collect();
    line(rules.iter().map(String::as_str).collect());
    for row in rows {
        line(row.iter().map(String::as_str).collect());
    }
    text
}

const PARTS: usize = 5;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_values_that_occurred() {
        let values = vec![3.0, 1.0, 2.0, 4.0];
        let of = |percent| quantile(values.clone(), percent).to_string();
        assert_eq!([of(50), of(75), of(99), of(100)], ["2", "3", "4", "4"]);
        assert!(quantile(Vec::new(), 50).is_nan());
    }

    #[test]
    fn a_steady_series_has_no_spread() {
        assert_eq!(spread(&[5.0; 20]).to_string(), "0");
        let mut drifting = vec![10.0; 20];
        drifting[16..].fill(12.0);
        assert_eq!(spread(&drifting).to_string(), "20");
    }

    #[test]
    fn a_table_is_even() {
        let rows = [vec!["a".to_owned(), "1.50".to_owned()]];
        assert_eq!(
            table(&["name", "ms"], &rows),
            "| name |   ms |\n| ---- | ---: |\n| a    | 1.50 |\n"
        );
    }
}
