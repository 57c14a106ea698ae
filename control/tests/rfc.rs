//! Every requirement has its place: `docs/rfc/` says for each numbered row of the RFCs where the code answers it and which
//! test defends it, or why none does. This test reads those pages, the sources they name, and the tests, so that no page
//! can promise what is not there: a row may not be missing or double, a file must exist, and a test must exist and cite
//! the row it is said to defend, in its own lines or in what it uses of its file.

mod tree;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use tree::{files, root};

/// A page, and the families of rows it answers, each with its number of rows; they count from 1.
type Page = (&'static str, &'static [(&'static str, u32)]);

const PAGES: &[Page] = &[
    ("docs/rfc/5533.md", &[("R5533", 332)]),
    ("docs/rfc/5534.md", &[("R5534", 127)]),
    ("docs/rfc/3972.md", &[("R3972", 45), ("R4581", 4), ("R4982", 7)]),
    ("docs/rfc/5535.md", &[("R5535", 46)]),
    ("docs/rfc/6296.md", &[("R6296", 46), ("R4193", 21), ("RCM", 18)]),
];

/// Pages that are still being written. Empty when the work is done.
const UNWRITTEN: &[&str] = &[];

/// How a cell without a test begins its reason.
const EXCUSES: [&str; 2] = ["not met: ", "no test: "];
/// A reason is a sentence, not a word.
const REASON_LEAST: usize = 20;

/// Answers with the text of a file, by its path from the root.
type Read<'a> = &'a dyn Fn(&str) -> Option<String>;

fn families() -> impl Iterator<Item = (&'static str, u32)> {
    PAGES.iter().flat_map(|(_, families)| families.iter().copied())
}

fn id(family: &str, number: u32) -> String {
    format!("{family}-{number:03}")
}

fn exists(row: &str) -> bool {
    let Some((family, number)) = row.split_once('-') else { return false };
    let known = families().find(|(name, _)| *name == family);
    known.is_some_and(|(_, last)| number.parse().is_ok_and(|number: u32| (1..=last).contains(&number)))
}

// ---- citations ----

/// Three digits at the start of `text`, and what is behind them.
fn number(text: &str) -> Option<(u32, &str)> {
    let (digits, rest) = text.split_at_checked(3)?;
    let whole = digits.bytes().all(|digit| digit.is_ascii_digit()) && !rest.starts_with(|it: char| it.is_ascii_digit());
    Some((digits.parse().ok().filter(|_| whole)?, rest))
}

/// All rows a text cites. After a full name more of the family may follow as `, -034` or ` to -039`.
fn cited(text: &str) -> BTreeSet<String> {
    let mut rows = BTreeSet::new();
    for (family, _) in families() {
        let named = format!("{family}-");
        for (at, _) in text.match_indices(&named) {
            let Some((mut last, mut rest)) = number(&text[at + named.len()..]) else { continue };
            rows.insert(id(family, last));
            loop {
                let short = rest.strip_prefix(", -").or_else(|| rest.strip_prefix(" and -")).and_then(number);
                let through = rest
                    .strip_prefix(" to ")
                    .and_then(|it| number(it.strip_prefix(&named).or_else(|| it.strip_prefix('-'))?));
                match (short, through) {
                    (Some((next, after)), _) => (last, rest) = (next, after),
                    (None, Some((end, after))) => {
                        rows.extend((last..=end).map(|number| id(family, number)));
                        (last, rest) = (end, after);
                    }
                    (None, None) => break,
                }
                rows.insert(id(family, last));
            }
        }
    }
    rows
}

// ---- tests ----

/// A function, constant or test of a source file, with the comments and attributes above it.
struct Item<'a> {
    name: &'a str,
    indent: usize,
    is_test: bool,
    lines: Vec<&'a str>,
}

fn indent(line: &str) -> usize {
    line.len() - line.trim_start().len()
}

/// The name behind one of `words` at the start of a line, if there is one.
fn defined<'a>(line: &'a str, words: &[&str]) -> Option<&'a str> {
    let mut rest = line.trim_start();
    for before in ["pub(crate) ", "pub(super) ", "pub ", "async "] {
        rest = rest.strip_prefix(before).unwrap_or(rest);
    }
    let rest = words.iter().find_map(|word| rest.strip_prefix(word))?;
    let end = rest.find(|letter: char| !letter.is_alphanumeric() && letter != '_')?;
    Some(&rest[..end]).filter(|name| !name.is_empty())
}

