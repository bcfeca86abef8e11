// Proves the two driven clients against the stub: `node --test` in this folder.
import assert from 'node:assert/strict'
import fs from 'node:fs'
import path from 'node:path'
import { describe, test } from 'node:test'
import { spawn } from 'node:child_process'
import { createInterface } from 'node:readline'
import { fileURLToPath } from 'node:url'
import { OTHERS, mid, startStub } from './stub.mjs'

const FOLDER = path.dirname(fileURLToPath(import.meta.url))
const WAIT_MS = 30_000

/** The publish frame of clients.md §5.2, byte for byte. */
const PUBLISHED = Buffer.concat([
  Buffer.from('0a90010a8d010a8a01', 'hex'),
  ...Object.values(OTHERS).map(({ public_id, signature }) => Buffer.from(`0a280a10${public_id}1a14${signature}`, 'hex')),
  Buffer.from('1a32', 'hex'), Buffer.from('{"module_id":"im","command":"hi","params":{"t":1}}'),
  Buffer.from('201e', 'hex')
])

/** Starts `<kind>-client.mjs`. `expect(matches)` takes the first matching event, `send` commands it. */
function startClient(kind, settings) {
  const child = spawn(process.execPath, [path.join(FOLDER, `${kind}-client.mjs`)], { stdio: ['pipe', 'pipe', 'inherit'] })
  const seen = []
  const waiting = []
  createInterface({ input: child.stdout }).on('line', line => {
    const event = JSON.parse(line)
    const at = waiting.findIndex(({ matches }) => matches(event))
    if (at < 0) seen.push(event)
    else waiting.splice(at, 1)[0].resolve(event)
  })
  const exited = new Promise(done => child.once('exit', (code, signal) => done({ code, signal })))
  child.stdin.write(`${JSON.stringify(settings)}\n`)
  return {
    send: command => child.stdin.write(`${JSON.stringify(command)}\n`),
    expect(matches) {
      const at = seen.findIndex(matches)
      if (at >= 0) return Promise.resolve(seen.splice(at, 1)[0])
      return new Promise((resolve, reject) => {
        const timer = setTimeout(() => reject(new Error(`no such event in ${WAIT_MS} ms; seen: ${JSON.stringify(seen)}`)), WAIT_MS)
        waiting.push({ matches, resolve: event => { clearTimeout(timer); resolve(event) } })
      })
    },
    async end() {
      child.stdin.end()
      return exited
    },
    kill: () => child.kill()
  }
}

/** A test with a stub and a client that are ended whatever happens. */
function withClient(name, kind, version, changes, body) {
  test(name, { timeout: 2 * WAIT_MS }, async () => {
    const stub = await startStub()
    const client = startClient(kind, stub.settings(version, changes))
    try {
      await body(client, stub)
      const { code } = await client.end()
      assert.equal(code, 0)
    } finally {
      client.kill()
      await stub.stop()
    }
  })
}

const named = (event, command) => given => given.event === event && (command === undefined || given.command === command)
const event = (module_id, command, params = {}) => ({ module_id, command, params })
const PUBLISH = { do: 'publish', to: [8, 9], ...event('im', 'hi', { t: 1 }), expiry: 30 }

