// The half of a client that is the same in Node and in a browser: builds the unmodified SDK pull
// client, reports what happens to it as events and lets the test steer it by commands. README.md
// describes both. It must not know how events and commands travel, nor touch the SDK's insides.

/** How long generated channels and public channels stay valid, in milliseconds (clients.md §2.3). */
const CHANNEL_LIFE_MS = 43_205_000

/** Levels of the SDK's logger that are reported; below them it only chats. */
const REPORTED_LEVELS = new Set(['notice', 'warning', 'error', 'critical', 'alert', 'emergency'])
const LEVELS = ['log', 'debug', 'info', ...REPORTED_LEVELS]

/**
 * The answer of `pull.config.get`, completed to what the SDK insists on (clients.md §17.1): dates
 * of every channel, numeric revision and timestamp, the server's time.
 */
export function pullConfig(settings) {
  const now = Date.now()
  const life = { start: new Date(now).toISOString(), end: new Date(now + CHANNEL_LIFE_MS).toISOString() }
  const channels = {}
  for (const type of ['shared', 'private']) {
    if (settings.channels?.[type]) channels[type] = { ...life, type, ...settings.channels[type] }
  }
  const server = { server_enabled: true, mode: 'personal', hostname: 'portal.test', config_timestamp: 0,
    websocket_enabled: true, publish_enabled: true, ...settings.server }
  server.websocket_secure ??= server.websocket
  server.long_pooling_secure ??= server.long_polling
  server.publish_secure ??= server.publish
  const config = { server, api: { revision_web: 19, revision_mobile: 3 }, channels,
    publicChannels: publicChannels(settings.publicChannels, life), serverTime: new Date(now).toISOString() }
  if (settings.jwt) Object.assign(config, { jwt: settings.jwt, exp: Math.floor((now + CHANNEL_LIFE_MS) / 1000) })
  if (settings.clientId) config.clientId = settings.clientId
  return config
}

/** Public channels by user id, with the members PHP sends and a test need not spell. */
function publicChannels(given, life) {
  const list = {}
  for (const [user, channel] of Object.entries(given ?? {})) list[user] = { user_id: Number(user), ...life, ...channel }
  return list
}

/**
 * Reports every WebSocket and XMLHttpRequest made from here on, by subclasses put in place of the
 * two global names. Their behaviour is untouched: what the SDK meets is the platform's own.
 */
export function observeTransports(scope, tell, frames) {
  const NativeSocket = scope.WebSocket
  scope.WebSocket = class WebSocket extends NativeSocket {
    constructor(url, ...rest) {
      tell({ event: 'url', transport: 'websocket', method: 'GET', url: String(url) })
      super(url, ...rest)
      this.addEventListener('open', () => tell({ event: 'open', protocol: this.protocol, extensions: this.extensions }))
      this.addEventListener('error', () => tell({ event: 'socket-error' }))
      this.addEventListener('close', ({ code, reason, wasClean }) =>
        tell({ event: 'closed', code, reason, clean: wasClean }))
      if (frames) this.addEventListener('message', ({ data }) => tell({ event: 'received', ...printable(data) }))
    }

    send(data) {
      if (frames) tell({ event: 'sent', ...printable(data) })
      super.send(data)
    }
  }

  const NativeRequest = scope.XMLHttpRequest
  scope.XMLHttpRequest = class XMLHttpRequest extends NativeRequest {
    #method = ''

    constructor() {
      super()
      this.addEventListener('readystatechange', () => {
        if (this.readyState !== 4) return
        const answer = { event: 'answered', method: this.#method, status: this.status,
          last_message_id: this.status ? this.getResponseHeader('Last-Message-Id') : null }
        tell(frames && this.status === 200 ? { ...answer, ...printable(this.response) } : answer)
      })
    }

    open(method, url, ...rest) {
      this.#method = method
      tell({ event: 'url', transport: 'long-polling', method, url: String(url) })
      super.open(method, url, ...rest)
    }

    send(body) {
      if (frames && body) tell({ event: 'sent', ...printable(body) })
      super.send(body)
    }
  }
}

/** A frame or body as JSON can carry it: `text`, or lowercase `hex` when it is binary. */
function printable(data) {
  if (typeof data === 'string') return { text: data }
  const bytes = ArrayBuffer.isView(data)
    ? new Uint8Array(data.buffer, data.byteOffset, data.byteLength)
    : new Uint8Array(data ?? 0)
  return { hex: Array.from(bytes, byte => byte.toString(16).padStart(2, '0')).join('') }
}

