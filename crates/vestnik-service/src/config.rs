//! The configuration of a client: where to connect and which channels to hear (module.md §5, §6).

use crate::channel::{Channel, ChannelError, ChannelKind, FreeChannel, PublicId};
use crate::notice::{REVISION_MOBILE, REVISION_WEB};
use crate::option::{Key, Options};
use crate::php::Value;
use crate::tenant::Tenant;
use crate::token::{self, TOKEN_TTL_S};
use vestnik_core::date;

/// How long a client may keep the channel of a channel object, seconds: a year.
const FREE_CHANNEL_TTL_S: u64 = 31_536_000;

/// Where clients of sites without a queue server ask for news.
const POLLING_PATH: &str = "/bitrix/components/bitrix/pull.request/ajax.php?UPDATE_STATE";

/// Who asks, and from where.
#[derive(Clone, Debug, Default)]
pub struct ConfigRequest<'a> {
    /// The user; negative for guests; 0 only together with `channel`.
    pub user: i64,
    /// Client id of the application that asks; its channels are given instead of the user's.
    pub application: Option<&'a str>,
    /// The channel to hear when nobody is signed in.
    pub channel: Option<FreeChannel>,
    /// The site whose options count; empty for those common to all.
    pub site: &'a str,
    /// Host of the page, for `#DOMAIN#`; empty: the site's own.
    pub host: &'a str,
}

/// How names and times are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// Lower-case names, ISO times: what clients get.
    Json,
    /// Upper-case names, unix times: what PHP code gets.
    Upper,
}

/// The configuration of one client.
#[derive(Clone, Debug)]
pub struct ClientConfig {
    server: Server,
    channels: Vec<ListedChannel>,
    client_id: Option<String>,
    token: Option<String>,
    expires_s: Option<u64>,
    public_channels: Option<Vec<PublicId>>,
}

/// Addresses, plain and secure.
#[derive(Clone, Debug)]
struct Server {
    version: i64,
    mode: &'static str,
    host_name: String,
    long_polling: [String; 2],
    has_websockets: bool,
    websocket: [String; 2],
    has_publishing: bool,
    publish: [String; 2],
    config_timestamp: i64,
}

#[derive(Clone, Debug)]
struct ListedChannel {
    name: &'static str,
    id: String,
    public_id: Option<String>,
    starts_s: u64,
    ends_s: u64,
}

/// Addresses of the server for clients: listening, WebSocket, publishing; plain and secure each.
fn addresses(options: &Options, domain: Option<&str>) -> [[String; 2]; 3] {
    if options.is_cloud() {
        let host = options.text(Key::SharedServerAddress);
        let both = |address: String| [address.clone(), address];
        return [
            both(format!("https://{host}/subws/")),
            both(format!("wss://{host}/subws/")),
            both(format!("https://{host}/rest/")),
        ];
    }
    let address = |key| match domain {
        Some(domain) => options.address(key, domain),
        None => options.without_port(key),
    };
    [
        [Key::PathToModernListener, Key::PathToModernListenerSecure].map(address),
        [Key::PathToWebsocket, Key::PathToWebsocketSecure].map(address),
        [Key::PathToPublishWeb, Key::PathToPublishWebSecure].map(address),
    ]
}

