//! A taxonomy in SKOS, the W3C's vocabulary for knowledge organisation systems, as Turtle.
//!
//! Nodes are concepts with a notation, a label, a definition and the broader concept; cross references are `related`.
//! What SKOS has no word for (topics, counts, what is new) are notes.

use super::Taxonomy;
use std::fmt::Write as _;

/// Before the ids of concepts, which may not be resolved: nothing lies there.
const BASE: &str = "urn:thema:taxonomy:";

/// Writes a taxonomy as Turtle.
pub(super) fn to_turtle(taxonomy: &Taxonomy) -> String {
    let mut text = format!(
        "@prefix skos: <http://www.w3.org/2004/02/skos/core#> .\n\n<{BASE}> a skos:ConceptScheme ;\n    \
         skos:prefLabel {}",
        literal(if taxonomy.title.is_empty() { "taxonomy" } else { &taxonomy.title })
    );
    for note in &taxonomy.notes {
        add(&mut text, "skos:note", &literal(note));
    }
    text.push_str(" .\n");
    for node in &taxonomy.nodes {
        text.push_str(&format!(
            "\n{} a skos:Concept ;\n    skos:notation {}",
            concept(&node.id),
            literal(&node.id)
        ));
        add(&mut text, "skos:prefLabel", &literal(&node.name));
        if let Some(definition) = &node.definition {
            add(&mut text, "skos:definition", &literal(definition));
        }
        match &node.parent {
            Some(parent) => add(&mut text, "skos:broader", &concept(parent)),
            None => add(&mut text, "skos:topConceptOf", &format!("<{BASE}>")),
        }
        for reference in &node.see_also {
            add(&mut text, "skos:related", &concept(&reference.to));
            if !reference.reason.is_empty() {
                add(&mut text, "skos:note", &literal(&format!("{}: {}", reference.to, reference.reason)));
            }
        }
        for topic in &node.topics {
            add(&mut text, "skos:note", &literal(&format!("topic {topic}")));
        }
        if node.members > 0 {
            add(&mut text, "skos:note", &literal(&format!("{} texts", node.members)));
        }
        if node.new {
            add(&mut text, "skos:changeNote", &literal("new"));
        }
        add(&mut text, "skos:inScheme", &format!("<{BASE}>"));
        text.push_str(" .\n");
    }
    text
}

fn add(text: &mut String, property: &str, value: &str) {
    // Writing to a string does not fail.
    let written = write!(text, " ;\n    {property} {value}");
    debug_assert!(written.is_ok());
}

/// A concept's address; what may not stand in one is percent-encoded.
fn concept(id: &str) -> String {
    let mut encoded = String::new();
    for byte in id.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
    }
    format!("<{BASE}{encoded}>")
}

fn literal(text: &str) -> String {
    let escaped = text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n").replace('\r', "\\r");
    format!("\"{escaped}\"")
}

#[cfg(test)]
mod tests {
    use super::super::tests::small;
    use super::*;

    #[test]
    fn concepts_have_labels_broader_ones_and_what_they_are_related_to() {
        let turtle = to_turtle(&small());
        assert!(turtle.starts_with("@prefix skos:"), "{turtle}");
        assert_eq!(turtle.matches("a skos:Concept ;").count(), 4);
        for line in [
            "skos:prefLabel \"Speech: recognition & synthesis\" ;",
            "skos:broader <urn:thema:taxonomy:1> ;",
            "skos:related <urn:thema:taxonomy:1.1> ;",
            "skos:topConceptOf <urn:thema:taxonomy:> ;",
            "skos:changeNote \"new\" ;",
        ] {
            assert!(turtle.contains(line), "{line}: {turtle}");
        }
        assert_eq!(literal("a \"b\"\\\nc"), "\"a \\\"b\\\"\\\\\\nc\"");
        assert_eq!(concept("a b/ä"), "<urn:thema:taxonomy:a%20b%2F%C3%A4>");
    }
}
