//! What can go wrong around the operators: places, files, filters, stores; and who must act on it.

use crate::sources::BadUnit;
use datafusion::common::{DataFusionError, SchemaError};
use operators::{Kind, text::did_you_mean};
use std::sync::Arc;

/// A failure of the program, which names the thing, its place and the choices.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// An operator or a model failed.
    #[error(transparent)]
    Operator(#[from] operators::Error),
    /// A path or URL that the user must change: not there, in the way, or of no use.
    #[error("{place}: {reason}")]
    Place {
        /// The path or URL as the user wrote it.
        place: String,
        /// What is wrong and which choices there are.
        reason: String,
    },
    /// A column that a template, an id or a flag asks for and the table lacks.
    #[error("{}", missing(.column, &format!(" in {place}"), .columns))]
    MissingColumn {
        /// The column asked for.
        column: String,
        /// The table, or the one file of it that lacks the column.
        place: String,
        /// The columns there are.
        columns: Vec<String>,
    },
    /// A column whose type differs between two files of one table.
    #[error("{0}")]
    Conflict(Box<Conflict>),
    /// A condition that is no filter on these columns.
    #[error("{name} \"{expression}\": {reason}")]
    Filter {
        /// What users call it: `where` or `keep`.
        name: &'static str,
        /// The SQL expression.
        expression: String,
        /// What is wrong and which choices there are.
        reason: String,
    },
    /// A file, a row group or a row that cannot be read.
    #[error("{0}")]
    Bad(BadUnit),
    /// A store, local or remote, that failed.
    #[error("{place}: {source}")]
    Store {
        /// The path or URL.
        place: String,
        /// The store's answer.
        source: object_store::Error,
    },
    /// An outside service that failed, in words of ours.
    #[error("{service}: {reason}")]
    Service {
        /// Which one.
        service: String,
        /// Its answer, and what to do.
        reason: String,
    },
    /// DataFusion refused or failed; the text is its own, without the debug output around it.
    #[error("{reason}")]
    Query {
        /// Who must act.
        kind: Kind,
        /// What is wrong.
        reason: String,
    },
    /// The report could not be drawn.
    #[error("report: {0}")]
    Report(#[from] crate::report::ReportError),
    /// What was written since the last commit is undone; the same rows may be read and written again.
    #[error("{0}")]
    Aborted(String),
    /// Another process has taken our place, and this one must not go on.
    #[error("{0}")]
    Fenced(String),
    /// The user stopped the run.
    #[error("stopped")]
    Cancelled,
    /// A broken invariant of our own.
    #[error("internal error: {0}")]
    Internal(String),
}

/// A column whose type differs between two files of one table.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("column \"{column}\" is {first_type} in {first} but {second_type} in {second}{advice}")]
pub struct Conflict {
    /// The column.
    pub column: String,
    /// The file read first.
    pub first: String,
    /// The column's type there.
    pub first_type: String,
    /// The file that disagrees.
    pub second: String,
    /// The column's type there.
    pub second_type: String,
    /// A way out, where there is one; empty otherwise.
    pub advice: &'static str,
}

/// The result of what can fail with an [`Error`].
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// Who must act.
    pub fn kind(&self) -> Kind {
        match self {
            Self::Operator(error) => error.kind(),
            Self::Place { .. } | Self::MissingColumn { .. } | Self::Conflict(_) | Self::Filter { .. } => {
                Kind::User
            }
            Self::Bad(_) => Kind::Data,
            Self::Store { .. } | Self::Service { .. } | Self::Aborted(_) => Kind::External,
            Self::Cancelled => Kind::User,
            Self::Report(_) | Self::Fenced(_) => Kind::Internal,
            Self::Query { kind, .. } => *kind,
            Self::Internal(_) => Kind::Internal,
        }
    }

    /// The program's exit code: 2 the user must change something, 3 bad data, 4 an outside service failed, 1 our
    /// fault; 130 after Ctrl-C, as shells have it.
    pub fn exit_code(&self) -> u8 {
        if self.is_cancelled() {
            return 130;
        }
        match self.kind() {
            Kind::User => 2,
            Kind::Data => 3,
            Kind::External => 4,
            Kind::Internal => 1,
        }
    }

    /// Whether the user stopped the run.
    pub fn is_cancelled(&self) -> bool {
        matches!(self, Self::Cancelled | Self::Operator(operators::Error::Stopped(_)))
    }

    /// Makes a [`Error::Place`].
    pub fn place(place: impl Into<String>, reason: impl Into<String>) -> Self {
        Self::Place { place: place.into(), reason: reason.into() }
    }

    /// Makes a setting's error: what it is called, what is wrong and which choices there are.
    pub fn setting(setting: impl Into<String>, reason: impl Into<String>) -> Self {
        operators::Error::setting(setting, reason).into()
    }

    /// Tells what a store's answer about `place` means: what is not there or not allowed is the user's to change,
    /// all else is the store's fault.
    pub fn store(place: impl Into<String>, source: object_store::Error) -> Self {
        use object_store::Error as Store;
        let place = place.into();
        match source {
            Store::AlreadyExists { .. } => Self::place(place, "exists already"),
            Store::Unauthenticated { .. } => Self::place(place, NOT_LET_IN),
            Store::PermissionDenied { .. } if place.contains("://") => Self::place(place, NOT_LET_IN),
            Store::PermissionDenied { .. } => Self::place(place, "permission denied"),
            source => match (status(&source), source) {
                (Some(401 | 403), _) => Self::place(place, NOT_LET_IN),
                (_, source) if lacks_bucket(&source) => Self::place(place, "no such bucket"),
                (_, Store::NotFound { .. }) => Self::place(place, "no such file"),
                (_, source) => Self::Store { place, source },
            },
        }
    }
}

