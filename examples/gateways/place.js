// Where the service is, and which session: ?service=http://127.0.0.1:8000&session=demo
const query = new URLSearchParams(location.search)
export const service = query.get('service') ?? location.origin
export const session = query.get('session') ?? 'demo'

const list = () => document.getElementById('messages')

export const show = messages => { // [{ id, role, text }]
  list().replaceChildren(...messages.filter(message => message.text).map(({ id, role, text }) => {
    const item = document.createElement('li')
    item.className = role
    item.dataset.id = id
    item.textContent = text
    return item
  }))
  list().scrollTop = list().scrollHeight
}

export const onSend = send => {
  const form = document.getElementById('form')
  form.addEventListener('submit', event => {
    event.preventDefault()
    const text = form.text.value.trim()
    form.text.value = ''
    if (text) send(text)
  })
  for (const each of form.elements) each.disabled = false // sent before this, the browser itself would have left the page
}

export const stop = () => fetch(`${service}/v1/gateways/ag-ui/${session}/cancel`, { method: 'POST' })