impl Tenant {
    /// Puts a client's configuration together; channels are made when needed.
    ///
    /// # Errors
    /// `ServerOff` when no server is in use, `InactiveUser(0)` when nobody asks; others when the options or
    /// the database fail. A user without a channel gets a configuration without it.
    pub async fn client_config(
        &self,
        request: &ConfigRequest<'_>,
    ) -> Result<ClientConfig, ChannelError> {
        let options = self.options(request.site).await?;
        if !options.is_server_on() {
            return Err(ChannelError::ServerOff);
        }
        if request.user == 0 && request.channel.is_none() {
            return Err(ChannelError::InactiveUser(0));
        }
        let host_name = match self.site_server_name(request.site).await? {
            Some(name) => name,
            None if options.text(Key::ServerName).is_empty() => request.host.to_owned(),
            None => options.text(Key::ServerName).to_owned(),
        };
        let domain = if request.host.is_empty() { &host_name } else { request.host };
        let generation = options.generation();
        let [long_polling, websocket, publish] = addresses(&options, Some(domain));
        let server = Server {
            version: generation.number(),
            mode: if options.is_cloud() { "shared" } else { "personal" },
            long_polling,
            has_websockets: options.has_websockets(),
            websocket,
            has_publishing: generation.has_public_channels(),
            publish,
            config_timestamp: options.number(Key::ConfigTimestamp),
            host_name,
        };
        let (channels, heard) = self.listed_channels(request, &options).await?;
        let now_s = self.now_s();
        let ttl_s = u64::try_from(options.number(Key::ConfigTtl)).unwrap_or(0);
        let mut expires_s = (ttl_s > 0).then(|| now_s.saturating_add(ttl_s));
        let mut token = None;
        if generation.has_tokens() {
            let end_s = expires_s.unwrap_or(now_s + TOKEN_TTL_S);
            let user = (request.user > 0).then_some(request.user);
            // Without a key anybody could make tokens, and no server takes them (J-059).
            if let Some(key) = options.signing_key()
                && (user.is_some() || !heard.is_empty())
            {
                token = Some(token::issue(key, self.host_id(), user, &heard, now_s, end_s));
            }
            expires_s = Some(end_s);
        }
        let public_channels = if generation.has_public_channels() && request.user > 0 {
            Some(self.public_ids(&[request.user], &ChannelKind::Private).await?)
        } else {
            None
        };
        let client_id = options.is_cloud().then(|| options.cloud_client_id());
        Ok(ClientConfig { server, channels, client_id, token, expires_s, public_channels })
    }

    /// The channels of a configuration, and the unsigned ids that a token names.
    async fn listed_channels(
        &self,
        request: &ConfigRequest<'_>,
        options: &Options,
    ) -> Result<(Vec<ListedChannel>, Vec<String>), ChannelError> {
        if let (0, Some(channel)) = (request.user, &request.channel) {
            let listed = ListedChannel {
                name: "private",
                id: options.sign_pair(channel.id, channel.public_id),
                public_id: Some(options.sign_public_channel(channel.public_id)),
                starts_s: channel.created_s,
                ends_s: channel.created_s.saturating_add(FREE_CHANNEL_TTL_S),
            };
            return Ok((vec![listed], vec![channel.id.to_string(), channel.public_id.to_string()]));
        }
        let (shared, own) = match request.application {
            Some(client_id) => (ChannelKind::named(client_id)?, ChannelKind::named(client_id)?),
            None => (ChannelKind::Shared, ChannelKind::Private),
        };
        let (mut listed, mut heard) = (Vec::new(), Vec::new());
        if let Some(channel) = self.obtainable(0, &shared).await? {
            heard.push(channel.id.to_string());
            listed.push(ListedChannel::of("shared", &channel, options));
        }
        if let Some(channel) = self.obtainable(request.user, &own).await? {
            // A token's user stands for the channel; guests have no user in theirs.
            if request.user < 0 {
                heard.push(channel.id.to_string());
            }
            listed.push(ListedChannel::of("private", &channel, options));
        }
        Ok((listed, heard))
    }

