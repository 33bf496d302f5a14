//! What is planned and what is done, in the folder `_thema` of an output.
//!
//! ```text
//! OUTPUT/_thema/plans/000001.json        the units of the files that were new then: written once, never changed
//! OUTPUT/_thema/done/000001-00042.json   unit 42 of it is done, and what it made
//! OUTPUT/_thema/seals/000001.json        of a table, which units its first commit of ours has
//! OUTPUT/_thema/corpus/ID-RUN.parquet    sums of a unit's rows by topic, where they are wanted
//! OUTPUT/_thema/bad/TIME-RUN.jsonl       what a run could not read, an object a line
//! OUTPUT/_thema/parts/                   files that are being written, where the output is on a disk
//! ```
//!
//! A plan that begins anew makes all before it void. Names that begin with `_` are no data to readers of folders of Parquet and of tables.

use super::sums::Sums;
use crate::location::Location;
use crate::sources::{BadUnits, RowRange};
use crate::{Error, Result};
use futures::{StreamExt, TryStreamExt, stream};
use object_store::{ObjectMeta, ObjectStoreExt, PutMode, PutOptions, PutPayload};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::str::FromStr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// The folder of an output that is ours.
pub const FOLDER: &str = "_thema";

/// The only form of plans there is.
const FORMAT: u32 = 1;

/// How many plans are read at the same time: enough to hide the latency of an object store.
pub(crate) const READ_AT_ONCE: usize = 16;

/// What is planned and what is done.
#[derive(Debug)]
pub struct Ledger {
    pub(super) folder: Location,
    run: String,
    plans: BTreeMap<u64, Plan>,
    done: BTreeSet<UnitId>,
}

/// Units of work, of files that were new when it was made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Plan {
    format: u32,
    /// The run that made it.
    pub run: String,
    /// When, by RFC 3339.
    pub at: String,
    /// The folder of the model that was the newest then.
    pub model: String,
    /// What else rows depend on.
    pub settings: Settings,
    /// The columns that are written, and their types.
    #[serde(default)]
    pub columns: BTreeMap<String, String>,
    /// Whether all is begun anew, so that what was planned and done before is void.
    #[serde(default, skip_serializing_if = "is_false")]
    pub anew: bool,
    /// The version of the table whose files these are, where it has versions: all that came up to it is planned.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub table_version: Option<u64>,
    /// The id of that table.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub table_id: Option<String>,
    /// The units, in the order in which they are taken.
    pub units: Vec<Unit>,
}

/// What a job says of rows, by its keys.
pub type Settings = BTreeMap<String, String>;

/// A unit of work: a file, or a part of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Unit {
    /// The file, by a name that is the same everywhere.
    pub file: String,
    /// What changes when its bytes do.
    pub version: String,
    /// Its rows in the file; all where that is absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rows: Option<RowRange>,
    /// The length of the file.
    pub size: u64,
    /// About how long the unit is.
    pub bytes: u64,
    /// The values of partition columns, where a table's log tells them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub partition: Vec<(String, Option<String>)>,
}

/// Which unit: the plan, and which of its units, counted from 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UnitId {
    /// The plan's number, from 1.
    pub plan: u64,
    /// The place in [`Plan::units`].
    pub unit: usize,
}

/// What a unit made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Done {
    /// The run that did it.
    pub run: String,
    /// When, by RFC 3339.
    pub at: String,
    /// The folder of the model's version.
    pub model: String,
    /// Rows read.
    pub rows_in: u64,
    /// Rows written.
    pub rows_out: u64,
    /// Files, row groups and rows that could not be read, each counted as one.
    pub bad_units: u64,
    /// The files that hold the rows.
    pub files: Vec<Part>,
    /// The sums of the rows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub corpus: Option<Sums>,
}

/// A file of an output.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Part {
    /// Its name in the output's folder.
    pub name: String,
    /// Its length.
    pub bytes: u64,
    /// Of a table, when it was written, in milliseconds of the Unix epoch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub written: Option<i64>,
    /// Of a table, the values of the columns that it is partitioned by.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub partition: Vec<(String, Option<String>)>,
    /// Of a table, the numbers of the file's columns: an Arrow stream of one row, in base 64.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub statistics: Option<String>,
}

