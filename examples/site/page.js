// The page: everything it knows of push comes from the pull client of the Bitrix24 SDK.

const element = id => document.getElementById(id)

async function post(target, body = {}) {
  const answer = await fetch(target, { method: 'POST', headers: { 'content-type': 'application/json' }, body: JSON.stringify(body) })
  const { result, error } = await answer.json()
  if (error) throw new Error(error)
  return result
}

function show({ from, text }, kind = 'message') {
  const line = document.createElement('li')
  line.className = kind
  line.textContent = `${from}: ${text}`
  element('messages').append(line)
}

function showCount(count) {
  element('counter').hidden = false
  element('counter').textContent = `Messages so far: ${count}`
}

/** The portal as the SDK knows it: this site's own back end, which asks vestnik. */
const ask = async (method, params) => {
  const result = await post('/pull', { method, params })
  return { getData: () => ({ result }) }
}
const portal = {
  callMethod: ask,
  actions: { v2: { call: { make: ({ method, params }) => ask(method, params) } } }
}

function connect(me) {
  const pull = new window.B24Js.B24PullClientManager({ b24: portal, userId: me.id, siteId: 's1', serverEnabled: true })
  pull.subscribe({
    type: 'server',
    moduleId: 'chat',
    callback: ({ command, params }) => {
      if (command === 'message') show(params)
      if (command === 'whisper') show(params, 'whisper')
      if (command === 'counter') showCount(params.count)
    }
  })
  pull.subscribe({ type: 'status', callback: ({ status }) => { element('status').textContent = status } })
  // The back end made the watch; the client extends it every 29 minutes.
  if (me.id > 0) pull.extendWatch('CHAT_COUNTER')
  return pull.start()
}

const failed = error => { element('error').textContent = error.message }

element('sign-in').addEventListener('submit', event => {
  event.preventDefault()
  post('/sign-in', { name: event.target.elements.name.value }).then(() => location.reload(), failed)
})
element('say').addEventListener('submit', event => {
  event.preventDefault()
  const { text } = event.target.elements
  const [, to, whispered] = /^@(\S+)\s+(.+)$/s.exec(text.value) ?? []
  const sent = to ? post('/whisper', { to, text: whispered }) : post('/say', { text: text.value })
  sent.then(() => { text.value = '' }, failed)
})

try {
  const me = await post('/me')
  element('name').textContent = me.name
  element('sign-in').hidden = me.id > 0
  element('say').hidden = me.id <= 0
  me.messages.forEach(message => show(message))
  if (me.count !== null) showCount(me.count)
  await connect(me)
} catch (error) {
  failed(error)
}