    /// A channel, or `None` where a configuration does without.
    async fn obtainable(
        &self,
        user: i64,
        kind: &ChannelKind,
    ) -> Result<Option<Channel>, ChannelError> {
        match self.channel(user, kind).await {
            Ok(channel) => Ok(Some(channel)),
            Err(ChannelError::InactiveUser(_) | ChannelError::Guest | ChannelError::Locked) => {
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    /// The configuration of old clients, a JavaScript literal. `#DOMAIN#` stays: their script replaces
    /// it. In the cloud the cloud's addresses are given, unlike by the PHP module, whose local ones cannot
    /// work with the cloud's key.
    ///
    /// # Errors
    /// As [`Tenant::channel`].
    pub async fn legacy_config(
        &self,
        user: i64,
        site: &str,
        is_https: bool,
    ) -> Result<String, ChannelError> {
        if !self.options(site).await?.is_server_on() {
            return Err(ChannelError::ServerOff);
        }
        self.polling_config(user, site, is_https).await
    }

    /// The same; without a queue server it tells the client to poll (module.md §10).
    ///
    /// # Errors
    /// When the user can have no channel, or the database fails.
    pub async fn polling_config(
        &self,
        user: i64,
        site: &str,
        is_https: bool,
    ) -> Result<String, ChannelError> {
        let options = self.options(site).await?;
        let polls = !options.is_server_on();
        let mut channels = vec![self.any_channel(user, &ChannelKind::Private, &options).await?];
        if user > 0
            && !polls
            && let Some(shared) = self.obtainable(0, &ChannelKind::Shared).await?
        {
            channels.push(shared);
        }
        let join = |part: &dyn Fn(&Channel) -> String| {
            channels.iter().map(part).collect::<Vec<_>>().join("/")
        };
        // Whoever polls names the bare id.
        let ids = join(&|channel| match polls {
            true => channel.id.to_string(),
            false => options.sign_for_listener(channel),
        });
        let generation = options.generation();
        let public_id =
            channels[0].public_id.filter(|_| generation.has_public_channels() && !polls);
        let [long_polling, websocket, publish] = addresses(&options, None);
        let client = if options.is_cloud() {
            format!("&clientId={}", options.cloud_client_id())
        } else {
            String::new()
        };
        let path = |addresses: &[String; 2], is_offered: bool| match is_offered {
            true => format!("{}?CHANNEL_ID={ids}{client}", addresses[usize::from(is_https)]),
            false => String::new(),
        };
        let mut entries = Vec::new();
        if !options.has_headers() {
            entries.push(("HEADERS", "N".to_owned()));
        }
        entries.extend([
            ("CHANNEL_ID", ids.clone()),
            (
                "CHANNEL_PUBLIC_ID",
                public_id.map_or_else(String::new, |id| options.sign_public_channel(id)),
            ),
            ("CHANNEL_DT", join(&|channel| channel.created_s.to_string())),
            ("USER_ID", user.to_string()),
            ("LAST_ID", channels[0].last_id.to_string()),
            ("PATH", if polls { POLLING_PATH.to_owned() } else { path(&long_polling, true) }),
            ("PATH_PUB", path(&publish, generation.has_public_channels() && !polls)),
            ("PATH_WS", path(&websocket, options.has_legacy_websockets() && !polls)),
            ("PATH_COMMAND", String::new()),
            ("METHOD", if polls { "PULL" } else { "LONG" }.to_owned()),
            ("REVISION", REVISION_WEB.to_string()),
            ("ERROR", String::new()),
        ]);
        let entries = entries.into_iter().map(|(name, value)| (name, Value::Text(value)));
        Ok(Value::map(entries).to_literal())
    }
}

impl ListedChannel {
    fn of(name: &'static str, channel: &Channel, options: &Options) -> Self {
        let has_public = options.generation().has_public_channels();
        let public_id = channel.public_id.filter(|_| has_public);
        let public_id = public_id.map_or_else(String::new, |id| options.sign_public_channel(id));
        Self {
            name,
            id: options.sign_for_listener(channel),
            public_id: (name == "private").then_some(public_id),
            starts_s: channel.created_s,
            ends_s: channel.ends_s(),
        }
    }
}

impl Shape {
    fn time(self, unix_s: u64) -> Value {
        match self {
            Self::Json => Value::Text(date::atom(unix_s)),
            Self::Upper => Value::Int(i64::try_from(unix_s).unwrap_or(i64::MAX)),
        }
    }

    fn name(self, name: &str) -> String {
        match (self, name) {
            (Self::Json, _) => name.to_owned(),
            (Self::Upper, "clientId") => "CLIENT_ID".into(),
            (Self::Upper, "publicChannels") => "PUBLIC_CHANNELS".into(),
            (Self::Upper, _) => name.to_ascii_uppercase(),
        }
    }

    fn map<'a>(self, entries: impl IntoIterator<Item = (&'a str, Value)>) -> Value {
        let entry = |(name, value)| (Value::Text(self.name(name)), value);
        Value::Array(entries.into_iter().map(entry).collect())
    }
}

impl ClientConfig {
    /// The configuration in the order that the PHP module gives it.
    #[must_use]
    pub fn to_value(&self, shape: Shape) -> Value {
        let mut entries = vec![
            ("server", self.server.to_value(shape)),
            (
                "api",
                shape.map([
                    ("revision_web", Value::Int(REVISION_WEB)),
                    ("revision_mobile", Value::Int(REVISION_MOBILE)),
                ]),
            ),
        ];
        if !self.channels.is_empty() {
            let channels = self.channels.iter().map(|it| (it.name, it.to_value(shape)));
            entries.push(("channels", shape.map(channels)));
        }
        if let Some(client_id) = &self.client_id {
            entries.push(("clientId", Value::text(client_id)));
        }
        if let Some(token) = &self.token {
            entries.push(("jwt", Value::text(token)));
        }
        if let Some(expires_s) = self.expires_s {
            let expires = i64::try_from(expires_s).unwrap_or(i64::MAX);
            entries.push(("exp", Value::Int(expires)));
        }
        let public = self.public_channels.as_ref();
        let public = public.map_or(Value::Bool(false), |ids| public_channels(ids, shape));
        entries.push(("publicChannels", public));
        shape.map(entries)
    }

