import { StrictMode, useEffect, useState } from 'react'
import { createRoot } from 'react-dom/client'
import { useChat } from '@ai-sdk/react'
import { DefaultChatTransport, lastAssistantMessageIsCompleteWithToolCalls } from 'ai'
import { service, session } from './place.js'

const api = `${service}/v1/gateways/ai-sdk/chat`
const history = () => fetch(`${api}/${session}/messages`).then(answer => answer.json()).then(({ messages }) => messages)

// Tools that agents may have this page call (run.call_in_client): of all pages that are open, one is given the call.
const TOOLS = {
  time_zone: () => Intl.DateTimeFormat().resolvedOptions().timeZone
}
const device = sessionStorage.device ??= crypto.randomUUID() // of this tab, also when it is loaded again
const transport = new DefaultChatTransport({ api, headers: { 'X-Device-Id': device } })
const answer = parts => parts.slice(parts.findLastIndex(part => part.type === 'data-begun-anew') + 1) // what the agent did not take back

function Chat ({ initial }) {
  const [text, setText] = useState('')
  const [called, setCalled] = useState([])
  const { messages, setMessages, sendMessage, resumeStream, addToolOutput, status, error } = useChat({
    id: session,
    messages: initial,
    resume: true,
    transport,
    sendAutomaticallyWhen: lastAssistantMessageIsCompleteWithToolCalls,
    onToolCall ({ toolCall: { toolName, toolCallId } }) {
      if (!(toolName in TOOLS)) return
      setCalled(before => [...before, toolName])
      addToolOutput({ tool: toolName, toolCallId, output: TOOLS[toolName]() })
    }
  })

  // useChat hears only answers to its own questions: what others ask and are answered is told by the session's events.
  useEffect(() => {
    if (status !== 'ready') return
    const events = new EventSource(`${service}/v1/sessions/${encodeURIComponent(session)}/events?kinds=run`)
    let heard = false
    events.addEventListener('run', async ({ data }) => {
      const run = JSON.parse(data)
      if (heard || messages.some(message => message.metadata?.runId === run.id && message.metadata.status === run.status)) return
      heard = run.status === 'running'
      setMessages(await history())
      if (heard) resumeStream()
    })
    return () => events.close()
  }, [status, messages, setMessages, resumeStream])

  useEffect(() => { document.getElementById('messages').scrollTop = 1e9 }, [messages])

  const send = event => {
    event.preventDefault()
    if (text.trim()) sendMessage({ text })
    setText('')
  }
  return (
    <>
      <ol id="messages" aria-live="polite">
        {messages.map(message => (
          <li key={message.id} className={message.role}>
            {answer(message.parts).map((part, index) => part.type === 'text' ? <span key={index}>{part.text}</span> : null)}
          </li>
        ))}
        {called.map((name, index) => <li key={`called-${index}`} className="note">This page called {name}</li>)}
        {error && <li role="alert">{error.message}</li>}
      </ol>
      <form onSubmit={send}>
        <input name="text" value={text} onChange={event => setText(event.target.value)} placeholder="Ask something" aria-label="Message" autoComplete="off" />
        <button>Send</button>
        <button type="button" onClick={() => fetch(`${api}/${session}/stop`, { method: 'POST' })}>Stop</button>
      </form>
    </>
  )
}

const initial = await history()
createRoot(document.getElementById('root')).render(<StrictMode><Chat initial={initial} /></StrictMode>)
