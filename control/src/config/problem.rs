//! What is wrong with a file, and where: file, line, column, field, reason.

use std::fmt;
use std::path::{Path, PathBuf};

/// One thing that is wrong, or worth a warning, in one file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The file, as it was named to us.
    pub file: PathBuf,
    /// Where in the file; none when the file as a whole is meant (it cannot be read, say).
    pub place: Option<Place>,
    /// The field from the file's root, as `provider[1].prefix` (entries count from 0); empty for the whole file.
    pub field: String,
    /// What is wrong, in a sentence without a full stop.
    pub text: String,
}

/// A place in a text file; both numbers count from 1, columns in characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// Line.
    pub line: usize,
    /// Column.
    pub column: usize,
}

impl Place {
    /// The place of the octet at `offset` of `text`; past the end means the end.
    pub fn of(text: &str, offset: usize) -> Place {
        let mut end = offset.min(text.len());
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        let before = &text[..end];
        let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
        Place { line: before.matches('\n').count() + 1, column: before[line_start..].chars().count() + 1 }
    }
}

impl Problem {
    /// A problem with the whole of `file`.
    pub fn of_file(file: &Path, text: impl Into<String>) -> Problem {
        Problem { file: file.to_path_buf(), place: None, field: String::new(), text: text.into() }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}:", self.file.display())?;
        if let Some(Place { line, column }) = self.place {
            write!(out, "{line}:{column}:")?;
        }
        if !self.field.is_empty() {
            write!(out, " {}:", self.field)?;
        }
        write!(out, " {}", self.text)
    }
}

/// Everything that is wrong, in the order of the file; never empty. Displays as one line per problem.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problems(pub Vec<Problem>);

impl fmt::Display for Problems {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.0.iter().enumerate() {
            let newline = if index == 0 { "" } else { "\n" };
            write!(out, "{newline}{problem}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Problems {}

impl From<Problem> for Problems {
    fn from(problem: Problem) -> Problems {
        Problems(vec![problem])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_counts_lines_and_characters_from_one() {
        let text = "ab\ncd\u{e9}f\n";
        assert_eq!(Place::of(text, 0), Place { line: 1, column: 1 });
        assert_eq!(Place::of(text, 3), Place { line: 2, column: 1 });
        assert_eq!(Place::of(text, 7), Place { line: 2, column: 4 });
        assert_eq!(Place::of(text, 99), Place { line: 3, column: 1 });
    }

    #[test]
    fn a_problem_reads_as_file_line_column_field_text() {
        let mut problem = Problem::of_file(Path::new("site.toml"), "cannot be read");
        assert_eq!(problem.to_string(), "site.toml: cannot be read");
        problem.place = Some(Place { line: 12, column: 10 });
        problem.field = "provider[1].prefix".into();
        assert_eq!(problem.to_string(), "site.toml:12:10: provider[1].prefix: cannot be read");
    }
}