/// The units of one commit of a table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Seal {
    /// The run that made it.
    run: String,
    /// When, by RFC 3339.
    at: String,
    /// What the commit takes away.
    pub replaces: Sealed,
    units: Vec<String>,
}

/// What a commit takes away.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Sealed {
    /// Nothing.
    Nothing,
    /// What is in the partitions to which it adds.
    Partitions,
    /// All.
    All,
}

impl Seal {
    /// The units.
    pub fn units(&self) -> Result<Vec<UnitId>> {
        let wrong = |unit: &String| Error::Internal(format!("a seal of the unit \"{unit}\", which is none"));
        self.units.iter().map(|unit| unit.parse().map_err(|()| wrong(unit))).collect()
    }
}

fn is_false(said: &bool) -> bool {
    !said
}

impl Plan {
    /// A plan of `units`, made by `run` now.
    pub fn new(run: &str, model: &str, settings: Settings, units: Vec<Unit>) -> Self {
        let (run, model) = (run.into(), model.into());
        Self {
            format: FORMAT,
            run,
            at: now(),
            model,
            settings,
            columns: BTreeMap::new(),
            anew: false,
            table_version: None,
            table_id: None,
            units,
        }
    }
}

impl fmt::Display for UnitId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:06}-{:05}", self.plan, self.unit)
    }
}

impl FromStr for UnitId {
    type Err = ();

    fn from_str(text: &str) -> std::result::Result<Self, ()> {
        let (plan, unit) = text.split_once('-').ok_or(())?;
        Ok(Self { plan: plan.parse().map_err(drop)?, unit: unit.parse().map_err(drop)? })
    }
}

impl Ledger {
    /// Reads the ledger of the output at `place`; a new one is empty.
    pub async fn open(place: &Location) -> Result<Self> {
        let folder = place.within(FOLDER);
        let run = uuid::Uuid::new_v4().simple().to_string();
        let mut ledger = Self { folder, run, plans: BTreeMap::new(), done: BTreeSet::new() };
        ledger.look().await?;
        Ok(ledger)
    }

    /// This run, as the ledger knows it.
    pub fn run(&self) -> &str {
        &self.run
    }

    /// Reads what others have added.
    pub async fn look(&mut self) -> Result<()> {
        let known = |number: &u64| !self.plans.contains_key(number);
        let numbers: Vec<u64> = list(&self.folder.within("plans")).await?.into_iter().filter(known).collect();
        let plans = stream::iter(numbers).map(async |number| {
            let plan: Plan = read(&self.place_of(number)).await?;
            Ok::<_, Error>((number, plan))
        });
        let plans: Vec<(u64, Plan)> = plans.buffered(READ_AT_ONCE).try_collect().await?;
        self.plans.extend(plans);
        self.look_at_done().await
    }

    /// Reads what others have done.
    pub async fn look_at_done(&mut self) -> Result<()> {
        self.done = list(&self.folder.within("done")).await?.into_iter().collect();
        Ok(())
    }

    /// The plans that are not void, by their numbers.
    pub fn plans(&self) -> impl DoubleEndedIterator<Item = (u64, &Plan)> {
        self.plans.range(self.first()..).map(|(number, plan)| (*number, plan))
    }

    /// The first plan that is not void; 1 where there is none yet.
    pub fn first(&self) -> u64 {
        self.plans.iter().rev().find(|(_, plan)| plan.anew).map_or(1, |(number, _)| *number)
    }

    /// Whether a plan began anew.
    pub fn is_anew(&self) -> bool {
        self.plans.values().any(|plan| plan.anew)
    }

    /// The units of all plans that are not void, plan by plan.
    pub fn units(&self) -> impl Iterator<Item = (UnitId, &Unit)> {
        self.plans().flat_map(|(plan, Plan { units, .. })| {
            units.iter().enumerate().map(move |(unit, of)| (UnitId { plan, unit }, of))
        })
    }

    /// Whether a unit was done when the ledger was read.
    pub fn is_done(&self, id: UnitId) -> bool {
        self.done.contains(&id)
    }

