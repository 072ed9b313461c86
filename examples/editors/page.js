// One editor on one session, with who is there, undoing what the agent did, and suggestions.
import { editors } from './editors.js'
import { awareness, doc, link, onClose, onSync, person, provider, service, session, synced, which } from './place.js'

const by = id => document.getElementById(id)
const made = (tag, text, more = {}) => Object.assign(document.createElement(tag), { textContent: text, ...more })
const tell = text => { by('told').textContent = text }
const [artifact, open] = Object.hasOwn(editors, which) ? editors[which] : []
const edits = doc.getMap('edits')
const suggestions = doc.getMap('suggestions')

by('editors').append(...Object.keys(editors).map(name => {
  const there = made('a', name, { href: link(name) })
  if (name === which) there.setAttribute('aria-current', 'page')
  return there
}))

const open_steps = () => [...edits.values()].filter(each => each.get('step')?.artifact === artifact && each.get('step').run && !each.has('undone'))

by('undo').onclick = async () => {
  const runs = new Set(open_steps().map(each => each.get('step').run))
  for (const run of runs) {
    const path = `${service}/v1/sessions/${encodeURIComponent(session)}/runs/${encodeURIComponent(run)}/undo`
    const answer = await fetch(path, { method: 'POST', headers: { 'content-type': 'application/json' }, body: JSON.stringify({ artifact }) })
    tell(answer.ok ? 'What the agent did is undone.' : `It could not be undone: ${answer.status}`)
  }
}

const drawn = (id, entry) => {
  const head = entry.get('head')
  const box = made('section', '', { className: 'suggestion' })
  box.dataset.id = id
  box.append(made('p', `${head.author.name || head.author.id} suggests${head.note ? `: ${head.note}` : ''}`))
  head.pieces.forEach((piece, at) => {
    const row = made('div', '', { className: 'piece' })
    const settled = entry.get('settled').get(String(at))
    const words = made('div', '')
    words.append(made('del', piece.before), made('ins', piece.after))
    const state = made('div', '')
    if (settled) {
      const late = (entry.get('late') ?? []).some(each => each.piece === at && each.by === person.id)
      const what = settled.outdated ? 'Outdated' : settled.accepted ? 'Accepted' : 'Rejected'
      state.append(made('span', `${what} by ${settled.by}${late ? '; you were later' : ''}`, { className: 'settled' }))
    } else {
      for (const [label, accepted] of [['Accept', true], ['Reject', false]]) {
        state.append(made('button', label, { onclick: () => entry.get('decisions').set(`${at}:${person.id}`, { accepted, at: Date.now() }) }))
      }
    }
    row.append(words, state)
    box.append(row)
  })
  return box
}

const draw = () => {
  by('undo').disabled = open_steps().length === 0
  const about = [...suggestions].filter(([, entry]) => entry.get('head')?.artifact === artifact)
  by('suggestions').replaceChildren(...about.map(([id, entry]) => drawn(id, entry)))
}

awareness.on('change', () => {
  by('present').replaceChildren(...[...awareness.getStates().values()].filter(each => each.user).map(({ user }) => {
    const one = made('li', user.name || 'somebody')
    one.style.background = user.color ?? '#475569'
    return one
  }))
})
onClose(event => {
  const refused = event?.code >= 4400 && event.code < 4500
  tell(refused ? `The service refuses this page: ${event.reason} (${event.code}).` : `No connection to ${service}. It is tried again; keep this page open until then.`)
})
onSync(() => tell(''))

if (open) {
  await synced
  window.editor = await open(by('editor'))
  edits.observeDeep(draw)
  suggestions.observeDeep(draw)
  draw()
  document.body.dataset.ready = which
} else {
  provider.destroy()
  tell(`There is no editor "${which}" here: choose one above.`)
}
