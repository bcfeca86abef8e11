//! Tables that may be large: read in portions by their ids, compared with what is here, and written in one
//! transaction for each portion.

use std::collections::HashMap;
use std::fmt::Write as _;

use vestnik_core::ChannelId;

use super::{Action, ImportError, Part, PartReport, Progress, Source, Target};
use crate::channel::{CHANNEL_AGE_MAX_S, ChannelKind};
use crate::db::{DatabaseError, Row, Statement, Value};
use crate::watch::{TAG_BYTES_MAX, WATCH_TTL_S};

/// Rows of a portion.
const PORTION: i64 = 1000;
/// Rows of one statement that writes.
const ROWS_OF_AN_INSERT: usize = 100;
/// A device that was not used for so long is forgotten, seconds: 14 days (module.md §13).
const DEVICE_AGE_MAX_S: u64 = 1_209_600;

/// What a column holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Holds {
    Int,
    Text,
    Moment,
}

/// A column, by its name on both sides.
struct Column {
    name: &'static str,
    holds: Holds,
    /// Bytes of a text here; more are a reason to leave the row out.
    width: usize,
}

const fn int(name: &'static str) -> Column {
    Column { name, holds: Holds::Int, width: 0 }
}

const fn text(name: &'static str, width: usize) -> Column {
    Column { name, holds: Holds::Text, width }
}

const fn moment(name: &'static str) -> Column {
    Column { name, holds: Holds::Moment, width: 0 }
}

/// A table that is taken over. Its first column is the user, its second a text; both and the others of `key` say
/// which row is which.
pub(super) struct Table {
    pub(super) part: Part,
    pub(super) source: &'static str,
    target: &'static str,
    /// The column of the source that is the user's id.
    user: &'static str,
    /// What else a row of the source must fulfil.
    only: &'static str,
    columns: &'static [Column],
    /// Places of the columns that are the key.
    key: &'static [usize],
    /// The column that says which of two rows is newer, and for how long one counts; seconds.
    newer: Option<(usize, u64, &'static str)>,
    /// Whether the row can be used; the reason if not.
    check: fn(&[Cell]) -> Result<(), &'static str>,
}

pub(super) static TABLES: [Table; 4] = [
    Table {
        part: Part::Users,
        source: "b_user",
        target: "vestnik_user",
        user: "ID",
        only: " AND ACTIVE <> 'Y'",
        columns: &[int("USER_ID"), text("ACTIVE", 1)],
        key: &[0],
        newer: None,
        check: |_| Ok(()),
    },
    Table {
        part: Part::Channels,
        source: "b_pull_channel",
        target: "b_pull_channel",
        user: "USER_ID",
        only: "",
        // LAST_ID counts rows of the site's own stack, which stay there.
        columns: &[
            int("USER_ID"),
            text("CHANNEL_TYPE", 50),
            text("CHANNEL_ID", 50),
            text("CHANNEL_PUBLIC_ID", 50),
            moment("DATE_CREATE"),
        ],
        key: &[0, 1],
        newer: Some((4, CHANNEL_AGE_MAX_S, "older than 13 hours: expired")),
        check: check_channel,
    },
    Table {
        part: Part::Watches,
        source: "b_pull_watch",
        target: "b_pull_watch",
        user: "USER_ID",
        only: "",
        columns: &[
            int("USER_ID"),
            text("TAG", TAG_BYTES_MAX),
            text("CHANNEL_ID", 50),
            moment("DATE_CREATE"),
        ],
        key: &[0, 1],
        newer: Some((3, WATCH_TTL_S, "older than 32 minutes: nobody extended it")),
        check: |cells| match &cells[1] {
            Cell::Text(Some(tag)) if !tag.trim().is_empty() => Ok(()),
            _ => Err("without a tag"),
        },
    },
    Table {
        part: Part::Devices,
        source: "b_pull_push",
        target: "b_pull_push",
        user: "USER_ID",
        only: "",
        columns: &[
            int("USER_ID"),
            text("DEVICE_TOKEN", 255),
            text("DEVICE_TYPE", 50),
            text("APP_ID", 50),
            text("DEVICE_ID", 255),
            text("UNIQUE_HASH", 50),
            text("DEVICE_NAME", 50),
            text("VOIP_TYPE", 50),
            text("VOIP_TOKEN", 255),
            moment("DATE_CREATE"),
            moment("DATE_AUTH"),
        ],
        key: &[0, 1, 2, 3, 4],
        newer: Some((10, DEVICE_AGE_MAX_S, "not used for 14 days")),
        check: |cells| match (&cells[1], &cells[8]) {
            (Cell::Text(Some(token)), _) | (_, Cell::Text(Some(token))) if !token.is_empty() => {
                Ok(())
            }
            _ => Err("without a token"),
        },
    },
];

fn check_channel(cells: &[Cell]) -> Result<(), &'static str> {
    let (Cell::Text(kind), Cell::Text(id)) = (&cells[1], &cells[2]) else { return Ok(()) };
    if ChannelKind::named(kind.as_deref().unwrap_or_default()).is_err() {
        return Err("without a type");
    }
    let id = id.as_deref().unwrap_or_default();
    id.parse::<ChannelId>().map(drop).map_err(|_| "the channel id is not 32 hex digits")
}

