//! A batch over many files: it takes what is new, may be killed at any moment, and is said again to go on.
//!
//! One idea: the output keeps a [`Ledger`]. A plan names units of work (a file, or a run of its row groups), and never
//! changes; a mark says that a unit is done. Both are put only where nothing is yet, so that of two runs at once one wins
//! and the other goes by what it finds. What a unit writes is visible as a whole or not at all, under a name that follows
//! from the plan: a unit that was killed before its mark, or is done by two runs, is written twice to the same place, and
//! no row stands twice. (A table has a log: there a unit's files have names of their own, and are part of the table when
//! all units of a run are done, in one commit.)
//!
//! The source is to be files that stay as they are and become more. One that has changed since its rows were taken is an
//! error, for nobody could tell which rows are new.

mod ledger;
mod open;
mod run;
mod sums;

pub use ledger::{Done, FOLDER, Ledger, Part, Plan, Seal, Sealed, Settings, Unit, UnitId};
pub(crate) use ledger::{READ_AT_ONCE, names_in, remove_all, remove_older};
pub(crate) use open::{Batch, Look, Task, UNIT_BYTES};
pub(crate) use run::{AT_ONCE, Way, run};
pub use sums::Sums;
