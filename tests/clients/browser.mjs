// Headless Chromium for the tests of pages, driven over standard input and output: one JSON object a line
// in, one out. See README.md.
import fs from 'node:fs'
import path from 'node:path'
import readline from 'node:readline'
import { createRequire } from 'node:module'
import { startBrowser } from './chromium.mjs'

const require = createRequire(import.meta.url)

const browser = startBrowser(['about:blank'])
let lastId = 0
const waiting = new Map()
const listeners = new Set()
let rest = ''

browser.output.setEncoding('utf8')
browser.output.on('data', text => {
  const parts = (rest + text).split('\0')
  rest = parts.pop()
  for (const part of parts) {
    const message = JSON.parse(part)
    if (message.id) {
      const asked = waiting.get(message.id)
      // The browser's answer to its own end is waited for by nobody.
      if (!asked) continue
      const { done, failed } = asked
      waiting.delete(message.id)
      message.error ? failed(new Error(message.error.message)) : done(message.result)
    } else {
      for (const listener of listeners) listener(message)
    }
  }
})

function call(method, params = {}, sessionId = undefined) {
  const id = ++lastId
  return new Promise((done, failed) => {
    waiting.set(id, { done, failed })
    browser.input.write(JSON.stringify({ id, method, params, sessionId }) + '\0')
  })
}

/** Waits for an event of a page; 30 s end a test that hangs. */
function event(sessionId, method) {
  return new Promise((done, failed) => {
    const timer = setTimeout(() => {
      listeners.delete(listener)
      failed(new Error(`no ${method}`))
    }, 30_000)
    const listener = message => {
      if (message.sessionId !== sessionId || message.method !== method) return
      clearTimeout(timer)
      listeners.delete(listener)
      done(message.params)
    }
    listeners.add(listener)
  })
}

const pages = new Map()

/** A page with cookies of its own: a browser of its own to the server. */
async function open(name) {
  const { browserContextId } = await call('Target.createBrowserContext')
  const { targetId } = await call('Target.createTarget', { url: 'about:blank', browserContextId })
  const { sessionId } = await call('Target.attachToTarget', { targetId, flatten: true })
  const page = { sessionId, complaints: [] }
  pages.set(name, page)
  listeners.add(message => {
    if (message.sessionId !== sessionId) return
    if (message.method === 'Log.entryAdded' && message.params.entry.level === 'error') {
      page.complaints.push(`${message.params.entry.text} ${message.params.entry.url ?? ''}`)
    }
    if (message.method === 'Runtime.exceptionThrown') {
      const details = message.params.exceptionDetails
      page.complaints.push(details.exception?.description ?? details.text)
    }
  })
  for (const domain of ['Page', 'Runtime', 'Log', 'Network']) await call(`${domain}.enable`, {}, sessionId)
  return page
}

const commands = {
  async open({ page }) {
    await open(page)
  },
  async go({ page, url }) {
    const { sessionId } = pages.get(page)
    const loaded = event(sessionId, 'Page.loadEventFired')
    const { errorText } = await call('Page.navigate', { url }, sessionId)
    if (errorText) throw new Error(`${url}: ${errorText}`)
    await loaded
  },
  async run({ page, script }) {
    const { sessionId } = pages.get(page)
    const { result, exceptionDetails } = await call('Runtime.evaluate',
      { expression: `(async () => { ${script} })()`, awaitPromise: true, returnByValue: true, userGesture: true }, sessionId)
    if (exceptionDetails) throw new Error(exceptionDetails.exception?.description ?? exceptionDetails.text)
    return result.value
  },
  /** Runs a script that leads to another page, and waits for that. */
  async leave({ page, script }) {
    const { sessionId } = pages.get(page)
    const loaded = event(sessionId, 'Page.loadEventFired')
    await call('Runtime.evaluate', { expression: script, userGesture: true }, sessionId)
    await loaded
  },
  async look({ page, width, height, scheme }) {
    const { sessionId } = pages.get(page)
    if (width) {
      await call('Emulation.setDeviceMetricsOverride', { width, height: height ?? 900, deviceScaleFactor: 1, mobile: width < 600 }, sessionId)
    }
    if (scheme) {
      await call('Emulation.setEmulatedMedia', { features: [{ name: 'prefers-color-scheme', value: scheme }] }, sessionId)
    }
  },
  async key({ page, key, code }) {
    const { sessionId } = pages.get(page)
    for (const type of ['keyDown', 'keyUp']) {
      await call('Input.dispatchKeyEvent', { type, key, code: code ?? key, windowsVirtualKeyCode: { Tab: 9, Enter: 13, Escape: 27 }[key] ?? 0, text: key === 'Enter' ? '\r' : undefined }, sessionId)
    }
  },
  async screenshot({ page, file }) {
    const { sessionId } = pages.get(page)
    // As high as the page, so that what sticks to an edge stands where it belongs.
    const { cssContentSize: { width, height } } = await call('Page.getLayoutMetrics', {}, sessionId)
    await commands.look({ page, width: Math.round(width), height: Math.min(Math.ceil(height), 6000) })
    const { data } = await call('Page.captureScreenshot', { captureBeyondViewport: true, format: 'png' }, sessionId)
    fs.mkdirSync(path.dirname(file), { recursive: true })
    fs.writeFileSync(file, Buffer.from(data, 'base64'))
  },
  async cookies({ page }) {
    const { sessionId } = pages.get(page)
    return (await call('Network.getCookies', {}, sessionId)).cookies
  },
  async header({ page, name, value }) {
    const { sessionId } = pages.get(page)
    await call('Network.setExtraHTTPHeaders', { headers: { [name]: value } }, sessionId)
  },
  /** What axe finds that is serious or worse. The page's policy does not bind the debugger. */
  async axe({ page }) {
    const { sessionId } = pages.get(page)
    const source = fs.readFileSync(require.resolve('axe-core/axe.min.js'), 'utf8')
    await call('Runtime.evaluate', { expression: source }, sessionId)
    const { violations } = await commands.run({ page, script: 'return await axe.run()' })
    return violations.filter(it => ['serious', 'critical'].includes(it.impact))
      .map(it => `${it.id}: ${it.nodes.map(node => `${node.target.join(' ')} ${node.failureSummary ?? ''}`).join(' | ')}`)
  },
  /** What the browser complained of so far. */
  async complaints({ page }) {
    return pages.get(page).complaints.splice(0)
  }
}

browser.exited.then(code => {
  if (!leaving) {
    process.stdout.write(`${JSON.stringify({ error: `the browser ended, exit code ${code}` })}\n`)
    process.exit(1)
  }
})
let leaving = false
for await (const line of readline.createInterface({ input: process.stdin })) {
  let answer
  try {
    const command = JSON.parse(line)
    answer = { result: (await commands[command.do](command)) ?? null }
  } catch (error) {
    answer = { error: error.message }
  }
  process.stdout.write(`${JSON.stringify(answer)}\n`)
}
leaving = true
await browser.end()
