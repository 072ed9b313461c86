// The conversation as it is shown: messages, and what is to be said and done about the run behind each.
import { html, nothing } from 'lit-html'
import { repeat } from 'lit-html/directives/repeat.js'
import { tree } from './children.js'
import { ACTIVE, ask, because, cancel } from './conversation.js'
import { part, wantsValue } from './parts.js'
import { used } from './usage.js'

/** What a suspended run waits for. */
function waits ({ pending }, { parts }) {
  const calls = (Array.isArray(pending) ? pending : []).filter(each => each?.toolName)
  const open = calls.filter(({ toolCallId }) => !wantsValue(parts.find(each => each.toolCallId === toolCallId) ?? {}))
  if (open.length) return `Waits for a decision about ${open.map(({ toolName }) => toolName).join(', ')}`
  return calls.length ? 'Waits for an answer' : 'Waits for a decision'
}

export class Transcript {
  #rendered = new Map() // message id -> what it was rendered from, and the HTML
  #stamp = '' // changes when all are to be rendered again: somebody is called otherwise, or may do more or less

  constructor (page) { this.page = page }

  /** Forget what was rendered: another document is shown. */
  forget () { this.#rendered.clear() }

  show (messages) {
    const { names, rights } = this.page
    this.#stamp = [names.stamp, this.#may('post'), this.#may('cancel'), this.#may('decide'), rights.identified].join()
    return repeat(messages, ({ id }) => id, each => this.#message(each))
  }

  #may (permission) { return this.page.rights.whyNot(permission, this.page.session.doc) }

  #stop (run) {
    const { session, me } = this.page
    if (run.cancel) return html`<span class="note">Stopping…</span>`
    const why = this.#may('cancel')
    return why ? nothing : html`<button type="button" class="stop" @click=${() => cancel(session.doc, run.id, me.id)}>Stop</button>`
  }

  #again (label, trigger, message, run) {
    const { session, me } = this.page
    if (this.#may('post')) return nothing
    const about = trigger === 'continue' ? message.id : message.parent
    return html`<button type="button" @click=${() => ask(session.doc, me.id, about, trigger, run.agent)}>${label}</button>`
  }

  /** About the run that writes a message. */
  #ending (run, message) {
    const next = label => this.#again(label, 'continue', message, run)
    const note = (text, tone = '') => html`<span class="note ${tone}">${text}</span>`
    switch (run?.status) {
      case 'running':
        return html`<p class="actions">${message.parts.length ? nothing : note(`${run.lease?.agent ?? 'An agent'} is at work…`)}${this.#stop(run)}</p>`
      case 'queued':
        return html`<p class="actions">${note('Interrupted. Queued: goes on as soon as an agent is there', 'lost')}${this.#stop(run)}</p>`
      case 'suspended':
        return html`<p class="actions">${note(waits(run, message))}${this.#stop(run)}</p>`
      case 'failed':
        return html`<p class="error">Ended with an error${because(run)}</p><p class="actions">${next('Continue')}</p>`
      case 'interrupted':
        return html`<p class="actions">${note(`Interrupted${because(run)}`, 'lost')}${next('Continue')}</p>`
      case 'cancelled':
        return html`<p class="actions">${note('Stopped')}${next('Continue')}</p>`
      case 'completed':
        return html`<p class="actions quiet">${['length', 'max_tokens'].includes(run.outcome?.reason) ? note('Cut short by the model’s limit') : nothing}${message.parent ? this.#again('Regenerate', 'regenerate', message, run) : nothing}</p>`
      default:
        return nothing
    }
  }

  /** What an answer has cost, once it is there. */
  #cost (run) {
    const text = run && !ACTIVE.includes(run.status) ? used(run.usage) : ''
    return text ? html`<p class="note used">${text}</p>` : nothing
  }

  /** Why the service has not got a message yet; '' if it is just on its way. */
  get #unsent () {
    const { session } = this.page
    if (session.offline) return 'Not sent yet: you work offline'
    return session.provider.synced ? '' : 'Not sent yet: waits for the network'
  }

  /** About a message that the service has not got yet. Who stops it does not want it answered. */
  #leaving ({ id, stopped }) {
    const why = this.#unsent
    return html`<p class="actions">${why ? html`<span class="note">${why}</span>` : nothing}
      ${stopped ? html`<span class="note">Will not be answered</span>` : this.#stop({ id: `run-${id}` })}</p>`
  }

  /** About a question nobody has begun to answer yet. */
  #waiting (message) {
    if (message.seq === undefined) return this.#leaving(message)
    const run = message.asked
    if (!run) return nothing
    if (run.status === 'failed') return html`<p class="error">Ended with an error${because(run)}</p>`
    if (run.due !== undefined && run.status === 'queued') {
      const again = run.request?.schedule ? 'Asked again and again; next' : 'Waits until'
      return html`<p class="actions"><span class="note">${again} ${new Date(run.due).toLocaleString()}</span>${this.#stop(run)}</p>`
    }
    if (run.status === 'cancelled') return html`<p class="actions"><span class="note">Stopped before an answer</span></p>`
    return ACTIVE.includes(run.status ?? 'queued') ? html`<p class="actions"><span class="note">Queued: waits for ${run.request?.agent && run.request.agent !== '*' ? run.request.agent : 'an agent'}</span>${this.#stop(run)}</p>` : nothing
  }

  /** What the service knew of who sent a message, beside what the message says. */
  #sender ({ by, author }) {
    if (!by) return nothing
    return by === author?.id
      ? html`<span class="verified" role="img" aria-label="verified" title="The service knew the sender">✓</span>`
      : html`<span class="unverified" title="The message says it is by somebody else">sent by ${this.page.names.of(by)}</span>`
  }

  #message (message) {
    const { session, me, names } = this.page
    const key = JSON.stringify([message.parts, message.run, message.children, message.asked, message.seq ?? [this.#unsent, message.stopped], message.by, this.#stamp])
    const known = this.#rendered.get(message.id)
    if (known?.key === key && known.doc === session.doc) return known.html
    const active = ACTIVE.includes(message.run?.status)
    const writing = message.run?.status === 'running'
    const own = message.author?.id === me.id
    const time = new Date(message.createdAt)
    const fresh = html`
      <article class="message ${message.role} ${own ? 'own' : ''} ${writing ? 'writing' : ''}" data-id=${message.id} aria-busy=${writing ? 'true' : 'false'}>
        <header><b>${message.author?.name || names.of(message.author?.id)}</b>${this.#sender(message)} <time datetime=${Number.isFinite(message.createdAt) ? time.toISOString() : ''}>${time.toLocaleTimeString([], { hour: '2-digit', minute: '2-digit' })}</time>
          ${message.seq === undefined ? html`<span class="waiting" title="Kept on this device until the service has it">Not synced</span>` : nothing}</header>
        ${message.parts.map(each => part(each, message, this.page, active))}${tree(message.children, this.page, run => this.#stop(run))}${message.role === 'user' ? this.#waiting(message) : this.#ending(message.run, message)}${this.#cost(message.run)}
      </article>`
    this.#rendered.set(message.id, { key, doc: session.doc, html: fresh })
    return fresh
  }
}
