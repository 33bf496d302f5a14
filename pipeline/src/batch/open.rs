//! What is to be done: the units of files that are new, and those that earlier runs have left.

use super::ledger::{Ledger, Plan, Settings, Unit, UnitId};
use crate::location::Location;
use crate::report::{count, thousands};
use crate::sources::{BadUnits, ListedFile, Listing, Part, PlannedFile, Table};
use crate::{Error, Result};
use std::collections::{BTreeMap, HashMap, HashSet};

/// How long a part of a file may be that is a unit of its own: what other readers like a file to be, and a few seconds or
/// minutes of work that are lost with a process.
const UNIT_BYTES: u64 = 128 << 20;

/// How many changed files are named.
const NAMED: usize = 3;

/// A unit that is to be done.
#[derive(Debug)]
pub(crate) struct Task {
    /// Which.
    pub(crate) id: UnitId,
    /// Its rows.
    pub(crate) table: Table,
}

/// What is to be done.
#[derive(Debug)]
pub(crate) struct Open {
    /// What is planned, and what was done before.
    pub(crate) ledger: Ledger,
    /// The files to read as one table; nothing where there is nothing to do.
    pub(crate) table: Option<Table>,
    /// The units to do, in the order in which they are to be taken.
    pub(crate) tasks: Vec<Task>,
    /// Files that cannot be read at all.
    pub(crate) bad: BadUnits,
    /// How many files there are; of a table with versions, since the last time.
    pub(crate) files: usize,
    /// The version of the table, if it has versions.
    pub(crate) version: Option<u64>,
}

/// Finds what is to be done of the files of `listing` for the output at `place`, and plans what is new, or all, if it is to
/// be done `anew`. `id` is the column that names rows; `check` is asked whether the table of the files to read will do,
/// before anything is written.
///
/// # Errors
/// A file of which rows were taken has changed since.
pub(crate) async fn open(
    place: &Location,
    mut ledger: Ledger,
    listing: &Listing,
    id: Option<&str>,
    (model, settings, anew): (&str, Settings, bool),
    check: impl Fn(&Table) -> Result<()>,
) -> Result<Open> {
    if !anew {
        warn_of_changes(place, &ledger, &settings);
    }
    loop {
        let known = if anew { Known::default() } else { Known::of(&ledger) };
        let (listing, since) =
            if anew { (listing.clone(), None) } else { since_last(listing, &ledger).await? };
        known.check_unchanged(place, &listing)?;
        let (table, bad) = listing.look(id, |file| !known.is_planned(&file) || known.is_open(&file)).await?;
        table.as_ref().map(&check).transpose()?;
        let units = units(&listing, table.as_ref(), &known);
        let is_newer = listing.version().zip(since).is_some_and(|(version, since)| version > since);
        if !units.is_empty() || is_newer {
            let mut plan = Plan::new(ledger.run(), model, settings.clone(), units);
            (plan.table_version, plan.anew) = (listing.version(), anew);
            if !ledger.add(&plan).await? {
                tracing::info!("{}: another run has planned at the same time", place.name());
                continue;
            }
        }
        let tasks = tasks(&ledger, &listing, table.as_ref());
        let (files, version) = (listing.files().count(), listing.version());
        return Ok(Open { ledger, table, tasks, bad, files, version });
    }
}

/// Of a table with versions only what came since the last plan, and the version of that; and what was planned and not done.
async fn since_last(listing: &Listing, ledger: &Ledger) -> Result<(Listing, Option<u64>)> {
    let planned = ledger.plans().filter_map(|(_, plan)| plan.table_version).max();
    let (Some(now), Some(planned)) = (listing.version(), planned) else { return Ok((listing.clone(), None)) };
    let mut files: Vec<PlannedFile> = Vec::new();
    for (_, unit) in ledger.units().filter(|(id, _)| !ledger.is_done(*id)) {
        let (url, partition) = (unit.file.clone(), unit.partition.clone());
        files.push(PlannedFile { url, bytes: unit.size, partition });
    }
    files.dedup_by(|a, b| a.url == b.url);
    let since = planned.min(now);
    Ok((listing.clone().since(since, files).await?, Some(since)))
}

/// The units of the files that no plan has. A file that cannot be read is planned only where a list would not name it again.
fn units(listing: &Listing, table: Option<&Table>, known: &Known) -> Vec<Unit> {
    let parts = table.map_or_else(Vec::new, |table| table.parts(UNIT_BYTES));
    let mut by_file: HashMap<String, Vec<Part>> = HashMap::new();
    for part in parts {
        let file = table.and_then(|table| table.file(part.file));
        by_file.entry(file.map(|(url, _)| url).unwrap_or_default()).or_default().push(part);
    }
    let of_file = |file: ListedFile<'_>| {
        let PlannedFile { url, bytes: size, partition } = file.planned();
        let unit = |rows, bytes| {
            let (file, version, partition) = (url.clone(), file.version(), partition.clone());
            Unit { file, version, rows, size, bytes, partition }
        };
        match by_file.get(&url) {
            Some(parts) => parts.iter().map(|part| unit(part.rows, part.bytes)).collect(),
            None if listing.version().is_some() => vec![unit(None, size)],
            None => Vec::new(),
        }
    };
    listing.files().filter(|file| !known.is_planned(file)).flat_map(of_file).collect()
}

