//! Text from columns: templates such as `{title}: {abstract}`.
//!
//! Between braces stands a column, or a field of a struct (`{meta.title}`), with an optional cut to a number of
//! characters (`{abstract:420}`); `{{` and `}}` are braces. Numbers read in decimal, dates in ISO 8601 (instants in
//! UTC), lists of strings joined by `, `.
//!
//! The whitespace rule: none is added, removed or changed, neither in the template nor in values. A null reads as
//! nothing, and what the template writes around it stays; a row whose every column is null or blank has an empty text.
//! Nulls are counted by column.

use crate::{Error, Result, text_column::TextColumn};
use arrow::array::{Array, AsArray, LargeStringArray, LargeStringBuilder, RecordBatch};
use arrow::buffer::NullBuffer;
use arrow::datatypes::{DataType, Fields, Schema};
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, fmt, str::FromStr};
use unicode_segmentation::UnicodeSegmentation;

/// A parsed template.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Template {
    source: String,
    pieces: Vec<Piece>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Piece {
    Literal(String),
    Column { name: String, max_chars: Option<usize> },
}

/// A template whose columns are found in a schema.
#[derive(Debug, Clone)]
pub struct BoundTemplate {
    /// The columns, each once, in the template's order.
    columns: Vec<BoundColumn>,
    pieces: Vec<BoundPiece>,
}

#[derive(Debug, Clone)]
struct BoundColumn {
    name: String,
    /// The column's index, then that of the field in each struct on the way.
    path: Vec<usize>,
}

#[derive(Debug, Clone)]
enum BoundPiece {
    Literal(String),
    /// An index among the bound columns.
    Column(usize, Option<usize>),
}

/// The texts of a batch.
#[derive(Debug)]
pub struct Rendered {
    /// One text per row. A row whose every column is null or blank is null, and reads as the empty text.
    pub texts: LargeStringArray,
    /// What was missing.
    pub missing: MissingText,
}

/// How many values were missing in the texts made so far; counts of batches add up in any order.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct MissingText {
    /// The number of rows looked at.
    pub rows: u64,
    /// The number of rows whose every column was null or blank: their text is empty.
    pub empty_rows: u64,
    /// The number of nulls by column, for each column of the template.
    pub nulls: BTreeMap<String, u64>,
}

impl Template {
    /// Parses a template; an error says where it goes wrong.
    pub fn parse(source: &str) -> Result<Self> {
        let wrong = |reason: String| Error::setting(format!("template {source:?}"), reason);
        let mut pieces = Vec::new();
        let mut literal = String::new();
        let mut rest = source;
        while let Some(at) = rest.find(['{', '}']) {
            let position = source[..source.len() - rest.len() + at].chars().count() + 1;
            literal.push_str(&rest[..at]);
            let brace = &rest[at..=at];
            rest = &rest[at + 1..];
            if let Some(after) = rest.strip_prefix(brace) {
                literal.push_str(brace);
                rest = after;
                continue;
            }
            if brace == "}" {
                return Err(wrong(format!(
                    "'}}' at character {position} closes nothing; write '}}}}' for a brace"
                )));
            }
            let inside = match rest.find(['{', '}']) {
                Some(end) if rest[end..].starts_with('}') => &rest[..end],
                _ => {
                    let reason =
                        format!("'{{' at character {position} is not closed; write '{{{{' for a brace");
                    return Err(wrong(reason));
                }
            };
            rest = &rest[inside.len() + 1..];
            if !literal.is_empty() {
                pieces.push(Piece::Literal(std::mem::take(&mut literal)));
            }
            let (name, max_chars) = split_cut(inside);
            if name.is_empty() || max_chars == Some(0) {
                let reason = format!(
                    "\"{{{inside}}}\" at character {position} is not \"{{column}}\" or \"{{column:420}}\""
                );
                return Err(wrong(reason));
            }
            pieces.push(Piece::Column { name: name.into(), max_chars });
        }
        literal.push_str(rest);
        if !literal.is_empty() {
            pieces.push(Piece::Literal(literal));
        }
        let template = Self { source: source.into(), pieces };
        if template.columns().is_empty() {
            return Err(wrong(
                "names no column, expected one in braces, as in \"{title}: {abstract}\"".into(),
            ));
        }
        Ok(template)
    }

    /// The columns that are named, each once, in order.
    pub fn columns(&self) -> Vec<&str> {
        let mut columns = Vec::new();
        for piece in &self.pieces {
            if let Piece::Column { name, .. } = piece
                && !columns.contains(&name.as_str())
            {
                columns.push(name);
            }
        }
        columns
    }

