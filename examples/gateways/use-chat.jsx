import { StrictMode, useEffect, useState } from 'react'
import { createRoot } from 'react-dom/client'
import { useChat } from '@ai-sdk/react'
import { DefaultChatTransport } from 'ai'
import { service, session } from './place.js'

const api = `${service}/v1/gateways/ai-sdk/chat`
const history = () => fetch(`${api}/${session}/messages`).then(answer => answer.json()).then(({ messages }) => messages)

function Chat ({ initial }) {
  const [text, setText] = useState('')
  const { messages, setMessages, sendMessage, resumeStream, status, error } = useChat({
    id: session, messages: initial, resume: true, transport: new DefaultChatTransport({ api })
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
            {message.parts.map((part, index) => part.type === 'text' ? <span key={index}>{part.text}</span> : null)}
          </li>
        ))}
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