/// What to say where a store wants other credentials.
const NOT_LET_IN: &str = "the store does not let us in: are the credentials right, and allowed to do this? They come from \
                          the environment (AWS_..., GOOGLE_..., AZURE_...)";

/// The status of HTTP with which a store refused, which its client tells in words alone where it could not list.
fn status(error: &object_store::Error) -> Option<u16> {
    let object_store::Error::Generic { source, .. } = error else { return None };
    let text = source.to_string();
    let (_, status) = text.split_once("status code: ")?;
    status.get(..3)?.parse().ok()
}

/// Whether there is no such bucket or container, by the codes of S3, GCS and Azure.
pub(crate) fn lacks_bucket(error: &object_store::Error) -> bool {
    let text = error.to_string();
    ["NoSuchBucket", "ContainerNotFound", "The specified bucket does not exist"]
        .iter()
        .any(|code| text.contains(code))
}

impl From<DataFusionError> for Error {
    /// Unwraps what DataFusion carries: an error of ours comes out as it went in, its own in one readable line.
    fn from(error: DataFusionError) -> Self {
        let kind = match error.find_root() {
            DataFusionError::SQL(..) | DataFusionError::SchemaError(..) | DataFusionError::Plan(_) => {
                Kind::User
            }
            DataFusionError::NotImplemented(_) | DataFusionError::Configuration(_) => Kind::User,
            DataFusionError::ArrowError(..) | DataFusionError::ParquetError(_) => Kind::Data,
            DataFusionError::Execution(_) => Kind::Data,
            DataFusionError::ObjectStore(_) | DataFusionError::IoError(_) => Kind::External,
            _ => Kind::Internal,
        };
        match carried(error) {
            Ok(ours) => ours,
            Err(other) => Self::Query { kind, reason: readable(&other) },
        }
    }
}

/// Takes out the error of ours that `error` wraps, if it does.
fn carried(error: DataFusionError) -> std::result::Result<Error, DataFusionError> {
    match error {
        DataFusionError::External(inner) => match inner.downcast::<Error>() {
            Ok(ours) => Ok(*ours),
            Err(inner) => match inner.downcast::<operators::Error>() {
                Ok(ours) => Ok(Error::Operator(*ours)),
                Err(inner) => Err(DataFusionError::External(inner)),
            },
        },
        DataFusionError::Context(text, inner) => {
            carried(*inner).map_err(|inner| DataFusionError::Context(text, Box::new(inner)))
        }
        DataFusionError::Diagnostic(diagnostic, inner) => {
            carried(*inner).map_err(|inner| DataFusionError::Diagnostic(diagnostic, Box::new(inner)))
        }
        DataFusionError::Shared(shared) => match Arc::try_unwrap(shared) {
            Ok(inner) => carried(inner),
            Err(shared) => Err(DataFusionError::Shared(shared)),
        },
        other => Err(other),
    }
}

