// One part of a message: text, thoughts, a tool call with what it was given and what it returned, a question to people.
import DOMPurify from 'dompurify'
import { html, nothing } from 'lit-html'
import { unsafeHTML } from 'lit-html/directives/unsafe-html.js'
import { marked } from 'marked'
import { decide } from './conversation.js'
import { form } from './form.js'

// headings of an answer stand below those of the page
marked.use({ renderer: { heading ({ tokens, depth }) { const tag = `h${Math.min(depth + 2, 6)}`; return `<${tag}>${this.parser.parseInline(tokens)}</${tag}>` } } })
const safe = text => unsafeHTML(DOMPurify.sanitize(marked.parse(text, { gfm: true, breaks: true })))
const isEmpty = value => value === undefined || JSON.stringify(value) === '{}'
const shown = value => typeof value === 'string' ? value : JSON.stringify(value, null, 2)

const TOOL_STATES = {
  'input-streaming': 'is being written',
  'input-available': 'at work',
  'approval-requested': 'waits for approval',
  'output-available': 'done',
  'output-error': 'failed',
  'output-denied': 'not done'
}

const REFUSED = {
  'not-an-approver': 'is not among those who are asked',
  role: 'may not decide here',
  'not-yours': 'decided under somebody else’s name',
  'not-an-answer': 'gave an answer that does not fit'
}

/** Whether people are asked for more than yes or no. */
export const wantsValue = call => ['choose', 'form'].includes(call.approvalRequest?.kind)
const verb = (decision, call) => wantsValue(call) ? (decision.approved ? 'answered' : 'declined') : decision.approved ? 'approved' : 'denied'
const capital = text => text[0].toUpperCase() + text.slice(1)
const because = decision => decision.reason ? `: ${decision.reason}` : ''
const instead = reason => reason?.startsWith('superseded by') ? 'something else was asked instead' : reason
const listed = (names, ids) => ids.map(id => names.of(id)).join(', ')

/** What one may not decide about, and why: '' if one may. */
function whyNot (call, { rights, session, me, names }) {
  const { approvers } = call.approvalRequest ?? {}
  const why = rights.whyNot('decide', session.doc)
  if (why || !Array.isArray(approvers) || approvers.includes(me.id)) return why
  return `Only ${listed(names, approvers)} may decide about this.`
}

function question (call, message, page) {
  const { session, me, names } = page
  if (call.state !== 'approval-requested') return nothing
  const { approvers, needs, deadline } = call.approvalRequest ?? {}
  const why = whyNot(call, page)
  const decided = Object.entries(call.decisions ?? {})
  const said = decided.filter(([id]) => !call.refused?.some?.(each => each.by === id))
  const mine = said.find(([id]) => id === me.id)?.[1]
  const say = (approved, value) => () => decide(session.doc, message.id, call.toolCallId, me.id, approved, value)
  const id = `why-${call.toolCallId}`
  const button = (label, approved) => html`
    <button type="button" ?disabled=${why || mine?.approved === approved} aria-describedby=${why ? id : nothing} @click=${say(approved)}>${label}</button>`
  const until = Number.isFinite(deadline) ? `, until ${new Date(deadline).toLocaleTimeString([], { hour: '2-digit', minute: '2-digit' })}` : ''
  const kind = call.approvalRequest?.kind ?? 'approve'
  const asked = kind === 'approve'
    ? html`<p class="question"><span>${call.approvalRequest?.message ?? 'May it do this?'}</span> ${button('Approve', true)} ${button('Deny', false)}</p>`
    : form(call, message, session, { send: value => say(true, value)(), decline: say(false), why, describedBy: why ? id : nothing })
  return html`
    ${asked}
    ${why ? html`<p class="note why" id=${id}>${why}</p>` : nothing}
    ${needs === 'all' && Array.isArray(approvers) ? html`<p class="note">All of ${listed(names, approvers)} must agree${until}.</p>` : until ? html`<p class="note">Open${until}.</p>` : nothing}
    ${said.map(([id, each]) => html`<p class="note">${names.of(id)} ${verb(each, call)}${because(each)}${needs === 'all' ? '; others are asked, too' : ''}</p>`)}`
}

