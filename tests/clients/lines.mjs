// The far end of a driven client: JSON lines on standard input and output.
import { createInterface } from 'node:readline'

// Whoever read the events has gone. Its end of the input goes with it, which ends this program.
process.stdout.on('error', () => {})

/** Writes one event as a line. Synchronous towards the pipe's buffer, so the order is the order told. */
export function tell(event) {
  process.stdout.write(JSON.stringify(event) + '\n')
}

/**
 * Reads the settings from the first line, then hands every further line to the function that
 * `begin(settings)` returns. Resolves after `{"do":"stop"}` or when the input ends.
 */
export async function serveLines(begin) {
  let obey = null
  for await (const line of createInterface({ input: process.stdin })) {
    if (line.trim() === '') continue
    let value
    try {
      value = JSON.parse(line)
    } catch (error) {
      tell({ event: 'failed', do: null, message: `input line is no JSON: ${error.message}` })
      continue
    }
    if (value.do === 'stop') return
    if (obey === null) obey = await begin(value)
    else obey(value)
  }
}