/// The items of a file. Bodies are found by their indentation, which formatters see to.
fn items<'a>(path: &str, text: &'a str) -> Vec<Item<'a>> {
    let python = path.ends_with(".py");
    let words: &[&str] = if python { &["def "] } else { &["fn ", "const ", "static "] };
    let lines: Vec<&str> = text.lines().collect();
    let mut found = Vec::new();
    for (at, line) in lines.iter().enumerate() {
        let Some(name) = defined(line, words) else { continue };
        let above = |line: &&&str| ["//", "#"].iter().any(|mark| line.trim_start().starts_with(mark));
        let start = at - lines[..at].iter().rev().take_while(above).count();
        let end = at + 1 + if python { python_body(&lines[at..]) } else { rust_body(&lines[at..]) };
        let lines = lines[start..end.min(lines.len())].to_vec();
        let is_test = if python {
            name.starts_with("test")
        } else {
            lines.iter().take_while(|it| it.trim_start().starts_with(['#', '/'])).any(|it| it.trim() == "#[test]")
        };
        found.push(Item { name, indent: indent(line), is_test, lines });
    }
    found
}

/// How many lines after the first belong to an item.
fn rust_body(lines: &[&str]) -> usize {
    let first = lines[0];
    if first.ends_with(['}', ';']) {
        return 0;
    }
    let ends = |line: &&str| indent(line) == indent(first) && ["}", "];", "};", ");"].contains(&line.trim());
    lines[1..].iter().position(ends).map_or(0, |at| at + 1)
}

fn python_body(lines: &[&str]) -> usize {
    let over =
        |line: &&str| !line.trim().is_empty() && indent(line) <= indent(lines[0]) && !line.trim().starts_with(')');
    lines[1..].iter().position(over).unwrap_or(lines.len() - 1)
}

fn uses(item: &Item<'_>, name: &str) -> bool {
    let part = |letter: char| letter.is_alphanumeric() || letter == '_';
    item.lines.iter().any(|line| {
        line.match_indices(name)
            .any(|(at, _)| !line[..at].ends_with(part) && !line[at + name.len()..].starts_with(part))
    })
}

/// The rows a test cites: in its lines, and in those of the helpers and tables of its file that it uses. None if
/// there is no such test.
fn cited_by_test(path: &str, text: &str, name: &str) -> Option<BTreeSet<String>> {
    let items = items(path, text);
    let test = items.iter().position(|item| item.is_test && item.name == name)?;
    let (mut rows, mut open, mut seen) = (BTreeSet::new(), vec![test], BTreeSet::from([test]));
    while let Some(at) = open.pop() {
        rows.extend(cited(&items[at].lines.join("\n")));
        // Helpers stand beside the test, or at the head of the file; methods of the same name elsewhere are not meant.
        let beside = |item: &Item<'_>| !item.is_test && [0, items[test].indent].contains(&item.indent);
        for (other, item) in items.iter().enumerate() {
            if beside(item) && uses(&items[at], item.name) && seen.insert(other) {
                open.push(other);
            }
        }
    }
    Some(rows)
}

// ---- pages ----

/// What stands in backquotes in a cell.
fn quoted(cell: &str) -> impl Iterator<Item = &str> {
    cell.split('`').skip(1).step_by(2)
}

fn cells(line: &str) -> Option<Vec<&str>> {
    let inner = line.trim().strip_prefix('|')?.strip_suffix('|')?;
    Some(inner.split('|').map(str::trim).collect())
}

