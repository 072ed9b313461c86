// The demo page: a conversation with agents, who is present, and a document written together.
import DOMPurify from 'dompurify'
import { html, nothing, render } from 'lit-html'
import { repeat } from 'lit-html/directives/repeat.js'
import { unsafeHTML } from 'lit-html/directives/unsafe-html.js'
import { marked } from 'marked'
import { whoami } from './access.js'
import { openEditor } from './editor.js'
import * as history from './history.js'
import { ask, cancel, decide, join, messages, post, present } from './session.js'

const COLORS = ['#4b3ff0', '#0a8f6a', '#c2410c', '#b0128a', '#0369a1', '#7c5a00', '#9f1239', '#3f6212']
const ADJECTIVES = ['Curious', 'Gentle', 'Swift', 'Quiet', 'Bright', 'Patient', 'Merry', 'Bold']
const ANIMALS = ['Otter', 'Heron', 'Lynx', 'Wren', 'Badger', 'Fox', 'Seal', 'Owl']
const SUGGESTIONS = ['Tell me something worth knowing', 'Write a short poem', 'How should I begin?']
const TYPING_MS = 2500

const any = list => list[Math.floor(Math.random() * list.length)]
const me = JSON.parse(localStorage.getItem('crdt-sessions/me') ?? 'null') ??
  { id: crypto.randomUUID(), name: `${any(ADJECTIVES)} ${any(ANIMALS)}`, color: any(COLORS) }
const remember = () => localStorage.setItem('crdt-sessions/me', JSON.stringify(me))
remember()
const colors = () => ({ ...me, colorLight: `${me.color}33` })

const name = new URLSearchParams(location.search).get('session') ?? 'demo'
const root = document.getElementById('app')
render(html`<p class="loading">Opening ${name}…</p>`, root)
const known = await whoami(name)
if (known) Object.assign(me, { id: known.principal, name: known.name || me.name || known.principal })
const session = await join(name, colors())
const { doc, provider } = session
document.title = `${name} · crdt-sessions`

let offline = false
let refused = null
let kept = 0 // changes made here that no server has seen
let follow = true // whether the conversation sticks to its end
let past = null // while looking at earlier states: { points, at, doc, note }
const rendered = new Map() // message id -> what it was rendered from, and the HTML

provider.on('closed', () => draw())
provider.on('connection-close', event => {
  if (event && event.code >= 4400 && event.code < 4500) refused = event.reason || `refused (${event.code})`
  draw()
})
provider.on('status', () => draw())
provider.on('sync', synced => { if (synced) kept = 0; draw() })
provider.awareness.on('change', () => draw())
doc.on('update', (_, origin) => {
  if (origin !== provider && !provider.synced) kept++
  draw()
})

provider.connect()

let typing
function active (activity) {
  clearTimeout(typing)
  if (provider.awareness.getLocalState()?.activity !== activity) provider.awareness.setLocalStateField('activity', activity)
  if (activity !== 'idle') typing = setTimeout(() => active('idle'), TYPING_MS)
}

function send (text) {
  if (!text.trim()) return
  post(doc, { id: me.id, name: me.name, kind: 'human' }, text.trim())
  follow = true
  active('idle')
}

function submit (event) {
  event.preventDefault()
  const field = event.target.elements.text
  send(field.value)
  field.value = ''
  field.focus()
}

function keydown (event) {
  if (event.key === 'Enter' && !event.shiftKey && !event.isComposing) {
    event.preventDefault()
    event.target.form.requestSubmit()
  }
}

function toggle (event) {
  offline = event.target.checked
  if (offline) provider.disconnect()
  else provider.connect()
  draw()
}

function rename (event) {
  me.name = event.target.value.trim() || me.name
  remember()
  provider.awareness.setLocalStateField('user', colors())
}

// -- earlier states ----------------------------------------------------------------------------------------------

async function openPast () {
  past = { points: [], at: 0, doc: null, note: 'Loading…' }
  draw()
  await tryPast(async () => {
    past.points = await history.points(name)
    await showPast(past.points.length - 1)
  })
}

