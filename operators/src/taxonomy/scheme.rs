//! The forms in which schemes are read and written: Markdown, a dotted tree, JSON; SKOS is written only.
//!
//! The dotted tree has a node a line: `1.2 Name: definition`, or `cs.CL Name`. A node is under the one whose id is its
//! own up to the last full stop. Behind the name may stand the topics, `[0, 4]`, and `(new)`; a name with a colon,
//! a quote or a bracket is quoted as in JSON. Blank lines, and those that begin with `#`, say nothing. Counts and cross
//! references have no place in it.

use super::{Node, Taxonomy};
use crate::{Error, Result};
use std::path::Path;

/// A form of schemes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scheme {
    /// Headings and lists.
    Markdown,
    /// A node a line.
    Dotted,
    /// The object itself.
    Json,
    /// Turtle in the vocabulary of SKOS.
    Skos,
}

impl Scheme {
    /// The form of a file, by its name.
    ///
    /// # Errors
    /// `Setting` for a name that ends in none of those that are known.
    pub fn of(path: &str) -> Result<Self> {
        let extension = Path::new(path).extension().and_then(|extension| extension.to_str());
        match extension.map(str::to_lowercase).as_deref() {
            Some("md" | "markdown") => Ok(Self::Markdown),
            Some("txt" | "dotted") => Ok(Self::Dotted),
            Some("json") => Ok(Self::Json),
            Some("ttl") => Ok(Self::Skos),
            _ => {
                let reason = "is no scheme, expected a name that ends in .md, .txt, .json or .ttl";
                Err(Error::setting(path, reason))
            }
        }
    }

    /// Reads a scheme; `name` stands for it in errors.
    ///
    /// # Errors
    /// `Setting`, naming the line or the node: what is no taxonomy in this form. SKOS is not read.
    pub fn read(self, name: &str, text: &str) -> Result<Taxonomy> {
        let read = match self {
            Self::Markdown => Taxonomy::from_markdown(name, text),
            Self::Dotted => from_dotted(name, text),
            Self::Json => {
                let read: Taxonomy =
                    serde_json::from_str(text).map_err(|e| Error::setting(name, e.to_string()))?;
                Taxonomy::try_new(read.title, read.nodes, read.notes)
            }
            Self::Skos => Err(Error::setting(name, "SKOS is written, not read: use .md, .txt or .json")),
        };
        read.map_err(|error| match error {
            Error::Setting { setting, reason } if !setting.starts_with(name) => {
                Error::setting(format!("{name}: {setting}"), reason)
            }
            other => other,
        })
    }

    /// Writes a taxonomy.
    pub fn write(self, taxonomy: &Taxonomy) -> Result<String> {
        Ok(match self {
            Self::Markdown => taxonomy.to_markdown(),
            Self::Dotted => to_dotted(taxonomy),
            Self::Json => {
                let text = serde_json::to_string_pretty(taxonomy);
                text.map_err(|e| Error::Internal(format!("taxonomy: {e}")))? + "\n"
            }
            Self::Skos => super::skos::to_turtle(taxonomy),
        })
    }
}

/// Behind the name of a node that was added to a scheme.
const NEW: &str = "(new)";

fn to_dotted(taxonomy: &Taxonomy) -> String {
    let mut text = String::new();
    if !taxonomy.title.is_empty() {
        text.push_str(&format!("# {}\n", taxonomy.title));
    }
    for node in &taxonomy.nodes {
        let indent = "  ".repeat(taxonomy.depth(&node.id));
        let is_plain = !node.name.contains([':', '"', '[', ']', '(']);
        let name = if is_plain {
            node.name.clone()
        } else {
            serde_json::Value::from(node.name.as_str()).to_string()
        };
        let topics: Vec<String> = node.topics.iter().map(i32::to_string).collect();
        let topics = if topics.is_empty() { String::new() } else { format!(" [{}]", topics.join(", ")) };
        let new = if node.new { format!(" {NEW}") } else { String::new() };
        let definition = node.definition.as_deref().unwrap_or_default();
        let definition = definition.split_whitespace().collect::<Vec<_>>().join(" ");
        let colon = if definition.is_empty() { "" } else { ": " };
        text.push_str(&format!("{indent}{} {name}{topics}{new}{colon}{definition}\n", node.id));
    }
    text
}

fn from_dotted(name: &str, text: &str) -> Result<Taxonomy> {
    let (mut title, mut nodes) = (String::new(), Vec::<Node>::new());
    for (number, line) in (1..).zip(text.lines().map(str::trim)) {
        let wrong = |reason: String| Error::setting(format!("{name}, line {number}"), reason);
        if let Some(comment) = line.strip_prefix('#') {
            if number == 1 {
                title = comment.trim().into();
            }
            continue;
        }
        if line.is_empty() {
            continue;
        }
        let Some((id, rest)) = line.split_once(char::is_whitespace) else {
            return Err(wrong(format!("\"{line}\" has no name, expected an id, a blank and a name")));
        };
        let id = id.trim_end_matches('.');
        let parent = id.rsplit_once('.').map(|(parent, _)| parent.to_string());
        if let Some(parent) = parent.as_deref().filter(|parent| nodes.iter().all(|node| node.id != **parent))
        {
            return Err(wrong(format!("{id} is under {parent}, which stands in no line above")));
        }
        if nodes.iter().any(|node| node.id == id) {
            return Err(wrong(format!("{id} stands in a line above, too")));
        }
        let mut node = Node { id: id.into(), parent, ..Node::default() };
        read_node(rest.trim(), &mut node).map_err(|reason| wrong(reason.into()))?;
        nodes.push(node);
    }
    // A word without digits, of a first line that nothing is under, where other ids have digits: the scheme's title.
    let has_digits = |node: &Node| node.id.contains(|c: char| c.is_ascii_digit());
    if let Some((first, others)) = nodes.split_first()
        && !has_digits(first)
        && others.iter().any(has_digits)
        && others.iter().all(|node| node.parent.as_deref() != Some(&first.id))
    {
        let reason = format!("\"{}\" is no id like the others; a title stands behind #", first.id);
        return Err(Error::setting(format!("{name}, node {}", first.id), reason));
    }
    Taxonomy::try_new(title, nodes, Vec::new())
}