/// The units that are not done and whose files are in `table`. Those that another run has planned come last and from their
/// end: if that run is still at it, the two meet in the middle.
fn tasks(ledger: &Ledger, listing: &Listing, table: Option<&Table>) -> Vec<Task> {
    let ours_of: HashSet<u64> =
        ledger.plans().filter(|(_, plan)| plan.run == ledger.run()).map(|(number, _)| number).collect();
    let file = |file| Some((table?.file(file)?, file));
    let places: HashMap<(String, String), usize> = (0..).map_while(file).collect();
    let listed: HashSet<String> = listing.files().map(|file| file.url()).collect();
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    let mut gone = 0;
    for (id, unit) in ledger.units().filter(|(id, _)| !ledger.is_done(*id)) {
        let place = places.get(&(unit.file.clone(), unit.version.clone()));
        match place.and_then(|file| table?.only(*file, unit.rows)) {
            Some(table) if ours_of.contains(&id.plan) => ours.push(Task { id, table }),
            Some(table) => theirs.push(Task { id, table }),
            // Of those that are there and not to be read, it was told why.
            None => gone += u64::from(!listed.contains(&unit.file)),
        }
    }
    if gone > 0 {
        tracing::warn!("{} planned before are left out: their files are gone", count(gone, "unit"));
    }
    ours.extend(theirs.into_iter().rev());
    ours
}

/// What the plans say of files.
#[derive(Default)]
struct Known {
    /// By file and version, whether units are done and whether some are not.
    files: BTreeMap<String, BTreeMap<String, State>>,
}

#[derive(Default)]
struct State {
    has_done: bool,
    has_open: bool,
}

impl Known {
    fn of(ledger: &Ledger) -> Self {
        let mut files: BTreeMap<String, BTreeMap<String, State>> = BTreeMap::new();
        for (id, unit) in ledger.units() {
            let state = files.entry(unit.file.clone()).or_default().entry(unit.version.clone()).or_default();
            match ledger.is_done(id) {
                true => state.has_done = true,
                false => state.has_open = true,
            }
        }
        Self { files }
    }

    fn has(&self, file: &str, version: &str) -> bool {
        self.files.get(file).is_some_and(|versions| versions.contains_key(version))
    }

    /// Whether a plan has the file.
    fn is_planned(&self, file: &ListedFile<'_>) -> bool {
        self.has(&file.url(), &file.version())
    }

    /// Whether a unit of the file is not done.
    fn is_open(&self, file: &ListedFile<'_>) -> bool {
        let state = self.files.get(&file.url()).and_then(|versions| versions.get(&file.version()));
        state.is_some_and(|state| state.has_open)
    }

    /// Fails if a file is another than the one of which rows were taken.
    fn check_unchanged(&self, place: &Location, listing: &Listing) -> Result<()> {
        let is_taken = |file: &ListedFile<'_>| {
            let others = self.files.get(&file.url()).into_iter().flatten();
            others.filter(|(version, _)| **version != file.version()).any(|(_, state)| state.has_done)
        };
        let mut changed = listing.files().filter(is_taken).map(|file| file.url());
        let Some(first) = changed.next() else { return Ok(()) };
        let named: Vec<String> = std::iter::once(first).chain(changed.by_ref().take(NAMED - 1)).collect();
        let more = match changed.count() {
            0 => String::new(),
            more => format!(" and {} more", thousands(more as u64)),
        };
        let reason = format!(
            "holds rows of files that have changed since, and nobody can tell which of theirs are new: {}{more}. Say \
             --overwrite to begin anew, or give another output",
            named.join(", ")
        );
        Err(Error::place(place.name(), reason))
    }
}

/// Warns where the rows that are there were made by other settings.
fn warn_of_changes(place: &Location, ledger: &Ledger, settings: &Settings) {
    let Some((_, last)) = ledger.plans().next_back() else { return };
    let said = |settings: &Settings, key: &str| {
        settings.get(key).map_or_else(|| "nothing".into(), |value| format!("\"{value}\""))
    };
    let mut keys: Vec<&String> = last.settings.keys().chain(settings.keys()).collect();
    keys.sort_unstable();
    keys.dedup();
    for key in keys.into_iter().filter(|key| last.settings.get(*key) != settings.get(*key)) {
        let (before, now) = (said(&last.settings, key), said(settings, key));
        tracing::warn!("{}: {key} is {now}, but was {before} for the rows that are there", place.name());
    }
}
