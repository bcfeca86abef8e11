// The SDK's pull client inside headless Chromium. Settings and commands come as JSON lines, see
// README.md. The page comes from a server of its own, so the push server is another origin and
// its CORS headers are put to the test (clients.md §7, §17.2).
import fs from 'node:fs'
import http from 'node:http'
import path from 'node:path'
import { createRequire } from 'node:module'
import { WebSocketServer } from 'ws'
import { startBrowser } from './chromium.mjs'
import { serveLines, tell } from './lines.mjs'

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
  browser = startBrowser([`http://127.0.0.1:${pages.address().port}/`])
  browser.output.resume()
  browser.exited.then(code => {
    if (leaving) return
    tell({ event: 'uncaught', message: `the browser ended, exit code ${code}` })
    leave(1)
  })
  return command => page ? page.send(JSON.stringify(command)) : waiting.push(command)
})
await leave(0)
