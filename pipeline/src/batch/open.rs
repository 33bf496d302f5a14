//! What is to be done: the units of files that are new, and those that earlier runs have left.

use super::ledger::{Ledger, Plan, Settings, Unit, UnitId};
use crate::location::Location;
use crate::report::{count, thousands};
use crate::sources::{BadUnit, BadUnits, ListedFile, Listing, Part, PlannedFile, Table};
use crate::{Error, Result};
use arrow::datatypes::SchemaRef;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

/// How long a part of a file may be that is a unit of its own: what other readers like a file to be, and a few seconds or
/// minutes of work that are lost with a process.
pub(crate) const UNIT_BYTES: u64 = 128 << 20;

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
        let changed = known.changed(&listing);
        if !listing.skips_bad() {
            refuse_changed(place, &changed)?;
        }
        self.check_is_the_same(&known, ledger, &listing)?;
        let is_wanted = |file: ListedFile<'_>| {
            (!known.is_planned(&file) || known.is_open(&file)) && !changed.contains(&file.url())
        };
        let (table, mut bad) = listing.look(self.id, is_wanted).await?;
        for file in &changed {
            let reason = "has changed since its rows were taken, and nobody can tell which of them are new";
            bad.push(BadUnit::file(file, reason), 0);
        }
        let units = units(&listing, table.as_ref(), &known);
        if anew && units.is_empty() {
            let reason = "there is nothing to begin anew with: no file can be read. What is there stays";
            return Err(Error::place(place.name(), reason));
        }
        let is_newer = listing.version().zip(since).is_some_and(|(version, since)| version > since);
        let has_open = !anew && ledger.units().any(|(id, _)| !ledger.is_done(id));
        Ok(Look { listing, table, bad, units, is_newer, has_open })
    }

    /// Warns where the rows that are there were made by another model or other settings.
    pub(crate) fn warn_of_changes(&self, ledger: &Ledger) {
        let Some((_, last)) = ledger.plans().next_back().filter(|_| !self.anew) else { return };
        if last.model != self.model {
            let Self { place, model, .. } = self;
            let said =
                format!("{}: model is {model}, but was {} for rows that are there", place.name(), last.model);
            let folder = |version: &str| version.rsplit_once("/v").map(|(folder, _)| folder.to_string());
            match folder(&last.model) == folder(model) {
                true => tracing::info!("{said}"),
                false => tracing::warn!("{said}"),
            }
        }
        warn_of_changes(self.place, last, &self.settings);
    }

    /// Fails where the source is called otherwise than before and none of its files is known: it may be the same under
    /// another name, and all rows would stand twice.
    fn check_is_the_same(&self, known: &Known, ledger: &Ledger, listing: &Listing) -> Result<()> {
        let Some((_, last)) = ledger.plans().next_back().filter(|_| !self.anew) else { return Ok(()) };
        let (before, now) = (last.settings.get("source"), self.settings.get("source"));
        let is_known = |file: ListedFile<'_>| known.files.contains_key(&file.url());
        if before == now || known.files.is_empty() || listing.files().any(is_known) {
            return Ok(());
        }
        let reason = format!(
            "holds rows of {}, and none of its files is in {}: are these the same rows under another name? Say --overwrite to \
             begin anew, or give another output",
            before.map_or("another source", String::as_str),
            now.map_or("this one", String::as_str),
        );
        Err(Error::place(self.place.name(), reason))
    }

    /// Plans what is new; what there is to do, in the order in which it is to be taken. Nothing, where another run has
    /// planned since: look again.
    ///
    /// # Errors
    /// A column of `schema`, that of the rows that are written, has another type than it has in the rows that are there.
    pub(crate) async fn plan(
        &self,
        look: &Look,
        schema: Option<&SchemaRef>,
        ledger: &mut Ledger,
    ) -> Result<Option<Vec<Task>>> {
        let fields = schema.into_iter().flat_map(|schema| schema.fields());
        let columns: BTreeMap<String, String> =
            fields.map(|field| (field.name().clone(), field.data_type().to_string())).collect();
        if !self.anew {
            self.check_columns(ledger, &columns)?;
        }
        if !look.units.is_empty() || look.is_newer {
            let mut plan = Plan::new(ledger.run(), self.model, self.settings.clone(), look.units.clone());
            (plan.anew, plan.columns) = (self.anew, columns);
            plan.table_version = look.listing.version();
            plan.table_id = look.listing.table_id().map(Into::into);
            if !ledger.add(&plan).await? {
                tracing::info!("{}: another run has planned at the same time", self.place.name());
                return Ok(None);
            }
        }
        Ok(Some(tasks(ledger, &look.listing, look.table.as_ref())))
    }

    /// Checks that columns have the types that they have in the rows that are there: readers take all files as one table.
    fn check_columns(&self, ledger: &Ledger, columns: &BTreeMap<String, String>) -> Result<()> {
        for (number, plan) in ledger.plans() {
            let is_other =
                |(name, now): &(&String, &String)| plan.columns.get(*name).is_some_and(|was| was != *now);
            if let Some((name, now)) = columns.iter().find(is_other) {
                let was = &plan.columns[name];
                let reason = format!(
                    "column \"{name}\" is {now} in what is new, but {was} in the rows that are there (plan {number}, {}), and no \
                     reader would take both as one table",
                    plan.at
                );
                return Err(Error::place(self.place.name(), reason));
            }
        }
        Ok(())
    }
}

