//! A taxonomy as Markdown: classes and sub-classes as headings, topics as list items `- **Name**: definition`, cross
//! references as a list at the end.
//!
//! Read is also what others write: headings with or without numbers, items with or without bold names, definitions as
//! paragraphs below a heading, cross references in words. What has no place in the text (topics, counts, ids that are no
//! position) stands in comments behind it, so that a taxonomy comes back as it was written.

use super::{CrossReference, Node, Taxonomy};
use crate::{Error, Result};
use std::collections::BTreeMap;

/// Behind the name of a node that was added to a scheme.
const NEW: &str = "*(new)*";

/// How the heading of the cross references begins, in lower case.
const CROSS_REFERENCES: [&str; 3] = ["cross-reference", "cross reference", "crossreference"];

impl Taxonomy {
    /// The taxonomy as Markdown.
    pub fn to_markdown(&self) -> String {
        let mut text = String::new();
        if !self.title.is_empty() {
            text.push_str(&format!("# {}\n", self.title));
        }
        self.write_below(None, &mut text);
        let references: Vec<(&Node, &CrossReference)> =
            self.nodes.iter().flat_map(|node| node.see_also.iter().map(move |other| (node, other))).collect();
        if !references.is_empty() || !self.notes.is_empty() {
            text.push_str("\n## Cross-References\n\n");
        }
        for (node, reference) in references {
            let other = self.node(&reference.to).map_or(reference.to.as_str(), |other| &other.name);
            let reason = behind_colon(&reference.reason);
            let ids = format!("<!-- from: {}; to: {} -->", node.id, reference.to);
            text.push_str(&format!("- **{}** and **{other}**{reason} {ids}\n", node.name));
        }
        for note in &self.notes {
            text.push_str(&format!("- {}\n", in_one_line(note)));
        }
        text
    }

    fn write_below(&self, parent: Option<&str>, text: &mut String) {
        let mut inner_before = false;
        let mut item_before = false;
        for (position, node) in (1..).zip(self.children(parent)) {
            let is_inner = !self.is_leaf(&node.id);
            let is_default = node.id == default_id(parent, position);
            let new = if node.new { format!(" {NEW}") } else { String::new() };
            // An item behind a sub-class's heading would belong to that sub-class.
            if parent.is_some() && !is_inner && !inner_before {
                let blank = if item_before { "" } else { "\n" };
                let definition = node.definition.as_deref().map(behind_colon).unwrap_or_default();
                let facts = facts(node, !is_default);
                text.push_str(&format!("{blank}- **{}**{new}{definition}{facts}\n", node.name));
                item_before = true;
                continue;
            }
            inner_before = true;
            let level = "#".repeat(2 + self.depth(&node.id));
            let is_number = number_of(&node.id).is_some();
            let number = match (is_number, parent) {
                (true, None) => format!("{}. ", node.id),
                (true, Some(_)) => format!("{} ", node.id),
                (false, _) => String::new(),
            };
            let facts = facts(node, !is_number);
            text.push_str(&format!("\n{level} {number}{}{new}{facts}\n", node.name));
            if let Some(definition) = &node.definition {
                text.push_str(&format!("\n{}\n", in_one_line(definition)));
            }
            self.write_below(Some(&node.id), text);
        }
    }

    /// Reads Markdown; `name` stands for it in errors.
    ///
    /// # Errors
    /// `Setting`, naming the line: a heading that leaves out a level, an item above all headings, text without a name;
    /// and what is no taxonomy.
    pub fn from_markdown(name: &str, text: &str) -> Result<Self> {
        let mut reader = Reader::default();
        for (number, line) in (1..).zip(text.lines()) {
            let wrong = |reason: &str| Error::setting(format!("{name}, line {number}"), reason);
            reader.line(line).map_err(wrong)?;
        }
        Self::try_new(reader.title, reader.nodes, reader.notes)
    }
}

