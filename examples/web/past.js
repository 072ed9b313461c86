// Looking back: a slider over earlier states, and what can be done with one of them.
import { html, nothing } from 'lit-html'
import { title } from './conversation.js'
import * as history from './history.js'

export class Past {
  #shown = null // while looking back: { points, at, doc, since, note }

  constructor (page, changed) {
    this.page = page
    this.changed = changed
  }

  get open () { return this.#shown !== null }

  /** The document that is shown instead of the live one, if there is one yet. */
  get doc () { return this.#shown?.doc ?? null }

  toggle () { return this.open ? this.#close() : this.#open() }

  async #open () {
    this.#shown = { points: [], at: 0, doc: null, note: '' }
    this.page.draw()
    await this.#try(async () => {
      this.#shown.points = await history.points(this.page.session.name)
      await this.#show(this.#shown.points.length - 1)
    })
  }

  #close () {
    this.#shown = null
    this.changed()
  }

  /** Show the state with that place in the list; of several asked for in a row, the last one. */
  async #show (at) {
    const name = this.page.session.name
    const wanted = this.#shown.points[at]
    this.#shown.at = at
    this.page.draw()
    const [doc, since] = await Promise.all([history.read(name, wanted.seq), history.changes(name, wanted.seq)])
    if (this.#shown?.points[this.#shown.at] === wanted) {
      Object.assign(this.#shown, { doc, since, note: '' })
      this.changed()
    }
  }

  async #try (action) {
    try {
      await action()
    } catch (error) {
      if (this.#shown) this.#shown.note = error.message
      this.page.draw()
    }
  }

  #keep = () => this.#try(async () => {
    const name = this.page.session.name
    const called = prompt('A name for the session as it is now')?.trim()
    if (!called) return
    const { seq } = await history.keep(name, called)
    this.#shown.points = await history.points(name)
    await this.#show(this.#shown.points.findIndex(point => point.seq === seq))
  })

  #restore = () => this.#try(async () => {
    await history.restore(this.page.session.name, this.#shown.points[this.#shown.at].seq)
    this.#close()
  })

  #fork = () => this.#try(async () => {
    const { session } = this.page
    const { seq } = this.#shown.points[this.#shown.at]
    const id = prompt('A name for the new session', `${session.name}-${seq}`)?.trim()
    if (!id) return
    await history.fork(session.name, seq, id, title(session.doc) && id)
    const address = new URL(location.href)
    address.searchParams.set('session', id)
    location.href = address.href
  })

  show () {
    if (!this.open) return nothing
    const { rights, session } = this.page
    const { points, at, doc, since, note } = this.#shown
    const point = points[at]
    const time = point ? new Date(point.at).toLocaleString([], { dateStyle: 'medium', timeStyle: 'medium' }) : ''
    const last = at === points.length - 1
    const [noKeep, noRestore, noFork] = [rights.whyNot('write', session.doc), rights.whyNot('manage', session.doc), rights.has('create') ? '' : rights.whyNot('create', session.doc)]
    return html`
      <label>Earlier <input type="range" id="slider" min="0" max=${Math.max(points.length - 1, 0)} .value=${String(at)}
        @input=${event => this.#try(() => this.#show(Number(event.target.value)))} aria-label="Which state to show"
        aria-valuetext=${`${point?.name ?? ''} ${time}`}> now</label>
      <output id="when">${point?.name ? html`<b>${point.name}</b> · ` : nothing}${time}${since && !last ? html` <small id="since">since then: ${since}</small>` : nothing}</output>
      ${note ? html`<span class="error" role="alert">${note}</span>` : doc ? nothing : html`<span class="note" role="status">Loading…</span>`}
      <span class="actions">
        <button type="button" id="keep" ?disabled=${noKeep} title=${noKeep} @click=${this.#keep}>Save version</button>
        <button type="button" id="restore" ?disabled=${noRestore || last || !doc} title=${noRestore} @click=${this.#restore}>Restore</button>
        <button type="button" id="fork" ?disabled=${noFork || !doc} title=${noFork} @click=${this.#fork}>Fork</button>
        <button type="button" id="back" @click=${() => this.#close()}>Back to now</button></span>`
  }
}
