import { HttpAgent, runHttpRequest, transformHttpEventStream } from '@ag-ui/client'
import { onSend, service, session, show, stop } from './place.js'

class SessionAgent extends HttpAgent { // connectAgent() joins the session and follows it
  connect (input) {
    return transformHttpEventStream(runHttpRequest(() => fetch(`${this.url}/${input.threadId}?follow=true`, { signal: this.abortController.signal })))
  }
}

const agent = new SessionAgent({ url: `${service}/v1/gateways/ag-ui`, threadId: session })
const draw = messages => show(messages.filter(({ role }) => ['user', 'assistant'].includes(role)).map(({ id, role, content }) => ({ id, role, text: content })))

// One agent follows; another one asks, and what comes of that is heard by the first, as by everybody else.
const follow = async () => {
  for (;;) {
    await agent.connectAgent({}, { onMessagesChanged: ({ messages }) => draw(messages) }).catch(() => {})
    await new Promise(resolve => setTimeout(resolve, 1000))
  }
}
onSend(text => {
  const asking = new HttpAgent({ url: `${service}/v1/gateways/ag-ui`, threadId: session })
  asking.addMessage({ id: crypto.randomUUID(), role: 'user', content: text })
  asking.runAgent({ runId: crypto.randomUUID() })
})
document.getElementById('stop').onclick = stop
follow()
