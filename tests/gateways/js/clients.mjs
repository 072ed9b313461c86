// Real chat clients, driven by JSON lines on standard input: {"call": 1, "command": "ai.send", ...}.
import { createInterface } from 'node:readline'
import { Chat } from '@ai-sdk/react'
import { DefaultChatTransport, WebSocketChatTransport, convertToModelMessages, streamText, lastAssistantMessageIsCompleteWithApprovalResponses, lastAssistantMessageIsCompleteWithToolCalls } from 'ai'
import { MockLanguageModelV4, simulateReadableStream } from 'ai/test'
import WebSocket from '../../interop/js/websocket.mjs'
import { HttpAgent, runHttpRequest, transformHttpEventStream } from '@ag-ui/client'
import { EventSchemas } from '@ag-ui/core/schemas'
import { ChatClient, fetchServerSentEvents } from '@tanstack/ai-client'
import { toolDefinition, uiMessagesToWire } from '@tanstack/ai'
import OpenAI from 'openai'

process.on('unhandledRejection', () => {}) // the AG-UI client leaks one when a socket is reset

class SessionAgent extends HttpAgent { // gives connectAgent() something to do
  connect (input) {
    this.abortController = new AbortController()
    return transformHttpEventStream(runHttpRequest(() => fetch(`${this.url}/${input.threadId}${this.follow ? '?follow=true' : ''}`,
      { headers: { accept: 'text/event-stream' }, signal: this.abortController.signal })))
  }
}

const agents = new Map()
// The adapter of docs/how-to/chat-clients.md for TanStack's subscribe and send
const subscribing = base => ({
  async * subscribe (signal) {
    const response = await fetch(`${base}/subscribe`, { signal })
    let rest = ''
    for await (const text of response.body.pipeThrough(new TextDecoderStream())) {
      const frames = (rest + text).split('\n\n')
      rest = frames.pop()
      for (const frame of frames) {
        const data = frame.split('\n').find(line => line.startsWith('data: '))
        if (data) yield JSON.parse(data.slice(6))
      }
    }
  },
  async send (messages, data, signal, context) {
    const body = { threadId: context.threadId, runId: context.runId, parentRunId: context.parentRunId, resume: context.resume, state: {}, messages: uiMessagesToWire(messages), tools: context.clientTools ?? [], context: [], forwardedProps: { ...context.forwardedProps, ...data } }
    const response = await fetch(`${base}/send`, { method: 'POST', headers: { 'content-type': 'application/json' }, body: JSON.stringify(body), signal })
    if (!response.ok) throw new Error(await response.text())
  }
})

const tans = new Map()
const chats = new Map()
const AUTO = { approvals: lastAssistantMessageIsCompleteWithApprovalResponses, tools: lastAssistantMessageIsCompleteWithToolCalls }

const seen = (name) => {
  const { chat, finished, sent, data, called } = chats.get(name)
  return { status: chat.status, error: chat.error?.message, messages: chat.messages, finished, sent, data, called }
}

const shown = name => {
  const { agent, mine: { events, busy, error, customs, asked } } = agents.get(name)
  return { busy, error, customs, asked, messages: agent.messages, state: agent.state, interrupts: agent.pendingInterrupts ?? [], events }
}

const going = (name, entry, run, wait) => {
  const mine = { busy: true, error: null, events: [], customs: [], asked: [] } // one that was left may end after the next one has begun
  Object.assign(entry, { mine })
  const note = event => event.type === 'RUN_ERROR' ? `RUN_ERROR ${event.message}` : event.outcome ? `${event.type} ${event.outcome.type}` : event.type
  const running = run({ onEvent: ({ event }) => { EventSchemas.parse(event); mine.events.push(note(event)); if (event.type === 'CUSTOM') mine.customs.push([event.name, event.value]); if (event.input) mine.asked.push(event.input) } })
    .catch(error => { mine.error = String(error?.message ?? error) })
    .finally(() => { mine.busy = false })
  return wait ? running.then(() => shown(name)) : undefined
}

