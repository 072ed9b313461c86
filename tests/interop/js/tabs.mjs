// Tabs of one browser for the tests: stock providers that hear each other by BroadcastChannel, on networks of their own.
// Commands come as JSON lines on stdin, answers go as JSON lines to stdout.
import WebSocket from './websocket.mjs'
import * as Y from 'yjs'
import { readVarUint, readVarUint8Array } from 'lib0/decoding'
import { serve } from './commands.mjs'

const VERSIONS = { 2: 'y-websocket-2', 3: 'y-websocket' }
const providers = {}
for (const [version, name] of Object.entries(VERSIONS)) providers[version] = (await import(name)).WebsocketProvider
const tabs = new Map()
const ACK = 102
const NOWHERE = 'ws://127.0.0.1:9'

const vector = doc => [...Y.decodeStateVector(Y.encodeStateVector(doc))]

const commands = {
  open ({ tab, url, room, version = 3, online = true, beside = true }) {
    const doc = new Y.Doc()
    const state = { online, marks: new Map(), acked: [], closes: [] }
    class Net { // what a provider connects with: goes nowhere while its network is down
      constructor (address, protocols) {
        return new WebSocket(state.online ? address : NOWHERE, protocols)
      }
    }
    for (const name of ['CONNECTING', 'OPEN', 'CLOSING', 'CLOSED']) Net[name] = WebSocket[name]
    const provider = new providers[version](url, room, doc, { WebSocketPolyfill: Net, disableBc: !beside, maxBackoffTime: 100 })
    provider.on('connection-close', event => { if (event) { state.closes.push(event.code); state.reason = event.reason } })
    provider.messageHandlers[ACK] = (_, decoder) => {
      const reader = { arr: readVarUint8Array(decoder), pos: 0 }
      state.acked.push(...(state.marks.get(readVarUint(reader)) ?? []))
    }
    tabs.set(tab, { doc, provider, state })
  },
  network ({ tab, online }) {
    const { provider, state } = tabs.get(tab)
    state.online = online
    if (!online) provider.ws?.terminate()
  },
  insert ({ tab, where, text }) {
    const { doc, provider } = tabs.get(tab)
    const draft = doc.getText('draft')
    draft.insert(Math.floor(where * draft.length), text)
    provider.awareness.setLocalStateField('cursor', draft.length) // as editors do
  },
  remove ({ tab, where }) {
    const draft = tabs.get(tab).doc.getText('draft')
    if (draft.length) draft.delete(Math.floor(where * draft.length), 1)
  },
  mark ({ tab, number }) { // asks for an acknowledgement of what it has now
    const { doc, provider, state } = tabs.get(tab)
    if (provider.ws?.readyState !== WebSocket.OPEN || !provider.synced) return false
    state.marks.set(number, vector(doc))
    const payload = number < 128 ? [number] : [number & 127 | 128, number >> 7]
    provider.ws.send(Uint8Array.from([ACK, payload.length, ...payload]))
    return true
  },
  look ({ tab }) {
    const { doc, provider, state } = tabs.get(tab)
    return { synced: provider.synced, closes: state.closes, reason: state.reason, acked: state.acked, vector: vector(doc), draft: doc.getText('draft').toString() }
  },
  close ({ tab }) {
    const answer = commands.look({ tab })
    tabs.get(tab).provider.destroy()
    tabs.delete(tab)
    return answer
  }
}

serve(commands)