/// Says what `error` means in one line, in lower case.
pub(crate) fn readable(error: &DataFusionError) -> String {
    match error {
        DataFusionError::SchemaError(inner, _) => match inner.as_ref() {
            SchemaError::FieldNotFound { field, valid_fields } => {
                let names: Vec<String> = valid_fields.iter().map(|column| column.name.clone()).collect();
                missing(&field.name, "", &names)
            }
            other => first_line(&other.to_string()),
        },
        DataFusionError::SQL(parser, _) => {
            let text = parser.to_string();
            let text = text.strip_prefix("sql parser error: ").unwrap_or(&text);
            first_line(text)
        }
        DataFusionError::Diagnostic(_, inner) | DataFusionError::Context(_, inner) => readable(inner),
        DataFusionError::Shared(inner) => readable(inner),
        DataFusionError::Collection(all) => all.first().map_or_else(|| "no reason given".into(), readable),
        DataFusionError::Plan(text)
        | DataFusionError::NotImplemented(text)
        | DataFusionError::Execution(text) => first_line(text),
        DataFusionError::ArrowError(inner, _) => first_line(&inner.to_string()),
        DataFusionError::ParquetError(inner) => first_line(&inner.to_string()),
        DataFusionError::ObjectStore(inner) => first_line(&inner.to_string()),
        other => first_line(&other.strip_backtrace()),
    }
}

/// The first line of `text` without its full stop and with a small first letter, so that it fits behind a colon.
pub(crate) fn first_line(text: &str) -> String {
    let line = text.lines().find(|line| !line.trim().is_empty()).unwrap_or("no reason given");
    let line = line.trim().trim_end_matches('.');
    let mut letters = line.chars();
    match letters.next() {
        // A word in capitals (SQL, UTF-8) keeps them.
        Some(first) if letters.clone().next().is_some_and(char::is_lowercase) => {
            first.to_lowercase().chain(letters).collect()
        }
        _ => line.into(),
    }
}

/// Says that there is no such column, which there are, and which of them was probably meant.
fn missing(column: &str, place: &str, columns: &[String]) -> String {
    let meant = did_you_mean(column, columns.iter().map(String::as_str));
    format!("no column \"{column}\"{place}{meant}; there are: {}", quoted(columns))
}

/// Lists names for an error: the first 50, in double quotes.
pub(crate) fn quoted(names: &[String]) -> String {
    const SHOWN: usize = 50;
    if names.is_empty() {
        return "none".into();
    }
    let mut list: Vec<String> = names.iter().take(SHOWN).map(|name| format!("\"{name}\"")).collect();
    if names.len() > SHOWN {
        list.push(format!("and {} more", names.len() - SHOWN));
    }
    list.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_of_ours_comes_out_of_datafusion_as_it_went_in() {
        let ours = Error::place("papers/", "no such file");
        let wrapped = DataFusionError::External(Box::new(ours)).context("while reading");
        let back = Error::from(wrapped);
        assert_eq!(back.to_string(), "papers/: no such file");
        assert_eq!(back.exit_code(), 2);
    }

    #[test]
    fn each_kind_has_its_exit_code() {
        assert_eq!(Error::Internal("x".into()).exit_code(), 1);
        assert_eq!(Error::setting("k", "too small").exit_code(), 2);
        assert_eq!(Error::Bad(BadUnit::file("a.parquet", "truncated")).exit_code(), 3);
        let down = object_store::Error::Generic { store: "S3", source: "connection refused".into() };
        assert_eq!(Error::store("s3://lake", down).exit_code(), 4);
    }

    #[test]
    fn what_a_store_refuses_is_the_users_to_change() {
        let said = |text: &str| object_store::Error::Generic { store: "S3", source: text.into() };
        for (text, words, code) in [
            (
                "non-2xx status code: 403 Forbidden: <Code>SignatureDoesNotMatch</Code>",
                "does not let us in",
                2,
            ),
            ("non-2xx status code: 404 Not Found: <Code>NoSuchBucket</Code>", "no such bucket", 2),
            ("after 10 retries: non-2xx status code: 503 Service Unavailable", "503", 4),
        ] {
            let error = Error::store("s3://lake/x", said(text));
            assert!(error.to_string().contains(words), "{error}");
            assert_eq!(error.exit_code(), code);
        }
    }

    #[test]
    fn a_first_letter_is_lowered_and_a_word_in_capitals_is_kept() {
        assert_eq!(first_line("Expected: a number.\n\nmore"), "expected: a number");
        assert_eq!(first_line("EOF: eof"), "EOF: eof");
    }
}
