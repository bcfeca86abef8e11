// The SDK's pull client inside headless Chromium. Settings and commands come as JSON lines, see
// README.md. The page comes from a server of its own, so the push server is another origin and
// its CORS headers are put to the test (clients.md §7, §17.2).
import fs from 'node:fs'
import http from 'node:http'
import os from 'node:os'
import path from 'node:path'
import { createRequire } from 'node:module'
import { spawn } from 'node:child_process'
import { WebSocketServer } from 'ws'
import { browserProgram, FLAGS } from './chromium-program.mjs'
import { serveLines, tell } from './lines.mjs'

/** How long the browser may take to end before its group is killed, in milliseconds. */
const LEAVE_MS = 2_000

const sdk = path.join(path.dirname(createRequire(import.meta.url).resolve('@bitrix24/b24jssdk/package.json')),
  'dist/umd/index.min.js')
const files = {
  '/': ['text/html; charset=utf-8', new URL('page.html', import.meta.url)],
  '/driver.mjs': ['text/javascript', new URL('driver.mjs', import.meta.url)],
  '/sdk.js': ['text/javascript', sdk]
}

const pages = http.createServer((request, response) => {
  const known = files[request.url]
  if (!known) {
    response.writeHead(404).end()
    return
  }
  response.writeHead(200, { 'content-type': known[0], 'cache-control': 'no-store' }).end(fs.readFileSync(known[1]))
})
const control = new WebSocketServer({ server: pages, path: '/control' })

/** Starts the browser on `url`; `end()` stops it, waits and removes its profile. */
function startBrowser(url) {
  const profile = fs.mkdtempSync(path.join(os.tmpdir(), 'vestnik-chromium-'))
  // Its own process group: Debian's launchers are scripts, and the browser has many processes.
  // Descriptors 3 and 4 are the debugging pipe. The browser's chatter goes to standard error.
  const browser = spawn(browserProgram(), [...FLAGS, `--user-data-dir=${profile}`, url],
    { stdio: ['ignore', 'ignore', process.env.CHROMIUM_LOG ? 'inherit' : 'ignore', 'pipe', 'pipe'], detached: true })
  const exited = new Promise(done => {
    browser.once('exit', code => done(code))
    browser.once('error', error => {
      tell({ event: 'uncaught', message: error.message })
      done(null)
    })
  })
  for (const pipe of browser.stdio.slice(3)) pipe.on('error', () => { /* broken by the browser's end */ })
  browser.stdio[4].resume()
  const kill = () => {
    try {
      process.kill(-browser.pid, 'SIGKILL')
    } catch (error) {
      if (error.code !== 'ESRCH') throw error
    }
  }
  return {
    exited,
    async end() {
      browser.stdio[3].write(JSON.stringify({ id: 1, method: 'Browser.close' }) + '\0')
      const timer = setTimeout(kill, LEAVE_MS)
      await exited
      clearTimeout(timer)
      kill()
      fs.rmSync(profile, { recursive: true, force: true, maxRetries: 10, retryDelay: 50 })
    }
  }
}

let browser = null
let leaving = false

async function leave(code) {
  if (leaving) return
  leaving = true
  await browser?.end()
  process.stdout.write('', () => process.exit(code))
}
for (const signal of ['SIGTERM', 'SIGINT', 'SIGHUP']) process.on(signal, () => leave(1))

await new Promise(done => pages.listen(0, '127.0.0.1', done))
await serveLines(settings => {
  let page = null
  const waiting = []
  // The page opens its control line again after a reload and gets the settings anew.
  control.on('connection', socket => {
    page = socket
    socket.on('message', data => process.stdout.write(`${data}\n`))
    socket.on('close', () => { if (page === socket) page = null })
    socket.send(JSON.stringify(settings))
    for (const command of waiting.splice(0)) socket.send(JSON.stringify(command))
  })
  browser = startBrowser(`http://127.0.0.1:${pages.address().port}/`)
  browser.exited.then(code => {
    if (leaving) return
    tell({ event: 'uncaught', message: `the browser ended, exit code ${code}` })
    leave(1)
  })
  return command => page ? page.send(JSON.stringify(command)) : waiting.push(command)
})
await leave(0)
