// Plays a concurrent editing trace through a running server: one y-websocket client per author, cut off now and
// then. An author makes an edit only once everything it was based on has arrived over the network.
import fs from 'node:fs'
import zlib from 'node:zlib'
import WebSocket from './websocket.mjs'
import * as Y from 'yjs'
import { WebsocketProvider } from 'y-websocket'

const [file, url, room, drops] = process.argv.slice(2)
const trace = JSON.parse(zlib.gunzipSync(fs.readFileSync(file)))
const until = async condition => {
  const deadline = Date.now() + 120_000
  while (!condition()) {
    if (Date.now() > deadline) throw new Error('timed out')
    await new Promise(resolve => setTimeout(resolve, 1))
  }
}

// Positions hold in the merge of an edit's parents, so the edit is made in a replica that has just those
// (`exact`) and goes to the network through another (`online`), which may already know more.
const authors = Array.from({ length: trace.numAgents }, (_, n) => {
  const online = new Y.Doc()
  const provider = new WebsocketProvider(url, room, online, { WebSocketPolyfill: WebSocket, disableBc: true })
  const exact = new Y.Doc()
  // The recorded text breaks ties by author: with ids in another order stock Yjs alone ends with another text.
  exact.clientID = 1000 + n
  return { exact, online, provider, has: new Set() }
})
const done = [] // per transaction: the update, its author and the author's clock behind it
let seed = 7
const random = () => (seed = (seed * 1103515245 + 12345) & 0x7fffffff) / 0x7fffffff

const ancestorsLacking = (author, index, found = []) => {
  const stack = [...trace.txns[index].parents]
  const seen = new Set()
  while (stack.length) {
    const parent = stack.pop()
    if (author.has.has(parent) || seen.has(parent)) continue
    seen.add(parent)
    found.push(parent)
    stack.push(...trace.txns[parent].parents)
  }
  return found.sort((a, b) => a - b)
}

let cuts = 0
const every = Math.floor(trace.txns.length / Number(drops))
for (let index = 0; index < trace.txns.length; index++) {
  const { agent, patches } = trace.txns[index]
  const author = authors[agent]
  for (const parent of ancestorsLacking(author, index)) {
    const { update, client, clock } = done[parent]
    await until(() => Y.getState(author.online.store, client) >= clock) // it came over the network
    Y.applyUpdate(author.exact, update)
    author.has.add(parent)
  }
  const before = Y.encodeStateVector(author.exact)
  const text = author.exact.getText('draft')
  author.exact.transact(() => {
    for (const [position, deleted, inserted] of patches) {
      if (deleted) text.delete(position, deleted)
      if (inserted) text.insert(position, inserted)
    }
  })
  const update = Y.encodeStateAsUpdate(author.exact, before)
  const client = author.exact.clientID
  done.push({ update, client, clock: Y.getState(author.exact.store, client) })
  author.has.add(index)
  Y.applyUpdate(author.online, update)
  if (index % every === every - 1) {
    authors[Math.floor(random() * authors.length)].provider.ws?.terminate()
    cuts++
  }
  if (index % 200 === 0) await new Promise(resolve => setImmediate(resolve))
}
const late = new Y.Doc()
const lateProvider = new WebsocketProvider(url, room, late, { WebSocketPolyfill: WebSocket, disableBc: true })
const replicas = [...authors.map(author => author.online), late]
const same = () => replicas.every(doc => doc.getText('draft').toString() === trace.endContent)
await until(same).catch(() => {
  const describe = doc => ({ length: doc.getText('draft').length, equal: doc.getText('draft').toString() === trace.endContent, pending: doc.store.pendingStructs !== null, clocks: [...Y.decodeStateVector(Y.encodeStateVector(doc))] })
  console.error(JSON.stringify({ expected: trace.endContent.length, cuts, replicas: replicas.map(describe), exact: authors.map(author => describe(author.exact)) }))
  process.exit(1)
})
console.log(JSON.stringify({ equal: same(), cuts, transactions: trace.txns.length }))
for (const provider of [lateProvider, ...authors.map(author => author.provider)]) provider.destroy()
process.exit(0)
