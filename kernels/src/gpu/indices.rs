//! Numbers of rows of a table, in a GPU's memory: each is checked here before it goes there, so that no kernel reads
//! beyond the table's end.

use super::{Address, Gpu, Mirror, int};
use crate::{Error, Result};
use std::sync::Arc;

/// Room for numbers that are all below a bound; zeros until they are written.
#[derive(Debug)]
pub struct Indices {
    numbers: Mirror<i32>,
    capacity: usize,
    bound: usize,
}

impl Indices {
    /// Room for `capacity` rows of a table that has `bound`, at least one.
    pub fn new(gpu: &Arc<Gpu>, capacity: usize, bound: usize) -> Result<Self> {
        assert!(bound > 0, "a table without rows");
        Ok(Self { numbers: gpu.mirror(capacity)?, capacity, bound })
    }

    /// Replaces the first numbers, in the order of the GPU's work; there must be room for them.
    ///
    /// # Errors
    /// `Shape` at a number that is no row of the table; what a GPU fails with.
    pub fn write(&mut self, numbers: impl Iterator<Item = usize>) -> Result<()> {
        let checked = numbers.map(|number| {
            if number < self.bound {
                return Ok(int(number));
            }
            let expected = format!("rows below {}", self.bound);
            Err(Error::Shape { what: "a table on a GPU", expected, found: number.to_string() })
        });
        let checked: Vec<i32> = checked.collect::<Result<_>>()?;
        self.numbers.write(&checked)
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.capacity
    }

    /// What all are below.
    pub(super) fn bound(&self) -> usize {
        self.bound
    }

    pub(super) fn address(&self) -> Address {
        self.numbers.there().address()
    }
}