/// A value of a row.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Cell {
    Int(Option<i64>),
    Text(Option<String>),
}

impl Cell {
    fn value(&self) -> Value<'_> {
        match self {
            Self::Int(value) => Value::OptionalInt(*value),
            Self::Text(value) => Value::OptionalText(value.as_deref()),
        }
    }

    const fn int(&self) -> i64 {
        match self {
            Self::Int(Some(value)) => *value,
            _ => 0,
        }
    }

    fn text(&self) -> &str {
        match self {
            Self::Text(Some(text)) => text,
            _ => "",
        }
    }
}

/// A row of the source, or of the target.
struct Entry {
    id: i64,
    cells: Vec<Cell>,
}

impl Entry {
    fn read(table: &Table, row: &Row) -> Result<Self, DatabaseError> {
        let cell = |(at, column): (usize, &Column)| {
            Ok(match column.holds {
                Holds::Int | Holds::Moment => Cell::Int(row.optional_int(at + 1)?),
                Holds::Text => Cell::Text(row.optional_text(at + 1)?),
            })
        };
        let cells = table.columns.iter().enumerate().map(cell);
        Ok(Self { id: row.int(0)?, cells: cells.collect::<Result<_, DatabaseError>>()? })
    }

    fn key(&self, table: &Table) -> Vec<Cell> {
        // An absent text and an empty one are the same: old modules write one, new ones the other.
        let plain = |cell: &Cell| match cell {
            Cell::Text(text) => Cell::Text(Some(text.clone().unwrap_or_default())),
            Cell::Int(number) => Cell::Int(*number),
        };
        table.key.iter().map(|at| plain(&self.cells[*at])).collect()
    }

    fn moment(&self, table: &Table) -> i64 {
        table.newer.map_or(0, |(at, ..)| self.cells[at].int())
    }

    fn named(&self, table: &Table) -> String {
        match table.part {
            Part::Users => format!("user {}", self.cells[0].int()),
            // The others have tokens of devices in their second column.
            Part::Channels | Part::Watches => {
                format!("{} of user {}", self.cells[1].text(), self.cells[0].int())
            }
            _ => format!("row {} of user {}", self.id, self.cells[0].int()),
        }
    }

    /// Why the row is of no use.
    fn flaw(&self, table: &Table, now_s: u64) -> Option<String> {
        let too_wide = |(cell, column): (&Cell, &Column)| {
            let is_too_wide = column.holds == Holds::Text && cell.text().len() > column.width;
            is_too_wide.then(|| format!("{} is longer than {} bytes", column.name, column.width))
        };
        if let Some(reason) = self.cells.iter().zip(table.columns).find_map(too_wide) {
            return Some(reason);
        }
        if let Err(reason) = (table.check)(&self.cells) {
            return Some(reason.to_owned());
        }
        let (at, age_max_s, reason) = table.newer?;
        // A device that never had to sign in again has no such moment, and is no older for that.
        let Cell::Int(Some(written_s)) = self.cells[at] else { return None };
        let written_s = u64::try_from(written_s).unwrap_or(0);
        (written_s < now_s.saturating_sub(age_max_s)).then(|| reason.to_owned())
    }
}

