// The settings page: fields appear, are enabled and are checked by the rules that the server has written
// into their rows; the key; the addresses of this server.
import { get, post } from './page.js'

const form = document.getElementById('settings')
const data = JSON.parse(document.getElementById('settings-data').textContent)
const mayWrite = form.hasAttribute('data-may-write')
const field = name => form.elements.namedItem(name)
const byId = id => document.getElementById(id)

const choice = () => field('push_server_mode').value
const generation = () => Number(field('nginx_version').value)

/** The switch S-27 as it is in force; the stored choice of generation 2 comes back with it. */
const websocket = byId('websocket')
let chosenWebsocket = websocket.checked

function websocketInForce() {
  switch (generation()) {
    case 1: return false
    case 2: return chosenWebsocket
    default: return true
  }
}

function lists(list, item) {
  return list.split(' ').includes(String(item))
}

/** Applies the rule of every row. */
function applyRules() {
  websocket.checked = websocketInForce()
  const switches = { push: byId('push').checked, websocket: websocket.checked }
  for (const block of form.querySelectorAll('[data-choices]')) {
    block.hidden = !lists(block.dataset.choices, choice())
  }
  for (const row of form.querySelectorAll('[data-field]')) {
    const { choices, generations, needs } = row.dataset
    const isLocal = choices === 'personal'
    const fits = !isLocal || lists(generations, generation())
    const follows = !needs || switches[needs]
    const isEnabled = mayWrite && !row.hasAttribute('data-pinned') && fits && follows && lists(choices, choice())
    for (const control of row.querySelectorAll('input:not([name=confirm_empty_key]), select, #key-generate')) {
      control.disabled = !isEnabled
    }
  }
  for (const hint of form.querySelectorAll('[data-when-generations]')) {
    hint.hidden = !lists(hint.dataset.whenGenerations, generation())
  }
  const old = byId('nginx')
  if (old) old.checked = choice() === 'personal'
  if (choice() === 'shared') loadServers()
  judgeKey()
  showPreviews()
}

// --- the key (S-18, S-19, S-53)

const key = byId('signature_key')

function judgeKey() {
  const value = key.value
  const length = [...value].length
  const isStrong = length >= 32 && new Set(value).size >= 8
  const isKnown = mayWrite || key.placeholder !== ''
  const isMissing = length === 0 && generation() >= 4 && mayWrite
  byId('signature_key-missing').hidden = !isMissing
  byId('key-confirm').hidden = !isMissing
  const strength = byId('key-strength')
  if (isKnown && mayWrite) {
    strength.textContent = length === 0 ? '' : isStrong ? strength.dataset.strong : strength.dataset.weak
  }
}

key.addEventListener('input', judgeKey)

byId('key-generate')?.addEventListener('click', () => {
  const bytes = crypto.getRandomValues(new Uint8Array(32))
  key.value = Array.from(bytes, byte => byte.toString(16).padStart(2, '0')).join('')
  key.type = 'text'
  byId('key-show').setAttribute('aria-pressed', 'true')
  key.dispatchEvent(new Event('input', { bubbles: true }))
})

byId('key-show')?.addEventListener('click', event => {
  const button = event.currentTarget
  const isShown = key.type === 'text'
  key.type = isShown ? 'password' : 'text'
  button.setAttribute('aria-pressed', String(!isShown))
})

byId('key-copy')?.addEventListener('click', async event => {
  const button = event.currentTarget
  const name = button.textContent
  try {
    await navigator.clipboard.writeText(key.value)
  } catch {
    // Without https browsers give no clipboard: the older way.
    const wasSecret = key.type
    key.type = 'text'
    key.select()
    document.execCommand('copy')
    key.type = wasSecret
  }
  button.textContent = button.dataset.done
  setTimeout(() => { button.textContent = name }, 1500)
})

// --- addresses (S-32, S-52, S-62)

function showPreviews() {
  for (const list of form.querySelectorAll('[data-preview-of]')) {
    const value = byId(list.dataset.previewOf).value || byId(list.dataset.previewOf).placeholder
    const isSecure = /^(https|wss):/.test(value)
    const port = generation() === 1 ? (isSecure ? ':8894' : ':8893') : ''
    const items = data.domains.map(domain => {
      const item = document.createElement('li')
      const code = document.createElement('code')
      code.textContent = value.replaceAll('#PORT#', port).replaceAll('#DOMAIN#', domain)
      item.append(code)
      return item
    })
    list.replaceChildren(...items)
  }
}

