// Starts headless Chromium and ends it without leaving anything behind.
import fs from 'node:fs'
import os from 'node:os'
import path from 'node:path'
import { spawn } from 'node:child_process'

/** Debian's packages, the small one first; `CHROMIUM` names another program. */
const PROGRAMS = ['chromium-headless-shell', 'chromium', 'chromium-browser', 'google-chrome']

const FLAGS = [
  '--headless', '--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run',
  '--disable-background-networking', '--disable-component-update', '--disable-sync', '--disable-dev-shm-usage',
  // The browser ends when this pipe breaks: also when this program is killed and cannot tidy up.
  '--remote-debugging-pipe'
]

/** How long the browser may take to end before its group is killed, in milliseconds. */
const LEAVE_MS = 2_000

function browserProgram() {
  if (process.env.CHROMIUM) return process.env.CHROMIUM
  for (const name of PROGRAMS) {
    for (const folder of (process.env.PATH ?? '').split(path.delimiter)) {
      const file = path.join(folder, name)
      if (fs.existsSync(file)) return file
    }
  }
  throw new Error(`no Chromium found; looked for ${PROGRAMS.join(', ')}`)
}

/**
 * Starts the browser with `args`, such as an address. `input` and `output` are its debugging pipe; `end()` stops it, waits
 * and removes its profile.
 */
export function startBrowser(args) {
  const profile = fs.mkdtempSync(path.join(os.tmpdir(), 'vestnik-chromium-'))
  // Its own process group: Debian's launchers are scripts, and the browser has many processes.
  // Descriptors 3 and 4 are the debugging pipe. The browser's chatter goes to standard error.
  const browser = spawn(browserProgram(), [...FLAGS, `--user-data-dir=${profile}`, ...args],
    { stdio: ['ignore', 'ignore', process.env.CHROMIUM_LOG ? 'inherit' : 'ignore', 'pipe', 'pipe'], detached: true })
  const exited = new Promise(done => {
    browser.once('exit', code => done(code))
    browser.once('error', error => {
      process.stderr.write(`${error.message}\n`)
      done(null)
    })
  })
  for (const pipe of browser.stdio.slice(3)) pipe.on('error', () => { /* broken by the browser's end */ })
  const kill = () => {
    try {
      process.kill(-browser.pid, 'SIGKILL')
    } catch (error) {
      if (error.code !== 'ESRCH') throw error
    }
  }
  return {
    exited,
    input: browser.stdio[3],
    output: browser.stdio[4],
    async end() {
      browser.stdio[3].write(JSON.stringify({ id: 1_000_000_000, method: 'Browser.close' }) + '\0')
      const timer = setTimeout(kill, LEAVE_MS)
      await exited
      clearTimeout(timer)
      kill()
      fs.rmSync(profile, { recursive: true, force: true, maxRetries: 10, retryDelay: 50 })
    }
  }
}
