//! What can go wrong in an operator or a model, and who must act on it.

use crate::endpoint::Failure;
use std::path::{Path, PathBuf};

/// Who must act on an error; the program's exit code follows from it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The user must change something: the job file, a schema, a missing model.
    User,
    /// A row or a file is bad.
    Data,
    /// A broker, a store or an endpoint failed.
    External,
    /// An invariant of ours is broken.
    Internal,
}

/// An operator's failure.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A setting that cannot be: what it is called, and what would do.
    #[error("{setting}: {reason}")]
    Setting {
        /// The setting's name as the user writes it.
        setting: String,
        /// What is wrong and which choices there are.
        reason: String,
    },
    /// A column that is missing or of another type than needed.
    #[error("column \"{column}\": {reason}")]
    Column {
        /// The column.
        column: String,
        /// What is wrong and what was expected.
        reason: String,
    },
    /// A value in a row that cannot be used.
    #[error("row {row}, column \"{column}\": {reason}")]
    Row {
        /// The row, counted from 0 in its batch or source.
        row: u64,
        /// The column.
        column: String,
        /// What is wrong and what was expected.
        reason: String,
    },
    /// Data that no model can be fitted on.
    #[error("{0}")]
    Unfit(String),
    /// A model folder that is incomplete or broken.
    #[error("model {path}: {reason}", path = .path.display())]
    Model {
        /// The folder or the file in it.
        path: PathBuf,
        /// What is wrong and what was expected.
        reason: String,
    },
    /// A file that cannot be read or written.
    #[error("{path}: {source}", path = .path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The system's answer.
        source: std::io::Error,
    },
    /// A kernel failed.
    #[error(transparent)]
    Kernel(kernels::Error),
    /// Arrow refused an array.
    #[error(transparent)]
    Arrow(#[from] arrow::error::ArrowError),
    /// An endpoint gave no answer.
    #[error(transparent)]
    Endpoint(#[from] Failure),
    /// Work that was broken off because its caller asked for it.
    #[error("{0} was stopped")]
    Stopped(&'static str),
    /// A broken invariant of our own.
    #[error("internal error: {0}")]
    Internal(String),
}

impl Error {
    /// Who must act.
    pub fn kind(&self) -> Kind {
        match self {
            Self::Setting { .. } | Self::Column { .. } | Self::Model { .. } | Self::Stopped(_) => Kind::User,
            Self::Row { .. } | Self::Unfit(_) | Self::Kernel(kernels::Error::NotFinite { .. }) => Kind::Data,
            Self::Kernel(kernels::Error::Device { .. } | kernels::Error::Range { .. }) => Kind::User,
            Self::Endpoint(Failure::Denied(_) | Failure::Refused { .. } | Failure::NoApi(_)) => Kind::User,
            Self::Endpoint(_) => Kind::External,
            Self::Io { source, .. } if is_users(source.kind()) => Kind::User,
            Self::Io { .. } => Kind::External,
            Self::Kernel(_) | Self::Arrow(_) | Self::Internal(_) => Kind::Internal,
        }
    }

    /// Makes a [`Error::Setting`].
    pub fn setting(setting: impl Into<String>, reason: impl Into<String>) -> Self {
        Self::Setting { setting: setting.into(), reason: reason.into() }
    }

    /// Makes a [`Error::Column`].
    pub fn column(column: impl Into<String>, reason: impl Into<String>) -> Self {
        Self::Column { column: column.into(), reason: reason.into() }
    }

    /// Makes a [`Error::Model`].
    pub fn model(path: impl AsRef<Path>, reason: impl Into<String>) -> Self {
        Self::Model { path: path.as_ref().into(), reason: reason.into() }
    }

    /// Makes a [`Error::Io`].
    pub fn io(path: impl AsRef<Path>, source: std::io::Error) -> Self {
        Self::Io { path: path.as_ref().into(), source }
    }
}

impl From<kernels::Error> for Error {
    fn from(error: kernels::Error) -> Self {
        match error {
            kernels::Error::Stopped(work) => Self::Stopped(work),
            error => Self::Kernel(error),
        }
    }
}

/// Whether a system's answer means that the user named the wrong file.
fn is_users(kind: std::io::ErrorKind) -> bool {
    matches!(kind, std::io::ErrorKind::NotFound | std::io::ErrorKind::PermissionDenied)
}

/// An operator's result.
pub type Result<T> = std::result::Result<T, Error>;
