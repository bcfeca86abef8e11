// The SDK's pull client in Node. Settings and commands come as JSON lines, see README.md.
// The order matters: the SDK must load before `window` exists, because its HTTP library reads
// `window.location` while loading (clients.md §17.1).
import { WebSocket } from 'ws'
import { B24PullClientManager } from '@bitrix24/b24jssdk'
import { describe, drive, observeTransports } from './driver.mjs'
import { serveLines, tell } from './lines.mjs'
import { PAGE_ORIGIN, XMLHttpRequest, closeAgents } from './xhr.mjs'

/** A browser always names the page's origin in the handshake. */
class PageSocket extends WebSocket {
  constructor(url, protocols = []) {
    super(url, protocols, { origin: PAGE_ORIGIN })
  }
}

globalThis.WebSocket = PageSocket
globalThis.XMLHttpRequest = XMLHttpRequest

process.on('uncaughtException', error => {
  tell({ event: 'uncaught', message: describe(error) })
  process.exitCode = 1
})
// The SDK leaves a promise without a handler when a receiver of a publish is unknown.
process.on('unhandledRejection', reason => tell({ event: 'unhandled-rejection', message: describe(reason) }))

await serveLines(settings => {
  observeTransports(globalThis, tell, settings.frames === true)
  globalThis.window = Object.assign(new EventTarget(), { WebSocket: globalThis.WebSocket })
  globalThis.document = { location: { href: `${PAGE_ORIGIN}/` } }
  tell({ event: 'ready', platform: `node ${process.versions.node}` })
  return drive({ B24PullClientManager, settings, tell, options: { skipStorageInit: true } })
})
closeAgents()
// Drain the pipe before leaving: on a pipe `process.exit` may cut off what was written last.
process.stdout.write('', () => process.exit())