    /// The text with what `value` says of each name that stands in braces; nothing for one that it does not know.
    pub fn fill<'v>(&self, value: impl Fn(&str) -> Option<&'v str>) -> String {
        let pieces = self.pieces.iter().map(|piece| match piece {
            Piece::Literal(text) => text.as_str(),
            Piece::Column { name, max_chars } => {
                let value = value(name).unwrap_or_default();
                max_chars.map_or(value, |most| cut(value, most))
            }
        });
        pieces.collect()
    }

    /// Finds the columns in `schema`; an error names one that is missing (with the choices) or has no text.
    pub fn bind(&self, schema: &Schema) -> Result<BoundTemplate> {
        let mut columns = Vec::new();
        for name in self.columns() {
            let (path, data_type) =
                find(name, schema.fields()).ok_or_else(|| missing_column(name, schema))?;
            TextColumn::check_type(name, data_type)?;
            columns.push(BoundColumn { name: name.into(), path });
        }
        let index_of = |name: &str| columns.iter().position(|column| column.name == name);
        let pieces = self
            .pieces
            .iter()
            .map(|piece| match piece {
                Piece::Literal(text) => BoundPiece::Literal(text.clone()),
                Piece::Column { name, max_chars } => {
                    let index =
                        index_of(name).unwrap_or_else(|| unreachable!("columns() names every column"));
                    BoundPiece::Column(index, *max_chars)
                }
            })
            .collect();
        Ok(BoundTemplate { columns, pieces })
    }
}

impl BoundTemplate {
    /// Writes the text of each row of `rows`, which must have the schema that the template was bound to.
    pub fn render(&self, rows: &RecordBatch) -> Result<Rendered> {
        let columns = self.columns.iter().map(|column| column.read(rows)).collect::<Result<Vec<_>>>()?;
        let mut missing = MissingText { rows: rows.num_rows() as u64, ..MissingText::default() };
        for (bound, column) in self.columns.iter().zip(&columns) {
            let nulls = (0..rows.num_rows()).filter(|&row| column.is_null(row)).count();
            missing.nulls.insert(bound.name.clone(), nulls as u64);
        }
        // 64-bit offsets: the texts of one batch may pass 2 GiB.
        let mut texts = LargeStringBuilder::with_capacity(rows.num_rows(), 0);
        let (mut text, mut value) = (String::new(), String::new());
        for row in 0..rows.num_rows() {
            text.clear();
            let mut is_blank = true;
            for piece in &self.pieces {
                let start = text.len();
                match piece {
                    BoundPiece::Literal(literal) => {
                        text.push_str(literal);
                        continue;
                    }
                    BoundPiece::Column(index, _) if columns[*index].is_null(row) => {}
                    BoundPiece::Column(index, None) => columns[*index].push_to(row, &mut text),
                    BoundPiece::Column(index, Some(max_chars)) => {
                        value.clear();
                        columns[*index].push_to(row, &mut value);
                        text.push_str(cut(&value, *max_chars));
                    }
                }
                is_blank &= text[start..].trim().is_empty();
            }
            if is_blank {
                missing.empty_rows += 1;
                texts.append_null();
            } else {
                texts.append_value(&text);
            }
        }
        Ok(Rendered { texts: texts.finish(), missing })
    }
}

impl MissingText {
    /// Adds the counts of another batch.
    pub fn add(&mut self, other: &Self) {
        self.rows += other.rows;
        self.empty_rows += other.empty_rows;
        for (column, nulls) in &other.nulls {
            *self.nulls.entry(column.clone()).or_default() += nulls;
        }
    }
}

/// Whether a character is no part of what people read: controls, and marks that turn or hide the text beside them.
pub(crate) fn is_unseen(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{200B}' | '\u{200E}'..='\u{200F}' | '\u{202A}'..='\u{202E}' | '\u{2060}'..='\u{2069}' | '\u{FEFF}')
}

/// Returns the longest beginning of `text` that has at most `max_chars` Unicode code points and ends between two
/// grapheme clusters, so that no accent or emoji is torn.
pub fn cut(text: &str, max_chars: usize) -> &str {
    // No text has more code points than bytes.
    if text.len() <= max_chars {
        return text;
    }
    let mut chars = 0;
    for (at, cluster) in text.grapheme_indices(true) {
        chars += cluster.chars().count();
        if chars > max_chars {
            return &text[..at];
        }
    }
    text
}

impl FromStr for Template {
    type Err = Error;

