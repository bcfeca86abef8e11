// Checked by `tsc --noEmit`: what the declarations allow, and what they refuse.
import { Client, ServiceError, TransportError, VestnikError } from '../src/index.js'

const bySecret = new Client('https://push.example', { secret: 's' }, { timeout: 1000, attempts: 2 })
const byKey: Client = new Client('https://push.example', { key: 'k', hostId: 'h', algorithm: 'sha256' })

export async function use(): Promise<string> {
  await bySecret.publish({ recipients: { users: [1], tags: ['T'], shared: true }, module_id: 'm', command: 'c', params: { a: 1 } })
  const results: (ServiceError | null)[] = await byKey.publishAll([{ recipients: [1], module_id: 'm', command: 'c' }])
  const config = await bySecret.config(1, 'host.example', { SITE_ID: 's1' })
  const id: string | undefined = config.channels?.['private']?.id
  const sum: number = (await bySecret.watchingUsers('T')).reduce((a, b) => a + b, 0)
  try {
    await bySecret.call<boolean>('pull.channel.delete', { USER_ID: 1 })
  } catch (error) {
    if (error instanceof ServiceError) return error.code
    if (error instanceof TransportError || error instanceof VestnikError) return String(error.isUncertain)
  }
  return `${results.length}${id}${sum}`
}

// @ts-expect-error a command is needed
await bySecret.publish({ recipients: [1], module_id: 'm' })
// @ts-expect-error no such algorithm
new Client('https://push.example', { key: 'k', algorithm: 'crc32' })
// @ts-expect-error tags are texts
await bySecret.watch(1, 2)
