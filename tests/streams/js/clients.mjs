// Real clients of Durable Streams, driven by JSON lines on standard input: {"call": 1, "command": "follow", ...}.
import { createInterface } from 'node:readline'
import { DurableStream, IdempotentProducer, stream } from '@durable-streams/client'
import { createStateSchema } from '@durable-streams/state'
import { createStreamDB } from '@durable-streams/state/db'
import { YjsProvider } from '@durable-streams/y-durable-streams'
import { Awareness } from 'y-protocols/awareness'
import * as Y from 'yjs'

process.on('unhandledRejection', () => {}) // the client leaks one for each request that a dead service cuts off

const readers = new Map()
const writers = new Map()
const states = new Map()
const documents = new Map()
const anything = { '~standard': { version: 1, vendor: 'tests', validate: value => ({ value }) } }
const pause = ms => new Promise(resolve => setTimeout(resolve, ms))

// Follows a stream until it is closed, and goes on with what was handled last whenever something ends it before.
async function follow (reader) {
  while (!reader.stopped && !reader.closed) {
    const cutter = reader.cutter = new AbortController()
    reader.begun++
    try {
      const options = { backoffOptions: { initialDelay: 20, maxDelay: 100, multiplier: 1.3 }, warnOnHttp: false }
      const answer = await stream({ url: reader.url, headers: reader.headers, offset: reader.offset, live: reader.live, json: !reader.text, signal: cutter.signal, ...options })
      const subscribe = reader.text ? answer.subscribeText : answer.subscribeJson
      subscribe.call(answer, batch => {
        if (cutter.signal.aborted) return // the client hands over what it was just reading, and it is read again
        if (reader.text) reader.items.push(batch.text)
        else reader.items.push(...batch.items)
        reader.offset = batch.offset
        if (batch.streamClosed) reader.closed = true
      })
      await answer.closed
      reader.closed ||= answer.streamClosed
    } catch (error) {
      reader.errors.push(String(error))
      await pause(20)
    }
  }
}

// A batch whose answer was lost is sent again as it is: the service knows its number.
async function insisting (...request) {
  for (;;) {
    try {
      const answer = await fetch(...request)
      if (answer.status < 500) return answer
    } catch (error) { // nobody is there
      if (request[1]?.signal?.aborted) throw error
    }
    await pause(30)
  }
}

const commands = {
  follow ({ name, url, live = true, headers, text = false }) {
    const reader = { url, headers, live, text, offset: '-1', items: [], errors: [], begun: 0, closed: false }
    readers.set(name, reader)
    follow(reader)
  },
  cut ({ name }) { readers.get(name).cutter.abort() },
  got ({ name }) {
    const { items, closed, begun, errors } = readers.get(name)
    return { items, closed, begun, errors }
  },
  stop ({ name }) {
    const reader = readers.get(name)
    reader.stopped = true
    reader.cutter.abort()
  },
  async write ({ name, url, producer, from, count, everyMs = 0, close = false, headers }) {
    const writer = { sent: 0, done: false, error: null }
    writers.set(name, writer)
    const handle = new DurableStream({ url, headers, contentType: 'application/json', warnOnHttp: false })
    const sending = new IdempotentProducer(handle, producer, { autoClaim: true, fetch: insisting, lingerMs: 2, onError: error => { writer.error = String(error) } })
    const run = async () => {
      for (let n = from; n < from + count; n++) {
        sending.append(JSON.stringify({ producer, n }))
        writer.sent++
        if (everyMs) await pause(everyMs)
      }
      await sending.flush()
      if (close) await sending.close()
      writer.done = true
    }
    run().catch(error => { writer.error = String(error?.stack ?? error) })
  },
  written: ({ name }) => writers.get(name),

  async 'state.open' ({ name, url }) {
    const state = createStateSchema({
      messages: { schema: anything, type: 'message', primaryKey: 'id' },
      runs: { schema: anything, type: 'run', primaryKey: 'id' }
    })
    const db = createStreamDB({ streamOptions: { url, contentType: 'application/json', warnOnHttp: false }, live: 'sse', state })
    states.set(name, db)
    await db.preload()
  },
  'state.rows' ({ name }) {
    const { messages, runs } = states.get(name).collections
    return { messages: messages.toArray, runs: runs.toArray }
  },
  'state.close' ({ name }) { states.get(name).close() },

  'yjs.open' ({ name, url, session, live = 'sse', headers = {}, insist = false }) {
    const doc = new Y.Doc()
    const awareness = new Awareness(doc)
    const provider = new YjsProvider({ doc, awareness, baseUrl: `${url}/v1/streams/yjs`, docId: session, liveMode: live, headers })
    const errors = []
    provider.on('error', error => errors.push(String(error)))
    const insisting = insist ? setInterval(() => provider.connect(), 50) : undefined // it does nothing while connected
    documents.set(name, { doc, provider, awareness, errors, insisting })
  },
  'yjs.say' ({ name, state }) { documents.get(name).awareness.setLocalState(state) },
  'yjs.present' ({ name }) {
    const { awareness } = documents.get(name)
    return { own: awareness.clientID, states: Object.fromEntries(awareness.getStates()) }
  },
  'yjs.set' ({ name, key, value }) { documents.get(name).doc.getMap('state').set(key, value) },
  'yjs.see' ({ name }) {
    const { doc, provider, errors } = documents.get(name)
    return { synced: provider.synced, connected: provider.connected, errors, state: doc.getMap('state').toJSON(), messages: doc.getMap('messages').toJSON() }
  },
  async 'yjs.leave' ({ name }) { await documents.get(name).provider.disconnect() },
  async 'yjs.return' ({ name }) { await documents.get(name).provider.connect() },
  'yjs.close' ({ name }) {
    clearInterval(documents.get(name).insisting)
    documents.get(name).provider.destroy()
    documents.get(name).awareness.destroy()
  }
}

for await (const line of createInterface({ input: process.stdin })) {
  const { call, command, ...options } = JSON.parse(line)
  Promise.resolve()
    .then(() => commands[command](options))
    .then(result => ({ call, result: result ?? null }), error => ({ call, error: String(error?.stack ?? error) }))
    .then(answer => console.log(JSON.stringify(answer)))
}