    /// Whether a unit is done by now.
    pub async fn is_done_now(&self, id: UnitId) -> Result<bool> {
        self.place_of_mark(id).exists().await
    }

    /// Whether another run has begun anew meanwhile, so that the unit is void.
    pub async fn is_void_now(&self, id: UnitId) -> Result<bool> {
        let last = self.plans.last_key_value().map_or(0, |(last, _)| *last);
        for number in
            list::<u64>(&self.folder.within("plans")).await?.into_iter().filter(|number| *number > last)
        {
            let plan: Plan = read(&self.place_of(number)).await?;
            if plan.anew {
                return Ok(true);
            }
        }
        Ok(id.plan < self.first())
    }

    /// Takes a mark away: what the unit made is lost.
    pub async fn unmark(&mut self, id: UnitId) -> Result<()> {
        let place = self.place_of_mark(id);
        place.store().delete(place.path()).await.map_err(|error| Error::store(place.name(), error))?;
        self.done.remove(&id);
        Ok(())
    }

    /// Adds a plan; or, where another run has added one first, reads that and returns false.
    pub async fn add(&mut self, plan: &Plan) -> Result<bool> {
        let number = self.plans.last_key_value().map_or(1, |(last, _)| last + 1);
        let is_ours = put_new(&self.place_of(number), plan).await?;
        self.look().await?;
        Ok(is_ours)
    }

    /// Marks a unit as done; false if it was already.
    pub async fn mark(&self, id: UnitId, done: &Done) -> Result<bool> {
        put_new(&self.place_of_mark(id), done).await
    }

    /// What a unit made that is done.
    pub async fn done(&self, id: UnitId) -> Result<Done> {
        read(&self.place_of_mark(id)).await
    }

    /// The seals, by their numbers, from 1.
    pub async fn seals(&self) -> Result<BTreeMap<u64, Seal>> {
        let numbers = list(&self.folder.within("seals")).await?;
        let seals = stream::iter(numbers).map(async |number| {
            let seal: Seal = read(&self.place_of_seal(number)).await?;
            Ok::<_, Error>((number, seal))
        });
        seals.buffered(READ_AT_ONCE).try_collect().await
    }

    /// Seals units under a number; false if another run was faster.
    pub async fn add_seal(&self, number: u64, units: &[UnitId], replaces: Sealed) -> Result<bool> {
        let units = units.iter().map(ToString::to_string).collect();
        let seal = Seal { run: self.run.clone(), at: now(), replaces, units };
        put_new(&self.place_of_seal(number), &seal).await
    }

    /// Writes down what this run could not read, an object a line, and returns the file's name.
    pub async fn note_bad(&self, bad: &BadUnits) -> Result<String> {
        let lines = bad.listed().iter().map(|unit| Ok(json(unit)? + "\n")).collect::<Result<String>>()?;
        let name = format!("{}-{}.jsonl", now().replace([':', '-'], ""), self.run);
        let place = self.folder.within("bad").within(&name);
        let put = place.store().put(place.path(), lines.into_bytes().into()).await;
        put.map_err(|error| Error::store(place.name(), error))?;
        Ok(place.name().into())
    }

    fn place_of_seal(&self, number: u64) -> Location {
        self.folder.within("seals").within(&format!("{number:06}.json"))
    }

    fn place_of(&self, plan: u64) -> Location {
        self.folder.within("plans").within(&format!("{plan:06}.json"))
    }

    fn place_of_mark(&self, id: UnitId) -> Location {
        self.folder.within("done").within(&format!("{id}.json"))
    }
}

/// The names of the files in the folder `place`, not below it.
pub(crate) async fn names_in(place: &Location) -> Result<BTreeSet<String>> {
    match place.store().list_with_delimiter(Some(place.path())).await {
        Ok(listed) => {
            let names =
                listed.objects.into_iter().filter_map(|meta| meta.location.filename().map(Into::into));
            Ok(names.collect())
        }
        Err(object_store::Error::NotFound { .. }) => Ok(BTreeSet::new()),
        Err(error) => Err(Error::store(place.name(), error)),
    }
}