/// Reads name, topics, mark and definition.
fn read_node(text: &str, node: &mut Node) -> std::result::Result<(), &'static str> {
    let (head, definition) = match text.starts_with('"') {
        true => {
            let mut names = serde_json::Deserializer::from_str(text).into_iter::<String>();
            let name = names.next().and_then(std::result::Result::ok);
            node.name = name.ok_or("the name's second quote is missing")?;
            let rest = &text[names.byte_offset()..];
            rest.split_once(':').map_or((rest, ""), |(head, definition)| (head, definition))
        }
        false => text.split_once(':').map_or((text, ""), |(head, definition)| (head, definition)),
    };
    let definition = definition.trim();
    node.definition = (!definition.is_empty()).then(|| definition.into());
    let mut head = head.trim();
    if let Some(rest) = head.strip_suffix(NEW) {
        (head, node.new) = (rest.trim(), true);
    }
    if let Some((rest, topics)) = head.strip_suffix(']').and_then(|head| head.rsplit_once('[')) {
        let topics = topics.split(',').map(|topic| topic.trim().parse());
        node.topics =
            topics.collect::<std::result::Result<_, _>>().map_err(|_| "its topics are no numbers")?;
        head = rest.trim();
    }
    if node.name.is_empty() {
        node.name = head.into();
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::tests::{node, small};
    use super::*;

    #[test]
    fn names_with_quotes_and_brackets_come_back_as_written() {
        let mut taxonomy = small();
        taxonomy.nodes[1].name = "C++ and C#: a \"guide\" [2] (new) \\".into();
        taxonomy.nodes[3].name = "(new)".into();
        let text = Scheme::Dotted.write(&taxonomy).unwrap();
        let read = Scheme::Dotted.read("s.txt", &text).unwrap();
        let names =
            |taxonomy: &Taxonomy| taxonomy.nodes.iter().map(|node| node.name.clone()).collect::<Vec<_>>();
        assert_eq!(names(&read), names(&taxonomy), "{text}");
        assert!(!read.nodes[1].new && read.nodes[1].topics == taxonomy.nodes[1].topics);
    }

    #[test]
    fn the_dotted_tree_has_a_node_a_line() {
        assert_eq!(
            Scheme::Dotted.write(&small()).unwrap(),
            "# Papers\n1 Language: What language is made of.\n  1.1 Translation [0, 4]: From one language to another.\n  \
             1.2 \"Speech: recognition & synthesis\" [2] (new)\n2 Society\n"
        );
        let text = "\ncs Computer Science\ncs.CL Computation and Language: texts\n# a comment\n1.  Other\n";
        let read = Scheme::Dotted.read("scheme.txt", text).unwrap();
        let ids: Vec<&str> = read.nodes.iter().map(|node| node.id.as_str()).collect();
        assert_eq!(ids, ["cs", "cs.CL", "1"]);
        assert_eq!(read.path(0), Vec::<&str>::new());
    }

    #[test]
    fn schemes_come_back_as_they_were_written() {
        let taxonomy = small();
        let json = Scheme::Json.write(&taxonomy).unwrap();
        assert_eq!(Scheme::Json.read("scheme.json", &json).unwrap(), taxonomy);
        // The dotted tree keeps all but counts, notes and references.
        let mut left = taxonomy;
        left.notes.clear();
        for node in &mut left.nodes {
            node.members = 0;
            node.see_also.clear();
        }
        let dotted = Scheme::Dotted.write(&left).unwrap();
        assert_eq!(Scheme::Dotted.read("scheme.txt", &dotted).unwrap(), left, "{dotted}");
    }

    #[test]
    fn what_is_no_scheme_is_told_with_its_place() {
        for (name, text, says) in [
            ("s.txt", "cs.CL Language\n", "s.txt, line 1: cs.CL is under cs"),
            ("s.txt", "cs\n", "has no name"),
            ("s.txt", "1 \"open\n", "second quote"),
            ("s.txt", "1 A [x]\n", "no numbers"),
            ("s.json", "{\"nodes\": [{\"id\": \"1\"}]}", "missing field `name`"),
            ("s.json", "{\"nodes\": [{\"id\": \"1\", \"name\": \"A\", \"colour\": 1}]}", "colour"),
            ("s.ttl", "", "not read"),
        ] {
            let error = Scheme::of(name).and_then(|scheme| scheme.read(name, text)).unwrap_err().to_string();
            assert!(error.contains(says), "{error}");
        }
        assert!(Scheme::of("scheme.pdf").unwrap_err().to_string().contains(".md, .txt, .json or .ttl"));
        let circle = [node("a", "A", Some("b")), node("b", "B", Some("a"))];
        let json = format!("{{\"nodes\": {}}}", serde_json::to_string(&circle).unwrap());
        assert!(Scheme::Json.read("s.json", &json).unwrap_err().to_string().contains("below itself"));
    }
}