    /// [`ClientConfig::to_value`] as JSON, in the shape of clients.
    #[must_use]
    pub fn to_json(&self) -> String {
        self.to_value(Shape::Json).to_json()
    }
}

/// Public ids by user, as clients get them (module.md §4.7).
#[must_use]
pub fn public_channels(ids: &[PublicId], shape: Shape) -> Value {
    Value::Array(ids.iter().map(|id| (Value::Int(id.user), public_channel(id, shape))).collect())
}

/// One of them.
#[must_use]
pub fn public_channel(id: &PublicId, shape: Shape) -> Value {
    shape.map([
        ("user_id", Value::Int(id.user)),
        ("public_id", Value::Text(id.public_id.to_string())),
        ("signature", Value::text(&id.signature)),
        ("start", shape.time(id.starts_s)),
        ("end", shape.time(id.ends_s)),
    ])
}

impl Server {
    fn to_value(&self, shape: Shape) -> Value {
        let text = |text: &String| Value::text(text);
        shape.map([
            ("version", Value::Int(self.version)),
            ("server_enabled", Value::Bool(true)),
            ("mode", Value::text(self.mode)),
            ("hostname", text(&self.host_name)),
            ("long_polling", text(&self.long_polling[0])),
            // Misspelt on the wire as well (M-031).
            ("long_pooling_secure", text(&self.long_polling[1])),
            ("websocket_enabled", Value::Bool(self.has_websockets)),
            ("websocket", text(&self.websocket[0])),
            ("websocket_secure", text(&self.websocket[1])),
            ("publish_enabled", Value::Bool(self.has_publishing)),
            ("publish", text(&self.publish[0])),
            ("publish_secure", text(&self.publish[1])),
            ("config_timestamp", Value::Int(self.config_timestamp)),
        ])
    }
}

impl ListedChannel {
    fn to_value(&self, shape: Shape) -> Value {
        let mut entries = vec![("id", Value::text(&self.id))];
        if let Some(public_id) = &self.public_id {
            entries.push(("public_id", Value::text(public_id)));
        }
        entries.push(("start", shape.time(self.starts_s)));
        entries.push(("end", shape.time(self.ends_s)));
        if shape == Shape::Json {
            entries.push(("type", Value::text(self.name)));
        }
        shape.map(entries)
    }
}
