// Against a real service: VESTNIK_URL, VESTNIK_SECRET (of a back end) and VESTNIK_KEY (the signature key).
import assert from 'node:assert/strict'
import { createHmac } from 'node:crypto'
import { once } from 'node:events'
import net from 'node:net'
import { test } from 'node:test'
import { inspect } from 'node:util'
import { Client, ServiceError, TransportError } from '../src/index.js'

const { VESTNIK_URL: url, VESTNIK_SECRET: secret, VESTNIK_KEY: key } = process.env
const client = new Client(url, { secret })
const hmac = text => createHmac('sha1', key).update(text).digest('hex')

test('an event is published and a watch is kept', async () => {
  assert.equal(await client.watch(8, 'DEAL_1', 'Сделка'), true)
  assert.deepEqual(await client.extendWatches(8, 'DEAL_1', 'Сделка', 'NO'), { DEAL_1: true, 'Сделка': true, NO: false })
  assert.deepEqual(await client.watchingUsers('DEAL_1'), [8])
  await client.publish({ recipients: { users: [8], tags: ['DEAL_1'], shared: true }, module_id: 'chat', command: 'message', params: { text: 'Привет 🔑' } })
  await client.publish({ recipients: [8], module_id: 'chat', command: 'm', user_params: { 8: { a: 1 } }, expiry: 60 })
  assert.equal(await client.unwatch(8, 'DEAL_1'), true)
  assert.equal(await client.unwatch(8), true)
  assert.equal(await client.unwatch(8), false)
})

test('each event of a list has its own result', async () => {
  const results = await client.publishAll([
    { recipients: { users: [1] }, module_id: 'm', command: 'one' },
    { recipients: { users: [] }, module_id: 'm', command: 'nobody' },
    { recipients: { shared: true }, module_id: 'm', command: 'two' }
  ])
  assert.deepEqual(results.map(result => result?.code), [undefined, 'RECIPIENT_FORMAT', undefined])
})

test('a page gets its configuration, channels are signed as the key signs', async () => {
  const config = await client.config(8, 'shop.example')
  assert.equal(config.channels.private.type, 'private')
  assert.match(config.server.websocket, /^ws:/)
  assert.ok((await client.token(8, 60)).token.length > 20)
  const id = '00112233445566778899aabbccddeeff'
  assert.equal(await client.signChannel(id), `${id}.${hmac(id)}`)
  assert.equal(await client.signPublicChannel(id), `${id}.${hmac(`public:${id}`)}`)
  const channel = await client.channel(8)
  assert.equal((await client.publicChannels([8]))[8].public_id, channel.public_id)
  assert.equal((await new Client(url, { key }).channel(8)).id, channel.id)
})

test('errors have the codes of the service', async () => {
  await assert.rejects(client.publish({ recipients: { users: [] }, module_id: 'm', command: 'c' }),
    error => error instanceof ServiceError && error.code === 'RECIPIENT_FORMAT' && error.status === 400 && !error.isUncertain)
  await assert.rejects(client.call('no.such'), { code: 'ERROR_METHOD_NOT_FOUND', status: 404 })
  for (const wrong of [{ secret: 'wrong' }, { key: 'wrong' }, { key, hostId: 'nobody' }]) {
    await assert.rejects(new Client(url, wrong).config(1), { code: 'NO_AUTH_FOUND', status: 401 })
  }
  assert.throws(() => new Client(url, { secret: 'a\r\nx: y' }), TypeError)
  assert.throws(() => new Client('ftp://x', { secret: 's' }), TypeError)
  assert.ok(!inspect(client, { depth: 5, showHidden: true }).includes(secret))
})

test('nobody there is certain, a server that says nothing is not', async () => {
  const left = net.createServer().listen(0, '127.0.0.1')
  await once(left, 'listening')
  const { port } = left.address()
  left.close()
  await once(left, 'close')
  const nobody = new Client(`http://127.0.0.1:${port}`, { secret: 's' }, { attempts: 1 })
  await assert.rejects(nobody.config(1), error => error instanceof TransportError && !error.isUncertain)
  const silent = net.createServer().listen(0, '127.0.0.1')
  await once(silent, 'listening')
  const slow = new Client(`http://127.0.0.1:${silent.address().port}`, { secret: 's' }, { attempts: 1, timeout: 300 })
  await assert.rejects(slow.publish({ recipients: [1], module_id: 'm', command: 'c' }),
    error => error instanceof TransportError && error.isUncertain && /300 ms/.test(error.message))
  silent.close()
})

/** How many requests a call makes when these answers come. */
async function requests(answers, call) {
  let count = 0
  const fetch = async () => {
    const answer = answers[count++]
    if (typeof answer === 'string') throw Object.assign(new TypeError('fetch failed'), { cause: { code: answer, message: answer } })
    return new Response(answer[1], { status: answer[0] })
  }
  await call(new Client('http://example.test', { secret: 's' }, { fetch })).catch(error => assert.equal(error.name.endsWith('Error'), true))
  return count
}

test('events are repeated only when nothing was published', async () => {
  const publish = it => it.publish({ recipients: [1], module_id: 'm', command: 'c' })
  const busy = [503, '{"error":"SERVICE_UNAVAILABLE","error_description":"x"}']
  assert.equal(await requests(['ECONNRESET'], publish), 1)
  assert.equal(await requests(['ECONNREFUSED', 'ENOTFOUND', 'ECONNREFUSED'], publish), 3)
  assert.equal(await requests([busy, [200, '{"result":true}']], publish), 2)
  assert.equal(await requests([[503, '{"error":"EVENT_NOT_PUBLISHED","error_description":"x"}']], publish), 1)
  assert.equal(await requests([[503, '<html>']], publish), 1)
  const read = it => it.config(1)
  assert.equal(await requests(['ECONNRESET', [200, '{"result":{}}']], read), 2)
  assert.equal(await requests([busy, busy, busy], read), 3)
  assert.equal(await requests([[403, '{"error":"ACCESS_DENIED","error_description":"x"}']], read), 1)
})
