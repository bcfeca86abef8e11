// The example site in a real browser: two users and a guest, and a PHP script that publishes to one of them. Arguments: the
// address of the site, then the PHP program with its script. Exits with 0 when everything arrived.
import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { receiveVisitors } from './visitors.mjs'

const [site, ...php] = process.argv.slice(2)
const quoted = JSON.stringify
const browser = receiveVisitors()
try {
  const submit = (form, field, value) => `(() => { const form = document.getElementById('${form}');
    form.elements.${field}.value = ${quoted(value)}; form.requestSubmit() })()`
  const online = page => page.until("document.getElementById('status').textContent === 'online'")
  const says = (page, text) => page.until(`document.getElementById('messages').innerText.includes(${quoted(text)})`)
  const counts = (page, count) => page.until(`document.getElementById('counter').textContent.endsWith(': ${count}')`)
  const signedIn = async name => {
    const page = await browser.visit(site)
    await page.until("!document.getElementById('sign-in').hidden")
    await page.evaluate(submit('sign-in', 'name', name))
    await page.until(`document.getElementById('name').textContent === ${quoted(name)}`)
    await online(page)
    return page
  }
  const anna = await signedIn('Анна')
  const boris = await signedIn('Boris')
  const guest = await browser.visit(site)
  await online(guest)
  assert.equal(await guest.evaluate("document.getElementById('say').hidden"), true, 'guests read')

  await anna.evaluate(submit('say', 'text', 'Всем привет <b>'))
  for (const page of [anna, boris, guest]) await says(page, 'Анна: Всем привет <b>')
  for (const page of [anna, boris]) await counts(page, 1)
  await boris.evaluate(submit('say', 'text', 'second'))
  for (const page of [anna, boris, guest]) await says(page, 'Boris: second')
  for (const page of [anna, boris]) await counts(page, 2)
  assert.equal(await guest.evaluate("document.getElementById('counter').hidden"), true, 'guests watch nothing')

  await boris.evaluate(submit('say', 'text', '@Анна between us'))
  await says(anna, 'Boris: between us')
  execFileSync(php[0], php.slice(1), { stdio: ['ignore', 'ignore', 'inherit'] })
  await says(anna, 'PHP: written by a script')
  await counts(anna, 77)
  await counts(boris, 77)
  await says(guest, 'PHP: to everybody')

  // What was for others never came: everything that came later is there.
  for (const [page, others] of [[boris, ['between us', 'written by a script']], [guest, ['between us', 'written by a script']]]) {
    const text = await page.evaluate("document.getElementById('messages').innerText")
    for (const other of others) assert.ok(!text.includes(other), text)
  }
  for (const page of [anna, boris, guest]) {
    const lines = await page.evaluate("[...document.querySelectorAll('#messages li')].map(line => line.textContent)")
    assert.equal(new Set(lines).size, lines.length, `once each: ${lines}`)
    assert.equal(await page.evaluate("document.getElementById('error').textContent"), '')
  }

  // A page that is loaded again is where it was.
  await anna.evaluate('location.reload()')
  await online(anna)
  await counts(anna, 2)
  await says(anna, 'Boris: second')
} finally {
  await browser.end()
}