/// What was read so far.
#[derive(Default)]
struct Reader {
    title: String,
    nodes: Vec<Node>,
    notes: Vec<String>,
    /// The nodes of the headings above, from the top down.
    headings: Vec<usize>,
    /// The nodes of the items above that a further item may be below, with how far each is indented.
    items: Vec<(usize, usize)>,
    /// How many nodes are right below each.
    children: BTreeMap<Option<String>, usize>,
    in_references: bool,
    /// The node that a paragraph would define.
    last: Option<usize>,
}

impl Reader {
    fn line(&mut self, line: &str) -> std::result::Result<(), &'static str> {
        let indent =
            line.chars().take_while(|c| c.is_whitespace()).map(|c| if c == '\t' { 4 } else { 1 }).sum();
        let line = line.trim();
        if line.is_empty() {
            return Ok(());
        }
        let level = line.bytes().take_while(|byte| *byte == b'#').count();
        match level {
            1 if line[1..].starts_with(' ') => {
                self.title = line[1..].trim().into();
                Ok(())
            }
            2.. if line[level..].starts_with(' ') => self.heading(level - 2, line[level..].trim()),
            _ => match item(line) {
                Some(item) if self.in_references => self.reference(item),
                Some(item) => self.item(indent, item),
                None => self.paragraph(line),
            },
        }
    }

    fn heading(&mut self, depth: usize, text: &str) -> std::result::Result<(), &'static str> {
        let (text, facts) = without_facts(text);
        let lower = text.to_lowercase();
        self.in_references = depth == 0 && CROSS_REFERENCES.iter().any(|start| lower.starts_with(start));
        if self.in_references {
            return Ok(());
        }
        if depth > self.headings.len() {
            return Err("the heading leaves out a level, expected one # more than the heading above at most");
        }
        self.headings.truncate(depth);
        self.items.clear();
        let parent = self.headings.last().copied();
        let (number, name) = match text.split_once(' ') {
            Some((first, rest)) if number_of(first).is_some() => (number_of(first), rest.trim()),
            _ => (None, text),
        };
        let place = self.add(parent, name, None, number.map(Into::into), &facts)?;
        self.headings.push(place);
        Ok(())
    }

    fn item(&mut self, indent: usize, text: &str) -> std::result::Result<(), &'static str> {
        while self.items.last().is_some_and(|(above, _)| *above >= indent) {
            self.items.pop();
        }
        let above = self.items.last().map(|(_, place)| *place);
        let Some(parent) = above.or(self.headings.last().copied()) else {
            return Err("an item stands above all headings, expected a class (## Name) first");
        };
        let (text, facts) = without_facts(text);
        let (name, definition) = match text.strip_prefix("**").and_then(|rest| rest.split_once("**")) {
            // A colon may stand inside the bold name's end, as some write it.
            Some((name, rest)) => (name.trim_end_matches(':').to_string(), rest.to_string()),
            None => match text.split_once(": ") {
                Some((name, rest)) => (name.to_string(), rest.to_string()),
                None => (text.to_string(), String::new()),
            },
        };
        let rest = definition.trim();
        let (is_new, rest) = rest.strip_prefix(NEW).map_or((false, rest), |rest| (true, rest));
        let rest = rest.trim_start_matches([':', ' ']).trim();
        let name = if is_new { format!("{name} {NEW}") } else { name };
        let place =
            self.add(Some(parent), &name, (!rest.is_empty()).then(|| rest.to_string()), None, &facts)?;
        self.items.push((indent, place));
        Ok(())
    }

    fn reference(&mut self, text: &str) -> std::result::Result<(), &'static str> {
        let (text, facts) = without_facts(text);
        let (Some(from), Some(to)) = (facts.get("from"), facts.get("to")) else {
            self.notes.push(text.into());
            return Ok(());
        };
        let missing = "refers from a node that is not there";
        let node = self.nodes.iter_mut().find(|node| node.id == *from).ok_or(missing)?;
        // Behind the second bold name stands the reason.
        let reason = text.rsplit_once("**").map_or("", |(_, reason)| reason.trim_start_matches([':', ' ']));
        node.see_also.push(CrossReference { to: to.clone(), reason: reason.trim().into() });
        Ok(())
    }

    fn paragraph(&mut self, text: &str) -> std::result::Result<(), &'static str> {
        if self.in_references {
            self.notes.push(text.into());
        } else if let Some(node) = self.last.and_then(|place| self.nodes.get_mut(place)) {
            let definition = node.definition.get_or_insert_default();
            if !definition.is_empty() {
                definition.push(' ');
            }
            definition.push_str(text);
        }
        // Text above all headings introduces the scheme, and defines none of it.
        Ok(())
    }

    fn add(
        &mut self,
        parent: Option<usize>,
        name: &str,
        definition: Option<String>,
        number: Option<String>,
        facts: &BTreeMap<String, String>,
    ) -> std::result::Result<usize, &'static str> {
        let parent = parent.map(|place| self.nodes[place].id.clone());
        let position = self.children.entry(parent.clone()).or_default();
        *position += 1;
        let id =
            facts.get("id").cloned().or(number).unwrap_or_else(|| default_id(parent.as_deref(), *position));
        let (name, new) = match name.trim().strip_suffix(NEW) {
            Some(name) => (name.trim(), true),
            None => (name.trim(), false),
        };
        if name.is_empty() {
            return Err("has no name");
        }
        let topics =
            facts.get("topics").map(|topics| topics.split(',').map(|topic| topic.trim().parse()).collect());
        self.nodes.push(Node {
            id,
            name: name.into(),
            definition,
            parent,
            topics: topics.unwrap_or(Ok(Vec::new())).map_err(|_| "its topics are no numbers")?,
            members: facts
                .get("members")
                .map_or(Ok(0), |n| n.parse())
                .map_err(|_| "its members are no number")?,
            new,
            see_also: Vec::new(),
        });
        self.last = Some(self.nodes.len() - 1);
        Ok(self.nodes.len() - 1)
    }
}

