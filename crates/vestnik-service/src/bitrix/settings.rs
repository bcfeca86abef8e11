//! Options and sites: few things, each reported by name.

use std::collections::{BTreeMap, BTreeSet};

use super::{Action, Detail, ImportError, Part, PartReport, Report, Source, Target};
use crate::db::{DatabaseError, Row, Statement, Value};
use crate::option::{Files, Key, Kind};
use crate::site::Site;

static OPTIONS: Statement =
    Statement::new("SELECT NAME, VALUE, NULL FROM b_option WHERE MODULE_ID = 'pull' ORDER BY NAME");
/// Modules up to 2017 kept the values of sites in the same table.
static OPTIONS_OLD: Statement = Statement::new(
    "SELECT NAME, VALUE, SITE_ID FROM b_option WHERE MODULE_ID = 'pull' ORDER BY NAME",
);
static SITE_OPTIONS: Statement = Statement::new(
    "SELECT NAME, VALUE, SITE_ID FROM b_option_site WHERE MODULE_ID = 'pull' ORDER BY NAME, SITE_ID",
);
static SERVER_NAME: Statement = Statement::new(
    "SELECT VALUE FROM b_option WHERE MODULE_ID = 'main' AND NAME = 'server_name' AND VALUE <> ''",
);
static HERE: Statement =
    Statement::new("SELECT SITE_ID, NAME, VALUE FROM vestnik_option WHERE TENANT_ID = ?");
static SITES: Statement =
    Statement::new("SELECT LID, NAME, SERVER_NAME, ACTIVE FROM b_lang ORDER BY LID");
static DOMAINS: Statement =
    Statement::new("SELECT LID, DOMAIN FROM b_lang_domain ORDER BY LID, DOMAIN");

/// Not settings, but what the module remembers for itself.
const STATES: [&str; 2] = ["nginx_error", "config_timestamp"];

type Values = BTreeMap<(String, String), String>;

async fn fetch(source: &Source, statement: &Statement) -> Result<Vec<Row>, ImportError> {
    source.database.fetch(statement, &[]).await.map_err(ImportError::Source)
}

/// What the site says, by site (empty: all) and name, in the order of its sources.
async fn there(source: &Source, files: &Files) -> Result<Values, ImportError> {
    let broken = ImportError::Source;
    let mut values = Values::new();
    let columns = source.database.columns("b_option").await.map_err(broken)?;
    let common = if columns.contains("SITE_ID") { &OPTIONS_OLD } else { &OPTIONS };
    let mut rows = fetch(source, common).await?;
    if !source.database.columns("b_option_site").await.map_err(broken)?.is_empty() {
        rows.extend(fetch(source, &SITE_OPTIONS).await?);
    }
    for row in &rows {
        let read = || {
            let site = row.optional_text(2)?.unwrap_or_default().trim_end().to_owned();
            Ok::<_, DatabaseError>((row.text(0)?, row.optional_text(1)?, site))
        };
        let (name, value, site) = read().map_err(broken)?;
        values.insert((site, name), value.unwrap_or_default());
    }
    for row in &fetch(source, &SERVER_NAME).await? {
        let name = Key::ServerName.name().to_owned();
        values.insert((String::new(), name), row.text(0).map_err(broken)?);
    }
    for map in [&files.settings, &files.include] {
        for (name, value) in map {
            values.entry((String::new(), name.clone())).or_insert_with(|| value.clone());
        }
    }
    Ok(values)
}

async fn here(target: &Target) -> Result<Values, ImportError> {
    let Some(tenant) = &target.tenant else { return Ok(Values::new()) };
    let rows = target.database.fetch(&HERE, &[Value::Int(tenant.id())]).await;
    let rows = rows.map_err(ImportError::Target)?;
    let value = |row: &Row| Ok(((row.text(0)?, row.text(1)?), row.text(2)?));
    rows.iter().map(value).collect::<Result<_, DatabaseError>>().map_err(ImportError::Target)
}

fn shown(key: Key, value: &str) -> String {
    if key.kind() == Kind::Secret && !value.is_empty() { "***".into() } else { value.to_owned() }
}