/** What became of the decisions: the one that counts, those that came too late, those that cannot count. */
function answers (call, { names }) {
  const settled = call.approval
  const late = Array.isArray(call.late) ? call.late : []
  const refused = Array.isArray(call.refused) ? call.refused : []
  return html`
    ${settled ? html`<p class="note">${settled.by ? `${capital(verb(settled, call))} by ${names.of(settled.by)}${because(settled)}` : `Not decided: ${instead(settled.reason)}`}</p>` : nothing}
    ${settled?.value === undefined ? nothing : html`<pre class="answered" tabindex="0">${shown(settled.value)}</pre>`}
    ${late.map(each => html`<p class="note">${names.of(each.by)} ${verb(each, call)} too late</p>`)}
    ${refused.map(each => html`<p class="note lost">${names.of(each.by)} ${verb(each, call)}; it does not count: ${names.of(each.by)} ${REFUSED[each.why] ?? each.why}${each.detail ? `: ${each.detail}` : ''}</p>`)}`
}

const OUTCOMES = { done: 'Done', failed: 'Tried', refused: 'Refused' }

/** Whose device calls a tool that runs in a client, or did; and whose results do not count. */
function device (call, message, { names, me, session }) {
  if (!call.clientCall) return nothing
  const taken = message.run?.calls?.find?.(each => each.toolCallId === call.toolCallId)?.taken
  const { outcome } = call
  const whose = ({ by, device }) => device === String(session.doc.clientID) ? 'in this window' : by === me.id ? 'in another window of yours' : by ? `in a window of ${names.of(by)}` : 'on a device'
  const late = Array.isArray(call.lateResults) ? call.lateResults : []
  return html`
    ${taken ? html`<p class="note">At work ${whose(taken)}</p>` : nothing}
    ${!taken && !outcome && message.run?.calls?.length ? html`<p class="note">Waits for a window or device that can do it</p>` : nothing}
    ${outcome && OUTCOMES[outcome.code] ? html`<p class="note">${OUTCOMES[outcome.code]} ${whose(outcome)}</p>` : nothing}
    ${late.map(each => html`<p class="note lost">A result ${whose(each)} came ${each.why === 'late' ? 'too late' : 'without being asked for'}; it does not count</p>`)}`
}

function tool (call, message, page) {
  const input = call.inputText || (isEmpty(call.input) ? '' : shown(call.input))
  const waits = call.state === 'approval-requested'
  const state = waits && wantsValue(call) ? 'waits for an answer' : TOOL_STATES[call.state]
  return html`
    <details class="tool" ?open=${waits}>
      <summary>Tool · ${call.toolName}${state ? html` · <span class="tool-state">${state}</span>` : nothing}</summary>
      ${input ? html`<p class="label">Input</p><pre class="input" tabindex="0">${input}</pre>` : nothing}
      ${call.output === undefined ? nothing : html`<p class="label">Output</p><pre class="output" tabindex="0">${shown(call.output)}</pre>`}
      ${call.errorText ? html`<p class="error">${call.errorText}</p>` : nothing}
    </details>${question(call, message, page)}${answers(call, page)}${device(call, message, page)}`
}

function thoughts (part, active) {
  const streaming = part.state === 'streaming' && active
  const heading = streaming ? 'Thinking…' : part.state === 'done' ? 'Thoughts' : 'Thoughts, broken off'
  return html`<details class="reasoning" ?open=${streaming}><summary>${heading}</summary>
    <div class="thoughts" tabindex="0">${part.text}</div></details>`
}

/** `active`: whether the run that writes the message still goes on. */
export function part (part, message, page, active) {
  switch (part.type) {
    case 'text':
      return html`<div class="text">${safe(part.text ?? '')}</div>`
    case 'reasoning':
      return thoughts(part, active)
    case 'tool':
      return tool(part, message, page)
    case 'audio':
      return html`<div class="text spoken">${part.transcript}</div>`
    case 'steering':
      return html`<p class="note">Heard: ${part.value?.parts?.map(each => each.text).join(' ')}</p>`
    default:
      return html`<pre tabindex="0">${shown(part.value)}</pre>`
  }
}
