// What every page needs: colours, dialogs.

const YEAR_S = 31_536_000

for (const button of document.querySelectorAll('[data-theme-choice]')) {
  button.addEventListener('click', () => {
    const theme = button.dataset.themeChoice
    document.cookie = `vestnik_theme=${theme}; Path=/admin/; Max-Age=${YEAR_S}; SameSite=Strict`
    document.documentElement.dataset.theme = theme
    document.querySelector('meta[name=color-scheme]').content = theme === 'auto' ? 'light dark' : theme
    for (const other of document.querySelectorAll('[data-theme-choice]')) {
      other.setAttribute('aria-pressed', String(other === button))
    }
    document.dispatchEvent(new CustomEvent('themechange'))
  })
}

for (const button of document.querySelectorAll('[data-opens]')) {
  button.addEventListener('click', () => document.getElementById(button.dataset.opens).showModal())
}
for (const button of document.querySelectorAll('[data-closes]')) {
  button.addEventListener('click', () => document.getElementById(button.dataset.closes).close())
}

/** Sends a form's fields to the server as this session; answers the parsed JSON. A session that is over leads to signing in. */
export async function post(address, fields = {}) {
  const body = new URLSearchParams({ ...fields, form_key: document.body.dataset.formKey })
  return answered(await fetch(address, { method: 'POST', body, headers: { accept: 'application/json' } }))
}

/** Asks the server for JSON. */
export async function get(address) {
  return answered(await fetch(address, { headers: { accept: 'application/json' } }))
}

async function answered(response) {
  const isJson = response.headers.get('content-type')?.startsWith('application/json')
  if (response.status === 401 || response.redirected) {
    location.assign(`/admin/login?next=${encodeURIComponent(location.pathname)}`)
    throw new Error('the session is over')
  }
  if (!isJson) throw new Error(`HTTP ${response.status}`)
  return response.json()
}
