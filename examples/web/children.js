// The child runs of an answer as a tree: who does what, how far that is, what they write, and a way to stop each.
import { html, nothing } from 'lit-html'
import { repeat } from 'lit-html/directives/repeat.js'
import { ACTIVE, because } from './conversation.js'
import { part } from './parts.js'

const LONGEST = 80
const STATES = { queued: 'waits for an agent', running: 'at work', suspended: 'waits for a decision', completed: 'done', cancelled: 'stopped' }

/** What a child was asked for, in one line. */
function task ({ request }) {
  const text = typeof request?.task === 'string' ? request.task : JSON.stringify(request?.task) ?? ''
  return text.length > LONGEST ? `${text.slice(0, LONGEST)}…` : text
}

const state = run => STATES[run.status] ?? (run.status ? `${run.status}${because(run)}` : 'is asked for')

function child ({ run, message, children }, page, stop) {
  const active = ACTIVE.includes(run.status ?? 'queued')
  return html`
    <li class="child ${run.status ?? 'queued'}" data-id=${run.id}>
      <details ?open=${message.parts.some(each => each.approvalRequest)}>
        <summary><b>${run.agent ?? run.request?.agent}</b> ${task(run)} · <span class="child-state ${STATES[run.status] ? '' : 'bad'}">${state(run)}</span></summary>
        ${message.parts.map(each => part(each, message, page, active))}
      </details>
      ${active ? html`<p class="actions">${stop(run)}</p>` : nothing}
      ${tree(children, page, stop)}
    </li>`
}

/** `stop` makes the button that stops a run. */
export function tree (children, page, stop) {
  if (!children.length) return nothing
  const done = children.filter(({ run }) => !ACTIVE.includes(run.status ?? 'queued')).length
  return html`
    <p class="note">${children.length === 1 ? 'One child run' : `${children.length} child runs`}${done ? `, ${done} ended` : ''}</p>
    <ul class="children" aria-label="Child runs">${repeat(children, ({ run }) => run.id, each => child(each, page, stop))}</ul>`
}
