// The person in this tab, where no token says who that is. Two tabs can be two people: `?as=Ann` makes this tab Ann's.
export const COLORS = ['#4b3ff0', '#0a7d5c', '#c2410c', '#b0128a', '#0369a1', '#7c5a00', '#9f1239', '#3f6212']
const ADJECTIVES = ['Curious', 'Gentle', 'Swift', 'Quiet', 'Bright', 'Patient', 'Merry', 'Bold']
const ANIMALS = ['Otter', 'Heron', 'Lynx', 'Wren', 'Badger', 'Fox', 'Seal', 'Owl']
const OTHERS = ['Ann', 'Bob', 'Carol', 'Dan', 'Eve']
const KEY = 'crdt-sessions/me'

const LONGEST_NAME = 40

/** A name that is not too long to show; one that was cut says so. */
export function shortened (name) {
  const letters = [...name.trim()]
  return letters.length > LONGEST_NAME ? `${letters.slice(0, LONGEST_NAME - 1).join('').trim()}…` : letters.join('')
}

const any = list => list[Math.floor(Math.random() * list.length)]
const kept = storage => JSON.parse(storage.getItem(KEY) ?? 'null')

function named (as) {
  const id = as.toLowerCase()
  const hash = [...as].reduce((sum, char) => (sum * 31 + char.codePointAt(0)) >>> 0, 7)
  return { id: /^[a-z0-9._~-]{1,100}$/.test(id) ? id : crypto.randomUUID(), name: as, color: COLORS[hash % COLORS.length], as }
}

/** Who this tab's person is: the one the address names, the one it was before, or the one of this browser. */
export function person () {
  const as = shortened(new URLSearchParams(location.search).get('as') ?? '')
  const here = kept(sessionStorage)
  if (here && (!as || here.as === as)) return here // also renamed
  const found = as ? named(as) : kept(localStorage) ?? { id: crypto.randomUUID(), name: `${any(ADJECTIVES)} ${any(ANIMALS)}`, color: any(COLORS) }
  remember(found)
  return found
}

/** Keep the person: for this tab if the address made it, else for this browser. */
export function remember (person) {
  (person.as ? sessionStorage : localStorage).setItem(KEY, JSON.stringify(person))
}

/** The address of this session for somebody who is not here yet. */
export function addressOfAnother (names) {
  const address = new URL(location.href)
  address.searchParams.set('as', OTHERS.find(each => !names.includes(each)) ?? any(ANIMALS))
  return address.href
}
