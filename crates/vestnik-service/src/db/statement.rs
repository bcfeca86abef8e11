//! Statements: written once, rendered for each dialect, so that each keeps its prepared form.

use std::borrow::Cow;
use std::fmt::Write as _;
use std::sync::OnceLock;

use super::Dialect;

/// One statement for all dialects, as a `static`:
///
/// | Written | Means |
/// |---|---|
/// | `?` | the next value |
/// | `{at}` | the next value, unix seconds, as a `datetime` |
/// | `{time COLUMN}` | a `datetime` column as unix seconds |
/// | `{list}` | the next value, [`Value::Ints`] or [`Value::Texts`], in parentheses |
/// | `{pairs}` | the next value, [`Value::Pairs`], for `(a, b) IN {pairs}` |
/// | `{rows ?, at, …}` | the next value, [`Value::Rows`], behind `VALUES`; what each column takes |
/// | `{update KEY, … : COLUMN, …}` | behind an insert: where the keys exist, set the columns instead |
/// | `{ignore KEY, …}` | behind an insert: where the keys exist, do nothing |
/// | `{for update}` | rows read stay locked until the transaction ends |
/// | `{bigint}` | the type that a number is cast to |
/// | `{id}`, `{datetime}`, `{text}`, `{options}` | parts of table definitions |
///
/// Braces and question marks stand nowhere else.
#[derive(Debug)]
pub struct Statement {
    template: Cow<'static, str>,
    rendered: [OnceLock<String>; 3],
}

/// A value for a statement.
#[derive(Clone, Copy, Debug)]
pub enum Value<'a> {
    /// A whole number, or a moment in unix seconds.
    Int(i64),
    /// One that may be null.
    OptionalInt(Option<i64>),
    /// A text.
    Text(&'a str),
    /// One that may be null.
    OptionalText(Option<&'a str>),
    /// Numbers for `{list}`; not empty.
    Ints(&'a [i64]),
    /// Texts for `{list}`; not empty.
    Texts(&'a [&'a str]),
    /// Pairs for `{pairs}`; not empty.
    Pairs(&'a [(i64, &'a str)]),
    /// Rows for `{rows …}`, all of its width; not empty.
    Rows(&'a [Vec<Value<'a>>]),
}

/// Whether a value decides what the text of its statement looks like.
const fn is_list(value: &Value<'_>) -> bool {
    matches!(value, Value::Ints(_) | Value::Texts(_) | Value::Pairs(_) | Value::Rows(_))
}

/// What is bound for a list: filled up to a power of two with its last item, so that there are few
/// different statements to prepare.
pub(super) fn padded<T>(values: &[T]) -> impl Iterator<Item = &T> {
    let length = values.len().next_power_of_two();
    values.iter().chain(values.last().into_iter().cycle()).take(length)
}

impl Statement {
    /// The statement with this template.
    #[must_use]
    pub const fn new(template: &'static str) -> Self {
        Self { template: Cow::Borrowed(template), rendered: [const { OnceLock::new() }; 3] }
    }

    /// A statement whose parts are known only at run time. Nothing that came from outside the program may be
    /// in it.
    pub(crate) const fn written(template: String) -> Self {
        Self { template: Cow::Owned(template), rendered: [const { OnceLock::new() }; 3] }
    }