impl Look {
    /// Whether there are rows to read.
    pub(crate) fn has_work(&self) -> bool {
        self.table.is_some() && (self.has_open || !self.units.is_empty())
    }

    /// What a run would read: the rows of each unit that was planned and is not done, then of each that is new, and about how
    /// many bytes they are.
    pub(crate) fn to_read(&self, ledger: &Ledger) -> Vec<(Table, u64)> {
        let places = places(self.table.as_ref());
        let open =
            ledger.units().filter(|(id, _)| self.has_open && !ledger.is_done(*id)).map(|(_, unit)| unit);
        let of = |unit: &Unit| {
            let file = places.get(&(unit.file.clone(), unit.version.clone()))?;
            Some((self.table.as_ref()?.only(*file, unit.rows)?, unit.bytes))
        };
        open.chain(&self.units).filter_map(of).collect()
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
    // Who says a later version takes on what is lost between.
    let since = planned.max(listing.asked_since().unwrap_or(0)).min(now);
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
    let places = places(table);
    let listed: HashSet<String> = listing.files().map(|file| file.url()).collect();
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    let mut gone: Vec<&str> = Vec::new();
    for (id, unit) in ledger.units().filter(|(id, _)| !ledger.is_done(*id)) {
        let place = places.get(&(unit.file.clone(), unit.version.clone()));
        match place.and_then(|file| table?.only(*file, unit.rows)) {
            Some(table) if ours_of.contains(&id.plan) => ours.push(Task { id, table }),
            Some(table) => theirs.push(Task { id, table }),
            // Of those that are there and not to be read, it was told why.
            None if listed.contains(&unit.file) => {}
            None => gone.push(&unit.file),
        }
    }
    if let Some(first) = gone.first() {
        let units = count(gone.len() as u64, "unit");
        tracing::warn!("left out, for their files are gone: {units} planned before, the first of {first}");
    }
    ours.extend(theirs.into_iter().rev());
    ours
}

/// Where each file and version is among the files of `table`.
fn places(table: Option<&Table>) -> HashMap<(String, String), usize> {
    let file = |file| Some((table?.file(file)?, file));
    (0..).map_while(file).collect()
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

    /// The files that are others than those of which rows were taken.
    fn changed(&self, listing: &Listing) -> BTreeSet<String> {
        let is_taken = |file: &ListedFile<'_>| {
            let others = self.files.get(&file.url()).into_iter().flatten();
            others.filter(|(version, _)| **version != file.version()).any(|(_, state)| state.has_done)
        };
        listing.files().filter(is_taken).map(|file| file.url()).collect()
    }
}

/// Fails if there are files that have changed since rows of them were taken for the output at `place`.
fn refuse_changed(place: &Location, changed: &BTreeSet<String>) -> Result<()> {
    if changed.is_empty() {
        return Ok(());
    }
    let named: Vec<&str> = changed.iter().take(NAMED).map(String::as_str).collect();
    let more = match changed.len() - named.len() {
        0 => String::new(),
        more => format!(" and {} more", thousands(more as u64)),
    };
    let reason = format!(
        "holds rows of files that have changed since, and nobody can tell which of theirs are new: {}{more}. Take them out of \
         the source, leave them out by --on-bad-row skip, say --overwrite to begin anew, or give another output",
        named.join(", ")
    );
    Err(Error::place(place.name(), reason))
}

/// Warns where other settings made the rows of the plan `last`.
fn warn_of_changes(place: &Location, last: &Plan, settings: &Settings) {
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
