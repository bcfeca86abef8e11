// The module "Push and Pull" of a vestnik server, for back ends. No dependencies: fetch and Web Crypto.

/** Milliseconds before the second and the third attempt. */
const PAUSES_MS = [100, 400]
const HASHES = { sha1: 'SHA-1', sha256: 'SHA-256', sha384: 'SHA-384', sha512: 'SHA-512' }

/** Said before anything is published. */
const NOT_BEGUN = ['SERVICE_UNAVAILABLE', 'CHANNEL_LOCKED']
/** Said when something may have been published. */
const UNCERTAIN = ['EVENT_UNCERTAIN', 'EVENT_NOT_PUBLISHED']
/** Codes of Node that mean that no connection came about. */
const NOT_SENT = ['ECONNREFUSED', 'ENOTFOUND', 'EAI_AGAIN', 'EHOSTUNREACH', 'ENETUNREACH', 'UND_ERR_CONNECT_TIMEOUT']

export class VestnikError extends Error {
  constructor(message, isUncertain, options) {
    super(message, options)
    this.name = new.target.name
    this.isUncertain = isUncertain
  }
}

export class ServiceError extends VestnikError {
  constructor(code, description, status) {
    super(`${code}: ${description}`, UNCERTAIN.includes(code))
    this.code = code
    this.status = status
  }
}

export class TransportError extends VestnikError {}

/** Lower-case hex of the HMAC of `text`. */
async function hmac(hash, key, text) {
  const encoder = new TextEncoder()
  const imported = await crypto.subtle.importKey('raw', encoder.encode(key), { name: 'HMAC', hash }, false, ['sign'])
  const bytes = new Uint8Array(await crypto.subtle.sign('HMAC', imported, encoder.encode(text)))
  return [...bytes].map(byte => byte.toString(16).padStart(2, '0')).join('')
}

/** Whether any of the errors behind a failed fetch says that nothing was sent. */
function wasNotSent(error) {
  for (let cause = error; cause; cause = cause.cause) {
    if (NOT_SENT.includes(cause.code)) return true
    // A name with several addresses: each was tried.
    if (cause.errors?.length && cause.errors.every(one => NOT_SENT.includes(one.code))) return true
  }
  return false
}

export class Client {
  #base
  #credentials
  #timeout
  #attempts
  #fetch

  constructor(url, credentials, options = {}) {
    const { timeout = 10_000, attempts = 3, fetch = globalThis.fetch } = options
    if (!/^https?:\/\//i.test(url)) throw new TypeError('the address begins with http:// or https://')
    if (!(attempts >= 1 && attempts <= 3)) throw new TypeError('there are 1 to 3 attempts')
    if (!(timeout > 0)) throw new TypeError('the timeout is above 0 ms')
    const algorithm = credentials.algorithm ?? 'sha1'
    if ('secret' in credentials) {
      if (!/^[\x21-\x7e]+$/.test(credentials.secret)) throw new TypeError('a secret has only visible characters and at least one')
    } else if (!credentials.key) {
      throw new TypeError('the signature key is empty')
    } else if (!Object.hasOwn(HASHES, algorithm)) {
      throw new TypeError(`there is no signature algorithm ${algorithm}`)
    }
    this.#base = `${url.replace(/\/+$/, '')}/module/`
    this.#credentials = { ...credentials, algorithm }
    this.#timeout = timeout
    this.#attempts = attempts
    this.#fetch = fetch
  }

  async publish(event) {
    await this.call('pull.event.add', event, false)
  }

  async publishAll(events) {
    const results = await this.call('pull.event.addBatch', { events }, false)
    return results.map(result => result === true ? null
      : new ServiceError(String(result?.error ?? 'UNKNOWN'), String(result?.error_description ?? ''), 200))
  }

  config(userId, host = '', more = {}) {
    return this.call('pull.config.get', { USER_ID: userId, HOST: host, ...more })
  }

  token(userId, seconds = 3600) {
    return this.call('pull.token.get', { USER_ID: userId, TTL: seconds })
  }

  watch(userId, ...tags) {
    return this.call('pull.watch.add', { USER_ID: userId, TAGS: tags })
  }

  async extendWatches(userId, ...tags) {
    const extended = await this.call('pull.watch.extend', { USER_ID: userId, TAGS: tags })
    return extended === false ? {} : { ...extended }
  }

  unwatch(userId, ...tags) {
    return this.call('pull.watch.delete', { USER_ID: userId, ...tags.length > 0 && { TAGS: tags } })
  }

  async watchingUsers(...tags) {
    return (await this.call('pull.watch.users', { TAGS: tags })).map(Number)
  }

  channel(userId, type = 'private') {
    return this.call('pull.channel.get', { USER_ID: userId, TYPE: type })
  }

  async publicChannels(userIds) {
    // PHP's empty map is a list.
    return { ...await this.call('pull.channel.public.list', { USERS: userIds }) }
  }

  signChannel(id, publicId) {
    return this.call('pull.channel.sign', { ID: id, ...publicId && { PUBLIC_ID: publicId } })
  }

  signPublicChannel(publicId) {
    return this.call('pull.channel.sign', { ID: publicId, PUBLIC: 'Y' })
  }

  async call(operation, fields = {}, isRepeatable = true) {
    const body = JSON.stringify(fields)
    for (let attempt = 1; ; attempt++) {
      try {
        return await this.#once(operation, body)
      } catch (error) {
        const mayRepeat = error instanceof ServiceError ? NOT_BEGUN.includes(error.code)
          : error instanceof TransportError && (isRepeatable || !error.isUncertain)
        if (attempt >= this.#attempts || !mayRepeat) throw error
        await new Promise(done => setTimeout(done, PAUSES_MS[attempt - 1]))
      }
    }
  }

  async #once(operation, body) {
    const { secret, key, hostId, algorithm } = this.#credentials
    const headers = { 'content-type': 'application/json', accept: 'application/json' }
    const query = new URLSearchParams()
    if (secret) {
      headers.authorization = `Bearer ${secret}`
    } else {
      if (hostId) query.set('hostId', hostId)
      query.set('signature', await hmac(HASHES[algorithm], key, body))
    }
    const url = `${this.#base}${encodeURIComponent(operation)}${secret ? '' : `?${query}`}`
    let status, text
    try {
      const signal = AbortSignal.timeout(this.#timeout)
      // A secret follows no redirect.
      const answer = await this.#fetch.call(undefined, url, { method: 'POST', headers, body, signal, redirect: 'error' })
      status = answer.status
      text = await answer.text()
    } catch (cause) {
      const reason = cause.name === 'TimeoutError' ? `no answer within ${this.#timeout} ms` : cause.cause?.message || cause.cause?.code || cause.message
      throw new TransportError(`${operation}: ${reason}`, !wasNotSent(cause), { cause })
    }
    let answer
    try {
      answer = JSON.parse(text)
    } catch {
      // Said below: something between here and the service answered.
    }
    if (status === 200 && answer && Object.hasOwn(answer, 'result')) return answer.result
    if (answer?.error) throw new ServiceError(String(answer.error), String(answer.error_description ?? ''), status)
    throw new TransportError(`${operation}: the answer is none of the service: HTTP status ${status}`, true)
  }
}
