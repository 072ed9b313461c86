// What the service did not take. Such a copy must not stay in the live document, which would be refused with it at every
// load, and must not be lost: it is set aside in this browser, and whoever wrote it can read it until they throw it away.
import { IndexeddbPersistence, clearDocument } from 'y-indexeddb'
import * as Y from 'yjs'
import { messages, title } from './conversation.js'

const key = place => `crdt-sessions/aside/${place}`
const list = place => JSON.parse(localStorage.getItem(key(place)) ?? '[]')
const write = (place, entries) => localStorage.setItem(key(place), JSON.stringify(entries))

/** Note that a copy was refused: {db: its database, lineage: of which session, unsynced: changes not sent, why}. */
export function put (place, copy) {
  if (!list(place).some(entry => entry.db === copy.db)) write(place, [...list(place), { ...copy, at: Date.now() }])
}

/** Throw a copy away. */
export async function discard (place, db) {
  write(place, list(place).filter(entry => entry.db !== db))
  await clearDocument(db)
}

/** What is in the copies that were set aside and not in `doc`, which is what the service has. */
export async function read (place, doc) {
  const found = []
  for (const entry of list(place)) {
    const copy = new Y.Doc({ gc: false })
    const local = new IndexeddbPersistence(entry.db, copy)
    await local.whenSynced
    await local.destroy()
    const same = entry.lineage === doc.getMap('meta').get('lineage')
    const items = same ? missing(copy, doc) : unsent(copy, entry.unsynced)
    copy.destroy()
    if (items.length) found.push({ ...entry, items })
    else if (same) await discard(place, entry.db) // else it may be the last copy of a session that is gone
  }
  return found
}

const words = message => message.parts.map(part => part.text ?? '').join('\n')
const said = list => list.map(message => ({ what: 'Message', text: words(message) })).filter(item => item.text)

/** What a copy of the same session has that `doc` has not. */
function missing (copy, doc) {
  const items = said(messages(copy).filter(({ id }) => !doc.getMap('messages').has(id)))
  const delta = copy.getText('draft').toDelta(Y.snapshot(copy), Y.snapshot(doc))
  const typed = delta.filter(piece => piece.attributes?.ychange?.type === 'added').map(piece => piece.insert).join('\n')
  if (typed.trim()) items.push({ what: 'Notes', text: typed })
  if (title(copy) && title(copy) !== title(doc)) items.push({ what: 'Title', text: title(copy) })
  const rest = Y.decodeUpdate(Y.encodeStateAsUpdate(copy, Y.encodeStateVector(doc))).structs
  if (!items.length && rest.length) items.push({ what: 'Other', text: 'A change without words, such as a decision.' })
  return items
}

/** What a copy of another session of that name never sent: messages that got no place there, and the notes as they were. */
function unsent (copy, unsynced) {
  const items = said(messages(copy).filter(({ seq }) => seq === undefined))
  const notes = copy.getText('draft').toString()
  return unsynced && notes.trim() ? [...items, { what: 'Notes', text: notes }] : items
}