    /// Its text for `dialect`.
    pub(super) fn text(&self, dialect: Dialect, values: &[Value<'_>]) -> Cow<'_, str> {
        if values.iter().any(is_list) {
            return Cow::Owned(render(&self.template, dialect, values));
        }
        let slot = &self.rendered[dialect as usize];
        Cow::Borrowed(slot.get_or_init(|| render(&self.template, dialect, values)))
    }
}

/// The text of a template; `values` are asked for the lengths of lists alone.
pub(super) fn render(template: &str, dialect: Dialect, values: &[Value<'_>]) -> String {
    let mut sql = String::with_capacity(template.len() + 64);
    let (mut value, mut placeholder) = (0, 0);
    let mut next = |sql: &mut String| {
        placeholder += 1;
        match dialect {
            Dialect::Postgres => _ = write!(sql, "${placeholder}"),
            Dialect::Sqlite | Dialect::MySql => sql.push('?'),
        }
    };
    let mut rest = template;
    while let Some(at) = rest.find(['?', '{']) {
        sql.push_str(&rest[..at]);
        if rest[at..].starts_with('?') {
            value += 1;
            next(&mut sql);
            rest = &rest[at + 1..];
            continue;
        }
        let end = rest[at..].find('}').expect("templates close their braces") + at;
        let inside = &rest[at + 1..end];
        rest = &rest[end + 1..];
        match inside {
            "at" => {
                value += 1;
                moment(&mut sql, dialect, &mut next);
            }
            "list" => {
                let length = match values.get(value) {
                    Some(Value::Ints(values)) => values.len(),
                    Some(Value::Texts(values)) => values.len(),
                    _ => 0,
                };
                value += 1;
                sql.push('(');
                for index in 0..length.next_power_of_two() {
                    if index > 0 {
                        sql.push(',');
                    }
                    next(&mut sql);
                }
                sql.push(')');
            }
            "pairs" => {
                let length = match values.get(value) {
                    Some(Value::Pairs(values)) => values.len(),
                    _ => 0,
                };
                value += 1;
                let (before, left, middle) = match dialect {
                    Dialect::Sqlite => ("(VALUES ", "(", ","),
                    Dialect::Postgres => ("(VALUES ", "(CAST(", " AS bigint),"),
                    Dialect::MySql => ("(", "(", ","),
                };
                sql.push_str(before);
                for index in 0..length.next_power_of_two() {
                    sql.push_str(if index > 0 { "," } else { "" });
                    sql.push_str(left);
                    next(&mut sql);
                    sql.push_str(middle);
                    next(&mut sql);
                    sql.push(')');
                }
                sql.push(')');
            }
            _ => match inside.strip_prefix("rows ") {
                Some(columns) => {
                    let length = match values.get(value) {
                        Some(Value::Rows(rows)) => rows.len(),
                        _ => 0,
                    };
                    value += 1;
                    rows(&mut sql, dialect, columns, length, &mut next);
                }
                None => sql.push_str(&token(inside, dialect)),
            },
        }
    }
    sql.push_str(rest);
    sql
}

/// A placeholder for unix seconds.
fn moment(sql: &mut String, dialect: Dialect, next: &mut impl FnMut(&mut String)) {
    let (before, after) = match dialect {
        Dialect::Sqlite => ("", ""),
        Dialect::Postgres => ("CAST(to_timestamp(", ") AS timestamp)"),
        Dialect::MySql => ("FROM_UNIXTIME(", ")"),
    };
    sql.push_str(before);
    next(sql);
    sql.push_str(after);
}

/// Placeholders for `length` rows of `columns`.
fn rows(
    sql: &mut String,
    dialect: Dialect,
    columns: &str,
    length: usize,
    next: &mut impl FnMut(&mut String),
) {
    for row in 0..length {
        sql.push_str(if row > 0 { ",(" } else { "(" });
        for (index, column) in columns.split(',').enumerate() {
            sql.push_str(if index > 0 { "," } else { "" });
            match column.trim() {
                "at" => moment(sql, dialect, next),
                _ => next(sql),
            }
        }
        sql.push(')');
    }
}

/// What a token without a value stands for.
fn token(inside: &str, dialect: Dialect) -> Cow<'static, str> {
    if let Some(column) = inside.strip_prefix("time ") {
        return Cow::Owned(match dialect {
            Dialect::Sqlite => column.to_owned(),
            Dialect::Postgres => {
                format!("CAST(floor(extract(epoch from CAST({column} AS timestamptz))) AS bigint)")
            }
            Dialect::MySql => format!("CAST(UNIX_TIMESTAMP({column}) AS SIGNED)"),
        });
    }
    if let Some(lists) = inside.strip_prefix("update ") {
        let (keys, columns) = lists.split_once(':').expect("keys and columns");
        let columns = columns.split(',').map(str::trim);
        let set = |value: &dyn Fn(&str) -> String| {
            columns.clone().map(|it| format!("{it} = {}", value(it))).collect::<Vec<_>>().join(", ")
        };
        return Cow::Owned(match dialect {
            Dialect::Sqlite | Dialect::Postgres => format!(
                "ON CONFLICT ({keys}) DO UPDATE SET {}",
                set(&|it| format!("excluded.{it}"))
            ),
            Dialect::MySql => {
                format!("ON DUPLICATE KEY UPDATE {}", set(&|it| format!("VALUES({it})")))
            }
        });
    }
    if let Some(keys) = inside.strip_prefix("ignore ") {
        let first = keys.split(',').next().unwrap_or_default().trim();
        return Cow::Owned(match dialect {
            Dialect::Sqlite | Dialect::Postgres => format!("ON CONFLICT ({keys}) DO NOTHING"),
            Dialect::MySql => format!("ON DUPLICATE KEY UPDATE {first} = {first}"),
        });
    }
    let (sqlite, postgres, mysql) = match inside {
        "for update" => ("", "FOR UPDATE", "FOR UPDATE"),
        "id" => (
            "INTEGER PRIMARY KEY AUTOINCREMENT",
            // A thousand new watches a second would use up 32 bits within a month.
            "BIGINT GENERATED BY DEFAULT AS IDENTITY PRIMARY KEY",
            "BIGINT NOT NULL AUTO_INCREMENT PRIMARY KEY",
        ),
        "bigint" => ("INTEGER", "BIGINT", "SIGNED"),
        "datetime" => ("INTEGER", "TIMESTAMP", "DATETIME"),
        "text" => ("TEXT", "TEXT", "MEDIUMTEXT"),
        // Texts are compared byte by byte, as the other two do.
        "options" => ("", "", " ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_bin"),
        _ => unreachable!("a template with {{{inside}}}"),
    };
    Cow::Borrowed(match dialect {
        Dialect::Sqlite => sqlite,
        Dialect::Postgres => postgres,
        Dialect::MySql => mysql,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_statement_reads_as_each_dialect_wants_it() {
        let template = "INSERT INTO t (a, b, c) VALUES (?, {at}, ?) {update a, b: c}";
        let check = |dialect, expected: &str| assert_eq!(render(template, dialect, &[]), expected);
        let tail = "ON CONFLICT (a, b) DO UPDATE SET c = excluded.c";
        check(Dialect::Sqlite, &format!("INSERT INTO t (a, b, c) VALUES (?, ?, ?) {tail}"));
        check(
            Dialect::Postgres,
            &format!(
                "INSERT INTO t (a, b, c) VALUES ($1, CAST(to_timestamp($2) AS timestamp), $3) {tail}"
            ),
        );
        check(
            Dialect::MySql,
            "INSERT INTO t (a, b, c) VALUES (?, FROM_UNIXTIME(?), ?) ON DUPLICATE KEY UPDATE c = VALUES(c)",
        );
    }

    #[test]
    fn pairs_and_rows_are_written_out() {
        let pairs = [Value::Pairs(&[(1, "a"), (2, "b"), (3, "c")])];
        let check = |dialect, expected: &str| {
            assert_eq!(
                render("(a, b) IN {pairs}", dialect, &pairs),
                format!("(a, b) IN {expected}")
            );
        };
        check(Dialect::Sqlite, "(VALUES (?,?),(?,?),(?,?),(?,?))");
        check(Dialect::MySql, "((?,?),(?,?),(?,?),(?,?))");
        let rows = vec![vec![Value::Int(1), Value::Int(2)], vec![Value::Int(3), Value::Int(4)]];
        let sql = render("VALUES {rows ?, at} x ?", Dialect::Postgres, &[Value::Rows(&rows)]);
        let at = |place: usize| format!("CAST(to_timestamp(${place}) AS timestamp)");
        assert_eq!(sql, format!("VALUES ($1,{}),($3,{}) x $5", at(2), at(4)));
    }

    #[test]
    fn a_list_is_filled_up_to_a_power_of_two_with_its_last_item() {
        let values = [Value::Int(1), Value::Ints(&[5, 6, 7])];
        let sql = render("SELECT a FROM t WHERE b = ? AND c IN {list}", Dialect::Postgres, &values);
        assert_eq!(sql, "SELECT a FROM t WHERE b = $1 AND c IN ($2,$3,$4,$5)");
        assert_eq!(padded(&[5, 6, 7]).copied().collect::<Vec<_>>(), [5, 6, 7, 7]);
    }
}
