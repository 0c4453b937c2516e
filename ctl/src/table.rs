//! Tables of text.

/// Columns apart by three spaces, as lists of resources are shown.
pub fn plain(header: &[&str], rows: &[Vec<String>]) -> String {
    let widths = widths(header, rows);
    let mut out = String::new();
    let head: Vec<String> = header.iter().map(|&title| title.to_owned()).collect();
    for row in std::iter::once(&head).chain(rows) {
        let cells: Vec<String> = row
            .iter()
            .zip(&widths)
            .map(|(cell, width)| format!("{cell:<width$}"))
            .collect();
        out.push_str(cells.join(GAP).trim_end());
        out.push('\n');
    }
    out
}

/// Columns in a frame, as reports are shown.
pub fn framed(header: &[&str], rows: &[Vec<String>]) -> String {
    let widths = widths(header, rows);
    let dashes: Vec<String> = widths.iter().map(|width| "-".repeat(width + 2)).collect();
    let rule = format!("+{}+\n", dashes.join("+"));
    let line = |cells: Vec<String>| {
        let cells: Vec<String> = cells
            .iter()
            .zip(&widths)
            .map(|(cell, width)| format!(" {cell:<width$} "))
            .collect();
        format!("|{}|\n", cells.join("|"))
    };
    let mut out = rule.clone();
    out.push_str(&line(
        header.iter().map(|&title| title.to_owned()).collect(),
    ));
    out.push_str(&rule);
    for row in rows {
        out.push_str(&line(row.clone()));
    }
    out.push_str(&rule);
    out
}

fn widths(header: &[&str], rows: &[Vec<String>]) -> Vec<usize> {
    header
        .iter()
        .enumerate()
        .map(|(column, title)| {
            let cells = rows.iter().filter_map(|row| row.get(column));
            let widest = cells.map(|cell| cell.chars().count()).max().unwrap_or(0);
            widest.max(title.chars().count())
        })
        .collect()
}

const GAP: &str = "   ";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_styles() {
        let rows = [
            vec!["a".to_owned(), "10.0.0.0/16".to_owned()],
            vec!["longer".to_owned(), String::new()],
        ];
        assert_eq!(
            plain(&["NAME", "CIDR"], &rows),
            "NAME     CIDR\na        10.0.0.0/16\nlonger\n"
        );
        assert_eq!(
            framed(&["NAME", "CIDR"], &rows[..1]),
            "+------+-------------+\n| NAME | CIDR        |\n+------+-------------+\n| a    | 10.0.0.0/16 |\n+------+-------------+\n"
        );
    }
}
