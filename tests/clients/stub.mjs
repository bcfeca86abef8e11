// A push server of a few lines, only to prove the clients before the real one meets them. It keeps
// nothing, checks nothing and answers in the framing that the request asks for.
import http from 'node:http'
import { WebSocketServer } from 'ws'

const CORS = { 'access-control-allow-origin': '*', 'access-control-expose-headers': 'Last-Message-Id, Expires' }

export const PRIVATE = 'b'.repeat(32)
export const PUBLIC = 'c'.repeat(32)
export const SHARED = 'a'.repeat(32)
/** Public channels of users 8 and 9 and their signatures: the receivers of the frame in clients.md §5.2. */
export const OTHERS = {
  8: { public_id: 'cc'.repeat(16), signature: '44'.repeat(20) },
  9: { public_id: 'dd'.repeat(16), signature: '55'.repeat(20) }
}

/** The message id number `seq`, 26 digits. */
export const mid = seq => `1700000000${String(seq).padStart(16, '0')}`

/** One length-delimited protobuf field. */
function field(number, bytes) {
  const size = []
  for (let rest = bytes.length; ; rest >>>= 7) {
    size.push(rest > 0x7f ? (rest & 0x7f) | 0x80 : rest)
    if (rest <= 0x7f) break
  }
  return Buffer.concat([Buffer.from([(number << 3) | 2, ...size]), bytes])
}

/** ResponseBatch with one message from the back end (clients.md §5.2). */
function protobuf(id, body) {
  const message = Buffer.concat([field(1, Buffer.from(id, 'hex')), field(2, Buffer.from(JSON.stringify(body))),
    field(5, Buffer.from([0x08, 0x02]))])
  return field(1, field(1, field(1, message)))
}

const text = (id, body) => '#!NGINXNMS!#' + JSON.stringify({ id: Number(id.slice(10)), mid: id, channel: SHARED,
  tag: '122', time: 'Thu, 01 Jan 2026 00:00:02 GMT', text: body }) + '#!NGINXNME!#'

const jsonRpc = (id, body) => JSON.stringify({ jsonrpc: '2.0', method: 'incoming.message',
  params: { mid: id, sender: { type: 2 }, body } })

function framing(url) {
  if (url.searchParams.get('jsonRpc') === 'true') return jsonRpc
  return url.searchParams.get('binaryMode') === 'true' ? protobuf : text
}

/** Starts the stub. `say(seq, body)` reaches every connection; `next(kind)` waits for what came in. */
export async function startStub() {
  const arrived = []
  const waiting = []
  const arrive = thing => {
    const at = waiting.findIndex(({ kind }) => kind === thing.kind)
    if (at < 0) arrived.push(thing)
    else waiting.splice(at, 1)[0].resolve(thing)
  }
  const polls = new Set()
  const server = http.createServer((request, response) => {
    const url = new URL(request.url, 'http://stub')
    if (request.method === 'POST') {
      const chunks = []
      request.on('data', chunk => chunks.push(chunk))
      request.on('end', () => {
        response.writeHead(200, CORS).end()
        arrive({ kind: 'post', url, headers: request.headers, body: Buffer.concat(chunks) })
      })
      return
    }
    const poll = { kind: 'poll', url, headers: request.headers, response, aborted: false }
    polls.add(poll)
    response.on('close', () => {
      if (polls.delete(poll)) arrive({ kind: 'aborted' })
    })
    arrive(poll)
  })
  const sockets = new WebSocketServer({ server })
  sockets.on('connection', (socket, request) => {
    const url = new URL(request.url, 'http://stub')
    socket.frame = framing(url)
    socket.on('message', (data, binary) => arrive({ kind: 'frame', data, binary }))
    socket.on('close', (code, reason) => arrive({ kind: 'close', code, reason: String(reason) }))
    arrive({ kind: 'socket', url, headers: request.headers, socket })
  })
  await new Promise(done => server.listen(0, '127.0.0.1', done))
  const host = `127.0.0.1:${server.address().port}`

  return {
    say(seq, body) {
      for (const socket of sockets.clients) socket.send(socket.frame(mid(seq), body))
      for (const poll of polls) {
        polls.delete(poll)
        poll.response.writeHead(200, CORS).end(framing(poll.url)(mid(seq), body))
      }
    },
    /** Ends all polls as a timeout: 304 with the position (clients.md §7). */
    silence(seq) {
      for (const poll of polls) {
        polls.delete(poll)
        poll.response.writeHead(304, { ...CORS, expires: 'Thu, 01 Jan 1973 11:11:01 GMT', 'last-message-id': mid(seq) }).end()
      }
    },
    /** Ends all polls with `status` and headers of its own. */
    refuse(status, headers) {
      for (const poll of polls) {
        polls.delete(poll)
        poll.response.writeHead(status, headers).end('4010: Wrong Channel Id.')
      }
    },
    next: kind => new Promise(resolve => {
      const at = arrived.findIndex(thing => thing.kind === kind)
      if (at < 0) waiting.push({ kind, resolve })
      else resolve(arrived.splice(at, 1)[0])
    }),
    settings: (version, changes = {}) => ({
      userId: 7,
      ...changes,
      server: { version, websocket: `ws://${host}/bitrix/subws/`, long_polling: `http://${host}/bitrix/sub/`,
        publish: `http://${host}/bitrix/pubweb/`, ...changes.server },
      channels: { private: { id: version > 3 ? `${PRIVATE}:${PUBLIC}.222` : `${PRIVATE}.222`, public_id: `${PUBLIC}.333` },
        shared: { id: `${SHARED}.111` } },
      publicChannels: OTHERS
    }),
    async stop() {
      for (const socket of sockets.clients) socket.terminate()
      server.closeAllConnections()
      await new Promise(done => server.close(done))
    }
  }
}
