//! What can go wrong in a kernel: shapes that do not fit, values out of range, a device that is not there.

/// A kernel's failure.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Operands whose shapes do not fit together.
    #[error("{what}: expected {expected}, found {found}")]
    Shape {
        /// The operand, by its name in the kernel's signature.
        what: &'static str,
        /// The shape that would have fitted.
        expected: String,
        /// The shape that came.
        found: String,
    },
    /// A value that is NaN or infinite where a number is needed.
    #[error("row {row}, column {column}: {value} is not a finite number")]
    NotFinite {
        /// Row, from 0.
        row: usize,
        /// Column, from 0.
        column: usize,
        /// The value found.
        value: f32,
    },
    /// A calibration range that is none.
    #[error("column {column}: the range from {min} to {max} is not two finite numbers in order")]
    Range {
        /// Column, from 0.
        column: usize,
        /// The lower end.
        min: f32,
        /// The upper end.
        max: f32,
    },
    /// Work that was told to stop.
    #[error("{0} was stopped")]
    Stopped(&'static str),
    /// Device memory that is not there.
    #[error("the GPU has no {bytes} bytes of memory left; use fewer rows, or --device cpu")]
    DeviceMemory {
        /// How many bytes were asked for.
        bytes: u64,
    },
    /// A failure of a GPU or of a kernel on it.
    #[error("the GPU failed: {what}: {reason}")]
    Gpu {
        /// The kernel or the call.
        what: &'static str,
        /// What the driver says.
        reason: String,
    },
    /// A device that cannot be used.
    #[error("device {name}: {reason}")]
    Device {
        /// The device as the user wrote it.
        name: String,
        /// Why it cannot be used, and what can.
        reason: String,
    },
}

/// A kernel's result.
pub type Result<T> = std::result::Result<T, Error>;
