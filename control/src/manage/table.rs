//! Tables for people: columns as wide as their widest entry, numbers to the right.

use std::fmt;

/// Rows under a heading.
#[derive(Clone, Debug, Default)]
pub struct Table {
    heading: Vec<String>,
    right: Vec<bool>,
    rows: Vec<Vec<String>>,
}

impl Table {
    /// A table with these columns. A heading that begins with `>` belongs to a column aligned to the right.
    pub fn new(heading: &[&str]) -> Table {
        Table {
            heading: heading.iter().map(|name| name.trim_start_matches('>').to_string()).collect(),
            right: heading.iter().map(|name| name.starts_with('>')).collect(),
            rows: Vec::new(),
        }
    }

    /// Adds a row; what goes beyond the heading's columns is aligned to the left.
    pub fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        self.rows.push(cells.into_iter().collect());
    }

    /// Whether nothing stands under the heading.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }
}

impl fmt::Display for Table {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rows = || std::iter::once(&self.heading).chain(&self.rows);
        let columns = rows().map(Vec::len).max().unwrap_or(0);
        let width = |column: usize| rows().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max();
        let widths: Vec<usize> = (0..columns).map(|column| width(column).unwrap_or(0)).collect();
        for row in rows() {
            let mut line = String::new();
            for (column, cell) in row.iter().enumerate() {
                let width = widths[column];
                let right = self.right.get(column).copied().unwrap_or(false);
                line += &if right { format!("{cell:>width$}") } else { format!("{cell:<width$}") };
                line += "  ";
            }
            writeln!(out, "{}", line.trim_end())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_entry() {
        let mut table = Table::new(&["NAME", ">PACKETS", "STATE"]);
        table.row(["a-box", "7", "up"].map(String::from));
        table.row(["b", "123456789", ""].map(String::from));
        assert_eq!(table.to_string(), "NAME     PACKETS  STATE\na-box          7  up\nb      123456789\n");
    }
}