/// Removes the files in the folder `place`, not below it, whose names are `wanted`.
pub(crate) async fn remove_all(place: &Location, wanted: impl Fn(&str) -> bool) -> Result<()> {
    let wanted = |meta: &ObjectMeta| meta.location.filename().is_some_and(&wanted);
    let failed = |error| Error::store(place.name(), error);
    let listed = match place.store().list_with_delimiter(Some(place.path())).await {
        Ok(listed) => listed,
        Err(object_store::Error::NotFound { .. }) => return Ok(()),
        Err(error) => return Err(failed(error)),
    };
    let paths: Vec<_> = listed.objects.into_iter().filter(wanted).map(|meta| Ok(meta.location)).collect();
    let removed = place.store().delete_stream(stream::iter(paths).boxed());
    let each = removed.map(|removed| match removed {
        // Another run is at it, too.
        Ok(_) | Err(object_store::Error::NotFound { .. }) => Ok(()),
        Err(error) => Err(failed(error)),
    });
    each.try_collect().await
}

/// Removes the files in the folder `place` of this machine that were not written to for `age`. (By a list of its own: a
/// store hides files that grow.)
pub(crate) fn remove_older(place: &Location, age: Duration) {
    let is_old = |file: &std::fs::DirEntry| {
        let written = file.metadata().and_then(|facts| facts.modified());
        written.is_ok_and(|written| written.elapsed().is_ok_and(|since| since > age))
    };
    let files = std::fs::read_dir(place.on_disk()).into_iter().flatten().flatten();
    // Who cannot remove them leaves them.
    files.filter(is_old).for_each(|file| drop(std::fs::remove_file(file.path())));
}

/// What the names of the JSON files in the folder `place` say.
async fn list<T: FromStr>(place: &Location) -> Result<Vec<T>> {
    let listed = place.store().list(Some(place.path()));
    let name =
        |meta: ObjectMeta| meta.location.filename().and_then(|name| name.strip_suffix(".json")?.parse().ok());
    let names: std::result::Result<Vec<Option<T>>, _> = listed.map_ok(name).try_collect().await;
    match names {
        Ok(names) => Ok(names.into_iter().flatten().collect()),
        Err(object_store::Error::NotFound { .. }) => Ok(Vec::new()),
        Err(error) => Err(Error::store(place.name(), error)),
    }
}

/// Reads what [`put_new`] has put.
async fn read<T: DeserializeOwned>(place: &Location) -> Result<T> {
    let failed = |error| Error::store(place.name(), error);
    let bytes = place.store().get(place.path()).await.map_err(failed)?.bytes().await.map_err(failed)?;
    let wrong = |reason: String| Error::place(place.name(), format!("is none of ours: {reason}"));
    /// Plans tell their form.
    #[derive(Deserialize)]
    struct Form {
        format: Option<u32>,
    }
    match serde_json::from_slice::<Form>(&bytes).map_err(|error| wrong(error.to_string()))?.format {
        None | Some(FORMAT) => serde_json::from_slice(&bytes).map_err(|error| wrong(error.to_string())),
        Some(other) => Err(wrong(format!("its format is {other}, expected {FORMAT}: take a newer thema"))),
    }
}

/// Puts `value` at `place` unless something is there, and tells whether it is there now.
async fn put_new(place: &Location, value: &impl Serialize) -> Result<bool> {
    let bytes = json(value)?.into_bytes();
    let options = PutOptions { mode: PutMode::Create, ..PutOptions::default() };
    match place.store().put_opts(place.path(), PutPayload::from(bytes.clone()), options).await {
        Ok(_) => Ok(true),
        // Where an answer was lost, what is there may be ours. The run's name is in it, so nobody else's is the same.
        Err(object_store::Error::AlreadyExists { .. }) => {
            let there = async { place.store().get(place.path()).await?.bytes().await };
            Ok(there.await.map_err(|error| Error::store(place.name(), error))? == bytes)
        }
        Err(error) => Err(Error::store(place.name(), error)),
    }
}

fn json(value: &impl Serialize) -> Result<String> {
    serde_json::to_string(value).map_err(|error| Error::Internal(error.to_string()))
}

