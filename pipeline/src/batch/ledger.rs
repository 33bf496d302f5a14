//! What is planned and what is done, in the folder `_thema` of an output.
//!
//! ```text
//! OUTPUT/_thema/plans/000001.json        the units of the files that were new then: written once, never changed
//! OUTPUT/_thema/done/000001-00042.json   unit 42 of it is done, and what it made
//! OUTPUT/_thema/bad/TIME-RUN.jsonl       what a run could not read, an object a line
//! OUTPUT/_thema/parts/                   files that are being written, where the output is on a disk
//! ```
//!
//! Names that begin with `_` are no data to readers of folders of Parquet and of tables.

use crate::location::Location;
use crate::sources::{BadUnits, RowRange};
use crate::{Error, Result};
use futures::{StreamExt, TryStreamExt, stream};
use object_store::{ObjectMeta, ObjectStoreExt, PutMode, PutOptions, PutPayload};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::str::FromStr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// The folder of an output that is ours.
pub const FOLDER: &str = "_thema";

/// The only form of plans there is.
const FORMAT: u32 = 1;

/// How many plans are read at the same time: enough to hide the latency of an object store.
const READ_AT_ONCE: usize = 16;

/// What is planned and what is done.
#[derive(Debug)]
pub struct Ledger {
    folder: Location,
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
    /// The version of the table whose files these are, where it has versions: all that came up to it is planned.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub table_version: Option<u64>,
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
    /// The file that holds the rows, in the output's folder; none where there are no rows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
}