/// The statements of a table, made for the columns that the site's version of it has.
struct Statements {
    count: Statement,
    read: Statement,
    find: Statement,
    insert: Statement,
    update: Statement,
}

impl Statements {
    fn new(table: &Table, there: &std::collections::HashSet<String>) -> Self {
        let Table { source, target, user, only, .. } = table;
        let (mut read, mut find) = (String::new(), String::new());
        let (mut names, mut places, mut set) = (String::new(), String::new(), String::new());
        for (at, column) in table.columns.iter().enumerate() {
            let name = column.name;
            let own = if at == 0 { *user } else { name };
            _ = match column.holds {
                _ if !there.contains(own) => write!(read, ", NULL"),
                Holds::Moment => write!(read, ", {{time {own}}}"),
                Holds::Int | Holds::Text => write!(read, ", {own}"),
            };
            let comma = if at > 0 { ", " } else { "" };
            let (found, place) = match column.holds {
                Holds::Moment => (format!("{{time {name}}}"), "{at}"),
                Holds::Int | Holds::Text => (name.to_owned(), "?"),
            };
            _ = write!(find, ", {found}");
            _ = write!(names, ", {name}");
            places.push_str(if place == "?" { ", ?" } else { ", at" });
            _ = write!(set, "{comma}{name} = {place}");
        }
        let second = table.columns[1].name;
        let wanted = match table.key.len() {
            1 => format!("{} IN {{list}}", table.columns[0].name),
            _ => format!("({}, {second}) IN {{pairs}}", table.columns[0].name),
        };
        let statement = Statement::written;
        Self {
            count: statement(format!("SELECT COUNT(*) FROM {source} WHERE ID > 0{only}")),
            read: statement(format!(
                "SELECT ID{read} FROM {source} WHERE ID > ?{only} ORDER BY ID LIMIT ?"
            )),
            find: statement(format!(
                "SELECT ID{find} FROM {target} WHERE TENANT_ID = ? AND {wanted} ORDER BY ID"
            )),
            insert: statement(format!(
                "INSERT INTO {target} (TENANT_ID{names}) VALUES {{rows ?{places}}}"
            )),
            update: statement(format!("UPDATE {target} SET {set} WHERE ID = ? AND TENANT_ID = ?")),
        }
    }
}

/// Takes over a table; `None` where the site has none.
pub(super) async fn import(
    source: &Source,
    target: &Target,
    table: &Table,
    progress: &mut (dyn FnMut(Progress) + Send),
) -> Result<Option<PartReport>, ImportError> {
    let broken = ImportError::Source;
    let there = source.database.columns(table.source).await.map_err(broken)?;
    if there.is_empty() {
        return Ok(None);
    }
    let statements = Statements::new(table, &there);
    let mut report = PartReport::new(table.part);
    let rows = source.database.fetch(&statements.count, &[]).await.map_err(broken)?;
    let total = rows.first().map_or(Ok(0), |row| row.int(0)).map_err(broken)?;
    let total = u64::try_from(total).unwrap_or(0);
    progress(Progress { part: table.part, done: 0, total });
    let mut last = 0;
    loop {
        let values = [Value::Int(last), Value::Int(PORTION)];
        let rows = source.database.fetch(&statements.read, &values).await.map_err(broken)?;
        let Some(end) = rows.last() else { break };
        last = end.int(0).map_err(broken)?;
        let entries = usable(table, &rows, target.now_s, &mut report).map_err(broken)?;
        write(target, table, &statements, entries, &mut report)
            .await
            .map_err(ImportError::Target)?;
        progress(Progress { part: table.part, done: report.found, total: total.max(report.found) });
    }
    Ok(Some(report))
}

