//! Where in a JSON text something was said, since `serde_json` tells lines of errors but neither fields nor, of what it has read,
//! places.

use crate::config::Place;

/// Nesting that is followed; a policy has far less.
const DEPTH_MAX: usize = 32;

/// The places of all values in a text.
#[derive(Debug)]
pub(super) struct Places<'a> {
    text: &'a str,
    /// Fields from the root, as `classes[0].out.split`, with the octets from the key, or in lists the value, to the value's end.
    fields: Vec<(String, usize, usize)>,
}

impl<'a> Places<'a> {
    /// Looks through a text, as far as it is JSON.
    pub(super) fn of(text: &'a str) -> Places<'a> {
        let mut scan = Scan { octets: text.as_bytes(), at: 0, fields: Vec::new() };
        scan.value("", 0);
        Places { text, fields: scan.fields }
    }

    /// Where a field is, or what it would be in.
    pub(super) fn place(&self, field: &str) -> Place {
        let mut wanted = field;
        loop {
            if let Some((_, start, _)) = self.fields.iter().find(|(known, ..)| known == wanted) {
                return Place::of(self.text, *start);
            }
            match wanted.rfind(['.', '[']) {
                Some(end) => wanted = &wanted[..end],
                None => return Place::of(self.text, 0),
            }
        }
    }

    /// The innermost field around a line and a column, counted from 1 and in octets.
    pub(super) fn field_at(&self, line: usize, column: usize) -> &str {
        let begins = self.text.split_inclusive('\n').take(line.saturating_sub(1)).map(str::len).sum::<usize>();
        let offset = (begins + column.saturating_sub(1)).min(self.text.len());
        let around = self.fields.iter().filter(|(_, start, end)| (*start..=*end).contains(&offset));
        around.max_by_key(|(field, start, _)| (*start, field.len())).map_or("", |(field, ..)| field)
    }

    /// Fields that stand more than once; the later ones are where they are named.
    pub(super) fn repeated(&self) -> Vec<(&str, Place)> {
        let mut seen = std::collections::BTreeSet::new();
        let again = self.fields.iter().filter(|(field, ..)| !seen.insert(field.as_str()));
        again.map(|(field, start, _)| (field.as_str(), Place::of(self.text, *start))).collect()
    }
}

struct Scan<'a> {
    octets: &'a [u8],
    at: usize,
    fields: Vec<(String, usize, usize)>,
}

impl Scan<'_> {
    fn peek(&mut self) -> Option<u8> {
        while self.octets.get(self.at).is_some_and(u8::is_ascii_whitespace) {
            self.at += 1;
        }
        self.octets.get(self.at).copied()
    }

    fn take(&mut self, wanted: u8) -> bool {
        let is_there = self.peek() == Some(wanted);
        self.at += usize::from(is_there);
        is_there
    }

    /// A string's octets between the quotation marks.
    fn string(&mut self) -> Option<String> {
        if !self.take(b'"') {
            return None;
        }
        let start = self.at;
        while let Some(octet) = self.octets.get(self.at).copied() {
            match octet {
                b'"' => {
                    let text = String::from_utf8_lossy(&self.octets[start..self.at]).into_owned();
                    self.at += 1;
                    return Some(text);
                }
                b'\\' => self.at += 2,
                _ => self.at += 1,
            }
        }
        None
    }

    /// A value; false when the text is not JSON from here on.
    fn value(&mut self, path: &str, depth: usize) -> bool {
        match self.peek() {
            None => false,
            Some(_) if depth > DEPTH_MAX => false,
            Some(b'"') => self.string().is_some(),
            Some(b'{') => self.object(path, depth),
            Some(b'[') => self.array(path, depth),
            Some(_) => {
                let ends = |octet: &u8| b",]}".contains(octet) || octet.is_ascii_whitespace();
                let rest = &self.octets[self.at..];
                self.at += rest.iter().position(ends).unwrap_or(rest.len());
                true
            }
        }
    }

    fn object(&mut self, path: &str, depth: usize) -> bool {
        self.at += 1;
        if self.take(b'}') {
            return true;
        }
        loop {
            self.peek();
            let start = self.at;
            let Some(key) = self.string() else { return false };
            let field = if path.is_empty() { key } else { format!("{path}.{key}") };
            let noted = self.note(field.clone(), start);
            let good = self.take(b':') && self.value(&field, depth + 1);
            self.fields[noted].2 = self.at;
            if !good {
                return false;
            }
            if !self.take(b',') {
                return self.take(b'}');
            }
        }
    }

    fn array(&mut self, path: &str, depth: usize) -> bool {
        self.at += 1;
        if self.take(b']') {
            return true;
        }
        for index in 0.. {
            self.peek();
            let field = format!("{path}[{index}]");
            let noted = self.note(field.clone(), self.at);
            let good = self.value(&field, depth + 1);
            self.fields[noted].2 = self.at;
            if !good {
                return false;
            }
            if !self.take(b',') {
                return self.take(b']');
            }
        }
        false
    }

    fn note(&mut self, field: String, start: usize) -> usize {
        self.fields.push((field, start, self.octets.len()));
        self.fields.len() - 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "{\n  \"a\": [1, {\"b\": \"x,]\\\"}\"}],\n  \"c\": {\"d\": true},\n  \"c\": 2\n}";

    #[test]
    fn fields_have_places_and_places_fields() {
        let places = Places::of(TEXT);
        let at = |field| places.place(field);
        assert_eq!(at("a[1].b"), Place { line: 2, column: 13 });
        assert_eq!(at("c.d"), Place { line: 3, column: 9 });
        assert_eq!(at("c.missing"), at("c"), "what it would be in");
        assert_eq!(at("nowhere"), Place { line: 1, column: 1 });
        assert_eq!(places.field_at(2, 20), "a[1].b");
        assert_eq!(places.field_at(3, 15), "c.d");
        assert_eq!(places.field_at(1, 1), "");
        assert_eq!(places.repeated(), [("c", Place { line: 4, column: 3 })]);
    }

    #[test]
    fn what_is_no_json_is_looked_through_as_far_as_it_goes() {
        for end in 0..TEXT.len() {
            let places = Places::of(&TEXT[..end]);
            places.place("a[1].b");
            places.field_at(9, 9);
        }
        assert!(!Scan { octets: "[".repeat(100_000).as_bytes(), at: 0, fields: Vec::new() }.value("", 0));
    }
}
