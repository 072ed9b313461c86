// A form for what an agent asks people, drawn from a JSON Schema. What is filled in is shared with all devices at once.
import { html, nothing } from 'lit-html'
import { live } from 'lit-html/directives/live.js'
import { fillIn, textsOf } from './conversation.js'
import { typed, typeIn } from './typing.js'

/** The key of the draft that holds an answer which is one value and no object. */
const VALUE = 'value'
function fieldsOf ({ schema, order }) {
  if (!schema?.properties || typeof schema.properties !== 'object') return null
  const named = Array.isArray(order) ? order : []
  const place = name => named.includes(name) ? named.indexOf(name) : named.length
  return Object.entries(schema.properties).sort(([one], [other]) => place(one) - place(other))
}
const choicesOf = schema => {
  if (Array.isArray(schema.enum)) return schema.enum.map(value => [value, String(value)])
  const list = schema.oneOf ?? schema.anyOf
  return Array.isArray(list) ? list.map(each => [each.const, each.title ?? String(each.const)]) : null
}
const isNumber = schema => ['integer', 'number'].includes(schema.type)

/** What an input says, as the schema wants it; undefined if it says nothing. */
function read (input, schema) {
  if (input.type === 'checkbox') return input.checked
  if (input.value === '') return undefined
  if (isNumber(schema)) return Number.isFinite(input.valueAsNumber) ? input.valueAsNumber : undefined
  if (schema.type === 'string' || schema.type === undefined) return input.value
  try { return JSON.parse(input.value) } catch { return undefined }
}

/** One field: a label and what fits its schema. `set` is told what somebody enters, unless it goes into a shared `text`. */
function field (id, name, schema, value, required, set, off, text) {
  const label = schema.title ?? name
  const hint = schema.description ? html`<span class="hint" id="${id}-hint">${schema.description}</span>` : nothing
  const described = schema.description ? `${id}-hint` : nothing
  const choices = choicesOf(schema)
  if (choices) {
    const at = choices.findIndex(([each]) => JSON.stringify(each) === JSON.stringify(value))
    return html`<fieldset class="choices" ?disabled=${off} aria-describedby=${described}><legend>${label}</legend>${hint}
      ${choices.map(([each, title], index) => html`<label class="choice"><input type="radio" name=${id} ?required=${required}
        .checked=${live(at === index)} @change=${() => set(each)}>${title}</label>`)}</fieldset>`
  }
  const many = schema.type === 'array' && schema.items ? choicesOf(schema.items) : null
  if (many) {
    const chosen = Array.isArray(value) ? value : []
    const toggled = each => chosen.includes(each) ? chosen.filter(other => other !== each) : [...chosen, each]
    return html`<fieldset class="choices" ?disabled=${off} aria-describedby=${described}><legend>${label}</legend>${hint}
      ${many.map(([each, title]) => html`<label class="choice"><input type="checkbox" .checked=${live(chosen.includes(each))}
        @change=${() => set(toggled(each))}>${title}</label>`)}</fieldset>`
  }
  if (schema.type === 'boolean') {
    return html`<label class="choice"><input type="checkbox" ?disabled=${off} aria-describedby=${described}
      .checked=${live(value === true)} @change=${event => set(event.target.checked)}>${label}</label>${hint}`
  }
  const shown = value === undefined ? '' : typeof value === 'string' || typeof value === 'number' ? String(value) : JSON.stringify(value)
  const long = schema.type === 'string' && schema.maxLength > 200
  const other = !isNumber(schema) && schema.type !== 'string' && schema.type !== undefined
  const entered = event => text ? typeIn(event.target, text) : set(read(event.target, schema))
  const stands = text ? typed(shown) : live(shown)
  return html`<div class="field"><label for=${id}>${label}${required ? nothing : html` <span class="hint">(optional)</span>`}</label>${hint}
    ${long || other
      ? html`<textarea id=${id} rows="4" ?disabled=${off} ?required=${required} aria-describedby=${described}
          .value=${stands} @input=${entered}></textarea>`
      : html`<input id=${id} type=${isNumber(schema) ? 'number' : { email: 'email', date: 'date', uri: 'url' }[schema.format] ?? 'text'}
          ?disabled=${off} ?required=${required} aria-describedby=${described}
          min=${schema.minimum ?? nothing} max=${schema.maximum ?? nothing} step=${schema.type === 'number' ? 'any' : nothing}
          minlength=${schema.minLength ?? nothing} maxlength=${schema.maxLength ?? nothing}
          .value=${stands} @input=${entered}>`}</div>`
}

/** What stands in the form now: the draft over the input that is edited, over the defaults. A shared text has all of it. */
function filledIn (request, call, texts) {
  const schema = request.schema ?? {}
  const fields = fieldsOf(request)
  const written = name => texts.get(name).toString() || undefined
  if (!fields) return texts.has(VALUE) ? written(VALUE) : call.draft?.[VALUE] ?? (request.kind === 'edit' ? call.input : request.default) ?? schema.default
  const given = request.kind === 'edit' ? call.input : request.default
  return Object.fromEntries(fields
    .map(([name, each]) => [name, texts.has(name) ? written(name) : call.draft?.[name] ?? given?.[name] ?? each.default])
    .filter(([, value]) => value !== undefined))
}

/**
 * The form of a question. `send(value)` is told the answer, `decline()` that there is none; `why` says why one may not.
 */
export function form (call, message, session, { send, decline, why, describedBy }) {
  const request = call.approvalRequest
  const schema = request.schema ?? {}
  const fields = fieldsOf(request)
  const texts = textsOf(session.doc, message.id, call.toolCallId)
  const value = filledIn(request, call, texts)
  const set = name => entered => fillIn(session.doc, message.id, call.toolCallId, { [name]: entered })
  const id = `ask-${call.toolCallId}`
  const submitted = event => {
    event.preventDefault()
    send(value)
  }
  const only = request.kind === 'edit' && !fields ? { ...schema, type: schema.type ?? 'object', title: 'Input' } : { title: 'Answer', ...schema }
  return html`
    <form class="ask" @submit=${submitted} aria-label=${request.message ?? call.toolName}>
      <p class="question">${request.message ?? (request.kind === 'edit' ? 'May it do this? You can change what it does.' : 'What is your answer?')}</p>
      ${fields
        ? fields.map(([name, each]) => field(`${id}-${name}`, name, each, value[name], schema.required?.includes(name), set(name), Boolean(why), texts.get(name)))
        : field(id, VALUE, only, value, true, set(VALUE), Boolean(why), texts.get(VALUE))}
      <p class="answer"><button ?disabled=${why} aria-describedby=${describedBy}>${request.kind === 'edit' ? 'Approve' : 'Send'}</button>
        <button type="button" ?disabled=${why} aria-describedby=${describedBy} @click=${decline}>${request.kind === 'edit' ? 'Deny' : 'Decline'}</button></p>
    </form>`
}
