import { uiMessagesToWire } from '@tanstack/ai'
import { ChatClient } from '@tanstack/ai-client'
import { onSend, service, session, show, stop } from './place.js'

const base = `${service}/v1/gateways/tanstack/${session}`

const connection = {
  async * subscribe (signal) { // for as long as the page is open: everybody's questions and answers
    for (;;) {
      try {
        const response = await fetch(`${base}/subscribe`, { signal })
        let rest = ''
        for await (const text of readable(response.body.pipeThrough(new TextDecoderStream()))) {
          const frames = (rest + text).split('\n\n')
          rest = frames.pop()
          for (const frame of frames) {
            const data = frame.split('\n').find(line => line.startsWith('data: '))
            if (data) yield JSON.parse(data.slice(6))
          }
        }
      } catch (error) {
        if (signal?.aborted) return
      }
      await new Promise(resolve => setTimeout(resolve, 1000))
    }
  },
  async send (messages, data, signal, { threadId, runId, parentRunId, resume, clientTools, forwardedProps }) {
    const body = { threadId, runId, parentRunId, resume, state: {}, messages: uiMessagesToWire(messages), tools: clientTools ?? [], context: [], forwardedProps: { ...forwardedProps, ...data } }
    const response = await fetch(`${base}/send`, { method: 'POST', headers: { 'content-type': 'application/json' }, body: JSON.stringify(body), signal })
    if (!response.ok) throw new Error(await response.text())
  }
}

async function * readable (stream) { // not every browser iterates over a stream
  const reader = stream.getReader()
  for (let { done, value } = await reader.read(); !done; { done, value } = await reader.read()) yield value
}

const text = parts => parts.filter(part => part.type === 'text').map(part => part.content).join('')
const client = new ChatClient({
  threadId: session,
  connection,
  onMessagesChange: messages => show(messages.map(({ id, role, parts }) => ({ id, role, text: text(parts) })))
})
client.subscribe()
onSend(text => client.sendMessage(text))
document.getElementById('stop').onclick = stop
