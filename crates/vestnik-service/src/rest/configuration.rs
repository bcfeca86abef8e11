//! What a client needs to connect: `pull.config.get` and its kin.

use super::{Call, Field, Kind, Operation, Outcome, RestError, Right};
use crate::config::ConfigRequest;
use crate::option::Key;
use crate::php::Value;
use vestnik_core::date;

const SITE: Field =
    Field::may("SITE_ID", Kind::Text, "The site whose options count; absent: those common to all.");
const HOST: Field = Field::may("HOST", Kind::Text, "Host of the page, put in place of `#DOMAIN#`.");
const CACHE: Field = Field::may("CACHE", Kind::Switch, "Taken, and without effect.");
const REOPEN: Field = Field::may("REOPEN", Kind::Switch, "Taken, and without effect.");
/// A configuration; what is in it depends on the generation.
const CONFIG: &str = r#"{"type":"object","required":["server","api","publicChannels","serverTime"],"properties":{"server":{"type":"object","required":["version","server_enabled","mode","hostname","long_polling","long_pooling_secure","websocket_enabled","websocket","websocket_secure","publish_enabled","publish","publish_secure","config_timestamp"]},"api":{"type":"object","required":["revision_web","revision_mobile"]},"channels":{"type":"object"},"clientId":{"type":"string"},"jwt":{"type":"string"},"exp":{"type":"integer"},"serverTime":{"type":"string"}}}"#;

pub(crate) const OPERATIONS: &[Operation] = &[
    Operation {
        name: "pull.config.get",
        group: "Configuration",
        about: "The configuration of a client: addresses, signed channels, and a token in generation 5. With `LEGACY` a JavaScript literal for old scripts, as a text.",
        right: Right::User,
        fields: &[
            Field::may(
                "USER_ID",
                Kind::Number,
                "The user; negative for guests. A token's own user unless given.",
            ),
            Field::may(
                "CUSTOM_TYPE",
                Kind::Text,
                "Client id of an application: its channels instead of the user's.",
            ),
            Field::may("TAG", Kind::Text, "Without a user: the channel of this tag."),
            HOST,
            SITE,
            Field::may("LEGACY", Kind::Switch, "The configuration of old scripts instead."),
            Field::may("HTTPS", Kind::Switch, "With `LEGACY`: the page came by https."),
            CACHE,
            REOPEN,
        ],
        result: r##"{"oneOf":[{"$ref":"#/components/schemas/ClientConfig"},{"type":"string"}]}"##,
        example: r#"{"USER_ID":1,"HOST":"example.test"}"#,
        run: |call| Box::pin(get(call)),
    },
    Operation {
        name: "pull.application.config.get",
        group: "Applications",
        about: "The configuration of an application: both channels are the application's own.",
        right: Right::Backend,
        fields: &[
            Field::needed("CLIENT_ID", Kind::Text, "The application."),
            Field::needed("USER_ID", Kind::Number, "The user it works for."),
            HOST,
            SITE,
            CACHE,
            REOPEN,
        ],
        result: r##"{"$ref":"#/components/schemas/ClientConfig"}"##,
        example: r#"{"CLIENT_ID":"local.5c8bb1b0917611.15086475","USER_ID":1,"HOST":"example.test"}"#,
        run: |call| Box::pin(of_application(call)),
    },
    Operation {
        name: "server.time",
        group: "Configuration",
        about: "The time of the server.",
        right: Right::User,
        fields: &[],
        result: r#"{"type":"string"}"#,
        example: "{}",
        run: |call| Box::pin(time(call)),
    },
];

/// Schemas that results refer to.
pub(crate) const SCHEMAS: &[(&str, &str)] = &[("ClientConfig", CONFIG)];

impl Call<'_> {
    /// The host of the page: field `HOST`, or where the call was sent to if the site names none.
    async fn host(&self, site: &str) -> Result<String, RestError> {
        if let Some(host) = self.input.text("HOST")?.filter(|host| !host.is_empty()) {
            let is_plain = |it: char| it.is_alphanumeric() || "-._:[]".contains(it);
            if host.len() > 255 || !host.chars().all(is_plain) {
                return Err(RestError::argument("HOST", "the name of a host"));
            }
            return Ok(host);
        }
        let options = self.tenant().options(site).await?;
        let is_named = !options.text(Key::ServerName).is_empty()
            || self.tenant().site_server_name(site).await?.is_some();
        Ok(if is_named { String::new() } else { self.caller.host.clone() })
    }
}

async fn get(call: Call<'_>) -> Outcome {
    let user = call.user("USER_ID")?.unwrap_or(0);
    let tag = call.input.text("TAG")?.filter(|tag| !tag.is_empty());
    if tag.is_some() && call.caller.right == Right::User {
        return Err(RestError::denied("channels of tags are given out by the back end"));
    }
    if user == 0 && tag.is_none() {
        return Err(RestError::new(403, "AUTHORIZE_ERROR", "no user was named"));
    }
    let site = call.input.text("SITE_ID")?.unwrap_or_default();
    if call.input.switch("LEGACY")? == Some(true) {
        let is_https = call.input.switch("HTTPS")?.unwrap_or(false);
        let literal = call.tenant().legacy_config(user, &site, is_https).await?;
        return Ok(Value::Text(literal).to_json());
    }
    let host = call.host(&site).await?;
    let application = call.input.text("CUSTOM_TYPE")?.filter(|kind| !kind.is_empty());
    let request = ConfigRequest {
        user,
        application: application.as_deref(),
        channel: tag.filter(|_| user == 0).map(|tag| call.tenant().tag_channel(&tag)),
        site: &site,
        host: &host,
    };
    config(&call, &request).await
}

async fn of_application(call: Call<'_>) -> Outcome {
    let client_id = call.input.needed_text("CLIENT_ID")?;
    let user = call.needed_user("USER_ID")?;
    let site = call.input.text("SITE_ID")?.unwrap_or_default();
    let host = call.host(&site).await?;
    let request = ConfigRequest {
        user,
        application: Some(&client_id),
        channel: None,
        site: &site,
        host: &host,
    };
    config(&call, &request).await
}

async fn config(call: &Call<'_>, request: &ConfigRequest<'_>) -> Outcome {
    let config = call.tenant().client_config(request).await?;
    let mut json = config.to_json();
    // The object ends with its brace.
    json.pop();
    let now = date::atom(call.tenant().now_s());
    json.push_str(&format!(r#","serverTime":"{now}"}}"#));
    Ok(json)
}

async fn time(call: Call<'_>) -> Outcome {
    Ok(Value::Text(date::atom(call.tenant().now_s())).to_json())
}