pub(super) async fn import_options(
    source: &Source,
    target: &Target,
    files: &Files,
    report: &mut Report,
) -> Result<(), ImportError> {
    let (there, here) = (there(source, files).await?, here(target).await?);
    let mut part = PartReport::new(Part::Options);
    // Before anybody set an option, what is here was written by this program itself.
    let timestamp = (String::new(), Key::ConfigTimestamp.name().to_owned());
    let is_untouched = !here.contains_key(&timestamp);
    let mut changes: BTreeMap<&str, Vec<(Key, Option<&str>)>> = BTreeMap::new();
    for ((site, name), value) in &there {
        let full = if site.is_empty() { name.clone() } else { format!("{name} of site {site}") };
        // It is the name of the tenant.
        if name == "host_id" {
            continue;
        }
        part.found += 1;
        if STATES.contains(&name.as_str()) {
            part.leave_out("not a setting but a state of the module", || full);
            continue;
        }
        let Some(key) = Key::named(name) else {
            part.leave_out("no such option here", || full);
            continue;
        };
        // An empty value is what the module means by none; an address cannot be one.
        if value.is_empty() && key.check(value).is_err() {
            part.leave_out("empty", || full);
            continue;
        }
        if let Err(error) = key.check(value) {
            part.leave_out(&error.to_string(), || full);
            continue;
        }
        let known = here.get(&(site.clone(), key.name().to_owned()));
        let action = match known {
            None => Action::New,
            Some(known) if known == value => Action::Same,
            Some(_) if is_untouched || target.overwrite => Action::Changed,
            Some(_) => Action::Kept,
        };
        part.count(action);
        report.details.push(Detail {
            part: Part::Options,
            name: full,
            here: known.map(|value| shown(key, value)).unwrap_or_default(),
            there: shown(key, value),
            action,
        });
        if matches!(action, Action::New | Action::Changed) {
            changes.entry(site).or_default().push((key, Some(value)));
        }
    }
    report.parts.push(part);
    if target.dry_run {
        return Ok(());
    }
    let Some(tenant) = &target.tenant else { return Ok(()) };
    let now = target.now_s.to_string();
    for (site, changes) in changes {
        tenant.write_options(site, &changes, Some(&now)).await.map_err(ImportError::Options)?;
    }
    Ok(())
}

pub(super) async fn import_sites(
    source: &Source,
    target: &Target,
    report: &mut Report,
) -> Result<(), ImportError> {
    let broken = ImportError::Source;
    let mut part = PartReport::new(Part::Sites);
    if source.database.columns("b_lang").await.map_err(broken)?.is_empty() {
        report.absent.push((Part::Sites, "b_lang"));
        return Ok(());
    }
    let mut domains: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    if !source.database.columns("b_lang_domain").await.map_err(broken)?.is_empty() {
        for row in &fetch(source, &DOMAINS).await? {
            let site = row.text(0).map_err(broken)?.trim_end().to_owned();
            domains.entry(site).or_default().insert(row.text(1).map_err(broken)?);
        }
    }
    let known = match &target.tenant {
        Some(tenant) => tenant.sites().await.map_err(ImportError::Target)?,
        None => Vec::new(),
    };
    for row in &fetch(source, &SITES).await? {
        let mut site = read_site(row).map_err(broken)?;
        part.found += 1;
        let names = domains.remove(&site.id).unwrap_or_default();
        if site.server_name.is_empty() {
            site.server_name = names.first().cloned().unwrap_or_default();
        }
        for name in names.iter().filter(|name| **name != site.server_name) {
            part.leave_out("a further host name of a site: one is kept", || {
                format!("{name} of site {}", site.id)
            });
        }
        let here = known.iter().find(|it| it.id == site.id);
        let action = match here {
            None => Action::New,
            Some(known) if *known == site => Action::Same,
            Some(_) if target.overwrite => Action::Changed,
            Some(_) => Action::Kept,
        };
        part.count(action);
        report.details.push(Detail {
            part: Part::Sites,
            name: site.id.clone(),
            here: here.map(described).unwrap_or_default(),
            there: described(&site),
            action,
        });
        if let Some(tenant) = &target.tenant
            && matches!(action, Action::New | Action::Changed)
            && !target.dry_run
        {
            tenant.save_site(&site).await.map_err(ImportError::Target)?;
        }
    }
    report.parts.push(part);
    Ok(())
}

fn read_site(row: &Row) -> Result<Site, DatabaseError> {
    Ok(Site {
        id: row.text(0)?.trim_end().to_owned(),
        name: row.text(1)?,
        server_name: row.optional_text(2)?.unwrap_or_default(),
        is_active: row.text(3)?.trim_end() == "Y",
    })
}

fn described(site: &Site) -> String {
    let off = if site.is_active { "" } else { ", switched off" };
    let at = if site.server_name.is_empty() { "" } else { " at " };
    format!("{}{at}{}{off}", site.name, site.server_name)
}