    fn from_str(source: &str) -> Result<Self> {
        Self::parse(source)
    }
}

impl TryFrom<String> for Template {
    type Error = Error;

    fn try_from(source: String) -> Result<Self> {
        Self::parse(&source)
    }
}

impl From<Template> for String {
    fn from(template: Template) -> Self {
        template.source
    }
}

impl fmt::Display for Template {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.source)
    }
}

impl BoundColumn {
    fn read(&self, rows: &RecordBatch) -> Result<TextColumn> {
        let Some((&first, fields)) = self.path.split_first() else { unreachable!("a path has a column") };
        let mut array = rows.column(first);
        let mut nulls: Option<NullBuffer> = None;
        for &field in fields {
            let outer = array.as_struct();
            nulls = NullBuffer::union(nulls.as_ref(), outer.nulls());
            array = outer.column(field);
        }
        TextColumn::try_new(&self.name, array, nulls.as_ref())
    }
}

/// Splits `abstract:420` into the column and its cut; digits after the last colon are a cut, all else is the name.
fn split_cut(inside: &str) -> (&str, Option<usize>) {
    match inside.rsplit_once(':') {
        Some((name, digits)) if !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit()) => {
            // A cut that fits no usize cuts nothing.
            (name, Some(digits.parse().unwrap_or(usize::MAX)))
        }
        _ => (inside, None),
    }
}

/// Finds `name` among fields: one of that very name, else a struct's field behind a dot.
fn find<'a>(name: &str, fields: &'a Fields) -> Option<(Vec<usize>, &'a DataType)> {
    if let Some((index, field)) = fields.find(name) {
        return Some((vec![index], field.data_type()));
    }
    name.match_indices('.').find_map(|(dot, _)| {
        let (index, outer) = fields.find(&name[..dot])?;
        let DataType::Struct(inner) = outer.data_type() else { return None };
        let (mut path, data_type) = find(&name[dot + 1..], inner)?;
        path.insert(0, index);
        Some((path, data_type))
    })
}

/// Says which columns there are, and which of them was probably meant.
pub fn missing_column(name: &str, schema: &Schema) -> Error {
    let mut names = Vec::new();
    list_names("", schema.fields(), &mut names);
    missing(name, &names)
}

/// The same where a field of a struct will not do.
pub fn missing_top_level(name: &str, schema: &Schema) -> Error {
    missing(name, &schema.fields().iter().map(|field| field.name().clone()).collect::<Vec<_>>())
}

fn missing(name: &str, names: &[String]) -> Error {
    /// More names than this make no error clearer.
    const SHOWN: usize = 30;
    if names.is_empty() {
        return Error::column(name, "is missing; there are no columns");
    }
    let meant = did_you_mean(name, names.iter().map(String::as_str));
    let more = names.len().saturating_sub(SHOWN);
    let mut shown: Vec<_> = names.iter().take(SHOWN).map(|name| format!("\"{name}\"")).collect();
    if more > 0 {
        shown.push(format!("{more} more"));
    }
    Error::column(name, format!("is missing{meant}, the columns are {}", shown.join(", ")))
}

/// ` (did you mean "title"?)` where one of `names` is close to `name`; else nothing.
pub fn did_you_mean<'a>(name: &str, names: impl Iterator<Item = &'a str>) -> String {
    let closest = names.map(|other| (edits(name, other), other)).min_by_key(|(edits, _)| *edits);
    // Up to half of the letters wrong may still be a slip of the pen; past that it is another word.
    let closest =
        closest.filter(|(edits, other)| edits * 2 <= other.chars().count().max(name.chars().count()));
    closest.map(|(_, other)| format!(" (did you mean \"{other}\"?)")).unwrap_or_default()
}

fn list_names(prefix: &str, fields: &Fields, names: &mut Vec<String>) {
    for field in fields {
        let name = format!("{prefix}{}", field.name());
        match field.data_type() {
            DataType::Struct(inner) => list_names(&format!("{name}."), inner, names),
            _ => names.push(name),
        }
    }
}

/// The number of letters to change, insert or drop, regardless of case (Levenshtein's distance).
fn edits(a: &str, b: &str) -> usize {
    let (a, b) = (a.to_lowercase(), b.to_lowercase());
    let mut row: Vec<usize> = (0..=b.chars().count()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.chars().enumerate() {
            let changed = diagonal + usize::from(x != y);
            diagonal = row[j + 1];
            row[j + 1] = changed.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.chars().count()]
}

#[cfg(test)]
mod tests;
