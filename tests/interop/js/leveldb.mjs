// Writes documents as y-websocket's server does, with y-leveldb: node leveldb.mjs FOLDER COUNT
import * as Y from 'yjs'
import { LeveldbPersistence } from 'y-leveldb'

const [folder, count] = process.argv.slice(2)
const kept = new LeveldbPersistence(folder)
for (let n = 0; n < Number(count); n++) {
  const doc = new Y.Doc()
  const updates = []
  doc.on('update', update => updates.push(update))
  for (let word = 0; word < 20; word++) doc.getText('draft').insert(doc.getText('draft').length, `Wörter ${n}.${word} 😀 `)
  for (const update of updates) await kept.storeUpdate(`dok ${n}/ä`, update)
}
const large = new Y.Doc()
large.getText('draft').insert(0, 'large '.repeat(200000)) // a table of its own
await kept.storeUpdate('large', Y.encodeStateAsUpdate(large))
await kept.flushDocument('dok 0/ä')
const gone = new Y.Doc()
gone.getText('draft').insert(0, 'gone')
await kept.storeUpdate('gone', Y.encodeStateAsUpdate(gone))
await kept.setMeta('dok 1/ä', 'who', 'ann')
await kept.clearDocument('gone')
for (let n = 0; n < 30; n++) { // enough that tables are made and compacted
  const doc = new Y.Doc()
  doc.getText('draft').insert(0, Array.from({ length: 40000 }, (_, at) => (at * 7919 + n).toString(36)).join(' '))
  await kept.storeUpdate('many', Y.encodeStateAsUpdate(doc))
}
await kept.destroy()
