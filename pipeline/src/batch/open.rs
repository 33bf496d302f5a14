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

/// What a batch is asked to do.
pub(crate) struct Batch<'a> {
    /// The output.
    pub(crate) place: &'a Location,
    /// The files of the source.
    pub(crate) listing: &'a Listing,
    /// The column that names rows.
    pub(crate) id: Option<&'a str>,
    /// The folder of the model's version.
    pub(crate) model: &'a str,
    /// What else rows depend on.
    pub(crate) settings: Settings,
    /// Whether all is to be done, and what is there to go.
    pub(crate) anew: bool,
}

/// What there is to do, as far as it was looked at.
#[derive(Debug)]
pub(crate) struct Look {
    /// The files; of a table with versions, since the last time.
    pub(crate) listing: Listing,
    /// The files to read as one table; nothing where there is nothing to read.
    pub(crate) table: Option<Table>,
    /// Files that cannot be read at all.
    pub(crate) bad: BadUnits,
    /// The units of what is new.
    units: Vec<Unit>,
    /// Whether the source has a version that no plan has seen.
    is_newer: bool,
    /// Whether a unit that was planned is not done.
    has_open: bool,
}

impl Batch<'_> {
    /// Looks at what is new, and at what earlier runs have left.
    ///
    /// # Errors
    /// A file of which rows were taken has changed since, or the table is another; nothing can be read that is to be done
    /// anew.
    pub(crate) async fn look(&self, ledger: &Ledger) -> Result<Look> {
        let Self { place, listing, anew, .. } = *self;
        let known = if anew { Known::default() } else { Known::of(ledger) };
        let (listing, since) =
            if anew { (listing.clone(), None) } else { since_last(place, listing, ledger).await? };
        known.check_unchanged(place, &listing)?;
        let is_wanted = |file: ListedFile<'_>| !known.is_planned(&file) || known.is_open(&file);
        let (table, bad) = listing.look(self.id, is_wanted).await?;
        let units = units(&listing, table.as_ref(), &known);
        if anew && units.is_empty() {
            let reason = "there is nothing to begin anew with: no file can be read. What is there stays";
            return Err(Error::place(place.name(), reason));
        }
        let is_newer = listing.version().zip(since).is_some_and(|(version, since)| version > since);
        let has_open = !anew && ledger.units().any(|(id, _)| !ledger.is_done(id));
        Ok(Look { listing, table, bad, units, is_newer, has_open })
    }

    /// Warns where the rows that are there were made by other settings.
    pub(crate) fn warn_of_changes(&self, ledger: &Ledger) {
        if !self.anew {
            warn_of_changes(self.place, ledger, &self.settings);
        }
    }

    /// Plans what is new; what there is to do, in the order in which it is to be taken. Nothing, where another run has
    /// planned since: look again.
    pub(crate) async fn plan(&self, look: &Look, ledger: &mut Ledger) -> Result<Option<Vec<Task>>> {
        if !look.units.is_empty() || look.is_newer {
            let mut plan = Plan::new(ledger.run(), self.model, self.settings.clone(), look.units.clone());
            plan.anew = self.anew;
            plan.table_version = look.listing.version();
            plan.table_id = look.listing.table_id().map(Into::into);
            if !ledger.add(&plan).await? {
                tracing::info!("{}: another run has planned at the same time", self.place.name());
                return Ok(None);
            }
        }
        Ok(Some(tasks(ledger, &look.listing, look.table.as_ref())))
    }
}

impl Look {
    /// Whether there are rows to read.
    pub(crate) fn has_work(&self) -> bool {
        self.table.is_some() && (self.has_open || !self.units.is_empty())
    }
}

/// Of a table with versions only what came since the last plan, and the version of that; and what was planned and not done.
async fn since_last(place: &Location, listing: &Listing, ledger: &Ledger) -> Result<(Listing, Option<u64>)> {
    let of_table = ledger.plans().filter(|(_, plan)| plan.table_version.is_some());
    let last = of_table.max_by_key(|(_, plan)| plan.table_version);
    let planned = last.and_then(|(_, plan)| plan.table_version);
    let (Some(now), Some(planned)) = (listing.version(), planned) else { return Ok((listing.clone(), None)) };
    let is_other = last.is_some_and(|(_, plan)| plan.table_id.as_deref() != listing.table_id());
    if is_other || (now < planned && !listing.is_pinned()) {
        let reason = "holds rows of another table than the one that lies there now, and nobody can tell which of its rows are \
                      new: say --overwrite to begin anew, or give another output";
        return Err(Error::place(place.name(), reason));
    }
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
