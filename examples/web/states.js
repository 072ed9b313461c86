// What fills the page instead of a conversation: sign in, nothing there, not allowed, expired, deleted, no service.
import { html, nothing } from 'lit-html'
import { keepToken, request, token } from './access.js'

/** Why there is no conversation to show, as {kind, detail}; null if there is one. */
export function blocked ({ session, refused, rights }) {
  if (refused?.status === 401) return { kind: token ? 'bad-token' : 'sign-in', detail: refused.detail }
  if (refused) return { kind: 'forbidden', detail: refused.detail }
  const refusal = session.refusal
  if (refusal) {
    const { code, reason: detail } = refusal
    if (code === 4501 || (code === 4401 && session.ready)) return { kind: 'expired', detail, unsynced: session.unsynced }
    if (code === 4401) return { kind: token ? 'bad-token' : 'sign-in', detail }
    if (refusal.deleted) return { kind: 'deleted', mayCreate: rights.has('create') }
    if (code === 4404) return { kind: 'missing' }
    return { kind: code === 4403 ? 'forbidden' : 'refused', detail }
  }
  if (session.ready) return null
  return session.offline ? { kind: 'offline' } : session.away ? { kind: 'away', detail: session.trouble } : { kind: 'opening' }
}

function signIn (event) {
  event.preventDefault()
  const value = event.target.elements.token.value.trim()
  if (!value) return
  keepToken(value)
  location.reload()
}

const form = html`
  <form class="sign-in" @submit=${signIn}>
    <label for="token">Token</label>
    <input id="token" name="token" type="password" autocomplete="off" required>
    <button>Sign in</button></form>`

const elsewhere = html`<p><a href="?">Go to the session “demo”</a></p>`

async function startAnew (name) {
  await request('/v1/sessions', { method: 'POST', headers: { 'Content-Type': 'application/json' }, body: JSON.stringify({ id: name }) })
  location.reload()
}

function words (state, name, retry) {
  switch (state.kind) {
    case 'sign-in':
      return ['Who are you?', html`<p>This service lets in only people it knows. Paste the token you were given; it is kept for this tab.</p>${form}`]
    case 'bad-token':
      return ['This token was refused', html`<p class="detail">${sentence(state.detail)}</p>
        <p>Open the link that you were given once more, or paste another token. Whoever runs the service can make you one.</p>${form}`]
    case 'expired':
      return ['Your sign-in has expired', html`<p>Sign in again to go on.${state.unsynced ? ` ${count(state.unsynced)} on this device not synced; they are sent then.` : ''}</p>${form}`]
    case 'forbidden':
      return ['You may not open this session', html`<p class="detail">${sentence(state.detail)}</p><p>Somebody who owns it can let you in.</p>${form}${elsewhere}`]
    case 'missing':
      return ['There is no such session', html`<p>Nobody has begun “${name}” yet, and your role may not make new sessions.</p>
        <p><button type="button" @click=${() => location.reload()}>Look again</button></p>${elsewhere}`]
    case 'deleted':
      return ['This session was deleted', html`<p>“${name}” is gone for everybody.</p>
        ${state.mayCreate ? html`<p><button type="button" @click=${() => startAnew(name)}>Begin a new one</button></p>` : nothing}${elsewhere}`]
    case 'away':
      return ['The service does not answer', html`<p>${state.detail || 'It may be restarting, or there is no network.'} This page tries again by itself.</p>
        <p><button type="button" @click=${retry}>Try now</button></p>`]
    case 'offline':
      return ['You work offline', html`<p>There is no copy of “${name}” on this device yet. Go online once to get one.</p>`]
    case 'opening':
      return [`Opening ${name}…`, nothing]
    default:
      return ['The service refused this page', html`<p class="detail">${sentence(state.detail)}</p>${elsewhere}`]
  }
}

/** What the service says in passing, as a sentence of its own. */
const sentence = (text = '') => text && `${text[0].toUpperCase()}${text.slice(1)}${/[.!?]$/.test(text) ? '' : '.'}`

const count = changes => changes === 1 ? '1 change is' : `${changes} changes are`

export function fullPage (state, name, retry) {
  if (!state) return nothing
  const [heading, body] = words(state, name, retry)
  return html`<div class="state" data-kind=${state.kind}><h2 tabindex="-1">${heading}</h2>${body}</div>`
}

let told
/** Take the focus to what has begun to fill the page, where there is something to be done about it. */
export function focusOn (state) {
  if (state?.kind === told) return
  told = state?.kind
  if (state && state.kind !== 'opening') (document.querySelector('.state input') ?? document.querySelector('.state h2'))?.focus()
}
