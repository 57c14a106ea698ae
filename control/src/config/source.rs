//! A TOML text with its tree, which turns a span back into line, column and field path.

use std::ops::Range;
use std::path::{Path, PathBuf};

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::problem::{Place, Problem};

/// A span of octets in the text.
pub(super) type Span = Range<usize>;

/// The text, where it came from, and what was found so far.
pub(super) struct Source<'a> {
    file: PathBuf,
    text: &'a str,
    tree: DeTable<'a>,
    problems: Vec<Problem>,
    warnings: Vec<Problem>,
}

impl<'a> Source<'a> {
    /// Reads the tree, noting everything that is not TOML.
    pub(super) fn parse(file: &Path, text: &'a str) -> Source<'a> {
        let (tree, errors) = DeTable::parse_recoverable(text);
        let tree = tree.into_inner();
        let mut source = Source { file: file.to_path_buf(), text, tree, problems: Vec::new(), warnings: Vec::new() };
        for error in errors {
            let span = error.span().unwrap_or_default();
            source.problem_at(&span, String::new(), error.message());
        }
        source
    }

    pub(super) fn tree(&self) -> &DeTable<'a> {
        &self.tree
    }

    /// Notes a problem with the key or value at `span`.
    pub(super) fn problem(&mut self, span: &Span, text: impl Into<String>) {
        let field = self.field(span);
        self.problem_at(span, field, text);
    }

    /// Notes a problem with `field`, which the tree cannot name from `span` alone.
    pub(super) fn problem_at(&mut self, span: &Span, field: String, text: impl Into<String>) {
        let problem = self.make(span, field, text.into());
        self.problems.push(problem);
    }

    /// Notes that `name` should stand in the table at `span`, unless something was said about that field already.
    pub(super) fn missing(&mut self, span: &Span, name: &str) {
        let table = self.field(span);
        let field = if table.is_empty() { name.to_string() } else { format!("{table}.{name}") };
        if !self.problems.iter().any(|problem| problem.field == field) {
            self.problem_at(span, field, "is missing");
        }
    }

    /// Notes something that can be obeyed but should be known.
    pub(super) fn warning(&mut self, span: &Span, text: impl Into<String>) {
        let field = self.field(span);
        let warning = self.make(span, field, text.into());
        self.warnings.push(warning);
    }

    pub(super) fn has_problems(&self) -> bool {
        !self.problems.is_empty()
    }

    /// The line `span` starts in, for texts that point at another place.
    pub(super) fn line(&self, span: &Span) -> usize {
        Place::of(self.text, span.start).line
    }

    /// Problems and warnings, each in the order of the file.
    pub(super) fn findings(mut self) -> (Vec<Problem>, Vec<Problem>) {
        self.problems.sort_by_key(|problem| problem.place);
        self.problems.dedup();
        self.warnings.sort_by_key(|warning| warning.place);
        (self.problems, self.warnings)
    }

    fn make(&self, span: &Span, field: String, text: String) -> Problem {
        Problem { file: self.file.clone(), place: Some(Place::of(self.text, span.start)), field, text }
    }

    fn field(&self, span: &Span) -> String {
        let mut path = String::new();
        field_in_table(&self.tree, span, &mut path);
        path
    }
}

/// Appends the path below `table` of what lies at `span`; false and nothing appended when it lies elsewhere.
fn field_in_table(table: &DeTable<'_>, span: &Span, path: &mut String) -> bool {
    table.iter().any(|(key, value)| {
        let length = path.len();
        if !path.is_empty() {
            path.push('.');
        }
        path.push_str(key.get_ref());
        // A table's span is that of its header, so what is in the table is looked for before the header itself.
        let found = field_in_value(value, span, path) || covers(&key.span(), span);
        if !found {
            path.truncate(length);
        }
        found
    })
}

fn field_in_value(value: &Spanned<DeValue<'_>>, span: &Span, path: &mut String) -> bool {
    let inside = match value.get_ref() {
        DeValue::Table(table) => field_in_table(table, span, path),
        DeValue::Array(array) => array.iter().enumerate().any(|(index, entry)| {
            let length = path.len();
            path.push_str(&format!("[{index}]"));
            let found = field_in_value(entry, span, path);
            if !found {
                path.truncate(length);
            }
            found
        }),
        _ => false,
    };
    inside || covers(&value.span(), span)
}

/// Removes the key that `span` lies in, wherever below `table`; false when there is none.
pub(super) fn remove_at(table: &mut DeTable<'_>, span: &Span) -> bool {
    for (_, value) in table.iter_mut() {
        if let DeValue::Table(inner) = value.get_mut()
            && remove_at(inner, span)
        {
            return true;
        }
    }
    let mut entries = table.iter();
    let key = entries.find(|(key, value)| covers(&key.span(), span) || covers(&value.span(), span));
    match key.map(|(key, _)| key.clone()) {
        Some(key) => table.remove(key.get_ref().as_ref()).is_some(),
        None => false,
    }
}

fn covers(outer: &Span, inner: &Span) -> bool {
    outer.start <= inner.start && inner.end <= outer.end && outer.start < outer.end
}