function closePast () {
  past = null
  rendered.clear()
  draw()
}

/** Show the state with that place in the list; of several asked for in a row, the last one. */
async function showPast (at) {
  past.at = at
  const wanted = past.points[at]
  draw()
  const [read, since] = await Promise.all([history.read(name, wanted.seq), history.changes(name, wanted.seq)])
  if (past?.points[past.at] === wanted) {
    rendered.clear()
    past.doc = read
    past.since = since
    past.note = ''
  }
  draw()
}

async function tryPast (action) {
  try {
    await action()
  } catch (error) {
    if (past) past.note = error.message
    draw()
  }
}

const keepPast = () => tryPast(async () => {
  const called = prompt('A name for the session as it is now')?.trim()
  if (!called) return
  const { seq } = await history.keep(name, called)
  past.points = await history.points(name)
  await showPast(past.points.findIndex(point => point.seq === seq))
})

const restorePast = () => tryPast(async () => {
  await history.restore(name, past.points[past.at].seq)
  closePast()
})

const forkPast = () => tryPast(async () => {
  const id = prompt('A name for the new session', `${name}-${past.points[past.at].seq}`)?.trim()
  if (!id) return
  await history.fork(name, past.points[past.at].seq, id)
  location.search = `?session=${encodeURIComponent(id)}`
})

function pastBar () {
  if (!past) return nothing
  const point = past.points[past.at]
  const time = point ? new Date(point.at).toLocaleString([], { dateStyle: 'medium', timeStyle: 'medium' }) : ''
  const last = past.at === past.points.length - 1
  return html`
    <label>Earlier <input type="range" id="slider" min="0" max=${Math.max(past.points.length - 1, 0)} .value=${String(past.at)}
      @input=${event => tryPast(() => showPast(Number(event.target.value)))} aria-label="Which state to show"
      aria-valuetext=${`${point?.name ?? ''} ${time}`}> now</label>
    <output id="when">${point?.name ? html`<b>${point.name}</b> · ` : nothing}${time}${past.since && !last ? html` <small id="since">since then: ${past.since}</small>` : nothing}</output>
    ${past.note ? html`<span class="error" role="alert">${past.note}</span>` : nothing}
    <span class="actions">
      <button type="button" id="keep" @click=${keepPast}>Name this moment</button>
      <button type="button" id="restore" ?disabled=${last || !past.doc} @click=${restorePast}>Bring this back</button>
      <button type="button" id="fork" ?disabled=${!past.doc} @click=${forkPast}>Fork</button>
      <button type="button" @click=${closePast}>Back to now</button></span>`
}

// -- what is shown ---------------------------------------------------------------------------------------------

const safe = text => unsafeHTML(DOMPurify.sanitize(marked.parse(text, { gfm: true, breaks: true })))

function question (part, message) {
  const settled = part.approval
  if (settled) return html`<p class="note">${settled.approved ? 'Approved' : 'Denied'} by ${settled.by || 'nobody'}</p>`
  if (part.state !== 'approval-requested') return nothing
  const say = approved => () => decide(doc, message.id, part.toolCallId, me.id, approved)
  return html`<p class="question">May it do this? <button type="button" @click=${say(true)}>Approve</button> <button type="button" @click=${say(false)}>Deny</button></p>`
}

function part (part, message) {
  switch (part.type) {
    case 'text':
      return html`<div class="text">${safe(part.text)}</div>`
    case 'reasoning':
      return html`<details class="reasoning" ?open=${part.state === 'streaming'}><summary>${part.state === 'streaming' ? 'Thinking…' : 'Thoughts'}</summary><div>${part.text}</div></details>`
    case 'tool':
      return html`<details class="tool" ?open=${part.state === 'approval-requested'}><summary>Tool · ${part.toolName}${part.state === 'output-error' ? ' · failed' : ''}</summary><pre>${part.inputText || JSON.stringify(part.input, null, 2)}</pre>${part.errorText ? html`<p class="error">${part.errorText}</p>` : nothing}</details>${question(part, message)}`
    case 'audio':
      return html`<div class="text spoken">${part.transcript}</div>`
    case 'steering':
      return html`<p class="note">Heard: ${part.value?.parts?.map(each => each.text).join(' ')}</p>`
    default:
      return html`<pre>${JSON.stringify(part.value, null, 2)}</pre>`
  }
}

