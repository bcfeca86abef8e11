// XMLHttpRequest for Node, as far as long polling needs it, with the rules a browser would apply
// to a page of another origin: without `Access-Control-Allow-Origin` the answer is a network error,
// and only exposed or safelisted headers can be read. So CORS mistakes show here already.
import http from 'node:http'
import https from 'node:https'

/** Origin of the page that the requests pretend to come from. */
export const PAGE_ORIGIN = 'http://portal.test'

/** Readable without being exposed (Fetch standard, CORS-safelisted response-header name). */
const SAFELISTED = ['cache-control', 'content-language', 'content-length', 'content-type', 'expires', 'last-modified', 'pragma']

// As in a browser: connections are kept and shared, at most six to one host.
const agents = {
  'http:': new http.Agent({ keepAlive: true, maxSockets: 6 }),
  'https:': new https.Agent({ keepAlive: true, maxSockets: 6 })
}

/** Closes all idle connections, so that the process can end. */
export function closeAgents() {
  for (const agent of Object.values(agents)) agent.destroy()
}

export class XMLHttpRequest extends EventTarget {
  readyState = 0
  responseType = ''
  status = 0
  response = ''
  onreadystatechange = null
  #method = ''
  #url = null
  #headers = {}
  #request = null
  #answer = null

  open(method, url) {
    this.#drop()
    this.#method = method.toUpperCase()
    this.#url = new URL(url)
    this.#headers = {}
    this.#reset()
    this.#enter(1)
  }

  setRequestHeader(name, value) {
    this.#headers[name] = value
  }

  send(body = null) {
    if (this.readyState !== 1 || this.#request) throw new Error('InvalidStateError: request is not opened')
    const headers = { accept: '*/*', origin: PAGE_ORIGIN, ...this.#headers }
    const payload = body === null ? null : Buffer.from(body)
    // A browser names a type for text, none for bytes (clients.md §12: the SDK's publish has none).
    if (typeof body === 'string') headers['content-type'] ??= 'text/plain;charset=UTF-8'
    if (payload) headers['content-length'] = payload.length
    const library = this.#url.protocol === 'https:' ? https : http
    const request = library.request(this.#url, { method: this.#method, headers, agent: agents[this.#url.protocol] })
    this.#request = request
    const mine = () => this.#request === request
    request.on('error', () => mine() && this.#fail())
    request.on('response', answer => {
      if (!mine()) return
      if (!this.#allowed(answer)) {
        this.#fail()
        request.destroy()
        return
      }
      this.#answer = answer
      this.status = answer.statusCode
      this.#enter(2)
      const chunks = []
      answer.on('data', chunk => chunks.push(chunk))
      answer.on('error', () => mine() && this.#fail())
      answer.on('end', () => mine() && this.#finish(Buffer.concat(chunks)))
    })
    request.end(payload)
  }

  abort() {
    const running = this.#request !== null
    this.#drop()
    this.#reset()
    if (running) this.#enter(4)
    this.readyState = 0
  }

  getResponseHeader(name) {
    const key = name.toLowerCase()
    if (!this.#answer || !this.#readable(key)) return null
    const value = this.#answer.headers[key]
    return Array.isArray(value) ? value.join(', ') : (value ?? null)
  }

  get responseText() {
    return typeof this.response === 'string' ? this.response : ''
  }

  #allowed(answer) {
    const origin = answer.headers['access-control-allow-origin']
    return origin === '*' || origin === PAGE_ORIGIN
  }

  #readable(key) {
    const exposed = (this.#answer.headers['access-control-expose-headers'] ?? '')
      .split(',').map(name => name.trim().toLowerCase())
    return SAFELISTED.includes(key) || exposed.includes(key) || exposed.includes('*')
  }

  #finish(body) {
    this.#request = null
    this.response = this.responseType === 'arraybuffer'
      ? body.buffer.slice(body.byteOffset, body.byteOffset + body.length)
      : body.toString('utf8')
    this.#enter(4)
  }

  #fail() {
    this.#request = null
    this.#reset()
    this.#enter(4)
  }

  #drop() {
    const request = this.#request
    this.#request = null
    request?.destroy()
  }

  #reset() {
    this.#answer = null
    this.status = 0
    this.response = this.responseType === 'arraybuffer' ? null : ''
  }

  #enter(state) {
    this.readyState = state
    const event = new Event('readystatechange')
    this.onreadystatechange?.(event)
    this.dispatchEvent(event)
  }
}