impl Plan {
    /// A plan of `units`, made by `run` now.
    pub fn new(run: &str, model: &str, settings: Settings, units: Vec<Unit>) -> Self {
        let (run, model) = (run.into(), model.into());
        Self { format: FORMAT, run, at: now(), model, settings, table_version: None, units }
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
    ///
    /// # Errors
    /// There are files but no ledger: they are somebody else's.
    pub async fn open(place: &Location) -> Result<Self> {
        check_place(place).await?;
        let mut ledger =
            Self { folder: place.within(FOLDER), plans: BTreeMap::new(), done: BTreeSet::new() };
        ledger.look().await?;
        Ok(ledger)
    }

    /// Reads what others have added.
    async fn look(&mut self) -> Result<()> {
        let known = |number: &u64| !self.plans.contains_key(number);
        let numbers: Vec<u64> = list(&self.folder.within("plans")).await?.into_iter().filter(known).collect();
        let plans = stream::iter(numbers).map(async |number| Ok::<_, Error>((number, self.plan(number).await?)));
        let plans: Vec<(u64, Plan)> = plans.buffered(READ_AT_ONCE).try_collect().await?;
        self.plans.extend(plans);
        self.done = list(&self.folder.within("done")).await?.into_iter().collect();
        Ok(())
    }

    async fn plan(&self, number: u64) -> Result<Plan> {
        let place = self.place_of(number);
        let failed = |error| Error::store(place.name(), error);
        let bytes = place.store().get(place.path()).await.map_err(failed)?.bytes().await.map_err(failed)?;
        let wrong = |reason: String| Error::place(place.name(), format!("is no plan of ours: {reason}"));
        #[derive(Deserialize)]
        struct Form {
            format: u32,
        }
        match serde_json::from_slice::<Form>(&bytes).map_err(|error| wrong(error.to_string()))?.format {
            FORMAT => serde_json::from_slice(&bytes).map_err(|error| wrong(error.to_string())),
            other => Err(wrong(format!("its format is {other}, expected {FORMAT}: take a newer thema"))),
        }
    }

    /// The plans, by their numbers.
    pub fn plans(&self) -> &BTreeMap<u64, Plan> {
        &self.plans
    }

    /// All units, plan by plan.
    pub fn units(&self) -> impl Iterator<Item = (UnitId, &Unit)> {
        let of = |(&plan, units): (&u64, &'_ Plan)| (plan, units.units.len());
        let counts: Vec<(u64, usize)> = self.plans.iter().map(of).collect();
        let ids = counts.into_iter().flat_map(|(plan, n)| (0..n).map(move |unit| UnitId { plan, unit }));
        ids.filter_map(|id| Some((id, self.plans.get(&id.plan)?.units.get(id.unit)?)))
    }

    /// Whether a unit was done when the ledger was read.
    pub fn is_done(&self, id: UnitId) -> bool {
        self.done.contains(&id)
    }

    /// Whether a unit is done by now.
    pub async fn is_done_now(&self, id: UnitId) -> Result<bool> {
        self.place_of_mark(id).exists().await
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

    /// Keeps a table of what a run could not read, and returns its name.
    pub async fn note_bad(&self, run: &str, bad: &BadUnits) -> Result<String> {
        let lines = bad.listed().iter().map(|unit| Ok(json(unit)? + "\n")).collect::<Result<String>>()?;
        let name = format!("{}-{run}.jsonl", now().replace([':', '-'], ""));
        let place = self.folder.within("bad").within(&name);
        let put = place.store().put(place.path(), lines.into_bytes().into()).await;
        put.map_err(|error| Error::store(place.name(), error))?;
        Ok(place.name().into())
    }

    /// Forgets what is done, so that all is to be done again.
    pub async fn forget_done(&mut self) -> Result<()> {
        remove_all(&self.folder.within("done"), |_| true).await?;
        self.done.clear();
        Ok(())
    }

    /// Forgets what is planned, and all else; what it made is gone already.
    pub async fn forget_plans(&mut self) -> Result<()> {
        for folder in ["plans", "bad", "parts"] {
            remove_all(&self.folder.within(folder), |_| true).await?;
        }
        self.plans.clear();
        Ok(())
    }

    fn place_of(&self, plan: u64) -> Location {
        self.folder.within("plans").within(&format!("{plan:06}.json"))
    }

    fn place_of_mark(&self, id: UnitId) -> Location {
        self.folder.within("done").within(&format!("{id}.json"))
    }
}

/// Checks that an output may be at `place`: it is empty, or it is one already.
pub async fn check_place(place: &Location) -> Result<()> {
    if place.is_local_file() {
        return Err(Error::place(place.name(), "is a file, expected a folder"));
    }
    place.check_writable()?;
    let failed = |error| Error::store(place.name(), error);
    let has_any = async |place: &Location| {
        let first = place.store().list(Some(place.path())).next().await.transpose();
        match first {
            Err(object_store::Error::NotFound { .. }) => Ok(false),
            first => first.map(|first| first.is_some()),
        }
    };
    if has_any(place).await.map_err(failed)? && !has_any(&place.within(FOLDER)).await.map_err(failed)? {
        let reason = "holds files that are not ours; give an empty folder, or one that thema wrote";
        return Err(Error::place(place.name(), reason));
    }
    Ok(())
}

/// Removes the files in the folder `place`, not below it, whose names are `wanted`.
pub(crate) async fn remove_all(place: &Location, wanted: impl Fn(&str) -> bool) -> Result<()> {
    remove(place, |meta| meta.location.filename().is_some_and(&wanted)).await
}

/// Removes the files in the folder `place`, not below it, that were not written to for `age`.
pub(crate) async fn remove_older(place: &Location, age: Duration) -> Result<()> {
    let before = SystemTime::now().checked_sub(age).map(chrono::DateTime::<chrono::Utc>::from);
    remove(place, |meta| before.is_some_and(|before| meta.last_modified < before)).await
}

async fn remove(place: &Location, wanted: impl Fn(&ObjectMeta) -> bool) -> Result<()> {
    let failed = |error| Error::store(place.name(), error);
    let listed = match place.store().list_with_delimiter(Some(place.path())).await {
        Ok(listed) => listed,
        Err(object_store::Error::NotFound { .. }) => return Ok(()),
        Err(error) => return Err(failed(error)),
    };
    let paths: Vec<_> = listed.objects.into_iter().filter(wanted).map(|meta| Ok(meta.location)).collect();
    let removed = place.store().delete_stream(stream::iter(paths).boxed());
    removed.try_for_each(async |_| Ok(())).await.map_err(failed)
}

/// What the names of the JSON files in the folder `place` say.
async fn list<T: FromStr>(place: &Location) -> Result<Vec<T>> {
    let listed = place.store().list(Some(place.path()));
    let name = |meta: ObjectMeta| {
        meta.location.filename().and_then(|name| name.strip_suffix(".json")?.parse().ok())
    };
    let names: std::result::Result<Vec<Option<T>>, _> = listed.map_ok(name).try_collect().await;
    match names {
        Ok(names) => Ok(names.into_iter().flatten().collect()),
        Err(object_store::Error::NotFound { .. }) => Ok(Vec::new()),
        Err(error) => Err(Error::store(place.name(), error)),
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