const ACTIVE = ['queued', 'running', 'suspended']

function stop (run) {
  return run.cancel ? html`<span class="note">stopping…</span>` : html`<button type="button" class="stop" @click=${() => cancel(doc, run.id, me.id)}>Stop</button>`
}

/** What is to be said, and what can be done, about the run that writes a message. */
function ending (run, message) {
  const again = trigger => () => ask(doc, me.id, trigger === 'continue' ? message.id : message.parent, trigger, run.agent)
  const button = (label, trigger) => html`<button type="button" @click=${again(trigger)}>${label}</button>`
  switch (run?.status) {
    case 'running':
      return html`<p class="actions">${message.parts.length ? nothing : html`<span class="note">${run.lease?.agent ?? 'An agent'} is at work…</span>`}${stop(run)}</p>`
    case 'queued':
      return html`<p class="actions"><span class="note lost">Interrupted; waits for an agent to go on</span>${stop(run)}</p>`
    case 'suspended':
      return html`<p class="actions"><span class="note">Waits for a decision</span>${stop(run)}</p>`
    case 'failed':
      return html`<p class="error">Ended with an error: ${run.outcome?.error?.message ?? run.outcome?.reason}</p><p class="actions">${button('Try again', 'continue')}</p>`
    case 'interrupted':
      return html`<p class="actions"><span class="note lost">Interrupted: ${run.outcome?.reason}</span>${button('Go on', 'continue')}</p>`
    case 'cancelled':
      return html`<p class="actions"><span class="note">Stopped</span>${button('Go on', 'continue')}</p>`
    case 'completed':
      return html`<p class="actions quiet">${['length', 'max_tokens'].includes(run.outcome?.reason) ? html`<span class="note">Cut short by the model's limit</span>` : nothing}${message.parent ? button('Another answer', 'regenerate') : nothing}</p>`
    default:
      return nothing
  }
}

/** A question nobody has begun to answer yet. */
function waiting (message) {
  const run = message.asked
  if (run) {
    if (run.status === 'cancelled') return html`<p class="actions"><span class="note">Stopped before an answer</span></p>`
    return ACTIVE.includes(run.status ?? 'queued') ? html`<p class="actions"><span class="note">Waits for an agent…</span>${stop(run)}</p>` : nothing
  }
  return message.seq === undefined ? html`<p class="actions">${stop({ id: `run-${message.id}` })}</p>` : nothing
}

/** What the service knew of who sent a message, beside what the message says. */
function author ({ by, author }) {
  if (!by) return nothing
  return by === author?.id
    ? html`<span class="verified" title=${`The service knew ${by} when it came`}>✓</span>`
    : html`<span class="unverified" title="The message says it is by somebody else">sent by ${by}</span>`
}

function message (message) {
  const key = JSON.stringify([message.parts, message.run, message.asked, message.seq, message.by])
  const known = rendered.get(message.id)
  if (known?.key === key) return known.html
  const writing = message.run?.status === 'running' || message.parts.some(part => part.state === 'streaming' || part.state === 'input-streaming')
  const own = message.author?.id === me.id
  const time = new Date(message.createdAt).toLocaleTimeString([], { hour: '2-digit', minute: '2-digit' })
  const fresh = html`
    <article class="message ${message.role} ${own ? 'own' : ''} ${writing ? 'writing' : ''}" data-id=${message.id}>
      <header><b>${message.author?.name || message.author?.id}</b>${author(message)} <time>${time}</time>
        ${message.seq === undefined ? html`<span class="waiting" title="Kept on this device until the service has it">not sent yet</span>` : nothing}</header>
      ${message.parts.map(each => part(each, message))}${message.role === 'user' ? waiting(message) : ending(message.run, message)}
    </article>`
  rendered.set(message.id, { key, html: fresh })
  return fresh
}

