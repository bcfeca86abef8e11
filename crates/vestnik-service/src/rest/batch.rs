//! Many calls in one: `{"cmd":{"name":"operation?query"}}` as clients of Bitrix send it, or a list of
//! `{"method":…,"params":…}`.

use serde_json::value::RawValue;

use super::input::{Input, items_of, text_of};
use super::{Backstage, Caller, RestError, call};
use crate::event::Params;
use crate::php::Value;

/// Calls of one batch, as in Bitrix.
pub const BATCH_MAX: usize = 50;

/// Calls that were read, and whether the first failure ends the rest.
#[derive(Debug)]
pub struct Batch {
    calls: Vec<(String, Asked)>,
    halts: bool,
    is_list: bool,
}

/// One of them: an operation and its input as it was written.
#[derive(Debug)]
enum Asked {
    Query(String),
    Object(String, Box<RawValue>),
}

impl Batch {
    /// Reads the input of a batch.
    ///
    /// # Errors
    /// When it has no calls, too many, or one that is neither form.
    pub fn read(input: &Input) -> Result<Self, RestError> {
        let halts = input.switch("halt")?.unwrap_or(false);
        let raw = input.raw("cmd").ok_or_else(|| RestError::missing("cmd"))?;
        let text = text_of(raw).filter(|text| text.trim_start().starts_with(['{', '[']));
        let json = text.as_deref().unwrap_or(raw.get());
        let calls = Params::parse(json).map_err(|_| RestError::argument("cmd", "calls by name"))?;
        let is_list = json.trim_start().starts_with('[');
        Self::of(calls, halts, is_list)
    }

    /// Reads a batch that is a list itself.
    ///
    /// # Errors
    /// As [`Batch::read`].
    pub fn of_list(body: &[u8]) -> Result<Self, RestError> {
        let text = std::str::from_utf8(body).map_err(|_| RestError::argument("cmd", "UTF-8"))?;
        let calls = Params::parse(text).map_err(|_| RestError::argument("cmd", "calls"))?;
        Self::of(calls, false, true)
    }

    fn of(calls: Params, halts: bool, is_list: bool) -> Result<Self, RestError> {
        let mut asked = Vec::new();
        for (name, raw) in calls.members() {
            if asked.len() >= BATCH_MAX {
                let text = format!("a batch has at most {BATCH_MAX} calls");
                return Err(RestError::new(400, "ERROR_BATCH_LENGTH_EXCEEDED", text));
            }
            asked.push((name.to_owned(), one(raw)?));
        }
        if asked.is_empty() {
            return Err(RestError::missing("cmd"));
        }
        Ok(Self { calls: asked, halts, is_list })
    }

    /// The names of the operations.
    pub fn operations(&self) -> impl Iterator<Item = &str> {
        self.calls.iter().map(|(_, asked)| match asked {
            Asked::Query(query) => query.split('?').next().unwrap_or_default(),
            Asked::Object(name, _) => name,
        })
    }

    /// Runs the calls one after another; the members `result`, `result_error` and their empty companions, as
    /// clients of Bitrix expect them.
    pub async fn run(self, caller: &Caller, stage: &dyn Backstage) -> String {
        let mut results: Vec<(String, String)> = Vec::new();
        let mut errors: Vec<(String, String)> = Vec::new();
        for (name, asked) in self.calls {
            match run_one(caller, stage, asked, &results).await {
                Ok(result) => results.push((name, result)),
                Err(error) => {
                    errors.push((name, error.to_json()));
                    if self.halts {
                        break;
                    }
                }
            }
        }
        let is_complete = errors.is_empty();
        format!(
            r#"{{"result":{},"result_error":{},"result_total":[],"result_next":[],"result_time":[]}}"#,
            object(&results, self.is_list && is_complete),
            object(&errors, false),
        )
    }
}

fn object(members: &[(String, String)], is_list: bool) -> String {
    if is_list || members.is_empty() {
        let items: Vec<&str> = members.iter().map(|(_, json)| json.as_str()).collect();
        return format!("[{}]", items.join(","));
    }
    let member =
        |(name, json): &(String, String)| format!("{}:{json}", Value::text(name).to_json());
    format!("{{{}}}", members.iter().map(member).collect::<Vec<_>>().join(","))
}

fn one(raw: &RawValue) -> Result<Asked, RestError> {
    let wrong = || RestError::argument("cmd", "`operation?query` or `{\"method\":…,\"params\":…}`");
    if let Some(query) = text_of(raw) {
        return Ok(Asked::Query(query));
    }
    // A list of two, as some clients write it.
    if raw.get().starts_with('[') {
        let items = items_of(raw).ok_or_else(wrong)?;
        let name = items.first().and_then(|name| text_of(name)).ok_or_else(wrong)?;
        let params = items.into_iter().nth(1).unwrap_or_else(|| RawValue::NULL.to_owned());
        return Ok(Asked::Object(name, params));
    }
    let call = Input::of_json(raw.get().as_bytes())?;
    let params = call.raw("params").unwrap_or(RawValue::NULL).to_owned();
    Ok(Asked::Object(call.needed_text("method")?, params))
}

async fn run_one(
    caller: &Caller,
    stage: &dyn Backstage,
    asked: Asked,
    before: &[(String, String)],
) -> Result<String, RestError> {
    let (name, input) = match &asked {
        Asked::Query(query) => {
            let (name, query) = query.split_once('?').unwrap_or((query, ""));
            let mut fields = super::form::parse(query.as_bytes())?;
            refer(&mut fields, before);
            (name, Input::of_json(fields.to_json().as_bytes())?)
        }
        Asked::Object(name, params) if params.get() == "null" => (name.as_str(), Input::default()),
        Asked::Object(name, params) => (name.as_str(), Input::of_json(params.get().as_bytes())?),
    };
    call(caller, stage, name, input).await
}

/// Puts results of earlier calls in the place of `$result[name][key]…`.
fn refer(value: &mut Value, before: &[(String, String)]) {
    match value {
        Value::Array(entries) => entries.iter_mut().for_each(|(_, value)| refer(value, before)),
        Value::Text(text) => {
            if let Some(found) = text.strip_prefix("$result[").and_then(|it| referred(it, before)) {
                *text = found;
            }
        }
        Value::Null | Value::Bool(_) | Value::Int(_) | Value::Float(_) => {}
    }
}

fn referred(path: &str, before: &[(String, String)]) -> Option<String> {
    let mut keys = path.strip_suffix(']')?.split("][");
    let name = keys.next()?;
    let (_, json) = before.iter().find(|(known, _)| known == name)?;
    let result: serde_json::Value = serde_json::from_str(json).ok()?;
    let mut value = &result;
    for key in keys {
        value = match value {
            serde_json::Value::Array(items) => items.get(key.parse::<usize>().ok()?)?,
            other => other.get(key)?,
        };
    }
    Some(match value {
        serde_json::Value::String(text) => text.clone(),
        other => other.to_string(),
    })
}