/// One row as its page has it.
struct Entry<'a> {
    place: String,
    row: &'a str,
    origin: &'a str,
    test: &'a str,
}

/// The rows of all tables of a page whose head names the columns `row`, `where` and `test`; others may stand between.
fn entries<'a>(path: &str, text: &'a str, faults: &mut Vec<String>) -> Vec<Entry<'a>> {
    let mut found = Vec::new();
    let mut columns: Option<[usize; 3]> = None;
    for (at, line) in text.lines().enumerate() {
        let Some(cells) = cells(line) else {
            columns = None;
            continue;
        };
        let column = |name: &str| cells.iter().position(|cell| *cell == name);
        if let (Some(row), Some(origin), Some(test)) = (column("row"), column("where"), column("test")) {
            columns = Some([row, origin, test]);
        } else if cells.iter().any(|cell| cell.contains(|letter| letter != '-' && letter != ':')) {
            let place = format!("{path}:{}", at + 1);
            match columns.map(|columns| columns.map(|at| cells.get(at).copied())) {
                Some([Some(row), Some(origin), Some(test)]) => {
                    found.push(Entry { place, row: row.trim_matches('`'), origin, test });
                }
                _ => faults.push(format!("{place}: a line of no table of rows")),
            }
        }
    }
    found
}

fn check_entry(entry: &Entry<'_>, read: Read<'_>, texts: &mut BTreeMap<String, Option<String>>) -> Vec<String> {
    let Entry { place, row, origin, test } = entry;
    let mut faults = Vec::new();
    let mut fault = |what: String| faults.push(format!("{place}: {row}: {what}"));
    let excuse = EXCUSES.iter().find_map(|excuse| test.find(excuse).map(|at| test[at + excuse.len()..].trim()));
    if excuse.is_some_and(|reason| reason.len() < REASON_LEAST) {
        fault("a reason that says nothing".into());
    }
    let mut text_of = |path: &str| texts.entry(path.to_owned()).or_insert_with(|| read(path)).clone();
    let mut places = quoted(origin).filter(|name| name.contains('/')).peekable();
    if places.peek().is_none() && !test.contains(EXCUSES[0]) {
        fault("no place in the code".into());
    }
    for path in places {
        let path = path.split("::").next().unwrap_or(path);
        if text_of(path).is_none() {
            fault(format!("no file {path}"));
        }
    }
    let mut tests = quoted(test).filter(|name| name.contains('/')).peekable();
    if tests.peek().is_none() && excuse.is_none() {
        fault("neither a test nor a reason".into());
    }
    for named in tests {
        let Some((path, name)) = named.split_once("::") else {
            fault(format!("{named} names no test"));
            continue;
        };
        match text_of(path).map(|text| cited_by_test(path, &text, name)) {
            None => fault(format!("no file {path}")),
            Some(None) => fault(format!("no test {name} in {path}")),
            Some(Some(rows)) if !rows.contains(*row) => fault(format!("{named} does not cite it")),
            Some(Some(_)) => {}
        }
    }
    faults
}

/// Everything wrong with a page.
fn check_page((path, families): &Page, text: &str, read: Read<'_>) -> Vec<String> {
    let mut faults = Vec::new();
    let mut missing: BTreeSet<String> =
        families.iter().flat_map(|(family, last)| (1..=*last).map(|number| id(family, number))).collect();
    let mut texts = BTreeMap::new();
    for entry in entries(path, text, &mut faults) {
        if !missing.remove(entry.row) {
            faults.push(format!("{}: {} is no row of this page, or is there twice", entry.place, entry.row));
        }
        faults.extend(check_entry(&entry, read, &mut texts));
    }
    faults.extend(missing.into_iter().map(|row| format!("{path}: {row} is missing")));
    faults
}

fn read(path: &str) -> Option<String> {
    let path = root().join(path);
    // A folder is a place too; it has no tests.
    if path.is_dir() { Some(String::new()) } else { fs::read_to_string(path).ok() }
}

