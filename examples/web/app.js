// The demo page: a conversation with agents, who is present, and notes written together. Where a line belongs:
//   conversation.js  what is in the document            session.js      the connection and the copy in this browser
//   aside.js         what the service did not take      access.js       HTTP, the token, who one is by it
//   rights.js        what one may do                    identity.js     who one is without a token
//   header.js  composer.js  transcript.js  parts.js  children.js  presence.js  notices.js  states.js  past.js
//   editor.js  carets.js: what is shown             worker.js       keeps the page for where there is no network
// This file puts them together and draws.
import { html, render } from 'lit-html'
import { whoami } from './access.js'
import { Composer } from './composer.js'
import { messages, title, usages } from './conversation.js'
import { openEditor } from './editor.js'
import { Header } from './header.js'
import { person } from './identity.js'
import { notices } from './notices.js'
import { Past } from './past.js'
import { Names, headcount, people } from './presence.js'
import { Rights } from './rights.js'
import { Session } from './session.js'
import { blocked, focusOn, fullPage } from './states.js'
import { atEnd, follow } from './sticky.js'
import { Transcript } from './transcript.js'
import { usedByAll } from './usage.js'

const name = new URLSearchParams(location.search).get('session') || 'demo'
const root = document.getElementById('app')

render(html`
  <header class="bar" id="bar"></header>
  <section id="past" class="past" aria-label="Earlier states"></section>
  <section id="notices" aria-label="Notices"></section>
  <div id="state" role="main"></div>
  <main>
    <section class="conversation" aria-label="Conversation">
      <h2 class="unseen">Conversation</h2>
      <div id="messages" role="log" aria-label="Messages" tabindex="0"></div>
      <div id="composer"></div>
    </section>
    <aside aria-label="People and notes">
      <section class="present"><h2>Here now</h2><ul id="present"></ul><p id="used" class="note"></p></section>
      <section class="notes"><h2>Notes</h2><div id="editor"></div><pre id="earlier" tabindex="0"></pre></section>
    </aside>
  </main>`, root)
const at = id => document.getElementById(id)

/** What the parts of the page share. */
const page = {
  me: person(),
  rights: new Rights(),
  names: new Names(),
  refused: null, // what /v1/me said instead
  view: 'chat', // on a phone
  draw,
  look (view) {
    page.view = view
    draw()
  }
}

/** Ask who one is, and what one may do: at the start, and whenever the connection is back. */
async function ask () {
  const { known, refused } = await whoami(name)
  page.refused = refused ?? null
  page.rights.known = known ?? null
  if (page.rights.identified) Object.assign(page.me, { id: known.principal, name: known.name || known.principal })
}

await ask()
page.session = new Session(name, page.me, {
  mayCreate: () => page.rights.has('create'),
  onChange: draw,
  onSync: async () => { // what was allowed before may not be any more, and the other way round
    await ask()
    draw()
  },
  onRenew: renew
})
const header = new Header(page)
const transcript = new Transcript(page)
const composer = new Composer(page, () => follow(at('messages')))
page.past = new Past(page, () => {
  transcript.forget()
  draw()
})

let editor
function renew () {
  editor?.close()
  editor = openEditor(at('editor'), page.session)
}

let drawing = false
function draw () {
  if (drawing || !editor) return
  drawing = true
  // A hidden tab gets no animation frames, but must not fall behind by more than a second.
  const later = document.hidden ? task => setTimeout(task, 250) : requestAnimationFrame
  later(() => {
    drawing = false
    show()
  })
}

function show () {
  const { session, past, rights, names } = page
  const state = blocked(page)
  const all = messages(past.doc ?? session.doc)
  names.learn(session, all)
  document.title = `${title(session.doc) || name} · crdt-sessions`
  document.body.dataset.view = page.view
  document.body.classList.toggle('looking-back', past.open)
  document.body.classList.toggle('blocked', state !== null)
  render(header.show(state, page.view, headcount(session)), at('bar'))
  header.settle()
  render(past.show(), at('past'))
  render(notices(session), at('notices'))
  render(fullPage(state, name, () => session.retry()), at('state'))
  focusOn(state)
  if (state) return
  at('earlier').textContent = past.open ? (past.doc ?? session.doc).getText('draft').toString() : ''
  render(all.length ? transcript.show(all) : composer.welcome(), at('messages'))
  render(composer.show(all), at('composer'))
  render(people(session, page.me, rights), at('present'))
  at('used').textContent = usedByAll(usages(past.doc ?? session.doc))
  editor.allow(!rights.whyNot('write', session.doc))
  atEnd(at('messages'))
  for (const box of root.querySelectorAll('.reasoning[open] .thoughts')) atEnd(box)
}

renew()
draw()
if (!page.refused) page.session.open()

// Where pages may have one: not over plain HTTP from another machine.
navigator.serviceWorker?.register('/demo/worker.js', { scope: '/' }).catch(error => console.info('no page without a network:', error.message))
