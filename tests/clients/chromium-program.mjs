// Which browser is started, and how.
import fs from 'node:fs'
import path from 'node:path'

/** Debian's packages, the small one first; `CHROMIUM` names another program. */
const PROGRAMS = ['chromium-headless-shell', 'chromium', 'chromium-browser', 'google-chrome']

export const FLAGS = [
  '--headless', '--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run',
  '--disable-background-networking', '--disable-component-update', '--disable-sync', '--disable-dev-shm-usage',
  // The browser ends when this pipe breaks: also when this program is killed and cannot tidy up.
  '--remote-debugging-pipe'
]

export function browserProgram() {
  if (process.env.CHROMIUM) return process.env.CHROMIUM
  for (const name of PROGRAMS) {
    for (const folder of (process.env.PATH ?? '').split(path.delimiter)) {
      const file = path.join(folder, name)
      if (fs.existsSync(file)) return file
    }
  }
  throw new Error(`no Chromium found; looked for ${PROGRAMS.join(', ')}`)
}