// Most of a client's life is waiting, so several share the processors.
describe('driven clients', { concurrency: 4 }, () => {
  for (const kind of ['node', 'chromium']) {
    for (const version of [3, 4, 5]) {
      const changes = version === 5 ? { jwt: 'a.b.c' } : {}
      withClient(`${kind}, generation ${version}, web socket: url, event, position`, kind, version, changes, async (client, stub) => {
        const { url, headers } = await stub.next('socket')
        assert.equal(url.pathname, '/bitrix/subws/')
        assert.equal(url.searchParams.get('revision'), '19')
        assert.equal(url.searchParams.get('binaryMode'), version === 4 ? 'true' : null)
        assert.equal(url.searchParams.get('jsonRpc'), version === 5 ? 'true' : null)
        assert.ok(headers.origin)
        await client.expect(named('connected'))
        stub.say(1, event('im', 'hello', { n: 1 }))
        stub.say(2, event('main', 'hello', { n: 2 }))
        const first = await client.expect(named('message'))
        assert.deepEqual([first.from, first.module_id, first.params], ['server', 'im', { n: 1 }])
        assert.equal(first.sender?.type, version === 3 ? undefined : 2)
        assert.equal((await client.expect(named('message'))).module_id, 'main')
        client.send({ do: 'session' })
        assert.equal((await client.expect(named('session'))).mid, mid(2))
        client.send({ do: 'offline' })
        const closed = await stub.next('close')
        assert.equal(closed.code, 1000)
        client.send({ do: 'online' })
        assert.equal((await stub.next('socket')).url.searchParams.get('mid'), mid(2))
      })

      withClient(`${kind}, generation ${version}, long polling: event, silence, position`, kind, version,
        { ...changes, server: { websocket_enabled: false } }, async (client, stub) => {
          assert.equal((await stub.next('poll')).url.pathname, '/bitrix/sub/')
          stub.say(1, event('im', 'hello', { n: 1 }))
          await client.expect(named('connected'))
          assert.deepEqual((await client.expect(named('message'))).params, { n: 1 })
          assert.equal((await stub.next('poll')).url.searchParams.get('mid'), mid(1))
          stub.silence(5)
          assert.equal((await client.expect(given => given.status === 304)).last_message_id, mid(5))
          assert.equal((await stub.next('poll')).url.searchParams.get('mid'), mid(5))
          client.send({ do: 'offline' })
          await stub.next('aborted')
          client.send({ do: 'online' })
          assert.equal((await stub.next('poll')).url.searchParams.get('mid'), mid(5))
        })
    }

    withClient(`${kind}, generation 4, publishes by web socket`, kind, 4, {}, async (client, stub) => {
      await client.expect(named('connected'))
      client.send(PUBLISH)
      assert.equal((await stub.next('frame')).data.toString('hex'), PUBLISHED.toString('hex'))
      await client.expect(given => given.event === 'done' && given.do === 'publish')
    })

    withClient(`${kind}, generation 4, publishes by post when it polls`, kind, 4, { server: { websocket_enabled: false } },
      async (client, stub) => {
        await stub.next('poll')
        client.send(PUBLISH)
        const { url, headers, body } = await stub.next('post')
        assert.equal(body.toString('hex'), PUBLISHED.toString('hex'))
        assert.equal(headers['content-type'], undefined)
        assert.equal(url.searchParams.get('CHANNEL_ID').split('/').length, 2)
      })

    withClient(`${kind}, generation 4, a publish to an unknown user is an unhandled rejection`, kind, 4, {},
      async (client) => {
        await client.expect(named('connected'))
        client.send({ ...PUBLISH, to: [77] })
        assert.equal((await client.expect(given => given.method === 'pull.channel.public.list')).params.users[0], 77)
        assert.match((await client.expect(named('unhandled-rejection'))).message, /public id for user 77/)
      })

    withClient(`${kind}, generation 3, refuses to publish`, kind, 3, {}, async (client) => {
      await client.expect(named('connected'))
      client.send({ ...PUBLISH, id: 1 })
      assert.match((await client.expect(given => given.event === 'failed' && given.id === 1)).message, /not supported/)
    })

    withClient(`${kind}, an answer without cross-origin headers is a network error`, kind, 4,
      { server: { websocket_enabled: false } }, async (client, stub) => {
        await stub.next('poll')
        stub.refuse(200, {})
        assert.equal((await client.expect(named('answered'))).status, 0)
      })

    withClient(`${kind}, a header that is not exposed cannot be read`, kind, 4,
      { server: { websocket_enabled: false } }, async (client, stub) => {
        await stub.next('poll')
        stub.refuse(400, { 'access-control-allow-origin': '*', 'last-message-id': mid(1) })
        const answered = await client.expect(named('answered'))
        assert.deepEqual([answered.status, answered.last_message_id], [400, null])
      })

    withClient(`${kind}, a close by the server is reported and the client comes back`, kind, 4, {}, async (client, stub) => {
      const { socket } = await stub.next('socket')
      socket.close(1001, 'leaving')
      const closed = await client.expect(named('closed'))
      assert.deepEqual([closed.code, closed.reason, closed.clean], [1001, 'leaving', true])
      await stub.next('socket')
    })
  }

  withClient('chromium, a reload of the page keeps the position', 'chromium', 4, {}, async (client, stub) => {
    await client.expect(named('connected'))
    stub.say(1, event('im', 'hello'))
    await client.expect(named('message'))
    await stub.next('socket')
    client.send({ do: 'reload' })
    assert.equal((await stub.next('socket')).url.searchParams.get('mid'), mid(1))
  })

  withClient('an unknown command fails and does no harm', 'node', 4, {}, async (client) => {
    client.send({ do: 'dance', id: 'x' })
    assert.equal((await client.expect(named('failed'))).id, 'x')
    await client.expect(named('connected'))
  })
})

test('the lock file names checksums and no host', () => {
  const { packages } = JSON.parse(fs.readFileSync(path.join(FOLDER, 'package-lock.json'), 'utf8'))
  for (const [name, { resolved, integrity }] of Object.entries(packages)) {
    if (name === '') continue
    assert.equal(resolved, undefined, name)
    assert.match(integrity, /^sha512-/, name)
  }
})
