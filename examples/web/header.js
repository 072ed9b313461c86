// The bar at the top: what the session is called, how the connection is, and on a phone which part of the page is shown.
import { html, nothing } from 'lit-html'
import { ref, createRef } from 'lit-html/directives/ref.js'
import { retitle, title } from './conversation.js'

const VIEWS = [['chat', 'Chat'], ['notes', 'Notes'], ['people', 'People']]

/** Whether what fills the page passes by itself. */
const passing = state => !state || ['opening', 'away', 'offline'].includes(state.kind)

function status (session, state) {
  if (!passing(state)) return ['bad', 'Not connected']
  if (session.provider?.synced) return ['good', 'Live']
  const unsynced = session.unsynced ? ` · ${session.unsynced} not synced` : ''
  return ['away', (session.offline ? 'Offline' : session.away ? 'Service away' : 'Connecting…') + unsynced]
}

export class Header {
  #renaming = false
  #field = createRef()

  constructor (page) { this.page = page }

  #rename = renaming => {
    this.#renaming = renaming
    this.page.draw()
  }

  #save = event => {
    const { session } = this.page
    const text = event.target.value.trim()
    if (this.#renaming && text && text !== title(session.doc)) retitle(session.doc, text)
    this.#rename(false)
  }

  #keydown = event => {
    if (event.key === 'Enter') this.#save(event)
    if (event.key === 'Escape') this.#rename(false)
  }

  #title (state) {
    const { session, rights } = this.page
    const called = title(session.doc) || session.name
    if (this.#renaming) {
      return html`<input id="retitle" ${ref(this.#field)} .value=${called} maxlength="200" aria-label="Title of the session" @keydown=${this.#keydown} @blur=${this.#save}>`
    }
    const may = !state && session.ready && !rights.whyNot('write', session.doc)
    return html`<h1 title=${`Session ${session.name}`}>${called}</h1>
      ${may ? html`<button type="button" id="rename" class="plain" aria-label="Change the title" title="Change the title" @click=${() => this.#rename(true)}>✎</button>` : nothing}`
  }

  /** Put the cursor where it belongs, once it is rendered. */
  settle () {
    const field = this.#field.value
    if (this.#renaming && field && document.activeElement !== field) field.select()
  }

  show (state, view, here) {
    const { session, past } = this.page
    const [tone, text] = status(session, state)
    return html`
      <div class="called"><img src="/demo/icon.svg" alt="">${this.#title(state)}</div>
      <span id="status" role="status" class=${tone}>${text}</span>
      <i class="break"></i>
      <nav class="views" aria-label="Parts of the page">${VIEWS.map(([id, label]) => html`
        <button type="button" data-view=${id} aria-pressed=${view === id ? 'true' : 'false'} ?disabled=${state} @click=${() => this.page.look(id)}>${label}${id === 'people' && here ? html` <span>${here}</span>` : nothing}</button>`)}</nav>
      <div class="tools" ?hidden=${!passing(state)}>
        <button type="button" id="history" ?disabled=${state} aria-pressed=${past.open ? 'true' : 'false'} @click=${() => past.toggle()}>History</button>
        <label class="switch"><input type="checkbox" role="switch" id="offline" aria-label="Work offline" .checked=${session.offline} @change=${event => session.workOffline(event.target.checked)}><i></i> <span><span class="wide">Work </span>offline</span></label>
      </div>`
  }
}