/// The id of a node that says none: its place among those under its parent.
fn default_id(parent: Option<&str>, position: usize) -> String {
    parent.map_or_else(|| position.to_string(), |parent| format!("{parent}.{position}"))
}

/// A number like `1`, `1.` or `1.2.3` without a last full stop.
fn number_of(text: &str) -> Option<&str> {
    let number = text.strip_suffix('.').unwrap_or(text);
    let is_number =
        number.split('.').all(|part| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit()));
    is_number.then_some(number)
}

/// The text of a list item: behind `-`, `*`, `+` or `1.`.
fn item(line: &str) -> Option<&str> {
    let (mark, text) = line.split_once(' ')?;
    let is_mark = ["-", "*", "+"].contains(&mark) || (mark.ends_with('.') && number_of(mark).is_some());
    is_mark.then(|| text.trim())
}

/// The comment with what the text does not say.
fn facts(node: &Node, with_id: bool) -> String {
    let mut facts = Vec::new();
    if with_id {
        facts.push(format!("id: {}", node.id));
    }
    if !node.topics.is_empty() {
        let topics: Vec<String> = node.topics.iter().map(i32::to_string).collect();
        facts.push(format!("topics: {}", topics.join(", ")));
    }
    if node.members > 0 {
        facts.push(format!("members: {}", node.members));
    }
    if facts.is_empty() { String::new() } else { format!(" <!-- {} -->", facts.join("; ")) }
}

/// Takes the comment with facts off the end of a line.
fn without_facts(line: &str) -> (&str, BTreeMap<String, String>) {
    let inside =
        line.rsplit_once("<!--").and_then(|(text, rest)| Some((text, rest.trim().strip_suffix("-->")?)));
    let Some((text, comment)) = inside else { return (line.trim(), BTreeMap::new()) };
    let facts = comment.split(';').filter_map(|fact| fact.split_once(':'));
    (text.trim(), facts.map(|(key, value)| (key.trim().into(), value.trim().into())).collect())
}

fn behind_colon(text: &str) -> String {
    if text.is_empty() { String::new() } else { format!(": {}", in_one_line(text)) }
}