#[test]
fn every_row_is_answered_by_code_and_a_test_or_by_a_reason() {
    let mut faults = Vec::new();
    for page in PAGES {
        match read(page.0) {
            Some(text) => faults.extend(check_page(page, &text, &read)),
            None if UNWRITTEN.contains(&page.0) => {}
            None => faults.push(format!("{}: there is no such page", page.0)),
        }
    }
    assert!(faults.is_empty(), "{} faults:\n  {}", faults.len(), faults.join("\n  "));
}

#[test]
fn the_list_of_pages_names_them_all() {
    let list = read("docs/rfc/README.md").expect("the list");
    for (page, families) in PAGES {
        let name = page.rsplit('/').next().unwrap_or(page);
        let line = list.lines().find(|line| line.contains(&format!("]({name})"))).unwrap_or_else(|| panic!("{name}"));
        for (family, last) in *families {
            assert!(line.contains(&format!("{family}-001 to -{last:03}")), "{name}: {family}");
        }
    }
}

/// A line of each table of docs/security.md is a threat, and its last cell names the tests that try it.
#[test]
fn every_threat_is_tried_by_a_test() {
    let page = read("docs/security.md").expect("docs/security.md");
    let threats: Vec<_> = page.lines().filter_map(cells).filter(|cells| cells.len() == 3).collect();
    let threats = threats.iter().filter(|cells| cells[0] != "what is tried" && !cells[0].starts_with("--"));
    let (mut count, mut faults) = (0, Vec::new());
    for cells in threats {
        count += 1;
        let mut tests = quoted(cells[2]).peekable();
        if tests.peek().is_none() {
            faults.push(format!("{}: no test", cells[0]));
        }
        for named in tests {
            let found = named.split_once("::").and_then(|(path, name)| cited_by_test(path, &read(path)?, name));
            if found.is_none() {
                faults.push(format!("{}: no test {named}", cells[0]));
            }
        }
    }
    assert!(count >= 20, "the tables were found");
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

/// Whatever Rust and Python files of the tree cite exists.
#[test]
fn no_source_cites_a_row_that_does_not_exist() {
    let mut faults = Vec::new();
    for (path, text) in files() {
        if path.ends_with(".rs") || path.ends_with(".py") {
            let wrong = cited(&text).into_iter().filter(|row| !exists(row));
            faults.extend(wrong.map(|row| format!("{path}: {row}")));
        }
    }
    assert!(faults.is_empty(), "rows that do not exist:\n  {}", faults.join("\n  "));
}

/// The checks themselves, on a tree that is made up. The family is put together, so that these lines cite nothing.
mod checks {
    use super::*;

    const PAGE: Page = ("page.md", &[("R4581", 2)]);

    const SOURCE: &str = "
const TABLE: &[u8] = &[
    1, // FAM-001
];

fn helper() {
    // FAM-002
}

// FAM-001
#[test]
fn one() {
    assert!(true);
}

#[test]
fn two() {
    helper();
}

#[test]
fn three() {
    TABLE.iter();
}

fn four() {
    // FAM-001
}

mod inner {
    proptest! {
        /// FAM-001
        #[test]
        fn five(octets in any(),
        ) {
            // FAM-002
        }
    }
}
";

    fn made(text: &str) -> String {
        text.replace("FAM", concat!("R45", "81"))
    }

    fn faults(lines: &str) -> Vec<String> {
        let page = made(&format!("# A page\n\n| row | what | where | test |\n|---|---|---|---|\n{lines}\n"));
        let read = |path: &str| (path == "a/b.rs").then(|| made(SOURCE));
        check_page(&PAGE, &page, &read).into_iter().map(|fault| fault.replace(concat!("R45", "81"), "FAM")).collect()
    }

    const GOOD: &str = "| FAM-002 | it | `a/b.rs` | `a/b.rs::two` |";

    fn first(cells: &str) -> Vec<String> {
        faults(&format!("| FAM-001 | it | {cells} |\n{GOOD}"))
    }

    #[test]
    fn a_whole_page_has_no_faults() {
        for test in ["one", "three", "five"] {
            assert_eq!(first(&format!("`a/b.rs` | `a/b.rs::{test}`")), [""; 0]);
        }
        assert_eq!(first("`a/b.rs` | no test: nobody can see this from outside"), [""; 0]);
        assert_eq!(first("- | not met: nobody needs it, and it is a MAY"), [""; 0]);
    }

    #[test]
    fn rows_are_there_once() {
        assert_eq!(faults(GOOD), ["page.md: FAM-001 is missing"]);
        let twice = first("`a/b.rs` | `a/b.rs::one` |\n| FAM-001 | it | `a/b.rs` | `a/b.rs::one`");
        assert_eq!(twice, ["page.md:6: FAM-001 is no row of this page, or is there twice"]);
        let strange =
            first("`a/b.rs` | `a/b.rs::one` |\n| FAM-003 | it | `a/b.rs` | no test: it is not there to be tested");
        assert_eq!(strange, ["page.md:6: FAM-003 is no row of this page, or is there twice"]);
        let page = made("| FAM-001 | it | `a/b.rs` | `a/b.rs::one` |");
        assert_eq!(check_page(&PAGE, &page, &|_| None)[0], "page.md:1: a line of no table of rows");
    }

    #[test]
    fn files_and_tests_exist_and_cite_the_row() {
        let said =
            |cells: &str| first(cells).into_iter().map(|it| it.replace("page.md:5: FAM-001: ", "")).collect::<Vec<_>>();
        assert_eq!(said("`a/c.rs` | `a/b.rs::one`"), ["no file a/c.rs"]);
        assert_eq!(said("somewhere | `a/b.rs::one`"), ["no place in the code"]);
        assert_eq!(said("`a/b.rs` | `a/c.rs::one`"), ["no file a/c.rs"]);
        assert_eq!(said("`a/b.rs` | `a/b.rs::six`"), ["no test six in a/b.rs"]);
        assert_eq!(said("`a/b.rs` | `a/b.rs::four`"), ["no test four in a/b.rs"], "a function, but no test");
        assert_eq!(said("`a/b.rs` | `a/b.rs::two`"), ["a/b.rs::two does not cite it"]);
        assert_eq!(said("`a/b.rs` | `a/b.rs`"), ["a/b.rs names no test"]);
        assert_eq!(said("`a/b.rs` | yes"), ["neither a test nor a reason"]);
        assert_eq!(said("`a/b.rs` | no test: why"), ["a reason that says nothing"]);
    }

    #[test]
    fn citations_are_read_in_all_their_forms() {
        let rows = |text: &str| cited(&made(text)).into_iter().collect::<Vec<_>>();
        let named = |numbers: &[u32]| numbers.iter().map(|it| id(concat!("R45", "81"), *it)).collect::<Vec<_>>();
        assert_eq!(rows("FAM-001, FAM-003: so"), named(&[1, 3]));
        assert_eq!(rows("(FAM-001, -003 and -004)"), named(&[1, 3, 4]));
        assert_eq!(rows("FAM-002 to -004, -001; FAM-001 to FAM-003"), named(&[1, 2, 3, 4]));
        assert_eq!(rows("FAM-01 FAM-0001 FAM-x"), named(&[]));
        assert!(exists(&named(&[4])[0]) && !exists(&named(&[5])[0]) && !exists(&named(&[0])[0]));
    }

    #[test]
    fn python_tests_are_found_by_their_indentation() {
        let text = made(
            "class A:\n    # FAM-001\n    def test_one(\n        self,\n    ):\n        self.help()\n\n        pass\n    def help(self):\n        # FAM-002\n        pass\n",
        );
        assert_eq!(cited_by_test("x.py", &text, "test_one").unwrap().len(), 2);
        assert_eq!(cited_by_test("x.py", &text, "help"), None);
    }
}