/** Any thrown or logged value as a line of text. */
export function describe(value) {
  if (value instanceof Error) return value.message
  if (typeof value === 'string') return value
  return JSON.stringify(value, (_, inner) => (inner instanceof Error ? inner.message : inner)) ?? String(value)
}

/** Logger that the SDK accepts: every method returns a promise. */
function logger(tell) {
  const report = level => async (message, context) => {
    if (REPORTED_LEVELS.has(level)) tell({ event: 'log', level, message, context: describe(context ?? {}) })
  }
  return Object.fromEntries(LEVELS.map(level => [level, report(level)]))
}

/**
 * Creates the client, subscribes to everything the settings name and starts it.
 *
 * `tell(event)` takes one event. `options` are further constructor parameters of the SDK's client,
 * `commands` further commands of the platform. Returns `obey(command)`, which never rejects.
 */
export function drive({ B24PullClientManager, settings, tell, options = {}, commands = {} }) {
  let current = settings
  const reply = result => ({ getData: () => ({ result }) })
  const rest = async (method, params) => {
    tell({ event: 'rest', method, params })
    if (method.endsWith('config.get')) return reply(pullConfig(current))
    if (method === 'pull.channel.public.list') {
      const life = { start: new Date().toISOString(), end: new Date(Date.now() + CHANNEL_LIFE_MS).toISOString() }
      return reply(publicChannels(current.publicList, life))
    }
    if (method === 'pull.watch.extend') return reply([])
    if (method === 'pull.api.user.getLastSeen') return reply(current.lastSeen ?? {})
    throw new Error(`the stub portal has no method ${method}`)
  }
  const b24 = {
    callMethod: rest,
    actions: { v2: { call: { make: ({ method, params }) => rest(method, params) } } }
  }

  const client = new B24PullClientManager({
    b24, userId: settings.userId ?? 7, siteId: settings.siteId ?? 's1', serverEnabled: true, ...options
  })
  client.setLogger(logger(tell))
  for (const moduleId of settings.modules ?? ['im', 'main']) {
    for (const from of ['server', 'client']) {
      client.subscribe({ type: from, moduleId, callback: ({ command, params, extra }) =>
        tell({ event: 'message', from, module_id: moduleId, command, params, extra, sender: extra?.sender ?? null }) })
    }
  }
  client.subscribe({ type: 'online', callback: ({ command, params }) => tell({ event: 'online', command, params }) })
  client.subscribe({ type: 'revision', callback: ({ server, client: own }) => tell({ event: 'revision', server, client: own }) })
  client.subscribe({ type: 'status', callback: ({ status }) =>
    tell(status === 'online' ? { event: 'connected' } : { event: 'status', status }) })

  const known = {
    publish: ({ to, channels, module_id, command, params = {}, expiry }) => channels
      ? client.sendMessageToChannels(channels, module_id, command, params, expiry)
      : client.sendMessage(to, module_id, command, params, expiry),
    batch: ({ messages }) => client.sendMessageBatch(messages),
    session: () => {
      const { mid, tag, time, messageCount } = client.session
      tell({ event: 'session', mid, tag, time, messages: messageCount })
    },
    offline: () => { globalThis.window.dispatchEvent(new Event('offline')) },
    online: () => { globalThis.window.dispatchEvent(new Event('online')) },
    reconnect: ({ code = 3004, reason = 'manual', delay_s = 0.05 }) => client.reconnect(code, reason, delay_s),
    configure: ({ settings: next }) => { current = next },
    'list-channels': () => client.listChannels(),
    'last-seen': ({ users }) => client.getUsersLastSeen(users),
    ping: ({ timeout_s }) => client.ping(timeout_s),
    'watch-status': ({ user }) => client.subscribeUserStatusChange(user, change => tell({ event: 'user-status', ...change })),
    ...commands
  }

  client.start().then(() => tell({ event: 'started' }), error => tell({ event: 'start-failed', message: describe(error) }))

  return async command => {
    const { do: name, id } = command
    try {
      if (!Object.hasOwn(known, name)) throw new Error(`unknown command ${name}`)
      tell({ event: 'done', do: name, id, result: (await known[name](command)) ?? null })
    } catch (error) {
      tell({ event: 'failed', do: name, id, message: describe(error) })
    }
  }
}