/** What is wrong with a field, in words; empty: nothing. */
function problem(input) {
  const value = input.value.trim()
  if (input.dataset.address) {
    const isSocket = input.dataset.address === 'ws'
    const pattern = isSocket ? /^wss?:\/\/[^/?\s"<>\\]+\/([^?#\s"<>\\]*\/)?$/ : /^https?:\/\/[^/?\s"<>\\]+\/([^?#\s"<>\\]*\/)?$/
    if (value === '' || pattern.test(value)) return ''
    return isSocket ? data.socketAddress : data.address
  }
  if (input.dataset.number) {
    const [min, max] = input.dataset.number.split(' ').map(Number)
    if (/^\d+$/.test(value) && Number(value) >= min && Number(value) <= max) return ''
    return data.number.replace('#MIN#', min).replace('#MAX#', max)
  }
  return ''
}

function check(input) {
  const text = input.disabled ? '' : problem(input)
  const error = byId(`${input.id}-error`)
  error.textContent = text
  error.hidden = text === ''
  input.setAttribute('aria-invalid', String(text !== ''))
  return text === ''
}

const checked = [...form.querySelectorAll('[data-address], [data-number]')]
for (const input of checked) {
  input.addEventListener('change', () => check(input))
  input.addEventListener('input', () => {
    if (input.getAttribute('aria-invalid') === 'true') check(input)
    showPreviews()
  })
}

byId('own-addresses')?.addEventListener('click', () => {
  for (const [name, address] of Object.entries(data.own)) {
    const input = byId(name)
    if (input && !input.disabled) {
      input.value = address
      check(input)
    }
  }
  showPreviews()
  showUnsaved()
})

// --- the cloud's list (S-10, S-57): asked for only while its block is open

let isAsked = false

async function loadServers() {
  const list = byId('cloud_server_hostname')
  if (isAsked || !list || !mayWrite) return
  isAsked = true
  const state = byId('cloud-list-state')
  const error = byId('cloud-list-error')
  state.hidden = false
  try {
    const answer = await get('/admin/settings/servers')
    if (answer.error) {
      list.hidden = true
      error.textContent = answer.error
      error.hidden = false
    } else {
      for (const server of answer.servers) {
        list.add(new Option(server.region ? `${server.url} (${server.region})` : server.url, server.url))
      }
    }
  } catch (failure) {
    error.textContent = String(failure.message)
    error.hidden = false
  }
  state.hidden = true
}

// --- the check of the connection (S-63)

function element(name, className, text) {
  const made = document.createElement(name)
  made.className = className
  made.textContent = text
  return made
}

function showSteps(steps) {
  byId('check-steps').replaceChildren(...steps.map(step => {
    const item = element('li', step.class, '')
    const head = element('div', 'step-head', '')
    head.append(element('b', '', step.name), element('span', `pill ${({ good: 'good', warning: 'warning', bad: 'bad' })[step.class] ?? 'plain'}`, step.state))
    item.append(head)
    const facts = [step.address, step.detail, step.milliseconds ? `${step.milliseconds} ms` : ''].filter(Boolean)
    if (facts.length > 0) item.append(element('code', '', facts.join(' · ')))
    if (step.remedy) item.append(element('p', 'remedy', step.remedy))
    if (step.line) item.append(element('pre', '', step.line))
    return item
  }))
}

byId('check')?.addEventListener('click', async event => {
  const button = event.currentTarget
  button.disabled = true
  byId('check-steps').hidden = false
  try {
    const { id } = await post('/admin/settings/check')
    for (let isDone = false; !isDone;) {
      const progress = await get(`/admin/settings/check?id=${id}`)
      showSteps(progress.steps)
      isDone = progress.done
      if (!isDone) await new Promise(done => setTimeout(done, 300))
    }
    byId('check-steps').dataset.done = 'true'
  } finally {
    button.disabled = false
  }
})

// --- the form as a whole

let initial = ''

function showUnsaved() {
  byId('unsaved').hidden = new URLSearchParams(new FormData(form)).toString() === initial
}

websocket.addEventListener('change', () => { chosenWebsocket = websocket.checked })
form.addEventListener('change', () => {
  applyRules()
  showUnsaved()
})
form.addEventListener('input', showUnsaved)
form.addEventListener('reset', () => setTimeout(() => {
  chosenWebsocket = websocket.defaultChecked
  applyRules()
  checked.forEach(check)
  showUnsaved()
}))
form.addEventListener('submit', event => {
  const wrong = checked.filter(input => !check(input))
  const needsConfirmation = choice() === 'personal' && !byId('key-confirm').hidden && !field('confirm_empty_key').checked
  if (wrong.length > 0) {
    event.preventDefault()
    const details = wrong[0].closest('details')
    if (details) details.open = true
    wrong[0].focus()
  } else if (needsConfirmation && mayWrite) {
    event.preventDefault()
    key.focus()
  }
})

if (generation() !== 2) chosenWebsocket = true
applyRules()
initial = new URLSearchParams(new FormData(form)).toString()
byId('settings').dataset.ready = 'true'