/// The rows of a portion that can be taken over, by key; of two with one key the newer.
fn usable(
    table: &Table,
    rows: &[Row],
    now_s: u64,
    report: &mut PartReport,
) -> Result<HashMap<Vec<Cell>, Entry>, DatabaseError> {
    let mut entries: HashMap<Vec<Cell>, Entry> = HashMap::new();
    for row in rows {
        report.found += 1;
        let mut entry = match Entry::read(table, row) {
            Ok(entry) => entry,
            Err(DatabaseError::Value { column }) => {
                let id = row.int(0)?;
                let name = table.columns.get(column.wrapping_sub(1)).map_or("ID", |it| it.name);
                report.leave_out(&format!("{name} is not readable"), || format!("row {id}"));
                continue;
            }
            Err(error) => return Err(error),
        };
        if let Some(reason) = entry.flaw(table, now_s) {
            report.leave_out(&reason, || entry.named(table));
            continue;
        }
        let second = entry.cells[1].text();
        let second = if table.part == Part::Watches { second.trim() } else { second };
        entry.cells[1] = Cell::Text(Some(second.to_owned()));
        let key = entry.key(table);
        let doubled = match entries.get(&key) {
            Some(other) if other.moment(table) >= entry.moment(table) => Some(entry),
            _ => entries.insert(key, entry),
        };
        if let Some(doubled) = doubled {
            report.leave_out("a second row of the same thing: the newer one counts", || {
                doubled.named(table)
            });
        }
    }
    Ok(entries)
}

/// Compares a portion with what is here and writes what is to be written.
async fn write(
    target: &Target,
    table: &Table,
    statements: &Statements,
    entries: HashMap<Vec<Cell>, Entry>,
    report: &mut PartReport,
) -> Result<(), DatabaseError> {
    let mut entries: Vec<(Vec<Cell>, Entry)> = entries.into_iter().collect();
    entries.sort_by_key(|(_, entry)| entry.id);
    let Some(tenant) = &target.tenant else {
        entries.iter().for_each(|_| report.count(Action::New));
        return Ok(());
    };
    if entries.is_empty() {
        return Ok(());
    }
    let mut transaction = target.database.begin().await?;
    let owner = Value::Int(tenant.id());
    let users: Vec<i64> = entries.iter().map(|(_, entry)| entry.cells[0].int()).collect();
    let pairs: Vec<(i64, &str)> =
        entries.iter().map(|(_, it)| (it.cells[0].int(), it.cells[1].text())).collect();
    let wanted = if table.key.len() == 1 { Value::Ints(&users) } else { Value::Pairs(&pairs) };
    let rows = transaction.fetch(&statements.find, &[owner, wanted]).await?;
    let mut here = HashMap::new();
    for row in &rows {
        let entry = Entry::read(table, row)?;
        here.insert(entry.key(table), entry);
    }
    let (mut new, mut changed) = (Vec::new(), Vec::new());
    for (key, entry) in &entries {
        let known = here.get(key);
        let action = match known {
            None => Action::New,
            Some(known) if known.cells == entry.cells => Action::Same,
            // Who is switched off there stays so here.
            Some(_) if target.overwrite || table.newer.is_none() => Action::Changed,
            Some(known) if known.moment(table) < entry.moment(table) => Action::Changed,
            Some(_) => Action::Kept,
        };
        report.count(action);
        match (action, known) {
            (Action::New, _) => new.push(entry),
            (Action::Changed, Some(known)) => changed.push((known.id, entry)),
            _ => {}
        }
    }
    if target.dry_run {
        return Ok(());
    }
    for entries in new.chunks(ROWS_OF_AN_INSERT) {
        let mut rows: Vec<Vec<Value<'_>>> = Vec::with_capacity(entries.len());
        for entry in entries {
            rows.push(std::iter::once(owner).chain(entry.cells.iter().map(Cell::value)).collect());
        }
        transaction.execute(&statements.insert, &[Value::Rows(&rows)]).await?;
    }
    for (id, entry) in changed {
        let mut values: Vec<Value<'_>> = entry.cells.iter().map(Cell::value).collect();
        values.extend([Value::Int(id), owner]);
        transaction.execute(&statements.update, &values).await?;
    }
    transaction.commit().await
}
