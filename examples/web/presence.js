// Who is here, this tab first; and what people are called, wherever only an id is known.
import { html, nothing } from 'lit-html'
import { repeat } from 'lit-html/directives/repeat.js'
import { COLORS, addressOfAnother, remember, shortened } from './identity.js'

const UNSAID = /^[0-9a-f]{8}-[0-9a-f]{4}-/i // an id that a browser made up

/** Every peer that is here. */
export function present ({ provider }) {
  const own = provider.awareness.clientID
  return [...provider.awareness.getStates()]
    .filter(([, state]) => state.user)
    .map(([client, state]) => ({ client, own: client === own, ...state }))
    .sort((a, b) => b.own - a.own || a.client - b.client)
}

/** The same, with each agent once: it is there by itself, and on each run it works on. */
function once (here) {
  const agents = new Map()
  for (const each of here) {
    const known = agents.get(each.user.name)
    if (each.kind === 'agent' && (!known || (known.activity ?? 'idle') === 'idle')) agents.set(each.user.name, each)
  }
  return here.filter(each => each.kind !== 'agent' || agents.get(each.user.name) === each)
}

/** How many entries the list of people has. */
export const headcount = session => once(present(session)).length

/** Who is called what: from those who are here and from those who have written. */
export class Names {
  #known = new Map()

  learn (session, messages) {
    for (const { author } of messages) if (author?.name) this.#known.set(author.id, author.name)
    for (const { user } of present(session)) if (user.id && user.name) this.#known.set(user.id, user.name)
  }

  /** What to call somebody. */
  of (id) { return this.#known.get(id) ?? (UNSAID.test(id ?? '') ? 'somebody' : id || 'somebody') }

  /** Changes whenever somebody is called something else. */
  get stamp () { return [...this.#known].join() }
}

const initials = name => name.split(/\s+/).map(word => [...word][0]).slice(0, 2).join('').toUpperCase()

function own (session, me, rights) {
  const rename = event => {
    me.name = event.target.value = shortened(event.target.value) || me.name
    remember(me)
    session.announce('user', { ...session.provider.awareness.getLocalState().user, name: me.name })
  }
  if (rights.identified) return html`<b>${me.name}</b>`
  return html`<input class="name" .value=${me.name} @change=${rename} aria-label="Your name">`
}

/** What somebody is busy with, in the words of everyday. */
const DOING = { streaming: 'writing' }

/** Two tabs of one browser can be two people, where no token says who one is. */
const another = names => html`<a id="second" href=${addressOfAnother(names)} target="_blank">Open as another person</a>`


export function people (session, me, rights) {
  const here = once(present(session))
  const names = here.map(({ user }) => user.name)
  return repeat(here, ({ client }) => client, ({ own: mine, user, kind, device, activity }) => html`
    <li class=${kind ?? 'peer'} data-name=${user.name ?? ''}>
      <span class="avatar" aria-hidden="true" style="--color: ${COLORS.includes(user.color) ? user.color : '#475569'}">${kind === 'agent' ? '✦' : initials(user.name || '?')}</span>
      <span class="who">${mine ? own(session, me, rights) : html`<b>${user.name || user.id || 'somebody'}</b>`}
        <small>${mine ? 'you' : kind ?? 'peer'}${device ? ` · ${device}` : ''}</small>${mine && !rights.identified ? another(names) : nothing}</span>
      ${activity && activity !== 'idle' ? html`<em class="activity ${activity}">${DOING[activity] ?? activity}</em>` : nothing}
    </li>`)
}
