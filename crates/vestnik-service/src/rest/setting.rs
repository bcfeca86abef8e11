//! Options, the modules that want push, and the state of everything.

use super::input::{items_of, text_of};
use super::{Call, Field, Kind, Operation, Outcome, RestError, Right};
use crate::audit::Actor;
use crate::option::{Key, Kind as OptionKind, Source};
use crate::php::Value;
use crate::settings::{self, Problem};
use crate::site::ModuleUse;
use vestnik_core::date;

const SITE: Field = Field::may("SITE_ID", Kind::Text, "The site; absent: what is common to all.");

pub(crate) const OPERATIONS: &[Operation] = &[
    Operation {
        name: "pull.options.get",
        group: "Settings",
        about: "Options in force, each with where it comes from. Secrets are masked.",
        right: Right::Backend,
        fields: &[Field::may("KEYS", Kind::List, "Which; absent: all."), SITE],
        result: r#"{"type":"object","additionalProperties":{"type":"object","required":["value","source"],"properties":{"value":{"type":["string","null"]},"is_set":{"type":"boolean"},"source":{"enum":["site","database","file","include","default"]}}}}"#,
        example: r#"{"KEYS":["nginx","nginx_version"]}"#,
        run: |call| Box::pin(get(call)),
    },
    Operation {
        name: "pull.options.set",
        group: "Settings",
        about: "Changes options, all or none: the fields are their names. `null` takes a value away. Clients are told to fetch their configuration again.",
        right: Right::Administrator,
        fields: &[SITE],
        result: r#"{"const":true}"#,
        example: r#"{"nginx_version":4,"websocket":"Y"}"#,
        run: |call| Box::pin(set(call)),
    },
    Operation {
        name: "pull.options.restoreDefaults",
        group: "Settings",
        about: "Takes away everything that was set, except who the tenant is to the cloud.",
        right: Right::Administrator,
        fields: &[SITE],
        result: r#"{"const":true}"#,
        example: "{}",
        run: |call| Box::pin(restore(call)),
    },
    Operation {
        name: "pull.module.status",
        group: "Settings",
        about: "Whether the module is active, for whom, how the way to its queue server is, and what administrators should know.",
        right: Right::Backend,
        fields: &[SITE],
        result: r#"{"type":"object","required":["active","dependents","server","push","notifications"],"properties":{"active":{"type":"boolean"},"dependents":{"type":"object"},"push":{"type":"object","required":["enabled","waiting"]},"notifications":{"type":"array","items":{"type":"object","required":["tag","message","time"]}},"server":{"type":"object","required":["enabled","mode","version","breaker","waiting"]}}}"#,
        example: "{}",
        run: |call| Box::pin(status(call)),
    },
    Operation {
        name: "pull.module.register",
        group: "Settings",
        about: "Registers a module that wants push; an empty `USE` takes it away.",
        right: Right::Backend,
        fields: &[
            Field::needed("MODULE_ID", Kind::Text, "The module, at most 50 bytes."),
            Field::needed("USE", Kind::List, "`ADMIN_SECTION`, `PUBLIC_SECTION`."),
        ],
        result: r#"{"const":true}"#,
        example: r#"{"MODULE_ID":"crm","USE":["PUBLIC_SECTION"]}"#,
        run: |call| Box::pin(register(call)),
    },
    Operation {
        name: "pull.user.setActive",
        group: "Settings",
        about: "Says whether a user may have channels; users nobody spoke of may.",
        right: Right::Backend,
        fields: &[
            Field::needed("USER_ID", Kind::Number, "The user."),
            Field::needed("ACTIVE", Kind::Switch, "Whether."),
        ],
        result: r#"{"const":true}"#,
        example: r#"{"USER_ID":7,"ACTIVE":"N"}"#,
        run: |call| Box::pin(set_active(call)),
    },
];

/// Who the audit log says it was: secrets have no person.
const ACTOR: Actor<'_> = Actor { login: "operation", address: "" };

async fn get(call: Call<'_>) -> Outcome {
    let site = call.input.text("SITE_ID")?.unwrap_or_default();
    let options = call.tenant().options(&site).await?;
    let names = call.input.texts("KEYS")?;
    let unknown =
        |name: &String| RestError::new(400, "OPTION_ERROR", format!("there is no option `{name}`"));
    let keys = match &names {
        None => Key::ALL.to_vec(),
        Some(names) => names
            .iter()
            .map(|name| Key::named(name).ok_or_else(|| unknown(name)))
            .collect::<Result<Vec<_>, _>>()?,
    };
    let entry = |key: Key| {
        let source = match options.source(key) {
            Source::Site => "site",
            Source::Database => "database",
            Source::File => "file",
            Source::IncludeFile => "include",
            Source::BuiltIn => "default",
            Source::Pinned => "configuration",
            Source::Generated => "generated",
        };
        let text = options.text(key);
        let mut members = Vec::new();
        if key.kind() == OptionKind::Secret {
            members.push(("value", Value::Null));
            members.push(("is_set", Value::Bool(!text.is_empty())));
        } else {
            members.push(("value", Value::text(text)));
        }
        members.push(("source", Value::text(source)));
        (key.name(), Value::map(members))
    };
    Ok(Value::map(keys.into_iter().map(entry)).to_json())
}

