// Headless Chromium over its debugging pipe: pages of visitors who know nothing of each other.
import { startBrowser } from './chromium.mjs'

/** Longest wait for anything, in milliseconds: ends what hangs and measures nothing. */
const WAIT_MS = 60_000

/** Starts a browser. `visit(url)` opens a page with cookies of its own; `end()` stops it all. */
export function receiveVisitors() {
  const browser = startBrowser([])
  const { input, output } = browser
  const waiting = new Map()
  let last = 0
  let rest = ''
  output.setEncoding('utf8').on('data', data => {
    const parts = (rest + data).split('\0')
    rest = parts.pop()
    for (const part of parts) {
      const { id, result, error } = JSON.parse(part)
      const settle = waiting.get(id)
      waiting.delete(id)
      settle?.(error ? Promise.reject(new Error(error.message)) : result)
    }
  })
  const send = (method, params = {}, sessionId) => {
    const id = ++last
    const answer = new Promise(settle => waiting.set(id, settle))
    input.write(JSON.stringify({ id, method, params, ...sessionId && { sessionId } }) + '\0')
    return answer
  }
  return {
    async visit(url) {
      const { browserContextId } = await send('Target.createBrowserContext')
      const { targetId } = await send('Target.createTarget', { url, browserContextId })
      const { sessionId } = await send('Target.attachToTarget', { targetId, flatten: true })
      const evaluate = async expression => {
        const { result, exceptionDetails } = await send('Runtime.evaluate', { expression, awaitPromise: true, returnByValue: true }, sessionId)
        if (exceptionDetails) throw new Error(exceptionDetails.exception?.description ?? exceptionDetails.text)
        return result.value
      }
      return {
        evaluate,
        /** Waits until the expression is true in the page, across reloads. */
        async until(expression) {
          const end = Date.now() + WAIT_MS
          let problem = ''
          while (Date.now() < end) {
            try {
              if (await evaluate(expression) === true) return
              problem = ''
            } catch (error) {
              problem = error.message
            }
            await new Promise(done => setTimeout(done, 50))
          }
          const page = await evaluate('document.body.innerText').catch(error => error.message)
          throw new Error(`not within ${WAIT_MS} ms: ${expression} ${problem}\n${page}`)
        }
      }
    },
    end: () => browser.end()
  }
}