const commands = {
  'ai.open' ({ name, id, url, transport = 'http', messages, activeRun, auto, headers, body, tools = {} }) {
    const finished = []
    const entry = { finished, sent: 0, data: [], called: [] }
    const counting = (...args) => { if (args[1]?.method === 'POST') entry.sent++; return fetch(...args) }
    const options = { headers, body }
    const shown = () => { // the run whose beginning is shown, or its question: its ending is wanted also if it has ended
      const { role, metadata: { status, runId } = {} } = entry.chat.messages.at(-1) ?? {}
      if (role === 'user' && activeRun && entry.chat.messages.length === messages.length) return { runId: activeRun }
      return ['queued', 'running'].includes(status) ? { runId } : {}
    }
    entry.chat = new Chat({
      id,
      messages,
      sendAutomaticallyWhen: auto && AUTO[auto],
      onData: part => entry.data.push(part),
      onToolCall ({ toolCall: { toolName, toolCallId } }) { // as the AI SDK's documentation shows it
        if (!(toolName in tools)) return
        entry.called.push(toolCallId)
        if (tools[toolName] !== null) entry.chat.addToolOutput({ tool: toolName, toolCallId, output: tools[toolName] })
      },
      onFinish: ({ isAbort, isDisconnect, isError, finishReason }) => finished.push({ isAbort, isDisconnect, isError, finishReason }),
      transport: transport === 'http'
        ? new DefaultChatTransport({
          api: `${url}/v1/gateways/ai-sdk/chat`,
          fetch: counting,
          prepareReconnectToStreamRequest: ({ id, api }) => ({ api: `${api}/${id}/stream?${new URLSearchParams(shown())}` }),
          ...options
        })
        : new WebSocketChatTransport({ url: `${url.replace('http', 'ws')}/v1/gateways/ai-sdk/chat`, webSocket: WebSocket, prepareReconnectToStreamRequest: () => ({ body: shown() }), ...options })
    })
    chats.set(name, entry)
  },
  'ai.send' ({ name, wait = true, options, ...message }) {
    const sending = chats.get(name).chat.sendMessage(message.text === undefined ? undefined : message, options)
    sending.catch(() => {})
    return wait ? sending.then(() => seen(name)) : undefined
  },
  async 'ai.regenerate' ({ name, messageId }) { await chats.get(name).chat.regenerate({ messageId }); return seen(name) },
  'ai.resume' ({ name, wait = true }) {
    const resuming = chats.get(name).chat.resumeStream()
    return wait ? resuming.then(() => seen(name)) : undefined
  },
  'ai.close' ({ name }) { chats.get(name).chat.dispose() }, // what ends the page's connection, as closing its tab does
  'ai.state' ({ name }) { return seen(name) },
  async 'ai.leave' ({ name }) { await chats.get(name).chat.stop(); return seen(name) },
  async 'ai.approve' ({ name, id, approved, reason }) { await chats.get(name).chat.addToolApprovalResponse({ id, approved, reason }) },
  async 'ai.model' ({ messages }) { // what a next turn of an application of the AI SDK's own makes of a history
    const usage = { inputTokens: { total: 1 }, outputTokens: { total: 1 } }
    const chunks = [{ type: 'stream-start', warnings: [] }, { type: 'text-start', id: '1' }, { type: 'text-delta', id: '1', delta: 'so' }, { type: 'text-end', id: '1' }, { type: 'finish', finishReason: { unified: 'stop', raw: 'stop' }, usage }]
    const model = new MockLanguageModelV4({ doStream: async () => ({ stream: simulateReadableStream({ chunks }) }) })
    let failed = null
    const { text } = streamText({ model, messages: await convertToModelMessages(messages), onError: ({ error }) => { failed = error } })
    const said = await text.then(value => value, error => { failed ??= error })
    return { text: said ?? null, error: failed && String(failed), prompt: model.doStreamCalls[0]?.prompt ?? null }
  },
  'ag.open' ({ name, url, thread, messages = [], follow = false }) {
    const agent = new SessionAgent({ url: `${url}/v1/gateways/ag-ui`, threadId: thread, initialMessages: messages })
    agent.follow = follow
    agents.set(name, { agent, mine: { busy: false, error: null, events: [] } })
  },
  'ag.run' ({ name, message, wait = true, ...parameters }) {
    const entry = agents.get(name)
    if (message) entry.agent.addMessage(message)
    return going(name, entry, subscriber => entry.agent.runAgent(parameters, subscriber), wait)
  },
  'ag.set' ({ name, state }) { agents.get(name).agent.setState(state) },
  'ag.forget' ({ name }) { // what a page does whose user wants another answer
    const { agent } = agents.get(name)
    agent.setMessages(agent.messages.slice(0, agent.messages.findLastIndex(message => message.role === 'user') + 1))
  },
  'ag.join' ({ name, wait = true }) {
    const entry = agents.get(name)
    return going(name, entry, subscriber => entry.agent.connectAgent({}, subscriber), wait)
  },
  'ag.leave' ({ name }) { agents.get(name).agent.abortRun() },
  'ag.state' ({ name }) { return shown(name) },
  'ts.open' ({ name, url, thread, mode = 'connect', messages, tools = [], results = {}, forwardedProps, headers = {} }) {
    const base = `${url}/v1/gateways/tanstack/${thread}`
    const entry = { errors: [], called: [], customs: [] }
    const execute = name => (input, { toolCallId }) => {
      entry.called.push(toolCallId)
      return name in results ? results[name] : results.never ? new Promise(() => {}) : {}
    }
    const more = { onCustomEvent: (name, value) => entry.customs.push([name, value]), tools: tools.map(tool => toolDefinition(tool).client(execute(tool.name))), forwardedProps }
    entry.client = new ChatClient(mode === 'connect'
      ? { ...more, threadId: thread, persistence: true, connection: fetchServerSentEvents(base, { headers, reconnect: { maxAttempts: 120 } }), onError: error => entry.errors.push(String(error?.message)) }
      : { ...more, threadId: thread, connection: subscribing(base), ...(messages && { initialMessages: messages }), onError: error => entry.errors.push(String(error?.message)) })
    tans.set(name, entry)
    if (mode === 'connect') entry.client.attach()
    else entry.client.subscribe()
  },
  'ts.send' ({ name, text }) { tans.get(name).client.sendMessage(text).catch(() => {}) },
  'ts.reload' ({ name }) { tans.get(name).client.reload().catch(() => {}) },
  'ts.decide' ({ name, payload }) { tans.get(name).client.getInterrupts()[0].resolveInterrupt(payload) },
  'ts.close' ({ name }) { tans.get(name).client.dispose() },
  'ts.state' ({ name }) {
    const { client, errors, called, customs } = tans.get(name)
    return { called, customs, status: client.getStatus(), error: client.getError()?.message, errors, messages: client.getMessages(), generating: client.getSessionGenerating(), interrupts: client.getInterrupts().map(({ id, canResolve, kind, metadata }) => ({ id, canResolve, kind, metadata })) }
  },
  'oa.retrieve' ({ url, session, id }) {
    const client = new OpenAI({ baseURL: `${url}/v1/gateways/openai`, apiKey: 'none', maxRetries: 0 })
    return client.chat.completions.retrieve(id, { headers: { 'X-Session-Id': session } })
  },
  async 'oa.tools' ({ url, session, text, stream, headers = {}, dies = false }) {
    const client = new OpenAI({ baseURL: `${url}/v1/gateways/openai`, apiKey: 'none', maxRetries: 0 })
    const called = []
    let dead
    const death = new Promise(resolve => { dead = resolve })
    const place = { name: 'place', parameters: { type: 'object', properties: {} }, parse: JSON.parse, function: input => { called.push(input); return dies ? dead() ?? new Promise(() => {}) : 'Oslo' } }
    const body = { model: 'writer', messages: [{ role: 'user', content: text }], tools: [{ type: 'function', function: place }], stream }
    const runner = client.chat.completions.runTools(body, { headers: { ...(session ? { 'X-Session-Id': session } : {}), ...headers } })
    if (dies) return death.then(() => ({ called }))
    return { said: await runner.finalContent(), called, messages: runner.messages }
  },
  async 'oa.complete' ({ url, stream, headers, ...body }) {
    const { chat } = new OpenAI({ baseURL: `${url}/v1/gateways/openai`, apiKey: 'none', maxRetries: 0 })
    const [{ message, finish_reason: finish }] = (stream ? await chat.completions.stream(body, { headers }).finalChatCompletion() : await chat.completions.create(body, { headers })).choices
    return { content: message.content ?? '', calls: (message.tool_calls ?? []).map(call => call.id), finish }
  },
  async 'ai.output' ({ name, tool, toolCallId, output }) { await chats.get(name).chat.addToolOutput({ tool, toolCallId, output }) }
}

for await (const line of createInterface({ input: process.stdin })) {
  const { call, command, ...options } = JSON.parse(line)
  Promise.resolve()
    .then(() => commands[command](options))
    .then(result => ({ call, result: result ?? null }), error => ({ call, error: String(error?.stack ?? error) }))
    .then(answer => console.log(JSON.stringify(answer)))
}
