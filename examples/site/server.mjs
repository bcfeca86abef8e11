// The back end of the example: who is signed in, what was said, and what each page may ask of vestnik. Needs
// VESTNIK_SECRET (`vestnik secret add site`); VESTNIK_URL and PORT unless they are the usual ones.
import { randomBytes, randomInt } from 'node:crypto'
import fs from 'node:fs'
import http from 'node:http'
import { createRequire } from 'node:module'
import path from 'node:path'
import { Client, ServiceError } from '../../clients/typescript/src/index.js' // '@vestnik/client'

const { VESTNIK_URL = 'http://127.0.0.1:8895', VESTNIK_SECRET, PORT = '3000', SDK } = process.env
if (!VESTNIK_SECRET) {
  console.error('VESTNIK_SECRET is missing: make one with `vestnik secret add site`')
  process.exit(1)
}
const vestnik = new Client(VESTNIK_URL, { secret: VESTNIK_SECRET })

/** Whoever watches this tag sees the counter: signed-in users only. */
const COUNTER = 'CHAT_COUNTER'
const MESSAGES_MAX = 100
const SESSIONS_MAX = 10_000
const BODY_BYTES_MAX = 16 * 1024

/** Signed-in users by name: an example has no passwords. Guests have negative numbers. */
const users = new Map()
const sessions = new Map()
const messages = []
let count = 0

const sdk = SDK ?? path.join(path.dirname(createRequire(import.meta.url).resolve('@bitrix24/b24jssdk/package.json')), 'dist/umd/index.min.js')
const files = {
  '/': ['text/html; charset=utf-8', new URL('page.html', import.meta.url)],
  '/page.js': ['text/javascript', new URL('page.js', import.meta.url)],
  '/sdk.js': ['text/javascript', sdk]
}

/** What went wrong with a request, for its sender. */
class Refusal extends Error {
  constructor(status, message) {
    super(message)
    this.status = status
  }
}

/** The visitor of a request; a new one is a guest. */
function visitor(request, response) {
  const id = /(?:^|;\s*)session=([0-9a-f]{32})/.exec(request.headers.cookie ?? '')?.[1]
  const known = sessions.get(id)
  if (known) return known
  const fresh = randomBytes(16).toString('hex')
  const guest = { id: -randomInt(1, 2 ** 31), name: 'guest' }
  if (sessions.size >= SESSIONS_MAX) sessions.delete(sessions.keys().next().value)
  sessions.set(fresh, guest)
  response.setHeader('set-cookie', `session=${fresh}; HttpOnly; SameSite=Strict; Path=/`)
  return guest
}

async function body(request) {
  // Pages of other sites cannot send this kind without asking first.
  if (!request.headers['content-type']?.startsWith('application/json')) throw new Refusal(415, 'JSON is needed')
  let text = ''
  for await (const part of request.setEncoding('utf8')) {
    text += part
    if (text.length > BODY_BYTES_MAX) throw new Refusal(413, 'too long')
  }
  try {
    return JSON.parse(text)
  } catch {
    throw new Refusal(400, 'no JSON')
  }
}

const text = (value, max) => {
  if (typeof value !== 'string' || value.trim() === '' || value.length > max) throw new Refusal(400, `a text of 1 to ${max} characters is needed`)
  return value.trim()
}

function signedIn(me) {
  if (me.id <= 0) throw new Refusal(403, 'sign in first')
}

const actions = {
  '/me': async me => {
    // Who is signed in may see the counter, so they may watch it. The page extends the watch from then on.
    if (me.id > 0) await vestnik.watch(me.id, COUNTER)
    return { ...me, messages, count: me.id > 0 ? count : null }
  },
  '/sign-in': async (me, { name }) => {
    name = text(name, 40)
    if (!users.has(name)) users.set(name, users.size + 1)
    Object.assign(me, { id: users.get(name), name })
    return me
  },
  // What the SDK asks of a portal: for this visitor alone, whatever the page says.
  '/pull': async (me, { method, params }) => {
    if (method === 'pull.config.get') return vestnik.config(me.id, new URL(VESTNIK_URL).host)
    if (method === 'pull.watch.extend') {
      const tags = [params?.tags ?? params?.TAGS ?? []].flat().map(String)
      return me.id > 0 && tags.length > 0 ? vestnik.extendWatches(me.id, ...tags) : {}
    }
    throw new Refusal(403, `pages may not call ${String(method)}`)
  },
  '/say': async (me, { text: said }) => {
    signedIn(me)
    const message = { from: me.name, text: text(said, 2000) }
    messages.push(message)
    if (messages.length > MESSAGES_MAX) messages.shift()
    count += 1
    await vestnik.publishAll([
      { recipients: { shared: true }, module_id: 'chat', command: 'message', params: message },
      { recipients: { tags: [COUNTER] }, module_id: 'chat', command: 'counter', params: { count } }
    ])
    return true
  },
  '/whisper': async (me, { to, text: said }) => {
    signedIn(me)
    const user = users.get(to)
    if (!user) throw new Refusal(404, `nobody is called ${String(to).slice(0, 40)}`)
    await vestnik.publish({ recipients: { users: [user] }, module_id: 'chat', command: 'whisper', params: { from: me.name, text: text(said, 2000) } })
    return true
  }
}

async function answer(request, response) {
  const file = request.method === 'GET' && files[request.url]
  if (file) return response.writeHead(200, { 'content-type': file[0] }).end(fs.readFileSync(file[1]))
  const action = request.method === 'POST' && Object.hasOwn(actions, request.url) && actions[request.url]
  if (!action) return response.writeHead(404).end()
  const json = (status, value) => response.writeHead(status, { 'content-type': 'application/json' }).end(JSON.stringify(value))
  try {
    const input = await body(request)
    if (typeof input !== 'object' || input === null) throw new Refusal(400, 'an object is needed')
    return json(200, { result: await action(visitor(request, response), input) })
  } catch (error) {
    if (error instanceof Refusal) return json(error.status, { error: error.message })
    console.error(error instanceof ServiceError ? error.message : error)
    return json(502, { error: 'vestnik does not answer as it should' })
  }
}

const server = http.createServer((request, response) => {
  answer(request, response).catch(error => {
    console.error(error)
    response.destroy()
  })
})
server.listen(Number(PORT), '127.0.0.1', () => console.log(`example site: http://127.0.0.1:${server.address().port}/`))