async fn set(call: Call<'_>) -> Outcome {
    let site = call.input.text("SITE_ID")?.unwrap_or_default();
    let mut changes = Vec::new();
    for (name, raw) in call.input.fields().filter(|(name, _)| *name != "siteid") {
        let key = Key::ALL.iter().find(|key| key.name().replace('_', "") == name);
        let key = *key.ok_or_else(|| {
            RestError::new(400, "OPTION_ERROR", format!("there is no option `{name}`"))
        })?;
        // The module keeps it itself.
        if matches!(key, Key::NginxError | Key::ConfigTimestamp) {
            let text = format!("option `{}` is kept by the module itself", key.name());
            return Err(RestError::new(400, "OPTION_ERROR", text));
        }
        let value = match (raw.get(), key.kind()) {
            ("null", _) => None,
            ("true", OptionKind::Switch) => Some("Y".to_owned()),
            ("false", OptionKind::Switch) => Some("N".to_owned()),
            _ => Some(text_of(raw).ok_or_else(|| RestError::argument(key.name(), "a text"))?),
        };
        changes.push((key, value));
    }
    if changes.is_empty() {
        return Err(RestError::new(400, "ERROR_ARGUMENT", "no option was named"));
    }
    let changes: Vec<_> = changes.iter().map(|(key, value)| (*key, value.as_deref())).collect();
    let options = call.tenant().options(&site).await?;
    // What is wrong with a value alone is said by whoever writes it.
    if let Err(problems) = settings::check(&options, &changes, false)
        && problems.get(&Key::SignatureKey) == Some(&Problem::EmptyKey)
    {
        let text = "option `signature_key` must not be empty with Push server 2.0 and later; null takes it away";
        return Err(RestError::new(400, "OPTION_ERROR", text));
    }
    call.tenant().set_settings(&site, &changes, ACTOR).await?;
    Ok("true".to_owned())
}

async fn restore(call: Call<'_>) -> Outcome {
    let site = call.input.text("SITE_ID")?.unwrap_or_default();
    if site.is_empty() {
        call.tenant().restore_default_settings(ACTOR).await?;
    } else {
        call.tenant().restore_default_options(&site).await?;
    }
    Ok("true".to_owned())
}

async fn status(call: Call<'_>) -> Outcome {
    let site = call.input.text("SITE_ID")?.unwrap_or_default();
    let options = call.tenant().options(&site).await?;
    let modules = call.tenant().dependent_modules().await?;
    let dependents = modules.iter().map(|module| {
        let described = Value::map([
            ("MODULE_ID", Value::text(&module.module_id)),
            ("ADMIN_SECTION", Value::Bool(module.is_for_admin)),
            ("PUBLIC_SECTION", Value::Bool(module.is_for_public)),
        ]);
        (module.module_id.as_str(), described)
    });
    let state = call.stage.server_state(call.tenant());
    let int = |number: u64| Value::Int(i64::try_from(number).unwrap_or(i64::MAX));
    let last_error = state.last_error.map_or(Value::Null, |(text, at_s)| {
        let time = Value::Text(date::atom(at_s));
        Value::map([("text", Value::Text(text)), ("time", time)])
    });
    let server = Value::map([
        ("enabled", Value::Bool(options.is_server_on())),
        ("mode", Value::text(options.text(Key::ServerMode))),
        ("version", Value::Int(options.generation().number())),
        ("breaker", Value::text(if state.is_stopped { "open" } else { "closed" })),
        ("waiting", int(state.waiting)),
        ("last_error", last_error),
    ]);
    let active = call.tenant().is_module_active(&site).await?;
    let dependents = Value::map(dependents);
    let dependents = match &dependents {
        // An object also when there is none.
        Value::Array(entries) if entries.is_empty() => "{}".to_owned(),
        map => map.to_json(),
    };
    let (waiting, _) = call.tenant().waiting_push().await?;
    let push =
        Value::map([("enabled", Value::Bool(options.is_push_on())), ("waiting", int(waiting))]);
    let shown = call.tenant().notifications().await?.into_iter().map(|it| {
        Value::map([
            ("tag", Value::Text(it.tag)),
            ("message", Value::Text(it.message)),
            ("time", Value::Text(date::atom(it.created_s))),
        ])
    });
    let shown = Value::Array((0..).map(Value::Int).zip(shown).collect());
    Ok(format!(
        r#"{{"active":{active},"dependents":{dependents},"server":{},"push":{},"notifications":{}}}"#,
        server.to_json(),
        push.to_json(),
        shown.to_json()
    ))
}

async fn register(call: Call<'_>) -> Outcome {
    const MODULE_BYTES_MAX: usize = 50;
    let module_id = call.input.needed_text("MODULE_ID")?;
    if module_id.len() > MODULE_BYTES_MAX {
        return Err(RestError::argument("MODULE_ID", "at most 50 bytes"));
    }
    let raw = call.input.raw("USE").ok_or_else(|| RestError::missing("USE"))?;
    let items = items_of(raw).ok_or_else(|| RestError::argument("USE", "a list"))?;
    let uses: Option<Vec<String>> = items.iter().map(|item| text_of(item)).collect();
    let uses = uses.ok_or_else(|| RestError::argument("USE", "a list of texts"))?;
    let known = ["ADMIN_SECTION", "PUBLIC_SECTION"];
    if let Some(other) = uses.iter().find(|name| !known.contains(&name.as_str())) {
        let text = format!("`ADMIN_SECTION` and `PUBLIC_SECTION`, not `{other}`");
        return Err(RestError::argument("USE", &text));
    }
    if uses.is_empty() {
        call.tenant().unregister_module(&module_id).await?;
        return Ok("true".to_owned());
    }
    let has = |name: &str| uses.iter().any(|known| known == name);
    let module = ModuleUse { is_for_admin: has(known[0]), is_for_public: has(known[1]), module_id };
    call.tenant().register_module(&module).await?;
    Ok("true".to_owned())
}

async fn set_active(call: Call<'_>) -> Outcome {
    let user = call.needed_user("USER_ID")?;
    let active = call.input.switch("ACTIVE")?.ok_or_else(|| RestError::missing("ACTIVE"))?;
    call.tenant().set_user_active(user, active).await?;
    Ok("true".to_owned())
}