/// The time, by RFC 3339.
pub fn now() -> String {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let seconds = i64::try_from(since.as_secs()).unwrap_or_default();
    chrono::DateTime::from_timestamp(seconds, 0)
        .map_or_else(String::new, |time| time.format("%Y-%m-%dT%H:%M:%SZ").to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unit(file: &str) -> Unit {
        let (file, version) = (file.to_string(), "1".to_string());
        Unit { file, version, rows: None, size: 10, bytes: 10, partition: Vec::new() }
    }

    fn plan(ledger: &Ledger, files: &[&str]) -> Plan {
        Plan::new(ledger.run(), "model/v1", Settings::new(), files.iter().map(|file| unit(file)).collect())
    }

    fn done(ledger: &Ledger) -> Done {
        let (run, at, model) = (ledger.run().into(), now(), "model/v1".into());
        Done { run, at, model, rows_in: 1, rows_out: 1, bad_units: 0, files: Vec::new(), corpus: None }
    }

    #[tokio::test]
    async fn of_two_runs_the_first_plans_and_marks_and_the_other_goes_by_it() {
        let folder = tempfile::tempdir().unwrap();
        let place = Location::parse(folder.path().to_str().unwrap()).unwrap();
        let (mut one, mut other) = (Ledger::open(&place).await.unwrap(), Ledger::open(&place).await.unwrap());
        let planned = plan(&one, &["a", "b"]);
        assert!(one.add(&planned).await.unwrap());
        // An answer that was lost is asked for again.
        assert!(put_new(&one.place_of(1), &planned).await.unwrap());
        let theirs = plan(&other, &["b", "c"]);
        assert!(!other.add(&theirs).await.unwrap());
        let units: Vec<String> = other.units().map(|(id, unit)| format!("{id} {}", unit.file)).collect();
        assert_eq!(units, ["000001-00000 a", "000001-00001 b"]);

        let id = UnitId { plan: 1, unit: 1 };
        assert!(one.mark(id, &done(&one)).await.unwrap());
        assert!(!other.mark(id, &done(&other)).await.unwrap());
        assert!(other.is_done_now(id).await.unwrap() && !other.is_done(id));
        other.look().await.unwrap();
        assert!(other.is_done(id));
        assert_eq!(other.done(id).await.unwrap().run, one.run());

        assert!(one.add_seal(1, &[id], Sealed::Nothing).await.unwrap());
        assert!(!other.add_seal(1, &[id], Sealed::All).await.unwrap());
        let seals = other.seals().await.unwrap();
        assert_eq!((seals[&1].units().unwrap(), seals[&1].replaces), (vec![id], Sealed::Nothing));
    }

    #[tokio::test]
    async fn a_plan_that_begins_anew_makes_all_before_it_void() {
        let folder = tempfile::tempdir().unwrap();
        let place = Location::parse(folder.path().to_str().unwrap()).unwrap();
        let mut before = Ledger::open(&place).await.unwrap();
        before.add(&plan(&before, &["a"])).await.unwrap();
        let id = UnitId { plan: 1, unit: 0 };
        assert!(!before.is_void_now(id).await.unwrap());
        let mut after = Ledger::open(&place).await.unwrap();
        after.add(&plan(&after, &["b"])).await.unwrap();
        assert!(!before.is_void_now(id).await.unwrap(), "what is added is no new beginning");
        after.add(&Plan { anew: true, ..plan(&after, &["a"]) }).await.unwrap();
        assert!(before.is_void_now(id).await.unwrap());
        assert_eq!(after.first(), 3);
        assert_eq!(after.units().count(), 1);
    }

    #[tokio::test]
    async fn a_file_that_is_not_ours_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let place = Location::parse(folder.path().to_str().unwrap()).unwrap();
        for (text, words) in [("{\"format\": 9}", "its format is 9, expected 1"), ("[", "is none of ours")] {
            let plans = folder.path().join("_thema/plans");
            std::fs::create_dir_all(&plans).unwrap();
            std::fs::write(plans.join("000001.json"), text).unwrap();
            let error = Ledger::open(&place).await.unwrap_err().to_string();
            assert!(error.contains(words) && error.contains("000001.json"), "{error}");
        }
    }
}