fn in_one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::super::tests::{node, small};
    use super::*;

    #[test]
    fn a_taxonomy_is_written_as_people_read_it() {
        assert_eq!(
            small().to_markdown(),
            "# Papers\n\n## 1. Language <!-- members: 35 -->\n\nWhat language is made of.\n\n\
             - **Translation**: From one language to another. <!-- topics: 0, 4; members: 30 -->\n\
             - **Speech: recognition & synthesis** *(new)* <!-- topics: 2; members: 5 -->\n\n\
             ## 2. Society\n\n## Cross-References\n\n\
             - **Speech: recognition & synthesis** and **Translation**: speech is translated, too \
             <!-- from: 1.2; to: 1.1 -->\n- All of it is about people.\n"
        );
    }

    #[test]
    fn what_was_written_comes_back_as_it_was() {
        let odd = vec![
            node("cs", "Computer Science", None),
            Node {
                definition: Some("Sub-class: with a colon.".into()),
                ..node("cs.AI", "Intelligence", Some("cs"))
            },
            node("7", "Numbered", Some("cs.AI")),
            node("cs.ZZ", "Behind a sub-class", Some("cs")),
            node("x", "Y", Some("cs.ZZ")),
        ];
        for taxonomy in [small(), Taxonomy::default(), Taxonomy::try_new("T".into(), odd, vec![]).unwrap()] {
            let text = taxonomy.to_markdown();
            assert_eq!(Taxonomy::from_markdown("scheme.md", &text).unwrap(), taxonomy, "{text}");
        }
    }

    #[test]
    fn items_further_in_are_below_the_item_above() {
        let text = "## A\n- one\n  - two: below one\n    * three\n  - four\n- five\n\t- six\n## B\n  - seven\n- eight\n";
        let read = Taxonomy::from_markdown("scheme.md", text).unwrap();
        let found: Vec<(&str, &str)> =
            read.nodes.iter().map(|node| (node.id.as_str(), node.name.as_str())).collect();
        let expected = [
            ("1", "A"),
            ("1.1", "one"),
            ("1.1.1", "two"),
            ("1.1.1.1", "three"),
            ("1.1.2", "four"),
            ("1.2", "five"),
            ("1.2.1", "six"),
            ("2", "B"),
            ("2.1", "seven"),
            ("2.2", "eight"),
        ];
        assert_eq!(found, expected);
        assert_eq!(Taxonomy::from_markdown("scheme.md", &read.to_markdown()).unwrap(), read);
    }

    #[test]
    fn schemes_of_others_are_read() {
        let text = "# Scheme\n\nAn introduction.\n\n## 1. Foundations\n### 1.1 Models\n\
                    - **Transformers**: Attention.\n* Large models: many numbers\n\n## Empty class\n\
                    Nothing yet,\nbut soon.\n\n## Cross-References and Connections\n1. Models are related to all.\n";
        let read = Taxonomy::from_markdown("scheme.md", text).unwrap();
        let nodes: Vec<(&str, &str, Option<&str>)> =
            read.nodes.iter().map(|n| (n.id.as_str(), n.name.as_str(), n.definition.as_deref())).collect();
        assert_eq!(
            nodes,
            [
                ("1", "Foundations", None),
                ("1.1", "Models", None),
                ("1.1.1", "Transformers", Some("Attention.")),
                ("1.1.2", "Large models", Some("many numbers")),
                ("2", "Empty class", Some("Nothing yet, but soon.")),
            ]
        );
        assert_eq!(
            (read.title.as_str(), &read.notes[..]),
            ("Scheme", &["Models are related to all.".to_string()][..])
        );
    }

    #[test]
    fn what_cannot_be_read_is_told_with_its_line() {
        for (text, says) in [
            ("## A\n\n#### B\n", "s.md, line 3: the heading leaves out a level"),
            ("- item\n", "s.md, line 1: an item stands above all headings"),
            ("## A\n- **x** <!-- topics: one -->\n", "s.md, line 2: its topics are no numbers"),
            ("## A\n## a\n", "same name"),
        ] {
            let error = Taxonomy::from_markdown("s.md", text).unwrap_err().to_string();
            assert!(error.contains(says), "{error}");
        }
    }
}
