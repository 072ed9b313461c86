// Where one writes: the field, the suggestions, and what stands there for those who may only read.
import { html, nothing } from 'lit-html'
import { live } from 'lit-html/directives/live.js'
import { request } from './access.js'
import { agents, isClosed, post, welcome } from './conversation.js'
import { present } from './presence.js'

const TYPING_MS = 2500

/** Let people write into a closed session again. */
function reopen (name) {
  return request(`/v1/sessions/${encodeURIComponent(name)}`, { method: 'PATCH', headers: { 'Content-Type': 'application/json' }, body: '{"status": "active"}' })
}

export class Composer {
  #typing
  #draft // what stands in the field; it outlives the field, and a reload

  /** `sent` is called after each message. */
  constructor (page, sent) {
    this.page = page
    this.sent = sent
    this.#draft = sessionStorage.getItem(this.#key) ?? ''
  }

  get #key () { return `crdt-sessions/draft/${this.page.session.name}/${this.page.me.id}` }

  #keep (text) {
    this.#draft = text
    sessionStorage.setItem(this.#key, text)
  }

  #active (activity) {
    clearTimeout(this.#typing)
    const { session } = this.page
    if (session.provider.awareness.getLocalState()?.activity !== activity) session.announce('activity', activity)
    if (activity !== 'idle') this.#typing = setTimeout(() => this.#active('idle'), TYPING_MS)
  }

  /** Post; `agent` answers, or the one whom `@name ` at the beginning means. */
  send (text, agent) {
    const { session, me } = this.page
    const asked = agent || this.#mentioned(text)
    if (text.trim()) post(session.doc, { id: me.id, name: me.name, kind: 'human' }, text.trim(), asked)
    this.#active('idle')
    this.sent()
  }

  #mentioned (text) {
    const name = /^\s*@(\S+)\s/.exec(text)?.[1]
    const here = present(this.page.session).filter(({ kind }) => kind === 'agent').map(({ user }) => user.name)
    return name && (here.includes(name) || agents(this.page.session.doc).has(name)) ? name : ''
  }

  #submit = event => {
    event.preventDefault()
    const field = event.target.elements.text
    this.send(field.value)
    field.value = ''
    this.#keep('')
    field.focus()
  }

  #input = event => {
    this.#keep(event.target.value)
    this.#active('typing')
  }

  #keydown = event => {
    if (event.key === 'Enter' && !event.shiftKey && !event.isComposing) {
      event.preventDefault()
      event.target.form.requestSubmit()
    }
  }

  #suggestion = ({ text, agent, hint }) => html`
    <button type="button" class="suggestion" @click=${() => this.send(text, agent)}>${text}${hint ? html`<small>${hint}</small>` : nothing}</button>`

  /** What an empty session shows. */
  welcome () {
    const { session, rights } = this.page
    const { suggestions, terminal, kill } = welcome(session.doc)
    const may = !rights.whyNot('post', session.doc)
    return html`
      <div class="welcome"><h2>One session, everybody in it</h2>
        <p>Whoever opens this page sees the same conversation and the same notes, live.
          Go offline, go on writing, come back: nothing is lost.</p>
        ${may && suggestions.length ? html`<p class="suggestions">${suggestions.map(this.#suggestion)}</p>` : nothing}
        ${terminal ? html`<p>The same session in a terminal:<br><code>${terminal}</code></p>` : nothing}
        ${kill ? html`<p>${kill}</p>` : nothing}</div>`
  }

  /** The field, and above it the suggestions that nobody has followed yet. */
  show (messages) {
    const { session, rights } = this.page
    const why = rights.whyNot('post', session.doc)
    if (why) {
      const more = isClosed(session.doc) ? 'It can be read, and nobody can write.' : 'You see everything live.'
      const again = isClosed(session.doc) && rights.has('manage')
      return html`<p class="readonly" role="note"><b>${why}</b> ${more}
          ${again ? html`<button type="button" id="reopen" @click=${() => reopen(session.name)}>Open again</button>` : nothing}</p>
        ${this.#draft ? html`<p class="readonly">You had begun to write: <span class="draft">${this.#draft}</span></p>` : nothing}`
    }
    const said = new Set(messages.map(message => message.parts[0]?.text))
    const open = messages.length ? welcome(session.doc).suggestions.filter(({ text }) => !said.has(text)) : []
    const [agent] = agents(session.doc)
    return html`
      ${open.length ? html`<div class="chips">${open.map(each => this.#suggestion({ ...each, hint: '' }))}</div>` : nothing}
      <form class="composer" @submit=${this.#submit}>
        <textarea name="text" rows="1" placeholder=${agent ? `Message everybody, or @${agent}` : 'Message everybody here'} aria-label="Message"
          .value=${live(this.#draft)} @keydown=${this.#keydown} @input=${this.#input}></textarea>
        <button>Send</button>
      </form>`
  }
}