const initials = name => name.split(/\s+/).map(word => [...word][0]).slice(0, 2).join('').toUpperCase()

function person (person) {
  const { user, kind, device, activity } = person
  return html`
    <li class=${kind} data-name=${user.name ?? ''}>
      <span class="avatar" style="--color: ${COLORS.includes(user.color) ? user.color : '#475569'}">${kind === 'agent' ? '✦' : initials(user.name || '?')}</span>
      <span>${person.own
        ? html`<input class="name" .value=${user.name} @change=${rename} aria-label="Your name" maxlength="40">`
        : html`<b>${user.name || user.id || 'somebody'}</b>`}
        <small>${person.own ? 'you' : kind ?? 'peer'}${device ? ` · ${device}` : ''}</small></span>
      <em class="activity ${activity}">${activity && activity !== 'idle' ? activity : ''}</em>
    </li>`
}

function status () {
  if (refused) return ['bad', refused]
  if (provider.synced) return ['good', 'live']
  const changes = kept === 0 ? '' : ` · ${kept} change${kept === 1 ? '' : 's'} kept here`
  return ['away', (offline ? 'offline' : 'connecting…') + changes]
}

const page = html`
  <header class="bar">
    <h1><img src="/demo/icon.svg" alt=""> ${name}</h1>
    <span id="status" role="status"></span>
    <button type="button" id="history" @click=${() => past ? closePast() : openPast()}>History</button>
    <label class="switch"><input type="checkbox" id="offline" @change=${toggle}><i></i> Work offline</label>
  </header>
  <div id="past" class="past"></div>
  <main>
    <section class="conversation" aria-label="Conversation">
      <div id="messages" aria-live="polite"></div>
      <form @submit=${submit}>
        <textarea name="text" rows="1" placeholder="Write to everybody here, people and agents" aria-label="Message"
          @keydown=${keydown} @input=${() => active('typing')}></textarea>
        <button>Send</button>
      </form>
    </section>
    <aside>
      <section class="present"><h2>Here now</h2><ul id="present"></ul></section>
      <section class="scratch"><h2>Scratch document</h2><div id="editor"></div><pre id="earlier"></pre></section>
    </aside>
  </main>`

render(page, root)
root.querySelector('.loading')?.remove()
const list = document.getElementById('messages')
list.addEventListener('scroll', () => { follow = list.scrollHeight - list.scrollTop - list.clientHeight < 40 })
openEditor(document.getElementById('editor'), session.draft, provider.awareness)

const welcome = html`
  <div class="welcome"><h2>One session, everybody in it</h2>
    <p>Open this page in a second tab, or on the command line with <code>python examples/terminal_peer.py</code>.
      Ask the agent something and watch the answer arrive in all of them. Go offline, go on writing, come back.</p>
    <p>${SUGGESTIONS.map(text => html`<button type="button" @click=${() => send(text)}>${text}</button>`)}</p></div>`

let drawing = false
function draw () {
  if (drawing) return
  drawing = true
  // A hidden tab gets no animation frames, but must not fall behind by more than a second.
  const later = document.hidden ? task => setTimeout(task, 250) : requestAnimationFrame
  later(() => {
    drawing = false
    const shownDoc = past?.doc ?? doc
    const all = messages(shownDoc)
    document.body.classList.toggle('looking-back', past !== null)
    render(pastBar(), document.getElementById('past'))
    document.getElementById('earlier').textContent = past?.doc ? past.doc.getText('draft').toString() : ''
    render(all.length ? repeat(all, ({ id }) => id, message) : welcome, list)
    if (follow) list.scrollTop = list.scrollHeight
    render(repeat(present(provider), ({ client }) => client, person), document.getElementById('present'))
    const [tone, text] = status()
    const shown = document.getElementById('status')
    shown.className = tone
    shown.textContent = text
  })
}
draw()
